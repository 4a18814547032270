//! From manifest and parameter bytes to checked layers.

use std::collections::HashMap;

use ternwatch_kernels::trit::{self, Trit, TritError};

use super::check::{self, bounded, layer_error, manifest_error};
use super::limits::*;
use super::{AddUpsampledLayer, ConvLayer, Epilogue, ModelHead, ModelLayer, Source, TensorShape};
use crate::manifest::{Activation, Head, Input, Layer, Manifest};

/// The name under which layers read the input tensor.
const IMAGE: &str = "image";

/// Why a signed bundle is no model that this program can run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A number or text of the manifest is out of its bounds.
    #[error("manifest, {place}: {problem}")]
    Manifest {
        /// The key, or what it belongs to.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer cannot run.
    #[error("layer \"{layer}\": {problem}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Parameters reach beyond the bundle.
    #[error(
        "layer \"{layer}\": its {len} bytes of parameters at offset {offset} end after the section of {section} bytes"
    )]
    ParameterRange {
        /// Name of the layer.
        layer: String,
        /// Where its parameters begin.
        offset: u32,
        /// How many bytes they take.
        len: usize,
        /// Length of the parameter section.
        section: usize,
    },
    /// A byte is no five trits.
    #[error(
        "layer \"{layer}\": the byte at offset {offset} of the parameters is no code of five trits"
    )]
    Trit {
        /// Name of the layer.
        layer: String,
        /// Where the byte is in the parameter section.
        offset: usize,
    },
}

type Result<T> = std::result::Result<T, ModelError>;

pub(super) fn load(
    manifest: &Manifest,
    parameters: &[u8],
) -> Result<(Vec<ModelLayer>, Vec<ModelHead>)> {
    check::identity(manifest)?;
    check::input(&manifest.input)?;
    let mut loader = Loader::new(manifest, parameters);
    bounded("layers", manifest.layers.len(), 1, LAYERS_MAX)?;
    for layer in &manifest.layers {
        loader.add(layer)?;
    }
    let heads = loader.heads(&manifest.heads, manifest.classes.len())?;
    check::golden(&manifest.golden, manifest.layers.len())?;
    Ok((loader.layers, heads))
}

pub(super) fn input_shape(input: &Input) -> TensorShape {
    TensorShape {
        channels: input.channels as usize,
        height: input.height as usize,
        width: input.width as usize,
    }
}

/// A tensor that later layers may read.
#[derive(Clone, Copy)]
struct Tensor {
    shape: TensorShape,
    /// Input pixels between neighbouring values: tells apart tensors whose sizes agree by chance.
    stride: u32,
    activation: Activation,
    is_read: bool,
}

struct Loader<'a> {
    parameters: &'a [u8],
    layers: Vec<ModelLayer>,
    /// The image, then one per layer.
    tensors: Vec<Tensor>,
    names: HashMap<&'a str, usize>,
    trits: u64,
    macs: u64,
    activation_bytes: u64,
}

impl<'a> Loader<'a> {
    fn new(manifest: &Manifest, parameters: &'a [u8]) -> Self {
        let shape = input_shape(&manifest.input);
        let image = Tensor {
            shape,
            stride: 1,
            activation: Activation::Relu,
            is_read: false,
        };
        Self {
            parameters,
            layers: Vec::with_capacity(manifest.layers.len()),
            tensors: vec![image],
            names: HashMap::from([(IMAGE, 0)]),
            trits: 0,
            macs: 0,
            activation_bytes: shape.len() as u64,
        }
    }

    fn add(&mut self, layer: &'a Layer) -> Result<()> {
        let name = match layer {
            Layer::Conv { name, .. } | Layer::AddUpsampled { name, .. } => name,
        };
        check::layer_name(name)?;
        let (loaded, tensor) = match layer {
            Layer::AddUpsampled { fine, coarse, .. } => self.add_upsampled(name, fine, coarse)?,
            &Layer::Conv {
                ref input,
                in_channels,
                out_channels,
                kernel,
                stride,
                activation,
                pre_shift,
                offset,
                ..
            } => {
                let sizes = ConvSizes {
                    in_channels,
                    out_channels,
                    kernel,
                    stride,
                };
                self.conv(name, input, sizes, (activation, pre_shift), offset)?
            }
        };
        self.count_activations(name, &tensor)?;
        if self.names.insert(name, self.tensors.len()).is_some() {
            return Err(layer_error(name, "a second tensor of this name"));
        }
        self.tensors.push(tensor);
        self.layers.push(loaded);
        Ok(())
    }

