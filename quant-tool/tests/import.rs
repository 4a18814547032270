//! Networks that were trained elsewhere: what is read is what another engine (tract) computes, and what cannot be read is
//! refused by name.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod branches;
mod elsewhere;

use bench::{Bench, TINY};
use elsewhere::{Message, OnnxFile, Setting, detector, normal};
use proptest::prelude::*;
use quant_tool::import::{self, config::Config};
use quant_tool::network::{IMAGE, Network};
use quant_tool::quantize::{Order, Quantizer};
use quant_tool::train::classify::mean_logits;
use quant_tool::train::config::Config as Training;
use quant_tool::train::graph::{Activations, Gradients, HeadOutput, Images, Statistics, forward};
use quant_tool::train::parameters::{Parameters, Role};
use ternwatch_bundle::manifest::{Activation, Head, HeadKind, Layer};
use tract_onnx::prelude::*;

const HEADS: &str = r#"
heads = [{ outputs = ["head8"], stride = 8 }, { outputs = ["logits16", "boxes16"], stride = 16 }]
"#;

/// The tests' configuration, with what is to be known of a file in place of a network.
fn training() -> String {
    let of = |table: &str| TINY.find(table).unwrap();
    let (before, after) = (&TINY[..of("[network]")], &TINY[of("[float]")..]);
    let after = after.replacen("steps = 6", "steps = 0", 1);
    let after = after.replace("[augment]", "distillation = 1.0\n[augment]");
    format!("{before}[imported]{HEADS}{after}")
}

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn classes(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("class {i}")).collect()
}

/// Pictures with patches and noise, values 0 to 1.
fn pictures(seed: u64, count: usize, [width, height]: [usize; 2]) -> Images {
    let mut rng = fastrand::Rng::with_seed(seed);
    let value = |i: usize| ((i % width) / 9 * 37 + i / (width * 11) * 53) % 90;
    let data =
        (0..count * 3 * height * width).map(|i| (value(i) as f32 + 37.0 * rng.f32()) / 127.0);
    Images {
        data: data.collect(),
        count,
        height,
        width,
    }
}

fn run(network: &Network, parameters: &Parameters, images: &Images) -> Vec<HeadOutput> {
    let mode = (Activations::Float, Statistics::Running);
    let pass = forward(network, parameters, images.clone(), mode, Gradients::None);
    pass.unwrap().outputs
}

/// What tract makes of one picture: the outputs that the file declares.
fn tracts(file: &OnnxFile, picture: &[f32]) -> Vec<Vec<f32>> {
    let bytes = file.bytes();
    let model = onnx().model_for_read(&mut bytes.as_slice()).unwrap();
    let plan = model.into_optimized().unwrap().into_runnable().unwrap();
    let [width, height] = file.size.map(|side| side as usize);
    let input = Tensor::from_shape(&[1, 3, height, width], picture).unwrap();
    let outputs = plan.run(tvec!(input.into())).unwrap();
    let values = |output: &TValue| {
        output
            .to_plain_array_view::<f32>()
            .unwrap()
            .iter()
            .copied()
            .collect()
    };
    outputs.iter().map(values).collect()
}

/// Largest difference, in parts of the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
        / largest
}

/// The root of the mean squared difference, in parts of that of `a`.
fn error(a: &[f32], b: &[f32]) -> f32 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
    let wrong = squares(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (wrong / squares(&mut a.iter().copied())).sqrt()
}

#[test]
fn an_imported_network_computes_what_tract_does() {
    for seed in 0..3 {
        let mut file = detector(seed, [64, 48], 2);
        file.outputs = ["head8", "logits16.s", "boxes16.s"]
            .map(str::to_owned)
            .to_vec();
        let picture = pictures(seed, 1, [64, 48]);
        let expected = tracts(&file, &picture.data);
        // What is done with the heads later does not matter.
        file.node("NonMaxSuppression", &["head8", "logits16"], "boxes", &[]);
        let config = config(&format!("percentile = 1.0{HEADS}"));
        let float = import::read(&file.bytes(), &config, &classes(2)).unwrap();
        assert_eq!(float.network.layers.len(), 9);
        let fitted = import::calibrated(&float, &config, std::slice::from_ref(&picture)).unwrap();
        let outputs = run(&fitted.network, &fitted.parameters, &picture);
        let sixteen = [&expected[1][..], &expected[2][..]].concat();
        for (own, expected) in outputs.iter().zip([&expected[0], &sixteen]) {
            let difference = difference(expected, &own.data);
            assert!(
                difference < 1e-4,
                "seed {seed}, stride {}: {difference}",
                own.stride
            );
        }
        // The ranges of ordinary pictures, too: then a little is clipped.
        let usual = Config {
            percentile: 0.9999,
            ..config.clone()
        };
        let fitted = import::calibrated(&float, &usual, std::slice::from_ref(&picture)).unwrap();
        let outputs = run(&fitted.network, &fitted.parameters, &picture);
        for (own, expected) in outputs.iter().zip([&expected[0], &sixteen]) {
            let error = error(expected, &own.data);
            assert!(error < 0.02, "seed {seed}, stride {}: {error}", own.stride);
        }
        // Without pictures ranges are estimated.
        let fitted = import::estimated(&float, &usual).unwrap();
        let outputs = run(&fitted.network, &fitted.parameters, &picture);
        for (own, expected) in outputs.iter().zip([&expected[0], &sixteen]) {
            let error = error(expected, &own.data);
            assert!(
                error < 0.2,
                "seed {seed}, stride {}: {error} without data",
                own.stride
            );
        }
    }
}

