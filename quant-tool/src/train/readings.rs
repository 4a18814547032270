//! Levels of all layers, each fitted to what it reads from the ternary layers before it.
//!
//! Layer by layer, as the network runs: both networks, the float one and the one that is ternary so far, see the same
//! samples. From windows at random places the layer's levels are fitted so that it gives of what it reads now what the float network
//! gave of what it read then. So a layer makes good what those before it lost. Forward passes only: no gradient, no label.

use anyhow::{Context, Result};
use ternwatch_bundle::manifest::{Activation, Head, HeadKind};
use ternwatch_kernels::Trit;

use super::graph::{Activations, Gradients, HeadOutput, Images, Statistics, forward};
use super::parameters::{Parameters, Role};
use crate::network::{Conv, Network};
use crate::quantize::outputs::{Fitted, Readings};
use crate::quantize::{self, Quantizer, ternary};

/// Batches that are looked at.
pub(super) const BATCHES: u64 = 16;
/// Windows for every weight of a channel, and between how many there are in any case.
const WINDOWS_PER_WEIGHT: usize = 6;
const WINDOWS: (usize, usize) = (4096, 32768);

/// Fits levels to what is computed with them. The parameters are those of `float`, of which weights were moved just over the threshold whose
/// level is not the nearest.
pub(super) fn fit(
    network: &Network,
    float: &Parameters,
    batches: &[Images],
    config: &quantize::Config,
) -> Result<(Parameters, Quantizer)> {
    let mut quantizer = Quantizer::fit(float, config);
    let nearest = quantizer.trits(float);
    let (mut parameters, mut ternary) = (float.clone(), float.clone());
    let fittings: Vec<Fitting<'_>> = Fitting::all(network).collect();
    let bar = crate::progress::bar(fittings.len() as u64, "fitting levels");
    for ((fitting, levels), nearest) in fittings.iter().zip(&mut quantizer.layers).zip(&nearest) {
        let conv = &fitting.conv;
        let fitted = fitting.fit(network, (float, &ternary), batches, nearest)?;
        if conv.activation == Activation::Linear {
            for parameters in [&mut parameters, &mut ternary] {
                shift(parameters, conv.name, &fitted);
            }
        }
        let latent = parameters.get_mut(conv.name, Role::Weight);
        let weights = ternary.get_mut(conv.name, Role::Weight);
        let channels = fitted
            .iter()
            .zip(latent.chunks_exact_mut(conv.fan_in()))
            .zip(weights.chunks_exact_mut(conv.fan_in()));
        for (channel, ((fitted, latent), weights)) in channels.enumerate() {
            levels.scale[channel] = fitted.scale;
            levels.threshold[channel] = config.zero_width * fitted.scale;
            for ((&trit, latent), weight) in fitted.trits.iter().zip(latent).zip(weights) {
                *latent = ternary::within(*latent, trit, levels.threshold[channel]);
                *weight = ternary::value(trit, fitted.scale);
            }
        }
        bar.inc(1);
    }
    bar.finish();
    Ok((parameters, quantizer))
}

/// Makes good what levels take from the mean of a linear output, which no normalization measures anew.
fn shift(parameters: &mut Parameters, layer: &str, fitted: &[Fitted]) {
    let gammas = parameters.get(layer, Role::Gamma).to_vec();
    let betas = parameters.get_mut(layer, Role::Beta).iter_mut();
    for ((beta, gamma), fitted) in betas.zip(gammas).zip(fitted) {
        *beta += gamma * fitted.shift;
    }
}

/// A convolution whose levels are fitted.
struct Fitting<'a> {
    /// Layers before it.
    before: usize,
    conv: Conv<'a>,
}

impl<'a> Fitting<'a> {
    fn all(network: &'a Network) -> impl Iterator<Item = Self> {
        let layers = network.layers.iter().enumerate();
        layers.filter_map(|(before, layer)| {
            let conv = Conv::of(layer)?;
            Some(Self { before, conv })
        })
    }

    /// Weights of a group.
    fn group_len(&self) -> usize {
        self.conv.weights_len() / self.conv.groups
    }

