//! Key files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ternwatch_bundle::{KeyError, PublicKey, SecretKey};

/// RFC 8032, section 7.1, test 1.
const SECRET: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn public_text(second_line: &str) -> String {
    format!("ternwatch ed25519 public key\n{second_line}\n")
}

#[test]
fn snapshot_of_both_key_files() {
    let secret =
        SecretKey::from_text(&format!("ternwatch ed25519 secret key\n{SECRET}\n")).unwrap();
    assert_eq!(secret.public_key().to_text(), public_text(PUBLIC));
    assert_eq!(
        secret.to_text(),
        format!("ternwatch ed25519 secret key\n{SECRET}\n")
    );
    assert_eq!(secret.public_key().id().to_string(), "21fe31dfa154a261");
}

#[test]
fn files_round_trip_and_line_ends_do_not_matter() {
    let key = PublicKey::from_text(&public_text(PUBLIC)).unwrap();
    assert_eq!(PublicKey::from_text(&key.to_text()).unwrap(), key);
    assert_eq!(PublicKey::from_bytes(&key.to_bytes()).unwrap(), key);
    assert_eq!(
        key.to_text()
            .replace('\n', "\r\n")
            .parse::<PublicKey>()
            .unwrap(),
        key
    );
    assert_eq!(PublicKey::from_text(key.to_text().trim_end()).unwrap(), key);
}

#[test]
fn one_kind_of_key_is_not_taken_for_the_other() {
    let secret = SecretKey::from_bytes(&[1; 32]);
    assert!(matches!(
        PublicKey::from_text(&secret.to_text()),
        Err(KeyError::Title { .. })
    ));
    assert!(matches!(
        SecretKey::from_text(&secret.public_key().to_text()),
        Err(KeyError::Title { .. })
    ));
}

#[test]
fn damaged_files_are_refused() {
    for (text, error) in [
        (
            String::new(),
            KeyError::Title {
                expected: "ternwatch ed25519 public key",
            },
        ),
        (public_text(""), KeyError::Digits),
        (public_text(&PUBLIC[1..]), KeyError::Digits),
        (public_text(&format!("{PUBLIC}00")), KeyError::Digits),
        (public_text(&PUBLIC.to_uppercase()), KeyError::Digits),
        (public_text(&format!(" {PUBLIC}")), KeyError::Digits),
        (
            public_text(&format!("{PUBLIC}\n{PUBLIC}")),
            KeyError::Trailing,
        ),
    ] {
        assert_eq!(PublicKey::from_text(&text), Err(error), "{text:?}");
    }
}

#[test]
fn keys_of_small_order_are_refused() {
    // The neutral element and a point of order 8: any signature of a suitable form would pass them.
    let order_1 = format!("01{}", "00".repeat(31));
    let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    for weak in [order_1.as_str(), order_8] {
        assert_eq!(
            PublicKey::from_text(&public_text(weak)),
            Err(KeyError::Weak)
        );
    }
    // y = 2 is on no point of the curve.
    let no_point = format!("02{}", "00".repeat(31));
    assert_eq!(
        PublicKey::from_text(&public_text(&no_point)),
        Err(KeyError::NotAPoint)
    );
}

#[test]
fn debug_output_keeps_the_secret() {
    let secret =
        SecretKey::from_text(&format!("ternwatch ed25519 secret key\n{SECRET}\n")).unwrap();
    let shown = format!("{secret:?}");
    assert!(shown.contains(PUBLIC) && !shown.contains(SECRET), "{shown}");
}
