//! The model comes from a signed file: nothing of it is believed before the signature is.

use crate::config::{Invalid, in_range};
use crate::exit::Reason;
use crate::processor::IsaChoice;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use ternwatch_bundle::hex;
use ternwatch_bundle::manifest::HeadKind;
use ternwatch_bundle::model::ModelHead;
use ternwatch_bundle::parse::FILE_LEN_MAX;
use ternwatch_bundle::{
    BundleError, KeyError, KeyringError, Model, ModelError, PublicKey, Thresholds, TrustedKeys,
    UnverifiedBundle, VerifiedBundle,
};
use ternwatch_detector::golden::{self, GoldenMismatch};
use ternwatch_detector::{Detector, DetectorError, Isa};
use thiserror::Error;

/// A key file is two short lines.
const KEY_BYTES_MAX: usize = 4096;

/// The layers are too small for more.
const THREADS_MAX: usize = 8;

/// The `[model]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The signed model.
    pub bundle: PathBuf,
    /// The public key that signed it.
    pub key: PathBuf,
    /// The root keys that may say which other keys sign models; empty: nobody may.
    pub roots: PathBuf,
    /// Least score of a detection; 0: as the model recommends.
    pub score_min: f32,
    /// Most overlap of two detections; 0: as the model recommends.
    pub iou_max: f32,
    /// `auto`, or the name of an instruction set level.
    pub isa: String,
    /// How many threads run the layers.
    pub threads: usize,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.score_min != 0.0 {
            in_range("model.score_min", self.score_min, 0.01..=1.0)?;
        }
        if self.iou_max != 0.0 {
            in_range("model.iou_max", self.iou_max, 0.01..=1.0)?;
        }
        in_range("model.threads", self.threads, 1..=THREADS_MAX)?;
        self.wanted_isa().map(drop)
    }

    /// The instruction set level that is in effect; `auto` measures.
    pub fn choose_isa(&self) -> Result<IsaChoice, Invalid> {
        let wanted = self.wanted_isa()?;
        Ok(wanted.map_or_else(IsaChoice::by_measurement, IsaChoice::by_setting))
    }

    fn wanted_isa(&self) -> Result<Option<Isa>, Invalid> {
        if self.isa == "auto" {
            return Ok(None);
        }
        let isa = self.isa.parse();
        isa.map(Some)
            .map_err(|error| Invalid::new("model.isa", format!("{error}")))
    }

    /// The thresholds that are in effect for a model that recommends `recommended`.
    pub fn thresholds(&self, recommended: Thresholds) -> Thresholds {
        let or = |setting, recommended| {
            if setting == 0.0 { recommended } else { setting }
        };
        Thresholds {
            score: or(self.score_min, recommended.score),
            iou: or(self.iou_max, recommended.iou),
        }
    }
}

/// Which model looked at the frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelIdentity {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 of the whole bundle, as hexadecimal digits.
    pub sha256: String,
}

/// A model that is ready to look at frames.
#[derive(Debug)]
pub struct Loaded {
    /// Runs the model.
    pub detector: Detector,
    /// The thresholds that are in effect.
    pub thresholds: Thresholds,
    /// Those that the model recommends.
    pub recommended: Thresholds,
    /// Name, version and digest.
    pub identity: ModelIdentity,
    /// Class names by index.
    pub classes: Vec<String>,
}

/// Why there is no model.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file is not there or not readable.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file is damaged.
    #[error("{} is not a public key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The file of root keys is damaged.
    #[error("{} does not hold root keys", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyringError,
    },
    /// The bundle is damaged, or the key did not sign it.
    #[error("{} is refused", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// The bundle is signed, but makes no sense.
    #[error("the model in {} is refused", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ModelError,
    },
    /// The model classifies pictures.
    #[error("the model in {} finds no boxes: it classifies whole pictures", path.display())]
    NoBoxes {
        /// The file.
        path: PathBuf,
    },
    /// The model cannot run here.
    #[error("the model in {} does not run", path.display())]
    Detector {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DetectorError,
    },
    /// This processor computes other results than the model's makers saw.
    #[error("the model in {} does not give its recorded answers with {isa}", path.display())]
    Golden {
        /// The file.
        path: PathBuf,
        /// The instruction set level that was tried.
        isa: Isa,
        /// The first difference.
        source: GoldenMismatch,
    },
    /// This processor makes other inputs of what cameras give.
    #[error("frames of cameras do not become what they have to with {isa}")]
    Cameras {
        /// The instruction set level that was tried.
        isa: Isa,
        /// The first difference.
        source: GoldenMismatch,
    },
}

