//! AdamW (Loshchilov and Hutter 2019, algorithm 2) over host parameters, with an exponential moving average.

use super::parameters::{Parameters, Role};

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// What an optimizer remembers of a run.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// First moments.
    pub first: Parameters,
    /// Second moments.
    pub second: Parameters,
    /// Steps done with these moments.
    pub steps: u64,
    weight_decay: f32,
}

impl AdamW {
    /// Fresh moments for `parameters`.
    pub fn new(parameters: &Parameters, weight_decay: f32) -> Self {
        Self {
            first: parameters.zeros_like(),
            second: parameters.zeros_like(),
            steps: 0,
            weight_decay,
        }
    }

    /// One step down `gradients` (one entry a parameter), which are scaled so that their norm is at most `norm_max`.
    /// Returns the norm before.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &[Option<Vec<f32>>],
        rate: f32,
        norm_max: f32,
    ) -> f32 {
        let norm = gradients
            .iter()
            .flatten()
            .flatten()
            .map(|g| f64::from(g * g))
            .sum::<f64>()
            .sqrt() as f32;
        let scale = if norm > norm_max {
            norm_max / norm
        } else {
            1.0
        };
        self.steps += 1;
        let power = i32::try_from(self.steps.min(1_000_000)).unwrap_or(i32::MAX);
        let correction = [1.0 - BETA_1.powi(power), 1.0 - BETA_2.powi(power)];
        for (((p, gradient), m), v) in parameters
            .0
            .iter_mut()
            .zip(gradients)
            .zip(&mut self.first.0)
            .zip(&mut self.second.0)
        {
            let Some(gradient) = gradient else { continue };
            let decay = if p.role == Role::Weight {
                rate * self.weight_decay
            } else {
                0.0
            };
            for (((w, g), m), v) in p
                .value
                .iter_mut()
                .zip(gradient)
                .zip(&mut m.value)
                .zip(&mut v.value)
            {
                let g = g * scale;
                *m = BETA_1 * *m + (1.0 - BETA_1) * g;
                *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
                *w -= decay * *w
                    + rate * (*m / correction[0]) / ((*v / correction[1]).sqrt() + EPSILON);
            }
        }
        norm
    }
}

/// Moves `average` towards `parameters`.
pub fn average(average: &mut Parameters, parameters: &Parameters, decay: f32) {
    for (a, p) in average.0.iter_mut().zip(&parameters.0) {
        for (a, p) in a.value.iter_mut().zip(&p.value) {
            *a += (1.0 - decay) * (p - *a);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::parameters::Parameter;

    #[test]
    fn finds_the_minimum_of_a_parabola() {
        let p = Parameter {
            name: "x.weight".into(),
            role: Role::Weight,
            shape: vec![2],
            value: vec![3.0, -2.0],
        };
        let mut parameters = Parameters(vec![p]);
        let mut optimizer = AdamW::new(&parameters, 0.0);
        for _ in 0..2000 {
            let gradient = parameters.0[0]
                .value
                .iter()
                .zip([1.0, 0.5])
                .map(|(x, goal)| 2.0 * (x - goal))
                .collect();
            optimizer.step(&mut parameters, &[Some(gradient)], 0.01, 1e9);
        }
        assert!((parameters.0[0].value[0] - 1.0).abs() < 1e-2);
        assert!((parameters.0[0].value[1] - 0.5).abs() < 1e-2);
    }

    #[test]
    fn long_gradients_are_shortened() {
        let p = Parameter {
            name: "x.weight".into(),
            role: Role::Weight,
            shape: vec![2],
            value: vec![0.0; 2],
        };
        let mut parameters = Parameters(vec![p]);
        let mut optimizer = AdamW::new(&parameters, 0.0);
        let norm = optimizer.step(&mut parameters, &[Some(vec![30.0, 40.0])], 0.1, 5.0);
        assert_eq!(norm, 50.0);
        assert!((optimizer.first.0[0].value[0] - 0.3).abs() < 1e-6);
    }
}