#[test]
fn activations_fill_their_range_and_sums_are_normalized() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut file = OnnxFile::new([64, 48]);
    file.conv(&mut rng, "picture", "a", (3, 6, 3, 2));
    file.node("Relu", &["a"], "a.r", &[]);
    file.conv(&mut rng, "a.r", "b", (6, 8, 3, 2));
    file.node("Relu", &["b"], "b.r", &[]);
    file.conv(&mut rng, "b.r", "head", (8, 5, 1, 1));
    let config = config("percentile = 0.999\nheads = [{ outputs = [\"head\"], stride = 4 }]");
    let float = import::read(&file.bytes(), &config, &classes(1)).unwrap();
    let images = pictures(1, 4, [64, 48]);
    let fitted = import::calibrated(&float, &config, std::slice::from_ref(&images)).unwrap();
    let parameters = fitted.parameters;
    // The file normalizes nothing; the stages do, by the statistics of a batch, and that changes nothing now.
    let mode = (Activations::Float, Statistics::Batch);
    let pass = forward(
        &float.network,
        &parameters,
        images.clone(),
        mode,
        Gradients::None,
    )
    .unwrap();
    let running = run(&float.network, &parameters, &images).remove(0);
    let error = error(&running.data, &pass.outputs[0].data);
    assert!(error < 0.01, "{error}");
    let mut layers = float.network.clone();
    layers.heads = ["conv0", "conv1"]
        .map(|layer| Head {
            layer: layer.into(),
            stride: 1,
            kind: HeadKind::Classes,
        })
        .to_vec();
    for output in run(&layers, &parameters, &images) {
        let clipped = output.data.iter().filter(|v| **v > 3.999).count();
        let part = clipped as f32 / output.data.len() as f32;
        assert!(part > 0.0002 && part < 0.002, "{part}");
    }
}

