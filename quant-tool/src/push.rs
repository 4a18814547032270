//! Sending a bundle to devices over MQTT: what the command line asks for, the progress of each device, and the exit code.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ternwatch_ota::identity::JOB_BYTES_MAX;
use ternwatch_ota::offer::{Offer, is_url};
use ternwatch_ota::push::{self, Broker, Identity, Mode, PushError, Tls};
use ternwatch_ota::sender::{Device, Ending, Package, Sender};
use ternwatch_ota::state::State;
use ternwatch_ota::topic;

use crate::cli::Push;
use crate::exit::misused;
use crate::tell::out;
use crate::{files, sign};

/// Items of files in PEM form: what they are, and what marks them. Keys are of several kinds.
const CERTIFICATE: (&str, &str) = ("certificate", "-----BEGIN CERTIFICATE-----");
const KEY: (&str, &str) = ("private key", "PRIVATE KEY-----");
const ENCRYPTED_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// Where the password may be.
const PASSWORD_VARIABLE: &str = "TERNWATCH_MQTT_PASSWORD";

/// The model is not in use on every device. Not a failure of this program.
#[derive(Debug, thiserror::Error)]
pub struct NotEverywhere {
    /// Devices that took it.
    pub committed: usize,
    /// Devices that refused it or took it back.
    pub failed: usize,
    /// Devices that had not decided when the time was over.
    pub undecided: usize,
    /// Those of them that wait until their owner has it installed.
    pub waiting: usize,
    /// Devices to which the broker does not let this account offer anything.
    pub forbidden: usize,
}

