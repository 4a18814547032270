//! The published document against its schema, and against what readers were promised.

mod schema;

use schema::violations;
use serde_json::{Value, json};
use ternwatch_daemon::clock::Timestamp;
use ternwatch_daemon::model::ModelIdentity;
use ternwatch_daemon::publish::payload::{Examined, Shown, Source};
use ternwatch_detector::Detection;

const SCHEMA: &str = include_str!("../../docs/schema/detections-1.json");

fn source() -> Source {
    Source {
        camera: "door".into(),
        model: ModelIdentity {
            name: "person".into(),
            version: 3,
            sha256: "0123456789abcdef".repeat(4),
        },
        classes: vec!["person".into(), "bicycle".into()],
    }
}

fn document(detections: &[Shown]) -> Value {
    let bytes = source().document(&Examined {
        sequence: 41,
        captured_at: Timestamp {
            realtime_ns: 1_795_502_401_123_456_789,
            monotonic_ns: 987_654_321,
        },
        width: 640,
        height: 480,
        inference_ms: 12.345_678,
        dropped: 2,
        detections,
    });
    serde_json::from_slice(&bytes).expect("JSON")
}

fn detection(class: u16, score: f32) -> Shown {
    let detection = Detection {
        class,
        score,
        xyxy: [64.0, 48.5, 640.0, 480.0],
    };
    // The first of a frame's objects is followed.
    let track = (class == 0).then_some(7);
    Shown { detection, track }
}

#[test]
fn the_document_is_exactly_what_readers_were_promised() {
    assert_eq!(
        document(&[detection(0, 0.875), detection(1, 0.5)]),
        json!({
            "schema": 1,
            "camera": "door",
            "sequence": 41,
            "captured_at": "2026-11-24T06:40:01.123456Z",
            "captured_monotonic_ns": 987_654_321,
            "frame": { "width": 640, "height": 480 },
            "model": { "name": "person", "version": 3, "sha256": "0123456789abcdef".repeat(4) },
            "inference_ms": 12.346,
            "dropped": 2,
            "detections": [
                { "class": "person", "score": 0.875, "track": 7,
                  "box_px": [64.0, 48.5, 640.0, 480.0],
                  "box_norm": [0.1, 0.10104167, 1.0, 1.0] },
                { "class": "bicycle", "score": 0.5,
                  "box_px": [64.0, 48.5, 640.0, 480.0],
                  "box_norm": [0.1, 0.10104167, 1.0, 1.0] },
            ],
        }),
        "an old reader depends on this: add keys, but change none"
    );
}

#[test]
fn numbers_are_written_as_short_as_they_can_be_read_back() {
    let bytes = source().document(&Examined {
        sequence: 0,
        captured_at: Timestamp::default(),
        width: 640,
        height: 480,
        inference_ms: 1.0,
        dropped: 0,
        detections: &[detection(0, 0.87)],
    });
    let text = String::from_utf8(bytes).expect("UTF-8");
    assert!(text.contains("\"score\":0.87,"), "{text}");
    assert!(!text.contains('\n') && !text.contains(' '), "{text}");
}

#[test]
fn documents_validate_against_the_schema() {
    let many: Vec<Shown> = (0..300).map(|_| detection(0, 1.0)).collect();
    for detections in [&[][..], &[detection(1, 0.01)], &many] {
        let violations = violations(&schema(), &document(detections));
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

#[test]
fn the_schema_refuses_what_it_should() {
    let schema = schema();
    let good = document(&[detection(0, 0.5)]);
    let spoilt: [(&str, Value); 12] = [
        ("/schema", json!(2)),
        ("/camera", json!("a/b")),
        ("/sequence", json!(-1)),
        ("/sequence", json!(1.5)),
        ("/captured_at", json!("2026-11-24 06:40")),
        ("/frame/width", json!(0)),
        ("/model/name", json!("")),
        ("/model/sha256", json!("00")),
        ("/dropped", json!("2")),
        ("/detections/0/score", json!(1.5)),
        ("/detections/0/box_px", json!([1, 2, 3])),
        ("/detections/0/box_norm/0", json!(1.25)),
    ];
    for (pointer, value) in spoilt {
        let mut document = good.clone();
        *document.pointer_mut(pointer).expect(pointer) = value;
        let violations = violations(&schema, &document);
        assert_eq!(violations.len(), 1, "{pointer}: {violations:#?}");
        assert!(violations[0].starts_with(pointer), "{violations:?}");
    }
    for key in good.as_object().expect("an object").keys() {
        let mut document = good.clone();
        document.as_object_mut().expect("an object").remove(key);
        assert_eq!(violations(&schema, &document).len(), 1, "without {key}");
    }
}

#[test]
fn an_old_reader_may_meet_new_keys() {
    let mut document = document(&[detection(0, 0.5)]);
    document["track"] = json!(7);
    document["detections"][0]["track"] = json!(7);
    assert_eq!(violations(&schema(), &document), Vec::<String>::new());
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
}
