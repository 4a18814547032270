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
use ternwatch_detector::{Detection, Detector, Frame, PixelFormat, SIDE_MAX, SIDE_MIN};
use ternwatch_kernels::Isa;

use self::matching::{Outcomes, matched};
use crate::data::dataset::{Dataset, ImageRecord};
use crate::network::Network;
use crate::quantize::activation::IMAGE_STEP;
use crate::train::graph::{Activations, Gradients, Images, Statistics, forward};
use crate::train::parameters::Parameters;

/// COCO's limit of detections of a class in an image.
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
        let detections = detect_in(image, |frame| run(frame, thresholds));
        let mut detections = detections.with_context(|| record.path.display().to_string())?;
        keep_best(&mut detections, model.classes().len());
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

/// Leaves those of each class that COCO's protocol counts; the best ones are first.
fn keep_best(detections: &mut Vec<Detection>, classes: usize) {
    let mut counts = vec![0; classes];
    detections.retain(|detection| {
        let count = &mut counts[usize::from(detection.class)];
        *count += 1;
        *count <= DETECTIONS_MAX
    });
}

/// What `run` detects in a picture, in the picture's pixels. One that is larger than a frame may be is halved until it fits.
fn detect_in(
    image: &RgbImage,
    run: impl FnOnce(&Frame<'_>) -> Result<Vec<Detection>>,
) -> Result<Vec<Detection>> {
    let (width, height) = image.dimensions();
    let parts = width.max(height).div_ceil(SIDE_MAX).next_power_of_two();
    if parts <= 1 {
        let frame = Frame::new(PixelFormat::Rgb8, width, height, image.as_raw())?;
        return run(&frame);
    }
    let sides = [width, height].map(|side| (side / parts).max(SIDE_MIN));
    let small = image::imageops::thumbnail(image, sides[0], sides[1]);
    let frame = Frame::new(PixelFormat::Rgb8, sides[0], sides[1], small.as_raw())?;
    let [x, y] = [
        width as f32 / sides[0] as f32,
        height as f32 / sides[1] as f32,
    ];
    let mut detections = run(&frame)?;
    for detection in &mut detections {
        let [left, top, right, bottom] = detection.xyxy;
        detection.xyxy = [left * x, top * y, right * x, bottom * y];
    }
    Ok(detections)
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
    use crate::network::IMAGE;
    use crate::quantize::Quantizer;
    use crate::train::parameters::Role;
    use ternwatch_bundle::manifest::{Activation, Head, HeadKind, Input, Layer};

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

    #[test]
    fn a_picture_larger_than_a_frame_is_looked_at_smaller() {
        for ([width, height], seen) in [
            ([8192, 40], [8192, 40]),
            ([8200, 40], [4100, 20]),
            ([40, 20_000], [10, 5000]),
            ([20_000, 3], [5000, 2]),
        ] {
            let image = RgbImage::new(width, height);
            let detections = detect_in(&image, |frame| {
                assert_eq!([frame.width(), frame.height()], seen);
                let [right, bottom] = seen.map(|side| side as f32);
                Ok(vec![detection(0.5, [right / 2.0, 0.0, right, bottom])])
            });
            let [right, bottom] = [width as f32, height as f32];
            assert_eq!(
                detections.unwrap()[0].xyxy,
                [right / 2.0, 0.0, right, bottom]
            );
        }
    }

    /// A network made by hand that finds bright squares of 24 pixels around the middle of a cell: three convolutions take
    /// every eighth pixel, the head adds up nine of them.
    fn finder_of_squares() -> (Network, Parameters) {
        let conv = |name: &str, input: &str, channels: [u32; 2], stride, activation| Layer::Conv {
            name: name.into(),
            input: input.into(),
            in_channels: channels[0],
            out_channels: channels[1],
            kernel: 3,
            stride,
            groups: 1,
            activation,
            pre_shift: 0,
            offset: 0,
        };
        let network = Network {
            input: Input {
                width: 96,
                height: 64,
                channels: 3,
                fill: 0,
            },
            layers: vec![
                conv("a", IMAGE, [3, 1], 2, Activation::Relu),
                conv("b", "a", [1, 1], 2, Activation::Relu),
                conv("c", "b", [1, 1], 2, Activation::Relu),
                conv("head", "c", [1, 5], 1, Activation::Linear),
            ],
            heads: vec![Head {
                layer: "head".into(),
                stride: 8,
                kind: HeadKind::Boxes,
            }],
        };
        let mut parameters = Parameters::init(&network, 1);
        for layer in ["a", "b", "c", "head"] {
            let weight = parameters.get_mut(layer, Role::Weight);
            weight.fill(0.0);
            weight
                .chunks_exact_mut(9)
                .for_each(|kernel| kernel[4] = 1.0);
        }
        // Grey is the sum of three equal colours: 2.8 is bright, 0.1 is dark. Nine bright cells are a square, seven are none.
        parameters.get_mut("head", Role::Weight)[..9].fill(1.0);
        let (gamma, beta) = ([0.8, 0.01, 0.01, 0.01, 0.01], [-17.2, 1.5, 1.5, 1.5, 1.5]);
        parameters
            .get_mut("head", Role::Gamma)
            .copy_from_slice(&gamma);
        parameters
            .get_mut("head", Role::Beta)
            .copy_from_slice(&beta);
        (network, parameters)
    }

    #[test]
    fn a_network_that_finds_everything_has_an_ap50_of_one_and_one_that_looks_elsewhere_of_zero() {
        let (network, parameters) = finder_of_squares();
        let config =
            crate::train::config::Config::parse(include_str!("../../../models/person.toml"));
        let key = ternwatch_bundle::SecretKey::from_bytes(&[7; 32]);
        let source = crate::export::Source {
            id: ternwatch_bundle::manifest::ModelId {
                name: "squares".into(),
                version: 1,
            },
            classes: vec!["square".into()],
            thresholds: Thresholds {
                score: 0.5,
                iou: 0.5,
            },
            network: &network,
            parameters: &parameters,
            quantizer: &Quantizer::fit(&parameters, &config.unwrap().quantize),
            card: serde_json::Value::Null,
        };
        let bytes = crate::export::bundle(&source, &key).unwrap();
        let model = crate::files::model_from(&bytes, key.public_key()).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let squares = |shift: f32| {
            let images = [[1, 1], [4, 3], [7, 2], [6, 6], [2, 5]].map(|[column, row]| {
                let [x, y] = [column, row].map(|cell: u32| 8 * cell - 8);
                let path = folder.path().join(format!("{x}-{y}.png"));
                let mut image = RgbImage::from_pixel(96, 64, image::Rgb([10; 3]));
                for (dx, dy) in (0..24).flat_map(|dx| (0..24).map(move |dy| (dx, dy))) {
                    image.put_pixel(x + dx, y + dy, image::Rgb([240; 3]));
                }
                image.save(&path).unwrap();
                let [x, y] = [x as f32 + shift, y as f32];
                ImageRecord {
                    path,
                    source: "drawn".into(),
                    size: None,
                    boxes: vec![annotation([x, y, x + 24.0, y + 24.0], false)],
                }
            });
            Dataset {
                images: images.into(),
            }
        };
        for (shift, least, most) in [(0.0, 0.99, 1.0), (24.0, 0.0, 0.01)] {
            let dataset = squares(shift);
            let ternary = evaluate(&model, &dataset, Isa::detect()).unwrap();
            let float = evaluate_float(&model, (&network, &parameters), &dataset).unwrap();
            for twin in [&ternary, &float] {
                let score = &twin.sources[OVERALL];
                assert_eq!(score.boxes, 5);
                assert!((least..=most).contains(&score.ap50), "{shift}: {score:?}");
                assert!((least..=most).contains(&score.recall), "{shift}: {score:?}");
                assert!(
                    (least..=most).contains(&score.precision),
                    "{shift}: {score:?}"
                );
            }
        }
    }

    #[test]
    fn a_crowded_class_takes_nothing_away_from_another_one() {
        let detection = |class: u16| Detection {
            class,
            score: 0.5,
            xyxy: [0.0, 0.0, 1.0, 1.0],
        };
        let mut detections = vec![detection(0); DETECTIONS_MAX + 1];
        detections.push(detection(1));
        keep_best(&mut detections, 2);
        let count = |class| detections.iter().filter(|d| d.class == class).count();
        assert_eq!([count(0), count(1)], [DETECTIONS_MAX, 1]);
    }
}
