//! Evaluation: a signed bundle and annotated photographs in; average precision, false alarms and the choice of a
//! threshold out.
//!
//! The bundle is verified, loaded and run as the daemon does it, by the same detector.

pub mod coco;
pub mod curve;
pub mod failures;
mod matching;
mod vacant;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use image::RgbImage;
use indicatif::ParallelProgressIterator;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use ternwatch_bundle::model::{ConvLayer, Epilogue, ModelLayer};
use ternwatch_bundle::{Model, Thresholds};
use ternwatch_detector::{Detection, Detector, Frame, PixelFormat};
use ternwatch_kernels::Isa;

use self::matching::{Outcomes, matched};
use crate::data::dataset::{Dataset, ImageRecord};
use crate::network::Network;
use crate::quantize::activation::IMAGE_STEP;
use crate::train::graph::{Activations, Gradients, Images, Statistics, forward};
use crate::train::parameters::Parameters;

/// COCO's limit of detections an image.
const DETECTIONS_MAX: usize = 100;
/// Low enough for the whole precision-recall curve.
const SCORE_MIN: f32 = 0.01;
/// The set of all images.
pub const OVERALL: &str = "overall";
/// Heights of people in the network's input, in pixels: lower bound and name.
const HEIGHTS: [(f32, &str); 4] = [
    (0.0, "below 24 px"),
    (24.0, "24 to 48 px"),
    (48.0, "48 to 96 px"),
    (96.0, "from 96 px"),
];

pub use matching::Score;

/// Scores by name of the set of images or boxes.
pub type Scores = BTreeMap<String, Score>;

/// What is known of a model after it has seen a data set.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// By source, and `overall`.
    pub sources: Scores,
    /// By the height that a person has in the network's input, lowest first.
    pub heights: Vec<HeightScore>,
    /// Regions of the images in which there is nobody.
    pub vacant_regions: usize,
    /// False alarms per such region at the model's default threshold.
    pub false_alarms: f64,
    /// What every threshold would give.
    pub curve: Vec<Point>,
    /// What was detected in each image, best first.
    #[serde(skip)]
    pub detections: Vec<Vec<Detection>>,
}

/// The result for the boxes of some heights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeightScore {
    /// Which heights.
    pub height: &'static str,
    /// How well they are found.
    #[serde(flatten)]
    pub score: Score,
}

/// What a threshold gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The least score that is shown.
    pub threshold: f64,
    /// Part of what is shown that is a hit.
    pub precision: f64,
    /// Part of the boxes that are hit.
    pub recall: f64,
    /// False alarms per region in which there is nobody.
    pub false_alarms: f64,
}

/// What one image gives.
struct Seen {
    detections: Vec<Detection>,
    all: Outcomes,
    /// As [`HEIGHTS`].
    heights: Vec<Outcomes>,
    /// Scores in its region without people, if it has one.
    alarms: Option<Vec<f32>>,
}

/// Runs a model over a data set.
pub fn evaluate(model: &Model, dataset: &Dataset, isa: Isa) -> Result<Evaluation> {
    let runner = |detector: &mut Detector, frame: &Frame<'_>, thresholds: Thresholds| {
        Ok(detector.detect(frame, thresholds).to_vec())
    };
    evaluate_with(model, dataset, isa, runner)
}

/// Runs the float network that `model` was made from over a data set: preprocessing and decoding are the detector's.
pub fn evaluate_float(
    model: &Model,
    (network, parameters): (&Network, &Parameters),
    dataset: &Dataset,
) -> Result<Evaluation> {
    let runner = |detector: &mut Detector, frame: &Frame<'_>, thresholds: Thresholds| {
        detector.preprocess(frame);
        let data = detector
            .input()
            .iter()
            .map(|&v| f32::from(v) * IMAGE_STEP)
            .collect();
        let (height, width) = (network.input.height as usize, network.input.width as usize);
        let images = Images {
            data,
            count: 1,
            height,
            width,
        };
        let mode = (Activations::Float, Statistics::Running);
        let pass = forward(network, parameters, images, mode, Gradients::None)?;
        let mut outputs = HashMap::new();
        for (head, output) in model.heads().iter().zip(&pass.outputs) {
            outputs.insert(
                head.layer,
                in_scales(&model.layers()[head.layer], &output.data),
            );
        }
        Ok(detector
            .decode_from(|layer| &outputs[&layer], thresholds)
            .to_vec())
    };
    evaluate_with(model, dataset, Isa::detect(), runner)
}

/// A head's float outputs in the steps of the quantized head.
fn in_scales(layer: &ModelLayer, values: &[f32]) -> Vec<i16> {
    let ModelLayer::Conv(ConvLayer {
        epilogue: Epilogue::Linear { scale },
        ..
    }) = layer
    else {
        unreachable!("a loaded model's heads are linear convolutions");
    };
    let cells = (values.len() / scale.len()).max(1);
    // A cast saturates: beyond 16 bits the sigmoid is 0 or 1 and the box larger than the image.
    values
        .iter()
        .enumerate()
        .map(|(i, v)| (v / scale[i / cells]).round() as i16)
        .collect()
}

