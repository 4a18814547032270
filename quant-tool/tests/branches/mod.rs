//! Networks with branches: depthwise convolutions and linear bottlenecks, residuals, Concat and pooling, each run by tract from the
//! same file, by our graph, by the detector from the bundle, and by tract again from what the bundle is exported as.

use std::collections::HashMap;

use quant_tool::onnx::{Form, encode};
use quant_tool::quantize::activation::{IMAGE_STEP, STEP};
use quant_tool::train::stage::{Stage, State};
use ternwatch_bundle::Model;
use ternwatch_bundle::manifest::PoolMode;
use ternwatch_bundle::model::{Epilogue, ModelLayer};
use ternwatch_detector::{Detector, LayerOutput};
use ternwatch_kernels::Isa;

use super::*;

const SIZE: [usize; 2] = [64, 48];
const HEADS: &str =
    "heads = [{ outputs = [\"head8\"], stride = 8 }, { outputs = [\"head16\"], stride = 16 }]";

/// A file under construction: names of layers come from a count.
struct Builder {
    /// Whether convolutions are normalized, by numbers that have nothing to do with what they add up.
    is_normalized: bool,
    file: OnnxFile,
    rng: fastrand::Rng,
    count: usize,
}

/// What follows a convolution.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Relu,
    Relu6,
    Nothing,
}

impl Builder {
    fn new(seed: u64) -> Self {
        let mut file = OnnxFile::new(SIZE.map(|side| side as i64));
        file.constant("zero", &[], &[0.0]);
        file.constant("six", &[], &[6.0]);
        Self {
            is_normalized: true,
            file,
            rng: fastrand::Rng::with_seed(seed),
            count: 0,
        }
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("t{}", self.count)
    }

    fn end(&mut self, sum: &str, end: End) -> String {
        if end == End::Nothing {
            return sum.to_owned();
        }
        let name = self.name();
        match end {
            End::Relu => self.file.node("Relu", &[sum], &name, &[]),
            _ => self.file.node("Clip", &[sum, "zero", "six"], &name, &[]),
        }
        name
    }

    /// Convolution (in, out, kernel, stride), batch normalization, and what follows.
    fn conv(&mut self, input: &str, sizes: (usize, usize, usize, i64), end: End) -> String {
        let sum = self.name();
        self.file.conv(&mut self.rng, input, &sum, sizes);
        let normed = self.normalize(sum, sizes.1);
        self.end(&normed, end)
    }

    fn depthwise(&mut self, input: &str, sizes: (usize, i64), end: End) -> String {
        let sum = self.name();
        self.file.depthwise(&mut self.rng, input, &sum, sizes);
        let normed = self.normalize(sum, sizes.0);
        self.end(&normed, end)
    }

    fn normalize(&mut self, sum: String, channels: usize) -> String {
        if !self.is_normalized {
            return sum;
        }
        let normed = self.name();
        self.file.normalize(&mut self.rng, &sum, &normed, channels);
        normed
    }

    /// MobileNetV2's block (in, wide, out, stride), with its residual where sizes agree.
    fn bottleneck(&mut self, input: &str, sizes: (usize, usize, usize, i64)) -> String {
        let (each, wide, out, stride) = sizes;
        let x = self.conv(input, (each, wide, 1, 1), End::Relu6);
        let x = self.depthwise(&x, (wide, stride), End::Relu6);
        let x = self.conv(&x, (wide, out, 1, 1), End::Nothing);
        if (each, stride) != (out, 1) {
            return x;
        }
        let sum = self.name();
        self.file.node("Add", &[&x, input], &sum, &[]);
        sum
    }

    /// ResNet's block (in, out, stride), with a convolution on the way around it where sizes differ.
    fn basic(&mut self, input: &str, (each, out, stride): (usize, usize, i64)) -> String {
        let x = self.conv(input, (each, out, 3, stride), End::Relu);
        let x = self.conv(&x, (out, out, 3, 1), End::Nothing);
        let sum = self.name();
        if (each, stride) == (out, 1) {
            self.file.node("Add", &[&x, input], &sum, &[]);
        } else {
            let around = self.conv(input, (each, out, 1, stride), End::Nothing);
            self.file.node("Add", &[&around, &x], &sum, &[]);
        }
        self.end(&sum, End::Relu)
    }

    fn pool(&mut self, operator: &str, input: &str, sizes: [i64; 3]) -> String {
        let name = self.name();
        self.file.pool(operator, input, &name, sizes);
        name
    }

