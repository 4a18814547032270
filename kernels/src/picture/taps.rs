//! The weights of a triangle filter in fixed point.
//!
//! Enlarging, this is linear interpolation. Shrinking, the triangle is as wide as two output pixels, so that every
//! input pixel counts and nothing aliases. All arithmetic is on integers: the weights are the same everywhere.

use std::ops::Range;

use super::WEIGHT_BITS;

/// Values behind the input of the taps that a pass over columns may read: weights are stored by the vector.
pub const SLACK: usize = 7;

/// Outputs for which a steady step pays.
const STEADY_MIN: usize = 32;

/// Outputs at both ends that may differ from the steady ones.
const UNSTEADY_MAX: usize = 4;

/// For each output pixel of an axis, the input pixels that it is made of.
#[derive(Debug)]
pub struct Taps {
    input_len: usize,
    /// Every output has as many weights; those beyond its triangle are zero.
    per_output: usize,
    /// Weights that are stored for each output: 4 or a multiple of 8, the last ones zero.
    pitch: usize,
    /// For each output the first input, counted in bytes of 16-bit values: `start / 2 + per_output <= input_len`.
    byte_starts: Vec<u32>,
    /// `[output][pitch]`; the weights of an output are not negative and add up to one.
    weights: Vec<i16>,
    /// Outputs with the same four weights, whose starts are two apart: all but the outermost, or none.
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")),
        expect(dead_code, reason = "there is nothing but the specification")
    )]
    steady: Range<usize>,
    /// Where there are four weights an output: for each two outputs, which bytes of eight values from the first one's start
    /// on belong to their weights.
    #[cfg(target_arch = "x86_64")]
    shuffles: Vec<[u8; 16]>,
    is_identity: bool,
}

impl Taps {
    /// An empty table with room for every axis of at most `input_max` and `output_max` pixels.
    pub fn with_capacity(input_max: u32, output_max: u32) -> Self {
        // At most 2 * ceil(input / output) taps an output are reached, but at least 2, and up to 7 are stored besides.
        let weights_max = 2 * input_max as usize + (2 + SLACK) * output_max as usize;
        Self {
            input_len: 0,
            per_output: 1,
            pitch: 4,
            byte_starts: Vec::with_capacity(output_max as usize),
            weights: Vec::with_capacity(weights_max),
            steady: 0..0,
            #[cfg(target_arch = "x86_64")]
            shuffles: Vec::with_capacity(output_max as usize / 2),
            is_identity: false,
        }
    }

    /// Computes the table that turns `input` pixels into `output` pixels; neither is zero. Does not allocate within the
    /// capacity.
    pub fn plan(&mut self, input: u32, output: u32) {
        let (input_len, output_len) = (i64::from(input), i64::from(output));
        // Distances are counted in units of 1 / (2 * output) input pixels, in which all centres are whole.
        let reach = 2 * input_len.max(output_len);
        // The open interval (centre - reach, centre + reach) holds at most this many centres, 2 * output apart.
        let reached = (2 * input.max(output)).div_ceil(output);
        self.input_len = input as usize;
        self.per_output = reached.min(input) as usize;
        self.pitch = match self.per_output {
            ..=4 => 4,
            more => more.next_multiple_of(8),
        };
        self.byte_starts.clear();
        self.weights.clear();
        for index in 0..output_len {
            let centre = (2 * index + 1) * input_len;
            let distance_weight =
                |tap: i64| (reach - ((2 * tap + 1) * output_len - centre).abs()).max(0);
            // The first tap within reach; moved left where the row of weights would leave the input.
            let first = ((centre - reach - output_len).div_euclid(2 * output_len) + 1).max(0);
            let start = first.min(input_len - self.per_output as i64);
            let taps = start..start + self.per_output as i64;
            let total: i64 = taps.clone().map(distance_weight).sum();
            // Rounding the running sum makes the weights add up to exactly one, without a drift to any side.
            let scaled = |sum: i64| ((sum << WEIGHT_BITS) * 2 + total) / (2 * total);
            let mut sum = 0;
            self.byte_starts.push(2 * start as u32);
            self.weights.extend(taps.map(|tap| {
                let before = scaled(sum);
                sum += distance_weight(tap);
                (scaled(sum) - before) as i16
            }));
            let stored = self.byte_starts.len() * self.pitch;
            self.weights.resize(stored, 0);
        }
        self.is_identity = input == output;
        self.steady = self.find_steady();
        #[cfg(target_arch = "x86_64")]
        self.plan_shuffles();
    }

    #[cfg(target_arch = "x86_64")]
    fn plan_shuffles(&mut self) {
        self.shuffles.clear();
        if self.pitch != 4 {
            return;
        }
        for &[first, second] in self.byte_starts.as_chunks::<2>().0 {
            // Four weights reach across two outputs, so that starts are at most two apart.
            let apart = (second - first) as u8;
            let byte = |index: u8| match index {
                ..8 => index,
                _ => index - 8 + apart,
            };
            self.shuffles
                .push(std::array::from_fn(|index| byte(index as u8)));
        }
    }

