//! Learning from the float network: its outputs on the same samples are what a quantized network is drawn to, beside
//! the truth (Hinton et al. 2015, "Distilling the knowledge in a neural network").

use super::graph::HeadOutput;
use super::loss::{BOX_WEIGHT, SIDES, giou_loss, quality_focal_loss, sigmoid};
use super::task::Loss;

/// Softens a classifier's probabilities, so that the order of the wrong classes counts, too (there, section 2).
const TEMPERATURE: f32 = 4.0;
/// Cells whose score the teacher holds for less do not teach a box.
const TEACHING_SCORE_MIN: f32 = 0.05;

/// How far a detector's outputs are from the teacher's, per expected cell of an object, with the gradient.
///
/// Scores learn the teacher's by the quality focal loss; boxes learn the teacher's by the generalized IoU, each as much
/// as the teacher is sure of it.
pub fn boxes(outputs: &[HeadOutput], teacher: &[HeadOutput]) -> (Loss, Vec<Vec<f32>>) {
    let mut sum = Loss::default();
    let mut sureness = 0.0;
    let mut gradients: Vec<Vec<f32>> = outputs.iter().map(|o| vec![0.0; o.data.len()]).collect();
    for ((output, teacher), gradient) in outputs.iter().zip(teacher).zip(&mut gradients) {
        let cells = output.height * output.width;
        let classes = output.channels - SIDES;
        let images = output.data.len() / (output.channels * cells).max(1);
        for base in (0..images).map(|image| image * output.channels * cells) {
            for cell in 0..cells {
                let mut best = 0.0f32;
                for index in (0..classes).map(|class| base + class * cells + cell) {
                    let score = sigmoid(teacher.data[index]);
                    let (value, slope) = quality_focal_loss(output.data[index], score);
                    sum.score += value;
                    gradient[index] = slope;
                    best = best.max(score);
                }
                sureness += best;
                if best < TEACHING_SCORE_MIN {
                    continue;
                }
                let index = |k: usize| base + (classes + k) * cells + cell;
                let distances = |of: &HeadOutput| [0, 1, 2, 3].map(|k| of.data[index(k)].max(0.0));
                let target = distances(teacher).map(|d| d.max(f32::EPSILON));
                let (_, value, slope) = giou_loss(distances(output), target);
                sum.bbox += BOX_WEIGHT * best * value;
                for (k, slope) in slope.into_iter().enumerate() {
                    gradient[index(k)] = BOX_WEIGHT * best * slope;
                }
            }
        }
    }
    let scale = 1.0 / f32::max(sureness, 1.0);
    sum.score *= scale;
    sum.bbox *= scale;
    gradients.iter_mut().flatten().for_each(|g| *g *= scale);
    (sum, gradients)
}

/// How far the logits of one picture are from the teacher's, with the slopes: the cross-entropy of the softened
/// probabilities less its least value, times the temperature's square (Hinton et al. 2015, section 2.1: so that it
/// keeps its weight).
pub fn logits(own: &[f32], teacher: &[f32]) -> (f32, Vec<f32>) {
    let (own, teacher) = (softened(own), softened(teacher));
    let pairs = || own.iter().zip(&teacher);
    let value: f32 = pairs()
        .map(|(p, q)| if *q > 0.0 { q * (q / p).ln() } else { 0.0 })
        .sum();
    let slopes = pairs().map(|(p, q)| TEMPERATURE * (p - q)).collect();
    (TEMPERATURE * TEMPERATURE * value, slopes)
}

fn softened(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let exponentials = logits.iter().map(|l| ((l - highest) / TEMPERATURE).exp());
    let exponentials: Vec<f32> = exponentials.map(|e| e.max(f32::MIN_POSITIVE)).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distances are `off` a multiple of 0.1, since the loss has a kink where two of them are equal.
    fn output(rng: &mut fastrand::Rng, classes: usize, off: f32) -> HeadOutput {
        let (height, width) = (3, 4);
        let mut data = vec![];
        for _ in 0..2 {
            data.extend((0..classes * 12).map(|_| rng.f32() * 6.0 - 4.0));
            data.extend((0..SIDES * 12).map(|_| f32::from(rng.u8(1..30)) * 0.1 + off));
        }
        let channels = classes + SIDES;
        HeadOutput {
            data,
            channels,
            height,
            width,
            stride: 8,
        }
    }

    #[test]
    fn a_detector_gradient_matches_differences() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut own, teacher) = (output(&mut rng, 2, 0.0), [output(&mut rng, 2, 0.05)]);
        let (_, gradients) = boxes(std::slice::from_ref(&own), &teacher);
        for (i, gradient) in gradients[0].iter().enumerate() {
            let before = own.data[i];
            let mut at = |v: f32| {
                own.data[i] = v;
                boxes(std::slice::from_ref(&own), &teacher).0.total()
            };
            let difference = (at(before + 2e-3) - at(before - 2e-3)) / 4e-3;
            own.data[i] = before;
            assert!(
                (difference - gradient).abs() < 3e-3,
                "{i}: {difference} {gradient}"
            );
        }
    }

    #[test]
    fn who_does_as_the_teacher_does_learns_nothing() {
        let teacher = [output(&mut fastrand::Rng::with_seed(6), 1, 0.0)];
        let (loss, gradients) = boxes(&teacher, &teacher);
        assert!(loss.bbox.abs() < 1e-5 && loss.score.abs() < 1e-6);
        let scores = gradients[0][..12].iter().chain(&gradients[0][60..72]);
        assert!(scores.copied().all(|g| g.abs() < 1e-6));
        let (value, slopes) = logits(&[1.0, -2.0, 0.5], &[1.0, -2.0, 0.5]);
        assert!(value.abs() < 1e-6 && slopes.iter().all(|s| s.abs() < 1e-6));
    }

    #[test]
    fn a_classifier_gradient_matches_differences() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut draw = || (0..5).map(|_| rng.f32() * 8.0 - 4.0).collect::<Vec<f32>>();
        let (own, teacher) = (draw(), draw());
        let (_, slopes) = logits(&own, &teacher);
        for i in 0..own.len() {
            let at = |by: f32| {
                let mut own = own.clone();
                own[i] += by;
                logits(&own, &teacher).0
            };
            let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!(
                (difference - slopes[i]).abs() < 2e-3,
                "{difference} {}",
                slopes[i]
            );
        }
        let far = logits(&[500.0, -500.0], &[-500.0, 500.0]);
        assert!(far.0.is_finite());
    }
}
