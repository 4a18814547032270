//! The update thread's end of the connection to the broker (docs/ota.md has the topics).

use super::agent::{Input, Origin, Outbox};
use super::offer::{CHUNK_BYTES, OFFER_BYTES_MAX};
use crate::publish::mqtt::conversation::{Assurance, Conversation, Deliver, Delivery, State};
use crate::publish::mqtt::message::Message;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use ternwatch_bundle::keyring;
use ternwatch_ota::topic as wire;
use tokio::sync::{mpsc, watch};

/// Messages that wait for the update thread. What does not fit is lost, and asked for again.
const INBOX_MAX: usize = 16;
/// Requests that wait for the connection.
const REQUESTS_MAX: usize = 8;

/// Both ends: for the connection, and for the update thread.
#[derive(Debug)]
pub struct Ends {
    /// What the update thread says.
    pub outbox: Outbox,
    /// What it hears.
    pub inbox: Receiver<Input>,
    /// For others who have something for the inbox.
    pub sender: SyncSender<Input>,
}

/// Where the update thread asks for chunks.
#[derive(Clone, Debug)]
pub struct Requests {
    topic: String,
    remarks: mpsc::Sender<Message<'static>>,
}

impl Requests {
    /// Makes a request. When nobody takes it it is lost, and to be made again later.
    pub fn make(&self, request: Vec<u8>) {
        let _ = self
            .remarks
            .try_send(Message::once(self.topic.clone(), request));
    }
}

/// Makes a conversation on the topics of this device; `listens` says whether offers are taken.
pub fn connect(prefix: &str, device: &str, listens: bool) -> (Conversation, Ends) {
    let base = wire::model(prefix, device);
    let (state, document) = watch::channel(Vec::new());
    let (remarks, remarks_made) = mpsc::channel(REQUESTS_MAX);
    let (sender, inbox) = sync_channel(INBOX_MAX);
    let filters = if listens {
        vec![
            wire::offer(&base),
            wire::keyring(&base),
            format!("{base}/chunk/+/+"),
        ]
    } else {
        Vec::new()
    };
    let requests = Requests {
        topic: wire::request(&base),
        remarks,
    };
    let conversation = Conversation {
        filters,
        deliver: deliver(format!("{base}/"), sender.clone()),
        states: vec![State {
            topic: base,
            document,
            assurance: Assurance::Confirmed,
        }],
        remarks: remarks_made,
    };
    let outbox = Outbox { state, requests };
    let ends = Ends {
        outbox,
        inbox,
        sender,
    };
    (conversation, ends)
}

fn deliver(base: String, inbox: SyncSender<Input>) -> Deliver {
    Box::new(move |delivery| {
        let input = match delivery {
            Delivery::Connected => Some(Input::Connected),
            Delivery::Message(heard) => heard
                .topic
                .strip_prefix(base.as_bytes())
                .and_then(|rest| parse(rest, &heard.payload)),
        };
        if let Some(input) = input {
            // The connection does not wait for the memory card.
            let _ = inbox.try_send(input);
        }
    })
}

/// Reads what follows `<prefix>/<device>/model/`. What is too long is cut off here, before it is copied.
fn parse(topic: &[u8], payload: &[u8]) -> Option<Input> {
    if topic == b"offer" {
        // One byte too many is enough to be refused.
        let len = payload.len().min(OFFER_BYTES_MAX + 1);
        return Some(Input::Offer(payload.get(..len)?.to_vec()));
    }
    if topic == b"keyring" {
        let len = payload.len().min(keyring::FILE_LEN_MAX + 1);
        return Some(Input::Keyring(payload.get(..len)?.to_vec()));
    }
    let (sha256, index) = wire::chunk_of(topic)?;
    (payload.len() <= CHUNK_BYTES).then(|| Input::Chunk {
        origin: Origin::Broker,
        sha256,
        index,
        bytes: payload.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::digest::Digest;
    use super::*;
    use crate::publish::mqtt::message::Heard;

    #[test]
    fn only_offers_and_chunks_of_this_device_come_through() {
        let (mut conversation, ends) = connect("site", "pi", true);
        let sha256 = Digest::of(b"file");
        let long = vec![0; CHUNK_BYTES + 1];
        let chunk = |rest: &str| format!("site/pi/model/chunk/{rest}");
        let good = chunk(&format!("{sha256}/7"));
        let messages: [(&str, &[u8]); 8] = [
            ("site/pi/model/offer", b"{}"),
            (&good, b"chunk"),
            (&good, &long),
            (&chunk(&format!("{sha256}/513")), b"chunk"),
            (&chunk(&format!("{sha256}/-1")), b"chunk"),
            (&chunk("../../7"), b"chunk"),
            ("site/other/model/offer", b"{}"),
            ("site/pi/model/other", b"{}"),
        ];
        for (topic, payload) in messages {
            (conversation.deliver)(Delivery::Message(&Heard {
                topic: topic.into(),
                payload: payload.into(),
                ..Heard::default()
            }));
        }
        let heard: Vec<Input> = ends.inbox.try_iter().collect();
        assert!(
            matches!(&heard[..], [Input::Offer(_), Input::Chunk { index: 7, .. }]),
            "{heard:?}"
        );
    }
}
