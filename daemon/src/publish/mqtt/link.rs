//! One connection, whatever the version of the protocol: all that the rest of the program knows of the library.

use super::message::{Heard, Kind, Message};
use super::tls::Tls;
use super::{Protocol, SessionError};
use rumqttc as v5;
use rumqttc_v4 as v4;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Requests that may wait inside of the library. The publisher waits for each of its own, so few are needed.
const REQUESTS_MAX: usize = 4;
/// Publishes that may wait for the broker's confirmation. The library keeps room for each of them from the start: its own
/// 65,535 cost 20 MB of memory.
const INFLIGHT_MAX: u16 = 16;
/// The longest that is sent to this device are a model's chunk and its offer.
const INCOMING_PACKET_BYTES_MAX: usize = 64 << 10;
/// The longest document has the most detections that a frame may have; a snapshot has 240 KiB at most.
const OUTGOING_PACKET_BYTES_MAX: usize = 256 << 10;

/// The longest wait for a confirmation, on connections that are seldom tried: a picture and a chunk at 3 kB/s.
const CONFIRMATION_MAX: Duration = Duration::from_secs(120);

/// What a connection needs to know.
#[derive(Clone)]
pub struct Session {
    pub(super) protocol: Protocol,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) client_id: String,
    pub(super) keep_alive_s: u16,
    pub(super) credentials: Option<(String, String)>,
    pub(super) tls: Option<Tls>,
    pub(super) state_topic: String,
    pub(super) leaves_will: bool,
}

impl Session {
    /// The same for another program that says one thing and leaves.
    pub(super) fn for_an_errand(self) -> Self {
        Self {
            client_id: format!("{}-{}", self.client_id, std::process::id()),
            leaves_will: false,
            ..self
        }
    }

    /// What is doubtful about this device's certificate, though it may do.
    pub fn doubt(&self) -> Option<&str> {
        self.tls.as_ref().and_then(Tls::doubt)
    }

