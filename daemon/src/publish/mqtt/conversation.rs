//! Other conversations on the same connection: each has retained states and remarks, and listens to topics of its own.
//!
//! On every connection the publisher subscribes to what a conversation listens to, then says its states again. Whatever
//! comes in goes to the conversations that listen to it, and to them only.

use super::message::{Heard, Message};
use rumqttc::mqttbytes::matches;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::sync::{mpsc, watch};

/// Takes what comes in. Called by the task that polls the connection: it must not wait.
pub type Deliver = Box<dyn FnMut(Delivery<'_>) + Send>;

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// There is a new connection.
    Connected,
    /// Somebody published something that this conversation listens to.
    Message(&'a Heard),
}

/// A conversation.
///
/// Who listens to what: the update of the model to offers, keyrings and chunks (`update/network.rs`); what Home Assistant
/// is told to its start and to the message of before (`publish/home_assistant`); commands to those for the camera
/// (`command.rs`). What is said of the device itself listens to nothing (`publish/about.rs`).
pub struct Conversation {
    /// What is listened to; subscribed to on every connection, in this order.
    pub filters: Vec<String>,
    /// What is published on every connection and change, in this order.
    pub states: Vec<State>,
    /// What is published once. What is lost with the connection is not said again.
    pub remarks: mpsc::Receiver<Message<'static>>,
    /// Takes what comes in.
    pub deliver: Deliver,
}

/// A JSON document that the broker retains.
pub struct State {
    /// Where.
    pub topic: String,
    /// The newest one; an empty one is not published.
    pub document: watch::Receiver<Vec<u8>>,
    /// Whether the broker has to confirm it.
    pub assurance: Assurance,
}

/// How sure it must be that the broker has a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assurance {
    /// QoS 1: for what changes seldom.
    Confirmed,
    /// QoS 0: for what is soon followed by another one.
    Unconfirmed,
}

/// The half that takes what comes in.
pub(super) struct Listener {
    filters: Vec<String>,
    deliver: Deliver,
}

/// The half that is published.
pub(super) struct Dialogue {
    pub(super) filters: Vec<String>,
    states: Vec<State>,
    remarks: mpsc::Receiver<Message<'static>>,
}

impl Conversation {
    /// The half that is published, and the one that takes what comes in.
    pub(super) fn split(self) -> (Dialogue, Listener) {
        let listener = Listener {
            filters: self.filters.clone(),
            deliver: self.deliver,
        };
        let dialogue = Dialogue {
            filters: self.filters,
            states: self.states,
            remarks: self.remarks,
        };
        (dialogue, listener)
    }
}

impl Listener {
    pub(super) fn connected(&mut self) {
        (self.deliver)(Delivery::Connected);
    }

    /// Takes the message if it was listened to.
    pub(super) fn hear(&mut self, heard: &Heard) {
        let Ok(topic) = std::str::from_utf8(&heard.topic) else {
            return;
        };
        if self.filters.iter().any(|filter| matches(topic, filter)) {
            (self.deliver)(Delivery::Message(heard));
        }
    }
}

impl Dialogue {
    /// The states on the topics that are wanted, as they are now. Of the others a change is still to be said.
    pub(super) fn states(&mut self, is_wanted: impl Fn(&str) -> bool) -> Vec<Message<'static>> {
        let wanted = self.states.iter_mut().filter(|s| is_wanted(&s.topic));
        wanted.filter_map(State::message).collect()
    }

    /// The next thing to say; never, if the other ends are gone.
    async fn next(&mut self) -> Message<'static> {
        loop {
            let changed = first_ready(self.states.iter_mut().map(State::changed));
            tokio::select! {
                message = changed => if let Some(message) = message {
                    return message;
                },
                Some(message) = self.remarks.recv() => return message,
            }
        }
    }
}

impl State {
    /// The document as it is now, if there is one.
    fn message(&mut self) -> Option<Message<'static>> {
        let document = self.document.borrow_and_update().clone();
        (!document.is_empty()).then(|| match self.assurance {
            Assurance::Confirmed => Message::status(self.topic.clone(), document),
            Assurance::Unconfirmed => Message::reading(self.topic.clone(), document),
        })
    }

    /// The document, once it is another one than before; never, if its other end is gone.
    async fn changed(&mut self) -> Option<Message<'static>> {
        if self.document.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.message()
    }
}

/// The next thing that any of them says; never, if there is none or all other ends are gone. May be dropped while it
/// waits.
pub(super) async fn next(dialogues: &mut [Dialogue]) -> Message<'static> {
    first_ready(dialogues.iter_mut().map(Dialogue::next)).await
}

