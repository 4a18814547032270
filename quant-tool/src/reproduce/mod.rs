//! The paper's experiment again: one float network, several ways to make it ternary, one budget, one table.
//!
//! Every way starts from the same float parameters, may spend the same steps, ends as a signed bundle, and is measured by
//! the integer arithmetic that the daemon runs. Everything is kept in the run's folder, so that a stopped call goes on.

mod experiment;
mod kept;
mod measure;
mod methods;
mod plots;
mod report;
mod subject;

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use ternwatch_bundle::manifest::ModelId;
use ternwatch_bundle::{Model, SecretKey};

use self::experiment::Experiment;
pub(crate) use self::kept::OtherSettings;
pub(crate) use self::methods::BadWay;
use self::methods::Method;
use self::subject::{Finding, Naming, Subject};
use crate::exit::misused;
use crate::network::Network;
use crate::quantize::Quantizer;
use crate::tell::{note, out};
use crate::train::config::{Config, Recipe};
use crate::train::parameters::Parameters;
use crate::train::stage::{Session, Stage, State};
use crate::{cli, export, files, quantize};

/// How the model that ships is trained.
const PERSON: &str = include_str!("../../../models/person.toml");

/// What one way to quantize came to, with one seed.
#[derive(Serialize, Deserialize)]
struct Outcome {
    /// Key of the way.
    method: String,
    /// Which seed.
    seed: u64,
    /// How well the integer network does, 0 to 1.
    measured: f64,
    /// Bytes of the whole bundle.
    file_len: usize,
    /// Part of the weights that are zero.
    zeros: f64,
    /// Steps after the float training.
    steps: u64,
    /// Seconds of these steps.
    seconds: f64,
}

/// The float network of one seed.
#[derive(Serialize, Deserialize)]
struct FloatOutcome {
    /// Which seed.
    seed: u64,
    /// How well it does, 0 to 1.
    measured: f64,
    /// Seconds of its training.
    seconds: f64,
}

/// All that the report is made of.
struct Results {
    /// Float networks, by seed.
    float: Vec<FloatOutcome>,
    /// Quantized ones, by seed and method.
    ternary: Vec<Outcome>,
    /// Bytes of the float network's parameters, batch normalization folded into one bias a channel.
    float_len: usize,
}

/// Trains, quantizes in every way, measures, and writes the report.
pub fn run(args: &cli::Reproduce) -> Result<()> {
    let folder = &args.data;
    let is_described = matches!(args.what, cli::Experiments::Pedestrian);
    if args.config.is_some() && !is_described {
        let text = "--config is for `pedestrian`; the other experiments have networks of their own";
        return Err(misused(text.into()));
    }
    match args.what {
        cli::Experiments::Mnist => {
            let subject = Naming::mnist(folder)?;
            compare(Experiment::mnist(args.steps), &subject, args)
        }
        cli::Experiments::Cifar10 => {
            let subject = Naming::cifar10(folder)?;
            compare(Experiment::cifar10(args.steps), &subject, args)
        }
        cli::Experiments::Pedestrian => {
            let config = match &args.config {
                Some(path) => Config::read(path)?,
                None => Config::parse(PERSON)?,
            };
            let experiment = Experiment::pedestrian(&config, args.config.as_deref(), args.steps)?;
            compare(experiment, &Finding::read(folder, &config)?, args)
        }
    }
}

fn compare<S: Subject>(
    mut experiment: Experiment,
    subject: &S,
    args: &cli::Reproduce,
) -> Result<()> {
    if let Some(file) = &args.also {
        let also = methods::read(file, &experiment.methods)?;
        experiment.methods.extend(also);
        experiment.options += &format!(" --also {}", file.display());
    }
    if !args.only.is_empty() {
        experiment.methods = methods::only(&args.only, experiment.methods)?;
        experiment.options += &format!(" --only {}", args.only.join(","));
    }
    files::create_folder(&args.out)?;
    let _alone = files::keep_others_out(&args.run)?;
    let mut results = Results {
        float: Vec::new(),
        ternary: Vec::new(),
        float_len: float_len(&experiment.network),
    };
    let examined_with = subject.examined_with();
    let told = |seed: u64, what: &str, measured: f64| {
        let measure = experiment.measure;
        note!("seed {seed}: {what}: {measure} {:.2} %", 100.0 * measured);
    };
    for seed in 1..=args.seeds {
        let trial = Trial {
            experiment: &experiment,
            subject,
            examined_with: &examined_with,
            seed,
        };
        let folder = args.run.join(format!("seed-{seed}"));
        let float = trial.float(&folder.join("float"))?;
        told(seed, "float", float.measured);
        results.float.push(float);
        for method in &experiment.methods {
            let outcome = trial.quantize(&folder, method)?;
            told(seed, &method.name, outcome.measured);
            results.ternary.push(outcome);
        }
    }
    plots::draw(&experiment, &results, &args.run, &args.out)?;
    let text = report::markdown(&experiment, &subject.drawn(), &results, args.seeds);
    files::write(&args.out.join("report.md"), text.as_bytes())?;
    out!("{text}");
    Ok(())
}

