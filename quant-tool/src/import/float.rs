//! An imported network before it is trained on: its numbers as the file has them, and as our graph wants them.
//!
//! Our activations have one fixed range. ReLU is homogeneous (relu(s x) = s relu(x) for s > 0), so every tensor may be
//! scaled: its producer's normalization by s, its readers' sums by 1/s. What may be negative is raised, too (`scale.rs`). The
//! network computes the same as before, but that what exceeds the range is clipped, and that a 3x3 convolution of a raised tensor
//! finds zeros around it and not what zero was raised to.

use std::collections::HashMap;

use ternwatch_bundle::manifest::{Activation, Layer};

use super::ImportError;
use super::config::{Colours, Config};
use super::moments::Moments;
use super::scale::Scale;
use crate::network::{IMAGE, Network};
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
    /// `[layer][channel]`: what the file lets be negative is raised, by so many times one number of steps; 0 elsewhere.
    pub raises: Vec<Vec<u8>>,
    /// The file's node of each layer.
    pub origins: Vec<String>,
}

/// A convolution: `weight * x + bias`, normalized if there is a normalization.
#[derive(Clone, Debug)]
pub struct FloatConv {
    /// `[out][in][row][column]`.
    pub weight: Vec<f32>,
    /// Planes of the input that an output channel reads.
    pub planes: usize,
    /// Whether that is the one plane of its own number.
    pub is_depthwise: bool,
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
    pub(super) fn new(weight: Vec<f32>, bias: Vec<f32>, planes: usize) -> Self {
        Self {
            weight,
            bias,
            planes,
            is_depthwise: false,
            normal: None,
        }
    }

    /// Number of weights of one output channel.
    pub fn fan_in(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// The weights `[out][in][row][column]`, this convolution's or others in their place: for each output channel the planes
    /// that it reads, with the weights of each.
    pub(super) fn reads<'w>(
        &self,
        weight: &'w [f32],
    ) -> impl Iterator<Item = impl Iterator<Item = (usize, &'w [f32])>> {
        let (fan_in, planes, is_depthwise) = (self.fan_in(), self.planes, self.is_depthwise);
        weight
            .chunks_exact(fan_in)
            .enumerate()
            .map(move |(n, row)| {
                let first = if is_depthwise { n } else { 0 };
                let rows = row.chunks_exact(fan_in / planes).enumerate();
                rows.map(move |(plane, w)| (first + plane, w))
            })
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
    /// `lifts` is what the zeros of the tensor that it reads add to them.
    fn linear_channels(&self, units: &[f32], lifts: &[f32]) -> Vec<[f32; 4]> {
        let channels = self.affine().into_iter().zip(units).zip(lifts);
        let channel = |(((slope, shift), unit), lift)| {
            let gamma = slope / unit;
            [gamma, shift - gamma * lift, 0.0, 1.0]
        };
        channels.map(channel).collect()
    }

    /// As [`FloatConv::linear_channels`], the output lying where `output` says, and `sums` what normalization is made of where
    /// there is none.
    fn relu_channels(
        &self,
        (units, lifts): (&[f32], &[f32]),
        output: &Scale,
        sums: Option<&Moments>,
    ) -> Vec<[f32; 4]> {
        let own = self.normal.clone();
        let normal = own.unwrap_or_else(|| neutral(self, sums));
        let guard = EPSILON as f32;
        let channel = |(n, (unit, lift)): (usize, (&f32, &f32))| {
            let variance = unit * unit * normal.variance[n];
            let mean = unit * (normal.mean[n] - self.bias[n]) + lift;
            // Ours adds its guard; a variance below it is made up for by the slope.
            let missing = (guard / variance).max(1.0).sqrt();
            let (gamma, beta) = (missing * normal.gamma[n], normal.beta[n]);
            [
                output.factor * gamma,
                output.factor * beta + output.raised(n),
                mean,
                (variance - guard).max(0.0),
            ]
        };
        units.iter().zip(lifts).enumerate().map(channel).collect()
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
        Self::new(weight, bias, parts[0].0.planes)
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

/// What convolutions find in a tensor that is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// What it was raised by, too.
    Raised,
    /// Its values alone: something has lowered them before.
    Lowered,
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
            _ => (index, layer, None),
        })
    }

    /// Index by name.
    pub(super) fn indices(&self) -> HashMap<&str, usize> {
        let layers = self.network.layers.iter().enumerate();
        layers.map(|(index, layer)| (layer.name(), index)).collect()
    }

    /// Lets the convolutions that read the image read ours.
    pub(super) fn read_our_image(&mut self, config: &Config) {
        let convs = self.network.layers.iter().filter_map(|layer| match layer {
            Layer::Conv { input, .. } => Some(input == IMAGE),
            _ => None,
        });
        for (conv, reads_image) in self.convs.iter_mut().zip(convs) {
            if reads_image {
                conv.read_our_image(config);
            }
        }
    }

    /// How many times as large as in the file the sums of layer `index` are in our graph, by channel.
    pub(super) fn units(&self, index: usize, scales: &[Scale]) -> Vec<f32> {
        let found = self.layers().nth(index);
        let Some((_, Layer::Conv { input, .. }, Some(conv))) = found else {
            return Vec::new();
        };
        let indices = self.indices();
        let factor = indices
            .get(input.as_str())
            .map_or(1.0, |i| scales[*i].factor);
        conv.gains().into_iter().map(|gain| gain * factor).collect()
    }

    /// What the zeros of the tensor that it reads add to the sums of layer `index`, by channel, if its weights in our graph are
    /// these.
    pub(super) fn lifts(&self, index: usize, scales: &[Scale], weight: &[f32]) -> Vec<f32> {
        let found = self.layers().nth(index);
        let Some((_, Layer::Conv { input, .. }, Some(conv))) = found else {
            return Vec::new();
        };
        let Some(scale) = self.indices().get(input.as_str()).map(|i| &scales[*i]) else {
            return vec![0.0; conv.bias.len()];
        };
        let lift = |(plane, w): (usize, &[f32])| scale.raised(plane) * w.iter().sum::<f32>();
        let channels = conv.reads(weight);
        channels.map(|planes| planes.map(lift).sum()).collect()
    }

    /// Parameters with which our graph computes what the file does, each layer's output lying where `scales` says.
    ///
    /// `sums` says what normalization measures where the file has none; any would do for the running statistics, but the
    /// stages measure their own.
    pub(super) fn parameters(
        &self,
        scales: &[Scale],
        sums: &Sums,
        reading: Reading,
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
            let rows = conv.weight.chunks_exact(conv.fan_in()).zip(&gains);
            let weights = rows.flat_map(|(row, gain)| row.iter().map(move |w| w * gain));
            let weights: Vec<f32> = weights.collect();
            let units = self.units(index, scales);
            let lifts = match reading {
                Reading::Raised => self.lifts(index, scales, &weights),
                Reading::Lowered => vec![0.0; units.len()],
            };
            let channels = match activation {
                Activation::Linear => conv.linear_channels(&units, &lifts),
                Activation::Relu => {
                    let sums = sums.get(&index);
                    conv.relu_channels((&units, &lifts), &scales[index], sums)
                }
            };
            let mut set = |role: Role, values: &mut dyn Iterator<Item = f32>| {
                let into = parameters.get_mut(name, role).iter_mut();
                into.zip(values).for_each(|(to, from)| *to = from);
            };
            set(Role::Weight, &mut weights.into_iter());
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
