//! Brokers of our own on the loopback interface: one, or three that are one.

use crate::balancer::Balancer;
use rumqttc_v4::{Client, Event, Incoming, MqttOptions};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use system_tests::broker::{free_port, wait_for};

/// How often memory and processor time are looked at.
const SAMPLE: Duration = Duration::from_millis(200);
/// Ticks of the processor's time in a second, in /proc on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Nodes of a cluster.
const NODES: usize = 3;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mosquitto,
    Nats,
    /// Three machines, as it were, one of which dies.
    NatsCluster,
}

impl Kind {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let kinds = [Self::Mosquitto, Self::Nats, Self::NatsCluster];
        kinds.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats",
            Self::NatsCluster => "nats-cluster",
        }
    }

    /// The version of MQTT that cameras speak with it: NATS speaks 3.1.1 only.
    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Mosquitto => "5",
            Self::Nats | Self::NatsCluster => "3.1.1",
        }
    }

    /// Its program, and the option that shows the version.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Mosquitto => ("mosquitto", "-h"),
            Self::Nats | Self::NatsCluster => ("nats-server", "-v"),
        }
    }

    /// The settings of each of its nodes, and the ports where they speak MQTT.
    fn nodes(self, folder: &Path) -> Vec<(String, u16)> {
        match self {
            Self::Mosquitto => {
                let port = free_port();
                // By default, what a subscriber has not taken is dropped beyond 1,000 messages.
                let settings = format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n"
                );
                vec![(settings, port)]
            }
            Self::Nats => {
                let (settings, port) = nats(folder, 1);
                let (alone, _) = settings
                    .split_once("cluster {")
                    .expect("the cluster comes last");
                vec![(alone.to_owned(), port)]
            }
            Self::NatsCluster => {
                let doors: Vec<(usize, u16)> =
                    (1..=NODES).map(|number| (number, free_port())).collect();
                let clustered = |&(number, door): &(usize, u16)| {
                    let (settings, port) = nats(folder, number);
                    let ours = format!("    host: \"127.0.0.1\"\n    port: {door}");
                    let settings = settings.replace("    port: 6222", &ours);
                    let settings = doors.iter().fold(settings, |settings, (other, door)| {
                        settings
                            .replace(&format!("node-{other}:6222"), &format!("127.0.0.1:{door}"))
                    });
                    (settings, port)
                };
                doors.iter().map(clustered).collect()
            }
        }
    }
}

/// A node as deploy/nats/cluster.conf has it, on ports of its own, and that of MQTT.
fn nats(folder: &Path, number: usize) -> (String, u16) {
    let port = free_port();
    let store = folder.join(format!("store-{number}"));
    let settings = include_str!("../../../deploy/nats/cluster.conf")
        .replace(
            "server_name: \"node-1\"",
            &format!("server_name: \"node-{number}\""),
        )
        .replace("port: 4222", &format!("port: {}", free_port()))
        .replace("\"/var/lib/nats\"", &format!("{store:?}"))
        .replace("port: 1883", &format!("host: \"127.0.0.1\", port: {port}"));
    (settings, port)
}

/// A broker that ends when it is dropped.
pub(crate) struct Private {
    pub(crate) version: String,
    /// Where the subscriber listens.
    pub(crate) port: u16,
    /// Where cameras connect.
    pub(crate) entrance: u16,
    nodes: Vec<Child>,
    _balancer: Option<Balancer>,
    _folder: tempfile::TempDir,
}