    /// Its levels, channel by channel.
    fn fit(
        &self,
        network: &Network,
        (float, ternary): (&Parameters, &Parameters),
        batches: &[Images],
        nearest: &[Trit],
    ) -> Result<Vec<Fitted>> {
        let reader = self.reader(network);
        let weights = float.get(self.conv.name, Role::Weight);
        let (fan_in, out) = (self.conv.fan_in(), self.conv.shape[0] / self.conv.groups);
        let new = |_| Readings::new(fan_in, out);
        let mut readings: Vec<Readings> = (0..self.conv.groups).map(new).collect();
        let windows = (WINDOWS_PER_WEIGHT * fan_in).clamp(WINDOWS.0, WINDOWS.1);
        let windows = windows.div_ceil(batches.len());
        let mut rng = fastrand::Rng::with_seed(self.before as u64);
        for images in batches {
            let now = read(&reader, ternary, images, Activations::U7)?;
            let then = read(&reader, float, images, Activations::Float)?;
            let places = self.places(&now, images.count, windows, &mut rng);
            let groups = readings
                .iter_mut()
                .zip(weights.chunks_exact(self.group_len()));
            for (group, (readings, weights)) in groups.enumerate() {
                let inputs = self.windows(&now, &places, group);
                let then = self.windows(&then, &places, group);
                let outputs = outputs(&then, weights, fan_in);
                readings.add(&inputs, &outputs);
            }
        }
        let groups = readings.iter().zip(weights.chunks_exact(self.group_len()));
        let groups = groups.zip(nearest.chunks_exact(self.group_len()));
        let fitted =
            groups.flat_map(|((readings, weights), nearest)| readings.fit(weights, nearest));
        Ok(fitted.collect())
    }

    /// The network up to what the convolution reads.
    fn reader(&self, network: &Network) -> Network {
        Network {
            input: network.input.clone(),
            layers: network.layers[..self.before].to_vec(),
            heads: vec![Head {
                layer: self.conv.input.to_owned(),
                stride: 1,
                kind: HeadKind::Classes,
            }],
        }
    }

    /// Picture, row and column of the middles of windows, at random.
    fn places(
        &self,
        read: &HeadOutput,
        pictures: usize,
        count: usize,
        rng: &mut fastrand::Rng,
    ) -> Vec<[usize; 3]> {
        let (rows, columns) = (
            read.height.div_ceil(self.conv.stride),
            read.width.div_ceil(self.conv.stride),
        );
        let place = |_| {
            [
                rng.usize(..pictures),
                rng.usize(..rows) * self.conv.stride,
                rng.usize(..columns) * self.conv.stride,
            ]
        };
        (0..count.min(pictures * rows * columns))
            .map(place)
            .collect()
    }

    /// `[places x fan_in]`: what the channels of a group read there; zeros outside.
    fn windows(&self, read: &HeadOutput, places: &[[usize; 3]], group: usize) -> Vec<f32> {
        let each = read.channels / self.conv.groups;
        let plane = read.height * read.width;
        let mut windows = Vec::with_capacity(places.len() * self.conv.fan_in());
        for &[picture, y, x] in places {
            for channel in group * each..(group + 1) * each {
                let plane = &read.data[(picture * read.channels + channel) * plane..][..plane];
                for row in
                    (y..y + self.conv.shape[2]).map(|y| y.checked_sub(self.conv.shape[2] / 2))
                {
                    let row = row
                        .filter(|y| *y < read.height)
                        .map(|y| &plane[y * read.width..][..read.width]);
                    windows.extend((x..x + self.conv.shape[2]).map(|x| {
                        let column = x.checked_sub(self.conv.shape[2] / 2);
                        row.zip(column)
                            .and_then(|(row, x)| row.get(x))
                            .copied()
                            .unwrap_or(0.0)
                    }));
                }
            }
        }
        windows
    }
}

fn read(
    reader: &Network,
    parameters: &Parameters,
    images: &Images,
    activations: Activations,
) -> Result<HeadOutput> {
    let mode = (activations, Statistics::Batch);
    let pass = forward(reader, parameters, images.clone(), mode, Gradients::None)?;
    pass.outputs
        .into_iter()
        .next()
        .context("a layer that reads nothing")
}

