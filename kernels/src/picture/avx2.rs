//! With the 256-bit vectors of AVX2.
//!
//! `VPMADDWD` adds the products of two neighbouring words, which are two rows woven into each other, two columns, or two
//! components. Rows whose weights are multiples of 2^8 (the inner ones of a halving) take `VPMADDUBSW`, bytes by
//! bytes, and nothing is left to be rounded.
//!
//! `map` of arrays is avoided between vector operations: its code is compiled without AVX2 unless it is inlined.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; the token in each entry proves AVX2"
)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::colour::{BLACK, GREY, LUMA, ROUND, SHIFT, U_TO_BLUE, U_TO_GREEN, V_TO_GREEN, V_TO_RED};
use super::{FRACTION_BITS, SLACK, Taps, WEIGHT_BITS, scalar, vectors};
use crate::isa::Avx2;
use crate::requantize::ACTIVATION_MAX;

/// Bytes of one vector.
const VECTOR_BYTES: usize = 32;

/// Quarters of a vector that was packed from two, half by half.
const IN_ORDER: i32 = 0b11_01_10_00;

/// Most pairs of rows that are mixed here.
const PAIRS_MAX: usize = 16;

/// Bits that the sums of a row lose.
const ROWS_SHIFT: u32 = WEIGHT_BITS - FRACTION_BITS;

/// Defines an entry: the function of the same name, compiled for AVX2.
macro_rules! entry {
    ($name:ident($($argument:ident: $type:ty),*) as $body:path) => {
        pub(super) fn $name(_proof: Avx2, $($argument: $type),*) {
            #[target_feature(enable = "avx2")]
            fn run($($argument: $type),*) {
                $body($($argument),*);
            }
            // SAFETY: the token proves that the processor has AVX2.
            unsafe { run($($argument),*) }
        }
    };
}

entry!(mix_rows(rows: &[u8], weights: &[i16], output: &mut [i16]) as rows_of_any_weight);
entry!(mix_columns(values: &[i16], taps: &Taps, output: &mut [i16]) as columns);
entry!(split_pairs(values: &[i16], first: &mut [i16], second: &mut [i16]) as pairs);
entry!(split_triples(values: &[i16], outputs: [&mut [i16]; 3]) as scalar::split_triples);
entry!(to_u7(values: &[i16], output: &mut [u8]) as scalar::to_u7);
entry!(yuv_to_u7(yuv: [&[i16]; 3], rgb: [&mut [u8]; 3]) as colours);

/// Two rows: their first bytes, and their weights as vectors of the pair.
type Pair = ([usize; 2], __m256i);

#[target_feature(enable = "avx2")]
fn rows_of_any_weight(rows: &[u8], weights: &[i16], output: &mut [i16]) {
    let row_len = output.len();
    let count = weights.len().div_ceil(2);
    if row_len < VECTOR_BYTES || count > PAIRS_MAX {
        return scalar::mix_rows(rows, weights, output);
    }
    if weights.iter().all(|weight| weight % (1 << ROWS_SHIFT) == 0) {
        rows_of_weights::<true>(rows, weights, output);
    } else {
        rows_of_weights::<false>(rows, weights, output);
    }
}

/// `COARSE`: all weights are multiples of `1 << ROWS_SHIFT`.
#[target_feature(enable = "avx2")]
fn rows_of_weights<const COARSE: bool>(rows: &[u8], weights: &[i16], output: &mut [i16]) {
    let row_len = output.len();
    // Pairs beyond the weights are of the first row, without weight.
    let mut pairs = [([0; 2], _mm256_setzero_si256()); PAIRS_MAX];
    for (index, (pair, weights)) in pairs.iter_mut().zip(weights.chunks(2)).enumerate() {
        let (second, second_weight) = match weights {
            [_, weight] => (2 * index + 1, *weight),
            _ => (2 * index, 0),
        };
        let vector = if COARSE {
            let coarse = |weight: i16| weight >> ROWS_SHIFT;
            _mm256_set1_epi16(coarse(weights[0]) | coarse(second_weight) << 8)
        } else {
            both(weights[0], second_weight)
        };
        *pair = ([2 * index * row_len, second * row_len], vector);
    }
    match weights.len().div_ceil(2) {
        1 => row_pairs::<COARSE, 1>(rows, &pairs, output),
        2 => row_pairs::<COARSE, 2>(rows, &pairs, output),
        3 => row_pairs::<COARSE, 3>(rows, &pairs, output),
        4 => row_pairs::<COARSE, 4>(rows, &pairs, output),
        5..=6 => row_pairs::<COARSE, 6>(rows, &pairs, output),
        7..=8 => row_pairs::<COARSE, 8>(rows, &pairs, output),
        9..=12 => row_pairs::<COARSE, 12>(rows, &pairs, output),
        _ => row_pairs::<COARSE, PAIRS_MAX>(rows, &pairs, output),
    }
}

