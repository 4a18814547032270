//! With the 128-bit vectors of NEON on 32-bit ARM, for which stable Rust has no intrinsics: the loops are assembly.
//!
//! Rows whose weights are multiples of 2^8 (the inner ones of a halving) are multiplied as bytes, and nothing is left to
//! be rounded.
#![expect(
    unsafe_code,
    reason = "assembly; every function takes the token that proves NEON"
)]

use std::ops::Range;

use super::colour::{BLACK, GREY, LUMA, ROUND, SHIFT, U_TO_BLUE, U_TO_GREEN, V_TO_GREEN, V_TO_RED};
use super::{FRACTION_BITS, SLACK, Taps, WEIGHT_BITS, scalar};
use crate::isa::Neon32;
use crate::requantize::ACTIVATION_MAX;

/// Bytes of one vector.
const VECTOR_BYTES: usize = 16;

/// Bits that the sums of a row lose.
const ROWS_SHIFT: u32 = WEIGHT_BITS - FRACTION_BITS;

/// See [`super::mix_rows`].
pub(super) fn mix_rows(proof: Neon32, rows: &[u8], weights: &[i16], output: &mut [i16]) {
    let row_len = output.len();
    let Some(last) = row_len.checked_sub(VECTOR_BYTES) else {
        return scalar::mix_rows(rows, weights, output);
    };
    let whole = row_len / VECTOR_BYTES;
    let is_coarse = weights.iter().all(|weight| weight % (1 << ROWS_SHIFT) == 0);
    // The last vector overlaps the one before where the length is no multiple.
    for (at, vectors) in [(0, whole), (last, 1)] {
        match is_coarse {
            true => coarse_rows(
                proof,
                &rows[at..],
                row_len,
                weights,
                &mut output[at..],
                vectors,
            ),
            false => fine_rows(
                proof,
                &rows[at..],
                row_len,
                weights,
                &mut output[at..],
                vectors,
            ),
        }
    }
}

/// Rows of `row_len` bytes, mixed to so many vectors of outputs.
///
/// # Panics
/// If rows or outputs are too short, or there is no weight or no vector.
fn fine_rows(
    _proof: Neon32,
    rows: &[u8],
    row_len: usize,
    weights: &[i16],
    output: &mut [i16],
    vectors: usize,
) {
    assert_rows(rows, row_len, weights, output, vectors);
    // SAFETY: the token proves that the processor has NEON. Each vector reads as many bytes of each row, which the rows have,
    // and writes as many outputs, which there are.
    unsafe {
        neon!(
            "2:
            mov {row}, {rows}
            mov {weight}, {weights}
            mov {count}, {weights_len}
            vmov.i32 q8, #0
            vmov.i32 q9, #0
            vmov.i32 q10, #0
            vmov.i32 q11, #0
            3:
            vld1.8 {{d0-d1}}, [{row}], {row_len}
            vld1.16 {{d4[]}}, [{weight}]!
            subs {count}, {count}, #1
            vmovl.u8 q3, d1
            vmovl.u8 q0, d0
            vmlal.s16 q8, d0, d4
            vmlal.s16 q9, d1, d4
            vmlal.s16 q10, d6, d4
            vmlal.s16 q11, d7, d4
            bne 3b
            vrshrn.i32 d0, q8, #{shift}
            vrshrn.i32 d1, q9, #{shift}
            vrshrn.i32 d2, q10, #{shift}
            vrshrn.i32 d3, q11, #{shift}
            add {rows}, {rows}, #16
            subs {vectors}, {vectors}, #1
            vst1.16 {{d0-d3}}, [{output}]!
            bne 2b",
            [
                rows = inout(reg) rows.as_ptr() => _,
                weights = in(reg) weights.as_ptr(),
                weights_len = in(reg) weights.len(),
                row_len = in(reg) row_len,
                output = inout(reg) output.as_mut_ptr() => _,
                vectors = inout(reg) vectors => _,
                shift = const ROWS_SHIFT,
            ],
            row, weight, count
        );
    }
}

