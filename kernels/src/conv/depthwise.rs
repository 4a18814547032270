//! Depthwise convolution: each output plane is made of the input plane of its index.
//!
//! There is nothing to share between output channels here, which is what [`super::Conv`] lives by. So this is plain Rust: a row of
//! inputs is added to or subtracted from a row of 16-bit sums for each weight that is not zero, by loops without a branch, which the
//! compiler turns into vector instructions on every architecture. It is the same on every instruction set level.

use super::{ConvError, Epilogue, SIDE_MAX, Scratch, Shape, check_len};
use crate::Trit;
use crate::requantize::{ACTIVATION_MAX, relu_row};
use crate::row::for_each_input;

/// A depthwise convolution, ready to run.
#[derive(Clone, Debug)]
pub struct Depthwise {
    shape: Shape,
    /// `[channel][row][column]`.
    weights: Vec<Trit>,
    bias: Vec<i16>,
    multiplier: Vec<i16>,
    pre_shift: u8,
    /// Weights that are not zero.
    taps: usize,
}

impl Depthwise {
    /// Checks the parameters. The shape has as many output channels as input channels, `weights` are ordered
    /// `[channel][row][column]`, and the epilogue is [`Epilogue::Relu`].
    pub fn new(shape: Shape, weights: &[Trit], epilogue: Epilogue) -> Result<Self, ConvError> {
        let (in_channels, out_channels) = (shape.in_channels(), shape.out_channels());
        if in_channels != out_channels {
            return Err(ConvError::DepthwiseChannels {
                in_channels,
                out_channels,
            });
        }
        let kernel_len = shape.kernel() * shape.kernel();
        check_len("weights", out_channels * kernel_len, weights.len())?;
        epilogue.validate(out_channels)?;
        let Epilogue::Relu {
            bias,
            multiplier,
            pre_shift,
        } = epilogue
        else {
            return Err(ConvError::DepthwiseLinear);
        };
        let is_tap = |trit: &&Trit| **trit != Trit::Zero;
        Ok(Self {
            shape,
            weights: weights.to_vec(),
            bias,
            multiplier,
            pre_shift,
            taps: weights.iter().filter(is_tap).count(),
        })
    }

    /// The sizes that it was built for.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Computes u7 activations. `input` holds [`Shape::in_len`] bytes of at most 127, `output` [`Shape::out_len`]. The scratch only
    /// says how many threads there are.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, input: &[u8], output: &mut [u8], scratch: &Scratch) {
        assert_eq!(input.len(), self.shape.in_len(), "length of the input");
        assert_eq!(output.len(), self.shape.out_len(), "length of the output");
        debug_assert!(
            input.iter().all(|&activation| activation <= ACTIVATION_MAX),
            "an activation is above 127"
        );
        // In additions of two inputs to 32 sums.
        let plane_len = self.shape.out_height() * self.shape.out_width();
        let cost = self.taps * plane_len / 64;
        self.run_planes(0, input, output, scratch.threads_for(cost));
    }

    /// The planes from channel `first` on, halved as long as there are threads.
    fn run_planes(&self, first: usize, input: &[u8], output: &mut [u8], threads: usize) {
        let shape = &self.shape;
        let in_len = shape.in_height() * shape.in_width();
        let out_len = shape.out_height() * shape.out_width();
        let channels = output.len() / out_len;
        if threads > 1 && channels > 1 {
            let left_threads = threads / 2;
            let left = (channels * left_threads / threads).max(1);
            let (left_input, right_input) = input.split_at(left * in_len);
            let (left_output, right_output) = output.split_at_mut(left * out_len);
            rayon_core::join(
                || self.run_planes(first, left_input, left_output, left_threads),
                || {
                    let right_threads = threads - left_threads;
                    self.run_planes(first + left, right_input, right_output, right_threads);
                },
            );
            return;
        }
        let mut sums = [0; SIDE_MAX];
        let sums = &mut sums[..shape.out_width()];
        let planes = input
            .chunks_exact(in_len)
            .zip(output.chunks_exact_mut(out_len));
        for (index, (input, output)) in planes.enumerate() {
            self.run_plane(first + index, input, output, sums);
        }
    }

    fn run_plane(&self, channel: usize, input: &[u8], output: &mut [u8], sums: &mut [i16]) {
        let shape = &self.shape;
        let (kernel, padding) = (shape.kernel(), shape.padding());
        let kernel_len = kernel * kernel;
        let weights = &self.weights[channel * kernel_len..][..kernel_len];
        let (bias, multiplier) = (self.bias[channel], self.multiplier[channel]);
        let outputs = output.chunks_exact_mut(shape.out_width());
        for (y, output) in outputs.enumerate() {
            sums.fill(0);
            for (tap_y, weights) in weights.chunks_exact(kernel).enumerate() {
                // Above the plane it wraps, and is not there either.
                let in_y = (y * shape.stride() + tap_y).wrapping_sub(padding);
                let Some(row) = input.chunks_exact(shape.in_width()).nth(in_y) else {
                    continue;
                };
                for (tap_x, &weight) in weights.iter().enumerate() {
                    let offset = tap_x as isize - padding as isize;
                    add_inputs(weight, row, offset, shape.stride(), sums);
                }
            }
            relu_row(sums, bias, multiplier, self.pre_shift, output);
        }
    }
}

