//! [`Lanes`] with the 256-bit vectors of AVX2.
//!
//! A sum keeps 32 pixels in two registers without ever unpacking bytes: `words` adds the bytes as 16-bit words, that is
//! the even pixel plus 256 times the odd one, and `odd` adds the odd pixels alone. All of it is linear modulo 2^16, so
//! that the even pixels are separated once an output, in [`Adders::signed`], and not once an addition.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; every operation is a method of the token that proves AVX2"
)]

use std::arch::x86_64::*;

use std::num::NonZeroU16;

use super::lanes::{Adders, Cursor, Job, LANE_PIXELS, Lanes, Window, lane};
use super::plan::{Pair, Pass};
use super::walk::walk;
use crate::isa::Avx2;

/// Sums of 32 pixels modulo 2^16.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    /// Even pixel + 256 x odd pixel.
    words: __m256i,
    /// Odd pixel.
    odd: __m256i,
}

/// 16-bit values of 32 pixels.
#[derive(Clone, Copy)]
pub(super) struct Signed {
    pub(super) even: __m256i,
    pub(super) odd: __m256i,
}

/// 32-bit values of 32 pixels: the halves that `unpacklo` and `unpackhi` make of the even and of the odd pixels.
/// `packs` is the inverse within the same 128-bit lanes, so that nothing crosses them.
#[derive(Clone, Copy)]
pub(super) struct Wide {
    even: [__m256i; 2],
    odd: [__m256i; 2],
}

impl Lanes for Avx2 {
    // The sums of four lanes take half of the registers; those of the channels wait in memory.
    const GROUP_LANES: usize = 4;

    type Signed = Signed;
    type Wide = Wide;

