//! From manifest and parameter bytes to checked layers.

mod budget;
mod heads;
mod parameters;
mod shapes;

use std::collections::HashMap;

use self::budget::Budget;
use self::shapes::{ConvSizes, Window};
use super::check::{self, bounded, layer_error};
use super::limits::*;
use super::{
    AddLayer, AddUpsampledLayer, ConcatLayer, ConvLayer, ModelHead, ModelLayer, PoolLayer, Source,
    TensorShape,
};
use crate::manifest::{Activation, Input, Layer, Manifest};

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

impl Tensor {
    /// A fresh one, of activations.
    fn u7(shape: TensorShape, stride: u32) -> Self {
        Self {
            shape,
            stride,
            activation: Activation::Relu,
            is_read: false,
        }
    }

    /// For messages.
    fn described(&self) -> String {
        format!("{:?} at stride {}", self.shape, self.stride)
    }
}

/// A convolution's numbers beside its sizes.
struct ConvParameters {
    activation: Activation,
    pre_shift: u8,
    offset: u32,
}

struct Loader<'a> {
    parameters: &'a [u8],
    layers: Vec<ModelLayer>,
    /// The image, then one per layer.
    tensors: Vec<Tensor>,
    names: HashMap<&'a str, usize>,
    budget: Budget,
}

impl<'a> Loader<'a> {
    fn new(manifest: &Manifest, parameters: &'a [u8]) -> Self {
        let shape = input_shape(&manifest.input);
        Self {
            parameters,
            layers: Vec::with_capacity(manifest.layers.len()),
            tensors: vec![Tensor::u7(shape, 1)],
            names: HashMap::from([(IMAGE, 0)]),
            budget: Budget::beginning_with(&shape),
        }
    }

    fn add(&mut self, layer: &'a Layer) -> Result<()> {
        let name = layer.name();
        check::layer_name(name)?;
        let (loaded, tensor) = self.layer(name, layer)?;
        self.budget
            .activations(name, &tensor.shape, tensor.activation)?;
        if self.names.insert(name, self.tensors.len()).is_some() {
            return Err(layer_error(name, "a second tensor of this name"));
        }
        self.tensors.push(tensor);
        self.layers.push(loaded);
        Ok(())
    }

