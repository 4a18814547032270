//! [`Lanes`] with the 128-bit vectors of NEON on 32-bit ARM, for which stable Rust has no intrinsics: every operation is a
//! block of assembly that takes its vectors from memory and leaves them there.
//!
//! For the additions, a block is a whole pass. One lane takes four of the 16 registers for the running sum, four for what
//! is loaded and four for each of two channels; of the third, whose weight changes at two borders, the running sums at these
//! wait in memory.
#![expect(
    unsafe_code,
    reason = "assembly; every operation is a method of the token that proves NEON"
)]

use super::lanes::{Job, LANE_PIXELS, Lanes, PAIR_CHUNK, Window, copy_first_of_pairs};
use super::plan::{Pass, counts_len};
use crate::isa::Neon32;
use crate::requantize::ACTIVATION_MAX;

/// 16-bit values of 32 pixels.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Signed([i16; LANE_PIXELS]);

/// 32-bit values of 32 pixels.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Wide([i32; LANE_PIXELS]);

/// Adds the pairs of one pattern to the running sum, `q0` to `q3`. When it begins, and again when it ends, `q4` to `q7` have
/// the inputs of the next pair, and `{pair}` the offsets of the one after it.
macro_rules! segment {
    () => {
        "ldrh {count}, [{counts}], #2
        2:
        uxtah {first}, {window}, {pair}
        add {second}, {window}, {pair}, lsr #16
        ldr {pair}, [{pairs}], #4
        vadd.i8 q4, q4, q6
        vadd.i8 q5, q5, q7
        vld1.8 {{d12-d15}}, [{second}]
        vaddw.u8 q0, q0, d8
        vaddw.u8 q1, q1, d9
        vaddw.u8 q2, q2, d10
        vaddw.u8 q3, q3, d11
        subs {count}, {count}, #1
        vld1.8 {{d8-d11}}, [{first}]
        bne 2b
        "
    };
}

/// The weight of a channel changes by one: `vsub.i16` where it goes up, `vadd.i16` where it goes down.
macro_rules! border {
    ($change:literal, first) => {
        concat!(
            $change,
            " q8, q8, q0\n",
            $change,
            " q9, q9, q1\n",
            $change,
            " q10, q10, q2\n",
            $change,
            " q11, q11, q3\n",
        )
    };
    ($change:literal, second) => {
        concat!(
            $change,
            " q12, q12, q0\n",
            $change,
            " q13, q13, q1\n",
            $change,
            " q14, q14, q2\n",
            $change,
            " q15, q15, q3\n",
        )
    };
    // It goes up only.
    (third) => {
        "vst1.16 {{d0-d3}}, [{waiting}]!
        vst1.16 {{d4-d7}}, [{waiting}]!
        "
    };
}

/// Three patterns, as in `Walk::line`; the one in the middle may be that of zeros, which has no items.
macro_rules! line {
    ($change:literal, items) => {
        concat!(
            segment!(),
            border!($change, first),
            segment!(),
            border!($change, first),
            segment!()
        )
    };
    ($change:literal, zeros) => {
        concat!(
            segment!(),
            border!($change, first),
            border!($change, first),
            segment!()
        )
    };
}

/// Nine patterns, as in `Walk::plane`.
macro_rules! plane {
    ($change:literal, $opposite:literal, $middle:ident) => {
        concat!(
            line!($change, items),
            border!($change, second),
            line!($opposite, $middle),
            border!($change, second),
            line!($change, items),
        )
    };
}

/// Sets sums to zero and loads the first pair.
macro_rules! begin {
    () => {
        "ldr {pair}, [{pairs}], #4
        vmov.i32 q0, #0
        vmov.i32 q1, #0
        vmov.i32 q2, #0
        vmov.i32 q3, #0
        vmov.i32 q8, #0
        vmov.i32 q9, #0
        vmov.i32 q10, #0
        vmov.i32 q11, #0
        uxtah {first}, {window}, {pair}
        add {second}, {window}, {pair}, lsr #16
        ldr {pair}, [{pairs}], #4
        vmov.i32 q12, #0
        vmov.i32 q13, #0
        vmov.i32 q14, #0
        vmov.i32 q15, #0
        vld1.8 {{d8-d11}}, [{first}]
        vld1.8 {{d12-d15}}, [{second}]
        "
    };
}

