//! Detection at certain times only.

use crate::bench::Bench;
use crate::command::{ask, checked};
use crate::events::{COUNTS, still_picture_of};
use crate::{document, long_run};
use rumqttc::PublishOptions;
use rustix::process::Signal;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};
use system_tests::broker::{Broker, Heard, Subscriber, publish};

const DETECTION: &str = "site/pi/door/detection";
const SCHEMA: &str = include_str!("../../../docs/schema/detection-state-1.json");

/// A span of six hours with this moment in its middle, by a clock that shows UTC and so many hours more.
fn six_hours_around_now(hours_more: u64) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
    let minutes = seconds.expect("after 1970").as_secs() / 60 + hours_more * 60;
    let time = |minutes: u64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
    let spans = format!("{}-{}", time(minutes - 180), time(minutes + 180));
    format!("[schedule]\nspans = [\"{spans}\"]\n")
}

/// On or off, and why.
fn detection(heard: &Heard) -> Option<(bool, Option<String>)> {
    (heard.topic == DETECTION).then(|| {
        let state = checked(heard, SCHEMA);
        let reason = state["reason"].as_str().map(String::from);
        (state["on"].as_bool().expect("true or false"), reason)
    })
}

fn expect_detection(subscriber: &mut Subscriber, on: bool, reason: Option<&str>) {
    subscriber.expect(&format!("detection: {on}, {reason:?}"), |heard| {
        let (is_on, why) = detection(heard)?;
        (is_on == on && why.as_deref() == reason).then_some(())
    });
}

fn reload(bench: &Bench, daemon: &crate::bench::Daemon, settings: &str) {
    fs::write(bench.path("ternwatch.toml"), settings).expect("written");
    daemon.signal(Signal::HUP);
}

#[test]
fn a_schedule_goes_by_the_time_zone_of_the_system() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = long_run(broker.port());
    bench.write_config(&six_hours_around_now(0));
    for (zone, on) in [("UTC", true), ("Etc/GMT-12", false)] {
        let daemon = bench.run_with(|command| {
            command.env("TZ", zone);
        });
        // What is retained of the run before has gone by the time that this one says something.
        subscriber.expect("detection by the schedule", |heard| {
            let (is_on, why) = detection(heard)?;
            assert_eq!((is_on, why.as_deref()), (on, Some("schedule")), "{zone}");
            Some(())
        });
        daemon.terminate();
    }
}

#[test]
fn a_command_overrides_the_schedule_until_its_next_change() {
    let broker = Broker::start();
    let port = broker.port();
    let mut subscriber = Subscriber::connect(port, "test");
    let mut bench = long_run(port);
    bench.set("MQTT__COMMANDS", "true");
    bench.set("PUBLISH__STATISTICS_S", "1");
    // It is twelve hours too early.
    bench.write_config(&six_hours_around_now(12));
    let daemon = bench.run_with(|command| {
        command.env("TZ", "UTC");
    });
    expect_detection(&mut subscriber, false, Some("schedule"));
    subscriber.expect("frames that are captured and not examined", |heard| {
        assert!(document(heard).is_none(), "nothing is examined");
        let statistics = heard.document("site/pi/statistics")?;
        let frames = &statistics["frames"];
        assert_eq!(frames["skipped"], 0, "that is what motion gating saves");
        (frames["examined"] == 0 && frames["at_rest"].as_u64()? > 0).then_some(())
    });
    let answer = ask(
        port,
        &mut subscriber,
        "detection",
        r#"{"on": true}"#,
        "me/answers",
    );
    assert_eq!(answer["ok"], true, "{answer}");
    subscriber.expect("a document", document);
    Subscriber::connect(port, "late").expect("the retained state", |heard| {
        let state = detection(heard).filter(|_| heard.is_retained)?;
        (state == (true, Some("command".into()))).then_some(())
    });
    // To always, which is a change, and back.
    reload(&bench, &daemon, "");
    expect_detection(&mut subscriber, true, None);
    reload(&bench, &daemon, &six_hours_around_now(12));
    expect_detection(&mut subscriber, false, Some("schedule"));
    // A mistake changes nothing.
    reload(&bench, &daemon, "[schedule]\nspans = [\"noon\"]\n");
    reload(&bench, &daemon, &six_hours_around_now(0));
    expect_detection(&mut subscriber, true, Some("schedule"));
    subscriber.expect("a document again", document);
    let log = daemon.terminate();
    assert!(!log.contains("read at the start only"), "{log}");
}

#[test]
fn somebody_whom_a_killed_run_left_in_view_is_gone_with_the_next_run_though_it_rests() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = still_picture_of(3000, broker.port());
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    let daemon = bench.run();
    let before = subscriber.expect("somebody in view", |heard| {
        heard
            .document(COUNTS)
            .filter(|counts| counts["in_view"] != 0)
    });
    daemon.signal(Signal::KILL);
    daemon.wait();
    // It is twelve hours too early.
    bench.write_config(&six_hours_around_now(12));
    let daemon = bench.run_with(|command| {
        command.env("TZ", "UTC");
    });
    let counts = subscriber.expect("the counts of the next run", |heard| {
        heard
            .document(COUNTS)
            .filter(|counts| counts["started_at"] != before["started_at"])
    });
    assert_eq!(counts["in_view"], 0, "{counts}");
    Subscriber::connect(broker.port(), "late").expect("the retained counts", |heard| {
        let retained = heard.document(COUNTS).filter(|_| heard.is_retained)?;
        assert_eq!(retained, counts);
        Some(())
    });
    daemon.terminate();
}

#[test]
fn what_another_run_said_of_detection_is_replaced() {
    let broker = Broker::start();
    let off = r#"{"schema":1,"on":false,"reason":"command"}"#;
    let kept = PublishOptions::at_least_once().retained();
    publish(broker.port(), DETECTION, off, kept);
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = Bench::with_video(20, broker.port());
    let daemon = bench.run();
    expect_detection(&mut subscriber, true, None);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}
