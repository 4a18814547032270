//! Models over the air and by hand, to the real daemon: whatever is sent, the frames go on with a model that works.

use crate::bench::{Bench, Daemon};
use crate::push::{CHUNK_BYTES, Pusher, bundle, bundle_signed_by, long_bundle, offer_of, sha256};
use crate::{document, events, expect_state, sequences, state};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use system_tests::broker::{Broker, Cable, DEADLINE, Heard, Subscriber, wait_for};
use ternwatch_bundle::SecretKey;
use ternwatch_bundle::keyring::Roots;
use ternwatch_bundle::manifest::Release;
use ternwatch_bundle::testing::{secret, small_key};

/// A daemon at work on a video, ten frames a second, with a state folder and short trials.
pub(crate) fn bench(port: u16) -> Bench {
    let mut bench = Bench::with_video(3000, port);
    // Few detections: the histories that failures show stay short.
    bench.set("MODEL__SCORE_MIN", "0.999");
    allow_updates(&mut bench);
    bench
}

fn allow_updates(bench: &mut Bench) {
    fs::create_dir(bench.path("state")).expect("a new folder");
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    bench.set("UPDATE__TRIAL_FRAMES", "5");
    bench.set("UPDATE__TRIAL_S", "0");
    // A busy machine and an unoptimized build are no fault of the model.
    bench.set("UPDATE__LATENCY_MS_MAX", "60000");
}

pub(crate) fn model_state(heard: &Heard) -> Option<Value> {
    heard.document("site/pi/model")
}

/// The state document of `job` that ends it.
pub(crate) fn ending(subscriber: &mut Subscriber, job: &str) -> (String, Value) {
    subscriber.expect(&format!("the end of the job {job}"), |heard| {
        let state = model_state(heard)?;
        let name = state["state"].as_str().expect("a name").to_owned();
        let is_over = ["committed", "rolled_back", "rejected"].contains(&name.as_str());
        (is_over && state["job"] == job).then_some((name, state))
    })
}

pub(crate) fn expect_running(subscriber: &mut Subscriber, version: u64) {
    subscriber.expect(&format!("a document of version {version}"), |heard| {
        (document(heard)?["model"]["version"] == version).then_some(())
    });
}

pub(crate) fn wait_for_log(daemon: &Daemon, words: &str) {
    wait_for(words, || daemon.log().contains(words).then_some(()));
}

/// The versions that looked at the frames of a daemon that has ended, one after the other. No frame was lost; those that the broker
/// may lose are on standard output (`stdout.enabled`).
pub(crate) fn versions_of_every_frame(bench: &Bench) -> Vec<u64> {
    let frames = bench.frames_on_stdout();
    let expected: Vec<u64> = (0..frames.len() as u64).collect();
    assert_eq!(sequences(&frames), expected, "a frame is missing");
    assert!(frames.iter().all(|frame| frame["dropped"] == 0));
    let version = |frame: &Value| frame["model"]["version"].as_u64().expect("a number");
    let mut versions: Vec<u64> = frames.iter().map(version).collect();
    versions.dedup();
    versions
}

fn a_pushed_model_is_tried_and_kept_and_no_frame_is_lost(protocol: &str) {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    bench.set("MQTT__PROTOCOL", protocol);
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    pusher.offer("job-1", 2, &long_bundle(2, 20));

    let (mut documents, mut states) = (Vec::new(), Vec::<Value>::new());
    subscriber.expect("a document of version 2 after the commit", |heard| {
        states.extend(model_state(heard));
        documents.extend(document(heard));
        let is_committed = states.last()?["state"] == "committed";
        (is_committed && documents.last()?["model"]["version"] == 2).then_some(())
    });
    let expected: Vec<u64> = (0..documents.len() as u64).collect();
    assert_eq!(sequences(&documents), expected, "a frame is missing");
    assert!(documents.iter().all(|document| document["dropped"] == 0));
    let versions: Vec<u64> = documents
        .iter()
        .map(|document| document["model"]["version"].as_u64().expect("a number"))
        .collect();
    assert!(versions.is_sorted() && versions[0] == 1, "{versions:?}");

    // A state that lasts shorter than it takes to publish it may be skipped; the order is kept.
    let order = [
        "idle",
        "queued",
        "downloading",
        "verifying",
        "staged",
        "trial",
        "committed",
    ];
    let places: Vec<usize> = states
        .iter()
        .map(|state| order.iter().position(|name| state["state"] == *name))
        .map(|place| place.expect("a known state"))
        .collect();
    assert!(places.is_sorted(), "{states:?}");
    assert!(places.contains(&2) && places.contains(&5), "{states:?}");
    let last = states.last().expect("one");
    assert_eq!(
        (&last["job"], &last["model"]["version"]),
        (&"job-1".into(), &2.into())
    );
    daemon.terminate();

    // The next run begins with it, says so, and does not fetch it again.
    let answered = pusher.answered();
    let mut late = Subscriber::connect(broker.port(), "late");
    let state = late.expect("the retained state", model_state);
    assert_eq!(state["state"], "committed");
    let daemon = bench.run();
    expect_running(&mut late, 2);
    daemon.terminate();
    assert_eq!(pusher.answered(), answered);
}

