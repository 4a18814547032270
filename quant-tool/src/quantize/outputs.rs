//! Levels with the least squared error of what is computed with them, on what a layer reads.
//!
//! The nearest level of every weight gives the least error of the weights. What the network goes on with is their output, and weights that
//! read alike inputs can make good each other's errors. So the levels of a channel are chosen together. With the covariances `G` of what
//! it reads and `g` of that with what it should give, levels `q` times their best scale leave a squared error that is less by
//! `(q·g)² / qᵀGq`: one number, which coordinate descent raises until no weight on its own can. Means are left out: normalization takes them
//! away, and a linear output is shifted. Related: Frantar et al. 2023, "GPTQ", equation 1, of the same error with levels
//! on a grid; here there are three, and the scale is free.

use rayon::prelude::*;
use ternwatch_kernels::Trit;

use super::ternary;

/// How much the weights' own squared error counts beside that of the output, as a part of the inputs' mean variance: where the windows
/// say little of an input, its weight decides.
const DAMPING: f32 = 0.03;
/// Passes over the weights of a channel, if it takes so many until none changes.
const PASSES_MAX: usize = 30;
/// What a change must gain, as a part of what there is: less is rounding, which could go to and fro.
const GAIN_MIN: f64 = 1e-6;

/// Sums over windows of what output channels read, and of what they should give.
pub struct Readings {
    fan_in: usize,
    /// Windows so far.
    count: usize,
    /// `[fan_in]` and `[out]`: sums of the inputs and of the outputs.
    sums: (Vec<f64>, Vec<f64>),
    /// `[fan_in x fan_in]`: sums of products of the inputs.
    squares: Vec<f32>,
    /// `[out x fan_in]`: sums of products of the outputs with the inputs.
    products: Vec<f32>,
}

/// Levels of a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// `[fan_in]`
    pub trits: Vec<Trit>,
    /// Their best scale; 0 if they have nothing in common with what is wanted.
    pub scale: f32,
    /// The mean of what is wanted, less that of what they give.
    pub shift: f32,
}

impl Readings {
    /// Nothing read yet, by `out` channels of `fan_in` weights each.
    pub fn new(fan_in: usize, out: usize) -> Self {
        Self {
            fan_in,
            count: 0,
            sums: (vec![0.0; fan_in], vec![0.0; out]),
            squares: vec![0.0; fan_in * fan_in],
            products: vec![0.0; out * fan_in],
        }
    }

    /// Adds windows: `inputs` is `[n x fan_in]` of what is read now, `outputs` `[n x out]` of what should be given.
    pub fn add(&mut self, inputs: &[f32], outputs: &[f32]) {
        self.count += inputs.len() / self.fan_in;
        add_rows(&mut self.sums.0, inputs);
        add_rows(&mut self.sums.1, outputs);
        add_products(&mut self.squares, inputs, inputs, self.fan_in);
        add_products(&mut self.products, outputs, inputs, self.fan_in);
    }

    /// The levels of every channel, of which `weights` (`[out x fan_in]`) are the float ones and `start` those to begin with.
    pub fn fit(&self, weights: &[f32], start: &[Trit]) -> Vec<Fitted> {
        let problem = self.problem();
        let channels = weights
            .par_chunks_exact(self.fan_in)
            .zip(start.par_chunks_exact(self.fan_in));
        let fitted = channels.zip(problem.wanted.par_chunks_exact(self.fan_in));
        fitted
            .zip(&self.sums.1)
            .map(|(((weights, start), wanted), sum)| {
                let (trits, scale) = problem.descend(weights, start, wanted);
                let shift = (sum - self.sum_given(&trits, scale)) / self.count.max(1) as f64;
                Fitted {
                    trits,
                    scale,
                    shift: shift as f32,
                }
            })
            .collect()
    }

    /// The sum over the windows of what these levels give.
    fn sum_given(&self, trits: &[Trit], scale: f32) -> f64 {
        let values = trits.iter().map(|&trit| ternary::value(trit, scale));
        let pairs = values.zip(&self.sums.0);
        pairs.map(|(value, sum)| f64::from(value) * sum).sum()
    }

    fn problem(&self) -> Problem {
        let n = self.count.max(1) as f64;
        let covariances = |sums: &[f32], left: &[f64]| -> Vec<f32> {
            let rows = sums.chunks_exact(self.fan_in).zip(left);
            let row = |(row, left): (&[f32], &f64)| {
                let pairs = row.iter().zip(&self.sums.0);
                let each = pairs.map(|(s, right)| ((f64::from(*s) - left * right / n) / n) as f32);
                each.collect::<Vec<_>>()
            };
            rows.flat_map(row).collect()
        };
        let mut read = covariances(&self.squares, &self.sums.0);
        let variances = read.iter().step_by(self.fan_in + 1).sum::<f32>();
        // Where nothing is read, or always the same, only the weights count.
        let damping = if variances > 0.0 {
            DAMPING * variances / self.fan_in as f32
        } else {
            1.0
        };
        read.iter_mut()
            .step_by(self.fan_in + 1)
            .for_each(|v| *v += damping);
        Problem {
            fan_in: self.fan_in,
            read,
            wanted: covariances(&self.products, &self.sums.1),
            damping,
        }
    }
}

