//! The sending side of docs/ota.md, and models to send.

use rumqttc::mqttbytes::QoS;
use rumqttc::{Client, Event, Incoming, MqttOptions, PublishOptions};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use system_tests::broker::DEADLINE;
use ternwatch_bundle::SecretKey;
use ternwatch_bundle::hex;
use ternwatch_bundle::manifest::Manifest;
use ternwatch_bundle::testing::{load, small_draft, small_key};
use ternwatch_detector::golden;

use crate::bench::MODEL_SEED;

const BASE: &str = "site/pi/model";
pub(crate) const CHUNK_BYTES: usize = 32 << 10;

/// A signed model with golden vectors, like the one that the bench begins with but for its version and `change`.
pub(crate) fn bundle(version: u64, change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    bundle_signed_by(&small_key(), version, change)
}

pub(crate) fn bundle_signed_by(
    key: &SecretKey,
    version: u64,
    change: impl FnOnce(&mut Manifest),
) -> Vec<u8> {
    let mut draft = small_draft(MODEL_SEED);
    draft.manifest.model.version = version;
    let model = load(
        &draft.sign(&small_key()).expect("small"),
        &small_key().public_key(),
    );
    let answers = golden::record(&model, 1, 43, 28).expect("the model runs");
    draft.manifest.golden = vec![answers];
    change(&mut draft.manifest);
    draft.sign(key).expect("small")
}

/// A model of so many chunks.
pub(crate) fn long_bundle(version: u64, chunks: usize) -> Vec<u8> {
    let file = bundle(version, |manifest| {
        manifest.card = Value::String("x".repeat(CHUNK_BYTES * (chunks - 1)));
    });
    assert_eq!(file.len().div_ceil(CHUNK_BYTES), chunks);
    file
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes))
}

/// What requests are answered with.
#[derive(Clone, Default)]
struct Desk {
    /// Which file the chunks are said to be of.
    sha256: String,
    file: Vec<u8>,
    is_unruly: bool,
    /// Chunks that were left out once.
    left_out: BTreeSet<usize>,
}

/// Offers a file, and answers requests for its chunks.
pub(crate) struct Pusher {
    client: Client,
    desk: Arc<Mutex<Desk>>,
    /// Chunks that it still answers.
    budget: Arc<AtomicUsize>,
    /// Chunks that it answered.
    answered: Arc<AtomicUsize>,
    /// Chunks that it was asked for since the budget was set.
    asked: Arc<Mutex<BTreeSet<u64>>>,
}

impl Pusher {
    pub(crate) fn connect(port: u16) -> Self {
        Self::connect_as("pusher", port)
    }