/// `[windows x out]`: what channels of these weights give.
fn outputs(windows: &[f32], weights: &[f32], fan_in: usize) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let rows = windows.chunks_exact(fan_in);
    rows.flat_map(|row| weights.chunks_exact(fan_in).map(move |w| dot(row, w)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ternwatch_bundle::manifest::Layer;

    fn images(count: usize) -> Images {
        let mut rng = fastrand::Rng::with_seed(8);
        let (height, width) = (9, 14);
        let mut data = Vec::new();
        // Pictures of slopes and noise: neighbours are alike.
        for _ in 0..count * 3 {
            let (a, b) = (rng.f32() - 0.5, rng.f32() - 0.5);
            for y in 0..height {
                for x in 0..width {
                    let slope = 0.5 + 0.05 * (a * y as f32 + b * x as f32);
                    data.push((slope + 0.2 * (rng.f32() - 0.5)).clamp(0.0, 1.0));
                }
            }
        }
        Images {
            data,
            count,
            height,
            width,
        }
    }

    fn last_output(network: &Network, parameters: &Parameters, images: &Images) -> Vec<f32> {
        let mode = (Activations::U7, Statistics::Batch);
        let pass = forward(network, parameters, images.clone(), mode, Gradients::None).unwrap();
        pass.outputs.into_iter().next().unwrap().data
    }

    #[test]
    fn windows_give_what_the_convolution_gives() {
        for stride in [1, 2] {
            let mut network = Network::classifier((14, 9), &[(4, 2)], 3);
            if let Some(Layer::Conv { stride: last, .. }) = network.layers.last_mut() {
                *last = stride;
            }
            let mut parameters = Parameters::init(&network, 1);
            parameters.get_mut("classes", Role::Gamma).fill(1.0);
            parameters.get_mut("classes", Role::Beta).fill(0.0);
            let images = images(2);
            let fitting = Fitting::all(&network).last().unwrap();
            let conv = fitting.conv;
            let reader = fitting.reader(&network);
            let read = read(&reader, &parameters, &images, Activations::U7).unwrap();
            let (rows, columns) = (
                read.height.div_ceil(conv.stride),
                read.width.div_ceil(conv.stride),
            );
            let mut places = Vec::new();
            for picture in 0..2 {
                for y in 0..rows {
                    places
                        .extend((0..columns).map(|x| [picture, y * conv.stride, x * conv.stride]));
                }
            }
            let weights = parameters.get("classes", Role::Weight);
            let ours = outputs(&fitting.windows(&read, &places, 0), weights, conv.fan_in());
            let theirs = last_output(&network, &parameters, &images);
            let plane = rows * columns;
            assert_eq!(ours.len(), theirs.len());
            for (i, ours) in ours.iter().enumerate() {
                let (place, channel) = (i / 3, i % 3);
                let at = (place / plane * 3 + channel) * plane + place % plane;
                assert!(
                    (ours - theirs[at]).abs() < 1e-4,
                    "{ours} and {}",
                    theirs[at]
                );
            }
        }
    }

    #[test]
    fn a_network_fitted_by_outputs_is_nearer_to_the_float_network() {
        let config: quantize::Config = toml::from_str(
            "soft_steps = 0\nsoft_rate = 0.1\npull = 0.0\nhard_steps = 1\nhard_rate = 0.1\nfree = \"straight-through\"\n\
             groups = [1.0]\nlast_group_at = 0.5\nfit = \"outputs\"",
        )
        .unwrap();
        let mut network = Network::classifier((14, 9), &[(8, 2), (12, 1), (12, 1)], 3);
        // One of them depthwise.
        if let Some(Layer::Conv { groups, .. }) = network.layers.get_mut(2) {
            *groups = 12;
        }
        let float = Parameters::init(&network, 2);
        let batches: Vec<Images> = vec![images(24); 4];
        let wanted = last_output(&network, &float, &batches[0]);
        let error = |parameters: &Parameters| -> f32 {
            let given = last_output(&network, parameters, &batches[0]);
            given
                .iter()
                .zip(&wanted)
                .map(|(a, b)| (a - b).powi(2))
                .sum()
        };
        let nearest = Quantizer::fit(&float, &config).pulled(&float, 1.0);
        let (parameters, quantizer) = fit(&network, &float, &batches, &config).unwrap();
        let ours = quantizer.pulled(&parameters, 1.0);
        assert!(
            error(&ours) < 0.5 * error(&nearest),
            "{} against {}",
            error(&ours),
            error(&nearest)
        );
        for (p, f) in parameters
            .0
            .iter()
            .zip(&float.0)
            .filter(|(p, _)| p.role != Role::Weight && p.name != "classes.beta")
        {
            assert_eq!(p.value, f.value, "{}", p.name);
        }
        let means = |parameters: &Parameters| -> Vec<f32> {
            let given = last_output(&network, parameters, &batches[0]);
            let cells = given.len() / (24 * 3);
            let of = |class: usize| {
                let planes = given.chunks_exact(cells).skip(class).step_by(3);
                planes.flatten().sum::<f32>() / (24 * cells) as f32
            };
            (0..3).map(of).collect()
        };
        // No normalization takes the mean of a head's outputs off.
        for (ours, wanted) in means(&ours).iter().zip(means(&float)) {
            assert!((ours - wanted).abs() < 0.02, "{ours} and {wanted}");
        }
    }
}
