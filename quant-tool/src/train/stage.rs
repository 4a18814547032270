//! One stage of training: the loop, its schedule, its checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::adamw::{self, AdamW};
use super::batches::{self, Plan};
use super::config::Recipe;
use super::graph::{self, Activations, Statistics, forward};
use super::log::{LAYERS_EVERY, LOG_EVERY, Log};
use super::parameters::{self, AVERAGE, Checkpoint, Parameters, Role};
use super::readings;
use super::shards::{Statistic, Workers};
use super::task::{Loss, Task};
use crate::network::Network;
use crate::quantize::{self, Fit, Free, Quantizer, Rule, Soft};

/// How often a checkpoint is written.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// Steps over which the learning rate rises at the start of the float stage.
const WARM_UP_STEPS: f32 = 200.0;
/// Part of the learning rate that is left at the end of a stage.
const RATE_END: f32 = 0.01;
/// Longest gradient that is not shortened.
const GRADIENT_NORM_MAX: f32 = 10.0;
/// How far the running statistics move to each batch's.
const STATISTICS_MOMENTUM: f32 = 0.02;
/// Most batches that the exported statistics are measured on.
const CALIBRATION_BATCHES_MAX: u64 = 60;
/// Steps of all stages for each of them, where these are few.
const STEPS_PER_CALIBRATION_BATCH: u64 = 10;

/// A stage of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Ordinary training.
    Float,
    /// Weights drawn to their levels.
    Soft,
    /// Weights fixed at their levels group by group.
    Hard,
}

impl Stage {
    /// The name of the stage and of its checkpoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }

    /// Where a run's folder keeps this stage's checkpoint.
    pub fn path(self, run: &Path) -> PathBuf {
        run.join(self.name()).with_extension("safetensors")
    }

    /// The setting of its learning rate.
    fn rate_key(self) -> &'static str {
        match self {
            Self::Float => "float.rate",
            Self::Soft => "quantize.soft_rate",
            Self::Hard => "quantize.hard_rate",
        }
    }

    fn before(self) -> Option<Self> {
        match self {
            Self::Float => None,
            Self::Soft => Some(Self::Float),
            Self::Hard => Some(Self::Soft),
        }
    }

    fn steps(self, recipe: &Recipe<'_>) -> u64 {
        match self {
            Self::Float => recipe.float.steps,
            Self::Soft => recipe.quantize.soft_steps,
            Self::Hard => recipe.quantize.hard_steps,
        }
    }

    /// The one in which the network begins to compute with levels instead of weights.
    fn first_with_levels(config: &quantize::Config) -> Self {
        if config.soft == Soft::Forward && config.soft_steps > 0 {
            Self::Soft
        } else {
            Self::Hard
        }
    }

    pub(super) fn activations(self) -> Activations {
        match self {
            Self::Float => Activations::Float,
            Self::Soft | Self::Hard => Activations::U7,
        }
    }

    /// Half a cosine from the stage's rate to what is left of it in the end, a hundredth where nothing else is said.
    fn rate(self, recipe: &Recipe<'_>, step: u64) -> f32 {
        let progress = step as f32 / self.steps(recipe).max(1) as f32;
        let (rate, end) = match self {
            Self::Float => (recipe.float.rate, RATE_END),
            Self::Soft => (recipe.quantize.soft_rate, recipe.quantize.soft_rate_end),
            Self::Hard => (recipe.quantize.hard_rate, RATE_END),
        };
        let warm_up = match self {
            Self::Float => ((step + 1) as f32 / WARM_UP_STEPS).min(1.0),
            Self::Soft | Self::Hard => 1.0,
        };
        let descent = 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
        rate * warm_up * (descent * (1.0 + RATE_END - end) + end)
    }
}

