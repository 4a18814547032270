//! What a network's tensors look like on pictures: measured by our own graph.
//!
//! The graph clips, so it first runs with every tensor scaled far below its clip: floats do not mind. Sums that the file
//! does not normalize are laid open by a linear twin of their convolution.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use ternwatch_bundle::manifest::{Activation, Head, HeadKind, Layer};

use super::float::{FloatNetwork, Sums, name};
use super::moments::{Estimate, Moments};
use crate::network::Network;
use crate::quantize::activation::CLIP;
use crate::train::graph::{Activations, Gradients, Images, Statistics, forward};
use crate::train::parameters::{Parameter, Parameters, Role};

/// How much larger than estimated a tensor's values may be, to begin with.
const HEADROOM: f32 = 1000.0;
/// How often it is enlarged as much again.
const TRIES: usize = 4;
/// Columns of a histogram.
const COLUMNS: usize = 4096;

/// What pictures showed.
pub(super) struct Measured {
    /// The value that all but the rest of the percentile stay below, by layer; 0 of heads.
    pub(super) ranges: Vec<f32>,
    /// Of sums that the file does not normalize.
    pub(super) sums: Sums,
    /// How much of each layer's values are beyond its common range.
    pub(super) clipped: Vec<f64>,
}

/// Runs the network on every batch.
pub(super) fn measure(
    float: &FloatNetwork,
    estimate: &Estimate,
    batches: &[Images],
    percentile: f32,
) -> Result<Measured> {
    let mut headroom = HEADROOM;
    for _ in 0..TRIES {
        let mut probe = Probe::new(float, estimate, headroom)?;
        let bar = crate::progress::bar(batches.len() as u64, "calibrating");
        for images in batches {
            probe.see(images.clone())?;
            bar.inc(1);
        }
        bar.finish();
        if probe.is_wide_enough() {
            return Ok(probe.result(percentile));
        }
        headroom *= HEADROOM;
    }
    bail!("values of the network are {headroom:e} times as large as its weights let expect")
}

/// A network that gives every tensor.
struct Probe<'a> {
    float: &'a FloatNetwork,
    network: Network,
    parameters: Parameters,
    /// By layer, the values up to which it is not clipped.
    ranges: Vec<f32>,
    /// What each head of the probe shows.
    shown: Vec<Shown>,
    histograms: HashMap<usize, Histogram>,
    sums: HashMap<usize, Vec<Sum>>,
}

#[derive(Clone, Copy)]
enum Shown {
    /// A layer's output.
    Tensor(usize),
    /// What a layer adds up.
    Sums(usize),
}

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Default)]
struct Sum(f64, f64, f64);

impl<'a> Probe<'a> {
    fn new(float: &'a FloatNetwork, estimate: &Estimate, headroom: f32) -> Result<Self> {
        // What the file clips itself must be clipped here, too, or what follows would see other values.
        let wide = estimate.ranges.iter().zip(&float.clips);
        let wide: Vec<f32> = wide
            .map(|(range, clip)| clip.unwrap_or(headroom * range.max(f32::MIN_POSITIVE)))
            .collect();
        let ranges = float.common(&wide);
        let own = float.parameters(&ranges, &estimate.sums)?;
        let (mut layers, mut shown, mut heads, mut all) = (vec![], vec![], vec![], vec![]);
        let mut show = |what: Shown, layer: String| {
            shown.push(what);
            heads.push(Head {
                layer,
                stride: 1,
                kind: HeadKind::Classes,
            });
        };
        let mut parameters = own.0.chunks_exact(5);
        for (index, layer, conv) in float.layers() {
            let own = match layer {
                Layer::Conv { .. } => parameters
                    .next()
                    .context("a convolution without parameters")?,
                Layer::AddUpsampled { .. } => &[],
            };
            let is_head = matches!(
                layer,
                Layer::Conv {
                    activation: Activation::Linear,
                    ..
                }
            );
            if is_head {
                continue;
            }
            show(Shown::Tensor(index), name(layer).to_owned());
            layers.push(layer.clone());
            all.extend_from_slice(own);
            if conv.is_some_and(|conv| conv.normal.is_none()) {
                let (twin, twins) = twin(layer, own, &float.units(index, &ranges));
                show(Shown::Sums(index), name(&twin).to_owned());
                layers.push(twin);
                all.extend(twins);
            }
        }
        Ok(Self {
            float,
            network: Network {
                input: float.network.input.clone(),
                layers,
                heads,
            },
            parameters: Parameters(all),
            ranges,
            shown,
            histograms: HashMap::new(),
            sums: HashMap::new(),
        })
    }

