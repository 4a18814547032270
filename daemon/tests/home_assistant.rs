//! What Home Assistant is told, as it was agreed: a change of the message is a change of everybody's entities. And all that a device may
//! say is held against what Home Assistant's own schemas take (home_assistant_schema.json, written by tests/home_assistant/schema.py).
//!
//! `make test-home-assistant` shows the message to a real one.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use ternwatch_daemon::publish::home_assistant::{Names, Subject, document, topic};

const AGREED: &str = include_str!("home_assistant.json");
const SCHEMA: &str = include_str!("home_assistant_schema.json");

/// A device with a zone and a line, and with these abilities.
fn subject(abilities: [bool; 5]) -> Subject {
    let [
        has_statistics,
        is_updatable,
        waits_for_owner,
        has_snapshots,
        takes_commands,
    ] = abilities;
    Subject {
        prefix: "site".into(),
        device: "pi.1".into(),
        camera: "door".into(),
        names: Names {
            zones: vec!["back.yard".into()],
            lines: vec!["gate".into()],
        },
        has_statistics,
        is_updatable,
        waits_for_owner,
        has_snapshots,
        takes_commands,
    }
}

#[test]
fn the_message_is_exactly_what_was_agreed() {
    let subject = subject([true; 5]);
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

type Object = Map<String, Value>;

fn object(value: &Value) -> &Object {
    value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"))
}

/// With the keys written out.
fn long(short: &Value, abbreviations: &Value) -> Object {
    let keys = object(short).iter().map(|(key, value)| {
        let name = abbreviations[key].as_str().unwrap_or(key);
        (name.to_owned(), value.clone())
    });
    let long: Object = keys.collect();
    assert_eq!(long.len(), object(short).len(), "said twice: {short}");
    long
}

/// What is wrong with this value, if something is, by the kind that its schema names.
fn fault(value: &Value, kind: &Value) -> Option<String> {
    if let Some(words) = kind.as_array() {
        return (!words.contains(value)).then(|| format!("{value} is none of {kind}"));
    }
    let is_topic = |may_have_wildcards: bool| {
        value.as_str().is_some_and(|topic| {
            !topic.is_empty() && (may_have_wildcards || !topic.contains(['+', '#']))
        })
    };
    let is_good = match kind.as_str().expect("a name") {
        "any" => true,
        "boolean" => value.is_boolean(),
        "icon" => value.as_str().is_some_and(|icon| icon.contains(':')),
        "number" => value.is_number(),
        "publish_topic" => is_topic(false),
        "subscribe_topic" => is_topic(true),
        "template" | "text" => value.is_string(),
        other => panic!("a kind that this test does not know: {other}"),
    };
    (!is_good).then(|| format!("{value} is no {kind}"))
}

/// What Home Assistant would not take of this object, or drop.
fn faults(of: &Object, schema: &Value) -> Vec<String> {
    let keys = object(&schema["keys"]);
    let mut faults: Vec<String> = of
        .iter()
        .filter_map(|(key, value)| match keys.get(key) {
            None => Some(format!("{key} is not known")),
            Some(kind) => fault(value, kind).map(|fault| format!("{key}: {fault}")),
        })
        .collect();
    let required = schema["required"].as_array().expect("a list");
    let required = required.iter().map(|key| key.as_str().expect("a text"));
    faults.extend(
        required
            .filter(|key| !of.contains_key(*key))
            .map(|key| format!("{key} is missing")),
    );
    if let Some(listed) = of.get("availability") {
        for one in listed.as_array().expect("a list") {
            let one = one.as_object().expect("written out").clone();
            faults.extend(self::faults(&one, &schema_of("availability")));
        }
    }
    faults
}

fn schema_of(part: &str) -> Value {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    schema[part].clone()
}

/// What Home Assistant would not take of a message, entity by entity.
fn faults_of_message(message: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let written_out = |value: &Value| {
        let mut long = long(value, &schema["abbreviations"]);
        if let Some(Value::Array(listed)) = long.get_mut("availability") {
            for one in listed {
                *one = Value::Object(self::long(one, &schema["abbreviations"]));
            }
        }
        long
    };
    let message = written_out(message);
    let mut faults = faults(&message, &schema["message"]);
    let device = long(&message["device"], &schema["device_abbreviations"]);
    faults.extend(self::faults(&device, &schema["device"]));
    let origin = long(&message["origin"], &schema["origin_abbreviations"]);
    faults.extend(self::faults(&origin, &schema["origin"]));
    let shared = schema["shared_options"].as_array().expect("a list");
    for (name, component) in object(&message["components"]) {
        let mut component = written_out(component);
        let platform = component.remove("platform").expect("a platform");
        let known = &schema["platforms"][platform.as_str().expect("a text")];
        if known.is_null() {
            faults.push(format!("{name}: there is no platform {platform}"));
            continue;
        }
        if component.is_empty() {
            // It removes the entity.
            continue;
        }
        if !component.contains_key("unique_id") {
            faults.push(format!("{name}: unique_id is missing"));
        }
        let units = component.get("device_class").and_then(Value::as_str);
        let units = units.and_then(|class| schema["sensor_units"].get(class));
        if let (Some(units), Some(unit)) = (units, component.get("unit_of_measurement"))
            && !units.as_array().expect("a list").contains(unit)
        {
            faults.push(format!("{name}: {unit} is none of {units}"));
        }
        for option in shared.iter().filter_map(Value::as_str) {
            // What the platform does not know of these is dropped.
            if let Some(value) = message.get(option)
                && !known["keys"][option].is_null()
            {
                component.entry(option).or_insert_with(|| value.clone());
            }
        }
        faults.extend(
            self::faults(&component, known)
                .into_iter()
                .map(|fault| format!("{name}: {fault}")),
        );
    }
    faults
}

#[test]
fn home_assistants_own_schemas_take_whatever_a_device_says() {
    let mut platforms = BTreeSet::new();
    for number in 0..32u8 {
        let abilities = [1, 2, 4, 8, 16].map(|bit| number & bit != 0);
        let stubs = BTreeMap::from([("zone_front_01234567_people".into(), "sensor".into())]);
        let message = document(&subject(abilities), &stubs);
        let message: Value = serde_json::from_slice(&message).expect("JSON");
        assert_eq!(faults_of_message(&message), [""; 0], "{abilities:?}");
        for component in object(&message["cmps"]).values() {
            platforms.insert(component["p"].as_str().expect("a text").to_owned());
        }
    }
    let described = schema_of("platforms");
    let described: BTreeSet<String> = object(&described).keys().cloned().collect();
    assert_eq!(platforms, described, "described, but not used");
}

#[test]
fn a_mistake_in_a_message_is_named() {
    let message: Value = serde_json::from_str(AGREED).expect("JSON");
    assert_eq!(faults_of_message(&message), [""; 0]);
    let mistakes = [
        ("/o/name", json!(7), "name: 7 is no \"text\""),
        (
            "/avty_mode",
            json!("some"),
            "availability_mode: \"some\" is none of",
        ),
        (
            "/cmps/person/dev_cla",
            json!("crowd"),
            "person: device_class: \"crowd\" is none of",
        ),
        (
            "/cmps/person/p",
            json!("person"),
            "person: there is no platform \"person\"",
        ),
        (
            "/cmps/temperature/unit_of_meas",
            json!("C"),
            "temperature: \"C\" is none of",
        ),
        (
            "/cmps/detection/cmd_t",
            json!("a/#"),
            "detection: command_topic: \"a/#\" is no",
        ),
        ("/cmps/camera/avty/0/t", json!(1), "camera: topic: 1 is no"),
    ];
    for (pointer, value, named) in mistakes {
        let mut wrong = message.clone();
        *wrong.pointer_mut(pointer).expect(pointer) = value;
        let faults = faults_of_message(&wrong);
        assert!(
            faults.iter().any(|fault| fault.starts_with(named)),
            "{pointer}: {faults:?}"
        );
    }
    for (component, key, named) in [
        ("activity", "evt_typ", "activity: event_types is missing"),
        ("detection", "cmd_t", "detection: command_topic is missing"),
        ("person", "uniq_id", "person: unique_id is missing"),
    ] {
        let mut wrong = message.clone();
        let entity = wrong["cmps"][component].as_object_mut().expect("an entity");
        let value = entity.remove(key).expect("it is there");
        assert!(
            faults_of_message(&wrong).contains(&named.to_owned()),
            "{named}"
        );
        let entity = wrong["cmps"][component].as_object_mut().expect("an entity");
        entity.insert("tpyo".into(), value);
        let unknown = format!("{component}: tpyo is not known");
        assert!(faults_of_message(&wrong).contains(&unknown), "{unknown}");
    }
}
