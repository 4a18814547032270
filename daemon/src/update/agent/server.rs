//! Deployments of a server that polls are answered by: what becomes of them here, and whether they can be taken back.

use super::{Agent, has_room};
use crate::update::check::chain;
use crate::update::chunks::Download;
use crate::update::machine::{Ending, Event, Phase};
use crate::update::offer::Offer;
use crate::update::reason::Reason;

/// What a server wants done with a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Fetch it, and do not install it yet.
    Fetch,
    /// Install it if the owner of the device has nothing against it (`update.automatic`).
    Offer,
    /// Install it.
    Install,
}

/// Whether a deployment could be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It was, or there was none here.
    Done,
    /// It is stored already, and on its way into use or there.
    TooLate,
}

impl Agent {
    /// Takes a deployment, as often as the server tells of it.
    pub(super) fn deploy(&mut self, offer: Offer, handling: Handling) {
        let machine = self.store.machine();
        let asks = handling == Handling::Offer && !self.config.automatic;
        if let Some(offered) = machine.offered()
            && offer.is_of(&offered.job, &offered.identity.sha256)
        {
            if handling == Handling::Install && !offered.is_approved {
                self.step(Event::Approve);
            }
            self.deployed = Some(offer);
            return;
        }
        if let Some(fetch) = &mut self.fetch
            && fetch.download.offer().is_of(&offer.job, &offer.sha256)
        {
            fetch.holds = handling == Handling::Fetch;
            fetch.download.relocate(offer.url.clone());
            if asks {
                // What is here already is not fetched again.
                return self.propose_deployment(&offer);
            }
            return self.finish_if_complete();
        }
        let (job, model) = machine.subject();
        let subject = job.zip(model);
        let is_known = subject.is_some_and(|(job, model)| offer.is_of(job, &model.sha256));
        // While another model is not decided on it waits at the server, which tells of it again.
        let is_busy = machine.record().candidate.is_some();
        if is_known && machine.phase() != Phase::Queued || is_busy || !self.may_deploy(&offer) {
            return;
        }
        if asks {
            self.propose_deployment(&offer);
        } else {
            self.begin_download(offer, handling == Handling::Fetch);
        }
    }

    /// Whether there may be another download for the server; if not it waits, and the server tells of it again.
    fn may_deploy(&mut self, offer: &Offer) -> bool {
        let may_begin = has_room(&mut self.deployments, self.store.machine(), offer);
        if !may_begin {
            let max = self.config.downloads_per_hour_max;
            self.complain_of(format!(
                "a deployment waits: {max} downloads began within an hour (update.downloads_per_hour_max)"
            ));
        }
        may_begin
    }

    fn propose_deployment(&mut self, offer: &Offer) {
        match serde_json::to_vec(offer) {
            Ok(document) => self.propose(offer, &document),
            Err(error) => self.complain(&error),
        }
    }

    /// Takes a deployment back, as long as its model is not stored.
    pub(super) fn withdraw(&mut self, job: &str) -> Withdrawal {
        let machine = self.store.machine();
        let candidate = machine.record().candidate.as_ref();
        let is_stored = candidate.is_some_and(|candidate| candidate.job == job);
        let (subject, _) = machine.subject();
        let is_in_use = subject == Some(job) && machine.phase() == Phase::Ended(Ending::Committed);
        if is_stored || is_in_use {
            return Withdrawal::TooLate;
        }
        self.waiting.take_if(|offer| offer.job == job);
        let fetched = self.fetch.as_ref().map(|fetch| fetch.download.offer());
        let fetched = fetched.filter(|offer| offer.job == job);
        let sha256 = fetched.map(|offer| offer.sha256);
        let waits = machine.offered().is_some_and(|offered| offered.job == job);
        if sha256.is_none() && !waits {
            return Withdrawal::Done;
        }
        self.reject(job, None, Reason::Cancelled);
        if let Some(sha256) = sha256 {
            let root = self.store.root().to_owned();
            if let Err(error) = Download::discard(self.store.disk(), &root, &sha256) {
                log::warn!("what was fetched is not removed: {}", chain(&error));
            }
        }
        Withdrawal::Done
    }
}
