//! The detection loss and its gradient with respect to the head outputs, on the host.
//!
//! Assignment after FCOS (Tian et al. 2019, section 3.2): a cell near a box's centre answers for that box if the box's
//! size belongs to the cell's stride; of several boxes the smallest wins. Scores learn the box's IoU by the quality
//! focal loss (Li et al. 2020, "Generalized focal loss", equation 2, beta = 2), boxes by the generalized IoU
//! (Rezatofighi et al. 2019). The gradients are written out; a test compares them with differences.

use super::distil;
use super::graph::HeadOutput;
use super::task::{Loss, Task};
use crate::data::augment::{Photos, Target};
use crate::network::SIZE_RANGES;

/// Channels of a head's output after its logits: four distances.
pub const SIDES: usize = 4;

/// A cell answers for a box whose centre is at most this many strides away.
const CENTRE_RADIUS: f32 = 1.5;
/// Weight of the boxes' part.
pub const BOX_WEIGHT: f32 = 0.75;
/// The least IoU that a responsible cell's score is drawn to.
const QUALITY_MIN: f32 = 0.1;

/// Finding things in augmented photographs.
impl Task for Photos {
    type Truth = Vec<Target>;

    fn sample(
        &self,
        rng: &mut fastrand::Rng,
        [width, height]: [usize; 2],
    ) -> (Vec<f32>, Vec<Target>) {
        let sample = Photos::sample(self, rng, width, height);
        (sample.image, sample.boxes)
    }

    fn loss(&self, outputs: &[HeadOutput], truth: &[Vec<Target>]) -> (Loss, Vec<Vec<f32>>) {
        loss(outputs, truth)
    }

    fn distil(&self, outputs: &[HeadOutput], teacher: &[HeadOutput]) -> (Loss, Vec<Vec<f32>>) {
        distil::boxes(outputs, teacher)
    }
}

/// Computes the loss of a batch and its gradient with respect to each head's output.
pub fn loss(outputs: &[HeadOutput], truth: &[Vec<Target>]) -> (Loss, Vec<Vec<f32>>) {
    let mut gradients: Vec<Vec<f32>> = outputs.iter().map(|o| vec![0.0; o.data.len()]).collect();
    let mut sum = Loss::default();
    let strides: Vec<u32> = outputs.iter().map(|output| output.stride).collect();
    for (output, gradient) in outputs.iter().zip(&mut gradients) {
        for (image, boxes) in truth.iter().enumerate() {
            image_loss((output, &strides), image, boxes, &mut sum, gradient);
        }
    }
    let scale = 1.0 / sum.positives.max(1) as f32;
    sum.score *= scale;
    sum.bbox *= scale;
    gradients.iter_mut().flatten().for_each(|g| *g *= scale);
    (sum, gradients)
}

fn image_loss(
    (output, strides): (&HeadOutput, &[u32]),
    image: usize,
    boxes: &[Target],
    sum: &mut Loss,
    gradient: &mut [f32],
) {
    let cells = output.height * output.width;
    let classes = output.channels - SIDES;
    let base = image * output.channels * cells;
    let stride = output.stride as f32;
    let (ignored, counted): (Vec<&Target>, Vec<&Target>) = boxes.iter().partition(|b| b.ignore);
    let answers = |b: &&Target| answering(&b.xyxy, strides) == Some(output.stride);
    let candidates: Vec<&Target> = counted.into_iter().filter(answers).collect();
    for cell in 0..cells {
        let x = ((cell % output.width) as f32 + 0.5) * stride;
        let y = ((cell / output.width) as f32 + 0.5) * stride;
        let mut answer = None;
        if let Some((class, target)) = responsible(&candidates, x, y, stride) {
            let index = |k: usize| base + (classes + k) * cells + cell;
            let distances = [0, 1, 2, 3].map(|k| output.data[index(k)].max(0.0));
            let (iou, value, slope) = giou_loss(distances, target);
            answer = Some((usize::from(class), iou.max(QUALITY_MIN)));
            sum.positives += 1;
            sum.bbox += BOX_WEIGHT * value;
            for (k, slope) in slope.into_iter().enumerate() {
                // The decoder clips distances at zero; the slope passes through, or a clipped one could never return.
                gradient[index(k)] = BOX_WEIGHT * slope;
            }
        }
        let is_ignored = |class: usize| {
            let mut there = ignored.iter().filter(|b| usize::from(b.class) == class);
            there.any(|b| contains(&b.xyxy, x, y))
        };
        for class in 0..classes {
            if answer.is_none() && is_ignored(class) {
                continue;
            }
            let quality = answer.filter(|(c, _)| *c == class).map_or(0.0, |(_, q)| q);
            let index = base + class * cells + cell;
            let (value, slope) = quality_focal_loss(output.data[index], quality);
            sum.score += value;
            gradient[index] = slope;
        }
    }
}

