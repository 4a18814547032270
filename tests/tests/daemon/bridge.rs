//! A broker at the site that passes everything on to one in the middle, as deploy/mosquitto/bridge.conf has it.

use crate::outbox::{EVENTS, eventful};
use crate::{expect_state, state};
use rumqttc::PublishOptions;
use rumqttc::mqttbytes::v5::PublishProperties;
use system_tests::broker::{Broker, Cable, Subscriber, publish};
use system_tests::ledger::Ledger;

const SETTINGS: &str = include_str!("../../../deploy/mosquitto/bridge.conf");

/// The settings with another way to the broker in the middle, and for the tests' prefix.
pub(crate) fn settings(port: u16) -> String {
    let settings = SETTINGS.replace(" ternwatch/", " site/");
    let changed = settings.replace("central.lan:8883", &format!("127.0.0.1:{port}"));
    assert_ne!(changed, settings);
    format!("allow_anonymous true\n{changed}\n")
}

/// Without certificates.
fn plain(settings: &str) -> String {
    let files = ["bridge_cafile", "bridge_certfile", "bridge_keyfile"];
    let is_plain = |line: &&str| !files.iter().any(|file| line.starts_with(file));
    let lines: Vec<&str> = settings.lines().filter(is_plain).collect();
    lines.join("\n")
}

#[test]
fn what_happens_while_the_way_to_the_middle_is_cut_comes_later_and_commands_come_back() {
    let middle = Broker::start();
    let mut cable = Cable::new(middle.port());
    cable.plug();
    let site = Broker::start_with(&plain(&settings(cable.port())));
    let mut subscriber = Subscriber::connect(middle.port(), "middle");
    let mut bench = eventful(site.port());
    bench.set("MQTT__COMMANDS", "true");
    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    // After a cut mosquitto 2.0.11 sends what waits out of order at times.
    let mut ledger = Ledger::in_any_order(EVENTS);
    let hear = |subscriber: &mut Subscriber, ledger: &mut Ledger, count: usize| {
        for _ in 0..count {
            subscriber.expect("an event in the middle", |heard| ledger.take(heard));
        }
    };
    hear(&mut subscriber, &mut ledger, 5);
    cable.unplug();
    let mut witness = Subscriber::connect(site.port(), "witness");
    for _ in 0..30 {
        witness.expect("an event at the site", |heard| {
            (heard.topic == EVENTS).then_some(())
        });
    }
    cable.plug();
    hear(&mut subscriber, &mut ledger, 40);

    for (answer_at, wanted) in [
        ("site/pi/door/command/response", None),
        ("answers/pi/panel", Some("answers/pi/panel")),
    ] {
        let properties = PublishProperties {
            response_topic: wanted.map(String::from),
            ..PublishProperties::default()
        };
        let options = PublishOptions::at_least_once().properties(properties);
        let (topic, payload) = ("site/pi/door/command/threshold", r#"{"score_min": 0.5}"#);
        publish(middle.port(), topic, payload, options);
        let answer = subscriber.expect("the answer in the middle", |heard| {
            ledger.take(heard);
            heard.document(answer_at)
        });
        assert_eq!(answer["ok"], true, "{answer}");
    }
    daemon.terminate();
    subscriber.expect("the end", |heard| {
        ledger.take(heard);
        (state(heard)? == "offline").then_some(())
    });
    ledger.check();
    println!(
        "{} events, {} repeated, {} late",
        ledger.events.len(),
        ledger.repeated,
        ledger.late
    );
}
