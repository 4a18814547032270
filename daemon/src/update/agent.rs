//! The update thread: takes offers and chunks, stores models, and puts them on trial aside of the frame path.
//!
//! It alone moves the machine of a running daemon; the command line may do so too, through the state file, which is
//! read again several times a second. Whatever fails here, frames are examined by the model that is in use.

mod aside;
mod download;
mod owner;
mod server;
mod trial;

pub use server::{Handling, Withdrawal};

use self::aside::Aside;
use self::trial::Trial;
use super::budget::Budget;
use super::check::chain;
use super::config::Config;
use super::digest::Digest;
use super::fetch::Fetch;
use super::machine::{Event, Machine, Phase};
use super::network::{Inbox, Requests};
use super::offer::Offer;
use super::reason::Reason;
use super::slot::Slot;
use super::status::{self, Present};
use super::store::Store;
use super::trust::{self, TrustError};
use super::web::Web;
use crate::disk::SystemDisk;
use crate::model::{self, Loaded, ModelIdentity};
use crate::publish::answer::Reply;
use crate::stop::Stop;
use log::Level;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};
use ternwatch_detector::Isa;
use tokio::sync::watch;

/// How often the state file, the trial and the download are looked at.
const TICK: Duration = Duration::from_millis(250);

/// So many lines of the log may strangers cause in an hour.
const NOTES_PER_HOUR_MAX: usize = 200;

/// What comes from the network.
#[derive(Debug)]
pub enum Input {
    /// There is a new connection.
    Connected,
    /// A document on the offer topic.
    Offer(Vec<u8>),
    /// A file on the keyring topic.
    Keyring(Vec<u8>),
    /// Somebody wants the model installed that is offered.
    Install {
        /// Which version was meant; none: whichever is offered.
        version: Option<u64>,
        /// What is owed to whoever asked.
        reply: Reply,
    },
    /// A server's deployment.
    Deploy {
        /// What it comes to.
        offer: Offer,
        /// What is to be done with it.
        handling: Handling,
    },
    /// A server takes a deployment back.
    Withdraw {
        /// Its job.
        job: String,
        /// Where it is told whether that is still possible.
        reply: SyncSender<Withdrawal>,
    },
    /// Whoever was sent to a web server for chunks of this file is back; what there was came before.
    Returned {
        /// Of which file.
        sha256: Digest,
    },
    /// A chunk.
    Chunk {
        /// Who gave it.
        origin: Origin,
        /// Of which file.
        sha256: Digest,
        /// Which one.
        index: usize,
        /// What it holds.
        bytes: Vec<u8>,
    },
}

/// Who gave a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Anybody who may publish at the broker.
    Broker,
    /// A web server that the settings name.
    Web,
}

/// What goes to the network.
#[derive(Debug)]
pub struct Outbox {
    /// The newest state document.
    pub state: watch::Sender<Vec<u8>>,
    /// Requests for chunks.
    pub requests: Requests,
}

/// The update thread.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    model: model::Config,
    isa: Isa,
    store: Store<SystemDisk>,
    slot: Arc<Slot>,
    outbox: Outbox,
    /// The model that looks at the frames.
    running: ModelIdentity,
    /// The model that a trial returns to.
    before: Option<Box<Loaded>>,
    trial: Trial,
    /// When something did not work for a reason that passes.
    paused_at: Option<Instant>,
    fetch: Option<Fetch>,
    /// The way to web servers, if one is allowed.
    web: Option<Web>,
    /// Downloads that began with an offer of anybody at the broker.
    budget: Budget,
    /// Those that a server began, which nobody else may use up.
    deployments: Budget,
    /// The version of the keyring whose keys the stored models were last checked with.
    keyring: Option<u64>,
    /// The same, if the present roots signed it.
    in_effect: Option<u64>,
    /// The newest offer that came while another model was not decided on, or one whose download was interrupted by an answer.
    waiting: Option<Offer>,
    /// What a server told last of a deployment that waits for somebody's word: its URL may be good for a time only.
    deployed: Option<Offer>,
    /// When that answer is told, if there was one.
    told_at: Option<Instant>,
    /// What the state says of the job.
    own: Vec<u8>,
    /// When the job ended.
    ended_at: Option<Instant>,
    /// What it says instead, if so.
    aside: Option<Aside>,
    ticked_at: Instant,
    complaint: String,
    /// Lines of the log that anybody at the broker can cause.
    notes: Budget,
}