fn evaluate_with<R>(model: &Model, dataset: &Dataset, isa: Isa, run: R) -> Result<Evaluation>
where
    R: Fn(&mut Detector, &Frame<'_>, Thresholds) -> Result<Vec<Detection>> + Sync,
{
    let bar = crate::progress::bar(dataset.images.len() as u64, "evaluating");
    // Fails before the work starts, so that the workers' copies cannot.
    Detector::new(model, isa)?;
    let mut seen: Vec<Seen> = dataset
        .images
        .par_iter()
        .progress_with(bar)
        .map_init(
            || Detector::new(model, isa),
            |detector, record| {
                let detector = detector.as_mut().map_err(|e| anyhow::anyhow!("{e}"))?;
                look(model, record, |frame, thresholds| {
                    run(detector, frame, thresholds)
                })
            },
        )
        .collect::<Result<_>>()?;
    let mut evaluation = summary(model, dataset, &seen);
    let detections = seen.iter_mut().map(|s| std::mem::take(&mut s.detections));
    evaluation.detections = detections.collect();
    Ok(evaluation)
}

/// Detects in one image, and in its part without people.
fn look(
    model: &Model,
    record: &ImageRecord,
    mut run: impl FnMut(&Frame<'_>, Thresholds) -> Result<Vec<Detection>>,
) -> Result<Seen> {
    let thresholds = Thresholds {
        score: SCORE_MIN,
        iou: model.thresholds().iou,
    };
    let mut detect = |image: &RgbImage| {
        let (width, height) = image.dimensions();
        let frame = Frame::new(PixelFormat::Rgb8, width, height, image.as_raw())
            .with_context(|| record.path.display().to_string())?;
        let mut detections = run(&frame, thresholds)?;
        detections.truncate(DETECTIONS_MAX);
        Ok::<_, anyhow::Error>(detections)
    };
    let image = record.decode()?;
    let detections = detect(&image)?;
    let input = model.input();
    let scale = (input.width as f32 / image.width() as f32)
        .min(input.height as f32 / image.height() as f32);
    let heights = HEIGHTS.iter().enumerate().map(|(i, (low, _))| {
        let high = HEIGHTS.get(i + 1).map_or(f32::INFINITY, |(low, _)| *low);
        let counts = |b: &[f32; 4]| (*low..high).contains(&((b[3] - b[1]) * scale));
        matched(&detections, &record.boxes, counts)
    });
    let heights = heights.collect();
    let all = matched(&detections, &record.boxes, |_| true);
    let alarms = match vacant::region(image.dimensions(), &record.boxes) {
        Some([x, y, width, height]) => {
            let part = image::imageops::crop_imm(&image, x, y, width, height).to_image();
            Some(detect(&part)?.iter().map(|d| d.score).collect())
        }
        None => None,
    };
    Ok(Seen {
        detections,
        all,
        heights,
        alarms,
    })
}

fn summary(model: &Model, dataset: &Dataset, seen: &[Seen]) -> Evaluation {
    let threshold = model.thresholds().score;
    let mut sources: BTreeMap<String, Outcomes> = BTreeMap::new();
    let mut heights = vec![Outcomes::default(); HEIGHTS.len()];
    for (record, seen) in dataset.images.iter().zip(seen) {
        for set in [record.source.as_str(), OVERALL] {
            sources.entry(set.to_owned()).or_default().add(&seen.all);
        }
        let pairs = heights.iter_mut().zip(&seen.heights);
        pairs.for_each(|(sum, outcomes)| sum.add(outcomes));
    }
    let vacant: Vec<&[f32]> = seen.iter().filter_map(|s| s.alarms.as_deref()).collect();
    let alarms = |threshold: f32| {
        let shown = vacant
            .iter()
            .copied()
            .flatten()
            .filter(|s| **s >= threshold);
        shown.count() as f64 / vacant.len().max(1) as f64
    };
    let point = |i: u32| {
        let threshold = f64::from(i) / 20.0;
        let all = sources.get(OVERALL)?;
        let (precision, recall) = all.precision_and_recall(threshold as f32);
        Some(Point {
            threshold,
            precision,
            recall,
            false_alarms: alarms(threshold as f32),
        })
    };
    let curve = (1..20).filter_map(point).collect();
    let heights = HEIGHTS
        .iter()
        .zip(heights)
        .map(|((_, height), o)| HeightScore {
            height,
            score: o.score(threshold),
        });
    Evaluation {
        detections: Vec::new(),
        curve,
        sources: sources
            .into_iter()
            .map(|(set, o)| (set, o.score(threshold)))
            .collect(),
        heights: heights.collect(),
        vacant_regions: vacant.len(),
        false_alarms: alarms(threshold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Annotation;

    /// A box of the first class.
    pub(super) fn annotation(xyxy: [f32; 4], ignore: bool) -> Annotation {
        Annotation {
            xyxy,
            class: 0,
            ignore,
            number: 0,
        }
    }

    /// One of the first class.
    pub(super) fn detection(score: f32, xyxy: [f32; 4]) -> Detection {
        Detection {
            class: 0,
            score,
            xyxy,
        }
    }
}