/// A network of ours with random weights, normalized by what pictures show, shifts and slopes at random.
fn ours(seed: u64) -> (Network, Parameters) {
    let config = quant_tool::network::Config {
        width: 72,
        height: 56,
        stem: [5, 7],
        stage8: vec![8, 6],
        stage16: vec![9],
        stage32: vec![10],
        neck: 6,
    };
    let network = Network::new(&config, 1);
    let mut parameters = Parameters::init(&network, seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    for p in &mut parameters.0 {
        for v in &mut p.value {
            match p.role {
                Role::Gamma => *v *= 0.8 + 0.4 * rng.f32(),
                Role::Beta => *v += 0.4 * normal(&mut rng),
                Role::Weight | Role::Mean | Role::Variance => {}
            }
        }
    }
    let mode = (Activations::Float, Statistics::Batch);
    let images = pictures(seed + 100, 4, [72, 56]);
    let pass = forward(&network, &parameters, images, mode, Gradients::None).unwrap();
    for (name, mean, variance) in &pass.statistics {
        parameters.get_mut(name, Role::Mean).copy_from_slice(mean);
        parameters
            .get_mut(name, Role::Variance)
            .copy_from_slice(variance);
    }
    (network, parameters)
}

#[test]
fn a_network_of_ours_comes_back() {
    let (network, parameters) = ours(3);
    let file = ours_as_onnx(&network, &parameters);
    let heads = [8, 16, 32]
        .map(|s| format!("{{ outputs = [\"head{s}.biased\"], stride = {s} }}"))
        .join(", ");
    let config = config(&format!("percentile = 1.0\nheads = [{heads}]"));
    let float = import::read(&file.bytes(), &config, &classes(1)).unwrap();
    assert_eq!(float.network.layers.len(), network.layers.len());
    assert_eq!(float.network.macs(), network.macs());
    let images = pictures(9, 2, [72, 56]);
    let expected = run(&network, &parameters, &images);
    let fitted = import::calibrated(&float, &config, std::slice::from_ref(&images)).unwrap();
    for (own, expected) in run(&fitted.network, &fitted.parameters, &images)
        .iter()
        .zip(&expected)
    {
        assert_eq!(
            (own.height, own.width, own.stride),
            (expected.height, expected.width, expected.stride)
        );
        let difference = difference(&expected.data, &own.data);
        assert!(difference < 1e-4, "stride {}: {difference}", own.stride);
    }
}

/// A network of ours as others would write it, activations clipped at 4.
fn ours_as_onnx(network: &Network, parameters: &Parameters) -> OnnxFile {
    let mut file = OnnxFile::new([network.input.width, network.input.height].map(i64::from));
    file.constant("zero", &[], &[0.0]);
    file.constant("four", &[], &[4.0]);
    let own = |name: &str| {
        if name == IMAGE {
            "picture".to_owned()
        } else {
            name.to_owned()
        }
    };
    for layer in &network.layers {
        match layer {
            Layer::AddUpsampled { name, fine, coarse } => {
                // Sides are odd here: what was enlarged is cut.
                let [large, cut, sum] =
                    ["large", "cut", "sum"].map(|part| format!("{name}.{part}"));
                file.constant(&format!("{name}.scales"), &[4], &[1.0, 1.0, 2.0, 2.0]);
                let settings = [Setting::Text(
                    "coordinate_transformation_mode",
                    "half_pixel",
                )];
                file.node(
                    "Resize",
                    &[coarse, "", &format!("{name}.scales")],
                    &large,
                    &settings,
                );
                let stride = if name == "merge8" { 8 } else { 16 };
                file.indices(&format!("{name}.starts"), &[0, 0]);
                file.indices(
                    &format!("{name}.ends"),
                    &[56i64, 72].map(|side| (side + stride - 1) / stride),
                );
                file.indices(&format!("{name}.axes"), &[2, -1]);
                let inputs = ["starts", "ends", "axes"].map(|part| format!("{name}.{part}"));
                file.node(
                    "Slice",
                    &[&large, &inputs[0], &inputs[1], &inputs[2]],
                    &cut,
                    &[],
                );
                file.node("Add", &[&cut, fine], &sum, &[]);
                file.node("Clip", &[&sum, "zero", "four"], name, &[]);
            }
            Layer::Conv {
                name,
                input,
                in_channels,
                out_channels,
                kernel,
                stride,
                activation,
                ..
            } => {
                let [out, each, k] = [*out_channels, *in_channels, *kernel].map(|n| n as usize);
                let part = |role: Role| parameters.get(name, role).to_vec();
                let (mut weight, [gamma, beta]) =
                    (part(Role::Weight), [Role::Gamma, Role::Beta].map(part));
                let settings = [
                    Setting::Ints("strides", &[i64::from(*stride); 2]),
                    Setting::Ints("pads", &[i64::from(kernel / 2); 4]),
                ];
                let input = own(input);
                let sum = format!("{name}.sum");
                let [w, b] = ["w", "b"].map(|part| format!("{name}.{part}"));
                if *activation == Activation::Linear {
                    weight
                        .iter_mut()
                        .enumerate()
                        .for_each(|(i, w)| *w *= gamma[i / (each * k * k)]);
                    file.constant(&w, &[out, each, k, k], &weight);
                    file.constant(&b, &[out], &beta);
                    file.node(
                        "Conv",
                        &[&input, &w, &b],
                        &format!("{name}.biased"),
                        &settings,
                    );
                    continue;
                }
                file.constant(&w, &[out, each, k, k], &weight);
                file.node("Conv", &[&input, &w], &sum, &settings);
                let parts = [Role::Gamma, Role::Beta, Role::Mean, Role::Variance].map(|role| {
                    let constant = format!("{name}.{role:?}");
                    file.constant(&constant, &[out], &part(role));
                    constant
                });
                let normed = format!("{name}.normed");
                file.node(
                    "BatchNormalization",
                    &[&sum, &parts[0], &parts[1], &parts[2], &parts[3]],
                    &normed,
                    &[],
                );
                file.node("Clip", &[&normed, "zero", "four"], name, &[]);
            }
            _ => panic!("our networks have no {layer:?}"),
        }
    }
    file
}

/// One convolution of the picture, and a head.
fn shallow() -> OnnxFile {
    let mut rng = fastrand::Rng::with_seed(8);
    let mut file = OnnxFile::new([20, 16]);
    file.conv(&mut rng, "picture", "stem", (3, 5, 3, 2));
    file.node("Relu", &["stem"], "stem.a", &[]);
    file.conv(&mut rng, "stem.a", "head", (5, 5, 1, 1));
    file.outputs = vec!["head".into()];
    file
}

#[test]
fn mean_deviation_range_and_order_of_colours_are_folded() {
    let file = shallow();
    let config = config(
        "percentile = 1.0\nrange = 255.0\nmean = [123.7, 116.3, 103.5]\nstd = [58.4, 57.1, 57.4]\norder = \"bgr\"\n\
         heads = [{ outputs = [\"head\"], stride = 2 }]",
    );
    let float = import::read(&file.bytes(), &config, &classes(1)).unwrap();
    let picture = pictures(3, 1, [20, 16]);
    let fitted = import::calibrated(&float, &config, std::slice::from_ref(&picture)).unwrap();
    let own = run(&fitted.network, &fitted.parameters, &picture).remove(0);
    let mut theirs = Vec::new();
    for colour in [2, 1, 0] {
        let plane = &picture.data[colour * 320..][..320];
        theirs.extend(
            plane
                .iter()
                .map(|v| (v * 255.0 - config.mean[colour]) / config.std[colour]),
        );
    }
    let expected = tracts(&file, &theirs).remove(0);
    // Ours has black around the picture, theirs has the mean colour: the outermost cells differ.
    let inside = |values: &[f32]| -> Vec<f32> {
        let cells = values
            .iter()
            .enumerate()
            .filter(|(i, _)| i % 10 > 0 && i / 10 % 8 > 0);
        cells.map(|(_, v)| *v).collect()
    };
    let difference = difference(&inside(&expected), &inside(&own.data));
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn distances_in_pixels_become_strides() {
    let (file, heads) = (shallow(), "heads = [{ outputs = [\"head\"], stride = 2 }]");
    let picture = pictures(3, 1, [20, 16]);
    let outputs = ["strides", "pixels"].map(|unit| {
        let config = config(&format!(
            "percentile = 1.0\ndistances = \"{unit}\"\n{heads}"
        ));
        let float = import::read(&file.bytes(), &config, &classes(1)).unwrap();
        let fitted = import::calibrated(&float, &config, std::slice::from_ref(&picture)).unwrap();
        run(&fitted.network, &fitted.parameters, &picture)
            .remove(0)
            .data
    });
    let halved: Vec<f32> = outputs[0]
        .iter()
        .enumerate()
        .map(|(i, v)| if i < 80 { *v } else { v / 2.0 })
        .collect();
    assert!(difference(&halved, &outputs[1]) < 1e-5);
}

#[test]
fn a_classifier_ends_with_the_mean_of_its_cells() {
    let mut rng = fastrand::Rng::with_seed(6);
    let mut file = OnnxFile::new([16, 16]);
    file.conv(&mut rng, "picture", "a", (3, 6, 3, 2));
    file.node("Relu", &["a"], "a.r", &[]);
    file.node("GlobalAveragePool", &["a.r"], "mean", &[]);
    file.node("Flatten", &["mean"], "flat", &[Setting::Int("axis", 1)]);
    let weight: Vec<f32> = (0..18).map(|_| normal(&mut rng)).collect();
    file.constant("w", &[6, 3], &weight);
    file.constant("b", &[3], &[0.1, -0.2, 0.3]);
    file.node("Gemm", &["flat", "w", "b"], "logits", &[]);
    file.node("Softmax", &["logits"], "votes", &[Setting::Int("axis", -1)]);
    file.outputs = vec!["logits".into()];
    let config = config(
        "percentile = 1.0\nheads = [{ outputs = [\"votes\"], stride = 2, kind = \"classes\" }]",
    );
    let float = import::read(&file.bytes(), &config, &classes(3)).unwrap();
    let picture = pictures(5, 1, [16, 16]);
    let fitted = import::calibrated(&float, &config, std::slice::from_ref(&picture)).unwrap();
    let own = run(&fitted.network, &fitted.parameters, &picture).remove(0);
    let own = mean_logits(&own.data, own.height * own.width);
    let expected = tracts(&file, &picture.data).remove(0);
    assert!(difference(&expected, &own) < 1e-4, "{expected:?} {own:?}");
}

/// A file whose nodes are made by `add`, and why it is refused.
fn refusal(add: impl FnOnce(&mut OnnxFile, &mut fastrand::Rng)) -> String {
    let mut file = OnnxFile::new([64, 48]);
    let mut rng = fastrand::Rng::with_seed(7);
    file.conv(&mut rng, "picture", "a", (3, 5, 3, 2));
    file.node("Relu", &["a"], "a.r", &[]);
    add(&mut file, &mut rng);
    let config = config("heads = [{ outputs = [\"x\"], stride = 2 }]");
    let error = import::read(&file.bytes(), &config, &classes(1))
        .err()
        .unwrap();
    format!("{error:#}")
}

#[test]
fn what_cannot_be_imported_is_named() {
    let conv = |file: &mut OnnxFile, dims: [usize; 4], settings: &[Setting<'_>]| {
        file.constant("w", &dims, &vec![0.1; dims.iter().product()]);
        file.node("Conv", &["a.r", "w"], "x", settings);
    };
    let pads = |n: i64| Setting::Ints("pads", Box::leak(Box::new([n; 4])));
    type Case<'c> = (
        &'c str,
        &'c str,
        Box<dyn FnOnce(&mut OnnxFile, &mut fastrand::Rng) + 'c>,
    );
    let cases: Vec<Case<'_>> = vec![
        (
            "LeakyRelu",
            "is not supported; supported are Conv",
            Box::new(|f, _| f.node("LeakyRelu", &["a.r"], "x", &[])),
        ),
        (
            "MaxPool",
            "kernel_shape = []",
            Box::new(|f, _| f.node("MaxPool", &["a.r"], "x", &[])),
        ),
        (
            "MaxPool",
            "a kernel of 4 with a stride of 2",
            Box::new(|f, _| f.pool("MaxPool", "a.r", "x", [4, 2, 1])),
        ),
        (
            "MaxPool",
            "pads = [0, 0, 0, 0]",
            Box::new(|f, _| f.pool("MaxPool", "a.r", "x", [3, 2, 0])),
        ),
        (
            "MaxPool",
            "pads = [0, 0, 1, 1]",
            Box::new(|f, _| {
                let settings = [
                    Setting::Ints("kernel_shape", &[2, 2]),
                    Setting::Ints("pads", &[0, 0, 1, 1]),
                ];
                f.node("MaxPool", &["a.r"], "x", &settings);
            }),
        ),
        (
            "MaxPool",
            "needs even sides or ceil_mode",
            Box::new(|f, r| {
                // 32 x 24, 16 x 12, 8 x 6, 4 x 3.
                f.conv(r, "a.r", "b", (5, 5, 3, 2));
                f.conv(r, "b", "c", (5, 5, 3, 2));
                f.conv(r, "c", "d", (5, 5, 3, 2));
                f.pool("MaxPool", "d", "x", [2, 2, 0]);
            }),
        ),
        (
            "AveragePool",
            "supported is 2 with 2 on even sides",
            Box::new(|f, _| f.pool("AveragePool", "a.r", "x", [3, 2, 1])),
        ),
        (
            "Relu",
            "follows a pooling",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 5, 1, 1));
                f.pool("MaxPool", "b", "c", [3, 2, 1]);
                f.node("Relu", &["c"], "x", &[]);
            }),
        ),
        (
            "Concat",
            "along axis 2",
            Box::new(|f, _| f.node("Concat", &["a.r", "a.r"], "x", &[Setting::Int("axis", 2)])),
        ),
        (
            "Concat",
            "do not fit",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 5, 3, 2));
                f.node("Concat", &["a.r", "b"], "x", &[Setting::Int("axis", 1)]);
            }),
        ),
        (
            "Concat",
            "reads the picture",
            Box::new(|f, _| {
                f.node(
                    "Concat",
                    &["a.r", "picture"],
                    "x",
                    &[Setting::Int("axis", 1)],
                );
            }),
        ),
        (
            "Conv",
            "group = 2",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 4, 1, 1));
                f.constant("w", &[4, 2, 3, 3], &[0.1; 72]);
                f.node(
                    "Conv",
                    &["b", "w"],
                    "x",
                    &[Setting::Int("group", 2), pads(1)],
                );
            }),
        ),
        (
            "Conv",
            "group = 5 with 10 channels of 5",
            Box::new(|f, _| conv(f, [10, 1, 3, 3], &[Setting::Int("group", 5), pads(1)])),
        ),
        (
            "Conv",
            "a kernel of 5 x 5",
            Box::new(|f, _| conv(f, [5, 5, 5, 5], &[pads(2)])),
        ),
        (
            "Conv",
            "a kernel of 3 x 1",
            Box::new(|f, _| conv(f, [5, 5, 3, 1], &[pads(1)])),
        ),
        (
            "Conv",
            "supported is 1 on every side",
            Box::new(|f, _| conv(f, [5, 5, 3, 3], &[])),
        ),
        (
            "Conv",
            "SAME_UPPER",
            Box::new(|f, _| {
                conv(
                    f,
                    [5, 5, 3, 3],
                    &[
                        Setting::Text("auto_pad", "SAME_UPPER"),
                        Setting::Ints("strides", &[2, 2]),
                    ],
                );
            }),
        ),
        (
            "Conv",
            "dilations",
            Box::new(|f, _| {
                conv(
                    f,
                    [5, 5, 3, 3],
                    &[pads(2), Setting::Ints("dilations", &[2, 2])],
                )
            }),
        ),
        (
            "Conv",
            "strides = [3, 3]",
            Box::new(|f, _| {
                conv(
                    f,
                    [5, 5, 3, 3],
                    &[pads(1), Setting::Ints("strides", &[3, 3])],
                )
            }),
        ),
        (
            "Conv",
            "weights for 4 channels read a tensor of 5",
            Box::new(|f, _| conv(f, [5, 4, 3, 3], &[pads(1)])),
        ),
        (
            "Conv",
            "no constant",
            Box::new(|f, _| f.node("Conv", &["a.r", "a.r"], "x", &[])),
        ),
        (
            "Add",
            "do not fit",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 6, 1, 1));
                f.node("Add", &["a.r", "b"], "x", &[]);
            }),
        ),
        (
            "Relu",
            "of which some may be negative",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 5, 1, 1));
                f.node("Concat", &["a.r", "b"], "c", &[Setting::Int("axis", 1)]);
                f.conv(r, "a.r", "d", (5, 10, 1, 1));
                f.node("Add", &["c", "d"], "e", &[]);
                f.node("Relu", &["e"], "x", &[]);
            }),
        ),
        (
            "Add",
            "do not fit",
            Box::new(|f, _| f.add_enlarged("a.r", "a.r", "x")),
        ),
        (
            "Resize",
            "supported is [1, 1, 2, 2]",
            Box::new(|f, _| {
                f.constant("s", &[4], &[1.0, 1.0, 4.0, 4.0]);
                f.node("Resize", &["a.r", "", "s"], "x", &[]);
            }),
        ),
        (
            "Resize",
            "\"linear\"",
            Box::new(|f, _| f.node("Resize", &["a.r"], "x", &[Setting::Text("mode", "linear")])),
        ),
        (
            "Resize",
            "half_pixel with floor",
            Box::new(|f, _| {
                f.constant("s", &[4], &[1.0, 1.0, 2.0, 2.0]);
                f.node(
                    "Resize",
                    &["a.r", "", "s"],
                    "x",
                    &[Setting::Text("nearest_mode", "floor")],
                );
            }),
        ),
        (
            "BatchNormalization",
            "does not follow a convolution",
            Box::new(|f, r| f.normalize(r, "a.r", "x", 5)),
        ),
        (
            "Clip",
            "clips from Some(-1.0)",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 5, 1, 1));
                f.constant("low", &[], &[-1.0]);
                f.node("Clip", &["b", "low"], "x", &[]);
            }),
        ),
        (
            "Relu",
            "not alone",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 5, 1, 1));
                f.node("Relu", &["b"], "c", &[]);
                f.node("Sigmoid", &["b"], "d", &[]);
                f.node("Mul", &["c", "d"], "x", &[]);
            }),
        ),
        (
            "Relu",
            "not alone",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 5, 1, 1));
                f.node("Concat", &["b"], "c", &[]);
                f.node("Relu", &["c"], "d", &[]);
                f.node("Add", &["d", "b"], "e", &[]);
                f.conv(r, "e", "x", (5, 5, 1, 1));
            }),
        ),
        (
            "Clip",
            "not alone",
            Box::new(|f, r| {
                let bounds = [Setting::Float("min", 0.0), Setting::Float("max", 1.0)];
                f.node("Relu", &["a.r"], "b", &[]);
                f.node("Clip", &["b"], "c", &bounds);
                f.node("Add", &["c", "a.r"], "d", &[]);
                f.conv(r, "d", "x", (5, 5, 1, 1));
            }),
        ),
        (
            "Clip",
            "not alone",
            Box::new(|f, r| {
                f.conv(r, "a.r", "b", (5, 5, 3, 2));
                f.constant("twice", &[4], &[1.0, 1.0, 2.0, 2.0]);
                let place = Setting::Text("coordinate_transformation_mode", "asymmetric");
                let settings = [place, Setting::Text("nearest_mode", "floor")];
                for large in ["c", "d"] {
                    f.node("Resize", &["b", "", "twice"], large, &settings);
                }
                let bounds = [Setting::Float("min", 0.0), Setting::Float("max", 1.0)];
                f.node("Concat", &["c"], "e", &[]);
                f.node("Clip", &["e"], "f", &bounds);
                f.node("Concat", &["f", "d"], "g", &[]);
                f.conv(r, "g", "x", (10, 5, 1, 1));
            }),
        ),
        (
            "Shape",
            "one fixed size",
            Box::new(|f, _| f.node("Shape", &["a.r"], "x", &[])),
        ),
        (
            "Relu",
            "reads \"nothing\"",
            Box::new(|f, _| f.node("Relu", &["nothing"], "x", &[])),
        ),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (operator, why, add) in cases {
        let error = refusal(add);
        // Every case's node is called by its output, which is x where it is the one that is wrong.
        let named = error
            .split_once("node \"")
            .and_then(|(_, rest)| rest.split_once('"'));
        let (name, rest) = named.unwrap_or_else(|| panic!("no node is named: {error}"));
        assert!(!name.is_empty(), "{error}");
        assert!(
            rest.starts_with(&format!(" ({operator}): ")) && error.contains(why),
            "{operator}, {why}: {error}"
        );
        seen.insert(name.to_owned());
    }
    assert!(seen.contains("x"), "{seen:?}");
}