/// Adds the inputs of one tap to a row of sums. Nine activations are 1143 at most, which no 16-bit sum wraps at.
fn add_inputs(weight: Trit, row: &[u8], offset: isize, stride: usize, sums: &mut [i16]) {
    match weight {
        Trit::Zero => {}
        Trit::Plus => for_each_input(row, offset, stride, sums, |sum, input| {
            *sum = sum.wrapping_add(i16::from(input));
        }),
        Trit::Minus => for_each_input(row, offset, stride, sums, |sum, input| {
            *sum = sum.wrapping_sub(i16::from(input));
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::scalar;
    use crate::requantize::relu;
    use proptest::prelude::*;
    use rayon_core::ThreadPoolBuilder;

    /// A depthwise convolution and its input.
    #[derive(Clone, Debug)]
    struct Case {
        shape: Shape,
        weights: Vec<Trit>,
        bias: Vec<i16>,
        multiplier: Vec<i16>,
        pre_shift: u8,
        input: Vec<u8>,
    }

    impl Case {
        fn depthwise(&self) -> Depthwise {
            let epilogue = Epilogue::Relu {
                bias: self.bias.clone(),
                multiplier: self.multiplier.clone(),
                pre_shift: self.pre_shift,
            };
            Depthwise::new(self.shape, &self.weights, epilogue).unwrap()
        }

        /// The specification: that of other convolutions, for one plane at a time.
        fn run_naively(&self) -> Vec<u8> {
            let (shape, mut output) = (&self.shape, vec![]);
            let (kernel, stride) = (shape.kernel(), shape.stride());
            let (height, width) = (shape.in_height(), shape.in_width());
            let plane = Shape::new(1, 1, kernel, stride, height, width).unwrap();
            for channel in 0..shape.out_channels() {
                let weights = &self.weights[channel * kernel * kernel..];
                let input = &self.input[channel * plane.in_len()..];
                for y in 0..plane.out_height() {
                    for x in 0..plane.out_width() {
                        let sum = scalar::accumulate(&plane, weights, input, 0, y, x);
                        let sum = (sum + i32::from(self.bias[channel])).clamp(-32_768, 32_767);
                        let multiplier = self.multiplier[channel];
                        output.push(relu(sum as i16, multiplier, self.pre_shift));
                    }
                }
            }
            output
        }
    }

    fn case() -> impl Strategy<Value = Case> {
        let kernel = prop_oneof![1 => Just(1usize), 3 => Just(3)];
        let sides = prop_oneof![3 => (1..=9usize, 1..=40usize), 1 => (1..=3usize, 100..=300usize)];
        let sizes = (1..=6usize, kernel, 1..=2usize, sides, 0..=7u8);
        sizes.prop_flat_map(|(channels, kernel, stride, (height, width), pre_shift)| {
            let shape = Shape::new(channels, channels, kernel, stride, height, width).unwrap();
            let weights = prop::sample::select(Trit::ALL.to_vec());
            let weights = proptest::collection::vec(weights, channels * kernel * kernel);
            // Often near the sums, and sometimes so far off that they saturate.
            let bias = prop_oneof![3 => -600..600i16, 1 => any::<i16>()];
            let bias = proptest::collection::vec(bias, channels);
            let input = prop_oneof![Just(127u8), 0..=127u8];
            let input = proptest::collection::vec(input, shape.in_len());
            let multiplier = proptest::collection::vec(0..=i16::MAX, channels);
            (weights, bias, multiplier, input).prop_map(
                move |(weights, bias, multiplier, input)| Case {
                    shape,
                    weights,
                    bias,
                    multiplier,
                    pre_shift,
                    input,
                },
            )
        })
    }

    proptest! {
        #[test]
        fn every_size_and_number_of_threads_gives_what_the_specification_gives(case in case()) {
            let (depthwise, expected) = (case.depthwise(), case.run_naively());
            // What was there before does not count.
            let mut output = vec![99; expected.len()];
            depthwise.run(&case.input, &mut output, &Scratch::with_len(0));
            prop_assert_eq!(&output, &expected);
            let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            for threads in [2, 3] {
                let scratch = Scratch::for_threads(0, threads).with_split_cost_min(0);
                output.fill(99);
                pool.install(|| depthwise.run(&case.input, &mut output, &scratch));
                prop_assert_eq!(&output, &expected, "{} threads", threads);
            }
        }
    }

    fn one_channel(weights: &[Trit], bias: i16) -> Depthwise {
        let shape = Shape::new(1, 1, 3, 1, 3, 3).unwrap();
        let epilogue = Epilogue::Relu {
            bias: vec![bias],
            multiplier: vec![i16::MAX],
            pre_shift: 0,
        };
        Depthwise::new(shape, weights, epilogue).unwrap()
    }

    #[test]
    fn the_greatest_sums_are_exact() {
        let scratch = Scratch::with_len(0);
        // In the middle nine inputs meet nine weights.
        for (weight, bias) in [(Trit::Plus, -1143 + 5), (Trit::Minus, 1143 + 5)] {
            let mut output = [0; 9];
            one_channel(&[weight; 9], bias).run(&[127; 9], &mut output, &scratch);
            assert_eq!(output[4], 5);
        }
        for (bias, expected) in [(i16::MAX, 127), (i16::MIN, 0)] {
            for weight in [Trit::Plus, Trit::Minus] {
                let mut output = [1; 9];
                one_channel(&[weight; 9], bias).run(&[127; 9], &mut output, &scratch);
                assert_eq!(output, [expected; 9]);
            }
        }
    }

    #[test]
    fn parameters_that_do_not_fit_are_refused() {
        let relu = |len: usize| Epilogue::Relu {
            bias: vec![0; len],
            multiplier: vec![0; len],
            pre_shift: 0,
        };
        let shape = |out_channels| Shape::new(2, out_channels, 3, 1, 4, 4).unwrap();
        let refusal = |shape, weights, epilogue| {
            Depthwise::new(shape, &vec![Trit::Zero; weights], epilogue).unwrap_err()
        };
        let channels = ConvError::DepthwiseChannels {
            in_channels: 2,
            out_channels: 3,
        };
        assert_eq!(refusal(shape(3), 27, relu(3)), channels);
        let linear = Epilogue::Linear { bias: vec![0; 2] };
        assert_eq!(refusal(shape(2), 18, linear), ConvError::DepthwiseLinear);
        let length = |what, expected, found| ConvError::Length {
            what,
            expected,
            found,
        };
        assert_eq!(refusal(shape(2), 36, relu(2)), length("weights", 18, 36));
        assert_eq!(refusal(shape(2), 18, relu(3)), length("biases", 2, 3));
    }

    #[test]
    #[should_panic(expected = "length of the output")]
    fn a_wrong_length_is_a_broken_invariant() {
        one_channel(&[Trit::Plus; 9], 0).run(&[0; 9], &mut [0; 8], &Scratch::with_len(0));
    }
}
