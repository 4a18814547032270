//! Second stage: runs the layers on the input.
//!
//! Takes u7 planes, gives the logits of the heads. All activations share one arena, laid out in advance so that a
//! tensor's bytes are used again once its last reader ran ([`arena`]); the logits, which only decoding reads, have
//! memory of their own. Knows nothing of frames or boxes.

mod arena;
mod operation;

use std::ops::Range;

use ternwatch_bundle::Model;
use ternwatch_bundle::model::{ConvLayer, Epilogue, ModelLayer, Source};
use ternwatch_kernels::Isa;
use ternwatch_kernels::conv::Scratch;

use arena::Lifetime;
pub use operation::NetworkError;
use operation::Operation;

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

/// One layer. Ranges are bytes of the activations, except for the output of a linear convolution, which is in the logits.
#[derive(Debug)]
struct Step {
    operation: Operation,
    inputs: Vec<Range<usize>>,
    output: Range<usize>,
}

impl Network {
    /// Plans the memory and builds every layer. There is working memory for so many threads.
    pub(crate) fn new(model: &Model, isa: Isa, threads: usize) -> Result<Self, NetworkError> {
        let plan = arena::plan(&lifetimes(model));
        let range = |source: Source| plan.ranges[tensor_index(source)].clone();
        let mut logits_len = 0;
        let mut scratch_len = 0;
        let mut steps = Vec::with_capacity(model.layers().len());
        let mut logits_of = vec![0..0; model.layers().len()];
        for (index, layer) in model.layers().iter().enumerate() {
            let operation = Operation::new(layer, isa)?;
            scratch_len = scratch_len.max(operation.scratch_len());
            let output = if is_linear(layer) {
                let output = logits_len..logits_len + layer.output_shape().len();
                logits_len = output.end;
                logits_of[index] = output.clone();
                output
            } else {
                range(Source::Layer(index))
            };
            steps.push(Step {
                operation,
                inputs: layer.sources().into_iter().map(range).collect(),
                output,
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
            if let Operation::Linear(conv) = &step.operation {
                let input = &self.activations[step.inputs[0].clone()];
                let output = &mut self.logits[step.output.clone()];
                conv.run_linear(input, output, &mut self.scratch);
                observe(index, LayerOutput::I16(output));
            } else {
                let activations = &mut self.activations;
                let (output, inputs) = arena::apart(activations, &step.output, &step.inputs);
                step.operation.run(&inputs, output, &mut self.scratch);
                observe(index, LayerOutput::U7(output));
            }
        }
    }
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
        linear if is_linear(linear) => 0,
        other => other.output_shape().len(),
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
        for source in layer.sources() {
            lifetimes[tensor_index(source)].last = index + 1;
        }
    }
    lifetimes
}

fn is_linear(layer: &ModelLayer) -> bool {
    matches!(
        layer,
        ModelLayer::Conv(ConvLayer {
            epilogue: Epilogue::Linear { .. },
            ..
        })
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon_core::ThreadPoolBuilder;
    use ternwatch_bundle::manifest::PoolMode;
    use ternwatch_bundle::model::PoolLayer;
    use ternwatch_bundle::testing;
    use ternwatch_kernels::{Trit, merge};

    fn model(seed: u64) -> Model {
        let (file, key) = testing::small_bundle(seed);
        testing::load(&file, &key)
    }

    fn branched_model(seed: u64) -> Model {
        let (file, key) = testing::branched_bundle(seed);
        testing::load(&file, &key)
    }

    /// The convolution of all planes that computes what a depthwise one does: its weights between planes are zero.
    fn dense(layer: &ConvLayer) -> ConvLayer {
        if layer.groups == 1 {
            return layer.clone();
        }
        let (channels, kernel_len) = (layer.groups, layer.kernel * layer.kernel);
        let mut trits = vec![Trit::Zero; channels * channels * kernel_len];
        for (channel, kernel) in layer.trits.chunks_exact(kernel_len).enumerate() {
            trits[channel * (channels + 1) * kernel_len..][..kernel_len].copy_from_slice(kernel);
        }
        ConvLayer {
            groups: 1,
            trits,
            ..layer.clone()
        }
    }

    /// What lies in each window, taken together as the layer says.
    fn pool_plainly(layer: &PoolLayer, input: &[u8]) -> Vec<u8> {
        let (shape, output) = (layer.input_shape, layer.output_shape);
        let (kernel, padding) = (layer.kernel, (layer.kernel - 1) / 2);
        let mut values = vec![];
        for plane in input.chunks(shape.height * shape.width) {
            for cell in 0..output.height * output.width {
                let top = cell / output.width * layer.stride;
                let left = cell % output.width * layer.stride;
                let window = (0..kernel * kernel).filter_map(|tap| {
                    let y = (top + tap / kernel).checked_sub(padding)?;
                    let x = (left + tap % kernel).checked_sub(padding)?;
                    (y < shape.height && x < shape.width).then(|| plane[y * shape.width + x])
                });
                values.push(match layer.mode {
                    PoolMode::Max => window.max().unwrap(),
                    PoolMode::Mean => ((window.map(u32::from).sum::<u32>() + 2) / 4) as u8,
                });
            }
        }
        values
    }

    /// Runs the specification layer by layer, every tensor in memory of its own.
    fn run_plainly(model: &Model, image: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<i16>>) {
        let mut tensors = vec![image.to_vec()];
        let mut logits = vec![];
        for layer in model.layers() {
            let mut output = vec![0; layer.output_shape().len()];
            let mut linear = vec![];
            let sources = layer.sources();
            let inputs: Vec<_> = sources
                .iter()
                .map(|&source| &tensors[tensor_index(source)])
                .collect();
            match layer {
                ModelLayer::Conv(layer) => {
                    let conv = operation::build(&dense(layer), Isa::Scalar).unwrap();
                    let mut scratch = Scratch::with_len(conv.scratch_len());
                    if matches!(layer.epilogue, Epilogue::Relu { .. }) {
                        conv.run_relu(inputs[0], &mut output, &mut scratch);
                    } else {
                        linear = vec![0; output.len()];
                        conv.run_linear(inputs[0], &mut linear, &mut scratch);
                    }
                }
                ModelLayer::AddUpsampled(add) => {
                    let shape = add.shape;
                    let (channels, height, width) = (shape.channels, shape.height, shape.width);
                    let (fine, coarse) = (inputs[0], inputs[1]);
                    merge::add_upsampled(fine, coarse, channels, height, width, &mut output);
                }
                ModelLayer::Add(add) => {
                    let pairs = inputs[0].iter().zip(inputs[1]);
                    let sums = pairs.map(|(&a, &b)| i32::from(a) + i32::from(b));
                    output = sums
                        .map(|sum| (sum - i32::from(add.offset)).clamp(0, 127) as u8)
                        .collect();
                }
                ModelLayer::Concat(_) => output = inputs.into_iter().flatten().copied().collect(),
                ModelLayer::Pool(pool) => output = pool_plainly(pool, inputs[0]),
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
            for model in [model(seed), branched_model(seed)] {
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
                        pool.install(|| assert_outputs(&mut network, &tensors, &logits));
                        for head in model.heads() {
                            assert_eq!(network.logits(head.layer), logits[head.layer]);
                        }
                    }
                }
            }
        }
    }

    fn assert_outputs(network: &mut Network, tensors: &[Vec<u8>], logits: &[Vec<i16>]) {
        let (isa, mut observed) = (network.isa, 0);
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
        });
        assert_eq!(observed, logits.len());
    }

    /// The values that the layers without weights see and give, so that equal ones prove something.
    #[test]
    fn the_branched_model_uses_the_whole_range() {
        for seed in 0..4 {
            let model = branched_model(seed);
            let image: Vec<u8> = (0..model.input_shape().len())
                .map(|i| (i * i % 128) as u8)
                .collect();
            let (tensors, _) = run_plainly(&model, &image);
            for (layer, tensor) in model.layers().iter().zip(&tensors[1..]) {
                let mut seen = [false; 128];
                tensor
                    .iter()
                    .for_each(|&value| seen[usize::from(value)] = true);
                let different = seen.iter().filter(|&&seen| seen).count();
                let name = layer.name();
                assert!(
                    is_linear(layer) || different >= 10,
                    "seed {seed}, {name}: {different} values"
                );
            }
        }
    }
}
