//! Follows people through a sequence of MOTChallenge and writes down where each was, in its format:
//! `mot SEQUENCE RESULT [--detections | BUNDLE KEY]`. `deploy/mot/check.sh` judges it.
//!
//! SEQUENCE is a folder as the benchmark has it: `seqinfo.ini`, the pictures, and `det/det.txt`. People are found by the
//! signed model, or, with `--detections`, those are followed that the benchmark brings: then it is the tracker alone
//! that is judged.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use ternwatch_daemon::config::Config;
use ternwatch_daemon::model::{self, Loaded};
use ternwatch_daemon::track::{State, Tracker};
use ternwatch_detector::{Detection, Frame, Isa, PixelFormat, Thresholds};

/// Detections of the benchmark with a lower confidence begin no track: those of its detectors are calibrated so.
const SCORE_HIGH: f32 = 0.5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&arguments)
}

/// Does what the arguments say.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let (sequence, result, mut finder) = match *arguments {
        [sequence, result, "--detections"] => {
            (sequence, result, Finder::given(Path::new(sequence))?)
        }
        [sequence, result, bundle, key] => (sequence, result, Finder::model(bundle, key)?),
        _ => bail!("expected SEQUENCE RESULT, then --detections or BUNDLE KEY"),
    };
    let sequence = Sequence::read(Path::new(sequence))?;
    let mut tracker = Tracker::new(&defaults()?.track, finder.score_high());
    let mut result = BufWriter::new(File::create(result).context("creating the result")?);
    for number in 1..=sequence.length {
        let found = finder.find(&sequence, number, tracker.score_low())?;
        tracker.step((f64::from(number) / sequence.rate * 1e9) as u64, &found);
        for track in tracker
            .tracks()
            .filter(|track| track.state() == State::Confirmed)
        {
            let [left, top, right, bottom] = track.xyxy();
            let (width, height) = (right - left, bottom - top);
            // Frame, id, left, top, width, height, then what the format leaves unused. Both count from 1.
            writeln!(
                result,
                "{number},{},{left:.2},{top:.2},{width:.2},{height:.2},1,-1,-1,-1",
                track.id() + 1
            )?;
        }
    }
    Ok(result.flush()?)
}

/// The settings of the package.
fn defaults() -> Result<Config> {
    Ok(Config::load(None, [])?)
}

/// What `seqinfo.ini` says.
struct Sequence {
    pictures: PathBuf,
    extension: String,
    rate: f64,
    length: u32,
}

impl Sequence {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("seqinfo.ini");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let values: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .collect();
        let value = |key: &str| {
            let value = values
                .get(key)
                .with_context(|| format!("{}: no {key}", path.display()));
            value.map(|value| value.trim())
        };
        let rate: f64 = value("frameRate")?.parse().context("frameRate")?;
        ensure!(rate > 0.0, "{}: frameRate must be above 0", path.display());
        Ok(Self {
            pictures: folder.join(value("imDir")?),
            extension: value("imExt")?.to_owned(),
            rate,
            length: value("seqLength")?.parse().context("seqLength")?,
        })
    }
}

/// Where detections come from.
enum Finder {
    /// From pictures.
    Model(Box<Loaded>),
    /// From the benchmark, by frame.
    Given(BTreeMap<u32, Vec<Detection>>),
}

impl Finder {
    fn model(bundle: &str, key: &str) -> Result<Self> {
        let mut config = defaults()?.model;
        config.bundle = bundle.into();
        config.key = key.into();
        Ok(Self::Model(Box::new(model::load(&config, Isa::detect())?)))
    }

    fn given(sequence: &Path) -> Result<Self> {
        let path = sequence.join("det/det.txt");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut given: BTreeMap<u32, Vec<Detection>> = BTreeMap::new();
        for (line, number) in text.lines().zip(1..) {
            let at = || format!("{}:{number}", path.display());
            let values = line.split(',').map(str::parse);
            let values: Vec<f32> = values.collect::<Result<_, _>>().with_context(at)?;
            let [frame, _, left, top, width, height, score, ..] = values[..] else {
                bail!("{}: expected at least 7 numbers", at());
            };
            given.entry(frame as u32).or_default().push(Detection {
                class: 0,
                score,
                xyxy: [left, top, left + width, top + height],
            });
        }
        Ok(Self::Given(given))
    }

    /// From which score on somebody is believed.
    fn score_high(&self) -> f32 {
        match self {
            Self::Model(loaded) => loaded.thresholds.score,
            Self::Given(_) => SCORE_HIGH,
        }
    }

    fn find(&mut self, sequence: &Sequence, number: u32, score_low: f32) -> Result<Vec<Detection>> {
        let loaded = match self {
            Self::Model(loaded) => loaded,
            Self::Given(given) => return Ok(given.remove(&number).unwrap_or_default()),
        };
        let path = sequence
            .pictures
            .join(format!("{number:06}{}", sequence.extension));
        let picture = image::open(&path)
            .with_context(|| path.display().to_string())?
            .into_rgb8();
        let frame = Frame::new(
            PixelFormat::Rgb8,
            picture.width(),
            picture.height(),
            picture.as_raw(),
        )?;
        let thresholds = Thresholds {
            score: score_low,
            ..loaded.thresholds
        };
        Ok(loaded.detector.detect(&frame, thresholds).to_vec())
    }
}
