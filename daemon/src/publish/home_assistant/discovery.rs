//! The message that describes a device to Home Assistant (device discovery, 2024.11 or later).
//!
//! Names of zones and lines have letters, digits, `.`, `_` and `-` only, so they may stand between quotes in a template.

use crate::publish::topic as topics;
use crate::zones::{LineConfig, ZoneConfig};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use ternwatch_bundle::hex;

/// Entities by their keys: which platform of Home Assistant each is on.
pub type Platforms = BTreeMap<String, String>;

/// The platforms that are used here.
const PLATFORMS: [&str; 8] = [
    "binary_sensor",
    "sensor",
    "event",
    "update",
    "image",
    "switch",
    "button",
    "number",
];
/// A key of an entity is not longer: a kind, a name, a short hash, a direction.
const KEY_BYTES_MAX: usize = 96;
/// Digits of the hash that tells identifiers apart.
const HASH_DIGITS: usize = 8;
/// Of the events that a camera publishes, those that are worth an automation.
const EVENT_TYPES: [&str; 5] = [
    "new",
    "zone_enter",
    "zone_loiter",
    "zone_leave",
    "line_cross",
];

/// What is described.
#[derive(Clone, Debug)]
pub struct Subject {
    /// `mqtt.prefix`.
    pub prefix: String,
    /// `device.id`.
    pub device: String,
    /// `camera.name`.
    pub camera: String,
    /// What the zones and lines are called.
    pub names: Names,
    /// Whether the device publishes statistics.
    pub has_statistics: bool,
    /// Whether its model can be updated, so that it publishes where that is.
    pub is_updatable: bool,
    /// Whether a model that is offered waits until somebody has it installed.
    pub waits_for_owner: bool,
    /// Whether it publishes pictures.
    pub has_snapshots: bool,
    /// Whether it takes commands.
    pub takes_commands: bool,
}

/// What the zones and lines are called.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Zones.
    pub zones: Vec<String>,
    /// Lines.
    pub lines: Vec<String>,
}

impl Names {
    /// Of checked settings.
    pub fn new(zones: &[ZoneConfig], lines: &[LineConfig]) -> Self {
        Self {
            zones: zones.iter().map(|zone| zone.name.clone()).collect(),
            lines: lines.iter().map(|line| line.name.clone()).collect(),
        }
    }
}

impl Subject {
    /// Letters, digits, `_` and `-` only, and another one for each prefix and device.
    fn identifier(&self) -> String {
        let whole = format!("{}/{}", self.prefix, self.device);
        format!("ternwatch_{}_{}", plain(&self.device), short_hash(&whole))
    }

    fn counts(&self) -> String {
        topics::counts(&self.prefix, &self.device, &self.camera)
    }

    fn camera_state(&self) -> String {
        topics::camera_state(&self.prefix, &self.device, &self.camera)
    }

    fn command(&self, name: &str) -> String {
        let commands = topics::command(&self.prefix, &self.device, &self.camera);
        format!("{commands}/{name}")
    }

    fn device_state(&self) -> String {
        topics::state(&self.prefix, &self.device)
    }
}

/// Where the message goes.
pub fn topic(prefix: &str, subject: &Subject) -> String {
    format!("{prefix}/device/{}/config", subject.identifier())
}

/// The message, as JSON. `stubs` are entities that are no more.
pub fn document(subject: &Subject, stubs: &Platforms) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    // First of all: Home Assistant stops at the first entity that it is still busy with.
    let mut entries: Vec<(String, Value)> = stubs
        .iter()
        .map(|(key, platform)| (key.clone(), json!({ "p": platform })))
        .collect();
    entries.extend(
        components(subject)
            .into_iter()
            .map(|component| component.entry(subject)),
    );
    let message = Message {
        dev: json!({
            "ids": [subject.identifier()],
            "name": subject.device,
            "mf": "Ternwatch",
            "mdl": "ternwatchd",
            "sw": version,
        }),
        o: json!({ "name": "Ternwatch", "sw": version }),
        // What most entities have in common; the others say otherwise.
        stat_t: subject.counts(),
        avty: json!([
            { "t": subject.device_state() },
            {
                "t": subject.camera_state(),
                "val_tpl": "{{ 'online' if value_json.state == 'ok' else 'offline' }}",
            },
        ]),
        avty_mode: "all",
        cmps: InOrder(entries),
    };
    serde_json::to_vec(&message).expect("strings always become JSON")
}

/// The entities of a device, and their platforms.
pub(super) fn platforms(subject: &Subject) -> Platforms {
    components(subject)
        .into_iter()
        .map(|component| (component.key, component.platform.into()))
        .collect()
}

