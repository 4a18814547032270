//! What a broker does with the traffic of a fleet: `make load-test`, docs/scaling.md.
//!
//! Starts a broker of its own on the loopback interface, listens to everything, and lets `ternwatchd simulate` publish.
//! Checks that every event comes once and in order; prints delays, and what the broker took of the machine. Ends with 1 if
//! something was lost, if this machine did not keep up with the cameras, so that the figures are about it, or if 99 % of the delays are not
//! within `--p99-max-ms`.

mod balancer;
mod broker;

use broker::{Kind, Private};
use rumqttc_v4::{Client, Event, Incoming, MqttOptions, QoS};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use system_tests::broker::wait_for;

const USAGE: &str = "load BROKER... [--cameras N] [--seconds S] [--rate EVENTS] [--p99-max-ms MS]; BROKER is mosquitto, nats or nats-cluster";
/// Time for what is on its way when the cameras have ended.
const ARRIVE_WITHIN: Duration = Duration::from_secs(30);
/// First part of the topics.
const PREFIX: &str = "load";

/// What to do.
struct Plan {
    brokers: Vec<Kind>,
    cameras: String,
    seconds: String,
    rate: String,
    /// The most that 99 % of the delays may take, if that matters.
    p99_max_ms: Option<f64>,
}

/// What a broker came to.
struct Outcome {
    /// Of the table.
    row: String,
    /// What was not as it should be.
    faults: Vec<String>,
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

impl Plan {
    /// What is not as it should be of a measurement in which nothing was lost.
    fn faults(&self, name: &str, p99_ms: f64, frames_left_out: f64) -> Vec<String> {
        let mut faults = Vec::new();
        if frames_left_out > 0.0 {
            faults.push(format!(
                "{name}: this machine left out {frames_left_out} frames, so the figures are about it"
            ));
        }
        if let Some(most) = self.p99_max_ms.filter(|most| p99_ms > *most) {
            faults.push(format!(
                "{name}: p99 is {p99_ms:.1} ms, more than {most} ms"
            ));
        }
        faults
    }
}

fn main() -> ExitCode {
    let Some(plan) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    raise_file_limit();
    let outcomes: Vec<Result<Outcome, String>> = plan
        .brokers
        .iter()
        .map(|broker| measure(*broker, &plan))
        .collect();
    println!("\nload average now: {}", load_average());
    println!(
        "\n| broker | cameras | messages/s | to the subscriber | p50 | p95 | p99 | longest | broker's CPU | broker's memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut faults = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(outcome) => {
                println!("{}", outcome.row);
                faults.extend(outcome.faults);
            }
            Err(error) => faults.push(error),
        }
    }
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    ExitCode::from(u8::from(!faults.is_empty()))
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Plan> {
    let mut plan = Plan {
        brokers: Vec::new(),
        cameras: "1000".into(),
        seconds: "60".into(),
        rate: "0.5".into(),
        p99_max_ms: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--cameras" => plan.cameras = words.next()?,
            "--seconds" => plan.seconds = words.next()?,
            "--rate" => plan.rate = words.next()?,
            "--p99-max-ms" => plan.p99_max_ms = Some(words.next()?.parse().ok()?),
            name => plan.brokers.push(Kind::named(name)?),
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

/// A row of the table and what is to be said of it, or why there is none.
fn measure(kind: Kind, plan: &Plan) -> Result<Outcome, String> {
    let name = kind.name();
    println!(
        "\n{name}: {} cameras, load average {}",
        plan.cameras,
        load_average()
    );
    let mut broker = Private::start(kind);
    println!("{}", broker.version);
    let heard = Arc::new(Mutex::new(Heard::default()));
    listen(broker.port, heard.clone());
    let usage = broker.watch();
    let started = Instant::now();
    let entrance = broker.entrance;
    let said = thread::scope(|scope| {
        let simulating = scope.spawn(|| simulate(kind, plan, entrance));
        if broker.is_cluster() {
            kill_halfway(&mut broker, plan, &heard, || simulating.is_finished());
        }
        let simulated = simulating.join();
        simulated.map_err(|_| "the simulation panicked".to_owned())
    })??;
    let took = started.elapsed().as_secs_f64();
    let (cpu_s, rss_mib) = usage.end();
    println!("{said}");
    let figure = |key: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
            .ok_or_else(|| format!("no {key:?} in what the simulation said"))
    };
    let published = figure("events published")? as u64;
    arrive(&heard, published);
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
    let seconds = figure("seconds")?;
    let p99_ms = heard.percentile_ms(99.0);
    let faults = plan.faults(name, p99_ms, figure("frames left out")?);
    let row = format!(
        "| {name} | {} | {:.0} | {:.0} | {:.1} ms | {:.1} ms | {:.1} ms | {:.0} ms | {:.0} % of a core | {rss_mib:.0} MiB |",
        plan.cameras,
        figure("messages per second")?,
        heard.messages as f64 / seconds,
        heard.percentile_ms(50.0),
        heard.percentile_ms(95.0),
        p99_ms,
        heard.percentile_ms(100.0),
        100.0 * cpu_s / took,
    );
    Ok(Outcome { row, faults })
}

/// Lets a node of the cluster die in the middle of the time in which events come.
fn kill_halfway(
    broker: &mut Private,
    plan: &Plan,
    heard: &Mutex<Heard>,
    is_over: impl Fn() -> bool,
) {
    let half = Duration::from_secs(plan.seconds.parse().unwrap_or(60)) / 2;
    let mut first_at = None;
    while !is_over() {
        thread::sleep(Duration::from_millis(50));
        let has_begun = heard.lock().unwrap_or_else(PoisonError::into_inner).events > 0;
        if has_begun && first_at.get_or_insert_with(Instant::now).elapsed() >= half {
            broker.kill_last();
            eprintln!("a third of the broker was killed");
            return;
        }
    }
}

/// Runs the cameras; what they came to.
fn simulate(kind: Kind, plan: &Plan, port: u16) -> Result<String, String> {
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
    let protocol = kind.protocol();
    let text = format!(
        "[device]\nid = \"cam\"\n[mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nprotocol = \"{protocol}\"\nprefix = \"{PREFIX}\"\n\
         [[zones]]\nname = \"yard\"\npoints = [[0.2, 0.5], [0.8, 0.5], [0.8, 1.0], [0.2, 1.0]]\n\
         [[lines]]\nname = \"gate\"\npoints = [[0.5, 1.0], [0.5, 0.3]]\n"
    );
    // That a third of them lose their connection is meant.
    let level = if kind == Kind::NatsCluster {
        "error"
    } else {
        "warn"
    };
    let text = format!("{text}[log]\nlevel = \"{level}\"\n");
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
    Err(format!("{}: the simulation failed\n{said}", kind.name()))
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
    /// Of delays that are sorted.
    fn percentile_ms(&self, percent: f64) -> f64 {
        let index = (self.delays_ms.len() as f64 * percent / 100.0).ceil() as usize;
        let delay_ms = self.delays_ms.get(index.saturating_sub(1));
        delay_ms.copied().unwrap_or(0.0)
    }

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
