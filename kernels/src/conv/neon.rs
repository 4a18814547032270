//! [`Lanes`] with the 128-bit vectors of NEON on aarch64.
//!
//! A sum keeps its pixels in order, eight to a register: `UADDW` and `UADDW2` widen while they add. Two lanes take eight
//! registers for the running sum, eight for what is loaded and eight for each of two channels: all 32.
//!
//! The inner loop is written twice, for cores that order instructions themselves ([`out_of_order`]) and for those that
//! take them as they come ([`in_order`]); the rest serves both.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; every operation is a method of the token that proves NEON"
)]

mod in_order;
mod out_of_order;

use std::arch::aarch64::*;
use std::num::NonZeroU16;

use super::lanes::{Adders, Cursor, Job, LANE_PIXELS, Lanes, Window};
use super::plan::{Pair, Pass};
use super::walk::walk;
use crate::requantize::ACTIVATION_MAX;

/// Pixels in one vector of bytes.
const VECTOR_BYTES: usize = 16;

/// Pixels in one vector of 16-bit words.
const VECTOR_WORDS: usize = 8;

/// Sums of 32 pixels.
pub(super) type Sum = [uint16x8_t; 4];

/// The inner loop, in the order of instructions that suits a kind of cores. An implementor is a token that proves NEON.
pub(super) trait Schedule: Copy + Send + Sync {
    /// See [`Adders::Ahead`].
    type Ahead: Copy;

    /// See [`Adders::load_ahead`].
    fn load_ahead<const N: usize>(self, window: &Window, pairs: &[Pair]) -> Self::Ahead;

    /// [`Adders::add_pairs`] of one lane.
    fn add_pairs_1(
        self,
        running: &mut Sum,
        cursor: &mut Cursor<'_, Self::Ahead>,
        count: NonZeroU16,
    );

    /// [`Adders::add_pairs`] of two lanes.
    fn add_pairs_2(
        self,
        running: [&mut Sum; 2],
        cursor: &mut Cursor<'_, Self::Ahead>,
        count: NonZeroU16,
    );
}

impl<S: Schedule> Lanes for S {
    const GROUP_LANES: usize = 2;

    type Signed = [int16x8_t; 4];
    type Wide = [[int32x4_t; 2]; 4];

    fn enter<J: Job<Self>>(self, job: J) {
        #[target_feature(enable = "neon")]
        #[inline(never)]
        fn run<S: Schedule, J: Job<S>>(lanes: S, job: J) {
            job.run(lanes);
        }
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { run(self, job) }
    }

    #[inline(always)]
    fn zero(self) -> Self::Signed {
        self.signed(self.zero_sum())
    }

    #[inline(always)]
    fn sum<const N: usize, const K: usize>(
        self,
        pass: &Pass,
        window: &Window,
        values: &mut [[Self::Signed; N]; K],
    ) {
        walk(self, pass, window, values);
    }

    #[inline(always)]
    fn add_bias(self, mut x: Self::Signed, bias: i16) -> Self::Signed {
        for x in &mut x {
            // SAFETY: `self` proves that the processor has NEON.
            *x = unsafe { vqaddq_s16(*x, vdupq_n_s16(bias)) };
        }
        x
    }

    #[inline(always)]
    fn zero_wide(self) -> Self::Wide {
        // SAFETY: `self` proves that the processor has NEON.
        [[unsafe { vdupq_n_s32(0) }; 2]; 4]
    }

    #[inline(always)]
    fn widen_add(self, mut wide: Self::Wide, x: Self::Signed) -> Self::Wide {
        for i in 0..4 {
            let [low, high] = wide[i];
            // SAFETY: `self` proves that the processor has NEON.
            wide[i] = unsafe {
                [
                    vaddw_s16(low, vget_low_s16(x[i])),
                    vaddw_high_s16(high, x[i]),
                ]
            };
        }
        wide
    }

