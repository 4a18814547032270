//! What may happen to a model, and in which order: a pure machine without clock, file or network.
//!
//! Takes events, gives the record of what is in use, which the store keeps, and the phase of the current job, which is
//! forgotten with the process. Promises, whatever the events: the running model is the packaged one, a committed one or
//! the one on trial; a trial that is not passed ends with the model before it; a file that failed is not tried again;
//! no model older than an accepted one of its name is taken. Before a trial's first load its attempt is in the record:
//! a model that kills the process is tried a bounded number of times.

mod offers;
mod trust;

use super::digest::Digest;
use super::reason::Reason;
pub use super::record::{
    Candidate, Ending, Identity, JOB_BYTES_MAX, NAMES_MAX, Offered, Outcome, QUARANTINE_MAX,
    Quarantined, Record, StoredKeyring, VERSION_MAX,
};
use thiserror::Error;
pub use trust::Trust;

/// Where the current job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No job yet.
    Idle,
    /// An offer waits until somebody says that it is to be installed.
    Offered,
    /// An offer was accepted, and its download comes next.
    Queued,
    /// Chunks come in.
    Downloading {
        /// Chunks that are here.
        received: u32,
        /// Chunks of the file.
        total: u32,
    },
    /// Signature, recorded answers and speed are being checked.
    Verifying,
    /// Stored, waits for its trial.
    Staged,
    /// Looks at the camera's frames; the model before is at hand.
    Trial,
    /// The job is over.
    Ended(Ending),
}

impl Phase {
    /// The name that other programs read; never renamed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Offered => "offered",
            Self::Queued => "queued",
            Self::Downloading { .. } => "downloading",
            Self::Verifying => "verifying",
            Self::Staged => "staged",
            Self::Trial => "trial",
            Self::Ended(Ending::Committed) => "committed",
            Self::Ended(Ending::RolledBack(_)) => "rolled_back",
            Self::Ended(Ending::Rejected(_)) => "rejected",
        }
    }

    /// Why the job ended, if it did not end well.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Ended(Ending::RolledBack(reason) | Ending::Rejected(reason)) => Some(reason),
            _ => None,
        }
    }
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody offers a model, and may have it installed. What the offer says is not trusted yet.
    Offer {
        /// Id of the job.
        job: String,
        /// What it claims to be.
        identity: Identity,
    },
    /// Somebody offers a model, and the owner of the device is to say when it is installed.
    Propose {
        /// Id of the job.
        job: String,
        /// What it claims to be.
        identity: Identity,
    },
    /// The owner says that the offer that waits is to be installed.
    Approve,
    /// Chunks of the offered model are here.
    Progress {
        /// Chunks that are here.
        received: u32,
        /// Chunks of the file.
        total: u32,
    },
    /// All of it is here.
    Complete,
    /// A model passed every check before a trial, and is stored.
    Admit {
        /// Id of the job.
        job: String,
        /// What the signed file says.
        identity: Identity,
    },
    /// A check before the trial failed.
    Reject {
        /// Id of the job.
        job: String,
        /// What the file says, if its signature was good.
        signed: Option<Identity>,
        /// Why.
        reason: Reason,
    },
    /// An offer is not taken, for a reason that has nothing to do with its model.
    TurnDown {
        /// Id of the job, or what stands for one.
        job: String,
        /// What it claims to be, if that could be read.
        claimed: Option<Identity>,
        /// Why.
        reason: Reason,
    },
    /// The daemon starts: a trial that was going on was cut off.
    Restart,
    /// The candidate is about to be loaded.
    BeginTrial,
    /// The daemon ends on purpose during a trial: that says nothing of the model.
    Interrupt,
    /// The trial was passed.
    Pass,
    /// The trial was not passed.
    Fail(Reason),
    /// Somebody wants the model before back.
    RollBack,
    /// The stored file of this model is gone or damaged, or does not run any more.
    Lose(Digest, Reason),
    /// Enough roots signed a keyring.
    Trust(Trust),
    /// A trusted key signed something at that time, in seconds since 1970.
    SignedAt(u64),
}

/// The event does not fit the phase. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotNow {
    /// Another model is stored and not decided on yet.
    #[error("another model waits for its trial or is on it")]
    OnTrial,
    /// There is no such job.
    #[error("there is no job that this belongs to")]
    NoJob,
    /// The threat is an old keyring played back, which trusts a key that was revoked since.
    #[error("the keyring is not newer than version {0}, which is in effect")]
    OldKeyring(u64),
    /// No offer waits.
    #[error("no model is offered")]
    NothingOffered,
    /// There is nothing to return to.
    #[error("the packaged model is in use: there is none before it")]
    NothingBefore,
}