/// What the first of these futures gives that is ready, the earlier ones first.
async fn first_ready<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> T {
    let mut waiting: Vec<Pin<Box<_>>> = futures.map(Box::pin).collect();
    poll_fn(|context| {
        for future in &mut waiting {
            if let Poll::Ready(result) = future.as_mut().poll(context) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    struct Ends {
        state: watch::Sender<Vec<u8>>,
        remarks: mpsc::Sender<Message<'static>>,
        heard: Arc<Mutex<Vec<String>>>,
    }

    fn conversation(name: &str, filters: &[&str]) -> (Dialogue, Listener, Ends) {
        let (state, document) = watch::channel(Vec::new());
        let (speak, remarks) = mpsc::channel(8);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let conversation = Conversation {
            filters: filters.iter().map(|filter| (*filter).into()).collect(),
            states: vec![State {
                topic: format!("{name}/state"),
                document,
                assurance: Assurance::Confirmed,
            }],
            remarks,
            deliver: Box::new({
                let heard = heard.clone();
                move |delivery| {
                    if let Delivery::Message(message) = delivery {
                        let topic = String::from_utf8_lossy(&message.topic).into_owned();
                        heard.lock().expect("no panic").push(topic);
                    }
                }
            }),
        };
        let (dialogue, listener) = conversation.split();
        let ends = Ends {
            state,
            remarks: speak,
            heard,
        };
        (dialogue, listener, ends)
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    #[test]
    fn whatever_is_said_comes_from_whichever_conversation_it_is_in() {
        let (first, _, first_ends) = conversation("a", &[]);
        let (second, _, second_ends) = conversation("b", &[]);
        let mut dialogues = [first, second];
        run(async {
            let silence = tokio::time::timeout(Duration::from_millis(1), next(&mut dialogues));
            assert!(silence.await.is_err(), "nobody has said anything");
            second_ends.state.send_replace(b"1".to_vec());
            let said = next(&mut dialogues).await;
            assert_eq!(said, Message::status("b/state", b"1".to_vec()));
            let remark = Message::once("a/request", b"2".to_vec());
            first_ends
                .remarks
                .try_send(remark.clone())
                .expect("there is room");
            assert_eq!(next(&mut dialogues).await, remark);
            // A conversation whose other end is gone does not keep the others from speaking.
            drop(first_ends);
            second_ends
                .remarks
                .try_send(remark.clone())
                .expect("there is room");
            assert_eq!(next(&mut dialogues).await, remark);
            // An empty state is none.
            second_ends.state.send_replace(Vec::new());
            let silence = tokio::time::timeout(Duration::from_millis(1), next(&mut dialogues));
            assert!(silence.await.is_err());
            assert!(dialogues[1].states(|_| true).is_empty());
        });
    }

    #[test]
    fn saying_one_state_again_leaves_the_change_of_another_one_to_be_said() {
        let (dialogue, _, ends) = conversation("a", &[]);
        let mut dialogues = [dialogue];
        run(async {
            ends.state.send_replace(b"1".to_vec());
            assert_eq!(dialogues[0].states(|topic| topic == "b/state"), []);
            let said = next(&mut dialogues).await;
            assert_eq!(said, Message::status("a/state", b"1".to_vec()));
            ends.state.send_replace(b"2".to_vec());
            let said = dialogues[0].states(|topic| topic == "a/state");
            assert_eq!(said, [Message::status("a/state", b"2".to_vec())]);
            let silence = tokio::time::timeout(Duration::from_millis(1), next(&mut dialogues));
            assert!(silence.await.is_err(), "it was said");
        });
    }

    #[test]
    fn a_wait_that_is_given_up_loses_nothing() {
        let (dialogue, _, ends) = conversation("a", &[]);
        let mut dialogues = [dialogue];
        run(async {
            let speaking = tokio::spawn(async move {
                for number in 0..100u8 {
                    ends.remarks
                        .send(Message::once("a", vec![number]))
                        .await
                        .expect("somebody listens");
                    tokio::task::yield_now().await;
                }
                ends
            });
            let mut said = Vec::new();
            while said.len() < 100 {
                tokio::select! {
                    biased;
                    message = next(&mut dialogues) => said.push(message.payload[0]),
                    () = tokio::task::yield_now() => {}
                }
            }
            assert_eq!(said, (0..100).collect::<Vec<u8>>());
            drop(speaking.await);
        });
    }

    #[test]
    fn a_message_goes_to_those_who_listen_to_it() {
        let (_, mut first, first_ends) = conversation("a", &["site/pi/model/offer", "x/+/y"]);
        let (_, mut second, second_ends) = conversation("b", &["x/#"]);
        for topic in [
            "site/pi/model/offer",
            "x/1/y",
            "x/1/y/z",
            "site/pi/model/offer/",
        ] {
            let heard = Heard {
                topic: topic.into(),
                payload: Vec::new(),
                ..Heard::default()
            };
            first.hear(&heard);
            second.hear(&heard);
        }
        let heard = |ends: &Ends| ends.heard.lock().expect("no panic").clone();
        assert_eq!(heard(&first_ends), ["site/pi/model/offer", "x/1/y"]);
        assert_eq!(heard(&second_ends), ["x/1/y", "x/1/y/z"]);
    }
}
