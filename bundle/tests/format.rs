//! The bytes of the file: the promise to every released reader and writer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ternwatch_bundle::parse::{BODY_LEN_MAX, HEADER_LEN, MANIFEST_LEN_MAX};
use ternwatch_bundle::testing::{sign_manifest, small_bundle, small_draft, small_key};
use ternwatch_bundle::write::WriteError;
use ternwatch_bundle::{
    BundleError, PublicKey, SecretKey, TrustedKeys, UnverifiedBundle, VerifiedBundle,
};

fn verify<'a>(file: &'a [u8], key: &PublicKey) -> Result<VerifiedBundle<'a>, BundleError> {
    UnverifiedBundle::from_bytes(file)?.verify(&TrustedKeys::from_iter([key.clone()]))
}

fn message(result: Result<VerifiedBundle<'_>, BundleError>) -> String {
    result.expect_err("the bundle must be refused").to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Format version 1 never changes: a reader in the field depends on each of these bytes.
#[test]
fn snapshot_of_a_file() {
    let file = sign_manifest(b"{}", &[0xaa, 0xbb], &small_key()).unwrap();
    let expected = [
        "5445524e57544348",                                                 // TERNWTCH
        "0100",                                                             // version
        "0000",                                                             // reserved
        "08000000",                                                         // body length
        "fe812c12f3ab4ce6",                                                 // key id
        "34f43f76bd4740c5fc1985abaf9608238ae608162f8ff903741e73b5ddecb788", // Ed25519 signature,
        "63b2a1b4fcbbbacbbfea588c5c2dff430a10bfaa09e2dd7b0acaf698f1e69801", // which is deterministic
        "02000000",                                                         // manifest length
        "7b7d",                                                             // {}
        "aabb",                                                             // parameters
    ];
    assert_eq!(hex(&file), expected.concat());
}

#[test]
fn what_was_written_is_read() {
    let draft = small_draft(1);
    let (file, key) = small_bundle(1);
    let bundle = verify(&file, &key).unwrap();
    assert_eq!(*bundle.manifest(), draft.manifest);
    assert_eq!(bundle.parameters(), draft.parameters);
    assert_eq!(bundle.len(), file.len());
    assert_eq!(
        UnverifiedBundle::from_bytes(&file).unwrap().key_id(),
        key.id()
    );
    use sha2::{Digest, Sha256};
    assert_eq!(bundle.sha256(), *Sha256::digest(&file));
}

#[test]
fn writing_is_deterministic() {
    assert_eq!(small_bundle(5).0, small_bundle(5).0);
}

#[test]
fn a_newer_format_is_refused_with_a_clear_message() {
    let (mut file, key) = small_bundle(1);
    file[8] = 2;
    assert_eq!(
        message(verify(&file, &key)),
        "bundle format version 2 is not supported, this program reads version 1: the bundle needs a newer Ternwatch"
    );
    file[8] = 0;
    assert_eq!(
        message(verify(&file, &key)),
        "bundle format version 0 is not supported, this program reads version 1: no such version was ever released"
    );
}

#[test]
fn a_newer_manifest_is_refused_with_a_clear_message_despite_its_new_keys() {
    let key = small_key();
    let file = sign_manifest(br#"{"schema": 2, "quantization": {"bits": 1}}"#, &[], &key).unwrap();
    assert_eq!(
        message(verify(&file, &key.public_key())),
        "manifest schema 2 is not supported, this program reads schema 1: the bundle needs a newer Ternwatch"
    );
}

#[test]
fn unknown_and_missing_keys_are_named() {
    let key = small_key();
    let mut manifest = serde_json::to_value(small_draft(0).manifest).unwrap();
    let refused = |pointer: &str, name: &str, remove: bool| {
        let mut manifest = manifest.clone();
        let object = manifest
            .pointer_mut(pointer)
            .unwrap()
            .as_object_mut()
            .unwrap();
        if remove {
            object.remove(name).unwrap();
        } else {
            object.insert(name.into(), 1.into());
        }
        let file = sign_manifest(manifest.to_string().as_bytes(), &[], &key).unwrap();
        let message = message(verify(&file, &key.public_key()));
        assert!(
            message.contains(&format!("`{name}`")),
            "{pointer} {name}: {message}"
        );
    };
    for (pointer, name) in [
        ("", "colour"),
        ("/model", "colour"),
        ("/input", "colour"),
        ("/thresholds", "colour"),
        ("/layers/0", "colour"),
        ("/layers/5", "colour"),
        ("/heads/0", "colour"),
    ] {
        refused(pointer, name, false);
    }
    for (pointer, name) in [
        ("", "classes"),
        ("/input", "fill"),
        ("/layers/0", "pre_shift"),
        ("/layers/0", "op"),
    ] {
        refused(pointer, name, true);
    }
    manifest
        .as_object_mut()
        .unwrap()
        .remove("card")
        .expect("the card may be missing");
    let file = sign_manifest(manifest.to_string().as_bytes(), &[], &key).unwrap();
    assert!(verify(&file, &key.public_key()).is_ok());
}

#[test]
fn every_truncation_and_any_continuation_is_refused() {
    let (mut file, key) = small_bundle(2);
    for len in 0..file.len() {
        assert!(verify(&file[..len], &key).is_err(), "{len} bytes");
    }
    file.push(0);
    assert!(matches!(
        verify(&file, &key),
        Err(BundleError::BodyLength { .. })
    ));
}

#[test]
fn every_single_bit_counts() {
    let file = sign_manifest(b"{}", &[1, 2, 3], &small_key()).unwrap();
    let key = small_key().public_key();
    // Unchanged, the signature is good and only the manifest is empty.
    assert!(matches!(verify(&file, &key), Err(BundleError::Manifest(_))));
    for bit in 0..8 * file.len() {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = verify(&damaged, &key).unwrap_err();
        let is_before_the_manifest = !matches!(
            error,
            BundleError::Manifest(_) | BundleError::ManifestSchema { .. }
        );
        assert!(is_before_the_manifest, "bit {bit}: {error}");
    }
}

#[test]
fn other_files_hear_that_they_are_no_bundles() {
    for file in [b"\x7fELF\x02\x01\x01".as_slice(), b"ternwtch", &[0; 200]] {
        assert!(matches!(
            UnverifiedBundle::from_bytes(file),
            Err(BundleError::NotABundle)
        ));
    }
    for file in [b"".as_slice(), b"TERN", b"TERNWTCH"] {
        assert!(matches!(
            UnverifiedBundle::from_bytes(file),
            Err(BundleError::HeaderTooShort { .. })
        ));
    }
}

#[test]
fn strangers_and_impostors_are_told_apart() {
    let (mut file, key) = small_bundle(3);
    let stranger = SecretKey::from_bytes(&[9; 32]).public_key();
    let error = verify(&file, &stranger).unwrap_err();
    assert!(
        matches!(error, BundleError::UnknownKey { key_id } if key_id == key.id()),
        "{error}"
    );
    assert!(matches!(
        UnverifiedBundle::from_bytes(&file)
            .unwrap()
            .verify(&TrustedKeys::default()),
        Err(BundleError::UnknownKey { .. })
    ));
    // The stranger's id with our signature, and ours with the stranger's signature.
    file[16..24].copy_from_slice(&stranger.id().0);
    assert!(matches!(
        verify(&file, &stranger),
        Err(BundleError::BadSignature { .. })
    ));
    let mut forged = small_draft(3)
        .sign(&SecretKey::from_bytes(&[9; 32]))
        .unwrap();
    forged[16..24].copy_from_slice(&key.id().0);
    assert!(matches!(
        verify(&forged, &key),
        Err(BundleError::BadSignature { .. })
    ));
}

#[test]
fn any_of_several_trusted_keys_will_do() {
    let keys = [1u8, 2, 3].map(|byte| SecretKey::from_bytes(&[byte; 32]));
    let trusted: TrustedKeys = keys.iter().map(SecretKey::public_key).collect();
    for key in &keys {
        let file = small_draft(0).sign(key).unwrap();
        assert!(
            UnverifiedBundle::from_bytes(&file)
                .unwrap()
                .verify(&trusted)
                .is_ok()
        );
    }
}

#[test]
fn bounds_hold_on_both_sides() {
    let key = small_key();
    assert!(matches!(
        sign_manifest(&vec![b' '; MANIFEST_LEN_MAX + 1], &[], &key),
        Err(WriteError::ManifestTooLong { .. })
    ));
    assert!(matches!(
        sign_manifest(b"{}", &vec![0; BODY_LEN_MAX], &key),
        Err(WriteError::BodyTooLong { .. })
    ));
    // Declared lengths, whatever the file's: 16 MiB + 1, and the greatest of all.
    let mut file = vec![0; HEADER_LEN];
    file[..8].copy_from_slice(b"TERNWTCH");
    file[8] = 1;
    for declared in [BODY_LEN_MAX as u32 + 1, u32::MAX] {
        file[12..16].copy_from_slice(&declared.to_le_bytes());
        assert!(matches!(
            UnverifiedBundle::from_bytes(&file),
            Err(BundleError::BodyTooLong { .. })
        ));
    }
}