/// The last pattern is all plus: adds the running sum and stores the sums of a channel.
macro_rules! end {
    (first) => {
        concat!(
            border!("vadd.i16", first),
            "vst1.16 {{d16-d19}}, [{values}]!
            vst1.16 {{d20-d23}}, [{values}]!
            "
        )
    };
    (second) => {
        concat!(
            border!("vadd.i16", second),
            "vst1.16 {{d24-d27}}, [{values}]!
            vst1.16 {{d28-d31}}, [{values}]!
            "
        )
    };
    (third) => {
        "sub {waiting}, {waiting}, #128
        vld1.16 {{d16-d19}}, [{waiting}]!
        vld1.16 {{d20-d23}}, [{waiting}]!
        vld1.16 {{d24-d27}}, [{waiting}]!
        vld1.16 {{d28-d31}}, [{waiting}]
        vsub.i16 q0, q0, q8
        vsub.i16 q1, q1, q9
        vsub.i16 q2, q2, q10
        vsub.i16 q3, q3, q11
        vsub.i16 q0, q0, q12
        vsub.i16 q1, q1, q13
        vsub.i16 q2, q2, q14
        vsub.i16 q3, q3, q15
        vst1.16 {{d0-d3}}, [{values}]!
        vst1.16 {{d4-d7}}, [{values}]
        "
    };
}

/// Runs a pass: `$walk` and what it takes besides.
macro_rules! run_pass {
    ($pass:ident, $window:ident, $values:ident, $walk:expr $(, $waiting:ident)?) => {
        neon!(
            $walk,
            [
                window = in(reg) $window.as_ptr(),
                pairs = inout(reg) $pass.pairs().as_ptr() => _,
                counts = inout(reg) $pass.pair_counts().as_ptr() => _,
                values = inout(reg) $values.as_mut_ptr() => _,
                $(waiting = inout(reg) $waiting.as_mut_ptr() => _,)?
            ],
            count, pair, first, second
        )
    };
}

impl Lanes for Neon32 {
    const GROUP_LANES: usize = 1;

    type Signed = Signed;
    type Wide = Wide;

    fn enter<J: Job<Self>>(self, job: J) {
        job.run(self);
    }

    #[inline(always)]
    fn zero(self) -> Signed {
        Signed([0; LANE_PIXELS])
    }

    #[inline(always)]
    fn sum<const N: usize, const K: usize>(
        self,
        pass: &Pass,
        window: &Window,
        values: &mut [[Signed; N]; K],
    ) {
        assert_eq!(
            pass.pair_counts().len(),
            counts_len(K),
            "patterns of a pass"
        );
        assert_eq!(N, Self::GROUP_LANES, "lanes of a group");
        let values = values.as_flattened_mut();
        const KNOWN: &str = "as many values as channels";
        match K {
            1 => sum_1(self, pass, window, values.first_chunk_mut().expect(KNOWN)),
            2 => sum_2(self, pass, window, values.first_chunk_mut().expect(KNOWN)),
            3 => sum_3(self, pass, window, values.first_chunk_mut().expect(KNOWN)),
            _ => unreachable!("a block has one to three channels"),
        }
    }

    #[inline(always)]
    fn add_bias(self, mut x: Signed, bias: i16) -> Signed {
        // SAFETY: `self` proves that the processor has NEON; 32 values are read and written.
        unsafe {
            neon!(
                "vdup.16 q8, {bias}
                vld1.16 {{d0-d3}}, [{x}]
                vld1.16 {{d4-d7}}, [{high}]
                vqadd.s16 q0, q0, q8
                vqadd.s16 q1, q1, q8
                vqadd.s16 q2, q2, q8
                vqadd.s16 q3, q3, q8
                vst1.16 {{d0-d3}}, [{x}]
                vst1.16 {{d4-d7}}, [{high}]",
                [
                    x = in(reg) x.0.as_mut_ptr(),
                    high = in(reg) x.0[LANE_PIXELS / 2..].as_mut_ptr(),
                    bias = in(reg) bias,
                ]
            );
        }
        x
    }

