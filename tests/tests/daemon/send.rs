//! `quant-tool push` and `trust` from outside: a real broker, real daemons, exit codes.

use crate::bench::{Bench, program, without_settings};
use crate::push::{CHUNK_BYTES, bundle, bundle_signed_by, long_bundle};
use crate::{encrypted_broker, expect_state};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use system_tests::broker::{Broker, Heard, Subscriber, free_port, kept};
use ternwatch_bundle::SecretKey;
use ternwatch_bundle::keyring::{Keyring, Roots};
use ternwatch_bundle::testing::small_key;

/// A daemon of this name at work on a video, with short trials.
fn bench(port: u16, device: &str) -> Bench {
    let mut bench = crate::update::bench(port);
    bench.set("DEVICE__ID", device);
    bench
}

/// Runs quant-tool in a folder: its exit code, and what it said.
fn quant_tool(folder: &Path, arguments: impl IntoIterator<Item = String>) -> (Option<i32>, String) {
    let output = Command::new(program("quant-tool"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("quant-tool starts");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Runs `quant-tool push` of this file: its exit code, and what it said.
pub(crate) fn push(
    folder: &Path,
    file: &[u8],
    port: u16,
    arguments: &[&str],
) -> (Option<i32>, String) {
    quant_tool(
        folder,
        push_arguments(folder, file, "site", port, arguments),
    )
}

/// What `quant-tool push` is to be told, in whose folder the file now lies.
fn push_arguments(
    folder: &Path,
    file: &[u8],
    prefix: &str,
    port: u16,
    arguments: &[&str],
) -> Vec<String> {
    fs::write(folder.join("sent.tern"), file).expect("written");
    fs::write(folder.join("sent.pub"), small_key().public_key().to_text()).expect("written");
    let fixed = format!(
        "push --prefix {prefix} --host 127.0.0.1 --port {port} --bundle sent.tern --key sent.pub"
    );
    let arguments = arguments.iter().copied();
    let all = fixed.split_whitespace().chain(arguments);
    all.map(String::from).collect()
}

fn assert_no_offer_is_kept(port: u16, device: &str) {
    let topic = format!("site/{device}/model/offer");
    assert_eq!(kept(port).get(&topic), None);
}

/// Waits until `pi` and `gate` have told of their models.
fn expect_both(subscriber: &mut Subscriber) {
    let mut silent = BTreeSet::from(["site/pi/model", "site/gate/model"]);
    subscriber.expect("the models of both", |heard| {
        silent.remove(heard.topic.as_str());
        silent.is_empty().then_some(())
    });
}

#[test]
fn a_model_is_pushed_to_all_devices_and_success_means_that_all_took_it() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let benches = [bench(broker.port(), "pi"), bench(broker.port(), "gate")];
    let daemons: Vec<_> = benches.iter().map(Bench::run).collect();
    expect_both(&mut subscriber);
    let folder = benches[0].path(".");
    let two = long_bundle(2, 24);
    let (code, said) = push(&folder, &two, broker.port(), &["--all", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("gate: online; would fetch it"), "{said}");

    let arguments = ["--all", "--retain", "--job", "job-1"];
    let (code, said) = push(&folder, &two, broker.port(), &arguments);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("pi: committed") && said.contains("gate: committed"),
        "{said}"
    );
    assert!(said.contains("pi: downloading"), "no progress\n{said}");
    for device in ["pi", "gate"] {
        assert_no_offer_is_kept(broker.port(), device);
    }
    // A device that ran it before is content at once.
    let (code, said) = push(&folder, &two, broker.port(), &["--device", "gate"]);
    assert_eq!(code, Some(0), "{said}");
    for daemon in daemons {
        daemon.terminate();
    }
}

#[test]
fn the_exit_code_tells_refusal_from_silence_and_nothing_unsigned_is_sent() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = bench(broker.port(), "pi");
    let folder = bench.path(".");
    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    let to_pi = ["--device", "pi", "--timeout-s", "60"];

    let stranger = bundle_signed_by(&SecretKey::from_bytes(&[8; 32]), 2, |_| {});
    let (code, said) = push(&folder, &stranger, broker.port(), &to_pi);
    assert_eq!(code, Some(65), "{said}");
    let wrong = bundle(2, |manifest| {
        manifest.golden[0].layers[0] = "0123456789abcdef".into();
    });
    let (code, said) = push(&folder, &wrong, broker.port(), &to_pi);
    assert_eq!(code, Some(65), "{said}");

    let (code, said) = push(&folder, &bundle(0, |_| {}), broker.port(), &to_pi);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("pi: rejected: version_too_old"), "{said}");

    // Nobody is there to answer: the offer is taken back when the time is over.
    let absent = ["--device", "attic", "--retain", "--timeout-s", "1"];
    let (code, said) = push(&folder, &bundle(2, |_| {}), broker.port(), &absent);
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("attic: no answer"), "{said}");
    assert_no_offer_is_kept(broker.port(), "attic");

    daemon.terminate();
}

