//! Offers that wait until the owner of the device says that they are to be installed.

use super::Agent;
use crate::publish::answer::{Refusal, Reply};
use crate::update::check::chain;
use crate::update::machine::{Event, Offered, Phase};
use crate::update::offer::Offer;
use crate::update::reason::Reason;

impl Agent {
    /// Has an offer wait that nothing speaks against.
    pub(super) fn propose(&mut self, offer: &Offer, document: &[u8]) {
        if self.answer_aside(offer) {
            return;
        }
        // What was being fetched goes on if it is still wanted.
        self.fetch = None;
        let identity = offer.identity();
        if let Err(error) = self.store.propose(&offer.job, &identity, document) {
            return self.refuse(&offer.job, &error);
        }
        match self.store.machine().phase() {
            phase @ Phase::Ended(_) => self.note_end(&identity, phase),
            _ => log::info!(
                "model {} {} is offered, and waits until somebody has it installed (update.automatic)",
                identity.name,
                identity.version
            ),
        }
    }

    /// Somebody has the model installed that is offered.
    pub(super) fn install(&mut self, version: Option<u64>, reply: Reply) {
        let Some(offered) = self.store.machine().offered() else {
            let message = "no model is offered";
            return reply.refuse(Refusal::new("nothing_offered", message));
        };
        let present = offered.identity.version;
        if version.is_some_and(|meant| meant != present) {
            let message = format!("version {present} is offered");
            return reply.refuse(Refusal::new("nothing_offered", message));
        }
        match self.store.step(Event::Approve) {
            Ok(()) => reply.done(),
            Err(error) => {
                self.complain(&error);
                reply.refuse(Refusal::new("store_failed", chain(&error)));
            }
        }
    }

    /// Begins to fetch what waited, or ends its job if something speaks against it by now.
    pub(super) fn begin_approved(&mut self) {
        let machine = self.store.machine();
        let Some(offered) = machine.offered().cloned() else {
            return;
        };
        let is_due = offered.is_approved
            || self.config.automatic
            || !machine.is_worth_fetching(&offered.identity);
        if self.fetch.is_some() || !is_due {
            return;
        }
        let is_it = |offer: &mut Offer| offer.is_of(&offered.job, &offered.identity.sha256);
        let newest = self.deployed.take_if(is_it);
        match newest.or_else(|| self.offer_of(&offered)) {
            Some(offer) => self.begin_download(offer, false),
            None => self.reject(&offered.job, None, Reason::FileDamaged),
        }
    }

    /// The document that was kept with what the record says.
    fn offer_of(&mut self, offered: &Offered) -> Option<Offer> {
        let document = match self.store.offered_document() {
            Ok(document) => document,
            Err(error) => {
                self.complain(&error);
                return None;
            }
        };
        let offer = Offer::recall(&document).ok()?;
        (offer.job == offered.job && offer.identity() == offered.identity).then_some(offer)
    }
}