    #[inline(always)]
    fn narrow(self, wide: Self::Wide, bias: i16) -> Self::Signed {
        let narrow = |[low, high]: [int32x4_t; 2]| {
            // SAFETY: `self` proves that the processor has NEON.
            unsafe {
                let bias = vdupq_n_s32(i32::from(bias));
                let low = vqmovn_s32(vaddq_s32(low, bias));
                vqmovn_high_s32(low, vaddq_s32(high, bias))
            }
        };
        [
            narrow(wide[0]),
            narrow(wide[1]),
            narrow(wide[2]),
            narrow(wide[3]),
        ]
    }

    #[inline(always)]
    fn relu(self, x: Self::Signed, multiplier: i16, pre_shift: u8, output: &mut [u8; LANE_PIXELS]) {
        let requantize = |x: int16x8_t| {
            // SAFETY: `self` proves that the processor has NEON.
            unsafe {
                let shifted = vqshlq_s16(x, vdupq_n_s16(i16::from(pre_shift)));
                vqrdmulhq_s16(shifted, vdupq_n_s16(multiplier))
            }
        };
        let (vectors, _) = output.as_chunks_mut::<VECTOR_BYTES>();
        for (i, output) in vectors.iter_mut().enumerate() {
            let (low, high) = (requantize(x[2 * i]), requantize(x[2 * i + 1]));
            // SAFETY: `self` proves that the processor has NEON, and the array is as long as the vector stored to it.
            unsafe {
                let bytes = vqmovun_high_s16(vqmovun_s16(low), high);
                vst1q_u8(
                    output.as_mut_ptr(),
                    vminq_u8(bytes, vdupq_n_u8(ACTIVATION_MAX)),
                );
            }
        }
    }

    #[inline(always)]
    fn store(self, x: Self::Signed, output: &mut [i16; LANE_PIXELS]) {
        let (vectors, _) = output.as_chunks_mut::<VECTOR_WORDS>();
        for (output, x) in vectors.iter_mut().zip(x) {
            // SAFETY: `self` proves that the processor has NEON, and the array is as long as the vector stored to it.
            unsafe { vst1q_s16(output.as_mut_ptr(), x) };
        }
    }
}

impl<S: Schedule> Adders for S {
    type Value = [int16x8_t; 4];
    type Sum = Sum;
    type Ahead = S::Ahead;

    #[inline(always)]
    fn zero_sum(self) -> Sum {
        // SAFETY: `self` proves that the processor has NEON.
        [unsafe { vdupq_n_u16(0) }; 4]
    }

    #[inline(always)]
    fn load_ahead<const N: usize>(self, window: &Window, pairs: &[Pair]) -> S::Ahead {
        Schedule::load_ahead::<N>(self, window, pairs)
    }

    #[inline(always)]
    fn add_pairs<const N: usize>(
        self,
        running: &mut [Sum; N],
        cursor: &mut Cursor<'_, S::Ahead>,
        count: NonZeroU16,
    ) {
        match running.as_mut_slice() {
            [one] => self.add_pairs_1(one, cursor, count),
            [one, two] => self.add_pairs_2([one, two], cursor, count),
            _ => unreachable!("a group has no more lanes than asked for"),
        }
    }

    #[inline(always)]
    fn add(self, mut left: Sum, right: Sum) -> Sum {
        for i in 0..4 {
            // SAFETY: `self` proves that the processor has NEON.
            left[i] = unsafe { vaddq_u16(left[i], right[i]) };
        }
        left
    }

    #[inline(always)]
    fn subtract(self, mut left: Sum, right: Sum) -> Sum {
        for i in 0..4 {
            // SAFETY: `self` proves that the processor has NEON.
            left[i] = unsafe { vsubq_u16(left[i], right[i]) };
        }
        left
    }

    #[inline(always)]
    fn signed(self, sum: Sum) -> Self::Value {
        // SAFETY: `self` proves that the processor has NEON.
        let signed = |i: usize| unsafe { vreinterpretq_s16_u16(sum[i]) };
        [signed(0), signed(1), signed(2), signed(3)]
    }
}
