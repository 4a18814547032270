//! Names of topics, and of what they are made of.

use crate::config::Invalid;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The longest device id and camera name in bytes.
const LEVEL_BYTES_MAX: usize = 64;
/// The longest prefix in bytes.
const PREFIX_BYTES_MAX: usize = 128;

/// The `[device]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// Empty: the host's name.
    pub id: String,
}

impl DeviceConfig {
    /// Checks the id that is in effect.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_level("device.id", &self.id()).map_err(|invalid| {
            if self.id.is_empty() {
                let reason = format!("the host's name does not serve as one: {}", invalid.reason);
                return Invalid::new(invalid.key, reason);
            }
            invalid
        })
    }

    /// The id that is in effect.
    pub fn id(&self) -> String {
        if self.id.is_empty() {
            let host = rustix::system::uname();
            host.nodename().to_string_lossy().into_owned()
        } else {
            self.id.clone()
        }
    }
}

/// Checks one level of a topic: letters, digits, `.`, `_` and `-`. MQTT allows more, but `/`, `+` and `#` have a
/// meaning there, and what is left serves as a file name and an identifier elsewhere.
pub fn validate_level(key: impl Into<Cow<'static, str>>, level: &str) -> Result<(), Invalid> {
    if level.is_empty() {
        return Err(Invalid::new(key, "is empty"));
    }
    if level.len() > LEVEL_BYTES_MAX {
        return Err(Invalid::new(
            key,
            format!("is longer than {LEVEL_BYTES_MAX} bytes"),
        ));
    }
    let bad = level
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c));
    match bad {
        None => Ok(()),
        Some(bad) => Err(Invalid::new(
            key,
            format!("has {bad:?}; letters, digits, `.`, `_` and `-` are allowed"),
        )),
    }
}

/// Checks the beginning of all topics: levels separated by `/`.
pub fn validate_prefix(key: &'static str, prefix: &str) -> Result<(), Invalid> {
    if prefix.len() > PREFIX_BYTES_MAX {
        return Err(Invalid::new(
            key,
            format!("is longer than {PREFIX_BYTES_MAX} bytes"),
        ));
    }
    prefix
        .split('/')
        .try_for_each(|level| validate_level(key, level))
}

/// `<prefix>/<device>/state`: `online` or `offline`, retained.
pub fn state(prefix: &str, device: &str) -> String {
    format!("{prefix}/{device}/state")
}

/// `<prefix>/<device>/statistics`: how the device is doing, retained.
pub fn statistics(prefix: &str, device: &str) -> String {
    format!("{prefix}/{device}/statistics")
}

/// `<prefix>/<device>/<camera>/state`: whether the camera delivers, retained.
pub fn camera_state(prefix: &str, device: &str, camera: &str) -> String {
    format!("{prefix}/{device}/{camera}/state")
}

/// `<prefix>/<device>/<camera>/detection`: whether frames are examined, retained.
pub fn detection(prefix: &str, device: &str, camera: &str) -> String {
    format!("{prefix}/{device}/{camera}/detection")
}

/// `<prefix>/<device>/<camera>/settings`: what commands can change, as it is, retained.
pub fn settings(prefix: &str, device: &str, camera: &str) -> String {
    format!("{prefix}/{device}/{camera}/settings")
}

/// `<prefix>/<device>/<camera>/command`: below it, what may be asked for, and `response`.
pub fn command(prefix: &str, device: &str, camera: &str) -> String {
    format!("{prefix}/{device}/{camera}/command")
}

/// `<prefix>/<device>/<camera>/events`: a document an event.
pub fn events(prefix: &str, device: &str, camera: &str) -> String {
    format!("{prefix}/{device}/{camera}/events")
}

/// `<prefix>/<device>/<camera>/counts`: how many are where, retained.
pub fn counts(prefix: &str, device: &str, camera: &str) -> String {
    format!("{prefix}/{device}/{camera}/counts")
}

/// `<prefix>/<device>/<camera>/detections`: a document a frame.
pub fn detections(prefix: &str, device: &str, camera: &str) -> String {
    format!("{prefix}/{device}/{camera}/detections")
}

/// `<prefix>/<device>/<camera>/snapshot`: a JPEG of everybody who was seen.
pub fn snapshot(prefix: &str, device: &str, camera: &str) -> String {
    format!("{prefix}/{device}/{camera}/snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_would_change_a_topics_meaning_are_refused() {
        for bad in [
            "",
            "a/b",
            "+",
            "#",
            "a b",
            "ä",
            "$SYS",
            "a\0",
            &"x".repeat(65),
        ] {
            assert!(validate_level("device.id", bad).is_err(), "{bad:?}");
        }
        for good in ["pi", "Pi-4_a.lan", &"x".repeat(64)] {
            assert_eq!(validate_level("device.id", good), Ok(()), "{good:?}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/#"] {
            assert!(validate_prefix("mqtt.prefix", bad).is_err(), "{bad:?}");
        }
        assert_eq!(validate_prefix("mqtt.prefix", "home/ternwatch"), Ok(()));
    }

    #[test]
    fn the_hosts_name_is_the_default_id() {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
        assert_eq!(DeviceConfig { id: "".into() }.id(), host.trim());
        assert_eq!(DeviceConfig { id: "pi".into() }.id(), "pi");
    }

    #[test]
    fn topics_are_as_documented() {
        assert_eq!(state("ternwatch", "pi"), "ternwatch/pi/state");
        assert_eq!(statistics("a/b", "pi"), "a/b/pi/statistics");
        assert_eq!(camera_state("a/b", "pi", "door"), "a/b/pi/door/state");
        assert_eq!(detections("a/b", "pi", "door"), "a/b/pi/door/detections");
        assert_eq!(events("a/b", "pi", "door"), "a/b/pi/door/events");
        assert_eq!(counts("a/b", "pi", "door"), "a/b/pi/door/counts");
        assert_eq!(snapshot("a/b", "pi", "door"), "a/b/pi/door/snapshot");
        assert_eq!(settings("a/b", "pi", "door"), "a/b/pi/door/settings");
    }
}