#[test]
fn a_dry_run_publishes_nothing() {
    let broker = Broker::start_with("allow_anonymous true\nlog_type all\n");
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = bench(broker.port(), "pi");
    let daemon = bench.run();
    subscriber.expect("its model", |heard| {
        (heard.topic == "site/pi/model").then_some(())
    });
    let arguments = ["--all", "--dry-run", "--retain"];
    let (code, said) = push(
        &bench.path("."),
        &bundle(2, |_| {}),
        broker.port(),
        &arguments,
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("pi: online; would fetch it"), "{said}");
    daemon.terminate();
    // All that was published until the device left is a device's.
    subscriber.expect("the end", |heard| {
        let (_, rest) = heard.topic.split_once("/pi/").expect("below its name");
        let is_senders = ["model/offer", "model/keyring", "model/chunk"]
            .iter()
            .any(|topic| rest.starts_with(topic));
        assert!(!is_senders, "{}", heard.topic);
        (rest == "state" && heard.payload == b"offline").then_some(())
    });
    let log = broker.log();
    assert!(log.contains("SUBSCRIBE from quant-tool-"), "{log}");
    assert!(!log.contains("PUBLISH from quant-tool-"), "{log}");
}

#[test]
fn a_push_that_is_stopped_leaves_no_offer_behind() {
    let broker = Broker::start();
    let bench = bench(broker.port(), "pi");
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    for signal in [Signal::TERM, Signal::INT] {
        let folder = bench.path(".");
        let arguments = ["--device", "attic", "--retain"];
        let file = bundle(2, |_| {});
        let arguments = push_arguments(&folder, &file, "site", broker.port(), &arguments);
        let pushing = Command::new(program("quant-tool"))
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("quant-tool starts");
        let offer =
            |heard: &Heard| (heard.topic == "site/attic/model/offer").then(|| heard.clone());
        let offered = subscriber.expect("the offer", offer);
        assert!(!offered.payload.is_empty());
        kill_process(Pid::from_child(&pushing), signal).expect("it runs");
        let removed = subscriber.expect("its removal", offer);
        assert_eq!(removed.text(), "");
        let output = pushing.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(75), "{said}");
        assert!(said.contains("stopped by a signal"), "{said}");
        assert_no_offer_is_kept(broker.port(), "attic");
    }
    daemon.terminate();
}

#[test]
fn without_a_broker_or_a_device_it_is_unavailable() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let two = bundle(2, |_| {});
    let (code, said) = push(folder.path(), &two, free_port(), &["--device", "pi"]);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("no connection to the broker"), "{said}");
    let broker = Broker::start();
    let (code, said) = push(folder.path(), &two, broker.port(), &["--all"]);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("no device has told of its model"), "{said}");
}

#[test]
fn a_prefix_is_a_group_of_devices_and_the_others_hear_nothing() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let benches = [("north", "pi"), ("south", "gate")].map(|(group, device)| {
        let mut bench = bench(broker.port(), device);
        bench.set("MQTT__PREFIX", &format!("site/{group}"));
        bench
    });
    let daemons = benches.each_ref().map(Bench::run);
    let mut silent = BTreeSet::from(["site/north/pi/model", "site/south/gate/model"]);
    subscriber.expect("the models of both", |heard| {
        silent.remove(heard.topic.as_str());
        silent.is_empty().then_some(())
    });
    let folder = benches[0].path(".");
    let (file, port) = (bundle(2, |_| {}), broker.port());
    let arguments = push_arguments(&folder, &file, "site/north", port, &["--all"]);
    let (code, said) = quant_tool(&folder, arguments);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("pi: committed"), "{said}");
    let [north, south] = daemons;
    north.terminate();
    south.terminate();
    let mut left = BTreeSet::from(["site/north/pi/state", "site/south/gate/state"]);
    subscriber.expect("the end of both", |heard| {
        let is_south = heard.topic.starts_with("site/south/");
        assert!(
            !is_south || !heard.topic.contains("/model/"),
            "{}",
            heard.topic
        );
        if heard.payload == b"offline" {
            left.remove(heard.topic.as_str());
        }
        left.is_empty().then_some(())
    });
    let (_, list) = benches[1].model(&["list"]);
    assert!(!list.contains("small-test 2"), "{list}");
}

