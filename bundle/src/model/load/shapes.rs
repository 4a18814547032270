//! The sizes that the manifest declares of a layer, checked against the tensor that it reads.

use super::Result;
use crate::manifest::{Activation, PoolMode};
use crate::model::TensorShape;
use crate::model::check::layer_error;
use crate::model::limits::CHANNELS_MAX;

/// What a layer of this stride makes of a tensor, the channels left alone.
pub(super) fn strided(input: &TensorShape, stride: u32) -> TensorShape {
    TensorShape {
        channels: input.channels,
        height: input.height.div_ceil(stride as usize),
        width: input.width.div_ceil(stride as usize),
    }
}

/// The sizes of a convolution. After `check` no method overflows.
pub(super) struct ConvSizes {
    pub(super) in_channels: u32,
    pub(super) out_channels: u32,
    pub(super) kernel: u32,
    pub(super) stride: u32,
    pub(super) groups: u32,
}

impl ConvSizes {
    pub(super) fn check(
        &self,
        layer: &str,
        input: &str,
        input_shape: &TensorShape,
        activation: Activation,
    ) -> Result<()> {
        let &Self {
            in_channels,
            out_channels,
            kernel,
            stride,
            groups,
        } = self;
        let problem = if in_channels as usize != input_shape.channels {
            format!(
                "in_channels is {in_channels}, but \"{input}\" has {} channels",
                input_shape.channels
            )
        } else if !(1..=CHANNELS_MAX).contains(&out_channels) {
            format!("out_channels is {out_channels}, not 1 to {CHANNELS_MAX}")
        } else if !matches!(kernel, 1 | 3) {
            format!("kernel is {kernel}, not 1 or 3")
        } else if !matches!(stride, 1 | 2) {
            format!("stride is {stride}, not 1 or 2")
        } else if groups != 1 && (groups, groups) != (in_channels, out_channels) {
            format!(
                "groups is {groups}, neither 1 nor the number of channels on both sides, {in_channels} and {out_channels}"
            )
        } else if groups != 1 && activation != Activation::Relu {
            "is depthwise and linear, which a head cannot be".to_owned()
        } else {
            return Ok(());
        };
        Err(layer_error(layer, problem))
    }

    pub(super) fn output(&self, input: &TensorShape) -> TensorShape {
        TensorShape {
            channels: self.out_channels as usize,
            ..strided(input, self.stride)
        }
    }

    pub(super) fn trits_len(&self) -> usize {
        let inputs = self.in_channels / self.groups;
        (self.out_channels * inputs * self.kernel * self.kernel) as usize
    }
}

/// What a pool looks at.
pub(super) struct Window {
    pub(super) mode: PoolMode,
    pub(super) kernel: u32,
    pub(super) stride: u32,
}

impl Window {
    pub(super) fn check(&self, layer: &str, input: &str, input_shape: &TensorShape) -> Result<()> {
        let &Self {
            mode,
            kernel,
            stride,
        } = self;
        let (kernels, strides): (&[u32], &[u32]) = match mode {
            PoolMode::Max => (&[2, 3, 5], &[1, 2]),
            PoolMode::Mean => (&[2], &[2]),
        };
        let is_even = input_shape.height.is_multiple_of(2) && input_shape.width.is_multiple_of(2);
        let problem = if !kernels.contains(&kernel) {
            format!("kernel is {kernel}, not one of {kernels:?}, those of a {mode:?} pool")
        } else if !strides.contains(&stride) {
            format!("stride is {stride}, not one of {strides:?}, those of a {mode:?} pool")
        } else if mode == PoolMode::Mean && !is_even {
            format!("takes the mean of 2 x 2 values, but \"{input}\" is {input_shape:?}")
        } else {
            return Ok(());
        };
        Err(layer_error(layer, problem))
    }
}
