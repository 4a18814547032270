//! What may be asked for while the daemon runs, and what is answered.

use crate::bench::Bench;
use crate::schema::violations;
use crate::{document, long_run};
use rumqttc::PublishOptions;
use rumqttc::mqttbytes::v5::PublishProperties;
use serde_json::Value;
use system_tests::broker::{Broker, Heard, Subscriber, publish, wait_for};

const COMMAND: &str = "site/pi/door/command";
const DETECTION: &str = "site/pi/door/detection";
const RESPONSE_SCHEMA: &str = include_str!("../../../docs/schema/command-response-1.json");
const STATE_SCHEMA: &str = include_str!("../../../docs/schema/detection-state-1.json");
const SETTINGS_SCHEMA: &str = include_str!("../../../docs/schema/settings-1.json");
const REQUEST_SCHEMAS: [(&str, &str); 5] = [
    (
        "detection",
        include_str!("../../../docs/schema/command-detection-1.json"),
    ),
    (
        "threshold",
        include_str!("../../../docs/schema/command-threshold-1.json"),
    ),
    (
        "zones",
        include_str!("../../../docs/schema/command-zones-1.json"),
    ),
    (
        "snapshot",
        include_str!("../../../docs/schema/command-snapshot-1.json"),
    ),
    (
        "restart-camera",
        include_str!("../../../docs/schema/command-restart-camera-1.json"),
    ),
];
/// Frames for ever, by way of a stand-in for ffmpeg.
const DECODER: &str = r#"#!/bin/sh
printf 'YUV4MPEG2 W2 H2 F10:1 C420jpeg\n'
while printf 'FRAME\nabcdef'; do sleep 0.1; done
"#;

fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("JSON")
}

pub(crate) fn checked(heard: &Heard, schema: &str) -> Value {
    let document = parsed(&heard.payload);
    let violations = violations(&parsed(schema.as_bytes()), &document);
    assert_eq!(violations, [""; 0], "{document}");
    document
}

/// Whether a payload is as the command's schema says.
pub(crate) fn is_of_the_schema(command: &str, payload: &str) -> bool {
    let (_, schema) = REQUEST_SCHEMAS
        .iter()
        .find(|(name, _)| *name == command)
        .expect("it has a schema");
    violations(&parsed(schema.as_bytes()), &parsed(payload.as_bytes())).is_empty()
}

/// Asks with MQTT 5 and gives the answer, which has to come to where it was asked for.
pub(crate) fn ask(
    port: u16,
    subscriber: &mut Subscriber,
    command: &str,
    payload: &str,
    at: &str,
) -> Value {
    let properties = PublishProperties {
        response_topic: Some("me/answers".into()),
        correlation_data: Some(b"42".to_vec().into()),
        ..PublishProperties::default()
    };
    let options = PublishOptions::at_least_once().properties(properties);
    publish(port, &format!("{COMMAND}/{command}"), payload, options);
    subscriber.expect(&format!("the answer to {command}"), |heard| {
        let is_answer = heard.topic == "me/answers" || heard.topic == format!("{COMMAND}/response");
        is_answer.then(|| {
            assert_eq!(heard.topic, at);
            let marked = if at == "me/answers" { &b"42"[..] } else { b"" };
            assert_eq!(heard.correlation, marked);
            checked(heard, RESPONSE_SCHEMA)
        })
    })
}

fn expect_detection(subscriber: &mut Subscriber, on: bool) {
    subscriber.expect(&format!("the state of detection: {on}"), |heard| {
        (heard.topic == DETECTION && checked(heard, STATE_SCHEMA)["on"] == on).then_some(())
    });
}

fn zones(heard: &Heard) -> Option<Vec<String>> {
    (heard.topic == "site/pi/door/counts").then(|| {
        let counts = parsed(&heard.payload);
        let zones = counts["zones"].as_object().expect("zones");
        zones.keys().cloned().collect()
    })
}

