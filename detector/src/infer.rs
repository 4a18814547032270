//! Second stage: runs the layers on the input.
//!
//! Takes u7 planes, gives the logits of the heads. All activations share one arena, laid out in advance so that a
//! tensor's bytes are used again once its last reader ran ([`arena`]); the logits, which only decoding reads, have
//! memory of their own. Knows nothing of frames or boxes.

mod arena;

use std::ops::Range;

use ternwatch_bundle::Model;
use ternwatch_bundle::model::{AddUpsampledLayer, ConvLayer, Epilogue, ModelLayer, Source};
use ternwatch_kernels::conv::{self, Conv, ConvError, Scratch, Shape, ShapeError};
use ternwatch_kernels::{Isa, merge};

use arena::Lifetime;

/// Output of one layer, `[channel][row][column]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LayerOutput<'a> {
    /// 0 to 127.
    U7(&'a [u8]),
    /// Of a `linear` convolution.
    I16(&'a [i16]),
}

/// The layers of one model, ready to run.
#[derive(Debug)]
pub(crate) struct Network {
    isa: Isa,
    steps: Vec<Step>,
    image: Range<usize>,
    activations: Vec<u8>,
    logits: Vec<i16>,
    /// Where each layer's logits are; empty for layers that have none.
    logits_of: Vec<Range<usize>>,
    scratch: Scratch,
}

/// One layer. Ranges are bytes of the activations, except for the output of `Linear`, which is in the logits.
#[derive(Debug)]
enum Step {
    Relu {
        conv: Conv,
        input: Range<usize>,
        output: Range<usize>,
    },
    Linear {
        conv: Conv,
        input: Range<usize>,
        output: Range<usize>,
    },
    AddUpsampled {
        fine: Range<usize>,
        coarse: Range<usize>,
        output: Range<usize>,
        channels: usize,
        height: usize,
        width: usize,
    },
}

impl Network {
    /// Plans the memory and builds every convolution. There is working memory for so many threads.
    pub(crate) fn new(model: &Model, isa: Isa, threads: usize) -> Result<Self, NetworkError> {
        let plan = arena::plan(&lifetimes(model));
        let range = |source: Source| plan.ranges[tensor_index(source)].clone();
        let mut logits_len = 0;
        let mut scratch_len = 0;
        let mut steps = Vec::with_capacity(model.layers().len());
        let mut logits_of = vec![0..0; model.layers().len()];
        for (index, layer) in model.layers().iter().enumerate() {
            steps.push(match layer {
                ModelLayer::Conv(layer) => {
                    let conv = build(layer)?;
                    scratch_len = scratch_len.max(conv.scratch_len());
                    let input = range(layer.input);
                    match layer.epilogue {
                        Epilogue::Relu { .. } => Step::Relu {
                            conv,
                            input,
                            output: range(Source::Layer(index)),
                        },
                        Epilogue::Linear { .. } => {
                            let output = logits_len..logits_len + layer.output_shape.len();
                            logits_len = output.end;
                            logits_of[index] = output.clone();
                            Step::Linear {
                                conv,
                                input,
                                output,
                            }
                        }
                    }
                }
                ModelLayer::AddUpsampled(AddUpsampledLayer {
                    fine,
                    coarse,
                    shape,
                    ..
                }) => Step::AddUpsampled {
                    fine: range(*fine),
                    coarse: range(*coarse),
                    output: range(Source::Layer(index)),
                    channels: shape.channels,
                    height: shape.height,
                    width: shape.width,
                },
            });
        }
        Ok(Self {
            isa,
            steps,
            image: range(Source::Image),
            activations: vec![0; plan.len],
            logits: vec![0; logits_len],
            logits_of,
            scratch: Scratch::for_threads(scratch_len, threads),
        })
    }

    /// Bytes of activations, logits and the kernels' working memory.
    pub(crate) fn memory_len(&self) -> usize {
        let scratch_len = self.scratch.threads() * self.scratch.len();
        self.activations.len() + size_of_val(self.logits.as_slice()) + scratch_len
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// The input tensor: lost once the network ran.
    pub(crate) fn image(&self) -> &[u8] {
        &self.activations[self.image.clone()]
    }

    /// The input tensor, to be filled with values of at most 127.
    pub(crate) fn image_mut(&mut self) -> &mut [u8] {
        &mut self.activations[self.image.clone()]
    }

    /// What the `linear` layer of this index gave when the network ran last.
    pub(crate) fn logits(&self, layer: usize) -> &[i16] {
        &self.logits[self.logits_of[layer].clone()]
    }

    /// Runs every layer, and shows each one's output before the next one runs.
    pub(crate) fn run(&mut self, mut observe: impl FnMut(usize, LayerOutput<'_>)) {
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Relu {
                    conv,
                    input,
                    output,
                } => {
                    let [input, output] = split(&mut self.activations, [input, output]);
                    conv.run_relu(self.isa, input, output, &mut self.scratch);
                    observe(index, LayerOutput::U7(output));
                }
                Step::Linear {
                    conv,
                    input,
                    output,
                } => {
                    let output = &mut self.logits[output.clone()];
                    conv.run_linear(
                        self.isa,
                        &self.activations[input.clone()],
                        output,
                        &mut self.scratch,
                    );
                    observe(index, LayerOutput::I16(output));
                }
                Step::AddUpsampled {
                    fine,
                    coarse,
                    output,
                    channels,
                    height,
                    width,
                } => {
                    let [fine, coarse, output] =
                        split(&mut self.activations, [fine, coarse, output]);
                    merge::add_upsampled(fine, coarse, *channels, *height, *width, output);
                    observe(index, LayerOutput::U7(output));
                }
            }
        }
    }
}

fn split<'a, const N: usize>(arena: &'a mut [u8], ranges: [&Range<usize>; N]) -> [&'a mut [u8]; N] {
    arena
        .get_disjoint_mut(ranges.map(Clone::clone))
        .expect("the plan keeps tensors that live at once apart")
}