/// What the levels of a layer's channels are to be good for.
struct Problem {
    fan_in: usize,
    /// `[fan_in x fan_in]`: covariances of the inputs, damped.
    read: Vec<f32>,
    /// `[out x fan_in]`: covariances of the wanted outputs with the inputs, not yet damped.
    wanted: Vec<f32>,
    damping: f32,
}

impl Problem {
    fn descend(&self, weights: &[f32], start: &[Trit], wanted: &[f32]) -> (Vec<Trit>, f32) {
        let wanted = wanted.iter().zip(weights);
        let wanted: Vec<f32> = wanted.map(|(g, w)| g + self.damping * w).collect();
        let mut channel = Channel::new(self, &wanted, start);
        for _ in 0..PASSES_MAX {
            channel.renew();
            if channel.pass() == 0 {
                break;
            }
        }
        channel.renew();
        let trits = channel.levels.iter().map(|&l| ternary::level(l, 0.0));
        (trits.collect(), channel.agreement.scale())
    }
}

/// Levels under descent, with what is computed from them.
struct Channel<'a> {
    problem: &'a Problem,
    /// `[fan_in]`
    wanted: &'a [f32],
    /// `[fan_in]`: -1, 0 or 1.
    levels: Vec<f32>,
    /// `[fan_in]`: covariances of the inputs with the output of these levels.
    read: Vec<f32>,
    agreement: Agreement,
}

/// How well levels fit.
#[derive(Clone, Copy, Default)]
struct Agreement {
    /// Covariance of their output with the wanted one.
    along: f64,
    /// Variance of their output.
    power: f64,
}

impl Agreement {
    /// By how much the squared error is less than that of no levels at all.
    fn gain(self) -> f64 {
        if self.power > 0.0 {
            self.along.max(0.0).powi(2) / self.power
        } else {
            0.0
        }
    }

    fn scale(self) -> f32 {
        if self.power > 0.0 {
            (self.along.max(0.0) / self.power) as f32
        } else {
            0.0
        }
    }
}

impl<'a> Channel<'a> {
    fn new(problem: &'a Problem, wanted: &'a [f32], start: &[Trit]) -> Self {
        let mut channel = Self {
            problem,
            wanted,
            levels: vec![0.0; problem.fan_in],
            read: vec![0.0; problem.fan_in],
            agreement: Agreement::default(),
        };
        let start = start.iter().map(|&trit| ternary::value(trit, 1.0));
        for (i, level) in start.enumerate().filter(|(_, level)| *level != 0.0) {
            channel.change(i, level);
        }
        channel
    }

    /// Gives every weight, one after the other, the level that fits best beside the others; returns how many changed.
    fn pass(&mut self) -> usize {
        let mut changed = 0;
        for i in 0..self.levels.len() {
            let mut best = (self.agreement.gain() * (1.0 + GAIN_MIN), None);
            for to in [-1.0, 0.0, 1.0] {
                let by = to - self.levels[i];
                let agreement = self.with(i, by);
                if by != 0.0 && agreement.gain() > best.0 {
                    best = (agreement.gain(), Some((by, agreement)));
                }
            }
            if let (_, Some((by, agreement))) = best {
                self.change(i, by);
                self.agreement = agreement;
                changed += 1;
            }
        }
        changed
    }

    /// How well the levels would fit if weight `i` had another one.
    fn with(&self, i: usize, by: f32) -> Agreement {
        let by = f64::from(by);
        let own = f64::from(self.problem.read[i * (self.problem.fan_in + 1)]);
        Agreement {
            along: self.agreement.along + by * f64::from(self.wanted[i]),
            power: self.agreement.power + 2.0 * by * f64::from(self.read[i]) + by * by * own,
        }
    }

    fn change(&mut self, i: usize, by: f32) {
        let fan_in = self.problem.fan_in;
        self.levels[i] += by;
        let row = &self.problem.read[i * fan_in..][..fan_in];
        self.read
            .iter_mut()
            .zip(row)
            .for_each(|(r, v)| *r += by * v);
    }