    fn enter<J: Job<Self>>(self, job: J) {
        #[target_feature(enable = "avx2")]
        #[inline(never)]
        fn run<J: Job<Avx2>>(lanes: Avx2, job: J) {
            job.run(lanes);
        }
        // SAFETY: `self` proves that the processor has AVX2.
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
    fn add_bias(self, x: Signed, bias: i16) -> Signed {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe {
            let bias = _mm256_set1_epi16(bias);
            Signed {
                even: _mm256_adds_epi16(x.even, bias),
                odd: _mm256_adds_epi16(x.odd, bias),
            }
        }
    }

    #[inline(always)]
    fn zero_wide(self) -> Wide {
        // SAFETY: `self` proves that the processor has AVX2.
        let zero = unsafe { _mm256_setzero_si256() };
        Wide {
            even: [zero; 2],
            odd: [zero; 2],
        }
    }

    #[inline(always)]
    fn widen_add(self, wide: Wide, x: Signed) -> Wide {
        let add = |[low, high]: [__m256i; 2], x: __m256i| {
            // SAFETY: `self` proves that the processor has AVX2.
            unsafe {
                // A word beside itself, shifted right by 16 with its sign, is the word in 32 bits.
                let x_low = _mm256_srai_epi32::<16>(_mm256_unpacklo_epi16(x, x));
                let x_high = _mm256_srai_epi32::<16>(_mm256_unpackhi_epi16(x, x));
                [_mm256_add_epi32(low, x_low), _mm256_add_epi32(high, x_high)]
            }
        };
        Wide {
            even: add(wide.even, x.even),
            odd: add(wide.odd, x.odd),
        }
    }

    #[inline(always)]
    fn narrow(self, wide: Wide, bias: i16) -> Signed {
        let narrow = |[low, high]: [__m256i; 2]| {
            // SAFETY: `self` proves that the processor has AVX2.
            unsafe {
                let bias = _mm256_set1_epi32(i32::from(bias));
                _mm256_packs_epi32(_mm256_add_epi32(low, bias), _mm256_add_epi32(high, bias))
            }
        };
        Signed {
            even: narrow(wide.even),
            odd: narrow(wide.odd),
        }
    }

    #[inline(always)]
    fn relu(self, x: Signed, multiplier: i16, pre_shift: u8, output: &mut [u8; LANE_PIXELS]) {
        let requantize = |mut x: __m256i| {
            // SAFETY: `self` proves that the processor has AVX2.
            unsafe {
                // There is no saturating shift; doubling with saturation is the same.
                for _ in 0..pre_shift {
                    x = _mm256_adds_epi16(x, x);
                }
                let scaled = _mm256_mulhrs_epi16(x, _mm256_set1_epi16(multiplier));
                let positive = _mm256_max_epi16(scaled, _mm256_setzero_si256());
                _mm256_min_epi16(positive, _mm256_set1_epi16(127))
            }
        };
        let (even, odd) = (requantize(x.even), requantize(x.odd));
        // SAFETY: `self` proves that the processor has AVX2, and the array is as long as the vector stored to it, by an
        // instruction that takes any alignment.
        unsafe {
            let bytes = _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd));
            _mm256_storeu_si256(output.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn store(self, x: Signed, output: &mut [i16; LANE_PIXELS]) {
        let (low, high) = output.split_at_mut(LANE_PIXELS / 2);
        // SAFETY: `self` proves that the processor has AVX2, and each half is as long as the vector stored to it, by an
        // instruction that takes any alignment.
        unsafe {
            let first = _mm256_unpacklo_epi16(x.even, x.odd);
            let second = _mm256_unpackhi_epi16(x.even, x.odd);
            _mm256_storeu_si256(
                low.as_mut_ptr().cast(),
                _mm256_permute2x128_si256::<0x20>(first, second),
            );
            _mm256_storeu_si256(
                high.as_mut_ptr().cast(),
                _mm256_permute2x128_si256::<0x31>(first, second),
            );
        }
    }
}

impl Adders for Avx2 {
    type Value = Signed;
    type Sum = Sum;
    type Ahead = ();

    #[inline(always)]
    fn zero_sum(self) -> Sum {
        // SAFETY: `self` proves that the processor has AVX2.
        let zero = unsafe { _mm256_setzero_si256() };
        Sum {
            words: zero,
            odd: zero,
        }
    }

    #[inline(always)]
    fn load_ahead<const N: usize>(self, _window: &Window, _pairs: &[Pair]) {}

    #[inline(always)]
    fn add_pairs<const N: usize>(
        self,
        running: &mut [Sum; N],
        cursor: &mut Cursor<'_, ()>,
        count: NonZeroU16,
    ) {
        for &[first, second] in cursor.take(count) {
            for (i, sum) in running.iter_mut().enumerate() {
                let first = lane(cursor.window, first, i);
                let second = lane(cursor.window, second, i);
                // SAFETY: `self` proves that the processor has AVX2, and each array is as long as the vector loaded from
                // it, by an instruction that takes any alignment.
                unsafe {
                    let first = _mm256_loadu_si256(first.as_ptr().cast());
                    let second = _mm256_loadu_si256(second.as_ptr().cast());
                    let both = _mm256_add_epi8(first, second);
                    sum.words = _mm256_add_epi16(sum.words, both);
                    sum.odd = _mm256_add_epi16(sum.odd, _mm256_srli_epi16::<8>(both));
                }
            }
        }
    }

    #[inline(always)]
    fn add(self, left: Sum, right: Sum) -> Sum {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe {
            Sum {
                words: _mm256_add_epi16(left.words, right.words),
                odd: _mm256_add_epi16(left.odd, right.odd),
            }
        }
    }

    #[inline(always)]
    fn subtract(self, left: Sum, right: Sum) -> Sum {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe {
            Sum {
                words: _mm256_sub_epi16(left.words, right.words),
                odd: _mm256_sub_epi16(left.odd, right.odd),
            }
        }
    }

    #[inline(always)]
    fn signed(self, sum: Sum) -> Signed {
        // SAFETY: `self` proves that the processor has AVX2.
        let even = unsafe { _mm256_sub_epi16(sum.words, _mm256_slli_epi16::<8>(sum.odd)) };
        Signed { even, odd: sum.odd }
    }
}
