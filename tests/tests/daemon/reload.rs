//! Settings that are changed while the daemon runs.

use crate::bench::Bench;
use crate::command::settings;
use crate::long_run;
use rustix::process::Signal;
use std::fs;
use system_tests::broker::{Broker, Heard, Subscriber, wait_for};

/// The zones that counts speak of.
fn zones(heard: &Heard) -> Option<Vec<String>> {
    let counts = heard.document("site/pi/door/counts")?;
    let zones = counts["zones"].as_object().expect("zones");
    Some(zones.keys().cloned().collect())
}

fn write(bench: &Bench, settings: &str) {
    fs::write(bench.path("ternwatch.toml"), settings).expect("written");
}

#[test]
fn a_hang_up_takes_zones_over_and_a_mistake_changes_nothing() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = long_run(broker.port());
    bench.set("MQTT__COMMANDS", "true");
    let daemon = bench.run();
    subscriber.expect("counts without zones", |heard| {
        zones(heard)?.is_empty().then_some(())
    });
    let yard =
        "[[zones]]\nname = \"yard\"\npoints = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]\n";
    write(&bench, &format!("{yard}[log]\nlevel = \"debug\"\n"));
    daemon.signal(Signal::HUP);
    subscriber.expect("settings with the yard", |heard| {
        (settings(heard)?.1 == ["yard"]).then_some(())
    });
    subscriber.expect("counts of the yard", |heard| {
        (zones(heard)? == ["yard"]).then_some(())
    });
    write(&bench, "[[zones]]\nname = \"yard\"\npoints = []\n");
    daemon.signal(Signal::HUP);
    wait_for("the mistake to be told", || {
        let log = daemon.log();
        log.contains("the settings stay as they were").then_some(())
    });
    let log = daemon.terminate();
    assert!(log.contains("read at the start only: log"), "{log}");
    assert!(log.contains("zones[0].points"), "{log}");
}
