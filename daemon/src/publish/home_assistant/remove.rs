//! `ternwatchd home-assistant remove`: takes the retained message away, and with it the device and its entities.

use super::discovery::{Names, Subject, topic};
use crate::config::Config;
use crate::exit::{Failure, Reason};
use crate::publish::mqtt::errand;
use crate::publish::mqtt::message::Message;
use crate::tell::out;
use anyhow::Context;

/// Publishes an empty message in place of the one that describes this device.
pub fn remove(config: &Config) -> Result<(), Failure> {
    let device = config.device.id();
    let subject = Subject {
        prefix: config.mqtt.prefix.clone(),
        device: device.clone(),
        camera: config.camera.name.clone(),
        names: Names::default(),
        has_statistics: false,
        is_updatable: false,
        waits_for_owner: false,
        has_snapshots: false,
        takes_commands: false,
    };
    let topic = topic(&config.home_assistant.prefix, &subject);
    let session = config
        .mqtt
        .session(&device)
        .map_err(|error| Failure::new(Reason::Config, error))?;
    let broker = format!("{}:{}", config.mqtt.host, config.mqtt.port);
    errand::say(session, Message::status(topic.as_str(), Vec::new()))
        .with_context(|| format!("the broker at {broker} was not told (mqtt.host, mqtt.port)"))
        .map_err(|error| Failure::new(Reason::Unavailable, error))?;
    out(format_args!("removed {topic}"));
    if config.home_assistant.enabled {
        out(
            "a daemon that runs publishes it again when it connects; set home_assistant.enabled = false and restart it",
        );
    }
    Ok(())
}
