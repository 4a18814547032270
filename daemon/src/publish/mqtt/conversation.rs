//! Another conversation on the same connection: a retained state, requests, and what is sent to this device.

use tokio::sync::{mpsc, watch};

/// Takes what comes in. Called by the task that polls the connection: it must not wait.
pub type Deliver = Box<dyn FnMut(Delivery<'_>) + Send>;

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// There is a new connection.
    Connected,
    /// Somebody published something.
    Message {
        /// Where.
        topic: &'a [u8],
        /// What.
        payload: &'a [u8],
    },
}

/// The conversation.
pub struct Conversation {
    /// What is listened to; subscribed to on every connection.
    pub filters: Vec<String>,
    /// Where the state is published: retained, on every connection and change.
    pub state_topic: String,
    /// The newest state; an empty one is not published.
    pub state: watch::Receiver<Vec<u8>>,
    /// Where requests are published.
    pub request_topic: String,
    /// Requests, at most once each.
    pub requests: mpsc::Receiver<Vec<u8>>,
    /// Takes what comes in.
    pub deliver: Deliver,
}

/// What the publisher needs of it.
pub(super) struct Dialogue {
    pub(super) filters: Vec<String>,
    pub(super) state_topic: String,
    pub(super) state: watch::Receiver<Vec<u8>>,
    pub(super) request_topic: String,
    pub(super) requests: mpsc::Receiver<Vec<u8>>,
}

/// Something to publish.
pub(super) enum Remark {
    State(Vec<u8>),
    Request(Vec<u8>),
}

impl Conversation {
    /// The half that is published, and the one that takes what comes in.
    pub(super) fn split(self) -> (Dialogue, Deliver) {
        let dialogue = Dialogue {
            filters: self.filters,
            state_topic: self.state_topic,
            state: self.state,
            request_topic: self.request_topic,
            requests: self.requests,
        };
        (dialogue, self.deliver)
    }
}

impl Dialogue {
    /// The state as it is now.
    pub(super) fn state(&mut self) -> Vec<u8> {
        self.state.borrow_and_update().clone()
    }
}

/// The next thing to say; never, if there is no conversation or its other end is gone. May be dropped while it waits.
pub(super) async fn next(dialogue: Option<&mut Dialogue>) -> Remark {
    let Some(dialogue) = dialogue else {
        return std::future::pending().await;
    };
    tokio::select! {
        Ok(()) = dialogue.state.changed() => Remark::State(dialogue.state.borrow_and_update().clone()),
        Some(request) = dialogue.requests.recv() => Remark::Request(request),
        else => std::future::pending().await,
    }
}
