//! Models over the air: the daemon watches the video with one of the models that come along while the other one is sent to it, both
//! signed anew by a key that is made here and thrown away. It is kept. Then come two broken ones of it: one does not give its
//! recorded answers, one floods; both are taken back.

use crate::broker::{self, Broker, Heard};
use crate::daemon::{self, DEVICE, Models, TOPIC_PREFIX};
use crate::{Arguments, END_WITHIN, FIRST_DOCUMENT_WITHIN, expect_subscribed};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use ternwatch_bundle::write::Draft;
use ternwatch_bundle::{PublicKey, SecretKey, TrustedKeys, UnverifiedBundle};
use ternwatch_ota::push::{self, Mode};
use ternwatch_ota::sender::{Device, Ending, Package, Sender};

/// For a download, a comparison and a trial, which take some ten seconds.
const JOB_WITHIN: Duration = Duration::from_secs(60);

/// What of a published document matters here.
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Seen {
    sequence: u64,
    dropped: u64,
    model: Model,
    detections: Vec<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Model {
    name: String,
    version: u64,
}

impl Model {
    fn of(draft: &Draft) -> Self {
        let model = &draft.manifest.model;
        Self {
            name: model.name.clone(),
            version: model.version,
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A model to send, and how that must end.
struct Case {
    job: &'static str,
    what: &'static str,
    draft: Draft,
    expected: Ending,
}

/// Runs the demonstration; an error if anything ends in another way than it should.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let key = throw_away_key()?;
    let first = shipped(arguments, &arguments.bundle)?;
    let second = shipped(arguments, &arguments.second)?;
    let (bundle, public) = (
        arguments.out.join("first.tern"),
        arguments.out.join("demo.pub"),
    );
    write(&bundle, &first.sign(&key)?)?;
    write(&public, key.public_key().to_text().as_bytes())?;
    let state_dir = fresh_folder(&arguments.out)?;

    let broker = Broker::start(&arguments.out)?;
    let messages = broker::subscribe(broker.port, TOPIC_PREFIX)?;
    expect_subscribed(&messages)?;
    let models = Models {
        bundle: &bundle,
        key: &public,
        state_dir: Some(&state_dir),
    };
    let daemon = daemon::start(arguments, &models, broker.port)?;
    println!(
        "daemon   watches {} with {}, signed by a key of this demonstration",
        arguments.video.display(),
        Model::of(&first)
    );
    let mut seen = vec![first_document(arguments, &messages)?];
    let kept = Model::of(&second);
    for case in cases(second) {
        send(&broker, &key, &case)?;
        ensure!(
            tell_switches(&messages, &mut seen)?,
            "the daemon has ended, its last words:\n{}",
            daemon::last_words(arguments)
        );
    }
    // The frames after the last switch.
    std::thread::sleep(Duration::from_secs(1));
    tell_switches(&messages, &mut seen)?;
    let status = daemon.stop(END_WITHIN)?;
    ensure!(status.success(), "the daemon ended with {status}");
    conclude(&seen, &kept)
}

fn throw_away_key() -> Result<SecretKey> {
    let mut entropy = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut entropy))
        .context("reading /dev/urandom")?;
    Ok(SecretKey::from_bytes(&entropy))
}

/// A model that comes along, its signature checked.
fn shipped(arguments: &Arguments, bundle: &Path) -> Result<Draft> {
    let name = |path: &Path| path.display().to_string();
    let text = fs::read_to_string(&arguments.key).with_context(|| name(&arguments.key))?;
    let key = PublicKey::from_text(&text).with_context(|| name(&arguments.key))?;
    let file = fs::read(bundle).with_context(|| name(bundle))?;
    let verified = UnverifiedBundle::from_bytes(&file)
        .and_then(|bundle| bundle.verify(&TrustedKeys::from_iter([key])))
        .with_context(|| name(bundle))?;
    Ok(Draft::of(&verified))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// An empty state folder: what an earlier demonstration left there was signed by another key.
fn fresh_folder(out: &Path) -> Result<std::path::PathBuf> {
    let folder = out.join("state");
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    folder
        .canonicalize()
        .with_context(|| format!("cannot find {}", folder.display()))
}

/// What is sent, in this order.
fn cases(draft: Draft) -> Vec<Case> {
    let version = |add: u64| {
        let mut draft = draft.clone();
        draft.manifest.model.version += add;
        draft
    };
    let mut wrong = version(1);
    for golden in &mut wrong.manifest.golden {
        golden.detections = "0".repeat(64);
    }
    let mut flood = version(2);
    flood.manifest.thresholds.score = 0.001;
    vec![
        Case {
            job: "good",
            what: "the second model that comes along",
            draft: version(0),
            expected: Ending::Committed,
        },
        Case {
            job: "wrong-answers",
            what: "signed, but its recorded answers are wrong",
            draft: wrong,
            expected: Ending::RolledBack("golden_mismatch".into()),
        },
        Case {
            job: "flood",
            what: "signed, its answers are right, but it reports everything as a person",
            draft: flood,
            expected: Ending::RolledBack("flood".into()),
        },
    ]
}

/// Sends a model as any sender does, and shows what the device says.
fn send(broker: &Broker, key: &SecretKey, case: &Case) -> Result<()> {
    let Case {
        job,
        what,
        draft,
        expected,
    } = case;
    let file = draft.sign(key)?;
    let model = Model::of(draft);
    println!("\nsend     {model}: {what}");
    let package = Package::new(job, &model.name, model.version, file).context("a job is a word")?;
    let mut sender = Sender::new(TOPIC_PREFIX, &[DEVICE.into()], package, false);
    let address = push::Broker {
        host: "127.0.0.1".into(),
        port: broker.port,
        credentials: None,
        tls: None,
        identity: None,
        client_id: "demo-sender".into(),
    };
    let started = Instant::now();
    let mut told = String::new();
    let mut show = |_: &str, device: &Device| {
        let words = describe(device);
        if words != told && !words.is_empty() {
            println!("{:6.2} s  {words}", started.elapsed().as_secs_f64());
            told = words;
        }
    };
    push::push(
        &address,
        TOPIC_PREFIX,
        &mut sender,
        Mode::Push(JOB_WITHIN),
        &mut show,
    )?;
    let found = sender.devices().get(DEVICE).and_then(Device::ending);
    ensure!(
        found == Some(expected),
        "{model} ended with {found:?}, not with {expected:?}"
    );
    Ok(())
}

/// Where the device is with this job, in a few words.
fn describe(device: &Device) -> String {
    let Some(state) = device.job() else {
        return String::new();
    };
    let mut words = state.state.clone();
    if let Some(progress) = state.progress {
        words += &format!(", {} of {} chunks", progress.received, progress.total);
    }
    if let Some(reason) = &state.reason {
        words += &format!(": {reason}");
    }
    words
}

fn first_document(arguments: &Arguments, messages: &Receiver<Heard>) -> Result<Seen> {
    let until = Instant::now() + FIRST_DOCUMENT_WITHIN;
    while let Ok(heard) = messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if let Some(document) = read(heard)? {
            return Ok(document);
        }
    }
    bail!(
        "no document within {FIRST_DOCUMENT_WITHIN:?}, the daemon's last words:\n{}",
        daemon::last_words(arguments)
    )
}

fn read(heard: Heard) -> Result<Option<Seen>> {
    match heard {
        Heard::Message { topic, payload } if topic.ends_with("/detections") => {
            let document = serde_json::from_slice(&payload);
            document
                .context("a published document does not fit")
                .map(Some)
        }
        Heard::Lost(error) => bail!("the subscriber lost its broker: {error}"),
        _ => Ok(None),
    }
}

/// Takes what was published meanwhile, and shows between which frames the model changed. `false` if there was nothing.
fn tell_switches(messages: &Receiver<Heard>, seen: &mut Vec<Seen>) -> Result<bool> {
    let before = seen.len();
    for heard in messages.try_iter() {
        let Some(document) = read(heard)? else {
            continue;
        };
        if let Some(last) = seen.last()
            && last.model != document.model
        {
            println!(
                "         frame {} was looked at by {}, frame {} by {}",
                last.sequence, last.model, document.sequence, document.model
            );
        }
        seen.push(document);
    }
    Ok(seen.len() > before)
}

/// Every frame was published once, or counted as dropped by a busy detector, and the model `kept` is in use.
fn conclude(seen: &[Seen], kept: &Model) -> Result<()> {
    let mut missing = 0;
    for pair in seen.windows(2) {
        let [a, b] = pair else { continue };
        let gap = b.sequence.checked_sub(a.sequence + 1);
        missing += gap.context("a frame was published twice")?;
    }
    let last = seen.last().context("there are documents")?;
    let dropped = last.dropped - seen.first().map_or(0, |document| document.dropped);
    ensure!(
        missing <= dropped,
        "{missing} frames are missing, {dropped} were dropped by a busy detector"
    );
    ensure!(
        last.model == *kept,
        "{} is in use at the end, and not {kept}",
        last.model
    );
    let detections: usize = seen.iter().map(|document| document.detections.len()).sum();
    println!(
        "\n{} frames, {detections} detections, {missing} frames dropped by a busy detector, none lost in an exchange;\n\
         {kept} is in use, and the broken ones are not tried again here",
        seen.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(version: u64) -> Model {
        Model {
            name: "person".into(),
            version,
        }
    }

    fn seen(sequence: u64, dropped: u64, version: u64) -> Seen {
        Seen {
            sequence,
            dropped,
            model: model(version),
            detections: Vec::new(),
        }
    }

    #[test]
    fn a_frame_may_be_dropped_but_not_lost_and_the_good_model_has_to_be_in_use() {
        let ends_well = |frames: &[Seen]| conclude(frames, &model(2)).is_ok();
        assert!(ends_well(&[seen(0, 0, 1), seen(1, 0, 2)]));
        assert!(
            ends_well(&[seen(0, 0, 1), seen(2, 1, 2)]),
            "one was dropped"
        );
        assert!(
            !ends_well(&[seen(0, 0, 1), seen(2, 0, 2)]),
            "one is missing"
        );
        assert!(!ends_well(&[seen(0, 0, 1), seen(0, 0, 2)]), "twice");
        assert!(!ends_well(&[seen(0, 0, 1), seen(1, 0, 3)]), "another one");
    }
}
