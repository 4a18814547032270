//! An imported network before it is trained on: its numbers as the file has them, and as our graph wants them.
//!
//! Our activations have one fixed range. ReLU is homogeneous (relu(s x) = s relu(x) for s > 0), so every tensor may be
//! scaled: its producer's normalization by s, its readers' sums by 1/s. The network computes the same as before, but that
//! what exceeds the range is clipped.

use std::collections::HashMap;

use ternwatch_bundle::manifest::{Activation, Layer};

use super::ImportError;
use super::config::{Colours, Config};
use super::moments::Moments;
use crate::network::{IMAGE, Network};
use crate::quantize::activation::CLIP;
use crate::train::graph::EPSILON;
use crate::train::parameters::{Parameter, Parameters, Role};

/// A float network from a file.
pub struct FloatNetwork {
    /// Its layers.
    pub network: Network,
    /// Its convolutions' numbers, in the order of [`Network::convs`].
    pub convs: Vec<FloatConv>,
    /// The greatest value that the file lets each layer have.
    pub clips: Vec<Option<f32>>,
    /// The file's node of each layer.
    pub origins: Vec<String>,
}

/// A convolution: `weight * x + bias`, normalized if there is a normalization.
#[derive(Clone, Debug)]
pub struct FloatConv {
    /// `[out][in][row][column]`.
    pub weight: Vec<f32>,
    /// `[out]`.
    pub bias: Vec<f32>,
    /// What follows.
    pub normal: Option<Normal>,
}

/// Batch normalization: `gamma (x - mean) / sqrt(variance) + beta`, each `[out]`.
#[derive(Clone, Debug)]
pub struct Normal {
    /// Scale.
    pub gamma: Vec<f32>,
    /// Shift.
    pub beta: Vec<f32>,
    /// Mean of the sums.
    pub mean: Vec<f32>,
    /// Their variance, the guard against zero already added.
    pub variance: Vec<f32>,
}

impl FloatConv {
    pub(super) fn new(weight: Vec<f32>, bias: Vec<f32>) -> Self {
        Self {
            weight,
            bias,
            normal: None,
        }
    }