    /// Beside another one.
    pub(crate) fn connect_as(name: &str, port: u16) -> Self {
        let mut options = MqttOptions::new(name, ("127.0.0.1", port));
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut connection) = Client::builder(options).capacity(256).build();
        client
            .subscribe(format!("{BASE}/request"), QoS::AtLeastOnce)
            .expect("a valid filter");
        let pusher = Self {
            client: client.clone(),
            desk: Arc::default(),
            budget: Arc::new(AtomicUsize::new(usize::MAX)),
            answered: Arc::default(),
            asked: Arc::default(),
        };
        let (desk, budget, answered, asked) = (
            pusher.desk.clone(),
            pusher.budget.clone(),
            pusher.answered.clone(),
            pusher.asked.clone(),
        );
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(Ok(event)) = connection.recv() {
                match event {
                    Event::Incoming(Incoming::SubAck(_)) => {
                        let _ = ready.send(());
                    }
                    Event::Incoming(Incoming::Publish(message)) => {
                        let request: Value =
                            serde_json::from_slice(&message.payload).expect("requests are JSON");
                        let chunks = request["chunks"].as_array().expect("a list");
                        let indices = chunks.iter().map(|i| i.as_u64().expect("a number"));
                        asked.lock().expect("no panic").extend(indices);
                        let mut desk = desk.lock().expect("no panic");
                        answer(&client, &mut desk, &request, &budget, &answered);
                    }
                    _ => {}
                }
            }
        });
        is_ready
            .recv_timeout(DEADLINE)
            .expect("the pusher's subscription");
        pusher
    }

    /// Answers so many chunks from now on.
    pub(crate) fn set_budget(&self, chunks: usize) {
        self.asked.lock().expect("no panic").clear();
        self.budget.store(chunks, Ordering::SeqCst);
    }

    /// What it was asked for since. Unlike a subscriber of everything, to whom the broker need not deliver every request among so
    /// many chunks, it has heard of each chunk that it sent.
    pub(crate) fn asked(&self) -> BTreeSet<u64> {
        self.asked.lock().expect("no panic").clone()
    }

    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Publishes a keyring.
    pub(crate) fn keyring(&self, file: Vec<u8>) {
        self.publish("keyring", file, PublishOptions::at_least_once());
    }

    /// Publishes a retained offer of `file`, which claims to have this version.
    pub(crate) fn offer(&self, job: &str, version: u64, file: &[u8]) {
        self.offer_at(job, version, file, None);
    }

    /// As [`Self::offer`], of a file that is on a web server too.
    pub(crate) fn offer_at(&self, job: &str, version: u64, file: &[u8], url: Option<&str>) {
        let mut offer = offer_of(job, version, file);
        if let Some(url) = url {
            offer["url"] = url.into();
        }
        self.offer_document(&offer, file);
    }

    /// Publishes a retained offer, whatever it says, and answers requests for the file that it names with chunks of `file`.
    pub(crate) fn offer_document(&self, offer: &Value, file: &[u8]) {
        {
            let mut desk = self.desk.lock().expect("no panic");
            desk.sha256 = offer["sha256"].as_str().unwrap_or_default().into();
            desk.file = file.to_vec();
            desk.left_out.clear();
        }
        self.publish_offer(offer.to_string());
    }

    /// Answers requests for this file from now on, whatever was offered.
    pub(crate) fn serve(&self, file: &[u8]) {
        let mut desk = self.desk.lock().expect("no panic");
        (desk.sha256, desk.file) = (sha256(file), file.to_vec());
    }

    /// Publishes something on the offer topic.
    pub(crate) fn publish_offer(&self, payload: impl Into<Vec<u8>>) {
        let options = PublishOptions::at_least_once().retained();
        self.publish("offer", payload, options);
    }

    /// The same, and the broker does not keep it.
    pub(crate) fn publish_passing_offer(&self, payload: impl Into<Vec<u8>>) {
        self.publish("offer", payload, PublishOptions::at_most_once());
    }

    fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>, options: PublishOptions) {
        self.client
            .publish(format!("{BASE}/{topic}"), payload.into(), options)
            .expect("the broker is here");
    }

    /// From now on chunks come in the wrong order, twice, damaged first, with others that nobody asked for between them, and
    /// every fifth one only when it is asked for again.
    pub(crate) fn be_unruly(&self) {
        self.desk.lock().expect("no panic").is_unruly = true;
    }
}

/// An honest offer of `file`, which claims to have this version.
pub(crate) fn offer_of(job: &str, version: u64, file: &[u8]) -> Value {
    let chunks: Vec<String> = file.chunks(CHUNK_BYTES).map(sha256).collect();
    json!({
        "schema": 1,
        "job": job,
        "model": { "name": "small-test", "version": version },
        "sha256": sha256(file),
        "bytes": file.len(),
        "chunks": chunks,
    })
}

fn answer(
    client: &Client,
    desk: &mut Desk,
    request: &Value,
    budget: &AtomicUsize,
    answered: &AtomicUsize,
) {
    assert_eq!(request["schema"], 1);
    if request["sha256"] != desk.sha256.as_str() {
        return;
    }
    let wanted = request["chunks"].as_array().expect("a list");
    assert!(wanted.len() <= 4, "few in flight: {request}");
    let indices = wanted
        .iter()
        .map(|index| index.as_u64().expect("a number") as usize);
    let mut indices: Vec<usize> = indices.collect();
    if desk.is_unruly {
        indices.retain(|index| !index.is_multiple_of(5) || !desk.left_out.insert(*index));
        indices.reverse();
    }
    for index in indices {
        let one_less = |budget: usize| budget.checked_sub(1);
        if budget
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_err()
        {
            return;
        }
        let chunks: Vec<&[u8]> = desk.file.chunks(CHUNK_BYTES).collect();
        let send = |index: usize, chunk: &[u8]| {
            let topic = format!("{BASE}/chunk/{}/{index}", desk.sha256);
            answered.fetch_add(1, Ordering::SeqCst);
            client
                .try_publish(topic, chunk.to_vec(), PublishOptions::at_most_once())
                .expect("there is room for a few chunks");
        };
        let chunk = chunks.get(index).expect("within the file");
        if desk.is_unruly {
            let mut damaged = chunk.to_vec();
            damaged[chunk.len() / 2] ^= 1;
            send(index, &damaged);
            send(index, &chunk[1..]);
            // Of this file, but not this one.
            send(index, chunks[(index + 1) % chunks.len()]);
            send(
                (index + 3) % chunks.len(),
                chunks[(index + 3) % chunks.len()],
            );
            send(index, chunk);
        }
        send(index, chunk);
    }
}
