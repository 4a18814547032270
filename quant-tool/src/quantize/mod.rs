//! From float weights to ternary ones in two stages, independent of the task.
//!
//! *Soft*: every weight is drawn to its nearest level of {-1, 0, +1} x scale by the proximal step of a squared
//! distance whose strength grows. *Hard*: weights are fixed at their levels group by group, nearest first, while the
//! others go on learning, until all are fixed; then only normalization learns. Both run on plain slices.

pub mod activation;
pub mod outputs;
pub mod ternary;
mod zeros;

use serde::{Deserialize, Serialize};
use ternwatch_kernels::Trit;

use crate::train::check::{BadValue, check};
use crate::train::parameters::{Parameters, Role};

/// Settings of the two stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Steps of the soft stage.
    pub soft_steps: u64,
    /// Part of its distance to its level that a weight moves in the last soft step; it grows from 0 with the square of
    /// the progress.
    pub pull: f32,
    /// What is drawn to the levels in the soft stage.
    #[serde(default)]
    pub soft: Soft,
    /// Steps of the hard stage.
    pub hard_steps: u64,
    /// Part of each layer's weights that is fixed after each group; the last one is 1.
    pub groups: Vec<f32>,
    /// Part of the hard stage after which the last group is fixed.
    pub last_group_at: f32,
    /// Learning rate at the start of the soft stage.
    pub soft_rate: f32,
    /// Part of that rate which is left at the end of the soft stage. With little of it the hard stage begins anew; with much the
    /// two are one descent.
    #[serde(default = "hundredth")]
    pub soft_rate_end: f32,
    /// Learning rate at the start of the hard stage.
    pub hard_rate: f32,
    /// What free weights are in the hard stage's forward pass.
    pub free: Free,
    /// Which weights are fixed first.
    #[serde(default)]
    pub order: Order,
    /// Of what the levels have the least squared error where the network begins to compute with them: where the soft stage begins if
    /// that draws what the network computes with, else where the hard one does.
    #[serde(default)]
    pub fit: Fit,
    /// What shares a scale.
    #[serde(default)]
    pub scales: Scales,
    /// How levels follow the weights.
    #[serde(default)]
    pub levels: Rule,
    /// Weights up to this part of their scale become zero; half of it is the nearest level, more makes more zeros.
    #[serde(default = "half")]
    pub zero_width: f32,
    /// Part of all weights that is kept at zero while weights are free: `zero_width` follows them. Learning drives weights away from zero
    /// otherwise, the longer the more.
    #[serde(default)]
    pub zeros: Option<f32>,
    /// Weight of the loss that draws the outputs to those of the float network; 0 is none.
    #[serde(default)]
    pub distillation: f32,
}

fn hundredth() -> f32 {
    0.01
}

fn half() -> f32 {
    0.5
}

/// Which weights are fixed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// In every layer alike, those nearest to their levels.
    #[default]
    Nearest,
    /// Whole layers, the first ones first.
    Layer,
    /// In every layer alike, at random.
    Random,
}

/// Of what levels have the least squared error at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Of the weights, each for itself.
    #[default]
    Weights,
    /// Of what is computed with them, on samples: see [`outputs`].
    Outputs,
}

/// What shares a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scales {
    /// The weights of one output channel.
    #[default]
    Channel,
    /// The weights of one layer.
    Layer,
}

/// How scales and thresholds follow the weights while these are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The scale is the mean magnitude of the weights beyond the threshold, which is a part of the scale.
    Refit,
    /// The threshold is 0.7 x the mean magnitude, the scale as above (Li and Liu 2016, "Ternary weight networks").
    Twn,
    /// As they were fitted to the float weights (Hwang and Sung 2014). Weights that are fixed stay what they are.
    #[default]
    Frozen,
}

/// What is drawn to the levels in the soft stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Soft {
    /// The weights themselves, after each step.
    #[default]
    Weights,
    /// What the network computes with, while the weights stay free to change sides (Yin et al. 2018, "BinaryRelax",
    /// equation 10): the pull says how far it has become ternary.
    Forward,
}

/// What the network computes with while weights are still free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Free {
    /// Their float values: the network turns ternary as the groups are fixed.
    Float,
    /// Their levels, with gradients passed straight through to the float values (Hwang and Sung 2014): the network is
    /// ternary all the time, and a free weight can still change its level.
    StraightThrough,
}

