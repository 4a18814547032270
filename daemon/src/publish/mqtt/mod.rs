//! The way to the broker.
//!
//! Takes what waits and publishes it: events at least once each (QoS 1, again after a lost connection until the broker
//! confirms them), counts retained, frames at most once (QoS 0). Says `online` on every connection and `offline` before
//! leaving, and leaves a last will that says `offline` for it. One task polls the connection and opens it again when it
//! is lost, another one publishes: publishing from the polling task would wait for itself.

pub mod conversation;
mod link;

pub use link::Session;

use super::outbox::Event;
use super::{Outgoing, topic};
use crate::backoff::Backoff;
use crate::config::choice::Choice;
use crate::config::{Invalid, Secret, in_range};
use crate::health::Health;
use conversation::{Conversation, Deliver, Delivery, Dialogue, Remark};
use link::{Link, Message, Polled, Poller, Said, Tls};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Time to say `offline` and to leave.
const FAREWELL: Duration = Duration::from_millis(400);
/// A connection that lasted so long was a good one: the next attempt after its loss comes soon.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);
/// A file with a certificate or a password that is longer is neither.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The `[mqtt]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether to publish over MQTT at all.
    pub enabled: bool,
    /// Name or address of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Version of the protocol.
    #[serde(with = "crate::config::choice")]
    pub protocol: Protocol,
    /// First part of every topic.
    pub prefix: String,
    /// Empty: `ternwatch-` and the device id.
    pub client_id: String,
    /// Seconds.
    pub keep_alive_s: u16,
    /// Empty: none.
    pub username: String,
    /// Empty: none.
    pub password: Secret,
    /// Empty: none. A name without a slash is one of systemd's credentials.
    pub password_file: PathBuf,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Empty: the system's authorities.
    pub ca_file: PathBuf,
    /// Bound of the queue of frames' documents.
    pub queue_documents_max: usize,
    /// Bound of the events that wait.
    pub queue_events_max: usize,
    /// Bound of the memory and of the files for them, in MiB.
    pub outbox_mib_max: usize,
    /// Seconds between two times that events are written to the card.
    pub outbox_sync_s: f64,
}

/// Versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

impl Choice for Protocol {
    const NAMED: &'static [(&'static str, Self)] = &[("5", Self::V5), ("3.1.1", Self::V311)];
}