    fn enlarge(&mut self, input: &str) -> String {
        let name = self.name();
        let scales = format!("{name}.scales");
        self.file.constant(&scales, &[4], &[1.0, 1.0, 2.0, 2.0]);
        let settings = [
            Setting::Text("coordinate_transformation_mode", "asymmetric"),
            Setting::Text("nearest_mode", "floor"),
        ];
        self.file
            .node("Resize", &[input, "", &scales], &name, &settings);
        name
    }

    fn concat(&mut self, inputs: &[&str]) -> String {
        let name = self.name();
        let settings = [Setting::Int("axis", 1)];
        self.file.node("Concat", inputs, &name, &settings);
        name
    }

    fn finish(mut self, of8: (&str, usize), of16: (&str, usize)) -> OnnxFile {
        for (name, (input, channels)) in [("head8", of8), ("head16", of16)] {
            let sizes = (channels, 5, 1, 1);
            self.file.conv(&mut self.rng, input, name, sizes);
            self.file.outputs.push(name.into());
        }
        self.file
    }
}

fn mobile(mut b: Builder) -> OnnxFile {
    let x = b.conv("picture", (3, 8, 3, 2), End::Relu6);
    let x = b.depthwise(&x, (8, 1), End::Relu6);
    let x = b.conv(&x, (8, 6, 1, 1), End::Nothing);
    let x = b.bottleneck(&x, (6, 18, 8, 2));
    let x = b.bottleneck(&x, (8, 24, 8, 1));
    let x = b.bottleneck(&x, (8, 24, 10, 2));
    let x8 = b.bottleneck(&x, (10, 30, 10, 1));
    let x8 = b.bottleneck(&x8, (10, 30, 10, 1));
    let x16 = b.bottleneck(&x8, (10, 30, 12, 2));
    let x16 = b.conv(&x16, (12, 20, 1, 1), End::Relu6);
    b.finish((&x8, 10), (&x16, 20))
}

fn residual(mut b: Builder) -> OnnxFile {
    let x = b.conv("picture", (3, 8, 3, 2), End::Relu);
    let x = b.pool("MaxPool", &x, [3, 2, 1]);
    let x = b.basic(&x, (8, 8, 1));
    let x = b.basic(&x, (8, 12, 2));
    let x8 = b.basic(&x, (12, 12, 1));
    let x16 = b.basic(&x8, (12, 16, 2));
    b.finish((&x8, 12), (&x16, 16))
}

/// Halves side by side, one of which may be negative, and pools of pools (SPP); at stride 16 also a mean.
fn csp(mut b: Builder) -> OnnxFile {
    let x = b.conv("picture", (3, 6, 3, 2), End::Relu);
    let x = b.conv(&x, (6, 8, 3, 2), End::Relu);
    let x = b.conv(&x, (8, 10, 3, 2), End::Relu);
    let left = b.conv(&x, (10, 6, 1, 1), End::Relu);
    let deep = b.conv(&left, (6, 6, 3, 1), End::Relu);
    let right = b.conv(&x, (10, 5, 1, 1), End::Nothing);
    let joined = b.concat(&[&deep, &right, &left]);
    let x = b.conv(&joined, (17, 8, 1, 1), End::Relu);
    let five = b.pool("MaxPool", &x, [5, 1, 2]);
    let nine = b.pool("MaxPool", &x, [9, 1, 4]);
    let thirteen = b.pool("MaxPool", &nine, [5, 1, 2]);
    let spp = b.concat(&[&x, &five, &nine, &thirteen]);
    let x8 = b.conv(&spp, (32, 10, 1, 1), End::Relu);
    let most = b.pool("MaxPool", &joined, [2, 2, 0]);
    let mean = b.pool("AveragePool", &joined, [2, 2, 0]);
    let x16 = b.concat(&[&most, &mean]);
    let x16 = b.conv(&x16, (34, 12, 1, 1), End::Relu);
    b.finish((&x8, 10), (&x16, 12))
}

/// Coarse tensors that are enlarged: added to a finer one, neither activated, and joined to others as they are.
fn neck(mut b: Builder) -> OnnxFile {
    let x = b.conv("picture", (3, 6, 3, 2), End::Relu);
    let x = b.conv(&x, (6, 8, 3, 2), End::Relu);
    let x8 = b.conv(&x, (8, 10, 3, 2), End::Relu);
    let x16 = b.conv(&x8, (10, 10, 3, 2), End::Relu);
    let fine = b.conv(&x8, (10, 8, 1, 1), End::Nothing);
    let coarse = b.conv(&x16, (10, 8, 1, 1), End::Nothing);
    let sum = b.name();
    b.file.add_enlarged(&fine, &coarse, &sum);
    let y8 = b.conv(&sum, (8, 9, 1, 1), End::Relu);
    let large = b.enlarge(&x16);
    let large_sum = b.enlarge(&coarse);
    let x8 = b.concat(&[&large, &x8, &y8, &large_sum]);
    let x8 = b.conv(&x8, (37, 12, 1, 1), End::Relu);
    b.finish((&x8, 12), (&x16, 10))
}

