//! What is prepared before the connection to the broker is opened.

use crate::command::{self, Control};
use crate::config::Config;
use crate::exit::Failure;
use crate::health::Health;
use crate::publish::home_assistant::{self, Announcement, Names, Subject};
use crate::publish::mqtt::conversation::Conversation;
use crate::publish::mqtt::{Destination, Session};
use crate::publish::outbox::Outbox;
use crate::publish::{Outgoing, about, topic};
use std::sync::Arc;

/// What is published when and where.
pub(super) struct Publishing {
    pub(super) session: Session,
    pub(super) destination: Destination,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) conversations: Vec<Conversation>,
    pub(super) announcement: Option<Arc<Announcement>>,
}

impl Publishing {
    /// Nothing, if the configuration has no broker.
    pub(super) fn prepare(
        config: &Config,
        device: &str,
        outbox: Outbox,
    ) -> Result<Option<Self>, Failure> {
        let (mqtt, camera) = (&config.mqtt, &config.camera.name);
        if !mqtt.enabled {
            return Ok(None);
        }
        let session = mqtt.session(device);
        let (expiry_s, snapshot_expiry_s) =
            (config.publish.event_expiry_s, config.snapshots.expire_s);
        Ok(Some(Self {
            session: session.map_err(|error| Failure::new(error.reason(), error))?,
            destination: Destination {
                events: topic::events(&mqtt.prefix, device, camera),
                counts: topic::counts(&mqtt.prefix, device, camera),
                frames: topic::detections(&mqtt.prefix, device, camera),
                snapshots: topic::snapshot(&mqtt.prefix, device, camera),
                event_expiry_s: (expiry_s > 0).then_some(expiry_s),
                snapshot_expiry_s: (snapshot_expiry_s > 0).then_some(snapshot_expiry_s),
            },
            outgoing: Arc::new(Outgoing::new(outbox, mqtt.queue_documents_max)),
            conversations: Vec::new(),
            announcement: None,
        }))
    }

    /// Adds what Home Assistant is told, if it is to be told.
    pub(super) fn announce(&mut self, config: &Config, device: &str, is_updatable: bool) {
        if config.home_assistant.enabled {
            let announcement = Arc::new(Announcement::new(Subject {
                prefix: config.mqtt.prefix.clone(),
                device: device.into(),
                camera: config.camera.name.clone(),
                names: Names::new(&config.zones, &config.lines),
                has_statistics: config.publish.statistics_s > 0,
                is_updatable,
                waits_for_owner: !config.update.automatic,
                has_snapshots: config.snapshots.enabled,
                takes_commands: config.mqtt.commands,
            }));
            let conversation = home_assistant::connect(&config.home_assistant, &announcement);
            self.conversations.push(conversation);
            self.announcement = Some(announcement);
        }
    }

    /// Adds what the device says of itself. Within the runtime.
    pub(super) fn tell_about_itself(
        &mut self,
        config: &Config,
        device: &str,
        health: &Arc<Health>,
    ) {
        let (conversation, measuring) = about::connect(config, device, health, &self.outgoing);
        self.conversations.push(conversation);
        tokio::spawn(measuring);
    }

    /// Adds the commands, if they are taken.
    pub(super) fn obey(&mut self, config: &Config, device: &str, control: &Control) {
        if config.mqtt.commands {
            let conversation = command::connect(control.clone(), device);
            self.conversations.push(conversation);
        }
    }
}