    /// The outputs around the middle one that are made as it is.
    fn find_steady(&self) -> Range<usize> {
        let middle = self.len() / 2;
        if self.pitch != 4 || self.len() < STEADY_MIN {
            return 0..0;
        }
        let weights = |output: usize| &self.weights[output * 4..][..4];
        let follows = |output: usize| {
            self.byte_starts[output] == self.byte_starts[output - 1] + 4
                && weights(output) == weights(output - 1)
        };
        let before = (1..=middle).rev().take_while(|&output| follows(output));
        let after = (middle + 1..self.len()).take_while(|&output| follows(output));
        let steady = middle - before.count()..middle + 1 + after.count();
        if steady.len() + UNSTEADY_MAX < self.len() {
            return 0..0;
        }
        steady
    }

    /// Output pixels.
    pub fn len(&self) -> usize {
        self.byte_starts.len()
    }

    /// Whether nothing was planned yet.
    pub fn is_empty(&self) -> bool {
        self.byte_starts.is_empty()
    }

    /// Input pixels.
    pub fn input_len(&self) -> usize {
        self.input_len
    }

    /// Input pixels that an output pixel is made of.
    pub fn per_output(&self) -> usize {
        self.per_output
    }

    /// Whether each output is the input of the same place.
    pub fn is_identity(&self) -> bool {
        self.is_identity
    }

    /// The first input pixel of one output pixel, and the weights from it on.
    pub fn of(&self, output: usize) -> (usize, &[i16]) {
        let weights = &self.weights[output * self.pitch..][..self.per_output];
        (self.byte_starts[output] as usize / 2, weights)
    }

    /// As [`Self::of`], without zeros at either end.
    pub fn trimmed(&self, output: usize) -> (usize, &[i16]) {
        let (mut start, mut weights) = self.of(output);
        while let [0, rest @ ..] = weights {
            weights = rest;
            start += 1;
        }
        while let [rest @ .., 0] = weights {
            weights = rest;
        }
        (start, weights)
    }

    /// Weights that are stored for each output: 4 or a multiple of 8.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
    pub(super) fn pitch(&self) -> usize {
        self.pitch
    }

    /// The first input of each output, counted in bytes of 16-bit values: `start / 2 + pitch <= input_len + SLACK`.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
    pub(super) fn byte_starts(&self) -> &[u32] {
        &self.byte_starts
    }

    /// `[output][pitch]`.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
    pub(super) fn stored_weights(&self) -> &[i16] {
        &self.weights
    }

    /// Where there are four weights an output: for each two outputs, which bytes of eight values from the first one's start
    /// on belong to their weights.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn shuffles(&self) -> &[[u8; 16]] {
        &self.shuffles
    }

    /// Outputs with the same weights, of which there are four stored, and starts that are two apart; maybe none.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
    pub(super) fn steady(&self) -> Range<usize> {
        self.steady.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The filter's definition in real numbers.
    fn exact(input: u32, output: u32, index: u32) -> Vec<f64> {
        let scale = f64::from(input) / f64::from(output);
        let centre = (f64::from(index) + 0.5) * scale;
        let reach = scale.max(1.0);
        let weights: Vec<f64> = (0..input)
            .map(|tap| (1.0 - (f64::from(tap) + 0.5 - centre).abs() / reach).max(0.0))
            .collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }

    #[test]
    fn weights_are_those_of_the_triangle() {
        for (input, output) in [
            (1, 1),
            (2, 1),
            (1, 7),
            (2, 5),
            (5, 5),
            (576, 240),
            (100, 99),
            (99, 100),
            (3, 320),
            (997, 31),
            (8192, 8),
        ] {
            let mut taps = Taps::with_capacity(input, output);
            taps.plan(input, output);
            assert_eq!(taps.len(), output as usize);
            for index in 0..taps.len() {
                let (start, weights) = taps.of(index);
                assert_eq!(
                    weights.iter().map(|&w| i32::from(w)).sum::<i32>(),
                    1 << WEIGHT_BITS
                );
                let exact = exact(input, output, index as u32);
                let mut dense = vec![0.0; input as usize];
                for (tap, &weight) in weights.iter().enumerate() {
                    assert!(weight >= 0, "{input} to {output}, {index}");
                    dense[start + tap] = f64::from(weight) / f64::from(1 << WEIGHT_BITS);
                }
                for (tap, (found, exact)) in dense.iter().zip(exact).enumerate() {
                    let error = (found - exact).abs() * f64::from(1 << WEIGHT_BITS);
                    assert!(
                        error <= 1.0,
                        "{input} to {output}, output {index}, tap {tap}: off by {error} steps"
                    );
                }
            }
        }
    }

    #[test]
    fn plans_within_the_capacity_do_not_move_the_table() {
        let mut taps = Taps::with_capacity(8192, 320);
        let (starts, weights) = (taps.byte_starts.as_ptr(), taps.weights.as_ptr());
        for input in [2, 3, 64, 319, 320, 321, 640, 4095, 8191, 8192] {
            for output in [1, 2, 3, 100, 319, 320] {
                taps.plan(input, output);
                assert_eq!(
                    (taps.byte_starts.as_ptr(), taps.weights.as_ptr()),
                    (starts, weights),
                    "{input} to {output}"
                );
            }
        }
    }
}