/// One seed's way through the experiment.
struct Trial<'a, S> {
    experiment: &'a Experiment,
    subject: &'a S,
    /// SHA-256 of the pictures to examine with.
    examined_with: &'a str,
    seed: u64,
}

impl<S: Subject> Trial<'_, S> {
    fn session<'a>(
        &'a self,
        settings: &'a quantize::Config,
        folder: &'a Path,
    ) -> Session<'a, S::Task> {
        Session {
            recipe: Recipe {
                seed: self.seed,
                float: &self.experiment.float,
                quantize: settings,
            },
            network: &self.experiment.network,
            task: self.subject.task(),
            start: None,
            teacher: None,
            folder,
        }
    }

    /// Trains the float network and measures it.
    fn float(&self, folder: &Path) -> Result<FloatOutcome> {
        kept::claim(folder, &self.float_settings())?;
        if let Some(outcome) = kept::outcome(folder, self.examined_with)? {
            return Ok(outcome);
        }
        let settings = &self.experiment.methods[0].settings;
        let session = self.session(settings, folder);
        let mut state = session.run(Stage::Float, &mut u64::MAX.clone())?;
        // As of every ternary network.
        session.calibrate(Stage::Float, &mut state)?;
        let rounded = Quantizer::fit(&state.average, settings);
        let (_, model) = self.bundle("float", &state.average, &rounded)?;
        let network = &self.experiment.network;
        let outcome = FloatOutcome {
            seed: self.seed,
            measured: self.subject.float(network, &state.average, &model)?,
            seconds: state.seconds,
        };
        kept::keep(folder, self.examined_with, outcome)
    }

    fn float_settings(&self) -> serde_json::Value {
        float_settings(self.experiment, self.seed, self.subject.settings())
    }

    /// Quantizes the float network in one way, and measures what came of it.
    fn quantize(&self, seed_folder: &Path, method: &Method) -> Result<Outcome> {
        let folder = seed_folder.join(&method.key);
        let settings = json!({ "float": self.float_settings(), "quantize": method.settings });
        kept::claim(&folder, &settings)?;
        if let Some(outcome) = kept::outcome(&folder, self.examined_with)? {
            return Ok(outcome);
        }
        let float = Stage::Float.path(&seed_folder.join("float"));
        let copy = Stage::Float.path(&folder);
        std::fs::copy(&float, &copy).with_context(|| copy.display().to_string())?;
        let session = self.session(&method.settings, &folder);
        let soft = session.run(Stage::Soft, &mut u64::MAX.clone())?;
        let mut hard = session.run(Stage::Hard, &mut u64::MAX.clone())?;
        session.calibrate(Stage::Hard, &mut hard)?;
        let (file, model) = self.bundle(&method.key, &hard.average, &hard.quantizer)?;
        files::write(&folder.join("model.tern"), &file)?;
        let outcome = Outcome {
            method: method.key.clone(),
            seed: self.seed,
            measured: self.subject.integer(&model)?,
            file_len: file.len(),
            zeros: zeros(&hard),
            steps: soft.step + hard.step,
            seconds: soft.seconds + hard.seconds,
        };
        kept::keep(&folder, self.examined_with, outcome)
    }

    /// A signed bundle, and the model in it.
    fn bundle(
        &self,
        name: &str,
        parameters: &Parameters,
        quantizer: &Quantizer,
    ) -> Result<(Vec<u8>, Model)> {
        let key = SecretKey::from_bytes(&[self.seed as u8; 32]);
        let source = export::Source {
            id: ModelId {
                name: format!("{}-{name}", self.experiment.key),
                version: self.seed,
            },
            classes: self.subject.classes().to_vec(),
            thresholds: self.experiment.thresholds,
            network: &self.experiment.network,
            parameters,
            quantizer,
            card: serde_json::Value::Null,
        };
        let file = export::bundle(&source, &key)?;
        let model = files::model_from(&file, key.public_key())?;
        Ok((file, model))
    }
}

/// What the float network and what is measured of it depend on.
fn float_settings(
    experiment: &Experiment,
    seed: u64,
    samples: serde_json::Value,
) -> serde_json::Value {
    let Experiment { float, network, .. } = experiment;
    json!({
        "seed": seed,
        "float": float,
        "input": network.input,
        "layers": network.layers,
        "samples": samples,
    })
}

fn zeros(state: &State) -> f64 {
    let trits = state.quantizer.trits(&state.average);
    let all = trits.iter().flatten();
    let zeros = all.clone().filter(|t| **t == ternwatch_kernels::Trit::Zero);
    zeros.count() as f64 / all.count().max(1) as f64
}

/// Weights, and one bias a channel.
fn float_len(network: &Network) -> usize {
    let floats: usize = network.convs().map(|c| c.weights_len() + c.shape[0]).sum();
    floats * size_of::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_size_of_the_input_gave_is_not_taken_for_this_ones() {
        let settings = |text: &str| {
            let config = Config::parse(text).unwrap();
            let experiment = Experiment::pedestrian(&config, None, None).unwrap();
            float_settings(&experiment, 1, serde_json::Value::Null)
        };
        let smaller = PERSON.replace("width = 384", "width = 320");
        let keys = files::differing(&settings(PERSON), &settings(&smaller));
        assert_eq!(keys, ["input.width"]);
    }
}
