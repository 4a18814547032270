//! What a broker does with the traffic of a fleet: `make load-test`, docs/scaling.md.
//!
//! Starts a broker of its own on the loopback interface, listens to everything, and lets `ternwatchd simulate` publish.
//! Checks that every event comes once and in order; prints delays, and what the broker took of the machine. Ends with 1 if
//! something was lost.

use rumqttc_v4::{Client, Event, Incoming, MqttOptions, QoS};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use system_tests::broker::{free_port, wait_for};

const USAGE: &str =
    "load BROKER... [--cameras N] [--seconds S] [--rate EVENTS]; BROKER is mosquitto or nats";
/// Time for what is on its way when the cameras have ended.
const ARRIVE_WITHIN: Duration = Duration::from_secs(30);
/// How often the broker's memory is looked at.
const SAMPLE: Duration = Duration::from_millis(500);
/// Ticks of the processor's time in a second, in /proc on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// First part of the topics.
const PREFIX: &str = "load";

/// What to do.
struct Plan {
    brokers: Vec<String>,
    cameras: String,
    seconds: String,
    rate: String,
}

/// A broker of our own, in a process group of its own.
struct Private {
    version: String,
    port: u16,
    process: Child,
    _folder: tempfile::TempDir,
}

/// What the subscriber heard.
#[derive(Default)]
struct Heard {
    /// The number that is due next, by topic.
    next: BTreeMap<String, u64>,
    events: u64,
    messages: u64,
    bytes: u64,
    gaps: u64,
    again: u64,
    delays_ms: Vec<f64>,
    trouble: Option<String>,
}

fn main() -> ExitCode {
    let Some(plan) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    raise_file_limit();
    let rows: Vec<Result<String, String>> = plan
        .brokers
        .iter()
        .map(|broker| measure(broker, &plan))
        .collect();
    println!("\nload average now: {}", load_average());
    println!(
        "\n| broker | cameras | messages/s | to the subscriber | p50 | p95 | p99 | longest | broker's CPU | broker's memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut is_good = true;
    for row in rows {
        match row {
            Ok(row) => println!("{row}"),
            Err(error) => {
                eprintln!("{error}");
                is_good = false;
            }
        }
    }
    ExitCode::from(u8::from(!is_good))
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Plan> {
    let mut plan = Plan {
        brokers: Vec::new(),
        cameras: "1000".into(),
        seconds: "60".into(),
        rate: "0.5".into(),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--cameras" => plan.cameras = words.next()?,
            "--seconds" => plan.seconds = words.next()?,
            "--rate" => plan.rate = words.next()?,
            "mosquitto" | "nats" => plan.brokers.push(word),
            _ => return None,
        }
    }
    (!plan.brokers.is_empty()).then_some(plan)
}

/// The broker that we start needs a file for every client.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If it is refused, the broker tells.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A row of the table, or what went wrong.
fn measure(name: &str, plan: &Plan) -> Result<String, String> {
    println!(
        "\n{name}: {} cameras, load average {}",
        plan.cameras,
        load_average()
    );
    let broker = Private::start(name);
    println!("{}", broker.version);
    let heard = Arc::new(Mutex::new(Heard::default()));
    listen(broker.port, heard.clone());
    let usage = broker.watch();
    let started = Instant::now();
    let cpu_before = broker.cpu_s();
    let said = simulate(name, plan, broker.port)?;
    let (took, cpu_s) = (started.elapsed().as_secs_f64(), broker.cpu_s() - cpu_before);
    println!("{said}");
    let figure = |key: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
            .ok_or_else(|| format!("no {key:?} in what the simulation said"))
    };
    let published = figure("events published")? as u64;
    arrive(&heard, published);
    let rss_mib = usage.end() as f64 / 1024.0;
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "heard {} events of {published} and {} other messages, {:.1} MB; {} gaps, {} again; {took:.1} s with coming and going",
        heard.events,
        heard.messages - heard.events,
        heard.bytes as f64 / 1e6,
        heard.gaps,
        heard.again
    );
    if let Some(trouble) = heard.trouble.take() {
        return Err(format!("{name}: {trouble}"));
    }
    if heard.events - heard.again != published || heard.gaps > 0 {
        return Err(format!("{name}: events are missing"));
    }
    heard.delays_ms.sort_by(f64::total_cmp);
    let percentile = |percent: f64| {
        let index = (heard.delays_ms.len() as f64 * percent / 100.0).ceil() as usize;
        heard
            .delays_ms
            .get(index.saturating_sub(1))
            .copied()
            .unwrap_or(0.0)
    };
    let seconds = figure("seconds")?;
    Ok(format!(
        "| {name} | {} | {:.0} | {:.0} | {:.1} ms | {:.1} ms | {:.1} ms | {:.0} ms | {:.0} % of a core | {rss_mib:.0} MiB |",
        plan.cameras,
        figure("messages per second")?,
        heard.messages as f64 / seconds,
        percentile(50.0),
        percentile(95.0),
        percentile(99.0),
        percentile(100.0),
        100.0 * cpu_s / took,
    ))
}