#[test]
fn files_and_heads_that_do_not_fit_are_named() {
    let read = |file: &OnnxFile, text: &str| {
        let error = import::read(&file.bytes(), &config(text), &classes(1))
            .err()
            .unwrap();
        format!("{error:#}")
    };
    let head = "heads = [{ outputs = [\"head\"], stride = 2 }]";
    for (opset, named) in [(8, "of set 8"), (99, "of set 99")] {
        let error = read(&OnnxFile { opset, ..shallow() }, head);
        assert!(
            error.contains(named) && error.contains("9 to 23"),
            "{error}"
        );
    }
    for (size, named) in [
        ([0, 16], "no fixed height"),
        ([20, 5000], "no fixed height"),
    ] {
        assert!(read(&OnnxFile { size, ..shallow() }, head).contains(named));
    }
    let cases = [
        (
            "heads = [{ outputs = [\"tail\"], stride = 2 }]",
            "no node of the file gives",
        ),
        (
            "heads = [{ outputs = [\"head\"], stride = 8 }]",
            "lies at stride 2, not 8",
        ),
        (
            "heads = [{ outputs = [\"head\"], stride = 2, kind = \"classes\" }]",
            "has 5 channels",
        ),
        (
            "heads = [{ outputs = [\"stem.a\"], stride = 2 }]",
            "before its activation",
        ),
        (
            "heads = [{ outputs = [\"head\", \"head\"], stride = 2 }]",
            "1 and then 4 channels",
        ),
    ];
    for (text, named) in cases {
        let error = read(&shallow(), text);
        assert!(error.contains(named), "{text}: {error}");
    }
    let mut odd = shallow();
    odd.constant("huge", &[1 << 40, 1 << 40], &[]);
    odd.node("Conv", &["stem.a", "huge"], "tail", &[]);
    odd.constant("many", &[1 << 20, 1 << 20, 3, 3], &[]);
    odd.node("Conv", &["stem.a", "many"], "late", &[]);
    assert!(read(&odd, "heads = [{ outputs = [\"tail\"], stride = 2 }]").contains("have 2 sides"));
    assert!(read(&odd, "heads = [{ outputs = [\"late\"], stride = 2 }]").contains("weights for"));
    let mut exponent = shallow();
    exponent.node("Identity", &["head"], "same", &[]);
    exponent.node("Exp", &["same"], "sizes", &[]);
    let error = read(&exponent, head);
    assert!(
        error.contains("\"head\": node \"sizes\" takes Exp of it"),
        "{error}"
    );
    let mut many = shallow();
    (0..5000).for_each(|i| many.node("Identity", &["head"], &format!("n{i}"), &[]));
    assert!(read(&many, head).contains("more than 4096 nodes"));
    let mut deep = shallow();
    deep.node("Identity", &["loop2"], "loop1", &[]);
    deep.node("Identity", &["loop1"], "loop2", &[]);
    assert!(
        read(&deep, "heads = [{ outputs = [\"loop1\"], stride = 2 }]")
            .contains("no node before it")
    );
    let empty = Message::default().integer(1, 8);
    let error = import::read(&empty.0, &config(head), &classes(1))
        .err()
        .unwrap();
    assert!(error.to_string().contains("no graph"), "{error}");
}

