//! What somebody may send who wants a device to run another model, or none: each attack by its name, on the real daemon. Whatever
//! comes, every frame is examined, and by a model that was kept here.

use crate::bench::{Bench, Daemon};
use crate::push::{CHUNK_BYTES, Pusher, bundle, bundle_signed_by, long_bundle, offer_of, sha256};
use crate::update;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};
use system_tests::broker::{Broker, Subscriber, wait_for};
use ternwatch_bundle::keyring::{self, Body};
use ternwatch_bundle::manifest::Release;
use ternwatch_bundle::testing::{
    KEYRING_SIGNED_AT_S, load, secret, sign_manifest, small_draft, small_key,
};
use ternwatch_bundle::{SecretKey, hex};
use ternwatch_detector::golden;

const DAY_S: u64 = 86_400;
const YEAR_S: u64 = 365 * DAY_S;
/// More than a device may need for what is refused: its packaged model takes a fraction of it.
const MEMORY_ADDED_KIB_MAX: u64 = 24 << 10;

/// A device with its broker, somebody who sends it things, and somebody who watches.
struct Site {
    bench: Bench,
    daemon: Daemon,
    pusher: Pusher,
    subscriber: Subscriber,
    // It ends when it is dropped.
    _broker: Broker,
}

impl Site {
    fn begin() -> Self {
        Self::with(|_| {})
    }

    fn with(prepare: impl FnOnce(&mut Bench)) -> Self {
        let broker = Broker::start();
        let mut subscriber = Subscriber::connect(broker.port(), "test");
        let mut bench = update::bench(broker.port());
        // The broker may lose documents of frames among so many chunks.
        bench.set("STDOUT__ENABLED", "true");
        bench.set("UPDATE__DOWNLOADS_PER_HOUR_MAX", "1000");
        prepare(&mut bench);
        let daemon = bench.run();
        crate::expect_state(&mut subscriber, "online");
        Self {
            daemon,
            pusher: Pusher::connect(broker.port()),
            bench,
            subscriber,
            _broker: broker,
        }
    }

    /// How the job ended: name and reason of its state.
    fn end_of(&mut self, job: &str) -> (String, String) {
        let (name, state) = update::ending(&mut self.subscriber, job);
        (name, state["reason"].as_str().unwrap_or_default().into())
    }

    /// Offers the file honestly.
    fn push(&mut self, job: &str, version: u64, file: &[u8]) -> (String, String) {
        self.pusher.offer(job, version, file);
        self.end_of(job)
    }

    fn expect_kept(&mut self, job: &str, version: u64, file: &[u8]) {
        let (name, reason) = self.push(job, version, file);
        assert_eq!(name, "committed", "{job}: {reason}");
    }

    fn expect_refused(&mut self, job: &str, version: u64, file: &[u8], expected: &str) {
        let (name, reason) = self.push(job, version, file);
        assert_eq!(reason, expected, "{job}: {name}");
    }

    /// Ends it as a power cut does, and begins anew.
    fn kill_and_run(&mut self) {
        self.daemon.signal(Signal::KILL);
        crate::expect_state(&mut self.subscriber, "offline");
        let daemon = self.bench.run();
        drop(std::mem::replace(&mut self.daemon, daemon));
        crate::expect_state(&mut self.subscriber, "online");
    }

    /// Ends it. Since it began, these versions have looked at the frames, one after the other, and no frame was lost.
    fn end(self, versions: &[u64]) -> String {
        let Self { bench, daemon, .. } = self;
        wait_for("frames of the last model", || {
            let frames = bench.frames_on_stdout();
            let last = frames.last()?["model"]["version"].as_u64();
            (last == versions.last().copied()).then_some(())
        });
        let log = daemon.terminate();
        assert_eq!(update::versions_of_every_frame(&bench), versions, "{log}");
        log
    }
}

#[test]
fn a_flipped_bit_at_every_structural_boundary_is_refused() {
    let file = bundle(2, |_| {});
    let manifest = u32::from_le_bytes([file[88], file[89], file[90], file[91]]) as usize;
    let parameters = 92 + manifest;
    // Magic, version, reserved, length, key id, signature, length of the manifest, manifest, parameters: first and last byte.
    let places = [
        [0, 7],
        [8, 9],
        [10, 11],
        [12, 15],
        [16, 23],
        [24, 87],
        [88, 91],
        [92, parameters - 1],
        [parameters, file.len() - 1],
    ];
    let mut site = Site::begin();
    for (at, bit) in places.iter().flatten().zip((0..8).cycle()) {
        let mut flipped = file.clone();
        flipped[*at] ^= 1 << bit;
        // A later format is named as such: nobody can say yet whether it is signed.
        let expected = match at {
            8 | 9 => "daemon_too_old",
            _ => "bad_signature",
        };
        site.expect_refused(&format!("flip-{at}-{bit}"), 2, &flipped, expected);
    }
    // The whole one is none the worse for it.
    site.expect_kept("whole", 2, &file);
    site.end(&[1, 2]);
}