/// As [`fine_rows`], of weights that are multiples of `1 << ROWS_SHIFT`: the sums have no fraction that is dropped.
fn coarse_rows(
    _proof: Neon32,
    rows: &[u8],
    row_len: usize,
    weights: &[i16],
    output: &mut [i16],
    vectors: usize,
) {
    assert_rows(rows, row_len, weights, output, vectors);
    // SAFETY: as in `fine_rows`.
    unsafe {
        neon!(
            "2:
            mov {row}, {rows}
            mov {weight}, {weights}
            mov {count}, {weights_len}
            vmov.i32 q8, #0
            vmov.i32 q9, #0
            3:
            vld1.8 {{d0-d1}}, [{row}], {row_len}
            vld1.16 {{d4[]}}, [{weight}]!
            subs {count}, {count}, #1
            vdup.8 d4, d4[1]
            vmlal.u8 q8, d0, d4
            vmlal.u8 q9, d1, d4
            bne 3b
            add {rows}, {rows}, #16
            subs {vectors}, {vectors}, #1
            vst1.16 {{d16-d19}}, [{output}]!
            bne 2b",
            [
                rows = inout(reg) rows.as_ptr() => _,
                weights = in(reg) weights.as_ptr(),
                weights_len = in(reg) weights.len(),
                row_len = in(reg) row_len,
                output = inout(reg) output.as_mut_ptr() => _,
                vectors = inout(reg) vectors => _,
            ],
            row, weight, count
        );
    }
}

fn assert_rows(rows: &[u8], row_len: usize, weights: &[i16], output: &[i16], vectors: usize) {
    let len = vectors * VECTOR_BYTES;
    assert!(vectors > 0 && !weights.is_empty(), "there is work");
    assert!(output.len() >= len, "outputs for all vectors");
    assert!(
        rows.len() >= (weights.len() - 1) * row_len + len,
        "bytes for all vectors"
    );
}

/// See [`super::mix_columns`].
pub(super) fn mix_columns(proof: Neon32, values: &[i16], taps: &Taps, output: &mut [i16]) {
    assert!(values.len() >= taps.input_len() + SLACK && output.len() == taps.len());
    let done = match taps.pitch() {
        4 if !taps.steady().is_empty() => steady_columns(proof, values, taps, output),
        4 => quads(proof, values, taps, output),
        8 => octets(proof, values, taps, output),
        _ => many_octets(proof, values, taps, output),
    };
    for index in (0..done.start).chain(done.end..output.len()) {
        output[index] = scalar::mix_column(values, taps, index);
    }
}

/// The steady outputs, but for the last ones: returns which.
fn steady_columns(_proof: Neon32, values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    let steady = taps.steady();
    let turns = steady.len() / 8;
    let done = steady.start..steady.start + 8 * turns;
    if turns == 0 {
        return done;
    }
    let (first, _) = taps.of(steady.start);
    let weights: &[i16; 4] = taps.stored_weights()[4 * steady.start..]
        .first_chunk()
        .expect("the taps have four for every output");
    // The last turn reads two vectors from the start of its first output on, one of them two values later.
    assert!(
        values.len() >= first + 16 * turns + 2,
        "values of the last turn"
    );
    let output = &mut output[done.clone()];
    // SAFETY: the token proves that the processor has NEON; each turn reads 18 values, two a turn more than the outputs
    // before, and writes 8 outputs.
    unsafe {
        neon!(
            "vld1.16 {{d4}}, [{weights}]
            2:
            vld2.16 {{d0-d3}}, [{values}]!
            vld2.16 {{d16-d19}}, [{later}]!
            subs {turns}, {turns}, #1
            vmull.s16 q10, d0, d4[0]
            vmull.s16 q11, d1, d4[0]
            vmlal.s16 q10, d2, d4[1]
            vmlal.s16 q11, d3, d4[1]
            vmlal.s16 q10, d16, d4[2]
            vmlal.s16 q11, d17, d4[2]
            vmlal.s16 q10, d18, d4[3]
            vmlal.s16 q11, d19, d4[3]
            vrshrn.i32 d0, q10, #{shift}
            vrshrn.i32 d1, q11, #{shift}
            vst1.16 {{d0-d1}}, [{output}]!
            bne 2b",
            [
                values = inout(reg) values[first..].as_ptr() => _,
                later = inout(reg) values[first + 2..].as_ptr() => _,
                weights = in(reg) weights.as_ptr(),
                output = inout(reg) output.as_mut_ptr() => _,
                turns = inout(reg) turns => _,
                shift = const WEIGHT_BITS,
            ]
        );
    }
    done
}