/// Which of a network's strides answers for a box: the one for its size, or the next to that if the network has no such head.
fn answering(b: &[f32; 4], strides: &[u32]) -> Option<u32> {
    let size = (b[2] - b[0]).max(b[3] - b[1]);
    let range = SIZE_RANGES
        .iter()
        .find(|(_, low, high)| (*low..*high).contains(&size))?;
    let distance = |stride: &u32| stride.ilog2().abs_diff(range.0.ilog2());
    strides.iter().copied().min_by_key(distance)
}

fn contains(b: &[f32; 4], x: f32, y: f32) -> bool {
    b[0] < x && x < b[2] && b[1] < y && y < b[3]
}

/// The class and the distances, in strides, that the cell at (x, y) has to answer, if it has to.
fn responsible(candidates: &[&Target], x: f32, y: f32, stride: f32) -> Option<(u16, [f32; 4])> {
    let area = |b: &[f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let near = |b: &[f32; 4]| {
        let (cx, cy) = ((b[0] + b[2]) / 2.0, (b[1] + b[3]) / 2.0);
        contains(b, x, y) && (x - cx).abs().max((y - cy).abs()) < CENTRE_RADIUS * stride
    };
    let target = candidates
        .iter()
        .filter(|t| near(&t.xyxy))
        .min_by(|a, b| area(&a.xyxy).total_cmp(&area(&b.xyxy)))?;
    let b = target.xyxy;
    let distances = [x - b[0], y - b[1], b[2] - x, b[3] - y];
    Some((target.class, distances.map(|d| d / stride)))
}

/// The score that a logit says.
pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Quality focal loss of one logit: value and slope.
pub fn quality_focal_loss(logit: f32, quality: f32) -> (f32, f32) {
    let p = sigmoid(logit);
    // Binary cross-entropy with logits in its stable form.
    let cross_entropy = logit.max(0.0) - logit * quality + (-logit.abs()).exp().ln_1p();
    let error = p - quality;
    (
        error * error * cross_entropy,
        2.0 * error * p * (1.0 - p) * cross_entropy + error * error * error,
    )
}

/// `1 - GIoU` of two boxes that share an inner point, given as distances from it: IoU, value, slopes.
pub fn giou_loss(d: [f32; 4], t: [f32; 4]) -> (f32, f32, [f32; 4]) {
    let extent = |v: [f32; 4], axis: usize| v[axis] + v[axis + 2];
    let inner = |axis: usize| d[axis].min(t[axis]) + d[axis + 2].min(t[axis + 2]);
    let outer = |axis: usize| d[axis].max(t[axis]) + d[axis + 2].max(t[axis + 2]);
    let intersection = inner(0) * inner(1);
    let union = extent(d, 0) * extent(d, 1) + extent(t, 0) * extent(t, 1) - intersection;
    let hull = outer(0) * outer(1);
    let iou = intersection / union;
    let value = 1.0 - iou + (hull - union) / hull;
    let slope = [0, 1, 2, 3].map(|k| {
        let other = 1 - k % 2;
        let inside = d[k] < t[k];
        let d_intersection = if inside { inner(other) } else { 0.0 };
        let d_union = extent(d, other) - d_intersection;
        let d_hull = if inside { 0.0 } else { outer(other) };
        let d_iou = (d_intersection * union - intersection * d_union) / (union * union);
        // (hull - union) / hull = 1 - union / hull
        let d_penalty = (union * d_hull - d_union * hull) / (hull * hull);
        -d_iou + d_penalty
    });
    (iou, value, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(xyxy: [f32; 4]) -> Vec<Target> {
        vec![Target {
            xyxy,
            class: 0,
            ignore: false,
        }]
    }

    fn output(rng: &mut fastrand::Rng) -> HeadOutput {
        let (height, width) = (4, 5);
        let data = (0..2 * 5 * height * width)
            .map(|_| rng.f32() * 3.0 - 0.5)
            .collect();
        HeadOutput {
            data,
            channels: 5,
            height,
            width,
            stride: 8,
        }
    }

    #[test]
    fn gradients_of_the_parts_match_differences() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let d = [(); 4].map(|()| rng.f32() * 4.0 + 0.1);
            let t = [(); 4].map(|()| rng.f32() * 4.0 + 0.1);
            let (_, _, slope) = giou_loss(d, t);
            for k in 0..4 {
                let shifted = |by: f32| {
                    let mut v = d;
                    v[k] += by;
                    giou_loss(v, t).1
                };
                let difference = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
                assert!(
                    (difference - slope[k]).abs() < 5e-3,
                    "{d:?} {t:?}: {difference} {}",
                    slope[k]
                );
            }
            let (logit, quality) = (rng.f32() * 8.0 - 4.0, rng.f32());
            let (_, slope) = quality_focal_loss(logit, quality);
            let difference = (quality_focal_loss(logit + 1e-2, quality).0
                - quality_focal_loss(logit - 1e-2, quality).0)
                / 2e-2;
            assert!(
                (difference - slope).abs() < 2e-3,
                "{logit} {quality}: {difference} {slope}"
            );
        }
    }

    #[test]
    fn nothing_is_learned_within_an_ignored_box() {
        let outputs = [output(&mut fastrand::Rng::with_seed(1))];
        let mut truth = vec![person([0.0, 0.0, 16.0, 40.0]), vec![]];
        truth[0][0].ignore = true;
        let (loss, gradients) = loss(&outputs, &truth);
        assert_eq!((loss.positives, loss.bbox), (0, 0.0));
        for (cell, gradient) in gradients[0][..20].iter().enumerate() {
            // Two of five columns lie in the box.
            assert_eq!(*gradient == 0.0, cell % 5 < 2, "{cell}");
        }
    }

    #[test]
    fn only_cells_near_the_centre_answer_for_a_box() {
        let outputs = [output(&mut fastrand::Rng::with_seed(1))];
        let truth = vec![person([4.0, 2.0, 36.0, 30.0]), vec![]];
        let (loss, gradients) = loss(&outputs, &truth);
        // The centre (20, 16) lies between the rows 1 and 2 and in column 2: 3 columns and 2 rows are within 12 pixels.
        assert_eq!(loss.positives, 6);
        let touched = gradients[0][20..100].iter().filter(|g| **g != 0.0).count();
        assert!(touched > 0 && touched <= 24, "{touched}");
        assert!(
            gradients[0][120..].iter().all(|g| *g == 0.0),
            "an image without people draws no distances"
        );
    }

    #[test]
    fn a_box_of_another_stride_is_left_to_it() {
        let mut rng = fastrand::Rng::with_seed(1);
        let coarse = HeadOutput {
            stride: 16,
            ..output(&mut rng)
        };
        let outputs = [output(&mut rng), coarse];
        let (loss, gradients) = loss(&outputs, &[person([0.0, 0.0, 70.0, 30.0]), vec![]]);
        assert!(loss.positives > 0);
        // The first channels of the picture are the classes', the others the sides'.
        let cells = outputs[0].height * outputs[0].width;
        let sides = |head: usize| {
            let channels = outputs[head].channels;
            gradients[head][(channels - SIDES) * cells..channels * cells].to_vec()
        };
        assert!(sides(0).iter().all(|slope| *slope == 0.0));
        assert!(sides(1).iter().any(|slope| *slope != 0.0));
    }

    #[test]
    fn only_the_own_class_is_drawn_up() {
        let (height, width) = (4, 5);
        let output = HeadOutput {
            data: vec![0.5; 7 * height * width],
            channels: 7,
            height,
            width,
            stride: 8,
        };
        let target = Target {
            xyxy: [4.0, 2.0, 36.0, 30.0],
            class: 1,
            ignore: false,
        };
        let (_, gradients) = loss(&[output], &[vec![target]]);
        // Row 1, column 2 lies within the box: its second logit ought to rise less steeply down than the others.
        let slope = |class: usize| gradients[0][class * 20 + 7];
        assert_eq!(slope(0), slope(2));
        assert!(slope(1) < slope(0), "{} {}", slope(1), slope(0));
    }

    #[test]
    fn a_size_without_a_head_of_its_own_is_answered_for_by_the_next_one() {
        let square = |side: f32| [0.0, 0.0, side, side];
        for (strides, expected) in [
            (&[8, 16, 32][..], [8, 16, 32]),
            (&[8, 16], [8, 16, 16]),
            (&[32, 8], [8, 32, 32]),
            (&[16], [16, 16, 16]),
        ] {
            let found = [63.0, 64.0, 128.0].map(|side| answering(&square(side), strides));
            assert_eq!(found, expected.map(Some), "{strides:?}");
        }
    }
}