#[test]
fn a_file_that_is_cut_off_at_every_chunk_is_refused() {
    let file = long_bundle(2, 6);
    let mut site = Site::begin();
    let ends = (1..6).map(|chunks| chunks * CHUNK_BYTES);
    for end in ends.chain([1, 50, 88, 92, file.len() - 1]) {
        site.expect_refused(&format!("cut-{end}"), 2, &file[..end], "bad_signature");
    }
    let longer = [&file[..], b"x"].concat();
    site.expect_refused("longer", 2, &longer, "bad_signature");
    site.expect_kept("whole", 2, &file);
    site.end(&[1, 2]);
}

#[test]
fn lengths_that_would_fill_the_memory_are_refused_and_cost_none() {
    let mut site = Site::begin();
    let before = site.daemon.peak_memory_kib();
    // Offers of more than there can be, and ones that are no offers.
    let good = || offer_of("bomb", 2, b"small");
    let with = |key: &str, value: Value| {
        let mut offer = good();
        offer[key] = value;
        offer.to_string().into_bytes()
    };
    let digest = sha256(b"");
    let offers: Vec<Vec<u8>> = vec![
        with("bytes", u64::MAX.into()),
        with("bytes", (17 << 20).into()),
        with("bytes", (-1).into()),
        with("chunks", json!(vec![digest; 600])),
        with("job", "j".repeat(40_000).into()),
        with("url", format!("https://{}/", "h".repeat(4000)).into()),
        vec![b'['; 40_000],
        vec![b' '; (48 << 10) + 1],
    ];
    let count = offers.len();
    for (number, offer) in offers.into_iter().enumerate() {
        site.pusher.publish_offer(offer);
        let words = "an offer is refused";
        wait_for(&format!("refusal {number}"), || {
            let refusals = site.daemon.log().matches(words).count();
            (refusals > number).then_some(())
        });
    }
    let refusals = site.daemon.log().matches("an offer is refused").count();
    assert_eq!(refusals, count);

    // Bundles that say that they are endless.
    for declared in [(16 << 20) + 1, u32::MAX] {
        let mut file = bundle(2, |_| {});
        file[12..16].copy_from_slice(&declared.to_le_bytes());
        site.expect_refused(&format!("header-{declared}"), 2, &file, "bad_signature");
    }
    // Signed ones, of a maker whose tool went wrong.
    let endless_input = bundle(3, |manifest| {
        (manifest.input.width, manifest.input.height) = (u32::MAX, u32::MAX);
    });
    let endless_picture = bundle(4, |manifest| {
        (manifest.golden[0].width, manifest.golden[0].height) = (u32::MAX, u32::MAX);
    });
    let endless_layers = bundle(5, |manifest| {
        manifest.layers = vec![manifest.layers[0].clone(); 2000];
    });
    let far_away = bundle(6, |manifest| {
        let ternwatch_bundle::manifest::Layer::Conv { offset, .. } = &mut manifest.layers[0] else {
            panic!("the first layer is a convolution");
        };
        *offset = u32::MAX;
    });
    let deep = [vec![b'['; 400_000], vec![b']'; 400_000]].concat();
    let deep = sign_manifest(&deep, &[], &small_key()).expect("within the bounds");
    let signed = [
        endless_input,
        endless_picture,
        endless_layers,
        far_away,
        deep,
    ];
    for (version, file) in (3..).zip(&signed) {
        site.expect_refused(&format!("signed-{version}"), version, file, "model_invalid");
    }
    let added = site.daemon.peak_memory_kib() - before;
    assert!(added < MEMORY_ADDED_KIB_MAX, "{added} KiB more than before");
    site.expect_kept("good", 9, &bundle(9, |_| {}));
    site.end(&[1, 9]);
}

/// With MQTT 3.1.1 a device cannot tell the broker how much it takes; a retained message comes again on every connection.
fn what_is_longer_than_anything_keeps_no_event_back(protocol: &str) {
    let mut site = Site::with(|bench| {
        bench.set("MQTT__PROTOCOL", protocol);
    });
    site.pusher.publish_offer(vec![b'x'; 200 << 10]);
    if protocol == "3.1.1" {
        crate::expect_state(&mut site.subscriber, "offline");
        crate::expect_state(&mut site.subscriber, "online");
    }
    let mut heard = 0;
    site.subscriber
        .expect("a hundred frames in a row", |message| {
            assert_ne!(crate::state(message).as_deref(), Some("offline"));
            heard += usize::from(crate::document(message).is_some());
            (heard == 100).then_some(())
        });
    let log = site.end(&[1]);
    if protocol == "3.1.1" {
        assert!(log.contains("listens to nothing"), "{log}");
    }
}

