//! What is done with bytes that nobody vouches for: each function must come to an end, whatever it is given.
//!
//! libFuzzer calls them (`fuzz_targets`), and so does a test with the stable toolchain (`tests/tests/fuzz_smoke.rs`).

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use ternwatch_bundle::keyring::{Body, Keyring, Roots, sign};
use ternwatch_bundle::testing::{sign_manifest, small_key};
use ternwatch_bundle::{Model, SecretKey, TrustedKeys, UnverifiedBundle};
use ternwatch_daemon::command::{self, Control};
use ternwatch_daemon::config::Config;
use ternwatch_daemon::detection::Detection;
use ternwatch_daemon::health::Health;
use ternwatch_daemon::publish::mqtt::conversation::{Conversation, Delivery};
use ternwatch_daemon::publish::mqtt::message::Heard;
use ternwatch_daemon::publish::settings::Reporter;
use ternwatch_daemon::schedule::Schedule;
use ternwatch_daemon::update::agent::Input;
use ternwatch_daemon::update::hawkbit::ddi::{Base, Deployment, parse_cancel};
use ternwatch_ota::offer::{Offer, is_url};
use ternwatch_ota::request::Request;
use ternwatch_ota::sender::{Package, Sender};
use ternwatch_ota::state::State;
use ternwatch_ota::topic;

/// A target by its name, which is also that of its corpus.
pub type Target = fn(&[u8]);

/// All of them.
pub const TARGETS: &[(&str, Target)] = &[
    ("bundle", bundle),
    ("manifest", manifest),
    ("keyring", keyring),
    ("offer", offer),
    ("answer", answer),
    ("topic", topic),
    ("sender", sender),
    ("command", command),
    ("hawkbit", hawkbit),
];

/// A whole file from anybody.
pub fn bundle(data: &[u8]) {
    let keys = TrustedKeys::from_iter([small_key().public_key()]);
    let verified = UnverifiedBundle::from_bytes(data).and_then(|bundle| bundle.verify(&keys));
    if let Ok(bundle) = verified {
        assert_eq!(bundle.len(), data.len());
        let _ = Model::load(&bundle);
    }
}

/// What lies behind a good signature: the manifest as JSON, a zero byte, the parameters.
pub fn manifest(data: &[u8]) {
    let end = data
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(data.len());
    let (manifest, parameters) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let Ok(file) = sign_manifest(manifest, parameters, &small_key()) else {
        return;
    };
    bundle(&file);
}

/// A keyring from anybody, and one that the roots signed.
pub fn keyring(data: &[u8]) {
    let secret = || SecretKey::from_bytes(&[1; 32]);
    let Ok(roots) = Roots::new(vec![secret().public_key()], 1) else {
        return;
    };
    let _ = Keyring::verify(data, &roots);
    if let Ok(body) = serde_json::from_slice::<Body>(data)
        && let Ok(file) = sign(&body, &[secret()])
        && let Ok(keyring) = Keyring::verify(&file, &roots)
    {
        assert_eq!(*keyring.body(), body);
        assert!(!keyring.follows(&keyring), "none follows itself");
    }
}

/// The document on the offer topic.
pub fn offer(data: &[u8]) {
    if let Ok(offer) = Offer::parse(data) {
        let sum: usize = (0..offer.chunks.len())
            .map(|index| offer.chunk_bytes(index))
            .sum();
        assert_eq!(sum, offer.bytes);
        let written = serde_json::to_vec(&offer).expect("what was read can be written");
        assert_eq!(Offer::parse(&written).expect("and read again"), offer);
    }
}

/// Documents that a device sends.
pub fn answer(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        let written = serde_json::to_vec(&request).expect("what was read can be written");
        assert_eq!(Request::parse(&written).expect("and read again"), request);
    }
    if let Ok(state) = State::parse(data) {
        let _ = state.is_over();
    }
}

/// A topic below a device's.
pub fn topic(data: &[u8]) {
    if let Some((sha256, index)) = topic::chunk_of(data) {
        let whole = topic::chunk("m", &sha256, index);
        assert_eq!(
            whole.as_bytes().strip_prefix(b"m/"),
            Some(data),
            "one chunk, one topic"
        );
    }
}