#[test]
fn a_cut_file_is_refused_at_every_length() {
    let bytes = detector(1, [64, 48], 1).bytes();
    let config = config(HEADS);
    import::read(&bytes, &config, &classes(1)).unwrap();
    let step = 1 + bytes.len() / 700;
    for len in (0..bytes.len() - 8).step_by(step) {
        assert!(
            import::read(&bytes[..len], &config, &classes(1)).is_err(),
            "{len} bytes"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn changed_bytes_make_errors_and_no_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = detector(2, [64, 48], 1).bytes();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let config = config(HEADS);
        if let Ok(float) = import::read(&bytes, &config, &classes(1)) {
            let _ = import::estimated(&float, &config);
        }
    }
}

#[test]
fn normalization_makes_up_for_rounding() {
    let training = Training::parse(&training()).unwrap();
    let heads = [8, 16, 32]
        .map(|s| format!("{{ outputs = [\"head{s}.biased\"], stride = {s} }}"))
        .join(", ");
    let config = config(&format!("heads = [{heads}]"));
    let (mut with, mut without) = ([0.0; 2], [0.0; 2]);
    for seed in 0..8 {
        let (network, normalized) = ours(seed);
        let file = ours_as_onnx(&network, &normalized);
        let float = import::read(&file.bytes(), &config, &training.classes).unwrap();
        let (fitted, rounded, quantizer) = import::rounded(&float, &training, &config).unwrap();
        let parameters = fitted.parameters;
        assert!(quantizer.is_ternary());
        let mut plain = parameters.clone();
        let mut nearest = Quantizer::fit(&parameters, &training.quantize);
        nearest.fix(&mut plain, 1.0, Order::Nearest);
        let images = pictures(seed, 2, [72, 56]);
        let expected = run(&network, &normalized, &images);
        // Error, and how far the mean of each plane has moved.
        let far = |parameters: &Parameters| {
            let outputs = run(&float.network, parameters, &images);
            let pairs = || outputs.iter().zip(&expected);
            let errors = pairs().map(|(own, e)| error(&e.data, &own.data));
            let cells = |o: &HeadOutput| o.height * o.width;
            let means = |o: &HeadOutput| mean_logits(&o.data, cells(o));
            let moved = |(own, e): (&HeadOutput, &HeadOutput)| -> f32 {
                means(own)
                    .iter()
                    .zip(means(e))
                    .map(|(a, b)| (a - b).abs())
                    .sum()
            };
            [errors.sum(), pairs().map(moved).sum::<f32>()]
        };
        for (sums, parameters) in [(&mut with, &rounded), (&mut without, &plain)] {
            let far = far(parameters);
            sums.iter_mut().zip(far).for_each(|(sum, f)| *sum += f);
        }
    }
    assert!(
        with[0] < without[0],
        "errors: {with:?} with, {without:?} without"
    );
    assert!(
        with[1] < 0.8 * without[1],
        "means: {with:?} with, {without:?} without"
    );
}

/// A bench with a configuration and an ONNX file.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("my.toml", training());
    bench.write("my.onnx", detector(1, [64, 48], 1).bytes());
    bench
}

