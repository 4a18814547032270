//! Events and counts as a subscriber hears them.

use super::bench::{Bench, Daemon};
use super::{STATE, document, expect_state, state};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use system_tests::broker::{Broker, Cable, Heard, Subscriber, wait_for};

const EVENTS: &str = "site/pi/door/events";
pub(crate) const COUNTS: &str = "site/pi/door/counts";
/// Debian's opencv-doc: a pedestrian precinct, 768 by 576 pixels, 10 frames a second.
pub(crate) const STREET: &str = "/usr/share/doc/opencv-doc/examples/data/vtest.avi";

/// The left and the right half of the picture, and the line between them.
pub(crate) const HALVES: &str = r#"
[[zones]]
name = "left"
points = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]

[[zones]]
name = "right"
points = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]

[[lines]]
name = "middle"
points = [[0.5, 1.0], [0.5, 0.0]]
"#;

/// A picture that does not move, for five seconds.
pub(crate) fn still_picture(port: u16) -> Bench {
    still_picture_of(50, port)
}

/// The same for so many frames, ten a second.
pub(crate) fn still_picture_of(frames: u32, port: u16) -> Bench {
    let source = "testsrc=size=160x120:rate=10:duration=0.1,loop=loop=-1:size=1";
    let count = frames.to_string();
    let input = ["-f", "lavfi", "-i", source, "-frames:v", &count];
    let mut bench = Bench::with_video_of(&input, port);
    bench.set("PUBLISH__FRAMES", "false");
    bench.set("TRACK__UPDATE_S", "1");
    bench.write_config(HALVES);
    bench
}

/// Fifteen seconds of a pedestrian precinct and the model that comes along.
pub(crate) fn street(port: u16) -> Bench {
    assert_street();
    let mut bench = Bench::with_video_of(&["-i", STREET, "-t", "15"], port);
    look_for_people(&mut bench);
    bench
}

/// The file must be there.
pub(crate) fn assert_street() {
    assert!(
        Path::new(STREET).exists(),
        "{STREET} is missing: `deploy/install-deps.sh test` installs it"
    );
}

/// With the model that comes along.
pub(crate) fn look_for_people(bench: &mut Bench) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let model = |file: &str| models.join(file).to_str().expect("UTF-8").to_string();
    bench.set("MODEL__BUNDLE", &model("person.tern"));
    bench.set("MODEL__KEY", &model("default.pub"));
    // As the model recommends.
    bench.set("MODEL__SCORE_MIN", "0");
    bench.set("PUBLISH__FRAMES", "false");
}

#[derive(Default)]
struct Run {
    events: Vec<Value>,
    counts: Vec<Value>,
    /// Whether these began before the events.
    is_counted_first: bool,
    others: Vec<String>,
}

/// What a subscriber hears from `online` to `offline`.
fn hear_a_run(subscriber: &mut Subscriber) -> Run {
    expect_state(subscriber, "online");
    let mut run = Run::default();
    subscriber.expect("the end of the run", |heard| {
        match heard.topic.as_str() {
            EVENTS => run.events.extend(heard.document(EVENTS)),
            COUNTS => {
                run.is_counted_first |= run.events.is_empty();
                run.counts.extend(heard.document(COUNTS));
            }
            STATE | "site/pi/door/state" | "site/pi/statistics" => {}
            other => run.others.push(other.into()),
        }
        (state(heard)? == "offline").then_some(())
    });
    run
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().expect("a text")
}

/// Checks what is promised of any run, and gives the types of each object's events.
fn histories(run: &Run) -> BTreeMap<u64, Vec<&str>> {
    let mut histories: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (number, event) in (0u64..).zip(&run.events) {
        assert_eq!(event["sequence"], number, "{event}");
        assert_eq!(event["started_at"], run.events[0]["started_at"]);
        let id = event["track"]["id"].as_u64().expect("a number");
        histories.entry(id).or_default().push(kind(event));
    }
    for (id, history) in &histories {
        assert_eq!(history.first(), Some(&"new"), "{id}: {history:?}");
        assert_eq!(history.last(), Some(&"end"), "{id}: {history:?}");
        let count = |wanted: &str| history.iter().filter(|kind| **kind == wanted).count();
        assert_eq!((count("new"), count("end")), (1, 1), "{id}: {history:?}");
        assert_eq!(
            count("zone_enter"),
            count("zone_leave"),
            "{id}: {history:?}"
        );
    }
    let last = run.counts.last().expect("counts");
    assert_eq!(last["in_view"], 0);
    assert_eq!(last["zones"]["left"]["occupancy"], 0);
    assert_eq!(last["zones"]["right"]["occupancy"], 0);
    histories
}

