//! Convolution with ternary weights, without a multiplication in the accumulation.
//!
//! Takes u7 activations as dense planes (channel, row, column) and gives u7 activations or 16-bit logits in the same
//! order. Guarantees that every [`Isa`] returns the same bytes as [`Isa::Scalar`], the specification. On purpose it does not
//! know where weights come from, nor which layer follows.
//!
//! A [`Depthwise`] convolution is one of its own, which every instruction set runs alike.
//!
//! A [`Conv`] is built once at load, for one level. Running it allocates nothing: the caller lends a [`Scratch`]. In a rayon
//! pool it runs on as many threads as the scratch has parts, elsewhere on the caller's alone, and gives the same bytes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod depthwise;
mod grouping;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "arm")]
mod neon32;
mod plan;
mod portable;
mod probe;
mod run;
mod scalar;
mod scratch;
mod shape;
mod strip;
mod tiling;
mod walk;

pub use depthwise::Depthwise;
pub use probe::Probe;
pub use scratch::Scratch;
pub use shape::{CHANNELS_MAX, SIDE_MAX, Shape, ShapeError};

use thiserror::Error;

use plan::Plan;
use run::{Finish, Linear, Relu, Work};
use tiling::Tiling;

use crate::requantize::{ACTIVATION_MAX, PRE_SHIFT_MAX};
use crate::{Isa, Trit};

/// What happens to the exact sum of an output channel. Every list has one entry an output channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Hidden layers: bias, ReLU and requantization to u7, see [`crate::requantize::relu`].
    Relu {
        /// Added to the sum, saturating.
        bias: Vec<i16>,
        /// Fixed point with 15 fraction bits, `0..=32767`.
        multiplier: Vec<i16>,
        /// Saturating left shift before the multiplication, `0..=7`.
        pre_shift: u8,
    },
    /// Output layers: the sum plus the bias, saturating.
    Linear {
        /// Added to the sum, saturating.
        bias: Vec<i16>,
    },
}

/// Parameters which disagree with the shape or leave their range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConvError {
    /// A list has the wrong length.
    #[error("{what}: expected {expected}, found {found}")]
    Length {
        /// Which list.
        what: &'static str,
        /// What the shape asks for.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A multiplier is below zero.
    #[error("multiplier {multiplier} of output channel {channel} is negative")]
    NegativeMultiplier {
        /// The output channel.
        channel: usize,
        /// Its multiplier.
        multiplier: i16,
    },
    /// A depthwise convolution has another number of channels on its other side.
    #[error(
        "a depthwise convolution has as many channels on both sides, not {in_channels} and {out_channels}"
    )]
    DepthwiseChannels {
        /// Of the input.
        in_channels: usize,
        /// Of the output.
        out_channels: usize,
    },
    /// A depthwise convolution gives activations, not logits.
    #[error("a depthwise convolution ends in a relu")]
    DepthwiseLinear,
    /// The shift before the multiplication is too large.
    #[error("pre-shift {pre_shift} is above {PRE_SHIFT_MAX}")]
    PreShift {
        /// The shift given.
        pre_shift: u8,
    },
}

impl Epilogue {
    /// The biases of either kind.
    pub fn bias(&self) -> &[i16] {
        match self {
            Self::Relu { bias, .. } | Self::Linear { bias } => bias,
        }
    }

    fn validate(&self, out_channels: usize) -> Result<(), ConvError> {
        check_len("biases", out_channels, self.bias().len())?;
        let Self::Relu {
            multiplier,
            pre_shift,
            ..
        } = self
        else {
            return Ok(());
        };
        check_len("multipliers", out_channels, multiplier.len())?;
        if *pre_shift > PRE_SHIFT_MAX {
            let pre_shift = *pre_shift;
            return Err(ConvError::PreShift { pre_shift });
        }
        match multiplier.iter().position(|&multiplier| multiplier < 0) {
            None => Ok(()),
            Some(channel) => Err(ConvError::NegativeMultiplier {
                channel,
                multiplier: multiplier[channel],
            }),
        }
    }
}

/// A convolution, ready to run on one level.
#[derive(Clone, Debug)]
pub struct Conv {
    isa: Isa,
    shape: Shape,
    epilogue: Epilogue,
    weights: Weights,
}

/// The weights, as the level takes them.
#[derive(Clone, Debug)]
enum Weights {
    /// As they were given, for [`Isa::Scalar`].
    Plain(Box<[Trit]>),
    /// For all others.
    Planned { tiling: Tiling, plan: Plan },
}

impl Conv {
    /// Checks the parameters and builds what this level runs. `weights` are ordered `[out][in][row][column]`.
    pub fn new(
        isa: Isa,
        shape: Shape,
        weights: &[Trit],
        epilogue: Epilogue,
    ) -> Result<Self, ConvError> {
        check_len("weights", shape.weights_len(), weights.len())?;
        epilogue.validate(shape.out_channels())?;
        let weights = if isa == Isa::Scalar {
            Weights::Plain(weights.into())
        } else {
            let tiling = Tiling::new(&shape);
            let plan = Plan::new(&shape, weights, &tiling);
            Weights::Planned { tiling, plan }
        };
        Ok(Self {
            isa,
            shape,
            epilogue,
            weights,
        })
    }

    /// The level that runs it.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The sizes that this convolution was built for.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What happens to the sums.
    pub fn epilogue(&self) -> &Epilogue {
        &self.epilogue
    }

    /// Bytes of scratch that each thread of a run needs.
    pub fn scratch_len(&self) -> usize {
        match &self.weights {
            Weights::Plain(_) => 0,
            Weights::Planned { tiling, .. } => tiling.scratch_len(),
        }
    }