const CONFIG: &str = "--config my.toml --run";

#[test]
fn a_network_from_elsewhere_becomes_a_bundle() {
    let bench = bench();
    bench.fail(
        &format!("quantize {CONFIG} run --data data"),
        66,
        "quant-tool import",
    );
    // An earlier call was stopped: it left stages, and no network.
    bench.succeed(&format!("import my.onnx {CONFIG} run --without-data"));
    std::fs::remove_file(bench.path("run/network.json")).unwrap();
    bench.succeed(&format!("import my.onnx {CONFIG} run --data data"));
    assert!(!bench.path("run/soft.safetensors").exists());
    bench.fail(
        &format!("import my.onnx {CONFIG} run --data data"),
        73,
        "another run folder",
    );
    bench.succeed(&format!("quantize {CONFIG} run --data data"));
    bench.succeed(&format!(
        "export {CONFIG} run --key key.secret --evaluate data --out my.tern"
    ));
    let (text, _) = bench.succeed("verify --bundle my.tern --key key.pub");
    assert!(text.contains("tiny version 3"), "{text}");
    let key = ternwatch_bundle::PublicKey::from_text(&bench.text("key.pub")).unwrap();
    let model =
        quant_tool::files::model_from(&std::fs::read(bench.path("my.tern")).unwrap(), key).unwrap();
    assert_eq!(model.heads().len(), 2);
    assert_eq!(model.card()["imported"]["source"]["file"], "my.onnx");
    assert_eq!(model.card()["training"]["stages"]["hard"]["steps"], 5);

    // What was trained is not taken for the rest of an import, whatever is missing beside it.
    std::fs::rename(bench.path("run/network.json"), bench.path("away.json")).unwrap();
    bench.fail(
        &format!("import my.onnx {CONFIG} run --data data"),
        73,
        "another run folder",
    );
    std::fs::rename(bench.path("away.json"), bench.path("run/network.json")).unwrap();

    // What lies in the run's folder is checked, too.
    let stored = bench.text("run/network.json");
    bench.write(
        "run/network.json",
        stored.replace("\"kernel\": 3", "\"kernel\": 5"),
    );
    bench.fail(
        &format!("quantize {CONFIG} run --data data"),
        65,
        "network.json",
    );
}

