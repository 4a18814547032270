//! A ternary network without a picture: every weight becomes its nearest level, and normalization follows.
//!
//! Rounding changes what a convolution adds up. By how much on average is estimated from what the weights read, and taken
//! back (Nagel et al. 2019, "Data-free quantization", section 4.2).

use ternwatch_bundle::manifest::{Activation, Layer};

use super::float::FloatNetwork;
use super::moments::Estimate;
use crate::quantize::activation::CLIP;
use crate::quantize::{self, Order, Quantizer};
use crate::train::parameters::{Parameters, Role};

/// Rounds parameters that [`FloatNetwork::parameters`] made with `ranges`.
pub(super) fn round(
    float: &FloatNetwork,
    (estimate, ranges): (&Estimate, &[f32]),
    parameters: &Parameters,
    config: &quantize::Config,
) -> (Parameters, Quantizer) {
    let mut quantizer = Quantizer::fit(parameters, config);
    quantizer.fix(parameters, 1.0, Order::Nearest);
    let mut rounded = parameters.clone();
    quantizer.hold(&mut rounded);
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
        let scale = indices
            .get(input.as_str())
            .map_or(1.0, |i| CLIP / ranges[*i]);
        let before = estimate.sums_with(float, index, parameters.get(name, Role::Weight));
        let after = estimate.sums_with(float, index, rounded.get(name, Role::Weight));
        let moved: Vec<f32> = before
            .mean
            .iter()
            .zip(&after.mean)
            .map(|(b, a)| scale * (a - b))
            .collect();
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