    #[inline(always)]
    fn zero_wide(self) -> Wide {
        Wide([0; LANE_PIXELS])
    }

    #[inline(always)]
    fn widen_add(self, mut wide: Wide, x: Signed) -> Wide {
        // SAFETY: `self` proves that the processor has NEON; 32 values of each kind are read, and 32 wide ones written.
        unsafe {
            neon!(
                "vld1.16 {{d16-d19}}, [{x}]!
                vld1.16 {{d20-d23}}, [{x}]
                mov {x}, {wide}
                vld1.32 {{d0-d3}}, [{wide}]!
                vld1.32 {{d4-d7}}, [{wide}]!
                vld1.32 {{d8-d11}}, [{wide}]!
                vld1.32 {{d12-d15}}, [{wide}]
                vaddw.s16 q0, q0, d16
                vaddw.s16 q1, q1, d17
                vaddw.s16 q2, q2, d18
                vaddw.s16 q3, q3, d19
                vaddw.s16 q4, q4, d20
                vaddw.s16 q5, q5, d21
                vaddw.s16 q6, q6, d22
                vaddw.s16 q7, q7, d23
                vst1.32 {{d0-d3}}, [{x}]!
                vst1.32 {{d4-d7}}, [{x}]!
                vst1.32 {{d8-d11}}, [{x}]!
                vst1.32 {{d12-d15}}, [{x}]",
                [
                    wide = inout(reg) wide.0.as_mut_ptr() => _,
                    x = inout(reg) x.0.as_ptr() => _,
                ]
            );
        }
        wide
    }

    #[inline(always)]
    fn narrow(self, wide: Wide, bias: i16) -> Signed {
        let mut x = self.zero();
        // SAFETY: `self` proves that the processor has NEON; 32 wide values are read, and 32 others written.
        unsafe {
            neon!(
                "vdup.32 q8, {bias}
                vld1.32 {{d0-d3}}, [{wide}]!
                vld1.32 {{d4-d7}}, [{wide}]!
                vld1.32 {{d8-d11}}, [{wide}]!
                vld1.32 {{d12-d15}}, [{wide}]
                vadd.i32 q0, q0, q8
                vadd.i32 q1, q1, q8
                vadd.i32 q2, q2, q8
                vadd.i32 q3, q3, q8
                vadd.i32 q4, q4, q8
                vadd.i32 q5, q5, q8
                vadd.i32 q6, q6, q8
                vadd.i32 q7, q7, q8
                vqmovn.s32 d16, q0
                vqmovn.s32 d17, q1
                vqmovn.s32 d18, q2
                vqmovn.s32 d19, q3
                vqmovn.s32 d20, q4
                vqmovn.s32 d21, q5
                vqmovn.s32 d22, q6
                vqmovn.s32 d23, q7
                vst1.16 {{d16-d19}}, [{x}]!
                vst1.16 {{d20-d23}}, [{x}]",
                [
                    wide = inout(reg) wide.0.as_ptr() => _,
                    x = inout(reg) x.0.as_mut_ptr() => _,
                    bias = in(reg) i32::from(bias),
                ]
            );
        }
        x
    }

    #[inline(always)]
    fn relu(self, x: Signed, multiplier: i16, pre_shift: u8, output: &mut [u8; LANE_PIXELS]) {
        // SAFETY: `self` proves that the processor has NEON; 32 values are read, and 32 bytes written.
        unsafe {
            neon!(
                "vdup.16 q8, {multiplier}
                vdup.16 q9, {pre_shift}
                vdup.8 q10, {most}
                vld1.16 {{d0-d3}}, [{x}]!
                vld1.16 {{d4-d7}}, [{x}]
                vqshl.s16 q0, q0, q9
                vqshl.s16 q1, q1, q9
                vqshl.s16 q2, q2, q9
                vqshl.s16 q3, q3, q9
                vqrdmulh.s16 q0, q0, q8
                vqrdmulh.s16 q1, q1, q8
                vqrdmulh.s16 q2, q2, q8
                vqrdmulh.s16 q3, q3, q8
                vqmovun.s16 d0, q0
                vqmovun.s16 d1, q1
                vqmovun.s16 d2, q2
                vqmovun.s16 d3, q3
                vmin.u8 q0, q0, q10
                vmin.u8 q1, q1, q10
                vst1.8 {{d0-d3}}, [{output}]",
                [
                    x = inout(reg) x.0.as_ptr() => _,
                    output = in(reg) output.as_mut_ptr(),
                    multiplier = in(reg) multiplier,
                    pre_shift = in(reg) u32::from(pre_shift),
                    most = in(reg) u32::from(ACTIVATION_MAX),
                ]
            );
        }
    }