/// The levels of every convolution.
#[derive(Clone, Debug)]
pub struct Quantizer {
    /// In the order of the parameters' weights.
    pub layers: Vec<Levels>,
}

/// The levels of one layer.
#[derive(Clone, Debug)]
pub struct Levels {
    /// `[out]`: the scale of each output channel.
    pub scale: Vec<f32>,
    /// `[out]`: up to which magnitude a weight's level is zero.
    pub threshold: Vec<f32>,
    /// `[out x fan_in]`: whether a weight is fixed at its level.
    pub fixed: Vec<bool>,
}

impl Levels {
    /// The level of weight `i` of the layer if it is `w`. One that is fixed lies on it, wherever the threshold has gone since.
    fn trit(&self, i: usize, channel: usize, w: f32) -> Trit {
        let threshold = match self.fixed[i] {
            true => self.scale[channel] / 2.0,
            false => self.threshold[channel],
        };
        ternary::level(w, threshold)
    }

    /// The same in units of the weights.
    fn value(&self, i: usize, channel: usize, w: f32) -> f32 {
        ternary::value(self.trit(i, channel, w), self.scale[channel])
    }
}

/// What a layer looks like, for people.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// The weights' name.
    pub name: String,
    /// Part of the weights within a tenth of a scale of a level.
    pub near: f32,
    /// Part of the weights whose level is zero.
    pub zeros: f32,
}

impl Quantizer {
    /// Fits levels to the weights; nothing is fixed.
    pub fn fit(parameters: &Parameters, config: &Config) -> Self {
        let layers = weights(parameters).map(|(_, fan_in, w)| {
            let group = config.scales.group(fan_in, w.len());
            let fitted = w.chunks_exact(group).map(|w| {
                let scale = ternary::fit_scale(w);
                config.follow(w, scale)
            });
            let fitted = fitted.flat_map(|levels| std::iter::repeat_n(levels, group / fan_in));
            let (scale, threshold) = fitted.unzip();
            Levels {
                scale,
                threshold,
                fixed: vec![false; w.len()],
            }
        });
        let mut fitted = Self {
            layers: layers.collect(),
        };
        if let Some(part) = config.zeros {
            fitted.keep_zeros(parameters, part);
            fitted.fit_scales(parameters);
        }
        fitted
    }

    /// Gives every channel the scale of the least squared error for its levels, and keeps the thresholds.
    fn fit_scales(&mut self, parameters: &Parameters) {
        for (levels, (_, fan_in, w)) in self.layers.iter_mut().zip(weights(parameters)) {
            let channels = levels.scale.iter_mut().zip(&levels.threshold);
            for ((scale, threshold), w) in channels.zip(w.chunks_exact(fan_in)) {
                *scale = ternary::scale_beyond(w, *threshold).unwrap_or(*scale);
            }
        }
    }

    /// Levels of nothing yet, to be read from a checkpoint.
    pub fn blank(parameters: &Parameters) -> Self {
        let layers = weights(parameters).map(|(_, fan_in, w)| Levels {
            scale: vec![0.0; w.len() / fan_in],
            threshold: vec![0.0; w.len() / fan_in],
            fixed: vec![false; w.len()],
        });
        Self {
            layers: layers.collect(),
        }
    }

    /// Lets the levels follow the weights.
    pub fn refit(&mut self, parameters: &Parameters, config: &Config) {
        if config.levels == Rule::Frozen {
            return;
        }
        for (levels, (_, fan_in, w)) in self.layers.iter_mut().zip(weights(parameters)) {
            let group = config.scales.group(fan_in, w.len());
            let channels = group / fan_in;
            let scales = levels.scale.chunks_exact_mut(channels);
            let thresholds = levels.threshold.chunks_exact_mut(channels);
            for (w, (scale, threshold)) in w.chunks_exact(group).zip(scales.zip(thresholds)) {
                let (s, t) = config.follow(w, scale[0]);
                scale.fill(s);
                threshold.fill(t);
            }
        }
    }