/// A job before its model is stored. Forgotten with the process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    id: String,
    claimed: Option<Identity>,
    phase: Phase,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Machine {
    record: Record,
    packaged: Option<Identity>,
    /// Names of the models that are taken; empty: all.
    names: Vec<String>,
    attempts_max: u32,
    job: Option<Job>,
}

impl Machine {
    /// A machine with this record; `packaged` is what the program was installed with, if it is usable. A package
    /// with a newer version than the one in use takes its place.
    pub fn new(record: Record, packaged: Option<Identity>, attempts_max: u32) -> Self {
        let mut machine = Self {
            record: Record::default(),
            packaged,
            names: Vec::new(),
            attempts_max,
            job: None,
        };
        machine.adopt(record);
        machine
    }

    /// Takes only models of these names from now on; none: all.
    pub fn accept_only(&mut self, names: Vec<String>) {
        self.names = names;
    }

    /// Takes the record that somebody else wrote meanwhile. A job that is on its way goes on.
    pub fn adopt(&mut self, mut record: Record) {
        let packaged = self.packaged.as_ref();
        let is_outdated = |identity: &Identity| {
            packaged.is_some_and(|packaged| {
                packaged.name == identity.name && packaged.version > identity.version
            })
        };
        if record.committed.as_ref().is_some_and(is_outdated) {
            record.committed = None;
            record.previous = None;
        }
        // It would take the place of what the package brings, for a moment.
        let waits_in_vain = |candidate: &mut Candidate| is_outdated(&candidate.identity);
        if let Some(Candidate { identity, job, .. }) = record.candidate.take_if(waits_in_vain) {
            record.last = Some(Outcome {
                job,
                identity: Some(identity),
                ending: Ending::Rejected(Reason::VersionTooOld),
            });
        }
        self.record = record;
        self.settle();
    }

    /// What must survive.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The model that the program was installed with.
    pub fn packaged(&self) -> Option<&Identity> {
        self.packaged.as_ref()
    }

    /// The model to run; none: the packaged one.
    pub fn running(&self) -> Option<&Identity> {
        let on_trial = self.record.candidate.as_ref().filter(|c| c.is_on_trial);
        on_trial
            .map(|candidate| &candidate.identity)
            .or(self.record.committed.as_ref())
    }

    /// Where the current job is.
    pub fn phase(&self) -> Phase {
        match (&self.record.candidate, &self.job, &self.record.last) {
            (Some(candidate), _, _) if candidate.is_on_trial => Phase::Trial,
            (_, Some(job), _) => job.phase,
            (Some(_), None, _) => Phase::Staged,
            (None, None, last) => match (&self.record.offered, last) {
                (Some(offered), _) if offered.is_approved => Phase::Queued,
                (Some(_), _) => Phase::Offered,
                (None, Some(last)) => Phase::Ended(last.ending),
                (None, None) => Phase::Idle,
            },
        }
    }

    /// The current job's id and model, or those of the last one.
    pub fn subject(&self) -> (Option<&str>, Option<&Identity>) {
        let on_trial = self.record.candidate.as_ref().filter(|c| c.is_on_trial);
        if let (None, Some(job)) = (on_trial, &self.job) {
            return (Some(&job.id), job.claimed.as_ref());
        }
        if let Some(candidate) = &self.record.candidate {
            return (Some(&candidate.job), Some(&candidate.identity));
        }
        if let Some(offered) = &self.record.offered {
            return (Some(&offered.job), Some(&offered.identity));
        }
        match &self.record.last {
            Some(last) => (Some(&last.job), last.identity.as_ref()),
            None => (None, None),
        }
    }

    /// Whether an offer of this model would lead to a download.
    pub fn is_worth_fetching(&self, identity: &Identity) -> bool {
        !self.is_in_use(identity.sha256) && self.objection(identity).is_none()
    }

    /// Why a model must not be taken, if so.
    pub fn objection(&self, identity: &Identity) -> Option<Reason> {
        if !self.names.is_empty() && !self.names.contains(&identity.name) {
            return Some(Reason::NameNotAccepted);
        }
        let quarantine = &self.record.quarantine;
        if quarantine
            .iter()
            .any(|failed| failed.identity.sha256 == identity.sha256)
        {
            return Some(Reason::Quarantined);
        }
        if self.knows_another(identity) {
            return Some(Reason::VersionReused);
        }
        let floors = &self.record.floors;
        let knows_name = floors.contains_key(&identity.name) || floors.len() < NAMES_MAX;
        if !knows_name || identity.version > VERSION_MAX {
            return Some(Reason::ModelInvalid);
        }
        (identity.version < self.floor(&identity.name)).then_some(Reason::VersionTooOld)
    }

    /// Whether another file of the same name and version is remembered.
    fn knows_another(&self, identity: &Identity) -> bool {
        let mut known = self.record.known().chain(self.packaged.as_ref());
        known.any(|known| known.is_namesake_of(identity))
    }