/// All that a stage changes.
pub struct State {
    /// Steps done in this stage.
    pub step: u64,
    /// The trained parameters.
    pub parameters: Parameters,
    /// Their moving average, which the next stage and the export take.
    pub average: Parameters,
    /// Steps that the average has seen.
    averaged: u64,
    /// The levels; meaningful from the soft stage on.
    pub quantizer: Quantizer,
    optimizer: AdamW,
    /// Seconds spent in this stage so far.
    pub seconds: f64,
    /// Whether the average's normalization was measured anew, which is the last that happens to it.
    pub calibrated: bool,
}

/// A stage that came to numbers which are none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} in step {step} of the {} stage; {} stays as it was written last, if it was, and log.csv beside it tells how it came. A lower {} may help",
    .stage.name(), .checkpoint.display(), .stage.rate_key()
)]
pub struct Diverged {
    what: String,
    step: u64,
    stage: Stage,
    checkpoint: PathBuf,
}

/// A stage before this one that has not ended.
#[derive(Debug, thiserror::Error)]
#[error("the {stage} stage has done {done} of {steps} steps")]
pub struct Unready {
    pub(crate) stage: &'static str,
    pub(crate) done: u64,
    pub(crate) steps: u64,
}

impl State {
    /// What a stage begins with.
    pub fn start(parameters: Parameters, quantizer: Quantizer, recipe: &Recipe<'_>) -> Self {
        let optimizer = AdamW::new(&parameters, recipe.float.weight_decay);
        Self {
            step: 0,
            average: parameters.clone(),
            averaged: 0,
            parameters,
            quantizer,
            optimizer,
            seconds: 0.0,
            calibrated: false,
        }
    }

    /// The state that a stage's checkpoint holds.
    pub fn read(path: &Path, network: &Network, recipe: &Recipe<'_>) -> Result<Self> {
        let checkpoint = Checkpoint::read(path)?;
        let mut parameters = Parameters::init(network, recipe.seed);
        checkpoint.load("value", &mut parameters)?;
        let quantizer = Quantizer::blank(&parameters);
        let mut state = Self::start(parameters, quantizer, recipe);
        checkpoint.load(AVERAGE, &mut state.average)?;
        checkpoint.load("first", &mut state.optimizer.first)?;
        checkpoint.load("second", &mut state.optimizer.second)?;
        let mut sets = state.quantizer.to_parameters(&state.parameters);
        checkpoint.load("scale", &mut sets[0])?;
        checkpoint.load("threshold", &mut sets[1])?;
        checkpoint.load("fixed", &mut sets[2])?;
        state.quantizer = Quantizer::from_parameters(&sets);
        let number = |key: &str| {
            let text = checkpoint
                .metadata
                .get(key)
                .with_context(|| format!("{}: no {key}", path.display()))?;
            text.parse::<f64>()
                .with_context(|| format!("{}: {key} = \"{text}\" is no number", path.display()))
        };
        state.step = number("step")? as u64;
        state.optimizer.steps = state.step;
        state.averaged = number("averaged")? as u64;
        state.seconds = number("seconds")?;
        // Checkpoints did not always say so.
        state.calibrated = checkpoint
            .metadata
            .get("calibrated")
            .is_none_or(|c| c == "true");
        Ok(state)
    }

    /// Writes it as a stage's checkpoint.
    pub fn write(&self, path: &Path) -> Result<()> {
        let [scale, threshold, fixed] = self.quantizer.to_parameters(&self.parameters);
        let sets = [
            ("value", &self.parameters),
            (AVERAGE, &self.average),
            ("first", &self.optimizer.first),
            ("second", &self.optimizer.second),
            ("scale", &scale),
            ("threshold", &threshold),
            ("fixed", &fixed),
        ];
        let metadata = BTreeMap::from([
            ("step".to_owned(), self.step.to_string()),
            ("averaged".to_owned(), self.averaged.to_string()),
            ("seconds".to_owned(), self.seconds.to_string()),
            ("calibrated".to_owned(), self.calibrated.to_string()),
        ]);
        parameters::save(path, &sets, metadata)
    }
}

/// The averaged parameters at the end of a run's stage, if it was reached.
pub fn average_after(run: &Path, stage: Stage, network: &Network) -> Result<Parameters> {
    let mut average = Parameters::init(network, 0);
    Checkpoint::read(&stage.path(run))?.load(AVERAGE, &mut average)?;
    Ok(average)
}

