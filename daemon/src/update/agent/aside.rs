//! Offers that are answered at once while something else goes on: the state tells of them for a while, and nothing else changes.
//! Otherwise whoever may offer could keep a download from its end, with offers that need not even be ones.

use super::Agent;
use crate::update::machine::{Ending, Event, Identity, Phase};
use crate::update::offer::Offer;
use crate::update::reason::Reason;
use crate::update::status;
use log::Level;
use std::time::{Duration, Instant};

/// So long an answer stands before the state tells of the job again.
pub(super) const ANSWER: Duration = Duration::from_secs(2);
/// So long what a job came to stands at least.
const NEWS: Duration = Duration::from_secs(1);
/// So long answers may follow each other: then the job is told of in any case.
const ANSWERS: Duration = Duration::from_secs(20);

/// A state document that stands in for that of the job.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) document: Vec<u8>,
    /// When the first of these answers was given.
    since: Instant,
    until: Instant,
}

impl Aside {
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

impl Agent {
    /// Whether whoever waits for the job may not have heard yet what it came to.
    pub(super) fn is_news(&self) -> bool {
        self.ended_at.is_some_and(|at| at.elapsed() < NEWS)
    }

    /// An offer is not taken.
    pub(super) fn turn_down(&mut self, job: &str, claimed: Option<Identity>, reason: Reason) {
        let is_at_work = self.is_news()
            || self.fetch.is_some()
            || self.waiting.is_some()
            || self.store.machine().record().candidate.is_some();
        if is_at_work {
            let phase = Phase::Ended(Ending::Rejected(reason));
            return self.tell_aside(job, claimed.as_ref(), phase);
        }
        let job = job.into();
        self.step(Event::TurnDown {
            job,
            claimed,
            reason,
        });
    }

    /// Whether an offer was answered at once beside a download or right after a job, or refused beside a trial. What is in use
    /// during a trial may not be so after it, and waits for that.
    pub(super) fn answer_aside(&mut self, offer: &Offer) -> bool {
        let identity = offer.identity();
        let answer = self.store.machine().answer(&identity);
        let Some(phase) = answer else {
            return false;
        };
        let is_on_trial = self.store.machine().record().candidate.is_some();
        let is_beside =
            self.fetch.is_some() || self.is_news() || is_on_trial && phase.reason().is_some();
        if !is_beside {
            return false;
        }
        self.note_end(&identity, phase);
        self.tell_aside(&offer.job, Some(&identity), phase);
        true
    }

    /// Logs what an offer came to that was answered at once.
    pub(super) fn note_end(&mut self, identity: &Identity, phase: Phase) {
        let text = format_args!("model {} is not fetched: {phase:?}", identity.version);
        self.note(Level::Info, text);
    }

    fn tell_aside(&mut self, job: &str, claimed: Option<&Identity>, phase: Phase) {
        let now = Instant::now();
        let since = self.aside.as_ref().map_or(now, |aside| aside.since);
        if now.saturating_duration_since(since) >= ANSWERS {
            return;
        }
        let machine = self.store.machine();
        let document = status::answer(machine, self.present(), phase, (job, claimed));
        self.aside = Some(Aside {
            document,
            since,
            until: now + ANSWER,
        });
    }
}