#[test]
fn what_is_longer_than_anything_keeps_no_event_back_with_mqtt_5() {
    what_is_longer_than_anything_keeps_no_event_back("5");
}

#[test]
fn what_is_longer_than_anything_keeps_no_event_back_with_mqtt_3_1_1() {
    what_is_longer_than_anything_keeps_no_event_back("3.1.1");
}

/// A keyring of two roots that trusts the packaged key.
fn keyring(version: u64, resets: &[(&str, u64)]) -> Vec<u8> {
    let body = Body {
        schema: keyring::SCHEMA,
        version,
        signed_at_s: KEYRING_SIGNED_AT_S,
        models: vec![hex::encode(&small_key().public_key().to_bytes())],
        revoked: Vec::new(),
        resets: resets
            .iter()
            .map(|(name, least)| ((*name).into(), *least))
            .collect(),
    };
    let roots: Vec<SecretKey> = [1, 2].map(secret).into();
    keyring::sign(&body, &roots).expect("within the bounds")
}

#[test]
fn an_old_model_that_is_played_back_is_refused_until_the_roots_open_the_way() {
    let mut site = Site::with(update::trust_roots);
    let [two, three, four] = [2, 3, 4].map(|version| bundle(version, |_| {}));
    site.expect_kept("two", 2, &two);
    site.expect_kept("four", 4, &four);
    site.expect_refused("replayed", 2, &two, "version_too_old");
    site.expect_refused("never-seen", 3, &three, "version_too_old");
    // The offer lies: what was signed decides.
    site.expect_refused("disguised", 9, &two, "version_too_old");
    site.kill_and_run();
    site.expect_refused("after-a-power-cut", 2, &two, "version_too_old");

    let wait_for_keyrings = |site: &Site, count: usize| {
        wait_for("the keyring", || {
            let taken = site
                .daemon
                .log()
                .matches("a new keyring is in effect")
                .count();
            (taken == count).then_some(())
        });
    };
    site.pusher.keyring(keyring(1, &[]));
    wait_for_keyrings(&site, 1);
    site.expect_refused("not-reset", 3, &three, "version_too_old");
    site.pusher.keyring(keyring(2, &[("small-test", 3)]));
    wait_for_keyrings(&site, 2);
    site.expect_refused("below-the-reset", 2, &two, "version_too_old");
    site.expect_kept("reset", 3, &three);
    site.end(&[4, 3]);
}

#[test]
fn chunks_of_two_models_that_are_mixed_are_refused() {
    let one = long_bundle(2, 6);
    let other = bundle(3, |manifest| {
        manifest.card = Value::String("y".repeat(5 * CHUNK_BYTES));
    });
    assert_eq!(one.len(), other.len());
    let middle = 3 * CHUNK_BYTES;
    let mixed = [&one[..middle], &other[middle..]].concat();
    let mut site = Site::begin();

    // Every chunk is what the offer says; the whole is not.
    let mut offer = offer_of("mixed-list", 2, &mixed);
    offer["sha256"] = sha256(&one).into();
    site.pusher.offer_document(&offer, &mixed);
    let (name, reason) = site.end_of("mixed-list");
    assert_eq!(
        (name.as_str(), reason.as_str()),
        ("rejected", "hash_mismatch")
    );

    // The whole is what the offer says; nobody signed it.
    site.expect_refused("mixed-file", 2, &mixed, "bad_signature");

    // The offer is honest; the chunks are another model's from the middle on.
    site.pusher
        .offer_document(&offer_of("mixed-chunks", 2, &one), &mixed);
    wait_for("chunks that are not what was announced", || {
        let log = site.daemon.log();
        log.contains("is not what was announced").then_some(())
    });
    // Somebody sends the right ones after all.
    site.pusher
        .offer_document(&offer_of("mixed-chunks", 2, &one), &one);
    assert_eq!(site.end_of("mixed-chunks").0, "committed");
    site.end(&[1, 2]);
}

#[test]
fn chunks_in_the_wrong_order_twice_damaged_or_left_out_make_the_right_file() {
    let mut site = Site::begin();
    site.pusher.be_unruly();
    site.expect_kept("unruly", 2, &long_bundle(2, 16));
    let log = site.end(&[1, 2]);
    assert!(log.contains("is not what was announced"), "{log}");
}

fn clock_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

/// A model that was signed at that time and is installed for so many days, if there is an end.
fn released(version: u64, signed_at_s: u64, days: Option<u64>) -> Vec<u8> {
    bundle(version, |manifest| {
        manifest.release = Some(Release {
            signed_at_s,
            not_after_s: days.map(|days| signed_at_s + days * DAY_S),
            daemon_min: None,
        });
    })
}

