//! A broker that is there and does not want events: for a while, or never.

use crate::events::{COUNTS, still_picture, still_picture_of};
use crate::{STATE, expect_state};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use system_tests::broker::{Broker, Subscriber, variable};

const QUOTA_EXCEEDED: u8 = 0x97;
const NOT_AUTHORIZED: u8 = 0x87;
const PAYLOAD_FORMAT_INVALID: u8 = 0x99;

/// What was published, and how often, before they were taken, messages of a topic were refused.
#[derive(Default)]
struct Desk {
    /// How the topic ends.
    refused: &'static str,
    refusals_left: usize,
    reason: u8,
    /// Numbers of the events that were taken.
    taken: Vec<u64>,
    /// Topics and payloads of all others, taken or not.
    others: Vec<(String, Vec<u8>)>,
}

/// As much of a broker of MQTT 5 as a publisher needs. Refuses events.
fn broker(refusals: usize, reason: u8) -> (u16, Arc<Mutex<Desk>>) {
    broker_without("/events", refusals, reason)
}

/// The same, of messages whose topic ends like that.
fn broker_without(refused: &'static str, refusals: usize, reason: u8) -> (u16, Arc<Mutex<Desk>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    let port = listener.local_addr().expect("it is bound").port();
    let desk = Arc::new(Mutex::new(Desk {
        refused,
        refusals_left: refusals,
        reason,
        ..Desk::default()
    }));
    std::thread::spawn({
        let desk = desk.clone();
        move || {
            for stream in listener.incoming() {
                // The connection ends when the client does.
                let _ = serve(stream.expect("a connection"), &desk);
            }
        }
    });
    (port, desk)
}

fn serve(mut stream: TcpStream, desk: &Mutex<Desk>) -> io::Result<()> {
    loop {
        let mut header = [0];
        stream.read_exact(&mut header)?;
        let len = variable(&mut stream, &mut Vec::new())?;
        let mut body = vec![0; len];
        stream.read_exact(&mut body)?;
        let id = |at: usize| [body[at], body[at + 1]];
        match header[0] >> 4 {
            // CONNECT.
            1 => stream.write_all(&[0x20, 3, 0, 0, 0])?,
            // PUBLISH.
            3 => {
                let topic_len = usize::from(u16::from_be_bytes(id(0)));
                let topic = String::from_utf8_lossy(&body[2..2 + topic_len]).into_owned();
                if header[0] & 0b110 == 0 {
                    continue;
                }
                let mut rest = &body[4 + topic_len..];
                let properties = variable(&mut rest, &mut Vec::new())?;
                let reason = desk
                    .lock()
                    .expect("no panic")
                    .judge(&topic, &rest[properties..]);
                let [high, low] = id(2 + topic_len);
                stream.write_all(&[0x40, 3, high, low, reason])?;
            }
            // SUBSCRIBE.
            8 => {
                let [high, low] = id(0);
                stream.write_all(&[0x90, 4, high, low, 0, 1])?;
            }
            // PINGREQ.
            12 => stream.write_all(&[0xd0, 0])?,
            // DISCONNECT.
            _ => return Ok(()),
        }
    }
}

impl Desk {
    fn judge(&mut self, topic: &str, payload: &[u8]) -> u8 {
        let is_event = topic.ends_with("/events");
        if !is_event {
            self.others.push((topic.into(), payload.into()));
        }
        if topic.ends_with(self.refused) && self.refusals_left > 0 {
            self.refusals_left -= 1;
            return self.reason;
        }
        if !is_event {
            return 0;
        }
        let event: Value = serde_json::from_slice(payload).expect("JSON");
        self.taken
            .push(event["sequence"].as_u64().expect("a number"));
        0
    }
}

