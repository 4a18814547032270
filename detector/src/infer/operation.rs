//! What a layer does: the kernel that it needs, built once, and its call.

use ternwatch_bundle::manifest::PoolMode;
use ternwatch_bundle::model::{ConvLayer, Epilogue, ModelLayer, PoolLayer, TensorShape};
use ternwatch_kernels::conv::{self, Conv, ConvError, Depthwise, Scratch, Shape, ShapeError};
use ternwatch_kernels::{Isa, merge, pool};

use super::arena::Inputs;

/// A layer without its place in memory.
#[derive(Debug)]
pub(super) enum Operation {
    Relu(Conv),
    /// Gives logits, which `run` cannot: its caller runs it.
    Linear(Conv),
    Depthwise(Depthwise),
    /// Of the output's shape.
    AddUpsampled(TensorShape),
    Add {
        offset: u8,
    },
    Concat,
    Pool {
        mode: PoolMode,
        kernel: usize,
        stride: usize,
        input_shape: TensorShape,
    },
}

impl Operation {
    /// For this level.
    pub(super) fn new(layer: &ModelLayer, isa: Isa) -> Result<Self, NetworkError> {
        Ok(match layer {
            ModelLayer::Conv(layer) if layer.groups != 1 => {
                Self::Depthwise(build_depthwise(layer)?)
            }
            ModelLayer::Conv(layer) => match layer.epilogue {
                Epilogue::Relu { .. } => Self::Relu(build(layer, isa)?),
                Epilogue::Linear { .. } => Self::Linear(build(layer, isa)?),
            },
            ModelLayer::AddUpsampled(layer) => Self::AddUpsampled(layer.shape),
            ModelLayer::Add(layer) => Self::Add {
                offset: layer.offset,
            },
            ModelLayer::Concat(_) => Self::Concat,
            &ModelLayer::Pool(PoolLayer {
                mode,
                kernel,
                stride,
                input_shape,
                ..
            }) => Self::Pool {
                mode,
                kernel,
                stride,
                input_shape,
            },
        })
    }

    /// Bytes of working memory that each thread needs.
    pub(super) fn scratch_len(&self) -> usize {
        match self {
            Self::Relu(conv) | Self::Linear(conv) => conv.scratch_len(),
            _ => 0,
        }
    }

    /// Computes activations.
    ///
    /// # Panics
    /// When it is linear, or a tensor's length is not that of its shape.
    pub(super) fn run(&self, inputs: &Inputs<'_>, output: &mut [u8], scratch: &mut Scratch) {
        match self {
            Self::Relu(conv) => conv.run_relu(inputs.get(0), output, scratch),
            Self::Linear(_) => unreachable!("a linear convolution gives no activations"),
            Self::Depthwise(conv) => conv.run(inputs.get(0), output, scratch),
            &Self::AddUpsampled(TensorShape {
                channels,
                height,
                width,
            }) => merge::add_upsampled(
                inputs.get(0),
                inputs.get(1),
                channels,
                height,
                width,
                output,
            ),
            Self::Add { offset } => merge::add(inputs.get(0), inputs.get(1), *offset, output),
            Self::Concat => {
                let mut rest = output;
                for input in inputs.iter() {
                    let (planes, others) = rest.split_at_mut(input.len());
                    planes.copy_from_slice(input);
                    rest = others;
                }
                assert!(rest.is_empty(), "the channels add up to the output's");
            }
            &Self::Pool {
                mode,
                kernel,
                stride,
                input_shape,
            } => {
                let TensorShape {
                    channels,
                    height,
                    width,
                } = input_shape;
                let sides = [height, width];
                match mode {
                    PoolMode::Max => {
                        pool::max(inputs.get(0), channels, sides, kernel, stride, output)
                    }
                    PoolMode::Mean => pool::mean(inputs.get(0), channels, sides, output),
                }
            }
        }
    }
}

/// The convolution of all planes.
pub(super) fn build(layer: &ConvLayer, isa: Isa) -> Result<Conv, NetworkError> {
    Conv::new(isa, shape(layer)?, &layer.trits, epilogue(layer)).map_err(refused(layer))
}

fn build_depthwise(layer: &ConvLayer) -> Result<Depthwise, NetworkError> {
    Depthwise::new(shape(layer)?, &layer.trits, epilogue(layer)).map_err(refused(layer))
}

fn shape(layer: &ConvLayer) -> Result<Shape, NetworkError> {
    let input = layer.input_shape;
    Shape::new(
        input.channels,
        layer.output_shape.channels,
        layer.kernel,
        layer.stride,
        input.height,
        input.width,
    )
    .map_err(|source| NetworkError::Shape {
        layer: layer.name.clone(),
        source,
    })
}

fn epilogue(layer: &ConvLayer) -> conv::Epilogue {
    let bias = layer.bias.clone();
    match &layer.epilogue {
        Epilogue::Relu {
            multiplier,
            pre_shift,
        } => conv::Epilogue::Relu {
            bias,
            multiplier: multiplier.clone(),
            pre_shift: *pre_shift,
        },
        Epilogue::Linear { .. } => conv::Epilogue::Linear { bias },
    }
}

fn refused(layer: &ConvLayer) -> impl FnOnce(ConvError) -> NetworkError {
    |source| NetworkError::Conv {
        layer: layer.name.clone(),
        source,
    }
}

/// Why a layer cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The kernels have no such size.
    #[error("layer \"{layer}\": {source}")]
    Shape {
        /// Name of the layer.
        layer: String,
        /// What is wrong.
        source: ShapeError,
    },
    /// The kernels refuse the parameters.
    #[error("layer \"{layer}\": {source}")]
    Conv {
        /// Name of the layer.
        layer: String,
        /// What is wrong.
        source: ConvError,
    },
}