#[test]
fn a_model_is_pushed_with_mqtt_5() {
    a_pushed_model_is_tried_and_kept_and_no_frame_is_lost("5");
}

#[test]
fn a_model_is_pushed_with_mqtt_3_1_1() {
    a_pushed_model_is_tried_and_kept_and_no_frame_is_lost("3.1.1");
}

#[test]
fn whoever_is_followed_is_followed_on_by_the_new_model() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = events::still_picture_of(600, broker.port());
    allow_updates(&mut bench);
    let daemon = bench.run();
    let event = |heard: &Heard| heard.document("site/pi/door/events");
    let followed = subscriber.expect("somebody who is followed for two seconds", |heard| {
        let event = event(heard)?;
        let track = &event["track"];
        let is_it = event["type"] == "update" && track["duration_s"].as_f64()? >= 2.0;
        is_it.then(|| track["id"].clone())
    });
    // The same network under another version, so that it finds the same.
    let pusher = Pusher::connect(broker.port());
    pusher.offer("job-1", 2, &bundle(2, |_| {}));
    let mut kinds = Vec::new();
    let later = subscriber.expect("news of the same one by version 2", |heard| {
        let event = event(heard).filter(|event| event["track"]["id"] == followed)?;
        kinds.push(event["type"].clone());
        (event["model"]["version"] == 2).then_some(event)
    });
    assert_eq!(later["type"], "update", "{kinds:?}");
    assert!(kinds.iter().all(|kind| *kind == "update"), "{kinds:?}");
    let duration_s = later["track"]["duration_s"].as_f64();
    assert!(duration_s.expect("a number") > 2.0, "{later}");
    daemon.terminate();
}

/// Whoever hears that it is there, such as `quant-tool push`, may send an offer at once.
#[test]
fn it_listens_before_it_says_that_it_is_there() {
    let mut broker = Broker::start_with("allow_anonymous true\nlog_type all\n");
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = bench(broker.port()).run();
    expect_state(&mut subscriber, "online");
    let check = |log: &str| {
        let place = |words: &str| {
            let found = log.match_indices(words).map(|(at, _)| at).next();
            found.unwrap_or_else(|| panic!("the broker heard no {words}: {log}"))
        };
        let listens = place("site/pi/model/offer (QoS");
        assert!(listens < place("'site/pi/state'"), "{log}");
    };
    check(&broker.log());

    // Its log begins anew.
    broker.stop();
    broker.start_again();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    expect_state(&mut subscriber, "online");
    check(&broker.log());
    drop(daemon);
}

#[test]
fn a_download_goes_on_after_a_cut_cable_and_a_killed_daemon() {
    const CHUNKS: usize = 24;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut cable = Cable::new(broker.port());
    cable.plug();
    let bench = bench(cable.port());
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    let wait_for_chunks = |subscriber: &mut Subscriber, count: u64| {
        subscriber.expect(&format!("{count} chunks"), |heard| {
            let state = model_state(heard)?;
            (state["progress"]["received"].as_u64()? >= count).then_some(())
        });
    };
    pusher.set_budget(10);
    pusher.offer("job-1", 2, &long_bundle(2, CHUNKS));
    wait_for_chunks(&mut subscriber, 8);
    cable.unplug();
    wait_for_log(&daemon, "no connection to the broker");
    // Enough for another eight, not for all.
    pusher.set_budget(10);
    cable.plug();
    wait_for_chunks(&mut subscriber, 16);
    daemon.signal(Signal::KILL);
    daemon.wait();

    // What it had still asked for is not answered any more.
    expect_state(&mut subscriber, "offline");
    pusher.set_budget(usize::MAX);
    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    let state = subscriber.expect("the end of the job", |heard| {
        model_state(heard).filter(|state| state["state"] == "committed")
    });
    let wanted = pusher.asked();
    assert_eq!(state["job"], "job-1");
    assert!(wanted.len() <= CHUNKS - 16, "asked for {wanted:?}");
    let log = daemon.terminate();
    assert!(log.contains("16 of 24 chunks are here"), "{log}");
}

