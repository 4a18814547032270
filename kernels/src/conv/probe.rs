//! A layer to measure a processor with.

use super::{Conv, Epilogue, Scratch, Shape};
use crate::requantize::ACTIVATION_MAX;
use crate::{Isa, Trit};

/// Channels on either side.
const CHANNELS: usize = 48;
/// Rows and columns of the planes.
const SIZE: [usize; 2] = [24, 32];

/// A convolution like those that most of a detector's time goes into, with tensors of its own: 3x3, 48 channels to 48, 24 x 32
/// pixels, 15.9 million multiply-accumulates. Its weights are drawn, a third of them zeros. Who owns a clock times
/// [`Probe::run`] on each level and so learns which suits this core.
#[derive(Debug)]
pub struct Probe {
    /// The same one for each of the levels.
    convs: Vec<Conv>,
    input: Vec<u8>,
    output: Vec<i16>,
    scratch: Scratch,
}

impl Probe {
    /// Builds the layer for these levels.
    pub fn new(levels: &[Isa]) -> Self {
        let (shape, weights, input) = draw();
        let conv = |&isa| build(isa, shape, &weights);
        let convs: Vec<_> = levels.iter().map(conv).collect();
        let scratch_len = convs.iter().map(Conv::scratch_len).max();
        Self {
            input,
            output: vec![0; shape.out_len()],
            scratch: Scratch::with_len(scratch_len.unwrap_or_default()),
            convs,
        }
    }

    /// Runs the layer once, on the caller's thread.
    ///
    /// # Panics
    /// If it was not built for that level.
    pub fn run(&mut self, isa: Isa) {
        let conv = self.convs.iter().find(|conv| conv.isa() == isa);
        let conv = conv.expect("it is built for this level");
        conv.run_linear(&self.input, &mut self.output, &mut self.scratch);
    }
}

/// The layer's weights and its input.
fn draw() -> (Shape, Vec<Trit>, Vec<u8>) {
    let [height, width] = SIZE;
    let shape = Shape::new(CHANNELS, CHANNELS, 3, 1, height, width);
    let shape = shape.expect("these sizes are within their bounds");
    let mut draw = draws();
    let mut below = |bound: u64| (draw() % bound) as usize;
    let weights = (0..shape.weights_len())
        .map(|_| Trit::ALL[below(3)])
        .collect();
    let input = (0..shape.in_len())
        .map(|_| below(u64::from(ACTIVATION_MAX) + 1) as u8)
        .collect();
    (shape, weights, input)
}

fn build(isa: Isa, shape: Shape, weights: &[Trit]) -> Conv {
    let bias = vec![0; CHANNELS];
    let conv = Conv::new(isa, shape, weights, Epilogue::Linear { bias });
    conv.expect("the lists are as long as the shape says")
}

/// The same numbers each time: a linear congruence, its high half (Knuth, "The Art of Computer Programming", volume 2, 3.3.4).
fn draws() -> impl FnMut() -> u64 {
    let mut state = 1_u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_give_the_same_answer() {
        let mut levels = Isa::rivals();
        levels.push(Isa::Scalar);
        let mut probe = Probe::new(&levels);
        let mut answer = |isa| {
            probe.output.fill(0);
            probe.run(isa);
            probe.output.clone()
        };
        let expected = answer(Isa::Scalar);
        assert!(expected.iter().any(|&sum| sum != 0));
        for isa in Isa::rivals() {
            assert!(answer(isa) == expected, "{isa}");
        }
    }

    #[test]
    fn a_third_of_the_weights_is_zero() {
        let (_, weights, _) = draw();
        let zeros = weights.iter().filter(|&&trit| trit == Trit::Zero).count();
        assert!(
            zeros.abs_diff(weights.len() / 3) < weights.len() / 50,
            "{zeros}"
        );
    }
}
