//! What the device says of itself: how it is doing, and whether its camera delivers.

use crate::bench::Bench;
use crate::long_run;
use crate::schema::violations;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use system_tests::broker::{Broker, Heard, Subscriber, wait_for};

const STATISTICS_SCHEMA: &str = include_str!("../../../docs/schema/statistics-1.json");
const CAMERA_SCHEMA: &str = include_str!("../../../docs/schema/camera-state-1.json");

/// A stand-in for ffmpeg: a frame, then an error that repeats the address.
const DECODER: &str = r#"#!/bin/sh
for argument; do case $argument in rtsp:*) url=$argument ;; esac; done
printf 'YUV4MPEG2 W2 H2 F10:1 C420jpeg\nFRAME\nabcdef'; sleep 0.2
echo "$url: Connection timed out" >&2
exit 1
"#;

/// The document, if it comes from there and is as its schema says.
fn checked(heard: &Heard, topic: &str, schema: &str) -> Option<Value> {
    let document = heard.document(topic)?;
    let schema = serde_json::from_str(schema).expect("a schema is JSON");
    let violations = violations(&schema, &document);
    assert_eq!(violations, [""; 0], "{document}");
    Some(document)
}

fn statistics(heard: &Heard) -> Option<Value> {
    checked(heard, "site/pi/statistics", STATISTICS_SCHEMA)
}

fn camera(heard: &Heard) -> Option<Value> {
    checked(heard, "site/pi/door/state", CAMERA_SCHEMA)
}

fn number(document: &Value, pointer: &str) -> f64 {
    let value = document.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("{pointer} of {document}"))
}

#[test]
fn statistics_tell_what_the_daemon_does() {
    for protocol in ["5", "3.1.1"] {
        let mut broker = Broker::start();
        let mut subscriber = Subscriber::connect(broker.port(), "test");
        let mut bench = long_run(broker.port());
        bench.set("MQTT__PROTOCOL", protocol);
        bench.set("PUBLISH__STATISTICS_S", "1");
        let daemon = bench.run();
        let before = subscriber.expect("statistics", statistics);
        let after = subscriber.expect("newer statistics", statistics);
        assert_eq!(after["model"]["name"], "small-test");
        let grown = |pointer| number(&after, pointer) - number(&before, pointer);
        let interval_s = number(&after, "/interval_s");
        assert!((grown("/uptime_s") - interval_s).abs() < 0.2, "{after}");
        let examined = grown("/frames/examined");
        assert!(examined > 0.0, "{after}");
        assert!(grown("/documents/published") > 0.0, "{after}");
        let rate = number(&after, "/frames_per_second");
        assert!((rate - examined / interval_s).abs() < 0.02, "{after}");
        let ms = |name: &str| number(&after, &format!("/inference_ms/{name}"));
        assert!(0.0 < ms("p50") && ms("p50") <= ms("p95") && ms("p95") <= ms("max"));
        assert!(number(&after, "/memory_bytes") > 1e6, "{after}");
        assert!(number(&after, "/processor_share") > 0.0, "{after}");
        let mut late = Subscriber::connect(broker.port(), "late");
        late.expect("retained statistics", |heard| {
            (heard.is_retained && statistics(heard).is_some()).then_some(())
        });
        // A broker that forgot them hears them again.
        broker.stop();
        broker.start_again();
        let mut again = Subscriber::connect(broker.port(), "again");
        again.expect("statistics again", statistics);
        daemon.terminate();
    }
}

#[test]
fn statistics_can_be_switched_off() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    // Six seconds: by then the first statistics would have come.
    let mut bench = Bench::with_video(60, broker.port());
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    bench.set("PUBLISH__STATISTICS_S", "0");
    let daemon = bench.run();
    subscriber.expect("the end of the run", |heard| {
        assert_ne!(heard.topic, "site/pi/statistics");
        (heard.topic == "site/pi/state" && heard.text() == "offline").then_some(())
    });
    assert_eq!(daemon.wait().0.code(), Some(0));
}

#[test]
fn a_camera_that_fails_and_comes_back_is_told_of_and_told_again() {
    let mut broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = Bench::with_decoder(DECODER, broker.port()).run();
    let ok = subscriber.expect("a camera that works", camera);
    assert_eq!(ok["state"], "ok");
    assert_eq!(ok.get("reason"), None);
    let away = subscriber.expect("a camera that is away", camera);
    assert_eq!(away["state"], "away");
    let reason = away["reason"].as_str().expect("a text");
    assert!(reason.contains("Connection timed out"), "{reason}");
    assert!(reason.contains("camera.rtsp.url"), "{reason}");
    assert!(!reason.contains("hunter2"), "{reason}");
    assert!(away["since"].as_str() > ok["since"].as_str(), "{ok} {away}");
    let back = subscriber.expect("a camera that is back", camera);
    assert_eq!(back["state"], "ok");
    let mut late = Subscriber::connect(broker.port(), "late");
    late.expect("the retained state of the camera", |heard| {
        (heard.is_retained && camera(heard).is_some()).then_some(())
    });
    broker.stop();
    broker.start_again();
    let mut again = Subscriber::connect(broker.port(), "again");
    again.expect("the state of the camera again", camera);
    daemon.terminate();
}

/// Accepts every client, and closes the connection at once.
fn rude_broker() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    let port = listener.local_addr().expect("it is bound").port();
    let accepted = Arc::new(AtomicUsize::new(0));
    std::thread::spawn({
        let accepted = accepted.clone();
        move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                // As much of CONNECT as there is; then CONNACK of MQTT 3.1.1: accepted.
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(&[0x20, 2, 0, 0]);
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (port, accepted)
}

#[test]
fn a_broker_that_accepts_and_closes_at_once_is_not_flooded() {
    let (port, accepted) = rude_broker();
    let mut bench = long_run(port);
    bench.set("MQTT__PROTOCOL", "3.1.1");
    let daemon = bench.run();
    // Half a second, one, two, four, less a half of each at most.
    let waits = wait_for("four connections that were closed at once", || {
        let log = daemon.log();
        let waits: Vec<f64> = log
            .lines()
            .filter_map(|line| line.split_once("next attempt in ")?.1.strip_suffix(" s"))
            .map(|wait| wait.parse().expect("a number"))
            .collect();
        (waits.len() >= 4).then_some(waits)
    });
    assert!(daemon.log().contains("connected to the broker"));
    for (wait, full) in waits.iter().zip([0.5, 1.0, 2.0, 4.0]) {
        assert!(
            (full / 2.0 - 0.05..=full + 0.05).contains(wait),
            "{waits:?}"
        );
    }
    assert!(accepted.load(Ordering::Relaxed) <= 5, "{waits:?}");
    daemon.terminate();
}
