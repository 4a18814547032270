//! Import: a float network that was trained elsewhere, an ONNX file, becomes the beginning of a run.
//!
//! The file's bytes pass through `wire` and `file` (bounded, nothing known of networks), `operators` and `layout` (the
//! layers that they mean, or a refusal that names the node), `float` and `scale` (moved into the range of our activations, by what
//! `calibrate` measures on pictures or `moments` estimates without) into the run's folder: `float.safetensors`, which
//! `train` and `quantize` go on from, and `network.json` (`stored`). Without data, `round` makes the ternary network at once.

mod calibrate;
pub mod config;
mod file;
pub mod float;
mod layout;
mod moments;
mod operators;
mod round;
mod scale;
pub mod stored;
mod wire;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use ternwatch_bundle::hex;

use self::calibrate::Measured;
use self::config::Config;
use self::float::{FloatNetwork, Reading, Sums};
use self::scale::Scale;
use self::stored::{Source, Stored};
use crate::data::augment::Photos;
use crate::data::dataset::Dataset;
use crate::network::Network;
use crate::quantize::Quantizer;
use crate::tell::{note, out};
use crate::train::batches::{self, Plan};
use crate::train::check::check;
use crate::train::config::{self as training, ConfigError};
use crate::train::graph::Images;
use crate::train::parameters::Parameters;
use crate::train::stage::{Stage, State};
use crate::{cli, export, files, run};

/// The largest file that is read, in bytes: as many weights as a model may have, as floats, and something for the rest.
const FILE_BYTES_MAX: u64 = 80 << 20;
/// Pictures that are calibrated on: batches, and pictures in each.
const BATCHES: u64 = 32;
const BATCH: usize = 4;
/// More of a layer's values beyond its range are worth a word.
const CLIPPED_MAX: f64 = 0.001;

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no ONNX file, or one that is not understood.
    #[error("cannot be imported: {0}")]
    File(String),
    /// A node has no equivalent here.
    #[error("node {node:?} ({operator}): {why}")]
    Node {
        /// Its name, or that of its output.
        node: String,
        /// Its operator.
        operator: String,
        /// What is the matter, and what would be supported.
        why: String,
    },
    /// A head of the configuration is not in the file.
    #[error("head {output:?}: {why}")]
    Head {
        /// Its outputs.
        output: String,
        /// What is the matter.
        why: String,
    },
}

/// A file's network, reading our image.
pub fn read(bytes: &[u8], config: &Config, classes: &[String]) -> Result<FloatNetwork> {
    let mut float = layout::read(bytes, config, classes.len())?;
    stored::check_layers(&float.network, classes)?;
    float.read_our_image(config);
    Ok(float)
}

/// A network that computes what a file does, up to clipping.
pub struct Fitted {
    /// Its layers.
    pub network: Network,
    /// Their numbers.
    pub parameters: Parameters,
}

/// Fitted to what `batches` of pictures show.
pub fn calibrated(float: &FloatNetwork, config: &Config, batches: &[Images]) -> Result<Fitted> {
    let estimate = moments::estimate(float, config.percentile);
    let measured = calibrate::measure(float, &estimate, batches, config.percentile)?;
    let Measured {
        spans,
        sums,
        clipped,
        kept,
    } = measured;
    let layers = || float.network.layers.iter().zip(&float.origins);
    let say = |parts: Vec<f64>, what: &str| {
        for ((layer, node), part) in layers().zip(parts).filter(|(_, part)| *part > CLIPPED_MAX) {
            note!(
                "{} ({node}): {:.2} % of its values {what}",
                layer.name(),
                100.0 * part
            );
        }
    };
    say(clipped, "are clipped");
    say(
        kept,
        "are clipped in the file and not here, where it shares the range of larger ones",
    );
    fitted(float, &float.scales(&spans), &sums)
}

/// Fitted to what the file's weights let expect.
pub fn estimated(float: &FloatNetwork, config: &Config) -> Result<Fitted> {
    let estimate = moments::estimate(float, config.percentile);
    fitted(float, &float.scales(&estimate.spans), &estimate.sums)
}

/// Each layer's output lies where `scales` says.
fn fitted(float: &FloatNetwork, scales: &[Scale], sums: &Sums) -> Result<Fitted> {
    Ok(Fitted {
        network: float.network_in(scales),
        parameters: float.parameters(scales, sums, Reading::Raised)?,
    })
}

