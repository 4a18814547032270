//! Runs the layers of the default network (`models/person.toml`) with random weights, to be counted from outside:
//!
//! `network_work ISA RUNS ZERO_PERCENT [LAYER]`
//!
//! Building the layers costs instructions too. What one run costs is half of the difference between three runs
//! and one, so that no counter has to know where a run begins. `deploy/instructions/gate.sh` does that; a profiler
//! or a model of a processor can do it alike. Without a layer's name all of them run, each on inputs of its own.
//! Instead of a name there may be six numbers with commas between them: input channels, output channels, kernel,
//! stride, rows and columns of the input.
//!
//! Prints the digest of all outputs: the same on every instruction set.

use std::process::ExitCode;

use ternwatch_kernels::conv::{Conv, Epilogue, Scratch, Shape};
use ternwatch_kernels::{Isa, Trit, merge};

/// A convolution: its name, input channels, output channels, kernel, stride, rows and columns of the input.
type Layer = (&'static str, [usize; 6]);

/// The convolutions of the default network in order. `headN` are linear, all others have a ReLU.
const LAYERS: [Layer; 19] = [
    ("stem2", [3, 16, 3, 2, 240, 320]),
    ("stem4", [16, 24, 3, 2, 120, 160]),
    ("stage8_0", [24, 40, 3, 2, 60, 80]),
    ("stage8_1", [40, 40, 3, 1, 30, 40]),
    ("stage16_0", [40, 80, 3, 2, 30, 40]),
    ("stage16_1", [80, 80, 3, 1, 15, 20]),
    ("stage16_2", [80, 80, 3, 1, 15, 20]),
    ("stage32_0", [80, 128, 3, 2, 15, 20]),
    ("stage32_1", [128, 128, 3, 1, 8, 10]),
    ("lateral32", [128, 40, 1, 1, 8, 10]),
    ("lateral16", [80, 40, 1, 1, 15, 20]),
    ("smooth16", [40, 40, 3, 1, 15, 20]),
    ("lateral8", [40, 40, 1, 1, 30, 40]),
    ("tower8", [40, 40, 3, 1, 30, 40]),
    ("head8", [40, 5, 3, 1, 30, 40]),
    ("tower16", [40, 40, 3, 1, 15, 20]),
    ("head16", [40, 5, 3, 1, 15, 20]),
    ("tower32", [40, 40, 3, 1, 8, 10]),
    ("head32", [40, 5, 3, 1, 8, 10]),
];

/// The sums of two levels: name, channels, rows and columns of the finer one.
const MERGES: [(&str, [usize; 3]); 2] = [("merge16", [40, 15, 20]), ("merge8", [40, 30, 40])];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some((isa, runs, zero_percent, only)) = parse(&arguments) else {
        eprintln!("usage: network_work ISA RUNS ZERO_PERCENT [LAYER], ISA one of:");
        Isa::available().iter().for_each(|isa| eprintln!("  {isa}"));
        eprintln!("and LAYER one of (with its multiplications):");
        for (name, sizes) in LAYERS {
            eprintln!("  {name:<12}{:>10}", shape(sizes).macs());
        }
        for (name, [channels, height, width]) in MERGES {
            eprintln!("  {name:<12}{:>10}", channels * height * width);
        }
        return ExitCode::from(64);
    };
    let mut digest = Digest(0);
    match only {
        Only::Shape(shape) => run_conv("", shape, isa, runs, zero_percent, &mut digest),
        Only::Named(wanted) => {
            let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted == name);
            for (name, sizes) in LAYERS.into_iter().filter(|layer| is_wanted(layer.0)) {
                run_conv(name, shape(sizes), isa, runs, zero_percent, &mut digest);
            }
            for (_, sizes) in MERGES.into_iter().filter(|merge| is_wanted(merge.0)) {
                run_merge(sizes, runs, &mut digest);
            }
        }
    }
    println!("{:016x}", digest.0);
    ExitCode::SUCCESS
}

