//! `ternwatchd simulate`: a small fleet against a real broker.

use crate::bench::Bench;
use std::collections::BTreeMap;
use std::fs;
use system_tests::broker::{Broker, Subscriber};

const CAMERAS: usize = 50;

/// The number behind these words in the figures at the end.
fn figure(said: &str, words: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(words));
    line.and_then(|rest| rest.trim().parse().ok())
        .unwrap_or_else(|| panic!("no {words:?} in\n{said}"))
}

fn bench(port: u16, protocol: &str) -> Bench {
    let mut bench = Bench::new(port);
    bench.set("MQTT__PROTOCOL", protocol);
    bench.set("TRACK__UPDATE_S", "1.0");
    bench.write_config(
        "[[zones]]\nname = \"yard\"\npoints = [[0.2, 0.5], [0.8, 0.5], [0.8, 1.0], [0.2, 1.0]]\n\
         [[lines]]\nname = \"gate\"\npoints = [[0.5, 1.0], [0.5, 0.3]]\n",
    );
    bench
}

fn a_fleet_loses_nothing_and_leaves_nothing_behind(protocol: &str) {
    // What a subscriber has not taken is dropped beyond 1,000 messages otherwise.
    let broker = Broker::start_with("allow_anonymous true\nmax_queued_messages 100000\n");
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = bench(broker.port(), protocol);
    let daemon = bench.run_with(|command| {
        let cameras = CAMERAS.to_string();
        command.args(["simulate", "--cameras", &cameras]);
        command.args(["--seconds", "5", "--rate", "2"]);
    });
    let mut sequences: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    let mut states: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut forgotten = 0;
    subscriber.expect("the end of all cameras", |heard| {
        let (device, what) = heard.topic.strip_prefix("site/pi-")?.split_once('/')?;
        match what {
            "door/events" => {
                let event = heard.json();
                assert_eq!(event["schema"], 1);
                assert_eq!(event["camera"], "door");
                let sequence = event["sequence"].as_u64().expect("a number");
                sequences.entry(device.into()).or_default().push(sequence);
                let kind = event["type"].as_str().expect("a type");
                *types.entry(kind.into()).or_default() += 1;
            }
            "state" => states.entry(device.into()).or_default().push(heard.text()),
            "door/counts" => forgotten += usize::from(heard.payload.is_empty()),
            _ => panic!("{heard:?}"),
        }
        (forgotten == CAMERAS).then_some(())
    });
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");

    for (device, sequences) in &sequences {
        let expected = 0..sequences.len() as u64;
        assert!(
            sequences.iter().copied().eq(expected),
            "{device}: {sequences:?}"
        );
    }
    let said = fs::read_to_string(bench.path("stdout")).expect("readable");
    let events: usize = sequences.values().map(Vec::len).sum();
    assert_eq!(figure(&said, "events published"), events as u64, "{said}");
    assert_eq!(figure(&said, "events confirmed"), events as u64, "{said}");
    // Five seconds of two a second and camera; the first people have to walk in.
    assert!((150..900).contains(&events), "{said}");
    for kind in [
        "new",
        "update",
        "end",
        "zone_enter",
        "zone_leave",
        "line_cross",
    ] {
        assert!(types.contains_key(kind), "{types:?}");
    }
    assert_eq!(types["new"], types["end"], "{types:?}");
    assert_eq!(states.len(), CAMERAS);
    for (device, states) in states {
        assert_eq!(states, ["online", "offline", ""], "{device}");
    }

    let mut late = Subscriber::connect(broker.port(), "late");
    let again = bench.run_with(|command| {
        command.args(["simulate", "--cameras", "1", "--seconds", "1"]);
    });
    late.expect("a state", |heard| {
        assert!(!heard.is_retained, "{heard:?}");
        (heard.topic == "site/pi-0001/state").then_some(())
    });
    let (status, log) = again.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_simulated_fleet_loses_nothing_with_mqtt_5() {
    a_fleet_loses_nothing_and_leaves_nothing_behind("5");
}

#[test]
fn a_simulated_fleet_loses_nothing_with_mqtt_3_1_1() {
    a_fleet_loses_nothing_and_leaves_nothing_behind("3.1.1");
}

#[test]
fn a_simulation_that_is_stopped_leaves_nothing_behind() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = bench(broker.port(), "5").run_with(|command| {
        command.args(["simulate", "--cameras", "3", "--seconds", "600"]);
    });
    subscriber.expect("the last camera", |heard| {
        (heard.topic == "site/pi-0003/door/counts").then_some(())
    });
    daemon.signal(rustix::process::Signal::TERM);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(69), "{log}");
    let mut last = BTreeMap::new();
    subscriber.expect("the last message", |heard| {
        last.insert(heard.topic.clone(), heard.text());
        (heard.topic == "site/pi-0003/door/counts" && heard.text().is_empty()).then_some(())
    });
    last.retain(|topic, _| !topic.ends_with("/events"));
    assert_eq!(last.len(), 6, "{last:?}");
    assert!(last.values().all(String::is_empty), "{last:?}");
}

#[test]
fn a_simulation_without_a_broker_ends_and_says_so() {
    let (status, log) = bench(1, "5")
        .run_with(|command| {
            command.args(["simulate", "--cameras", "3"]);
        })
        .wait();
    assert_eq!(status.code(), Some(69), "{log}");
    assert!(
        log.contains("no connection to the broker at 127.0.0.1:1"),
        "{log}"
    );
}
