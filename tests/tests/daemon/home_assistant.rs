//! What Home Assistant is told, as any subscriber hears it. `make test-home-assistant` shows it to a real one.

use crate::bench::{Bench, program, without_settings};
use crate::{expect_state, long_run, state};
use rumqttc::{Client, MqttOptions, PublishOptions};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};
use system_tests::broker::{Broker, Heard, Subscriber, kept};

const YARD: &str =
    "[[zones]]\nname = \"yard\"\npoints = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]\n";

fn message(heard: &Heard) -> Option<Value> {
    (heard.topic.starts_with("homeassistant/device/") && !heard.payload.is_empty())
        .then(|| heard.json())
}

/// Entities of the yard: how many are announced, and how many removed.
fn yard(message: &Value) -> (usize, usize) {
    let components = message["cmps"].as_object().expect("components");
    let (live, stubs): (Vec<_>, Vec<_>) = components
        .iter()
        .filter(|(key, _)| key.starts_with("zone_yard_"))
        .partition(|(_, component)| component.get("uniq_id").is_some());
    (live.len(), stubs.len())
}

fn bench(port: u16) -> Bench {
    let mut bench = long_run(port);
    bench.set("HOME_ASSISTANT__ENABLED", "true");
    bench.write_config(YARD);
    bench
}

/// Publishes as Home Assistant does when it was started.
fn be_born(port: u16) {
    let options = MqttOptions::new("home-assistant", ("127.0.0.1", port));
    let (client, mut connection) = Client::builder(options).capacity(8).build();
    client
        .publish(
            "homeassistant/status",
            "online",
            PublishOptions::at_least_once(),
        )
        .expect("a valid topic");
    client.disconnect().expect("a connection");
    while let Ok(Ok(_)) = connection.recv() {}
}

fn remove(bench: &Bench, port: u16) -> Output {
    let mut command = Command::new(program("ternwatchd"));
    without_settings(&mut command);
    command
        .arg("--config")
        .arg(bench.path("ternwatch.toml"))
        .args(["home-assistant", "remove"])
        .env("TERNWATCH_DEVICE__ID", "pi")
        .env("TERNWATCH_MQTT__PREFIX", "site")
        .env("TERNWATCH_MQTT__HOST", "127.0.0.1")
        .env("TERNWATCH_MQTT__PORT", port.to_string())
        .output()
        .expect("ternwatchd starts")
}

#[test]
fn the_message_is_retained_and_told_again_when_home_assistant_starts() {
    for protocol in ["5", "3.1.1"] {
        let broker = Broker::start();
        let mut subscriber = Subscriber::connect(broker.port(), "test");
        let mut bench = bench(broker.port());
        bench.set("MQTT__PROTOCOL", protocol);
        let daemon = bench.run();
        let first = subscriber.expect("the message", message);
        assert_eq!(yard(&first), (2, 0));
        Subscriber::connect(broker.port(), "late").expect("the retained message", |heard| {
            message(heard).filter(|_| heard.is_retained)
        });
        be_born(broker.port());
        subscriber.expect("the birth", |heard| {
            (heard.topic == "homeassistant/status").then_some(())
        });
        assert_eq!(subscriber.expect("the message again", message), first);
        daemon.terminate();
    }
}

#[test]
fn without_being_asked_to_it_tells_home_assistant_nothing() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = long_run(broker.port()).run();
    expect_state(&mut subscriber, "online");
    be_born(broker.port());
    subscriber.expect("the birth", |heard| {
        (heard.topic == "homeassistant/status").then_some(())
    });
    daemon.terminate();
    subscriber.expect("the end of the run", |heard| {
        assert!(!heard.topic.starts_with("homeassistant/device/"));
        (state(heard)? == "offline").then_some(())
    });
}

#[test]
fn a_zone_that_is_removed_is_removed_from_home_assistant_while_it_runs_and_between_runs() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    let daemon = bench.run();
    subscriber.expect("the yard", |heard| {
        (yard(&message(heard)?) == (2, 0)).then_some(())
    });
    fs::write(bench.path("ternwatch.toml"), "").expect("written");
    daemon.signal(Signal::HUP);
    subscriber.expect("stubs of the yard", |heard| {
        (yard(&message(heard)?) == (0, 2)).then_some(())
    });
    fs::write(bench.path("ternwatch.toml"), YARD).expect("written");
    daemon.signal(Signal::HUP);
    subscriber.expect("the yard again", |heard| {
        (yard(&message(heard)?) == (2, 0)).then_some(())
    });
    daemon.terminate();
    bench.write_config("");
    let daemon = bench.run();
    subscriber.expect("stubs of the yard of the run before", |heard| {
        (yard(&message(heard)?) == (0, 2)).then_some(())
    });
    daemon.terminate();
    // They were removed by now.
    let daemon = bench.run();
    subscriber.expect("no stubs any more", |heard| {
        (yard(&message(heard)?) == (0, 0)).then_some(())
    });
    daemon.terminate();
}

#[test]
fn the_message_is_taken_back_on_command_beside_a_daemon_that_runs() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = bench(broker.port());
    let daemon = bench.run();
    let topic = subscriber.expect("the message", |heard| {
        message(heard).map(|_| heard.topic.clone())
    });
    let output = remove(&bench, broker.port());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&topic));
    subscriber.expect("the empty message", |heard| {
        assert_ne!(state(heard).as_deref(), Some("offline"));
        (heard.topic == topic && heard.payload.is_empty()).then_some(())
    });
    let log = daemon.terminate();
    assert!(!log.contains("no connection to the broker"), "{log}");
    assert_eq!(kept(broker.port()).get(&topic), None);
}

#[test]
fn a_broker_that_is_not_there_is_told_of() {
    let bench = bench(1);
    fs::write(bench.path("ternwatch.toml"), "").expect("written");
    let output = remove(&bench, 1);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("127.0.0.1:1"), "{said}");
}
