//! Golden vectors find every damage, and every instruction set level passes them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ternwatch_bundle::testing::{load, small_draft, small_key};
use ternwatch_bundle::{Model, PublicKey, TrustedKeys, UnverifiedBundle};
use ternwatch_detector::golden::{self, GoldenMismatch};
use ternwatch_detector::{Isa, testing};
use ternwatch_kernels::Trit;

const TRITS: [Trit; 3] = [Trit::Minus, Trit::Zero, Trit::Plus];

fn small_model(seed: u64) -> Model {
    let (file, key) = testing::small_bundle(seed);
    load(&file, &key)
}

fn branched_model(seed: u64) -> Model {
    let (file, key) = testing::branched_bundle(seed);
    load(&file, &key)
}

#[test]
fn every_instruction_set_passes() {
    for seed in 0..8 {
        for model in [small_model(seed), branched_model(seed)] {
            for isa in Isa::available() {
                golden::check(&model, isa).unwrap_or_else(|error| {
                    panic!("{:?}, seed {seed}, {isa}: {error}", model.id())
                });
            }
        }
    }
}

#[test]
fn a_file_of_the_first_readers_time_gives_its_recorded_answers_today() {
    let file = include_bytes!("../../bundle/tests/first.tern");
    let model = load(file, &small_key().public_key());
    assert_eq!(model.golden().len(), 1);
    for isa in Isa::available() {
        golden::check(&model, isa).unwrap_or_else(|error| panic!("{isa}: {error}"));
    }
}

#[test]
fn recording_is_deterministic_and_depends_on_the_seed() {
    let model = small_model(0);
    let [a, b, c] = [5, 5, 6].map(|seed| golden::record(&model, seed, 64, 48).unwrap());
    assert_eq!(a, b);
    assert_ne!(a.input, c.input);
    assert!(a.layers.iter().zip(&c.layers).all(|(a, c)| a != c));
    assert_ne!(a.detections, c.detections);
}

/// Sets one trit to another value, and expects that the layer is named.
fn assert_damage_is_found(model: &mut Model, layer: usize, at: usize, damaged: Trit) {
    let original = std::mem::replace(&mut model.trits_mut(layer).unwrap()[at], damaged);
    match golden::check(model, Isa::detect()) {
        Err(GoldenMismatch::Layer { index, .. }) => {
            assert_eq!(index, layer, "trit {at} of layer {layer}")
        }
        other => panic!("trit {at} of layer {layer}, {original:?} to {damaged:?}: {other:?}"),
    }
    model.trits_mut(layer).unwrap()[at] = original;
}

#[test]
fn any_single_damaged_trit_is_found() {
    for (mut model, layers, trits) in [
        (
            small_model(0),
            9,
            162 + 324 + 324 + 432 + 48 + 324 + 36 + 432,
        ),
        // Those that precede its heads.
        (branched_model(0), 13, 162 + 54 + 36 + 6 + 54),
    ] {
        assert_eq!(damage_each_trit(&mut model, layers), 2 * trits);
        golden::check(&model, Isa::detect()).expect("the model is whole again");
    }
}

/// Each of the two other values of each trit of the first layers; gives how many that were.
fn damage_each_trit(model: &mut Model, layers: usize) -> usize {
    let mut damages = 0;
    for layer in 0..layers {
        for at in 0..model.trits_mut(layer).map_or(0, |trits| trits.len()) {
            let original = model.trits_mut(layer).unwrap()[at];
            for damaged in TRITS.into_iter().filter(|&trit| trit != original) {
                assert_damage_is_found(model, layer, at, damaged);
                damages += 1;
            }
        }
    }
    damages
}

/// A model that is shipped.
fn shipped_model(name: &str) -> Model {
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let file = std::fs::read(models.join(name)).expect("the models are part of the sources");
    let key =
        std::fs::read_to_string(models.join("default.pub")).expect("a bundle comes with its key");
    let keys = TrustedKeys::from_iter([PublicKey::from_text(&key).unwrap()]);
    let bundle = UnverifiedBundle::from_bytes(&file)
        .unwrap()
        .verify(&keys)
        .unwrap();
    Model::load(&bundle).unwrap()
}

/// The models are too large to try every trit, so a spread of them; on an emulated processor a third of it.
#[test]
fn damaged_trits_of_the_shipped_bundles_are_found() {
    let samples = if cfg!(target_arch = "x86_64") { 3 } else { 1 };
    for name in ["person.tern", "person-lite.tern"] {
        let mut model = shipped_model(name);
        let frames = model.golden().len();
        assert!(frames >= 3, "{name} has {frames} golden vectors");
        for isa in Isa::available() {
            golden::check(&model, isa).unwrap_or_else(|error| panic!("{name}, {isa}: {error}"));
        }
        for layer in 0..model.layers().len() {
            let count = model.trits_mut(layer).map_or(0, |trits| trits.len());
            for sample in 0..count.min(samples) {
                let at = (sample * 2 + 1) * count / (2 * samples);
                let original = model.trits_mut(layer).unwrap()[at];
                let damaged = if original == Trit::Plus {
                    Trit::Minus
                } else {
                    Trit::Plus
                };
                assert_damage_is_found(&mut model, layer, at, damaged);
            }
        }
    }
}

#[test]
fn a_model_without_golden_vectors_is_not_called_checked() {
    let file = small_draft(0).sign(&small_key()).unwrap();
    let model = load(&file, &small_key().public_key());
    assert!(matches!(
        golden::check(&model, Isa::Scalar),
        Err(GoldenMismatch::NoneRecorded)
    ));
}

#[test]
fn the_first_difference_is_named() {
    let unrecorded = load(
        &small_draft(0).sign(&small_key()).unwrap(),
        &small_key().public_key(),
    );
    let recorded = golden::record(&unrecorded, 9, 40, 30).unwrap();
    let message = |change: fn(&mut ternwatch_bundle::manifest::Golden)| {
        let mut draft = small_draft(0);
        let mut changed = recorded.clone();
        change(&mut changed);
        draft.manifest.golden = vec![recorded.clone(), changed];
        let model = load(
            &draft.sign(&small_key()).unwrap(),
            &small_key().public_key(),
        );
        golden::check(&model, Isa::detect()).map_err(|error| error.to_string())
    };
    assert_eq!(message(|_| ()), Ok(()));
    let error = message(|golden| golden.input = "0".repeat(64)).unwrap_err();
    assert!(
        error.starts_with("golden frame 9: the preprocessed input is ")
            && error.contains(&recorded.input),
        "{error}"
    );
    let error =
        message(|golden| (golden.layers[8], golden.layers[5]) = ("1".repeat(16), "2".repeat(16)))
            .unwrap_err();
    let expected = format!(
        "layer 5, \"merge4\", is {}, not {}",
        recorded.layers[5],
        "2".repeat(16)
    );
    assert!(error.ends_with(&expected), "{error}");
    let error = message(|golden| golden.detections = "0".repeat(64)).unwrap_err();
    assert!(
        error.starts_with("golden frame 9: the detections are ")
            && error.contains(&recorded.detections),
        "{error}"
    );
}

#[test]
fn sizes_out_of_bounds_are_refused_before_anything_is_drawn() {
    let model = small_model(0);
    for (width, height) in [(1, 64), (64, 8193), (u32::MAX, u32::MAX)] {
        assert!(matches!(
            golden::record(&model, 0, width, height),
            Err(GoldenMismatch::Frame(_))
        ));
    }
}
