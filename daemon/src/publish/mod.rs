//! What was seen leaves the device: events, counts and, if wanted, a document a frame; over MQTT and, if wanted, to
//! standard output. So do pictures, if wanted, and how the device and its camera are doing, over MQTT only.

pub mod about;
pub mod answer;
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
use tokio::sync::watch;

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
    is_closed: watch::Sender<bool>,
}

impl Outgoing {
    /// Of events that wait already, perhaps, and at most `frames_max` documents of frames.
    pub fn new(events: Outbox, frames_max: usize) -> Self {
        Self {
            events,
            counts: Latest::default(),
            frames: Queue::new(frames_max),
            snapshots: Queue::new(snapshot::WAITING_MAX),
            is_closed: watch::Sender::new(false),
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

    /// The oldest picture that belongs to no event that still waits here or, as `waits` says, elsewhere; `None` when there will be none.
    /// For one consumer.
    pub async fn next_snapshot(&self, waits: impl Fn(u64) -> bool) -> Option<Snapshot> {
        let may_go = |snapshot: &Snapshot| {
            let event = snapshot.event;
            event.is_none_or(|event| self.events.has_passed(event) && !waits(event))
        };
        loop {
            tokio::select! {
                snapshot = self.snapshots.pop_where(may_go) => return snapshot,
                () = self.events.moves_on() => {}
            }
        }
    }

    /// Says that nothing will follow.
    pub fn close(&self) {
        self.events.close();
        self.counts.close();
        self.frames.close();
        self.snapshots.close();
        self.is_closed.send_replace(true);
    }

    /// Waits until it was closed.
    pub async fn closed(&self) {
        // It cannot go away meanwhile.
        let _ = self
            .is_closed
            .subscribe()
            .wait_for(|is_closed| *is_closed)
            .await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use outbox::{Bounds, Recovered};

    fn event(sequence: u64) -> Document {
        let document = vec![7];
        Document::Event(Event { sequence, document })
    }

    fn snapshot(event: Option<u64>) -> Snapshot {
        Snapshot {
            jpeg: Vec::new(),
            properties: Vec::new(),
            replies: Vec::new(),
            event,
        }
    }

    /// The event of the picture that may go now, if there is one.
    async fn next(outgoing: &Outgoing, waits: impl Fn(u64) -> bool) -> Option<Option<u64>> {
        let next = outgoing.next_snapshot(waits);
        let next = tokio::time::timeout(Duration::from_millis(20), next);
        let snapshot = next.await.ok()?.expect("it is open");
        Some(snapshot.event)
    }

    #[tokio::test]
    async fn a_picture_comes_after_its_event_and_one_that_was_asked_for_at_once() {
        let bounds = Bounds {
            events_max: 9,
            bytes_max: 2 << 20,
        };
        // A card that never answers: what comes stays.
        let outgoing = Outgoing::new(Outbox::kept(bounds, Recovered::default()), 1);
        outgoing.snapshots.push(snapshot(Some(1)));
        assert_eq!(
            next(&outgoing, |_| false).await,
            None,
            "it has not come yet"
        );
        outgoing.push(event(0));
        outgoing.push(event(1));
        outgoing.push(event(2));
        assert_eq!(next(&outgoing, |_| false).await, None, "it waits");
        outgoing.snapshots.push(snapshot(None));
        assert_eq!(next(&outgoing, |_| false).await, Some(None));
        outgoing.events.confirm(0);
        assert_eq!(next(&outgoing, |_| false).await, None, "it waits");
        let confirmed_meanwhile = async { outgoing.events.confirm(1) };
        let (picture, ()) = tokio::join!(outgoing.next_snapshot(|_| false), confirmed_meanwhile);
        assert_eq!(picture.expect("it is open").event, Some(1));
        outgoing.snapshots.push(snapshot(Some(2)));
        outgoing.events.confirm(2);
        let comes_again = |event| event == 2;
        assert_eq!(next(&outgoing, comes_again).await, None, "once more");
        assert_eq!(next(&outgoing, |_| false).await, Some(Some(2)));
    }

    #[tokio::test]
    async fn an_event_that_never_comes_keeps_no_picture_back_at_the_end() {
        let bounds = Bounds {
            events_max: 9,
            bytes_max: 2 << 20,
        };
        let outgoing = Outgoing::new(Outbox::in_memory(bounds), 1);
        outgoing.snapshots.push(snapshot(Some(4)));
        outgoing.close();
        let picture = outgoing.next_snapshot(|_| false).await;
        assert_eq!(picture.map(|picture| picture.event), Some(Some(4)));
        assert!(outgoing.next_snapshot(|_| false).await.is_none());
    }
}
