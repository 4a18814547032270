//! Events and counts: against their schemas, and against what readers were promised.

mod schema;

use proptest::prelude::*;
use schema::violations;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use ternwatch_daemon::camera::FrameBuffer;
use ternwatch_daemon::clock::Timestamp;
use ternwatch_daemon::config::Config;
use ternwatch_daemon::model;
use ternwatch_daemon::model::ModelIdentity;
use ternwatch_daemon::pipeline::{Places, Watch};
use ternwatch_daemon::publish::Document;
use ternwatch_daemon::publish::event::{
    AtLine, EventWriter, InZone, Kind, Moment, Object, Sighting,
};
use ternwatch_daemon::track::{self, Tracker};
use ternwatch_daemon::zones::{LineConfig, ZoneConfig};
use ternwatch_detector::{Detection, PixelFormat};

const EVENT_SCHEMA: &str = include_str!("../../docs/schema/event-1.json");
const COUNTS_SCHEMA: &str = include_str!("../../docs/schema/counts-1.json");
const SECOND_NS: u64 = 1_000_000_000;
const REALTIME_NS: i128 = 1_795_502_401_123_456_789;

fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("JSON")
}

fn event_schema() -> Value {
    parse(EVENT_SCHEMA.as_bytes())
}

fn counts_schema() -> Value {
    parse(COUNTS_SCHEMA.as_bytes())
}

fn writer() -> EventWriter {
    EventWriter {
        camera: "door".into(),
        model: ModelIdentity {
            name: "person".into(),
            version: 3,
            sha256: "0123456789abcdef".repeat(4),
        },
        classes: vec!["person".into()],
        started_at: "2026-11-24T06:00:00.000000Z".into(),
        sequence: 7,
    }
}

fn written(kind: Kind<'_>) -> Value {
    let seen = |age_ns, score| Sighting {
        age_ns,
        score,
        xyxy: [64.0, 48.5, 640.0, 480.0],
    };
    let (sequence, document) = writer().write(
        kind,
        &Moment {
            frame_sequence: 41,
            captured_at: Timestamp {
                realtime_ns: REALTIME_NS,
                monotonic_ns: 987_654_321,
            },
            width: 640,
            height: 480,
        },
        &Object {
            id: 3,
            class: 0,
            is_lost: false,
            is_stationary: true,
            duration_ns: 12_345_678_901,
            first: seen(12_345_678_901, 0.5),
            last: seen(0, 0.625),
            best: seen(2_000_000_000, 0.875),
            zones: &["yard"],
            zones_entered: &["drive", "yard"],
            path: &[(12_345_678_901, [64.0, 480.0]), (0, [660.0, 240.0])],
        },
    );
    assert_eq!(sequence, 7);
    parse(&document)
}

fn enter() -> Kind<'static> {
    Kind::ZoneEnter(InZone {
        name: "yard",
        dwell_ns: 1_500_000_000,
        occupancy: 2,
    })
}

fn cross() -> Kind<'static> {
    Kind::LineCross(AtLine {
        name: "gate",
        direction: "to_right",
        to_left: 4,
        to_right: 5,
    })
}

#[test]
fn an_event_is_exactly_what_readers_were_promised() {
    let seen = |age_s: f64, score: f64| {
        json!({ "age_s": age_s, "score": score, "box_px": [64.0, 48.5, 640.0, 480.0],
                "box_norm": [0.1, 0.10104167, 1.0, 1.0] })
    };
    assert_eq!(
        written(enter()),
        json!({
            "schema": 1,
            "type": "zone_enter",
            "camera": "door",
            "sequence": 7,
            "started_at": "2026-11-24T06:00:00.000000Z",
            "captured_at": "2026-11-24T06:40:01.123456Z",
            "captured_monotonic_ns": 987_654_321,
            "frame_sequence": 41,
            "frame": { "width": 640, "height": 480 },
            "model": { "name": "person", "version": 3, "sha256": "0123456789abcdef".repeat(4) },
            "track": {
                "id": 3, "class": "person", "state": "confirmed", "stationary": true,
                "duration_s": 12.346, "best_score": 0.875,
                "first": seen(12.346, 0.5), "last": seen(0.0, 0.625), "best": seen(2.0, 0.875),
                "zones": ["yard"],
                "zones_entered": ["drive", "yard"],
                "path": [[12.346, 0.1, 1.0], [0.0, 1.0, 0.5]],
            },
            "zone": { "name": "yard", "dwell_s": 1.5, "occupancy": 2 },
        }),
        "an old reader depends on this: add keys, but change none"
    );
    assert_eq!(
        written(cross())["line"],
        json!({ "name": "gate", "direction": "to_right", "to_left": 4, "to_right": 5 })
    );
}

