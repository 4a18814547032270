//! With the 128-bit vectors of NEON on aarch64.
//!
//! Rows whose weights are multiples of 2^8 (the inner ones of a halving) are multiplied as bytes, and nothing is left to
//! be rounded.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; every instruction set of aarch64 that is dispatched to here has NEON"
)]

use std::arch::aarch64::*;
use std::ops::Range;

use super::colour::{BLACK, GREY, LUMA, ROUND, SHIFT, U_TO_BLUE, U_TO_GREEN, V_TO_GREEN, V_TO_RED};
use super::{FRACTION_BITS, SLACK, Taps, WEIGHT_BITS, scalar, vectors};
use crate::requantize::ACTIVATION_MAX;

/// Bytes of one vector.
const VECTOR_BYTES: usize = 16;

/// Most rows that are mixed here.
const ROWS_MAX: usize = 32;

/// Bits that the sums of a row lose.
const ROWS_SHIFT: u32 = WEIGHT_BITS - FRACTION_BITS;

/// What is left to shift once the low half of a sum is dropped.
const SHIFT_OF_HIGH_HALF: i32 = SHIFT as i32 - 16;

/// Proof that this processor has NEON: a token of either schedule.
pub(super) trait Proof: Copy {}
impl Proof for crate::isa::Neon {}
impl Proof for crate::isa::NeonInOrder {}

/// Defines an entry: the function of the same name, compiled for NEON.
macro_rules! entry {
    ($name:ident($($argument:ident: $type:ty),*) as $body:path) => {
        pub(super) fn $name(_proof: impl Proof, $($argument: $type),*) {
            #[target_feature(enable = "neon")]
            fn run($($argument: $type),*) {
                $body($($argument),*);
            }
            // SAFETY: the token proves that the processor has NEON.
            unsafe { run($($argument),*) }
        }
    };
}

entry!(mix_rows(rows: &[u8], weights: &[i16], output: &mut [i16]) as rows_of_any_weight);
entry!(mix_columns(values: &[i16], taps: &Taps, output: &mut [i16]) as columns);
entry!(split_pairs(values: &[i16], first: &mut [i16], second: &mut [i16]) as scalar::split_pairs);
entry!(split_triples(values: &[i16], outputs: [&mut [i16]; 3]) as scalar::split_triples);
entry!(to_u7(values: &[i16], output: &mut [u8]) as scalar::to_u7);
entry!(yuv_to_u7(yuv: [&[i16]; 3], rgb: [&mut [u8]; 3]) as colours);

#[target_feature(enable = "neon")]
fn rows_of_any_weight(rows: &[u8], weights: &[i16], output: &mut [i16]) {
    if output.len() < VECTOR_BYTES || weights.len() > ROWS_MAX {
        return scalar::mix_rows(rows, weights, output);
    }
    if weights.iter().all(|weight| weight % (1 << ROWS_SHIFT) == 0) {
        rows_of_weights::<true>(rows, weights, output);
    } else {
        rows_of_weights::<false>(rows, weights, output);
    }
}

/// `COARSE`: all weights are multiples of `1 << ROWS_SHIFT`.
#[target_feature(enable = "neon")]
fn rows_of_weights<const COARSE: bool>(rows: &[u8], weights: &[i16], output: &mut [i16]) {
    match weights.len() {
        1 => rows_of::<COARSE, 1>(rows, weights, output),
        2 => rows_of::<COARSE, 2>(rows, weights, output),
        3 => rows_of::<COARSE, 3>(rows, weights, output),
        4 => rows_of::<COARSE, 4>(rows, weights, output),
        5 => rows_of::<COARSE, 5>(rows, weights, output),
        6 => rows_of::<COARSE, 6>(rows, weights, output),
        7 => rows_of::<COARSE, 7>(rows, weights, output),
        8 => rows_of::<COARSE, 8>(rows, weights, output),
        9..=12 => rows_of::<COARSE, 12>(rows, weights, output),
        13..=16 => rows_of::<COARSE, 16>(rows, weights, output),
        _ => rows_of::<COARSE, ROWS_MAX>(rows, weights, output),
    }
}

