//! A network camera, played by the real ffmpeg: from the first picture, through what goes wrong, to the next.

use crate::bench::{Bench, HEIGHT, WIDTH};
use crate::document;
use serde_json::{Value, json};
use system_tests::broker::{Broker, Cable, Heard, Subscriber};
use system_tests::rtsp::NetworkCamera;

fn camera() -> NetworkCamera {
    let picture = format!("testsrc=size={WIDTH}x{HEIGHT}:rate=10");
    NetworkCamera::start(&["-f", "lavfi", "-i", &picture], "me", "hunter2")
}

fn viewer(broker: &Broker, password: &str, camera_port: u16) -> Bench {
    let mut bench = Bench::new(broker.port());
    let url = format!("rtsp://me:{password}@127.0.0.1:{camera_port}/street");
    bench.set("CAMERA__SOURCE", "rtsp");
    bench.set("CAMERA__RTSP__URL", &url);
    bench
}

fn expect_camera(subscriber: &mut Subscriber, expected: &str) -> Value {
    subscriber.expect(&format!("the camera's state {expected}"), |heard| {
        let state = heard.document("site/pi/door/state")?;
        (state["state"] == expected).then_some(state)
    })
}

/// A frame in which something was found.
fn finding(heard: &Heard) -> Option<Value> {
    let document = document(heard)?;
    assert_eq!(
        document["frame"],
        json!({ "width": WIDTH, "height": HEIGHT })
    );
    let found = document["detections"].as_array()?;
    (!found.is_empty()).then_some(document)
}

#[test]
fn a_network_camera_is_watched_and_watched_again_after_it_hung_up() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let camera = camera();
    let mut cable = Cable::new(camera.port());
    cable.plug();
    let daemon = viewer(&broker, "hunter2", cable.port()).run();
    expect_camera(&mut subscriber, "ok");
    let before = subscriber.expect("a detection", finding);

    cable.unplug();
    let away = expect_camera(&mut subscriber, "away");
    let reason = away["reason"].as_str().expect("a text");
    let shown = format!("rtsp://[redacted]@127.0.0.1:{}/street", cable.port());
    assert!(reason.contains(&shown), "{reason}");
    assert!(reason.contains("camera.rtsp.url"), "{reason}");

    cable.plug();
    expect_camera(&mut subscriber, "ok");
    let after = subscriber.expect("a detection", finding);
    assert!(after["sequence"].as_u64() > before["sequence"].as_u64());
    let log = daemon.terminate();
    assert!(log.contains("the camera is back"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn a_network_camera_that_freezes_is_told_of_and_watched_again() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let camera = camera();
    let daemon = viewer(&broker, "hunter2", camera.port()).run();
    subscriber.expect("a detection", finding);
    camera.freeze();
    let away = expect_camera(&mut subscriber, "away");
    let reason = away["reason"].as_str().expect("a text");
    assert!(reason.contains("for 10 s"), "{reason}");
    camera.thaw();
    expect_camera(&mut subscriber, "ok");
    subscriber.expect("a detection", finding);
    daemon.terminate();
}

#[test]
fn a_network_camera_that_refuses_the_password_is_told_of_without_it() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let camera = camera();
    let daemon = viewer(&broker, "swordfish", camera.port()).run();
    let away = expect_camera(&mut subscriber, "away");
    let reason = away["reason"].as_str().expect("a text");
    assert!(reason.contains("401 Unauthorized"), "{reason}");
    assert!(reason.contains("camera.rtsp.url"), "{reason}");
    let log = daemon.terminate();
    assert!(
        !log.contains("swordfish") && !reason.contains("swordfish"),
        "{log}"
    );
}
