//! The retained document that says whether the camera delivers: docs/schema/camera-state-1.json.
//!
//! Readers must ignore keys that they do not know; keys are added, but never removed or changed, within a schema
//! version.

use crate::clock::Timestamp;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;
/// A reason is cut off after so many characters.
const REASON_CHARS_MAX: usize = 500;
/// A wall clock that moves by more was set.
const CLOCK_SLACK_NS: u128 = 1_000_000_000;

/// How it is with the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It delivers frames.
    Ok,
    /// It failed, or was never there, and is opened again and again.
    Away,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    camera: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    since: &'a str,
}

/// Writes the document when something changes.
#[derive(Debug)]
pub struct Reporter {
    camera: String,
    last: Mutex<Option<Told>>,
    document: watch::Sender<Vec<u8>>,
}

/// What the document says.
#[derive(Debug)]
struct Told {
    condition: Condition,
    reason: String,
    /// Since when, on the clock that nobody sets.
    since_monotonic_ns: u64,
    /// What the wall clock was ahead of that one.
    ahead_ns: i128,
}

impl Told {
    fn since(&self) -> Timestamp {
        Timestamp {
            realtime_ns: i128::from(self.since_monotonic_ns) + self.ahead_ns,
            monotonic_ns: self.since_monotonic_ns,
        }
    }

    /// Follows a wall clock that was set; tells whether it was. A board without a clock of its own begins in the past.
    fn follow(&mut self, now: Timestamp) -> bool {
        let ahead_ns = now.realtime_ns - i128::from(now.monotonic_ns);
        let was_set = ahead_ns.abs_diff(self.ahead_ns) > CLOCK_SLACK_NS;
        if was_set {
            self.ahead_ns = ahead_ns;
        }
        was_set
    }
}

impl Reporter {
    /// Of the camera of this name. The document is empty until it is known how it is.
    pub fn new(camera: &str) -> Self {
        Self {
            camera: camera.into(),
            last: Mutex::new(None),
            document: watch::Sender::new(Vec::new()),
        }
    }

    /// The newest document.
    pub fn document(&self) -> watch::Receiver<Vec<u8>> {
        self.document.subscribe()
    }

    /// It is so `now`, because of `reason` if it is away. Nothing is written if it was so before.
    pub fn tell(&self, condition: Condition, reason: &str, now: Timestamp) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.take().filter(|told| told.condition == condition);
        let mut told = before.unwrap_or_else(|| Told {
            condition,
            reason: String::new(),
            since_monotonic_ns: now.monotonic_ns,
            ahead_ns: now.realtime_ns - i128::from(now.monotonic_ns),
        });
        told.reason = reason.chars().take(REASON_CHARS_MAX).collect();
        told.follow(now);
        self.write(last.insert(told));
    }

    /// Writes the document again if the wall clock was set before `now`, which says something else about then, too.
    pub fn follow_clock(&self, now: Timestamp) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = last.as_mut()
            && told.follow(now)
        {
            self.write(told);
        }
    }

    fn write(&self, told: &Told) {
        let (state, reason) = match told.condition {
            Condition::Ok => ("ok", None),
            Condition::Away => ("away", Some(told.reason.as_str())),
        };
        let document = Document {
            schema: SCHEMA,
            camera: &self.camera,
            state,
            reason,
            since: &told.since().rfc3339(),
        };
        let bytes = serde_json::to_vec(&document).expect("strings always become JSON");
        self.document.send_if_modified(|told| {
            let is_new = *told != bytes;
            *told = bytes;
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i128) -> Timestamp {
        Timestamp {
            realtime_ns: seconds * 1_000_000_000,
            monotonic_ns: seconds as u64 * 1_000_000_000,
        }
    }

    #[test]
    fn a_state_begins_when_it_changes_and_not_when_its_reason_does() {
        let reporter = Reporter::new("door");
        let mut document = reporter.document();
        assert!(document.borrow().is_empty(), "nothing is known yet");
        let mut told = || {
            let is_new = document.has_changed().expect("the reporter is there");
            let bytes = document.borrow_and_update().clone();
            is_new.then(|| String::from_utf8(bytes).expect("text"))
        };
        reporter.tell(Condition::Away, "unplugged", at(0));
        let away = r#"{"schema":1,"camera":"door","state":"away","reason":"unplugged","since":"1970-01-01T00:00:00.000000Z"}"#;
        assert_eq!(told().as_deref(), Some(away));
        reporter.tell(Condition::Away, "unplugged", at(1));
        assert_eq!(told(), None, "nothing new");
        reporter.tell(Condition::Away, "silent", at(2));
        assert_eq!(told(), Some(away.replace("unplugged", "silent")));
        reporter.tell(Condition::Ok, "", at(3));
        let ok =
            r#"{"schema":1,"camera":"door","state":"ok","since":"1970-01-01T00:00:03.000000Z"}"#;
        assert_eq!(told().as_deref(), Some(ok));
        reporter.tell(Condition::Away, &"x".repeat(10_000), at(4));
        assert!(told().expect("new").len() < 700);
    }

    #[test]
    fn a_clock_that_is_set_says_since_when_it_was_so() {
        let reporter = Reporter::new("door");
        let mut document = reporter.document();
        let mut since = || {
            let is_new = document.has_changed().expect("the reporter is there");
            let bytes = document.borrow_and_update().clone();
            let told: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            is_new.then(|| told["since"].as_str().map(String::from).expect("a text"))
        };
        reporter.follow_clock(at(0));
        assert!(reporter.document().borrow().is_empty(), "nothing to tell");
        // Ten seconds after the board started it is 1970.
        reporter.tell(Condition::Away, "unplugged", at(10));
        assert_eq!(since().as_deref(), Some("1970-01-01T00:00:10.000000Z"));
        let slow = |timestamp: Timestamp, by_ns| Timestamp {
            realtime_ns: timestamp.realtime_ns + by_ns,
            ..timestamp
        };
        reporter.follow_clock(slow(at(11), 900_000_000));
        reporter.tell(Condition::Away, "unplugged", slow(at(12), -900_000_000));
        assert_eq!(
            since(),
            None,
            "clocks are read one after the other, and drift"
        );
        let years_ns = 1_795_502_400_000_000_000;
        reporter.follow_clock(slow(at(20), years_ns));
        assert_eq!(since().as_deref(), Some("2026-11-24T06:40:10.000000Z"));
        reporter.tell(Condition::Ok, "", slow(at(30), years_ns));
        assert_eq!(since().as_deref(), Some("2026-11-24T06:40:30.000000Z"));
        reporter.tell(Condition::Ok, "", at(40));
        assert_eq!(since().as_deref(), Some("1970-01-01T00:00:30.000000Z"));
    }
}