/// Why there is no session to open.
#[derive(Debug, Error)]
pub enum SessionError {
    /// A file that the configuration names is not there or not readable.
    #[error("`mqtt.{key}`: cannot read {}", path.display())]
    Read {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A credential is named, but systemd gave none.
    #[error(
        "`mqtt.password_file`: {0:?} is a credential, and systemd passed none ($CREDENTIALS_DIRECTORY is not set)"
    )]
    NoCredentials(PathBuf),
    /// A file of the wrong kind.
    #[error("`mqtt.ca_file`: {} has no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// A password that is not text.
    #[error("`mqtt.password_file`: {} is not text", .0.display())]
    PasswordNotText(PathBuf),
    /// The system has no usable certificate authorities, or the library refuses the options.
    #[error("cannot prepare the connection: {0}")]
    Options(String),
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        let text = |key, value: &str, len_max: usize| {
            if value.len() > len_max || value.chars().any(char::is_control) {
                let reason = format!("is longer than {len_max} bytes or has control characters");
                return Err(Invalid::new(key, reason));
            }
            Ok(())
        };
        topic::validate_prefix("mqtt.prefix", &self.prefix)?;
        if self.host.is_empty() {
            return Err(Invalid::new("mqtt.host", "is empty"));
        }
        text("mqtt.host", &self.host, 255)?;
        text("mqtt.client_id", &self.client_id, 128)?;
        text("mqtt.username", &self.username, 1024)?;
        in_range("mqtt.port", self.port, 1..=u16::MAX)?;
        // The library panics below 5 s with MQTT 5.
        in_range("mqtt.keep_alive_s", self.keep_alive_s, 5..=3600)?;
        in_range(
            "mqtt.queue_documents_max",
            self.queue_documents_max,
            1..=10_000,
        )?;
        in_range("mqtt.queue_events_max", self.queue_events_max, 1..=100_000)?;
        in_range("mqtt.outbox_mib_max", self.outbox_mib_max, 2..=1024)?;
        in_range("mqtt.outbox_sync_s", self.outbox_sync_s, 0.0..=60.0)?;
        let has_password = !self.password.expose().is_empty();
        let has_password_file = !self.password_file.as_os_str().is_empty();
        if has_password && has_password_file {
            let reason = "is set, and `mqtt.password_file` is set too; keep one";
            return Err(Invalid::new("mqtt.password", reason));
        }
        if (has_password || has_password_file) && self.username.is_empty() {
            let key = if has_password {
                "mqtt.password"
            } else {
                "mqtt.password_file"
            };
            return Err(Invalid::new(key, "is set, but `mqtt.username` is empty"));
        }
        if !self.tls && !self.ca_file.as_os_str().is_empty() {
            let reason = "is set, but `mqtt.tls` is false: the connection would not be encrypted";
            return Err(Invalid::new("mqtt.ca_file", reason));
        }
        Ok(())
    }

    /// What a connection needs to know; reads the files that the configuration names.
    pub fn session(&self, device: &str) -> Result<Session, SessionError> {
        let password = self.password()?;
        if !self.tls && password.is_some() && !is_loopback(&self.host) {
            log::warn!(
                "the password goes to {} unencrypted; see mqtt.tls",
                self.host
            );
        }
        Ok(Session {
            protocol: self.protocol,
            host: self.host.clone(),
            port: self.port,
            client_id: if self.client_id.is_empty() {
                format!("ternwatch-{device}")
            } else {
                self.client_id.clone()
            },
            keep_alive_s: self.keep_alive_s,
            credentials: (!self.username.is_empty())
                .then(|| (self.username.clone(), password.unwrap_or_default())),
            tls: self.tls()?,
            state_topic: topic::state(&self.prefix, device),
        })
    }

    fn password(&self) -> Result<Option<String>, SessionError> {
        let file = &self.password_file;
        if file.as_os_str().is_empty() {
            let password = self.password.expose();
            return Ok((!password.is_empty()).then(|| password.into()));
        }
        let path = if file.components().count() == 1 && file.is_relative() {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| SessionError::NoCredentials(file.clone()))?;
            Path::new(&folder).join(file)
        } else {
            file.clone()
        };
        let bytes = read("password_file", &path)?;
        let text = String::from_utf8(bytes).map_err(|_| SessionError::PasswordNotText(path))?;
        // Editors end a file with a line end; a password does not.
        Ok(Some(text.trim_end_matches(['\r', '\n']).into()))
    }

    fn tls(&self) -> Result<Option<Tls>, SessionError> {
        if !self.tls {
            return Ok(None);
        }
        if self.ca_file.as_os_str().is_empty() {
            return Ok(Some(Tls::SystemAuthorities));
        }
        let pem = read("ca_file", &self.ca_file)?;
        let mark = b"-----BEGIN CERTIFICATE-----";
        if !pem.windows(mark.len()).any(|window| window == mark) {
            return Err(SessionError::NoCertificate(self.ca_file.clone()));
        }
        Ok(Some(Tls::Authorities(pem)))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, SessionError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| SessionError::Read {
            key,
            path: path.into(),
            source,
        })?;
    Ok(bytes)
}

/// How long the publisher may go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    /// Until the queue is closed and empty.
    Open,
    /// So long, whatever is left in the queue then.
    Until(Instant),
}

/// The state of the connection, counted so that no reconnection goes unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Lost,
    Made(u64),
}

/// Where documents go, and how long the broker keeps events.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Topic of the events.
    pub events: String,
    /// Topic of the counts.
    pub counts: String,
    /// Topic of the frames' detections.
    pub frames: String,
    /// Seconds.
    pub event_expiry_s: Option<u32>,
}

/// Publishes what waits until nothing will follow or the term is over, then leaves.
pub async fn run(
    session: &Session,
    destination: &Destination,
    outgoing: &Outgoing,
    health: &Arc<Health>,
    conversation: Option<Conversation>,
    term: watch::Receiver<Term>,
) -> Result<(), SessionError> {
    let (link, poller) = link::prepare(session)?;
    let (dialogue, deliver) = conversation.map(Conversation::split).unzip();
    let (report, connection) = watch::channel(Connection::Lost);
    let broker = format!("{}:{}", session.host, session.port);
    let polling = tokio::spawn(keep_connected(
        poller,
        broker,
        report,
        health.clone(),
        deliver,
    ));
    let mut publisher = Publisher {
        link,
        state_topic: &session.state_topic,
        destination,
        outgoing,
        health,
        dialogue,
        connection,
        term,
        lost: 0,
        refused: 0,
        dropped_told: 0,
    };
    publisher.publish_all().await;
    publisher.leave().await;
    polling.abort();
    let frames = &outgoing.frames;
    let unpublished = frames.len() as u64 + frames.dropped() + publisher.lost;
    if unpublished > 0 {
        log::warn!("{unpublished} documents were not published, the broker being away");
    }
    let events = &outgoing.events;
    let waiting = events.durable();
    if waiting > 0 {
        log::info!("{waiting} events wait in the outbox for the next start");
    }
    let unpublished = (events.len() - waiting) as u64 + events.dropped() + publisher.refused;
    if unpublished > 0 {
        log::warn!("{unpublished} events were not published");
    }
    Ok(())
}

