//! The sender's side of docs/ota.md, of models and of keyrings, pure: takes messages from devices, gives messages for them, and
//! knows how far each device is. It keeps no record of what a device has: whatever is asked for is sent, in any order and again.

use crate::identity::{JOB_BYTES_MAX, is_word};
use crate::offer::{CHUNK_BYTES, Offer};
use crate::request::Request;
use crate::state::State;
use crate::topic;
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// Devices that one job may have: bounds what strangers below the prefix make the sender remember.
pub const DEVICES_MAX: usize = 4096;

/// A bundle, cut into chunks.
#[derive(Clone, Debug)]
pub struct Package {
    offer: Offer,
    file: Vec<u8>,
}

impl Package {
    /// The bundle `file`, which says of itself that it is this model; none if the job's id is not 1 to 64 letters,
    /// digits, `.`, `_` and `-`.
    pub fn new(job: &str, name: &str, version: u64, file: Vec<u8>) -> Option<Self> {
        is_word(job, JOB_BYTES_MAX).then(|| Self {
            offer: Offer::of(job, name, version, &file),
            file,
        })
    }

    /// Says in the offer where the file can be fetched by HTTP too.
    pub fn at(mut self, url: Option<String>) -> Self {
        self.offer.url = url;
        self
    }

    /// What is offered.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    fn chunk(&self, index: usize) -> Option<&[u8]> {
        self.file.chunks(CHUNK_BYTES).nth(index)
    }
}

/// What is sent.
#[derive(Clone, Debug)]
enum Goods {
    /// A model: its offer as JSON, and the chunks that are asked for.
    Model { package: Package, offer: Vec<u8> },
    /// A keyring of this version.
    Keyring { version: u64, file: Vec<u8> },
}

impl Goods {
    fn package(&self) -> Option<&Package> {
        match self {
            Self::Model { package, .. } => Some(package),
            Self::Keyring { .. } => None,
        }
    }

    /// What a device is sent unasked.
    fn first(&self) -> &[u8] {
        match self {
            Self::Model { offer, .. } => offer,
            Self::Keyring { file, .. } => file,
        }
    }

    /// Where to, for the device whose state is at `model`.
    fn topic(&self, model: &str) -> String {
        match self {
            Self::Model { .. } => topic::offer(model),
            Self::Keyring { .. } => topic::keyring(model),
        }
    }

    /// Whether a device's state is about them.
    fn are_told_of(&self, state: &State) -> bool {
        match self {
            Self::Model { package, .. } => {
                let offer = package.offer();
                let (job, model) = (state.job.as_deref(), state.model.as_ref());
                job == Some(&offer.job) && model.is_some_and(|model| model.sha256 == offer.sha256)
            }
            // A state has one job, that of a model.
            Self::Keyring { .. } => false,
        }
    }

    /// What became of them by what a device says, if that is decided.
    fn ending(&self, state: &State) -> Option<Ending> {
        if let Self::Keyring { version, .. } = self {
            // A newer one says whom to trust, too.
            return (state.keyring >= Some(*version)).then_some(Ending::Committed);
        }
        if !(self.are_told_of(state) && state.is_over()) {
            return None;
        }
        let reason = || state.reason.clone().unwrap_or_else(|| "unknown".into());
        Some(match state.state.as_str() {
            "committed" => Ending::Committed,
            "rolled_back" => Ending::RolledBack(reason()),
            _ => Ending::Rejected(reason()),
        })
    }
}

/// A device, as far as it has been heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Whether it says that it is there.
    pub is_online: Option<bool>,
    /// What it said last of its model, whatever the job.
    pub state: Option<State>,
    /// Chunks that were sent to it.
    pub sent: u64,
    /// Whether the broker does not let this account offer it anything.
    pub is_forbidden: bool,
    /// Whether its state is about this job.
    is_ours: bool,
    ending: Option<Ending>,
    wanted: VecDeque<usize>,
}

impl Device {
    /// The state of this job, if the device has said something about it.
    pub fn job(&self) -> Option<&State> {
        self.state.as_ref().filter(|_| self.is_ours)
    }

    /// How the job ended, if it has.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Whether the job may still come to an end there.
    fn is_open(&self) -> bool {
        self.ending.is_none() && !self.is_forbidden
    }
}

/// How a job ended on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The model is in use, or the keyring in effect.
    Committed,
    /// It was tried and taken back.
    RolledBack(String),
    /// It was never tried.
    Rejected(String),
}