/// All of them, by name.
fn all(seed: u64, is_normalized: bool) -> [(&'static str, OnnxFile); 4] {
    let builder = || Builder {
        is_normalized,
        ..Builder::new(seed)
    };
    [
        ("mobile", mobile(builder())),
        ("residual", residual(builder())),
        ("csp", csp(builder())),
        ("neck", neck(builder())),
    ]
}

#[test]
fn branched_networks_compute_what_tract_does() {
    for seed in 0..3 {
        for (name, file) in all(seed, true) {
            let picture = pictures(seed, 1, SIZE);
            let expected = tracts(&file, &picture.data);
            let config = config(&format!("percentile = 1.0\n{HEADS}"));
            let float = import::read(&file.bytes(), &config, &classes(1)).unwrap();
            let images = std::slice::from_ref(&picture);
            let fitted = import::calibrated(&float, &config, images).unwrap();
            let outputs = run(&fitted.network, &fitted.parameters, &picture);
            for (own, expected) in outputs.iter().zip(&expected) {
                let difference = difference(expected, &own.data);
                let stride = own.stride;
                assert!(difference < 1e-4, "{name} {seed}, {stride}: {difference}");
            }
        }
    }
}

#[test]
fn ranges_of_branched_networks_are_estimated_without_pictures() {
    let config = config(HEADS);
    for (name, file) in all(7, false) {
        let picture = pictures(7, 1, SIZE);
        let expected = tracts(&file, &picture.data);
        let float = import::read(&file.bytes(), &config, &classes(1)).unwrap();
        let fitted = import::estimated(&float, &config).unwrap();
        let outputs = run(&fitted.network, &fitted.parameters, &picture);
        for (own, expected) in outputs.iter().zip(&expected) {
            let error = error(expected, &own.data);
            assert!(error < 0.2, "{name}, {}: {error}", own.stride);
        }
    }
}

#[test]
fn what_is_raised_says_so_in_the_layers() {
    let config = config(HEADS);
    let network = |file: OnnxFile| {
        let float = import::read(&file.bytes(), &config, &classes(1)).unwrap();
        let images = pictures(1, 2, SIZE);
        let images = std::slice::from_ref(&images);
        import::calibrated(&float, &config, images).unwrap().network
    };
    let offsets = |network: &Network| -> Vec<u8> {
        let adds = network.layers.iter().filter_map(|layer| match layer {
            Layer::Add { offset, .. } => Some(*offset),
            _ => None,
        });
        adds.collect()
    };
    let (mobile, residual, csp) = (
        network(mobile(Builder::new(1))),
        network(residual(Builder::new(1))),
        network(csp(Builder::new(1))),
    );
    // Sums of three blocks stay raised; those of ResNet end with a ReLU.
    assert!(matches!(offsets(&mobile)[..], [a, b, c] if a > 0 && b > 0 && b == c));
    assert!(offsets(&residual).len() == 4 && offsets(&residual).iter().all(|o| *o > 0));
    let depthwise = mobile.layers.iter().filter(|layer| {
        matches!(layer, Layer::Conv { groups, in_channels, .. } if *groups > 1 && groups == in_channels)
    });
    assert_eq!(depthwise.count(), 7);
    let pools = |mode: PoolMode| {
        let pools = csp.layers.iter();
        pools
            .filter(|l| matches!(l, Layer::Pool { mode: own, .. } if *own == mode))
            .count()
    };
    // The one of 9 is two of 5.
    assert_eq!((pools(PoolMode::Max), pools(PoolMode::Mean)), (5, 1));
}

#[test]
fn only_the_border_differs_where_a_larger_kernel_reads_what_is_raised() {
    let mut b = Builder::new(3);
    let x = b.conv("picture", (3, 8, 3, 2), End::Relu);
    let x = b.conv(&x, (8, 6, 3, 2), End::Nothing);
    let x = b.depthwise(&x, (6, 1), End::Nothing);
    let x8 = b.conv(&x, (6, 8, 3, 2), End::Relu);
    let x16 = b.conv(&x8, (8, 8, 3, 2), End::Relu);
    let file = b.finish((&x8, 8), (&x16, 8));
    let picture = pictures(3, 1, SIZE);
    let config = config(&format!("percentile = 1.0\n{HEADS}"));
    let float = import::read(&file.bytes(), &config, &classes(1)).unwrap();
    let images = std::slice::from_ref(&picture);
    let fitted = import::calibrated(&float, &config, images).unwrap();
    let own = run(&fitted.network, &fitted.parameters, &picture).remove(0);
    let expected = tracts(&file, &picture.data).remove(0);
    let inside = |values: &[f32]| -> Vec<f32> {
        let (width, height) = (own.width, own.height);
        let is_inside = |i: usize| {
            let (x, y) = (i % width, i / width % height);
            (1..width - 1).contains(&x) && (1..height - 1).contains(&y)
        };
        let cells = values.iter().enumerate().filter(|(i, _)| is_inside(*i));
        cells.map(|(_, v)| *v).collect()
    };
    // A little is clipped at the border, where sums lack what zeros would have given.
    let away = difference(&inside(&expected), &inside(&own.data));
    assert!(away < 1e-4, "{away}");
    let everywhere = difference(&expected, &own.data);
    assert!(everywhere > 1e-3, "{everywhere}");
}

#[test]
fn poolings_of_any_side_are_tracts() {
    for (width, height) in [(64, 48), (62, 46), (60, 42), (58, 54)] {
        let mut b = Builder::new(4);
        b.file.size = [width, height];
        let x = b.conv("picture", (3, 6, 3, 2), End::Nothing);
        let three = b.pool("MaxPool", &x, [3, 2, 1]);
        let five = b.pool("MaxPool", &x, [5, 2, 2]);
        let two = b.name();
        let settings = [
            Setting::Ints("kernel_shape", &[2; 2]),
            Setting::Ints("strides", &[2; 2]),
            Setting::Int("ceil_mode", 1),
        ];
        b.file.node("MaxPool", &[&x], &two, &settings);
        let joined = b.concat(&[&three, &two, &five]);
        let mixed = b.pool("MaxPool", &joined, [7, 1, 3]);
        b.file.conv(&mut b.rng, &mixed, "head", (18, 5, 1, 1));
        b.file.outputs = vec!["head".into()];
        let config = config("percentile = 1.0\nheads = [{ outputs = [\"head\"], stride = 4 }]");
        let float = import::read(&b.file.bytes(), &config, &classes(1)).unwrap();
        let picture = pictures(4, 1, [width, height].map(|side| side as usize));
        let images = std::slice::from_ref(&picture);
        let fitted = import::calibrated(&float, &config, images).unwrap();
        let own = run(&fitted.network, &fitted.parameters, &picture).remove(0);
        let expected = tracts(&b.file, &picture.data).remove(0);
        let difference = difference(&expected, &own.data);
        assert!(difference < 1e-4, "{width} x {height}: {difference}");
    }
}

/// What the detector makes of an image: the heads' outputs in their real units, in the order of heads.
fn detectors(model: &Model, image: &[u8]) -> Vec<Vec<f32>> {
    let mut detector = Detector::new(model, Isa::detect()).unwrap();
    detector.input_mut().copy_from_slice(image);
    let mut outputs = HashMap::new();
    detector.infer_observed(|layer, output| {
        if let LayerOutput::I16(values) = output {
            outputs.insert(layer, values.to_vec());
        }
    });
    let real = |head: usize| {
        let ModelLayer::Conv(conv) = &model.layers()[head] else {
            panic!("a head is a convolution");
        };
        let Epilogue::Linear { scale } = &conv.epilogue else {
            panic!("a head is linear");
        };
        let cells = conv.output_shape.height * conv.output_shape.width;
        let values = outputs[&head].iter().enumerate();
        values
            .map(|(i, v)| f32::from(*v) * scale[i / cells])
            .collect()
    };
    model.heads().iter().map(|head| real(head.layer)).collect()
}

/// What tract makes of the same image and the bundle's ONNX file.
fn exported(model: &Model, image: &[u8], form: Form) -> Vec<Vec<f32>> {
    let bytes = encode(model, form);
    let plan = onnx().model_for_read(&mut bytes.as_slice()).unwrap();
    let plan = plan.into_optimized().unwrap().into_runnable().unwrap();
    let values: Vec<f32> = image.iter().map(|v| f32::from(*v)).collect();
    let input = Tensor::from_shape(&[1, 3, SIZE[1], SIZE[0]], &values).unwrap();
    let outputs = plan.run(tvec!(input.into())).unwrap();
    let values = |output: &TValue| {
        let view = output.to_plain_array_view::<f32>().unwrap();
        view.iter().copied().collect()
    };
    outputs.iter().map(values).collect()
}

/// Parameters whose shifts are whole sums, as those in a bundle are. With as few channels as here one sum is several steps of the
/// output, and layer after layer would add its own difference.
fn with_whole_biases(network: &Network, state: &State) -> Parameters {
    let mut parameters = state.average.clone();
    let convs = network.layers.iter().filter_map(|layer| match layer {
        Layer::Conv {
            name,
            input,
            activation,
            ..
        } => Some((name, input, *activation)),
        _ => None,
    });
    for ((name, input, activation), levels) in convs.zip(&state.quantizer.layers) {
        let part = |role: Role| state.average.get(name, role);
        let step = if input == IMAGE { IMAGE_STEP } else { STEP };
        for (n, scale) in levels.scale.iter().enumerate() {
            let (slope, mean) = match activation {
                Activation::Linear => (part(Role::Gamma)[n], 0.0),
                Activation::Relu => {
                    let deviation = (part(Role::Variance)[n] + 1e-5).sqrt();
                    (part(Role::Gamma)[n] / deviation, part(Role::Mean)[n])
                }
            };
            let sum = (slope * scale * step).abs();
            let shift = part(Role::Beta)[n] - slope * mean;
            if sum > 1e-6 {
                parameters.get_mut(name, Role::Beta)[n] =
                    (shift / sum).round() * sum + slope * mean;
            }
        }
    }
    parameters
}

#[test]
fn branched_networks_become_bundles() {
    let text = training().replace(super::HEADS, &format!("\n{HEADS}\n"));
    for (name, file) in all(5, false) {
        let bench = Bench::new();
        bench.write("my.toml", &text);
        bench.write("my.onnx", file.bytes());
        bench.succeed(&format!("import my.onnx {CONFIG} run --data data"));
        bench.succeed(&format!("quantize {CONFIG} run --data data"));
        bench.succeed(&format!(
            "export {CONFIG} run --key key.secret --out my.tern"
        ));
        bench.succeed("verify --bundle my.tern --key key.pub");
        bench.succeed("inspect --bundle my.tern --key key.pub");
        bench.succeed("card --bundle my.tern --key key.pub --out .");
        let key = ternwatch_bundle::PublicKey::from_text(&bench.text("key.pub")).unwrap();
        let bytes = std::fs::read(bench.path("my.tern")).unwrap();
        let model = quant_tool::files::model_from(&bytes, key).unwrap();

        let training = Training::read(&bench.path("my.toml")).unwrap();
        let network = training.network(&bench.path("run")).unwrap();
        let hard = Stage::Hard.path(&bench.path("run"));
        let state = State::read(&hard, &network, &training.recipe()).unwrap();
        assert!(state.quantizer.is_ternary());
        let picture = pictures(6, 1, SIZE);
        let image: Vec<u8> = picture.data.iter().map(|v| (v * 127.0) as u8).collect();
        let picture = Images {
            data: image.iter().map(|v| f32::from(*v) / 127.0).collect(),
            ..picture
        };
        let mode = (Activations::U7, Statistics::Running);
        let parameters = with_whole_biases(&network, &state);
        let graph = forward(&network, &parameters, picture, mode, Gradients::None);
        let graph = graph.unwrap().outputs;
        let own = detectors(&model, &image);
        // Training rounds as the processor adds up, so that the network is another one elsewhere.
        let most = if name == "mobile" { 0.4 } else { 0.08 };
        for (own, graph) in own.iter().zip(&graph) {
            // A sum on the border of two steps may fall to either side, and what follows enlarges that: most of all where a few
            // channels, raised, become many.
            let error = error(&graph.data, own);
            assert!(error < most, "{name}, {}: {error}", graph.stride);
        }
        let exact = exported(&model, &image, Form::Exact);
        for (own, theirs) in own.iter().zip(&exact) {
            let difference = difference(own, theirs);
            assert!(difference < 1e-6, "{name}: {difference}");
        }
        let folded = exported(&model, &image, Form::Folded);
        for (own, theirs) in own.iter().zip(&folded) {
            let error = error(own, theirs);
            assert!(error < 2.0 * most, "{name}: {error} without rounding");
        }
    }
}

#[test]
fn a_branched_network_is_rounded_without_data() {
    let text = training().replace(super::HEADS, &format!("\n{HEADS}\n"));
    for (_, file) in all(6, true) {
        let bench = Bench::new();
        bench.write("my.toml", &text);
        bench.write("my.onnx", file.bytes());
        bench.succeed(&format!("import my.onnx {CONFIG} run --without-data"));
        bench.succeed(&format!(
            "export {CONFIG} run --key key.secret --out my.tern"
        ));
        bench.succeed("verify --bundle my.tern --key key.pub");
    }
}
