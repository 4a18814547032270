//! Whose signatures count: keyrings before and after others, with few and with other roots.

use std::path::Path;
use ternwatch_bundle::PublicKey;
use ternwatch_bundle::keyring::Roots;
use ternwatch_bundle::testing::{KEYRING_SIGNED_AT_S, keyring, secret, small_key};
use ternwatch_daemon::model::Config;
use ternwatch_daemon::update::machine::{Event, Machine, Record};
use ternwatch_daemon::update::trust::{TrustError, consider, model_keys};

fn config(folder: &Path, roots: &[u8]) -> Config {
    let (key, file) = (folder.join("key.pub"), folder.join("roots"));
    std::fs::write(&key, small_key().public_key().to_text()).expect("written");
    let roots = roots.iter().map(|seed| secret(*seed).public_key());
    let roots = Roots::new(roots.collect(), 2).expect("two of them sign");
    std::fs::write(&file, roots.to_text()).expect("written");
    Config {
        bundle: "/nonexistent".into(),
        key,
        roots: file,
        score_min: 0.0,
        iou_max: 0.0,
        isa: "auto".into(),
        threads: 1,
    }
}

fn keys(config: &Config, machine: &Machine) -> Vec<PublicKey> {
    let keys = model_keys(config, machine.record()).expect("keys");
    keys.iter().cloned().collect()
}

/// Whether it was taken.
fn take(config: &Config, machine: &mut Machine, file: &[u8]) -> Result<(), TrustError> {
    let event = consider(config, machine.record(), file)?;
    machine
        .step(event)
        .expect("what is considered good is taken");
    Ok(())
}

#[test]
fn a_keyring_takes_the_place_of_the_key_and_a_revoked_key_never_returns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path(), &[1, 2, 3]);
    let mut machine = Machine::new(Record::default(), None, 3);
    assert_eq!(keys(&config, &machine), [small_key().public_key()]);
    take(&config, &mut machine, &keyring(1, &[20, 21], &[], &[1, 2])).expect("the first");
    let expected = [20, 21].map(|seed| secret(seed).public_key());
    assert_eq!(keys(&config, &machine), expected);
    take(&config, &mut machine, &keyring(3, &[21], &[20], &[2, 3])).expect("a newer one");
    assert_eq!(keys(&config, &machine), [secret(21).public_key()]);

    // What was revoked comes back neither by an old keyring nor by one that forgets it.
    for (version, revoked) in [(1, &[][..]), (2, &[]), (3, &[]), (4, &[])] {
        let refused = keyring(version, &[20, 21], revoked, &[1, 2]);
        let error = take(&config, &mut machine, &refused).expect_err("refused");
        assert!(
            matches!(error, TrustError::DoesNotFollow { present: 3, .. }),
            "{error}"
        );
    }
    assert_eq!(keys(&config, &machine), [secret(21).public_key()]);
}

#[test]
fn what_a_key_said_of_the_time_is_forgotten_with_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path(), &[1, 2, 3]);
    // By the packaged key, and by one that a keyring named.
    for earlier in [None, Some(keyring(1, &[20], &[], &[1, 2]))] {
        let mut machine = Machine::new(Record::default(), None, 3);
        if let Some(earlier) = earlier {
            take(&config, &mut machine, &earlier).expect("the first");
        }
        let ahead = Event::SignedAt(u64::MAX);
        machine.step(ahead).expect("always possible");
        let all = [7, 20, 21];
        take(&config, &mut machine, &keyring(2, &all, &[], &[1, 2])).expect("a newer one");
        assert_eq!(
            machine.record().time_floor_s,
            u64::MAX,
            "none lost its trust"
        );
        take(&config, &mut machine, &keyring(3, &[21], &[20], &[1, 2])).expect("a newer one");
        assert_eq!(
            machine.record().time_floor_s,
            KEYRING_SIGNED_AT_S,
            "the roots' own"
        );
    }
}

#[test]
fn without_enough_roots_nothing_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with_roots = config(folder.path(), &[1, 2, 3]);
    let mut machine = Machine::new(Record::default(), None, 3);
    for roots in [&[][..], &[1], &[1, 1], &[1, 7]] {
        let file = keyring(1, &[20], &[], roots);
        let error = take(&with_roots, &mut machine, &file).expect_err("refused");
        assert!(matches!(error, TrustError::Keyring(_)), "{error}");
    }
    let without = Config {
        roots: "".into(),
        ..with_roots.clone()
    };
    let error = take(&without, &mut machine, &keyring(1, &[20], &[], &[1, 2]));
    assert!(matches!(error, Err(TrustError::NoRoots)));
    assert_eq!(machine.record(), &Record::default());
    assert_eq!(keys(&with_roots, &machine), [small_key().public_key()]);
}

#[test]
fn a_package_with_other_roots_ends_the_keyring_of_the_old_ones() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let old = config(folder.path(), &[1, 2, 3]);
    let mut machine = Machine::new(Record::default(), None, 3);
    take(&old, &mut machine, &keyring(5, &[20], &[], &[1, 2])).expect("the first");
    let new = config(folder.path(), &[4, 5]);
    assert_eq!(keys(&new, &machine), [small_key().public_key()]);
    // The new roots go on from there: their versions still have to grow.
    let event = consider(&new, machine.record(), &keyring(5, &[21], &[], &[4, 5]));
    machine.step(event.expect("signed")).expect_err("not newer");
    take(&new, &mut machine, &keyring(6, &[21], &[], &[4, 5])).expect("newer");
    assert_eq!(keys(&new, &machine), [secret(21).public_key()]);
}