/// What commands have changed, as the device tells it: the threshold, and the names of the zones.
pub(crate) fn settings(heard: &Heard) -> Option<(f64, Vec<String>)> {
    (heard.topic == "site/pi/door/settings").then(|| {
        let settings = checked(heard, SETTINGS_SCHEMA);
        let zones = settings["zones"].as_array().expect("zones");
        let name = |zone: &Value| zone["name"].as_str().expect("a name").to_owned();
        let score_min = settings["score_min"].as_f64().expect("a number");
        (score_min, zones.iter().map(name).collect())
    })
}

/// Frames examined, and those that came while detection was off.
fn frames(heard: &Heard) -> Option<[u64; 2]> {
    (heard.topic == "site/pi/statistics").then(|| {
        let frames = &parsed(&heard.payload)["frames"];
        ["examined", "at_rest"].map(|key| frames[key].as_u64().expect("a number"))
    })
}

fn commands_are_carried_out_and_answered(protocol: &str, at: &str) {
    let broker = Broker::start();
    let port = broker.port();
    let mut subscriber = Subscriber::connect(port, "test");
    let mut bench = long_run(port);
    bench.set("MQTT__PROTOCOL", protocol);
    bench.set("MQTT__COMMANDS", "true");
    bench.set("PUBLISH__STATISTICS_S", "1");
    // Nobody is followed by weak detections, which frames would show whatever the threshold is.
    bench.set("TRACK__SCORE_LOW", "1");
    let daemon = bench.run();
    expect_detection(&mut subscriber, true);
    subscriber.expect("the settings", |heard| {
        (settings(heard)? == (0.05, vec![])).then_some(())
    });
    subscriber.expect("a document", document);
    let ask = |subscriber: &mut Subscriber, command: &str, payload: &str| {
        ask(port, subscriber, command, payload, at)
    };

    let yard = r#"{"zones": [{"name": "yard", "points": [[0, 0], [1, 0], [1, 1]]}], "lines": []}"#;
    assert!(is_of_the_schema("zones", yard));
    let answer = ask(&mut subscriber, "zones", yard);
    assert_eq!(answer["ok"], true, "{answer}");
    subscriber.expect("counts of the yard", |heard| {
        (zones(heard)? == ["yard"]).then_some(())
    });
    // Of 1 every frame is free of detections.
    assert!(is_of_the_schema("threshold", r#"{"score_min": 1}"#));
    assert_eq!(
        ask(&mut subscriber, "threshold", r#"{"score_min": 1}"#)["ok"],
        true
    );
    subscriber.expect("a frame without detections", |heard| {
        document(heard)?["detections"]
            .as_array()?
            .is_empty()
            .then_some(())
    });

    let off = r#"{"on": false}"#;
    assert!(is_of_the_schema("detection", off));
    assert_eq!(ask(&mut subscriber, "detection", off)["ok"], true);
    let mut before = None;
    subscriber.expect("time in which nothing is examined", |heard| {
        let [examined, at_rest] = frames(heard)?;
        let [examined_before, at_rest_before] = before.replace([examined, at_rest])?;
        (examined == examined_before && at_rest > at_rest_before).then_some(())
    });
    Subscriber::connect(port, "later").expect("the retained settings", |heard| {
        let settings = settings(heard).filter(|_| heard.is_retained)?;
        assert_eq!(settings, (1.0, vec!["yard".into()]));
        Some(())
    });
    Subscriber::connect(port, "late").expect("the retained state of detection", |heard| {
        let is_off = heard.topic == DETECTION && checked(heard, STATE_SCHEMA)["on"] == false;
        (is_off && heard.is_retained).then_some(())
    });
    assert_eq!(
        ask(&mut subscriber, "detection", r#"{"on": true}"#)["ok"],
        true
    );
    subscriber.expect("a document again", document);

    let long = format!(r#"{{"on": false{}}}"#, " ".repeat(33 << 10));
    for (command, payload, reason) in [
        ("detection", "off", "bad_json"),
        ("detection", r#"{"on": false, "for_s": 3}"#, "unknown_key"),
        ("detection", &long, "too_large"),
        ("threshold", r#"{"score_min": 2}"#, "out_of_range"),
        ("zones", r#"{"zones": []}"#, "bad_value"),
        ("restart-camera", "{}", "not_allowed"),
        ("self-destruct", "{}", "unknown_command"),
    ] {
        let answer = ask(&mut subscriber, command, payload);
        assert_eq!(answer["ok"], false, "{answer}");
        assert_eq!(answer["error"]["reason"], reason, "{answer}");
    }
    assert!(!is_of_the_schema(
        "detection",
        r#"{"on": false, "for_s": 3}"#
    ));
    assert!(!is_of_the_schema("threshold", r#"{"score_min": 2}"#));
    assert!(!is_of_the_schema("zones", r#"{"zones": []}"#));
    subscriber.expect("a document still", document);
    daemon.terminate();
}

#[test]
fn commands_are_carried_out_and_answered_with_mqtt_5() {
    commands_are_carried_out_and_answered("5", "me/answers");
}

#[test]
fn commands_are_carried_out_and_answered_with_mqtt_3_1_1() {
    commands_are_carried_out_and_answered("3.1.1", "site/pi/door/command/response");
}

#[test]
fn a_retained_command_is_refused() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let retained = PublishOptions::at_least_once().retained();
    let topic = format!("{COMMAND}/detection");
    publish(broker.port(), &topic, r#"{"on": false}"#, retained);
    let mut bench = long_run(broker.port());
    bench.set("MQTT__COMMANDS", "true");
    let daemon = bench.run();
    let answer = subscriber.expect("the refusal", |heard| {
        let is_answer = heard.topic == format!("{COMMAND}/response");
        is_answer.then(|| checked(heard, RESPONSE_SCHEMA))
    });
    assert_eq!(answer["error"]["reason"], "retained", "{answer}");
    subscriber.expect("a document", document);
    daemon.terminate();
}

#[test]
fn commands_that_were_not_allowed_are_not_heard() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = long_run(broker.port());
    bench.set("PUBLISH__STATISTICS_S", "1");
    let daemon = bench.run();
    subscriber.expect("a document", document);
    let topic = format!("{COMMAND}/detection");
    let options = PublishOptions::at_least_once();
    publish(broker.port(), &topic, r#"{"on": false}"#, options);
    subscriber.expect("the command", |heard| (heard.topic == topic).then_some(()));
    // The first ones may be older than the command.
    for _ in 0..2 {
        let [examined, at_rest] = subscriber.expect("statistics", |heard| {
            assert_ne!(heard.topic, format!("{COMMAND}/response"));
            let is_off = heard.topic == DETECTION && heard.json()["on"] == false;
            assert!(!is_off, "it is switched off");
            assert_eq!(settings(heard), None);
            frames(heard)
        });
        assert!(examined > 0);
        assert_eq!(at_rest, 0);
    }
    daemon.terminate();
}

#[test]
fn a_camera_is_opened_again_when_that_is_asked_for() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = Bench::with_decoder(DECODER, broker.port());
    bench.set("MQTT__COMMANDS", "true");
    let daemon = bench.run();
    subscriber.expect("a document", document);
    assert!(is_of_the_schema("restart-camera", "{}"));
    assert!(!is_of_the_schema("restart-camera", r#"{"now": true}"#));
    let answer = ask(
        broker.port(),
        &mut subscriber,
        "restart-camera",
        "{}",
        "me/answers",
    );
    assert_eq!(answer["ok"], true, "{answer}");
    wait_for("the camera to be opened again", || {
        daemon
            .log()
            .contains("opened again, as was asked for")
            .then_some(())
    });
    subscriber.expect("a document", document);
    subscriber.expect("another one", document);
    let log = daemon.terminate();
    assert!(!log.contains("next attempt"), "{log}");
}
