//! What a subscriber gets of a daemon at work: the documents of frames, the device's state, and all of it until the end.

use crate::bench::{Bench, HEIGHT, WIDTH};
use crate::push::sha256;
use crate::schema::violations;
use crate::{FAILING_FFMPEG, document, documents_of_a_run, expect_state, long_run, state};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use system_tests::broker::{Broker, Subscriber, wait_for};

const DETECTIONS_SCHEMA: &str = include_str!("../../../docs/schema/detections-1.json");

#[test]
fn who_subscribes_late_hears_that_the_device_is_online() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = long_run(broker.port()).run();
    subscriber.expect("a document", document);
    let mut late = Subscriber::connect(broker.port(), "late");
    let said = late.expect("the retained state", |heard| {
        state(heard).filter(|_| heard.is_retained)
    });
    assert_eq!(said, "online");
    daemon.terminate();
    expect_state(&mut late, "offline");
}

#[test]
fn documents_that_wait_at_sigterm_are_heard_before_offline() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = Bench::with_decoder(FAILING_FFMPEG, broker.port());
    bench.set("STDOUT__ENABLED", "true");
    let daemon = bench.run();
    wait_for("the first frame", || {
        bench.frames_on_stdout().pop().map(drop)
    });
    // It says that the camera is away, and as long as the broker does not confirm that, documents wait.
    broker.pause();
    wait_for("frames of the third opening", || {
        let is_of_it = |document: &Value| document["sequence"].as_u64() >= Some(6);
        bench.frames_on_stdout().iter().any(is_of_it).then_some(())
    });
    daemon.signal(Signal::TERM);
    broker.resume();
    let heard = documents_of_a_run(&mut subscriber);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(heard, bench.frames_on_stdout(), "{log}");
}

/// What another program than ours says the time is, as documents have it.
fn wall_clock() -> String {
    let date = Command::new("date").args(["-u", "+%FT%T.%6NZ"]).output();
    let text = String::from_utf8(date.expect("date runs").stdout);
    text.expect("digits").trim().into()
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("after the start") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("a part of a second")
}

/// Of `2026-11-24T06:40:01.123456Z`.
fn seconds_of_day(captured_at: &str) -> f64 {
    let (_, time) = captured_at
        .trim_end_matches('Z')
        .split_once('T')
        .expect("a time");
    let parts = time
        .split(':')
        .map(|part| part.parse::<f64>().expect("a number"));
    parts.fold(0.0, |sum, part| sum * 60.0 + part)
}

fn numbers(value: &Value) -> [f64; 4] {
    let list = value.as_array().expect("a list").iter();
    let list: Vec<f64> = list
        .map(|value| value.as_f64().expect("a number"))
        .collect();
    list.try_into().expect("four numbers")
}

fn assert_plausible_boxes(document: &Value) -> usize {
    let found = document["detections"].as_array().expect("a list");
    let mut score_before = 1.0;
    for detection in found {
        let score = detection["score"].as_f64().expect("a number");
        assert!(score <= score_before, "{document}");
        score_before = score;
        let [left, top, right, bottom] = numbers(&detection["box_px"]);
        let (width, height) = (f64::from(WIDTH), f64::from(HEIGHT));
        assert!(0.0 <= left && left < right && right <= width, "{detection}");
        assert!(
            0.0 <= top && top < bottom && bottom <= height,
            "{detection}"
        );
        let expected = [left / width, top / height, right / width, bottom / height];
        for (normalized, expected) in numbers(&detection["box_norm"]).iter().zip(expected) {
            assert!((normalized - expected).abs() < 1e-6, "{detection}");
        }
    }
    found.len()
}

#[test]
fn live_documents_are_as_their_schema_says_and_plausible() {
    const DOCUMENTS: usize = 20;
    let schema: Value = serde_json::from_str(DETECTIONS_SCHEMA).expect("a schema is JSON");
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = long_run(broker.port());
    let bundle = fs::read(bench.path("small.tern")).expect("readable");
    let sha256 = sha256(&bundle);
    let (mut captured_at_before, mut monotonic_before) = (wall_clock(), monotonic_ns());
    let mut sequence_before = None;
    let mut found = 0;
    let daemon = bench.run();
    for examined_before in 0..DOCUMENTS as u64 {
        let document = subscriber.expect("a document", document);
        let heard_ns = monotonic_ns();
        assert_eq!(violations(&schema, &document), [""; 0], "{document}");

        let sequence = document["sequence"].as_u64();
        assert!(sequence > sequence_before, "{document}");
        let dropped = sequence.expect("a number") - examined_before;
        assert_eq!(document["dropped"], dropped);

        let captured_at = document["captured_at"].as_str().expect("a text");
        assert!(*captured_at_before <= *captured_at && *captured_at <= *wall_clock());
        let captured_ns = document["captured_monotonic_ns"]
            .as_u64()
            .expect("a number");
        assert!(monotonic_before < captured_ns && captured_ns < heard_ns);
        if sequence_before.is_some() {
            let apart_s = seconds_of_day(captured_at) - seconds_of_day(&captured_at_before);
            let monotonic_s = (captured_ns - monotonic_before) as f64 / 1e9;
            // At midnight the seconds begin anew.
            assert!(
                (apart_s.rem_euclid(86_400.0) - monotonic_s).abs() < 0.01,
                "{document}"
            );
        }
        let inference_ms = document["inference_ms"].as_f64().expect("a number");
        let age_ms = (heard_ns - captured_ns) as f64 / 1e6;
        assert!(0.0 < inference_ms && inference_ms < age_ms, "{document}");

        assert_eq!(document["camera"], "door");
        assert_eq!(
            document["frame"],
            json!({ "width": WIDTH, "height": HEIGHT })
        );
        assert_eq!(document["model"]["sha256"], sha256);
        found += assert_plausible_boxes(&document);
        (captured_at_before, monotonic_before) = (captured_at.into(), captured_ns);
        sequence_before = sequence;
    }
    assert!(
        found > 0,
        "the random model finds nothing: no box was looked at"
    );
    daemon.terminate();
}
