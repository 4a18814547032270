//! Events survive the worst days of the daemon and of the broker: both are killed at work, again and again.

use super::STATE;
use super::bench::{Bench, Daemon};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use system_tests::broker::{Broker, Cable, Subscriber, wait_for};
use system_tests::ledger::Ledger;

const EVENTS: &str = "site/pi/door/events";
/// How often the daemon is killed.
const KILLS: u64 = 50;
/// How often the broker is.
const BROKERS: u64 = 6;

/// A picture that does not move, for ten minutes: every object in it is told of five times a second.
fn eventful(port: u16) -> Bench {
    let source = "testsrc=size=160x120:rate=10:duration=0.1,loop=loop=-1:size=1";
    let input = ["-f", "lavfi", "-i", source, "-frames:v", "6000"];
    let mut bench = Bench::with_video_of(&input, port);
    bench.set("PUBLISH__FRAMES", "false");
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    // A machine that is busy otherwise may be slow to decode.
    bench.set("CAMERA__STALL_S", "60");
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    bench.set("TRACK__UPDATE_S", "0.2");
    bench.set("MQTT__KEEP_ALIVE_S", "5");
    bench.set("MQTT__OUTBOX_SYNC_S", "0.2");
    fs::create_dir(bench.path("state")).expect("created");
    bench
}

/// The numbers of the events that lie in the outbox's files, whatever their format is: the documents are text.
fn stored(folder: &Path) -> Vec<u64> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("readable").path();
        let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let whole = text.split("{\"schema\":1,\"type\":").skip(1);
        // What is cut off in the middle was not stored.
        let whole =
            whole.filter(|document| document.contains("\"path\":[[") && document.contains("]]}"));
        numbers.extend(whole.filter_map(|document| {
            let (_, rest) = document.split_once("\"sequence\":")?;
            rest.split(',').next()?.parse::<u64>().ok()
        }));
    }
    numbers
}

fn kill(daemon: Daemon) {
    daemon.signal(Signal::KILL);
    daemon.wait();
}

#[test]
fn a_daemon_that_is_killed_again_and_again_loses_no_stored_event() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = eventful(broker.port());
    let folder = bench.path("state/outbox");
    let mut ledger = Ledger::new(EVENTS);
    let mut stored_in_all: Vec<u64> = Vec::new();
    for run in 0..KILLS {
        let daemon = bench.run();
        // Killed at another moment each time: after so many events, and so many milliseconds.
        for _ in 0..=run % 5 {
            subscriber.expect("an event", |heard| ledger.take(heard));
        }
        std::thread::sleep(Duration::from_millis(run * 37 % 250));
        kill(daemon);
        stored_in_all.extend(stored(&folder));
    }
    let last = bench.run();
    let newest = stored_in_all
        .iter()
        .max()
        .copied()
        .expect("something was stored");
    let first_of_last = subscriber.expect("what was stored", |heard| {
        ledger.take(heard).filter(|sequence| *sequence > newest)
    });
    last.terminate();
    subscriber.expect("the end", |heard| {
        ledger.take(heard);
        (heard.topic == STATE && heard.text() == "offline").then_some(())
    });
    for sequence in &stored_in_all {
        assert!(
            ledger.events.contains_key(sequence),
            "{sequence} was stored and is missing"
        );
    }
    ledger.check();
    println!(
        "{KILLS} kills: {} events, {} of them seen in the files, {} repeated; the last run began with {first_of_last}",
        ledger.events.len(),
        stored_in_all.len(),
        ledger.repeated,
    );
}

/// A daemon, a broker, and a cable between them that is plugged in while somebody listens.
struct Line {
    broker: Broker,
    cable: Cable,
    ledger: Ledger,
}

impl Line {
    fn new(broker: Broker) -> Self {
        let cable = Cable::new(broker.port());
        Self {
            broker,
            cable,
            ledger: Ledger::new(EVENTS),
        }
    }

