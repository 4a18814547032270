//! The sender's way to the broker: one connection, opened again when it is lost, until the job has ended everywhere or
//! the time is over. Offers that the broker keeps are removed at the end, also when the program is asked to stop.

use crate::sender::{DEVICES_MAX, Device, Message, Sender};
use rumqttc::mqttbytes::QoS;
use rumqttc::{AsyncClient, ConnectionError, EventLoop, MqttOptions, PublishOptions, Transport};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Time for the first connection and the subscriptions.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// Wait before a lost connection is opened again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// A broker sends what it keeps right after the subscription: when nothing of it came for so long, that was all.
const QUIET: Duration = Duration::from_secs(2);
/// Time for all that it keeps, over slow lines and however often they are lost.
const HEAR_WITHIN: Duration = Duration::from_secs(120);
/// Time to remove an offer, and to leave.
const FAREWELL: Duration = Duration::from_secs(5);
/// Nothing longer is meant for a sender.
const INCOMING_PACKET_BYTES_MAX: u32 = 64 << 10;
/// Messages between the tasks.
const QUEUE_MAX: usize = 64;

/// Which broker, and as whom.
#[derive(Clone)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name and password.
    pub credentials: Option<(String, String)>,
    /// Whether the connection is encrypted, and who vouches for the broker.
    pub tls: Option<Tls>,
    /// PEM files to show to a broker that asks for them, if it is vouched for by [`Tls::Authorities`].
    pub identity: Option<Identity>,
    /// Two clients with the same id drive each other out.
    pub client_id: String,
}

/// Who vouches for the broker.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Those whom the system trusts.
    SystemAuthorities,
    /// Those in this PEM file.
    Authorities(Vec<u8>),
}

/// A certificate, with those between it and its authority, and its private key: PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificates.
    pub certificate: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Offer the model, and serve it, or send the keyring, for so long at most.
    Push(Duration),
    /// Listen to which devices there are, and publish nothing.
    Look,
}

/// Why nothing was sent, or not to the end.
#[derive(Debug, Error)]
pub enum PushError {
    /// The settings do not make a connection.
    #[error("cannot prepare the connection: {0}")]
    Options(String),
    /// No broker, or it does not let us in.
    #[error("no connection to the broker at {0} within 15 s: {1}")]
    Unreachable(String, String),
    /// The broker was still telling of devices.
    #[error(
        "the broker at {0} has not told of all devices within two minutes: nothing was sent, since some may be missing; name them, or use a faster line"
    )]
    Unheard(String),
    /// The broker does not let us listen.
    #[error("the broker does not let this account listen to {0}")]
    Forbidden(String),
    /// No device has told of its model, or of the one that it is to run.
    #[error("no device has told of its model below {0}/, or none of the one that it is to run")]
    NoDevice(String),
    /// More devices than one job may have.
    #[error(
        "more than {DEVICES_MAX} devices are below {0}/: name some, or push below longer prefixes"
    )]
    TooMany(String),
    /// The broker was not there to forget the offers.
    #[error(
        "the broker did not confirm that it forgets the offers to {1} devices below {0}/, which may still take them: push again, or publish empty retained messages on their model/offer"
    )]
    OffersStay(String, usize),
    /// Asked to stop.
    #[error("stopped by a signal before the job had ended everywhere")]
    Stopped,
    /// The system refuses.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Sends the model or keyring; `watch` is told the devices that something was learnt of. When this returns, `sender` knows how the
/// job ended on each device; on some it may not have ended.
pub fn push(
    broker: &Broker,
    prefix: &str,
    sender: &mut Sender,
    mode: Mode,
    watch: &mut dyn FnMut(&str, &Device),
) -> Result<(), PushError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut run = Run::open(broker)?;
        let result = tokio::select! {
            result = run.run(broker, prefix, sender, mode, watch) => result,
            _ = interrupt.recv() => Err(PushError::Stopped),
            _ = terminate.recv() => Err(PushError::Stopped),
        };
        let farewell = match mode {
            Mode::Look => Vec::new(),
            Mode::Push(_) => sender.farewell(),
        };
        let offers = farewell.len();
        let is_heard = run.leave(farewell).await;
        if offers > 0 && !is_heard {
            return Err(PushError::OffersStay(prefix.into(), offers));
        }
        result
    })
}

/// What happens on the connection.
enum Event {
    Connected,
    Subscribed,
    Forbidden(String),
    /// The broker does not take what was published there.
    Refused(String),
    Message {
        topic: String,
        payload: Vec<u8>,
        /// Whether the broker had kept it.
        is_kept: bool,
    },
    Lost(String),
}

/// The tasks of a connection.
struct Run {
    client: AsyncClient,
    events: mpsc::Receiver<Event>,
    told: mpsc::Sender<Event>,
    outgoing: Option<mpsc::Sender<Message>>,
    polling: tokio::task::JoinHandle<()>,
    publishing: tokio::task::JoinHandle<bool>,
    /// Messages that were taken to be published.
    published: Arc<AtomicU64>,
}

