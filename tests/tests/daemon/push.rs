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
const CHUNK_BYTES: usize = 32 << 10;

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

fn sha256(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes))
}

/// Offers a file, and answers requests for its chunks.
pub(crate) struct Pusher {
    client: Client,
    file: Arc<Mutex<Vec<u8>>>,
    /// Chunks that it still answers.
    budget: Arc<AtomicUsize>,
    /// Chunks that it answered.
    answered: Arc<AtomicUsize>,
    /// Chunks that it was asked for since the budget was set.
    asked: Arc<Mutex<BTreeSet<u64>>>,
}

impl Pusher {
    pub(crate) fn connect(port: u16) -> Self {
        let mut options = MqttOptions::new("pusher", ("127.0.0.1", port));
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut connection) = Client::builder(options).capacity(64).build();
        client
            .subscribe(format!("{BASE}/request"), QoS::AtLeastOnce)
            .expect("a valid filter");
        let pusher = Self {
            client: client.clone(),
            file: Arc::default(),
            budget: Arc::new(AtomicUsize::new(usize::MAX)),
            answered: Arc::default(),
            asked: Arc::default(),
        };
        let (file, budget, answered, asked) = (
            pusher.file.clone(),
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
                        let file = file.lock().expect("no panic").clone();
                        answer(&client, &file, &request, &budget, &answered);
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
        let options = PublishOptions::at_least_once();
        self.client
            .publish(format!("{BASE}/keyring"), file, options)
            .expect("the broker is here");
    }

    /// Publishes a retained offer of `file`, which claims to have this version.
    pub(crate) fn offer(&self, job: &str, version: u64, file: &[u8]) {
        self.offer_at(job, version, file, None);
    }

    /// As [`Self::offer`], of a file that is on a web server too.
    pub(crate) fn offer_at(&self, job: &str, version: u64, file: &[u8], url: Option<&str>) {
        *self.file.lock().expect("no panic") = file.to_vec();
        let chunks: Vec<String> = file.chunks(CHUNK_BYTES).map(sha256).collect();
        let mut offer = json!({
            "schema": 1,
            "job": job,
            "model": { "name": "small-test", "version": version },
            "sha256": sha256(file),
            "bytes": file.len(),
            "chunks": chunks,
        });
        if let Some(url) = url {
            offer["url"] = url.into();
        }
        self.client
            .publish(
                format!("{BASE}/offer"),
                offer.to_string(),
                PublishOptions::at_least_once().retained(),
            )
            .expect("the broker is here");
    }
}

fn answer(
    client: &Client,
    file: &[u8],
    request: &Value,
    budget: &AtomicUsize,
    answered: &AtomicUsize,
) {
    assert_eq!(request["schema"], 1);
    let name = sha256(file);
    if request["sha256"] != name.as_str() {
        return;
    }
    let wanted = request["chunks"].as_array().expect("a list");
    assert!(wanted.len() <= 4, "few in flight: {request}");
    for index in wanted {
        let index = index.as_u64().expect("a number") as usize;
        let one_less = |budget: usize| budget.checked_sub(1);
        if budget
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_err()
        {
            return;
        }
        let chunk = file
            .chunks(CHUNK_BYTES)
            .nth(index)
            .expect("within the file");
        let topic = format!("{BASE}/chunk/{name}/{index}");
        answered.fetch_add(1, Ordering::SeqCst);
        client
            .try_publish(topic, chunk.to_vec(), PublishOptions::at_most_once())
            .expect("there is room for a few chunks");
    }
}
