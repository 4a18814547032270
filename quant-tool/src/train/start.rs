//! What the float stage begins with in place of random parameters: those of another run, or what the layers of a bundle
//! compute.
//!
//! A bundle holds levels, and one multiplier and one bias a channel, into which export has folded normalization. It is laid
//! open again in two steps: every channel gets the slope and the shift that its multiplier and bias stand for, and then,
//! layer by layer, the statistics that samples show, with the slope and shift that make good for them. The network computes
//! what the bundle does, and learns on as if it had come to this on floats.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use ternwatch_bundle::hex;
use ternwatch_bundle::manifest::{Activation, Layer, ModelId};
use ternwatch_bundle::model::{ConvLayer, Epilogue, ModelLayer};
use ternwatch_bundle::parse::MAGIC;
use ternwatch_kernels::Trit;

use super::graph::{Activations, EPSILON, Gradients, Images, Statistics, forward};
use super::parameters::{Checkpoint, Parameters, Role};
use crate::cli::BundleFile;
use crate::files::{self, Opened};
use crate::network::{Conv, IMAGE, Network};
use crate::quantize::activation::{IMAGE_STEP, STEP};
use crate::quantize::ternary;

/// Samples that the statistics of a bundle's layers are measured on, at least.
pub const SAMPLES: usize = 64;

/// A multiplier of one, Q15.
const ONE_Q15: f32 = 32768.0;

/// What the float stage begins with.
pub struct Start {
    parameters: Parameters,
    /// Where they come from.
    pub origin: Origin,
    /// Classes that a bundle's heads answer for, in their order.
    pub classes: Option<Vec<String>>,
    /// Heads for another number of classes, whose layers begin anew.
    pub anew: Vec<String>,
}

/// Where parameters come from, for the model card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The bundle's model; another run's floats have no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// A file that is not to be begun with.
#[derive(Debug, thiserror::Error)]
pub enum BadStart {
    /// There is a key, and nothing that it could check.
    #[error("start_key checks a bundle, and {} is none", .0.display())]
    NoBundle(PathBuf),
    /// It has no such layer.
    #[error("it has no layer {0}, which [network] describes")]
    Missing(String),
    /// It has another one of that name.
    #[error(
        "its layer {name} has weights {there:?} (output, input, height, width) or reads something else, [network] describes {here:?}"
    )]
    Other {
        /// Its name.
        name: String,
        /// Dimensions of the bundle's weights.
        there: [usize; 4],
        /// Dimensions of those that are wanted.
        here: [usize; 4],
    },
}

impl Start {
    /// Reads `file`: another run's parameters, or a bundle, which the key in `key` checks, `default.pub` beside it where there is
    /// none. It has to be of the same layers as `network`, but for the number of classes.
    pub fn read(file: &Path, key: Option<&Path>, network: &Network, seed: u64) -> Result<Self> {
        let mut parameters = Parameters::init(network, seed);
        if !is_bundle(file)? {
            ensure!(key.is_none(), BadStart::NoBundle(file.into()));
            let checkpoint = Checkpoint::read(file)?;
            let anew = parameters.begin_with(network, &checkpoint)?;
            return Ok(Self {
                parameters,
                origin: Origin {
                    model: None,
                    sha256: hex::encode(&checkpoint.sha256()),
                },
                classes: None,
                anew,
            });
        }
        let key = files::key_of(&BundleFile {
            bundle: file.into(),
            key: key.map(Path::to_path_buf),
        })?;
        let bundle = files::open(file, [key])?;
        let anew = lay_open(&bundle, network, &mut parameters)
            .with_context(|| file.display().to_string())?;
        Ok(Self {
            parameters,
            origin: Origin {
                model: Some(bundle.manifest.model.clone()),
                sha256: hex::encode(&bundle.model.sha256()),
            },
            classes: Some(bundle.manifest.classes),
            anew,
        })
    }

    /// The parameters. `images` draws at least [`SAMPLES`] samples, and is asked for them where a bundle is begun with.
    pub fn parameters(
        mut self,
        network: &Network,
        images: impl FnOnce() -> Result<Images>,
    ) -> Result<Parameters> {
        // The layers of a bundle are laid open in part only.
        if self.origin.model.is_some() {
            normalize(network, &mut self.parameters, &images()?)?;
        }
        Ok(self.parameters)
    }
}

fn is_bundle(file: &Path) -> Result<bool> {
    let mut first = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut first))
        .with_context(|| format!("reading {}", file.display()))?;
    Ok(first == MAGIC)
}