    /// Somebody who listens, before the daemon is let through.
    fn listen(&mut self, name: &str) -> Subscriber {
        let subscriber = Subscriber::connect(self.broker.port(), name);
        self.cable.plug();
        subscriber
    }

    /// Waits for so many events that are new.
    fn hear(&mut self, subscriber: &mut Subscriber, count: usize) {
        for _ in 0..count {
            subscriber.expect("an event", |heard| self.ledger.take(heard));
        }
    }

    /// The daemon ends; nothing that it knew of is missing.
    fn finish(mut self, daemon: Daemon, mut subscriber: Subscriber) {
        let log = daemon.terminate();
        subscriber.expect("the end", |heard| {
            self.ledger.take(heard);
            (heard.topic == STATE && heard.text() == "offline").then_some(())
        });
        self.ledger.check();
        println!(
            "{} events, {} repeated",
            self.ledger.events.len(),
            self.ledger.repeated
        );
        assert!(!log.contains("were dropped"), "{log}");
    }
}

#[test]
fn a_broker_that_is_killed_at_work_and_forgets_everything_costs_no_event() {
    let mut line = Line::new(Broker::start());
    let bench = eventful(line.cable.port());
    let daemon = bench.run();
    for round in 0..BROKERS {
        let mut subscriber = line.listen(&format!("round-{round}"));
        line.hear(&mut subscriber, 3 + round as usize % 4);
        std::thread::sleep(Duration::from_millis(round * 61 % 200));
        line.broker.stop();
        subscriber.until_lost(|heard| {
            line.ledger.take(heard);
        });
        line.cable.unplug();
        line.broker.start_again();
    }
    let mut subscriber = line.listen("last");
    line.hear(&mut subscriber, 8);
    line.finish(daemon, subscriber);
}

#[test]
fn a_broker_that_is_paused_and_slowed_costs_no_event() {
    let mut line = Line::new(Broker::start());
    let bench = eventful(line.cable.port());
    let daemon = bench.run();
    let mut subscriber = line.listen("test");
    line.hear(&mut subscriber, 3);
    // So short that nobody notices.
    line.broker.pause();
    std::thread::sleep(Duration::from_millis(700));
    line.broker.resume();
    line.hear(&mut subscriber, 8);
    // At work a tenth of the time.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        line.broker.pause();
        std::thread::sleep(Duration::from_millis(90));
        line.broker.resume();
        std::thread::sleep(Duration::from_millis(10));
    }
    line.hear(&mut subscriber, 8);
    // So long that the daemon takes the connection for lost: what the broker then finds comes twice.
    line.broker.pause();
    wait_for("the silence to be noticed", || {
        daemon
            .log()
            .contains("no connection to the broker")
            .then_some(())
    });
    line.broker.resume();
    line.hear(&mut subscriber, 8);
    line.finish(daemon, subscriber);
}

#[test]
fn a_broker_that_keeps_its_state_has_everything_for_who_was_away() {
    let settings = "allow_anonymous true\npersistence true\n";
    let mut line = Line::new(Broker::start_with(settings));
    let bench = eventful(line.cable.port());
    let port = line.broker.port();
    let durable = || Subscriber::connect_durably(port, "durable");
    let mut subscriber = durable();
    line.cable.plug();
    let daemon = bench.run();
    line.hear(&mut subscriber, 3);
    line.broker.shut_down();
    subscriber.until_lost(|heard| {
        line.ledger.take(heard);
    });
    line.broker.start_again();
    // Nobody listens; the broker keeps it.
    let mut witness = Subscriber::connect(port, "witness");
    for _ in 0..5 {
        witness.expect("an event", |heard| (heard.topic == EVENTS).then_some(()));
    }
    line.broker.shut_down();
    witness.until_lost(|_| ());
    line.broker.start_again();
    let mut subscriber = durable();
    line.hear(&mut subscriber, 8);
    line.finish(daemon, subscriber);
}