impl Private {
    pub(crate) fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (name, how_old) = kind.program();
        let program = found(name);
        let version = Command::new(&program).arg(how_old).output();
        let version = version.map_or(Vec::new(), |output| output.stdout);
        let (nodes, ports): (Vec<Child>, Vec<u16>) = kind
            .nodes(folder.path())
            .into_iter()
            .enumerate()
            .map(|(number, (settings, port))| {
                (start(&program, folder.path(), number, &settings), port)
            })
            .unzip();
        let balancer = (ports.len() > 1).then(|| Balancer::start(ports.clone()));
        let entrance = balancer.as_ref().map_or(ports[0], Balancer::port);
        let broker = Self {
            version: String::from_utf8_lossy(&version)
                .lines()
                .next()
                .unwrap_or_default()
                .into(),
            port: ports[0],
            entrance,
            nodes,
            _balancer: balancer,
            _folder: folder,
        };
        for port in ports {
            wait_for("every node of the broker to let clients in", || {
                lets_in(port).then_some(())
            });
        }
        broker
    }

    /// Whether it has several nodes.
    pub(crate) fn is_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Ends the last node abruptly: not the one where the subscriber listens.
    pub(crate) fn kill_last(&mut self) {
        if let Some(last) = self.nodes.last_mut() {
            let _ = last.kill();
            let _ = last.wait();
        }
    }

    /// Notes down what it takes of the machine until told to end.
    pub(crate) fn watch(&self) -> Usage {
        let taken = Arc::new(Mutex::new(Taken::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let pids: Vec<u32> = self.nodes.iter().map(Child::id).collect();
        let watching = thread::spawn({
            let (taken, is_over) = (taken.clone(), is_over.clone());
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    taken
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .look(&pids);
                    thread::sleep(SAMPLE);
                }
            }
        });
        Usage {
            taken,
            is_over,
            watching,
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// What a broker takes of the machine, all of its nodes together.
#[derive(Default)]
struct Taken {
    /// Ticks so far, by process: before the first look, and at the last one.
    ticks: BTreeMap<u32, (u64, u64)>,
    rss_kib_max: u64,
}

impl Taken {
    fn look(&mut self, pids: &[u32]) {
        let mut rss_kib = 0;
        for pid in pids {
            let fields = fields(*pid);
            // Of one that has died, what it took before is kept.
            if let (Some(user), Some(system), Some(pages)) =
                (fields.get(11), fields.get(12), fields.get(21))
            {
                let ticks = user + system;
                self.ticks.entry(*pid).or_insert((ticks, ticks)).1 = ticks;
                // Pages of 4 KiB.
                rss_kib += pages * 4;
            }
        }
        self.rss_kib_max = self.rss_kib_max.max(rss_kib);
    }
}

pub(crate) struct Usage {
    taken: Arc<Mutex<Taken>>,
    is_over: Arc<AtomicBool>,
    watching: thread::JoinHandle<()>,
}

impl Usage {
    /// Seconds of a core, and MiB at most.
    pub(crate) fn end(self) -> (f64, f64) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.watching.join();
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let ticks: u64 = taken.ticks.values().map(|(before, now)| now - before).sum();
        (
            ticks as f64 / TICKS_PER_SECOND,
            taken.rss_kib_max as f64 / 1024.0,
        )
    }
}

/// The numbers that /proc says of a process from its state on, which is none and comes as 0; nothing of one that is no more.
fn fields(pid: u32) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may have spaces and brackets in it.
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ')
        .map(|field| field.trim().parse().unwrap_or(0))
        .collect()
}

/// Debian keeps them outside of an ordinary user's PATH.
fn found(program: &str) -> PathBuf {
    let places = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    std::env::split_paths(&places)
        .map(|place| place.join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is not installed"))
}

fn start(program: &Path, folder: &Path, number: usize, settings: &str) -> Child {
    let path = |ending: &str| folder.join(format!("{number}.{ending}"));
    fs::write(path("conf"), settings).expect("written");
    let log = fs::File::create(path("log")).expect("created");
    Command::new(program)
        .arg("-c")
        .arg(path("conf"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Whether a client can connect: a cluster listens before it can.
fn lets_in(port: u16) -> bool {
    let options = MqttOptions::new("load-visitor", ("127.0.0.1", port));
    let (client, mut connection) = Client::builder(options).capacity(4).build();
    let is_in = matches!(
        connection.iter().next(),
        Some(Ok(Event::Incoming(Incoming::ConnAck(_))))
    );
    if is_in {
        let _ = client.disconnect();
        // Until the connection has ended.
        connection.iter().find(Result::is_err);
    }
    is_in
}
