//! Thresholds that keep a part of all weights at zero (docs/adr/0024-zeros-that-are-kept.md).

use ternwatch_kernels::Trit;

use super::{Quantizer, weights};
use crate::train::parameters::Parameters;

/// Where more weights than this part of all are as far from zero as the threshold, up to `TIE` of that, it would part what is alike.
const TIES_MAX: f32 = 0.02;
const TIE: f32 = 1e-3;

impl Quantizer {
    /// Sets the thresholds, one part of the scale for all channels, so that this part of all weights is zero.
    pub fn keep_zeros(&mut self, parameters: &Parameters, part: f32) {
        let mut widths = Vec::new();
        for (levels, (_, fan_in, w)) in self.layers.iter().zip(weights(parameters)) {
            for (channel, w) in w.chunks_exact(fan_in).enumerate() {
                let scale = levels.scale[channel].max(f32::MIN_POSITIVE);
                let width = |(i, &w): (usize, &f32)| match levels.fixed[i] {
                    // No threshold changes it any more.
                    true if levels.trit(i, channel, w) == Trit::Zero => 0.0,
                    true => f32::INFINITY,
                    false => w.abs() / scale,
                };
                widths.extend((channel * fan_in..).zip(w).map(width));
            }
        }
        let goal = (part * widths.len() as f32) as usize;
        let width = goal.checked_sub(1).map(|last| width(&mut widths, last));
        if let Some(width) = width.filter(|width| width.is_finite()) {
            for levels in &mut self.layers {
                for (threshold, scale) in levels.threshold.iter_mut().zip(&levels.scale) {
                    *threshold = width * scale;
                }
            }
        }
    }
}

/// The width up to which there are so many weights and one more. Where a bundle was begun with, weights of a channel are of one size, which no
/// width parts: it is then the largest below them, so that their levels stay.
fn width(widths: &mut [f32], last: usize) -> f32 {
    let ties_max = TIES_MAX * widths.len() as f32;
    let (less, &mut nth, more) = widths.select_nth_unstable_by(last, f32::total_cmp);
    let ties = more.iter().filter(|w| **w <= nth * (1.0 + TIE)).count();
    if nth.is_infinite() || ties as f32 <= ties_max {
        return nth;
    }
    let below = less.iter().copied().filter(|w| *w < nth * (1.0 - TIE));
    below.fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_one_size_are_not_parted() {
        let mut spread: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).collect();
        assert_eq!(width(&mut spread, 679), 0.679);
        // 600 zeros, and the rest as large as floats make one number.
        let mut levels: Vec<f32> = (0..1000)
            .map(|i| {
                if i < 600 {
                    0.0
                } else {
                    1.0 + (i % 3) as f32 * f32::EPSILON
                }
            })
            .collect();
        assert_eq!(width(&mut levels, 679), 0.0);
        assert_eq!(width(&mut levels, 500), 0.0);
        let mut fixed = vec![f32::INFINITY; 1000];
        assert_eq!(width(&mut fixed, 679), f32::INFINITY);
    }
}