    fn floor(&self, name: &str) -> u64 {
        let accepted = self.record.floors.get(name).copied().unwrap_or(0);
        let packaged = self.packaged.as_ref().filter(|model| model.name == name);
        accepted.max(packaged.map_or(0, |model| model.version))
    }

    /// Takes an event. What changed of the record has to be stored before anything is done about it.
    pub fn step(&mut self, event: Event) -> Result<(), NotNow> {
        match event {
            Event::Offer { job, identity } => self.offer(job, identity),
            Event::Propose { job, identity } => {
                self.propose(job, identity);
                Ok(())
            }
            Event::Approve => self.approve(),
            Event::Progress { received, total } => {
                self.advance(Phase::Downloading { received, total })
            }
            Event::Complete => self.advance(Phase::Verifying),
            Event::Admit { job, identity } => self.admit(job, identity),
            Event::Reject {
                job,
                signed,
                reason,
            } => self.reject(job, signed, reason),
            Event::TurnDown {
                job,
                claimed,
                reason,
            } => {
                self.turn_down(job, claimed, reason);
                Ok(())
            }
            Event::Restart => {
                self.restart();
                Ok(())
            }
            Event::BeginTrial => self.begin_trial(),
            Event::Interrupt => {
                let candidate = self.on_trial_mut()?;
                candidate.is_on_trial = false;
                candidate.attempts = candidate.attempts.saturating_sub(1);
                Ok(())
            }
            Event::Pass => self.pass(),
            Event::Fail(reason) => {
                self.on_trial_mut()?;
                self.drop_candidate(reason);
                Ok(())
            }
            Event::RollBack => self.roll_back(),
            Event::Lose(sha256, reason) => {
                self.lose(sha256, reason);
                Ok(())
            }
            Event::Trust(trust) => self.trust(trust),
            Event::SignedAt(at_s) => {
                self.record.time_floor_s = at_s.max(self.record.time_floor_s);
                Ok(())
            }
        }
    }

    fn admit(&mut self, job: String, identity: Identity) -> Result<(), NotNow> {
        if self.is_on_trial() {
            return Err(NotNow::OnTrial);
        }
        self.forget_offer(&job);
        if self.is_in_use(identity.sha256) {
            self.job = Some(Job {
                id: job,
                claimed: Some(identity),
                phase: Phase::Ended(Ending::Committed),
            });
            return Ok(());
        }
        // What the offer claimed was checked before; what the signed file says decides.
        if let Some(reason) = self.objection(&identity) {
            return self.reject(job, Some(identity), reason);
        }
        self.job = None;
        self.record.candidate = Some(Candidate {
            identity,
            job,
            attempts: 0,
            is_on_trial: false,
        });
        Ok(())
    }

    fn reject(
        &mut self,
        job: String,
        signed: Option<Identity>,
        reason: Reason,
    ) -> Result<(), NotNow> {
        let offered = self.forget_offer(&job);
        // A stranger's files leave no trace in the record: they could wear the memory card out.
        if let Some(identity) = signed.clone().filter(|_| reason.is_lasting()) {
            let (job, identity) = (job.clone(), identity);
            self.quarantine(identity.clone(), reason);
            self.record.last = Some(Outcome {
                job,
                identity: Some(identity),
                ending: Ending::Rejected(reason),
            });
        }
        let before = self.job.take().filter(|before| before.id == job);
        let claimed = signed
            .or(before.and_then(|before| before.claimed))
            .or(offered);
        self.turn_down(job, claimed, reason);
        Ok(())
    }

    fn restart(&mut self) {
        self.job = None;
        let attempts_max = self.attempts_max;
        let Some(candidate) = &mut self.record.candidate else {
            return;
        };
        candidate.is_on_trial = false;
        if candidate.attempts >= attempts_max {
            self.drop_candidate(Reason::AttemptsExceeded);
        }
    }

    fn begin_trial(&mut self) -> Result<(), NotNow> {
        let attempts_max = self.attempts_max;
        let candidate = self.record.candidate.as_mut().ok_or(NotNow::NoJob)?;
        if candidate.is_on_trial {
            return Err(NotNow::OnTrial);
        }
        if candidate.attempts >= attempts_max {
            self.drop_candidate(Reason::AttemptsExceeded);
            return Ok(());
        }
        candidate.attempts += 1;
        candidate.is_on_trial = true;
        self.job = None;
        Ok(())
    }

    fn pass(&mut self) -> Result<(), NotNow> {
        self.on_trial_mut()?;
        let Some(Candidate { identity, job, .. }) = self.record.candidate.take() else {
            return Err(NotNow::NoJob);
        };
        self.raise_floor(&identity.name, identity.version);
        self.record.previous = self.record.committed.replace(identity.clone());
        self.end(job, identity, Ending::Committed);
        Ok(())
    }

