//! What the device says of itself: how it is doing, and whether its camera delivers.

use super::mqtt::conversation::{Assurance, Conversation, State};
use super::statistics::{Observer, observe};
use super::{Outgoing, topic};
use crate::config::Config;
use crate::health::Health;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Makes the conversation and the task that measures for it; the task ends with the conversation.
pub fn connect(
    config: &Config,
    device: &str,
    health: &Arc<Health>,
    outgoing: &Arc<Outgoing>,
) -> (Conversation, impl Future<Output = ()> + Send + use<>) {
    let (prefix, camera) = (&config.mqtt.prefix, &config.camera.name);
    let mut states = vec![State {
        topic: topic::camera_state(prefix, device, camera),
        document: health.camera.document(),
        assurance: Assurance::Confirmed,
    }];
    let interval = Duration::from_secs(config.publish.statistics_s.into());
    let (newest, document) = watch::channel(Vec::new());
    if !interval.is_zero() {
        states.push(State {
            topic: topic::statistics(prefix, device),
            document,
            assurance: Assurance::Unconfirmed,
        });
    }
    let has_snapshots = config.snapshots.enabled;
    let observer = Observer::new(health.clone(), outgoing.clone(), has_snapshots);
    // It has nothing to add.
    let (_, remarks) = mpsc::channel(1);
    let conversation = Conversation {
        filters: Vec::new(),
        states,
        remarks,
        deliver: Box::new(|_| {}),
    };
    (conversation, observe(observer, interval, newest))
}
