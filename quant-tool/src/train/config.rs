//! The training configuration: one TOML file that holds all that decides about a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use ternwatch_bundle::manifest::{ModelId, Thresholds};

use super::check::{BadValue, check};
use crate::import::stored::Stored;
use crate::network::{self, Network};
use crate::{data::augment, import, quantize};

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
    /// File of parameters that the float stage begins with in place of random ones: `float.safetensors` of another run, or what
    /// `export --float` writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Folder of another run whose float network teaches in the soft and hard stages, in place of this run's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// The architecture of a network that is trained here from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<network::Config>,
    /// What is to be known of one that `quant-tool import` reads, in place of `network`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<import::config::Config>,
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
    /// Not exactly one description of the network.
    #[error("the network is described either by [network] or by [imported]")]
    Network,
    /// An imported network cannot be trained from the start.
    #[error(
        "an [imported] network has its float training behind it; only one that [network] describes is trained from the start"
    )]
    Imported,
    /// An imported network begins with what was imported.
    #[error(
        "start is for a network that [network] describes; an [imported] one begins with its file"
    )]
    Start,
    /// A teacher that was taught something else.
    #[error("{}: finds other classes, or answers at other strides, than the network that is to learn from it (teacher)", .0.display())]
    Teacher(PathBuf),
    /// A run folder with checkpoints of another configuration.
    #[error("{} is another configuration than the one given: choose another run folder", .0.display())]
    Mixed(PathBuf),
    /// A network that is trained here cannot be imported.
    #[error("no table [imported], which says what is to be known of the file")]
    NotImported,
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
        match (&config.network, &config.imported) {
            (Some(network), None) => network.check()?,
            (None, Some(imported)) => imported.check()?,
            _ => return Err(ConfigError::Network),
        }
        if config.imported.is_some() && config.start.is_some() {
            return Err(ConfigError::Start);
        }
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

    /// The network that this configuration describes, or that the folder `run` has an imported one's layers of.
    pub fn network(&self, run: &Path) -> Result<Network> {
        match &self.network {
            Some(network) => Ok(Network::new(network, self.classes.len() as u32)),
            None => Ok(Stored::read(run, &self.classes)?.network()),
        }
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
        let error = Config::parse(&PERSON.replace("neck = 48", "neck = 0")).unwrap_err();
        assert!(format!("{error:#}").contains("network = "), "{error:#}");
    }

    #[test]
    fn a_network_is_described_once() {
        let imported = "[imported]\nheads = [{ outputs = [\"p8\"], stride = 8 }]\n[float]";
        let both = PERSON.replace("[float]", imported);
        let error = Config::parse(&both).unwrap_err();
        assert!(matches!(error, ConfigError::Network), "{error:#}");
        let start = PERSON.find("[network]").unwrap();
        let end = PERSON.find("[float]").unwrap();
        let neither = format!("{}{}", &PERSON[..start], &PERSON[end..]);
        let error = Config::parse(&neither).unwrap_err();
        assert!(matches!(error, ConfigError::Network), "{error:#}");
        let config = Config::parse(&neither.replace("[float]", imported)).unwrap();
        assert_eq!(config.imported.unwrap().fill, 57);
        let odd = neither.replace(
            "[float]",
            &imported.replace("[imported]", "[imported]\nmeen = [0, 0, 0]"),
        );
        let error = Config::parse(&odd).unwrap_err();
        assert!(format!("{error:#}").contains("meen"), "{error:#}");
    }
}