/// Weights, slopes and shifts of a bundle's layers, for running statistics of mean 0 and variance 1. Returns the heads that are for
/// another number of classes and stay as they are.
fn lay_open(bundle: &Opened, network: &Network, into: &mut Parameters) -> Result<Vec<String>> {
    let mut anew = Vec::new();
    for layer in &network.layers {
        let missing = || BadStart::Missing(layer.name().into());
        let mut theirs = bundle.manifest.layers.iter().zip(bundle.model.layers());
        let (said, theirs) = theirs
            .find(|(said, _)| said.name() == layer.name())
            .ok_or_else(missing)?;
        let (Some(conv), ModelLayer::Conv(theirs)) = (Conv::of(layer), theirs) else {
            ensure!(said == layer, missing());
            continue;
        };
        let is_head = network.heads.iter().any(|head| head.layer == conv.name);
        let there = Conv::of(said).map_or(conv.shape, |conv| conv.shape);
        if is_head && there[0] != conv.shape[0] && there[1..] == conv.shape[1..] {
            anew.push(conv.name.to_owned());
            continue;
        }
        let other = || BadStart::Other {
            name: conv.name.into(),
            there,
            here: conv.shape,
        };
        ensure!(is_alike(said, layer), other());
        for n in 0..conv.shape[0] {
            let channel = Channel::of(theirs, n, conv.input == IMAGE);
            let own = n * conv.fan_in()..(n + 1) * conv.fan_in();
            let trits = &theirs.trits[own.clone()];
            into.get_mut(conv.name, Role::Gamma)[n] = channel.slope;
            into.get_mut(conv.name, Role::Beta)[n] = channel.shift;
            // What has no weight at all keeps its random ones, which nothing hears until it learns to.
            if channel.slope != 0.0 {
                let weights = &mut into.get_mut(conv.name, Role::Weight)[own];
                weights
                    .iter_mut()
                    .zip(trits)
                    .for_each(|(w, trit)| *w = ternary::value(*trit, channel.size));
            }
        }
    }
    Ok(anew)
}

/// Whether two layers compute alike. Where their parameters lie, and how far sums are shifted before they are multiplied, is of files.
fn is_alike(a: &Layer, b: &Layer) -> bool {
    let bare = |layer: &Layer| {
        let mut layer = layer.clone();
        if let Layer::Conv {
            pre_shift,
            offset,
            groups,
            ..
        } = &mut layer
        {
            (*pre_shift, *offset, *groups) = (0, 0, (*groups).max(1));
        }
        layer
    };
    bare(a) == bare(b)
}

/// An output channel as floats: `slope x sum of (size x trit x input) + shift`.
struct Channel {
    size: f32,
    slope: f32,
    shift: f32,
}

impl Channel {
    fn of(conv: &ConvLayer, n: usize, reads_image: bool) -> Self {
        let fan_in = conv.trits.len() / conv.bias.len();
        let trits = &conv.trits[n * fan_in..(n + 1) * fan_in];
        let weights = trits.iter().filter(|trit| **trit != Trit::Zero).count();
        // As large as those that He et al. 2015 begin with, which is what learning rates expect: the root of 2 is their norm.
        let size = (2.0 / weights.max(1) as f32).sqrt();
        // Of the output, for one step of the sum.
        let step = match &conv.epilogue {
            Epilogue::Relu {
                multiplier,
                pre_shift,
            } => f32::from(multiplier[n]) * f32::from(1u16 << pre_shift) / ONE_Q15 * STEP,
            Epilogue::Linear { scale } => scale[n],
        };
        let input_step = if reads_image { IMAGE_STEP } else { STEP };
        let slope = if weights == 0 {
            0.0
        } else {
            step / (size * input_step)
        };
        Self {
            size,
            slope,
            shift: step * f32::from(conv.bias[n]),
        }
    }
}