    fn conv(
        &mut self,
        name: &str,
        input: &str,
        sizes: ConvSizes,
        (activation, pre_shift): (Activation, u8),
        offset: u32,
    ) -> Result<(ModelLayer, Tensor)> {
        let (source, tensor) = self.read(name, input)?;
        sizes.check(name, input, &tensor.shape)?;
        check::pre_shift(name, activation, pre_shift)?;
        let (kernel, stride) = (sizes.kernel as usize, sizes.stride as usize);
        let output_shape = TensorShape {
            channels: sizes.out_channels as usize,
            height: tensor.shape.height.div_ceil(stride),
            width: tensor.shape.width.div_ceil(stride),
        };
        let trits_len = output_shape.channels * tensor.shape.channels * kernel * kernel;
        self.count_work(name, trits_len, output_shape)?;
        let parameters =
            self.parameters(name, offset, trits_len, output_shape.channels, activation)?;
        let epilogue = match activation {
            Activation::Relu => Epilogue::Relu {
                multiplier: multipliers(name, parameters.last)?,
                pre_shift,
            },
            Activation::Linear => Epilogue::Linear {
                scale: scales(name, parameters.last)?,
            },
        };
        let conv = ConvLayer {
            name: name.to_owned(),
            input: source,
            input_shape: tensor.shape,
            output_shape,
            kernel,
            stride,
            trits: parameters.trits,
            bias: i16s(parameters.bias).collect(),
            epilogue,
        };
        let output = Tensor {
            shape: output_shape,
            stride: tensor.stride.saturating_mul(sizes.stride),
            activation,
            is_read: false,
        };
        Ok((ModelLayer::Conv(conv), output))
    }

    fn add_upsampled(
        &mut self,
        name: &str,
        fine: &str,
        coarse: &str,
    ) -> Result<(ModelLayer, Tensor)> {
        let (fine_source, fine_tensor) = self.read(name, fine)?;
        let (coarse_source, coarse_tensor) = self.read(name, coarse)?;
        let shape = fine_tensor.shape;
        let expected = TensorShape {
            height: shape.height.div_ceil(2),
            width: shape.width.div_ceil(2),
            ..shape
        };
        if coarse_tensor.shape != expected
            || coarse_tensor.stride != fine_tensor.stride.saturating_mul(2)
        {
            let problem = format!(
                "coarse \"{coarse}\" is {:?} at stride {}, not half of fine \"{fine}\", {:?} at stride {}",
                coarse_tensor.shape, coarse_tensor.stride, shape, fine_tensor.stride
            );
            return Err(layer_error(name, problem));
        }
        let add = AddUpsampledLayer {
            name: name.to_owned(),
            fine: fine_source,
            coarse: coarse_source,
            shape,
        };
        Ok((
            ModelLayer::AddUpsampled(add),
            Tensor {
                is_read: false,
                ..fine_tensor
            },
        ))
    }

    /// The u7 tensor that a layer reads.
    fn read(&mut self, layer: &str, input: &str) -> Result<(Source, Tensor)> {
        let Some(&index) = self.names.get(input) else {
            return Err(layer_error(
                layer,
                format!("reads {input:?}, which is neither \"{IMAGE}\" nor a layer before it"),
            ));
        };
        let tensor = &mut self.tensors[index];
        if tensor.activation == Activation::Linear {
            return Err(layer_error(
                layer,
                format!("reads \"{input}\", whose output is linear and only for a head"),
            ));
        }
        tensor.is_read = true;
        let source = index.checked_sub(1).map_or(Source::Image, Source::Layer);
        Ok((source, *tensor))
    }

    fn count_activations(&mut self, layer: &str, tensor: &Tensor) -> Result<()> {
        let bytes_per_value = match tensor.activation {
            Activation::Relu => size_of::<u8>(),
            Activation::Linear => size_of::<i16>(),
        };
        self.activation_bytes += bytes_per_value as u64 * values(&tensor.shape);
        if self.activation_bytes > ACTIVATION_BYTES_MAX {
            let problem = format!("with it the activations exceed {ACTIVATION_BYTES_MAX} bytes");
            return Err(layer_error(layer, problem));
        }
        Ok(())
    }

