//! Models by Eclipse hawkBit: a server that knows a fleet, and says which device installs what and when (docs/ota.md).
//!
//! A thread of its own asks the server every so often (Direct Device Integration API), hands deployments to the update thread as
//! offers, and tells the server what the state document tells everybody. It remembers nothing over a restart: the server asks
//! again, and the record has the answer. A server that is away costs a line in the log.

mod client;
mod config;
pub mod ddi;
pub mod feedback;

pub use config::{Access, AccessError, Authorization, Config, Token};

use super::agent::{Handling, Input, Withdrawal};
use super::check::chain;
use super::digest::Digest;
use super::offer::Offer;
use super::web::{self, WebError};
use crate::stop::Stop;
use client::{Client, ClientError};
use ddi::{Artifact, Base, Demand, Deployment};
use feedback::{Execution, Finished, Telling};
use serde_json::json;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use ternwatch_ota::state::State;
use thiserror::Error;
use tokio::sync::watch;

/// Jobs of actions are called so, with the action's id behind it.
const JOB_PREFIX: &str = "hawkbit.";
/// How often the state is looked at.
const TICK: Duration = Duration::from_millis(500);
/// The update thread may be loading a model.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Why the server cannot be asked.
#[derive(Debug, Error)]
pub enum StartError {
    /// The token.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The certificates.
    #[error(transparent)]
    Web(#[from] WebError),
    /// No thread.
    #[error("cannot start the thread that asks hawkBit")]
    Thread(#[source] io::Error),
}

/// An action of the server's that is not over.
#[derive(Debug)]
struct Action {
    id: String,
    link: String,
    sha256: Option<Digest>,
    /// What the server was told last.
    told: Option<Telling>,
    /// What it is told whatever the state is.
    fixed: Option<Telling>,
}

/// Asks the server, and tells it.
#[derive(Debug)]
pub struct Courier {
    config: Config,
    /// Beginnings of URLs of other servers that files may come from.
    urls: Vec<String>,
    client: Client,
    inbox: SyncSender<Input>,
    state: watch::Receiver<Vec<u8>>,
    action: Option<Action>,
    complaint: String,
    failures: u32,
}

impl Courier {
    /// For the server of the settings, if there is one. `state` is the document that says where the model's job is.
    pub fn new(
        config: &super::config::Config,
        device: &str,
        inbox: SyncSender<Input>,
        state: watch::Receiver<Vec<u8>>,
    ) -> Result<Option<Self>, StartError> {
        let Some(access) = config.hawkbit.access(device)? else {
            return Ok(None);
        };
        if access.authorization.is_some() && config.hawkbit.url.starts_with("http://") {
            log::warn!("update.hawkbit.url is not encrypted: whoever listens learns the token");
        }
        Ok(Some(Self {
            config: config.hawkbit.clone(),
            urls: config.urls.clone(),
            client: Client::new(web::client(&config.ca_file)?, access),
            inbox,
            state,
            action: None,
            complaint: String::new(),
            failures: 0,
        }))
    }

    /// Where the server is.
    pub fn access(&self) -> &Access {
        self.client.access()
    }

    /// Starts the thread. It ends with the program: nobody waits for a server.
    pub fn start(self, stop: &Stop) -> Result<(), StartError> {
        let stop = stop.clone();
        thread::Builder::new()
            .name("hawkbit".into())
            .spawn(move || self.run(&stop))
            .map_err(StartError::Thread)?;
        Ok(())
    }

    fn run(mut self, stop: &Stop) {
        // What this device has become is known once the update thread has told it.
        while self.state().is_none() {
            if stop.wait(TICK) {
                return;
            }
        }
        let mut poll_at = Instant::now();
        loop {
            let is_due = Instant::now() >= poll_at;
            let done = if is_due { self.poll() } else { Ok(None) };
            let done = done.and_then(|wish| self.follow().map(|ended| (wish, ended)));
            match done {
                Ok((wish, ended)) => {
                    if is_due {
                        (self.failures, self.complaint) = (0, String::new());
                        poll_at = Instant::now() + self.config.pause(wish);
                    }
                    if ended {
                        // There may be another one, or a wish to know what this device has become.
                        poll_at = poll_at.min(Instant::now() + self.config.pause(Some(TICK)));
                    }
                }
                Err(error) => {
                    self.complain(&error);
                    poll_at = Instant::now() + self.retry();
                    // Nothing is told before the server is asked again.
                    stop.wait_until(poll_at);
                }
            }
            if stop.wait(TICK) {
                return;
            }
        }
    }

    /// The wait after a failure: twice as long each time.
    fn retry(&mut self) -> Duration {
        let least = self.config.pause(Some(Duration::ZERO));
        let wait = least.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.config.pause(Some(wait))
    }

    /// Logs what is wrong, once.
    fn complain(&mut self, error: &ClientError) {
        let text = chain(error);
        if text != self.complaint {
            log::warn!("hawkBit at {}: {text}", self.config.url);
            self.complaint = text;
        }
    }

    /// Asks the server, and does what it says; gives when it wishes to be asked again.
    fn poll(&mut self) -> Result<Option<Duration>, ClientError> {
        let base = Base::parse(&self.client.poll()?)?;
        if let Some(link) = &base.config_data {
            self.client.put(link, &self.attributes())?;
        }
        if let Some(link) = &base.cancel {
            self.cancel(link)?;
        } else if let Some(link) = &base.deployment {
            self.deploy(link)?;
        } else if let Some(action) = self.action.take()
            && !action.told.as_ref().is_some_and(Telling::is_end)
        {
            // The server has given it up without a word.
            self.withdraw(&action.id);
        }
        Ok(base.sleep)
    }

    fn state(&self) -> Option<State> {
        State::parse(&self.state.borrow()).ok()
    }

    /// What the device says of itself.
    fn attributes(&self) -> Vec<u8> {
        let mut data = json!({
            "daemon_version": env!("CARGO_PKG_VERSION"),
            "architecture": std::env::consts::ARCH,
        });
        if let Some(State { running, .. }) = self.state() {
            data["model_name"] = running.name.into();
            data["model_version"] = running.version.to_string().into();
            data["model_sha256"] = running.sha256.into();
        }
        json!({ "mode": "merge", "data": data })
            .to_string()
            .into_bytes()
    }

    fn deploy(&mut self, link: &str) -> Result<(), ClientError> {
        let deployment = Deployment::parse(&self.client.get(link)?)?;
        let before = self
            .action
            .take()
            .filter(|action| action.id == deployment.action);
        let order = match &deployment.model {
            Ok(artifact) => self.order(&deployment.action, artifact),
            Err(why) => Err((*why).into()),
        };
        let told = before.and_then(|action| action.told);
        let mut action = Action {
            id: deployment.action,
            link: link.into(),
            sha256: None,
            // The server asks for it still: the end was not heard.
            told: told.filter(|told| !told.is_end()),
            fixed: None,
        };
        match (order, deployment.download, deployment.update) {
            (Err(why), _, _) => {
                let why = format!("offer_invalid: {why}");
                action.fixed = Some(Telling::new(Execution::Closed, Finished::Failure, why));
            }
            (Ok(_), Demand::Skip, _) => {
                let why = "the server wishes that it be not fetched yet";
                action.fixed = Some(Telling::new(Execution::Scheduled, Finished::None, why));
            }
            (Ok(offer), _, update) => {
                action.sha256 = Some(offer.sha256);
                let handling = match update {
                    Demand::Skip => Handling::Fetch,
                    Demand::Attempt => Handling::Offer,
                    Demand::Forced => Handling::Install,
                };
                // Only at the end of the program nobody takes it.
                let _ = self.inbox.send(Input::Deploy { offer, handling });
            }
        }
        self.action = Some(action);
        Ok(())
    }

    /// The offer that a deployment comes to.
    fn order(&self, action: &str, artifact: &Artifact) -> Result<Offer, String> {
        let beginning = self.access().beginning();
        let is_allowed = |url: &&String| {
            let mut allowed = self.urls.iter().chain([&beginning]);
            allowed.any(|allowed| web::is_below(url, allowed))
        };
        let url = artifact.urls.iter().find(is_allowed);
        let url = url.ok_or("no link that update.hawkbit.url or update.urls allows")?;
        let (claim, bytes) = (artifact.claim.clone(), artifact.bytes);
        Offer::whole(&job(action), claim, artifact.sha256, bytes, url.clone())
            .map_err(|error| error.to_string())
    }

    fn cancel(&mut self, link: &str) -> Result<(), ClientError> {
        let id = ddi::parse_cancel(&self.client.get(link)?)?;
        let telling = match self.withdraw(&id) {
            Some(Withdrawal::Done) => {
                self.action.take_if(|action| action.id == id);
                Telling::new(Execution::Closed, Finished::Success, "cancelled")
            }
            Some(Withdrawal::TooLate) => {
                let why = "the model is stored already, and is tried or in use";
                Telling::new(Execution::Rejected, Finished::None, why)
            }
            // It is busy: the server asks again.
            None => return Ok(()),
        };
        self.client.feedback(link, &telling.document(&id))
    }

    /// Whether the action could be taken back; none if the update thread does not answer.
    fn withdraw(&self, id: &str) -> Option<Withdrawal> {
        let (reply, replied) = sync_channel(1);
        let job = job(id);
        self.inbox.send(Input::Withdraw { job, reply }).ok()?;
        replied.recv_timeout(ANSWER_WITHIN).ok()
    }

    /// Tells the server what is new of its action; whether that was its end.
    fn follow(&mut self) -> Result<bool, ClientError> {
        let state = self.state();
        let Some(action) = &mut self.action else {
            return Ok(false);
        };
        let is_of_action = |state: &State| {
            let model = state.model.as_ref().map(|model| model.sha256);
            state.job.as_deref() == Some(job(&action.id).as_str()) && model == action.sha256
        };
        let state = state.filter(is_of_action);
        let telling = (action.fixed.clone()).or_else(|| state.as_ref().map(Telling::of));
        let Some(telling) = telling.filter(|telling| action.told.as_ref() != Some(telling)) else {
            return Ok(false);
        };
        match self
            .client
            .feedback(&action.link, &telling.document(&action.id))
        {
            Ok(()) => {}
            Err(error) if error.is_gone() => {
                log::info!("hawkBit has forgotten the action {}", action.id);
            }
            Err(error) => return Err(error),
        }
        let is_end = telling.is_end();
        action.told = Some(telling);
        Ok(is_end)
    }
}

fn job(action: &str) -> String {
    format!("{JOB_PREFIX}{action}")
}
