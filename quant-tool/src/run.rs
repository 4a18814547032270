//! A run's folder: training into it, exporting from it, evaluating what came out.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use ternwatch_bundle::Model;
use ternwatch_bundle::manifest::Head;
use ternwatch_kernels::Isa;

use crate::data::augment::Photos;
use crate::data::dataset::Dataset;
use crate::evaluate::{Evaluation, OVERALL, Score, coco, curve, failures};
use crate::import::stored::Stored;
use crate::network::{Network, SIZE_RANGES};
use crate::tell::{note, out};
use crate::train::batches::{self, Plan};
use crate::train::config::{Config, ConfigError};
use crate::train::graph::Images;
use crate::train::log::LOSSES;
use crate::train::parameters::{self, AVERAGE, Parameters};
use crate::train::stage::{Session, Stage, State, Teacher};
use crate::train::start::{self, Origin, Start};
use crate::{cli, export, files, onnx};

/// The configuration in a run's folder.
const CONFIG: &str = "config.toml";
/// What each stage learned from, in a run's folder: SHA-256 by the stage's name.
const DATA: &str = "data.json";
/// What the float stage began with, in a run's folder, if that was not random.
const START: &str = "start.json";

/// Trains through `stages`.
pub fn train(args: &cli::Run, stages: &[Stage]) -> Result<()> {
    let config = Config::read(&args.config)?;
    if config.imported.is_some() {
        may_be_trained(&Stored::read(&args.run, &config.classes)?, &args.run)?;
    }
    may_go_on(&args.run, &config)?;
    let network = config.network(&args.run)?;
    note!(
        "{}: {:.1} MMAC, {} weights",
        config.name,
        network.macs() as f64 / 1e6,
        network.weights_len()
    );
    // The float stage has no teacher, and only its first step a start.
    let is_taught = stages.iter().any(|stage| *stage != Stage::Float);
    let teacher = config.teacher.as_deref().filter(|_| is_taught);
    let teacher = teacher
        .map(|run| teacher_in(run, &network, &config.classes))
        .transpose()?;
    let is_fresh = stages.contains(&Stage::Float) && !Stage::Float.path(&args.run).exists();
    let start = config.start.as_deref().filter(|_| is_fresh);
    let start = start
        .map(|file| start_in(file, &config, &network))
        .transpose()?;
    let dataset = Dataset::read(&args.data, &config.classes)?;
    let (sample, fill) = (config.float.sample, network.input.fill);
    let photos = Photos::load(&dataset, &config.augment, sample, fill)?;
    let photos = Arc::new(photos);
    let origin = start.as_ref().map(|start| start.origin.clone());
    let draw = || samples(&config, &photos);
    let start = start.map(|start| start.parameters(&network, draw));
    let start = start.transpose()?;
    // Only now: a mistake in what was read so far is to be mended, and the call made again.
    let _alone = claim(&args.run, &config)?;
    if is_fresh {
        keep_origin(&args.run, origin.as_ref())?;
    }
    tell_other_data(args, stages, &dataset.digest())?;
    let session = Session {
        recipe: config.recipe(),
        network: &network,
        task: &photos,
        start: start.as_ref(),
        teacher: teacher.as_ref(),
        folder: &args.run,
    };
    let mut steps_left = args.max_steps.unwrap_or(u64::MAX);
    for &stage in stages {
        let (is_begun, before) = (stage.path(&args.run).exists(), steps_left);
        let mut state = session.run(stage, &mut steps_left)?;
        let had_ended = is_begun && steps_left == before && session.is_done(stage, &state);
        note!(
            "{}: {} steps in {:.0} s{}",
            stage.name(),
            state.step,
            state.seconds,
            match had_ended {
                true => "; it had ended already, nothing was done",
                false => "",
            }
        );
        if !session.is_done(stage, &state) {
            note!("stopped after --max-steps; the same call goes on");
            break;
        }
        if stage == Stage::Hard {
            session.calibrate(stage, &mut state)?;
        }
    }
    Ok(())
}

