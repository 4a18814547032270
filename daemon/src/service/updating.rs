//! What takes new models: the update thread, and its ways to the broker, to web servers and to a hawkBit server.

use super::threads;
use crate::config::Config;
use crate::disk::SystemDisk;
use crate::exit::{Failure, Reason};
use crate::model::Loaded;
use crate::publish::mqtt::conversation::Conversation;
use crate::stop::Stop;
use crate::update::agent::{Agent, Input};
use crate::update::hawkbit::Courier;
use crate::update::network::{self, Inbox};
use crate::update::slot::Slot;
use crate::update::store::Store;
use crate::update::web::Web;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use ternwatch_detector::Isa;
use tokio::sync::mpsc::UnboundedSender;

/// What is ready to be started.
pub(super) struct Updating {
    /// Where the inference thread finds another model.
    pub(super) slot: Arc<Slot>,
    /// To the update thread, if there is one.
    pub(super) sender: Option<SyncSender<Input>>,
    conversation: Option<Conversation>,
    agent: Option<Agent>,
    inbox: Inbox,
    courier: Option<Courier>,
}

impl Updating {
    /// Without a store nothing is ever taken.
    pub(super) fn prepare(
        config: &Config,
        device: &str,
        (isa, loaded): (Isa, &Loaded),
        store: Option<Store<SystemDisk>>,
    ) -> Result<Self, Failure> {
        let listens = config.update.over_mqtt;
        let (conversation, ends) = network::connect(&config.mqtt.prefix, device, listens);
        let slot = Arc::new(Slot::default());
        let sender = store.as_ref().map(|_| ends.sender.clone());
        let states = ends.outbox.state.subscribe();
        let courier = Courier::new(&config.update, device, ends.sender.clone(), states)
            .map_err(|error| Failure::new(Reason::Config, error))?;
        let access = courier.as_ref().map(Courier::access);
        let web = Web::start(&config.update, access, ends.sender)
            .map_err(|error| Failure::new(error.reason(), error))?;
        let agent = store.map(|store| {
            let identity = loaded.identity.clone();
            Agent::new(config, isa, store, slot.clone(), ends.outbox, identity).with_web(web)
        });
        Ok(Self {
            slot,
            sender,
            conversation: Some(conversation),
            agent,
            inbox: ends.inbox,
            courier,
        })
    }

    /// Whether this device takes models.
    pub(super) fn is_possible(&self) -> bool {
        self.agent.is_some()
    }

    /// For the connection to the broker, once, if this device takes models.
    pub(super) fn take_conversation(&mut self) -> Option<Conversation> {
        let conversation = self.conversation.take();
        conversation.filter(|_| self.is_possible())
    }

    /// Starts its threads; the receiver hears when the update thread has ended.
    pub(super) fn start(
        self,
        stop: &Stop,
        broken: &UnboundedSender<Failure>,
    ) -> Result<Option<Receiver<()>>, Failure> {
        let Some(agent) = self.agent else {
            return Ok(None);
        };
        let ends = threads::updates(agent, self.inbox, stop, broken)?;
        if let Some(courier) = self.courier {
            let started = courier.start(stop);
            started.map_err(|error| Failure::new(Reason::Unavailable, error))?;
        }
        Ok(Some(ends))
    }
}
