//! The levels {-1, 0, +1} x scale of one output channel, and the scale that fits a channel best.

use ternwatch_kernels::Trit;

/// How far from the threshold a weight is put that has to change its level, as a part of the threshold.
const MARGIN: f32 = 0.05;

/// The level of `weight`: zero up to `threshold`, its sign beyond it. With half the scale as threshold it is the nearest
/// level, with more of it there are more zeros.
pub fn level(weight: f32, threshold: f32) -> Trit {
    if weight.abs() <= threshold {
        Trit::Zero
    } else if weight > 0.0 {
        Trit::Plus
    } else {
        Trit::Minus
    }
}

/// The weight nearest to `weight` of which `trit` is the level, and not by a hair.
pub fn within(weight: f32, trit: Trit, threshold: f32) -> f32 {
    let (inner, outer) = ((1.0 - MARGIN) * threshold, (1.0 + MARGIN) * threshold);
    match trit {
        Trit::Minus => weight.min(-outer),
        Trit::Zero => weight.clamp(-inner, inner),
        Trit::Plus => weight.max(outer),
    }
}

/// The value of a level.
pub fn value(trit: Trit, scale: f32) -> f32 {
    match trit {
        Trit::Minus => -scale,
        Trit::Zero => 0.0,
        Trit::Plus => scale,
    }
}

/// The scale with the least squared error over every choice of levels, in closed form.
///
/// If the k largest magnitudes become +-scale, the best scale is their mean and the error falls by (their sum)^2 / k;
/// the best k is found by looking at all of them. A channel of zeros has scale 0.
pub fn fit_scale(weights: &[f32]) -> f32 {
    let mut magnitudes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    magnitudes.sort_unstable_by(|a, b| b.total_cmp(a));
    let (mut sum, mut best, mut scale) = (0.0f64, 0.0f64, 0.0f64);
    for (k, magnitude) in magnitudes.into_iter().enumerate() {
        sum += f64::from(magnitude);
        let k = (k + 1) as f64;
        if sum * sum / k > best {
            best = sum * sum / k;
            scale = sum / k;
        }
    }
    scale as f32
}

/// The mean magnitude of the weights beyond `threshold`: for these levels the scale of the least squared error.
/// `None` if there are none.
pub fn scale_beyond(weights: &[f32], threshold: f32) -> Option<f32> {
    let (mut sum, mut count) = (0.0f64, 0u32);
    for w in weights.iter().filter(|w| w.abs() > threshold) {
        sum += f64::from(w.abs());
        count += 1;
    }
    (count > 0).then(|| (sum / f64::from(count)) as f32)
}

/// The threshold of ternary weight networks (Li and Liu 2016, equation 6): 0.7 x the mean magnitude.
pub fn twn_threshold(weights: &[f32]) -> f32 {
    let sum: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
    (0.7 * sum / weights.len().max(1) as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(weights: &[f32], scale: f32) -> f32 {
        weights
            .iter()
            .map(|&w| (w - value(level(w, scale / 2.0), scale)).powi(2))
            .sum()
    }

    #[test]
    fn no_scale_fits_better_than_the_fitted_one() {
        let mut rng = fastrand::Rng::with_seed(11);
        for n in [1, 2, 9, 27, 300] {
            let weights: Vec<f32> = (0..n).map(|_| rng.f32() * 2.0 - 1.0).collect();
            let fitted = error(&weights, fit_scale(&weights));
            for i in 0..500 {
                assert!(fitted <= error(&weights, i as f32 / 400.0) + 1e-4);
            }
        }
    }

    #[test]
    fn a_weight_put_within_a_level_has_it() {
        for trit in [Trit::Minus, Trit::Zero, Trit::Plus] {
            for weight in [-2.0, -0.31, -0.3, -0.1, 0.0, 0.2, 0.3, 0.5] {
                let moved = within(weight, trit, 0.3);
                assert_eq!(level(moved, 0.3), trit, "{weight}");
                if level(weight, 0.3) == trit && (weight.abs() - 0.3).abs() > 0.03 {
                    assert_eq!(moved, weight);
                }
            }
        }
    }

    #[test]
    fn a_ternary_channel_fits_itself() {
        let weights = [0.3, -0.3, 0.0, 0.0, 0.3];
        assert_eq!(fit_scale(&weights), 0.3);
        assert!(error(&weights, 0.3) < 1e-12);
        assert_eq!(fit_scale(&[0.0; 4]), 0.0);
        assert_eq!(level(0.0, 0.0), Trit::Zero);
    }
}
