//! `ternwatchd` from outside: a real video through a real ffmpeg, a real broker, real signals.

mod about;
mod attacks;
mod bench;
mod bridge;
mod command;
mod documents;
mod events;
mod faults;
mod hawkbit;
mod home_assistant;
mod journal;
mod measure;
mod motion;
mod outbox;
mod owner;
mod push;
mod quota;
mod reload;
mod rtsp;
mod schedule;
mod secure;
mod send;
mod simulate;
mod snapshot;
mod trial;
mod update;
mod web;
mod wire;

#[path = "../../../daemon/tests/schema/mod.rs"]
mod schema;

use bench::{Bench, HEIGHT, MODEL_SEED, WIDTH};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use system_tests::broker::{Broker, Cable, DEADLINE, Heard, Subscriber, free_port, wait_for};
use ternwatch_detector::testing::small_bundle;
use ternwatch_detector::{Detector, Frame, Isa, PixelFormat, Thresholds};

const STATE: &str = "site/pi/state";
const DETECTIONS: &str = "site/pi/door/detections";

fn state(heard: &Heard) -> Option<String> {
    (heard.topic == STATE).then(|| heard.text())
}

fn document(heard: &Heard) -> Option<Value> {
    heard.document(DETECTIONS)
}

fn expect_state(subscriber: &mut Subscriber, expected: &str) {
    subscriber.expect(&format!("the state {expected}"), |heard| {
        (state(heard)? == expected).then_some(())
    });
}

/// Documents up to the state `offline`, which must follow `online`.
fn documents_of_a_run(subscriber: &mut Subscriber) -> Vec<Value> {
    expect_state(subscriber, "online");
    let mut documents = Vec::new();
    subscriber.expect("the end of the run", |heard| {
        documents.extend(document(heard));
        (state(heard)? == "offline").then_some(())
    });
    documents
}

fn sequences(documents: &[Value]) -> Vec<u64> {
    let sequence = |document: &Value| document["sequence"].as_u64().expect("a number");
    documents.iter().map(sequence).collect()
}

/// What the detector itself says of every frame of a video.
fn detections_in_process(bench: &Bench) -> Vec<Value> {
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(bench.path("video.mp4"))
        .args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg runs");
    let (bundle, key) = small_bundle(MODEL_SEED);
    let model = ternwatch_bundle::testing::load(&bundle, &key);
    let mut detector = Detector::new(&model, Isa::Scalar).expect("the model runs");
    let thresholds = Thresholds {
        score: 0.05,
        ..model.thresholds()
    };
    decoded
        .stdout
        .chunks_exact((WIDTH * HEIGHT * 3 / 2) as usize)
        .map(|planes| {
            let frame = Frame::new(PixelFormat::I420, WIDTH, HEIGHT, planes).expect("a frame");
            let found = detector.detect(&frame, thresholds);
            let found = found.iter().map(|detection| {
                let class = &model.classes()[usize::from(detection.class)];
                // By way of text, as the documents come: it keeps the shortest decimals.
                let text = serde_json::to_string(&(class, detection.score, detection.xyxy));
                serde_json::from_str(&text.expect("JSON")).expect("JSON")
            });
            Value::Array(found.collect())
        })
        .collect()
}

fn every_frame_is_published_and_equals_the_detectors_answer(protocol: &str) {
    const FRAMES: u32 = 40;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "before");
    let mut bench = Bench::with_video(FRAMES, broker.port());
    bench.set("MQTT__PROTOCOL", protocol);
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");

    let documents = documents_of_a_run(&mut subscriber);
    assert_eq!(
        sequences(&documents),
        (0..u64::from(FRAMES)).collect::<Vec<_>>()
    );
    let expected = detections_in_process(&bench);
    assert_eq!(expected.len(), FRAMES as usize);
    assert!(
        expected.iter().any(|found| found != &Value::Array(vec![])),
        "the random model finds nothing: the comparison would be empty"
    );
    for (document, expected) in documents.iter().zip(&expected) {
        let found = document["detections"].as_array().expect("a list").iter();
        let found = found.map(|d| serde_json::json!([d["class"], d["score"], d["box_px"]]));
        assert_eq!(&Value::Array(found.collect()), expected);
        assert_eq!(document["schema"], 1);
        assert_eq!(document["camera"], "door");
        assert_eq!(document["dropped"], 0);
        assert_eq!(
            document["frame"],
            serde_json::json!({ "width": WIDTH, "height": HEIGHT })
        );
        assert_eq!(document["model"]["name"], "small-test");
    }

    // Statistics are there too, if the run was long enough.
    let mut late = Subscriber::connect(broker.port(), "after");
    let mut missing = BTreeSet::from([
        STATE,
        "site/pi/door/state",
        "site/pi/door/counts",
        "site/pi/door/detection",
    ]);
    late.expect("what is retained", |heard| {
        assert!(heard.is_retained);
        let is_expected = missing.remove(heard.topic.as_str());
        assert!(
            is_expected || heard.topic == "site/pi/statistics",
            "{heard:?}"
        );
        assert!(state(heard).is_none_or(|state| state == "offline"));
        missing.is_empty().then_some(())
    });
}