    /// One soft step: moves every weight by `pull` of its way to its level, which is the proximal step of
    /// `lambda / 2 x (w - level)^2` with `pull = lambda / (1 + lambda)`.
    pub fn pull(&self, parameters: &mut Parameters, pull: f32) {
        for (levels, (fan_in, w)) in self.layers.iter().zip(weights_mut(parameters)) {
            for (channel, w) in w.chunks_exact_mut(fan_in).enumerate() {
                for (i, w) in (channel * fan_in..).zip(w) {
                    *w += pull * (levels.value(i, channel, *w) - *w);
                }
            }
        }
    }

    /// Fixes weights at their levels, in the order asked for, until `part` of them are fixed, and returns how many were added.
    pub fn fix(&mut self, parameters: &mut Parameters, part: f32, order: Order) -> usize {
        let count = self.layers.len();
        let mut added = 0;
        for (index, (levels, (fan_in, w))) in self
            .layers
            .iter_mut()
            .zip(weights_mut(parameters))
            .enumerate()
        {
            let part = match order {
                Order::Nearest | Order::Random => part,
                Order::Layer => part * count as f32 - index as f32,
            };
            let goal = (part.clamp(0.0, 1.0) * w.len() as f32).round() as usize;
            let count = goal.saturating_sub(levels.fixed.iter().filter(|f| **f).count());
            if count == 0 {
                continue;
            }
            let mut rng = fastrand::Rng::with_seed(index as u64);
            let mut rank = |i: usize| match order {
                Order::Random => rng.f32(),
                Order::Nearest | Order::Layer => {
                    let scale = levels.scale[i / fan_in].max(f32::MIN_POSITIVE);
                    (w[i] - levels.value(i, i / fan_in, w[i])).abs() / scale
                }
            };
            // Every weight is ranked, so that a random order is the same one whenever it is asked for.
            let ranked: Vec<(f32, usize)> = (0..w.len()).map(|i| (rank(i), i)).collect();
            let mut free: Vec<(f32, usize)> = ranked
                .into_iter()
                .filter(|&(_, i)| !levels.fixed[i])
                .collect();
            free.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for &(_, i) in &free[..count] {
                w[i] = levels.value(i, i / fan_in, w[i]);
                levels.fixed[i] = true;
            }
            added += count;
        }
        added
    }

    /// Puts every fixed weight on its level, and leaves the others alone.
    pub fn hold(&self, parameters: &mut Parameters) {
        for (levels, (fan_in, w)) in self.layers.iter().zip(weights_mut(parameters)) {
            for (i, w) in w.iter_mut().enumerate().filter(|(i, _)| levels.fixed[*i]) {
                *w = levels.value(i, i / fan_in, *w);
            }
        }
    }

    /// Parameters whose weights, fixed or not, are moved by `pull` of their way to their levels; with 1 they are ternary.
    pub fn pulled(&self, parameters: &Parameters, pull: f32) -> Parameters {
        let mut pulled = parameters.clone();
        self.pull(&mut pulled, pull);
        pulled
    }

    /// Gives `average` the fixed weights of `parameters`: an average of levels need not be one, nor the same one.
    pub fn copy_fixed(&self, parameters: &Parameters, average: &mut Parameters) {
        let pairs = weights(parameters).zip(weights_mut(average));
        for (levels, ((_, _, from), (_, to))) in self.layers.iter().zip(pairs) {
            for ((to, from), _) in to
                .iter_mut()
                .zip(from)
                .zip(&levels.fixed)
                .filter(|(_, fixed)| **fixed)
            {
                *to = *from;
            }
        }
    }