/// Offers version 3, and sends ten of its chunks.
fn begin_download(pusher: &Pusher, subscriber: &mut Subscriber, file: &[u8]) {
    pusher.set_budget(10);
    pusher.offer("job-1", 3, file);
    subscriber.expect("eight chunks", |heard| {
        (model_state(heard)?["progress"]["received"].as_u64()? >= 8).then_some(())
    });
}

#[test]
fn an_offer_that_is_refused_at_once_costs_no_other_download() {
    const CHUNKS: usize = 24;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = bench(broker.port()).run();
    let pusher = Pusher::connect(broker.port());
    let file = long_bundle(3, CHUNKS);
    begin_download(&pusher, &mut subscriber, &file);
    for (job, version, reason) in [("old", 0, "version_too_old"), ("same", 1, "version_reused")] {
        let file = bundle(version, |manifest| manifest.card = "another".into());
        pusher.offer(job, version, &file);
        assert_eq!(ending(&mut subscriber, job).1["reason"], reason);
    }
    pusher.publish_offer("no offer at all");
    let (_, state) = ending(&mut subscriber, "unknown");
    assert_eq!(state["reason"], "offer_invalid");
    pusher.serve(&file);
    pusher.set_budget(usize::MAX);
    assert_eq!(ending(&mut subscriber, "job-1").0, "committed");
    let asked = pusher.asked();
    assert!(asked.len() <= CHUNKS - 8, "asked for {asked:?}");
    daemon.terminate();
}