/// Runs the cameras; what they came to.
fn simulate(broker: &str, plan: &Plan, port: u16) -> Result<String, String> {
    let program = match std::env::var_os("TERNWATCHD") {
        Some(path) => PathBuf::from(path),
        None => {
            let here = std::env::current_exe().map_err(|error| error.to_string())?;
            let profile = here.parent().and_then(|examples| examples.parent());
            profile
                .ok_or("an example lies in target/PROFILE/examples")?
                .join("ternwatchd")
        }
    };
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let config = folder.path().join("ternwatch.toml");
    // NATS speaks 3.1.1 only.
    let protocol = if broker == "nats" { "3.1.1" } else { "5" };
    let text = format!(
        "[device]\nid = \"cam\"\n[mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nprotocol = \"{protocol}\"\nprefix = \"{PREFIX}\"\n\
         [[zones]]\nname = \"yard\"\npoints = [[0.2, 0.5], [0.8, 0.5], [0.8, 1.0], [0.2, 1.0]]\n\
         [[lines]]\nname = \"gate\"\npoints = [[0.5, 1.0], [0.5, 0.3]]\n"
    );
    fs::write(&config, text).map_err(|error| error.to_string())?;
    let output = Command::new(&program)
        .arg("--config")
        .arg(&config)
        .args(["simulate", "--cameras", &plan.cameras])
        .args(["--seconds", &plan.seconds, "--rate", &plan.rate])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{broker}: the simulation failed\n{said}"))
}

/// Waits until so many events have come, or for a while.
fn arrive(heard: &Mutex<Heard>, events: u64) {
    let until = Instant::now() + ARRIVE_WITHIN;
    while Instant::now() < until {
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.events - heard.again >= events || heard.trouble.is_some() {
            return;
        }
        drop(heard);
        thread::sleep(Duration::from_millis(50));
    }
}

/// Listens to everything in a thread of its own; returns once the broker has granted that.
fn listen(port: u16, heard: Arc<Mutex<Heard>>) {
    let mut options = MqttOptions::new("load-subscriber", ("127.0.0.1", port));
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = Client::builder(options).capacity(8).build();
    client
        .subscribe(format!("{PREFIX}/#"), QoS::AtLeastOnce)
        .expect("a valid filter");
    let is_ready = Arc::new(AtomicBool::new(false));
    let ready = is_ready.clone();
    thread::spawn(move || {
        // The connection ends with its last client.
        let _client = client;
        for event in connection.iter() {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(Event::Incoming(Incoming::SubAck(_))) => ready.store(true, Ordering::Relaxed),
                Ok(Event::Incoming(Incoming::Publish(message))) => {
                    let topic = String::from_utf8_lossy(&message.topic).into_owned();
                    heard.take(topic, &message.payload);
                }
                Ok(_) => {}
                Err(error) => {
                    heard.trouble = Some(format!("the subscriber lost the broker: {error}"));
                    return;
                }
            }
        }
    });
    wait_for("the subscription", || {
        is_ready.load(Ordering::Relaxed).then_some(())
    });
}

