//! Home Assistant finds the device by itself: one retained message that describes it and its entities.
//!
//! It is published on every connection, when Home Assistant says that it was started, and when zones or lines change.
//! Home Assistant keeps an entity that merely is missing in a newer message: it is removed by a stub that says nothing but
//! its platform. What an earlier run announced is read from the retained message itself.

mod discovery;
mod remove;

pub use discovery::{Names, Platforms, Subject, document, topic};
pub use remove::remove;

use super::mqtt::conversation::{Assurance, Conversation, Delivery, State};
use crate::config::Invalid;
use crate::publish::topic::validate_prefix;
use crate::zones::{LineConfig, ZoneConfig};
use discovery::{announced, platforms};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Entities of before that are removed by one message; further ones stay until somebody deletes them.
const STUBS_MAX: usize = 128;
/// Home Assistant does not start more often.
const BIRTHS_APART: Duration = Duration::from_secs(1);

/// The `[home_assistant]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether Home Assistant is told of this device.
    pub enabled: bool,
    /// First part of the topics where it listens.
    pub prefix: String,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_prefix("home_assistant.prefix", &self.prefix)
    }
}

/// What Home Assistant was and is told.
#[derive(Debug)]
pub struct Announcement {
    state: Mutex<Told>,
    document: watch::Sender<Vec<u8>>,
}

#[derive(Debug)]
struct Told {
    subject: Subject,
    stubs: Platforms,
    born_at: Option<Instant>,
}

impl Announcement {
    /// Of a device as it is now.
    pub fn new(subject: Subject) -> Self {
        let stubs = Platforms::new();
        let document = watch::Sender::new(document(&subject, &stubs));
        Self {
            state: Mutex::new(Told {
                subject,
                stubs,
                born_at: None,
            }),
            document,
        }
    }

    /// The newest message.
    pub fn document(&self) -> watch::Receiver<Vec<u8>> {
        self.document.subscribe()
    }

    /// Zones and lines have changed.
    pub fn change_places(&self, zones: &[ZoneConfig], lines: &[LineConfig]) {
        let mut told = self.lock();
        let before = platforms(&told.subject);
        told.subject.names = Names::new(zones, lines);
        let mut stubs = std::mem::take(&mut told.stubs);
        stubs.extend(before);
        self.publish(&mut told, stubs);
    }

    /// This is what the broker had retained of an earlier run, or of before the connection was lost.
    fn recall(&self, retained: &[u8]) {
        let mut told = self.lock();
        // What was removed then stays so; no need to say it again.
        self.publish(&mut told, announced(retained));
    }

    /// Home Assistant was started.
    fn greet(&self, now: Instant) {
        let mut told = self.lock();
        let is_new = |at: Instant| now.saturating_duration_since(at) >= BIRTHS_APART;
        if told.born_at.is_none_or(is_new) {
            told.born_at = Some(now);
            self.document.send_modify(|_| {});
        }
    }

