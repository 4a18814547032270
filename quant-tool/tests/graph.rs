//! The training graph: gradients of every kind of layer, whole steps, and that both engines compute the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use quant_tool::network::{IMAGE, Network};
use quant_tool::quantize::activation::STEP;
use quant_tool::train::graph::{Activations, Gradients, Images, Statistics, forward};
use quant_tool::train::parameters::{Parameters, Role};
use ternwatch_bundle::manifest::{Activation, Head, HeadKind, Input, Layer, PoolMode};

fn conv(name: &str, input: (&str, u32), out: u32, kernel: u32, groups: u32) -> Layer {
    Layer::Conv {
        name: name.into(),
        input: input.0.into(),
        in_channels: input.1,
        out_channels: out,
        kernel,
        stride: if input.0 == IMAGE { 2 } else { 1 },
        groups,
        activation: match name {
            "head" => Activation::Linear,
            _ => Activation::Relu,
        },
        pre_shift: 0,
        offset: 0,
    }
}

fn pool(name: &str, input: &str, mode: PoolMode, kernel: u32, stride: u32) -> Layer {
    Layer::Pool {
        name: name.into(),
        input: input.into(),
        mode,
        kernel,
        stride,
    }
}

/// Every layer that has two inputs or no weights, and a depthwise convolution.
fn branched() -> Network {
    let add = Layer::Add {
        name: "add".into(),
        inputs: ["deep".into(), "stem".into()],
        offset: 20,
    };
    let concat = Layer::Concat {
        name: "concat".into(),
        inputs: vec!["add".into(), "three".into(), "five".into()],
    };
    let ends = Layer::Concat {
        name: "ends".into(),
        inputs: vec!["half".into(), "mean".into()],
    };
    Network {
        input: Input {
            width: 24,
            height: 16,
            channels: 3,
            fill: 0,
        },
        layers: vec![
            conv("stem", (IMAGE, 3), 6, 3, 1),
            conv("deep", ("stem", 6), 6, 3, 6),
            add,
            pool("three", "add", PoolMode::Max, 3, 1),
            pool("five", "stem", PoolMode::Max, 5, 1),
            concat,
            pool("half", "concat", PoolMode::Max, 2, 2),
            pool("mean", "concat", PoolMode::Mean, 2, 2),
            ends,
            conv("head", ("ends", 36), 5, 3, 1),
        ],
        heads: vec![Head {
            layer: "head".into(),
            stride: 4,
            kind: HeadKind::Boxes,
        }],
    }
}

/// Parameters with shifts, so that values lie all over the range.
fn random(network: &Network, seed: u64) -> Parameters {
    let mut parameters = Parameters::init(network, seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    for p in &mut parameters.0 {
        if matches!(p.role, Role::Beta | Role::Mean) {
            p.value.iter_mut().for_each(|v| *v += rng.f32() - 0.5);
        }
    }
    parameters
}

/// A detector of the kind that is trained here: coarse maps are added to finer ones.
fn detector() -> Network {
    let config = quant_tool::network::Config {
        width: 64,
        height: 64,
        stem: [4, 5],
        stage8: vec![6],
        stage16: vec![6],
        stage32: vec![8],
        neck: 6,
    };
    let network = Network::new(&config, 1);
    let is_merge = |layer: &Layer| matches!(layer, Layer::AddUpsampled { .. });
    assert!(network.layers.iter().any(is_merge));
    network
}

#[test]
fn gradients_of_every_layer_are_the_slopes_that_differences_show() {
    for statistics in [Statistics::Running, Statistics::Batch] {
        compare_with_differences(&branched(), statistics, 4, (&[2e-3], 0.03));
        // Deeper: a long step passes kinks of ReLU, the difference of a short one is lost in rounding.
        let steps = [2e-3, 5e-4, 2e-4, 1e-4, 2e-5];
        compare_with_differences(&detector(), statistics, 2, (&steps, 0.1));
    }
}

/// Compares along the gradient of each parameter: the median over these lengths of steps has to be this near.
fn compare_with_differences(
    network: &Network,
    statistics: Statistics,
    seeds: u64,
    (steps, tolerance): (&[f32], f64),
) {
    let (width, height) = (network.input.width as usize, network.input.height as usize);
    let mut rng = fastrand::Rng::with_seed(6);
    let picture = Images {
        data: (0..2 * 3 * height * width).map(|_| rng.f32()).collect(),
        count: 2,
        height,
        width,
    };
    let run = |parameters: &Parameters| {
        let mode = (Activations::Float, statistics);
        forward(network, parameters, picture.clone(), mode, Gradients::Kept).unwrap()
    };
    for seed in 0..seeds {
        let parameters = random(network, seed);
        let pass = run(&parameters);
        let slopes: Vec<Vec<f32>> = pass
            .outputs
            .iter()
            .map(|output| output.data.iter().map(|_| rng.f32() - 0.5).collect())
            .collect();
        let loss = |parameters: &Parameters| -> f64 {
            let outputs = run(parameters).outputs;
            let terms = outputs
                .iter()
                .zip(&slopes)
                .flat_map(|(o, s)| o.data.iter().zip(s));
            terms.map(|(v, s)| f64::from(*v) * f64::from(*s)).sum()
        };
        let gradients = pass.backward(slopes.clone()).unwrap();
        for (index, gradient) in gradients.iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let shown = |step: f32| {
                let moved = |sign: f32| {
                    let mut moved = parameters.clone();
                    let values = moved.0[index].value.iter_mut().zip(gradient);
                    values.for_each(|(v, g)| *v += sign * step * g / length);
                    loss(&moved)
                };
                (moved(1.0) - moved(-1.0)) / f64::from(2.0 * step)
            };
            let ratios = steps.iter().map(|step| shown(*step) / f64::from(length));
            let mut ratios: Vec<f64> = ratios.collect();
            ratios.sort_by(f64::total_cmp);
            let name = &parameters.0[index].name;
            let median = ratios[ratios.len() / 2];
            assert!(
                (median - 1.0).abs() < tolerance,
                "{statistics:?}, seed {seed}, {name}: {ratios:?}"
            );
        }
    }
}