#[test]
fn a_model_is_pushed_over_an_encrypted_connection_with_a_password() {
    let mut bench = bench(1, "pi");
    // The broker ends when it is dropped.
    let (_broker, port) = encrypted_broker(&mut bench);
    let (folder, ca) = (bench.path("."), bench.path("authority.pem"));
    let (ca, password) = (ca.to_str().expect("UTF-8"), bench.path("mqtt-password"));
    let password = password.to_str().expect("UTF-8");
    bench.set("MQTT__CA_FILE", ca);
    bench.set("MQTT__PASSWORD_FILE", password);
    let daemon = bench.run();
    let arguments = |password| {
        let tls = ["--tls", "--ca-file", ca, "--username", "me"];
        let who = [
            "--password-file",
            password,
            "--device",
            "pi",
            "--timeout-s",
            "60",
        ];
        [&tls[..], &who].concat()
    };
    let two = bundle(2, |_| {});
    let (code, said) = push(&folder, &two, port, &arguments(password));
    assert_eq!(code, Some(0), "{said}\n{}", daemon.log());
    assert!(!said.contains("hunter2"), "{said}");
    daemon.terminate();
}

/// Runs `quant-tool` in a folder: its exit code, and what it said.
fn tool(folder: &Path, arguments: &str) -> (Option<i32>, String) {
    quant_tool(folder, arguments.split_whitespace().map(String::from))
}

#[test]
fn a_bundle_is_signed_anew_verified_and_compared() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    fs::write(folder.join("one.tern"), bundle(1, |_| {})).expect("written");
    fs::write(folder.join("small.pub"), small_key().public_key().to_text()).expect("written");
    let say = |arguments: &str, code: i32, words: &str| {
        let (found, said) = tool(folder, arguments);
        assert_eq!(found, Some(code), "{arguments}: {said}");
        assert!(said.contains(words), "{arguments}: {said}");
    };
    say("keygen mine", 0, "mine.secret");
    let sign = "sign --bundle one.tern --with mine.secret --out two.tern --version 7";
    say(&format!("{sign} --key mine.pub"), 65, "not trusted here");
    assert!(!folder.join("two.tern").exists());
    say(
        &format!("{sign} --key small.pub --valid-days 30 --daemon-min 0.1.0"),
        0,
        "small-test version 7",
    );
    say(
        "verify --bundle two.tern --key mine.pub",
        0,
        "3 golden vectors match",
    );
    say(
        "verify --bundle two.tern --key small.pub",
        65,
        "not trusted here",
    );
    let diff = "diff one.tern two.tern --key small.pub --key mine.pub";
    say(diff, 0, "model.version: 1 -> 7");
    say(diff, 0, "release.daemon_min.1: (not there) -> 1");
    say("diff one.tern one.tern --key small.pub", 0, "no difference");
}

#[test]
fn a_keyring_is_signed_by_the_roots_that_a_device_asks_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let do_it = |arguments: &str, code: i32| {
        let (found, said) = tool(folder, arguments);
        assert_eq!(found, Some(code), "{arguments}: {said}");
    };
    for key in ["a", "b", "old", "new"] {
        do_it(&format!("keygen {key}"), 0);
    }
    do_it("roots --threshold 2 a.pub b.pub --out roots", 0);
    do_it("roots --threshold 3 a.pub b.pub --out none", 65);
    let say = "keyring --version 4 --model new.pub --revoke old.pub --reset person=3";
    do_it(
        &format!("{say} --root a.secret --root b.secret --out 4.keys"),
        0,
    );
    do_it(
        &format!("{say} --root a.secret --root a.secret --out twice.keys"),
        65,
    );
    do_it(&format!("{say} --root a.secret --out few.keys"), 0);

    let text = fs::read_to_string(folder.join("roots")).expect("written");
    let roots = Roots::from_text(&text).expect("what a device reads");
    let read = |name: &str| fs::read(folder.join(name)).expect("written");
    let keyring = Keyring::verify(&read("4.keys"), &roots).expect("two roots signed");
    assert_eq!(keyring.body().version, 4);
    assert_eq!(keyring.body().resets["person"], 3);
    assert_eq!(
        (
            keyring.models().iter().count(),
            keyring.body().revoked.len()
        ),
        (1, 1)
    );
    Keyring::verify(&read("few.keys"), &roots).expect_err("one of two");
}