#[test]
fn events_that_are_not_wanted_for_now_come_later_in_order() {
    for (reason, words) in [
        (QUOTA_EXCEEDED, "(quota exceeded)"),
        (NOT_AUTHORIZED, "(not authorized)"),
    ] {
        let (port, desk) = broker(3, reason);
        let (status, log) = still_picture(port).run().wait();
        assert_eq!(status.code(), Some(0), "{log}");
        let told = format!("the broker does not accept site/pi/door/events {words}");
        assert_eq!(log.matches(&told).count(), 1, "{log}");
        assert!(
            log.contains("the broker accepts site/pi/door/events again"),
            "{log}"
        );
        assert!(!log.contains("not published"), "{log}");
        let desk = desk.lock().expect("no panic");
        let expected: Vec<u64> = (0..desk.taken.len() as u64).collect();
        assert_eq!(desk.taken, expected);
        let mut others = desk.others.iter();
        let has_counts = others.any(|(topic, _)| topic.ends_with("/counts"));
        assert!(desk.taken.len() > 5 && has_counts, "{log}");
    }
}

#[test]
fn a_state_that_is_not_wanted_for_now_is_said_again_and_no_other_is() {
    let (port, desk) = broker_without("/door/state", 2, NOT_AUTHORIZED);
    let mut bench = still_picture(port);
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let told = "the broker does not accept site/pi/door/state (not authorized)";
    assert_eq!(log.matches(told).count(), 1, "{log}");
    let desk = desk.lock().expect("no panic");
    let count = |wanted: &str| {
        let others = desk.others.iter();
        others.filter(|(topic, _)| topic == wanted).count()
    };
    // `online` and `offline`.
    assert_eq!(count(STATE), 2, "{:?}", desk.others);
    assert!(count("site/pi/door/state") >= 3, "{:?}", desk.others);
    let documents = ["/state", "/counts", "/statistics"];
    let is_other = |topic: &str| documents.iter().all(|end| !topic.ends_with(end));
    for (topic, payload) in &desk.others {
        let same = desk.others.iter().filter(|other| other.1 == *payload);
        assert!(!is_other(topic) || same.count() == 1, "{topic} came again");
    }
}

#[test]
fn a_run_that_is_over_while_events_are_not_wanted_waits_for_the_broker_in_peace() {
    let (port, desk) = broker(2, QUOTA_EXCEEDED);
    let (status, log) = still_picture_of(8, port).run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("(quota exceeded)"), "{log}");
    assert!(!log.contains("not published"), "{log}");
    let desk = desk.lock().expect("no panic");
    let expected: Vec<u64> = (0..desk.taken.len() as u64).collect();
    assert_eq!(desk.taken, expected);
    assert!(desk.taken.len() >= 2, "somebody came and went: {log}");
}

#[test]
fn an_event_that_will_never_be_wanted_does_not_stand_in_the_way_of_the_others() {
    let (port, desk) = broker(1, PAYLOAD_FORMAT_INVALID);
    let (status, log) = still_picture(port).run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("1 events were not published"), "{log}");
    let desk = desk.lock().expect("no panic");
    let expected: Vec<u64> = (1..=desk.taken.len() as u64).collect();
    assert_eq!(desk.taken, expected, "only the first is missing");
}

#[test]
fn what_is_larger_than_the_brokers_packets_is_given_up_and_costs_no_connection() {
    // Less than an event or a picture takes, more than counts do.
    let broker = Broker::start_with("allow_anonymous true\nmax_packet_size 600\n");
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = still_picture(broker.port());
    bench.set("SNAPSHOTS__ENABLED", "true");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    expect_state(&mut subscriber, "online");
    let mut in_view = Vec::new();
    subscriber.expect("the end of the run", |heard| {
        assert!(heard.payload.len() < 600, "{heard:?}");
        in_view.extend(
            heard
                .document(COUNTS)
                .map(|counts| counts["in_view"].clone()),
        );
        (heard.topic == STATE && heard.text() == "offline").then_some(())
    });
    assert!(in_view.iter().any(|count| count != 0), "{in_view:?}");
    assert_eq!(log.matches("connected to the broker").count(), 1, "{log}");
    for topic in ["site/pi/door/events", "site/pi/door/snapshot"] {
        let told = format!("the broker does not accept {topic}");
        let told: Vec<&str> = log.lines().filter(|line| line.contains(&told)).collect();
        assert_eq!(told.len(), 1, "once, not each time: {log}");
        assert!(told[0].contains("the broker takes 600 at most"), "{log}");
    }
    assert!(log.contains("events were not published"), "{log}");
}