#[test]
fn every_frame_is_published_with_mqtt_5() {
    every_frame_is_published_and_equals_the_detectors_answer("5");
}

#[test]
fn every_frame_is_published_with_mqtt_3_1_1() {
    every_frame_is_published_and_equals_the_detectors_answer("3.1.1");
}

#[test]
fn dropped_frames_are_counted_and_the_last_frame_is_examined() {
    const FRAMES: u64 = 400;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = Bench::with_video(FRAMES as u32, broker.port());
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    // No document may be lost here, only frames.
    bench.set("MQTT__QUEUE_DOCUMENTS_MAX", "1000");
    bench.set("MODEL__ISA", "scalar");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");

    let documents = documents_of_a_run(&mut subscriber);
    assert!((documents.len() as u64) < FRAMES, "none was dropped");
    assert_eq!(sequences(&documents).last(), Some(&(FRAMES - 1)));
    for (examined_before, document) in (0u64..).zip(&documents) {
        let sequence = document["sequence"].as_u64().expect("a number");
        assert_eq!(
            document["dropped"],
            sequence - examined_before,
            "{document}"
        );
    }
}

#[test]
fn mqtt_5_documents_declare_their_type() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = Bench::with_video(2, broker.port());
    let _daemon = bench.run();
    let content_type = subscriber.expect("a document", |heard| {
        document(heard).map(|_| heard.content_type.clone())
    });
    assert_eq!(content_type.as_deref(), Some("application/json"));
}

/// A daemon that is at work for minutes.
fn long_run(port: u16) -> Bench {
    let mut bench = Bench::with_video(3000, port);
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    bench
}

#[test]
fn sigterm_ends_it_in_time_and_says_offline() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = long_run(broker.port()).run();
    subscriber.expect("a document", document);
    let log = daemon.terminate_in_time();
    expect_state(&mut subscriber, "offline");
    assert!(!log.contains("did not answer"), "{log}");
    // The last will was dropped: it would have come as a second `offline`.
    wait_for("the farewell in the broker's log", || {
        broker.log().contains("disconnected.").then_some(())
    });
}

#[test]
fn sigterm_ends_it_in_time_without_a_broker_and_while_it_waits() {
    let unreachable = Cable::new(1);
    let mut bench = Bench::with_video(3000, unreachable.port());
    bench.set("MQTT__QUEUE_DOCUMENTS_MAX", "2");
    bench.set("STDOUT__ENABLED", "true");
    let daemon = bench.run();
    wait_for("a full queue and an attempt to connect", || {
        let has_tried = daemon.log().contains("no connection to the broker");
        (bench.frames_on_stdout().len() >= 3 && has_tried).then_some(())
    });
    let log = daemon.terminate_in_time();
    assert!(log.contains("documents were not published"), "{log}");
}

#[test]
fn sigkill_leaves_the_last_will() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = long_run(broker.port()).run();
    subscriber.expect("a document", document);
    daemon.signal(Signal::KILL);
    expect_state(&mut subscriber, "offline");
    let mut late = Subscriber::connect(broker.port(), "late");
    late.expect("the retained last will", |heard| {
        (heard.is_retained && state(heard)? == "offline").then_some(())
    });
}

#[test]
fn a_broker_that_restarts_hears_of_the_device_again() {
    let mut broker = Broker::start();
    let daemon = {
        let mut subscriber = Subscriber::connect(broker.port(), "before");
        let daemon = long_run(broker.port()).run();
        subscriber.expect("a document", document);
        daemon
    };
    broker.stop();
    wait_for("the loss to be noticed", || {
        daemon
            .log()
            .contains("no connection to the broker")
            .then_some(())
    });
    broker.start_again();
    let mut subscriber = Subscriber::connect(broker.port(), "after");
    expect_state(&mut subscriber, "online");
    subscriber.expect("a document", document);
    daemon.terminate();
    expect_state(&mut subscriber, "offline");
}

