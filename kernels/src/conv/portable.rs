//! [`Lanes`] in plain Rust, which the compiler vectorizes with what the target always has.

use std::array;
use std::num::NonZeroU16;

use super::lanes::{Adders, Cursor, Job, LANE_PIXELS, Lanes, Window, lane};
use super::plan::{Pair, Pass};
use super::walk::walk;
use crate::isa::Portable;
use crate::requantize::{relu, saturate_i16};

impl Lanes for Portable {
    const GROUP_LANES: usize = 2;

    type Signed = [i16; LANE_PIXELS];
    type Wide = [i32; LANE_PIXELS];

    fn enter<J: Job<Self>>(self, job: J) {
        job.run(self);
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
    fn add_bias(self, x: Self::Signed, bias: i16) -> Self::Signed {
        x.map(|x| x.saturating_add(bias))
    }

    #[inline(always)]
    fn zero_wide(self) -> Self::Wide {
        [0; LANE_PIXELS]
    }

    #[inline(always)]
    fn widen_add(self, wide: Self::Wide, x: Self::Signed) -> Self::Wide {
        array::from_fn(|i| wide[i] + i32::from(x[i]))
    }

    #[inline(always)]
    fn narrow(self, wide: Self::Wide, bias: i16) -> Self::Signed {
        wide.map(|wide| saturate_i16(wide + i32::from(bias)))
    }

    #[inline(always)]
    fn relu(self, x: Self::Signed, multiplier: i16, pre_shift: u8, output: &mut [u8; LANE_PIXELS]) {
        *output = x.map(|x| relu(x, multiplier, pre_shift));
    }

    #[inline(always)]
    fn store(self, x: Self::Signed, output: &mut [i16; LANE_PIXELS]) {
        *output = x;
    }
}

impl Adders for Portable {
    type Value = [i16; LANE_PIXELS];
    type Sum = [u16; LANE_PIXELS];
    type Ahead = ();

    #[inline(always)]
    fn zero_sum(self) -> Self::Sum {
        [0; LANE_PIXELS]
    }

    #[inline(always)]
    fn load_ahead<const N: usize>(self, _window: &Window, _pairs: &[Pair]) {}

    #[inline(always)]
    fn add_pairs<const N: usize>(
        self,
        running: &mut [Self::Sum; N],
        cursor: &mut Cursor<'_, ()>,
        count: NonZeroU16,
    ) {
        for &[first, second] in cursor.take(count) {
            for (i, sum) in running.iter_mut().enumerate() {
                let first = lane(cursor.window, first, i);
                let second = lane(cursor.window, second, i);
                for ((sum, &first), &second) in sum.iter_mut().zip(first).zip(second) {
                    *sum = sum.wrapping_add(u16::from(first.wrapping_add(second)));
                }
            }
        }
    }

    #[inline(always)]
    fn add(self, left: Self::Sum, right: Self::Sum) -> Self::Sum {
        array::from_fn(|i| left[i].wrapping_add(right[i]))
    }

    #[inline(always)]
    fn subtract(self, left: Self::Sum, right: Self::Sum) -> Self::Sum {
        array::from_fn(|i| left[i].wrapping_sub(right[i]))
    }

    #[inline(always)]
    fn signed(self, sum: Self::Sum) -> Self::Value {
        sum.map(u16::cast_signed)
    }
}