/// All outputs but for the last ones, four weights each: returns which.
fn quads(_proof: Neon32, values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    let turns = output.len() / 4;
    if turns == 0 {
        return 0..0;
    }
    // SAFETY: the token proves that the processor has NEON. From each start on there are four values, SLACK included; each
    // output has four weights; a turn makes four outputs.
    unsafe {
        neon!(
            "2:
            ldr {a}, [{starts}], #4
            ldr {b}, [{starts}], #4
            ldr {c}, [{starts}], #4
            ldr {d}, [{starts}], #4
            vld1.16 {{d16-d19}}, [{weights}]!
            add {a}, {values}, {a}
            add {b}, {values}, {b}
            add {c}, {values}, {c}
            add {d}, {values}, {d}
            vld1.16 {{d20}}, [{a}]
            vld1.16 {{d21}}, [{b}]
            vld1.16 {{d22}}, [{c}]
            vld1.16 {{d23}}, [{d}]
            subs {turns}, {turns}, #1
            vmull.s16 q0, d20, d16
            vmull.s16 q1, d21, d17
            vmull.s16 q2, d22, d18
            vmull.s16 q3, d23, d19
            vpadd.i32 d0, d0, d1
            vpadd.i32 d1, d2, d3
            vpadd.i32 d2, d4, d5
            vpadd.i32 d3, d6, d7
            vpadd.i32 d0, d0, d1
            vpadd.i32 d1, d2, d3
            vrshrn.i32 d0, q0, #{shift}
            vst1.16 {{d0}}, [{output}]!
            bne 2b",
            [
                values = in(reg) values.as_ptr(),
                starts = inout(reg) taps.byte_starts().as_ptr() => _,
                weights = inout(reg) taps.stored_weights().as_ptr() => _,
                output = inout(reg) output.as_mut_ptr() => _,
                turns = inout(reg) turns => _,
                shift = const WEIGHT_BITS,
            ],
            a, b, c, d
        );
    }
    0..4 * turns
}

/// All outputs but for the last ones, eight weights each: returns which.
fn octets(_proof: Neon32, values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    let turns = output.len() / 4;
    if turns == 0 {
        return 0..0;
    }
    // SAFETY: the token proves that the processor has NEON. From each start on there are eight values, SLACK included; each
    // output has eight weights; a turn makes four outputs.
    unsafe {
        neon!(
            "2:
            ldr {a}, [{starts}], #4
            ldr {b}, [{starts}], #4
            ldr {c}, [{starts}], #4
            ldr {d}, [{starts}], #4
            add {a}, {values}, {a}
            add {b}, {values}, {b}
            add {c}, {values}, {c}
            add {d}, {values}, {d}
            vld1.16 {{d16-d19}}, [{weights}]!
            vld1.16 {{d20-d23}}, [{weights}]!
            vld1.16 {{d24-d25}}, [{a}]
            vld1.16 {{d26-d27}}, [{b}]
            vld1.16 {{d28-d29}}, [{c}]
            vld1.16 {{d30-d31}}, [{d}]
            subs {turns}, {turns}, #1
            vmull.s16 q0, d24, d16
            vmull.s16 q1, d26, d18
            vmull.s16 q2, d28, d20
            vmull.s16 q3, d30, d22
            vmlal.s16 q0, d25, d17
            vmlal.s16 q1, d27, d19
            vmlal.s16 q2, d29, d21
            vmlal.s16 q3, d31, d23
            vpadd.i32 d0, d0, d1
            vpadd.i32 d1, d2, d3
            vpadd.i32 d2, d4, d5
            vpadd.i32 d3, d6, d7
            vpadd.i32 d0, d0, d1
            vpadd.i32 d1, d2, d3
            vrshrn.i32 d0, q0, #{shift}
            vst1.16 {{d0}}, [{output}]!
            bne 2b",
            [
                values = in(reg) values.as_ptr(),
                starts = inout(reg) taps.byte_starts().as_ptr() => _,
                weights = inout(reg) taps.stored_weights().as_ptr() => _,
                output = inout(reg) output.as_mut_ptr() => _,
                turns = inout(reg) turns => _,
                shift = const WEIGHT_BITS,
            ],
            a, b, c, d
        );
    }
    0..4 * turns
}