fn ends_well(daemon: Daemon) {
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("not published"), "{log}");
}

#[test]
fn what_stands_still_comes_stays_and_goes_in_order() {
    for protocol in ["5", "3.1.1"] {
        let broker = Broker::start();
        let mut subscriber = Subscriber::connect(broker.port(), "test");
        let mut bench = still_picture(broker.port());
        bench.set("MQTT__PROTOCOL", protocol);
        let daemon = bench.run();
        let run = hear_a_run(&mut subscriber);
        ends_well(daemon);
        let histories = histories(&run);
        assert!(!histories.is_empty(), "the random model finds nothing");
        assert_eq!(
            run.others,
            ["site/pi/door/detection"],
            "frames are not published unless asked for"
        );
        // It is there from the first frame to the last, 4.9 s later, and confirmed after 0.3 s.
        let standing = [
            "new",
            "zone_enter",
            "update",
            "update",
            "update",
            "update",
            "zone_leave",
            "end",
        ];
        assert!(
            histories.values().any(|history| history[..] == standing),
            "{histories:?}"
        );
        let duration_s = &run.events.last().expect("an event")["track"]["duration_s"];
        assert_eq!(duration_s, 4.9, "in the video's own time");
    }
}

/// A stand-in for ffmpeg: three seconds of a picture that does not move, then a camera that is gone for good.
const VANISHING_CAMERA: &str = r#"#!/bin/sh
ran="$(dirname "$0")/ran"
if [ -e "$ran" ]; then exit 1; fi
touch "$ran"
exec /usr/bin/ffmpeg -v error -re -f lavfi -i testsrc=size=160x120:rate=10:duration=0.1,loop=loop=-1:size=1 \
    -frames:v 30 -pix_fmt yuv420p -f yuv4mpegpipe -
"#;

#[test]
fn who_was_in_view_when_the_camera_went_away_ends_without_its_return() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = Bench::with_decoder(VANISHING_CAMERA, broker.port());
    bench.set("PUBLISH__FRAMES", "false");
    bench.write_config(HALVES);
    let daemon = bench.run();
    let mut run = Run::default();
    subscriber.expect("nobody in view any more", |heard| {
        run.events.extend(heard.document(EVENTS));
        let counts = heard.document(COUNTS)?;
        let was_somebody = run.counts.iter().any(|counts| counts["in_view"] != 0);
        let is_nobody = counts["in_view"] == 0;
        run.counts.push(counts);
        (was_somebody && is_nobody).then_some(())
    });
    let log = daemon.terminate();
    assert!(!log.contains("the camera is back"), "{log}");
    // Events and counts are on topics of their own: some events may come after the last counts.
    subscriber.expect("the end of the run", |heard| {
        run.events.extend(heard.document(EVENTS));
        (state(heard)? == "offline").then_some(())
    });
    assert!(
        !histories(&run).is_empty(),
        "the random model finds nothing"
    );
}

#[test]
fn counts_are_retained_and_told_again_on_every_connection() {
    let mut broker = Broker::start();
    let mut bench = still_picture(broker.port());
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    let video = bench.path("long.mp4");
    let looped = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-stream_loop", "600", "-i"])
        .arg(bench.path("video.mp4"))
        .args(["-c", "copy"])
        .arg(&video)
        .status();
    assert!(looped.expect("ffmpeg runs").success());
    bench.set("CAMERA__VIDEO__PATH", video.to_str().expect("UTF-8"));
    let daemon = bench.run();
    let somebody = |heard: &Heard| {
        heard
            .document(COUNTS)
            .filter(|counts| counts["in_view"] != 0)
    };
    Subscriber::connect(broker.port(), "before").expect("somebody", somebody);
    Subscriber::connect(broker.port(), "late").expect("the retained counts", |heard| {
        somebody(heard).filter(|_| heard.is_retained)
    });
    broker.stop();
    wait_for("the loss to be noticed", || {
        daemon
            .log()
            .contains("no connection to the broker")
            .then_some(())
    });
    broker.start_again();
    // The broker forgot everything, and nobody came or went meanwhile.
    Subscriber::connect(broker.port(), "after").expect("counts again", somebody);
    daemon.terminate();
}

