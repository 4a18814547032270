//! The weights of a triangle filter in fixed point.
//!
//! Enlarging, this is linear interpolation. Shrinking, the triangle is as wide as two output pixels, so that every
//! input pixel counts and nothing aliases. All arithmetic is on integers: the weights are the same everywhere.

/// Fraction bits of a weight.
pub(crate) const WEIGHT_BITS: u32 = 14;

/// For each output pixel of an axis, the input pixels that it is made of.
#[derive(Debug)]
pub(crate) struct Taps {
    /// Every output has as many weights; those beyond its triangle are zero.
    per_output: usize,
    starts: Vec<u32>,
    /// `[output][tap]`; the weights of an output are not negative and add up to one.
    weights: Vec<i16>,
}

impl Taps {
    /// An empty table with room for every axis of at most `input_max` and `output_max` pixels.
    pub(crate) fn with_capacity(input_max: u32, output_max: u32) -> Self {
        // At most 2 * ceil(input / output) taps an output are reached, but at least 2.
        let weights_max = 2 * (input_max as usize + 2 * output_max as usize);
        Self {
            per_output: 1,
            starts: Vec::with_capacity(output_max as usize),
            weights: Vec::with_capacity(weights_max),
        }
    }

    /// Computes the table that turns `input` pixels into `output` pixels. Does not allocate within the capacity.
    pub(crate) fn plan(&mut self, input: u32, output: u32) {
        let (input_len, output_len) = (i64::from(input), i64::from(output));
        // Distances are counted in units of 1 / (2 * output) input pixels, in which all centres are whole.
        let reach = 2 * input_len.max(output_len);
        // The open interval (centre - reach, centre + reach) holds at most this many centres, 2 * output apart.
        let reached = (2 * input.max(output)).div_ceil(output);
        self.per_output = reached.min(input) as usize;
        self.starts.clear();
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
            self.starts.push(start as u32);
            self.weights.extend(taps.map(|tap| {
                let before = scaled(sum);
                sum += distance_weight(tap);
                (scaled(sum) - before) as i16
            }));
        }
    }

    /// Output pixels.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The first input pixel and the weights from it on, of one output pixel.
    pub(crate) fn of(&self, output: usize) -> (usize, &[i16]) {
        let weights = &self.weights[output * self.per_output..][..self.per_output];
        (self.starts[output] as usize, weights)
    }

    /// As [`Self::of`], of all output pixels in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[i16])> {
        let starts = self.starts.iter().map(|&start| start as usize);
        starts.zip(self.weights.chunks_exact(self.per_output))
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
            for (index, (start, weights)) in taps.iter().enumerate() {
                assert_eq!(taps.of(index), (start, weights));
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
        let (starts, weights) = (taps.starts.as_ptr(), taps.weights.as_ptr());
        for input in [2, 3, 64, 319, 320, 321, 640, 4095, 8191, 8192] {
            for output in [1, 2, 3, 100, 319, 320] {
                taps.plan(input, output);
                assert_eq!(
                    (taps.starts.as_ptr(), taps.weights.as_ptr()),
                    (starts, weights),
                    "{input} to {output}"
                );
            }
        }
    }
}