/// Keeps what stages that begin now learn from, and warns where one goes on with something else.
fn tell_other_data(args: &cli::Run, stages: &[Stage], digest: &str) -> Result<()> {
    let path = args.run.join(DATA);
    let place = || path.display().to_string();
    let mut kept: BTreeMap<String, String> = match path.exists() {
        true => serde_json::from_str(&files::read_text(&path)?).with_context(place)?,
        false => BTreeMap::new(),
    };
    for stage in stages {
        let name = stage.name();
        if !stage.path(&args.run).exists() {
            kept.insert(name.into(), digest.into());
        } else if kept.get(name).is_some_and(|before| before != digest) {
            note!(
                "warning: {}: the {name} stage began with other pictures or annotations",
                args.data.display()
            );
        }
    }
    files::write(&path, &serde_json::to_vec_pretty(&kept)?)
}

/// Keeps what the float stage begins with. A call that was stopped before its first checkpoint may have kept something else.
fn keep_origin(run: &Path, origin: Option<&Origin>) -> Result<()> {
    let path = run.join(START);
    match origin {
        Some(origin) => files::write(&path, &serde_json::to_vec_pretty(origin)?),
        None if path.exists() => {
            std::fs::remove_file(&path).with_context(|| path.display().to_string())
        }
        None => Ok(()),
    }
}

/// What a run's float stage began with, if that was not random.
fn origin(run: &Path) -> Result<Option<Origin>> {
    let path = run.join(START);
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(&path)?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// What is in the file to start with; says what that is, and which heads it was made for other classes in.
fn start_in(file: &Path, config: &Config, network: &Network) -> Result<Start> {
    let key = config.start_key.as_deref();
    let start = Start::read(file, key, network, config.seed).context("start")?;
    let (file, classes) = (file.display(), config.classes.join(", "));
    if let Some(model) = &start.origin.model {
        note!(
            "begins with {} version {} ({file})",
            model.name,
            model.version
        );
    }
    let others = start.classes.as_ref().filter(|c| **c != config.classes);
    if !start.anew.is_empty() {
        let layers = start.anew.join(", ");
        note!("{file} is for another number of classes: {layers} begin anew");
    } else if let Some(others) = others {
        let others = others.join(", ");
        note!("warning: {file} finds {others}: its heads go on as {classes}, in this order");
    }
    Ok(start)
}

/// A few batches of training samples in one.
fn samples(config: &Config, photos: &Arc<Photos>) -> Result<Images> {
    let float = &config.float;
    let plan = Plan {
        seed: config.seed,
        steps: (0, start::SAMPLES.div_ceil(float.batch) as u64),
        batch: float.batch,
        sample: float.sample,
    };
    let drawn = batches::draw(Arc::clone(photos), plan);
    let (mut all, _) = batches::next(&drawn)?;
    for (images, _) in drawn {
        all.data.extend(images.data);
        all.count += images.count;
    }
    Ok(all)
}

/// The float network of another run, which has to answer the same questions as the one that learns.
fn teacher_in(run: &Path, learner: &Network, classes: &[String]) -> Result<Teacher> {
    let config = Config::read(&run.join(CONFIG))?;
    let network = config.network(run)?;
    let strides = |network: &Network| network.heads.iter().map(|h| h.stride).collect::<Vec<_>>();
    if config.classes != classes || strides(&network) != strides(learner) {
        return Err(ConfigError::Teacher(run.into()).into());
    }
    let state = State::read(&Stage::Float.path(run), &network, &config.recipe())?;
    let (done, steps) = (state.step, config.float.steps);
    if done < steps {
        let run = run.into();
        return Err(ConfigError::Learning { run, done, steps }.into());
    }
    Ok(Teacher {
        network,
        parameters: state.average,
    })
}

/// Refuses to train an imported network that cannot be.
fn may_be_trained(stored: &Stored, run: &Path) -> Result<()> {
    if stored.rounded {
        bail!(NotTrained::Rounded(run.into()));
    }
    let is_elsewhere = |head: &&Head| {
        !SIZE_RANGES
            .iter()
            .any(|(stride, ..)| *stride == head.stride)
    };
    if let Some(head) = stored.network().heads.iter().find(is_elsewhere) {
        bail!(NotTrained::Stride {
            run: run.into(),
            layer: head.layer.clone(),
            stride: head.stride,
        });
    }
    Ok(())
}

/// An imported network that cannot be trained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTrained {
    /// There is no float network behind it.
    #[error("{}: its network was rounded without data; `import --data` into another run folder begins one to train", .0.display())]
    Rounded(PathBuf),
    /// It answers where no training does.
    #[error("{}: {layer} lies at stride {stride}; what is trained here answers at strides 8, 16 and 32", .run.display())]
    Stride {
        /// Its run.
        run: PathBuf,
        /// The head's layer.
        layer: String,
        /// Where it answers.
        stride: u32,
    },
}