#[test]
fn a_keyring_is_sent_to_all_devices_and_success_means_that_it_is_in_effect() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut benches = [bench(broker.port(), "pi"), bench(broker.port(), "gate")];
    // One of them has no roots yet.
    crate::update::trust_roots(&mut benches[0]);
    let daemons: Vec<_> = benches.iter().map(Bench::run).collect();
    expect_both(&mut subscriber);
    let folder = benches[0].path(".");
    fs::write(folder.join("1.keys"), crate::update::keyring(1, &[20], &[])).expect("written");
    let few = ternwatch_bundle::testing::keyring(2, &[21], &[20], &[1]);
    fs::write(folder.join("few.keys"), few).expect("written");
    let trust = |arguments: &str| {
        let port = broker.port();
        let fixed = "trust --roots roots --prefix site --host 127.0.0.1";
        let all = format!("{fixed} --port {port} {arguments}");
        quant_tool(&folder, all.split_whitespace().map(String::from))
    };
    let (code, said) = trust("few.keys --all");
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("few.keys"), "{said}");
    let (code, said) = trust("1.keys --all --dry-run");
    assert_eq!(code, Some(0), "{said}");
    let forecast = "pi: online; would take it if it is of its roots; no keyring is in effect";
    assert!(said.contains(forecast), "{said}");

    let (code, said) = trust("1.keys --device pi --retain");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("pi: keyring 1 is in effect"), "{said}");
    let file = fs::read(folder.join("1.keys")).expect("written");
    assert_eq!(kept(broker.port())["site/pi/model/keyring"].payload, file);
    // What is there already is success at once, and nobody waits in vain for the one without roots.
    let (code, said) = trust("1.keys --all --timeout-s 2");
    assert_eq!(code, Some(75), "{said}");
    for words in [
        "pi: keyring 1 is in effect",
        "gate: no keyring is in effect",
        "in effect on 1 of 2 devices: 1 have not taken it",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(kept(broker.port()).get("site/gate/model/keyring"), None);
    for daemon in daemons {
        daemon.terminate();
    }
}

#[test]
fn the_demonstration_keeps_the_second_model_and_takes_the_broken_ones_back() {
    let bench = Bench::with_video(3000, 1);
    // They find nothing, so that the one that reports everything stands out.
    let first = bundle(1, |manifest| manifest.thresholds.score = 1.0);
    fs::write(bench.path("first.tern"), first).expect("written");
    let second = bundle(1, |manifest| {
        manifest.thresholds.score = 1.0;
        manifest.model.name = "small-second".into();
        // Long enough to see it come.
        manifest.card = "x".repeat(24 * CHUNK_BYTES).into();
    });
    fs::write(bench.path("second.tern"), second).expect("written");
    let mut command = Command::new(program("ternwatch-demo"));
    without_settings(&mut command);
    let output = command
        .arg("--ota")
        .arg("--video")
        .arg(bench.path("video.mp4"))
        .arg("--daemon")
        .arg(program("ternwatchd"))
        .arg("--bundle")
        .arg(bench.path("first.tern"))
        .arg("--second")
        .arg(bench.path("second.tern"))
        .arg("--key")
        .arg(bench.path("small.pub"))
        .arg("--out")
        .arg(bench.path("out"))
        .stdin(Stdio::null())
        .output()
        .expect("the demonstration starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let mut rest = said.as_str();
    for words in [
        "with small-test 1",
        "send     small-second 1",
        "downloading, 8 of 25 chunks",
        "trial",
        "committed",
        "by small-test 1, frame",
        "by small-second 1\n",
        "rolled_back: golden_mismatch",
        "rolled_back: flood",
        "by small-second 3, frame",
        "by small-second 1\n",
        "small-second 1 is in use, and the broken ones are not tried again here",
    ] {
        let at = rest
            .find(words)
            .unwrap_or_else(|| panic!("{words} in order:\n{said}"));
        rest = &rest[at..];
    }
}
