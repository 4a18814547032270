//! The `[update]` section.

use super::hawkbit;
use super::record::NAMES_MAX;
use super::trial::Length;
use super::web;
use crate::config::{Invalid, in_range};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use ternwatch_ota::identity::NAME_BYTES_MAX;

/// How models are replaced.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where models are kept. If the folder is not there, there are no updates.
    pub state_dir: PathBuf,
    /// Whether models are taken from the broker.
    pub over_mqtt: bool,
    /// Whether a model that is offered is installed at once, or when somebody says so.
    pub automatic: bool,
    /// Names of the models that are taken; empty: all that a trusted key signed.
    pub names: Vec<String>,
    /// Beginnings of the URLs that models may be fetched from; empty: none are.
    pub urls: Vec<String>,
    /// Certificate authorities (PEM) of those servers; empty: those of the system.
    pub ca_file: PathBuf,
    /// Frames of a trial, and of the comparison before it.
    pub trial_frames: u64,
    /// Least time of a trial, and of the comparison before it, in seconds.
    pub trial_s: u64,
    /// Trials that may be cut off before the model is given up.
    pub attempts_max: u32,
    /// Downloads that may begin within an hour.
    pub downloads_per_hour_max: u32,
    /// Longest time of an inference on this device.
    pub latency_ms_max: f64,
    /// A server of Eclipse hawkBit that says which model is installed.
    pub hawkbit: hawkbit::Config,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.state_dir.is_relative() {
            return Err(Invalid::new("update.state_dir", "is no absolute path"));
        }
        if self.names.len() > NAMES_MAX {
            let reason = format!("has more than {NAMES_MAX} names");
            return Err(Invalid::new("update.names", reason));
        }
        let is_name = |name: &String| (1..=NAME_BYTES_MAX).contains(&name.len());
        if !self.names.iter().all(is_name) {
            let reason = format!("has a name that is empty or longer than {NAME_BYTES_MAX} bytes");
            return Err(Invalid::new("update.names", reason));
        }
        web::validate(&self.urls)?;
        let has_server = !self.urls.is_empty() || self.hawkbit.is_on();
        if !has_server && !self.ca_file.as_os_str().is_empty() {
            return Err(Invalid::new(
                "update.ca_file",
                "is set, but `update.urls` and `update.hawkbit.url` are empty",
            ));
        }
        self.hawkbit.validate()?;
        in_range("update.trial_frames", self.trial_frames, 1..=100_000)?;
        in_range("update.trial_s", self.trial_s, 0..=86_400)?;
        in_range("update.attempts_max", self.attempts_max, 1..=100)?;
        in_range(
            "update.downloads_per_hour_max",
            self.downloads_per_hour_max,
            1..=1000,
        )?;
        in_range("update.latency_ms_max", self.latency_ms_max, 1.0..=60_000.0)
    }

    /// How long a model is watched.
    pub fn trial(&self) -> Length {
        Length {
            frames: self.trial_frames,
            time: Duration::from_secs(self.trial_s),
        }
    }
}