/// The entities that a message announces, stubs left out. What is not one of ours by its looks is passed over.
pub(super) fn announced(message: &[u8]) -> Platforms {
    let message: Value = serde_json::from_slice(message).unwrap_or_default();
    let components = message.get("cmps").or_else(|| message.get("components"));
    let components = components.and_then(Value::as_object);
    components
        .into_iter()
        .flatten()
        .filter_map(|(key, component)| {
            let component = component.as_object().filter(|keys| keys.len() > 1)?;
            let platform = component.get("p").or_else(|| component.get("platform"))?;
            let platform = platform.as_str()?;
            let is_ours = key.len() <= KEY_BYTES_MAX
                && key
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
                && PLATFORMS.contains(&platform);
            is_ours.then(|| (key.clone(), platform.into()))
        })
        .collect()
}

#[derive(Serialize)]
struct Message {
    dev: Value,
    o: Value,
    stat_t: String,
    avty: Value,
    avty_mode: &'static str,
    cmps: InOrder,
}

/// A JSON object whose keys stay in this order.
struct InOrder(Vec<(String, Value)>);

impl Serialize for InOrder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// An entity.
struct Component {
    platform: &'static str,
    key: String,
    name: String,
    settings: Map<String, Value>,
}

impl Component {
    fn new(
        platform: &'static str,
        key: impl Into<String>,
        name: impl Into<String>,
        settings: Value,
    ) -> Self {
        let Value::Object(settings) = settings else {
            unreachable!("settings are written as objects below");
        };
        Self {
            platform,
            key: key.into(),
            name: name.into(),
            settings,
        }
    }

    fn entry(self, subject: &Subject) -> (String, Value) {
        let mut entity = self.settings;
        let id = format!("{}_{}", subject.identifier(), self.key);
        entity.insert("p".into(), self.platform.into());
        entity.insert("name".into(), self.name.into());
        entity.insert("uniq_id".into(), id.into());
        (self.key, Value::Object(entity))
    }
}

fn components(subject: &Subject) -> Vec<Component> {
    let mut components = Vec::from(people());
    for zone in &subject.names.zones {
        components.extend(in_zone(zone));
    }
    for line in &subject.names.lines {
        components.extend(over_line(line));
    }
    components.push(activity(subject));
    components.push(camera_problem(subject));
    if subject.has_statistics {
        components.extend(statistics(subject));
    }
    if subject.is_updatable {
        components.push(model(subject));
    }
    if subject.has_snapshots {
        components.push(snapshot(subject));
    }
    if subject.takes_commands {
        components.extend([detection(subject), threshold(subject)]);
    }
    if subject.has_snapshots && subject.takes_commands {
        components.push(take_snapshot(subject));
    }
    components
}

fn people() -> [Component; 2] {
    [
        Component::new(
            "binary_sensor",
            "person",
            "Person",
            json!({
                "dev_cla": "occupancy",
                "val_tpl": "{{ 'ON' if value_json.in_view > 0 else 'OFF' }}",
            }),
        ),
        Component::new(
            "sensor",
            "people",
            "People in view",
            json!({
                "stat_cla": "measurement",
                "ic": "mdi:account-multiple",
                "val_tpl": "{{ value_json.in_view }}",
            }),
        ),
    ]
}

fn in_zone(zone: &str) -> [Component; 2] {
    // Counts of before a reload may know nothing of the zone.
    let counted = format!("(value_json.zones['{zone}'] | default({{'occupancy': 0}})).occupancy");
    let id = format!("zone_{}_{}", plain(zone), short_hash(zone));
    [
        Component::new(
            "binary_sensor",
            format!("{id}_occupied"),
            format!("{zone} occupied"),
            json!({
                "dev_cla": "occupancy",
                "val_tpl": format!("{{{{ 'ON' if {counted} > 0 else 'OFF' }}}}"),
            }),
        ),
        Component::new(
            "sensor",
            format!("{id}_people"),
            format!("{zone} people"),
            json!({
                "stat_cla": "measurement",
                "ic": "mdi:account-multiple",
                "val_tpl": format!("{{{{ {counted} }}}}"),
            }),
        ),
    ]
}

fn over_line(line: &str) -> [Component; 2] {
    let id = format!("line_{}_{}", plain(line), short_hash(line));
    ["left", "right"].map(|side| {
        let counted = format!("(value_json.lines['{line}'] | default({{}})).to_{side}");
        Component::new(
            "sensor",
            format!("{id}_to_{side}"),
            format!("{line} to the {side}"),
            json!({
                "stat_cla": "total_increasing",
                "ic": format!("mdi:arrow-{side}"),
                "val_tpl": format!("{{{{ {counted} | default(none) }}}}"),
            }),
        )
    })
}

