//! The parameters of a convolution: from bytes of the section to trits, biases, and what follows the sums.

use ternwatch_kernels::trit::{self, Trit, TritError};

use super::{ModelError, Result};
use crate::manifest::Activation;
use crate::model::Epilogue;
use crate::model::check::layer_error;
use crate::model::limits::{SCALE_MAX, SCALE_MIN};

pub(super) struct Parameters<'a> {
    pub(super) trits: Vec<Trit>,
    bias: &'a [u8],
    last: &'a [u8],
}

/// Those of a layer, which begin at `offset`. Fails where they reach beyond the section or a byte is no trits.
pub(super) fn read<'a>(
    layer: &str,
    section: &'a [u8],
    offset: u32,
    trits_len: usize,
    out_channels: usize,
    activation: Activation,
) -> Result<Parameters<'a>> {
    let last_size = match activation {
        Activation::Relu => size_of::<i16>(),
        Activation::Linear => size_of::<f32>(),
    };
    let (packed_len, bias_len) = (trit::base3_len(trits_len), out_channels * size_of::<i16>());
    let len = packed_len + bias_len + out_channels * last_size;
    let bytes = section
        .get(offset as usize..)
        .and_then(|rest| rest.get(..len))
        .ok_or_else(|| ModelError::ParameterRange {
            layer: layer.to_owned(),
            offset,
            len,
            section: section.len(),
        })?;
    let (packed, rest) = bytes.split_at(packed_len);
    let (bias, last) = rest.split_at(bias_len);
    let trits =
        trit::unpack_base3(packed, trits_len).map_err(|TritError { offset: byte, .. }| {
            ModelError::Trit {
                layer: layer.to_owned(),
                offset: offset as usize + byte,
            }
        })?;
    Ok(Parameters { trits, bias, last })
}

impl Parameters<'_> {
    pub(super) fn bias(&self) -> impl Iterator<Item = i16> {
        i16s(self.bias)
    }

    pub(super) fn epilogue(
        &self,
        layer: &str,
        activation: Activation,
        pre_shift: u8,
    ) -> Result<Epilogue> {
        Ok(match activation {
            Activation::Relu => Epilogue::Relu {
                multiplier: multipliers(layer, self.last)?,
                pre_shift,
            },
            Activation::Linear => Epilogue::Linear {
                scale: scales(layer, self.last)?,
            },
        })
    }
}

fn i16s(bytes: &[u8]) -> impl Iterator<Item = i16> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| i16::from_le_bytes(bytes))
}

fn multipliers(layer: &str, bytes: &[u8]) -> Result<Vec<i16>> {
    let check = |(channel, multiplier): (usize, i16)| {
        if multiplier < 0 {
            return Err(layer_error(
                layer,
                format!("the multiplier of channel {channel} is {multiplier}, below 0"),
            ));
        }
        Ok(multiplier)
    };
    i16s(bytes).enumerate().map(check).collect()
}

fn scales(layer: &str, bytes: &[u8]) -> Result<Vec<f32>> {
    let check = |(channel, &bytes): (usize, &[u8; 4])| {
        let scale = f32::from_le_bytes(bytes);
        // A NaN is in no range.
        if !(SCALE_MIN..=SCALE_MAX).contains(&scale) {
            let problem = format!(
                "the scale of channel {channel} is {scale}, not {SCALE_MIN:e} to {SCALE_MAX:e}"
            );
            return Err(layer_error(layer, problem));
        }
        Ok(scale)
    };
    bytes.as_chunks().0.iter().enumerate().map(check).collect()
}
