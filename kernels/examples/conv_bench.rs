//! Times convolutions of a detector's sizes on every instruction set of this machine: median milliseconds, and
//! billions of multiply-accumulate steps a second that an engine with multiplications would need to be as fast.
//!
//! `cargo run -p ternwatch-kernels --example conv_bench [NAME]` with the name of an instruction set to time it alone.

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
        for isa in Isa::available() {
            if only.as_deref().is_some_and(|only| only != isa.name()) {
                continue;
            }
            let elapsed = median(isa, shape);
            let milliseconds = elapsed.as_secs_f64() * 1e3;
            let giga_macs = shape.macs() as f64 / elapsed.as_secs_f64() / 1e9;
            println!("{name:<34} {isa:>10} {milliseconds:>10.3} {giga_macs:>10.1}");
        }
    }
}

/// The median time of one run.
fn median(isa: Isa, shape: Shape) -> Duration {
    let mut random = Random(1);
    // A third of each value, as training tends to leave them.
    let weights: Vec<_> = (0..shape.weights_len())
        .map(|_| Trit::ALL[random.below(3)])
        .collect();
    let epilogue = Epilogue::Relu {
        bias: vec![0; shape.out_channels()],
        multiplier: vec![1 << 12; shape.out_channels()],
        pre_shift: 0,
    };
    let conv = Conv::new(shape, &weights, epilogue).expect("the parameters fit the shape");
    let input: Vec<_> = (0..shape.in_len())
        .map(|_| random.below(128) as u8)
        .collect();
    let mut output = vec![0; shape.out_len()];
    let mut scratch = Scratch::with_len(conv.scratch_len());
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 3 || begin.elapsed() < BUDGET {
        let start = Instant::now();
        conv.run_relu(isa, &input, &mut output, &mut scratch);
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
