//! A download from its offer to the stored model: chunks by either way, the checks at its end, and what keeps it from that.

use super::aside::ANSWER;
use super::{Agent, Origin};
use crate::model;
use crate::update::check::{self, chain};
use crate::update::chunks::{Chunk, Download};
use crate::update::digest::Digest;
use crate::update::fetch::Fetch;
use crate::update::machine::{Event, Identity, Phase};
use crate::update::offer::Offer;
use crate::update::reason::Reason;
use crate::update::store::StoreError;
use crate::update::web::Errand;
use crate::update::{release, status, trust};
use log::Level;
use std::path::Path;
use std::time::Instant;

/// Every so many chunks the progress is told.
const PROGRESS_CHUNKS: usize = 8;

impl Agent {
    /// `holds`: what is complete is not installed yet.
    pub(super) fn begin_download(&mut self, offer: Offer, holds: bool) {
        let (job, identity) = (offer.job.clone(), offer.identity());
        if self.answer_aside(&offer) {
            return;
        }
        let before = self.fetch.take();
        let claimed = identity.clone();
        if !self.step(Event::Offer { job, identity }) {
            self.fetch = before;
            return;
        }
        let phase = self.store.machine().phase();
        if matches!(phase, Phase::Ended(_)) {
            return self.note_end(&claimed, phase);
        }
        // The newest offer takes the place of those before.
        self.waiting = None;
        let job = offer.job.clone();
        match self.store.download(offer) {
            Ok(download) => {
                log::info!(
                    "fetching model {} {}: {} of {} chunks are here",
                    claimed.name,
                    claimed.version,
                    download.received(),
                    download.offer().chunk_count()
                );
                let mut fetch = Fetch::new(download, Instant::now());
                fetch.holds = holds;
                self.fetch = Some(fetch);
                self.progress();
                self.finish_if_complete();
            }
            Err(error) => {
                self.refuse(&job, &error);
                // What is too large has not touched the one before.
                if let StoreError::NoSpace { .. } = error {
                    self.resume_later(before);
                }
            }
        }
    }

    /// A model for which there is no room costs no other download: it goes on when that was told.
    pub(super) fn resume_later(&mut self, fetch: Option<Fetch>) {
        // What is not to be installed yet is a server's, which tells of it again.
        if let Some(fetch) = fetch.filter(|fetch| !fetch.holds) {
            self.told_at.get_or_insert(Instant::now() + ANSWER);
            self.wait_with(fetch);
        }
    }

    /// A model that somebody stored by hand goes first: what is being fetched waits, and is not fetched again.
    pub(super) fn set_aside(&mut self) {
        if let Some(fetch) = self.fetch.take_if(|fetch| !fetch.holds) {
            self.wait_with(fetch);
        }
    }

    fn wait_with(&mut self, mut fetch: Fetch) {
        if let Err(error) = fetch.download.synchronize(self.store.disk()) {
            self.complain(&error);
        }
        self.waiting
            .get_or_insert_with(|| fetch.download.offer().clone());
    }

    fn job(&self) -> String {
        let (job, _) = self.store.machine().subject();
        job.unwrap_or("unknown").into()
    }

    pub(super) fn refuse(&mut self, job: &str, error: &StoreError) {
        let reason = match error {
            StoreError::NoSpace { .. } => Reason::NoSpace,
            _ => Reason::StoreFailed,
        };
        log::error!("the model is not stored: {}", chain(error));
        self.reject(job, None, reason);
    }

    pub(super) fn reject(&mut self, job: &str, signed: Option<Identity>, reason: Reason) {
        self.fetch = None;
        let job = job.into();
        self.step(Event::Reject {
            job,
            signed,
            reason,
        });
    }

    pub(super) fn chunk(&mut self, origin: Origin, sha256: &Digest, index: usize, bytes: &[u8]) {
        let Some(fetch) = &mut self.fetch else {
            return;
        };
        let offer = fetch.download.offer();
        // The threat is somebody at the broker who spoils a file whose chunks have no digests.
        let is_strange = offer.is_whole() && origin == Origin::Broker;
        if offer.sha256 != *sha256 || is_strange {
            return;
        }
        match fetch.take(self.store.disk(), index, bytes, Instant::now()) {
            Ok(Chunk::Stored) => {
                let received = fetch.download.received();
                if received.is_multiple_of(PROGRESS_CHUNKS) || fetch.download.is_complete() {
                    self.progress();
                }
                self.finish_if_complete();
            }
            Ok(Chunk::Duplicate) => {}
            Ok(Chunk::Wrong) => {
                self.note(
                    Level::Warn,
                    format_args!("chunk {index} is not what was announced"),
                );
            }
            Err(error) => {
                self.complain(&error);
                self.reject(&self.job(), None, Reason::StoreFailed);
            }
        }
    }