#[test]
fn events_wait_for_the_broker_and_none_is_lost() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut cable = Cable::new(broker.port());
    let mut bench = still_picture(cable.port());
    // Slow enough for a busy machine, which would drop most frames otherwise.
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    bench.set("STDOUT__ENABLED", "true");
    let daemon = bench.run();
    wait_for("the last event", || {
        let text = std::fs::read_to_string(bench.path("stdout")).expect("readable");
        let is_over = text.contains("\"type\":\"end\"");
        (is_over && daemon.log().contains("no connection to the broker")).then_some(())
    });
    cable.plug();
    let run = hear_a_run(&mut subscriber);
    ends_well(daemon);
    assert!(!histories(&run).is_empty());
    assert!(run.is_counted_first, "counts wait behind old events");
}

#[test]
fn a_cut_cable_loses_no_event() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut cable = Cable::new(broker.port());
    cable.plug();
    let mut bench = still_picture(cable.port());
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    // Ten a second from every object, so that the cut hits one on its way.
    bench.set("TRACK__UPDATE_S", "0.01");
    let daemon = bench.run();
    let mut heard_of: BTreeMap<u64, Value> = BTreeMap::new();
    let mut take = |heard: &Heard| {
        let event = heard.document(EVENTS)?;
        let sequence = event["sequence"].as_u64().expect("a number");
        // What comes twice must be the same.
        assert_eq!(
            heard_of.entry(sequence).or_insert_with(|| event.clone()),
            &event
        );
        Some(())
    };
    subscriber.expect("an event", &mut take);
    cable.unplug();
    // The last will; what was under way before it may still come.
    subscriber.expect("the cut", |heard| {
        take(heard);
        (state(heard)? == "offline").then_some(())
    });
    cable.plug();
    subscriber.expect("the end of the run", |heard| {
        take(heard);
        (state(heard)? == "offline").then_some(())
    });
    ends_well(daemon);
    let sequences: Vec<u64> = heard_of.keys().copied().collect();
    let count = sequences.len() as u64;
    assert_eq!(sequences, (0..count).collect::<Vec<_>>(), "none is missing");
    assert!(count > 40, "{count} events in five seconds");
    let last = heard_of.last_entry().expect("there are events");
    assert_eq!(kind(last.get()), "end");
}

#[test]
fn people_walk_from_zone_to_zone_on_a_real_street() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = street(broker.port());
    bench.write_config(HALVES);
    let daemon = bench.run();
    let run = hear_a_run(&mut subscriber);
    ends_well(daemon);
    let histories = histories(&run);
    let count = |wanted: &str| {
        run.events
            .iter()
            .filter(|event| kind(event) == wanted)
            .count()
    };
    println!(
        "{} people, {} entered, {} crossed, {} events",
        histories.len(),
        count("zone_enter"),
        count("line_cross"),
        run.events.len()
    );
    assert!(histories.len() >= 3, "{histories:?}");
    // Halfway both zones may count for a moment: whoever changes over enters the second before, or after, leaving the first.
    let mut entered: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for event in run
        .events
        .iter()
        .filter(|event| kind(event) == "zone_enter")
    {
        let id = event["track"]["id"].as_u64().expect("a number");
        let zone = event["zone"]["name"].as_str().expect("a text");
        entered.entry(id).or_default().insert(zone);
    }
    assert!(
        entered.values().any(|zones| zones.len() == 2),
        "nobody went from one half to the other: {histories:?}"
    );
    let line = &run.counts.last().expect("counts")["lines"]["middle"];
    let crossed =
        line["to_left"].as_u64().expect("a number") + line["to_right"].as_u64().expect("a number");
    assert_eq!(crossed, count("line_cross") as u64);
    assert!(crossed > 0);
}

#[test]
fn frames_show_who_is_followed_even_when_seen_weakly() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = street(broker.port());
    bench.set("PUBLISH__FRAMES", "true");
    bench.set("MODEL__SCORE_MIN", "0.5");
    let daemon = bench.run();
    let (mut told, mut shown) = (BTreeSet::new(), BTreeSet::new());
    let mut weak = 0;
    expect_state(&mut subscriber, "online");
    subscriber.expect("the end of the run", |heard| {
        if let Some(event) = heard.document(EVENTS) {
            told.insert(event["track"]["id"].as_u64().expect("a number"));
        }
        for found in document(heard)
            .iter()
            .flat_map(|frame| frame["detections"].as_array().expect("a list").clone())
        {
            let is_weak = found["score"].as_f64().expect("a number") < 0.5;
            let track = found["track"].as_u64();
            assert!(!is_weak || track.is_some(), "{found}");
            weak += u64::from(is_weak);
            shown.extend(track);
        }
        (state(heard)? == "offline").then_some(())
    });
    ends_well(daemon);
    println!("{} people, {weak} times seen weakly", told.len());
    assert!(weak > 0 && !shown.is_empty());
    assert_eq!(shown, told, "who is in a frame is who events are about");
}
