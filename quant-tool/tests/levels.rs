//! What holds of the levels for any weights, whatever way leads to them: property tests of the soft and the hard stage, and of
//! what of them is in the bundle.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use quant_tool::export::{self, Source};
use quant_tool::network::Network;
use quant_tool::quantize::{Config, Fit, Free, Order, Quantizer, Rule, Scales, Soft, ternary};
use quant_tool::train::parameters::{Parameter, Parameters, Role};
use ternwatch_bundle::manifest::{ModelId, Thresholds};
use ternwatch_bundle::model::{Epilogue, ModelLayer};
use ternwatch_bundle::{Model, SecretKey};
use ternwatch_kernels::Trit;

/// Layers of any small shape with any weights, zeros and equal ones among them.
fn parameters() -> impl Strategy<Value = Parameters> {
    let weight = prop_oneof![
        8 => -2.0f32..2.0,
        1 => Just(0.0f32),
        1 => prop::sample::select(vec![0.5f32, -0.5]),
        1 => -1e-20f32..1e-20,
    ];
    let layer = (1usize..5, 1usize..4, prop::sample::select(vec![1usize, 3])).prop_flat_map(
        move |(out, input, kernel)| {
            let len = out * input * kernel * kernel;
            let weights = prop::collection::vec(weight.clone(), len);
            weights.prop_map(move |value| (vec![out, input, kernel, kernel], value))
        },
    );
    prop::collection::vec(layer, 1..4).prop_map(|layers| {
        let named = layers.into_iter().enumerate();
        let parameters = named.map(|(i, (shape, value))| Parameter {
            name: format!("layer{i}.weight"),
            role: Role::Weight,
            shape,
            value,
        });
        Parameters(parameters.collect())
    })
}

fn settings() -> impl Strategy<Value = Config> {
    let orders = prop::sample::select(vec![Order::Nearest, Order::Layer, Order::Random]);
    let rules = prop::sample::select(vec![Rule::Frozen, Rule::Refit, Rule::Twn]);
    let scales = prop::sample::select(vec![Scales::Channel, Scales::Layer]);
    let zeros = prop::option::of(0.0f32..0.95);
    let each = (orders, rules, scales, 0.1f32..0.95, zeros);
    each.prop_map(|(order, levels, scales, zero_width, zeros)| Config {
        order,
        scales,
        levels,
        zero_width,
        zeros: zeros.filter(|_| levels == Rule::Frozen && scales == Scales::Channel),
        ..plain()
    })
}

/// Nearest levels, a scale a channel, frozen.
fn plain() -> Config {
    Config {
        soft_steps: 1,
        pull: 0.5,
        soft: Soft::Weights,
        hard_steps: 1,
        groups: vec![1.0],
        last_group_at: 0.9,
        soft_rate: 0.001,
        soft_rate_end: 0.01,
        hard_rate: 0.001,
        free: Free::Float,
        order: Order::Nearest,
        fit: Fit::Weights,
        scales: Scales::Channel,
        levels: Rule::Frozen,
        zero_width: 0.5,
        zeros: None,
        distillation: 0.0,
    }
}

/// Every weight that is fixed, with its layer and place.
fn fixed(parameters: &Parameters, quantizer: &Quantizer) -> Vec<(usize, usize, f32)> {
    let layers = parameters.0.iter().zip(&quantizer.layers).enumerate();
    let weights = layers.flat_map(|(layer, (p, levels))| {
        let weights = p.value.iter().zip(&levels.fixed).enumerate();
        weights.filter_map(move |(i, (w, fixed))| fixed.then_some((layer, i, *w)))
    });
    weights.collect()
}

/// Moves every weight as a step of learning might: those that are fixed have no gradient, but decay.
fn learn(parameters: &mut Parameters, quantizer: &Quantizer, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    for (p, levels) in parameters.0.iter_mut().zip(&quantizer.layers) {
        for (w, fixed) in p.value.iter_mut().zip(&levels.fixed) {
            *w = if *fixed {
                *w * 0.999
            } else {
                *w + rng.f32() - 0.5
            };
        }
    }
}

