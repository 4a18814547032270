//! Detections against boxes: hits and misses, and the average precision of many.
//!
//! AP50 is COCO's protocol (https://cocodataset.org, "Detection evaluation") at an IoU of 0.5: detections best first,
//! each matched to the free box of its class that it overlaps most; precision interpolated at 101 recall points; the
//! mean over the classes that there are boxes of. Boxes that do not count are neither hits nor misses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ternwatch_detector::Detection;

use crate::data::dataset::Annotation;
use crate::data::xyxy;

/// A hit overlaps a box by at least this.
const IOU_MIN: f32 = 0.5;

/// The result for one set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Average precision at an IoU of 0.5, the mean over the classes.
    pub ap50: f64,
    /// Part of the detections at the model's default threshold that are hits.
    pub precision: f64,
    /// Part of the boxes that are hit at the default threshold.
    pub recall: f64,
    /// Images.
    pub images: usize,
    /// Boxes that count.
    pub boxes: usize,
}

/// What became of a detection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) score: f32,
    pub(super) class: u16,
    pub(super) hit: bool,
}

/// The outcome of every detection of some images, and how many boxes there were.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes {
    pub(super) detections: Vec<Outcome>,
    /// Boxes that count, by class.
    pub(super) boxes: BTreeMap<u16, usize>,
    pub(super) images: usize,
}

/// What a detection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It found the box of this index.
    Hit(usize),
    /// It found something that does not count.
    Spared,
    /// It found nothing.
    Alarm,
}

/// Matches detections, best first, to boxes; one verdict a detection. Boxes that are ignored or that `counts` refuses do not
/// count, and neither do detections that match one of these, or nothing while `counts` refuses them, too.
pub(super) fn verdicts(
    detections: &[Detection],
    boxes: &[Annotation],
    counts: impl Fn(&[f32; 4]) -> bool,
) -> Vec<Verdict> {
    let mut free = vec![true; boxes.len()];
    let mut verdict = |d: &Detection| {
        let best = |spared: bool, free: &[bool]| {
            let own =
                |i: &usize| is_spared(&boxes[*i], &counts) == spared && boxes[*i].class == d.class;
            (0..boxes.len())
                .filter(|i| own(i) && (free[*i] || boxes[*i].ignore))
                .map(|i| (i, overlap(&d.xyxy, &boxes[i])))
                .filter(|(_, overlap)| *overlap >= IOU_MIN)
                .max_by(|a, b| a.1.total_cmp(&b.1))
        };
        if let Some((i, _)) = best(false, &free) {
            free[i] = false;
            return Verdict::Hit(i);
        }
        match best(true, &free) {
            Some((i, _)) => {
                free[i] = false;
                Verdict::Spared
            }
            None if counts(&d.xyxy) => Verdict::Alarm,
            None => Verdict::Spared,
        }
    };
    detections.iter().map(&mut verdict).collect()
}

fn is_spared(annotation: &Annotation, counts: impl Fn(&[f32; 4]) -> bool) -> bool {
    annotation.ignore || !counts(&annotation.xyxy)
}

/// The outcomes of one image, by its [`verdicts`].
pub(super) fn matched(
    detections: &[Detection],
    boxes: &[Annotation],
    counts: impl Fn(&[f32; 4]) -> bool,
) -> Outcomes {
    let mut outcomes = Outcomes {
        images: 1,
        ..Outcomes::default()
    };
    for (d, verdict) in detections.iter().zip(verdicts(detections, boxes, &counts)) {
        if verdict != Verdict::Spared {
            outcomes.detections.push(Outcome {
                score: d.score,
                class: d.class,
                hit: verdict != Verdict::Alarm,
            });
        }
    }
    for b in boxes.iter().filter(|b| !is_spared(b, &counts)) {
        *outcomes.boxes.entry(b.class).or_default() += 1;
    }
    outcomes
}

/// Intersection over union; of an ignored box, which stands for a crowd, the part of the detection that lies within, as COCO
/// has it. Any number of detections may lie there.
fn overlap(detection: &[f32; 4], annotation: &Annotation) -> f32 {
    let (a, b) = (detection, &annotation.xyxy);
    let intersection = xyxy::intersection(a, b);
    let whole = match annotation.ignore {
        true => xyxy::area(a),
        false => xyxy::area(a) + xyxy::area(b) - intersection,
    };
    if whole > 0.0 {
        intersection / whole
    } else {
        0.0
    }
}

impl Outcomes {
    pub(super) fn add(&mut self, other: &Self) {
        self.detections.extend_from_slice(&other.detections);
        self.images += other.images;
        for (class, count) in &other.boxes {
            *self.boxes.entry(*class).or_default() += count;
        }
    }

    pub(super) fn score(mut self, threshold: f32) -> Score {
        self.detections.sort_by(|a, b| b.score.total_cmp(&a.score));
        let (precision, recall) = self.precision_and_recall(threshold);
        let classes = self.boxes.iter();
        let precisions = classes.map(|(&class, &boxes)| self.average_precision(class, boxes));
        Score {
            // The sum of nothing is -0.
            ap50: precisions.sum::<f64>().abs() / self.boxes.len().max(1) as f64,
            precision,
            recall,
            images: self.images,
            boxes: self.boxes.values().sum(),
        }
    }

