//! Where a file's tensors lie in ours: `factor * value + zero` steps.
//!
//! Ours hold 0 to 127 steps and nothing below. What the file lets be negative is raised by a constant, a whole number of
//! steps, so that clipping keeps both signs; its producer's normalization takes that, its readers take it back. Tensors that
//! are added, joined or pooled into one another have one factor, and are raised by multiples of one number.

use ternwatch_bundle::manifest::Layer;

use super::float::FloatNetwork;
use crate::network::Network;
use crate::quantize::activation::STEP;

/// Steps above zero that a tensor has.
const STEPS: u32 = 127;

/// What a tensor's values are, in the file's unit: from `-low` to `high`. Neither is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Span {
    pub(super) low: f32,
    pub(super) high: f32,
}

/// A layer's output in our graph.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    /// How many times as large as in the file.
    pub(super) factor: f32,
    /// `[channel]`: by how many steps it is raised.
    pub(super) zero: Vec<u8>,
}

impl Scale {
    /// By how much a plane is raised.
    pub(super) fn raised(&self, plane: usize) -> f32 {
        f32::from(self.zero[plane]) * STEP
    }

    /// The greatest value that a plane holds, and how far below zero it reaches, in the file's unit.
    pub(super) fn holds(&self, plane: usize) -> Span {
        let zero = u32::from(self.zero[plane]);
        let value = |steps: u32| steps as f32 * STEP / self.factor;
        Span {
            low: value(zero),
            high: value(STEPS.saturating_sub(zero)),
        }
    }
}

impl FloatNetwork {
    /// The first layer of those that must have one factor.
    pub(super) fn groups(&self) -> Vec<usize> {
        let indices = self.indices();
        let mut group: Vec<usize> = (0..self.network.layers.len()).collect();
        for (index, layer) in self.network.layers.iter().enumerate() {
            if matches!(layer, Layer::Conv { .. }) {
                continue;
            }
            let read = layer.inputs().into_iter().filter_map(|name| {
                let read = indices.get(name)?;
                Some(group[*read])
            });
            let all: Vec<usize> = read.chain([group[index]]).collect();
            let first = all.iter().copied().min().unwrap_or(index);
            for own in &mut group {
                if all.contains(own) {
                    *own = first;
                }
            }
        }
        group
    }

    /// Whether a layer has values of its own. Those of joined and pooled tensors lie within the ones that these come from.
    pub(super) fn adds_up(&self, index: usize) -> bool {
        match self.network.layers[index] {
            Layer::Conv { .. } | Layer::AddUpsampled { .. } | Layer::Add { .. } => true,
            Layer::Concat { .. } | Layer::Pool { .. } => false,
        }
    }

    /// Which groups have a tensor that is raised, by their first layer.
    pub(super) fn is_raised(&self, groups: &[usize]) -> Vec<bool> {
        let mut raised = vec![false; groups.len()];
        for (group, raises) in groups.iter().zip(&self.raises) {
            raised[*group] |= raises.iter().any(|n| *n > 0);
        }
        raised
    }

    /// Where every layer's output lies, so that each group holds all of its layers' spans with the greatest factor.
    pub(super) fn scales(&self, spans: &[Span]) -> Vec<Scale> {
        let groups = self.groups();
        let mut members: Vec<Vec<(Span, u32)>> = vec![Vec::new(); spans.len()];
        for (index, group) in groups.iter().enumerate() {
            if !self.adds_up(index) {
                continue;
            }
            let most = self.raises[index].iter().max().copied().unwrap_or(0);
            members[*group].push((spans[index], u32::from(most)));
        }
        let fits: Vec<(f32, u32)> = members.iter().map(|members| fit(members)).collect();
        let scale = |(raises, group): (&Vec<u8>, &usize)| {
            let (factor, zero) = fits[*group];
            Scale {
                factor,
                zero: raises
                    .iter()
                    .map(|n| (u32::from(*n) * zero) as u8)
                    .collect(),
            }
        };
        self.raises.iter().zip(&groups).map(scale).collect()
    }

    /// The layers, with what is taken off sums so that they lie where `scales` says.
    pub(super) fn network_in(&self, scales: &[Scale]) -> Network {
        let mut network = self.network.clone();
        let indices = self.indices();
        for (layer, own) in network.layers.iter_mut().zip(scales) {
            if let Layer::Add { inputs, offset, .. } = layer {
                let zero = |scale: &Scale| scale.zero.first().copied().unwrap_or(0);
                let [a, b] = [&inputs[0], &inputs[1]].map(|name| &scales[indices[name.as_str()]]);
                // The same for all planes.
                *offset = (zero(a) + zero(b)).saturating_sub(zero(own));
            }
        }
        network
    }
}

/// The greatest factor, and the zero in steps with which it is had, that let tensors (span, multiple of the zero by which it is
/// raised) lie within the steps there are. Tensors that are always zero have a factor of 1.
fn fit(members: &[(Span, u32)]) -> (f32, u32) {
    let most = members.iter().map(|(_, n)| *n).max().unwrap_or(0);
    // For a span's end of nothing any factor does.
    let limit = |steps: u32, end: f32| match end > 0.0 {
        true => steps as f32 * STEP / end,
        false => f32::INFINITY,
    };
    let factor = |zero: u32| {
        let limits = members.iter().map(|(span, n)| {
            let below = match n {
                0 => f32::INFINITY,
                n => limit(n * zero, span.low),
            };
            below.min(limit(STEPS - n * zero, span.high))
        });
        limits.fold(f32::INFINITY, f32::min)
    };
    let zeros = match most {
        0 => 0..=0,
        most => 1..=(STEPS - 1) / most,
    };
    let fits = zeros.map(|zero| (factor(zero), zero));
    let best = fits.fold(
        (0.0, 0),
        |best, fit| if fit.0 > best.0 { fit } else { best },
    );
    match best {
        (factor, zero) if factor.is_finite() && factor > 0.0 => (factor, zero),
        (_, zero) => (1.0, zero),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_every_span_fit_and_one_of_them_just() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..500 {
            let members: Vec<(Span, u32)> = (0..rng.usize(1..5))
                .map(|_| {
                    let n = rng.u32(0..4);
                    let low = if n == 0 { 0.0 } else { 9.0 * rng.f32() };
                    let high = 9.0 * rng.f32();
                    (Span { low, high }, n)
                })
                .collect();
            let (factor, zero) = fit(&members);
            let ends = members.iter().flat_map(|(span, n)| {
                let zero = (n * zero) as f32;
                let [low, high] = [span.low, span.high].map(|end| end * factor / STEP);
                [low - zero, high + zero - STEPS as f32]
            });
            let over = ends.fold(f32::MIN, f32::max);
            assert!(
                over < 1e-3 && over > -1e-3,
                "{members:?}: {over} steps over"
            );
        }
        assert_eq!(fit(&[(Span::default(), 0)]), (1.0, 0));
        let (factor, zero) = fit(&[(
            Span {
                low: 0.0,
                high: 2.0,
            },
            0,
        )]);
        assert!((factor - 2.0).abs() < 1e-6 && zero == 0);
    }
}
