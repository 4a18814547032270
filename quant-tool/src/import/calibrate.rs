//! What a network's tensors look like on pictures: measured by our own graph.
//!
//! The graph clips, so it first runs with every tensor scaled far below its clip: floats do not mind, and what is raised, which
//! loses digits, not so far. Convolutions read that lowered again, so that they find the zeros around it that the file has there.
//! Sums that the file does not normalize are laid open by a linear twin of their convolution.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use ternwatch_bundle::manifest::{Activation, Head, HeadKind, Layer};

use super::float::{FloatNetwork, Reading, Sums};
use super::moments::{Estimate, Moments};
use super::scale::{Scale, Span};
use crate::export::Unfit;
use crate::network::Network;
use crate::quantize::activation::CLIP;
use crate::train::graph::{Activations, Gradients, Images, Statistics, forward};
use crate::train::parameters::{Parameter, Parameters, Role};

/// How much larger than estimated a tensor's values may be, to begin with; and in groups with one that is raised.
const HEADROOM: f32 = 1000.0;
const RAISED_HEADROOM: f32 = 32.0;
/// Nearer to the ends of our range than by this part of it, a value may have been clipped.
const MARGIN: f32 = 0.01;
/// How often it is enlarged as much again.
const TRIES: usize = 4;
/// Columns of a histogram.
const COLUMNS: usize = 4096;

/// What pictures showed.
pub(super) struct Measured {
    /// What all values but the rest of the percentile lie in, by layer; nothing of heads.
    pub(super) spans: Vec<Span>,
    /// Of sums that the file does not normalize.
    pub(super) sums: Sums,
    /// How much of each layer's values are beyond what its tensor holds.
    pub(super) clipped: Vec<f64>,
    /// How much the file clips of each layer's values and we do not, because others of its group are larger.
    pub(super) kept: Vec<f64>,
}

/// Runs the network on every batch.
pub(super) fn measure(
    float: &FloatNetwork,
    estimate: &Estimate,
    batches: &[Images],
    percentile: f32,
) -> Result<Measured> {
    let mut headroom = [HEADROOM, RAISED_HEADROOM];
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
        headroom = [headroom[0] * HEADROOM, headroom[1] * RAISED_HEADROOM];
    }
    let least = headroom[1] / RAISED_HEADROOM;
    bail!(Unfit(format!(
        "values of the network are {least:e} times as large as its weights let expect"
    )))
}

/// A network that gives every tensor.
struct Probe<'a> {
    float: &'a FloatNetwork,
    network: Network,
    parameters: Parameters,
    scales: Vec<Scale>,
    /// What each head of the probe shows.
    shown: Vec<Shown>,
    seen: HashMap<usize, Seen>,
    sums: HashMap<usize, Vec<Sum>>,
}

#[derive(Clone, Copy)]
enum Shown {
    /// A layer's output.
    Tensor(usize),
    /// What a layer adds up.
    Sums(usize),
}

/// What was seen of a layer's output.
#[derive(Default)]
struct Seen {
    /// Of values, negative ones being zero.
    above: Histogram,
    /// Of values with their sign turned, then likewise.
    below: Histogram,
    /// Whether one may have been clipped.
    is_at_end: bool,
}

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Default)]
struct Sum(f64, f64, f64);