    /// Back from the candidate, if there is one, else from the model in use.
    fn roll_back(&mut self) -> Result<(), NotNow> {
        if self.record.candidate.is_some() {
            self.drop_candidate(Reason::ByHand);
            return Ok(());
        }
        let identity = (self.record.committed.clone()).ok_or(NotNow::NothingBefore)?;
        if self.record.previous.is_none() && self.packaged.as_ref() == Some(&identity) {
            return Err(NotNow::NothingBefore);
        }
        self.record.committed = self.record.previous.take();
        self.quarantine(identity.clone(), Reason::ByHand);
        self.end(
            "by-hand".into(),
            identity,
            Ending::RolledBack(Reason::ByHand),
        );
        Ok(())
    }

    fn lose(&mut self, sha256: Digest, reason: Reason) {
        let is_it = |model: &Option<Identity>| model.as_ref().is_some_and(|m| m.sha256 == sha256);
        if is_it(&self.record.previous) {
            self.record.previous = None;
        }
        if self
            .record
            .candidate
            .as_ref()
            .is_some_and(|candidate| candidate.identity.sha256 == sha256)
        {
            self.drop_candidate(reason);
        }
        if is_it(&self.record.committed)
            && let Some(identity) = self.record.committed.take()
        {
            self.record.committed = self.record.previous.take();
            // It proved itself here, so that a check which it fails now says more about the moment or the program: it may come again.
            self.end("lost".into(), identity, Ending::RolledBack(reason));
            self.settle();
        }
    }

    /// Ends the job of a candidate that came into use without a trial, because what was in use before it is gone: a
    /// model does not return to itself.
    fn settle(&mut self) {
        let candidate = &self.record.candidate;
        let is_moot = |candidate: &Candidate| self.is_in_use(candidate.identity.sha256);
        if candidate.as_ref().is_some_and(is_moot)
            && let Some(Candidate { identity, job, .. }) = self.record.candidate.take()
        {
            self.end(job, identity, Ending::Committed);
        }
    }

    fn drop_candidate(&mut self, reason: Reason) {
        if let Some(Candidate { identity, job, .. }) = self.record.candidate.take() {
            if reason.is_lasting() {
                self.quarantine(identity.clone(), reason);
            }
            self.end(job, identity, Ending::RolledBack(reason));
        }
    }

    fn end(&mut self, job: String, identity: Identity, ending: Ending) {
        // The end of this one is told before the offer that waits.
        self.job = self.record.offered.is_some().then(|| Job {
            id: job.clone(),
            claimed: Some(identity.clone()),
            phase: Phase::Ended(ending),
        });
        self.record.last = Some(Outcome {
            job,
            identity: Some(identity),
            ending,
        });
    }

    fn quarantine(&mut self, identity: Identity, reason: Reason) {
        let waits = self.record.candidate.as_ref();
        let waits = waits.is_some_and(|waits| waits.identity.sha256 == identity.sha256);
        if waits || self.is_in_use(identity.sha256) {
            // It proved itself here; that a second check failed says more about the moment.
            return;
        }
        let quarantine = &mut self.record.quarantine;
        if quarantine
            .iter()
            .any(|failed| failed.identity.sha256 == identity.sha256)
        {
            return;
        }
        if (self.record.previous.as_ref()).is_some_and(|model| model.sha256 == identity.sha256) {
            self.record.previous = None;
        }
        quarantine.push(Quarantined { identity, reason });
        if quarantine.len() > QUARANTINE_MAX {
            let forgotten = quarantine.remove(0).identity;
            self.raise_floor(&forgotten.name, forgotten.version.saturating_add(1));
        }
    }

    fn raise_floor(&mut self, name: &str, version: u64) {
        let floors = &mut self.record.floors;
        // A name for which there is no room is refused whatever its version.
        if floors.contains_key(name) || floors.len() < NAMES_MAX {
            let floor = floors.entry(name.into()).or_insert(0);
            *floor = version.max(*floor);
        }
    }

    /// Whether this is the model to which a failed trial returns.
    fn is_in_use(&self, sha256: Digest) -> bool {
        let in_use = self.record.committed.as_ref().or(self.packaged.as_ref());
        in_use.is_some_and(|model| model.sha256 == sha256)
    }

    fn is_on_trial(&self) -> bool {
        let candidate = self.record.candidate.as_ref();
        candidate.is_some_and(|candidate| candidate.is_on_trial)
    }

    fn on_trial_mut(&mut self) -> Result<&mut Candidate, NotNow> {
        self.record
            .candidate
            .as_mut()
            .filter(|candidate| candidate.is_on_trial)
            .ok_or(NotNow::NoJob)
    }
}
