//! Every instruction set returns the bytes of the specification, whatever the shape, the weights and the parameters.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use rayon_core::{ThreadPool, ThreadPoolBuilder};
use ternwatch_kernels::conv::{Conv, Epilogue, Scratch, Shape};
use ternwatch_kernels::requantize::{PRE_SHIFT_MAX, relu};
use ternwatch_kernels::{Isa, Trit};

/// Where runs find threads.
static POOL: LazyLock<ThreadPool> = LazyLock::new(|| {
    let pool = ThreadPoolBuilder::new().num_threads(3).build();
    pool.unwrap()
});

/// How the weights of a case are drawn.
#[derive(Clone, Copy, Debug)]
enum Weights {
    Random,
    Sparse,
    All(Trit),
    /// One output channel all plus, the next all minus, and so on.
    Alternating,
}

/// How the activations of a case are drawn.
#[derive(Clone, Copy, Debug)]
enum Input {
    Random,
    /// All at 127, for the largest sums.
    Full,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    shape: Shape,
    weights: Weights,
    input: Input,
    pre_shift: u8,
    seed: u64,
}

/// Steele, Lea and Flood's SplitMix64: cheap to draw many values from, unlike the test framework's own source.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Often one of the bounds, otherwise anything between them.
    fn between(&mut self, low: i16, high: i16) -> i16 {
        match self.below(6) {
            0 => low,
            1 => high,
            2 => 0,
            _ => {
                let span = u64::from(high.abs_diff(low)) + 1;
                (i32::from(low) + self.below(span) as i32) as i16
            }
        }
    }
}

impl Case {
    fn draw_weights(&self, random: &mut Random) -> Vec<Trit> {
        (0..self.shape.weights_len())
            .map(|index| match self.weights {
                Weights::Random => Trit::ALL[random.below(3) as usize],
                Weights::Sparse => match random.below(10) {
                    0 => Trit::Minus,
                    1 => Trit::Plus,
                    _ => Trit::Zero,
                },
                Weights::All(trit) => trit,
                Weights::Alternating => match index / self.shape.items_len() % 2 {
                    0 => Trit::Plus,
                    _ => Trit::Minus,
                },
            })
            .collect()
    }

    fn draw_input(&self, random: &mut Random) -> Vec<u8> {
        (0..self.shape.in_len())
            .map(|_| match self.input {
                Input::Random => random.below(128) as u8,
                Input::Full => 127,
            })
            .collect()
    }

    /// Runs both epilogues on all instruction sets.
    fn check(&self) {
        let mut random = Random(self.seed);
        let weights = self.draw_weights(&mut random);
        let input = self.draw_input(&mut random);
        let channels = 0..self.shape.out_channels();
        let bias: Vec<_> = channels
            .clone()
            .map(|_| random.between(i16::MIN, i16::MAX))
            .collect();
        let multiplier = channels.map(|_| random.between(0, i16::MAX)).collect();
        let linear = Epilogue::Linear { bias: bias.clone() };
        let relu = Epilogue::Relu {
            bias,
            multiplier,
            pre_shift: self.pre_shift,
        };
        self.compare(
            &convs(self.shape, &weights, &linear),
            |conv, output: &mut [i16], scratch| conv.run_linear(&input, output, scratch),
        );
        self.compare(
            &convs(self.shape, &weights, &relu),
            |conv, output: &mut [u8], scratch| conv.run_relu(&input, output, scratch),
        );
    }

    fn compare<T: Copy + Default + PartialEq + Send + std::fmt::Debug>(
        &self,
        convs: &[Conv],
        run: impl Fn(&Conv, &mut [T], &mut Scratch) + Sync,
    ) {
        let outputs = convs.iter().map(|conv| {
            let mut output = vec![T::default(); self.shape.out_len()];
            let mut scratch = Scratch::with_len(conv.scratch_len());
            // Twice: the second run meets what the first one left in the scratch.
            run(conv, &mut output, &mut scratch);
            output.fill(T::default());
            run(conv, &mut output, &mut scratch);
            (conv.isa(), output)
        });
        let outputs: Vec<_> = outputs.collect();
        let (_, expected) = &outputs[0];
        let threads = self.with_threads(&convs[1..], &run);
        for (isa, output) in outputs[1..].iter().chain(&threads) {
            let wrong = output.iter().zip(expected).position(|(a, b)| a != b);
            let wrong = wrong.map(|index| (index, output[index], expected[index]));
            assert_eq!(wrong, None, "(index, {isa}, scalar) of {self:?}");
        }
    }

