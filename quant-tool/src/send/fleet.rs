//! What is sent to some devices, how far it is on each of them, and whether all have it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ternwatch_ota::push::{self, Mode};
use ternwatch_ota::sender::{Device, Ending, Sender};
use ternwatch_ota::state::State;
use ternwatch_ota::topic;

use super::broker::broker;
use crate::cli::Recipients;
use crate::exit::misused;
use crate::tell::out;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goods {
    Model,
    Keyring,
}

impl Goods {
    /// How far it is on a device, in a few words.
    fn describe(self, device: &Device) -> String {
        match self {
            Self::Model => of_model(device),
            Self::Keyring => of_keyring(device),
        }
    }
}

/// The model is not in use on every device, or the keyring not in effect. Not a failure of this program.
#[derive(Debug, thiserror::Error)]
pub struct NotEverywhere {
    goods: Goods,
    /// Devices that took it.
    pub committed: usize,
    /// Devices that refused it or took it back.
    pub failed: usize,
    /// Devices that had not decided when the time was over.
    pub undecided: usize,
    /// Those of them that wait until their owner has it installed.
    pub waiting: usize,
    /// Devices to which the broker does not let this account send it.
    pub forbidden: usize,
}

impl fmt::Display for NotEverywhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            goods,
            committed,
            failed,
            undecided,
            waiting,
            forbidden,
        } = self;
        let all = committed + failed + undecided + forbidden;
        match goods {
            Goods::Model => write!(
                f,
                "the model is in use on {committed} of {all} devices: {failed} do not keep it, {undecided} have not decided",
            )?,
            // A device tells its log alone why it refuses one.
            Goods::Keyring => write!(
                f,
                "the keyring is in effect on {committed} of {all} devices: {undecided} have not taken it (if they are on, their logs say why)",
            )?,
        }
        if *forbidden > 0 {
            write!(
                f,
                ", the broker does not let this account send it to {forbidden}"
            )?;
        }
        if *waiting > 0 {
            write!(
                f,
                ", {waiting} of them wait until their owner has it installed (keep pushing, or push again then)"
            )?;
        }
        Ok(())
    }
}

/// Refuses names that no topic can have.
pub(super) fn check(to: &Recipients) -> Result<()> {
    if !to.prefix.split('/').all(topic::is_device) {
        return Err(misused(format!(
            "--prefix: {:?} is not levels of letters, digits, `.`, `_` and `-`, separated by `/`",
            to.prefix
        )));
    }
    if let Some(bad) = to.device.iter().find(|name| !topic::is_device(name)) {
        let rule = "is not 1 to 64 letters, digits, `.`, `_` and `-`";
        return Err(misused(format!("--device: {bad:?} {rule}")));
    }
    Ok(())
}

/// Sends it until every device has decided or the time is over, an error unless all have it then. Or prints what `forecast` makes
/// of each device's state and publishes nothing, if that is asked for.
pub(super) fn send(
    sender: Sender,
    to: &Recipients,
    goods: Goods,
    limit: Duration,
    forecast: impl Fn(&State) -> String,
) -> Result<()> {
    let broker = broker(&to.broker)?;
    let mut sender = sender.to_those_running(to.running.clone());
    let mut bars = Bars::new(goods);
    if to.dry_run {
        let (mode, watch) = (Mode::Look, &mut |_: &str, _: &Device| {});
        push::push(&broker, &to.prefix, &mut sender, mode, watch)?;
        for (name, device) in sender.devices() {
            let expected = match &device.state {
                Some(state) => forecast(state),
                None => "has not told of its model".into(),
            };
            out!("{name}: {}; {expected}", presence(device));
        }
        return Ok(());
    }
    let (mode, watch) = (Mode::Push(limit), &mut |name: &str, device: &Device| {
        bars.show(name, device);
    });
    let result = push::push(&broker, &to.prefix, &mut sender, mode, watch);
    bars.finish();
    for (name, device) in sender.devices() {
        out!("{name}: {}", goods.describe(device));
    }
    result?;
    judge(&sender, goods)
}

/// Whether a device is there, for a forecast.
fn presence(device: &Device) -> &'static str {
    match device.is_online {
        Some(true) => "online",
        Some(false) => "offline: only what is retained reaches it later",
        None => "has not told whether it is there",
    }
}

