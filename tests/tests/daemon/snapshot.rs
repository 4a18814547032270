//! Pictures of whom was seen, as a subscriber gets them.

use crate::bench::Bench;
use crate::command::{ask, is_of_the_schema};
use crate::events::{still_picture, street};
use crate::{document, expect_state, long_run, state};
use image::{ImageFormat, RgbImage};
use std::collections::BTreeMap;
use system_tests::broker::{Broker, Heard, Subscriber, kept, wait_for};

const SNAPSHOT: &str = "site/pi/door/snapshot";
const EVENTS: &str = "site/pi/door/events";
const DETECTION: &str = "site/pi/door/detection";
/// A stand-in for ffmpeg: a few frames, then an error.
const DYING_DECODER: &str = r#"#!/bin/sh
printf 'YUV4MPEG2 W2 H2 F10:1 C420jpeg\n'
printf 'FRAME\nabcdef'; sleep 0.2
exit 1
"#;

fn picture(heard: &Heard) -> RgbImage {
    let decoded = image::load_from_memory_with_format(&heard.payload, ImageFormat::Jpeg);
    decoded.expect("the payload is a JPEG").to_rgb8()
}

/// Pictures up to `offline`, and the numbers of the `end` events by their tracks. A picture must not come before its event.
fn hear_a_run(subscriber: &mut Subscriber) -> (Vec<Heard>, BTreeMap<String, String>) {
    expect_state(subscriber, "online");
    let (mut snapshots, mut ends) = (Vec::new(), BTreeMap::new());
    subscriber.expect("the end of the run", |heard| {
        if heard.topic == SNAPSHOT {
            if let Some(track) = heard.property("track") {
                assert!(ends.contains_key(track), "{track} has not ended yet");
            }
            snapshots.push(heard.clone());
        }
        if let Some(event) = heard.document(EVENTS)
            && event["type"] == "end"
        {
            let track = event["track"]["id"].to_string();
            ends.insert(track, event["sequence"].to_string());
        }
        (state(heard)? == "offline").then_some(())
    });
    (snapshots, ends)
}

/// The picture that somebody gets who comes now.
fn retained(port: u16) -> Option<Heard> {
    kept(port).remove(SNAPSHOT)
}

#[test]
fn people_on_a_real_street_get_pictures_that_belong_to_their_last_events() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = street(broker.port());
    bench.set("SNAPSHOTS__ENABLED", "true");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let (snapshots, ends) = hear_a_run(&mut subscriber);
    println!("{} pictures of {} people", snapshots.len(), ends.len());
    assert!(snapshots.len() >= 3 && snapshots.len() <= ends.len());
    for snapshot in &snapshots {
        assert_eq!(picture(snapshot).dimensions(), (640, 480), "of 768 by 576");
        assert!(snapshot.payload.len() <= 128 << 10);
        assert_eq!(snapshot.content_type.as_deref(), Some("image/jpeg"));
        let property = |name| snapshot.property(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(property("occasion"), "track");
        assert_eq!(property("sequence"), ends[property("track")]);
        let score: f32 = property("score").parse().expect("a number");
        assert!((0.1..=1.0).contains(&score), "{score}");
        for time in ["captured_at", "started_at"] {
            assert!(property(time).ends_with('Z'), "{}", property(time));
        }
    }
    let newest = retained(broker.port()).expect("it is kept for an hour");
    assert!(newest.is_retained);
    assert_eq!(
        Some(&newest.payload),
        snapshots.last().map(|last| &last.payload)
    );
}

#[test]
fn a_picture_comes_after_its_event_also_while_events_wait_for_the_card() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = street(broker.port());
    bench.set("SNAPSHOTS__ENABLED", "true");
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    // The first events are stored at once, and those of the next minute together: as the run ends.
    bench.set("MQTT__OUTBOX_SYNC_S", "60");
    std::fs::create_dir(bench.path("state")).expect("created");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    // It checks that every picture's event comes first.
    let (snapshots, ends) = hear_a_run(&mut subscriber);
    assert!(snapshots.len() >= 3 && snapshots.len() <= ends.len());
}