    /// The outputs of the fast levels on two, and on three threads.
    fn with_threads<T: Copy + Default + Send>(
        &self,
        fast: &[Conv],
        run: impl Fn(&Conv, &mut [T], &mut Scratch) + Sync,
    ) -> Vec<(Isa, Vec<T>)> {
        let cases = fast.iter().flat_map(|conv| [(conv, 2), (conv, 3)]);
        let outputs = cases.map(|(conv, threads)| {
            let mut output = vec![T::default(); self.shape.out_len()];
            let scratch = Scratch::for_threads(conv.scratch_len(), threads);
            let mut scratch = scratch.with_split_cost_min(0);
            POOL.install(|| run(conv, &mut output, &mut scratch));
            (conv.isa(), output)
        });
        outputs.collect()
    }
}

/// The same convolution for every level: the specification first.
fn convs(shape: Shape, weights: &[Trit], epilogue: &Epilogue) -> Vec<Conv> {
    let conv = |isa| Conv::new(isa, shape, weights, epilogue.clone()).unwrap();
    Isa::available().into_iter().map(conv).collect()
}

fn weights() -> impl Strategy<Value = Weights> {
    prop_oneof![
        4 => Just(Weights::Random),
        1 => Just(Weights::Sparse),
        1 => Just(Weights::All(Trit::Minus)),
        1 => Just(Weights::All(Trit::Zero)),
        1 => Just(Weights::All(Trit::Plus)),
        1 => Just(Weights::Alternating),
    ]
}

fn case(
    channels: impl Strategy<Value = (usize, usize)>,
    sides: impl Strategy<Value = (usize, usize)>,
) -> impl Strategy<Value = Case> {
    let kernel = prop_oneof![Just(1), Just(3)];
    let input = prop_oneof![4 => Just(Input::Random), 1 => Just(Input::Full)];
    let parameters = (kernel, 1..=2_usize, 0..=PRE_SHIFT_MAX, any::<u64>());
    (channels, sides, weights(), input, parameters).prop_map(
        |((in_channels, out_channels), (height, width), weights, input, parameters)| {
            let (kernel, stride, pre_shift, seed) = parameters;
            let shape = Shape::new(in_channels, out_channels, kernel, stride, height, width);
            Case {
                shape: shape.unwrap(),
                weights,
                input,
                pre_shift,
                seed,
            }
        },
    )
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn small_pictures(case in case((1..=9_usize, 1..=8_usize), (1..=13_usize, 1..=40_usize))) {
        case.check();
    }
}

proptest! {
    #![proptest_config(config(50))]

    #[test]
    fn wide_pictures(case in case((1..=4_usize, 1..=4_usize), (1..=6_usize, 100..=420_usize))) {
        case.check();
    }

    #[test]
    fn many_channels(case in case((20..=300_usize, 1..=7_usize), (1..=7_usize, 1..=9_usize))) {
        case.check();
    }
}

proptest! {
    #![proptest_config(config(10))]

    #[test]
    fn more_channels_than_a_window_holds(
        case in case((600..=1024_usize, 1..=4_usize), (1..=5_usize, 1..=40_usize)),
    ) {
        case.check();
    }
}

/// Sums at the bounds of 16 bits and beyond: 127 x 258 is the last multiple of 127 that fits.
#[test]
fn sums_around_16_bits_are_exact_before_they_saturate() {
    let trits = [Trit::Plus, Trit::Minus];
    for in_channels in [257, 258, 259, 260, 516, 517, 1024] {
        for first in trits {
            for bias in [i16::MIN, -32_767, -1, 0, 1, 32_766, i16::MAX] {
                check_sums(in_channels, first, bias);
            }
        }
    }
}