/// Words of `first` and `second` by turns.
#[target_feature(enable = "avx2")]
fn both(first: i16, second: i16) -> __m256i {
    let low = i32::from(first.cast_unsigned());
    _mm256_set1_epi32(low | i32::from(second) << 16)
}

/// There are at least `VECTOR_BYTES` outputs, and all pairs lie within `rows`.
#[target_feature(enable = "avx2")]
fn row_pairs<const COARSE: bool, const N: usize>(
    rows: &[u8],
    pairs: &[Pair; PAIRS_MAX],
    output: &mut [i16],
) {
    let pairs: &[Pair; N] = pairs.first_chunk().expect("N is at most PAIRS_MAX");
    let ends = pairs.iter().flat_map(|(starts, _)| starts);
    assert!(
        ends.max()
            .is_some_and(|start| start + output.len() <= rows.len()),
        "the rows are as long as the output"
    );
    for at in vectors(output.len(), VECTOR_BYTES) {
        // SAFETY: a vector from `at` on stays within the output, and within each row.
        unsafe { row_vector::<COARSE, N>(rows, pairs, at, output) };
    }
}

/// `VECTOR_BYTES` outputs.
///
/// # Safety
/// `at + VECTOR_BYTES` is at most the length of the output; from the start of each row on there are as many bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn row_vector<const COARSE: bool, const N: usize>(
    rows: &[u8],
    pairs: &[Pair; N],
    at: usize,
    output: &mut [i16],
) {
    let zero = _mm256_setzero_si256();
    // Bytes 0 to 7 and 8 to 15 of each half.
    let mut coarse = [zero; 2];
    // Bytes 0 to 3, 4 to 7, 8 to 11, 12 to 15 of each half.
    let mut fine = [_mm256_set1_epi32(1 << (ROWS_SHIFT - 1)); 4];
    for (starts, weights) in pairs {
        // SAFETY: the caller vouches for the bytes.
        let load =
            |start: usize| unsafe { _mm256_loadu_si256(rows.as_ptr().add(start + at).cast()) };
        let (first, second) = (load(starts[0]), load(starts[1]));
        let woven = [
            _mm256_unpacklo_epi8(first, second),
            _mm256_unpackhi_epi8(first, second),
        ];
        for half in 0..2 {
            if COARSE {
                // At most 64 * 255: the weights add up to 64.
                let product = _mm256_maddubs_epi16(woven[half], *weights);
                coarse[half] = _mm256_add_epi16(coarse[half], product);
            } else {
                let low = _mm256_madd_epi16(_mm256_unpacklo_epi8(woven[half], zero), *weights);
                let high = _mm256_madd_epi16(_mm256_unpackhi_epi8(woven[half], zero), *weights);
                fine[2 * half] = _mm256_add_epi32(fine[2 * half], low);
                fine[2 * half + 1] = _mm256_add_epi32(fine[2 * half + 1], high);
            }
        }
    }
    if !COARSE {
        for half in 0..2 {
            let low = _mm256_srai_epi32::<{ ROWS_SHIFT as i32 }>(fine[2 * half]);
            let high = _mm256_srai_epi32::<{ ROWS_SHIFT as i32 }>(fine[2 * half + 1]);
            coarse[half] = _mm256_packs_epi32(low, high);
        }
    }
    let [low, high] = coarse;
    // SAFETY: the caller vouches for the outputs.
    unsafe {
        let output = output.as_mut_ptr().add(at);
        _mm256_storeu_si256(output.cast(), _mm256_permute2x128_si256::<0x20>(low, high));
        _mm256_storeu_si256(
            output.add(16).cast(),
            _mm256_permute2x128_si256::<0x31>(low, high),
        );
    }
}