impl Heard {
    fn take(&mut self, topic: String, payload: &[u8]) {
        let now = clock_gettime(ClockId::Monotonic);
        self.messages += 1;
        self.bytes += (topic.len() + payload.len()) as u64;
        if !topic.ends_with("/events") {
            return;
        }
        self.events += 1;
        let document: Value = serde_json::from_slice(payload).unwrap_or_default();
        let number = |key: &str| document[key].as_u64();
        let (Some(sequence), Some(captured_ns)) =
            (number("sequence"), number("captured_monotonic_ns"))
        else {
            self.trouble = Some(format!("no event: {}", String::from_utf8_lossy(payload)));
            return;
        };
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let due = self.next.entry(topic).or_default();
        if sequence < *due {
            self.again += 1;
            return;
        }
        self.gaps += sequence - *due;
        *due = sequence + 1;
        self.delays_ms
            .push(now_ns.saturating_sub(captured_ns) as f64 / 1e6);
    }
}

impl Private {
    fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let (program, arguments, config) = match name {
            "mosquitto" => (
                "mosquitto",
                "-c",
                // By default, what a subscriber has not taken is dropped beyond 1,000 messages.
                format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n"
                ),
            ),
            _ => (
                "nats-server",
                "-c",
                format!(
                    "server_name: load\nhost: \"127.0.0.1\"\nport: {}\njetstream {{ store_dir: \"{}/store\" }}\n\
                     mqtt {{ host: \"127.0.0.1\", port: {port}, max_ack_pending: 1000 }}\n",
                    free_port(),
                    folder.path().display()
                ),
            ),
        };
        let path = folder.path().join("broker.conf");
        fs::write(&path, config).expect("written");
        // Debian keeps them outside of an ordinary user's PATH.
        let places = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
        let program = std::env::split_paths(&places)
            .map(|place| place.join(program))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("{program} is not installed"));
        let log = fs::File::create(folder.path().join("log")).expect("created");
        let version = Command::new(&program)
            .arg(if name == "nats" { "-v" } else { "-h" })
            .output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let mut process = Command::new(&program)
            .arg(arguments)
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        wait_for("the broker to listen", || {
            let ended = process.try_wait().expect("it is our child");
            assert!(
                ended.is_none(),
                "{name} ended: {}",
                fs::read_to_string(folder.path().join("log")).unwrap_or_default()
            );
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            version: version
                .unwrap_or_default()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            port,
            process,
            _folder: folder,
        }
    }

    fn group(&self) -> i32 {
        i32::try_from(self.process.id()).expect("a process id")
    }

    /// Seconds of a core that it has used so far.
    fn cpu_s(&self) -> f64 {
        let ticks = group(self.group()).map(|fields| number(&fields, 11) + number(&fields, 12));
        ticks.sum::<u64>() as f64 / TICKS_PER_SECOND
    }

    /// Notes its largest memory until told to end.
    fn watch(&self) -> Usage {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, leader) = (is_over.clone(), self.group());
        let watching = thread::spawn(move || {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                // Pages of 4 KiB.
                most = most.max(group(leader).map(|fields| number(&fields, 21) * 4).sum());
                thread::sleep(SAMPLE);
            }
            most
        });
        Usage { is_over, watching }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.group()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

struct Usage {
    is_over: Arc<AtomicBool>,
    watching: thread::JoinHandle<u64>,
}

impl Usage {
    /// KiB.
    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.watching.join().unwrap_or(0)
    }
}

/// What /proc says of every process of a group, from its state on.
fn group(leader: i32) -> impl Iterator<Item = Vec<String>> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |entry| {
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name before it may have spaces and brackets in it.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<String> = rest.split(' ').map(String::from).collect();
        (fields.get(2)?.parse() == Ok(leader)).then_some(fields)
    })
}

fn number(fields: &[String], index: usize) -> u64 {
    fields
        .get(index)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}
