//! Third stage: from logits to boxes.
//!
//! Takes the heads' i16 tensors, gives detections in frame pixels, best first. Only `+ - * /`, comparisons and
//! `libm`'s portable `expf` and `logf` are used on floats, in a fixed order, so that the bytes are the same everywhere.
//! Everything is bounded: at most [`CANDIDATES_MAX`] boxes compete, at most [`DETECTIONS_MAX`] come out.

mod suppress;

use std::cmp::Ordering;

use ternwatch_bundle::manifest::HeadKind;
use ternwatch_bundle::model::{ConvLayer, Epilogue, ModelLayer};
use ternwatch_bundle::{Model, Thresholds};

use crate::detection::Detection;
use crate::letterbox::Letterbox;

/// Detections of one frame at most.
pub const DETECTIONS_MAX: usize = 300;
/// Boxes that compete at most: the best ones.
pub const CANDIDATES_MAX: usize = 1000;

/// Sides of a box, and channels that give their distances.
const SIDES: usize = 4;

/// What the heads' tensors mean, and room for the boxes.
#[derive(Debug)]
pub(crate) struct Decoder {
    heads: Vec<HeadLayout>,
    candidates: Candidates,
    detections: Vec<Detection>,
}

#[derive(Debug)]
struct HeadLayout {
    layer: usize,
    height: usize,
    width: usize,
    stride: f32,
    /// One per channel: classes, then left, top, right, bottom.
    scale: Vec<f32>,
}

/// One class of one cell that reaches the score threshold.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    detection: Detection,
    /// Position in the order of heads, classes and cells: breaks ties, so that the order is always the same.
    sequence: u32,
}

impl Candidate {
    /// Best first.
    fn order(&self, other: &Self) -> Ordering {
        let score = other.detection.score.total_cmp(&self.detection.score);
        score.then(self.sequence.cmp(&other.sequence))
    }
}

impl Decoder {
    /// Allocates for the heads of this model that have boxes.
    pub(crate) fn new(model: &Model) -> Self {
        let with_boxes = || {
            let heads = model.heads().iter();
            heads.filter(|head| head.kind == HeadKind::Boxes)
        };
        let heads = with_boxes().filter_map(|head| match &model.layers()[head.layer] {
            ModelLayer::Conv(ConvLayer {
                epilogue: Epilogue::Linear { scale },
                output_shape,
                ..
            }) => Some(HeadLayout {
                layer: head.layer,
                height: output_shape.height,
                width: output_shape.width,
                stride: head.stride as f32,
                scale: scale.clone(),
            }),
            _ => None,
        });
        let heads: Vec<_> = heads.collect();
        assert_eq!(
            heads.len(),
            with_boxes().count(),
            "every head of a loaded model is a linear convolution"
        );
        Self {
            heads,
            candidates: Candidates::new(),
            detections: Vec::with_capacity(DETECTIONS_MAX),
        }
    }

    /// Decodes the logits that `logits` gives for a head's layer.
    pub(crate) fn run<'a>(
        &mut self,
        logits: impl Fn(usize) -> &'a [i16],
        letterbox: Letterbox,
        thresholds: Thresholds,
    ) -> &[Detection] {
        self.candidates.list.clear();
        let mut sequence = 0;
        for head in &self.heads {
            let logits = logits(head.layer);
            head.collect(
                logits,
                letterbox,
                thresholds.score,
                sequence,
                &mut self.candidates,
            );
            sequence += logits.len() as u32;
        }
        suppress::greedy(
            self.candidates.sorted(),
            thresholds.iou,
            &mut self.detections,
        );
        &self.detections
    }

    /// What came out last.
    pub(crate) fn detections(&self) -> &[Detection] {
        &self.detections
    }

    /// What competed for it.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &Detection> + Clone {
        self.candidates.list.iter().map(|c| &c.detection)
    }
}

impl HeadLayout {
    fn collect(
        &self,
        logits: &[i16],
        letterbox: Letterbox,
        score_min: f32,
        first_sequence: u32,
        candidates: &mut Candidates,
    ) {
        let plane_len = self.height * self.width;
        let classes = self.scale.len() - SIDES;
        let (class_planes, distances) = logits.split_at(classes * plane_len);
        for (class, plane) in class_planes.chunks_exact(plane_len).enumerate() {
            let scale = self.scale[class];
            let logit_min = lowest_logit(score_min, scale);
            for (cell, &logit) in plane.iter().enumerate() {
                if logit < logit_min {
                    continue;
                }
                let score = sigmoid(f32::from(logit) * scale);
                // A threshold that is no number lets nothing pass.
                if score >= score_min {
                    let xyxy =
                        letterbox.to_frame(self.input_box(distances, cell, &self.scale[classes..]));
                    let detection = Detection {
                        class: class as u16,
                        score,
                        xyxy,
                    };
                    let sequence = first_sequence + (class * plane_len + cell) as u32;
                    candidates.push(Candidate {
                        detection,
                        sequence,
                    });
                }
            }
        }
    }

    /// Left, top, right, bottom in input pixels.
    fn input_box(&self, distances: &[i16], cell: usize, scale: &[f32]) -> [f32; SIDES] {
        let plane_len = self.height * self.width;
        let distance = |side: usize| {
            let strides = f32::from(distances[side * plane_len + cell].max(0)) * scale[side];
            strides * self.stride
        };
        let x = ((cell % self.width) as f32 + 0.5) * self.stride;
        let y = ((cell / self.width) as f32 + 0.5) * self.stride;
        [
            x - distance(0),
            y - distance(1),
            x + distance(2),
            y + distance(3),
        ]
    }
}

/// The best candidates seen so far, in twice the room that they need: whenever it is full, the worse half goes.
#[derive(Debug)]
struct Candidates {
    list: Vec<Candidate>,
}

impl Candidates {
    fn new() -> Self {
        Self {
            list: Vec::with_capacity(2 * CANDIDATES_MAX),
        }
    }

    fn push(&mut self, candidate: Candidate) {
        let [left, top, right, bottom] = candidate.detection.xyxy;
        // What lies in the border only, or has no extent, is no object of the frame.
        if !(left < right && top < bottom) {
            return;
        }
        if self.list.len() == 2 * CANDIDATES_MAX {
            self.keep_best();
        }
        self.list.push(candidate);
    }

    /// Best first, at most [`CANDIDATES_MAX`].
    fn sorted(&mut self) -> &[Candidate] {
        self.keep_best();
        self.list.sort_unstable_by(Candidate::order);
        &self.list
    }

    fn keep_best(&mut self) {
        if self.list.len() > CANDIDATES_MAX {
            self.list
                .select_nth_unstable_by(CANDIDATES_MAX, Candidate::order);
            self.list.truncate(CANDIDATES_MAX);
        }
    }
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-logit))
}

/// A bound below which no logit reaches the score: spares the exponential almost everywhere. It is a little low, so
/// that rounding drops nothing; the score itself decides.
fn lowest_logit(score_min: f32, scale: f32) -> i16 {
    if score_min < 1e-6 {
        return i16::MIN;
    }
    // Above, scores are one within an f32's precision and the logarithm says nothing.
    let score = score_min.min(0.999_99);
    // A score is off by less than 1e-6, a logit thus by that over the slope of the logistic function.
    let slack = 1e-6 / (score * (1.0 - score));
    let steps = (libm::logf(score / (1.0 - score)) - slack) / scale;
    // The conversion saturates. The quotient itself is off by less than a thousandth.
    let floor = libm::floorf(steps) as i16;
    floor.saturating_sub(1 + (floor.unsigned_abs() >> 10) as i16)
}

#[cfg(test)]
mod tests;
