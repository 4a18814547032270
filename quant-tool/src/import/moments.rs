//! What a network's tensors look like without a picture: means and variances, estimated from layer to layer.
//!
//! Batch normalization remembers what its sums were like; where there is none, they follow from the weights and from what
//! they read. A sum is taken to be normal, so what a ReLU leaves of it is known in closed form. It is an estimate: real values
//! have longer tails, and neighbours agree more or less than assumed here.

use ternwatch_bundle::manifest::{Layer, PoolMode};

use super::float::{FloatConv, FloatNetwork, Sums};
use super::scale::Span;

/// Mean and variance of each channel of a tensor.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
}

/// Of photographs, in parts of white.
const IMAGE_MEAN: f32 = 0.45;
const IMAGE_VARIANCE: f32 = 0.07;
/// How much neighbours in one channel agree.
const CORRELATION: f32 = 0.5;
const IMAGE_CORRELATION: f32 = 0.9;

/// What is estimated of every layer.
pub(super) struct Estimate {
    /// What all values but the rest of `percentile` lie in.
    pub(super) spans: Vec<Span>,
    /// Of the sums of convolutions, before their biases.
    pub(super) sums: Sums,
    /// Of the layers' outputs.
    pub(super) tensors: Vec<Moments>,
}

/// Goes through the layers once.
pub(super) fn estimate(float: &FloatNetwork, percentile: f32) -> Estimate {
    let indices = float.indices();
    let mut estimate = Estimate {
        spans: Vec::new(),
        sums: Sums::new(),
        tensors: Vec::new(),
    };
    for (index, layer, conv) in float.layers() {
        let read = |name: &String| &estimate.tensors[indices[name.as_str()]];
        let spans = |name: &String| estimate.spans[indices[name.as_str()]];
        let is_raised = float.raises[index].iter().any(|n| *n > 0);
        let (moments, span) = match (layer, conv) {
            (Layer::Conv { input, .. }, Some(conv)) => {
                let sums = match indices.get(input.as_str()) {
                    None => sums(conv, &conv.weight, &image(), IMAGE_CORRELATION),
                    Some(input) => sums(conv, &conv.weight, &estimate.tensors[*input], CORRELATION),
                };
                let normal = normalized(conv, &sums);
                estimate.sums.insert(index, sums);
                of_normal(normal, percentile, is_raised)
            }
            (Layer::AddUpsampled { fine, coarse, .. }, _) => {
                let sum = added(read(fine), read(coarse));
                let span = span(&sum, percentile, is_raised);
                (sum, span)
            }
            (Layer::Add { inputs, .. }, _) => {
                let sum = added(read(&inputs[0]), read(&inputs[1]));
                of_normal(sum, percentile, is_raised)
            }
            (Layer::Concat { inputs, .. }, _) => {
                let moments = joined(inputs.iter().map(read));
                let both = |a: Span, b: Span| Span {
                    low: a.low.max(b.low),
                    high: a.high.max(b.high),
                };
                (
                    moments,
                    inputs.iter().map(spans).fold(Span::default(), both),
                )
            }
            (
                Layer::Pool {
                    input,
                    mode,
                    kernel,
                    ..
                },
                _,
            ) => (pooled(read(input), *mode, *kernel), spans(input)),
            (Layer::Conv { .. }, None) => (Moments::default(), Span::default()),
        };
        let high = float.clips[index].map_or(span.high, |clip| clip.min(span.high));
        estimate.spans.push(Span { high, ..span });
        estimate.tensors.push(moments);
    }
    estimate
}

/// What becomes of sums that are activated, or raised as they are.
fn of_normal(normal: Moments, percentile: f32, is_raised: bool) -> (Moments, Span) {
    let span = span(&normal, percentile, is_raised);
    match is_raised {
        true => (normal, span),
        false => (rectified(&normal), span),
    }
}

fn span(normal: &Moments, percentile: f32, is_raised: bool) -> Span {
    let negated = Moments {
        mean: normal.mean.iter().map(|m| -m).collect(),
        variance: normal.variance.clone(),
    };
    Span {
        low: if is_raised {
            quantile(&negated, percentile)
        } else {
            0.0
        },
        high: quantile(normal, percentile),
    }
}

impl Estimate {
    /// What the sums of layer `index` would be with other weights, before biases.
    pub(super) fn sums_with(&self, float: &FloatNetwork, index: usize, weight: &[f32]) -> Moments {
        let found = float.layers().nth(index);
        let Some((_, Layer::Conv { input, .. }, Some(conv))) = found else {
            return Moments::default();
        };
        match float.indices().get(input.as_str()) {
            None => sums(conv, weight, &image(), IMAGE_CORRELATION),
            Some(input) => sums(conv, weight, &self.tensors[*input], CORRELATION),
        }
    }
}

fn image() -> Moments {
    Moments {
        mean: vec![IMAGE_MEAN; 3],
        variance: vec![IMAGE_VARIANCE; 3],
    }
}

