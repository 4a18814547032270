//! An imported network's layers in the folder of its run: `network.json`, checked whenever it is read.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use ternwatch_bundle::SecretKey;
use ternwatch_bundle::manifest::{Activation, Head, Input, Layer, Manifest, ModelId, Thresholds};
use ternwatch_bundle::model::limits::{CHANNELS_MAX, LAYERS_MAX, TRITS_MAX};
use ternwatch_bundle::write::{Draft, ParameterWriter};
use ternwatch_kernels::Trit;

use crate::export::Unfit;
use crate::files;
use crate::network::Network;

/// Version of the file.
const SCHEMA: u32 = 1;
/// Its name.
const NAME: &str = "network.json";

/// What the file says. Unknown keys are refused by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// [`SCHEMA`].
    schema: u32,
    /// Where the network comes from.
    pub source: Source,
    /// Whether it was rounded without data: such a run is not trained on.
    pub rounded: bool,
    input: Input,
    layers: Vec<Layer>,
    heads: Vec<Head>,
    /// The file's node of each layer, for people.
    nodes: Vec<String>,
}

/// A file that was imported.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, without folders.
    pub file: String,
    /// SHA-256, in hex.
    pub sha256: String,
}

impl Stored {
    /// What is kept of a network.
    pub fn new(network: &Network, nodes: &[String], source: Source, rounded: bool) -> Self {
        Self {
            schema: SCHEMA,
            source,
            rounded,
            input: network.input.clone(),
            layers: network.layers.clone(),
            heads: network.heads.clone(),
            nodes: nodes.to_vec(),
        }
    }

    /// Writes it into a run's folder.
    pub fn write(&self, run: &Path) -> Result<()> {
        files::write(
            &run.join(NAME),
            serde_json::to_string_pretty(self)?.as_bytes(),
        )
    }

    /// Whether a run's folder has one.
    pub fn is_in(run: &Path) -> bool {
        run.join(NAME).exists()
    }

    /// Reads and checks that of a run, for `classes`.
    pub fn read(run: &Path, classes: &[String]) -> Result<Self> {
        let path = run.join(NAME);
        let text = files::read_text(&path)
            .context("a network of [imported] begins with `quant-tool import`")?;
        let stored: Self =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(
            stored.schema == SCHEMA,
            Unfit(format!(
                "{}: schema {}, expected {SCHEMA}",
                path.display(),
                stored.schema
            ))
        );
        check_layers(&stored.network(), classes).with_context(|| path.display().to_string())?;
        Ok(stored)
    }

    /// The network.
    pub fn network(&self) -> Network {
        Network {
            input: self.input.clone(),
            layers: self.layers.clone(),
            heads: self.heads.clone(),
        }
    }
}

/// Refuses a network that no detector would load, whatever it is called.
pub fn check_layers(network: &Network, classes: &[String]) -> Result<()> {
    let model = ModelId {
        name: "imported".into(),
        version: 1,
    };
    let thresholds = Thresholds {
        score: 0.5,
        iou: 0.5,
    };
    check(network, model, classes, thresholds)
}

/// Refuses a model that no detector would load: asks the reader of bundles, with weights that are all zero.
pub fn check(
    network: &Network,
    model: ModelId,
    classes: &[String],
    thresholds: Thresholds,
) -> Result<()> {
    ensure!(
        network.layers.len() <= LAYERS_MAX,
        Unfit(format!("more than {LAYERS_MAX} layers"))
    );
    let mut layers = network.layers.clone();
    let (mut writer, mut weights) = (ParameterWriter::new(), 0);
    for layer in &mut layers {
        let Layer::Conv {
            name,
            in_channels,
            out_channels,
            kernel,
            groups,
            activation,
            pre_shift,
            offset,
            ..
        } = layer
        else {
            continue;
        };
        ensure!(*groups > 0, Unfit(format!("layer {name}: groups is 0")));
        let sizes = [*in_channels / *groups, *out_channels, *kernel];
        ensure!(
            sizes.iter().all(|n| *n <= CHANNELS_MAX),
            Unfit(format!("layer {name}: sizes of {sizes:?} are too large"))
        );
        let len = sizes.iter().map(|n| u64::from(*n)).product::<u64>() * u64::from(*kernel);
        weights += len;
        ensure!(
            weights <= TRITS_MAX,
            Unfit(format!(
                "with layer {name} there are more than {TRITS_MAX} weights"
            ))
        );
        let (trits, bias) = (
            vec![Trit::Zero; len as usize],
            vec![0; *out_channels as usize],
        );
        *pre_shift = 0;
        *offset = match activation {
            Activation::Relu => writer.relu_conv(&trits, &bias, &bias),
            Activation::Linear => writer.linear_conv(&trits, &bias, &vec![1.0; bias.len()]),
        };
    }
    let draft = Draft {
        manifest: Manifest {
            schema: 1,
            model,
            input: network.input.clone(),
            classes: classes.to_vec(),
            thresholds,
            layers,
            heads: network.heads.clone(),
            golden: Vec::new(),
            release: None,
            card: serde_json::Value::Null,
        },
        parameters: writer.finish(),
    };
    // Nobody else sees what this key signs.
    let key = SecretKey::from_bytes(&[0; 32]);
    files::model_from(&draft.sign(&key)?, key.public_key())?;
    Ok(())
}