    /// Publishes the message with stubs for those of `candidates` that are no more, unless it is what was told already.
    fn publish(&self, told: &mut Told, candidates: Platforms) {
        let present = platforms(&told.subject);
        let gone = candidates
            .into_iter()
            .filter(|(key, _)| !present.contains_key(key));
        told.stubs = gone.take(STUBS_MAX).collect();
        let next = document(&told.subject, &told.stubs);
        self.document.send_if_modified(|document| {
            let is_new = *document != next;
            *document = next;
            is_new
        });
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // No code of ours can panic between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the conversation: it listens to Home Assistant's start and to what the broker has retained of this device.
pub fn connect(config: &Config, announcement: &Arc<Announcement>) -> Conversation {
    let own = topic(&config.prefix, &announcement.lock().subject);
    let status = format!("{}/status", config.prefix);
    // It has nothing to add.
    let (_, remarks) = mpsc::channel(1);
    let deliver = {
        let (announcement, own, status) = (announcement.clone(), own.clone(), status.clone());
        move |delivery: Delivery<'_>| {
            let Delivery::Message(heard) = delivery else {
                return;
            };
            if heard.is_retained && heard.topic == own.as_bytes() {
                announcement.recall(&heard.payload);
            }
            // A retained one is older than this connection, on which everything is told anyway.
            let is_birth = heard.topic == status.as_bytes() && heard.payload == b"online";
            if is_birth && !heard.is_retained {
                announcement.greet(Instant::now());
            }
        }
    };
    Conversation {
        filters: vec![status, own.clone()],
        states: vec![State {
            topic: own,
            document: announcement.document(),
            assurance: Assurance::Confirmed,
        }],
        remarks,
        deliver: Box::new(deliver),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::mqtt::message::Heard;
    use serde_json::Value;

    fn subject(zones: &[&str]) -> Subject {
        Subject {
            prefix: "site".into(),
            device: "pi".into(),
            camera: "door".into(),
            names: Names {
                zones: zones.iter().map(|name| (*name).into()).collect(),
                lines: Vec::new(),
            },
            has_statistics: false,
            is_updatable: false,
            waits_for_owner: false,
            has_snapshots: false,
            takes_commands: false,
        }
    }

    fn stubs(document: &[u8]) -> Vec<(String, String)> {
        let document: Value = serde_json::from_slice(document).expect("JSON");
        let components = document["cmps"].as_object().expect("components");
        components
            .iter()
            .filter(|(_, component)| component.as_object().is_some_and(|keys| keys.len() == 1))
            .map(|(key, component)| (key.clone(), component["p"].as_str().expect("text").into()))
            .collect()
    }

    fn hear(conversation: &mut Conversation, topic: &str, payload: &[u8], is_retained: bool) {
        (conversation.deliver)(Delivery::Message(&Heard {
            topic: topic.into(),
            payload: payload.into(),
            is_retained,
            ..Heard::default()
        }));
    }

    #[test]
    fn what_an_earlier_run_announced_and_is_no_more_is_removed_once() {
        let earlier = Announcement::new(subject(&["yard", "gate"]));
        let retained = earlier.document().borrow().clone();
        let config = Config {
            enabled: true,
            prefix: "homeassistant".into(),
        };
        let announcement = Arc::new(Announcement::new(subject(&["yard"])));
        let mut conversation = connect(&config, &announcement);
        let own = conversation.states[0].topic.clone();
        let mut document = announcement.document();
        assert!(stubs(&document.borrow_and_update()).is_empty());
        hear(&mut conversation, &own, &retained, false);
        assert!(!document.has_changed().expect("open"), "an echo of ours");
        hear(&mut conversation, &own, &retained, true);
        let next = document.borrow_and_update().clone();
        let gone = stubs(&next);
        assert_eq!(gone.len(), 2, "{gone:?}");
        assert!(gone[0].0.starts_with("zone_gate_"), "{gone:?}");
        assert_eq!(
            [gone[0].1.as_str(), gone[1].1.as_str()],
            ["binary_sensor", "sensor"]
        );
        // The next connection gets this one back.
        hear(&mut conversation, &own, &next, true);
        assert!(stubs(&document.borrow_and_update()).is_empty());
    }

    #[test]
    fn a_zone_that_goes_and_comes_back_on_reload_is_removed_and_announced_again() {
        let announcement = Announcement::new(subject(&["yard"]));
        let before = announcement.document().borrow().clone();
        announcement.change_places(&[], &[]);
        assert_eq!(stubs(&announcement.document().borrow()).len(), 2);
        let mut told = announcement.lock();
        told.subject.names.zones = vec!["yard".into()];
        let stubs = told.stubs.clone();
        announcement.publish(&mut told, stubs);
        assert_eq!(*announcement.document().borrow(), before);
    }

    #[test]
    fn home_assistants_start_is_answered_at_most_once_a_second() {
        let config = Config {
            enabled: true,
            prefix: "ha".into(),
        };
        let announcement = Arc::new(Announcement::new(subject(&[])));
        let mut conversation = connect(&config, &announcement);
        let mut document = announcement.document();
        let mut answers = |payload: &[u8], is_retained| {
            hear(&mut conversation, "ha/status", payload, is_retained);
            let is_new = document.has_changed().expect("open");
            document.borrow_and_update();
            is_new
        };
        assert!(!answers(b"offline", false));
        assert!(!answers(b"online", true));
        assert!(answers(b"online", false));
        assert!(!answers(b"online", false), "within the same second");
        let later = Instant::now() + BIRTHS_APART;
        announcement.greet(later);
        assert!(document.has_changed().expect("open"));
    }

    #[test]
    fn garbage_in_the_retained_message_removes_nothing_and_is_bounded() {
        let announcement = Announcement::new(subject(&["yard"]));
        let before = announcement.document().borrow().clone();
        let deep = "[".repeat(60_000);
        for garbage in [
            "",
            "x",
            "{}",
            r#"{"cmps": 1}"#,
            r#"{"cmps": {"a": 1, "b/c": {"p": "sensor", "x": 1}, "d": {"p": "siren", "x": 1}, "e": {"p": "sensor"}}}"#,
            &deep,
        ] {
            announcement.recall(garbage.as_bytes());
            assert_eq!(*announcement.document().borrow(), before, "{garbage:.80}");
        }
        let many: Vec<String> = (0..1000)
            .map(|number| format!(r#""x{number}":{{"p":"sensor","a":1}}"#))
            .collect();
        announcement.recall(format!("{{\"components\":{{{}}}}}", many.join(",")).as_bytes());
        assert_eq!(stubs(&announcement.document().borrow()).len(), STUBS_MAX);
    }
}