    fn see(&mut self, images: Images) -> Result<()> {
        let mode = (Activations::Float, Statistics::Running);
        let pass = forward(
            &self.network,
            &self.parameters,
            images,
            mode,
            Gradients::None,
        )?;
        for (shown, output) in self.shown.iter().zip(&pass.outputs) {
            match *shown {
                Shown::Tensor(index) => {
                    let histogram = self.histograms.entry(index).or_default();
                    let unit = self.ranges[index] / CLIP;
                    output.data.iter().for_each(|v| histogram.add(v * unit));
                }
                Shown::Sums(index) => {
                    let sums = self.sums.entry(index).or_default();
                    sums.resize(output.channels, Sum::default());
                    let cells = output.height * output.width;
                    for (plane, values) in output.data.chunks_exact(cells).enumerate() {
                        let sum = &mut sums[plane % output.channels];
                        for v in values.iter().map(|v| f64::from(*v)) {
                            *sum = Sum(sum.0 + 1.0, sum.1 + v, sum.2 + v * v);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether nothing was clipped that the file does not clip.
    fn is_wide_enough(&self) -> bool {
        let groups = self.float.groups();
        let clips = |index: usize| {
            let same = groups
                .iter()
                .zip(&self.float.clips)
                .filter(|(g, _)| **g == groups[index]);
            same.into_iter().any(|(_, clip)| clip.is_some())
        };
        let seen = self.histograms.iter();
        seen.into_iter()
            .all(|(index, h)| clips(*index) || h.greatest < 0.99 * self.ranges[*index])
    }

    fn result(self, percentile: f32) -> Measured {
        let mut ranges = vec![0.0; self.ranges.len()];
        for (index, histogram) in &self.histograms {
            let range = histogram.quantile(percentile);
            ranges[*index] = self.float.clips[*index].map_or(range, |clip| clip.min(range));
        }
        let common = self.float.common(&ranges);
        let mut clipped = vec![0.0; ranges.len()];
        for (index, histogram) in &self.histograms {
            clipped[*index] = histogram.above(common[*index]);
        }
        let sums = self.sums.into_iter().map(|(index, sums)| {
            let moments = sums.iter().map(|Sum(count, sum, squares)| {
                let mean = sum / count;
                (mean as f32, (squares / count - mean * mean).max(0.0) as f32)
            });
            let (mean, variance) = moments.unzip();
            (index, Moments { mean, variance })
        });
        Measured {
            ranges,
            sums: sums.collect(),
            clipped,
        }
    }
}

/// A linear convolution that gives the sums of another one, with its parameters: `units` is how many times as large these
/// are in our graph, by channel.
fn twin(layer: &Layer, own: &[Parameter], units: &[f32]) -> (Layer, Vec<Parameter>) {
    let mut layer = layer.clone();
    let mut twins = own.to_vec();
    if let Layer::Conv {
        name, activation, ..
    } = &mut layer
    {
        let renamed = format!("{name}.sums");
        for twin in &mut twins {
            if let Some(role) = twin.name.strip_prefix(name.as_str()) {
                twin.name = format!("{renamed}{role}");
            }
            match twin.role {
                Role::Gamma => twin.value = units.iter().map(|unit| 1.0 / unit).collect(),
                Role::Beta => twin.value.fill(0.0),
                Role::Weight | Role::Mean | Role::Variance => {}
            }
        }
        *name = renamed;
        *activation = Activation::Linear;
    }
    (layer, twins)
}

/// How often which values were seen: columns of one width, which doubles when they reach no further.
struct Histogram {
    width: f32,
    columns: Vec<u64>,
    greatest: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            width: 0.0,
            columns: vec![0; COLUMNS],
            greatest: 0.0,
        }
    }
}

impl Histogram {
    /// Counts a value that is not negative.
    fn add(&mut self, value: f32) {
        if self.width == 0.0 && value > 0.0 {
            self.width = (value / COLUMNS as f32).max(f32::MIN_POSITIVE);
        }
        while value >= self.width * COLUMNS as f32 && value > 0.0 {
            for i in 0..COLUMNS / 2 {
                self.columns[i] = self.columns[2 * i] + self.columns[2 * i + 1];
            }
            self.columns[COLUMNS / 2..].fill(0);
            self.width *= 2.0;
        }
        // Zeros come before the width is known.
        let column = if value > 0.0 {
            (value / self.width) as usize
        } else {
            0
        };
        self.columns[column.min(COLUMNS - 1)] += 1;
        self.greatest = self.greatest.max(value);
    }

    /// The end of the first column below which `part` of the values are.
    fn quantile(&self, part: f32) -> f32 {
        let all: u64 = self.columns.iter().sum();
        let wanted = f64::from(part) * all as f64;
        let mut seen = 0;
        for (i, count) in self.columns.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return ((i + 1) as f32 * self.width).min(self.greatest);
            }
        }
        self.greatest
    }

    /// The part of the values that are in columns beyond `limit`.
    fn above(&self, limit: f32) -> f64 {
        let all: u64 = self.columns.iter().sum();
        let beyond = |(i, _): &(usize, &u64)| *i as f32 * self.width >= limit;
        let above: u64 = self
            .columns
            .iter()
            .enumerate()
            .filter(beyond)
            .map(|(_, n)| n)
            .sum();
        above as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_knows_quantiles_to_a_column() {
        let mut histogram = Histogram::default();
        histogram.add(0.0);
        for i in 1..10_000 {
            histogram.add(i as f32 * 1e-3);
        }
        assert!((histogram.quantile(0.5) - 5.0).abs() < 0.01);
        assert!((histogram.quantile(0.999) - 9.99).abs() < 0.01);
        assert!((histogram.quantile(1.0) - 9.999).abs() < 1e-4);
        assert!((histogram.above(9.0) - 0.1).abs() < 0.001);
        assert_eq!(Histogram::default().quantile(0.9), 0.0);
    }
}
