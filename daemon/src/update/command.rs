//! `ternwatchd model`: the update by hand. A daemon that runs reads the state file several times a second and follows.

use super::check::{self, Refusal, chain};
use super::digest::Digest;
use super::machine::{Ending, Event, Identity, NotNow, Phase, StoredKeyring};
use super::reason::Reason as ModelReason;
use super::release;
use super::start::open_store;
use super::store::{Store, StoreError};
use super::trust::{self, TrustError};
use crate::cli::ModelAction;
use crate::config::Config;
use crate::config::choice::Choice;
use crate::disk::SystemDisk;
use crate::exit::{Failure, Reason};
use crate::model;
use crate::tell::{note, out};
use anyhow::anyhow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use ternwatch_bundle::parse::FILE_LEN_MAX;
use ternwatch_bundle::{hex, keyring};

/// The job of a model that came by hand.
const JOB: &str = "by-hand";

/// Does what the command line asks for, and says so on standard output.
pub fn run(config: &Config, action: &ModelAction) -> Result<(), Failure> {
    let mut store = open(config)?;
    match action {
        ModelAction::Install { file } => install(config, &mut store, file),
        ModelAction::Approve => approve(&mut store),
        ModelAction::List => {
            list(&store).iter().for_each(out);
            Ok(())
        }
        ModelAction::Rollback => roll_back(&mut store),
        ModelAction::Trust { file } => take_keyring(config, &mut store, file),
    }
}

fn open(config: &Config) -> Result<Store<SystemDisk>, Failure> {
    let folder = &config.update.state_dir;
    let metadata = std::fs::metadata(folder).map_err(|error| {
        let error = anyhow::Error::new(error);
        Failure::new(
            Reason::NoInput,
            error.context(format!("{} (update.state_dir)", folder.display())),
        )
    })?;
    // What root writes here, the daemon could not read or replace.
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(Failure::new(
            Reason::NoPermission,
            anyhow!(
                "{} belongs to user {}: run this as that user, for instance with `sudo -u '#{}'`",
                folder.display(),
                metadata.uid(),
                metadata.uid()
            ),
        ));
    }
    open_store(config).map_err(store_failure)
}

fn store_failure(error: StoreError) -> Failure {
    let reason = match &error {
        StoreError::NotNow(NotNow::NothingBefore | NotNow::NoJob | NotNow::OldKeyring(_)) => {
            Reason::Data
        }
        StoreError::NotNow(NotNow::NothingOffered) => Reason::NoInput,
        StoreError::NotNow(NotNow::OnTrial) => Reason::NotNow,
        _ => Reason::Io,
    };
    Failure::new(reason, error)
}

fn install(config: &Config, store: &mut Store<SystemDisk>, path: &Path) -> Result<(), Failure> {
    let isa = config
        .model
        .choose_isa()
        .map_err(|invalid| Failure::new(Reason::Config, anyhow!(invalid.reason)))?
        .isa;
    let file =
        model::read(path, FILE_LEN_MAX).map_err(|error| Failure::new(error.reason(), error))?;
    let keys = trust::model_keys(&config.model, store.machine().record())
        .map_err(|error| Failure::new(error.reason(), error))?;
    let latency_ms_max = config.update.latency_ms_max;
    let checked = match check::check(&config.model, &keys, isa, path, &file, latency_ms_max) {
        Ok(checked) => checked,
        Err(refusal) => return Err(refused(store, refusal)),
    };
    let (identity, release) = (checked.identity, checked.release);
    let floor_s = store.machine().record().time_floor_s;
    if let Some(reason) = release::objection_now(release.as_ref(), floor_s) {
        let message = format!("{reason}: {} cannot be taken now", name(&identity));
        return Err(Failure::new(Reason::Data, anyhow!(message)));
    }
    if let Some(reason) = store.machine().objection(&identity) {
        let message = explain(store, &identity, reason);
        return Err(Failure::new(Reason::Data, anyhow!(message)));
    }
    if let Some(release) = release {
        let event = Event::SignedAt(release.signed_at_s);
        store.step(event).map_err(store_failure)?;
    }
    store.admit(JOB, &identity, &file).map_err(store_failure)?;
    match store.machine().phase() {
        Phase::Ended(Ending::Committed) => {
            out(format_args!("{} is in use already", name(&identity)))
        }
        Phase::Ended(ending) => {
            let reason = Phase::Ended(ending).reason().map_or("?", Choice::name);
            let message = format!("{} is refused: {reason}", name(&identity));
            return Err(Failure::new(Reason::Data, anyhow!(message)));
        }
        _ => out(format_args!(
            "{} is stored; a daemon that runs puts it on trial now, else the next one does",
            name(&identity)
        )),
    }
    Ok(())
}

/// A signed model that fails here is remembered, as if it had come from the broker.
fn refused(store: &mut Store<SystemDisk>, refusal: Refusal) -> Failure {
    let Refusal {
        reason,
        signed,
        message,
    } = refusal;
    if signed.is_some() && reason.is_lasting() {
        let job = JOB.into();
        let event = Event::Reject {
            job,
            signed,
            reason,
        };
        if let Err(error) = store.step(event) {
            note(format_args!("ternwatchd: {}", chain(&error)));
        }
    }
    Failure::new(Reason::Data, anyhow!("{reason}: {message}"))
}

