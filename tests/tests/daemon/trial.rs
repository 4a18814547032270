//! What happens while a model is on trial, to the real daemon.

use crate::bench::Bench;
use crate::command::ask;
use crate::push::{Pusher, bundle, bundle_signed_by};
use crate::update::{
    bench, ending, expect_running, install_by_hand, keyring, model_state, trust_roots, wait_for_log,
};
use crate::{document, expect_state};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use system_tests::broker::{Broker, Subscriber};
use ternwatch_bundle::testing::secret;

#[test]
fn a_model_that_kills_the_daemon_on_its_first_frame_is_given_up() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    // Three seconds of each model: the first frame of the second one is well before the end.
    bench.set("UPDATE__TRIAL_FRAMES", "30");
    bench.set("UPDATE__ATTEMPTS_MAX", "2");
    let pusher = Pusher::connect(broker.port());
    pusher.offer("deadly", 2, &bundle(2, |_| {}));
    for attempt in 1..=2 {
        let daemon = bench.run();
        expect_state(&mut subscriber, "online");
        let first = subscriber.expect("the first frame of this run", document);
        assert_eq!(first["model"]["version"], 1, "attempt {attempt}");
        expect_running(&mut subscriber, 2);
        daemon.signal(Signal::KILL);
        daemon.wait();
        expect_state(&mut subscriber, "offline");
        let (_, list) = bench.model(&["list"]);
        assert!(list.contains("trial        small-test 2"), "{list}");
        assert!(list.contains(&format!("attempt {attempt} begun")), "{list}");
    }

    let daemon = bench.run();
    let (name, state) = ending(&mut subscriber, "deadly");
    assert_eq!(
        (name.as_str(), &state["reason"]),
        ("rolled_back", &"attempts_exceeded".into())
    );
    // Twice as long as a trial took: nothing begins another one.
    let mut frames = 0;
    subscriber.expect("frames of the model before", |heard| {
        let document = document(heard)?;
        assert_eq!(document["model"]["version"], 1, "{document}");
        frames += 1;
        (frames == 60).then_some(())
    });
    daemon.terminate();
    let (_, list) = bench.model(&["list"]);
    assert!(list.contains("quarantined  small-test 2"), "{list}");
    assert!(list.contains("attempts_exceeded"), "{list}");
}

/// Has the device take keyrings, and run version 2, which the key 20 signed; the keyring 1 trusts the keys 20 and 21. Every model has
/// the threshold 1 and finds nothing.
fn install_by_a_key_to_be_revoked(bench: &mut Bench, subscriber: &mut Subscriber, port: u16) {
    let quiet = bundle(1, |manifest| manifest.thresholds.score = 1.0);
    fs::write(bench.path("small.tern"), quiet).expect("written");
    bench.set("MODEL__SCORE_MIN", "0.0");
    trust_roots(bench);
    let daemon = bench.run();
    expect_state(subscriber, "online");
    let pusher = Pusher::connect(port);
    pusher.keyring(keyring(1, &[20, 21], &[]));
    wait_for_log(&daemon, "a new keyring is in effect");
    let two = bundle_signed_by(&secret(20), 2, |manifest| manifest.thresholds.score = 1.0);
    pusher.offer("two", 2, &two);
    assert_eq!(ending(subscriber, "two").0, "committed");
    daemon.terminate();
    expect_state(subscriber, "offline");
}