/// Gives every normalization the statistics of its sums in these images, and the scale and shift with which it computes what it
/// computed for a mean of 0 and a variance of 1.
fn normalize(network: &Network, parameters: &mut Parameters, images: &Images) -> Result<()> {
    let convs = || {
        network
            .convs()
            .filter(|conv| conv.activation == Activation::Relu)
    };
    let bar = crate::progress::bar(convs().count() as u64, "statistics");
    for (index, conv) in convs().enumerate() {
        // All before it are normalized by these images' statistics already, so that it reads what it reads in the bundle.
        let mode = (Activations::U7, Statistics::Batch);
        let pass = forward(network, parameters, images.clone(), mode, Gradients::None)?;
        let (_, means, variances) = &pass.statistics[index];
        for (n, (mean, variance)) in means.iter().zip(variances).enumerate() {
            let slope = parameters.get(conv.name, Role::Gamma)[n];
            let gamma = slope * (variance + EPSILON as f32).sqrt();
            parameters.get_mut(conv.name, Role::Gamma)[n] = gamma;
            parameters.get_mut(conv.name, Role::Beta)[n] += slope * mean;
            parameters.get_mut(conv.name, Role::Mean)[n] = *mean;
            parameters.get_mut(conv.name, Role::Variance)[n] = *variance;
        }
        bar.inc(1);
    }
    bar.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export;
    use crate::quantize::{Order, Quantizer};
    use crate::train::config::Config;
    use sha2::{Digest, Sha256};
    use ternwatch_bundle::SecretKey;
    use ternwatch_bundle::manifest::{ModelId, Thresholds};

    const KEY: [u8; 32] = [7; 32];

    fn network(widths: [u32; 2], classes: u32) -> Network {
        let config = crate::network::Config {
            width: 64,
            height: 64,
            stem: [5, 7],
            stage8: vec![8, 6],
            stage16: vec![widths[0]],
            stage32: vec![widths[1]],
            neck: 6,
        };
        Network::new(&config, classes)
    }

    /// Parameters that were trained, at their levels, and their bundle in `file`.
    fn trained(network: &Network, file: &Path) -> Parameters {
        let mut parameters = Parameters::as_training_leaves_them(network, 5);
        let config = Config::parse(include_str!("../../../models/person.toml")).unwrap();
        let mut quantizer = Quantizer::fit(&parameters, &config.quantize);
        quantizer.fix(&mut parameters, 1.0, Order::Nearest);
        let source = export::Source {
            id: ModelId {
                name: "small".into(),
                version: 1,
            },
            classes: vec!["person".into()],
            thresholds: Thresholds {
                score: 0.5,
                iou: 0.5,
            },
            network,
            parameters: &parameters,
            quantizer: &quantizer,
            card: serde_json::Value::Null,
        };
        let key = SecretKey::from_bytes(&KEY);
        std::fs::write(file, export::bundle(&source, &key).unwrap()).unwrap();
        let public = file.with_file_name("default.pub");
        std::fs::write(public, key.public_key().to_text()).unwrap();
        parameters
    }

    fn images() -> Images {
        let mut rng = fastrand::Rng::with_seed(1);
        let (count, side) = (4, 64);
        let data = (0..count * 3 * side * side).map(|_| f32::from(rng.u8(0..128)) / 127.0);
        Images {
            data: data.collect(),
            count,
            height: side,
            width: side,
        }
    }

    #[test]
    fn it_computes_what_the_bundle_was_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("small.tern");
        let network = network([9, 10], 1);
        let before = trained(&network, &file);
        let start = Start::read(&file, None, &network, 3).unwrap();
        assert!(start.anew.is_empty());
        assert_eq!(start.classes, Some(vec!["person".to_owned()]));
        assert_eq!(start.origin.model.as_ref().unwrap().name, "small");
        let sha256 = Sha256::digest(std::fs::read(&file).unwrap());
        assert_eq!(start.origin.sha256, hex::encode(&sha256));
        let begun = start.parameters(&network, || Ok(images())).unwrap();
        let outputs = |parameters, statistics| {
            let mode = (Activations::U7, statistics);
            forward(&network, parameters, images(), mode, Gradients::None)
                .unwrap()
                .outputs
        };
        let expected = outputs(&before, Statistics::Running);
        // Also with a batch's own statistics, with which it goes on to learn.
        for statistics in [Statistics::Running, Statistics::Batch] {
            for (found, expected) in outputs(&begun, statistics).iter().zip(&expected) {
                let values = found.data.iter().zip(&expected.data);
                let errors: Vec<f32> = values.map(|(a, b)| (a - b).abs()).collect();
                let mean = errors.iter().sum::<f32>() / errors.len() as f32;
                // Multipliers and biases are rounded, and sums on the border of two steps fall to either.
                assert!(mean < 0.02, "stride {}: mean error {mean}", found.stride);
            }
        }
        let norm = |row: &[f32]| row.iter().map(|w| w * w).sum::<f32>();
        for conv in network.convs() {
            for row in begun.get(conv.name, Role::Weight).chunks(conv.fan_in()) {
                assert!(norm(row) > 0.1, "{}: no weight is left", conv.name);
            }
        }
    }

    #[test]
    fn heads_for_other_classes_begin_anew_and_other_networks_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("small.tern");
        trained(&network([9, 10], 1), &file);
        let start = Start::read(&file, None, &network([9, 10], 3), 3).unwrap();
        assert_eq!(start.anew, ["head8", "head16", "head32"]);

        let error = |network| Start::read(&file, None, &network, 3).err().unwrap();
        let error = format!("{:#}", error(network([9, 11], 1)));
        let expected = "small.tern: its layer stage32_0 has weights [10, 9, 3, 3]";
        assert!(error.contains(expected), "{error}");

        let mut deeper = network([9, 10], 1);
        let Some(Layer::Conv { name, .. }) = deeper.layers.get_mut(3) else {
            panic!("another layer");
        };
        *name = "stage8_9".into();
        let error = Start::read(&file, None, &deeper, 3).err().unwrap();
        let error = format!("{error:#}");
        assert!(error.contains("no layer stage8_9"), "{error}");

        let other = SecretKey::from_bytes(&[8; 32]).public_key().to_text();
        let key = folder.path().join("other.pub");
        std::fs::write(&key, other).unwrap();
        let error = Start::read(&key, Some(&key), &network([9, 10], 1), 3)
            .err()
            .unwrap();
        assert!(
            format!("{error:#}").contains("other.pub is none"),
            "{error:#}"
        );
        let network = network([9, 10], 1);
        let error = Start::read(&file, Some(&key), &network, 3).err().unwrap();
        assert!(format!("{error:#}").contains("small.tern"), "{error:#}");
    }
}