#[test]
fn the_event_schema_takes_every_type_and_refuses_what_it_should() {
    let schema = event_schema();
    let (zone, line) = (written(enter()), written(cross()));
    for good in [&zone, &line, &written(Kind::New), &written(Kind::End)] {
        assert_eq!(violations(&schema, good), Vec::<String>::new());
    }
    let spoilt: [(&Value, &str, Value); 11] = [
        (&zone, "/schema", json!(2)),
        (&zone, "/type", json!("born")),
        (&zone, "/sequence", json!(-1)),
        (&zone, "/started_at", json!("yesterday")),
        (&zone, "/track/id", json!(0)),
        (&zone, "/track/stationary", json!("no")),
        (&zone, "/track/path/0", json!([1.0, 0.5])),
        (&zone, "/track/zones_entered", json!("yard")),
        (&zone, "/track/best/score", json!(1.5)),
        (&zone, "/zone/occupancy", json!(-1)),
        (&line, "/line/direction", json!("up")),
    ];
    for (good, pointer, value) in spoilt {
        let mut document = good.clone();
        *document.pointer_mut(pointer).expect(pointer) = value;
        let violations = violations(&schema, &document);
        assert_eq!(violations.len(), 1, "{pointer}: {violations:#?}");
        assert!(violations[0].starts_with(pointer), "{violations:?}");
    }
    for good in [&zone, &line] {
        for key in good.as_object().expect("an object").keys() {
            let mut document = good.clone();
            document.as_object_mut().expect("an object").remove(key);
            // Without a type it also lacks what each of the types wants.
            assert!(!violations(&schema, &document).is_empty(), "without {key}");
        }
    }
}