/// Each of them is answered, or not; whoever sends them keeps neither the download from its end nor frames from the broker.
#[test]
fn a_stream_of_offers_that_are_refused_at_once_stops_no_download() {
    const CHUNKS: usize = 24;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let daemon = bench(broker.port()).run();
    expect_running(&mut subscriber, 1);
    let pusher = Pusher::connect(broker.port());
    let file = long_bundle(3, CHUNKS);
    begin_download(&pusher, &mut subscriber, &file);
    // It asks again after five seconds.
    pusher.set_budget(usize::MAX);
    let stranger = Pusher::connect_as("stranger", broker.port());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Not for ever, in case that the test fails.
            for number in 0..2000 {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                stranger.publish_passing_offer("no offer at all");
                let old = offer_of(&format!("old-{number}"), 0, &file).to_string();
                stranger.publish_passing_offer(old);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let (mut frames, mut refused) = (0, 0);
        subscriber.expect("the end of the job", |heard| {
            frames += usize::from(document(heard).is_some());
            let state = model_state(heard)?;
            refused += usize::from(state["state"] == "rejected");
            (state["state"] == "committed" && state["job"] == "job-1").then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(
            frames > 20 && refused > 0,
            "{frames} frames, {refused} answers"
        );
    });
    assert!(
        pusher.answered() <= CHUNKS + 4,
        "{} chunks",
        pusher.answered()
    );
    daemon.terminate();
}

#[test]
fn on_a_slow_line_chunks_come_once_and_keep_nothing_else_waiting() {
    const CHUNKS: usize = 3;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    // 48 kbit/s: more than five seconds a chunk.
    let mut cable = Cable::slow(broker.port(), 6 << 10);
    cable.plug();
    let mut bench = bench(cable.port());
    bench.set("MQTT__KEEP_ALIVE_S", "15");
    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    let pusher = Pusher::connect(broker.port());
    pusher.offer("job-1", 2, &long_bundle(2, CHUNKS));
    let mut frames = 0;
    let patience = 3 * DEADLINE;
    subscriber.expect_within(patience, "the trial", |heard| {
        assert_ne!(state(heard).as_deref(), Some("offline"), "{}", daemon.log());
        frames += usize::from(document(heard).is_some());
        (model_state(heard)?["state"] == "trial").then_some(())
    });
    assert_eq!(ending(&mut subscriber, "job-1").0, "committed");
    let log = daemon.terminate();
    assert!(!log.contains("no connection"), "{log}");
    // The first one may be asked for again before it is known how slow the line is.
    let answered = pusher.answered();
    assert!(answered <= CHUNKS + 2, "{answered} chunks were sent");
    assert!(frames > 100, "{frames} frames meanwhile");
}

#[test]
fn on_a_slow_line_a_download_neither_loses_events_nor_keeps_them_waiting() {
    const CHUNKS: usize = 4;
    const BYTES_PER_SECOND: u32 = 6 << 10;
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut cable = Cable::slow(broker.port(), BYTES_PER_SECOND);
    cable.plug();
    // News of somebody every second.
    let mut bench = events::still_picture_of(3000, cable.port());
    allow_updates(&mut bench);
    bench.set("MQTT__KEEP_ALIVE_S", "15");
    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    let pusher = Pusher::connect(broker.port());
    pusher.offer("job-1", 2, &long_bundle(2, CHUNKS));
    let (mut numbers, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
    subscriber.expect_within(4 * DEADLINE, "the trial", |heard| {
        if let Some(event) = heard.document("site/pi/door/events") {
            numbers.push(event["sequence"].as_u64().expect("a number"));
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        (model_state(heard)?["state"] == "trial").then_some(())
    });
    let expected: Vec<u64> = (0..numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "an event is missing");
    // The confirmations of events come behind the chunk that is on its way, and never behind the whole file.
    let chunk = Duration::from_secs_f64(CHUNK_BYTES as f64 / f64::from(BYTES_PER_SECOND));
    assert!(longest < 3 * chunk, "no event for {longest:?}");
    assert!(numbers.len() > 4 * CHUNKS, "{} events", numbers.len());
    assert_eq!(ending(&mut subscriber, "job-1").0, "committed");
    daemon.terminate();
}

#[test]
fn what_must_not_run_is_refused_and_the_old_model_runs_on() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    bench.set("STDOUT__ENABLED", "true");
    bench.write_config("[update]\nnames = [\"small-test\"]\n");
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    let stranger = SecretKey::from_bytes(&[8; 32]);
    let mut flipped = bundle(5, |_| {});
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let wrong_answer = bundle(5, |manifest| {
        manifest.golden[0].layers[0] = "0123456789abcdef".into();
    });
    let no_answer = bundle(6, |manifest| manifest.golden.clear());
    let expired = bundle(8, |manifest| {
        manifest.release = Some(Release {
            signed_at_s: 1_000_000_000,
            not_after_s: Some(1_000_000_001),
            daemon_min: None,
        });
    });
    let for_newer = bundle(8, |manifest| {
        manifest.release = Some(Release {
            daemon_min: Some([1000, 0, 0]),
            ..Release::default()
        });
    });
    let reused = bundle(1, |manifest| manifest.card = "another".into());
    let of_another_name = bundle(8, |manifest| manifest.model.name = "other".into());
    let cases: [(&str, u64, Vec<u8>, &str, &str); 10] = [
        (
            "wrong-key",
            5,
            bundle_signed_by(&stranger, 5, |_| {}),
            "rejected",
            "bad_signature",
        ),
        ("flipped-bit", 5, flipped, "rejected", "bad_signature"),
        ("old", 0, bundle(0, |_| {}), "rejected", "version_too_old"),
        // The offer lies: what was signed decides.
        (
            "old-as-new",
            9,
            bundle(0, |_| {}),
            "rejected",
            "version_too_old",
        ),
        ("golden", 5, wrong_answer, "rolled_back", "golden_mismatch"),
        ("no-golden", 6, no_answer, "rolled_back", "golden_mismatch"),
        ("expired", 8, expired, "rejected", "expired"),
        ("for-newer", 8, for_newer, "rejected", "daemon_too_old"),
        ("reused", 1, reused, "rejected", "version_reused"),
        ("other", 8, of_another_name, "rejected", "name_not_accepted"),
    ];
    for (job, claimed, file, name, reason) in &cases {
        pusher.offer(job, *claimed, file);
        let (found, state) = ending(&mut subscriber, job);
        assert_eq!(
            (found.as_str(), &state["reason"]),
            (*name, &(*reason).into()),
            "{job}"
        );
        assert_eq!(state["running"]["version"], 1, "{job}");
        expect_running(&mut subscriber, 1);
    }
    // A signed file that failed is not even fetched again.
    let answered = pusher.answered();
    pusher.offer("again", 5, &cases[4].2);
    let (_, state) = ending(&mut subscriber, "again");
    assert_eq!(state["reason"], "quarantined");
    assert_eq!(pusher.answered(), answered);
    // And none of this stands in the way of a good one.
    pusher.offer("good", 7, &bundle(7, |_| {}));
    assert_eq!(ending(&mut subscriber, "good").0, "committed");
    daemon.terminate();
    assert_eq!(versions_of_every_frame(&bench), [1, 7]);
    let (_, list) = bench.model(&["list"]);
    let quarantined = list.lines().filter(|line| line.starts_with("quarantined"));
    let quarantined: Vec<&str> = quarantined
        .filter_map(|line| line.split(' ').nth(3))
        .collect();
    assert_eq!(quarantined, ["5", "6"], "{list}");
}

/// The model in use with the threshold `usual`, then one with `other`, which is taken back because of `reason`.
fn a_model_is_taken_back(usual: f32, other: f32, reason: &str) {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    bench.set("STDOUT__ENABLED", "true");
    // Each model's own thresholds.
    bench.set("MODEL__SCORE_MIN", "0.0");
    let usual = bundle(1, |manifest| manifest.thresholds.score = usual);
    fs::write(bench.path("small.tern"), usual).expect("written");
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    let other = bundle(2, |manifest| manifest.thresholds.score = other);
    pusher.offer("bad", 2, &other);
    expect_running(&mut subscriber, 2);
    let (name, state) = ending(&mut subscriber, "bad");
    assert_eq!(
        (name.as_str(), &state["reason"]),
        ("rolled_back", &reason.into())
    );
    expect_running(&mut subscriber, 1);
    pusher.offer("again", 2, &other);
    assert_eq!(ending(&mut subscriber, "again").1["reason"], "quarantined");
    let log = daemon.terminate();
    assert_eq!(versions_of_every_frame(&bench), [1, 2, 1]);
    let told = format!("is taken back: {reason}");
    assert!(log.contains(&told), "{log}");
    let (code, list) = bench.model(&["list"]);
    assert_eq!(code, Some(0), "{list}");
    assert!(list.contains("quarantined  small-test 2"), "{list}");
}

#[test]
fn a_model_that_floods_is_taken_back() {
    a_model_is_taken_back(1.0, 0.5, "flood");
}

#[test]
fn a_model_that_finds_nothing_is_taken_back() {
    a_model_is_taken_back(0.9, 1.0, "silence");
}

#[test]
fn a_trial_that_kills_the_daemon_is_given_up() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    // Never over by itself.
    bench.set("UPDATE__TRIAL_S", "3600");
    bench.set("UPDATE__ATTEMPTS_MAX", "2");
    let pusher = Pusher::connect(broker.port());
    let daemon = bench.run();
    subscriber.expect("the daemon", document);
    pusher.offer("deadly", 2, &bundle(2, |_| {}));
    let mut daemon = Some(daemon);
    for attempt in 0..2 {
        let running = daemon.take().unwrap_or_else(|| bench.run());
        subscriber.expect(&format!("trial {attempt}"), |heard| {
            (model_state(heard)?["state"] == "trial").then_some(())
        });
        running.signal(Signal::KILL);
        running.wait();
    }
    let daemon = bench.run();
    let (name, state) = ending(&mut subscriber, "deadly");
    assert_eq!(name, "rolled_back");
    assert_eq!(state["reason"], "attempts_exceeded");
    expect_running(&mut subscriber, 1);
    daemon.terminate();
}

#[test]
fn a_stop_during_a_trial_costs_no_attempt_and_the_trial_begins_again() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    bench.set("UPDATE__TRIAL_S", "3600");
    bench.set("UPDATE__ATTEMPTS_MAX", "1");
    fs::write(bench.path("two.tern"), bundle(2, |_| {})).expect("written");
    let path = bench.path("two.tern");
    let (code, said) = bench.model(&["install", path.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{said}");
    for _ in 0..2 {
        let daemon = bench.run();
        subscriber.expect("the trial", |heard| {
            (model_state(heard)?["state"] == "trial").then_some(())
        });
        expect_running(&mut subscriber, 1);
        daemon.terminate();
        let (_, list) = bench.model(&["list"]);
        assert!(list.contains("small-test 2"), "{list}");
        assert!(list.contains("attempt 0 begun"), "{list}");
    }
}

#[test]
fn a_model_is_installed_listed_and_taken_back_by_hand() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = bench(broker.port());
    let daemon = bench.run();
    expect_running(&mut subscriber, 1);
    let path = |name: &str| bench.path(name).to_str().expect("UTF-8").to_owned();
    let say = |arguments: &[&str], expected: i32, words: &str| {
        let (code, said) = bench.model(arguments);
        assert_eq!(code, Some(expected), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    };
    fs::write(bench.path("two.tern"), bundle(2, |_| {})).expect("written");
    fs::write(bench.path("old.tern"), bundle(0, |_| {})).expect("written");
    let stranger = bundle_signed_by(&SecretKey::from_bytes(&[8; 32]), 3, |_| {});
    fs::write(bench.path("stranger.tern"), stranger).expect("written");

    say(&["install", &path("nothing.tern")], 66, "nothing.tern");
    say(&["install", &path("stranger.tern")], 65, "bad_signature");
    say(&["install", &path("old.tern")], 65, "version_too_old");
    say(&["rollback"], 65, "none before");
    say(&["install", &path("two.tern")], 0, "small-test 2");
    expect_running(&mut subscriber, 2);
    assert_eq!(ending(&mut subscriber, "by-hand").0, "committed");
    say(&["list"], 0, "committed    small-test 2");
    say(&["install", &path("two.tern")], 0, "in use already");
    say(&["rollback"], 0, "the packaged model is in use");
    expect_running(&mut subscriber, 1);
    say(&["install", &path("two.tern")], 65, "quarantined");
    say(&["list"], 0, "quarantined  small-test 2");
    daemon.terminate();
}

/// Has version 2 installed by hand, and kept by a daemon that has ended; its file.
pub(crate) fn install_by_hand(bench: &Bench, subscriber: &mut Subscriber) -> PathBuf {
    let path = bench.path("two.tern");
    fs::write(&path, bundle(2, |_| {})).expect("written");
    let (code, said) = bench.model(&["install", path.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{said}");
    let daemon = bench.run();
    assert_eq!(ending(subscriber, "by-hand").0, "committed");
    daemon.terminate();
    let models = fs::read_dir(bench.path("state/models")).expect("there");
    let folders = models.map(|entry| entry.expect("readable").path());
    folders.last().expect("one model").join("model.tern")
}

#[test]
fn a_damaged_state_folder_never_keeps_the_daemon_from_its_work() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let bench = bench(broker.port());
    let file = install_by_hand(&bench, &mut subscriber);

    // The model's file rots: the packaged one takes its place.
    let mut bytes = fs::read(&file).expect("readable");
    bytes[100] ^= 1;
    fs::write(&file, bytes).expect("written");
    let daemon = bench.run();
    expect_running(&mut subscriber, 1);
    assert!(daemon.terminate().contains("the model in use is lost"));

    // So does the state file.
    fs::write(
        bench.path("state/state"),
        "ternwatch model state 1 nonsense",
    )
    .expect("written");
    let daemon = bench.run();
    let state = subscriber.expect("the state", |heard| {
        model_state(heard).filter(|state| state["reason"] == "state_damaged")
    });
    assert_eq!(state["state"], "rolled_back");
    expect_running(&mut subscriber, 1);
    assert!(daemon.terminate().contains("updates begin anew"));
}

/// Has the daemon believe any two of the roots 1, 2 and 3.
pub(crate) fn trust_roots(bench: &mut Bench) {
    let roots = [1, 2, 3].map(|seed| secret(seed).public_key());
    let roots = Roots::new(roots.into(), 2).expect("two of three");
    fs::write(bench.path("roots"), roots.to_text()).expect("written");
    let path = bench.path("roots");
    bench.set("MODEL__ROOTS", path.to_str().expect("UTF-8"));
}

/// A keyring that the roots 1 and 2 signed.
pub(crate) fn keyring(version: u64, models: &[u8], revoked: &[u8]) -> Vec<u8> {
    ternwatch_bundle::testing::keyring(version, models, revoked, &[1, 2])
}

#[test]
fn a_revoked_key_loses_its_models() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    trust_roots(&mut bench);
    let daemon = bench.run();
    expect_running(&mut subscriber, 1);
    let pusher = Pusher::connect(broker.port());
    let push = |subscriber: &mut Subscriber, job: &str, version, key: &SecretKey| {
        pusher.offer(job, version, &bundle_signed_by(key, version, |_| {}));
        let (name, state) = ending(subscriber, job);
        (name, state["reason"].as_str().unwrap_or("").to_owned())
    };
    let refused = || ("rejected".to_string(), "bad_signature".to_string());
    let expect_keyring = |subscriber: &mut Subscriber, version: u64| {
        subscriber.expect(&format!("keyring {version}"), |heard| {
            (model_state(heard)?["keyring"] == version).then_some(())
        });
    };
    pusher.keyring(keyring(1, &[20], &[]));
    wait_for_log(&daemon, "a new keyring is in effect");
    expect_keyring(&mut subscriber, 1);
    let (name, _) = push(&mut subscriber, "new-key", 2, &secret(20));
    assert_eq!(name, "committed");
    expect_running(&mut subscriber, 2);
    // The keyring does not name the packaged key.
    assert_eq!(push(&mut subscriber, "old-key", 3, &small_key()), refused());

    // Taken away while it looks at the frames; the packaged model takes over.
    pusher.keyring(keyring(2, &[21], &[20]));
    expect_keyring(&mut subscriber, 2);
    expect_running(&mut subscriber, 1);
    assert_eq!(push(&mut subscriber, "revoked", 4, &secret(20)), refused());
    pusher.keyring(keyring(1, &[20], &[]));
    wait_for_log(&daemon, "a keyring is refused");
    assert_eq!(push(&mut subscriber, "replayed", 5, &secret(20)), refused());
    let (name, _) = push(&mut subscriber, "newest-key", 6, &secret(21));
    assert_eq!(name, "committed");
    daemon.terminate();

    // By hand, while no daemon runs: the next one begins with what is trusted.
    fs::write(bench.path("3.keys"), keyring(3, &[22], &[20, 21])).expect("written");
    fs::write(bench.path("few.keys"), keyring(4, &[21], &[20])).expect("written");
    let path = |name: &str| bench.path(name).to_str().expect("UTF-8").to_owned();
    let (code, said) = bench.model(&["trust", &path("3.keys")]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = bench.model(&["trust", &path("few.keys")]);
    assert_eq!(code, Some(65), "it forgets a revocation: {said}");
    let (_, list) = bench.model(&["list"]);
    assert!(list.contains("keyring      version 3"), "{list}");
    let daemon = bench.run();
    expect_keyring(&mut subscriber, 3);
    expect_running(&mut subscriber, 1);
    daemon.terminate();
}

#[test]
fn a_flood_of_offers_begins_a_bounded_number_of_downloads() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    bench.set("UPDATE__DOWNLOADS_PER_HOUR_MAX", "3");
    let daemon = bench.run();
    expect_running(&mut subscriber, 1);
    let pusher = Pusher::connect(broker.port());
    pusher.set_budget(0);
    let offer = |number: u64| {
        let version = 2 + number;
        pusher.offer(
            &format!("flood-{number}"),
            version,
            &bundle(version, |_| {}),
        );
    };
    (0..10).for_each(offer);
    wait_for("seven refusals", || {
        let refusals = daemon.log().matches("too many downloads began").count();
        (refusals == 7).then_some(())
    });
    assert_eq!(daemon.log().matches("fetching model").count(), 3);
    // The third download was not disturbed, and ends well.
    pusher.set_budget(usize::MAX);
    offer(2);
    assert_eq!(ending(&mut subscriber, "flood-2").0, "committed");
    offer(9);
    let (name, state) = ending(&mut subscriber, "flood-9");
    assert_eq!(name, "rejected");
    assert_eq!(state["reason"], "too_many_downloads");
    // Whoever offered it knows it by that.
    let file = bundle(11, |_| {});
    assert_eq!(state["model"]["sha256"], sha256(&file));
    daemon.terminate();
}