    fn progress(&mut self) {
        if let Some(fetch) = &self.fetch {
            let count = |chunks| u32::try_from(chunks).unwrap_or(u32::MAX);
            let received = count(fetch.download.received());
            let total = count(fetch.download.offer().chunk_count());
            self.step(Event::Progress { received, total });
        }
    }

    pub(super) fn finish_if_complete(&mut self) {
        // Beside a candidate, stored by hand since, there is no place for it.
        let has_place = self.store.machine().record().candidate.is_none();
        let is_due = |fetch: &mut Fetch| has_place && fetch.download.is_complete() && !fetch.holds;
        let Some(fetch) = self.fetch.take_if(is_due) else {
            return;
        };
        let offer = fetch.download.offer().clone();
        self.step(Event::Complete);
        self.report();
        match fetch.download.finish(self.store.disk()) {
            Ok(Some(file)) => self.receive(&offer, &file),
            Ok(None) => {
                log::error!("what was received is not what was offered");
                self.reject(&offer.job, None, Reason::HashMismatch);
            }
            Err(error) => {
                self.complain(&error);
                self.reject(&offer.job, None, Reason::StoreFailed);
            }
        }
        let root = self.store.root().to_owned();
        if let Err(error) = Download::discard(self.store.disk(), &root, &offer.sha256) {
            self.complain(&error);
        }
    }

    /// The signature decides whether a file is stored. It is loaded only when the attempt was counted.
    fn receive(&mut self, offer: &Offer, file: &[u8]) {
        let origin = Path::new("the offered model");
        let keys = trust::model_keys(&self.model, self.store.machine().record());
        let verified = keys.and_then(|keys| {
            let bundle = model::verify(&keys, origin, file)?;
            let release = bundle.manifest().release.clone();
            Ok((check::identity(&bundle), release))
        });
        let (identity, release) = match verified {
            Ok((Some(identity), release)) => (identity, release),
            Ok((None, _)) => return self.reject(&offer.job, None, Reason::ModelInvalid),
            Err(error) => {
                log::error!("{}", chain(&error));
                return self.reject(&offer.job, None, check::refusal(&error, None).reason);
            }
        };
        let floor_s = self.store.machine().record().time_floor_s;
        if let Some(reason) = release::objection_now(release.as_ref(), floor_s) {
            log::error!("model {} is refused: {reason}", identity.version);
            return self.reject(&offer.job, Some(identity), reason);
        }
        if let Some(release) = release
            && !self.step(Event::SignedAt(release.signed_at_s))
        {
            return self.reject(&offer.job, Some(identity), Reason::StoreFailed);
        }
        match self.store.admit(&offer.job, &identity, file) {
            Ok(()) => log::info!(
                "model {} {}: {}",
                identity.name,
                identity.version,
                self.store.machine().phase().name()
            ),
            Err(error) => self.refuse(&offer.job, &error),
        }
    }

    /// Asks for the chunks that are wanted now.
    pub(super) fn ask(&mut self) {
        let Some(fetch) = &mut self.fetch else {
            return;
        };
        let now = Instant::now();
        let offer = fetch.download.offer();
        let (is_whole, sha256) = (offer.is_whole(), offer.sha256);
        let way = self.web.as_ref().zip(offer.url.clone());
        let way = way.filter(|(web, url)| web.may_fetch(offer, url));
        match way {
            Some((web, url)) if is_whole || fetch.prefers_web() => {
                let indices = fetch.errand(now);
                let place = |index| (index, fetch.download.offer().place(index));
                let chunks: Vec<_> = indices.into_iter().map(place).collect();
                let errand = Errand {
                    url,
                    is_whole,
                    sha256,
                    chunks,
                };
                if !errand.chunks.is_empty() && !web.fetch(errand) {
                    fetch.returned(now);
                }
            }
            _ if is_whole => {}
            _ => {
                let wanted = fetch.wanted(now);
                if !wanted.is_empty() {
                    self.outbox.requests.make(status::request(&sha256, wanted));
                }
            }
        }
    }
}