/// Which layers run.
enum Only<'a> {
    /// The one of this name, or all.
    Named(Option<&'a str>),
    Shape(Shape),
}

fn parse(arguments: &[String]) -> Option<(Isa, usize, usize, Only<'_>)> {
    let [isa, runs, zero_percent, only @ ..] = arguments else {
        return None;
    };
    let only = match only {
        [] => Only::Named(None),
        [name] if LAYERS.iter().any(|layer| layer.0 == name) => Only::Named(Some(name)),
        [name] if MERGES.iter().any(|merge| merge.0 == name) => Only::Named(Some(name)),
        [sizes] => Only::Shape(parse_shape(sizes)?),
        _ => return None,
    };
    let zero_percent = zero_percent
        .parse()
        .ok()
        .filter(|&percent| percent <= 100)?;
    Some((isa.parse().ok()?, runs.parse().ok()?, zero_percent, only))
}

fn parse_shape(sizes: &str) -> Option<Shape> {
    let sizes: Vec<_> = sizes
        .split(',')
        .map(|size| size.parse().ok())
        .collect::<Option<_>>()?;
    let [in_channels, out_channels, kernel, stride, height, width] = sizes.try_into().ok()?;
    Shape::new(in_channels, out_channels, kernel, stride, height, width).ok()
}

fn shape([in_channels, out_channels, kernel, stride, height, width]: [usize; 6]) -> Shape {
    Shape::new(in_channels, out_channels, kernel, stride, height, width)
        .expect("the sizes are within the bounds")
}

fn run_conv(
    name: &str,
    shape: Shape,
    isa: Isa,
    runs: usize,
    zero_percent: usize,
    digest: &mut Digest,
) {
    let mut random = Random(1);
    let weights: Vec<_> = (0..shape.weights_len())
        .map(|_| match random.below(100) {
            percent if percent < zero_percent => Trit::Zero,
            percent if percent % 2 == 0 => Trit::Plus,
            _ => Trit::Minus,
        })
        .collect();
    let input = random.activations(shape.in_len());
    let bias = vec![16; shape.out_channels()];
    if name.starts_with("head") {
        let conv = Conv::new(shape, &weights, Epilogue::Linear { bias });
        let conv = conv.expect("the parameters fit the shape");
        let mut scratch = Scratch::with_len(conv.scratch_len());
        let mut output = vec![0; shape.out_len()];
        for _ in 0..runs {
            conv.run_linear(isa, &input, &mut output, &mut scratch);
        }
        output.iter().for_each(|&logit| digest.add(logit as u64));
        return;
    }
    let multiplier = vec![1 << 12; shape.out_channels()];
    let epilogue = Epilogue::Relu {
        bias,
        multiplier,
        pre_shift: 0,
    };
    let conv = Conv::new(shape, &weights, epilogue).expect("the parameters fit the shape");
    let mut scratch = Scratch::with_len(conv.scratch_len());
    let mut output = vec![0; shape.out_len()];
    for _ in 0..runs {
        conv.run_relu(isa, &input, &mut output, &mut scratch);
    }
    output.iter().for_each(|&byte| digest.add(u64::from(byte)));
}

fn run_merge([channels, height, width]: [usize; 3], runs: usize, digest: &mut Digest) {
    let mut random = Random(1);
    let fine = random.activations(channels * height * width);
    let coarse = random.activations(channels * height.div_ceil(2) * width.div_ceil(2));
    let mut output = vec![0; fine.len()];
    for _ in 0..runs {
        merge::add_upsampled(&fine, &coarse, channels, height, width, &mut output);
    }
    output.iter().for_each(|&byte| digest.add(u64::from(byte)));
}

/// A checksum that notices order.
struct Digest(u64);

impl Digest {
    fn add(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
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

    fn activations(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(128) as u8).collect()
    }
}
