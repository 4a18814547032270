//! A private mosquitto on a free loopback port, a subscriber of it, and a cable between a client and it.
//!
//! Everything ends when it is dropped. Waits have a deadline and say what they waited for.

use rumqttc::mqttbytes::QoS;
use rumqttc::{BrokerSessionResumePolicy, Client, Event, Incoming, MqttOptions, PublishOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// For things that take milliseconds on a quiet machine, or some seconds of a whole processor.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Repeats `attempt` until it gives something; panics with `what` after the deadline.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < until, "waited {DEADLINE:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A loopback port that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free loopback port")
        .port()
}

/// A running mosquitto.
pub struct Broker {
    port: u16,
    settings: String,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Broker {
    /// A broker that lets everybody in.
    pub fn start() -> Self {
        Self::start_with("allow_anonymous true\n")
    }

    /// A broker with these further lines in its configuration.
    pub fn start_with(settings: &str) -> Self {
        let mut broker = Self {
            port: 0,
            settings: settings.into(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            process: None,
        };
        // Somebody else may take a free port before mosquitto does: then the next one is tried.
        for _ in 0..5 {
            broker.port = free_port();
            if broker.try_start() {
                return broker;
            }
        }
        panic!("mosquitto does not start: {}", broker.log());
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it abruptly. It forgets everything.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it is our child");
            process.wait().expect("it is our child");
        }
    }

    /// Ends it in order, so that it keeps what its settings say it keeps.
    pub fn shut_down(&mut self) {
        self.signal(Signal::TERM);
        if let Some(mut process) = self.process.take() {
            process.wait().expect("it is our child");
        }
    }

    /// Lets it do nothing for a while, its connections open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("it is our child");
    }

    /// Starts it again on the same port.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        wait_for("mosquitto to start again", || {
            self.try_start().then_some(())
        });
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn try_start(&mut self) -> bool {
        let folder = self.folder.path();
        let config = folder.join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\npersistence_location {}/\n{}",
            self.port,
            folder.display(),
            self.settings
        );
        fs::write(&config, text).expect("written");
        let log = fs::File::create(folder.join("log")).expect("created");
        // Debian keeps it outside of an ordinary user's PATH.
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("mosquitto");
        let process = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let process = match process {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("mosquitto is not installed: `apt install mosquitto`")
            }
            process => process.expect("mosquitto starts"),
        };
        let process = self.process.insert(process);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listens = wait_for("mosquitto to listen", || {
            if process.try_wait().expect("it is our child").is_some() {
                return Some(false);
            }
            TcpStream::connect(address).is_ok().then_some(true)
        });
        if !listens {
            self.process = None;
        }
        listens
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One message as a subscriber sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Where it was published.
    pub topic: String,
    /// What was published.
    pub payload: Vec<u8>,
    /// Whether it was published before the subscription, and kept.
    pub is_retained: bool,
    /// How it was published: 0, or 1 for all that is more.
    pub qos: u8,
    /// MQTT 5: seconds after which the broker would have dropped it.
    pub expiry_s: Option<u32>,
    /// MQTT 5: the declared type of the payload.
    pub content_type: Option<String>,
    /// MQTT 5: what an answer is recognized by.
    pub correlation: Vec<u8>,
    /// MQTT 5: what else is known of it, by name.
    pub properties: Vec<(String, String)>,
}

impl Heard {
    /// What is known of it by this name.
    pub fn property(&self, name: &str) -> Option<&str> {
        let mut properties = self.properties.iter();
        properties
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The payload as JSON, which it must be.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload)
            .unwrap_or_else(|error| panic!("{} is not JSON: {error}: {}", self.topic, self.text()))
    }

    /// The payload as JSON, if it comes from this topic.
    pub fn document(&self, topic: &str) -> Option<Value> {
        (self.topic == topic).then(|| self.json())
    }

    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// Publishes a message and waits until the broker has it.
pub fn publish(port: u16, topic: &str, payload: &str, options: PublishOptions) {
    let mut connection_options = MqttOptions::new("asker", ("127.0.0.1", port));
    connection_options.set_max_packet_size(Some(1 << 20));
    let (client, mut connection) = Client::builder(connection_options).capacity(8).build();
    client
        .publish(topic, payload, options)
        .expect("a valid topic");
    while let Ok(Ok(event)) = connection.recv() {
        if matches!(event, Event::Incoming(Incoming::PubAck(_))) {
            return;
        }
    }
    panic!("the broker does not take {topic}");
}

