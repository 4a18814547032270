//! The update thread's end of the connection to the broker (docs/ota.md has the topics).

use super::agent::{Input, Origin, Outbox};
use super::offer::{CHUNK_BYTES, OFFER_BYTES_MAX};
use crate::publish::mqtt::conversation::{Assurance, Conversation, Deliver, Delivery, State};
use crate::publish::mqtt::message::Message;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use ternwatch_bundle::keyring;
use ternwatch_ota::topic as wire;
use tokio::sync::{mpsc, watch};

/// Messages that wait for the update thread. A chunk that does not fit is lost, and asked for again.
const INBOX_MAX: usize = 16;
/// Requests that wait for the connection.
const REQUESTS_MAX: usize = 8;

/// Both ends: for the connection, and for the update thread.
#[derive(Debug)]
pub struct Ends {
    /// What the update thread says.
    pub outbox: Outbox,
    /// What it hears.
    pub inbox: Inbox,
    /// For others who have something for the inbox.
    pub sender: SyncSender<Input>,
}

/// What waits for the update thread. Offers and keyrings are never crowded out by chunks: the newest of each that did not fit
/// is kept beside the queue.
#[derive(Debug)]
pub struct Inbox {
    queue: Receiver<Input>,
    beside: Arc<Beside>,
}

/// What found the queue full.
#[derive(Debug, Default)]
struct Beside {
    keyring: Mutex<Option<Input>>,
    offer: Mutex<Option<Input>>,
}

impl Beside {
    fn keep(&self, input: Input) {
        let slot = match &input {
            Input::Keyring(_) => &self.keyring,
            Input::Offer(_) => &self.offer,
            // Chunks are asked for again; others wait for their place, or are told that there is none.
            _ => return,
        };
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(input);
    }

    fn take(&self) -> Option<Input> {
        let take = |slot: &Mutex<Option<Input>>| {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.take()
        };
        take(&self.keyring).or_else(|| take(&self.offer))
    }
}

impl Inbox {
    /// The next message, if one comes in this time.
    pub fn next(&self, patience: Duration) -> Result<Input, RecvTimeoutError> {
        match self.beside.take() {
            Some(input) => Ok(input),
            None => self.queue.recv_timeout(patience),
        }
    }
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
    let (sender, queue) = sync_channel(INBOX_MAX);
    let beside = Arc::<Beside>::default();
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
        deliver: deliver(format!("{base}/"), sender.clone(), beside.clone()),
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
        inbox: Inbox { queue, beside },
        sender,
    };
    (conversation, ends)
}

fn deliver(base: String, queue: SyncSender<Input>, beside: Arc<Beside>) -> Deliver {
    Box::new(move |delivery| {
        let input = match delivery {
            Delivery::Connected => Some(Input::Connected),
            Delivery::Message(heard) => heard
                .topic
                .strip_prefix(base.as_bytes())
                .and_then(|rest| parse(rest, &heard.payload)),
        };
        // The connection does not wait for the memory card.
        if let Some(input) = input
            && let Err(TrySendError::Full(input)) = queue.try_send(input)
        {
            beside.keep(input);
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

    fn heard(inbox: &Inbox) -> Vec<Input> {
        std::iter::from_fn(|| inbox.next(Duration::ZERO).ok()).collect()
    }

    #[test]
    fn chunks_do_not_crowd_out_keyrings_and_offers() {
        let (mut conversation, ends) = connect("site", "pi", true);
        let mut say = |topic: &str, payload: &[u8]| {
            (conversation.deliver)(Delivery::Message(&Heard {
                topic: topic.into(),
                payload: payload.into(),
                ..Heard::default()
            }));
        };
        let chunk = format!("site/pi/model/chunk/{}/7", Digest::of(b"file"));
        (0..2 * INBOX_MAX).for_each(|_| say(&chunk, b"chunk"));
        for (topic, payload) in [("offer", b"1"), ("keyring", b"2"), ("offer", b"3")] {
            say(&format!("site/pi/model/{topic}"), payload);
        }
        let heard = heard(&ends.inbox);
        assert_eq!(heard.len(), INBOX_MAX + 2);
        assert!(
            matches!(&heard[..2], [Input::Keyring(k), Input::Offer(o)] if k == b"2" && o == b"3"),
            "{heard:?}"
        );
    }

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
        let heard = heard(&ends.inbox);
        assert!(
            matches!(&heard[..], [Input::Offer(_), Input::Chunk { index: 7, .. }]),
            "{heard:?}"
        );
    }
}