/// There are at least `VECTOR_BYTES` outputs, and at most N rows.
#[target_feature(enable = "neon")]
fn rows_of<const COARSE: bool, const N: usize>(rows: &[u8], weights: &[i16], output: &mut [i16]) {
    let row_len = output.len();
    assert_eq!(
        rows.len(),
        weights.len() * row_len,
        "the rows are as long as the output"
    );
    // Rows beyond the weights are the first one, without weight.
    let mut sources = [(0, 0); N];
    for (index, (source, &weight)) in sources.iter_mut().zip(weights).enumerate() {
        *source = (index * row_len, weight);
    }
    for at in vectors(row_len, VECTOR_BYTES) {
        // SAFETY: a vector from `at` on stays within the output, and within each row.
        unsafe { row_vector::<COARSE, N>(rows, &sources, at, output) };
    }
}

/// `VECTOR_BYTES` outputs of rows, given by their first byte and their weight.
///
/// # Safety
/// `at + VECTOR_BYTES` is at most the length of the output; from the start of each row on there are as many bytes.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn row_vector<const COARSE: bool, const N: usize>(
    rows: &[u8],
    sources: &[(usize, i16); N],
    at: usize,
    output: &mut [i16],
) {
    let mut coarse = [vdupq_n_u16(0); 2];
    let mut fine = [vdupq_n_s32(0); 4];
    for &(start, weight) in sources {
        // SAFETY: the caller vouches for the bytes.
        let bytes = unsafe { vld1q_u8(rows.as_ptr().add(start + at)) };
        if COARSE {
            // At most 64 * 255: the weights add up to 64.
            let weight = vdupq_n_u8((weight >> ROWS_SHIFT) as u8);
            coarse[0] = vmlal_u8(coarse[0], vget_low_u8(bytes), vget_low_u8(weight));
            coarse[1] = vmlal_high_u8(coarse[1], bytes, weight);
        } else {
            let weight = vdupq_n_s16(weight);
            let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes)));
            let high = vreinterpretq_s16_u16(vmovl_high_u8(bytes));
            fine[0] = vmlal_s16(fine[0], vget_low_s16(low), vget_low_s16(weight));
            fine[1] = vmlal_high_s16(fine[1], low, weight);
            fine[2] = vmlal_s16(fine[2], vget_low_s16(high), vget_low_s16(weight));
            fine[3] = vmlal_high_s16(fine[3], high, weight);
        }
    }
    let [low, high] = if COARSE {
        coarse.map(|words| vreinterpretq_s16_u16(words))
    } else {
        const BITS: i32 = ROWS_SHIFT as i32;
        [[fine[0], fine[1]], [fine[2], fine[3]]]
            .map(|[low, high]| vrshrn_high_n_s32::<BITS>(vrshrn_n_s32::<BITS>(low), high))
    };
    // SAFETY: the caller vouches for the outputs.
    unsafe {
        vst1q_s16(output.as_mut_ptr().add(at), low);
        vst1q_s16(output.as_mut_ptr().add(at + 8), high);
    }
}

#[target_feature(enable = "neon")]
fn columns(values: &[i16], taps: &Taps, output: &mut [i16]) {
    assert!(values.len() >= taps.input_len() + SLACK && output.len() == taps.len());
    let done = match taps.pitch() {
        _ if output.len() < 8 => 0..0,
        4 if !taps.steady().is_empty() => steady_columns(values, taps, output),
        4 => quads(values, taps, output),
        8 => octets::<1>(values, taps, output),
        16 => octets::<2>(values, taps, output),
        24 => octets::<3>(values, taps, output),
        _ => 0..0,
    };
    for index in (0..done.start).chain(done.end..output.len()) {
        output[index] = scalar::mix_column(values, taps, index);
    }
}