/// What the broker keeps, by topic.
pub fn kept(port: u16) -> BTreeMap<String, Heard> {
    let mut found = BTreeMap::new();
    let mut late = Subscriber::connect(port, "late");
    // What is retained comes first.
    publish(port, "marker", "", PublishOptions::at_least_once());
    late.expect("the marker", |heard| {
        if heard.is_retained {
            found.insert(heard.topic.clone(), heard.clone());
        }
        (heard.topic == "marker").then_some(())
    });
    found
}

/// A subscriber of everything.
pub struct Subscriber {
    messages: Receiver<Result<Heard, String>>,
    history: String,
}

impl Subscriber {
    /// Connects; nothing that is published from now on is missed.
    pub fn connect(port: u16, name: &str) -> Self {
        let mut options = MqttOptions::new(name, ("127.0.0.1", port));
        options.set_max_packet_size(Some(1 << 20));
        Self::with_options(options, name)
    }

    /// Connects as one for whom the broker keeps what comes while it is away; it gets that first.
    pub fn connect_durably(port: u16, name: &str) -> Self {
        let mut options = MqttOptions::new(name, ("127.0.0.1", port));
        options
            .set_max_packet_size(Some(1 << 20))
            .set_clean_start(false)
            .set_session_expiry_interval(Some(3600))
            // We are a new process each time, so to speak.
            .set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly);
        Self::with_options(options, name)
    }

    /// Connects as the options say, and hears what the broker lets it hear.
    pub fn with_options(options: MqttOptions, name: &str) -> Self {
        let (client, mut connection) = Client::builder(options).capacity(8).build();
        client
            .subscribe("#", QoS::AtLeastOnce)
            .expect("a valid filter");
        let (sender, messages) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            // The connection ends with its last client.
            let _client = client;
            while let Ok(event) = connection.recv() {
                let heard = match event {
                    Ok(Event::Incoming(Incoming::SubAck(_))) => {
                        let _ = ready.send(());
                        continue;
                    }
                    Ok(Event::Incoming(Incoming::Publish(message))) => {
                        let properties = message.properties.unwrap_or_default();
                        Ok(Heard {
                            topic: String::from_utf8_lossy(&message.topic).into_owned(),
                            payload: message.payload.to_vec(),
                            is_retained: message.retain,
                            qos: u8::from(message.qos != QoS::AtMostOnce),
                            expiry_s: properties.message_expiry_interval,
                            content_type: properties.content_type,
                            correlation: properties
                                .correlation_data
                                .map_or_else(Vec::new, |data| data.to_vec()),
                            properties: properties.user_properties,
                        })
                    }
                    Ok(_) => continue,
                    Err(error) => Err(error.to_string()),
                };
                let is_over = heard.is_err();
                if sender.send(heard).is_err() || is_over {
                    return;
                }
            }
        });
        is_ready
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("waited {DEADLINE:?} for the subscription of {name}"));
        Self {
            messages,
            history: String::new(),
        }
    }

    /// The next message that `accept` turns into something; the others are skipped.
    pub fn expect<T>(&mut self, what: &str, accept: impl FnMut(&Heard) -> Option<T>) -> T {
        self.expect_within(DEADLINE, what, accept)
    }

    /// The same, for what may take longer.
    pub fn expect_within<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        mut accept: impl FnMut(&Heard) -> Option<T>,
    ) -> T {
        let until = Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(Ok(heard)) => {
                    self.note(&heard);
                    if let Some(result) = accept(&heard) {
                        return result;
                    }
                }
                Ok(Err(error)) => panic!("lost the broker waiting for {what}: {error}"),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("waited {deadline:?} for {what}; heard\n{}", self.history)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the subscriber ended: {what}"),
            }
        }
    }
}

impl Subscriber {
    /// What `accept` makes of a message that is here already, if it makes something of one; those before it are skipped.
    pub fn heard<T>(&mut self, mut accept: impl FnMut(&Heard) -> Option<T>) -> Option<T> {
        while let Ok(message) = self.messages.try_recv() {
            let heard = message.unwrap_or_else(|error| panic!("lost the broker: {error}"));
            self.note(&heard);
            if let Some(result) = accept(&heard) {
                return Some(result);
            }
        }
        None
    }

    /// For the words of a failure.
    fn note(&mut self, heard: &Heard) {
        // Appending to a string cannot fail.
        let _ = writeln!(self.history, "  {} {}", heard.topic, heard.text());
    }

    /// Takes what had come before the broker was lost.
    pub fn until_lost(self, mut take: impl FnMut(&Heard)) {
        loop {
            match self.messages.recv_timeout(DEADLINE) {
                Ok(Ok(heard)) => take(&heard),
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("waited {DEADLINE:?} for the loss"),
            }
        }
    }
}

/// A cable: forwards a port of its own to another one while it is plugged in.
pub struct Cable {
    port: u16,
    plugged: Option<Plugged>,
    target: u16,
    /// To the near end; the other way is free.
    way: Way,
}