impl fmt::Display for NotEverywhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            committed,
            failed,
            undecided,
            waiting,
            forbidden,
        } = self;
        write!(
            f,
            "the model is in use on {committed} of {} devices: {failed} do not keep it, {undecided} have not decided",
            committed + failed + undecided + forbidden
        )?;
        if *forbidden > 0 {
            write!(
                f,
                ", the broker does not let this account offer it to {forbidden}"
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

/// Sends a bundle, or says what would happen.
pub fn run(args: &Push) -> Result<()> {
    if !args.prefix.split('/').all(topic::is_device) {
        return Err(misused(format!(
            "--prefix: {:?} is not levels of letters, digits, `.`, `_` and `-`, separated by `/`",
            args.prefix
        )));
    }
    if let Some(bad) = args.device.iter().find(|name| !topic::is_device(name)) {
        let rule = "is not 1 to 64 letters, digits, `.`, `_` and `-`";
        return Err(misused(format!("--device: {bad:?} {rule}")));
    }
    if let Some(url) = args.url.as_ref().filter(|url| !is_url(url)) {
        return Err(misused(format!(
            "--url: {url:?} is not a URL of a web server"
        )));
    }
    let package = package(args)?;
    let broker = broker(args)?;
    let offer = package.offer().clone();
    out!(
        "{} version {}, {} bytes in {} chunks, sha256 {}, job {}",
        offer.model.name,
        offer.model.version,
        offer.bytes,
        offer.chunks.len(),
        offer.sha256,
        offer.job
    );
    let mut sender = Sender::new(&args.prefix, &args.device, package, args.retain)
        .to_those_running(args.running.clone());
    if args.dry_run {
        push::push(
            &broker,
            &args.prefix,
            &mut sender,
            Mode::Look,
            &mut |_, _| {},
        )?;
        for (name, device) in sender.devices() {
            out!("{name}: {}", forecast(device, &offer));
        }
        return Ok(());
    }
    let mut bars = Bars::new();
    let mode = Mode::Push(Duration::from_secs(args.timeout_s));
    let result = push::push(
        &broker,
        &args.prefix,
        &mut sender,
        mode,
        &mut |name, device| {
            bars.show(name, device);
        },
    );
    bars.finish();
    for (name, device) in sender.devices() {
        out!("{name}: {}", describe(device));
    }
    result?;
    judge(&sender)
}

/// The bundle, if its signature is good and it gives its recorded answers here.
fn package(args: &Push) -> Result<Package> {
    let key = files::key_of(&args.bundle)?;
    let file = files::read(&args.bundle.bundle)?;
    let model =
        sign::checked(&file, key).with_context(|| args.bundle.bundle.display().to_string())?;
    let job = match &args.job {
        Some(job) => job.clone(),
        None => {
            let digest = ternwatch_bundle::hex::encode(&model.sha256());
            format!("{digest:.8}-{}", files::seconds_since_1970())
        }
    };
    let package =
        Package::new(&job, &model.id().name, model.id().version, file).ok_or_else(|| {
            misused(format!(
                "--job: {job:?} is not 1 to {JOB_BYTES_MAX} letters, digits, `.`, `_` and `-`"
            ))
        })?;
    Ok(package.at(args.url.clone()))
}

fn broker(args: &Push) -> Result<Broker> {
    let credentials = match &args.username {
        None => None,
        Some(username) => Some((username.clone(), password(args)?)),
    };
    let tls = match (args.tls, &args.ca_file) {
        (false, _) => None,
        (true, None) => Some(Tls::SystemAuthorities),
        (true, Some(path)) => Some(Tls::Authorities(pem("--ca-file", path, CERTIFICATE)?)),
    };
    let identity = match (&args.client_certificate, &args.client_key) {
        (Some(certificate), Some(key)) => Some(Identity {
            certificate: pem("--client-certificate", certificate, CERTIFICATE)?,
            key: pem("--client-key", key, KEY)?,
        }),
        _ => None,
    };
    Ok(Broker {
        host: args.host.clone(),
        port: args.port.unwrap_or(if args.tls { 8883 } else { 1883 }),
        credentials,
        tls,
        identity,
        client_id: format!("quant-tool-push-{}", std::process::id()),
    })
}

/// A file in PEM form with an item of this kind: a wrong one is told of before anything is sent.
fn pem(option: &str, path: &Path, (what, begin): (&str, &str)) -> Result<Vec<u8>> {
    let pem = files::read(path)?;
    let text = String::from_utf8_lossy(&pem);
    let mut lines = text.lines().map(str::trim_end);
    if lines.any(|line| line.ends_with(begin) && line != ENCRYPTED_KEY) {
        return Ok(pem);
    }
    let without = match text.contains(ENCRYPTED_KEY) {
        true => " that needs no password",
        false => "",
    };
    let path = path.display();
    let text = format!("{option}: {path} has no {what} in PEM form{without}");
    Err(PushError::Options(text).into())
}

/// Never from the command line, which every user of the machine can read.
fn password(args: &Push) -> Result<String> {
    if let Some(path) = &args.password_file {
        let text = files::read_text(path)?;
        return Ok(text.lines().next().unwrap_or_default().into());
    }
    match std::env::var(PASSWORD_VARIABLE) {
        Ok(password) => Ok(password),
        Err(std::env::VarError::NotPresent) => Ok(String::new()),
        Err(error) => Err(error).context(PASSWORD_VARIABLE),
    }
}

/// What an offer would come to, as far as can be told from here.
fn forecast(device: &Device, offer: &Offer) -> String {
    let presence = match device.is_online {
        Some(true) => "online",
        Some(false) => "offline: only a retained offer reaches it later",
        None => "has not told whether it is there",
    };
    let Some(state) = &device.state else {
        return format!("{presence}; has not told of its model");
    };
    let running = &state.running;
    let sha256 = offer.sha256.to_string();
    let what = if running.sha256 == sha256 {
        "this very model is in use".into()
    } else if running.name == offer.model.name && running.version > offer.model.version {
        format!("would refuse it: version {} is in use", running.version)
    } else {
        format!(
            "would fetch it; {} version {} is in use",
            running.name, running.version
        )
    };
    format!("{presence}; {what}")
}

/// Where a device is, in a few words.
fn describe(device: &Device) -> String {
    let offline = if device.is_online == Some(false) {
        "offline, "
    } else {
        ""
    };
    match (device.ending(), device.job()) {
        (Some(Ending::Committed), _) => "committed".into(),
        (Some(Ending::RolledBack(reason)), _) => format!("rolled back: {reason}"),
        (Some(Ending::Rejected(reason)), _) => format!("rejected: {reason}"),
        (None, _) if device.is_forbidden => "the broker does not let this account offer it".into(),
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

fn judge(sender: &Sender) -> Result<()> {
    let endings = || sender.devices().values().map(Device::ending);
    let committed = endings()
        .filter(|end| *end == Some(Ending::Committed))
        .count();
    let forbids = |device: &&Device| device.is_forbidden && device.ending().is_none();
    let forbidden = sender.devices().values().filter(forbids).count();
    let undecided = endings().filter(Option::is_none).count() - forbidden;
    let waits = |device: &&Device| device.job().is_some_and(State::waits_for_owner);
    let waiting = sender.devices().values().filter(waits).count();
    let failed = sender.devices().len() - committed - undecided - forbidden;
    if failed + undecided + forbidden > 0 {
        return Err(NotEverywhere {
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
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
    told: BTreeMap<String, String>,
    is_terminal: bool,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self {
            is_terminal: !all.is_hidden(),
            all,
            bars: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn show(&mut self, name: &str, device: &Device) {
        let words = describe(device);
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
mod tests {
    use super::*;
    use ternwatch_ota::digest::Digest;
    use ternwatch_ota::identity::Identity;
    use ternwatch_ota::state::{Running, SCHEMA};

    fn sender_that_heard(states: &[(&str, Option<&str>)]) -> Sender {
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
        judge(&sender_that_heard(&[
            ("committed", None),
            ("committed", None),
        ]))
        .unwrap();
        let mixed = sender_that_heard(&[
            ("committed", None),
            ("rolled_back", Some("flood")),
            ("trial", None),
        ]);
        let error = judge(&mixed).unwrap_err().to_string();
        let expected = "in use on 1 of 3 devices: 1 do not keep it, 1 have not decided";
        assert!(error.contains(expected), "{error}");
        let words: Vec<String> = mixed.devices().values().map(describe).collect();
        assert_eq!(words, ["committed", "rolled back: flood", "trial"]);
    }

    #[test]
    fn a_device_that_waits_for_its_owner_has_not_decided_and_is_told_of() {
        let sender = sender_that_heard(&[("committed", None), ("offered", None)]);
        let error = judge(&sender).unwrap_err();
        let counts = error.downcast_ref::<NotEverywhere>().unwrap();
        assert_eq!((counts.undecided, counts.waiting), (1, 1));
        assert!(
            error
                .to_string()
                .contains("1 of them wait until their owner")
        );
        let words = describe(&sender.devices()["d1"]);
        assert_eq!(words, "offered, waits until its owner has it installed");
    }

    #[test]
    fn a_device_that_may_not_be_offered_anything_is_not_one_that_did_not_decide() {
        let mut sender = sender_that_heard(&[("committed", None), ("idle", None)]);
        assert_eq!(sender.refused("site/d1/model/offer"), Some("d1".into()));
        let error = judge(&sender).unwrap_err();
        let counts = error.downcast_ref::<NotEverywhere>().unwrap();
        assert_eq!((counts.undecided, counts.forbidden), (0, 1));
        assert!(error.to_string().contains("offer it to 1"), "{error}");
        let words = describe(&sender.devices()["d1"]);
        assert_eq!(words, "the broker does not let this account offer it");
    }

    #[test]
    fn files_that_are_no_certificate_or_key_are_named_with_their_option() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.pem");
        let refusal = |text: &str, item: (&str, &str)| {
            std::fs::write(&path, text).unwrap();
            let error = pem("--option", &path, item).err()?;
            assert!(matches!(error.downcast_ref(), Some(PushError::Options(_))));
            Some(error.to_string())
        };
        let certificate = "-----BEGIN CERTIFICATE-----\n";
        for key in ["", "EC ", "RSA "] {
            let key = format!("-----BEGIN {key}PRIVATE KEY-----\n");
            assert_eq!(refusal(&key, KEY), None);
            let error = refusal(&key, CERTIFICATE).unwrap();
            assert!(error.contains(": --option: "), "{error}");
            assert!(
                error.ends_with("file.pem has no certificate in PEM form"),
                "{error}"
            );
        }
        assert_eq!(refusal(certificate, CERTIFICATE), None);
        let error = refusal(certificate, KEY).unwrap();
        assert!(error.ends_with("has no private key in PEM form"), "{error}");
        let error = refusal("-----BEGIN ENCRYPTED PRIVATE KEY-----", KEY).unwrap();
        assert!(error.ends_with("that needs no password"), "{error}");
    }

    #[test]
    fn the_forecast_knows_what_a_device_would_refuse() {
        let sender = sender_that_heard(&[("committed", None)]);
        let package = Package::new("job-2", "person", 2, vec![7; 100]).unwrap();
        let words = forecast(&sender.devices()["d0"], package.offer());
        assert!(
            words.contains("would refuse it: version 3 is in use"),
            "{words}"
        );
    }
}
