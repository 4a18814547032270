//! What Home Assistant is told, as it was agreed: a change of the message is a change of everybody's entities.
//!
//! `make test-home-assistant` shows the message to a real one.

use serde_json::Value;
use std::collections::BTreeMap;
use ternwatch_daemon::publish::home_assistant::{Names, Subject, document, topic};

const AGREED: &str = include_str!("home_assistant.json");

#[test]
fn the_message_is_exactly_what_was_agreed() {
    let subject = Subject {
        prefix: "site".into(),
        device: "pi.1".into(),
        camera: "door".into(),
        names: Names {
            zones: vec!["back.yard".into()],
            lines: vec!["gate".into()],
        },
        has_statistics: true,
        is_updatable: true,
        waits_for_owner: true,
        has_snapshots: true,
        takes_commands: true,
    };
    let stubs = BTreeMap::from([("zone_front_01234567_people".into(), "sensor".into())]);
    let message: Value = serde_json::from_slice(&document(&subject, &stubs)).expect("JSON");
    let agreed: Value = serde_json::from_str(AGREED).expect("JSON");
    let text = serde_json::to_string_pretty(&message).expect("JSON");
    let version = env!("CARGO_PKG_VERSION");
    let text = text.replace(&format!("\"sw\": \"{version}\""), "\"sw\": \"VERSION\"");
    let now: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        now, agreed,
        "if this is meant, daemon/tests/home_assistant.json becomes:\n{text}"
    );
    assert_eq!(
        topic("homeassistant", &subject),
        "homeassistant/device/ternwatch_pi_1_7a6e18e3/config"
    );
}