/// That, and its parameters rounded to nearest levels, normalization corrected by what is expected of that.
pub fn rounded(
    float: &FloatNetwork,
    config: &training::Config,
    imported: &Config,
) -> Result<(Fitted, Parameters, Quantizer)> {
    let estimate = moments::estimate(float, imported.percentile);
    let scales = float.scales(&estimate.spans);
    let fitted = fitted(float, &scales, &estimate.sums)?;
    let estimated = (&estimate, &scales[..]);
    let (ternary, quantizer) = round::round(float, estimated, &fitted.parameters, &config.quantize);
    Ok((fitted, ternary, quantizer))
}

/// Imports a file into a run's folder.
pub fn run(args: &cli::Import) -> Result<()> {
    let config = training::Config::read(&args.config)?;
    let Some(imported) = &config.imported else {
        return Err(ConfigError::NotImported).context(args.config.display().to_string());
    };
    check(
        args.without_data || !imported.classifies(),
        "imported.heads.kind",
        &"classes",
        "calibration and quantization know boxes; such a network is imported --without-data",
    )?;
    let is_left = run::is_half_imported(&args.run);
    if Stored::is_in(&args.run) || !is_left && Stage::Float.path(&args.run).exists() {
        let text = "there is a network already: choose another run folder";
        let error = std::io::Error::new(std::io::ErrorKind::AlreadyExists, text);
        return Err(error).context(args.run.display().to_string());
    }
    let bytes = read_file(&args.model)?;
    let float = read(&bytes, imported, &config.classes)
        .with_context(|| args.model.display().to_string())?;
    note!(
        "{}: {} layers, {:.1} MMAC at {} x {}",
        args.model.display(),
        float.network.layers.len(),
        float.network.macs() as f64 / 1e6,
        float.network.input.width,
        float.network.input.height
    );
    let fitted = match &args.data {
        Some(data) => calibrated(&float, imported, &pictures(&config, data, imported.fill)?)?,
        None => estimated(&float, imported)?,
    };
    let rounded = match args.without_data {
        true => Some(rounded(&float, &config, imported)?),
        false => None,
    };
    // Rather now than after all of the training.
    let check = |parameters: &Parameters, quantizer: &Quantizer| {
        export::check(&fitted.network, parameters, quantizer)
            .with_context(|| args.model.display().to_string())
    };
    match &rounded {
        Some((_, parameters, quantizer)) => check(parameters, quantizer)?,
        None => {
            let quantizer = Quantizer::fit(&fitted.parameters, &config.quantize);
            check(&fitted.parameters, &quantizer)?;
        }
    }
    let _alone = run::claim(&args.run, &config)?;
    if is_left {
        // Stages of a network that was rounded without data would be gone on from.
        for stage in [Stage::Soft, Stage::Hard] {
            files::remove(&stage.path(&args.run))?;
        }
    }
    let recipe = config.recipe();
    let blank = Quantizer::blank(&fitted.parameters);
    State::start(fitted.parameters, blank, &recipe).write(&Stage::Float.path(&args.run))?;
    if let Some((plain, ternary, quantizer)) = rounded {
        let soft = State::start(plain.parameters, quantizer.clone(), &recipe);
        soft.write(&Stage::Soft.path(&args.run))?;
        State::start(ternary, quantizer, &recipe).write(&Stage::Hard.path(&args.run))?;
        note!(
            "warning: rounded to nearest without data. No weight has learned to be ternary and no range was measured: expect a network \
             that finds far less than the float one, or nothing. With pictures, `import --data` and `quantize` make a good one."
        );
    }
    let source = Source {
        file: args
            .model
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        sha256: hex::encode(&Sha256::digest(&bytes)),
    };
    // Last: where it is, the rest is.
    Stored::new(&fitted.network, &float.origins, source, args.without_data).write(&args.run)?;
    let next = match (args.without_data, config.float.steps) {
        (true, _) => "export",
        (false, 0) => "quantize",
        (false, _) => "train, then quantize",
    };
    out!("{}: imported; next: {next}", args.run.display());
    Ok(())
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", path.display()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let error = ImportError::File(format!("it has more than {FILE_BYTES_MAX} bytes"));
        return Err(error).context(path.display().to_string());
    }
    Ok(bytes)
}

/// Samples as the stages draw them.
fn pictures(config: &training::Config, data: &Path, fill: u8) -> Result<Vec<Images>> {
    let dataset = Dataset::read(data, &config.classes)?;
    let photos = Arc::new(Photos::load(
        &dataset,
        &config.augment,
        config.float.sample,
        fill,
    )?);
    let plan = Plan {
        seed: config.seed,
        steps: (0, BATCHES),
        batch: BATCH,
        sample: config.float.sample,
    };
    Ok(batches::draw(photos, plan)
        .iter()
        .map(|(images, _)| images)
        .collect())
}