/// The lower right quarter, and a line upwards through the middle.
fn places() -> (ZoneConfig, LineConfig) {
    let zone = ZoneConfig {
        name: "yard".into(),
        points: vec![[0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [0.5, 1.0]],
        score_min: 0.0,
        height_min: 0.0,
        height_max: 1.0,
        loiter_s: 1.0,
    };
    let line = LineConfig {
        name: "gate".into(),
        points: vec![[0.4, 1.0], [0.4, 0.0]],
    };
    (zone, line)
}

fn watch() -> Watch {
    let (zone, line) = places();
    let config = track::Config {
        score_low: 0.1,
        confirm_s: 0.3,
        lost_s: 1.0,
        update_s: 2.0,
        stationary_s: 3.0,
    };
    let writer = EventWriter {
        sequence: 0,
        ..writer()
    };
    Watch::new(Tracker::new(&config, 0.4), &[zone], &[line], writer)
}

fn frame(sequence: u64, width: u32) -> FrameBuffer {
    let mut buffer = FrameBuffer::empty();
    (buffer.format, buffer.width, buffer.height) = (PixelFormat::I420, width, 480);
    (buffer.sequence, buffer.moment_ns) = (sequence, sequence * SECOND_NS / 10);
    buffer.captured_at = Timestamp {
        realtime_ns: REALTIME_NS,
        monotonic_ns: buffer.moment_ns,
    };
    buffer
}

fn person(x: f32, y: f32) -> Detection {
    Detection {
        class: 0,
        score: 0.8,
        xyxy: [x - 20.0, y - 100.0, (x + 20.0).min(640.0), y],
    }
}

/// What a run wrote: events and counts, in order.
fn sorted(documents: &[Document]) -> (Vec<Value>, Vec<Value>) {
    let (mut events, mut counts) = (Vec::new(), Vec::new());
    for document in documents {
        match document {
            Document::Event(event) => {
                let parsed = parse(&event.document);
                assert_eq!(parsed["sequence"], event.sequence);
                assert_eq!(violations(&event_schema(), &parsed), Vec::<String>::new());
                events.push(parsed);
            }
            Document::Counts(document) => {
                let parsed = parse(document);
                assert_eq!(violations(&counts_schema(), &parsed), Vec::<String>::new());
                counts.push(parsed);
            }
            Document::Frame(_) => panic!("frames are not the watch's"),
        }
    }
    (events, counts)
}

fn types(events: &[Value]) -> Vec<&str> {
    let text = |event| -> &str { Value::as_str(event).expect("a text") };
    events.iter().map(|event| text(&event["type"])).collect()
}

#[test]
fn somebody_walks_through_the_picture() {
    let mut watch = watch();
    let mut documents = Vec::new();
    for sequence in 0..70u64 {
        // From the left to the right in five seconds, and out.
        let x = 40.0 + 12.0 * sequence as f32;
        let there = [person(x, 400.0)];
        let detections = if sequence < 50 { &there[..] } else { &[] };
        watch.step(&frame(sequence, 640), detections, &mut documents);
    }
    let (events, counts) = sorted(&documents);
    assert_eq!(
        types(&events),
        [
            "new",
            "line_cross",
            "update",
            "zone_enter",
            "zone_loiter",
            "update",
            "zone_leave",
            "end"
        ]
    );
    let end = events.last().expect("it ended");
    assert_eq!(end["track"]["state"], "lost");
    assert_eq!(end["track"]["zones"], json!([]));
    assert_eq!(end["track"]["zones_entered"], json!(["yard"]));
    assert_eq!(events[2]["track"]["zones_entered"], json!([]), "not yet");
    assert_eq!(
        end["track"]["first"]["box_px"],
        json!([20.0, 300.0, 60.0, 400.0])
    );
    let age_s = end["track"]["last"]["age_s"].as_f64().expect("a number");
    assert!(
        (1.0..1.2).contains(&age_s),
        "{age_s} s after the last sighting"
    );
    assert_eq!(events[1]["line"]["direction"], "to_right");
    assert_eq!(events[5]["track"]["zones"], json!(["yard"]));
    let in_view: Vec<u64> = counts
        .iter()
        .map(|c| c["in_view"].as_u64().expect("a number"))
        .collect();
    assert_eq!(in_view, [0, 1, 1, 1, 0]);
    assert_eq!(counts[3]["zones"], json!({ "yard": { "occupancy": 1 } }));
    assert_eq!(counts[4]["zones"], json!({ "yard": { "occupancy": 0 } }));
    assert_eq!(
        counts[4]["lines"],
        json!({ "gate": { "to_left": 0, "to_right": 1 } })
    );
    documents.clear();
    watch.finish(&mut documents);
    assert_eq!(documents, [], "nothing was left to end");
}

#[test]
fn places_that_are_the_same_again_begin_their_counts_anew_and_lose_nobody() {
    let mut watch = watch();
    let mut documents = Vec::new();
    let x = |sequence: u64| 40.0 + 12.0 * sequence as f32;
    for sequence in 0..40 {
        let there = [person(x(sequence), 400.0)];
        watch.step(&frame(sequence, 640), &there, &mut documents);
    }
    let (_, counts) = sorted(&documents);
    let before = counts.last().expect("counts");
    assert_eq!(before["lines"]["gate"]["to_right"], 1, "{before}");
    documents.clear();
    let (zone, line) = places();
    watch.change_places(Places::new(&[zone], &[line]), &mut documents);
    let there = [person(x(40), 400.0)];
    watch.step(&frame(40, 640), &there, &mut documents);
    let (events, counts) = sorted(&documents);
    assert_eq!(types(&events), ["zone_leave", "zone_enter"]);
    assert_eq!(events[1]["track"]["id"], 1);
    let zones = json!({ "yard": { "occupancy": 1 } });
    let lines = json!({ "gate": { "to_left": 0, "to_right": 0 } });
    let last = counts.last().expect("counts");
    assert_eq!((&last["zones"], &last["lines"]), (&zones, &lines));
}

#[test]
fn a_frame_of_another_size_and_the_end_of_the_run_end_everything() {
    let mut watch = watch();
    let mut documents = Vec::new();
    for sequence in 0..20 {
        let width = if sequence < 10 { 640 } else { 320 };
        watch.step(
            &frame(sequence, width),
            &[person(100.0, 400.0)],
            &mut documents,
        );
    }
    watch.finish(&mut documents);
    let (events, counts) = sorted(&documents);
    assert_eq!(types(&events), ["new", "end", "new", "end"]);
    assert_eq!(events[1]["frame"]["width"], 640);
    assert_eq!(events[2]["track"]["id"], 2);
    assert_eq!(counts.last().expect("counts")["in_view"], 0);
}

#[test]
fn a_frame_that_is_not_examined_says_that_nobody_is_there_unless_that_was_said() {
    let mut watch = watch();
    let mut documents = Vec::new();
    for sequence in 0..3 {
        watch.rest(frame(sequence, 640).captured_at, &mut documents);
    }
    let (events, counts) = sorted(&documents);
    assert_eq!(events, [] as [Value; 0]);
    assert_eq!(counts.len(), 1, "the first frame is enough: {counts:?}");
    assert_eq!(counts[0]["in_view"], 0);
    assert_eq!(counts[0]["captured_monotonic_ns"], 0);
    assert_eq!(counts[0]["zones"], json!({ "yard": { "occupancy": 0 } }));
    documents.clear();
    watch.step(&frame(3, 640), &[], &mut documents);
    assert_eq!(documents, [], "nothing has changed");
}

#[test]
fn a_camera_that_is_away_ends_everybody_once_and_who_is_there_on_its_return_is_new() {
    let mut watch = watch();
    let mut documents = Vec::new();
    let there = [person(500.0, 400.0)];
    for sequence in 0..10 {
        watch.step(&frame(sequence, 640), &there, &mut documents);
    }
    documents.clear();
    for _ in 0..3 {
        watch.lose_sight(frame(90, 640).captured_at, &mut documents);
    }
    let (events, counts) = sorted(&documents);
    assert_eq!(types(&events), ["zone_leave", "end"]);
    assert_eq!(events[1]["frame_sequence"], 9, "of the last frame");
    assert_eq!(counts.len(), 1, "{counts:?}");
    assert_eq!(counts[0]["in_view"], 0);
    documents.clear();
    for sequence in 100..110 {
        watch.step(&frame(sequence, 640), &there, &mut documents);
    }
    let (events, _) = sorted(&documents);
    assert_eq!(types(&events), ["new", "zone_enter"]);
    assert_eq!(events[0]["track"]["id"], 2);
}

#[test]
fn a_camera_that_never_came_says_that_nobody_is_there() {
    let mut watch = watch();
    let mut documents = Vec::new();
    (0..3).for_each(|_| watch.lose_sight(frame(7, 640).captured_at, &mut documents));
    let (events, counts) = sorted(&documents);
    assert_eq!(events, [] as [Value; 0]);
    assert_eq!(counts.len(), 1, "{counts:?}");
    assert_eq!(counts[0]["in_view"], 0);
}

#[test]
fn another_model_goes_on_with_the_tracks_unless_its_classes_are_others() {
    let (file, key) = ternwatch_detector::testing::small_bundle(1);
    let keys = [key].into_iter().collect();
    let path = Path::new("it");
    let bundle = model::verify(&keys, path, &file).expect("signed");
    let settings = Config::load(None, []).expect("valid").model;
    let isa = ternwatch_detector::Isa::detect();
    let mut next = model::prepare(&settings, isa, path, &bundle).expect("a model");

    let mut watch = watch();
    let mut documents = Vec::new();
    let mut see = |watch: &mut Watch, frames: std::ops::Range<u64>| {
        for sequence in frames {
            let there = [person(100.0, 400.0)];
            watch.step(&frame(sequence, 640), &there, &mut documents);
        }
        sorted(&std::mem::take(&mut documents)).0
    };
    assert_eq!(types(&see(&mut watch, 0..10)), ["new"]);
    let mut between = Vec::new();
    next.classes = vec!["person".into()];
    watch.change_model(&mut next, 0.4, &mut between);
    assert_eq!(between, [], "the same classes");
    next.classes = vec!["dog".into(), "person".into()];
    watch.change_model(&mut next, 0.4, &mut between);
    let (ended, counts) = sorted(&between);
    assert_eq!(types(&ended), ["end"]);
    assert_eq!(ended[0]["track"]["class"], "person");
    assert_eq!(counts[0]["in_view"], 0);
    let again = see(&mut watch, 10..20);
    assert_eq!(types(&again), ["new"]);
    assert_eq!(
        again[0]["track"]["class"], "dog",
        "the first of its classes"
    );
}

proptest! {
    /// Whatever is seen: numbers have no gaps, every object is new first and ends last, enter and leave take turns, and
    /// the counts say what the events say.
    #[test]
    fn events_of_an_object_come_in_order(
        frames in proptest::collection::vec(
            proptest::collection::vec((0u8..10, 0u8..4, any::<bool>()), 0..6),
            1..60,
        ),
    ) {
        let mut watch = watch();
        let mut documents = Vec::new();
        for (sequence, people) in (0u64..).zip(&frames) {
            let detections: Vec<Detection> = people
                .iter()
                .map(|&(x, y, is_sure)| Detection {
                    score: if is_sure { 0.8 } else { 0.2 },
                    ..person(f32::from(x) * 60.0 + 40.0, f32::from(y) * 100.0 + 120.0)
                })
                .collect();
            // Every frame three times, so that something is confirmed at all.
            for again in 0..3 {
                watch.step(&frame(3 * sequence + again, 640), &detections, &mut documents);
            }
        }
        watch.finish(&mut documents);
        let (events, counts) = sorted(&documents);
        let mut open: BTreeMap<u64, bool> = BTreeMap::new();
        let mut ended = BTreeSet::new();
        for (number, event) in (0u64..).zip(&events) {
            prop_assert_eq!(&event["sequence"], number);
            let id = event["track"]["id"].as_u64().expect("a number");
            prop_assert!(!ended.contains(&id), "after its end: {event}");
            let kind = event["type"].as_str().expect("a text");
            if kind == "new" {
                prop_assert_eq!(open.insert(id, false), None);
                continue;
            }
            let Some(is_within) = open.get_mut(&id) else {
                return Err(TestCaseError::fail(format!("before it was new: {event}")));
            };
            match kind {
                "zone_enter" => prop_assert!(!std::mem::replace(is_within, true)),
                "zone_loiter" => prop_assert!(*is_within),
                "zone_leave" => prop_assert!(std::mem::replace(is_within, false)),
                "end" => {
                    prop_assert!(!*is_within, "it left the zone before");
                    open.remove(&id);
                    ended.insert(id);
                }
                "update" | "line_cross" => {}
                other => prop_assert!(false, "{other}"),
            }
        }
        prop_assert!(open.is_empty(), "{open:?} never ended");
        let last = counts.last().expect("the first frame is counted");
        prop_assert_eq!(&last["in_view"], 0);
        prop_assert_eq!(&last["zones"]["yard"]["occupancy"], 0);
        let crossings = events.iter().filter(|event| event["type"] == "line_cross").count() as u64;
        let line = &last["lines"]["gate"];
        let sum = line["to_left"].as_u64().expect("a number") + line["to_right"].as_u64().expect("a number");
        prop_assert_eq!(sum, crossings);
    }
}