fn activity(subject: &Subject) -> Component {
    // The others, updates and ends, become an empty text, which is passed over.
    let types = EVENT_TYPES.map(|kind| format!("'{kind}'")).join(",");
    let template = format!(
        "{{% if value_json.type in [{types}] %}}{{{{ {{'event_type': value_json.type, \
         'sequence': value_json.sequence, 'captured_at': value_json.captured_at, \
         'track': value_json.track.id, \
         'class': value_json.track.class, \
         'zone': (value_json.zone | default({{}})).name | default(none), \
         'line': (value_json.line | default({{}})).name | default(none), \
         'direction': (value_json.line | default({{}})).direction | default(none)}} | to_json }}}}{{% endif %}}"
    );
    Component::new(
        "event",
        "activity",
        "Activity",
        json!({
            "stat_t": topics::events(&subject.prefix, &subject.device, &subject.camera),
            "evt_typ": EVENT_TYPES,
            "ic": "mdi:walk",
            "val_tpl": template,
        }),
    )
}

fn camera_problem(subject: &Subject) -> Component {
    Component::new(
        "binary_sensor",
        "camera",
        "Camera",
        json!({
            "stat_t": subject.camera_state(),
            "avty": only_device(subject),
            "dev_cla": "problem",
            "ent_cat": "diagnostic",
            "json_attr_t": subject.camera_state(),
            "val_tpl": "{{ 'ON' if value_json.state == 'away' else 'OFF' }}",
        }),
    )
}

fn statistics(subject: &Subject) -> Vec<Component> {
    let sensor = |key: &str, name: &str, path: &str, mut settings: Value| {
        settings["stat_t"] = topics::statistics(&subject.prefix, &subject.device).into();
        settings["avty"] = only_device(subject);
        settings["stat_cla"] = "measurement".into();
        settings["ent_cat"] = "diagnostic".into();
        settings["val_tpl"] = format!("{{{{ {path} | default(none) }}}}").into();
        Component::new("sensor", key, name, settings)
    };
    vec![
        sensor(
            "frame_rate",
            "Frame rate",
            "value_json.frames_per_second",
            json!({ "unit_of_meas": "fps", "ic": "mdi:filmstrip", "sug_dsp_prc": 1 }),
        ),
        sensor(
            "inference_latency",
            "Inference latency",
            "(value_json.inference_ms | default({})).p95",
            json!({ "dev_cla": "duration", "unit_of_meas": "ms", "sug_dsp_prc": 0 }),
        ),
        sensor(
            "temperature",
            "Temperature",
            "value_json.temperature_c",
            json!({ "dev_cla": "temperature", "unit_of_meas": "°C", "sug_dsp_prc": 0 }),
        ),
        sensor(
            "memory",
            "Memory",
            "value_json.memory_bytes",
            json!({ "dev_cla": "data_size", "unit_of_meas": "B" }),
        ),
        sensor(
            "processor",
            "Processor",
            "(value_json.processor_share * 100) | round(1)",
            json!({ "unit_of_meas": "%", "ic": "mdi:chip", "sug_dsp_prc": 0 }),
        ),
        sensor(
            "events_waiting",
            "Events waiting",
            "value_json.events_waiting",
            json!({ "ic": "mdi:tray-full" }),
        ),
    ]
}

/// There is a command only where an offer waits for one: else a device takes a model from whoever offers it.
fn model(subject: &Subject) -> Component {
    let template = "{% set m = value_json.model | default({}) %}\
        {% set o = value_json.offered | default({}) %}\
        {% set p = value_json.progress | default(none) %}\
        {% set busy = value_json.state in ['queued','downloading','verifying','staged','trial'] %}\
        {{ {'installed_version': value_json.running.version | string, \
        'latest_version': (m.version if busy and m.version is defined else o.version | default(value_json.running.version)) | string, \
        'title': value_json.running.name, \
        'update_percentage': (100 * p.received / p.total) | round if busy and p is not none else none, \
        'in_progress': busy} | to_json }}";
    let mut settings = json!({
        "stat_t": format!("{}/{}/model", subject.prefix, subject.device),
        "avty": only_device(subject),
        "ent_cat": "diagnostic",
        "val_tpl": template,
    });
    if subject.waits_for_owner && subject.takes_commands {
        settings["cmd_t"] = subject.command("install-model").into();
        settings["pl_inst"] = "{}".into();
    }
    Component::new("update", "model", "Model", settings)
}

/// The newest picture stays when the camera is away.
fn snapshot(subject: &Subject) -> Component {
    Component::new(
        "image",
        "snapshot",
        "Snapshot",
        json!({
            "image_topic": topics::snapshot(&subject.prefix, &subject.device, &subject.camera),
            "content_type": "image/jpeg",
            "avty": only_device(subject),
        }),
    )
}

