//! Where a box will be: a Kalman filter in continuous time.
//!
//! The centre moves with a constant velocity that white-noise acceleration disturbs; width and height drift (a random
//! walk). All noises are proportional to the box's height, so that near and far people are treated alike. In SORT's
//! filter (Bewley et al. 2016, arXiv:1602.00763) every noise matrix is diagonal, so its coordinates are independent of
//! each other: four small filters, as here, are the same thing. The noise of a prediction is integrated over the time
//! that passed (Bar-Shalom, Li and Kirubarajan 2001, 6.2.2): predicting twice over half a time equals predicting once
//! over the whole, whatever the frame rate.

use super::boxes::{self, Xyxy};

/// Standard deviation of a detection's centre, width and height, in box heights.
const MEASURED_STD: f32 = 0.05;
/// How fast things move that nothing is known of, in box heights a second: people walk 1.4 m/s and are 1.7 m high.
const SPEED_STD: f32 = 0.8;
/// How much a velocity changes within one second, in box heights a second.
const SPEED_DRIFT: f32 = 0.8;
/// How much width and height change within one second, in box heights.
const SIZE_DRIFT: f32 = 0.2;
/// Smallest height in pixels that the noises are derived from.
const HEIGHT_MIN: f32 = 1.0;

/// One coordinate of the centre: position, velocity and their covariance.
#[derive(Clone, Copy, Debug)]
struct Moving {
    position: f32,
    velocity: f32,
    variance: f32,
    covariance: f32,
    velocity_variance: f32,
}

impl Moving {
    /// `acceleration` is its spectral density: squared pixels over cubed seconds.
    fn predict(&mut self, passed_s: f32, acceleration: f32) {
        let t = passed_s;
        self.position += self.velocity * t;
        self.variance += t * (2.0 * self.covariance + t * self.velocity_variance)
            + acceleration * t * t * t / 3.0;
        self.covariance += t * self.velocity_variance + acceleration * t * t / 2.0;
        self.velocity_variance += acceleration * t;
    }

    fn correct(&mut self, measured: f32, measured_variance: f32) {
        let whole = self.variance + measured_variance;
        let (gain, velocity_gain) = (self.variance / whole, self.covariance / whole);
        let surprise = measured - self.position;
        self.position += gain * surprise;
        self.velocity += velocity_gain * surprise;
        self.velocity_variance -= velocity_gain * self.covariance;
        self.covariance *= 1.0 - gain;
        self.variance *= 1.0 - gain;
    }
}

/// Width or height.
#[derive(Clone, Copy, Debug)]
struct Drifting {
    value: f32,
    variance: f32,
}

impl Drifting {
    fn correct(&mut self, measured: f32, measured_variance: f32) {
        let gain = self.variance / (self.variance + measured_variance);
        self.value += gain * (measured - self.value);
        self.variance *= 1.0 - gain;
    }
}

/// A box in motion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Motion {
    centre: [Moving; 2],
    size: [Drifting; 2],
}

impl Motion {
    /// A box that was seen once.
    pub(super) fn begin(seen: Xyxy) -> Self {
        let size = boxes::size(seen);
        let height = size[1].max(HEIGHT_MIN);
        let variance = square(MEASURED_STD * height);
        Self {
            centre: centre(seen).map(|position| Moving {
                position,
                velocity: 0.0,
                variance,
                covariance: 0.0,
                velocity_variance: square(SPEED_STD * height),
            }),
            size: size.map(|value| Drifting { value, variance }),
        }
    }

    /// Moves it on by so much time.
    pub(super) fn predict(&mut self, passed_s: f32) {
        let height = self.height();
        for axis in &mut self.centre {
            axis.predict(passed_s, square(SPEED_DRIFT * height));
        }
        for side in &mut self.size {
            side.variance += square(SIZE_DRIFT * height) * passed_s;
        }
    }

    /// It was seen there.
    pub(super) fn correct(&mut self, seen: Xyxy) {
        let measured_variance = square(MEASURED_STD * self.height());
        for (axis, measured) in self.centre.iter_mut().zip(centre(seen)) {
            axis.correct(measured, measured_variance);
        }
        for (side, measured) in self.size.iter_mut().zip(boxes::size(seen)) {
            side.correct(measured, measured_variance);
        }
    }

    /// Where it is now.
    pub(super) fn xyxy(&self) -> Xyxy {
        let [x, y] = self.centre.map(|axis| axis.position);
        let [half_width, half_height] = self.size.map(|side| side.value / 2.0);
        [
            x - half_width,
            y - half_height,
            x + half_width,
            y + half_height,
        ]
    }

    /// Standard deviation of the centre in pixels, both ways.
    pub(super) fn doubt(&self) -> [f32; 2] {
        self.centre.map(|axis| axis.variance.max(0.0).sqrt())
    }

    fn height(&self) -> f32 {
        self.size[1].value.max(HEIGHT_MIN)
    }
}

fn centre([left, top, right, bottom]: Xyxy) -> [f32; 2] {
    [(left + right) / 2.0, (top + bottom) / 2.0]
}

fn square(value: f32) -> f32 {
    value * value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(x: f32, y: f32) -> Xyxy {
        [x, y, x + 40.0, y + 100.0]
    }

    #[test]
    fn a_velocity_is_learnt_and_carried_on() {
        let mut motion = Motion::begin(at(0.0, 50.0));
        for step in 1..=20u8 {
            motion.predict(0.1);
            motion.correct(at(f32::from(step) * 8.0, 50.0));
        }
        motion.predict(1.0);
        let error = motion.xyxy()[0] - (160.0 + 80.0);
        assert!(
            error.abs() < 2.0,
            "80 pixels a second for one second: off by {error}"
        );
        assert!((motion.xyxy()[1] - 50.0).abs() < 0.01);
    }

    #[test]
    fn jitter_is_smoothed_and_doubt_grows_without_sightings() {
        let mut motion = Motion::begin(at(100.0, 50.0));
        for step in 1..=40 {
            motion.predict(0.1);
            motion.correct(at(100.0 + if step % 2 == 0 { 5.0 } else { -5.0 }, 50.0));
        }
        let error = motion.xyxy()[0] - 100.0;
        assert!(error.abs() < 3.5, "jitter of 5 pixels: off by {error}");
        let known = motion.doubt();
        motion.predict(0.5);
        assert!(motion.doubt()[0] > 3.0 * known[0]);
    }

    proptest! {
        #[test]
        fn predicting_in_parts_equals_predicting_at_once(
            parts in proptest::collection::vec(0.001f32..0.5, 1..8),
            velocity in -300.0f32..300.0,
        ) {
            let mut whole = Motion::begin(at(0.0, 0.0));
            whole.predict(0.1);
            whole.correct(at(velocity * 0.1, 0.0));
            let mut split = whole;
            whole.predict(parts.iter().sum());
            parts.iter().for_each(|&part| split.predict(part));
            for (a, b) in whole.xyxy().into_iter().zip(split.xyxy()) {
                prop_assert!((a - b).abs() <= 1e-3 * (1.0 + a.abs()), "{a} and {b}");
            }
            for (a, b) in whole.doubt().into_iter().zip(split.doubt()) {
                prop_assert!((a - b).abs() <= 1e-3 * a, "{a} and {b}");
            }
        }
    }
}
