//! What was seen leaves the device: events, counts and, if wanted, a document a frame; over MQTT and, if wanted, to
//! standard output. So do pictures, if wanted, and how the device and its camera are doing, over MQTT only.

pub mod about;
pub mod camera_state;
pub mod counts;
pub mod event;
pub mod home_assistant;
pub mod latest;
pub mod mqtt;
pub mod outbox;
pub mod payload;
pub mod queue;
pub mod settings;
pub mod statistics;
pub mod topic;

use crate::config::{Invalid, in_range};
use crate::snapshot::{self, Snapshot};
use latest::Latest;
use outbox::{Event, Outbox};
use queue::Queue;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The `[publish]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether the detections of every frame are published.
    pub frames: bool,
    /// Seconds after which the broker drops an event that a subscriber did not fetch; 0: never.
    pub event_expiry_s: u32,
    /// Seconds between two documents about the device itself; 0: none.
    pub statistics_s: u32,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        in_range(
            "publish.event_expiry_s",
            self.event_expiry_s,
            0..=31_536_000,
        )?;
        in_range("publish.statistics_s", self.statistics_s, 0..=86_400)
    }
}

/// The `[stdout]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// Whether documents are written to standard output too.
    pub enabled: bool,
}

/// A document on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// The detections of a frame.
    Frame(Vec<u8>),
    /// Something that happened.
    Event(Event),
    /// How many are where.
    Counts(Vec<u8>),
}

impl Document {
    /// As JSON.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Frame(document) | Self::Counts(document) => document,
            Self::Event(event) => &event.document,
        }
    }
}

/// What waits for the broker.
#[derive(Debug)]
pub struct Outgoing {
    /// Every one counts: kept until the broker has confirmed it.
    pub events: Outbox,
    /// Only the last one counts.
    pub counts: Latest,
    /// The newest ones count.
    pub frames: Queue<Vec<u8>>,
    /// Whatever there is time for.
    pub snapshots: Queue<Snapshot>,
}

impl Outgoing {
    /// Of events that wait already, perhaps, and at most `frames_max` documents of frames.
    pub fn new(events: Outbox, frames_max: usize) -> Self {
        Self {
            events,
            counts: Latest::default(),
            frames: Queue::new(frames_max),
            snapshots: Queue::new(snapshot::WAITING_MAX),
        }
    }

    /// Takes a document; what is full drops its oldest.
    pub fn push(&self, document: Document) {
        match document {
            Document::Frame(document) => self.frames.push(document),
            Document::Event(event) => self.events.push(event),
            Document::Counts(document) => self.counts.set(document),
        }
    }

    /// Takes a document once there is room; gives it back if there was none in time.
    pub fn offer(&self, document: Document, timeout: Duration) -> Result<(), Document> {
        match document {
            Document::Frame(document) => {
                let offered = self.frames.offer(document, timeout);
                offered.map_err(Document::Frame)
            }
            Document::Event(event) => self.events.offer(event, timeout).map_err(Document::Event),
            Document::Counts(document) => {
                self.counts.set(document);
                Ok(())
            }
        }
    }

    /// Says that nothing will follow.
    pub fn close(&self) {
        self.events.close();
        self.counts.close();
        self.frames.close();
        self.snapshots.close();
    }

    /// Whether it was closed and nothing waits any more.
    pub fn is_finished(&self) -> bool {
        self.events.is_finished()
            && self.counts.is_finished()
            && self.frames.is_finished()
            && self.snapshots.is_finished()
    }

    /// Waits until it was closed and nothing waits any more.
    pub async fn finished(&self) {
        self.events.finished().await;
        self.counts.finished().await;
        self.frames.finished().await;
        self.snapshots.finished().await;
    }

    /// Events and documents that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.events.dropped() + self.frames.dropped()
    }
}
