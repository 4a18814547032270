//! What a file must pass on this device, and what is remembered of one that does not.

use serde_json::Value;
use std::path::{Path, PathBuf};
use ternwatch_bundle::manifest::Release;
use ternwatch_bundle::testing::{sign_manifest, small_draft, small_key};
use ternwatch_daemon::model::{Config, trusted_keys};
use ternwatch_daemon::update::check::{Checked, Refusal, check};
use ternwatch_daemon::update::digest::Digest;
use ternwatch_daemon::update::reason::Reason;
use ternwatch_detector::Isa;
use ternwatch_detector::testing::small_bundle;

fn config(folder: &Path) -> Config {
    let key = folder.join("key.pub");
    std::fs::write(&key, small_key().public_key().to_text()).expect("written");
    Config {
        bundle: PathBuf::from("/nonexistent"),
        key,
        roots: PathBuf::new(),
        score_min: 0.0,
        iou_max: 0.0,
        isa: "auto".into(),
        threads: 1,
    }
}

fn checked(file: &[u8], latency_ms_max: f64) -> Result<Checked, Refusal> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path());
    let keys = trusted_keys(&config).expect("a key");
    check(
        &config,
        &keys,
        Isa::detect(),
        Path::new("it"),
        file,
        latency_ms_max,
    )
}

#[test]
fn a_good_model_passes_with_its_identity() {
    let (file, _) = small_bundle(3);
    let checked = checked(&file, 60_000.0).expect("good");
    assert_eq!(checked.identity.sha256, Digest::of(&file));
    assert_eq!(checked.identity.name, checked.loaded.identity.name);
}

#[test]
fn a_flipped_bit_anywhere_is_a_bad_signature_and_nothing_signed() {
    let (file, _) = small_bundle(3);
    for at in (0..file.len()).step_by(97) {
        let mut flipped = file.clone();
        flipped[at] ^= 0x10;
        let refusal = checked(&flipped, 60_000.0).expect_err("damaged");
        assert_eq!(refusal.reason, Reason::BadSignature, "byte {at}");
        assert_eq!(refusal.signed, None, "byte {at}");
    }
}

#[test]
fn a_signed_model_without_its_recorded_answers_is_known_by_its_name() {
    let file = small_draft(3).sign(&small_key()).expect("small");
    let refusal = checked(&file, 60_000.0).expect_err("nothing recorded");
    assert_eq!(refusal.reason, Reason::GoldenMismatch);
    assert_eq!(
        refusal.signed.map(|model| model.sha256),
        Some(Digest::of(&file))
    );
}

#[test]
fn a_signed_model_that_is_no_network_is_invalid() {
    let mut draft = small_draft(3);
    draft.parameters.truncate(10);
    let refusal = checked(&draft.sign(&small_key()).expect("small"), 60_000.0);
    assert_eq!(refusal.expect_err("cut").reason, Reason::ModelInvalid);
}

#[test]
fn a_model_of_a_later_format_asks_for_a_newer_daemon_and_is_not_called_a_forgery() {
    let sign =
        |manifest: &str| sign_manifest(manifest.as_bytes(), &[], &small_key()).expect("small");
    let reason = |file: &[u8]| checked(file, 60_000.0).expect_err("not of now").reason;
    let later = sign(r#"{"schema": 2, "quantization": {"bits": 1}}"#);
    assert_eq!(reason(&later), Reason::DaemonTooOld);
    let (mut file, _) = small_bundle(3);
    file[8] = 2;
    assert_eq!(reason(&file), Reason::DaemonTooOld);
    assert_eq!(reason(&sign(r#"{"schema": 0}"#)), Reason::ModelInvalid);
    assert_eq!(
        reason(&sign(r#"{"schema": 1, "colour": 7}"#)),
        Reason::ModelInvalid
    );
    assert_eq!(reason(&sign("no JSON")), Reason::ModelInvalid);
}

#[test]
fn what_a_later_daemon_may_do_is_refused_as_its_and_not_remembered_as_a_failure() {
    let of = |daemon_min: [u32; 3]| {
        let release = Release {
            daemon_min: Some(daemon_min),
            ..Release::default()
        };
        let mut draft = small_draft(3);
        draft.manifest.release = Some(release);
        draft
    };
    let reason = |file: &[u8], latency_ms_max| {
        checked(file, latency_ms_max)
            .expect_err("it cannot run here")
            .reason
    };
    for (daemon_min, expected) in [
        ([0, 0, 1], None),
        ([1000, 0, 0], Some(Reason::DaemonTooOld)),
    ] {
        let or = |reason| expected.unwrap_or(reason);
        // A key, a layer and a value of later.
        let manifest = serde_json::to_value(of(daemon_min).manifest).expect("JSON");
        for (pointer, key, value) in [
            ("", "colour", 7.into()),
            ("/release", "colour", 7.into()),
            ("/layers/0", "op", "attend".into()),
            ("/layers/0", "activation", "swish".into()),
        ] {
            let mut manifest: Value = manifest.clone();
            manifest.pointer_mut(pointer).expect("there")[key] = value;
            let file = sign_manifest(manifest.to_string().as_bytes(), &[], &small_key());
            let found = reason(&file.expect("small"), 60_000.0);
            assert_eq!(found, or(Reason::ModelInvalid), "{pointer} {key}");
        }
        // What is read and does not run.
        let mut cut = of(daemon_min);
        cut.parameters.truncate(10);
        let cut = cut.sign(&small_key()).expect("small");
        assert_eq!(reason(&cut, 60_000.0), or(Reason::ModelInvalid));
        let unrecorded = of(daemon_min).sign(&small_key()).expect("small");
        assert_eq!(reason(&unrecorded, 60_000.0), or(Reason::GoldenMismatch));
    }
    assert!(!Reason::DaemonTooOld.is_lasting());
}

#[test]
fn a_model_above_the_budget_is_too_slow() {
    let (file, _) = small_bundle(3);
    let refusal = checked(&file, 0.000_001).expect_err("no model is that fast");
    assert_eq!(refusal.reason, Reason::TooSlow);
    assert!(refusal.signed.is_some(), "it is remembered");
}

#[test]
fn a_name_that_is_too_long_is_not_written_down() {
    let mut draft = small_draft(3);
    draft.manifest.model.name = "n".repeat(10_000);
    let file = draft.sign(&small_key()).expect("small");
    let refusal = checked(&file, 60_000.0).expect_err("a name has bounds");
    assert_eq!(
        (refusal.reason, refusal.signed),
        (Reason::ModelInvalid, None)
    );
}