/// Messages for a sender: topic, zero byte, payload, zero byte, and so on.
pub fn sender(data: &[u8]) {
    let Some(package) = Package::new("job", "person", 2, vec![7; 100_000]) else {
        return;
    };
    let mut sender = Sender::new("site", &[], package, true);
    let mut parts = data.split(|byte| *byte == 0);
    while let (Some(topic), Some(payload)) = (parts.next(), parts.next()) {
        sender.hear(&String::from_utf8_lossy(topic), payload);
    }
    sender.offer();
    let mut sent = 0;
    while sender.has_next() {
        sent += usize::from(sender.take_next().is_some());
    }
    assert!(
        sent <= 5 * sender.devices().len(),
        "an offer and four chunks a device"
    );
    assert_eq!(sender.farewell().len(), sender.devices().len());
}

/// A device that takes commands, and its update thread's end.
struct Device {
    conversation: Conversation,
    updates: Receiver<Input>,
}

impl Device {
    fn new() -> Self {
        let config = Config::load(None, [("TERNWATCH_CAMERA__NAME".into(), "door".into())]);
        let config = config.expect("the defaults are valid");
        let switches = Arc::default();
        let (sender, updates) = sync_channel(1);
        let control = Control {
            settings: Arc::new(Reporter::new(&config)),
            running: Arc::new(Mutex::new(config)),
            mail: Arc::default(),
            detection: Arc::new(Detection::new(Schedule::default(), Arc::clone(&switches))),
            switches,
            announcement: None,
            desk: None,
            health: Arc::new(Health::new(Duration::from_secs(1), None, "door")),
            updates: Some(sender),
        };
        Self {
            conversation: command::connect(control, "pi"),
            updates,
        }
    }
}

/// Commands, carried out on a device: name, zero byte, document.
pub fn command(data: &[u8]) {
    thread_local! {
        static DEVICE: std::cell::RefCell<Device> = std::cell::RefCell::new(Device::new());
    }
    let end = data
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(data.len());
    let (name, payload) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let heard = Heard {
        topic: [b"ternwatch/pi/door/command/", name].concat(),
        payload: payload.into(),
        ..Heard::default()
    };
    DEVICE.with_borrow_mut(
        |Device {
             conversation,
             updates,
         }| {
            (conversation.deliver)(Delivery::Message(&heard));
            for input in updates.try_iter() {
                if let Input::Install { reply, .. } = input {
                    reply.done();
                }
            }
            let is_command = name != b"response" && std::str::from_utf8(name).is_ok();
            let mut answers = 0;
            while let Ok(answer) = conversation.remarks.try_recv() {
                let answer = serde_json::from_slice::<serde_json::Value>(answer.payload());
                assert!(answer.is_ok_and(|answer| answer["ok"].is_boolean()));
                answers += 1;
            }
            assert_eq!(answers, usize::from(is_command), "one command, one answer");
        },
    );
}

/// What a hawkBit server answers: a poll, a deployment, a cancellation.
pub fn hawkbit(data: &[u8]) {
    if let Ok(base) = Base::parse(data) {
        let links = [&base.config_data, &base.deployment, &base.cancel];
        let longest = links.into_iter().flatten().map(String::len).max();
        assert!(longest.unwrap_or(0) <= data.len());
    }
    if let Ok(deployment) = Deployment::parse(data) {
        assert!(!deployment.action.contains('/') && deployment.action.len() <= 32);
        if let Ok(artifact) = deployment.model {
            assert!(artifact.urls.iter().all(|url| is_url(url)));
            let (claim, bytes) = (artifact.claim, artifact.bytes);
            let Some(url) = artifact.urls.into_iter().next() else {
                return;
            };
            let job = format!("hawkbit.{}", deployment.action);
            if let Ok(offer) = Offer::whole(&job, claim, artifact.sha256, bytes, url) {
                let written = serde_json::to_vec(&offer).expect("what was read can be written");
                assert_eq!(Offer::recall(&written).expect("and recalled"), offer);
            }
        }
    }
    if let Ok(action) = parse_cancel(data) {
        assert!(!action.contains('/') && action.len() <= 32);
    }
}