#[target_feature(enable = "avx2")]
fn columns(values: &[i16], taps: &Taps, output: &mut [i16]) {
    assert!(values.len() >= taps.input_len() + SLACK && output.len() == taps.len());
    let done = match taps.pitch() {
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

/// The steady outputs, at least 16: returns which.
#[target_feature(enable = "avx2")]
fn steady_columns(values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    let steady = taps.steady();
    let output = &mut output[steady.clone()];
    let first = taps.byte_starts()[steady.start] as usize / 2;
    let Some(&[a, b, c, d]) = taps.stored_weights()[4 * steady.start..].first_chunk() else {
        return 0..0;
    };
    let weights = [both(a, b), both(c, d)];
    let round = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1));
    for at in vectors(output.len(), 16) {
        let start = first + 2 * at;
        // SAFETY: the last of 16 outputs reads the inputs from `start + 30` to `start + 33`, which the taps keep within
        // the values.
        let eight = |more: usize| unsafe {
            let at = values.as_ptr().add(start + more);
            let first = _mm256_loadu_si256(at.cast());
            let second = _mm256_loadu_si256(at.add(2).cast());
            let products = _mm256_add_epi32(
                _mm256_madd_epi16(first, weights[0]),
                _mm256_madd_epi16(second, weights[1]),
            );
            _mm256_srai_epi32::<{ WEIGHT_BITS as i32 }>(_mm256_add_epi32(products, round))
        };
        let packed = _mm256_packs_epi32(eight(0), eight(16));
        let output = output[at..].first_chunk_mut();
        store(
            output.expect("vectors stay within"),
            _mm256_permute4x64_epi64::<IN_ORDER>(packed),
        );
    }
    steady
}

/// All outputs but an odd last one, four weights each, unless they are few: returns which.
#[target_feature(enable = "avx2")]
fn quads(values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    // Shuffles are for two outputs.
    let len = output.len() & !1;
    let starts = &taps.byte_starts()[..len];
    let weights = &taps.stored_weights()[..4 * len];
    let shuffles = taps.shuffles();
    let inputs = starts.as_chunks().0.iter().zip(weights.as_chunks().0);
    let inputs = inputs.zip(shuffles.as_chunks().0);
    for (((starts, weights), shuffles), output) in inputs.zip(output.as_chunks_mut().0) {
        // SAFETY: starts, weights and shuffles are those of the taps.
        unsafe { sixteen_quads(values, starts, weights, shuffles, output) };
    }
    // The last ones overlap those before where the length is no multiple.
    let last = (starts.last_chunk(), weights.last_chunk());
    let shuffles = shuffles.last_chunk();
    let output = output[..len].last_chunk_mut();
    let ((Some(starts), Some(weights)), Some(shuffles), Some(output)) = (last, shuffles, output)
    else {
        return 0..0;
    };
    // SAFETY: starts, weights and shuffles are those of the taps.
    unsafe { sixteen_quads(values, starts, weights, shuffles, output) };
    0..len
}

/// # Safety
/// From each start on there are eight values.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sixteen_quads(
    values: &[i16],
    starts: &[u32; 16],
    weights: &[i16; 64],
    shuffles: &[[u8; 16]; 8],
    output: &mut [i16; 16],
) {
    let round = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1));
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    // SAFETY: the caller vouches for the values; the weights of four outputs and the two shuffles of theirs are as long as
    // a vector.
    let four = |index: usize| unsafe {
        let load = |start: u32| _mm_loadu_si128(values.as_ptr().byte_add(start as usize).cast());
        let values = _mm256_set_m128i(load(starts[index + 2]), load(starts[index]));
        let shuffle = _mm256_loadu_si256(shuffles.as_ptr().add(index / 2).cast());
        let weights = _mm256_loadu_si256(weights.as_ptr().add(4 * index).cast());
        _mm256_madd_epi16(_mm256_shuffle_epi8(values, shuffle), weights)
    };
    let rounded = |sums| _mm256_srai_epi32::<{ WEIGHT_BITS as i32 }>(_mm256_add_epi32(sums, round));
    let packed = _mm256_packs_epi32(
        rounded(_mm256_hadd_epi32(four(0), four(4))),
        rounded(_mm256_hadd_epi32(four(8), four(12))),
    );
    store(output, _mm256_permutevar8x32_epi32(packed, order));
}