    /// Takes the gradient from every fixed weight, so that the optimizer does not gather momentum for it.
    pub fn mask(&self, parameters: &Parameters, gradients: &mut [Option<Vec<f32>>]) {
        let gradients = parameters
            .0
            .iter()
            .zip(gradients)
            .filter(|(p, _)| p.role == Role::Weight);
        for (levels, (_, gradient)) in self.layers.iter().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            gradient
                .iter_mut()
                .zip(&levels.fixed)
                .filter(|(_, fixed)| **fixed)
                .for_each(|(g, _)| *g = 0.0);
        }
    }

    /// The trits of every convolution, `[out][in][ky][kx]`.
    pub fn trits(&self, parameters: &Parameters) -> Vec<Vec<Trit>> {
        self.layers
            .iter()
            .zip(weights(parameters))
            .map(|(levels, (_, fan_in, w))| {
                let trits = w.iter().enumerate();
                trits.map(|(i, &w)| levels.trit(i, i / fan_in, w)).collect()
            })
            .collect()
    }

    /// How near each layer is to being ternary.
    pub fn report(&self, parameters: &Parameters) -> Vec<LayerReport> {
        self.layers
            .iter()
            .zip(weights(parameters))
            .map(|(levels, (name, fan_in, w))| {
                let (mut near, mut zeros) = (0, 0);
                for (i, &w) in w.iter().enumerate() {
                    let scale = levels.scale[i / fan_in];
                    let trit = levels.trit(i, i / fan_in, w);
                    near += usize::from((w - ternary::value(trit, scale)).abs() <= 0.1 * scale);
                    zeros += usize::from(trit == Trit::Zero);
                }
                let part = |n: usize| n as f32 / w.len().max(1) as f32;
                LayerReport {
                    name: name.to_owned(),
                    near: part(near),
                    zeros: part(zeros),
                }
            })
            .collect()
    }

    /// Scales, thresholds and fixed weights as three sets of parameters, for the checkpoint.
    pub fn to_parameters(&self, like: &Parameters) -> [Parameters; 3] {
        let mut scales = only_weights(like);
        let mut thresholds = scales.clone();
        let mut fixed = scales.clone();
        for (i, levels) in self.layers.iter().enumerate() {
            for (set, values) in [
                (&mut scales, &levels.scale),
                (&mut thresholds, &levels.threshold),
            ] {
                set.0[i].shape = vec![values.len()];
                set.0[i].value.clone_from(values);
            }
            let marks = levels.fixed.iter().map(|&f| f32::from(u8::from(f)));
            fixed.0[i].value = marks.collect();
        }
        [scales, thresholds, fixed]
    }

    /// The inverse of [`Quantizer::to_parameters`].
    pub fn from_parameters([scales, thresholds, fixed]: &[Parameters; 3]) -> Self {
        let sets = scales.0.iter().zip(&thresholds.0).zip(&fixed.0);
        let layers = sets.map(|((scale, threshold), fixed)| Levels {
            scale: scale.value.clone(),
            threshold: threshold.value.clone(),
            fixed: fixed.value.iter().map(|&f| f != 0.0).collect(),
        });
        Self {
            layers: layers.collect(),
        }
    }

    /// Whether every weight is fixed.
    pub fn is_ternary(&self) -> bool {
        self.layers.iter().all(|l| l.fixed.iter().all(|f| *f))
    }
}

impl Scales {
    /// How many of a layer's weights share a scale.
    fn group(self, fan_in: usize, all: usize) -> usize {
        match self {
            Self::Channel => fan_in,
            Self::Layer => all,
        }
    }
}

impl Config {
    /// Refuses values out of their range, by their key.
    pub fn check(&self) -> Result<(), BadValue> {
        let groups = &self.groups;
        check(
            groups.last() == Some(&1.0),
            "quantize.groups",
            groups,
            "the last group must be 1",
        )?;
        check(
            groups.is_sorted() && groups[0] >= 0.0,
            "quantize.groups",
            groups,
            "groups must grow from 0 or more",
        )?;
        check(
            (0.0..1.0).contains(&self.last_group_at),
            "quantize.last_group_at",
            &self.last_group_at,
            "from 0 to below 1",
        )?;
        let parts = [
            ("quantize.pull", self.pull),
            ("quantize.soft_rate", self.soft_rate),
            ("quantize.soft_rate_end", self.soft_rate_end),
            ("quantize.hard_rate", self.hard_rate),
        ];
        for (key, value) in parts {
            check((0.0..=1.0).contains(&value), key, &value, "from 0 to 1")?;
        }
        check(
            (0.0..1.0).contains(&self.zero_width),
            "quantize.zero_width",
            &self.zero_width,
            "from 0 to below 1",
        )?;
        check(
            self.zeros.is_none_or(|part| (0.0..1.0).contains(&part)),
            "quantize.zeros",
            &self.zeros,
            "from 0 to below 1",
        )?;
        let fitted_once = self.fit == Fit::Weights && self.levels == Rule::Frozen;
        check(
            self.zeros.is_none() || (fitted_once && self.scales == Scales::Channel),
            "quantize.zeros",
            &self.zeros,
            "kept with fit = weights, scales = channel and levels = frozen only",
        )?;
        let own_levels = self.scales == Scales::Channel && self.levels == Rule::Frozen;
        check(
            self.fit == Fit::Weights || own_levels,
            "quantize.fit",
            &self.fit,
            "outputs are fitted with scales = channel and levels = frozen only",
        )?;
        check(
            self.fit == Fit::Weights || self.zero_width == half(),
            "quantize.zero_width",
            &self.zero_width,
            "levels that are fitted to outputs are the nearest ones: 0.5",
        )?;
        check(
            (0.0..=100.0).contains(&self.distillation),
            "quantize.distillation",
            &self.distillation,
            "from 0 to 100",
        )?;
        check(
            self.hard_steps > 0,
            "quantize.hard_steps",
            &self.hard_steps,
            "at least 1",
        )
    }