    /// Number of weights of one output channel.
    pub fn fan_in(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// What each channel's weights are multiplied by to be as large as those that He et al. 2015 begin with, which is what
    /// learning rates expect: the root of 2 is their norm.
    fn gains(&self) -> Vec<f32> {
        let gain = |row: &[f32]| {
            let norm = row.iter().map(|w| w * w).sum::<f32>().sqrt();
            if norm > 1e-15 {
                std::f32::consts::SQRT_2 / norm
            } else {
                1.0
            }
        };
        self.weight.chunks_exact(self.fan_in()).map(gain).collect()
    }

    /// Slope and shift of each channel: what follows is `slope (weight * x) + shift`.
    pub fn affine(&self) -> Vec<(f32, f32)> {
        let channel = |(n, bias): (usize, &f32)| match &self.normal {
            None => (1.0, *bias),
            Some(normal) => {
                let slope = normal.gamma[n] / normal.variance[n].sqrt();
                (slope, slope * (bias - normal.mean[n]) + normal.beta[n])
            }
        };
        self.bias.iter().enumerate().map(channel).collect()
    }

    /// Gamma, beta, mean and variance in our graph, whose sums are `units` times as large, by channel.
    fn linear_channels(&self, units: &[f32]) -> Vec<[f32; 4]> {
        let channels = self.affine().into_iter().zip(units);
        let channel = |((slope, shift), unit)| [slope / unit, shift, 0.0, 1.0];
        channels.map(channel).collect()
    }

    /// As [`FloatConv::linear_channels`], the output being `output` times as large, and `sums` what normalization is made of
    /// where there is none.
    fn relu_channels(&self, units: &[f32], output: f32, sums: Option<&Moments>) -> Vec<[f32; 4]> {
        let own = self.normal.clone();
        let normal = own.unwrap_or_else(|| neutral(self, sums));
        let guard = EPSILON as f32;
        let channel = |(n, unit): (usize, &f32)| {
            let variance = unit * unit * normal.variance[n];
            let mean = unit * (normal.mean[n] - self.bias[n]);
            // Ours adds its guard; a variance below it is made up for by the slope.
            let missing = (guard / variance).max(1.0).sqrt();
            let (gamma, beta) = (missing * normal.gamma[n], normal.beta[n]);
            [
                output * gamma,
                output * beta,
                mean,
                (variance - guard).max(0.0),
            ]
        };
        units.iter().enumerate().map(channel).collect()
    }

    /// Multiplies what the last `count` channels give.
    pub(super) fn scale_last(&mut self, count: usize, by: f32) {
        self.fold();
        let (first, fan_in) = (self.bias.len() - count, self.fan_in());
        self.bias[first..].iter_mut().for_each(|b| *b *= by);
        self.weight[first * fan_in..]
            .iter_mut()
            .for_each(|w| *w *= by);
    }

    /// Several convolutions of one tensor as one of a `kernel` that is at least theirs.
    pub(super) fn stacked(parts: &[(&Self, u32)], kernel: u32) -> Self {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for (part, own) in parts {
            let mut part = (*part).clone();
            part.fold();
            bias.extend(&part.bias);
            if *own == kernel {
                weight.extend(&part.weight);
                continue;
            }
            // A 1x1 convolution is a 3x3 one whose weights are zero but in the middle.
            let area = (kernel * kernel) as usize;
            for w in &part.weight {
                weight.extend((0..area).map(|i| if i == area / 2 { *w } else { 0.0 }));
            }
        }
        Self::new(weight, bias)
    }

    /// Puts the normalization into weights and biases.
    fn fold(&mut self) {
        let (affine, fan_in) = (self.affine(), self.fan_in());
        for (w, (slope, _)) in self.weight.chunks_exact_mut(fan_in).zip(&affine) {
            w.iter_mut().for_each(|w| *w *= slope);
        }
        self.bias = affine.into_iter().map(|(_, shift)| shift).collect();
        self.normal = None;
    }

    /// Lets it read our image, red, green and blue from 0 to 1, instead of what the file wants.
    fn read_our_image(&mut self, config: &Config) {
        let fan_in = self.fan_in();
        let area = fan_in / 3;
        for (w, bias) in self.weight.chunks_exact_mut(fan_in).zip(&mut self.bias) {
            if config.order == Colours::Bgr {
                let (blue, rest) = w.split_at_mut(area);
                blue.swap_with_slice(&mut rest[area..]);
            }
            for (colour, w) in w.chunks_exact_mut(area).enumerate() {
                let (mean, std) = (config.mean[colour], config.std[colour]);
                *bias -= w.iter().sum::<f32>() * mean / std;
                w.iter_mut().for_each(|w| *w *= config.range / std);
            }
        }
    }
}

/// For each layer the sums' mean and variance by channel, where the file has none.
pub(super) type Sums = HashMap<usize, Moments>;

impl FloatNetwork {
    /// The layers with their index, and the numbers of those that are convolutions.
    pub(super) fn layers(&self) -> impl Iterator<Item = (usize, &Layer, Option<&FloatConv>)> {
        let mut convs = self.convs.iter();
        let layers = self.network.layers.iter().enumerate();
        layers.map(move |(index, layer)| match layer {
            Layer::Conv { .. } => (index, layer, convs.next()),
            Layer::AddUpsampled { .. } => (index, layer, None),
        })
    }

    /// Index by name.
    pub(super) fn indices(&self) -> HashMap<&str, usize> {
        let layers = self.network.layers.iter().enumerate();
        layers.map(|(index, layer)| (name(layer), index)).collect()
    }

    /// Lets the convolutions that read the image read ours.
    pub(super) fn read_our_image(&mut self, config: &Config) {
        let convs = self.network.layers.iter().filter_map(|layer| match layer {
            Layer::Conv { input, .. } => Some(input == IMAGE),
            Layer::AddUpsampled { .. } => None,
        });
        for (conv, reads_image) in self.convs.iter_mut().zip(convs) {
            if reads_image {
                conv.read_our_image(config);
            }
        }
    }

    /// The first layer of those that must have one scale: what is added has that of the sum.
    pub(super) fn groups(&self) -> Vec<usize> {
        let indices = self.indices();
        let mut group: Vec<usize> = (0..self.network.layers.len()).collect();
        for (index, layer) in self.network.layers.iter().enumerate() {
            if let Layer::AddUpsampled { fine, coarse, .. } = layer {
                let all =
                    [index, indices[fine.as_str()], indices[coarse.as_str()]].map(|i| group[i]);
                let first = all[0].min(all[1]).min(all[2]);
                for own in &mut group {
                    if all.contains(own) {
                        *own = first;
                    }
                }
            }
        }
        group
    }

