//! What is said and what is heard, whatever the version of the protocol.

use std::borrow::Cow;

/// Nobody waits longer for an answer.
const ANSWER_EXPIRY_S: u32 = 60;

/// Something to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub(super) topic: Cow<'a, str>,
    pub(super) payload: Vec<u8>,
    pub(super) kind: Kind,
    /// What a question is recognized by in its answer (MQTT 5).
    pub(super) correlation: Vec<u8>,
    /// What else is to be known of it, by name (MQTT 5).
    pub(super) user_properties: Vec<(String, String)>,
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
    /// QoS 0, JPEG; retained for so many seconds (MQTT 5), or not.
    Picture(Option<u32>),
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

    /// JSON that is confirmed: the answer to what came with `correlation`.
    pub fn answer(topic: impl Into<Cow<'a, str>>, payload: Vec<u8>, correlation: Vec<u8>) -> Self {
        Self {
            correlation,
            ..Self::new(topic, payload, Kind::Event(Some(ANSWER_EXPIRY_S)))
        }
    }

    /// JSON that is said at most once.
    pub fn once(topic: impl Into<Cow<'a, str>>, payload: Vec<u8>) -> Self {
        Self::new(topic, payload, Kind::Once)
    }

    /// A JPEG that is said at most once, and retained for `retain_s` seconds (MQTT 5): without an expiry, never.
    pub fn picture(
        topic: impl Into<Cow<'a, str>>,
        payload: Vec<u8>,
        user_properties: Vec<(String, String)>,
        retain_s: Option<u32>,
    ) -> Self {
        Self {
            user_properties,
            ..Self::new(topic, payload, Kind::Picture(retain_s))
        }
    }

    fn new(topic: impl Into<Cow<'a, str>>, payload: Vec<u8>, kind: Kind) -> Self {
        Self {
            topic: topic.into(),
            payload,
            kind,
            correlation: Vec::new(),
            user_properties: Vec::new(),
        }
    }

    /// Where.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Whether the broker keeps it for those who come later. Only MQTT 5 has a broker forget a picture again.
    pub(super) fn is_retained(&self, can_expire: bool) -> bool {
        match self.kind {
            Kind::State | Kind::Status | Kind::Reading => true,
            Kind::Picture(retain_s) => can_expire && retain_s.is_some(),
            Kind::Event(_) | Kind::Once => false,
        }
    }

    pub(super) fn is_confirmed(&self) -> bool {
        !matches!(self.kind, Kind::Reading | Kind::Once | Kind::Picture(_))
    }
}

/// Something that somebody published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Where.
    pub topic: Vec<u8>,
    /// What.
    pub payload: Vec<u8>,
    /// Whether it was published before this connection began to listen, and kept.
    pub is_retained: bool,
    /// Where an answer is awaited (MQTT 5); empty: nowhere in particular.
    pub response_topic: String,
    /// What the answer is to be marked with (MQTT 5).
    pub correlation: Vec<u8>,
}