impl LoadError {
    /// The exit code that says so.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Read { .. } => Reason::NoInput,
            _ => Reason::Data,
        }
    }
}

/// Checks what no model records: that frames in the formats of cameras become the right inputs on this processor.
pub fn check_cameras(isa: Isa) -> Result<(), LoadError> {
    golden::check_cameras(isa).map_err(|source| LoadError::Cameras { isa, source })
}

/// Reads, verifies and prepares the configured model, and checks that it gives its recorded answers on this processor.
pub fn load(config: &Config, isa: Isa) -> Result<Loaded, LoadError> {
    let keys = trusted_keys(config)?;
    let file = read(&config.bundle, FILE_LEN_MAX)?;
    prepare(
        config,
        isa,
        &config.bundle,
        &verify(&keys, &config.bundle, &file)?,
    )
}

/// The packaged key.
pub fn trusted_keys(config: &Config) -> Result<TrustedKeys, LoadError> {
    let text = read(&config.key, KEY_BYTES_MAX)?;
    let key = PublicKey::from_text(&String::from_utf8_lossy(&text));
    let key = key.map_err(|source| LoadError::Key {
        path: config.key.clone(),
        source,
    })?;
    Ok(TrustedKeys::from_iter([key]))
}

/// Checks the signature of a file that came from `origin`.
pub fn verify<'a>(
    keys: &TrustedKeys,
    origin: &Path,
    file: &'a [u8],
) -> Result<VerifiedBundle<'a>, LoadError> {
    UnverifiedBundle::from_bytes(file)
        .and_then(|bundle| bundle.verify(keys))
        .map_err(|source| LoadError::Bundle {
            path: origin.into(),
            source,
        })
}

/// Makes a detector of a signed model, and checks that it gives its recorded answers on this processor.
pub fn prepare(
    config: &Config,
    isa: Isa,
    origin: &Path,
    bundle: &VerifiedBundle<'_>,
) -> Result<Loaded, LoadError> {
    let path = || origin.to_owned();
    let model = Model::load(bundle).map_err(|source| LoadError::Model {
        path: path(),
        source,
    })?;
    let has_boxes = |head: &ModelHead| head.kind == HeadKind::Boxes;
    if !model.heads().iter().any(has_boxes) {
        return Err(LoadError::NoBoxes { path: path() });
    }
    golden::check(&model, isa).map_err(|source| LoadError::Golden {
        path: path(),
        isa,
        source,
    })?;
    let detector = Detector::for_threads(&model, isa, config.threads);
    let detector = detector.map_err(|source| LoadError::Detector {
        path: path(),
        source,
    })?;
    Ok(Loaded {
        detector,
        thresholds: config.thresholds(model.thresholds()),
        recommended: model.thresholds(),
        identity: ModelIdentity {
            name: model.id().name.clone(),
            version: model.id().version,
            sha256: hex::encode(&model.sha256()),
        },
        classes: model.classes().to_vec(),
    })
}

/// Reads a file of at most `len_max` bytes; a longer one is cut there, which its parser then notices.
pub fn read(path: &Path, len_max: usize) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(len_max as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| LoadError::Read {
            path: path.into(),
            source,
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            bundle: "/nonexistent/person.tern".into(),
            key: "/nonexistent/default.pub".into(),
            roots: "".into(),
            score_min: 0.0,
            iou_max: 0.0,
            isa: "auto".into(),
            threads: 1,
        }
    }

    #[test]
    fn thresholds_of_zero_are_the_models_own() {
        let recommended = Thresholds {
            score: 0.4,
            iou: 0.6,
        };
        assert_eq!(config().thresholds(recommended), recommended);
        let stricter = Config {
            score_min: 0.9,
            ..config()
        };
        assert_eq!(
            stricter.thresholds(recommended),
            Thresholds {
                score: 0.9,
                iou: 0.6
            }
        );
    }

    #[test]
    fn thresholds_out_of_range_and_unknown_instruction_sets_are_refused() {
        let refused = |config: Config| config.validate().expect_err("refused").key;
        let bad = Config {
            score_min: f32::NAN,
            ..config()
        };
        assert_eq!(refused(bad), "model.score_min");
        let bad = Config {
            iou_max: 1.5,
            ..config()
        };
        assert_eq!(refused(bad), "model.iou_max");
        let bad = Config {
            isa: "sse9".into(),
            ..config()
        };
        assert_eq!(refused(bad), "model.isa");
        assert_eq!(config().validate(), Ok(()));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(&config(), Isa::detect()).expect_err("missing");
        assert_eq!(error.reason(), Reason::NoInput);
        assert!(error.to_string().contains("/nonexistent/default.pub"));
    }
}
