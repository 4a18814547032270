//! The specification, in plain Rust.

use super::colour::{BLACK, GREY, LUMA, ROUND, SHIFT, U_TO_BLUE, U_TO_GREEN, V_TO_GREEN, V_TO_RED};
use super::{FRACTION_BITS, Taps, WEIGHT_BITS};
use crate::requantize::ACTIVATION_MAX;

/// Values that are summed at once, so that the sums stay in registers.
const BLOCK: usize = 32;

/// Bits that the sums of [`super::mix_rows`] lose.
const ROWS_SHIFT: u32 = WEIGHT_BITS - FRACTION_BITS;

/// See [`super::mix_rows`].
pub fn mix_rows(rows: &[u8], weights: &[i16], output: &mut [i16]) {
    let row_len = output.len();
    let (blocks, tail) = output.as_chunks_mut::<BLOCK>();
    let tail_at = blocks.len() * BLOCK;
    for (index, block) in blocks.iter_mut().enumerate() {
        mix_block(rows, weights, row_len, index * BLOCK, block);
    }
    for (index, value) in tail.as_chunks_mut::<1>().0.iter_mut().enumerate() {
        mix_block(rows, weights, row_len, tail_at + index, value);
    }
}

fn mix_block<const N: usize>(
    rows: &[u8],
    weights: &[i16],
    row_len: usize,
    at: usize,
    output: &mut [i16; N],
) {
    let mut sums = [1i32 << (ROWS_SHIFT - 1); N];
    for (row, &weight) in rows.chunks_exact(row_len).zip(weights) {
        for (sum, &byte) in sums.iter_mut().zip(&row[at..at + N]) {
            *sum += i32::from(weight) * i32::from(byte);
        }
    }
    *output = sums.map(|sum| (sum >> ROWS_SHIFT) as i16);
}

/// See [`super::mix_columns`].
pub fn mix_columns(values: &[i16], taps: &Taps, output: &mut [i16]) {
    // An exact halving and what is less reach over four columns: without a loop for each output it takes half the time.
    match taps.per_output() {
        2 => mix_columns_of::<2>(values, taps, output),
        3 => mix_columns_of::<3>(values, taps, output),
        4 => mix_columns_of::<4>(values, taps, output),
        _ => {
            for (index, output) in output.iter_mut().enumerate() {
                *output = mix_column(values, taps, index);
            }
        }
    }
}

fn mix_columns_of<const N: usize>(values: &[i16], taps: &Taps, output: &mut [i16]) {
    for (index, output) in output.iter_mut().enumerate() {
        let (start, weights) = taps.of(index);
        let known = "as many as the taps have";
        let weights: &[i16; N] = weights.first_chunk().expect(known);
        let values: &[i16; N] = values[start..].first_chunk().expect(known);
        *output = weighted(weights, values);
    }
}

/// One output of [`mix_columns`].
#[inline(always)]
pub(super) fn mix_column(values: &[i16], taps: &Taps, index: usize) -> i16 {
    let (start, weights) = taps.of(index);
    weighted(weights, &values[start..])
}

/// The sum of as many values as there are weights, rounded.
#[inline(always)]
fn weighted(weights: &[i16], values: &[i16]) -> i16 {
    let products = weights.iter().zip(values);
    let sum: i32 = products
        .map(|(&weight, &value)| i32::from(weight) * i32::from(value))
        .sum();
    ((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS) as i16
}

/// See [`super::split_pairs`].
#[inline(always)]
pub fn split_pairs(values: &[i16], first: &mut [i16], second: &mut [i16]) {
    let pairs = values.as_chunks::<2>().0;
    for ((&[a, b], first), second) in pairs.iter().zip(first).zip(second) {
        (*first, *second) = (a, b);
    }
}

/// See [`super::split_triples`].
#[inline(always)]
pub fn split_triples(values: &[i16], [first, second, third]: [&mut [i16]; 3]) {
    let triples = values.as_chunks::<3>().0;
    let outputs = first.iter_mut().zip(second).zip(third);
    for (&[a, b, c], ((first, second), third)) in triples.iter().zip(outputs) {
        (*first, *second, *third) = (a, b, c);
    }
}

/// See [`super::to_u7`].
#[inline(always)]
pub fn to_u7(values: &[i16], output: &mut [u8]) {
    for (&value, u7) in values.iter().zip(output) {
        *u7 = ((value + (1 << (FRACTION_BITS - 1))) >> (FRACTION_BITS + 1)) as u8;
    }
}

/// See [`super::yuv_to_u7`].
pub fn yuv_to_u7([luma, u, v]: [&[i16]; 3], [red, green, blue]: [&mut [u8]; 3]) {
    let values = luma.iter().zip(u).zip(v);
    let outputs = red.iter_mut().zip(green).zip(blue);
    for (((&luma, &u), &v), ((red, green), blue)) in values.zip(outputs) {
        [*red, *green, *blue] = pixel_to_u7([luma, u, v]);
    }
}

/// One pixel of [`yuv_to_u7`].
#[inline(always)]
pub(super) fn pixel_to_u7([luma, u, v]: [i16; 3]) -> [u8; 3] {
    let luma = i32::from(LUMA) * i32::from(luma - BLACK);
    let (u, v) = (i32::from(u - GREY), i32::from(v - GREY));
    let sums = [
        luma + i32::from(V_TO_RED) * v,
        luma + i32::from(U_TO_GREEN) * u + i32::from(V_TO_GREEN) * v,
        luma + i32::from(U_TO_BLUE) * u,
    ];
    sums.map(|sum| ((sum + ROUND) >> SHIFT).clamp(0, i32::from(ACTIVATION_MAX)) as u8)
}
