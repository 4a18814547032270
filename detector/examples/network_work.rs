//! Runs the layers of a model, to be counted from outside:
//!
//! `network_work [--threads N] ISA RUNS ZEROS BUNDLE [LAYER]`
//!
//! ZEROS is `real` for the bundle's own weights, or a number: then the weights are drawn, and so many in a hundred of them are
//! zero. The key of the bundle is `default.pub` beside it. Building the layers costs instructions too. What one run costs is half
//! of the difference between three runs and one, so that no counter has to know where a run begins.
//! `deploy/instructions/gate.sh` does that; a profiler or a model of a processor can do it alike. Without a layer's name all of
//! them run, each on inputs of its own. Instead of a bundle there may be six numbers with commas between them: input channels,
//! output channels, kernel, stride, rows and columns of the input; and before them `depthwise,`.
//!
//! Without RUNS and what follows it lists the layers, `network_work BUNDLE`. Prints the digest of all outputs: the same on
//! every instruction set.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ternwatch_bundle::manifest::PoolMode;
use ternwatch_bundle::model::{
    ConvLayer, Epilogue as LayerEpilogue, ModelLayer, PoolLayer, TensorShape,
};
use ternwatch_bundle::{Model, PublicKey, TrustedKeys, UnverifiedBundle};
use ternwatch_detector::Team;
use ternwatch_kernels::conv::{Conv, ConvError, Depthwise, Epilogue, Scratch, Shape};
use ternwatch_kernels::{Isa, Trit, merge, pool};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            eprintln!(
                "usage: network_work ISA RUNS ZEROS BUNDLE|SIZES [LAYER], or network_work BUNDLE"
            );
            let levels: Vec<_> = Isa::available().iter().map(Isa::to_string).collect();
            eprintln!("ISA: {}; ZEROS: a number, or real", levels.join(", "));
            ExitCode::from(64)
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (threads, arguments) = match arguments {
        [flag, threads, rest @ ..] if flag == "--threads" => {
            (threads.parse().map_err(|error| text(&error))?, rest)
        }
        _ => (1, arguments),
    };
    let team = Team::of_this_thread(threads).map_err(|error| text(&error))?;
    let (isa, runs, zeros, what, only) = match arguments {
        [bundle] => return list(&load(Path::new(bundle))?),
        [isa, runs, zeros, what] => (isa, runs, zeros, what, None),
        [isa, runs, zeros, what, only] => (isa, runs, zeros, what, Some(only)),
        _ => return Err("four or five arguments are needed".into()),
    };
    let isa: Isa = isa.parse().map_err(|error| text(&error))?;
    let runs: usize = runs.parse().map_err(|error| text(&error))?;
    let zeros = match zeros.as_str() {
        "real" => Zeros::Real,
        percent => Zeros::Percent(percent.parse().map_err(|error| text(&error))?),
    };
    let mut runner = Runner {
        runs,
        team,
        digest: Digest(0),
        fastest: Duration::ZERO,
    };
    let (is_depthwise, sizes) = match what.strip_prefix("depthwise,") {
        Some(sizes) => (true, sizes),
        None => (false, what.as_str()),
    };
    if let Some(shape) = parse_shape(sizes) {
        let Zeros::Percent(percent) = zeros else {
            return Err("sizes have no weights of their own".into());
        };
        if is_depthwise {
            let conv = draw_depthwise(shape, percent).map_err(|error| text(&error))?;
            runner.depthwise(&conv);
        } else {
            runner.conv(&draw(isa, shape, percent, Kind::Relu));
        }
    } else {
        let model = load(Path::new(what))?;
        let is_wanted = |layer: &&ModelLayer| only.is_none_or(|only| only == layer.name());
        let mut layers = model.layers().iter().filter(is_wanted).peekable();
        if layers.peek().is_none() {
            return Err(format!("no layer is named {only:?}"));
        }
        for layer in layers {
            match layer {
                ModelLayer::Conv(layer) if layer.groups != 1 => {
                    runner.depthwise(&build_depthwise(layer, zeros));
                }
                ModelLayer::Conv(layer) => runner.conv(&build(isa, layer, zeros)),
                ModelLayer::AddUpsampled(layer) => runner.merge(layer.shape),
                ModelLayer::Add(layer) => runner.add(layer.shape, layer.offset),
                // Its time is that of copying.
                ModelLayer::Concat(layer) => runner.copy(layer.shape),
                ModelLayer::Pool(layer) => runner.pool(layer),
            }
        }
    }
    println!("{:016x}", runner.digest.0);
    eprintln!("fastest {} µs", runner.fastest.as_micros());
    Ok(())
}

