//! The paper's experiment again: one float network, several ways to make it ternary, one budget, one table.
//!
//! Every way starts from the same float parameters, may spend the same steps, ends as a signed bundle, and is measured by
//! the integer arithmetic that the daemon runs. Everything is kept in the run's folder, so that a stopped call goes on.

mod experiment;
mod measure;
mod methods;
mod plots;
mod report;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use ternwatch_bundle::SecretKey;
use ternwatch_bundle::manifest::{ModelId, Thresholds};

use self::experiment::Experiment;
use self::methods::Method;
use crate::data::labelled::{Labelled, Part};
use crate::network::Network;
use crate::train::classify::Classification;
use crate::train::config::Recipe;
use crate::train::parameters::Parameters;
use crate::train::stage::{Session, Stage, State};
use crate::{cli, export, files, quantize};

/// What one way to quantize came to, with one seed.
struct Outcome {
    /// Key of the way.
    method: String,
    /// Which seed.
    seed: u64,
    /// Part of the test pictures that the integer network classifies right.
    accuracy: f64,
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
struct FloatOutcome {
    /// Which seed.
    seed: u64,
    /// Part of the test pictures that it classifies right.
    accuracy: f64,
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
    let mut experiment = Experiment::of(args.what, args.steps);
    if let Some(file) = &args.also {
        experiment.methods.extend(methods::read(file)?);
    }
    let network = experiment.network();
    let test = experiment.load(&args.data, Part::Test)?;
    let task = Arc::new(Classification {
        pictures: experiment.load(&args.data, Part::Train)?,
        shift: experiment.shift,
        mirror: experiment.mirror,
    });
    let mut results = Results {
        float: Vec::new(),
        ternary: Vec::new(),
        float_len: float_len(&network),
    };
    for seed in 1..=args.seeds {
        let trial = Trial {
            experiment: &experiment,
            network: &network,
            task: &task,
            test: &test,
            seed,
        };
        let folder = args.run.join(format!("seed-{seed}"));
        let (float, accuracy) = trial.float(&folder.join("float"))?;
        eprintln!("seed {seed}: float {:.2} %", 100.0 * accuracy);
        results.float.push(FloatOutcome {
            seed,
            accuracy,
            seconds: float.seconds,
        });
        for method in &experiment.methods {
            let outcome = trial.quantize(&folder, method)?;
            eprintln!(
                "seed {seed}: {} {:.2} %",
                method.name,
                100.0 * outcome.accuracy
            );
            results.ternary.push(outcome);
        }
    }
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    plots::draw(&experiment, &results, &args.run, &args.out)?;
    let text = report::markdown(&experiment, &network, &results, args.seeds);
    files::write(&args.out.join("report.md"), text.as_bytes())?;
    println!("{text}");
    Ok(())
}

/// One seed's way through the experiment.
struct Trial<'a> {
    experiment: &'a Experiment,
    network: &'a Network,
    task: &'a Arc<Classification>,
    test: &'a Labelled,
    seed: u64,
}

impl Trial<'_> {
    fn session<'a>(
        &'a self,
        settings: &'a quantize::Config,
        folder: &'a Path,
    ) -> Session<'a, Classification> {
        Session {
            recipe: Recipe {
                seed: self.seed,
                float: &self.experiment.float,
                quantize: settings,
            },
            network: self.network,
            task: self.task,
            folder,
        }
    }

    /// Trains the float network and tells its test accuracy.
    fn float(&self, folder: &Path) -> Result<(State, f64)> {
        create(folder)?;
        let session = self.session(&self.experiment.methods[0].settings, folder);
        let state = session.run(Stage::Float, &mut u64::MAX.clone())?;
        let accuracy = measure::float(self.network, &state.average, self.test)?;
        Ok((state, accuracy))
    }

    /// Quantizes the float network in one way.
    fn quantize(&self, seed_folder: &Path, method: &Method) -> Result<Outcome> {
        let folder = seed_folder.join(&method.key);
        create(&folder)?;
        let float = Stage::Float.path(&seed_folder.join("float"));
        let copy = Stage::Float.path(&folder);
        std::fs::copy(&float, &copy).with_context(|| copy.display().to_string())?;
        let session = self.session(&method.settings, &folder);
        let soft = session.run(Stage::Soft, &mut u64::MAX.clone())?;
        let mut hard = session.run(Stage::Hard, &mut u64::MAX.clone())?;
        session.calibrate(Stage::Hard, &mut hard)?;
        let key = SecretKey::from_bytes(&[self.seed as u8; 32]);
        let source = export::Source {
            id: ModelId {
                name: format!("{}-{}", self.experiment.key, method.key),
                version: self.seed,
            },
            classes: self.task.pictures.classes.clone(),
            thresholds: Thresholds {
                score: 0.5,
                iou: 0.5,
            },
            network: self.network,
            parameters: &hard.average,
            quantizer: &hard.quantizer,
            card: serde_json::Value::Null,
        };
        let file = export::bundle(&source, &key)?;
        files::write(&folder.join("model.tern"), &file)?;
        let model = files::model_from(&file, key.public_key())?;
        Ok(Outcome {
            method: method.key.clone(),
            seed: self.seed,
            accuracy: measure::integer(&model, self.test)?,
            file_len: file.len(),
            zeros: zeros(&hard),
            steps: soft.step + hard.step,
            seconds: soft.seconds + hard.seconds,
        })
    }
}

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
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

/// The parameters of a stage's end, if it was reached.
fn parameters_after(folder: &Path, stage: Stage, network: &Network) -> Result<Parameters> {
    crate::train::stage::average_in(&stage.path(folder), network)
}
