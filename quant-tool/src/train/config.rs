//! The training configuration: one TOML file that holds all that decides about a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use ternwatch_bundle::manifest::{ModelId, Thresholds};
use ternwatch_ota::identity::VERSION_MAX;

use super::check::{BadValue, check};
use crate::import::stored::{self, Stored};
use crate::network::{self, Network};
use crate::{data::augment, import, quantize};

/// Pixels of a batch that fit into the memory of a usual machine.
const BATCH_PIXELS_MAX: usize = 64 << 20;

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
    /// What the float stage begins with in place of random parameters: a bundle, `float.safetensors` of another run, or what
    /// `export --float` writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// The public key that checks the bundle to start with; `default.pub` beside it where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_key: Option<PathBuf>,
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
    /// Whoever compares ways begins and teaches alike in all of them.
    #[error(
        "start and teacher are not for `reproduce`, whose ways all begin with one float network and learn from it"
    )]
    Reproduced,
    /// A teacher with nothing to say.
    #[error("teacher says nothing where quantize.distillation is 0")]
    Silent,
    /// A network that no detector would load.
    #[error("no detector would load such a model: {0}")]
    Unusable(String),
    /// An imported network begins with what was imported.
    #[error(
        "start is for a network that [network] describes; an [imported] one begins with its file"
    )]
    Start,
    /// A line that ended up behind the last table.
    #[error("{0} stands in [card]: it is a line before the first table")]
    InCard(&'static str),
    /// A key for nothing.
    #[error("start_key is of a bundle to start with: there is no start")]
    StartKey,
    /// A teacher that was taught something else.
    #[error("{}: finds other classes, or answers at other strides, than the network that is to learn from it (teacher)", .0.display())]
    Teacher(PathBuf),
    /// A run folder with checkpoints of another configuration.
    #[error("{} is another configuration than the one given ({}): choose another run folder", .0.display(), .1.join(", "))]
    Mixed(PathBuf, Vec<String>),
    /// A teacher that has not learned to its end.
    #[error("{}: its float network has done {done} of {steps} steps (teacher)", .run.display())]
    Learning {
        /// Its folder.
        run: PathBuf,
        /// Steps that it has done.
        done: u64,
        /// Steps that it is to do.
        steps: u64,
    },
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
        check(
            config.version <= VERSION_MAX,
            "version",
            &config.version,
            "at most 9007199254740991, the greatest that every device can count",
        )?;
        match (&config.network, &config.imported) {
            (Some(network), None) => network.check()?,
            (None, Some(imported)) => imported.check()?,
            _ => return Err(ConfigError::Network),
        }
        if config.imported.is_some() && config.start.is_some() {
            return Err(ConfigError::Start);
        }
        // The last table takes any text: a line at the end of the file would be one.
        let lines = ["start", "start_key", "teacher"];
        if let Some(line) = lines.into_iter().find(|l| config.card.contains_key(*l)) {
            return Err(ConfigError::InCard(line));
        }
        if config.start_key.is_some() && config.start.is_none() {
            return Err(ConfigError::StartKey);
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
        check(
            (0.0..=1.0).contains(&f.weight_decay),
            "float.weight_decay",
            &f.weight_decay,
            "from 0 to 1",
        )?;
        let pixels = f.sample.iter().product::<usize>();
        check(
            pixels.saturating_mul(f.batch) <= BATCH_PIXELS_MAX,
            "float.batch, sample",
            &(f.batch, f.sample),
            "at most 64 million pixels in a batch",
        )?;
        config.quantize.check()?;
        config.augment.check()?;
        if config.teacher.is_some() && config.quantize.distillation == 0.0 {
            return Err(ConfigError::Silent);
        }
        // What an imported network is called, and when it reports, is known before its layers are.
        let smallest = network::Config::smallest();
        let network = config.network.as_ref().unwrap_or(&smallest);
        let network = Network::new(network, config.classes.len() as u32);
        stored::check(&network, config.id(), &config.classes, config.thresholds())
            .map_err(|error| ConfigError::Unusable(format!("{error:#}")))?;
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

    /// What decides about the parameters: names, thresholds and texts may differ. The float stage knows nothing of the settings of the
    /// later ones.
    pub fn essence(&self, of_float_stage: bool) -> Result<serde_json::Value, serde_json::Error> {
        let mut essence = serde_json::to_value(self)?;
        let told = ["name", "version", "thresholds", "card"];
        let later = ["quantize", "teacher"];
        if let Some(keys) = essence.as_object_mut() {
            let is_left_out =
                |key: &str| told.contains(&key) || of_float_stage && later.contains(&key);
            keys.retain(|key, _| !is_left_out(key));
        }
        Ok(essence)
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
        for (good, bad, key) in [
            ("mosaic = 0.4", "mosaic = 1.4", "augment.mosaic = 1.4"),
            (
                "scale = [0.6, 2.5]",
                "scale = [2.5, 0.6]",
                "augment.scale = [2.5, 0.6]",
            ),
            (
                "scale = [0.6, 2.5]",
                "scale = [0.001, 0.002]",
                "augment.scale = [0.001, 0.002]",
            ),
            (
                "version = 7",
                "version = 9007199254740992",
                "version = 9007199254740992",
            ),
            (
                "lobby-320 = 0.4",
                "lobby-320 = -0.4",
                "augment.source_weights",
            ),
        ] {
            let error = Config::parse(&PERSON.replace(good, bad)).unwrap_err();
            assert!(format!("{error:#}").contains(key), "{error:#}");
        }
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
        for (good, bad, named) in [
            ("thresholds = [0.51, ", "thresholds = [1.51, ", "1.51"),
            ("name = \"person\"", "name = \"no name\"", "no name"),
        ] {
            let text = neither.replace("[float]", imported).replace(good, bad);
            let error = Config::parse(&text).unwrap_err();
            assert!(matches!(error, ConfigError::Unusable(_)), "{error:#}");
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
        let odd = neither.replace(
            "[float]",
            &imported.replace("[imported]", "[imported]\nmeen = [0, 0, 0]"),
        );
        let error = Config::parse(&odd).unwrap_err();
        assert!(format!("{error:#}").contains("meen"), "{error:#}");
    }
}