#[test]
fn without_data_a_warning_and_a_bundle_come_out() {
    let bench = bench();
    let (_, errors) = bench.succeed(&format!("import my.onnx {CONFIG} run --without-data"));
    assert!(
        errors.contains("warning: rounded to nearest without data"),
        "{errors}"
    );
    bench.fail(
        &format!("quantize {CONFIG} run --data data"),
        65,
        "rounded without data",
    );
    bench.succeed(&format!(
        "export {CONFIG} run --key key.secret --out my.tern"
    ));
    bench.succeed("verify --bundle my.tern --key key.pub");

    bench.fail("import my.onnx --config my.toml --run other", 64, "--data");
    std::fs::File::create(bench.path("large.onnx"))
        .unwrap()
        .set_len((80 << 20) + 1)
        .unwrap();
    bench.fail(
        &format!("import large.onnx {CONFIG} other --without-data"),
        65,
        "more than 83886080 bytes",
    );
    bench.write("cut.onnx", &detector(1, [64, 48], 1).bytes()[..3000]);
    bench.fail(
        &format!("import cut.onnx {CONFIG} other --without-data"),
        65,
        "cut.onnx",
    );
    bench.write("ours.toml", training().replace("[imported]", "[network]"));
    bench.fail(
        "import my.onnx --config ours.toml --run other --without-data",
        78,
        "heads",
    );
}
