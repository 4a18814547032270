//! What a command is answered: once, now or later, and surely.

use super::mqtt::message::Message;
use crate::config::Invalid;
use serde::Serialize;
use tokio::sync::mpsc::OwnedPermit;

/// The version of the document's schema.
const SCHEMA: u32 = 1;
/// A reason for people is cut off after so many characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// Where answers go if nothing else was asked for: below the topic of the commands.
pub(crate) const RESPONSE: &str = "response";

#[derive(Serialize)]
struct Answer<'a> {
    schema: u32,
    command: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Refusal>,
}

/// Why a command was not carried out.
#[derive(Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// For programs.
    reason: &'static str,
    /// For people.
    message: String,
}

impl Refusal {
    /// For programs, and for people.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self {
            reason,
            message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::new(
            "out_of_range",
            format!("{}: {}", invalid.key, invalid.reason),
        )
    }
}

/// The answer that is owed to a command. Whoever loses it refuses the command.
#[derive(Debug)]
pub struct Reply {
    /// Room for the answer; gone once it is given.
    permit: Option<OwnedPermit<Message<'static>>>,
    command: String,
    topic: String,
    correlation: Vec<u8>,
}

impl Reply {
    /// To `command`, at `topic`, marked with the `correlation` that came with it.
    pub(crate) fn new(
        permit: OwnedPermit<Message<'static>>,
        command: &str,
        topic: String,
        correlation: Vec<u8>,
    ) -> Self {
        Self {
            permit: Some(permit),
            command: command.into(),
            topic,
            correlation,
        }
    }

    /// It was carried out.
    pub fn done(mut self) {
        log::info!("command {}: done", self.command);
        self.give(None);
    }

    /// It was not.
    pub fn refuse(mut self, refusal: Refusal) {
        // It may quote what came, which must not look like a line of ours.
        let message = refusal.message.replace(char::is_control, " ");
        log::warn!("command {}: refused, {message}", self.command);
        self.give(Some(&refusal));
    }

    fn give(&mut self, error: Option<&Refusal>) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let answer = Answer {
            schema: SCHEMA,
            command: &self.command,
            ok: error.is_none(),
            error,
        };
        let document = serde_json::to_vec(&answer).expect("strings always become JSON");
        let topic = std::mem::take(&mut self.topic);
        let correlation = std::mem::take(&mut self.correlation);
        permit.send(Message::answer(topic, document, correlation));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let message = "there was no room or no time for it";
        self.give(Some(&Refusal::new("not_published", message)));
    }
}
