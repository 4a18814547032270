//! What is learned from which pictures, and how well it is known afterwards.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use ternwatch_bundle::Model;
use ternwatch_kernels::Isa;

use super::measure;
use crate::data::BadData;
use crate::data::augment::Photos;
use crate::data::dataset::Dataset;
use crate::data::labelled::{Labelled, Part};
use crate::evaluate::{Evaluation, OVERALL, evaluate, evaluate_float};
use crate::network::{FILL, Network};
use crate::train::classify::Classification;
use crate::train::config::{Config, ConfigError};
use crate::train::parameters::Parameters;
use crate::train::task::Task;

/// A task with pictures to learn it from and others to be examined with.
pub(super) trait Subject {
    /// The task.
    type Task: Task;

    /// What is learned from.
    fn task(&self) -> &Arc<Self::Task>;

    /// How samples are drawn from the pictures, as the end of a sentence.
    fn drawn(&self) -> String;

    /// What decides about the samples and how they are learned, as settings.
    fn settings(&self) -> Value;

    /// SHA-256 of the pictures that it is examined with and of what is right.
    fn examined_with(&self) -> String;

    /// Names of the classes.
    fn classes(&self) -> &[String];

    /// How well a float network knows it, 0 to 1. `model` is a ternary one of the same layers, whose input and answers are
    /// read alike.
    fn float(&self, network: &Network, parameters: &Parameters, model: &Model) -> Result<f64>;

    /// How well the integer network of a bundle knows it, run by the daemon's kernels, 0 to 1.
    fn integer(&self, model: &Model) -> Result<f64>;
}

/// Naming what a picture shows. The measure is the part of the test pictures that is named right.
pub(super) struct Naming {
    task: Arc<Classification>,
    test: Labelled,
}

impl Naming {
    /// MNIST's files in a folder.
    pub(super) fn mnist(folder: &Path) -> Result<Self> {
        Self::read(folder, Labelled::mnist, (2, false))
    }

    /// CIFAR-10's files in a folder.
    pub(super) fn cifar10(folder: &Path) -> Result<Self> {
        Self::read(folder, Labelled::cifar10, (4, true))
    }

    fn read(
        folder: &Path,
        read: fn(&Path, Part) -> Result<Labelled>,
        (shift, mirror): (usize, bool),
    ) -> Result<Self> {
        let part = |part| read(folder, part).with_context(|| BadData(folder.into()));
        let (test, pictures) = (part(Part::Test)?, part(Part::Train)?);
        if test.classes != pictures.classes {
            let text = "what to test with has other classes than what to learn from";
            return Err(anyhow!(text).context(BadData(folder.into())));
        }
        let task = Arc::new(Classification {
            pictures,
            shift,
            mirror,
        });
        Ok(Self { task, test })
    }
}

impl Subject for Naming {
    type Task = Classification;

    fn task(&self) -> &Arc<Classification> {
        &self.task
    }

    fn drawn(&self) -> String {
        let mirrored = if self.task.mirror {
            " and mirrored"
        } else {
            ""
        };
        format!("shifted by up to {} pixels{mirrored}", self.task.shift)
    }

    fn settings(&self) -> Value {
        let Classification {
            pictures,
            shift,
            mirror,
        } = &*self.task;
        json!({ "learned_from": pictures.digest(), "shift": shift, "mirror": mirror })
    }

    fn examined_with(&self) -> String {
        self.test.digest()
    }

    fn classes(&self) -> &[String] {
        &self.task.pictures.classes
    }

    fn float(&self, network: &Network, parameters: &Parameters, _model: &Model) -> Result<f64> {
        measure::float(network, parameters, &self.test)
    }

    fn integer(&self, model: &Model) -> Result<f64> {
        measure::integer(model, &self.test)
    }
}

/// Finding people in photographs. The measure is AP50 over all of the validation set.
pub(super) struct Finding {
    task: Arc<Photos>,
    classes: Vec<String>,
    settings: Value,
    val: Dataset,
}

impl Finding {
    /// The folders `train` and `val` of annotated photographs.
    pub(super) fn read(folder: &Path, config: &Config) -> Result<Self> {
        let for_one = config.start.is_none() && config.teacher.is_none();
        ensure!(for_one, ConfigError::Reproduced);
        let classes = config.classes.clone();
        let val = Dataset::read(&folder.join("val"), &classes)?;
        let train = Dataset::read(&folder.join("train"), &classes)?;
        let task = Arc::new(Photos::load(
            &train,
            &config.augment,
            config.float.sample,
            FILL,
        )?);
        let settings = json!({
            "augment": config.augment,
            "iou": config.thresholds[1],
            "learned_from": train.digest(),
        });
        Ok(Self {
            task,
            classes,
            settings,
            val,
        })
    }
}

impl Subject for Finding {
    type Task = Photos;

    fn task(&self) -> &Arc<Photos> {
        &self.task
    }

    fn drawn(&self) -> String {
        "drawn as the configuration's [augment] says".into()
    }

    fn settings(&self) -> Value {
        self.settings.clone()
    }

    fn examined_with(&self) -> String {
        self.val.digest()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn float(&self, network: &Network, parameters: &Parameters, model: &Model) -> Result<f64> {
        let evaluation = evaluate_float(model, (network, parameters), &self.val)?;
        Ok(overall(&evaluation))
    }

    fn integer(&self, model: &Model) -> Result<f64> {
        let evaluation = evaluate(model, &self.val, Isa::detect())?;
        Ok(overall(&evaluation))
    }
}

fn overall(evaluation: &Evaluation) -> f64 {
    evaluation
        .sources
        .get(OVERALL)
        .map_or(0.0, |score| score.ap50)
}