#[test]
fn a_key_that_is_revoked_during_the_comparison_loses_its_model_at_once() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    install_by_a_key_to_be_revoked(&mut bench, &mut subscriber, broker.port());

    // Far longer than anybody waits here.
    bench.set("UPDATE__TRIAL_S", "3600");
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    pusher.offer("three", 3, &bundle_signed_by(&secret(21), 3, |_| {}));
    let is_on_trial = |state: &Value| state["state"] == "trial" && state["job"] == "three";
    subscriber.expect("the trial", |heard| model_state(heard).filter(is_on_trial));
    expect_running(&mut subscriber, 2);
    pusher.keyring(keyring(2, &[21], &[20]));
    // The packaged one takes over, and the trial begins anew beside it.
    let (mut has_frame, mut has_trial) = (false, false);
    subscriber.expect("a frame and the trial beside the packaged model", |heard| {
        has_frame |= document(heard).is_some_and(|document| document["model"]["version"] == 1);
        let state = model_state(heard).filter(is_on_trial);
        has_trial |= state.is_some_and(|state| state["running"]["version"] == 1);
        (has_frame && has_trial).then_some(())
    });
    let log = daemon.log();
    assert!(log.contains("the trial begins anew"), "{log}");
    daemon.terminate();
    let (_, list) = bench.model(&["list"]);
    // Neither the revocation nor the stop is the candidate's fault.
    assert!(list.contains("attempt 0 begun"), "{list}");
    assert!(!list.contains("small-test 2"), "{list}");
}

#[test]
fn a_trial_that_fails_does_not_return_to_a_model_that_was_revoked_meanwhile() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    install_by_a_key_to_be_revoked(&mut bench, &mut subscriber, broker.port());

    // Ten seconds of the candidate: the keyring comes well before the end.
    bench.set("UPDATE__TRIAL_FRAMES", "100");
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    let flood = bundle_signed_by(&secret(21), 3, |manifest| manifest.thresholds.score = 0.5);
    pusher.offer("three", 3, &flood);
    expect_running(&mut subscriber, 3);
    pusher.keyring(keyring(2, &[21], &[20]));
    wait_for_log(&daemon, "a stored model is not trusted any more");
    let (mut versions, mut ended) = (Vec::new(), None);
    subscriber.expect("the end, and a frame of the model before", |heard| {
        versions.extend(document(heard).map(|document| document["model"]["version"].clone()));
        let ends = |state: &Value| state["state"] == "rolled_back";
        ended = ended.take().or(model_state(heard).filter(ends));
        (ended.is_some() && versions.last()? == 1).then_some(())
    });
    assert_eq!(ended.expect("it ended")["reason"], "flood");
    versions.dedup();
    assert_eq!(versions, [3, 1], "from the candidate to the packaged model");
    daemon.terminate();
}

#[test]
fn a_threshold_that_changes_during_a_trial_begins_it_anew() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    bench.set("MQTT__COMMANDS", "true");
    // Three seconds of each model.
    bench.set("UPDATE__TRIAL_FRAMES", "30");
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    pusher.offer("two", 2, &bundle(2, |_| {}));
    expect_running(&mut subscriber, 2);
    // What the model before found above the other threshold says nothing of this one.
    let payload = r#"{"score_min": 0.99}"#;
    let answer = ask(
        broker.port(),
        &mut subscriber,
        "threshold",
        payload,
        "me/answers",
    );
    assert_eq!(answer["ok"], true, "{answer}");
    expect_running(&mut subscriber, 1);
    wait_for_log(&daemon, "the trial begins anew");
    // That cost no attempt, and the second time nothing disturbs it.
    let (_, list) = bench.model(&["list"]);
    assert!(list.contains("attempt 0 begun"), "{list}");
    assert_eq!(ending(&mut subscriber, "two").0, "committed");
    daemon.terminate();
}

#[test]
fn a_model_that_cannot_be_read_for_a_moment_is_not_lost() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = bench(broker.port());
    let file = install_by_hand(&bench, &mut subscriber);
    expect_state(&mut subscriber, "offline");

    // A folder in its place: reading fails, and not because there is nothing.
    let aside = bench.path("aside.tern");
    fs::rename(&file, &aside).expect("moved");
    fs::create_dir(&file).expect("a new folder");
    let daemon = bench.run();
    expect_running(&mut subscriber, 1);
    wait_for_log(&daemon, "cannot be read now");
    let (_, list) = bench.model(&["list"]);
    assert!(list.contains("committed    small-test 2"), "{list}");
    fs::remove_dir(&file).expect("removed");
    fs::rename(&aside, &file).expect("moved");
    expect_running(&mut subscriber, 2);
    daemon.terminate();
}