/// The least squared error that any choice of levels at this scale leaves.
fn error(weights: &[f32], scale: f32) -> f64 {
    let nearest = |w: &f32| [-scale, 0.0, scale].map(|l| f64::from(w - l).powi(2));
    let least = |w: &f32| nearest(w).into_iter().fold(f64::INFINITY, f64::min);
    weights.iter().map(least).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Group by group: what is fixed is on a level, has no gradient, never moves again, and in the end that is all.
    #[test]
    fn a_weight_that_is_fixed_stays_on_its_level(
        mut parameters in parameters(),
        config in settings(),
        mut parts in prop::collection::vec(0.0f32..1.0, 0..4),
        seed in any::<u64>(),
    ) {
        let mut quantizer = Quantizer::fit(&parameters, &config);
        parts.sort_by(f32::total_cmp);
        parts.push(1.0);
        let mut before = Vec::new();
        for (round, part) in parts.into_iter().enumerate() {
            if let Some(zeros) = config.zeros {
                quantizer.keep_zeros(&parameters, zeros);
            }
            let added = quantizer.fix(&mut parameters, part, config.order);
            quantizer.hold(&mut parameters);
            let now = fixed(&parameters, &quantizer);
            prop_assert_eq!(now.len(), before.len() + added);
            prop_assert!(before.iter().all(|weight| now.contains(weight)));
            for &(layer, i, w) in &now {
                let levels = &quantizer.layers[layer];
                let scale = levels.scale[i * levels.scale.len() / levels.fixed.len()];
                prop_assert!(w == 0.0 || w.abs() == scale, "{} of scale {}", w, scale);
            }
            let ones = parameters.0.iter().map(|p| Some(vec![1.0; p.value.len()]));
            let mut gradients: Vec<_> = ones.collect();
            quantizer.mask(&parameters, &mut gradients);
            for (gradient, levels) in gradients.iter().flatten().zip(&quantizer.layers) {
                for (g, fixed) in gradient.iter().zip(&levels.fixed) {
                    prop_assert_eq!(*g, if *fixed { 0.0 } else { 1.0 });
                }
            }
            // A step of learning between two groups.
            learn(&mut parameters, &quantizer, seed ^ round as u64);
            quantizer.hold(&mut parameters);
            before = fixed(&parameters, &quantizer);
            prop_assert_eq!(&before, &now);
        }
        prop_assert!(quantizer.is_ternary());
        let all: usize = parameters.0.iter().map(|p| p.value.len()).sum();
        prop_assert_eq!(before.len(), all);
    }

    /// The proximal step of the soft stage brings no weight farther from its level, and neither past it.
    #[test]
    fn pulling_is_towards_the_level(
        parameters in parameters(),
        config in settings(),
        pull in 0.0f32..=1.0,
    ) {
        let quantizer = Quantizer::fit(&parameters, &config);
        let mut pulled = parameters.clone();
        quantizer.pull(&mut pulled, pull);
        let ahead = quantizer.pulled(&parameters, pull);
        for ((p, q), (ahead, levels)) in
            parameters.0.iter().zip(&pulled.0).zip(ahead.0.iter().zip(&quantizer.layers))
        {
            let fan_in = p.value.len() / levels.scale.len();
            for (i, (w, v)) in p.value.iter().zip(&q.value).enumerate() {
                let (scale, threshold) = (levels.scale[i / fan_in], levels.threshold[i / fan_in]);
                let level = ternary::value(ternary::level(*w, threshold), scale);
                let rounding = 1e-6 * (w.abs() + level.abs());
                prop_assert!((v - level).abs() <= (w - level).abs() + rounding);
                prop_assert!((v - level) * (w - level) >= -rounding * rounding);
                prop_assert!((v - ahead.value[i]).abs() <= rounding);
            }
        }
    }

    /// The closed form of the scale: no other one leaves a smaller error, of a channel or of a layer.
    #[test]
    fn no_other_scale_has_a_smaller_error(
        weights in prop::collection::vec(-2.0f32..2.0, 1..60),
        others in prop::collection::vec(0.0f32..3.0, 1..50),
    ) {
        let fitted = error(&weights, ternary::fit_scale(&weights));
        for other in others {
            prop_assert!(fitted <= error(&weights, other) + 1e-4);
        }
    }

    /// Thresholds and what is fixed come back from a checkpoint bit for bit.
    #[test]
    fn a_checkpoint_keeps_all_of_the_levels(mut parameters in parameters(), config in settings(), part in 0.0f32..1.0) {
        let mut quantizer = Quantizer::fit(&parameters, &config);
        quantizer.fix(&mut parameters, part, config.order);
        let back = Quantizer::from_parameters(&quantizer.to_parameters(&parameters));
        for (a, b) in quantizer.layers.iter().zip(&back.layers) {
            prop_assert_eq!((&a.scale, &a.threshold, &a.fixed), (&b.scale, &b.threshold, &b.fixed));
        }
        prop_assert_eq!(quantizer.trits(&parameters), back.trits(&parameters));
    }
}