/// The steady outputs, at least 8: returns which.
#[target_feature(enable = "neon")]
fn steady_columns(values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    let steady = taps.steady();
    let output = &mut output[steady.clone()];
    let first = taps.byte_starts()[steady.start] as usize / 2;
    let weights: &[i16; 4] = taps.stored_weights()[4 * steady.start..]
        .first_chunk()
        .expect("the taps have four for every output");
    let weights = weights.map(|weight| vdupq_n_s16(weight));
    for at in vectors(output.len(), 8) {
        let start = first + 2 * at;
        // SAFETY: the last of 8 outputs reads the inputs from `start + 14` to `start + 17`, which the taps keep within
        // the values.
        let [int16x8x2_t(a, b), int16x8x2_t(c, d)] =
            [0, 2].map(|more| unsafe { vld2q_s16(values.as_ptr().add(start + more)) });
        let mut low = vmull_s16(vget_low_s16(a), vget_low_s16(weights[0]));
        let mut high = vmull_high_s16(a, weights[0]);
        for (input, weight) in [(b, weights[1]), (c, weights[2]), (d, weights[3])] {
            low = vmlal_s16(low, vget_low_s16(input), vget_low_s16(weight));
            high = vmlal_high_s16(high, input, weight);
        }
        let output = output[at..].first_chunk_mut();
        store_columns(low, high, output.expect("vectors stay within"));
    }
    steady
}

/// All outputs, at least 8, four weights each: returns which.
#[target_feature(enable = "neon")]
fn quads(values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    let (starts, weights) = (taps.byte_starts(), taps.stored_weights());
    let (start_chunks, weight_chunks) = (starts.as_chunks().0, weights.as_chunks().0);
    let outputs = output.as_chunks_mut().0.iter_mut();
    for ((output, starts), weights) in outputs.zip(start_chunks).zip(weight_chunks) {
        // SAFETY: starts and weights are those of the taps.
        unsafe { eight_quads(values, starts, weights, output) };
    }
    // The last ones overlap those before where the length is no multiple.
    let last = (starts.last_chunk(), weights.last_chunk());
    if let ((Some(starts), Some(weights)), Some(output)) = (last, output.last_chunk_mut()) {
        // SAFETY: starts and weights are those of the taps.
        unsafe { eight_quads(values, starts, weights, output) };
    }
    0..output.len()
}

/// # Safety
/// From each start on there are four values.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn eight_quads(
    values: &[i16],
    starts: &[u32; 8],
    weights: &[i16; 32],
    output: &mut [i16; 8],
) {
    // SAFETY: the caller vouches for the values; each output has four weights.
    let one = |index: usize| unsafe {
        vmull_s16(
            vld1_s16(values.as_ptr().byte_add(starts[index] as usize)),
            vld1_s16(weights.as_ptr().add(4 * index)),
        )
    };
    let two = |index| vpaddq_s32(one(index), one(index + 1));
    let low = vpaddq_s32(two(0), two(2));
    let high = vpaddq_s32(two(4), two(6));
    store_columns(low, high, output);
}

/// All outputs, at least 8, 8 N weights each: returns which.
#[target_feature(enable = "neon")]
fn octets<const N: usize>(values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    let (starts, weights) = (taps.byte_starts(), taps.stored_weights());
    let (start_chunks, weight_chunks) = (starts.as_chunks().0, weights.chunks_exact(64 * N));
    let outputs = output.as_chunks_mut().0.iter_mut();
    for ((output, starts), weights) in outputs.zip(start_chunks).zip(weight_chunks) {
        // SAFETY: starts and weights are those of the taps.
        unsafe { eight_octets::<N>(values, starts, weights, output) };
    }
    // The last ones overlap those before where the length is no multiple.
    let weights = &weights[weights.len() - 64 * N..];
    if let (Some(starts), Some(output)) = (starts.last_chunk(), output.last_chunk_mut()) {
        // SAFETY: starts and weights are those of the taps.
        unsafe { eight_octets::<N>(values, starts, weights, output) };
    }
    0..output.len()
}

