//! What is on the wire, topic by topic, is what the table in docs/mqtt.md says.

use crate::events::still_picture_of;
use crate::push::{Pusher, long_bundle};
use rumqttc::PublishOptions;
use std::collections::BTreeSet;
use std::fs;
use system_tests::broker::{Broker, Heard, Subscriber, kept, publish};

const DOCUMENT: &str = include_str!("../../../docs/mqtt.md");
const EVENT_EXPIRY_S: u32 = 1234;
const SNAPSHOT_EXPIRE_S: u32 = 567;
/// The broker counts down while it has a message.
const UNDERWAY_S: u32 = 60;

/// A line of the table.
#[derive(Debug)]
struct Row {
    /// With the names of the bench; `<id>` stands for anything.
    topic: String,
    is_retained: bool,
    /// Not for ever, and not said again.
    is_for_a_while: bool,
    qos: u8,
    expiry_s: Option<u32>,
}

impl Row {
    fn parse(line: &str) -> Self {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [topic, _, retained, qos, expiry] = cells[..] else {
            panic!("not five columns: {line}");
        };
        let topic = topic.trim_matches('`').replace("<prefix>", "site");
        Self {
            topic: topic.replace("<device>", "pi").replace("<camera>", "door"),
            is_retained: retained != "no",
            is_for_a_while: !["yes", "no"].contains(&retained),
            qos: qos.parse().expect("a number"),
            expiry_s: match expiry {
                "" => None,
                "`publish.event_expiry_s`" => Some(EVENT_EXPIRY_S),
                "`snapshots.expire_s`" => Some(SNAPSHOT_EXPIRE_S),
                seconds => {
                    let seconds = seconds.strip_suffix(" s").expect("seconds");
                    Some(seconds.parse().expect("a number"))
                }
            },
        }
    }

    fn is_of(&self, topic: &str) -> bool {
        let wanted = self.topic.split('/');
        let fits = |(wanted, is): (&str, &str)| wanted == is || wanted == "<id>";
        wanted.clone().count() == topic.split('/').count() && wanted.zip(topic.split('/')).all(fits)
    }

    fn check(&self, heard: &Heard) {
        assert_eq!(heard.qos, self.qos, "{self:?}: {heard:?}");
        match (self.expiry_s, heard.expiry_s) {
            (None, None) => {}
            (Some(wanted), Some(is)) => {
                let is_right = (wanted - UNDERWAY_S.min(wanted)..=wanted).contains(&is);
                assert!(is_right, "{self:?}: {heard:?}");
            }
            _ => panic!("{self:?}: {heard:?}"),
        }
    }
}

fn table() -> Vec<Row> {
    let lines = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| topic |"));
    let lines = lines.skip(2).take_while(|line| line.starts_with('|'));
    lines.map(Row::parse).collect()
}

/// What somebody else says to the device.
fn is_for_the_device(topic: &str) -> bool {
    let is_of_the_sender = topic.starts_with("site/pi/model/") && topic != "site/pi/model/request";
    is_of_the_sender
        || ["detection", "snapshot"]
            .iter()
            .any(|name| topic == format!("site/pi/door/command/{name}"))
}

/// Waits until something was heard on each of these topics, checking all that comes on the way.
fn hear_all(subscriber: &mut Subscriber, table: &[Row], wanted: impl Fn(&Row) -> bool) {
    let wanted = table.iter().filter(|row| wanted(row));
    let mut missing: BTreeSet<&str> = wanted.map(|row| row.topic.as_str()).collect();
    let what = format!("{missing:?}");
    subscriber.expect(&what, |heard| {
        let row = table.iter().find(|row| row.is_of(&heard.topic));
        if let Some(row) = row {
            row.check(heard);
            missing.remove(row.topic.as_str());
        } else {
            assert!(is_for_the_device(&heard.topic), "not documented: {heard:?}");
        }
        missing.is_empty().then_some(())
    });
}

#[test]
fn every_topic_has_the_quality_the_retention_and_the_expiry_that_are_documented() {
    let table = table();
    assert!(table.len() >= 13, "{table:?}");
    let mut broker = Broker::start();
    let port = broker.port();
    let mut subscriber = Subscriber::connect(port, "test");
    let mut bench = still_picture_of(3000, port);
    for (key, value) in [
        ("CAMERA__VIDEO__PACE", "real-time"),
        ("PIPELINE__WHEN_BUSY", "drop-oldest"),
        ("PUBLISH__FRAMES", "true"),
        ("PUBLISH__STATISTICS_S", "1"),
        ("PUBLISH__EVENT_EXPIRY_S", &EVENT_EXPIRY_S.to_string()),
        ("SNAPSHOTS__ENABLED", "true"),
        ("SNAPSHOTS__EXPIRE_S", &SNAPSHOT_EXPIRE_S.to_string()),
        ("MQTT__COMMANDS", "true"),
        ("HOME_ASSISTANT__ENABLED", "true"),
    ] {
        bench.set(key, value);
    }
    fs::create_dir(bench.path("state")).expect("a new folder");
    let daemon = bench.run();
    subscriber.expect("a frame", |heard| {
        (heard.topic == "site/pi/door/detections").then_some(())
    });
    // What it retains is looked at below.
    let ask = |command: &str, payload: &str| {
        let topic = format!("site/pi/door/command/{command}");
        publish(port, &topic, payload, PublishOptions::at_least_once());
    };
    ask("detection", r#"{"on": true}"#);
    ask("snapshot", "{}");
    let pusher = Pusher::connect(port);
    pusher.offer("job", 2, &long_bundle(2, 2));
    let comes_later = |row: &Row| !row.is_retained || row.qos == 0;
    hear_all(&mut subscriber, &table, comes_later);

    let mut kept = kept(port);
    kept.retain(|topic, _| !is_for_the_device(topic));
    for row in &table {
        let found = kept.iter().find(|(topic, _)| row.is_of(topic));
        assert_eq!(found.is_some(), row.is_retained, "{row:?}");
        if let Some((_, heard)) = found {
            row.check(heard);
        }
    }
    assert_eq!(
        kept.len(),
        table.iter().filter(|row| row.is_retained).count()
    );

    // The broker forgets everything.
    broker.stop();
    broker.start_again();
    let mut again = Subscriber::connect(port, "again");
    hear_all(&mut again, &table, |row| {
        row.is_retained && !row.is_for_a_while
    });
    daemon.terminate();
}
