//! Old readers and new files, new readers and old files.
//!
//! `before` is the manifest as it was read before `release`, `groups` and the layers of networks trained elsewhere came. It
//! stays as it is: readers like it are on devices. `first.tern` is a file of that time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use ternwatch_bundle::keyring::{self, Keyring, KeyringError, Roots};
use ternwatch_bundle::manifest::{Manifest, Release};
use ternwatch_bundle::testing::{branched_draft, load, secret, small_draft, small_key};
use ternwatch_bundle::{BundleError, TrustedKeys, UnverifiedBundle};

/// The oldest reader's manifest.
mod before {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct Manifest {
        schema: u32,
        model: ModelId,
        input: Input,
        classes: Vec<String>,
        thresholds: Thresholds,
        layers: Vec<Layer>,
        heads: Vec<Head>,
        golden: Vec<Golden>,
        #[serde(default)]
        card: serde_json::Value,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ModelId {
        name: String,
        version: u64,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Input {
        width: u32,
        height: u32,
        channels: u32,
        fill: u8,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thresholds {
        score: f32,
        iou: f32,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
    enum Layer {
        Conv {
            name: String,
            input: String,
            in_channels: u32,
            out_channels: u32,
            kernel: u32,
            stride: u32,
            activation: Activation,
            pre_shift: u8,
            offset: u32,
        },
        AddUpsampled {
            name: String,
            fine: String,
            coarse: String,
        },
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Activation {
        Relu,
        Linear,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Head {
        layer: String,
        stride: u32,
        #[serde(default, skip_serializing_if = "HeadKind::is_boxes")]
        kind: HeadKind,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum HeadKind {
        #[default]
        Boxes,
        Classes,
    }

    impl HeadKind {
        fn is_boxes(&self) -> bool {
            *self == Self::Boxes
        }
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Golden {
        seed: u64,
        width: u32,
        height: u32,
        input: String,
        layers: Vec<String>,
        detections: String,
    }
}

/// What the oldest reader makes of what is written today: the manifest as it understood it, or why it refuses.
fn read_before(manifest: &Manifest) -> Result<Value, String> {
    let written = serde_json::to_vec(manifest).unwrap();
    let read: Result<before::Manifest, _> = serde_json::from_slice(&written);
    read.map(|read| serde_json::to_value(read).unwrap())
        .map_err(|error| error.to_string())
}

/// The manifest of a file of the first readers' time.
const FIRST: &[u8] = include_bytes!("first.tern");

#[test]
fn an_old_reader_reads_a_new_file_that_has_nothing_new() {
    let mut manifest = small_draft(1).manifest;
    manifest.golden = serde_json::from_value(json!([
        {"seed": 1, "width": 64, "height": 48, "input": "00", "layers": ["11"], "detections": "22"}
    ]))
    .unwrap();
    let written = serde_json::to_value(&manifest).unwrap();
    assert_eq!(read_before(&manifest).as_ref(), Ok(&written));
}

#[test]
fn an_old_reader_refuses_each_novelty_by_name() {
    let refused = |manifest: &Manifest, name: &str| {
        let error = read_before(manifest).unwrap_err();
        assert!(error.contains(&format!("`{name}`")), "{name}: {error}");
    };
    let mut manifest = small_draft(1).manifest;
    manifest.release = Some(Release::default());
    refused(&manifest, "release");
    let branched = branched_draft(1).manifest;
    let mut ops = Vec::new();
    for layer in &branched.layers {
        let written = serde_json::to_value(layer).unwrap();
        let op = written["op"].as_str().unwrap().to_owned();
        let mut manifest = small_draft(1).manifest;
        manifest.layers = vec![layer.clone()];
        match (op.as_str(), written.get("groups")) {
            (_, Some(_)) => refused(&manifest, "groups"),
            ("add" | "concat" | "pool", _) => refused(&manifest, &op),
            _ => assert!(read_before(&manifest).is_ok(), "{written}"),
        }
        ops.push(op);
    }
    for op in ["conv", "add_upsampled", "add", "concat", "pool"] {
        assert!(ops.iter().any(|known| known == op), "no {op} in {ops:?}");
    }
}

#[test]
fn a_file_of_the_first_readers_time_loads_today() {
    let model = load(FIRST, &small_key().public_key());
    assert_eq!(
        (model.id().name.as_str(), model.id().version),
        ("first-format", 1)
    );
    let keys = TrustedKeys::from_iter([small_key().public_key()]);
    let bundle = UnverifiedBundle::from_bytes(FIRST).unwrap();
    let bundle = bundle.verify(&keys).unwrap();
    // Written as it was then: what it may leave out, it leaves out.
    let written = serde_json::to_vec(bundle.manifest()).unwrap();
    let len = u32::from_le_bytes(*FIRST[88..].first_chunk().unwrap()) as usize;
    assert_eq!(written, &FIRST[92..92 + len]);
    assert_eq!(bundle.parameters(), &FIRST[92 + len..]);
}

#[test]
fn a_novelty_of_later_names_the_daemon_that_it_is_for() {
    let key = small_key();
    let mut manifest = serde_json::to_value(small_draft(1).manifest).unwrap();
    manifest["colour"] = 7.into();
    let refused = |manifest: &Value| {
        let json = manifest.to_string();
        let file = ternwatch_bundle::testing::sign_manifest(json.as_bytes(), &[], &key).unwrap();
        UnverifiedBundle::from_bytes(&file)
            .unwrap()
            .verify(&TrustedKeys::from_iter([key.public_key()]))
            .unwrap_err()
    };
    assert!(matches!(refused(&manifest), BundleError::Manifest(_)));
    // Of a release in a shape that is not known, too, as long as this stays where it is.
    for release in [
        json!({"signed_at_s": 1, "daemon_min": [1, 2, 3]}),
        json!({"daemon_min": [1, 2, 3], "signed_at": "yesterday"}),
    ] {
        manifest["release"] = release;
        let error = refused(&manifest);
        assert!(
            matches!(
                error,
                BundleError::ManifestOfDaemon {
                    daemon_min: [1, 2, 3],
                    ..
                }
            ),
            "{error}"
        );
        let message = error.to_string();
        assert!(message.contains("1.2.3"), "{message}");
    }
    manifest["release"] = json!("a text");
    assert!(matches!(refused(&manifest), BundleError::Manifest(_)));
}

#[test]
fn a_keyring_of_a_later_format_or_schema_is_refused_as_such() {
    let roots = Roots::new(vec![secret(1).public_key()], 1).unwrap();
    let body = keyring::Body {
        schema: keyring::SCHEMA,
        version: 1,
        signed_at_s: 1_790_000_000,
        models: Vec::new(),
        revoked: Vec::new(),
        resets: std::collections::BTreeMap::new(),
    };
    let signed = |body: &keyring::Body| keyring::sign(body, &[secret(1)]).unwrap();
    let good = signed(&body);
    assert!(Keyring::verify(&good, &roots).is_ok());
    let mut later = good;
    later[8] = 2;
    let error = Keyring::verify(&later, &roots).unwrap_err();
    assert!(
        matches!(error, KeyringError::FormatVersion { found: 2 }),
        "{error}"
    );
    assert!(error.to_string().contains("version 2"), "{error}");
    let later = signed(&keyring::Body { schema: 2, ..body });
    let error = Keyring::verify(&later, &roots).unwrap_err();
    assert!(matches!(error, KeyringError::Schema(2)), "{error}");
}
