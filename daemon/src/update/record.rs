//! What must survive a power cut: which models are in use, waiting and refused.

use super::digest::Digest;
use super::reason::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use ternwatch_bundle::keyring;
use ternwatch_ota::identity::NAME_BYTES_MAX;
pub use ternwatch_ota::identity::{Identity, JOB_BYTES_MAX, VERSION_MAX};

/// Failed files that are remembered. When the list is full, the oldest gives way and its version becomes too old.
pub const QUARANTINE_MAX: usize = 64;
/// Names of models whose versions are remembered.
pub const NAMES_MAX: usize = 16;

/// What must survive a power cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The model in use; none: the packaged one.
    pub committed: Option<Identity>,
    /// The model before it, to which a rollback by hand returns; none: the packaged one.
    pub previous: Option<Identity>,
    /// A model that was verified and stored, and waits for its trial or is on it.
    pub candidate: Option<Candidate>,
    /// The newest offer, if the owner of the device is to say when it is installed; also while it is downloaded then.
    #[serde(default)]
    pub offered: Option<Offered>,
    /// Least version that is taken, by the model's name.
    pub floors: BTreeMap<String, u64>,
    /// Files that failed, oldest first.
    pub quarantine: Vec<Quarantined>,
    /// How the last job ended.
    pub last: Option<Outcome>,
    /// The newest keyring; none: `model.key` alone is trusted.
    #[serde(default)]
    pub keyring: Option<StoredKeyring>,
    /// The latest time at which something here was signed, in seconds since 1970: the present is not before that.
    #[serde(default)]
    pub time_floor_s: u64,
}

/// A keyring that enough roots signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKeyring {
    /// Its version: none that is not newer is taken.
    pub version: u64,
    /// The whole file in hexadecimal: its signatures are checked whenever it is used.
    pub file: String,
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

/// A model that is not here yet, and whose offer nobody vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// What it claims to be.
    pub identity: Identity,
    /// The offer's job id.
    pub job: String,
    /// Whether the owner said that it is to be installed.
    pub is_approved: bool,
}

impl Offered {
    /// Whether it is this job's, of this file. The name of a job is known to everybody: another file of that name is another offer.
    pub fn is_of(&self, job: &str, sha256: &Digest) -> bool {
        self.job == job && self.identity.sha256 == *sha256
    }
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
            !model.name.is_empty()
                && model.name.len() <= NAME_BYTES_MAX
                && model.version <= VERSION_MAX
        };
        let models = [&self.committed, &self.previous].into_iter().flatten();
        let mut models = models.chain(self.offered.iter().map(|offered| &offered.identity));
        if !models.all(has_name) {
            return Err("a model's name or version is out of bounds");
        }
        if self.quarantine.len() > QUARANTINE_MAX || self.floors.len() > NAMES_MAX {
            return Err("a list is longer than its bound");
        }
        let keyring = self.keyring.as_ref();
        if keyring.is_some_and(|keyring| keyring.file.len() > 2 * keyring::FILE_LEN_MAX) {
            return Err("the keyring is longer than its bound");
        }
        let jobs = self.candidate.iter().map(|candidate| &candidate.job);
        let jobs = jobs.chain(self.offered.iter().map(|offered| &offered.job));
        let mut jobs = jobs.chain(self.last.iter().map(|last| &last.job));
        if jobs.any(|job| job.len() > JOB_BYTES_MAX) {
            return Err("a job's id is longer than its bound");
        }
        Ok(())
    }

    /// The models that are remembered, in use or not.
    pub fn known(&self) -> impl Iterator<Item = &Identity> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.identity);
        let models = [self.committed.as_ref(), self.previous.as_ref(), candidate];
        let failed = self.quarantine.iter().map(|failed| &failed.identity);
        models.into_iter().flatten().chain(failed)
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