    /// Computes u7 activations. `input` holds [`Shape::in_len`] bytes of at most 127, `output` [`Shape::out_len`].
    ///
    /// # Panics
    /// If a length is wrong, the scratch is too small, or the epilogue is not [`Epilogue::Relu`].
    pub fn run_relu(&self, input: &[u8], output: &mut [u8], scratch: &mut Scratch) {
        let Epilogue::Relu {
            multiplier,
            pre_shift,
            ..
        } = &self.epilogue
        else {
            panic!("run_relu needs a relu epilogue");
        };
        let finish = Relu {
            multiplier,
            pre_shift: *pre_shift,
        };
        self.run(finish, input, output, scratch);
    }

    /// Computes 16-bit logits. `input` holds [`Shape::in_len`] bytes of at most 127, `output` [`Shape::out_len`].
    ///
    /// # Panics
    /// If a length is wrong, the scratch is too small, or the epilogue is not [`Epilogue::Linear`].
    pub fn run_linear(&self, input: &[u8], output: &mut [i16], scratch: &mut Scratch) {
        assert!(
            matches!(self.epilogue, Epilogue::Linear { .. }),
            "run_linear needs a linear epilogue"
        );
        self.run(Linear, input, output, scratch);
    }

    fn run<F: Finish>(
        &self,
        finish: F,
        input: &[u8],
        output: &mut [F::Value],
        scratch: &mut Scratch,
    ) {
        self.check_run(input, output.len(), scratch);
        let bias = self.epilogue.bias();
        match &self.weights {
            Weights::Plain(weights) => {
                scalar::run(&self.shape, weights, bias, finish, input, output);
            }
            Weights::Planned { tiling, plan } => {
                let work = Work {
                    plan,
                    tiling,
                    bias,
                    finish,
                    input,
                };
                let cost = plan.cost() * tiling.lanes();
                strip::run(self.isa, work, output, scratch.parts_for(cost));
            }
        }
    }

    fn check_run(&self, input: &[u8], output_len: usize, scratch: &Scratch) {
        assert_eq!(input.len(), self.shape.in_len(), "length of the input");
        assert_eq!(output_len, self.shape.out_len(), "length of the output");
        assert!(scratch.len() >= self.scratch_len(), "scratch too small");
        debug_assert!(
            input.iter().all(|&activation| activation <= ACTIVATION_MAX),
            "an activation is above 127"
        );
    }
}

fn check_len(what: &'static str, expected: usize, found: usize) -> Result<(), ConvError> {
    if expected == found {
        return Ok(());
    }
    Err(ConvError::Length {
        what,
        expected,
        found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape::new(2, 3, 1, 1, 2, 2).unwrap()
    }

    fn linear() -> Epilogue {
        let bias = vec![0; 3];
        Epilogue::Linear { bias }
    }

    fn relu(bias_count: usize, multiplier: Vec<i16>, pre_shift: u8) -> Epilogue {
        Epilogue::Relu {
            bias: vec![0; bias_count],
            multiplier,
            pre_shift,
        }
    }

    fn refusal(weight_count: usize, epilogue: Epilogue) -> ConvError {
        let weights = vec![Trit::Plus; weight_count];
        Conv::new(Isa::detect(), shape(), &weights, epilogue).unwrap_err()
    }

    #[test]
    fn lists_of_a_wrong_length_are_refused_by_name() {
        let length = |what, expected, found| ConvError::Length {
            what,
            expected,
            found,
        };
        assert_eq!(refusal(5, linear()), length("weights", 6, 5));
        assert_eq!(refusal(6, relu(2, vec![0; 3], 0)), length("biases", 3, 2));
        let multipliers = refusal(6, relu(3, vec![0; 4], 0));
        assert_eq!(multipliers, length("multipliers", 3, 4));
    }

    #[test]
    fn parameters_outside_their_range_are_refused() {
        let negative = refusal(6, relu(3, vec![0, 1, -1], 0));
        let expected = ConvError::NegativeMultiplier {
            channel: 2,
            multiplier: -1,
        };
        assert_eq!(negative, expected);
        let shift = refusal(6, relu(3, vec![0; 3], 8));
        assert_eq!(shift, ConvError::PreShift { pre_shift: 8 });
        let largest = relu(3, vec![i16::MAX; 3], 7);
        assert!(Conv::new(Isa::detect(), shape(), &[Trit::Zero; 6], largest).is_ok());
    }

    fn run_linear_with(epilogue: Epilogue, in_len: usize, out_len: usize, scratch_len: usize) {
        let conv = Conv::new(Isa::detect(), shape(), &[Trit::Plus; 6], epilogue).unwrap();
        let mut scratch = Scratch::with_len(scratch_len.min(conv.scratch_len()));
        let (input, mut output) = (vec![1; in_len], vec![0; out_len]);
        conv.run_linear(&input, &mut output, &mut scratch);
    }

    #[test]
    #[should_panic(expected = "length of the input")]
    fn a_wrong_input_length_is_a_broken_invariant() {
        run_linear_with(linear(), 7, 12, usize::MAX);
    }

    #[test]
    #[should_panic(expected = "length of the output")]
    fn a_wrong_output_length_is_a_broken_invariant() {
        run_linear_with(linear(), 8, 11, usize::MAX);
    }

    #[test]
    #[should_panic(expected = "scratch too small")]
    fn too_small_a_scratch_is_a_broken_invariant() {
        run_linear_with(linear(), 8, 12, 100);
    }

    #[test]
    #[should_panic(expected = "needs a linear epilogue")]
    fn the_other_epilogue_is_a_broken_invariant() {
        run_linear_with(relu(3, vec![0; 3], 0), 8, 12, usize::MAX);
    }
}
