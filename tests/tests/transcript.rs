//! The transcript in the documents: it is whole, and every document in it is as its schema says.

#[path = "../../daemon/tests/schema/mod.rs"]
mod schema;

use schema::violations;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use system_tests::transcript::{kind, placed};

const TRANSCRIPT: &str = include_str!("../../docs/transcript.txt");
const PAGE: &str = include_str!("../../docs/mqtt.md");
/// Schemas by the ends of topics.
const SCHEMAS: [(&str, &str); 9] = [
    (
        "/pi/statistics",
        include_str!("../../docs/schema/statistics-1.json"),
    ),
    (
        "/pi/model",
        include_str!("../../docs/schema/model-state-1.json"),
    ),
    (
        "/door/state",
        include_str!("../../docs/schema/camera-state-1.json"),
    ),
    (
        "/door/events",
        include_str!("../../docs/schema/event-1.json"),
    ),
    (
        "/door/counts",
        include_str!("../../docs/schema/counts-1.json"),
    ),
    (
        "/door/detections",
        include_str!("../../docs/schema/detections-1.json"),
    ),
    (
        "/door/detection",
        include_str!("../../docs/schema/detection-state-1.json"),
    ),
    (
        "/door/settings",
        include_str!("../../docs/schema/settings-1.json"),
    ),
    (
        "/door/command/response",
        include_str!("../../docs/schema/command-response-1.json"),
    ),
];

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_the_transcript_shows_is_as_the_schemas_say() {
    let mut shown: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut sequence = None;
    for line in TRANSCRIPT.lines() {
        let Some((topic, kind)) = kind(line) else {
            continue;
        };
        shown.entry(topic).or_default().insert(kind);
        let (_, payload) = line.split_once(' ').expect("a message");
        if topic == "ternwatch/pi/state" || topic.ends_with("/command/detection") {
            continue;
        }
        let (_, schema) = (SCHEMAS.iter().find(|(end, _)| topic.ends_with(end)))
            .unwrap_or_else(|| panic!("{topic} has no schema"));
        let document = parsed(payload);
        assert_eq!(violations(&parsed(schema), &document), [""; 0], "{line}");
        if topic.ends_with("/events") {
            let number = document["sequence"].as_u64();
            assert!(number > sequence, "events are in order: {line}");
            sequence = number;
        }
    }
    let topics: Vec<&str> = shown.keys().copied().collect();
    for (end, _) in &SCHEMAS[..8] {
        assert!(
            topics.iter().any(|topic| topic.ends_with(end)),
            "no {end} in {topics:?}"
        );
    }
    assert_eq!(
        shown["ternwatch/pi/door/events"].len(),
        7,
        "one of every type"
    );
    // The picture and the answer have commands of their own.
    assert_eq!(
        TRANSCRIPT
            .lines()
            .filter(|line| line.starts_with("$ mosquitto_"))
            .count(),
        3
    );
    let last = TRANSCRIPT
        .lines()
        .rfind(|line| line.starts_with("ternwatch/"));
    assert_eq!(last, Some("ternwatch/pi/state offline"));
}

#[test]
fn the_page_has_the_transcript_shortened() {
    let placed = placed(PAGE, TRANSCRIPT).expect("the page has a place for it");
    assert!(placed == PAGE, "`make transcript` writes both");
}
