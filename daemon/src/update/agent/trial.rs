//! The candidate's way through its trial, and the model that is in use to the frames.

use super::Agent;
use crate::model::{self, Loaded};
use crate::update::check::{self, Checked};
use crate::update::digest::Digest;
use crate::update::machine::{Event, Phase};
use crate::update::start::load_stored;
use crate::update::trial::{self, Tally};
use crate::update::trust;
use std::time::{Duration, Instant};

/// The inference thread looks for another model between two frames and while it waits for one.
const EXCHANGE: Duration = Duration::from_secs(3);
/// What did not work for a reason that passes is tried again after so long: not more often, for the memory card's sake.
const PAUSE: Duration = Duration::from_secs(10);

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
        /// The slot's count when it began.
        breaks: u64,
    },
    /// The candidate looks at the frames.
    Frames {
        sha256: Digest,
        begin: Instant,
        before: Tally,
        /// The slot's count when the comparison began.
        breaks: u64,
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

    /// Loads the model that is to be in use: the stored one, or the packaged one. One that is lost makes room for the one before; one
    /// that cannot be read just now is tried again.
    fn load(&mut self, target: Digest, is_stored: bool) -> Option<Box<Loaded>> {
        if self.pauses() {
            return None;
        }
        if !is_stored {
            return match model::load(&self.model, self.isa) {
                Ok(loaded) => Some(Box::new(loaded)),
                Err(error) => {
                    self.complain(&error);
                    self.pause();
                    None
                }
            };
        }
        match load_stored(&self.model, self.isa, &self.store, &target) {
            Ok(loaded) => Some(Box::new(loaded)),
            Err(refusal) if refusal.passes() => {
                self.complain_of(refusal.message);
                self.pause();
                None
            }
            Err(refusal) => {
                log::error!("the model in use is lost: {}", refusal.message);
                self.step(Event::Lose(target, refusal.reason));
                None
            }
        }
    }

    fn pause(&mut self) {
        self.paused_at = Some(Instant::now());
    }

    fn pauses(&self) -> bool {
        self.paused_at.is_some_and(|at| at.elapsed() < PAUSE)
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
        let tally = self.slot.tally();
        let (seen, begin, breaks) = match &self.trial {
            Trial::None => return self.begin_trial(),
            Trial::Comparison {
                from,
                begin,
                breaks,
                ..
            } => (tally - *from, *begin, *breaks),
            Trial::Frames { begin, breaks, .. } => (tally, *begin, *breaks),
        };
        if breaks != self.slot.breaks() {
            return self.break_trial();
        }
        if !self.config.trial().is_reached(seen, begin.elapsed()) {
            return;
        }
        match std::mem::replace(&mut self.trial, Trial::None) {
            Trial::None => {}
            Trial::Comparison {
                sha256, candidate, ..
            } => {
                if self.exchange(candidate) {
                    self.trial = Trial::Frames {
                        sha256,
                        begin: Instant::now(),
                        before: seen,
                        breaks,
                    };
                } else {
                    self.step(Event::Interrupt);
                    self.pause();
                }
            }
            Trial::Frames { sha256, before, .. } => {
                if !self.decide(before, seen) {
                    self.trial = Trial::Frames {
                        sha256,
                        begin,
                        before,
                        breaks,
                    };
                }
            }
        }
    }

    /// The two windows have to lie side by side: a model that looked at a night is not compared with one that looked at a day. The
    /// trial begins anew, and that costs no attempt.
    fn break_trial(&mut self) {
        log::info!(
            "detection paused, the camera was away or a threshold changed: the trial begins anew"
        );
        if let Trial::Frames { .. } = std::mem::replace(&mut self.trial, Trial::None) {
            self.return_to_before();
        }
        self.step(Event::Interrupt);
        self.pause();
    }

    /// Counts the attempt, then loads the candidate for the first time.
    fn begin_trial(&mut self) {
        let Some(candidate) = self.store.machine().record().candidate.clone() else {
            return;
        };
        if self.pauses() {
            return;
        }
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
        let file = self.store.model(&sha256).map_err(check::unread);
        let checked = file.and_then(|file| {
            let keys = trust::model_keys(&self.model, self.store.machine().record());
            let keys = keys.map_err(|error| check::refusal(&error, None))?;
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
                    breaks: self.slot.breaks(),
                };
            }
            Err(refusal) if refusal.passes() => {
                self.complain_of(refusal.message);
                self.step(Event::Interrupt);
                self.pause();
            }
            Err(refusal) => {
                log::error!("the model on trial is refused: {}", refusal.message);
                self.step(Event::Fail(refusal.reason));
                self.clean();
            }
        }
    }

    /// Gives the frames back to the model before. If nobody takes it, `follow` tries again.
    fn return_to_before(&mut self) {
        if let Some(before) = self.before.take()
            && self.exchange(before)
        {
            self.before = None;
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
        self.return_to_before();
        self.step(Event::Fail(reason));
        self.clean();
        true
    }
}
