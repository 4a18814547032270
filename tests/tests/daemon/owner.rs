//! Models that wait until the owner of the device says that they are to be installed: over MQTT, in Home Assistant's way, by
//! hand; and what a sender of models is told meanwhile.

use crate::bench::Bench;
use crate::command::ask;
use crate::push::{Pusher, bundle, long_bundle};
use crate::schema::violations;
use crate::update::{bench, ending};
use crate::{expect_state, send};
use rumqttc::PublishOptions;
use rustix::process::Signal;
use serde_json::{Value, json};
use system_tests::broker::{Broker, Heard, Subscriber, publish};

const INSTALL_SCHEMA: &str = include_str!("../../../docs/schema/command-install-model-1.json");
const STATE_SCHEMA: &str = include_str!("../../../docs/schema/model-state-1.json");

fn owned(port: u16) -> Bench {
    let mut bench = bench(port);
    bench.set("UPDATE__AUTOMATIC", "false");
    bench.set("MQTT__COMMANDS", "true");
    bench
}

fn model_state(heard: &Heard) -> Option<Value> {
    let state = heard.document("site/pi/model")?;
    let schema = serde_json::from_str(STATE_SCHEMA).expect("JSON");
    assert_eq!(violations(&schema, &state), [""; 0], "{state}");
    Some(state)
}

fn expect_offered(subscriber: &mut Subscriber, version: u64) {
    subscriber.expect(&format!("version {version} to wait"), |heard| {
        let state = model_state(heard)?;
        let waits = state["state"] == "offered" && state["offered"]["version"] == version;
        waits.then(|| assert_eq!(state["running"]["version"], 1))
    });
}

/// The broker forgets the offer: what the device knows of it now, it kept itself.
fn forget_offer(port: u16) {
    let options = PublishOptions::at_least_once().retained();
    publish(port, "site/pi/model/offer", "", options);
}

#[test]
fn an_offer_waits_across_a_kill_and_is_installed_by_home_assistants_command() {
    let broker = Broker::start();
    let port = broker.port();
    let mut subscriber = Subscriber::connect(port, "test");
    let mut bench = owned(port);
    bench.set("HOME_ASSISTANT__ENABLED", "true");
    let daemon = bench.run();
    let entity = subscriber.expect("Home Assistant's message", |heard| {
        let is_it = heard.topic.starts_with("homeassistant/device/");
        is_it.then(|| heard.json()["cmps"]["model"].clone())
    });
    let pusher = Pusher::connect(port);
    pusher.offer("job-2", 2, &bundle(2, |_| {}));
    expect_offered(&mut subscriber, 2);
    forget_offer(port);
    daemon.signal(Signal::KILL);
    daemon.wait();

    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    expect_offered(&mut subscriber, 2);
    // A newer one takes its place, one that cannot be taken does not.
    pusher.offer("job-3", 3, &bundle(3, |_| {}));
    expect_offered(&mut subscriber, 3);
    pusher.offer("old", 0, &bundle(0, |_| {}));
    let (name, state) = ending(&mut subscriber, "old");
    assert_eq!(
        (name.as_str(), &state["reason"]),
        ("rejected", &"version_too_old".into())
    );
    assert_eq!(state["offered"]["version"], 3, "{state}");
    assert_eq!(pusher.answered(), 0, "nothing was fetched");

    let answer = ask(
        port,
        &mut subscriber,
        "install-model",
        r#"{"version":2}"#,
        "me/answers",
    );
    assert_eq!(answer["error"]["reason"], "nothing_offered", "{answer}");
    pusher.offer("job-4", 4, &bundle(4, |_| {}));
    expect_offered(&mut subscriber, 4);
    let (topic, payload) = (&entity["cmd_t"], &entity["pl_inst"]);
    let (topic, payload) = (
        topic.as_str().expect("a topic"),
        payload.as_str().expect("text"),
    );
    publish(port, topic, payload, PublishOptions::at_least_once());
    let (name, state) = ending(&mut subscriber, "job-4");
    assert_eq!(name, "committed", "{state}");
    let answer = ask(port, &mut subscriber, "install-model", "{}", "me/answers");
    assert_eq!(answer["error"]["reason"], "nothing_offered", "{answer}");
    daemon.terminate();
}

#[test]
fn an_offer_is_approved_by_hand_and_its_download_goes_on_after_a_kill() {
    const CHUNKS: usize = 24;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = owned(broker.port());
    let (code, said) = bench.model(&["approve"]);
    assert_eq!(code, Some(66), "{said}");
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    pusher.set_budget(10);
    pusher.offer("job-2", 2, &long_bundle(2, CHUNKS));
    expect_offered(&mut subscriber, 2);
    forget_offer(broker.port());
    let (_, list) = bench.model(&["list"]);
    assert!(list.contains("offered      small-test 2"), "{list}");
    let (code, said) = bench.model(&["approve"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("small-test 2"), "{said}");
    subscriber.expect("eight chunks", |heard| {
        (model_state(heard)?["progress"]["received"].as_u64()? >= 8).then_some(())
    });
    daemon.signal(Signal::KILL);
    daemon.wait();

    pusher.set_budget(usize::MAX);
    let daemon = bench.run();
    let (name, state) = ending(&mut subscriber, "job-2");
    assert_eq!(name, "committed", "{state}");
    let log = daemon.terminate();
    assert!(log.contains("8 of 24 chunks are here"), "{log}");
}

#[test]
fn a_sender_is_told_that_a_device_waits_for_its_owner() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = owned(broker.port());
    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    let to_pi = ["--device", "pi", "--timeout-s", "20"];
    let (code, said) = send::push(&bench.path("."), &bundle(2, |_| {}), broker.port(), &to_pi);
    assert_eq!(code, Some(75), "{said}");
    assert!(
        said.contains("pi: offered, waits until its owner has it installed"),
        "{said}"
    );
    assert!(said.contains("1 of them wait until their owner"), "{said}");
    daemon.terminate();
}

#[test]
fn the_commands_schema_takes_what_the_device_takes() {
    let schema = serde_json::from_str(INSTALL_SCHEMA).expect("JSON");
    let is_valid = |payload: Value| violations(&schema, &payload).is_empty();
    assert!(is_valid(json!({})) && is_valid(json!({ "version": 3 })));
    assert!(!is_valid(json!({ "version": -1 })) && !is_valid(json!({ "model": 3 })));
}