/// Answers go to where nobody asked for them: Home Assistant names no response topic, and looks at the state instead.
fn detection(subject: &Subject) -> Component {
    Component::new(
        "switch",
        "detection",
        "Detection",
        json!({
            "stat_t": topics::detection(&subject.prefix, &subject.device, &subject.camera),
            "cmd_t": subject.command("detection"),
            "avty": only_device(subject),
            "ic": "mdi:motion-sensor",
            "pl_on": "{\"on\":true}",
            "pl_off": "{\"on\":false}",
            "stat_on": "ON",
            "stat_off": "OFF",
            "val_tpl": "{{ 'ON' if value_json.on else 'OFF' }}",
        }),
    )
}

/// As it is set: 0 stands for what the model recommends.
fn threshold(subject: &Subject) -> Component {
    Component::new(
        "number",
        "threshold",
        "Threshold",
        json!({
            "stat_t": topics::settings(&subject.prefix, &subject.device, &subject.camera),
            "cmd_t": subject.command("threshold"),
            "cmd_tpl": "{\"score_min\":{{ value }}}",
            "avty": only_device(subject),
            "ent_cat": "config",
            "ic": "mdi:tune",
            "min": 0,
            "max": 1,
            "step": 0.01,
            "mode": "box",
            "val_tpl": "{{ value_json.score_min }}",
        }),
    )
}

fn take_snapshot(subject: &Subject) -> Component {
    Component::new(
        "button",
        "take_snapshot",
        "Take a snapshot",
        json!({
            "cmd_t": subject.command("snapshot"),
            "pl_prs": "{}",
            "ic": "mdi:camera",
        }),
    )
}

/// For what is known whether the camera delivers or not.
fn only_device(subject: &Subject) -> Value {
    json!([{ "t": subject.device_state() }])
}

/// Without `.`, which identifiers must not have.
fn plain(name: &str) -> String {
    name.replace('.', "_")
}

/// Tells names apart that are plain the same.
fn short_hash(name: &str) -> String {
    let mut digits = hex::encode(&Sha256::digest(name.as_bytes()));
    digits.truncate(HASH_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn subject(device: &str, zones: Vec<String>, lines: Vec<String>) -> Subject {
        Subject {
            prefix: "site".into(),
            device: device.into(),
            camera: "door".into(),
            names: Names { zones, lines },
            has_statistics: true,
            is_updatable: true,
            waits_for_owner: true,
            has_snapshots: true,
            takes_commands: true,
        }
    }

    #[test]
    fn identifiers_are_plain_and_never_the_same() {
        let names = || vec!["a.b".into(), "a_b".into(), "a-b".into()];
        let mut seen = BTreeSet::new();
        for device in ["pi.1", "pi_1", "pi"] {
            let subject = subject(device, names(), names());
            let message: Value =
                serde_json::from_slice(&document(&subject, &Platforms::new())).expect("JSON");
            let components = message["cmps"].as_object().expect("components");
            assert_eq!(components.len(), platforms(&subject).len());
            for (key, component) in components {
                let id = component["uniq_id"].as_str().expect("a text");
                let is_plain = |text: &str| {
                    text.bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
                };
                assert!(is_plain(id) && is_plain(key), "{id}");
                assert!(key.len() <= KEY_BYTES_MAX, "{key}");
                assert!(seen.insert(id.to_owned()), "{id} twice");
            }
            let topic = topic("homeassistant", &subject);
            assert!(seen.insert(topic.clone()), "{topic} twice");
        }
    }

    #[test]
    fn the_largest_message_can_come_back_from_the_broker() {
        let long = |kind: char| {
            (0..16)
                .map(|number| format!("{kind}{number:.<63}"))
                .collect::<Vec<String>>()
        };
        let subject = Subject {
            prefix: "p".repeat(128),
            device: "d".repeat(64),
            camera: "c".repeat(64),
            ..subject("", long('z'), long('l'))
        };
        let longest = |number: usize| {
            let key = format!("{number:x<KEY_BYTES_MAX$}");
            (key, "binary_sensor".to_owned())
        };
        let stubs: Platforms = (0..super::super::STUBS_MAX).map(longest).collect();
        let bytes = document(&subject, &stubs).len();
        // Packets that come in are bounded: see INCOMING_PACKET_BYTES_MAX. The topic and the properties take 300 at most.
        assert!(bytes + 512 < 64 << 10, "{bytes}");
        assert!(bytes > 30 << 10, "{bytes}");
        assert!(announced(&document(&subject, &stubs)).len() > 70);
    }

    #[test]
    fn stubs_come_first() {
        let stubs = Platforms::from([("zz".to_owned(), "sensor".to_owned())]);
        let message = document(&subject("pi", Vec::new(), Vec::new()), &stubs);
        let text = String::from_utf8(message).expect("text");
        let place = |key: &str| text.find(&format!("\"{key}\":{{")).expect("there");
        assert!(place("zz") < place("person"), "{text}");
    }
}
