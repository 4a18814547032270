//! The levels {-1, 0, +1} x scale of one output channel, and the scale that fits a channel best.

use ternwatch_kernels::Trit;

/// The level nearest to `weight`; ties go to zero.
pub fn nearest(weight: f32, scale: f32) -> Trit {
    if weight.abs() * 2.0 <= scale || scale == 0.0 {
        Trit::Zero
    } else if weight > 0.0 {
        Trit::Plus
    } else {
        Trit::Minus
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

/// Moves `scale` towards the fit: the mean magnitude of the weights that it now maps to a level other than zero.
pub fn refit_scale(weights: &[f32], scale: f32) -> f32 {
    let (mut sum, mut count) = (0.0f64, 0u32);
    for w in weights.iter().filter(|w| w.abs() * 2.0 > scale) {
        sum += f64::from(w.abs());
        count += 1;
    }
    if count == 0 {
        scale
    } else {
        (sum / f64::from(count)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(weights: &[f32], scale: f32) -> f32 {
        weights
            .iter()
            .map(|&w| (w - value(nearest(w, scale), scale)).powi(2))
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
    fn a_ternary_channel_fits_itself() {
        let weights = [0.3, -0.3, 0.0, 0.0, 0.3];
        assert_eq!(fit_scale(&weights), 0.3);
        assert!(error(&weights, 0.3) < 1e-12);
        assert_eq!(fit_scale(&[0.0; 4]), 0.0);
        assert_eq!(nearest(0.7, 0.0), Trit::Zero);
    }
}
