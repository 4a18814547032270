//! [`Lanes`] with the 512-bit vectors of AVX-512.
//!
//! Sums are taken of two lanes at once, which lie one behind the other, so that a vector is one load. They are encoded as those of
//! [`super::avx2`], whose operations finish each lane.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; every operation is a method of the token that proves AVX-512"
)]

use std::arch::x86_64::*;
use std::num::NonZeroU16;

use super::avx2::{Signed, Wide};
use super::lanes::{Adders, Cursor, Job, LANE_PIXELS, Lanes, Window};
use super::plan::{Pair, Pass};
use super::walk::walk;
use crate::isa::Avx512;

/// Two lanes, as one.
#[derive(Clone, Copy)]
struct Twin(Avx512);

/// Pixels of two lanes.
const TWIN_PIXELS: usize = 2 * LANE_PIXELS;

/// Sums of two lanes modulo 2^16.
#[derive(Clone, Copy)]
struct Sum {
    /// Even pixel + 256 x odd pixel.
    words: __m512i,
    /// Odd pixel.
    odd: __m512i,
}

impl Lanes for Avx512 {
    // The sums of four lanes of three channels take half of the registers.
    const GROUP_LANES: usize = 4;

    type Signed = Signed;
    type Wide = Wide;

    fn enter<J: Job<Self>>(self, job: J) {
        #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
        #[inline(never)]
        fn run<J: Job<Avx512>>(lanes: Avx512, job: J) {
            job.run(lanes);
        }
        // SAFETY: `self` proves that the processor has these.
        unsafe { run(self, job) }
    }

    #[inline(always)]
    fn zero(self) -> Signed {
        self.avx2().zero()
    }

    #[inline(always)]
    fn sum<const N: usize, const K: usize>(
        self,
        pass: &Pass,
        window: &Window,
        values: &mut [[Signed; N]; K],
    ) {
        match N {
            1 => walk(self.avx2(), pass, window, values),
            2 => self.sum_twins::<1, N, K>(pass, window, values),
            _ => self.sum_twins::<2, N, K>(pass, window, values),
        }
    }

    #[inline(always)]
    fn add_bias(self, x: Signed, bias: i16) -> Signed {
        self.avx2().add_bias(x, bias)
    }

    #[inline(always)]
    fn zero_wide(self) -> Wide {
        self.avx2().zero_wide()
    }

    #[inline(always)]
    fn widen_add(self, wide: Wide, x: Signed) -> Wide {
        self.avx2().widen_add(wide, x)
    }

    #[inline(always)]
    fn narrow(self, wide: Wide, bias: i16) -> Signed {
        self.avx2().narrow(wide, bias)
    }

    #[inline(always)]
    fn relu(self, x: Signed, multiplier: i16, pre_shift: u8, output: &mut [u8; LANE_PIXELS]) {
        self.avx2().relu(x, multiplier, pre_shift, output);
    }

    #[inline(always)]
    fn store(self, x: Signed, output: &mut [i16; LANE_PIXELS]) {
        self.avx2().store(x, output);
    }
}

impl Avx512 {
    /// [`Lanes::sum`] by M twins, which cover the N lanes; an odd one computes a lane too much.
    #[inline(always)]
    fn sum_twins<const M: usize, const N: usize, const K: usize>(
        self,
        pass: &Pass,
        window: &Window,
        values: &mut [[Signed; N]; K],
    ) {
        let mut twins = [[[self.zero(); 2]; M]; K];
        walk(Twin(self), pass, window, &mut twins);
        for (values, twins) in values.iter_mut().zip(&twins) {
            for (value, &lane) in values.iter_mut().zip(twins.as_flattened()) {
                *value = lane;
            }
        }
    }
}

impl Adders for Twin {
    type Value = [Signed; 2];
    type Sum = Sum;
    type Ahead = ();

    #[inline(always)]
    fn zero_sum(self) -> Sum {
        // SAFETY: `self` proves that the processor has AVX-512.
        let zero = unsafe { _mm512_setzero_si512() };
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
                let first = twin(cursor.window, first, i);
                let second = twin(cursor.window, second, i);
                // SAFETY: `self` proves that the processor has AVX-512, and each array is as long as the vector loaded from
                // it, by an instruction that takes any alignment.
                unsafe {
                    let first = _mm512_loadu_si512(first.as_ptr().cast());
                    let second = _mm512_loadu_si512(second.as_ptr().cast());
                    let both = _mm512_add_epi8(first, second);
                    sum.words = _mm512_add_epi16(sum.words, both);
                    sum.odd = _mm512_add_epi16(sum.odd, _mm512_srli_epi16::<8>(both));
                }
            }
        }
    }

    #[inline(always)]
    fn add(self, left: Sum, right: Sum) -> Sum {
        // SAFETY: `self` proves that the processor has AVX-512.
        unsafe {
            Sum {
                words: _mm512_add_epi16(left.words, right.words),
                odd: _mm512_add_epi16(left.odd, right.odd),
            }
        }
    }

    #[inline(always)]
    fn subtract(self, left: Sum, right: Sum) -> Sum {
        // SAFETY: `self` proves that the processor has AVX-512.
        unsafe {
            Sum {
                words: _mm512_sub_epi16(left.words, right.words),
                odd: _mm512_sub_epi16(left.odd, right.odd),
            }
        }
    }

    #[inline(always)]
    fn signed(self, sum: Sum) -> [Signed; 2] {
        // SAFETY: `self` proves that the processor has AVX-512.
        unsafe {
            let even = _mm512_sub_epi16(sum.words, _mm512_slli_epi16::<8>(sum.odd));
            let first = Signed {
                even: _mm512_castsi512_si256(even),
                odd: _mm512_castsi512_si256(sum.odd),
            };
            let second = Signed {
                even: _mm512_extracti64x4_epi64::<1>(even),
                odd: _mm512_extracti64x4_epi64::<1>(sum.odd),
            };
            [first, second]
        }
    }
}

/// The inputs of 64 pixels: two lanes of an item.
#[inline(always)]
fn twin(window: &Window, offset: u16, index: usize) -> &[u8; TWIN_PIXELS] {
    window[usize::from(offset) + index * TWIN_PIXELS..]
        .first_chunk()
        .expect("a window reaches one group beyond the largest offset")
}
