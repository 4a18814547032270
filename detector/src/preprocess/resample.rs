//! The two passes of the separable filter.
//!
//! Rows are mixed first: that pass runs over neighbouring bytes, whatever they mean, and leaves fewer rows to the
//! second one. Values between the passes have [`FRACTION_BITS`].

use super::taps::{Taps, WEIGHT_BITS};

/// Fraction bits of a filtered value: 255 and the fraction fit an `i16`.
pub(crate) const FRACTION_BITS: u32 = 6;

/// Bytes that are mixed at once, so that their sums stay in registers.
const BLOCK: usize = 32;

/// The weighted sum of `weights.len()` rows from the beginning of `rows` on.
pub(crate) fn mix_rows(rows: &[u8], row_len: usize, weights: &[i16], output: &mut [i16]) {
    let (blocks, tail) = output.as_chunks_mut::<BLOCK>();
    let tail_at = blocks.len() * BLOCK;
    for (index, block) in blocks.iter_mut().enumerate() {
        *block = mix_block(&rows[index * BLOCK..], row_len, weights);
    }
    for (index, value) in tail.iter_mut().enumerate() {
        [*value] = mix_block(&rows[tail_at + index..], row_len, weights);
    }
}

fn mix_block<const N: usize>(rows: &[u8], row_len: usize, weights: &[i16]) -> [i16; N] {
    const SHIFT: u32 = WEIGHT_BITS - FRACTION_BITS;
    let mut sums = [1i32 << (SHIFT - 1); N];
    for (row, &weight) in weights
        .iter()
        .enumerate()
        .filter(|&(_, &weight)| weight != 0)
    {
        let values: &[u8; N] = rows[row * row_len..]
            .first_chunk()
            .expect("the taps stay within the plane");
        for (sum, &value) in sums.iter_mut().zip(values) {
            *sum += i32::from(weight) * i32::from(value);
        }
    }
    sums.map(|sum| (sum >> SHIFT) as i16)
}

/// For each output, the weighted sum of values that are `step` apart in `row`.
pub(crate) fn mix_columns(row: &[i16], step: usize, taps: &Taps, output: &mut [i16]) {
    match step {
        1 => mix_columns_of::<1>(row, taps, output),
        2 => mix_columns_of::<2>(row, taps, output),
        3 => mix_columns_of::<3>(row, taps, output),
        _ => mix_columns_of::<4>(row, taps, output),
    }
}

fn mix_columns_of<const STEP: usize>(row: &[i16], taps: &Taps, output: &mut [i16]) {
    for (value, (start, weights)) in output.iter_mut().zip(taps.iter()) {
        let values = row[start * STEP..].iter().step_by(STEP);
        let sum: i32 = weights
            .iter()
            .zip(values)
            .map(|(&weight, &value)| i32::from(weight) * i32::from(value))
            .sum();
        *value = ((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS) as i16;
    }
}