#[test]
fn while_the_broker_is_away_the_newest_documents_wait() {
    const FRAMES: u64 = 30;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut cable = Cable::new(broker.port());
    let mut bench = Bench::with_video(FRAMES as u32, cable.port());
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    bench.set("MQTT__QUEUE_DOCUMENTS_MAX", "4");
    bench.set("STDOUT__ENABLED", "true");
    let daemon = bench.run();
    // Every examined frame is on standard output too: wait for the last one, then plug the cable in.
    let examined = wait_for("the last frame", || {
        let examined = bench.frames_on_stdout();
        let is_last = |document: &Value| document["sequence"] == FRAMES - 1;
        examined.last().is_some_and(is_last).then_some(examined)
    });
    cable.plug();
    let documents = documents_of_a_run(&mut subscriber);
    assert_eq!(documents, examined[examined.len() - 4..]);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let dropped = format!("{} documents were not published", examined.len() - 4);
    assert!(log.contains(&dropped), "{log}");
}

#[test]
fn a_source_that_waits_loses_nothing_while_the_broker_is_away() {
    const FRAMES: u64 = 60;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut cable = Cable::new(broker.port());
    let mut bench = Bench::with_video(FRAMES as u32, cable.port());
    bench.set("MQTT__QUEUE_DOCUMENTS_MAX", "4");
    let daemon = bench.run();
    wait_for("the first attempt to connect", || {
        daemon
            .log()
            .contains("no connection to the broker")
            .then_some(())
    });
    cable.plug();
    let documents = documents_of_a_run(&mut subscriber);
    assert_eq!(sequences(&documents), (0..FRAMES).collect::<Vec<_>>());
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_cut_cable_is_noticed_and_survived() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut cable = Cable::new(broker.port());
    cable.plug();
    let daemon = long_run(cable.port()).run();
    let before = subscriber.expect("a document", document);
    cable.unplug();
    expect_state(&mut subscriber, "offline");
    cable.plug();
    expect_state(&mut subscriber, "online");
    let after = subscriber.expect("a document", document);
    assert!(after["sequence"].as_u64() > before["sequence"].as_u64());
    daemon.terminate();
}

/// A stand-in for ffmpeg: three frames, then an error that repeats the address.
const FAILING_FFMPEG: &str = r#"#!/bin/sh
for argument; do case $argument in rtsp:*) url=$argument ;; esac; done
printf 'YUV4MPEG2 W2 H2 F10:1 C420jpeg\n'
printf 'FRAME\nabcdef'; sleep 0.2
printf 'FRAME\nabcdef'; sleep 0.2
printf 'FRAME\nabcdef'; sleep 0.2
echo "$url: Connection timed out" >&2
env >&2
exit 1
"#;

#[test]
fn a_network_camera_that_fails_is_opened_again_and_its_password_stays_secret() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = Bench::with_decoder(FAILING_FFMPEG, broker.port());
    bench.set("MQTT__USERNAME", "me");
    bench.set("MQTT__PASSWORD", "hunter2");
    let daemon = bench.run();
    subscriber.expect("a frame of the third opening", |heard| {
        (document(heard)?["sequence"].as_u64()? >= 6).then_some(())
    });
    let log = daemon.terminate();
    assert!(
        log.contains("rtsp://[redacted]@cam/1: Connection timed out"),
        "{log}"
    );
    assert!(log.contains("the camera is back"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    assert!(
        !log.contains("TERNWATCH_"),
        "the decoder sees our settings\n{log}"
    );
}

#[test]
fn without_a_camera_the_service_is_ready_and_says_what_is_missing() {
    let bench = Bench::with_decoder("#!/bin/sh\necho 'No route to host' >&2\nexit 1\n", 1);
    let path = bench.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let daemon = bench.run_with(|command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while !said.contains("camera.rtsp.url") {
        let len = socket
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("waited for the status ({error}) after {said}"));
        said.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
    assert!(said.starts_with("READY=1"), "{said}");
    let trouble =
        "camera away: ffmpeg could not decode rtsp://[redacted]@cam/1: No route to host (it ended";
    assert!(said.contains(trouble), "{said}");
    assert!(said.contains("broker away: 127.0.0.1:1"), "{said}");
    daemon.terminate();
}

/// A stand-in for ffmpeg that has something to say with every frame.
const TALKING_FFMPEG: &str = r#"#!/bin/sh
printf 'YUV4MPEG2 W2 H2 F10:1 C420jpeg\n'
for frame in $(seq 100); do
    printf 'FRAME\nabcdef'
    echo "a packet was lost" >&2
done
exit 1
"#;

#[test]
fn a_decoder_that_says_something_with_every_frame_does_not_fill_the_journal() {
    let daemon = Bench::with_decoder(TALKING_FFMPEG, 1).run();
    wait_for("the decoder to end", || {
        let is_away = daemon.log().contains("camera.rtsp.url names");
        is_away.then_some(())
    });
    let log = daemon.terminate();
    let first = log.split("camera.rtsp.url names").next().expect("a part");
    // The last one is why it ended.
    assert_eq!(
        first.matches("a packet was lost").count(),
        20 + 1,
        "{first}"
    );
    assert!(first.contains("ffmpeg: and 80 more"), "{first}");
}

#[test]
fn a_network_camera_that_falls_silent_is_opened_again() {
    let script = "#!/bin/sh\nprintf 'YUV4MPEG2 W2 H2\\nFRAME\\nabcdef'\nexec sleep 600\n";
    let mut bench = Bench::with_decoder(script, 1);
    bench.set("CAMERA__STALL_S", "1");
    let daemon = bench.run();
    wait_for("the camera to fall silent twice", || {
        let silences = daemon.log().matches("no frame from").count();
        (silences >= 2).then_some(())
    });
    daemon.terminate();
}

#[test]
fn the_service_manager_hears_of_the_first_frame_of_life_and_of_the_end() {
    let broker = Broker::start();
    let bench = long_run(broker.port());
    let path = bench.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let daemon = bench.run_with(|command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "400000");
    });
    let mut said = String::new();
    let mut hear = |what: &str| {
        let mut buffer = [0; 4096];
        while !said.contains(what) {
            let len = socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("waited for {what} ({error}) after {said}"));
            said.push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
        said.clone()
    };
    let first = hear("READY=1");
    assert!(
        first.starts_with("READY=1"),
        "nothing comes before the first frame: {first}"
    );
    hear("WATCHDOG=1");
    let status = hear("frames/s");
    assert!(status.contains("broker connected"), "{status}");
    daemon.terminate();
    hear("STOPPING=1");
}