    /// The layer, and what it gives.
    fn layer(&mut self, name: &str, layer: &Layer) -> Result<(ModelLayer, Tensor)> {
        match *layer {
            Layer::Conv {
                ref input,
                in_channels,
                out_channels,
                kernel,
                stride,
                groups,
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
                    groups,
                };
                let parameters = ConvParameters {
                    activation,
                    pre_shift,
                    offset,
                };
                self.conv(name, input, sizes, parameters)
            }
            Layer::AddUpsampled {
                ref fine,
                ref coarse,
                ..
            } => self.add_upsampled(name, fine, coarse),
            Layer::Add {
                ref inputs, offset, ..
            } => self.add_tensors(name, inputs, offset),
            Layer::Concat { ref inputs, .. } => self.concat(name, inputs),
            Layer::Pool {
                ref input,
                mode,
                kernel,
                stride,
                ..
            } => {
                let window = Window {
                    mode,
                    kernel,
                    stride,
                };
                self.pool(name, input, window)
            }
        }
    }

    fn conv(
        &mut self,
        name: &str,
        input: &str,
        sizes: ConvSizes,
        parameters: ConvParameters,
    ) -> Result<(ModelLayer, Tensor)> {
        let ConvParameters {
            activation,
            pre_shift,
            offset,
        } = parameters;
        let (source, tensor) = self.read(name, input)?;
        sizes.check(name, input, &tensor.shape, activation)?;
        check::pre_shift(name, activation, pre_shift)?;
        let output_shape = sizes.output(&tensor.shape);
        let trits_len = sizes.trits_len();
        self.budget.weights(name, trits_len)?;
        let pixels = output_shape.height * output_shape.width;
        self.budget.work(name, trits_len as u64 * pixels as u64)?;
        let parameters = parameters::read(
            name,
            self.parameters,
            offset,
            trits_len,
            output_shape.channels,
            activation,
        )?;
        let epilogue = parameters.epilogue(name, activation, pre_shift)?;
        let conv = ConvLayer {
            name: name.to_owned(),
            input: source,
            input_shape: tensor.shape,
            output_shape,
            kernel: sizes.kernel as usize,
            stride: sizes.stride as usize,
            groups: sizes.groups as usize,
            bias: parameters.bias().collect(),
            trits: parameters.trits,
            epilogue,
        };
        let output = Tensor {
            activation,
            ..Tensor::u7(output_shape, tensor.stride.saturating_mul(sizes.stride))
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
        let expected = shapes::strided(&shape, 2);
        if coarse_tensor.shape != expected
            || coarse_tensor.stride != fine_tensor.stride.saturating_mul(2)
        {
            let problem = format!(
                "coarse \"{coarse}\" is {}, not half of fine \"{fine}\", {}",
                coarse_tensor.described(),
                fine_tensor.described()
            );
            return Err(layer_error(name, problem));
        }
        self.budget.work(name, budget::values(&shape))?;
        let add = AddUpsampledLayer {
            name: name.to_owned(),
            fine: fine_source,
            coarse: coarse_source,
            shape,
        };
        let output = Tensor::u7(shape, fine_tensor.stride);
        Ok((ModelLayer::AddUpsampled(add), output))
    }

    fn add_tensors(
        &mut self,
        name: &str,
        inputs: &[String; 2],
        offset: u8,
    ) -> Result<(ModelLayer, Tensor)> {
        let [first, second] = inputs;
        let (first_source, first_tensor) = self.read(name, first)?;
        let (second_source, second_tensor) = self.read(name, second)?;
        let shape = first_tensor.shape;
        if (second_tensor.shape, second_tensor.stride) != (shape, first_tensor.stride) {
            let problem = format!(
                "\"{second}\" is {}, not as \"{first}\", {}",
                second_tensor.described(),
                first_tensor.described()
            );
            return Err(layer_error(name, problem));
        }
        if offset > ADD_OFFSET_MAX {
            let problem = format!("offset is {offset}, more than {ADD_OFFSET_MAX}");
            return Err(layer_error(name, problem));
        }
        self.budget.work(name, budget::values(&shape))?;
        let add = AddLayer {
            name: name.to_owned(),
            inputs: [first_source, second_source],
            offset,
            shape,
        };
        let output = Tensor::u7(shape, first_tensor.stride);
        Ok((ModelLayer::Add(add), output))
    }

    fn concat(&mut self, name: &str, inputs: &[String]) -> Result<(ModelLayer, Tensor)> {
        let (first, others) = match inputs {
            [first, others @ ..] if (1..CONCAT_INPUTS_MAX).contains(&others.len()) => {
                (first, others)
            }
            _ => {
                let problem = format!(
                    "joins {} tensors, not 2 to {CONCAT_INPUTS_MAX}",
                    inputs.len()
                );
                return Err(layer_error(name, problem));
            }
        };
        let (first_source, first_tensor) = self.read(name, first)?;
        let (mut sources, mut shape) = (vec![first_source], first_tensor.shape);
        for other in others {
            let (source, tensor) = self.read(name, other)?;
            if (tensor.shape.height, tensor.shape.width, tensor.stride)
                != (shape.height, shape.width, first_tensor.stride)
            {
                let problem = format!(
                    "\"{other}\" is {}, which does not fit to \"{first}\", {}",
                    tensor.described(),
                    first_tensor.described()
                );
                return Err(layer_error(name, problem));
            }
            shape.channels += tensor.shape.channels;
            sources.push(source);
        }
        if shape.channels > CHANNELS_MAX as usize {
            let problem = format!("gives {} channels, not 1 to {CHANNELS_MAX}", shape.channels);
            return Err(layer_error(name, problem));
        }
        self.budget.work(name, budget::values(&shape))?;
        let concat = ConcatLayer {
            name: name.to_owned(),
            inputs: sources,
            shape,
        };
        let output = Tensor::u7(shape, first_tensor.stride);
        Ok((ModelLayer::Concat(concat), output))
    }

    fn pool(&mut self, name: &str, input: &str, window: Window) -> Result<(ModelLayer, Tensor)> {
        let (source, tensor) = self.read(name, input)?;
        window.check(name, input, &tensor.shape)?;
        let output_shape = shapes::strided(&tensor.shape, window.stride);
        let window_len = u64::from(window.kernel).pow(2);
        self.budget
            .work(name, window_len * budget::values(&output_shape))?;
        let pool = PoolLayer {
            name: name.to_owned(),
            input: source,
            input_shape: tensor.shape,
            output_shape,
            mode: window.mode,
            kernel: window.kernel as usize,
            stride: window.stride as usize,
        };
        let output = Tensor::u7(output_shape, tensor.stride.saturating_mul(window.stride));
        Ok((ModelLayer::Pool(pool), output))
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
}