impl Agent {
    /// The thread of a daemon that began with the model `running`.
    pub fn new(
        config: &crate::config::Config,
        isa: Isa,
        store: Store<SystemDisk>,
        slot: Arc<Slot>,
        outbox: Outbox,
        running: ModelIdentity,
    ) -> Self {
        Self {
            config: config.update.clone(),
            model: config.model.clone(),
            isa,
            store,
            slot,
            outbox,
            running,
            before: None,
            trial: Trial::None,
            paused_at: None,
            fetch: None,
            web: None,
            budget: Budget::new(config.update.downloads_per_hour_max as usize),
            deployments: Budget::new(config.update.downloads_per_hour_max as usize),
            keyring: None,
            in_effect: None,
            waiting: None,
            deployed: None,
            told_at: None,
            own: Vec::new(),
            ended_at: None,
            aside: None,
            ticked_at: Instant::now(),
            complaint: String::new(),
            notes: Budget::new(NOTES_PER_HOUR_MAX),
        }
    }

    /// Lets it fetch from web servers.
    pub fn with_web(mut self, web: Option<Web>) -> Self {
        self.web = web;
        self
    }

    /// Works until everything stops. A trial that is going on then costs no attempt.
    pub fn run(mut self, inbox: &Inbox, stop: &Stop) {
        if let Err(error) = self.store.collect() {
            self.complain(&error);
        }
        while !stop.requested() {
            self.report();
            match inbox.next(TICK) {
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {}
                // Without a broker there are still the command line and the trial.
                Err(RecvTimeoutError::Disconnected) => {
                    stop.wait(TICK);
                }
            }
            if self.ticked_at.elapsed() >= TICK {
                self.ticked_at = Instant::now();
                self.tick();
            }
        }
        if !matches!(self.trial, Trial::None) {
            self.step(Event::Interrupt);
        }
        if let Some(fetch) = &mut self.fetch
            && let Err(error) = fetch.download.synchronize(self.store.disk())
        {
            log::warn!("the download is not safe: {error}");
        }
    }