#[test]
fn every_way_to_fail_has_its_exit_code() {
    let fails = |change: &dyn Fn(&mut Bench), code: i32, says: &str| {
        let mut bench = Bench::with_video(2, 1);
        bench.set("MQTT__ENABLED", "false");
        bench.set("STDOUT__ENABLED", "true");
        change(&mut bench);
        let (status, log) = bench.run().wait();
        assert_eq!(status.code(), Some(code), "{log}");
        assert!(log.contains(says), "does not say {says:?}:\n{log}");
    };
    let spoil = |bench: &mut Bench| {
        let path = bench.path("small.tern");
        let mut bundle = fs::read(&path).expect("readable");
        *bundle.last_mut().expect("not empty") ^= 1;
        fs::write(&path, bundle).expect("written");
    };
    fails(&spoil, 65, "small.tern is refused");
    let missing = |key: &'static str| {
        move |bench: &mut Bench| {
            bench.set(key, "/nonexistent");
        }
    };
    fails(&missing("MODEL__BUNDLE"), 66, "/nonexistent");
    fails(&missing("MODEL__KEY"), 66, "/nonexistent");
    fails(&missing("CAMERA__VIDEO__PATH"), 66, "/nonexistent");
    fails(&missing("CAMERA__FFMPEG__PROGRAM"), 66, "/nonexistent");
    let garbage =
        |bench: &mut Bench| fs::write(bench.path("video.mp4"), "no video").expect("written");
    fails(&garbage, 69, "could not decode");
    let misspelt = |bench: &mut Bench| {
        bench.set("MQTT__HOTS", "x");
    };
    fails(&misspelt, 78, "mqtt.hots");
}

#[test]
fn documents_go_to_standard_output_too() {
    let mut bench = Bench::with_video(5, 1);
    bench.set("MQTT__ENABLED", "false");
    bench.set("STDOUT__ENABLED", "true");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let text = fs::read_to_string(bench.path("stdout")).expect("readable");
    let parse = |line| serde_json::from_str::<Value>(line).expect("a line, a document");
    let documents: Vec<Value> = text.lines().map(parse).collect();
    assert_eq!(sequences(&bench.frames_on_stdout()), [0, 1, 2, 3, 4]);
    let is_counts = |document: &Value| document.get("in_view").is_some();
    assert!(documents.iter().any(is_counts), "{text}");
}

