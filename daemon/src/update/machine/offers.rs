//! What becomes of an offer until its model is stored.

use super::{Ending, Identity, Job, Machine, NotNow, Offered, Phase};
use crate::update::reason::Reason;

impl Machine {
    /// The offer that waits for the owner of the device, or that the owner wants and that is not stored yet.
    pub fn offered(&self) -> Option<&Offered> {
        self.record.offered.as_ref()
    }

    pub(super) fn offer(&mut self, job: String, identity: Identity) -> Result<(), NotNow> {
        if self.record.candidate.is_some() {
            return Err(NotNow::OnTrial);
        }
        let phase = self.answer(&identity).unwrap_or(Phase::Queued);
        let is_the_one = |offered: &Offered| offered.is_of(&job, &identity.sha256);
        match &mut self.record.offered {
            Some(offered) if is_the_one(offered) && phase == Phase::Queued => {
                // The download goes on after a power cut.
                offered.is_approved = true;
            }
            Some(offered) if is_the_one(offered) || phase == Phase::Queued => {
                self.record.offered = None;
            }
            _ => {}
        }
        self.job = Some(Job {
            id: job,
            claimed: Some(identity),
            phase,
        });
        Ok(())
    }

    /// The newest offer takes the place of the one before, and of its download; one that cannot be taken does not.
    pub(super) fn propose(&mut self, job: String, identity: Identity) {
        let answer = self.answer(&identity);
        let Some(phase) = answer else {
            // Who wants a file wants it whoever offers it.
            let is_approved = self.record.offered.as_ref().is_some_and(|before| {
                before.is_approved && before.identity.sha256 == identity.sha256
            });
            self.job = None;
            self.record.offered = Some(Offered {
                identity,
                job,
                is_approved,
            });
            return;
        };
        let waiting = &mut self.record.offered;
        waiting.take_if(|offered| offered.is_of(&job, &identity.sha256));
        if self.record.candidate.is_none() {
            self.job = Some(Job {
                id: job,
                claimed: Some(identity),
                phase,
            });
        }
    }

    /// The current job is one that was rejected; the record stays as it is.
    pub(super) fn turn_down(&mut self, job: String, claimed: Option<Identity>, reason: Reason) {
        self.job = Some(Job {
            id: job,
            claimed,
            phase: Phase::Ended(Ending::Rejected(reason)),
        });
    }

    pub(super) fn approve(&mut self) -> Result<(), NotNow> {
        let offered = self.record.offered.as_mut().ok_or(NotNow::NothingOffered)?;
        offered.is_approved = true;
        // How another job ended was told long enough.
        self.job.take_if(|job| matches!(job.phase, Phase::Ended(_)));
        Ok(())
    }

    /// How the job of an offer ends at once, if it does.
    pub fn answer(&self, identity: &Identity) -> Option<Phase> {
        if self.is_in_use(identity.sha256) {
            return Some(Phase::Ended(Ending::Committed));
        }
        let reason = self.objection(identity)?;
        Some(Phase::Ended(Ending::Rejected(reason)))
    }

    /// The job of the offer has come to its end, or its model is stored.
    pub(super) fn forget_offer(&mut self, job: &str) -> Option<Identity> {
        let forgotten = self.record.offered.take_if(|offered| offered.job == job);
        forgotten.map(|offered| offered.identity)
    }

    pub(super) fn advance(&mut self, phase: Phase) -> Result<(), NotNow> {
        let job = self.job.as_mut().ok_or(NotNow::NoJob)?;
        match (job.phase, phase) {
            (Phase::Ended(_), _) | (Phase::Verifying, Phase::Downloading { .. }) => {
                Err(NotNow::NoJob)
            }
            _ => {
                job.phase = phase;
                Ok(())
            }
        }
    }
}