/// The latest signed time that the device has written down.
fn time_floor_s(bench: &Bench) -> u64 {
    let state = fs::read_to_string(bench.path("state/state")).expect("there");
    let (_, record) = state.split_once('\n').expect("a line and a record");
    let record: Value = serde_json::from_str(record).expect("JSON");
    record["time_floor_s"].as_u64().expect("a number")
}

/// Nobody can set this machine's clock back. What counts is how far it is behind the times at which models are signed, so these
/// are set forward by as much as separates 1970 from today.
#[test]
fn a_clock_at_1970_makes_no_expired_model_fresh() {
    let today_s = 2 * clock_s();
    let mut site = Site::begin();
    // Good for a month: a clock at 1970 must not keep it away.
    let fresh = released(2, today_s, Some(30));
    site.expect_kept("fresh", 2, &fresh);
    // It had expired a day before that one was signed.
    let expired = released(3, today_s - 31 * DAY_S, Some(30));
    site.expect_refused("expired", 3, &expired, "expired");
    site.kill_and_run();
    site.expect_refused("after-a-power-cut", 3, &expired, "expired");
    let path = site.bench.path("expired.tern");
    fs::write(&path, &expired).expect("written");
    let (code, said) = site
        .bench
        .model(&["install", path.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("expired"), "{said}");
    // A day before its end.
    site.expect_kept(
        "just-in-time",
        4,
        &released(4, today_s - 29 * DAY_S, Some(30)),
    );
    assert_eq!(time_floor_s(&site.bench), today_s);
    site.end(&[2, 4]);
}

/// As above: a clock that is ten years ahead sees models that were signed ten years ago.
#[test]
fn a_clock_ten_years_ahead_refuses_what_would_expire_and_leaves_no_trace() {
    let today_s = clock_s() - 10 * YEAR_S;
    let mut site = Site::begin();
    site.expect_refused("a-month", 2, &released(2, today_s, Some(30)), "expired");
    site.expect_kept("for-ever", 3, &released(3, today_s, None));
    site.expect_kept("a-century", 4, &released(4, today_s + 1, Some(36_500)));
    // What is written down is when they were signed, not what the clock said: once it is right, nothing is in the way.
    assert_eq!(time_floor_s(&site.bench), today_s + 1);
    site.end(&[1, 3, 4]);
}

/// Whoever has a key that leaked can say that these are the last days: everything with an end would be over.
#[test]
fn a_leaked_key_that_signs_a_time_far_ahead_keeps_nothing_away_once_it_is_revoked() {
    let mut site = Site::with(update::trust_roots);
    site.pusher.keyring(update::keyring(1, &[20, 21], &[]));
    update::wait_for_log(&site.daemon, "a new keyring is in effect");
    let released = |seed, version, signed_at_s, not_after_s| {
        bundle_signed_by(&secret(seed), version, |manifest| {
            manifest.release = Some(Release {
                signed_at_s,
                not_after_s,
                daemon_min: None,
            });
        })
    };
    site.expect_kept("far-ahead", 2, &released(20, 2, u64::MAX, None));
    assert_eq!(time_floor_s(&site.bench), u64::MAX);
    let today_s = clock_s().max(KEYRING_SIGNED_AT_S);
    let fresh = released(21, 3, today_s, Some(today_s + 30 * DAY_S));
    site.expect_refused("locked-out", 3, &fresh, "expired");
    site.pusher.keyring(update::keyring(2, &[21], &[20]));
    update::expect_running(&mut site.subscriber, 1);
    assert_eq!(time_floor_s(&site.bench), KEYRING_SIGNED_AT_S);
    site.expect_kept("fresh", 3, &fresh);
    assert_eq!(time_floor_s(&site.bench), today_s);
    site.end(&[1, 2, 1, 3]);
}

/// The same network for a picture of 1280 x 960.
fn slow_bundle(version: u64) -> Vec<u8> {
    let mut draft = small_draft(crate::MODEL_SEED);
    draft.manifest.model.version = version;
    (draft.manifest.input.width, draft.manifest.input.height) = (1280, 960);
    let file = draft.sign(&small_key()).expect("small");
    let model = load(&file, &small_key().public_key());
    draft.manifest.golden = vec![golden::record(&model, 1, 43, 28).expect("the model runs")];
    draft.sign(&small_key()).expect("small")
}

#[test]
fn a_model_that_is_too_slow_here_is_refused_and_not_tried_again() {
    let mut site = Site::with(|bench| bench.set("UPDATE__LATENCY_MS_MAX", "1"));
    let slow = slow_bundle(2);
    site.expect_refused("slow", 2, &slow, "too_slow");
    site.expect_refused("again", 2, &slow, "quarantined");
    let (_, list) = site.bench.model(&["list"]);
    assert!(list.contains("quarantined  small-test 2"), "{list}");
    site.end(&[1]);
}