/// Whose weights run.
#[derive(Clone, Copy)]
enum Zeros {
    /// The bundle's.
    Real,
    /// Drawn ones.
    Percent(usize),
}

/// What follows the sums of drawn weights.
#[derive(Clone, Copy)]
enum Kind {
    Relu,
    Linear,
}

fn load(path: &Path) -> Result<Model, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::read(path).map_err(|error| failed(&error))?;
    let key = std::fs::read_to_string(path.with_file_name("default.pub"));
    let key: PublicKey = key
        .map_err(|error| failed(&error))?
        .parse()
        .map_err(|error| failed(&error))?;
    let bundle = UnverifiedBundle::from_bytes(&file)
        .and_then(|bundle| bundle.verify(&TrustedKeys::from_iter([key])))
        .map_err(|error| failed(&error))?;
    Model::load(&bundle).map_err(|error| failed(&error))
}

/// Prints a line for each layer: name, sizes or what it is, multiplications (of layers without any: values), zeros in percent.
fn list(model: &Model) -> Result<(), String> {
    let (mut zeros, mut weights) = (0, 0);
    for layer in model.layers() {
        let layer_macs = layer.macs();
        match layer {
            ModelLayer::Conv(layer) => {
                let shape = shape_of(layer);
                let kind = if layer.groups == 1 { "" } else { "depthwise," };
                let zero = layer.trits.iter().filter(|&&trit| trit == Trit::Zero);
                let zero = zero.count();
                (zeros, weights) = (zeros + zero, weights + layer.trits.len());
                println!(
                    "{:<12} {kind}{},{},{},{},{},{} {} {:.1}",
                    layer.name,
                    shape.in_channels(),
                    shape.out_channels(),
                    shape.kernel(),
                    shape.stride(),
                    shape.in_height(),
                    shape.in_width(),
                    layer_macs,
                    100.0 * zero as f64 / layer.trits.len() as f64,
                );
            }
            other => println!(
                "{:<12} {} {} -",
                other.name(),
                match other {
                    ModelLayer::AddUpsampled(_) => "merge",
                    ModelLayer::Add(_) => "add",
                    ModelLayer::Concat(_) => "concat",
                    _ => "pool",
                },
                other.output_shape().len()
            ),
        }
    }
    println!(
        "all - {} {:.1}",
        model.macs(),
        100.0 * zeros as f64 / weights as f64
    );
    Ok(())
}

fn parse_shape(sizes: &str) -> Option<Shape> {
    let sizes: Vec<_> = sizes
        .split(',')
        .map(|size| size.parse().ok())
        .collect::<Option<_>>()?;
    let [in_channels, out_channels, kernel, stride, height, width] = sizes.try_into().ok()?;
    Shape::new(in_channels, out_channels, kernel, stride, height, width).ok()
}

fn shape_of(layer: &ConvLayer) -> Shape {
    let (input, output) = (layer.input_shape, layer.output_shape);
    Shape::new(
        input.channels,
        output.channels,
        layer.kernel,
        layer.stride,
        input.height,
        input.width,
    )
    .expect("the model is one that runs")
}

fn build(isa: Isa, layer: &ConvLayer, zeros: Zeros) -> Conv {
    let shape = shape_of(layer);
    match zeros {
        Zeros::Real => Conv::new(isa, shape, &layer.trits, epilogue_of(layer)),
        Zeros::Percent(percent) => {
            let kind = match layer.epilogue {
                LayerEpilogue::Relu { .. } => Kind::Relu,
                LayerEpilogue::Linear { .. } => Kind::Linear,
            };
            return draw(isa, shape, percent, kind);
        }
    }
    .expect("the model is one that runs")
}

fn build_depthwise(layer: &ConvLayer, zeros: Zeros) -> Depthwise {
    let shape = shape_of(layer);
    match zeros {
        Zeros::Real => Depthwise::new(shape, &layer.trits, epilogue_of(layer)),
        Zeros::Percent(percent) => draw_depthwise(shape, percent),
    }
    .expect("the model is one that runs")
}

fn epilogue_of(layer: &ConvLayer) -> Epilogue {
    let bias = layer.bias.clone();
    match &layer.epilogue {
        LayerEpilogue::Relu {
            multiplier,
            pre_shift,
        } => Epilogue::Relu {
            bias,
            multiplier: multiplier.clone(),
            pre_shift: *pre_shift,
        },
        LayerEpilogue::Linear { .. } => Epilogue::Linear { bias },
    }
}

