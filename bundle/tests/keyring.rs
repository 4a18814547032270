//! Keyrings: what enough roots signed is taken, nothing else is.

use std::collections::BTreeMap;
use ternwatch_bundle::keyring::{self, BODY_LEN_MAX, Body, Keyring, KeyringError, Roots};
use ternwatch_bundle::{PublicKey, SecretKey, hex};

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

fn text(key: &PublicKey) -> String {
    hex::encode(&key.to_bytes())
}

fn roots() -> Roots {
    let keys = [1, 2, 3].map(|seed| secret(seed).public_key());
    Roots::new(keys.into(), 2).expect("two of three")
}

fn body(version: u64) -> Body {
    Body {
        schema: 1,
        version,
        signed_at_s: 1_790_000_000,
        models: vec![text(&secret(7).public_key())],
        revoked: vec![text(&secret(8).public_key())],
        resets: BTreeMap::from([("person".into(), 2)]),
    }
}

fn signed(body: &Body, seeds: &[u8]) -> Vec<u8> {
    let keys: Vec<SecretKey> = seeds.iter().map(|seed| secret(*seed)).collect();
    keyring::sign(body, &keys).expect("within the bounds")
}

#[test]
fn enough_different_roots_have_to_agree() {
    let verify = |seeds: &[u8]| Keyring::verify(&signed(&body(1), seeds), &roots());
    for seeds in [&[1, 2][..], &[3, 1], &[1, 2, 3], &[9, 2, 3]] {
        let keyring = verify(seeds).expect("two roots signed");
        assert_eq!(keyring.body(), &body(1));
        assert!(keyring.models().iter().eq([&secret(7).public_key()]));
        assert!(keyring.has_revoked(&secret(8).public_key()));
    }
    for (seeds, good) in [
        (&[][..], 0),
        (&[1], 1),
        (&[1, 1], 1),
        (&[1, 9], 1),
        (&[9, 8], 0),
    ] {
        match verify(seeds) {
            Err(KeyringError::Threshold { found, needed: 2 }) => assert_eq!(found, good),
            other => panic!("{seeds:?}: {other:?}"),
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let file = signed(&body(1), &[1, 2]);
    Keyring::verify(&file, &roots()).expect("good");
    for at in 0..file.len() {
        assert!(
            Keyring::verify(&file[..at], &roots()).is_err(),
            "cut at {at}"
        );
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(
            Keyring::verify(&flipped, &roots()).is_err(),
            "flipped at {at}"
        );
    }
    let longer = [file, vec![0]].concat();
    assert!(Keyring::verify(&longer, &roots()).is_err());
}

#[test]
fn lengths_are_bounded_before_anything_else() {
    let mut file = signed(&body(1), &[1, 2]);
    file[10..12].copy_from_slice(&u16::MAX.to_le_bytes());
    assert!(matches!(
        Keyring::verify(&file, &roots()),
        Err(KeyringError::Lengths)
    ));
    let mut file = signed(&body(1), &[1, 2]);
    file[12..16].copy_from_slice(&(BODY_LEN_MAX as u32 + 1).to_le_bytes());
    assert!(matches!(
        Keyring::verify(&file, &roots()),
        Err(KeyringError::Lengths)
    ));
}

#[test]
fn a_later_one_has_a_greater_version_and_forgets_no_revocation() {
    let verified = |body: &Body| Keyring::verify(&signed(body, &[1, 2]), &roots()).expect("good");
    let first = verified(&body(4));
    assert!(!verified(&body(4)).follows(&first));
    assert!(!verified(&body(3)).follows(&first));
    assert!(verified(&body(5)).follows(&first));
    let forgetful = Body {
        revoked: Vec::new(),
        ..body(5)
    };
    assert!(!verified(&forgetful).follows(&first));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let refused = |body: Body| {
        let file = signed(&body, &[1, 2]);
        Keyring::verify(&file, &roots())
            .expect_err("refused")
            .to_string()
    };
    let both = Body {
        revoked: body(1).models,
        ..body(1)
    };
    assert!(refused(both).contains("`revoked`"));
    let many = Body {
        models: vec![text(&secret(7).public_key()); 17],
        ..body(1)
    };
    assert!(refused(many).contains("`models`"));
    let great = Body {
        version: 1 << 53,
        ..body(1)
    };
    assert!(refused(great).contains("`version`"));
    let newer = Body {
        schema: 2,
        ..body(1)
    };
    assert!(refused(newer).contains("schema 2"));
    let weak = Body {
        models: vec!["00".repeat(32)],
        ..body(1)
    };
    assert!(refused(weak).contains("is none"));
}

#[test]
fn roots_read_back_and_a_threshold_out_of_reach_is_refused() {
    let text = roots().to_text();
    assert_eq!(Roots::from_text(&text).expect("roots").to_text(), text);
    for bad in [
        text.replace("threshold 2", "threshold 0"),
        text.replace("threshold 2", "threshold 4"),
        text.replace("threshold", "thresholds"),
        format!("{text}{}", text.lines().nth(1).expect("a key")),
        format!("{text}nonsense\n"),
    ] {
        assert!(Roots::from_text(&bad).is_err(), "{bad}");
    }
}
