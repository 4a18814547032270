//! Times convolutions of a detector's sizes on every instruction set of this machine, and beside them plain loops with int8 and float
//! multiplications: median milliseconds, and billions of multiply-accumulate steps a second that an engine with multiplications would
//! need to be as fast.
//!
//! `cargo run --release -p ternwatch-kernels --example conv_bench [NAME]` with the name of an instruction set, `int8` or `f32` to time that
//! alone. The loops get the vectors that the compiler was told of: `RUSTFLAGS="-C target-cpu=native"`.

use std::ops::{AddAssign, Mul};
use std::time::{Duration, Instant};

use ternwatch_kernels::conv::{Conv, Epilogue, Scratch, Shape};
use ternwatch_kernels::{Isa, Trit};

/// Input channels, output channels, kernel, stride, rows and columns of the input.
const LAYERS: [[usize; 6]; 9] = [
    [3, 16, 3, 2, 240, 320],
    [16, 16, 3, 1, 120, 160],
    [16, 32, 3, 2, 120, 160],
    [32, 32, 3, 1, 60, 80],
    [64, 64, 3, 1, 30, 40],
    [64, 64, 3, 1, 40, 40],
    [64, 64, 1, 1, 40, 40],
    [128, 128, 3, 1, 15, 20],
    [256, 256, 1, 1, 8, 10],
];

/// Runs are repeated for this long, but at least three times.
const BUDGET: Duration = Duration::from_millis(200);

fn main() {
    let only = std::env::args().nth(1);
    println!(
        "{:<34} {:>10} {:>10} {:>10}",
        "layer", "isa", "ms", "GMAC/s"
    );
    for sizes in LAYERS {
        let [in_channels, out_channels, kernel, stride, height, width] = sizes;
        let shape = Shape::new(in_channels, out_channels, kernel, stride, height, width)
            .expect("the sizes are within the bounds");
        let name = format!(
            "{in_channels}x{height}x{width} -> {out_channels}, {kernel}x{kernel} stride {stride}"
        );
        let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
        let show = |how: &str, elapsed: Duration| {
            let milliseconds = elapsed.as_secs_f64() * 1e3;
            let giga_macs = shape.macs() as f64 / elapsed.as_secs_f64() / 1e9;
            println!("{name:<34} {how:>10} {milliseconds:>10.3} {giga_macs:>10.1}");
        };
        for isa in Isa::available() {
            if is_wanted(isa.name()) {
                show(isa.name(), ternary(isa, shape));
            }
        }
        let weights = || weights(shape).into_iter().map(Trit::value);
        if is_wanted("int8") {
            let weights: Vec<i8> = weights().map(|weight| weight as i8).collect();
            show("int8", plain::<u8, i8, i32>(shape, &weights, |byte| byte));
        }
        if is_wanted("f32") {
            let weights: Vec<f32> = weights().map(|weight| weight as f32).collect();
            show("f32", plain::<f32, f32, f32>(shape, &weights, f32::from));
        }
    }
}

/// A third of each value, as training tends to leave them.
fn weights(shape: Shape) -> Vec<Trit> {
    let mut random = Random(1);
    (0..shape.weights_len())
        .map(|_| Trit::ALL[random.below(3)])
        .collect()
}

/// The median time of a convolution as our kernels do it.
fn ternary(isa: Isa, shape: Shape) -> Duration {
    let mut random = Random(2);
    let weights = weights(shape);
    let epilogue = Epilogue::Relu {
        bias: vec![0; shape.out_channels()],
        multiplier: vec![1 << 12; shape.out_channels()],
        pre_shift: 0,
    };
    let conv = Conv::new(isa, shape, &weights, epilogue).expect("the parameters fit the shape");
    let input: Vec<_> = (0..shape.in_len())
        .map(|_| random.below(128) as u8)
        .collect();
    let mut output = vec![0; shape.out_len()];
    let mut scratch = Scratch::with_len(conv.scratch_len());
    median(|| conv.run_relu(&input, &mut output, &mut scratch))
}

/// The median time of a convolution with multiplications: sums of a row at a time, of inputs that have their padding already. Nothing is
/// requantized.
fn plain<A, W, S>(shape: Shape, weights: &[W], convert: impl Fn(u8) -> A) -> Duration
where
    A: Copy + Into<S>,
    W: Copy + Into<S>,
    S: Copy + Default + AddAssign + Mul<Output = S>,
{
    let (kernel, stride, padding) = (shape.kernel(), shape.stride(), shape.padding());
    let width = shape.in_width() + 2 * padding;
    let plane_len = (shape.in_height() + 2 * padding) * width;
    let mut random = Random(2);
    let input: Vec<A> = (0..shape.in_channels() * plane_len)
        .map(|_| convert(random.below(128) as u8))
        .collect();
    let mut output = vec![S::default(); shape.out_len()];
    median(|| {
        for (row, sums) in output.chunks_exact_mut(shape.out_width()).enumerate() {
            let (channel, y) = (row / shape.out_height(), row % shape.out_height());
            sums.fill(S::default());
            let first = channel * shape.in_channels() * kernel * kernel;
            for (item, &weight) in weights[first..][..shape.in_channels() * kernel * kernel]
                .iter()
                .enumerate()
            {
                let (in_channel, tap) = (item / (kernel * kernel), item % (kernel * kernel));
                let start =
                    in_channel * plane_len + (y * stride + tap / kernel) * width + tap % kernel;
                let inputs = &input[start..];
                // A loop for each stride, so that the compiler has vectors for it.
                if stride == 1 {
                    multiply_add(sums, weight.into(), inputs.iter());
                } else {
                    multiply_add(sums, weight.into(), inputs.iter().step_by(2));
                }
            }
        }
        std::hint::black_box(&mut output);
    })
}

fn multiply_add<'a, A, S>(sums: &mut [S], weight: S, inputs: impl Iterator<Item = &'a A>)
where
    A: Copy + Into<S> + 'a,
    S: Copy + AddAssign + Mul<Output = S>,
{
    for (sum, &input) in sums.iter_mut().zip(inputs) {
        *sum += weight * input.into();
    }
}

/// The median time of calls, which are repeated for [`BUDGET`].
fn median(mut call: impl FnMut()) -> Duration {
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 3 || begin.elapsed() < BUDGET {
        let start = Instant::now();
        call();
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

/// Steele, Lea and Flood's SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ bits >> 31) % bound) as usize
    }
}
