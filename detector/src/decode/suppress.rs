//! Greedy non-maximum suppression.

use super::{Candidate, DETECTIONS_MAX};
use crate::detection::Detection;

/// Keeps each candidate, best first, unless a kept one of its class overlaps it by more than `iou_max`.
pub(crate) fn greedy(candidates: &[Candidate], iou_max: f32, kept: &mut Vec<Detection>) {
    kept.clear();
    for Candidate { detection, .. } in candidates {
        if kept.len() == DETECTIONS_MAX {
            return;
        }
        let is_beaten = kept
            .iter()
            .any(|better| better.class == detection.class && overlap(better, detection, iou_max));
        if !is_beaten {
            kept.push(*detection);
        }
    }
}

/// Whether intersection over union exceeds `iou_max`.
fn overlap(a: &Detection, b: &Detection, iou_max: f32) -> bool {
    let [a, b] = [a.xyxy, b.xyxy];
    let width = a[2].min(b[2]) - a[0].max(b[0]);
    let height = a[3].min(b[3]) - a[1].max(b[1]);
    if width <= 0.0 || height <= 0.0 {
        return false;
    }
    let intersection = width * height;
    let union = area(a) + area(b) - intersection;
    intersection > iou_max * union
}

fn area([left, top, right, bottom]: [f32; 4]) -> f32 {
    (right - left) * (bottom - top)
}