impl Run {
    fn open(broker: &Broker) -> Result<Self, PushError> {
        let (client, event_loop) = AsyncClient::builder(options(broker)?)
            .capacity(QUEUE_MAX)
            .try_build()
            .map_err(|error| PushError::Options(error.to_string()))?;
        let (told, events) = mpsc::channel(QUEUE_MAX);
        let (outgoing, messages) = mpsc::channel(QUEUE_MAX);
        let published = Arc::new(AtomicU64::new(0));
        Ok(Self {
            polling: tokio::spawn(poll(event_loop, told.clone())),
            publishing: tokio::spawn(publish(
                client.clone(),
                messages,
                told.clone(),
                published.clone(),
            )),
            client,
            events,
            told,
            outgoing: Some(outgoing),
            published,
        })
    }

    async fn run(
        &mut self,
        broker: &Broker,
        prefix: &str,
        sender: &mut Sender,
        mode: Mode,
        watch: &mut dyn FnMut(&str, &Device),
    ) -> Result<(), PushError> {
        self.look(broker, sender, watch).await?;
        if sender.is_overfull() {
            return Err(PushError::TooMany(prefix.into()));
        }
        if sender.devices().is_empty() {
            return Err(PushError::NoDevice(prefix.into()));
        }
        let Mode::Push(limit) = mode else {
            return Ok(());
        };
        sender.offer();
        let until = Instant::now() + limit;
        let Some(outgoing) = self.outgoing.clone() else {
            return Ok(());
        };
        while !sender.is_over() {
            tokio::select! {
                Some(event) = self.events.recv() => match event {
                    Event::Connected => self.subscribe(sender.filters()),
                    // What was offered or asked for on the connection before may be lost.
                    Event::Subscribed => sender.offer(),
                    Event::Forbidden(filter) => return Err(PushError::Forbidden(filter)),
                    Event::Refused(topic) => {
                        let name = sender.refused(&topic);
                        show(sender, watch, name);
                    }
                    Event::Message { topic, payload, .. } => tell(sender, watch, &topic, &payload),
                    Event::Lost(_) => {}
                },
                Ok(place) = outgoing.reserve(), if sender.has_next() => {
                    if let Some(message) = sender.take_next() {
                        place.send(message);
                    }
                }
                () = sleep_until(until) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Connects, subscribes, and hears what the broker keeps.
    async fn look(
        &mut self,
        broker: &Broker,
        sender: &mut Sender,
        watch: &mut dyn FnMut(&str, &Device),
    ) -> Result<(), PushError> {
        let address = || format!("{}:{}", broker.host, broker.port);
        let begin = Instant::now();
        let mut until = begin + CONNECT_WITHIN;
        let (mut is_subscribed, mut last) = (false, String::from("no answer"));
        loop {
            let event = tokio::select! {
                Some(event) = self.events.recv() => event,
                () = sleep_until(until) => break,
            };
            match event {
                Event::Connected => self.subscribe(sender.filters()),
                Event::Subscribed => {
                    is_subscribed = true;
                    until = Instant::now() + QUIET;
                }
                Event::Forbidden(filter) => return Err(PushError::Forbidden(filter)),
                Event::Message {
                    topic,
                    payload,
                    is_kept,
                } => {
                    tell(sender, watch, &topic, &payload);
                    if is_subscribed && is_kept {
                        until = Instant::now() + QUIET;
                    }
                }
                // Nothing is published before everybody was heard.
                Event::Refused(_) => {}
                Event::Lost(reason) => {
                    last = reason;
                    // The rest of what the broker keeps comes with the next connection.
                    if std::mem::take(&mut is_subscribed) {
                        until = Instant::now() + CONNECT_WITHIN;
                    }
                }
            }
            if begin.elapsed() > HEAR_WITHIN {
                return Err(PushError::Unheard(address()));
            }
        }
        sender.close();
        if is_subscribed {
            return Ok(());
        }
        Err(PushError::Unreachable(address(), last))
    }

    /// In a task of its own: the confirmations come through the same queue as everything else.
    fn subscribe(&self, filters: Vec<String>) {
        let (client, told) = (self.client.clone(), self.told.clone());
        tokio::spawn(async move {
            for filter in filters {
                let granted = match client.subscribe_tracked(&filter, QoS::AtLeastOnce).await {
                    Ok(notice) => notice.wait_completion_async().await,
                    Err(_) => return,
                };
                use rumqttc::SubscribeNoticeError;
                match granted {
                    Ok(_) => {}
                    Err(SubscribeNoticeError::V5SubAckFailure(_)) => {
                        let _ = told.send(Event::Forbidden(filter)).await;
                        return;
                    }
                    // The connection was lost: the next one begins anew.
                    Err(_) => return,
                }
            }
            let _ = told.send(Event::Subscribed).await;
        });
    }

    /// Publishes the last messages and ends the connection. Whether the broker confirmed them.
    async fn leave(mut self, farewell: Vec<Message>) -> bool {
        let client = self.client.clone();
        let outgoing = self.outgoing.take();
        // Nobody listens to devices any more, but the connection must not wait for that.
        let events = &mut self.events;
        let deaf = async { while events.recv().await.is_some() {} };
        let publishing = &mut self.publishing;
        let polling = &mut self.polling;
        let goodbye = async move {
            if let Some(outgoing) = outgoing {
                for message in farewell {
                    let _ = outgoing.send(message).await;
                }
            }
            let is_heard = publishing.await.unwrap_or(false);
            let _ = client.disconnect().await;
            let _ = polling.await;
            is_heard
        };
        let (mut goodbye, mut deaf) = (Box::pin(goodbye), Box::pin(deaf));
        // A broker that is far takes long for hundreds of offers, one after the other; one that is gone does not get on.
        let mut before = None;
        let is_heard = loop {
            let published = Some(self.published.load(Ordering::Relaxed));
            if published == before {
                break false;
            }
            before = published;
            tokio::select! {
                is_heard = &mut goodbye => break is_heard,
                () = &mut deaf => break false,
                () = sleep(FAREWELL) => {}
            }
        };
        drop((goodbye, deaf));
        self.polling.abort();
        self.publishing.abort();
        is_heard
    }
}

fn tell(sender: &mut Sender, watch: &mut dyn FnMut(&str, &Device), topic: &str, payload: &[u8]) {
    let name = sender.hear(topic, payload);
    show(sender, watch, name);
}

fn show(sender: &Sender, watch: &mut dyn FnMut(&str, &Device), name: Option<String>) {
    if let Some(name) = name
        && let Some(device) = sender.devices().get(&name)
    {
        watch(&name, device);
    }
}

fn options(broker: &Broker) -> Result<MqttOptions, PushError> {
    let mut options = MqttOptions::new(&broker.client_id, (broker.host.clone(), broker.port));
    options
        .set_keep_alive(15)
        .set_clean_start(true)
        .set_max_packet_size(Some(INCOMING_PACKET_BYTES_MAX));
    if let Some((username, password)) = &broker.credentials {
        options.set_credentials(username, password.clone().into_bytes());
    }
    match &broker.tls {
        None => {}
        Some(Tls::Authorities(pem)) => {
            let identity = broker.identity.clone();
            let identity = identity.map(|identity| (identity.certificate, identity.key));
            options.set_transport(Transport::tls(pem.clone(), identity, None));
        }
        Some(Tls::SystemAuthorities) => {
            let transport = Transport::try_tls_with_default_config()
                .map_err(|error| PushError::Options(error.to_string()))?;
            options.set_transport(transport);
        }
    }
    Ok(options)
}

async fn poll(mut event_loop: EventLoop, told: mpsc::Sender<Event>) {
    loop {
        let event = match event_loop.poll().await {
            Ok(rumqttc::Event::Incoming(rumqttc::Incoming::ConnAck(_))) => Event::Connected,
            Ok(rumqttc::Event::Incoming(rumqttc::Incoming::Publish(message))) => Event::Message {
                topic: String::from_utf8_lossy(&message.topic).into_owned(),
                payload: message.payload.to_vec(),
                is_kept: message.retain,
            },
            Ok(rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect))
            | Err(ConnectionError::RequestsDone) => return,
            Ok(_) => continue,
            Err(error) => {
                let _ = told.send(Event::Lost(error.to_string())).await;
                sleep(RECONNECT_AFTER).await;
                continue;
            }
        };
        if told.send(event).await.is_err() {
            return;
        }
    }
}

/// Publishes what comes. Whether the broker confirmed everything that is to remove something from it.
async fn publish(
    client: AsyncClient,
    mut messages: mpsc::Receiver<Message>,
    told: mpsc::Sender<Event>,
    published: Arc<AtomicU64>,
) -> bool {
    let mut all_removed = true;
    while let Some(message) = messages.recv().await {
        published.fetch_add(1, Ordering::Relaxed);
        let mut options = if message.is_confirmed {
            PublishOptions::at_least_once()
        } else {
            PublishOptions::at_most_once()
        };
        if message.is_retained {
            options = options.retained();
        }
        let topic = message.topic.clone();
        let removes = message.payload.is_empty();
        let published = client.publish_tracked(message.topic, message.payload, options);
        let Ok(notice) = published.await else {
            all_removed &= !removes;
            continue;
        };
        use rumqttc::{PubAckReason, PublishNoticeError};
        // What is lost with the connection is offered or asked for again on the next one. What is forbidden stays so.
        match notice.wait_completion_async().await {
            Ok(_) => {}
            Err(error) => {
                all_removed &= !removes;
                if let PublishNoticeError::V5PubAck(PubAckReason::NotAuthorized) = error {
                    let _ = told.send(Event::Refused(topic)).await;
                }
            }
        }
    }
    all_removed
}