fn explain(store: &Store<SystemDisk>, identity: &Identity, reason: ModelReason) -> String {
    let record = store.machine().record();
    let failed = record
        .quarantine
        .iter()
        .find(|failed| failed.identity.sha256 == identity.sha256);
    match (reason, failed) {
        (_, Some(failed)) => format!(
            "quarantined: {} failed here before ({})",
            name(identity),
            failed.reason
        ),
        (ModelReason::VersionReused, _) => format!(
            "version_reused: another file calls itself {} {}; sign this one as a higher version",
            identity.name, identity.version
        ),
        (ModelReason::VersionTooOld, _) => format!(
            "version_too_old: {} is older than a version that was in use here",
            name(identity)
        ),
        (ModelReason::NameNotAccepted, _) => format!(
            "name_not_accepted: update.names in the settings does not name {}",
            identity.name
        ),
        _ => format!("{reason}: {} cannot be taken", name(identity)),
    }
}

/// A daemon that runs takes models away whose keys are not trusted any more; else the next one does.
fn take_keyring(
    config: &Config,
    store: &mut Store<SystemDisk>,
    path: &Path,
) -> Result<(), Failure> {
    let file = model::read(path, keyring::FILE_LEN_MAX)
        .map_err(|error| Failure::new(error.reason(), error))?;
    let present = store.machine().record().keyring.as_ref();
    let is_present = |keyring: &&StoredKeyring| keyring.file == hex::encode(&file);
    if let Some(keyring) = present.filter(is_present) {
        out(format_args!(
            "the keyring of version {} is in effect already",
            keyring.version
        ));
        return Ok(());
    }
    let considered = trust::consider(&config.model, store.machine().record(), &file);
    let event = considered.map_err(|error| match error {
        TrustError::Roots(error) => Failure::new(error.reason(), error),
        error => Failure::new(Reason::Data, error),
    })?;
    store.step(event).map_err(store_failure)?;
    if let Some(keyring) = &store.machine().record().keyring {
        out(format_args!(
            "the keyring of version {} is in effect",
            keyring.version
        ));
    }
    Ok(())
}

/// A daemon that runs begins with it at once.
fn approve(store: &mut Store<SystemDisk>) -> Result<(), Failure> {
    store.step(Event::Approve).map_err(store_failure)?;
    if let Some(offered) = store.machine().offered() {
        out(format_args!(
            "{} is to be installed; a daemon that runs fetches it now, else the next one does",
            name(&offered.identity)
        ));
    }
    Ok(())
}

fn roll_back(store: &mut Store<SystemDisk>) -> Result<(), Failure> {
    let before = store.machine().record().clone();
    store.step(Event::RollBack).map_err(store_failure)?;
    let gone = before.candidate.map(|candidate| candidate.identity);
    if let Some(gone) = gone.or(before.committed) {
        out(format_args!(
            "{} is not in use any more and not tried again",
            name(&gone)
        ));
    }
    match &store.machine().record().committed {
        Some(committed) => out(format_args!("{} is in use", name(committed))),
        None => out("the packaged model is in use"),
    }
    Ok(())
}

fn name(identity: &Identity) -> String {
    let Identity {
        name,
        version,
        sha256,
    } = identity;
    format!("{name} {version} ({})", short(sha256))
}

fn short(sha256: &Digest) -> String {
    sha256.to_string().chars().take(12).collect()
}

/// A line a model.
fn list(store: &Store<SystemDisk>) -> Vec<String> {
    let (machine, record) = (store.machine(), store.machine().record());
    let mut lines = Vec::new();
    if let Some(damage) = store.damage() {
        lines.push(format!("damaged      {damage}"));
    }
    let mut line = |what: &str, identity: &Identity, note: &str| {
        lines.push(format!("{what:<12} {}{note}", name(identity)));
    };
    if let Some(packaged) = machine.packaged() {
        let is_used = record.committed.is_none();
        line("packaged", packaged, if is_used { ", in use" } else { "" });
    }
    if let Some(committed) = &record.committed {
        line("committed", committed, ", in use");
    }
    if let Some(previous) = &record.previous {
        line("previous", previous, "");
    }
    if let Some(candidate) = &record.candidate {
        let what = if candidate.is_on_trial {
            "trial"
        } else {
            "staged"
        };
        let attempts = format!(", attempt {} begun", candidate.attempts);
        line(what, &candidate.identity, &attempts);
    }
    if let Some(offered) = &record.offered {
        let note = if offered.is_approved {
            ", to be installed"
        } else {
            ", waits for `ternwatchd model approve`"
        };
        line("offered", &offered.identity, note);
    }
    if let Some(keyring) = &record.keyring {
        lines.push(format!("{:<12} version {}", "keyring", keyring.version));
    }
    let mut line = |what: &str, identity: &Identity, note: &str| {
        lines.push(format!("{what:<12} {}{note}", name(identity)));
    };
    for failed in &record.quarantine {
        line(
            "quarantined",
            &failed.identity,
            &format!(", {}", failed.reason),
        );
    }
    lines
}