/// All outputs, a multiple of eight weights each: returns which.
fn many_octets(_proof: Neon32, values: &[i16], taps: &Taps, output: &mut [i16]) -> Range<usize> {
    if output.is_empty() {
        return 0..0;
    }
    // SAFETY: the token proves that the processor has NEON. From each start on there are as many values as weights, SLACK
    // included; there are so many weights for each output; a turn makes one output.
    unsafe {
        neon!(
            "2:
            ldr {start}, [{starts}], #4
            mov {count}, {octets}
            add {start}, {values}, {start}
            vmov.i32 q8, #0
            vmov.i32 q9, #0
            3:
            vld1.16 {{d0-d1}}, [{start}]!
            vld1.16 {{d2-d3}}, [{weights}]!
            subs {count}, {count}, #1
            vmlal.s16 q8, d0, d2
            vmlal.s16 q9, d1, d3
            bne 3b
            vadd.i32 q8, q8, q9
            subs {turns}, {turns}, #1
            vpadd.i32 d16, d16, d17
            vpadd.i32 d16, d16, d16
            vrshrn.i32 d16, q8, #{shift}
            vst1.16 {{d16[0]}}, [{output}]!
            bne 2b",
            [
                values = in(reg) values.as_ptr(),
                octets = in(reg) taps.pitch() / 8,
                starts = inout(reg) taps.byte_starts().as_ptr() => _,
                weights = inout(reg) taps.stored_weights().as_ptr() => _,
                output = inout(reg) output.as_mut_ptr() => _,
                turns = inout(reg) output.len() => _,
                shift = const WEIGHT_BITS,
            ],
            start, count
        );
    }
    0..output.len()
}

/// See [`super::split_pairs`].
pub(super) fn split_pairs(_proof: Neon32, values: &[i16], first: &mut [i16], second: &mut [i16]) {
    let turns = values.len() / 16;
    assert!(
        first.len().min(second.len()) >= 8 * turns,
        "room for all pairs"
    );
    if turns > 0 {
        // SAFETY: the token proves that the processor has NEON; a turn reads 16 values and writes 8 to each output.
        unsafe {
            neon!(
                "2:
                vld2.16 {{d0-d3}}, [{values}]!
                subs {turns}, {turns}, #1
                vst1.16 {{d0-d1}}, [{first}]!
                vst1.16 {{d2-d3}}, [{second}]!
                bne 2b",
                [
                    values = inout(reg) values.as_ptr() => _,
                    first = inout(reg) first.as_mut_ptr() => _,
                    second = inout(reg) second.as_mut_ptr() => _,
                    turns = inout(reg) turns => _,
                ]
            );
        }
    }
    scalar::split_pairs(
        &values[16 * turns..],
        &mut first[8 * turns..],
        &mut second[8 * turns..],
    );
}

/// See [`super::split_triples`].
pub(super) fn split_triples(
    _proof: Neon32,
    values: &[i16],
    [first, second, third]: [&mut [i16]; 3],
) {
    let turns = values.len() / 24;
    let room = first.len().min(second.len()).min(third.len());
    assert!(room >= 8 * turns, "room for all triples");
    if turns > 0 {
        // SAFETY: the token proves that the processor has NEON; a turn reads 24 values and writes 8 to each output.
        unsafe {
            neon!(
                "2:
                vld3.16 {{d0, d2, d4}}, [{values}]!
                vld3.16 {{d1, d3, d5}}, [{values}]!
                subs {turns}, {turns}, #1
                vst1.16 {{d0-d1}}, [{first}]!
                vst1.16 {{d2-d3}}, [{second}]!
                vst1.16 {{d4-d5}}, [{third}]!
                bne 2b",
                [
                    values = inout(reg) values.as_ptr() => _,
                    first = inout(reg) first.as_mut_ptr() => _,
                    second = inout(reg) second.as_mut_ptr() => _,
                    third = inout(reg) third.as_mut_ptr() => _,
                    turns = inout(reg) turns => _,
                ]
            );
        }
    }
    let rest = [first, second, third].map(|output| &mut output[8 * turns..]);
    scalar::split_triples(&values[24 * turns..], rest);
}

/// See [`super::to_u7`].
pub(super) fn to_u7(_proof: Neon32, values: &[i16], output: &mut [u8]) {
    let turns = values.len() / 8;
    assert!(output.len() >= 8 * turns, "room for all bytes");
    if turns > 0 {
        // SAFETY: the token proves that the processor has NEON; a turn reads 8 values and writes 8 bytes.
        unsafe {
            neon!(
                "vdup.16 q8, {round}
                2:
                vld1.16 {{d0-d1}}, [{values}]!
                subs {turns}, {turns}, #1
                vadd.i16 q0, q0, q8
                vshrn.i16 d0, q0, #{shift}
                vst1.8 {{d0}}, [{output}]!
                bne 2b",
                [
                    values = inout(reg) values.as_ptr() => _,
                    output = inout(reg) output.as_mut_ptr() => _,
                    turns = inout(reg) turns => _,
                    round = in(reg) 1 << (FRACTION_BITS - 1),
                    shift = const FRACTION_BITS + 1,
                ]
            );
        }
    }
    scalar::to_u7(&values[8 * turns..], &mut output[8 * turns..]);
}

