//! The retained document that says what commands can change, as it is now: docs/schema/settings-1.json.
//!
//! Readers must ignore keys that they do not know; keys are added, but never removed or changed, within a schema
//! version.

use crate::config::Config;
use crate::zones::{LineConfig, ZoneConfig};
use serde::Serialize;
use tokio::sync::watch;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    score_min: f32,
    zones: &'a [ZoneConfig],
    lines: &'a [LineConfig],
}

/// Writes the document when something changes.
#[derive(Debug)]
pub struct Reporter {
    document: watch::Sender<Vec<u8>>,
}

impl Reporter {
    /// Of the settings at the start.
    pub fn new(config: &Config) -> Self {
        Self {
            document: watch::Sender::new(document(config)),
        }
    }

    /// The newest document.
    pub fn document(&self) -> watch::Receiver<Vec<u8>> {
        self.document.subscribe()
    }

    /// These are in effect now. Nothing is told if they were before.
    pub fn tell(&self, config: &Config) {
        let next = document(config);
        self.document.send_if_modified(|told| {
            let is_new = *told != next;
            *told = next;
            is_new
        });
    }
}

fn document(config: &Config) -> Vec<u8> {
    let document = Document {
        schema: SCHEMA,
        score_min: config.model.score_min,
        zones: &config.zones,
        lines: &config.lines,
    };
    serde_json::to_vec(&document).expect("numbers and strings always become JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_once_and_zones_come_as_they_are_written() {
        let mut config = Config::load(None, []).expect("valid");
        let reporter = Reporter::new(&config);
        let mut document = reporter.document();
        assert_eq!(
            document.borrow_and_update()[..],
            *br#"{"schema":1,"score_min":0.0,"zones":[],"lines":[]}"#
        );
        reporter.tell(&config);
        assert!(!document.has_changed().expect("the reporter is there"));
        config.model.score_min = 0.55;
        let yard = r#"{"name":"yard","points":[[0.1,0.5],[0.6,0.5],[0.6,1.0]],"score_min":0.0,"height_min":0.25,"height_max":1.0,"loiter_s":0.0}"#;
        config.zones = vec![serde_json::from_str(yard).expect("a zone")];
        reporter.tell(&config);
        assert!(document.has_changed().expect("the reporter is there"));
        let text = String::from_utf8(document.borrow().clone()).expect("text");
        let expected = format!(r#"{{"schema":1,"score_min":0.55,"zones":[{yard}],"lines":[]}}"#);
        assert_eq!(text, expected);
    }
}