/// A convolution of drawn weights.
fn draw(isa: Isa, shape: Shape, zero_percent: usize, kind: Kind) -> Conv {
    let weights = draw_weights(shape.weights_len(), zero_percent);
    Conv::new(isa, shape, &weights, draw_epilogue(shape, kind))
        .expect("the parameters fit the shape")
}

fn draw_depthwise(shape: Shape, zero_percent: usize) -> Result<Depthwise, ConvError> {
    let weights_len = shape.out_channels() * shape.kernel() * shape.kernel();
    let weights = draw_weights(weights_len, zero_percent);
    Depthwise::new(shape, &weights, draw_epilogue(shape, Kind::Relu))
}

fn draw_weights(count: usize, zero_percent: usize) -> Vec<Trit> {
    let mut random = Random(1);
    (0..count)
        .map(|_| match random.below(100) {
            percent if percent < zero_percent => Trit::Zero,
            percent if percent % 2 == 0 => Trit::Plus,
            _ => Trit::Minus,
        })
        .collect()
}

fn draw_epilogue(shape: Shape, kind: Kind) -> Epilogue {
    let bias = vec![16; shape.out_channels()];
    match kind {
        Kind::Linear => Epilogue::Linear { bias },
        Kind::Relu => Epilogue::Relu {
            bias,
            multiplier: vec![1 << 12; shape.out_channels()],
            pre_shift: 0,
        },
    }
}

/// Runs layers.
struct Runner {
    runs: usize,
    team: Team,
    /// Of all outputs.
    digest: Digest,
    /// The sum of each layer's fastest run: of many, one that nothing else came in between of.
    fastest: Duration,
}

impl Runner {
    fn conv(&mut self, conv: &Conv) {
        let shape = conv.shape();
        let input = Random(2).activations(shape.in_len());
        let mut scratch = Scratch::for_threads(conv.scratch_len(), self.team.threads());
        if let Epilogue::Linear { .. } = conv.epilogue() {
            let mut output = vec![0; shape.out_len()];
            self.repeat(|| conv.run_linear(&input, &mut output, &mut scratch));
            output
                .iter()
                .for_each(|&logit| self.digest.add(logit as u64));
        } else {
            let mut output = vec![0; shape.out_len()];
            self.repeat(|| conv.run_relu(&input, &mut output, &mut scratch));
            output
                .iter()
                .for_each(|&byte| self.digest.add(u64::from(byte)));
        }
    }

    fn depthwise(&mut self, conv: &Depthwise) {
        let scratch = Scratch::for_threads(0, self.team.threads());
        let shape = *conv.shape();
        self.activations(shape.in_len(), shape.out_len(), |input, output| {
            conv.run(input, output, &scratch);
        });
    }

    fn add(&mut self, shape: TensorShape, offset: u8) {
        let other = Random(3).activations(shape.len());
        self.activations(shape.len(), shape.len(), |input, output| {
            merge::add(input, &other, offset, output);
        });
    }

    fn copy(&mut self, shape: TensorShape) {
        self.activations(shape.len(), shape.len(), |input, output| {
            output.copy_from_slice(input);
        });
    }

    fn pool(&mut self, layer: &PoolLayer) {
        let (shape, output) = (layer.input_shape, layer.output_shape);
        let sides = [shape.height, shape.width];
        let (kernel, stride) = (layer.kernel, layer.stride);
        self.activations(shape.len(), output.len(), |input, output| {
            match layer.mode {
                PoolMode::Max => pool::max(input, shape.channels, sides, kernel, stride, output),
                PoolMode::Mean => pool::mean(input, shape.channels, sides, output),
            }
        });
    }

    /// What makes activations of activations.
    fn activations(&mut self, in_len: usize, out_len: usize, run: impl Fn(&[u8], &mut [u8])) {
        let input = Random(2).activations(in_len);
        let mut output = vec![0; out_len];
        self.repeat(|| run(&input, &mut output));
        output
            .iter()
            .for_each(|&byte| self.digest.add(u64::from(byte)));
    }

    fn merge(&mut self, shape: TensorShape) {
        let (channels, height, width) = (shape.channels, shape.height, shape.width);
        let mut random = Random(1);
        let fine = random.activations(shape.len());
        let coarse = random.activations(channels * height.div_ceil(2) * width.div_ceil(2));
        let mut output = vec![0; fine.len()];
        self.repeat(|| merge::add_upsampled(&fine, &coarse, channels, height, width, &mut output));
        output
            .iter()
            .for_each(|&byte| self.digest.add(u64::from(byte)));
    }

    fn repeat(&mut self, mut run: impl FnMut()) {
        let times = (0..self.runs).map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        });
        self.fastest += times.min().unwrap_or_default();
    }
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