/// Polls the connection, and opens it again when it is lost, until the publisher has left.
async fn keep_connected(
    mut poller: Poller,
    broker: String,
    report: watch::Sender<Connection>,
    health: Arc<Health>,
    mut deliver: Option<Deliver>,
) {
    let mut backoff = Backoff::default();
    let mut count = 0;
    let mut connected_at = None;
    loop {
        match poller.poll().await {
            Polled::Connected => {
                count += 1;
                connected_at = Some(Instant::now());
                log::info!("connected to the broker at {broker}");
                health.broker_is_here.store(true, Ordering::Relaxed);
                report.send_replace(Connection::Made(count));
                if let Some(deliver) = &mut deliver {
                    deliver(Delivery::Connected);
                }
            }
            Polled::Message { topic, payload } => {
                if let Some(deliver) = &mut deliver {
                    let (topic, payload) = (topic.as_slice(), payload.as_slice());
                    deliver(Delivery::Message { topic, payload });
                }
            }
            Polled::Other => {}
            Polled::Ended => return,
            Polled::Failed(reason) => {
                health.broker_is_here.store(false, Ordering::Relaxed);
                report.send_replace(Connection::Lost);
                if connected_at
                    .take()
                    .is_some_and(|at: Instant| at.elapsed() >= GOOD_CONNECTION)
                {
                    backoff.reset();
                }
                let delay = backoff.next_delay();
                log::warn!(
                    "no connection to the broker at {broker}: {reason}; next attempt in {:.1} s",
                    delay.as_secs_f32()
                );
                sleep(delay).await;
            }
        }
    }
}

struct Publisher<'a> {
    link: Link,
    state_topic: &'a str,
    destination: &'a Destination,
    outgoing: &'a Outgoing,
    health: &'a Health,
    dialogue: Option<Dialogue>,
    connection: watch::Receiver<Connection>,
    term: watch::Receiver<Term>,
    /// Documents of frames taken from the queue and not written to a connection.
    lost: u64,
    /// Events that the broker did not want.
    refused: u64,
    /// Documents and events that were dropped, as far as it was logged.
    dropped_told: u64,
}

