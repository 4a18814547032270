//! The two passes of the separable filter, for several rows of the result at once.
//!
//! Rows are mixed first: that pass runs over neighbouring bytes, whatever they mean, and leaves fewer rows to the
//! second one. Its results are woven: for each byte of a frame's row, [`ROWS`] values, one per row of the result. So
//! the second pass finds a whole vector of values that take the same weight, at any distance of neighbouring samples,
//! and the compiler makes vector instructions of both on every architecture.

use super::taps::{Taps, WEIGHT_BITS};

/// Rows of the result that are made at once.
pub(crate) const ROWS: usize = 8;
/// One place of [`ROWS`] rows.
pub(crate) type Woven<T> = [T; ROWS];

/// Fraction bits of a filtered value: 255 and the fraction fit an `i16`.
pub(crate) const FRACTION_BITS: u32 = 6;

/// Bytes that are mixed at once, so that their sums stay in registers.
const BLOCK: usize = 32;

/// The rows of the frame that one row of the result is mixed of.
#[derive(Clone, Copy)]
pub(crate) struct RowMix<'a> {
    /// Bytes from the first of these rows on.
    pub(crate) rows: &'a [u8],
    /// One per row.
    pub(crate) weights: &'a [i16],
}

/// First pass: `output.len()` bytes of each mix; rows of the frame are as long.
pub(crate) fn mix_rows(mixes: &Woven<RowMix<'_>>, output: &mut [Woven<i16>]) {
    let row_len = output.len();
    let (blocks, tail) = output.as_chunks_mut::<BLOCK>();
    let tail_at = blocks.len() * BLOCK;
    for (index, block) in blocks.iter_mut().enumerate() {
        mix_block(mixes, index * BLOCK, row_len, block);
    }
    for (index, place) in tail.as_chunks_mut::<1>().0.iter_mut().enumerate() {
        mix_block(mixes, tail_at + index, row_len, place);
    }
}

fn mix_block<const N: usize>(
    mixes: &Woven<RowMix<'_>>,
    at: usize,
    row_len: usize,
    output: &mut [Woven<i16>; N],
) {
    const SHIFT: u32 = WEIGHT_BITS - FRACTION_BITS;
    let mut mixed = [[0i16; N]; ROWS];
    for (mixed, RowMix { rows, weights }) in mixed.iter_mut().zip(mixes) {
        let mut sums = [1i32 << (SHIFT - 1); N];
        for (row, &weight) in weights.iter().enumerate() {
            let values: &[u8; N] = rows[row * row_len + at..]
                .first_chunk()
                .expect("the taps stay within the plane");
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += i32::from(weight) * i32::from(value);
            }
        }
        *mixed = sums.map(|sum| (sum >> SHIFT) as i16);
    }
    for (index, place) in output.iter_mut().enumerate() {
        *place = std::array::from_fn(|row| mixed[row][index]);
    }
}

/// Second pass: the weighted sums of places that are `step` apart.
pub(crate) fn mix_columns(
    woven: &[Woven<i16>],
    step: usize,
    taps: &Taps,
    output: &mut [Woven<i16>],
) {
    for (output, (start, weights)) in output.iter_mut().zip(taps.iter()) {
        let mut sums = [1i32 << (WEIGHT_BITS - 1); ROWS];
        for (&weight, values) in weights
            .iter()
            .zip(woven[start * step..].iter().step_by(step))
        {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += i32::from(weight) * i32::from(value);
            }
        }
        *output = sums.map(|sum| (sum >> WEIGHT_BITS) as i16);
    }
}