/// Which keyring a device has told of.
pub(super) fn keyring_of(state: &State) -> String {
    match state.keyring {
        Some(version) => format!("keyring {version} is in effect"),
        None => "no keyring is in effect".into(),
    }
}

/// How far a model is on a device, in a few words.
fn of_model(device: &Device) -> String {
    let offline = offline(device);
    match (device.ending(), device.job()) {
        (Some(Ending::Committed), _) => "committed".into(),
        (Some(Ending::RolledBack(reason)), _) => format!("rolled back: {reason}"),
        (Some(Ending::Rejected(reason)), _) => format!("rejected: {reason}"),
        (None, _) if device.is_forbidden => "the broker does not let this account send it".into(),
        (None, Some(state)) if state.waits_for_owner() => {
            format!("{offline}offered, waits until its owner has it installed")
        }
        (None, Some(state)) => match &state.progress {
            Some(progress) => format!(
                "{offline}{} {} of {}",
                state.state, progress.received, progress.total
            ),
            None => format!("{offline}{}", state.state),
        },
        (None, None) => format!("{offline}no answer"),
    }
}

/// How far a keyring is on a device, in a few words.
fn of_keyring(device: &Device) -> String {
    let offline = offline(device);
    match &device.state {
        _ if device.is_forbidden && device.ending().is_none() => {
            "the broker does not let this account send it".into()
        }
        Some(state) => format!("{offline}{}", keyring_of(state)),
        None => format!("{offline}no answer"),
    }
}

fn offline(device: &Device) -> &'static str {
    match device.is_online {
        Some(false) => "offline, ",
        Some(true) | None => "",
    }
}

/// An error unless every device has it.
fn judge(sender: &Sender, goods: Goods) -> Result<()> {
    let endings = || sender.devices().values().map(Device::ending);
    let committed = endings()
        .filter(|end| *end == Some(&Ending::Committed))
        .count();
    let forbids = |device: &&Device| device.is_forbidden && device.ending().is_none();
    let forbidden = sender.devices().values().filter(forbids).count();
    let undecided = endings().filter(Option::is_none).count() - forbidden;
    let waits = |device: &&Device| device.job().is_some_and(State::waits_for_owner);
    let waiting = sender.devices().values().filter(waits).count();
    let failed = sender.devices().len() - committed - undecided - forbidden;
    if failed + undecided + forbidden > 0 {
        return Err(NotEverywhere {
            goods,
            committed,
            failed,
            undecided,
            waiting,
            forbidden,
        }
        .into());
    }
    Ok(())
}

/// A bar a device on a terminal, else a line a change.
struct Bars {
    goods: Goods,
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
    told: BTreeMap<String, String>,
    is_terminal: bool,
}

impl Bars {
    fn new(goods: Goods) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self {
            goods,
            is_terminal: !all.is_hidden(),
            all,
            bars: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn show(&mut self, name: &str, device: &Device) {
        let words = self.goods.describe(device);
        if !self.is_terminal {
            if self.told.get(name) != Some(&words) {
                // Standard error that is closed is nobody's loss.
                let _ = writeln!(std::io::stderr(), "{name}: {words}");
                self.told.insert(name.into(), words);
            }
            return;
        }
        let bar = self.bars.entry(name.into()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix:>24} [{bar:30}] {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(1)
                .with_style(style)
                .with_prefix(name.to_owned());
            self.all.add(bar)
        });
        match device
            .job()
            .map(|state| (state.progress, state.state.as_str()))
        {
            Some((Some(progress), _)) => {
                bar.set_length(progress.total.into());
                bar.set_position(progress.received.into());
            }
            // All of it is there, whatever becomes of it.
            Some((None, "verifying" | "staged" | "trial" | "committed" | "rolled_back")) => {
                bar.set_position(bar.length().unwrap_or(1));
            }
            _ => {}
        }
        bar.set_message(words);
    }

