//! Events survive the worst days of the daemon and of the broker: both are killed at work, again and again.

use super::STATE;
use super::bench::{Bench, Daemon};
use super::events::{HALVES, STREET, assert_street, look_for_people};
use fastrand::Rng;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use system_tests::broker::{Broker, Cable, Subscriber, wait_for};
use system_tests::ledger::Ledger;

pub(crate) const EVENTS: &str = "site/pi/door/events";
/// How often the daemon is killed.
const KILLS: u64 = 25;
/// How often the broker is.
const BROKERS: u64 = 6;

/// A pedestrian precinct and the model that comes along: everybody is told of five times a second, and when they go from one half of
/// the picture to the other.
pub(crate) fn eventful(port: u16) -> Bench {
    assert_street();
    let mut bench = Bench::new(port);
    look_for_people(&mut bench);
    bench.set("CAMERA__SOURCE", "video");
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    // A machine that is busy otherwise may be slow to decode.
    bench.set("CAMERA__STALL_S", "60");
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    bench.set("TRACK__UPDATE_S", "0.2");
    bench.set("MQTT__KEEP_ALIVE_S", "5");
    bench.set("MQTT__OUTBOX_SYNC_S", "0.2");
    bench.write_config(HALVES);
    fs::create_dir(bench.path("state")).expect("created");
    // For ten minutes.
    play(&mut bench, &["-stream_loop", "7", "-i", STREET]);
    bench
}

/// Puts on what ffmpeg reads by these arguments, as it is.
fn play(bench: &mut Bench, input: &[&str]) {
    let film = bench.path("film.avi");
    let copied = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(input)
        .args(["-c", "copy"])
        .arg(&film)
        .stdin(Stdio::null())
        .status();
    assert!(copied.expect("ffmpeg runs").success());
    bench.set("CAMERA__VIDEO__PATH", film.to_str().expect("UTF-8"));
}

/// The numbers of the events that lie in the outbox's files, whatever their format is: the documents are text.
fn stored(folder: &Path) -> Vec<u64> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("readable").path();
        // Nothing of a file that has only its temporary name is promised.
        if path.extension().is_some_and(|extension| extension == "new") {
            continue;
        }
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

/// Where the street begins and when the daemon is killed is random: after some of the run's events, or at any moment of its first two
/// seconds, in which it starts, takes over what an earlier run left, and publishes.
#[test]
fn a_daemon_that_is_killed_again_and_again_loses_no_stored_event() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = Rng::with_seed(seed);
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = eventful(broker.port());
    let folder = bench.path("state/outbox");
    let mut ledger = Ledger::new(EVENTS);
    let mut stored_in_all: BTreeSet<u64> = BTreeSet::new();
    for run in 0..KILLS {
        let second = chance.u32(..60).to_string();
        play(&mut bench, &["-ss", &second, "-i", STREET, "-t", "20"]);
        let before = stored_in_all.last().copied();
        let daemon = bench.run();
        if run % 2 == 0 {
            for _ in 0..=chance.u32(..5) {
                subscriber.expect("an event of this run", |heard| {
                    ledger.take(heard).filter(|number| Some(*number) > before)
                });
            }
            sleep_ms(chance.u64(..250));
        } else {
            sleep_ms(chance.u64(..2000));
        }
        kill(daemon);
        stored_in_all.extend(stored(&folder));
    }
    let last = bench.run();
    let newest = stored_in_all.last().copied().expect("something was stored");
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

fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
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

/// Kills the broker at work, again and again, and starts it again.
fn kill_at_work(broker: Broker, listen: impl Fn(&mut Line, u64) -> Subscriber) {
    let mut line = Line::new(broker);
    let bench = eventful(line.cable.port());
    let daemon = bench.run();
    for round in 0..BROKERS {
        let mut subscriber = listen(&mut line, round);
        line.hear(&mut subscriber, 3 + round as usize % 4);
        sleep_ms(round * 61 % 200);
        line.broker.stop();
        subscriber.until_lost(|heard| {
            line.ledger.take(heard);
        });
        line.cable.unplug();
        line.broker.start_again();
    }
    let mut subscriber = listen(&mut line, BROKERS);
    line.hear(&mut subscriber, 8);
    line.finish(daemon, subscriber);
}

#[test]
fn a_broker_that_is_killed_at_work_and_forgets_everything_costs_no_event() {
    kill_at_work(Broker::start(), |line, round| {
        line.listen(&format!("round-{round}"))
    });
}