/// A float network that others learn from.
pub struct Teacher {
    /// The layers, with heads of the same strides and classes as whoever learns.
    pub network: Network,
    /// What it has learned.
    pub parameters: Parameters,
}

/// What the stages of a run share.
pub struct Session<'a, T: Task> {
    /// How to train.
    pub recipe: Recipe<'a>,
    /// The layers.
    pub network: &'a Network,
    /// What it is trained for.
    pub task: &'a Arc<T>,
    /// What the float stage begins with instead of random parameters.
    pub start: Option<&'a Parameters>,
    /// Who teaches in the soft and hard stages instead of the run's own float network.
    pub teacher: Option<&'a Teacher>,
    /// Where checkpoints and the log go.
    pub folder: &'a Path,
}

impl<T: Task> Session<'_, T> {
    fn plan(&self, seed: u64, steps: (u64, u64)) -> Plan {
        let float = self.recipe.float;
        let seed = self.recipe.seed ^ (seed << 56);
        Plan {
            seed,
            steps,
            batch: float.batch,
            sample: float.sample,
        }
    }

    /// Runs a stage, from its checkpoint if there is one, to its end or until no steps are left; takes the steps done
    /// from `steps_left` and returns the last state.
    pub fn run(&self, stage: Stage, steps_left: &mut u64) -> Result<State> {
        let path = stage.path(self.folder);
        let steps = stage.steps(&self.recipe);
        // Counted from here on: levels that took long to fit are kept after the first step.
        let mut written = Instant::now();
        let mut state = self.open(stage)?;
        state.calibrated &= state.step >= steps;
        let end = steps.min(state.step.saturating_add(*steps_left));
        *steps_left -= end.saturating_sub(state.step);
        let mut log = Log::open(self.folder, stage, state.step)?;
        let workers = Workers::start()?;
        let own = self.own_teacher(stage)?;
        let teacher = self.teacher.or(own.as_ref());
        let teacher = teacher.filter(|_| self.is_taught(stage));
        let batches = batches::draw(
            Arc::clone(self.task),
            self.plan(stage as u64 + 1, (state.step, end)),
        );
        let bar = crate::progress::bar(steps, stage.name());
        bar.set_position(state.step);
        bar.reset_eta();
        while state.step < end {
            let began = Instant::now();
            let batch = batches::next(&batches)?;
            let rate = stage.rate(&self.recipe, state.step);
            let loss = self.step(&mut state, stage, batch, rate, (&workers, teacher))?;
            state.step += 1;
            state.seconds += began.elapsed().as_secs_f64();
            bar.inc(1);
            if state.step % LOG_EVERY == 0 {
                bar.set_message(format!("loss {:.3}", loss.total()));
                log.line(&state, rate, loss)?;
            }
            if state.step % LAYERS_EVERY == 0 || state.step == steps {
                log.layers(&state)?;
            }
            if written.elapsed() > CHECKPOINT_EVERY || state.step == end {
                state.write(&path)?;
                written = Instant::now();
            }
        }
        bar.finish();
        // A stage without steps has an end, too.
        if !path.exists() {
            state.write(&path)?;
        }
        Ok(state)
    }

    /// Whether a stage has done all of its steps.
    pub fn is_done(&self, stage: Stage, state: &State) -> bool {
        state.step >= stage.steps(&self.recipe)
    }

    /// Measures the averaged parameters' normalization statistics anew and keeps them in the stage's checkpoint.
    ///
    /// The running statistics belong to parameters that changed while they were gathered; those that are exported have
    /// their own. Measured on training samples, forward only.
    pub fn calibrate(&self, stage: Stage, state: &mut State) -> Result<()> {
        if state.calibrated {
            return Ok(());
        }
        let stages = [Stage::Float, Stage::Soft, Stage::Hard];
        let steps: u64 = stages.iter().map(|stage| stage.steps(&self.recipe)).sum();
        let count = (steps / STEPS_PER_CALIBRATION_BATCH).clamp(1, CALIBRATION_BATCHES_MAX);
        let batches = batches::draw(Arc::clone(self.task), self.plan(0xCA, (0, count)));
        let mode = (stage.activations(), Statistics::Batch);
        let measured = state.average.clone();
        let bar = crate::progress::bar(count, "calibrating");
        for step in 0..count {
            let (images, _) = batches::next(&batches)?;
            let pass = forward(
                self.network,
                &measured,
                images,
                mode,
                graph::Gradients::None,
            )?;
            // The mean of all batches so far.
            measure(
                &mut state.average,
                &pass.statistics,
                1.0 / (step + 1) as f32,
            );
            bar.inc(1);
        }
        bar.finish();
        state.calibrated = true;
        state.write(&stage.path(self.folder))
    }

    /// Whether this stage has a teacher.
    fn is_taught(&self, stage: Stage) -> bool {
        stage != Stage::Float && self.recipe.quantize.distillation > 0.0
    }

    /// The run's float network, if this stage learns from it.
    fn own_teacher(&self, stage: Stage) -> Result<Option<Teacher>> {
        if self.teacher.is_some() || !self.is_taught(stage) {
            return Ok(None);
        }
        Ok(Some(Teacher {
            network: self.network.clone(),
            parameters: average_after(self.folder, Stage::Float, self.network)?,
        }))
    }

    fn open(&self, stage: Stage) -> Result<State> {
        let path = stage.path(self.folder);
        if path.exists() {
            let state = State::read(&path, self.network, &self.recipe);
            let place = path.display();
            return state.with_context(|| {
                format!("{place} is there to go on from; without it the stage begins anew")
            });
        }
        let Some(before) = stage.before() else {
            let random = || Parameters::init(self.network, self.recipe.seed);
            let parameters = self.start.cloned().unwrap_or_else(random);
            let quantizer = Quantizer::blank(&parameters);
            return Ok(State::start(parameters, quantizer, &self.recipe));
        };
        let state = State::read(&before.path(self.folder), self.network, &self.recipe)?;
        if !self.is_done(before, &state) {
            let (name, steps) = (before.name(), before.steps(&self.recipe));
            bail!(Unready {
                stage: name,
                done: state.step,
                steps
            });
        }
        let began = Instant::now();
        let (parameters, quantizer) = self.fit(stage, state)?;
        Ok(State {
            seconds: began.elapsed().as_secs_f64(),
            ..State::start(parameters, quantizer, &self.recipe)
        })
    }

    /// What a stage begins with, after the last state of the one before.
    fn fit(&self, stage: Stage, before: State) -> Result<(Parameters, Quantizer)> {
        let config = self.recipe.quantize;
        match config.fit {
            Fit::Outputs if stage == Stage::first_with_levels(config) => {
                let plan = self.plan(0xF1, (0, readings::BATCHES));
                let batches = batches::draw(Arc::clone(self.task), plan);
                let images = (0..readings::BATCHES).map(|_| Ok(batches::next(&batches)?.0));
                let images = images.collect::<Result<Vec<_>>>()?;
                readings::fit(self.network, &before.average, &images, config)
            }
            // The soft stage began with levels that stay what they are.
            Fit::Outputs | Fit::Weights
                if stage == Stage::Hard && config.levels == Rule::Frozen =>
            {
                Ok((before.average, before.quantizer))
            }
            Fit::Outputs | Fit::Weights => {
                let quantizer = Quantizer::fit(&before.average, config);
                Ok((before.average, quantizer))
            }
        }
    }

    fn step(
        &self,
        state: &mut State,
        stage: Stage,
        (images, truth): batches::Batch<T::Truth>,
        rate: f32,
        (workers, teacher): (&Workers, Option<&Teacher>),
    ) -> Result<Loss> {
        let quantize = self.recipe.quantize;
        let steps = stage.steps(&self.recipe);
        let progress = state.step as f32 / steps as f32;
        if let (Stage::Soft | Stage::Hard, Some(part)) = (stage, quantize.zeros) {
            state.quantizer.keep_zeros(&state.parameters, part);
        }
        if stage == Stage::Hard {
            // Whatever the settings say, a hard stage ends with a ternary network.
            let part = match state.step + 1 >= steps {
                true => 1.0,
                false => part_fixed(quantize, progress),
            };
            if state
                .quantizer
                .fix(&mut state.parameters, part, quantize.order)
                > 0
            {
                // What was averaged before belongs to a network that had other levels.
                state.average = state.parameters.clone();
                state.averaged = 0;
            }
            state.quantizer.hold(&mut state.parameters);
        }
        let pull = match stage {
            Stage::Soft => quantize.pull * progress * progress,
            Stage::Float | Stage::Hard => 0.0,
        };
        // What the network computes with instead of the weights; its gradients pass straight through to them.
        let straight_through = match stage {
            Stage::Float => None,
            Stage::Soft => (quantize.soft == Soft::Forward).then_some(pull),
            Stage::Hard => (quantize.free == Free::StraightThrough).then_some(1.0),
        };
        let projected =
            straight_through.map(|pull| state.quantizer.pulled(&state.parameters, pull));
        let parameters = projected.as_ref().unwrap_or(&state.parameters);
        let (loss, statistics, mut gradients) = workers.differentiate(
            stage,
            self.network,
            (parameters, teacher.map(|t| (t, quantize.distillation))),
            images,
            (self.task.as_ref(), &truth),
        )?;
        let diverged = |what| Diverged {
            what,
            step: state.step,
            stage,
            checkpoint: stage.path(self.folder),
        };
        if !loss.total().is_finite() {
            bail!(diverged(format!("the loss is {}", loss.total())));
        }
        let is_finite =
            |gradient: &Option<Vec<f32>>| gradient.iter().flatten().all(|g| g.is_finite());
        if let Some(at) = gradients.iter().position(|g| !is_finite(g)) {
            let name = &state.parameters.0[at].name;
            bail!(diverged(format!("the gradient of {name} is not finite")));
        }
        for statistics in &statistics {
            measure(&mut state.parameters, statistics, STATISTICS_MOMENTUM);
        }
        if stage == Stage::Hard {
            state.quantizer.mask(&state.parameters, &mut gradients);
        }
        state
            .optimizer
            .step(&mut state.parameters, &gradients, rate, GRADIENT_NORM_MAX);
        if stage == Stage::Soft || straight_through.is_some() {
            state.quantizer.refit(&state.parameters, quantize);
        }
        if stage == Stage::Soft && straight_through.is_none() {
            state.quantizer.pull(&mut state.parameters, pull);
        }
        // A young average follows closely, an old one slowly.
        let age = state.averaged as f32;
        let decay = self
            .recipe
            .float
            .average_decay
            .min((1.0 + age) / (10.0 + age));
        adamw::average(&mut state.average, &state.parameters, decay);
        state.averaged += 1;
        if stage == Stage::Hard {
            state.quantizer.hold(&mut state.parameters);
            state
                .quantizer
                .copy_fixed(&state.parameters, &mut state.average);
        }
        Ok(loss)
    }
}

/// The part of the weights that is fixed at this progress of the hard stage.
fn part_fixed(q: &quantize::Config, progress: f32) -> f32 {
    let last = q.groups.len() - 1;
    let index = match last {
        0 => 0,
        _ => (progress / q.last_group_at.max(f32::MIN_POSITIVE) * last as f32) as usize,
    };
    q.groups[index.min(last)]
}

/// Moves the running statistics to the batch's.
fn measure(parameters: &mut Parameters, statistics: &[Statistic], momentum: f32) {
    for (name, mean, variance) in statistics {
        for (role, batch) in [(Role::Mean, mean), (Role::Variance, variance)] {
            let running = parameters.get_mut(name, role).iter_mut();
            running
                .zip(batch)
                .for_each(|(r, b)| *r += momentum * (b - *r));
        }
    }
}
