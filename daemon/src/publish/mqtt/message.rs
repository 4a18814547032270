//! What is said and what is heard, whatever the version of the protocol.

use std::borrow::Cow;

/// Something to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub(super) topic: Cow<'a, str>,
    pub(super) payload: Vec<u8>,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Retained, QoS 1, a word.
    State,
    /// Retained, QoS 1, JSON.
    Status,
    /// Retained, QoS 0, JSON.
    Reading,
    /// QoS 1; the broker drops it after so many seconds.
    Event(Option<u32>),
    /// QoS 0.
    Once,
}

impl<'a> Message<'a> {
    /// A word that the broker retains.
    pub fn state(topic: impl Into<Cow<'a, str>>, state: &str) -> Self {
        Self::new(topic, state.into(), Kind::State)
    }

    /// JSON that the broker retains.
    pub fn status(topic: impl Into<Cow<'a, str>>, payload: Vec<u8>) -> Self {
        Self::new(topic, payload, Kind::Status)
    }

    /// JSON that the broker retains, but need not confirm: another one comes soon.
    pub fn reading(topic: impl Into<Cow<'a, str>>, payload: Vec<u8>) -> Self {
        Self::new(topic, payload, Kind::Reading)
    }

    /// JSON that is confirmed, and dropped after `expiry_s` seconds.
    pub fn event(topic: impl Into<Cow<'a, str>>, payload: Vec<u8>, expiry_s: Option<u32>) -> Self {
        Self::new(topic, payload, Kind::Event(expiry_s))
    }

    /// JSON that is said at most once.
    pub fn once(topic: impl Into<Cow<'a, str>>, payload: Vec<u8>) -> Self {
        Self::new(topic, payload, Kind::Once)
    }

    fn new(topic: impl Into<Cow<'a, str>>, payload: Vec<u8>, kind: Kind) -> Self {
        Self {
            topic: topic.into(),
            payload,
            kind,
        }
    }

    pub(super) fn is_retained(&self) -> bool {
        matches!(self.kind, Kind::State | Kind::Status | Kind::Reading)
    }

    pub(super) fn is_confirmed(&self) -> bool {
        !matches!(self.kind, Kind::Reading | Kind::Once)
    }
}

/// Something that somebody published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Where.
    pub topic: Vec<u8>,
    /// What.
    pub payload: Vec<u8>,
    /// Whether it was published before this connection began to listen, and kept.
    pub is_retained: bool,
}