/// Two output channels of opposite weights, and a third whose sum leaves 16 bits halfway and comes back.
fn check_sums(in_channels: usize, first: Trit, bias: i16) {
    let opposite = match first {
        Trit::Plus => Trit::Minus,
        _ => Trit::Plus,
    };
    let half = in_channels / 2;
    let mut weights = vec![first; in_channels];
    weights.extend(vec![opposite; in_channels]);
    weights.extend(vec![first; half]);
    weights.extend(vec![opposite; in_channels - half]);
    let shape = Shape::new(in_channels, 3, 1, 1, 1, 3).unwrap();
    let bias = vec![bias; 3];
    let expected = weights.chunks(in_channels).flat_map(|weights| {
        let sum: i32 = weights.iter().map(|weight| 127 * weight.value()).sum();
        let x = (sum + i32::from(bias[0])).clamp(-32_768, 32_767);
        [x as i16; 3]
    });
    let expected: Vec<_> = expected.collect();
    let epilogue = Epilogue::Linear { bias: bias.clone() };
    for conv in convs(shape, &weights, &epilogue) {
        let mut output = vec![0; shape.out_len()];
        let mut scratch = Scratch::with_len(conv.scratch_len());
        conv.run_linear(&vec![127; shape.in_len()], &mut output, &mut scratch);
        assert_eq!(
            output,
            expected,
            "{}, {in_channels} channels, bias {bias:?}",
            conv.isa()
        );
    }
}

/// The largest sums there can be, in layers with as many inputs as a pass holds, some fewer and some more: both kernels, both
/// strides, widths around the vectors' and the tiles'.
#[test]
fn the_largest_sums_are_the_same_in_every_group_of_pixels() {
    // 1x1: 258 inputs fit in a pass. 3x3: 28 channels are 252 inputs, 29 are 261; two passes hold 57 channels.
    let layers = [(1, [257, 258, 259]), (3, [28, 29, 58])];
    let drawn = [
        Weights::All(Trit::Plus),
        Weights::All(Trit::Minus),
        Weights::Alternating,
    ];
    for (kernel, channels) in layers {
        for (in_channels, stride) in channels.into_iter().flat_map(|c| [(c, 1), (c, 2)]) {
            for width in [5, 31, 33, 64, 133] {
                for (seed, weights) in (0..).zip(drawn) {
                    let shape = Shape::new(in_channels, 4, kernel, stride, 3, width);
                    let case = Case {
                        shape: shape.unwrap(),
                        weights,
                        input: Input::Full,
                        pre_shift: (seed % 2) as u8 * PRE_SHIFT_MAX,
                        seed,
                    };
                    case.check();
                }
            }
        }
    }
}

/// The whole range of the requantization: every 16-bit value that one pixel with a bias can have, by every shift.
#[test]
fn requantization_is_the_same_for_every_value() {
    for pre_shift in 0..=PRE_SHIFT_MAX {
        for multiplier in [0, 1, 255, 1 << 14, 29_999, i16::MAX] {
            check_requantization(pre_shift, multiplier);
        }
    }
}

fn check_requantization(pre_shift: u8, multiplier: i16) {
    let shape = Shape::new(1, 512, 1, 1, 1, 128).unwrap();
    // Channel c adds its bias to 0..=127, so that the channels together pass through all values.
    let bias = (0..512).map(|channel| (channel * 128 - 32_768) as i16);
    let epilogue = Epilogue::Relu {
        bias: bias.collect(),
        multiplier: vec![multiplier; 512],
        pre_shift,
    };
    let input: Vec<_> = (0..128).collect();
    let expected: Vec<_> = (i16::MIN..=i16::MAX)
        .map(|x| relu(x, multiplier, pre_shift))
        .collect();
    for conv in convs(shape, &[Trit::Plus; 512], &epilogue) {
        let mut output = vec![0; shape.out_len()];
        let mut scratch = Scratch::with_len(conv.scratch_len());
        conv.run_relu(&input, &mut output, &mut scratch);
        let wrong = output.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(
            wrong,
            None,
            "{}, multiplier {multiplier}, pre-shift {pre_shift}",
            conv.isa()
        );
    }
}