/// Something to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for devices that are off now.
    pub is_retained: bool,
    /// Whether the broker has to confirm it; else it may be lost, and is asked for again.
    pub is_confirmed: bool,
}

/// One model, or one keyring, on its way to some devices.
#[derive(Clone, Debug)]
pub struct Sender {
    prefix: String,
    goods: Goods,
    is_retained: bool,
    /// Whether devices that are heard of join in.
    takes_all: bool,
    /// Only devices on which a model of this name is in use join in.
    running: Option<String>,
    /// Whether there are more than [`DEVICES_MAX`].
    is_overfull: bool,
    devices: BTreeMap<String, Device>,
    offers: VecDeque<String>,
    /// The device that got a chunk last: the next one's turn comes.
    served: String,
}

impl Sender {
    /// A sender of a model to these devices below the prefix; to all that are heard of if there are none. `is_retained` says
    /// whether the broker keeps the offers, until the farewell.
    pub fn new(prefix: &str, devices: &[String], package: Package, is_retained: bool) -> Self {
        let offer =
            serde_json::to_vec(package.offer()).expect("numbers and strings always become JSON");
        Self::of(
            prefix,
            devices,
            Goods::Model { package, offer },
            is_retained,
        )
    }

    /// As `new`, of a keyring, which says of itself that it is of this version. What the broker keeps of it stays.
    pub fn of_keyring(
        prefix: &str,
        devices: &[String],
        (version, file): (u64, Vec<u8>),
        is_retained: bool,
    ) -> Self {
        Self::of(
            prefix,
            devices,
            Goods::Keyring { version, file },
            is_retained,
        )
    }

    fn of(prefix: &str, devices: &[String], goods: Goods, is_retained: bool) -> Self {
        let known = devices.iter().map(|name| (name.clone(), Device::default()));
        Self {
            prefix: prefix.into(),
            goods,
            is_retained,
            takes_all: devices.is_empty(),
            running: None,
            is_overfull: false,
            devices: known.collect(),
            offers: VecDeque::new(),
            served: String::new(),
        }
    }

    /// Of the devices that are heard of, only those that a model of this name is in use on.
    pub fn to_those_running(mut self, name: Option<String>) -> Self {
        self.running = name;
        self
    }

    /// Whether more devices than [`DEVICES_MAX`] were heard of; the others were left out.
    pub fn is_overfull(&self) -> bool {
        self.is_overfull
    }

    /// What to subscribe to.
    pub fn filters(&self) -> Vec<String> {
        let below = |device: &str| {
            let model = topic::model(&self.prefix, device);
            let is_there = format!("{}/{device}/state", self.prefix);
            let requests = match self.goods {
                Goods::Model { .. } => Some(topic::request(&model)),
                Goods::Keyring { .. } => None,
            };
            [is_there].into_iter().chain(requests).chain([model])
        };
        if self.takes_all {
            return below("+").collect();
        }
        self.devices.keys().flat_map(|name| below(name)).collect()
    }

    /// The devices by name.
    pub fn devices(&self) -> &BTreeMap<String, Device> {
        &self.devices
    }

    /// No further devices join in, and those that told of no model, or of another one than wanted, leave.
    pub fn close(&mut self) {
        if self.takes_all {
            let wanted = self.running.as_ref();
            let fits = |state: &State| wanted.is_none_or(|name| state.running.name == *name);
            let joins = |device: &Device| device.state.as_ref().is_some_and(fits);
            self.devices.retain(|_, device| joins(device));
        }
        self.takes_all = false;
    }

    /// Offers the model, or sends the keyring, to every device whose job has not ended. The same offer again changes nothing for a device.
    pub fn offer(&mut self) {
        let open = |(name, device): (&String, &Device)| device.is_open().then(|| name.clone());
        self.offers = self.devices.iter().filter_map(open).collect();
    }

    /// Whether nothing more can come of the job: it has ended everywhere where it may be offered.
    pub fn is_over(&self) -> bool {
        !self.devices.values().any(Device::is_open)
    }

    /// The broker does not take what was published there; the name of the device if that was an offer.
    pub fn refused(&mut self, topic: &str) -> Option<String> {
        let (name, _) = topic::split(&self.prefix, topic)?;
        let device = self.devices.get_mut(name)?;
        if topic != self.goods.topic(&topic::model(&self.prefix, name)) {
            return None;
        }
        device.is_forbidden = true;
        Some(name.into())
    }