/// # Safety
/// From each start on there are 8 N values, and there are as many weights for each start.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn eight_octets<const N: usize>(
    values: &[i16],
    starts: &[u32; 8],
    weights: &[i16],
    output: &mut [i16; 8],
) {
    let one = |index: usize| {
        let mut sum = vdupq_n_s32(0);
        for octet in 0..N {
            // SAFETY: the caller vouches for values and weights.
            let (values, weights) = unsafe {
                let values = values.as_ptr().byte_add(starts[index] as usize);
                let weights = weights.as_ptr().add(8 * (index * N + octet));
                (vld1q_s16(values.add(8 * octet)), vld1q_s16(weights))
            };
            sum = vmlal_s16(sum, vget_low_s16(values), vget_low_s16(weights));
            sum = vmlal_high_s16(sum, values, weights);
        }
        sum
    };
    let two = |index| vpaddq_s32(one(index), one(index + 1));
    let low = vpaddq_s32(two(0), two(2));
    let high = vpaddq_s32(two(4), two(6));
    store_columns(low, high, output);
}

/// The sums of eight columns, rounded.
#[target_feature(enable = "neon")]
#[inline]
fn store_columns(low: int32x4_t, high: int32x4_t, output: &mut [i16; 8]) {
    const BITS: i32 = WEIGHT_BITS as i32;
    let rounded = vrshrn_high_n_s32::<BITS>(vrshrn_n_s32::<BITS>(low), high);
    // SAFETY: the array is as long as the vector.
    unsafe { vst1q_s16(output.as_mut_ptr(), rounded) };
}

#[target_feature(enable = "neon")]
fn colours(yuv: [&[i16]; 3], rgb: [&mut [u8]; 3]) {
    let [luma, u, v] = yuv.map(|row| row.as_chunks::<16>());
    let [red, green, blue] = rgb.map(|row| row.as_chunks_mut::<16>());
    let inputs = luma.0.iter().zip(u.0).zip(v.0);
    let outputs = red.0.iter_mut().zip(green.0).zip(blue.0);
    for (((luma, u), v), ((red, green), blue)) in inputs.zip(outputs) {
        let [low, high] = [0, 8].map(|at| {
            // SAFETY: the arrays are twice as long as the vectors.
            let load = |row: &[i16; 16]| unsafe { vld1q_s16(row.as_ptr().add(at)) };
            yuv_bytes([load(luma), load(u), load(v)])
        });
        for (channel, output) in [red, green, blue].into_iter().enumerate() {
            let bytes = vcombine_u8(low[channel], high[channel]);
            // SAFETY: the array is as long as the vector.
            unsafe {
                vst1q_u8(
                    output.as_mut_ptr(),
                    vminq_u8(bytes, vdupq_n_u8(ACTIVATION_MAX)),
                )
            };
        }
    }
    scalar::yuv_to_u7([luma.1, u.1, v.1], [red.1, green.1, blue.1]);
}

/// Red, green and blue of 8 pixels, halved, clamped to a byte.
#[target_feature(enable = "neon")]
#[inline]
fn yuv_bytes([luma, u, v]: [int16x8_t; 3]) -> [uint8x8_t; 3] {
    let luma = vsubq_s16(luma, vdupq_n_s16(BLACK));
    let u = vsubq_s16(u, vdupq_n_s16(GREY));
    let v = vsubq_s16(v, vdupq_n_s16(GREY));
    let round = vdupq_n_s32(ROUND);
    let low = vmlal_n_s16(round, vget_low_s16(luma), LUMA);
    let high = vmlal_high_n_s16(round, luma, LUMA);
    let add = |[low, high]: [int32x4_t; 2], chroma, factor| {
        [
            vmlal_n_s16(low, vget_low_s16(chroma), factor),
            vmlal_high_n_s16(high, chroma, factor),
        ]
    };
    let bytes = |[low, high]: [int32x4_t; 2]| {
        let words = vshrn_high_n_s32::<16>(vshrn_n_s32::<16>(low), high);
        vqshrun_n_s16::<SHIFT_OF_HIGH_HALF>(words)
    };
    [
        bytes(add([low, high], v, V_TO_RED)),
        bytes(add(add([low, high], u, U_TO_GREEN), v, V_TO_GREEN)),
        bytes(add([low, high], u, U_TO_BLUE)),
    ]
}