/// How bytes go in one direction.
#[derive(Clone)]
enum Way {
    Free,
    /// So many a second.
    Slow(u32),
    /// Packets only, and confirmations of what was published only as long as this is set.
    Sifted(Arc<AtomicBool>),
}

struct Plugged {
    is_cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepting: JoinHandle<()>,
}

impl Cable {
    /// An unplugged cable to a loopback port.
    pub fn new(target: u16) -> Self {
        Self {
            port: free_port(),
            plugged: None,
            target,
            way: Way::Free,
        }
    }

    /// One over which so much comes to the near end in a second; what is more waits in front of it.
    pub fn slow(target: u16, bytes_per_second: u32) -> Self {
        let mut cable = Self::new(target);
        cable.way = Way::Slow(bytes_per_second);
        cable
    }

    /// One behind which the broker confirms what is published for as long as [`Self::confirm`] says so; everything else it answers.
    pub fn sifted(target: u16) -> Self {
        let mut cable = Self::new(target);
        cable.way = Way::Sifted(Arc::new(AtomicBool::new(true)));
        cable
    }

    /// Whether confirmations come through from now on.
    pub fn confirm(&self, confirms: bool) {
        match &self.way {
            Way::Sifted(flag) => flag.store(confirms, Ordering::Relaxed),
            Way::Free | Way::Slow(_) => panic!("the cable is not sifted"),
        }
    }

    /// The port of the near end.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets connections through.
    pub fn plug(&mut self) {
        let listener = wait_for("the cable's port", || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).ok()
        });
        listener.set_nonblocking(true).expect("a socket can do it");
        let is_cut = Arc::new(AtomicBool::new(false));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let accepting = thread::spawn({
            let (is_cut, streams, target) = (is_cut.clone(), streams.clone(), self.target);
            let way = self.way.clone();
            move || {
                while !is_cut.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((near, _)) => forward(near, target, &streams, way.clone()),
                        Err(_) => thread::sleep(Duration::from_millis(5)),
                    }
                }
            }
        });
        self.plugged = Some(Plugged {
            is_cut,
            streams,
            accepting,
        });
    }

    /// Cuts every connection and lets no new one through.
    pub fn unplug(&mut self) {
        let Some(plugged) = self.plugged.take() else {
            return;
        };
        plugged.is_cut.store(true, Ordering::Relaxed);
        plugged.accepting.join().expect("the cable holds");
        for stream in plugged.streams.lock().expect("the cable holds").drain(..) {
            // The other end may have closed it before.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.unplug();
    }
}

fn forward(near: TcpStream, target: u16, streams: &Mutex<Vec<TcpStream>>, back: Way) {
    // Without a broker behind it, the near end just closes.
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
        return;
    };
    near.set_nonblocking(false).expect("a socket can do it");
    for (from, to, way) in [(&near, &far, Way::Free), (&far, &near, back)] {
        let clone = |stream: &TcpStream| stream.try_clone().expect("a socket can be shared");
        let (mut from, mut to) = (clone(from), clone(to));
        streams.lock().expect("the cable holds").push(clone(&from));
        thread::spawn(move || {
            let _ = match way {
                Way::Free => io::copy(&mut from, &mut to).map(drop),
                Way::Slow(bytes_per_second) => trickle(&mut from, &mut to, bytes_per_second),
                Way::Sifted(confirms) => sift(&mut from, &mut to, &confirms),
            };
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

/// A number in groups of seven bits, the low ones first (MQTT 5.0, section 1.5.5); its bytes are appended.
pub fn variable(from: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut number = 0;
    for shift in [0, 7, 14, 21] {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        bytes.push(byte[0]);
        number |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    Ok(number)
}

/// Forwards packets (MQTT 5.0, section 2.1), confirmations of what was published only if `confirms`, until either end is closed.
fn sift(from: &mut TcpStream, to: &mut TcpStream, confirms: &AtomicBool) -> io::Result<()> {
    const PUBACK: u8 = 4;
    loop {
        let mut packet = vec![0];
        from.read_exact(&mut packet)?;
        let rest = variable(from, &mut packet)?;
        from.take(rest as u64).read_to_end(&mut packet)?;
        if packet[0] >> 4 != PUBACK || confirms.load(Ordering::Relaxed) {
            to.write_all(&packet)?;
        }
    }
}

/// Forwards so many bytes a second, until either end is closed.
fn trickle(from: &mut TcpStream, to: &mut TcpStream, bytes_per_second: u32) -> io::Result<()> {
    let mut bytes = [0; 512];
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count])?;
        thread::sleep(Duration::from_secs_f64(
            count as f64 / f64::from(bytes_per_second),
        ));
    }
}
