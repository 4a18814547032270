//! What must survive a power cut: which models are in use, waiting and refused.

use super::digest::Digest;
use super::reason::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Failed files that are remembered. When the list is full, the oldest gives way and its version becomes too old.
pub const QUARANTINE_MAX: usize = 64;
/// Names of models whose versions are remembered.
pub const NAMES_MAX: usize = 16;
/// Greatest version: larger numbers are not exact in every JSON reader, and one must stay above it.
pub const VERSION_MAX: u64 = (1 << 53) - 1;
/// Longest id of a job in bytes.
pub const JOB_BYTES_MAX: usize = 64;

/// Which model: what it says of itself, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Digest of the whole file.
    pub sha256: Digest,
}

/// What must survive a power cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The model in use; none: the packaged one.
    pub committed: Option<Identity>,
    /// The model before it, to which a rollback by hand returns; none: the packaged one.
    pub previous: Option<Identity>,
    /// A model that was verified and stored, and waits for its trial or is on it.
    pub candidate: Option<Candidate>,
    /// Least version that is taken, by the model's name.
    pub floors: BTreeMap<String, u64>,
    /// Files that failed, oldest first.
    pub quarantine: Vec<Quarantined>,
    /// How the last job ended.
    pub last: Option<Outcome>,
}

/// A model that is not in use yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which model.
    pub identity: Identity,
    /// Who wanted it: the offer's job id.
    pub job: String,
    /// Trials that began.
    pub attempts: u32,
    /// Whether one is going on.
    pub is_on_trial: bool,
}

/// A file that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Which model.
    pub identity: Identity,
    /// Why.
    pub reason: Reason,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which job.
    pub job: String,
    /// Which model; none if it was never known.
    pub identity: Option<Identity>,
    /// How.
    pub ending: Ending,
}

/// The last phase of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum Ending {
    /// It is in use.
    Committed,
    /// It was in use, or on trial, and is no more.
    RolledBack(Reason),
    /// It was never in use.
    Rejected(Reason),
}

impl Record {
    /// What a record must be to be believed, beyond its syntax; `Err` says what is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let has_name = |model: &Identity| {
            !model.name.is_empty() && model.name.len() <= 64 && model.version <= VERSION_MAX
        };
        let models = [&self.committed, &self.previous];
        if !models.into_iter().flatten().all(has_name) {
            return Err("a model's name or version is out of bounds");
        }
        if self.quarantine.len() > QUARANTINE_MAX || self.floors.len() > NAMES_MAX {
            return Err("a list is longer than its bound");
        }
        let jobs = self.candidate.iter().map(|candidate| &candidate.job);
        let mut jobs = jobs.chain(self.last.iter().map(|last| &last.job));
        if jobs.any(|job| job.len() > JOB_BYTES_MAX) {
            return Err("a job's id is longer than its bound");
        }
        Ok(())
    }

    /// The digests of the files that this record needs.
    pub fn needs(&self) -> impl Iterator<Item = Digest> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.identity);
        [self.committed.as_ref(), self.previous.as_ref(), candidate]
            .into_iter()
            .flatten()
            .map(|model| model.sha256)
    }

    /// The record that remains when the stored one was damaged.
    pub fn after_damage() -> Self {
        Self {
            last: Some(Outcome {
                job: "recovery".into(),
                identity: None,
                ending: Ending::RolledBack(Reason::StateDamaged),
            }),
            ..Self::default()
        }
    }
}
