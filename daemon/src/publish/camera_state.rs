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
    last: Mutex<Option<(Condition, String)>>,
    document: watch::Sender<Vec<u8>>,
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
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match last.as_ref() {
            Some((before, since)) if *before == condition => since.clone(),
            _ => now.rfc3339(),
        };
        let (state, reason) = match condition {
            Condition::Ok => ("ok", None),
            Condition::Away => ("away", Some(reason.as_str())),
        };
        let document = Document {
            schema: SCHEMA,
            camera: &self.camera,
            state,
            reason,
            since: &since,
        };
        let bytes = serde_json::to_vec(&document).expect("strings always become JSON");
        *last = Some((condition, since));
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
            monotonic_ns: 0,
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
}
