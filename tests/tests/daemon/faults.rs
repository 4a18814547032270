//! The power and the memory card fail under the real daemon, at every single place of an update: strace has the kernel kill it, or
//! refuse what it asks for. What the file system may make of a power cut is `daemon/tests/update/store.rs`'s business.

use crate::bench::Bench;
use crate::push::{Pusher, long_bundle, sha256};
use crate::{document, expect_state, update};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use system_tests::broker::{Broker, Heard, Subscriber, wait_for};
use ternwatch_bundle::hex;

/// Two chunks, so that a download can be in the middle.
const CHUNKS: usize = 2;

/// A device that has never had an update, and somebody who sends it one.
struct Site {
    bench: Bench,
    subscriber: Subscriber,
    pusher: Pusher,
    _broker: Broker,
    file: Vec<u8>,
}

impl Site {
    fn new() -> Self {
        let broker = Broker::start();
        let subscriber = Subscriber::connect(broker.port(), "test");
        let mut bench = update::bench(broker.port());
        bench.set("UPDATE__TRIAL_FRAMES", "1");
        Self {
            pusher: Pusher::connect(broker.port()),
            bench,
            subscriber,
            _broker: broker,
            file: long_bundle(2, CHUNKS),
        }
    }

    /// Every file and folder that an update touches.
    fn paths(&self) -> Vec<PathBuf> {
        let name = sha256(&self.file);
        let models = format!("models/{name}");
        let incoming = format!("incoming/{name}");
        let below = |folder: &str, names: &[&str]| -> Vec<String> {
            names
                .iter()
                .map(|name| format!("{folder}/{name}"))
                .collect()
        };
        let names = [
            "",
            "state",
            "state.new",
            "offered",
            "offered.new",
            "models",
            "incoming",
        ];
        let mut all: Vec<String> = names.map(String::from).into();
        all.extend(below(&models, &["", "model.tern", "model.tern.new"]));
        let parts = ["", "offer", "offer.new", "data", "bitmap", "bitmap.new"];
        all.extend(below(&incoming, &parts));
        let path = |name: &String| {
            let path = self.bench.path("state").join(name);
            // Without the slash at the end, which the kernel does not show.
            path.components().collect()
        };
        all.iter().map(path).collect()
    }

    /// A daemon with an empty card, to which `inject` happens; it has been offered the model.
    fn run(&mut self, job: &str, inject: &str) -> crate::bench::Daemon {
        let state = self.bench.path("state");
        fs::remove_dir_all(&state).expect("it is there");
        fs::create_dir(&state).expect("a new folder");
        let mut options: Vec<String> = vec!["-e".into(), format!("inject={inject}")];
        let call = inject.split(':').next().expect("a name");
        options.extend(["-e".into(), format!("trace={call}")]);
        for path in self.paths() {
            options.extend(["-P".into(), path.to_str().expect("UTF-8").into()]);
        }
        // Retained: the daemon hears of it when it is there.
        self.pusher.offer(job, 2, &self.file);
        self.bench.run_traced(&options)
    }

    /// The next run, when all is well again: a model that works looks at the frames, and the update comes to its end. Until then it
    /// is the one before, unless the job had ended in the run before.
    fn run_to_the_end(&mut self, job: &str, place: &str) {
        let (_, list) = self.bench.model(&["list"]);
        let was_committed = list.contains("committed    small-test 2");
        let daemon = self.bench.run();
        expect_state(&mut self.subscriber, "online");
        let (mut versions, mut ended) = (Vec::new(), None);
        let state = self
            .subscriber
            .expect("the first frame and the end of the job", |heard| {
                versions.extend(
                    document(heard).and_then(|document| document["model"]["version"].as_u64()),
                );
                let state = heard.document("site/pi/model");
                let is_over = |state: &Value| {
                    ["committed", "rolled_back", "rejected"]
                        .iter()
                        .any(|name| state["state"] == *name)
                };
                let state = state.filter(|state| state["job"] == job && is_over(state));
                ended = ended.take().or(state);
                (!versions.is_empty()).then(|| ended.clone())?
            });
        assert_eq!(state["state"], "committed", "{place}: {state}");
        let first = if was_committed { 2 } else { 1 };
        assert_eq!(versions.first(), Some(&first), "{place}: {versions:?}");
        assert!(versions.is_sorted(), "{place}: {versions:?}");
        self.subscriber.expect("a frame of it", |heard| {
            (document(heard)?["model"]["version"] == 2).then_some(())
        });
        let log = daemon.terminate();
        for bad in ["is lost", "damaged", "updates begin anew"] {
            assert!(!log.contains(bad), "{place}: {log}");
        }
        expect_state(&mut self.subscriber, "offline");
    }
}

/// Who says that a model is to be installed.
#[derive(Clone, Copy)]
enum Consent {
    /// Nobody is asked.
    Given,
    /// The owner, who says so as soon as it is offered.
    Asked,
}

