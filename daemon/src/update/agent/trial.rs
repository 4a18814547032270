//! The candidate's way through its trial, and the model that is in use to the frames.

use super::Agent;
use crate::model::{self, Loaded};
use crate::update::check::{self, Checked};
use crate::update::digest::Digest;
use crate::update::machine::{Event, Phase};
use crate::update::reason::Reason;
use crate::update::start::load_stored;
use crate::update::trial::{self, Tally};
use crate::update::trust;
use std::time::{Duration, Instant};

/// The inference thread looks for another model between two frames and while it waits for one.
const EXCHANGE: Duration = Duration::from_secs(3);

/// Where the trial of the candidate is.
#[derive(Debug)]
pub(super) enum Trial {
    None,
    /// The model in use is watched for comparison; the candidate is ready.
    Comparison {
        sha256: Digest,
        candidate: Box<Loaded>,
        begin: Instant,
        from: Tally,
    },
    /// The candidate looks at the frames.
    Frames {
        sha256: Digest,
        begin: Instant,
        before: Tally,
    },
}

impl Agent {
    /// Brings the model that is to be in use to the frames, or behind the candidate that looks at them.
    pub(super) fn follow(&mut self) {
        self.follow_candidate();
        let record = self.store.machine().record();
        let committed = record.committed.as_ref().map(|model| model.sha256);
        let packaged = self.store.machine().packaged().map(|model| model.sha256);
        let Some(target) = committed.or(packaged) else {
            return;
        };
        let name = target.to_string();
        match &self.trial {
            Trial::Frames { .. } => {
                let is_it = |before: &Loaded| before.identity.sha256 == name;
                if !self.before.as_deref().is_some_and(is_it) {
                    // The threat is a revoked model that a failed trial would return to.
                    self.before = None;
                    self.before = self.load(target, committed.is_some());
                }
                return;
            }
            _ if self.running.sha256 == name => return,
            Trial::Comparison { .. } => {
                // Its statistics would be those of two models, and the one that is not in use any more may not wait for the end.
                log::info!("another model is in use: the trial begins anew");
                self.trial = Trial::None;
                self.step(Event::Interrupt);
            }
            Trial::None => {}
        }
        let kept = self
            .before
            .take()
            .filter(|kept| kept.identity.sha256 == name);
        if let Some(loaded) = kept.or_else(|| self.load(target, committed.is_some())) {
            self.exchange(loaded);
        }
    }

    /// Gives a trial up whose candidate is none any more.
    fn follow_candidate(&mut self) {
        if let Trial::Frames { sha256, .. } | Trial::Comparison { sha256, .. } = &self.trial {
            let candidate = self.store.machine().record().candidate.as_ref();
            if !candidate.is_some_and(|c| c.is_on_trial && c.identity.sha256 == *sha256) {
                log::info!("the trial was ended by hand, or its model is not trusted any more");
                self.trial = Trial::None;
            }
        }
    }

    /// Loads the model that is to be in use: the stored one, or the packaged one. One that is lost makes room for the one before.
    fn load(&mut self, target: Digest, is_stored: bool) -> Option<Box<Loaded>> {
        if !is_stored {
            return match model::load(&self.model, self.isa) {
                Ok(loaded) => Some(Box::new(loaded)),
                Err(error) => {
                    self.complain(&error);
                    None
                }
            };
        }
        match load_stored(&self.model, self.isa, &self.store, &target) {
            Ok(loaded) => Some(Box::new(loaded)),
            Err(refusal) => {
                log::error!("the model in use is lost: {}", refusal.message);
                self.step(Event::Lose(target, refusal.reason));
                None
            }
        }
    }

    /// Gives the frames to this model; the one that had them is kept in `before`. `false` if nobody took it: then it
    /// is kept there itself.
    fn exchange(&mut self, next: Box<Loaded>) -> bool {
        let identity = next.identity.clone();
        match self.slot.exchange(next, EXCHANGE) {
            Ok(before) => {
                log::info!(
                    "model {} {} looks at the frames now, after {} {}",
                    identity.name,
                    identity.version,
                    before.identity.name,
                    before.identity.version
                );
                self.running = identity;
                self.before = Some(before);
                true
            }
            Err(next) => {
                log::warn!("the inference thread did not take the model");
                // The next attempt need not load it again.
                self.before = Some(next);
                false
            }
        }
    }

