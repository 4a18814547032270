//! Nothing from outside is trusted: no bytes panic, and no change passes the signature.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use ternwatch_bundle::testing::{
    branched_draft, sign_manifest, small_bundle, small_draft, small_key,
};
use ternwatch_bundle::write::Draft;
use ternwatch_bundle::{Model, TrustedKeys, UnverifiedBundle};

fn trusted() -> TrustedKeys {
    TrustedKeys::from_iter([small_key().public_key()])
}

/// A change of a file.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => at().prop_map(Mutation::Truncate),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (at(), at()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        if bytes.is_empty() {
            return;
        }
        match mutation {
            Mutation::Set(at, byte) => *at.get_mut(bytes) = *byte,
            Mutation::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
            Mutation::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Mutation::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
            Mutation::Repeat(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from..from, piece);
            }
        }
    }
}

/// Both kinds of network.
fn draft() -> impl Strategy<Value = Draft> {
    prop_oneof![Just(small_draft(0)), Just(branched_draft(0))]
}

/// Signs what a maker with a mistaken tool might, and loads it. Whether it loads does not matter; that it returns does.
fn load(manifest: &[u8], parameters: &[u8]) -> Option<Model> {
    let file = sign_manifest(manifest, parameters, &small_key()).ok()?;
    let keys = trusted();
    let bundle = UnverifiedBundle::from_bytes(&file)
        .expect("the header is right")
        .verify(&keys)
        .ok()?;
    Model::load(&bundle).ok()
}

/// Numbers near every bound of the format.
fn number() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        prop::sample::select(vec![
            0u64, 1, 2, 3, 4, 5, 7, 8, 127, 128, 255, 256, 257, 1023, 1024, 1025, 2048, 2049
        ])
        .prop_map(Into::into),
        prop::sample::select(vec![
            0x7fff_ffffu64,
            0x8000_0000,
            0xffff_fffe,
            0xffff_ffff,
            1 << 32,
            u64::MAX
        ])
        .prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        (0u64..64).prop_map(Into::into),
    ]
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        6 => number(),
        2 => prop::sample::select(vec!["", "image", "stem", "down8", "merge4", "head4", "relu", "linear", "conv",
            "add", "concat", "pool", "max", "mean", "sum4", "\u{7}é"])
            .prop_map(Into::into),
        1 => "\\PC{0,80}".prop_map(Into::into),
        1 => Just(serde_json::Value::Null),
        1 => Just(serde_json::json!([])),
        1 => Just(serde_json::json!({})),
    ]
}

/// Every place in a document, containers included.
fn places(value: &serde_json::Value, at: String, all: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            object
                .iter()
                .for_each(|(key, value)| places(value, format!("{at}/{key}"), all));
        }
        serde_json::Value::Array(array) => {
            array
                .iter()
                .enumerate()
                .for_each(|(key, value)| places(value, format!("{at}/{key}"), all));
        }
        _ => {}
    }
    all.push(at);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(UnverifiedBundle::from_bytes(&bytes).is_err());
        // And behind a right magic and version.
        let file = [b"TERNWTCH\x01\0\0\0".as_slice(), &bytes].concat();
        if let Ok(bundle) = UnverifiedBundle::from_bytes(&file) {
            prop_assert!(bundle.verify(&trusted()).is_err());
        }
    }

    #[test]
    fn a_mutated_bundle_never_verifies(seed in 0u64..4, mutations in prop::collection::vec(mutation(), 1..6)) {
        let (original, _) = small_bundle(seed);
        let mut file = original.clone();
        apply(&mut file, &mutations);
        prop_assume!(file != original);
        if let Ok(bundle) = UnverifiedBundle::from_bytes(&file) {
            prop_assert!(bundle.verify(&trusted()).is_err());
        }
    }

    #[test]
    fn a_mutated_body_with_its_length_set_right_never_verifies(
        seed in 0u64..4, mutations in prop::collection::vec(mutation(), 1..6)
    ) {
        let (original, _) = small_bundle(seed);
        let mut body = original[88..].to_vec();
        apply(&mut body, &mutations);
        let mut file = [&original[..88], &body].concat();
        file[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
        prop_assume!(file != original);
        let bundle = UnverifiedBundle::from_bytes(&file).expect("the header is right");
        prop_assert!(bundle.verify(&trusted()).is_err());
    }

    #[test]
    fn signed_nonsense_never_panics(draft in draft(), mutations in prop::collection::vec(mutation(), 1..6)) {
        let mut manifest = serde_json::to_vec(&draft.manifest).unwrap();
        apply(&mut manifest, &mutations);
        load(&manifest, &draft.parameters);
    }

    #[test]
    fn signed_documents_with_changed_values_never_panic(
        draft in draft(), changes in prop::collection::vec((any::<prop::sample::Index>(), value()), 1..4)
    ) {
        let mut manifest = serde_json::to_value(&draft.manifest).unwrap();
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&manifest, String::new(), &mut all);
            *manifest.pointer_mut(place.get::<String>(&all)).unwrap() = value;
        }
        load(manifest.to_string().as_bytes(), &draft.parameters);
    }

    #[test]
    fn signed_parameters_of_any_bytes_never_panic(
        mut draft in draft(), mutations in prop::collection::vec(mutation(), 0..6)
    ) {
        apply(&mut draft.parameters, &mutations);
        load(&serde_json::to_vec(&draft.manifest).unwrap(), &draft.parameters);
    }
}

#[test]
fn deep_json_is_refused_without_a_stack_overflow() {
    let deep = [vec![b'['; 500_000], vec![b']'; 500_000]].concat();
    assert!(load(&deep, &[]).is_none());
    let manifest = serde_json::to_string(&small_draft(0).manifest).unwrap();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let manifest = manifest.replace(r#"{"purpose":"tests"}"#, &deep);
    assert!(manifest.contains("[[["));
    assert!(load(manifest.as_bytes(), &[]).is_none());
}