    /// `host:port`.
    pub fn broker(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// How long the broker may take to confirm something. A line that is dead is noticed before, by a ping without an answer, which
    /// takes the library twice the keep-alive.
    pub(super) fn confirmation_max(&self) -> Duration {
        Duration::from_secs(2 * u64::from(self.keep_alive_s) + 5).min(CONFIRMATION_MAX)
    }

    /// Where the state of the device is published.
    pub fn state_topic(&self) -> &str {
        &self.state_topic
    }

    /// The same for another device: another client, which says there how it is.
    pub fn numbered(&self, number: u32, state_topic: String) -> Self {
        Self {
            client_id: format!("{}-{number:04}", self.client_id),
            state_topic,
            ..self.clone()
        }
    }

    /// Why there is no connection, and which setting is about it if that can be told.
    fn explain(&self, error: &(dyn std::error::Error + 'static)) -> String {
        let explained = (self.tls.as_ref()).and_then(|tls| tls.explain(&self.host, error));
        let text = explained.unwrap_or_else(|| error.to_string());
        // As the libraries of both versions of the protocol call it.
        if ["NotAuthorized", "BadUserNamePassword"]
            .iter()
            .any(|code| text.contains(code))
        {
            return format!(
                "it does not accept this account (mqtt.username, mqtt.password_file): {text}"
            );
        }
        text
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It was written to the connection (QoS 0), or the broker confirmed it (QoS 1).
    Heard,
    /// The broker or the library does not want it, and would not want it another time either.
    Refused(Refusal),
    /// The broker does not want it now, and says why.
    Later(&'static str),
    /// The connection ended before that.
    Lost,
}

/// Why something is never wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its topic, its payload, or that it is to be retained.
    Invalid,
    /// The broker takes no packet of its size. It would end the connection.
    TooLarge {
        /// Of the packet.
        bytes: usize,
        /// That the broker takes.
        bytes_max: u32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("it is not valid there"),
            Self::TooLarge { bytes, bytes_max } => write!(
                f,
                "a packet of {bytes} bytes, and the broker takes {bytes_max} at most"
            ),
        }
    }
}

/// The publishing half.
pub(super) enum Link {
    V5 {
        client: v5::AsyncClient,
        packet_bytes_max: Arc<AtomicU32>,
    },
    V311(v4::AsyncClient),
}

/// The polling half.
pub(super) enum Poller {
    V5 {
        event_loop: Box<v5::EventLoop>,
        /// The largest packet that the broker takes, as it said when it accepted the connection.
        packet_bytes_max: Arc<AtomicU32>,
    },
    V311(Box<v4::EventLoop>),
}

/// What polling brought.
#[derive(Debug)]
pub(super) enum Polled {
    /// The broker accepted the connection.
    Connected,
    /// Somebody published something that is subscribed to.
    Message(Heard),
    /// Nothing of interest.
    Other,
    /// The publisher has left.
    Ended,
    /// There is no connection; polling again opens one.
    Failed(Failure),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Failure {
    /// For people.
    pub(super) reason: String,
    /// Whether the broker sent something that is longer than anything for this device.
    pub(super) is_flooded: bool,
}

/// Both halves of a connection that is opened by polling.
pub(super) fn prepare(session: &Session) -> Result<(Link, Poller), SessionError> {
    match session.protocol {
        Protocol::V5 => {
            let (client, poller) = v5::AsyncClient::builder(options_v5(session))
                .capacity(REQUESTS_MAX)
                .try_build()
                .map_err(|error| SessionError::Options(error.to_string()))?;
            let packet_bytes_max = Arc::new(AtomicU32::new(u32::MAX));
            let link = Link::V5 {
                client,
                packet_bytes_max: packet_bytes_max.clone(),
            };
            let poller = Poller::V5 {
                event_loop: Box::new(poller),
                packet_bytes_max,
            };
            Ok((link, poller))
        }
        Protocol::V311 => {
            let (client, poller) = v4::AsyncClient::builder(options_v311(session))
                .capacity(REQUESTS_MAX)
                .try_build()
                .map_err(|error| SessionError::Options(error.to_string()))?;
            Ok((Link::V311(client), Poller::V311(Box::new(poller))))
        }
    }
}

fn options_v5(session: &Session) -> v5::MqttOptions {
    let mut options =
        v5::MqttOptions::new(&session.client_id, (session.host.clone(), session.port));
    options
        .set_keep_alive(session.keep_alive_s)
        .set_clean_start(true)
        .set_max_packet_size(Some(INCOMING_PACKET_BYTES_MAX as u32))
        .set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
    if session.leaves_will {
        let will = v5::LastWill::new(
            &session.state_topic,
            "offline",
            v5::mqttbytes::QoS::AtLeastOnce,
            true,
            None,
        );
        options.set_last_will(will);
    }
    if let Some((username, password)) = &session.credentials {
        options.set_credentials(username, password.clone().into_bytes());
    }
    if let Some(tls) = &session.tls {
        options.set_transport(v5::Transport::tls_with_config(tls.configuration()));
    }
    options
}

fn options_v311(session: &Session) -> v4::MqttOptions {
    let mut options =
        v4::MqttOptions::new(&session.client_id, (session.host.clone(), session.port));
    options
        .set_keep_alive(session.keep_alive_s)
        .set_clean_session(true)
        .set_max_packet_size(INCOMING_PACKET_BYTES_MAX, OUTGOING_PACKET_BYTES_MAX)
        .set_inflight(INFLIGHT_MAX);
    if session.leaves_will {
        let will = v4::LastWill::new(
            &session.state_topic,
            "offline",
            v4::mqttbytes::QoS::AtLeastOnce,
            true,
        );
        options.set_last_will(will);
    }
    if let Some((username, password)) = &session.credentials {
        options.set_credentials(username, password.clone().into_bytes());
    }
    if let Some(tls) = &session.tls {
        options.set_transport(v4::Transport::tls_with_config(tls.configuration()));
    }
    options
}

fn properties(message: &Message<'_>) -> v5::PublishProperties {
    let (content_type, expiry_s) = match message.kind {
        Kind::State => ("text/plain", None),
        Kind::Status | Kind::Reading | Kind::Once => ("application/json", None),
        Kind::Event(expiry_s) => ("application/json", expiry_s),
        Kind::Picture(expiry_s) => ("image/jpeg", expiry_s),
    };
    let is_text = !matches!(message.kind, Kind::Picture(_));
    v5::PublishProperties {
        // Whether the payload is UTF-8.
        payload_format_indicator: Some(u8::from(is_text)),
        content_type: Some(content_type.into()),
        message_expiry_interval: expiry_s,
        correlation_data: (!message.correlation.is_empty())
            .then(|| message.correlation.clone().into()),
        user_properties: message.user_properties.clone(),
        ..v5::PublishProperties::default()
    }
}

/// What a broker's refusal means: only that of the message itself is for ever. Quotas, rights and troubles pass.
fn judge(reason: v5::PubAckReason) -> Said {
    use v5::PubAckReason as Reason;
    match reason {
        Reason::Success | Reason::NoMatchingSubscribers => Said::Heard,
        Reason::TopicNameInvalid | Reason::PayloadFormatInvalid => Said::Refused(Refusal::Invalid),
        Reason::QuotaExceeded => Said::Later("quota exceeded"),
        Reason::NotAuthorized => Said::Later("not authorized"),
        Reason::PacketIdentifierInUse => Said::Later("packet identifier in use"),
        Reason::ImplementationSpecificError | Reason::UnspecifiedError => {
            Said::Later("no reason given")
        }
    }
}

impl Link {
    /// Publishes a message. Waits while there is no connection.
    pub(super) async fn publish(&self, message: Message<'_>) -> Said {
        match self {
            Self::V5 {
                client,
                packet_bytes_max,
            } => {
                let bytes_max = packet_bytes_max.load(Ordering::Relaxed);
                publish_v5(client, bytes_max, message).await
            }
            Self::V311(client) => {
                let mut options = if message.is_confirmed() {
                    v4::PublishOptions::at_least_once()
                } else {
                    v4::PublishOptions::at_most_once()
                };
                if message.is_retained(false) {
                    options = options.retained();
                }
                let published =
                    client.publish_tracked(message.topic.as_ref(), message.payload, options);
                let notice = match published.await {
                    Ok(notice) => notice,
                    Err(v4::ClientError::InvalidRequest(_)) => {
                        return Said::Refused(Refusal::Invalid);
                    }
                    // Nothing takes requests any more.
                    Err(_) => return Said::Lost,
                };
                // This version of the protocol has no way to refuse a message.
                match notice.wait_completion_async().await {
                    Ok(()) => Said::Heard,
                    Err(_) => Said::Lost,
                }
            }
        }
    }

    /// Whether the broker grants that messages come. Waits while there is no connection.
    pub(super) async fn subscribe(&self, filter: &str) -> bool {
        match self {
            Self::V5 { client, .. } => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                match client.subscribe_tracked(filter, qos).await {
                    Ok(notice) => notice.wait_completion_async().await.is_ok(),
                    Err(_) => false,
                }
            }
            Self::V311(client) => {
                let qos = v4::mqttbytes::QoS::AtLeastOnce;
                match client.subscribe_tracked(filter, qos).await {
                    Ok(notice) => notice.wait_completion_async().await.is_ok(),
                    Err(_) => false,
                }
            }
        }
    }

    /// Asks for the end of the connection.
    pub(super) async fn disconnect(&self) {
        // A failure means that there is no connection to end.
        match self {
            Self::V5 { client, .. } => drop(client.disconnect().await),
            Self::V311(client) => drop(client.disconnect().await),
        }
    }
}

/// A packet that is too large is not given to the library, which would end the connection.
async fn publish_v5(client: &v5::AsyncClient, bytes_max: u32, message: Message<'_>) -> Said {
    use v5::mqttbytes::QoS;
    let (qos, mut options) = if message.is_confirmed() {
        (QoS::AtLeastOnce, v5::PublishOptions::at_least_once())
    } else {
        (QoS::AtMostOnce, v5::PublishOptions::at_most_once())
    };
    if message.is_retained(true) {
        options = options.retained();
    }
    let properties = properties(&message);
    let topic = message.topic.as_ref();
    let mut packet =
        v5::mqttbytes::v5::Publish::new(topic, qos, message.payload, Some(properties.clone()));
    // Any number takes as many bytes; the library gives one to what is confirmed.
    packet.pkid = u16::from(qos == QoS::AtLeastOnce);
    let bytes = packet.size();
    if bytes > bytes_max as usize {
        return Said::Refused(Refusal::TooLarge { bytes, bytes_max });
    }
    let published = client.publish_tracked(topic, packet.payload, options.properties(properties));
    let notice = match published.await {
        Ok(notice) => notice,
        Err(v5::ClientError::InvalidRequest(_)) => return Said::Refused(Refusal::Invalid),
        // Nothing takes requests any more.
        Err(_) => return Said::Lost,
    };
    use v5::PublishNoticeError::{RetainNotSupported, V5PubAck};
    match notice.wait_completion_async().await {
        Ok(()) => Said::Heard,
        Err(V5PubAck(reason)) => judge(reason),
        Err(RetainNotSupported) => Said::Refused(Refusal::Invalid),
        Err(_) => Said::Lost,
    }
}

impl Poller {
    /// The next thing that happens on the connection, which is that of `session`.
    pub(super) async fn poll(&mut self, session: &Session) -> Polled {
        match self {
            Self::V5 {
                event_loop,
                packet_bytes_max,
            } => match event_loop.poll().await {
                Ok(v5::Event::Incoming(v5::Incoming::ConnAck(accepted))) => {
                    let limit = accepted.properties.and_then(|said| said.max_packet_size);
                    packet_bytes_max.store(limit.unwrap_or(u32::MAX), Ordering::Relaxed);
                    Polled::Connected
                }
                Ok(v5::Event::Incoming(v5::Incoming::Publish(message))) => {
                    let properties = message.properties.unwrap_or_default();
                    Polled::Message(Heard {
                        topic: message.topic.to_vec(),
                        payload: message.payload.to_vec(),
                        is_retained: message.retain,
                        response_topic: properties.response_topic.unwrap_or_default(),
                        correlation: properties
                            .correlation_data
                            .map_or_else(Vec::new, |data| data.to_vec()),
                    })
                }
                Ok(v5::Event::Outgoing(v5::Outgoing::Disconnect))
                | Err(v5::ConnectionError::RequestsDone) => Polled::Ended,
                Ok(_) => Polled::Other,
                Err(error) => Polled::Failed(Failure {
                    reason: session.explain(&error),
                    is_flooded: is_flooded_v5(&error),
                }),
            },
            Self::V311(event_loop) => match event_loop.poll().await {
                Ok(v4::Event::Incoming(v4::Incoming::ConnAck(_))) => Polled::Connected,
                Ok(v4::Event::Incoming(v4::Incoming::Publish(message))) => Polled::Message(Heard {
                    topic: message.topic.to_vec(),
                    payload: message.payload.to_vec(),
                    is_retained: message.retain,
                    ..Heard::default()
                }),
                Ok(v4::Event::Outgoing(v4::Outgoing::Disconnect))
                | Err(v4::ConnectionError::RequestsDone) => Polled::Ended,
                Ok(_) => Polled::Other,
                Err(error) => Polled::Failed(Failure {
                    reason: session.explain(&error),
                    is_flooded: is_flooded_v311(&error),
                }),
            },
        }
    }

    /// Ends a connection that answers pings and confirms nothing.
    pub(super) fn give_up(&mut self, session: &Session) -> Polled {
        match self {
            Self::V5 { event_loop, .. } => event_loop.clean(),
            Self::V311(event_loop) => event_loop.clean(),
        }
        let waited_s = session.confirmation_max().as_secs();
        Polled::Failed(Failure {
            reason: format!("it has not confirmed what it was sent {waited_s} s ago"),
            is_flooded: false,
        })
    }
}

/// A broker that knows how much this device takes (MQTT 5) should send nothing longer.
fn is_flooded_v5(error: &v5::ConnectionError) -> bool {
    use v5::StateError::{Deserialization, IncomingPacketTooLarge};
    use v5::mqttbytes::Error::PayloadSizeLimitExceeded;
    let v5::ConnectionError::MqttState(error) = error else {
        return false;
    };
    matches!(
        error,
        IncomingPacketTooLarge { .. } | Deserialization(PayloadSizeLimitExceeded { .. })
    )
}

fn is_flooded_v311(error: &v4::ConnectionError) -> bool {
    use v4::mqttbytes::Error::PayloadSizeLimitExceeded;
    matches!(
        error,
        v4::ConnectionError::MqttState(v4::StateError::Deserialization(PayloadSizeLimitExceeded(
            _
        )))
    )
}