#[test]
fn a_picture_is_forgotten_in_time_or_not_kept_at_all() {
    for (protocol, expire_s, is_kept) in
        [("5", "2", true), ("5", "0", false), ("3.1.1", "2", false)]
    {
        let broker = Broker::start();
        let mut subscriber = Subscriber::connect(broker.port(), "test");
        let mut bench = still_picture(broker.port());
        bench.set("MQTT__PROTOCOL", protocol);
        bench.set("SNAPSHOTS__ENABLED", "true");
        bench.set("SNAPSHOTS__EXPIRE_S", expire_s);
        let (status, log) = bench.run().wait();
        assert_eq!(status.code(), Some(0), "{log}");
        let (snapshots, ends) = hear_a_run(&mut subscriber);
        assert!(!snapshots.is_empty() && snapshots.len() <= ends.len());
        assert_eq!(picture(&snapshots[0]).dimensions(), (160, 120));
        if is_kept {
            wait_for("the broker to forget it", || {
                retained(broker.port()).is_none().then_some(())
            });
        } else {
            assert_eq!(retained(broker.port()), None);
        }
    }
}

#[test]
fn no_picture_leaves_the_device_unless_it_is_asked_to() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let (status, log) = still_picture(broker.port()).run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let (snapshots, ends) = hear_a_run(&mut subscriber);
    assert!(snapshots.is_empty());
    assert!(!ends.is_empty(), "there was somebody to be shown");
}

fn a_picture_of_now_is_published_before_the_answer(protocol: &str, at: &str) {
    let broker = Broker::start();
    let port = broker.port();
    let mut subscriber = Subscriber::connect(port, "test");
    let mut pictures = Subscriber::connect(port, "pictures");
    let mut bench = long_run(port);
    bench.set("MQTT__PROTOCOL", protocol);
    bench.set("MQTT__COMMANDS", "true");
    bench.set("SNAPSHOTS__ENABLED", "true");
    // Nobody leaves, and with MQTT 3.1.1 a picture does not say whose it is.
    bench.set("TRACK__LOST_S", "60");
    let daemon = bench.run();
    subscriber.expect("a document", document);
    let mut ask = |command: &str, payload: &str| ask(port, &mut subscriber, command, payload, at);
    assert!(is_of_the_schema("snapshot", "{}"));
    let answer = ask("snapshot", "{}");
    assert_eq!(answer["ok"], true, "{answer}");
    let mut shown = Vec::new();
    pictures.expect("the answer", |heard| {
        if heard.topic == SNAPSHOT && heard.property("track").is_none() {
            shown.push(heard.clone());
        }
        let is_answer = heard.topic == "me/answers" || heard.topic.ends_with("command/response");
        is_answer.then_some(())
    });
    assert_eq!(shown.len(), 1, "the picture comes before the answer");
    assert_eq!(picture(&shown[0]).dimensions(), (160, 120));
    let occasion = (protocol == "5").then_some("command");
    assert_eq!(shown[0].property("occasion"), occasion);
    assert!(!is_of_the_schema("snapshot", r#"{"blur": "none"}"#));
    let answer = ask("snapshot", r#"{"blur": "none"}"#);
    assert_eq!(answer["error"]["reason"], "unknown_key", "{answer}");
    // Whoever switched detection off does not want to be looked at.
    assert_eq!(ask("detection", r#"{"on": false}"#)["ok"], true);
    let answer = ask("snapshot", "{}");
    assert_eq!(answer["error"]["reason"], "detection_off", "{answer}");
    daemon.terminate();
}

#[test]
fn a_picture_of_now_is_published_before_the_answer_with_mqtt_5() {
    a_picture_of_now_is_published_before_the_answer("5", "me/answers");
}

#[test]
fn a_picture_of_now_is_published_before_the_answer_with_mqtt_3_1_1() {
    a_picture_of_now_is_published_before_the_answer("3.1.1", "site/pi/door/command/response");
}

#[test]
fn without_snapshots_or_a_camera_there_is_a_reason_for_no_picture() {
    let broker = Broker::start();
    let port = broker.port();
    let mut subscriber = Subscriber::connect(port, "test");
    for (is_enabled, reason) in [("false", "snapshots_off"), ("true", "no_picture")] {
        let mut bench = Bench::with_decoder(DYING_DECODER, port);
        bench.set("MQTT__COMMANDS", "true");
        bench.set("SNAPSHOTS__ENABLED", is_enabled);
        let daemon = bench.run();
        subscriber.expect("the state of detection", |heard| {
            (heard.topic == DETECTION && !heard.is_retained).then_some(())
        });
        wait_for("the camera to be lost", || {
            daemon.log().contains("next attempt in").then_some(())
        });
        // It comes back for a moment again and again: then there is a picture.
        let answer = wait_for("the reason", || {
            let answer = ask(port, &mut subscriber, "snapshot", "{}", "me/answers");
            (answer["ok"] == false).then_some(answer)
        });
        assert_eq!(answer["error"]["reason"], reason, "{answer}");
        daemon.terminate();
    }
}