    pub(super) fn advance_trial(&mut self) {
        let now = Instant::now();
        let tally = self.slot.tally();
        match std::mem::replace(&mut self.trial, Trial::None) {
            Trial::None => self.begin_trial(),
            Trial::Comparison {
                sha256,
                candidate,
                begin,
                from,
            } => {
                let before = tally - from;
                if !self.config.trial().is_reached(before, now - begin) {
                    self.trial = Trial::Comparison {
                        sha256,
                        candidate,
                        begin,
                        from,
                    };
                } else if self.exchange(candidate) {
                    self.trial = Trial::Frames {
                        sha256,
                        begin: Instant::now(),
                        before,
                    };
                } else {
                    self.step(Event::Interrupt);
                }
            }
            Trial::Frames {
                sha256,
                begin,
                before,
            } => {
                let is_over = self.config.trial().is_reached(tally, now - begin);
                if !is_over || !self.decide(before, tally) {
                    self.trial = Trial::Frames {
                        sha256,
                        begin,
                        before,
                    };
                }
            }
        }
    }

    /// Counts the attempt, then loads the candidate for the first time.
    fn begin_trial(&mut self) {
        let Some(candidate) = self.store.machine().record().candidate.clone() else {
            return;
        };
        // On trial without one: its end could not be stored, or its attempt could not be used.
        if candidate.is_on_trial && !self.step(Event::Restart) {
            return;
        }
        if !self.step(Event::BeginTrial) || self.store.machine().phase() != Phase::Trial {
            return;
        }
        self.report();
        let sha256 = candidate.identity.sha256;
        let path = self.store.model_path(&sha256);
        let latency_ms_max = self.config.latency_ms_max;
        let file = match self.store.model(&sha256) {
            Ok(file) => file,
            Err(error) => {
                self.complain(&error);
                self.step(Event::Fail(Reason::FileDamaged));
                return;
            }
        };
        let keys = trust::model_keys(&self.model, self.store.machine().record());
        let checked = keys
            .map_err(|error| check::refusal(&error, None))
            .and_then(|keys| {
                check::check(&self.model, &keys, self.isa, &path, &file, latency_ms_max)
            });
        match checked {
            Ok(Checked {
                loaded, identity, ..
            }) => {
                log::info!("model {} {} is on trial", identity.name, identity.version);
                self.trial = Trial::Comparison {
                    sha256,
                    candidate: Box::new(loaded),
                    begin: Instant::now(),
                    from: self.slot.tally(),
                };
            }
            Err(refusal) => {
                log::error!("the model on trial is refused: {}", refusal.message);
                self.step(Event::Fail(refusal.reason));
                self.clean();
            }
        }
    }

    /// Whether the trial is over.
    fn decide(&mut self, before: Tally, trial: Tally) -> bool {
        let objection = trial::objection(before, trial, self.config.latency_ms_max);
        // A full memory card puts the end off: it is told once.
        if objection.is_none() && !self.step(Event::Pass) {
            return false;
        }
        log::info!(
            "trial: {} detections in {} frames, {:.1} ms each; before: {} in {}, {:.1} ms",
            trial.detections,
            trial.frames,
            trial.latency_ms(),
            before.detections,
            before.frames,
            before.latency_ms()
        );
        let Some(reason) = objection else {
            log::info!("model {} is kept", self.running.version);
            self.before = None;
            self.clean();
            return true;
        };
        log::error!("model {} is taken back: {reason}", self.running.version);
        // Frames first: storing may fail.
        if let Some(before) = self.before.take() {
            self.exchange(before);
            self.before = None;
        }
        self.step(Event::Fail(reason));
        self.clean();
        true
    }
}
