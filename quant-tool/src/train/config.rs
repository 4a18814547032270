//! The training configuration: one TOML file that holds all that decides about a model.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{data::augment, network, quantize};

/// A training configuration. Unknown keys are refused by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model's name.
    pub name: String,
    /// The model's version; grows with every release.
    pub version: u64,
    /// Seed of the weights and of every sample.
    pub seed: u64,
    /// Default thresholds of the exported model: score, IoU.
    pub thresholds: [f32; 2],
    /// The architecture.
    pub network: network::Config,
    /// The float stage.
    pub float: Float,
    /// The soft and hard stages.
    pub quantize: quantize::Config,
    /// How samples are drawn.
    pub augment: augment::Config,
}

/// The float stage, and what all stages share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Float {
    /// Steps.
    pub steps: u64,
    /// Images a step.
    pub batch: usize,
    /// Width and height of a sample in pixels, multiples of 32.
    pub sample: [usize; 2],
    /// Highest learning rate.
    pub rate: f32,
    /// AdamW's decay of weights.
    pub weight_decay: f32,
    /// Decay of the moving average whose weights are kept.
    pub average_decay: f32,
}

impl Config {
    /// Reads and checks a configuration.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        let f = &config.float;
        ensure!(
            (1..=1024).contains(&f.batch),
            "float.batch = {} is not 1 to 1024",
            f.batch
        );
        let sides = f
            .sample
            .iter()
            .all(|s| s % 32 == 0 && (32..=2048).contains(s));
        ensure!(
            sides,
            "float.sample = {:?}: both must be multiples of 32, at most 2048",
            f.sample
        );
        ensure!(
            f.rate > 0.0 && f.rate < 1.0,
            "float.rate = {} is not between 0 and 1",
            f.rate
        );
        ensure!(
            (0.0..1.0).contains(&f.average_decay),
            "float.average_decay = {} is not below 1",
            f.average_decay
        );
        let q = &config.quantize;
        ensure!(
            q.groups.last() == Some(&1.0),
            "quantize.groups = {:?}: the last one must be 1",
            q.groups
        );
        ensure!(
            q.groups.is_sorted(),
            "quantize.groups = {:?} do not grow",
            q.groups
        );
        ensure!(
            (0.0..1.0).contains(&q.last_group_at),
            "quantize.last_group_at = {} is not below 1",
            q.last_group_at
        );
        ensure!(
            (0.0..=1.0).contains(&q.pull),
            "quantize.pull = {} is not 0 to 1",
            q.pull
        );
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: &str = include_str!("../../../models/person.toml");

    #[test]
    fn the_shipped_configuration_is_sound() {
        Config::parse(PERSON).unwrap();
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let error = Config::parse(&PERSON.replace("[float]", "[float]\nbatsch = 3")).unwrap_err();
        assert!(format!("{error:#}").contains("batsch"), "{error:#}");
        let error = Config::parse(&PERSON.replace("rate = 0.002", "rate = 7.0")).unwrap_err();
        assert!(format!("{error:#}").contains("float.rate = 7"), "{error:#}");
    }
}