    /// Computes the agreement anew, without the rounding of many changes.
    fn renew(&mut self) {
        self.agreement = Agreement {
            along: dot(&self.levels, self.wanted),
            power: dot(&self.levels, &self.read),
        };
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn add_rows(sums: &mut [f64], rows: &[f32]) {
    for row in rows.chunks_exact(sums.len()) {
        let pairs = sums.iter_mut().zip(row);
        pairs.for_each(|(s, v)| *s += f64::from(*v));
    }
}

/// Adds to `sums`, `[l x width]`, the products of every row of `left`, `[n x l]`, with that of `right`, `[n x width]`.
fn add_products(sums: &mut [f32], left: &[f32], right: &[f32], width: usize) {
    let l = sums.len() / width;
    let rows = sums.par_chunks_exact_mut(width).enumerate();
    rows.for_each(|(i, sums)| {
        for (left, right) in left.chunks_exact(l).zip(right.chunks_exact(width)) {
            let by = left[i];
            if by != 0.0 {
                sums.iter_mut().zip(right).for_each(|(s, r)| *s += by * r);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` windows of inputs of which neighbours are alike, and that are far from a mean of zero.
    fn windows(n: usize, fan_in: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
        let mut rows = Vec::new();
        for _ in 0..n {
            let mut last = rng.f32();
            for _ in 0..fan_in {
                last = 0.8 * last + 0.4 * rng.f32();
                rows.push(last);
            }
        }
        rows
    }

    fn outputs(inputs: &[f32], weights: &[f32], fan_in: usize) -> Vec<f32> {
        let rows = inputs.chunks_exact(fan_in);
        let each = rows.flat_map(|row| weights.chunks_exact(fan_in).map(|w| dot(row, w) as f32));
        each.collect()
    }

    fn values(fitted: &[Fitted]) -> Vec<f32> {
        let channel = |f: &Fitted| -> Vec<f32> {
            f.trits
                .iter()
                .map(|&t| ternary::value(t, f.scale))
                .collect()
        };
        fitted.iter().flat_map(channel).collect()
    }

    /// The variance of the error of one channel's output.
    fn error(inputs: &[f32], wanted: &[f32], levels: &[f32]) -> f64 {
        let given = outputs(inputs, levels, levels.len());
        let errors = given.iter().zip(wanted).map(|(a, b)| f64::from(a - b));
        let n = wanted.len() as f64;
        let mean = errors.clone().sum::<f64>() / n;
        errors.map(|e| (e - mean).powi(2)).sum::<f64>() / n
    }

    #[test]
    fn outputs_are_nearer_than_those_of_the_nearest_levels() {
        let mut rng = fastrand::Rng::with_seed(3);
        for fan_in in [9, 27, 144] {
            let weights: Vec<f32> = (0..fan_in).map(|_| rng.f32() - 0.5).collect();
            let inputs = windows(20 * fan_in, fan_in, &mut rng);
            let wanted = outputs(&inputs, &weights, fan_in);
            let mut readings = Readings::new(fan_in, 1);
            // In two parts, as batches come.
            let (a, b) = (7 * fan_in, 7);
            readings.add(&inputs[..a], &wanted[..b]);
            readings.add(&inputs[a..], &wanted[b..]);
            let scale = ternary::fit_scale(&weights);
            let nearest: Vec<Trit> = weights
                .iter()
                .map(|&w| ternary::level(w, scale / 2.0))
                .collect();
            let fitted = readings.fit(&weights, &nearest);
            let rounded: Vec<f32> = nearest.iter().map(|&t| ternary::value(t, scale)).collect();
            let (ours, theirs) = (
                error(&inputs, &wanted, &values(&fitted)),
                error(&inputs, &wanted, &rounded),
            );
            assert!(ours < 0.5 * theirs, "{fan_in}: {ours} against {theirs}");
        }
    }

    #[test]
    fn ternary_weights_are_found_again_from_other_levels() {
        let mut rng = fastrand::Rng::with_seed(4);
        let weights: Vec<f32> = (0..2 * 18)
            .map(|_| 0.25 * (f32::from(rng.u8(0..3)) - 1.0))
            .collect();
        let inputs: Vec<f32> = (0..500 * 18).map(|_| rng.f32()).collect();
        let mut readings = Readings::new(18, 2);
        readings.add(&inputs, &outputs(&inputs, &weights, 18));
        let fitted = readings.fit(&weights, &[Trit::Plus; 36]);
        for (found, real) in values(&fitted).iter().zip(&weights) {
            assert!((found - real).abs() < 1e-3, "{found} for {real}");
        }
    }

    #[test]
    fn what_reads_nothing_keeps_its_levels_by_the_weights_alone() {
        let weights = [0.3, -0.3, 0.01, 0.0];
        let mut readings = Readings::new(4, 1);
        readings.add(&[0.5; 12], &[0.1; 3]);
        let start = [Trit::Plus, Trit::Minus, Trit::Zero, Trit::Zero];
        let fitted = &readings.fit(&weights, &start)[0];
        assert_eq!(fitted.trits, start);
        assert!((fitted.scale - 0.3).abs() < 1e-6);
        let unread = Readings::new(4, 1).fit(&weights, &start);
        assert_eq!(unread[0].trits, fitted.trits);
        assert_eq!((unread[0].scale, unread[0].shift), (fitted.scale, 0.0));
        // Both signs read the same: what is wanted is all missing.
        assert!((fitted.shift - 0.1).abs() < 1e-6);
    }
}