/// Keeps the configuration beside the checkpoints, in a folder that has none of another one ([`may_go_on`]), and other calls out of it.
pub(crate) fn claim(run: &Path, config: &Config) -> Result<File> {
    let alone = files::keep_others_out(run)?;
    files::write(&run.join(CONFIG), toml::to_string(config)?.as_bytes())?;
    Ok(alone)
}

/// Whether a run's folder has what an `import` left that was stopped before its end. Nothing has been trained on it then.
pub(crate) fn is_half_imported(run: &Path) -> bool {
    let is_imported = |config: Config| config.imported.is_some();
    !Stored::is_in(run)
        && !run.join(LOSSES).exists()
        && Config::read(&run.join(CONFIG)).is_ok_and(is_imported)
}

/// Refuses a folder whose checkpoints another configuration led to: names the keys. What no stage has used yet may be another.
fn may_go_on(run: &Path, config: &Config) -> Result<()> {
    let path = run.join(CONFIG);
    let has = |stage: Stage| stage.path(run).exists();
    let is_quantized = has(Stage::Soft) || has(Stage::Hard);
    if !path.exists() || !(is_quantized || has(Stage::Float)) {
        return Ok(());
    }
    let essence = |config: &Config| config.essence(!is_quantized);
    let keys = files::differing(&essence(&Config::read(&path)?)?, &essence(config)?);
    ensure!(keys.is_empty(), ConfigError::Mixed(path, keys));
    Ok(())
}

/// Turns the run's last state into a signed bundle.
pub fn export(args: &cli::Export) -> Result<()> {
    files::check_place(&args.out)?;
    let config = Config::read(&args.config)?;
    may_go_on(&args.run, &config)?;
    let network = config.network(&args.run)?;
    let key = files::secret_key(&args.key)?;
    let state = State::read(&Stage::Hard.path(&args.run), &network, &config.recipe())?;
    let stored = config.imported.is_some();
    let stored = stored.then(|| Stored::read(&args.run, &config.classes));
    let stored = stored.transpose()?;
    let is_rounded = stored.as_ref().is_some_and(|stored| stored.rounded);
    if !(is_rounded || args.unfinished) {
        may_be_exported(&state, &config, &args.run)?;
    }
    let float = State::read(&Stage::Float.path(&args.run), &network, &config.recipe())?;
    // An average of weights that are still free has other levels than the network that learns.
    let parameters = match state.quantizer.is_ternary() {
        true => &state.average,
        false => &state.parameters,
    };
    let mut source = export::Source {
        id: config.id(),
        classes: config.classes.clone(),
        thresholds: config.thresholds(),
        network: &network,
        parameters,
        quantizer: &state.quantizer,
        card: card(&config, &network, (&float, &state, parameters), &args.run)?,
    };
    if let Some(stored) = stored {
        source.card["imported"] =
            json!({ "source": stored.source, "rounded_without_data": stored.rounded });
    }
    if let Some(folder) = &args.evaluate {
        let dataset = Dataset::read(folder, &config.classes)?;
        let model = files::model_from(&export::bundle(&source, &key)?, key.public_key())?;
        let float = (&network, &float.average);
        let float = crate::evaluate::evaluate_float(&model, float, &dataset)?;
        out!("float twin of");
        print_table(&model, &float);
        let scores = crate::evaluate::evaluate(&model, &dataset, Isa::detect())?;
        print_table(&model, &scores);
        source.card["evaluation"] = json!({ "ternary": scores, "float": float });
    }
    let bytes = export::bundle(&source, &key)?;
    files::write(&args.out, &bytes)?;
    out!("{}: {} bytes", args.out.display(), bytes.len());
    if let Some(path) = &args.float {
        let id = config.id();
        let metadata = [("name", id.name), ("version", id.version.to_string())];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
        parameters::save(path, &[(AVERAGE, &float.average)], metadata.into())?;
        out!("{}: the float network", path.display());
    }
    if let Some(path) = &args.onnx {
        let model = files::model_from(&bytes, key.public_key())?;
        let bytes = onnx::encode(&model, onnx::Form::Exact);
        files::write(path, &bytes)?;
        out!("{}: {} bytes", path.display(), bytes.len());
    }
    Ok(())
}