/// All outputs, 8 N weights each, unless they are few: returns which.
#[target_feature(enable = "avx2")]
fn octets<const N: usize>(values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    if output.len() < 8 {
        return 0..0;
    }
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
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn eight_octets<const N: usize>(
    values: &[i16],
    starts: &[u32; 8],
    weights: &[i16],
    output: &mut [i16; 8],
) {
    let round = _mm_set1_epi32(1 << (WEIGHT_BITS - 1));
    let one = |index: usize| {
        let mut sum = _mm_setzero_si128();
        for octet in 0..N {
            // SAFETY: the caller vouches for values and weights.
            let (values, weights) = unsafe {
                let values = values.as_ptr().byte_add(starts[index] as usize);
                let weights = weights.as_ptr().add(8 * (index * N + octet));
                (
                    _mm_loadu_si128(values.add(8 * octet).cast()),
                    _mm_loadu_si128(weights.cast()),
                )
            };
            sum = _mm_add_epi32(sum, _mm_madd_epi16(values, weights));
        }
        sum
    };
    let two = |index| _mm_hadd_epi32(one(index), one(index + 1));
    let rounded = |sums| _mm_srai_epi32::<{ WEIGHT_BITS as i32 }>(_mm_add_epi32(sums, round));
    let packed = _mm_packs_epi32(
        rounded(_mm_hadd_epi32(two(0), two(2))),
        rounded(_mm_hadd_epi32(two(4), two(6))),
    );
    // SAFETY: the array is as long as the vector.
    unsafe { _mm_storeu_si128(output.as_mut_ptr().cast(), packed) };
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(output: &mut [i16; 16], vector: __m256i) {
    // SAFETY: the array is as long as the vector.
    unsafe { _mm256_storeu_si256(output.as_mut_ptr().cast(), vector) };
}

#[target_feature(enable = "avx2")]
fn pairs(values: &[i16], first: &mut [i16], second: &mut [i16]) {
    let (chunks, rest) = values.as_chunks::<32>();
    let (first_chunks, first_rest) = first.as_chunks_mut::<16>();
    let (second_chunks, second_rest) = second.as_chunks_mut::<16>();
    let outputs = first_chunks.iter_mut().zip(second_chunks);
    for (chunk, (first, second)) in chunks.iter().zip(outputs) {
        let low_words = _mm256_set1_epi32(0xffff);
        // SAFETY: each array is as long as the vectors that are loaded from it or stored to it.
        unsafe {
            let a = _mm256_loadu_si256(chunk.as_ptr().cast());
            let b = _mm256_loadu_si256(chunk.as_ptr().add(16).cast());
            let even = _mm256_packus_epi32(
                _mm256_and_si256(a, low_words),
                _mm256_and_si256(b, low_words),
            );
            let odd = _mm256_packus_epi32(_mm256_srli_epi32::<16>(a), _mm256_srli_epi32::<16>(b));
            _mm256_storeu_si256(
                first.as_mut_ptr().cast(),
                _mm256_permute4x64_epi64::<IN_ORDER>(even),
            );
            _mm256_storeu_si256(
                second.as_mut_ptr().cast(),
                _mm256_permute4x64_epi64::<IN_ORDER>(odd),
            );
        }
    }
    scalar::split_pairs(rest, first_rest, second_rest);
}

#[target_feature(enable = "avx2")]
fn colours(yuv: [&[i16]; 3], rgb: [&mut [u8]; 3]) {
    let [luma, u, v] = yuv.map(|row| row.as_chunks::<32>());
    let [red, green, blue] = rgb.map(|row| row.as_chunks_mut::<32>());
    let inputs = luma.0.iter().zip(u.0).zip(v.0);
    let outputs = red.0.iter_mut().zip(green.0).zip(blue.0);
    for (((luma, u), v), ((red, green), blue)) in inputs.zip(outputs) {
        // SAFETY: the arrays are twice as long as the vectors.
        let load =
            |row: &[i16; 32], at: usize| unsafe { _mm256_loadu_si256(row.as_ptr().add(at).cast()) };
        let first = yuv_words(load(luma, 0), load(u, 0), load(v, 0));
        let second = yuv_words(load(luma, 16), load(u, 16), load(v, 16));
        store_bytes(first[0], second[0], red);
        store_bytes(first[1], second[1], green);
        store_bytes(first[2], second[2], blue);
    }
    scalar::yuv_to_u7([luma.1, u.1, v.1], [red.1, green.1, blue.1]);
}

/// Two vectors of words, clamped to u7.
#[target_feature(enable = "avx2")]
#[inline]
fn store_bytes(first: __m256i, second: __m256i, output: &mut [u8; 32]) {
    let bytes = _mm256_packus_epi16(first, second);
    let bytes = _mm256_min_epu8(bytes, _mm256_set1_epi8(ACTIVATION_MAX.cast_signed()));
    // SAFETY: the array is as long as the vector.
    unsafe {
        _mm256_storeu_si256(
            output.as_mut_ptr().cast(),
            _mm256_permute4x64_epi64::<IN_ORDER>(bytes),
        );
    }
}

/// Red, green and blue of 16 pixels, halved, before they are clamped.
#[target_feature(enable = "avx2")]
#[inline]
fn yuv_words(luma: __m256i, u: __m256i, v: __m256i) -> [__m256i; 3] {
    // The constant that rounds comes as a product too.
    const ROUND_FACTOR: i16 = 1 << 14;
    const { assert!(ROUND % ROUND_FACTOR as i32 == 0) };
    let luma = _mm256_sub_epi16(luma, _mm256_set1_epi16(BLACK));
    let u = _mm256_sub_epi16(u, _mm256_set1_epi16(GREY));
    let v = _mm256_sub_epi16(v, _mm256_set1_epi16(GREY));
    let factor = _mm256_set1_epi16((ROUND / i32::from(ROUND_FACTOR)) as i16);
    let round = _mm256_set1_epi32(ROUND);
    let words = |low, high| {
        _mm256_packs_epi32(
            _mm256_srai_epi32::<{ SHIFT as i32 }>(low),
            _mm256_srai_epi32::<{ SHIFT as i32 }>(high),
        )
    };
    let of_two = |woven, weights| _mm256_add_epi32(_mm256_madd_epi16(woven, weights), round);
    let of_three = |luma_u, v_factor| {
        _mm256_add_epi32(
            _mm256_madd_epi16(luma_u, both(LUMA, U_TO_GREEN)),
            _mm256_madd_epi16(v_factor, both(V_TO_GREEN, ROUND_FACTOR)),
        )
    };
    let (luma_v_low, luma_v_high) = (
        _mm256_unpacklo_epi16(luma, v),
        _mm256_unpackhi_epi16(luma, v),
    );
    let (luma_u_low, luma_u_high) = (
        _mm256_unpacklo_epi16(luma, u),
        _mm256_unpackhi_epi16(luma, u),
    );
    let (v_low, v_high) = (
        _mm256_unpacklo_epi16(v, factor),
        _mm256_unpackhi_epi16(v, factor),
    );
    let (to_red, to_blue) = (both(LUMA, V_TO_RED), both(LUMA, U_TO_BLUE));
    [
        words(of_two(luma_v_low, to_red), of_two(luma_v_high, to_red)),
        words(of_three(luma_u_low, v_low), of_three(luma_u_high, v_high)),
        words(of_two(luma_u_low, to_blue), of_two(luma_u_high, to_blue)),
    ]
}