/// Of `weight * x`: where neighbours agree entirely their weights add up before they are squared.
fn sums(conv: &FloatConv, weight: &[f32], input: &Moments, correlation: f32) -> Moments {
    let (mean, variance) = conv
        .reads(weight)
        .map(|planes| {
            let (mut mean, mut variance) = (0.0, 0.0);
            for (plane, w) in planes {
                let sum: f32 = w.iter().sum();
                let squares: f32 = w.iter().map(|w| w * w).sum();
                mean += sum * input.mean[plane];
                variance += (correlation * sum * sum + (1.0 - correlation) * squares)
                    * input.variance[plane];
            }
            (mean, variance)
        })
        .unzip();
    Moments { mean, variance }
}

/// What follows a convolution, before its ReLU.
fn normalized(conv: &FloatConv, sums: &Moments) -> Moments {
    match &conv.normal {
        Some(normal) => Moments {
            mean: normal.beta.clone(),
            variance: normal.gamma.iter().map(|g| g * g).collect(),
        },
        None => Moments {
            mean: sums
                .mean
                .iter()
                .zip(&conv.bias)
                .map(|(m, b)| m + b)
                .collect(),
            variance: sums.variance.clone(),
        },
    }
}

fn added(a: &Moments, b: &Moments) -> Moments {
    let sum = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a + b).collect();
    Moments {
        mean: sum(&a.mean, &b.mean),
        variance: sum(&a.variance, &b.variance),
    }
}

fn joined<'m>(parts: impl Iterator<Item = &'m Moments>) -> Moments {
    let mut all = Moments::default();
    for part in parts {
        all.mean.extend(&part.mean);
        all.variance.extend(&part.variance);
    }
    all
}

/// Of the greatest, or of the mean, of a window's values, of which neighbours agree as much as elsewhere.
fn pooled(input: &Moments, mode: PoolMode, kernel: u32) -> Moments {
    let count = (kernel * kernel) as f32;
    // Of the greatest of so many standard normal numbers, mean and variance.
    let (mean, variance) = match (mode, kernel) {
        (PoolMode::Mean, _) => (0.0, 1.0 / count),
        (PoolMode::Max, ..3) => (1.03, 0.49),
        (PoolMode::Max, 3) => (1.49, 0.36),
        (PoolMode::Max, _) => (1.97, 0.26),
    };
    let own = 1.0 - CORRELATION;
    let shifted = input.mean.iter().zip(&input.variance);
    Moments {
        mean: shifted.map(|(m, v)| m + mean * (own * v).sqrt()).collect(),
        variance: input
            .variance
            .iter()
            .map(|v| (CORRELATION + own * variance) * v)
            .collect(),
    }
}

/// The part of a standard normal number's cases that are below `x`.
fn below(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// Of max(0, x), x being normal.
fn rectified(normal: &Moments) -> Moments {
    let channels = normal.mean.iter().zip(&normal.variance);
    let (mean, variance) = channels
        .map(|(m, v)| {
            let (m, deviation) = (f64::from(*m), f64::from(*v).sqrt().max(1e-20));
            let x = m / deviation;
            let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
            let first = m * below(x) + deviation * density;
            let second = (m * m + deviation * deviation) * below(x) + m * deviation * density;
            (first as f32, (second - first * first).max(0.0) as f32)
        })
        .unzip();
    Moments { mean, variance }
}

/// The least positive value that `part` of all channels' values stay below.
fn quantile(normal: &Moments, part: f32) -> f32 {
    let channels: Vec<(f64, f64)> = normal
        .mean
        .iter()
        .zip(&normal.variance)
        .map(|(m, v)| (f64::from(*m), f64::from(*v).sqrt().max(1e-20)))
        .collect();
    let part = f64::from(part).min(1.0 - 1e-6);
    let under = |value: f64| {
        let sum: f64 = channels
            .iter()
            .map(|(m, deviation)| below((value - m) / deviation))
            .sum();
        sum / channels.len() as f64
    };
    let greatest = channels.iter().map(|(m, deviation)| m + 8.0 * deviation);
    let (mut low, mut high) = (0.0, greatest.fold(0.0, f64::max));
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        match under(middle) < part {
            true => low = middle,
            false => high = middle,
        }
    }
    high as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A normal number, from twelve uniform ones.
    fn normal(rng: &mut fastrand::Rng) -> f32 {
        (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0
    }

    #[test]
    fn a_rectified_normal_number_is_as_drawn_ones_are() {
        let mut rng = fastrand::Rng::with_seed(5);
        let moments = Moments {
            mean: vec![0.7, -1.5],
            variance: vec![4.0, 2.25],
        };
        let rectified = rectified(&moments);
        let mut all = Vec::new();
        for channel in 0..2 {
            let deviation = moments.variance[channel].sqrt();
            let draw = |_| moments.mean[channel] + deviation * normal(&mut rng);
            let values: Vec<f32> = (0..100_000).map(draw).map(|v: f32| v.max(0.0)).collect();
            let mean = values.iter().sum::<f32>() / 1e5;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 1e5;
            assert!((rectified.mean[channel] - mean).abs() < 0.02, "{mean}");
            assert!(
                (rectified.variance[channel] - variance).abs() < 0.05,
                "{variance}"
            );
            all.extend(values);
        }
        let limit = quantile(&moments, 0.99);
        let above = all.iter().filter(|v| **v > limit).count();
        assert!(
            (1600..2400).contains(&above),
            "{above} of 200000 above {limit}"
        );
    }
}
