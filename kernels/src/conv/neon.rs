//! [`Lanes`] with the 128-bit vectors of NEON on aarch64.
//!
//! A sum keeps its pixels in order, eight to a register: `UADDW` and `UADDW2` widen while they add.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; every operation is a method of the token that proves NEON"
)]

use std::arch::aarch64::*;

use super::lanes::{LANE_PIXELS, Lanes};
use super::run::{Finish, Task};
use crate::isa::Neon;
use crate::requantize::ACTIVATION_MAX;

/// Pixels in one vector of bytes.
const VECTOR_BYTES: usize = 16;

/// Pixels in one vector of 16-bit words.
const VECTOR_WORDS: usize = 8;

impl Lanes for Neon {
    type Sum = [uint16x8_t; 4];
    type Signed = [int16x8_t; 4];
    type Wide = [[int32x4_t; 2]; 4];

    fn enter<F: Finish>(self, task: Task<'_, F>) {
        #[target_feature(enable = "neon")]
        fn run<F: Finish>(lanes: Neon, task: Task<'_, F>) {
            task.run(lanes);
        }
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { run(self, task) }
    }

    #[inline(always)]
    fn zero(self) -> Self::Sum {
        // SAFETY: `self` proves that the processor has NEON.
        [unsafe { vdupq_n_u16(0) }; 4]
    }

    #[inline(always)]
    fn add_pair(
        self,
        mut sum: Self::Sum,
        first: &[u8; LANE_PIXELS],
        second: &[u8; LANE_PIXELS],
    ) -> Self::Sum {
        for half in 0..2 {
            let first = &first[half * VECTOR_BYTES..][..VECTOR_BYTES];
            let second = &second[half * VECTOR_BYTES..][..VECTOR_BYTES];
            // SAFETY: `self` proves that the processor has NEON, and each slice is as long as the vector loaded from it.
            unsafe {
                let both = vaddq_u8(vld1q_u8(first.as_ptr()), vld1q_u8(second.as_ptr()));
                sum[2 * half] = vaddw_u8(sum[2 * half], vget_low_u8(both));
                sum[2 * half + 1] = vaddw_high_u8(sum[2 * half + 1], both);
            }
        }
        sum
    }

    #[inline(always)]
    fn add(self, mut left: Self::Sum, right: Self::Sum) -> Self::Sum {
        for i in 0..4 {
            // SAFETY: `self` proves that the processor has NEON.
            left[i] = unsafe { vaddq_u16(left[i], right[i]) };
        }
        left
    }

    #[inline(always)]
    fn difference(self, plus: Self::Sum, minus: Self::Sum) -> Self::Signed {
        // SAFETY: `self` proves that the processor has NEON.
        let subtract = |i: usize| unsafe { vreinterpretq_s16_u16(vsubq_u16(plus[i], minus[i])) };
        [subtract(0), subtract(1), subtract(2), subtract(3)]
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
