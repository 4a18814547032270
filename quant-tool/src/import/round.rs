//! A ternary network without a picture: every weight becomes its nearest level, and normalization follows.
//!
//! Rounding changes what a convolution adds up. By how much on average is estimated from what the weights read, and taken
//! back (Nagel et al. 2019, "Data-free quantization", section 4.2).

use ternwatch_bundle::manifest::{Activation, Layer};

use super::float::FloatNetwork;
use super::moments::Estimate;
use super::scale::Scale;
use crate::quantize::{self, Order, Quantizer};
use crate::train::parameters::{Parameters, Role};

/// Rounds parameters that [`FloatNetwork::parameters`] made with `scales`.
pub(super) fn round(
    float: &FloatNetwork,
    (estimate, scales): (&Estimate, &[Scale]),
    parameters: &Parameters,
    config: &quantize::Config,
) -> (Parameters, Quantizer) {
    let mut quantizer = Quantizer::fit(parameters, config);
    let mut rounded = parameters.clone();
    quantizer.fix(&mut rounded, 1.0, Order::Nearest);
    let indices = float.indices();
    for (index, layer, _) in float.layers() {
        let Layer::Conv {
            name,
            input,
            activation,
            ..
        } = layer
        else {
            continue;
        };
        let factor = indices
            .get(input.as_str())
            .map_or(1.0, |i| scales[*i].factor);
        let sums = |parameters: &Parameters| -> Vec<f32> {
            let weight = parameters.get(name, Role::Weight);
            let sums = estimate.sums_with(float, index, weight).mean;
            let lifts = float.lifts(index, scales, weight);
            sums.iter()
                .zip(lifts)
                .map(|(sum, lift)| factor * sum + lift)
                .collect()
        };
        let (before, after) = (sums(parameters), sums(&rounded));
        let moved: Vec<f32> = before.iter().zip(&after).map(|(b, a)| a - b).collect();
        match activation {
            Activation::Linear => {
                let gamma = rounded.get(name, Role::Gamma).to_vec();
                let betas = rounded.get_mut(name, Role::Beta).iter_mut();
                betas
                    .zip(gamma)
                    .zip(moved)
                    .for_each(|((beta, gamma), by)| *beta -= gamma * by);
            }
            Activation::Relu => {
                let means = rounded.get_mut(name, Role::Mean).iter_mut();
                means.zip(moved).for_each(|(mean, by)| *mean += by);
            }
        }
    }
    (rounded, quantizer)
}