#[test]
fn a_folder_of_pictures_is_examined_in_order() {
    let mut bench = Bench::with_video(5, 1);
    let folder = bench.path("pictures");
    fs::create_dir(&folder).expect("created");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(bench.path("video.mp4"))
        .arg(folder.join("%02d.png"))
        .status();
    assert!(made.expect("ffmpeg runs").success());
    bench.set("CAMERA__SOURCE", "stills");
    bench.set("CAMERA__STILLS__FOLDER", folder.to_str().expect("UTF-8"));
    bench.set("CAMERA__STILLS__INTERVAL_MS", "0");
    bench.set("MQTT__ENABLED", "false");
    bench.set("STDOUT__ENABLED", "true");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(sequences(&bench.frames_on_stdout()), [0, 1, 2, 3, 4]);
}

/// A certificate authority and a broker's certificate signed by it.
const CERTIFICATES: &str = r#"
set -e
cat >openssl.cnf <<END
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[broker]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
END
make() {
    openssl req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "$@"
}
make -extensions authority -subj /CN=authority -keyout authority.key -out authority.pem
make -extensions authority -subj /CN=stranger -keyout stranger.key -out stranger.pem
make -extensions broker -subj /CN=broker -keyout broker.key -out broker.pem -CA authority.pem -CAkey authority.key
mosquitto_passwd -c -b accounts me hunter2
"#;

/// Makes `authority.pem`, `stranger.pem`, `broker.pem` and `broker.key` in a folder.
fn certificates(folder: &Path) {
    let made = Command::new("sh")
        .args(["-c", CERTIFICATES])
        .current_dir(folder)
        .output()
        .expect("sh runs");
    assert!(
        made.status.success(),
        "this test needs `apt install openssl mosquitto`: {made:?}"
    );
}

/// A broker that lets everybody in on its own port, and `me` with a password on another one, over TLS; the daemon's
/// settings for it, but for `MQTT__CA_FILE` (`authority.pem` of the bench).
fn encrypted_broker(bench: &mut Bench) -> (Broker, u16) {
    let folder = bench.path("");
    certificates(&folder);
    let port = free_port();
    let folder = folder.to_str().expect("UTF-8");
    // The first listener is the subscriber's; mosquitto started by root would drop the rights to read the key.
    let broker = Broker::start_with(&format!(
        "per_listener_settings true\nuser root\nallow_anonymous true\n\
         listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/accounts\n\
         certfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
    ));
    fs::write(bench.path("mqtt-password"), "hunter2\n").expect("written");
    bench.set("MQTT__PORT", &port.to_string());
    bench.set("MQTT__TLS", "true");
    bench.set("MQTT__USERNAME", "me");
    bench.set("MQTT__PASSWORD_FILE", "mqtt-password");
    (broker, port)
}

#[test]
fn an_encrypted_connection_checks_the_broker_and_shows_a_password() {
    let mut bench = long_run(1);
    let (broker, _) = encrypted_broker(&mut bench);
    let folder = bench.path("");
    let folder = folder.to_str().expect("UTF-8");
    for protocol in ["5", "3.1.1"] {
        bench.set("MQTT__PROTOCOL", protocol);
        let run = |bench: &Bench| {
            bench.run_with(|command| {
                command.env("CREDENTIALS_DIRECTORY", folder);
            })
        };
        bench.set("MQTT__CA_FILE", &format!("{folder}/stranger.pem"));
        let daemon = run(&bench);
        wait_for("the refusal of a stranger's certificate", || {
            let log = daemon.log().to_lowercase();
            (log.contains("no connection to the broker") && log.contains("certificate"))
                .then_some(())
        });
        assert!(!daemon.terminate().contains("connected to the broker"));

        let mut subscriber = Subscriber::connect(broker.port(), protocol);
        bench.set("MQTT__CA_FILE", &format!("{folder}/authority.pem"));
        let daemon = run(&bench);
        expect_state(&mut subscriber, "online");
        subscriber.expect("a document", document);
        let doctor = |bench: &Bench| {
            let mut command = bench.invocation(&["doctor"]);
            let output = command.env("CREDENTIALS_DIRECTORY", folder).output();
            String::from_utf8(output.expect("it starts").stdout).expect("UTF-8")
        };
        // Beside the daemon, which keeps its connection.
        let text = doctor(&bench);
        assert!(text.contains("lets this device in"), "{text}");
        assert!(!daemon.terminate().contains("hunter2"));
        expect_state(&mut subscriber, "offline");

        bench.set("MQTT__USERNAME", "somebody");
        let daemon = run(&bench);
        wait_for("the settings that are about the account", || {
            let log = daemon.log();
            log.contains("does not accept this account (mqtt.username, mqtt.password_file)")
                .then_some(())
        });
        daemon.terminate();
        let text = doctor(&bench);
        assert!(text.contains("fail  broker"), "{text}");
        assert!(text.contains("does not accept this account"), "{text}");
        bench.set("MQTT__USERNAME", "me");
    }
}