    fn present(&self) -> Present<'_> {
        Present {
            running: &self.running,
            keyring: self.in_effect,
        }
    }

    fn report(&mut self) {
        let own = status::state(self.store.machine(), self.present());
        if own != self.own {
            let has_ended = matches!(self.store.machine().phase(), Phase::Ended(_));
            // At the start it ended long ago.
            self.ended_at = (has_ended && !self.own.is_empty()).then(Instant::now);
            self.own = own;
        }
        self.aside.take_if(|aside| aside.is_over());
        let aside = self.aside.as_ref().filter(|_| !self.is_news());
        let state = aside.map_or(&self.own, |aside| &aside.document).clone();
        self.outbox.state.send_if_modified(|told| {
            let is_new = *told != state;
            *told = state;
            is_new
        });
    }

    /// Logs what is wrong, once.
    fn complain(&mut self, error: &dyn std::error::Error) {
        self.complain_of(chain(error));
    }

    fn complain_of(&mut self, text: String) {
        if text != self.complaint {
            log::warn!("update of the model: {text}");
            self.complaint = text;
        }
    }

    /// Logs what anybody can cause, who may publish at the broker: not without end, since the log may lie on the memory card.
    fn note(&mut self, level: Level, text: fmt::Arguments<'_>) {
        if self.notes.take(Instant::now()) {
            log::log!(level, "{text}");
        }
    }

    /// Whether the event was taken and is durable.
    fn step(&mut self, event: Event) -> bool {
        match self.store.step(event) {
            Ok(()) => true,
            Err(error) => {
                self.complain(&error);
                false
            }
        }
    }

    fn tick(&mut self) {
        if let Err(error) = self.store.reload() {
            self.complain(&error);
            return;
        }
        self.distrust();
        self.follow();
        self.advance_trial();
        // Frames that show nothing new would make the comparison last for ever.
        self.slot.compare(!matches!(self.trial, Trial::None));
        // What the trial came to is told before anything else begins.
        self.report();
        if self.store.machine().record().candidate.is_some() {
            self.set_aside();
        } else if let Some(fetch) = &mut self.fetch
            && let Err(error) = fetch.keep(self.store.disk(), Instant::now())
        {
            self.complain(&error);
        }
        let is_told = self.told_at.is_none_or(|at| Instant::now() >= at) && !self.is_news();
        if self.store.machine().record().candidate.is_none() && is_told {
            self.told_at = None;
            match self.waiting.take() {
                Some(offer) => self.begin_download(offer, false),
                None => self.begin_approved(),
            }
        }
        self.ask();
    }

    fn clean(&mut self) {
        if let Err(error) = self.store.collect() {
            self.complain(&error);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Connected => {
                if let Some(fetch) = &mut self.fetch {
                    fetch.reconnected();
                }
            }
            Input::Offer(document) => self.offer(&document),
            Input::Keyring(file) => self.take_keyring(&file),
            Input::Install { version, reply } => self.install(version, reply),
            Input::Deploy { offer, handling } => self.deploy(offer, handling),
            Input::Withdraw { job, reply } => {
                // Who asked may have given up.
                let _ = reply.try_send(self.withdraw(&job));
            }
            Input::Returned { sha256 } => {
                if let Some(fetch) = &mut self.fetch
                    && fetch.download.offer().sha256 == sha256
                {
                    fetch.returned(Instant::now());
                }
            }
            Input::Chunk {
                origin,
                sha256,
                index,
                bytes,
            } => self.chunk(origin, &sha256, index, &bytes),
        }
        self.ask();
    }

    fn offer(&mut self, document: &[u8]) {
        // An empty message removes a retained offer.
        if document.is_empty() {
            return;
        }
        let offer = match Offer::parse(document) {
            Ok(offer) => offer,
            Err(error) => {
                self.note(
                    Level::Warn,
                    format_args!("an offer is refused: {}", chain(&error)),
                );
                return self.turn_down("unknown", None, Reason::OfferInvalid);
            }
        };
        let (job, model) = self.store.machine().subject();
        let subject = job.zip(model);
        let is_known = subject.is_some_and(|(job, model)| offer.is_of(job, &model.sha256));
        let offered = self.store.machine().offered();
        let waits = offered.is_some_and(|o| offer.is_of(&o.job, &o.identity.sha256));
        let fetched = self.fetch.as_ref().map(|fetch| fetch.download.offer());
        let is_going_on = fetched == Some(&offer) || self.waiting.as_ref() == Some(&offer);
        if is_going_on || waits || is_known && self.fetch.is_none() {
            // A retained offer comes again with every connection.
            return;
        }
        if self.answer_aside(&offer) || !self.may_begin(&offer) {
            return;
        }
        if !self.config.automatic {
            self.propose(&offer, document);
        } else if self.store.machine().record().candidate.is_some() {
            self.waiting = Some(offer);
        } else {
            self.begin_download(offer, false);
        }
    }

    /// Whether there may be another download; if not, it is refused.
    fn may_begin(&mut self, offer: &Offer) -> bool {
        let may_begin = has_room(&mut self.budget, self.store.machine(), offer);
        if !may_begin {
            self.note(
                Level::Warn,
                format_args!("an offer is refused: too many downloads began within an hour"),
            );
            self.turn_down(&offer.job, Some(offer.identity()), Reason::TooManyDownloads);
        }
        may_begin
    }

    fn take_keyring(&mut self, file: &[u8]) {
        // An empty message removes a retained one.
        if file.is_empty() {
            return;
        }
        match trust::consider(&self.model, self.store.machine().record(), file) {
            Ok(event) => {
                if self.step(event) {
                    log::info!("a new keyring is in effect");
                }
            }
            // A retained one comes again with every connection.
            Err(TrustError::DoesNotFollow { found, present }) if found == present => {}
            Err(error) => self.note(
                Level::Warn,
                format_args!("a keyring is refused: {}", chain(&error)),
            ),
        }
    }

    /// Takes stored models away whose keys a new keyring does not trust.
    fn distrust(&mut self) {
        let record = self.store.machine().record();
        let version = record.keyring.as_ref().map(|keyring| keyring.version);
        if version == self.keyring {
            return;
        }
        let trusted = match trust::in_effect(&self.model, record) {
            Ok(trusted) => trusted,
            Err(error) => return self.complain(&error),
        };
        let needed: Vec<Digest> = record.needs().collect();
        for sha256 in needed {
            let path = self.store.model_path(&sha256);
            // A file that is gone or damaged is noticed when it is needed.
            let Ok(file) = self.store.model(&sha256) else {
                continue;
            };
            if let Err(error) = model::verify(&trusted.keys, &path, &file) {
                log::error!("a stored model is not trusted any more: {}", chain(&error));
                if !self.step(Event::Lose(sha256, Reason::BadSignature)) {
                    return;
                }
            }
        }
        self.keyring = version;
        self.in_effect = trusted.keyring;
        self.clean();
    }
}

/// Whether a budget of downloads has room for this one. What would not be fetched anyway takes none.
fn has_room(budget: &mut Budget, machine: &Machine, offer: &Offer) -> bool {
    !machine.is_worth_fetching(&offer.identity()) || budget.take(Instant::now())
}