#[test]
fn whole_steps_stay_whole_steps() {
    let mut network = branched();
    network.heads[0].layer = "ends".into();
    let mut rng = fastrand::Rng::with_seed(9);
    let picture = Images {
        data: (0..3 * 16 * 24).map(|_| rng.f32()).collect(),
        count: 1,
        height: 16,
        width: 24,
    };
    let mode = (Activations::U7, Statistics::Running);
    let parameters = random(&network, 1);
    let pass = forward(&network, &parameters, picture, mode, Gradients::None).unwrap();
    let output = &pass.outputs[0];
    assert_eq!((output.channels, output.height, output.width), (36, 4, 6));
    let mut above = 0;
    for v in &output.data {
        let steps = v / STEP;
        assert!((steps - steps.round()).abs() < 1e-3, "{steps}");
        above += usize::from(steps > 0.5);
    }
    assert!(above > 300, "{above} values above zero");
}

#[cfg(feature = "libtorch")]
fn images(rng: &mut fastrand::Rng) -> Images {
    Images {
        data: (0..2 * 3 * 64 * 96).map(|_| rng.f32()).collect(),
        count: 2,
        height: 64,
        width: 96,
    }
}

/// Largest difference, in parts of the largest value.
#[cfg(feature = "libtorch")]
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let size = a.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max) / size
}

#[cfg(feature = "libtorch")]
#[test]
fn both_engines_compute_the_same() {
    let config = include_str!("../../models/person.toml");
    let config: quant_tool::train::config::Config = toml::from_str(config).unwrap();
    let person = Network::new(config.network.as_ref().unwrap(), 1);
    compare(&person);
    compare(&branched());
}

#[cfg(feature = "libtorch")]
fn compare(network: &Network) {
    use quant_tool::train::graph::burn;

    let parameters = random(network, 3);
    let mut rng = fastrand::Rng::with_seed(4);
    for statistics in [Statistics::Batch, Statistics::Running] {
        let mode = (Activations::Float, statistics);
        let batch = || images(&mut fastrand::Rng::with_seed(5));
        let burn = burn::forward(network, &parameters, batch(), mode, Gradients::Kept);
        let torch = forward(network, &parameters, batch(), mode, Gradients::Kept);
        let (burn, torch) = (burn.unwrap(), torch.unwrap());
        for (a, b) in burn.outputs.iter().zip(&torch.outputs) {
            assert_eq!((a.height, a.width, a.stride), (b.height, b.width, b.stride));
            assert!(difference(&a.data, &b.data) < 1e-3);
        }
        assert_eq!(burn.statistics.len(), torch.statistics.len());
        for (a, b) in burn.statistics.iter().zip(&torch.statistics) {
            assert_eq!(a.0, b.0);
            assert!(difference(&a.1, &b.1) < 1e-3, "mean of {}", a.0);
            assert!(difference(&a.2, &b.2) < 1e-3, "variance of {}", a.0);
        }
        let slopes: Vec<Vec<f32>> = burn
            .outputs
            .iter()
            .map(|o| (0..o.data.len()).map(|_| rng.f32() - 0.5).collect())
            .collect();
        let burn = burn.backward(slopes.clone()).unwrap();
        let torch = torch.backward(slopes).unwrap();
        for ((a, b), p) in burn.iter().zip(&torch).zip(&parameters.0) {
            match (a, b) {
                (Some(a), Some(b)) => {
                    let difference = difference(a, b);
                    assert!(difference < 5e-3, "{}: {difference}", p.name);
                }
                (None, None) => {}
                _ => panic!("{}: one engine has a gradient, the other has none", p.name),
            }
        }
    }
}