    fn finish(&self) {
        for bar in self.bars.values() {
            bar.abandon();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ternwatch_ota::digest::Digest;
    use ternwatch_ota::identity::Identity;
    use ternwatch_ota::sender::Package;
    use ternwatch_ota::state::{Running, SCHEMA};

    pub(in crate::send) fn sender_that_heard(states: &[(&str, Option<&str>)]) -> Sender {
        let package = Package::new("job-1", "person", 2, vec![7; 100]).unwrap();
        let sha256 = package.offer().sha256;
        let names: Vec<String> = (0..states.len()).map(|index| format!("d{index}")).collect();
        let mut sender = Sender::new("site", &names, package, false);
        for (name, (state, reason)) in names.iter().zip(states) {
            let state = State {
                schema: SCHEMA,
                state: (*state).into(),
                reason: reason.map(Into::into),
                job: Some("job-1".into()),
                model: Some(Identity {
                    name: "person".into(),
                    version: 2,
                    sha256,
                }),
                offered: None,
                progress: None,
                running: Running {
                    name: "person".into(),
                    version: 3,
                    sha256: Digest::of(b"three").to_string(),
                },
                keyring: None,
            };
            let document = serde_json::to_vec(&state).unwrap();
            sender.hear(&topic::model("site", name), &document).unwrap();
        }
        sender
    }

    #[test]
    fn success_means_that_every_device_committed() {
        let taken = sender_that_heard(&[("committed", None), ("committed", None)]);
        judge(&taken, Goods::Model).unwrap();
        let mixed = sender_that_heard(&[
            ("committed", None),
            ("rolled_back", Some("flood")),
            ("trial", None),
        ]);
        let error = judge(&mixed, Goods::Model).unwrap_err().to_string();
        let expected = "in use on 1 of 3 devices: 1 do not keep it, 1 have not decided";
        assert!(error.contains(expected), "{error}");
        let words: Vec<String> = mixed.devices().values().map(of_model).collect();
        assert_eq!(words, ["committed", "rolled back: flood", "trial"]);
    }

    #[test]
    fn a_device_that_waits_for_its_owner_has_not_decided_and_is_told_of() {
        let sender = sender_that_heard(&[("committed", None), ("offered", None)]);
        let error = judge(&sender, Goods::Model).unwrap_err();
        let counts = error.downcast_ref::<NotEverywhere>().unwrap();
        assert_eq!((counts.undecided, counts.waiting), (1, 1));
        assert!(
            error
                .to_string()
                .contains("1 of them wait until their owner")
        );
        let words = of_model(&sender.devices()["d1"]);
        assert_eq!(words, "offered, waits until its owner has it installed");
    }

    #[test]
    fn a_device_that_may_not_be_offered_anything_is_not_one_that_did_not_decide() {
        let mut sender = sender_that_heard(&[("committed", None), ("idle", None)]);
        assert_eq!(sender.refused("site/d1/model/offer"), Some("d1".into()));
        let error = judge(&sender, Goods::Model).unwrap_err();
        let counts = error.downcast_ref::<NotEverywhere>().unwrap();
        assert_eq!((counts.undecided, counts.forbidden), (0, 1));
        assert!(error.to_string().contains("send it to 1"), "{error}");
        let words = of_model(&sender.devices()["d1"]);
        assert_eq!(words, "the broker does not let this account send it");
    }

    #[test]
    fn a_keyring_is_told_of_by_its_version() {
        let mut sender = Sender::of_keyring("site", &["d0".into()], (2, vec![7]), false);
        assert_eq!(of_keyring(&sender.devices()["d0"]), "no answer");
        let error = judge(&sender, Goods::Keyring).unwrap_err().to_string();
        let expected = "in effect on 0 of 1 devices: 1 have not taken it";
        assert!(error.contains(expected), "{error}");
        let told = sender_that_heard(&[("committed", None)]);
        let mut state = told.devices()["d0"].state.clone().unwrap();
        let mut hear = |keyring| {
            state.keyring = keyring;
            let document = serde_json::to_vec(&state).unwrap();
            sender.hear(&topic::model("site", "d0"), &document).unwrap();
            of_keyring(&sender.devices()["d0"])
        };
        assert_eq!(hear(None), "no keyring is in effect");
        assert_eq!(hear(Some(1)), "keyring 1 is in effect");
        assert_eq!(hear(Some(3)), "keyring 3 is in effect");
        judge(&sender, Goods::Keyring).unwrap();
    }
}