    fn count_work(&mut self, layer: &str, trits_len: usize, output: TensorShape) -> Result<()> {
        self.trits += trits_len as u64;
        if self.trits > TRITS_MAX {
            return Err(layer_error(
                layer,
                format!("with it the model has more than {TRITS_MAX} weights"),
            ));
        }
        self.macs += trits_len as u64 * (output.height * output.width) as u64;
        if self.macs > MACS_MAX {
            return Err(layer_error(
                layer,
                format!("with it a frame takes more than {MACS_MAX} multiply-accumulates"),
            ));
        }
        Ok(())
    }

    fn parameters(
        &self,
        layer: &str,
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
        let bytes = self
            .parameters
            .get(offset as usize..)
            .and_then(|rest| rest.get(..len))
            .ok_or_else(|| ModelError::ParameterRange {
                layer: layer.to_owned(),
                offset,
                len,
                section: self.parameters.len(),
            })?;
        let (packed, rest) = bytes.split_at(packed_len);
        let (bias, last) = rest.split_at(bias_len);
        let trits = trit::unpack_base3(packed, trits_len).map_err(
            |TritError { offset: byte, .. }| ModelError::Trit {
                layer: layer.to_owned(),
                offset: offset as usize + byte,
            },
        )?;
        Ok(Parameters { trits, bias, last })
    }

    /// The heads, and the check that no layer is left over: it would cost time for nothing.
    fn heads(&self, heads: &[Head], classes: usize) -> Result<Vec<ModelHead>> {
        bounded("heads", heads.len(), 1, HEADS_MAX)?;
        let mut loaded: Vec<ModelHead> = Vec::with_capacity(heads.len());
        for Head {
            layer,
            stride,
            kind,
        } in heads
        {
            let Some(index) = self
                .names
                .get(layer.as_str())
                .and_then(|index| index.checked_sub(1))
            else {
                return Err(manifest_error(
                    "heads",
                    format!("there is no layer {layer:?}"),
                ));
            };
            let tensor = self.tensors[index + 1];
            if tensor.activation != Activation::Linear {
                return Err(layer_error(
                    layer,
                    "is a head, but not a linear convolution",
                ));
            }
            let channels = kind.channels(classes);
            if tensor.shape.channels != channels {
                let problem = format!(
                    "has {} channels, a head of {classes} classes needs {channels}",
                    tensor.shape.channels,
                );
                return Err(layer_error(layer, problem));
            }
            if tensor.stride != *stride {
                let problem = format!(
                    "its head says stride {stride}, but it lies at stride {}",
                    tensor.stride
                );
                return Err(layer_error(layer, problem));
            }
            if loaded.iter().any(|head| head.layer == index) {
                return Err(layer_error(layer, "is a head twice"));
            }
            loaded.push(ModelHead {
                layer: index,
                stride: *stride,
                kind: *kind,
            });
        }
        let is_head = |index| loaded.iter().any(|head| head.layer == index);
        for (index, (layer, tensor)) in self.layers.iter().zip(&self.tensors[1..]).enumerate() {
            if !tensor.is_read && !is_head(index) {
                return Err(layer_error(
                    layer.name(),
                    "no layer reads its output and it is no head",
                ));
            }
        }
        Ok(loaded)
    }
}

/// The numbers of a convolution that the manifest declares.
struct ConvSizes {
    in_channels: u32,
    out_channels: u32,
    kernel: u32,
    stride: u32,
}

impl ConvSizes {
    fn check(&self, layer: &str, input: &str, input_shape: &TensorShape) -> Result<()> {
        let Self {
            in_channels,
            out_channels,
            kernel,
            stride,
        } = self;
        let problem = if *in_channels as usize != input_shape.channels {
            format!(
                "in_channels is {in_channels}, but \"{input}\" has {} channels",
                input_shape.channels
            )
        } else if !(1..=CHANNELS_MAX).contains(out_channels) {
            format!("out_channels is {out_channels}, not 1 to {CHANNELS_MAX}")
        } else if !matches!(kernel, 1 | 3) {
            format!("kernel is {kernel}, not 1 or 3")
        } else if !matches!(stride, 1 | 2) {
            format!("stride is {stride}, not 1 or 2")
        } else {
            return Ok(());
        };
        Err(layer_error(layer, problem))
    }
}

struct Parameters<'a> {
    trits: Vec<Trit>,
    bias: &'a [u8],
    last: &'a [u8],
}

/// Values of a tensor, which may be more than this machine can address.
fn values(shape: &TensorShape) -> u64 {
    [shape.channels, shape.height, shape.width]
        .iter()
        .map(|&side| side as u64)
        .product()
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