    /// What removes the offers of a model from the broker. A keyring is to reach who comes later, too.
    pub fn farewell(&self) -> Vec<Message> {
        let empty = |name: &String| self.message(name, Vec::new());
        if self.is_retained && matches!(self.goods, Goods::Model { .. }) {
            self.devices.keys().map(empty).collect()
        } else {
            Vec::new()
        }
    }

    fn message(&self, device: &str, payload: Vec<u8>) -> Message {
        Message {
            topic: self.goods.topic(&topic::model(&self.prefix, device)),
            payload,
            is_retained: self.is_retained,
            is_confirmed: true,
        }
    }

    /// Takes a message from the broker; the name of the device if something was learnt of it.
    pub fn hear(&mut self, topic: &str, payload: &[u8]) -> Option<String> {
        let (name, rest) = topic::split(&self.prefix, topic)?;
        // Which of the two comes first is up to the broker; `close` keeps those that told of a model.
        let is_device = match rest {
            "model" => State::parse(payload).is_ok(),
            "state" => [&b"online"[..], b"offline"].contains(&payload),
            _ => false,
        };
        if self.takes_all && is_device && !self.devices.contains_key(name) {
            if self.devices.len() == DEVICES_MAX {
                self.is_overfull = true;
                return None;
            }
            self.devices.insert(name.into(), Device::default());
        }
        let device = self.devices.get_mut(name)?;
        match rest {
            "model" => {
                // Whatever else is there is no device of ours, or one that does not speak of this schema.
                let state = State::parse(payload).ok()?;
                device.is_ours = self.goods.are_told_of(&state);
                let ending = self.goods.ending(&state);
                // What this job came to stays so, whatever other jobs the device tells of later.
                if device.is_ours || ending.is_some() {
                    device.ending = ending;
                }
                device.state = Some(state);
            }
            "model/request" => {
                let request = Request::parse(payload).ok()?;
                let package = self.goods.package()?;
                if request.sha256 != package.offer.sha256 {
                    return None;
                }
                for index in request.chunks {
                    // A bundle has a bounded number of chunks, so this list is bounded.
                    if !device.wanted.contains(&index) {
                        device.wanted.push_back(index);
                    }
                }
            }
            "state" => {
                let is_online = payload == b"online";
                let returns = device.is_online == Some(false) && is_online;
                device.is_online = Some(is_online);
                if returns && device.is_open() && !self.offers.contains(&name.into()) {
                    // It may have forgotten an offer that the broker does not keep.
                    self.offers.push_back(name.into());
                }
            }
            _ => return None,
        }
        Some(name.into())
    }

    /// The next message to publish: offers first, then chunks, the devices in turn.
    pub fn take_next(&mut self) -> Option<Message> {
        if let Some(name) = self.offers.pop_front() {
            return Some(self.message(&name, self.goods.first().to_vec()));
        }
        let wants =
            |(name, device): (&String, &Device)| (!device.wanted.is_empty()).then(|| name.clone());
        let after = (
            std::ops::Bound::Excluded(self.served.clone()),
            std::ops::Bound::Unbounded,
        );
        let name = self.devices.range(after).find_map(wants);
        let name = name.or_else(|| self.devices.iter().find_map(wants))?;
        let device = self.devices.get_mut(&name)?;
        let index = device.wanted.pop_front()?;
        // Of another file, or by somebody who plays the device: there is no such chunk.
        let package = self.goods.package()?;
        let chunk = package.chunk(index)?.to_vec();
        device.sent += 1;
        let model = topic::model(&self.prefix, &name);
        self.served = name;
        Some(Message {
            topic: topic::chunk(&model, &package.offer.sha256, index),
            payload: chunk,
            is_retained: false,
            is_confirmed: false,
        })
    }

