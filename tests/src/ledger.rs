//! What a subscriber has heard of a device's events: nothing may be missing, and order is kept.

use crate::broker::Heard;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The events of a topic so far, by number.
pub struct Ledger {
    topic: String,
    /// Events by their number on the device.
    pub events: BTreeMap<u64, Value>,
    /// Events that came again.
    pub repeated: u64,
    /// Events that came after later ones.
    pub late: u64,
    may_be_late: bool,
}

impl Ledger {
    /// An empty one for the events of this topic.
    pub fn new(topic: &str) -> Self {
        Self {
            topic: topic.into(),
            events: BTreeMap::new(),
            repeated: 0,
            late: 0,
            may_be_late: false,
        }
    }

    /// The same for events that pass another broker, which may mix them up.
    pub fn in_any_order(topic: &str) -> Self {
        Self {
            may_be_late: true,
            ..Self::new(topic)
        }
    }

    /// Notes an event down: its number, if it is new. Other topics' messages are passed over.
    pub fn take(&mut self, heard: &Heard) -> Option<u64> {
        let event = heard.document(&self.topic)?;
        let sequence = event["sequence"].as_u64().expect("a number");
        if let Some(known) = self.events.get(&sequence) {
            assert_eq!(known, &event, "a number was given twice");
            self.repeated += 1;
            return None;
        }
        let newest = self.events.keys().next_back();
        let is_late = newest.is_some_and(|newest| *newest > sequence);
        assert!(
            self.may_be_late || !is_late,
            "{sequence} comes after {newest:?}"
        );
        self.late += u64::from(is_late);
        self.events.insert(sequence, event);
        Some(sequence)
    }

    /// Numbers have no gaps; of every run, every object's events are in order: it is new before anything else, enters a zone
    /// before it leaves it, has left all of them before it ends, and nothing comes after its end.
    pub fn check(&self) {
        let numbers: Vec<u64> = self.events.keys().copied().collect();
        assert_eq!(
            numbers,
            (0..numbers.len() as u64).collect::<Vec<_>>(),
            "a gap"
        );
        let mut open: BTreeMap<(String, u64), &str> = BTreeMap::new();
        let mut within: BTreeMap<(String, u64), BTreeSet<&str>> = BTreeMap::new();
        for event in self.events.values() {
            let run = event["started_at"].as_str().expect("a text").to_owned();
            let id = event["track"]["id"].as_u64().expect("a number");
            let kind = event["type"].as_str().expect("a text");
            let zones = within.entry((run.clone(), id)).or_default();
            let zone = event["zone"]["name"].as_str().unwrap_or_default();
            let is_in_turn = match kind {
                "zone_enter" => zones.insert(zone),
                "zone_loiter" => zones.contains(zone),
                "zone_leave" => zones.remove(zone),
                "end" => zones.is_empty(),
                _ => true,
            };
            assert!(is_in_turn, "within {zones:?}: {event}");
            let before = open.insert((run, id), kind);
            assert_eq!(before.is_none(), kind == "new", "{kind} after {before:?}");
            assert_ne!(before, Some("end"), "{event}");
        }
    }
}