    /// Part of what is shown at this threshold that is a hit, and part of the boxes that are hit; 0 of nothing.
    pub(super) fn precision_and_recall(&self, threshold: f32) -> (f64, f64) {
        let shown = self.detections.iter().filter(|d| d.score >= threshold);
        let (shown, hits) = (shown.clone().count(), shown.filter(|d| d.hit).count());
        let boxes = self.boxes.values().sum();
        let part = |n: usize, of: usize| if of == 0 { 0.0 } else { n as f64 / of as f64 };
        (part(hits, shown), part(hits, boxes))
    }

    /// Of one class, detections sorted best first.
    fn average_precision(&self, class: u16, boxes: usize) -> f64 {
        let mut hits = 0usize;
        let mut curve: Vec<(f64, f64)> = Vec::with_capacity(self.detections.len());
        let own = self.detections.iter().filter(|d| d.class == class);
        for (i, outcome) in own.enumerate() {
            hits += usize::from(outcome.hit);
            curve.push((hits as f64 / boxes as f64, hits as f64 / (i + 1) as f64));
        }
        // Interpolated: the best precision at this recall or a higher one.
        for i in (1..curve.len()).rev() {
            curve[i - 1].1 = curve[i - 1].1.max(curve[i].1);
        }
        let at = |recall: f64| {
            let i = curve.partition_point(|(r, _)| *r < recall);
            curve.get(i).map_or(0.0, |(_, precision)| *precision)
        };
        (0..=100).map(|i| at(f64::from(i) / 100.0)).sum::<f64>() / 101.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{annotation, detection};
    use super::*;

    fn outcomes(detections: &[(f32, bool, u16)], boxes: &[(u16, usize)]) -> Outcomes {
        let outcome = |&(score, hit, class): &(f32, bool, u16)| Outcome { score, class, hit };
        Outcomes {
            detections: detections.iter().map(outcome).collect(),
            boxes: boxes.iter().copied().collect(),
            images: 1,
        }
    }

    #[test]
    fn a_box_is_hit_once_and_ignored_boxes_do_not_count() {
        let boxes = [
            annotation([0.0, 0.0, 10.0, 10.0], false),
            annotation([50.0, 0.0, 60.0, 10.0], true),
            Annotation {
                xyxy: [80.0, 0.0, 90.0, 10.0],
                class: 1,
                ignore: false,
                number: 0,
            },
        ];
        let detections = [
            detection(0.9, [0.0, 0.0, 10.0, 9.0]),
            detection(0.8, [0.0, 0.0, 10.0, 8.0]),
            detection(0.7, [50.0, 0.0, 60.0, 9.0]),
            detection(0.65, [52.0, 0.0, 55.0, 9.0]),
            detection(0.6, [80.0, 0.0, 90.0, 9.0]),
        ];
        let found = matched(&detections, &boxes, |_| true);
        let expected = [(0.9, true, 0), (0.8, false, 0), (0.6, false, 0)];
        let expected = outcomes(&expected, &[(0, 1), (1, 1)]);
        assert_eq!(found.detections, expected.detections);
        assert_eq!(found.boxes, expected.boxes);
    }

    #[test]
    fn average_precision_of_a_hand_made_curve() {
        // Hit, miss, hit of four boxes: precision 1 up to recall 0.25, 2/3 up to 0.5, then nothing.
        let one_class = [(0.9, true, 0), (0.8, false, 0), (0.7, true, 0)];
        let expected = (26.0 + 25.0 * 2.0 / 3.0) / 101.0;
        let score = outcomes(&one_class, &[(0, 4)]).score(0.75);
        assert!((score.ap50 - expected).abs() < 1e-12, "{score:?}");
        assert_eq!((score.precision, score.recall), (0.5, 0.25));
        // A second class that is found entirely, and one of which there are no boxes.
        let more = [&one_class[..], &[(0.95, true, 3), (0.2, false, 4)]].concat();
        let score = outcomes(&more, &[(0, 4), (3, 1)]).score(0.75);
        assert!((score.ap50 - (expected + 1.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_found_and_nothing_to_find_are_zero() {
        assert_eq!(outcomes(&[], &[(0, 3)]).score(0.5).ap50, 0.0);
        assert_eq!(outcomes(&[(0.5, false, 0)], &[]).score(0.5).ap50, 0.0);
    }

    #[test]
    fn boxes_of_another_height_do_not_count() {
        let boxes = [
            annotation([0.0, 0.0, 10.0, 10.0], false),
            annotation([50.0, 0.0, 80.0, 60.0], false),
        ];
        let detections = [
            detection(0.9, [0.0, 0.0, 10.0, 9.0]),
            detection(0.8, [50.0, 0.0, 80.0, 55.0]),
            detection(0.7, [150.0, 0.0, 180.0, 60.0]),
            detection(0.6, [150.0, 0.0, 160.0, 10.0]),
        ];
        let low = |b: &[f32; 4]| b[3] - b[1] < 30.0;
        let found = matched(&detections, &boxes, low);
        let expected = outcomes(&[(0.9, true, 0), (0.6, false, 0)], &[(0, 1)]);
        assert_eq!(found.detections, expected.detections);
        assert_eq!(found.boxes, expected.boxes);
    }
}