/// Kills the daemon as it makes this system call for the `first`th time, then for the time `stride` later, and so on, as long as an
/// update makes so many. Gives how many those were.
fn killed_at_every(call: &str, first: usize, stride: usize, consent: Consent) -> usize {
    let mut site = Site::new();
    for count in (first..).step_by(stride) {
        let job = format!("{call}-{count}");
        let is_automatic = matches!(consent, Consent::Given).to_string();
        site.bench.set("UPDATE__AUTOMATIC", &is_automatic);
        let mut daemon = site.run(&job, &format!("{call}:signal=SIGKILL:when={count}"));
        let news = |heard: &Heard| {
            let state = heard.document("site/pi/model")?;
            let name = state["state"]
                .as_str()
                .filter(|_| state["job"] == job.as_str())?;
            ["offered", "committed"]
                .contains(&name)
                .then(|| name.to_owned())
        };
        let mut is_done = false;
        let status = wait_for("the kill, or the end of the job", || {
            match site.subscriber.heard(news).as_deref() {
                Some("offered") => {
                    let (code, said) = site.bench.model(&["approve"]);
                    assert_eq!(code, Some(0), "{job}: {said}");
                }
                Some(_) => is_done = true,
                None => {}
            }
            let status = daemon.ended();
            (is_done || status.is_some()).then_some(status)
        });
        let Some(status) = status else {
            // What is tidied up after the end is not killed any more.
            daemon.terminate();
            return count;
        };
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "{job}: {}",
            daemon.log()
        );
        drop(daemon);
        // Nobody is left who would be asked.
        site.bench.set("UPDATE__AUTOMATIC", "true");
        site.run_to_the_end(&job, &job);
    }
    unreachable!("an update has an end")
}

/// Where this is set, a test that cannot run is one that fails: nobody reads what was skipped there.
const REQUIRED: &str = "TESTS_MUST_TRACE";

/// Whether processes may be traced here; in some containers they may not.
fn may_trace() -> bool {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    let may = tried.expect("strace starts").status.success();
    assert!(
        may || std::env::var_os(REQUIRED).is_none(),
        "strace may not trace here, and {REQUIRED} is set"
    );
    if !may {
        eprintln!("skipped: strace may not trace here");
    }
    may
}

#[test]
fn a_daemon_that_is_killed_at_every_fsync_and_rename_of_an_update_ends_with_it() {
    if !may_trace() {
        return;
    }
    std::thread::scope(|scope| {
        let lanes = [
            ("fsync", 1, 2, Consent::Given, 17),
            ("fsync", 2, 2, Consent::Given, 17),
            ("rename", 1, 1, Consent::Given, 6),
            ("rename", 1, 1, Consent::Asked, 8),
        ];
        let lanes = lanes.map(|(call, first, stride, consent, least)| {
            let lane = scope.spawn(move || killed_at_every(call, first, stride, consent));
            (call, least, lane)
        });
        for (call, least, lane) in lanes {
            let count = lane.join().expect("the lane ends well");
            println!("{call}: {count}");
            assert!(count > least, "only {count} times {call}");
        }
    });
}

#[test]
fn a_card_that_is_full_from_any_write_on_leaves_the_model_in_use_at_work() {
    if !may_trace() {
        return;
    }
    let mut refused = 0;
    let mut site = Site::new();
    for call in ["write", "pwrite64"] {
        for count in 1.. {
            let job = format!("{call}-{count}");
            let daemon = site.run(&job, &format!("{call}:error=ENOSPC:when={count}+"));
            let mut frames = 0;
            // Either the job ends, or the daemon goes on with what it has.
            let name = site.subscriber.expect("an end, or twenty frames", |heard| {
                if let Some(document) = document(heard) {
                    frames += 1;
                    let version = document["model"]["version"].as_u64();
                    assert!(matches!(version, Some(1 | 2)), "{job}: {document}");
                }
                let state = heard.document("site/pi/model");
                let state = state.filter(|state| state["job"] == job.as_str());
                let name = state.map(|state| state["state"].as_str().unwrap_or("").to_owned());
                let is_over = |name: &String| ["committed", "rejected"].contains(&name.as_str());
                name.filter(is_over).or((frames >= 20).then(String::new))
            });
            daemon.terminate();
            expect_state(&mut site.subscriber, "offline");
            let trace = fs::read_to_string(site.bench.path("trace")).expect("strace wrote it");
            if !trace.contains("INJECTED") {
                assert_eq!(name, "committed", "{job}");
                break;
            }
            refused += 1;
            site.run_to_the_end(&job, &job);
        }
    }
    println!("{refused} places");
    assert!(refused >= 8, "only {refused} writes");
}

#[test]
fn without_room_a_model_is_refused_before_anything_is_written_and_taken_when_there_is_some() {
    if !may_trace() {
        return;
    }
    // What the kernel tells of a file system: type, bytes a block, blocks, free ones, and free ones for everybody.
    let full = [0xef53_u64, 4096, 1 << 20, 0, 0].map(|number| hex::encode(&number.to_ne_bytes()));
    let mut site = Site::new();
    let daemon = site.run("full", &format!("statfs:poke_exit=@arg2={}", full.concat()));
    let (name, state) = update::ending(&mut site.subscriber, "full");
    assert_eq!(
        (name.as_str(), &state["reason"]),
        ("rejected", &"no_space".into())
    );
    let incoming = site.bench.path("state/incoming");
    assert!(!incoming.exists(), "something was written");
    let still = site.subscriber.expect("a frame", document);
    assert_eq!(still["model"]["version"], 1);
    daemon.terminate();
    expect_state(&mut site.subscriber, "offline");
    site.run_to_the_end("full", "with room");
}