    /// Scale and threshold that follow these weights, whose scale was `scale`.
    fn follow(&self, weights: &[f32], scale: f32) -> (f32, f32) {
        let threshold = match self.levels {
            Rule::Refit | Rule::Frozen => self.zero_width * scale,
            Rule::Twn => ternary::twn_threshold(weights),
        };
        match (self.levels, ternary::scale_beyond(weights, threshold)) {
            (Rule::Refit, Some(scale)) => (scale, self.zero_width * scale),
            (Rule::Twn, Some(scale)) => (scale, threshold),
            (Rule::Frozen, _) | (_, None) => (scale, threshold),
        }
    }
}

fn only_weights(parameters: &Parameters) -> Parameters {
    Parameters(
        parameters
            .0
            .iter()
            .filter(|p| p.role == Role::Weight)
            .cloned()
            .collect(),
    )
}

/// Name, weights of one channel, and all weights of each convolution.
fn weights(parameters: &Parameters) -> impl Iterator<Item = (&str, usize, &[f32])> {
    let weights = parameters.0.iter().filter(|p| p.role == Role::Weight);
    weights.map(|p| {
        (
            p.name.as_str(),
            p.shape[1..].iter().product(),
            p.value.as_slice(),
        )
    })
}

fn weights_mut(parameters: &mut Parameters) -> impl Iterator<Item = (usize, &mut [f32])> {
    let weights = parameters.0.iter_mut().filter(|p| p.role == Role::Weight);
    weights.map(|p| (p.shape[1..].iter().product(), p.value.as_mut_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::parameters::Parameter;

    fn config() -> Config {
        Config {
            soft_steps: 1,
            pull: 0.1,
            soft: Soft::Weights,
            hard_steps: 1,
            groups: vec![1.0],
            last_group_at: 0.5,
            soft_rate: 0.1,
            soft_rate_end: 0.01,
            hard_rate: 0.1,
            free: Free::Float,
            order: Order::Nearest,
            fit: Fit::Weights,
            scales: Scales::Channel,
            levels: Rule::Refit,
            zero_width: 0.5,
            zeros: None,
            distillation: 0.0,
        }
    }

    fn random(seed: u64) -> Parameters {
        let mut rng = fastrand::Rng::with_seed(seed);
        let value = (0..4 * 18).map(|_| rng.f32() - 0.5).collect();
        let weight = Parameter {
            name: "a.weight".into(),
            role: Role::Weight,
            shape: vec![4, 2, 3, 3],
            value,
        };
        let gamma = Parameter {
            name: "a.gamma".into(),
            role: Role::Gamma,
            shape: vec![4],
            value: vec![0.77; 4],
        };
        Parameters(vec![weight, gamma])
    }

    #[test]
    fn pulling_ends_at_the_levels() {
        let mut parameters = random(1);
        let mut quantizer = Quantizer::fit(&parameters, &config());
        for _ in 0..400 {
            quantizer.refit(&parameters, &config());
            quantizer.pull(&mut parameters, 0.05);
        }
        assert_eq!(quantizer.report(&parameters)[0].near, 1.0);
        assert_eq!(parameters.0[1].value, [0.77; 4], "only weights are pulled");
    }

    #[test]
    fn groups_are_fixed_nearest_first_and_stay() {
        let mut parameters = random(2);
        let mut quantizer = Quantizer::fit(&parameters, &config());
        quantizer.fix(&mut parameters, 0.5, Order::Nearest);
        let half = quantizer.layers[0].fixed.clone();
        assert_eq!(half.iter().filter(|f| **f).count(), 36);
        quantizer.fix(&mut parameters, 0.25, Order::Nearest);
        assert_eq!(
            quantizer.layers[0].fixed, half,
            "a smaller part frees nothing"
        );
        quantizer.fix(&mut parameters, 1.0, Order::Nearest);
        assert!(quantizer.is_ternary());
    }

    #[test]
    fn fixed_weights_have_levels_and_no_gradient() {
        let mut parameters = random(3);
        let mut quantizer = Quantizer::fit(&parameters, &config());
        let free = parameters.clone();
        quantizer.fix(&mut parameters, 0.5, Order::Nearest);
        let mut gradients = vec![Some(vec![1.0; 72]), Some(vec![1.0; 4])];
        quantizer.mask(&parameters, &mut gradients);
        let levels = &quantizer.layers[0];
        for i in 0..72 {
            let (w, g) = (parameters.0[0].value[i], gradients[0].as_ref().unwrap()[i]);
            if levels.fixed[i] {
                assert!(w == 0.0 || w.abs() == levels.scale[i / 18]);
                assert_eq!(g, 0.0);
            } else {
                assert_eq!((w, g), (free.0[0].value[i], 1.0));
            }
        }
        assert_eq!(gradients[1].as_ref().unwrap(), &[1.0; 4]);
    }

    #[test]
    fn an_average_takes_over_the_fixed_weights() {
        let mut parameters = random(5);
        let mut quantizer = Quantizer::fit(&parameters, &config());
        quantizer.fix(&mut parameters, 0.5, Order::Nearest);
        let mut average = random(6);
        let before = average.clone();
        quantizer.copy_fixed(&parameters, &mut average);
        for i in 0..72 {
            let expected = if quantizer.layers[0].fixed[i] {
                &parameters
            } else {
                &before
            };
            assert_eq!(average.0[0].value[i], expected.0[0].value[i]);
        }
        quantizer.fix(&mut parameters, 1.0, Order::Nearest);
        assert_eq!(
            quantizer.pulled(&parameters, 1.0).0[0].value,
            parameters.0[0].value
        );
    }

    #[test]
    fn zeros_are_kept_while_weights_grow_and_fixed_ones_stay_on_their_levels() {
        let config = Config {
            levels: Rule::Frozen,
            zeros: Some(0.75),
            ..config()
        };
        let zeros = |quantizer: &Quantizer, parameters: &Parameters| {
            let trits = quantizer.trits(parameters).remove(0);
            trits.iter().filter(|trit| **trit == Trit::Zero).count()
        };
        let mut parameters = random(7);
        let mut quantizer = Quantizer::fit(&parameters, &config);
        assert_eq!(zeros(&quantizer, &parameters), 54);
        quantizer.fix(&mut parameters, 0.25, Order::Random);
        let fixed = parameters.0[0].value.clone();
        for _ in 0..20 {
            let weights = &mut parameters.0[0].value;
            weights.iter_mut().for_each(|w| *w *= 1.2);
            quantizer.hold(&mut parameters);
            quantizer.keep_zeros(&parameters, 0.75);
            assert_eq!(zeros(&quantizer, &parameters), 54);
        }
        for (i, &before) in fixed.iter().enumerate() {
            let now = parameters.0[0].value[i];
            assert_eq!(now == before, quantizer.layers[0].fixed[i], "{i}: {now}");
        }
    }

    #[test]
    fn a_checkpoint_keeps_the_levels() {
        let mut parameters = random(4);
        let mut quantizer = Quantizer::fit(&parameters, &config());
        quantizer.fix(&mut parameters, 0.3, Order::Nearest);
        let back = Quantizer::from_parameters(&quantizer.to_parameters(&parameters));
        assert_eq!(back.layers[0].fixed, quantizer.layers[0].fixed);
        assert_eq!(back.trits(&parameters), quantizer.trits(&parameters));
    }
}