impl<'a> Probe<'a> {
    fn new(float: &'a FloatNetwork, estimate: &Estimate, headroom: [f32; 2]) -> Result<Self> {
        let scales = float.scales(&wide(float, &estimate.spans, headroom));
        let own = float.parameters(&scales, &estimate.sums, Reading::Lowered)?;
        let whole = float.network_in(&scales);
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
        let mut lowered = HashSet::new();
        for (layer, (index, _, conv)) in whole.layers.iter().zip(float.layers()) {
            let own = match layer {
                Layer::Conv { .. } => parameters
                    .next()
                    .context("a convolution without parameters")?,
                _ => &[],
            };
            let is_head = |head: &Head| head.layer == layer.name();
            if float.network.heads.iter().any(is_head) {
                continue;
            }
            let mut layer = layer.clone();
            if let Layer::Conv { input, .. } = &mut layer
                && lowered.contains(input)
            {
                *input = lowered_name(input);
            }
            show(Shown::Tensor(index), layer.name().to_owned());
            layers.push(layer.clone());
            all.extend_from_slice(own);
            if conv.is_some_and(|conv| conv.normal.is_none()) {
                let (twin, twins) = twin(&layer, own, &float.units(index, &scales));
                show(Shown::Sums(index), twin.name().to_owned());
                layers.push(twin);
                all.extend(twins);
            }
            if scales[index].zero.iter().any(|zero| *zero > 0) {
                let (lower, parameters) = lower(layer.name(), &scales[index]);
                lowered.insert(layer.name().to_owned());
                layers.push(lower);
                all.extend(parameters);
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
            scales,
            shown,
            seen: HashMap::new(),
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
            let cells = output.height * output.width;
            let planes = output.data.chunks_exact(cells).enumerate();
            let planes = planes.map(|(plane, values)| (plane % output.channels, values));
            match *shown {
                Shown::Tensor(index) => {
                    let (scale, seen) = (&self.scales[index], self.seen.entry(index).or_default());
                    for (plane, values) in planes {
                        let raised = scale.raised(plane);
                        for v in values {
                            let value = (v - raised) / scale.factor;
                            seen.above.add(value.max(0.0));
                            seen.below.add((-value).max(0.0));
                            seen.is_at_end |=
                                *v > (1.0 - MARGIN) * CLIP || (raised > 0.0 && *v < MARGIN * CLIP);
                        }
                    }
                }
                Shown::Sums(index) => {
                    let sums = self.sums.entry(index).or_default();
                    sums.resize(output.channels, Sum::default());
                    for (plane, values) in planes {
                        let sum = &mut sums[plane];
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
        let clips = &self.float.clips;
        let mut seen = self.seen.iter();
        seen.all(|(index, seen)| clips[*index].is_some() || !seen.is_at_end)
    }

    fn result(self, percentile: f32) -> Measured {
        let mut spans = vec![Span::default(); self.scales.len()];
        for (index, seen) in &self.seen {
            let high = seen.above.quantile(percentile);
            spans[*index] = Span {
                low: seen.below.quantile(percentile),
                high: self.float.clips[*index].map_or(high, |clip| clip.min(high)),
            };
        }
        let scales = self.float.scales(&spans);
        let (mut clipped, mut kept) = (vec![0.0; spans.len()], vec![0.0; spans.len()]);
        for (index, seen) in &self.seen {
            if !self.float.adds_up(*index) {
                continue;
            }
            let holds = scales[*index].holds(0);
            if let Some(clip) = self.float.clips[*index] {
                if holds.high > 1.001 * clip {
                    kept[*index] = seen.above.above(clip);
                } else if holds.high > 0.999 * clip {
                    continue;
                }
            }
            let zero = &scales[*index].zero;
            // Planes with different zeros are those of other layers.
            if zero.iter().all(|z| *z == zero[0]) {
                clipped[*index] = seen.above.above(holds.high);
                if zero[0] > 0 {
                    clipped[*index] += seen.below.above(holds.low);
                }
            }
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
            spans,
            sums: sums.collect(),
            clipped,
            kept,
        }
    }
}

/// Spans far wider than estimated: by the first headroom, or by the second in groups with a tensor that is raised. What the
/// file clips itself must be clipped here, too, or what follows would see other values.
fn wide(float: &FloatNetwork, spans: &[Span], headroom: [f32; 2]) -> Vec<Span> {
    let groups = float.groups();
    let raised = float.is_raised(&groups);
    let all = spans.iter().zip(&groups).zip(&float.clips);
    let wide = all.map(|((span, group), clip)| {
        let headroom = headroom[usize::from(raised[*group])];
        // An end may be far off that is estimated to be near.
        let least = f32::MIN_POSITIVE.max(0.1 * span.low.max(span.high));
        let end = |end: f32| headroom * end.max(least);
        Span {
            low: end(span.low),
            high: clip.unwrap_or(end(span.high)),
        }
    });
    wide.collect()
}

fn lowered_name(name: &str) -> String {
    format!("{name}.lowered")
}

/// A depthwise convolution that takes from a tensor what it was raised by, and its parameters.
fn lower(name: &str, scale: &Scale) -> (Layer, Vec<Parameter>) {
    let channels = scale.zero.len();
    let layer = Layer::Conv {
        name: lowered_name(name),
        input: name.to_owned(),
        in_channels: channels as u32,
        out_channels: channels as u32,
        kernel: 1,
        stride: 1,
        groups: channels as u32,
        activation: Activation::Linear,
        pre_shift: 0,
        offset: 0,
    };
    let parameter = |role: Role, shape: Vec<usize>, value: Vec<f32>| Parameter {
        name: format!("{}.{role:?}", lowered_name(name)),
        role,
        shape,
        value,
    };
    let of_channels =
        |role: Role, value: f32| parameter(role, vec![channels], vec![value; channels]);
    let raised = (0..channels).map(|plane| -scale.raised(plane)).collect();
    let parameters = vec![
        parameter(Role::Weight, vec![channels, 1, 1, 1], vec![1.0; channels]),
        of_channels(Role::Gamma, 1.0),
        parameter(Role::Beta, vec![channels], raised),
        of_channels(Role::Mean, 0.0),
        of_channels(Role::Variance, 1.0),
    ];
    (layer, parameters)
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