/// Refuses a run whose hard stage has not come to its end.
fn may_be_exported(state: &State, config: &Config, run: &Path) -> Result<(), Unfinished> {
    let (done, steps) = (state.step, config.quantize.hard_steps);
    if done >= steps && state.calibrated && state.quantizer.is_ternary() {
        return Ok(());
    }
    let run = run.into();
    Err(Unfinished { run, done, steps })
}

/// A run that is not to be exported yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: the hard stage has done {done} of {steps} steps, and after the last one its normalization is measured; let `quantize` \
     end, or look at what there is with --unfinished", .run.display()
)]
pub(crate) struct Unfinished {
    run: PathBuf,
    done: u64,
    steps: u64,
}

/// The model card's record of how the model came to be.
fn card(
    config: &Config,
    network: &Network,
    (float, state, parameters): (&State, &State, &Parameters),
    run: &Path,
) -> Result<serde_json::Value> {
    let mut stages = BTreeMap::new();
    let mut record = |stage: Stage, done: &State| {
        let cost = json!({ "steps": done.step, "seconds": done.seconds.round() });
        stages.insert(stage.name(), cost);
    };
    record(Stage::Float, float);
    record(
        Stage::Soft,
        &State::read(&Stage::Soft.path(run), network, &config.recipe())?,
    );
    record(Stage::Hard, state);
    let mut training = json!({ "configuration": config, "stages": stages });
    if let Some(origin) = origin(run)? {
        training["start"] = json!(origin);
    }
    Ok(json!({
        "about": config.card,
        "training": training,
        "network": { "macs": network.macs(), "weights": network.weights_len() },
        "layers": state.quantizer.report(parameters),
    }))
}

/// Prints the average precision of a bundle.
pub fn evaluate(args: &cli::Evaluate) -> Result<()> {
    for path in args.curve.iter().chain(&args.failures) {
        files::check_place(path)?;
    }
    let model = files::model(&args.bundle)?;
    let dataset = Dataset::read(&args.data, model.classes())?;
    let scores = crate::evaluate::evaluate(&model, &dataset, Isa::detect())?;
    if args.json {
        out!("{}", serde_json::to_string_pretty(&scores)?);
    } else {
        print_table(&model, &scores);
    }
    if let Some(folder) = &args.coco {
        coco::write(&dataset, model.classes(), &scores.detections, folder)?;
    }
    if let Some(path) = &args.curve {
        curve::draw(&scores.curve, &model, path)?;
    }
    if let Some(path) = &args.failures {
        let drawn = failures::draw(&dataset, &model, &scores.detections, path)?;
        drawn.tell(path);
    }
    Ok(())
}

fn print_table(model: &Model, evaluation: &Evaluation) {
    let threshold = model.thresholds().score;
    out!("{} version {}", model.id().name, model.id().version);
    out!(
        "{:16} {:>7} {:>7} {:>6}   at score {threshold}: {:>9} {:>7}",
        "source",
        "images",
        "boxes",
        "AP50",
        "precision",
        "recall"
    );
    let scores = || {
        evaluation
            .sources
            .iter()
            .map(|(set, score)| (set.as_str(), score))
    };
    print_scores(scores().filter(|(set, _)| *set != OVERALL));
    print_scores(scores().filter(|(set, _)| *set == OVERALL));
    out!("by the height of a person in the network's input");
    print_scores(evaluation.heights.iter().map(|h| (h.height, &h.score)));
    out!(
        "{} regions without people: {:.3} false alarms each at score {threshold}",
        evaluation.vacant_regions,
        evaluation.false_alarms
    );
    out!(
        "{:>9} {:>9} {:>7} {:>12}",
        "threshold",
        "precision",
        "recall",
        "false alarms"
    );
    for p in &evaluation.curve {
        out!(
            "{:9.2} {:9.3} {:7.3} {:12.3}",
            p.threshold,
            p.precision,
            p.recall,
            p.false_alarms
        );
    }
}

fn print_scores<'a>(scores: impl Iterator<Item = (&'a str, &'a Score)>) {
    for (name, s) in scores {
        out!(
            "{name:16} {:7} {:7} {:6.3} {:26.3} {:7.3}",
            s.images,
            s.boxes,
            s.ap50,
            s.precision,
            s.recall
        );
    }
}