    #[inline(always)]
    fn store(self, x: Signed, output: &mut [i16; LANE_PIXELS]) {
        *output = x.0;
    }

    fn copy_first_of_pairs(self, pairs: &[[u8; 2]], bytes: &mut [u8]) {
        assert_eq!(pairs.len(), bytes.len(), "a byte for each pair");
        let (Some(last_pairs), Some(last_bytes)) = (
            pairs.last_chunk::<PAIR_CHUNK>(),
            bytes.last_chunk_mut::<PAIR_CHUNK>(),
        ) else {
            return copy_first_of_pairs(pairs, bytes);
        };
        // The last whole chunk overlaps the one before.
        copy_chunks(self, last_pairs, last_bytes);
        let whole = pairs.len() - pairs.len() % PAIR_CHUNK;
        copy_chunks(self, &pairs[..whole], &mut bytes[..whole]);
    }
}

/// Copies the first byte of each pair.
///
/// # Panics
/// If there are none, or no whole number of chunks, or not as many bytes.
fn copy_chunks(_proof: Neon32, pairs: &[[u8; 2]], bytes: &mut [u8]) {
    assert!(
        !pairs.is_empty() && pairs.len().is_multiple_of(PAIR_CHUNK) && pairs.len() == bytes.len()
    );
    // SAFETY: the token proves that the processor has NEON; each turn reads and writes a chunk.
    unsafe {
        neon!(
            "2:
            vld2.8 {{d0-d3}}, [{pairs}]!
            subs {chunks}, {chunks}, #1
            vst1.8 {{d0-d1}}, [{bytes}]!
            bne 2b",
            [
                pairs = inout(reg) pairs.as_ptr() => _,
                bytes = inout(reg) bytes.as_mut_ptr() => _,
                chunks = inout(reg) pairs.len() / PAIR_CHUNK => _,
            ]
        );
    }
}

/// The sums of a pass of one channel.
fn sum_1(_proof: Neon32, pass: &Pass, window: &Window, values: &mut [Signed; 1]) {
    // SAFETY: the token proves that the processor has NEON. A pass has as many pairs as its counts add up to and two more,
    // the caller knows that there are two counts, from each 16-bit offset on a window reaches one lane, and as much is
    // written as there are values.
    unsafe {
        run_pass!(
            pass,
            window,
            values,
            concat!(begin!(), line!("vsub.i16", zeros), end!(first))
        )
    };
}

/// The sums of a pass of two channels.
fn sum_2(_proof: Neon32, pass: &Pass, window: &Window, values: &mut [Signed; 2]) {
    // SAFETY: as in `sum_1`, with 8 counts.
    unsafe {
        run_pass!(
            pass,
            window,
            values,
            concat!(
                begin!(),
                plane!("vsub.i16", "vadd.i16", zeros),
                end!(first),
                end!(second)
            )
        )
    };
}

/// The sums of a pass of three channels.
fn sum_3(proof: Neon32, pass: &Pass, window: &Window, values: &mut [Signed; 3]) {
    let mut waiting = [proof.zero(); 2];
    // SAFETY: as in `sum_1`, with 26 counts; both running sums that wait are written before they are read.
    unsafe {
        run_pass!(
            pass,
            window,
            values,
            concat!(
                begin!(),
                plane!("vsub.i16", "vadd.i16", items),
                border!(third),
                plane!("vadd.i16", "vsub.i16", zeros),
                border!(third),
                plane!("vsub.i16", "vadd.i16", items),
                end!(first),
                end!(second),
                end!(third),
            ),
            waiting
        )
    };
}