impl Publisher<'_> {
    async fn publish_all(&mut self) {
        let mut greeted = Connection::Lost;
        // Changes of the connection and of the term wake every wait below.
        let mut connection = self.connection.clone();
        let mut term = self.term.clone();
        while !self.outgoing.is_finished() {
            let deadline = *term.borrow_and_update();
            if matches!(deadline, Term::Until(deadline) if deadline <= Instant::now()) {
                return;
            }
            let now = *connection.borrow_and_update();
            let is_connected = now != Connection::Lost;
            if is_connected && now != greeted {
                // A broker may have forgotten the retained state, or published the last will meanwhile.
                if self.say(Message::state(self.state_topic, "online")).await == Said::Refused {
                    log::warn!("the broker does not accept {}", self.state_topic);
                }
                self.outgoing.counts.tell_again();
                greeted = now;
                self.tell_drops();
                self.converse_again().await;
                continue;
            }
            tokio::select! {
                biased;
                () = over(deadline) => return,
                Ok(()) = term.changed() => {}
                Ok(()) = connection.changed() => {}
                remark = conversation::next(self.dialogue.as_mut()), if is_connected => {
                    self.converse(remark).await;
                }
                event = self.outgoing.events.first(), if is_connected => {
                    self.publish_event(event).await;
                }
                (version, counts) = self.outgoing.counts.next(), if is_connected => {
                    self.publish_counts(version, counts).await;
                }
                // Nothing comes once everything is closed: then the condition above decides.
                frame = self.outgoing.frames.pop(), if is_connected => {
                    if let Some(frame) = frame {
                        self.publish_frame(frame).await;
                    }
                }
                // What waits for nothing needs no connection any more.
                () = self.outgoing.finished(), if !is_connected => return,
            }
        }
    }

    /// Logs what was dropped while there was no connection: once a connection, not once a document.
    fn tell_drops(&mut self) {
        let dropped = self.outgoing.dropped();
        if dropped > self.dropped_told {
            let count = dropped - self.dropped_told;
            log::warn!("the oldest {count} documents were dropped while the broker was away");
            self.dropped_told = dropped;
        }
    }

    /// On a new connection: listens, and says the state again.
    async fn converse_again(&mut self) {
        let Some(dialogue) = &mut self.dialogue else {
            return;
        };
        let (filters, state) = (dialogue.filters.clone(), dialogue.state());
        let connection = *self.connection.borrow();
        for filter in &filters {
            if !self.listen(filter).await && *self.connection.borrow() == connection {
                log::warn!("the broker does not let this device listen to {filter}");
            }
        }
        self.converse(Remark::State(state)).await;
    }

    /// Whether the broker granted it before the connection or the term ended.
    async fn listen(&mut self, filter: &str) -> bool {
        let mut connection = self.connection.clone();
        let before = *connection.borrow_and_update();
        let term = *self.term.borrow();
        tokio::select! {
            granted = self.link.subscribe(filter) => granted,
            _ = connection.wait_for(|now| *now != before) => false,
            () = over(term) => false,
        }
    }

    async fn converse(&mut self, remark: Remark) {
        let Some(dialogue) = &self.dialogue else {
            return;
        };
        let (state_topic, request_topic) =
            (dialogue.state_topic.clone(), dialogue.request_topic.clone());
        // A state that is lost with the connection is said again on the next one, a request is made again.
        match remark {
            Remark::State(state) if state.is_empty() => {}
            Remark::State(state) => {
                if self.say(Message::status(&state_topic, state)).await == Said::Refused {
                    log::warn!("the broker does not accept {state_topic}");
                }
            }
            Remark::Request(request) => {
                self.say(Message::once(&request_topic, request)).await;
            }
        }
    }

    async fn publish_event(&mut self, event: Event) {
        let Event { sequence, document } = event;
        let Destination {
            events: topic,
            event_expiry_s,
            ..
        } = self.destination;
        match self
            .say(Message::event(topic, document, *event_expiry_s))
            .await
        {
            Said::Heard => {
                self.health.published.fetch_add(1, Ordering::Relaxed);
                self.outgoing.events.confirm(sequence);
            }
            Said::Refused => {
                // The events behind it may be wanted, so it must not stay in their way.
                if self.refused == 0 {
                    log::warn!("the broker does not accept {topic}");
                }
                self.refused += 1;
                self.outgoing.events.confirm(sequence);
            }
            Said::Lost => {}
        }
    }

    async fn publish_counts(&mut self, version: u64, counts: Vec<u8>) {
        let topic = &self.destination.counts;
        match self.say(Message::status(topic, counts)).await {
            Said::Heard => {
                self.health.published.fetch_add(1, Ordering::Relaxed);
                self.outgoing.counts.told(version);
            }
            Said::Refused => {
                log::warn!("the broker does not accept {topic}");
                self.outgoing.counts.told(version);
            }
            Said::Lost => {}
        }
    }

    async fn publish_frame(&mut self, document: Vec<u8>) {
        let topic = &self.destination.frames;
        if self.say(Message::once(topic, document)).await == Said::Heard {
            self.health.published.fetch_add(1, Ordering::Relaxed);
        } else {
            self.lost += 1;
        }
    }

    /// Publishes a message, unless the connection or the term ends before.
    async fn say(&self, message: Message<'_>) -> Said {
        let mut connection = self.connection.clone();
        let before = *connection.borrow_and_update();
        let term = *self.term.borrow();
        tokio::select! {
            said = self.link.publish(message) => said,
            // Frames are not published twice. Events are, since the connection may have taken this one with it.
            _ = connection.wait_for(|now| *now != before) => Said::Lost,
            () = over(term) => Said::Lost,
        }
    }

    /// Says `offline` and closes the connection, so that the broker drops the last will.
    async fn leave(&mut self) {
        if *self.connection.borrow() == Connection::Lost {
            return;
        }
        let farewell = async {
            let offline = Message::state(self.state_topic, "offline");
            if self.link.publish(offline).await != Said::Heard {
                log::warn!("the broker did not confirm that this device is offline");
            }
            self.link.disconnect().await;
            // The connection ends once the broker has the last packet.
            let _ = self
                .connection
                .wait_for(|now| *now == Connection::Lost)
                .await;
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            log::warn!("the broker did not answer the farewell");
        }
    }
}

async fn over(term: Term) {
    match term {
        Term::Open => std::future::pending().await,
        Term::Until(deadline) => {
            let _ = timeout_at(deadline, std::future::pending::<()>()).await;
        }
    }
}