/// The image is tensor 0, the output of layer i is tensor i + 1.
fn tensor_index(source: Source) -> usize {
    match source {
        Source::Image => 0,
        Source::Layer(index) => index + 1,
    }
}

/// When each tensor is written first and read last; logits take no place among them.
fn lifetimes(model: &Model) -> Vec<Lifetime> {
    let output_len = |layer: &ModelLayer| match layer {
        ModelLayer::Conv(ConvLayer {
            epilogue: Epilogue::Linear { .. },
            ..
        }) => 0,
        _ => layer.output_shape().len(),
    };
    let lens = [model.input_shape().len()]
        .into_iter()
        .chain(model.layers().iter().map(output_len));
    // A tensor's index is also the time when it is written.
    let mut lifetimes: Vec<Lifetime> = lens
        .enumerate()
        .map(|(time, len)| Lifetime {
            len,
            first: time,
            last: time,
        })
        .collect();
    for (index, layer) in model.layers().iter().enumerate() {
        let sources = match layer {
            ModelLayer::Conv(conv) => [conv.input, conv.input],
            ModelLayer::AddUpsampled(add) => [add.fine, add.coarse],
        };
        for source in sources {
            lifetimes[tensor_index(source)].last = index + 1;
        }
    }
    lifetimes
}

fn build(layer: &ConvLayer) -> Result<Conv, NetworkError> {
    let input = layer.input_shape;
    let shape = Shape::new(
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
    })?;
    let bias = layer.bias.clone();
    let epilogue = match &layer.epilogue {
        Epilogue::Relu {
            multiplier,
            pre_shift,
        } => conv::Epilogue::Relu {
            bias,
            multiplier: multiplier.clone(),
            pre_shift: *pre_shift,
        },
        Epilogue::Linear { .. } => conv::Epilogue::Linear { bias },
    };
    Conv::new(shape, &layer.trits, epilogue).map_err(|source| NetworkError::Conv {
        layer: layer.name.clone(),
        source,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use rayon_core::ThreadPoolBuilder;
    use ternwatch_bundle::testing;

    fn model(seed: u64) -> Model {
        let (file, key) = testing::small_bundle(seed);
        testing::load(&file, &key)
    }

    /// Runs the specification layer by layer, every tensor in memory of its own.
    fn run_plainly(model: &Model, image: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<i16>>) {
        let mut tensors = vec![image.to_vec()];
        let mut logits = vec![];
        for layer in model.layers() {
            let mut output = vec![0; layer.output_shape().len()];
            let mut linear = vec![];
            match layer {
                ModelLayer::Conv(layer) => {
                    let conv = build(layer).unwrap();
                    let input = &tensors[tensor_index(layer.input)];
                    if matches!(layer.epilogue, Epilogue::Relu { .. }) {
                        conv::scalar::run_relu(&conv, input, &mut output);
                    } else {
                        linear = vec![0; output.len()];
                        conv::scalar::run_linear(&conv, input, &mut linear);
                    }
                }
                ModelLayer::AddUpsampled(add) => {
                    let (fine, coarse) = (
                        &tensors[tensor_index(add.fine)],
                        &tensors[tensor_index(add.coarse)],
                    );
                    merge::add_upsampled(
                        fine,
                        coarse,
                        add.shape.channels,
                        add.shape.height,
                        add.shape.width,
                        &mut output,
                    );
                }
            }
            tensors.push(output);
            logits.push(linear);
        }
        (tensors, logits)
    }

    #[test]
    fn neither_reuse_of_memory_nor_threads_change_a_layer_on_any_instruction_set() {
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (seed, threads) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            let model = model(seed);
            let image: Vec<u8> = (0..model.input_shape().len())
                .map(|i| (i * (37 + seed as usize) % 128) as u8)
                .collect();
            let (tensors, logits) = run_plainly(&model, &image);
            for isa in Isa::available() {
                let mut network = Network::new(&model, isa, threads).unwrap();
                let all: usize = tensors.iter().map(Vec::len).sum();
                assert!(network.activations.len() < all, "nothing was reused");
                for _ in 0..2 {
                    network.image_mut().copy_from_slice(&image);
                    let mut observed = 0;
                    pool.install(|| {
                        network.run(|index, output| {
                            assert_eq!(index, observed);
                            observed += 1;
                            match output {
                                LayerOutput::U7(output) => {
                                    assert_eq!(output, tensors[index + 1], "{isa} layer {index}")
                                }
                                LayerOutput::I16(output) => {
                                    assert_eq!(output, logits[index], "{isa} layer {index}")
                                }
                            }
                        })
                    });
                    assert_eq!(observed, model.layers().len());
                    for head in model.heads() {
                        assert_eq!(network.logits(head.layer), logits[head.layer]);
                    }
                }
            }
        }
    }
}