    /// One range for each group: the greatest of its layers'. A tensor that is always zero has a range of 1.
    pub(super) fn common(&self, ranges: &[f32]) -> Vec<f32> {
        let groups = self.groups();
        let mut greatest = vec![0.0f32; ranges.len()];
        for (range, group) in ranges.iter().zip(&groups) {
            greatest[*group] = greatest[*group].max(*range);
        }
        let range = |group: &usize| Some(greatest[*group]).filter(|r| *r > 0.0).unwrap_or(1.0);
        groups.iter().map(range).collect()
    }

    /// How many times as large as in the file the sums of layer `index` are in our graph, by channel.
    pub(super) fn units(&self, index: usize, ranges: &[f32]) -> Vec<f32> {
        let found = self.layers().nth(index);
        let Some((_, Layer::Conv { input, .. }, Some(conv))) = found else {
            return Vec::new();
        };
        let scale = self
            .indices()
            .get(input.as_str())
            .map_or(1.0, |i| CLIP / ranges[*i]);
        conv.gains().into_iter().map(|gain| gain * scale).collect()
    }

    /// Parameters with which our graph computes what the file does, each layer's values up to `ranges` (one for each group).
    ///
    /// `sums` says what normalization measures where the file has none; any would do for the running statistics, but the
    /// stages measure their own.
    pub(super) fn parameters(
        &self,
        ranges: &[f32],
        sums: &Sums,
    ) -> Result<Parameters, ImportError> {
        let mut parameters = Parameters::init(&self.network, 0);
        for (index, layer, conv) in self.layers() {
            let (
                Layer::Conv {
                    name, activation, ..
                },
                Some(conv),
            ) = (layer, conv)
            else {
                continue;
            };
            let gains = conv.gains();
            let units = self.units(index, ranges);
            let channels = match activation {
                Activation::Linear => conv.linear_channels(&units),
                Activation::Relu => {
                    let output = CLIP / ranges[index];
                    conv.relu_channels(&units, output, sums.get(&index))
                }
            };
            let mut set = |role: Role, values: &mut dyn Iterator<Item = f32>| {
                let into = parameters.get_mut(name, role).iter_mut();
                into.zip(values).for_each(|(to, from)| *to = from);
            };
            let rows = conv.weight.chunks_exact(conv.fan_in()).zip(&gains);
            let mut weights = rows.flat_map(|(row, gain)| row.iter().map(move |w| w * gain));
            set(Role::Weight, &mut weights);
            let roles = [Role::Gamma, Role::Beta, Role::Mean, Role::Variance];
            for (part, role) in roles.into_iter().enumerate() {
                set(role, &mut channels.iter().map(|channel| channel[part]));
            }
        }
        let is_odd = |p: &&Parameter| !p.value.iter().all(|v| v.is_finite());
        match parameters.0.iter().find(is_odd) {
            None => Ok(parameters),
            Some(odd) => Err(ImportError::File(format!(
                "its numbers are too large or too small: {} is not finite",
                odd.name
            ))),
        }
    }
}

/// A normalization that changes nothing.
fn neutral(conv: &FloatConv, sums: Option<&Moments>) -> Normal {
    let channels = conv.bias.len();
    let (mean, variance) = match sums {
        Some(sums) => (sums.mean.clone(), sums.variance.clone()),
        None => (vec![0.0; channels], vec![1.0; channels]),
    };
    let mean: Vec<f32> = mean.iter().zip(&conv.bias).map(|(m, b)| m + b).collect();
    // A channel that never changes.
    let variance: Vec<f32> = variance.iter().map(|v| v.max(1e-12)).collect();
    Normal {
        gamma: variance.iter().map(|v| v.sqrt()).collect(),
        beta: mean.clone(),
        mean,
        variance,
    }
}

pub(super) fn name(layer: &Layer) -> &str {
    match layer {
        Layer::Conv { name, .. } | Layer::AddUpsampled { name, .. } => name,
    }
}
