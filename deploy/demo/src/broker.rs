//! A private mosquitto on a free loopback port, and a real subscriber of it.

use crate::child::Running;
use anyhow::{Context, Result, bail, ensure};
use rumqttc::mqttbytes::QoS;
use rumqttc::{Client, Event, Incoming, MqttOptions};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const START_WITHIN: Duration = Duration::from_secs(10);
/// Far above a document with the most detections that a frame can have.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// The broker; dropped, it ends.
pub(crate) struct Broker {
    _process: Running,
    pub(crate) port: u16,
}

impl Broker {
    /// Starts mosquitto with its configuration and log in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        // Another program may take the port between our asking for it and mosquitto's: then the next one is tried.
        let mut failure = None;
        for _ in 0..3 {
            match Self::start_on(free_port()?, folder) {
                Ok(broker) => return Ok(broker),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("three tries leave a failure")?)
    }

    fn start_on(port: u16, folder: &Path) -> Result<Self> {
        let config = folder.join("mosquitto.conf");
        fs::write(
            &config,
            format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"),
        )
        .with_context(|| format!("cannot write {}", config.display()))?;
        let log_path = folder.join("mosquitto.log");
        let log = fs::File::create(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        // Debian keeps it outside of an ordinary user's PATH.
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("mosquitto");
        let mut process = Running::start(
            "mosquitto",
            Command::new(program)
                .arg("-c")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log),
        )?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + START_WITHIN;
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            if let Some(status) = process.ended()? {
                bail!("mosquitto ended with {status}: see {}", log_path.display());
            }
            ensure!(
                Instant::now() < deadline,
                "mosquitto does not answer on {address} within {START_WITHIN:?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            _process: process,
            port,
        })
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
    Ok(listener.local_addr()?.port())
}

/// What the subscriber hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The broker has confirmed the subscription: nothing published from now on is missed.
    Subscribed,
    /// A published message.
    Message { topic: String, payload: Vec<u8> },
    /// The connection failed.
    Lost(String),
}

/// Subscribes to everything below a topic prefix; a thread of its own listens until the receiver is dropped.
pub(crate) fn subscribe(port: u16, prefix: &str) -> Result<Receiver<Heard>> {
    let mut options = MqttOptions::new("demo-subscriber", ("127.0.0.1", port));
    options.set_max_packet_size(Some(PACKET_BYTES_MAX));
    let (client, mut connection) = Client::builder(options)
        .capacity(8)
        .try_build()
        .context("no MQTT client")?;
    client
        .subscribe(format!("{prefix}/#"), QoS::AtLeastOnce)
        .context("cannot subscribe")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // The connection ends when its last client is dropped.
        let _client = client;
        loop {
            let heard = match connection.recv() {
                Ok(Ok(Event::Incoming(Incoming::SubAck(_)))) => Heard::Subscribed,
                Ok(Ok(Event::Incoming(Incoming::Publish(message)))) => Heard::Message {
                    topic: String::from_utf8_lossy(&message.topic).into_owned(),
                    payload: message.payload.to_vec(),
                },
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => Heard::Lost(error.to_string()),
                Err(_) => return,
            };
            let lost = matches!(heard, Heard::Lost(_));
            if sender.send(heard).is_err() || lost {
                return;
            }
        }
    });
    Ok(receiver)
}