/// See [`super::yuv_to_u7`].
pub(super) fn yuv_to_u7(
    _proof: Neon32,
    [luma, u, v]: [&[i16]; 3],
    [red, green, blue]: [&mut [u8]; 3],
) {
    let turns = luma.len() / 8;
    let inputs = luma.len().min(u.len()).min(v.len());
    let outputs = red.len().min(green.len()).min(blue.len());
    assert!(inputs.min(outputs) >= 8 * turns, "rows of one length");
    if turns > 0 {
        // SAFETY: the token proves that the processor has NEON; a turn reads 8 values and writes 8 bytes of each row.
        unsafe {
            colours(
                [luma, u, v].map(<[i16]>::as_ptr),
                [&mut *red, green, blue].map(|row| row.as_mut_ptr()),
                turns,
            )
        };
    }
    scalar::yuv_to_u7(
        [luma, u, v].map(|row| &row[8 * turns..]),
        [red, green, blue].map(|row| &mut row[8 * turns..]),
    );
}

/// Red, green and blue, halved, clamped to a byte, of 8 pixels a turn.
///
/// # Safety
/// The processor has NEON. There is a turn at least. All rows have 8 pixels for each.
unsafe fn colours([luma, u, v]: [*const i16; 3], [red, green, blue]: [*mut u8; 3], turns: usize) {
    let factors = [
        LUMA, V_TO_RED, U_TO_GREEN, V_TO_GREEN, U_TO_BLUE, BLACK, GREY, 0,
    ];
    // SAFETY: the caller vouches for processor and rows.
    unsafe {
        neon!(
            "vld1.16 {{d6-d7}}, [{factors}]
            vdup.16 q12, d7[1]
            vdup.16 q13, d7[2]
            vmov.i8 d29, #{most}
            vdup.32 q7, {round}
            2:
            vld1.16 {{d0-d1}}, [{luma}]!
            vld1.16 {{d2-d3}}, [{u}]!
            vld1.16 {{d4-d5}}, [{v}]!
            subs {turns}, {turns}, #1
            vsub.i16 q0, q0, q12
            vsub.i16 q1, q1, q13
            vsub.i16 q2, q2, q13
            vmull.s16 q8, d0, d6[0]
            vmull.s16 q9, d1, d6[0]
            vadd.i32 q8, q8, q7
            vadd.i32 q9, q9, q7
            vmull.s16 q10, d4, d6[1]
            vmull.s16 q11, d5, d6[1]
            vmull.s16 q5, d2, d7[0]
            vmull.s16 q6, d3, d7[0]
            vadd.i32 q10, q10, q8
            vadd.i32 q11, q11, q9
            vadd.i32 q5, q5, q8
            vadd.i32 q6, q6, q9
            vmlal.s16 q8, d2, d6[2]
            vmlal.s16 q9, d3, d6[2]
            vmlal.s16 q8, d4, d6[3]
            vmlal.s16 q9, d5, d6[3]
            vshrn.i32 d20, q10, #16
            vshrn.i32 d21, q11, #16
            vshrn.i32 d10, q5, #16
            vshrn.i32 d11, q6, #16
            vshrn.i32 d16, q8, #16
            vshrn.i32 d17, q9, #16
            vqshrun.s16 d20, q10, #{shift}
            vqshrun.s16 d10, q5, #{shift}
            vqshrun.s16 d16, q8, #{shift}
            vmin.u8 d20, d20, d29
            vmin.u8 d10, d10, d29
            vmin.u8 d16, d16, d29
            vst1.8 {{d20}}, [{red}]!
            vst1.8 {{d16}}, [{green}]!
            vst1.8 {{d10}}, [{blue}]!
            bne 2b",
            [
                luma = inout(reg) luma => _,
                u = inout(reg) u => _,
                v = inout(reg) v => _,
                red = inout(reg) red => _,
                green = inout(reg) green => _,
                blue = inout(reg) blue => _,
                turns = inout(reg) turns => _,
                factors = in(reg) factors.as_ptr(),
                round = in(reg) ROUND,
                most = const ACTIVATION_MAX,
                // What is left to shift once the low half of a sum is dropped.
                shift = const SHIFT - 16,
            ]
        );
    }
}