#[test]
fn a_broker_that_is_killed_at_work_and_keeps_its_state_costs_no_event() {
    // Its state is written after every change, so that there is some, perhaps an old one.
    let settings =
        "allow_anonymous true\npersistence true\nautosave_on_changes true\nautosave_interval 1\n";
    kill_at_work(Broker::start_with(settings), |line, _| {
        let subscriber = Subscriber::connect_durably(line.broker.port(), "durable");
        line.cable.plug();
        subscriber
    });
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
    sleep_ms(700);
    line.broker.resume();
    line.hear(&mut subscriber, 8);
    // At work a tenth of the time.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        line.broker.pause();
        sleep_ms(90);
        line.broker.resume();
        sleep_ms(10);
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
fn whatever_the_outbox_has_become_the_daemon_starts_and_names_it() {
    type Damage = fn(&Path);
    fn change(folder: &Path, change: impl Fn(&mut Vec<u8>)) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("readable").path();
            let mut bytes = fs::read(&path).expect("readable");
            change(&mut bytes);
            fs::write(&path, bytes).expect("written");
        }
    }
    let damages: [(Damage, &str, bool); 4] = [
        (
            // As a record begins.
            |folder| change(folder, |bytes| bytes.extend(b"\xe5\0E\x01torn")),
            "the last 8 bytes are torn; what is whole was kept",
            true,
        ),
        (
            |folder| change(folder, |bytes| bytes.fill(0xa5)),
            "bytes are no events; what is whole was kept",
            false,
        ),
        (
            |folder| change(folder, |bytes| bytes.clear()),
            "its 0 bytes are no events; what is whole was kept",
            false,
        ),
        (
            |folder| {
                fs::remove_dir_all(folder).expect("it is there");
                fs::write(folder, "no folder").expect("written");
            },
            "events do not survive the end of the program",
            false,
        ),
    ];
    for (damage, said, is_kept) in damages {
        let mut line = Line::new(Broker::start());
        let bench = eventful(line.cable.port());
        let folder = bench.path("state/outbox");
        let daemon = bench.run();
        wait_for("three stored events", || {
            (stored(&folder).len() >= 3).then_some(())
        });
        kill(daemon);
        let files = fs::read_dir(&folder).expect("a folder");
        let newest = files.map(|entry| entry.expect("readable").path()).max();
        let newest = newest.expect("a file");
        damage(&folder);
        let mut subscriber = Subscriber::connect(line.broker.port(), "test");
        let daemon = bench.run();
        line.cable.plug();
        let first = subscriber.expect("an event", |heard| line.ledger.take(heard));
        assert_eq!(first, 0, "what is whole comes first, or numbers begin anew");
        line.hear(&mut subscriber, 8);
        line.ledger.check();
        let log = daemon.terminate();
        let reported = log.lines().find(|line| line.contains(said));
        let reported = reported.unwrap_or_else(|| panic!("{said} is not in\n{log}"));
        let named = if folder.is_dir() { &newest } else { &folder };
        assert!(reported.contains(named.to_str().expect("UTF-8")), "{log}");
        assert_eq!(log.contains("of an earlier run wait"), is_kept, "{log}");
    }
}

/// Such is a broker that is busy with its disk, or one that counts what a device publishes and drops what is too much.
fn leave_who_confirms_nothing(protocol: &str) {
    let broker = Broker::start();
    let mut cable = Cable::sifted(broker.port());
    cable.plug();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = eventful(cable.port());
    bench.set("MQTT__PROTOCOL", protocol);
    let daemon = bench.run();
    let mut ledger = Ledger::new(EVENTS);
    let mut hear = |count: usize| {
        subscriber.expect(&format!("{count} events"), |heard| {
            ledger.take(heard);
            (ledger.events.len() >= count).then_some(())
        });
        ledger.check();
    };
    hear(10);
    // Twice: what was given up once is nothing to the next connection.
    let words = "has not confirmed what it was sent 15 s ago";
    for (losses, count) in [(1, 50), (2, 100)] {
        cable.confirm(false);
        wait_for("another loss", || {
            (daemon.log().matches(words).count() >= losses).then_some(())
        });
        cable.confirm(true);
        hear(count);
    }
    let log = daemon.terminate();
    assert_eq!(log.matches("has not confirmed").count(), 2, "{log}");
}

#[test]
fn a_broker_that_confirms_nothing_is_left_and_loses_no_event_with_mqtt_5() {
    leave_who_confirms_nothing("5");
}

#[test]
fn a_broker_that_confirms_nothing_is_left_and_loses_no_event_with_mqtt_3_1_1() {
    leave_who_confirms_nothing("3.1.1");
}

#[test]
fn while_the_broker_is_away_pictures_are_dropped_and_no_event_is() {
    let mut line = Line::new(Broker::start());
    let mut bench = eventful(line.cable.port());
    for (key, value) in [
        ("SNAPSHOTS__ENABLED", "true"),
        ("CAMERA__VIDEO__PACE", "as-fast-as-possible"),
        ("PIPELINE__WHEN_BUSY", "wait"),
        ("TRACK__UPDATE_S", "5"),
        ("PUBLISH__STATISTICS_S", "1"),
        ("STDOUT__ENABLED", "true"),
    ] {
        bench.set(key, value);
    }
    let daemon = bench.run();
    // Eight pictures may wait.
    wait_for("thirty people to have gone", || {
        let text = fs::read_to_string(bench.path("stdout")).expect("readable");
        (text.matches("\"type\":\"end\"").count() >= 30).then_some(())
    });
    let mut subscriber = line.listen("test");
    let shown = subscriber.expect("a picture", |heard| {
        line.ledger.take(heard);
        let is_picture = heard.topic == "site/pi/door/snapshot";
        is_picture.then(|| heard.property("sequence")?.parse::<u64>().ok())?
    });
    assert!(
        line.ledger.events.contains_key(&shown),
        "its event comes first"
    );
    let count = line
        .ledger
        .events
        .values()
        .filter(|event| event["type"] == "end")
        .count();
    // Not quite all: the newest were not stored yet.
    assert!(
        count >= 25,
        "{count} people: whatever waited comes before the pictures"
    );
    subscriber.expect("how many were dropped", |heard| {
        line.ledger.take(heard);
        let statistics = heard.document("site/pi/statistics")?;
        assert_eq!(statistics["documents"]["dropped"], 0, "{statistics}");
        (statistics["snapshots"]["dropped"].as_u64()? > 0).then_some(())
    });
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