/// A trained network of random normalization, and its bundle.
fn exported(seed: u64) -> (Network, Parameters, Quantizer, Model) {
    let network = Network::classifier((16, 12), &[(5, 2), (6, 1)], 4);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut parameters = Parameters::init(&network, seed);
    for p in &mut parameters.0 {
        for v in &mut p.value {
            match p.role {
                Role::Weight => {}
                Role::Gamma => *v = (0.4 + rng.f32()) * if rng.bool() { 1.0 } else { -1.0 },
                Role::Beta | Role::Mean => *v = rng.f32() - 0.5,
                Role::Variance => *v = 0.2 + rng.f32(),
            }
        }
    }
    let mut quantizer = Quantizer::fit(&parameters, &plain());
    quantizer.fix(&mut parameters, 1.0, Order::Nearest);
    quantizer.hold(&mut parameters);
    let key = SecretKey::from_bytes(&[9; 32]);
    let source = Source {
        id: ModelId {
            name: "levels".into(),
            version: 1,
        },
        classes: ["a", "b", "c", "d"].map(String::from).to_vec(),
        thresholds: Thresholds {
            score: 0.5,
            iou: 0.5,
        },
        network: &network,
        parameters: &parameters,
        quantizer: &quantizer,
        card: serde_json::Value::Null,
    };
    let file = export::bundle(&source, &key).unwrap();
    let model = quant_tool::files::model_from(&file, key.public_key()).unwrap();
    (network, parameters, quantizer, model)
}

/// Every weight of the bundle is the level that was trained, with the opposite sign where normalization turns the channel around;
/// scale and bias are what is expected of them within their rounding; channels that always answer the same have no weights.
#[test]
fn a_bundle_has_the_levels_that_were_trained() {
    let (mut checked, mut constant) = (0, 0);
    for seed in 0..30 {
        let (network, parameters, quantizer, model) = exported(seed);
        let trained = quantizer.trits(&parameters);
        let convs = model.layers().iter().filter_map(|layer| match layer {
            ModelLayer::Conv(conv) => Some(conv),
            _ => None,
        });
        for (((conv, trits), levels), own) in convs
            .zip(&trained)
            .zip(&quantizer.layers)
            .zip(network.convs())
        {
            let of = |role| parameters.get(own.name, role);
            let fan_in = trits.len() / levels.scale.len();
            for (n, trits) in trits.chunks_exact(fan_in).enumerate() {
                let stored = &conv.trits[n * fan_in..(n + 1) * fan_in];
                let gamma = of(Role::Gamma)[n];
                if stored.iter().all(|t| *t == Trit::Zero) && trits.iter().any(|t| *t != Trit::Zero)
                {
                    constant += 1;
                    continue;
                }
                let sign = if gamma < 0.0 { -1 } else { 1 };
                let expected: Vec<i8> = trits.iter().map(|t| sign * *t as i8).collect();
                let stored: Vec<i8> = stored.iter().map(|t| *t as i8).collect();
                assert_eq!(stored, expected, "seed {seed}, {}, channel {n}", own.name);
                if let Epilogue::Linear { scale } = &conv.epilogue {
                    let step =
                        (gamma * levels.scale[n] * quant_tool::quantize::activation::STEP).abs();
                    assert_eq!(scale[n], step, "seed {seed}, {}, channel {n}", own.name);
                    let bias = f32::from(conv.bias[n]) * scale[n];
                    let error = (bias - of(Role::Beta)[n]).abs();
                    assert!(
                        error <= 0.5001 * step,
                        "seed {seed}, {}, channel {n}: bias off by {error}",
                        own.name
                    );
                }
                checked += fan_in;
            }
        }
    }
    assert!(
        checked > 10_000 && constant < 30,
        "{checked} weights, {constant} constant channels"
    );
}
