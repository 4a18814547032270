//! The training configuration: one TOML file that holds all that decides about a model.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use ternwatch_bundle::manifest::{ModelId, Thresholds};

use super::check::{BadValue, check};
use crate::network::{self, Network};
use crate::{data::augment, quantize};

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
    /// What it finds, by the names that the annotations use.
    #[serde(default = "person")]
    pub classes: Vec<String>,
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
    /// What the model card says besides numbers: data, licences, use, limits.
    #[serde(default)]
    pub card: BTreeMap<String, String>,
}

fn person() -> Vec<String> {
    vec!["person".into()]
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No TOML, an unknown key, or a value of the wrong type.
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    /// A value out of its range.
    #[error(transparent)]
    Value(#[from] BadValue),
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

/// The part of a configuration that the stages need, whatever the task.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// Seed of the weights and of every sample.
    pub seed: u64,
    /// The float stage.
    pub float: &'a Float,
    /// The soft and hard stages.
    pub quantize: &'a quantize::Config,
}

impl Config {
    /// Reads and checks a configuration.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Parses and checks the text of a configuration.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        let classes = &config.classes;
        check(
            (1..=256).contains(&classes.len()),
            "classes",
            classes,
            "1 to 256 names",
        )?;
        let n = &config.network;
        let widths = [&n.stem[..], &n.stage8, &n.stage16, &n.stage32, &[n.neck]].concat();
        let wide = widths.iter().all(|w| (1..=1024).contains(w));
        check(wide, "network", &widths, "widths are 1 to 1024 channels")?;
        let stages = [&n.stage8, &n.stage16, &n.stage32]
            .iter()
            .all(|s| !s.is_empty());
        check(stages, "network", &widths, "every stage needs a layer")?;
        let sides = [n.width, n.height];
        check(
            sides.iter().all(|s| (32..=2048).contains(s)),
            "network.width, height",
            &sides,
            "sides are 32 to 2048 pixels",
        )?;
        let f = &config.float;
        check(
            (2..=1024).contains(&f.batch),
            "float.batch",
            &f.batch,
            "2 to 1024 images",
        )?;
        let sides = f
            .sample
            .iter()
            .all(|s| s % 32 == 0 && (32..=2048).contains(s));
        check(
            sides,
            "float.sample",
            &f.sample,
            "multiples of 32, at most 2048",
        )?;
        check(
            f.rate > 0.0 && f.rate < 1.0,
            "float.rate",
            &f.rate,
            "between 0 and 1",
        )?;
        check(
            (0.0..1.0).contains(&f.average_decay),
            "float.average_decay",
            &f.average_decay,
            "from 0 to below 1",
        )?;
        config.quantize.check()?;
        Ok(config)
    }

    /// The exported model's name and version.
    pub fn id(&self) -> ModelId {
        ModelId {
            name: self.name.clone(),
            version: self.version,
        }
    }

    /// The exported model's thresholds.
    pub fn thresholds(&self) -> Thresholds {
        let [score, iou] = self.thresholds;
        Thresholds { score, iou }
    }

    /// The network that this configuration describes.
    pub fn network(&self) -> Network {
        Network::new(&self.network, self.classes.len() as u32)
    }

    /// What the stages need to know.
    pub fn recipe(&self) -> Recipe<'_> {
        Recipe {
            seed: self.seed,
            float: &self.float,
            quantize: &self.quantize,
        }
    }

    /// Whether both lead to the same parameters: names, thresholds and texts may differ.
    pub fn trains_like(&self, other: &Self) -> bool {
        let essence = |c: &Self| Self {
            name: String::new(),
            version: 0,
            thresholds: [0.0; 2],
            card: BTreeMap::new(),
            ..c.clone()
        };
        essence(self) == essence(other)
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