    /// Whether there is something to publish.
    pub fn has_next(&self) -> bool {
        !self.offers.is_empty() || self.devices.values().any(|d| !d.wanted.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::identity::Identity;
    use crate::state::{Running, SCHEMA};

    const CHUNKS: usize = 5;

    fn sender(devices: &[&str], is_retained: bool) -> Sender {
        let file = vec![7; CHUNK_BYTES * CHUNKS - 1];
        let package = Package::new("job-1", "person", 2, file).expect("a word");
        let devices: Vec<String> = devices.iter().map(|name| (*name).into()).collect();
        Sender::new("site", &devices, package, is_retained)
    }

    fn sha256_of(sender: &Sender) -> Digest {
        sender.goods.package().expect("a model").offer.sha256
    }

    fn state(name: &str, reason: Option<&str>, job: &str, sha256: Digest) -> Vec<u8> {
        let state = State {
            schema: SCHEMA,
            state: name.into(),
            reason: reason.map(Into::into),
            job: Some(job.into()),
            model: Some(Identity {
                name: "person".into(),
                version: 2,
                sha256,
            }),
            offered: None,
            progress: None,
            running: Running {
                name: "person".into(),
                version: 1,
                sha256: "00".into(),
            },
            keyring: None,
        };
        serde_json::to_vec(&state).expect("JSON")
    }

    fn request(sha256: Digest, chunks: &[usize]) -> Vec<u8> {
        serde_json::to_vec(&Request::new(sha256, chunks.into())).expect("JSON")
    }

    fn topics(sender: &mut Sender) -> Vec<String> {
        std::iter::from_fn(|| sender.take_next().map(|message| message.topic)).collect()
    }

    #[test]
    fn what_is_asked_for_is_sent_and_the_devices_take_turns() {
        let mut sender = sender(&["a", "b"], false);
        let sha256 = sha256_of(&sender);
        sender.offer();
        let offers = topics(&mut sender);
        assert_eq!(offers, ["site/a/model/offer", "site/b/model/offer"]);
        sender.hear("site/a/model/request", &request(sha256, &[0, 4, 0]));
        sender.hear("site/b/model/request", &request(sha256, &[1]));
        let chunk = |device: &str, index| format!("site/{device}/model/chunk/{sha256}/{index}");
        let sent: Vec<Message> = std::iter::from_fn(|| sender.take_next()).collect();
        let sent_to: Vec<&str> = sent.iter().map(|message| message.topic.as_str()).collect();
        assert_eq!(sent_to, [chunk("a", 0), chunk("b", 1), chunk("a", 4)]);
        let lengths: Vec<usize> = sent.iter().map(|message| message.payload.len()).collect();
        assert_eq!(lengths, [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES - 1]);
        assert!(sent.iter().all(|message| !message.is_retained));
    }

    #[test]
    fn strangers_and_other_files_get_nothing() {
        let mut sender = sender(&["a"], false);
        let sha256 = sha256_of(&sender);
        let other = Digest::of(b"another file");
        sender.hear("site/b/model/request", &request(sha256, &[0]));
        sender.hear("site/a/model/request", &request(other, &[0]));
        sender.hear("site/a/model/request", &request(sha256, &[CHUNKS]));
        sender.hear("site/a/model/request", b"nonsense");
        sender.hear("elsewhere/a/model/request", &request(sha256, &[0]));
        assert_eq!(topics(&mut sender), [""; 0]);
        assert_eq!(sender.devices().len(), 1);
    }

    #[test]
    fn only_the_end_of_this_job_with_this_file_counts() {
        let mut sender = sender(&["a", "b"], true);
        let sha256 = sha256_of(&sender);
        let other = Digest::of(b"another file");
        sender.hear("site/a/model", &state("committed", None, "job-0", sha256));
        sender.hear("site/b/model", &state("committed", None, "job-1", other));
        assert!(!sender.is_over());
        sender.hear("site/a/model", &state("committed", None, "job-1", sha256));
        assert_eq!(sender.devices()["a"].ending(), Some(&Ending::Committed));
        sender.hear(
            "site/b/model",
            &state("rolled_back", Some("flood"), "job-1", sha256),
        );
        let taken_back = Ending::RolledBack("flood".into());
        assert_eq!(sender.devices()["b"].ending(), Some(&taken_back));
        assert!(sender.is_over());
        // Somebody else's job comes next, and does not undo that.
        sender.hear("site/a/model", &state("downloading", None, "job-2", other));
        assert_eq!(sender.devices()["a"].ending(), Some(&Ending::Committed));
        assert!(sender.is_over() && sender.devices()["a"].job().is_none());
        // Nobody is left who would answer: the broker must not keep the offers.
        let farewell = sender.farewell();
        assert!(
            farewell
                .iter()
                .all(|m| m.is_retained && m.payload.is_empty())
        );
        assert_eq!(farewell.len(), 2);
    }

    #[test]
    fn all_means_every_device_that_told_of_its_model_until_the_list_is_closed() {
        let mut sender = sender(&[], false);
        let other = Digest::of(b"another file");
        assert_eq!(
            sender.filters(),
            ["site/+/state", "site/+/model/request", "site/+/model"]
        );
        sender.hear("site/a/state", b"online");
        sender.hear("site/a/model", &state("committed", None, "job-0", other));
        sender.hear("site/b/model", b"no state");
        sender.hear("site/c/state", b"online");
        sender.close();
        sender.hear("site/d/model", &state("committed", None, "job-0", other));
        let names: Vec<&String> = sender.devices().keys().collect();
        assert_eq!(names, ["a"]);
        assert_eq!(sender.devices()["a"].is_online, Some(true));
    }

    #[test]
    fn devices_that_another_model_is_in_use_on_do_not_join_in() {
        let other = Digest::of(b"another file");
        let told = state("committed", None, "job-0", other);
        for (wanted, devices) in [("person", 1), ("person-lite", 0)] {
            let mut sender = sender(&[], false).to_those_running(Some(wanted.into()));
            sender.hear("site/a/model", &told);
            sender.close();
            assert_eq!(sender.devices().len(), devices, "{wanted}");
        }
    }

    #[test]
    fn more_devices_than_one_job_may_have_are_told() {
        let mut sender = sender(&[], false);
        for index in 0..DEVICES_MAX {
            sender.hear(&format!("site/{index}/state"), b"online");
        }
        sender.hear("site/0/state", b"offline");
        assert!(!sender.is_overfull());
        sender.hear("site/another/state", b"online");
        assert!(sender.is_overfull() && sender.devices().len() == DEVICES_MAX);
    }

    #[test]
    fn a_device_that_may_not_be_offered_anything_is_not_waited_for() {
        let mut sender = sender(&["a", "b"], false);
        let sha256 = sha256_of(&sender);
        sender.offer();
        topics(&mut sender);
        assert_eq!(sender.refused("site/a/model/chunk/0"), None);
        assert_eq!(sender.refused("site/c/model/offer"), None);
        assert_eq!(sender.refused("site/a/model/offer"), Some("a".into()));
        assert!(sender.devices()["a"].is_forbidden && !sender.is_over());
        // Neither on another connection nor when it returns.
        sender.offer();
        sender.hear("site/a/state", b"offline");
        sender.hear("site/a/state", b"online");
        assert_eq!(topics(&mut sender), ["site/b/model/offer"]);
        sender.hear("site/b/model", &state("committed", None, "job-1", sha256));
        assert!(sender.is_over());
        assert_eq!(sender.devices()["a"].ending(), None);
    }

    #[test]
    fn a_device_that_returns_is_offered_the_model_again() {
        let mut sender = sender(&["a"], false);
        sender.offer();
        topics(&mut sender);
        sender.hear("site/a/state", b"online");
        assert_eq!(topics(&mut sender), [""; 0]);
        sender.hear("site/a/state", b"offline");
        sender.hear("site/a/state", b"online");
        assert_eq!(topics(&mut sender), ["site/a/model/offer"]);
    }

    #[test]
    fn a_keyring_has_arrived_where_it_or_a_newer_one_is_in_effect() {
        let file = b"keyring".to_vec();
        let mut sender = Sender::of_keyring("site", &[], (2, file.clone()), true);
        assert_eq!(sender.filters(), ["site/+/state", "site/+/model"]);
        let with = |keyring: Option<u64>| {
            let told = state("committed", None, "job-0", Digest::of(b"a file"));
            let mut state = State::parse(&told).expect("a state");
            state.keyring = keyring;
            serde_json::to_vec(&state).expect("JSON")
        };
        for (device, keyring) in [("a", None), ("b", Some(1)), ("c", Some(3))] {
            sender.hear(&format!("site/{device}/model"), &with(keyring));
        }
        sender.close();
        sender.offer();
        let sent: Vec<Message> = std::iter::from_fn(|| sender.take_next()).collect();
        let topics: Vec<&str> = sent.iter().map(|message| message.topic.as_str()).collect();
        assert_eq!(topics, ["site/a/model/keyring", "site/b/model/keyring"]);
        assert!(sent.iter().all(|m| m.payload == file && m.is_retained));
        // A request is about a model, whoever asks.
        let asked = request(Digest::of(b"a file"), &[0]);
        assert_eq!(sender.hear("site/a/model/request", &asked), None);
        sender.hear("site/a/model", &with(Some(2)));
        assert_eq!(
            sender.refused("site/b/model/keyring"),
            Some(String::from("b"))
        );
        assert!(sender.is_over());
        assert_eq!(sender.devices()["a"].ending(), Some(&Ending::Committed));
        assert_eq!(sender.devices()["b"].ending(), None);
        // It stays for who is off now.
        assert_eq!(sender.farewell(), []);
    }
}
