//! [`Lanes`] in plain Rust, which the compiler vectorizes with what the target always has.

use std::array;

use super::lanes::{LANE_PIXELS, Lanes};
use super::run::{Finish, Task};
use crate::isa::Portable;
use crate::requantize::{relu, saturate_i16};

impl Lanes for Portable {
    type Sum = [u16; LANE_PIXELS];
    type Signed = [i16; LANE_PIXELS];
    type Wide = [i32; LANE_PIXELS];

    fn enter<F: Finish>(self, task: Task<'_, F>) {
        task.run(self);
    }

    #[inline(always)]
    fn zero(self) -> Self::Sum {
        [0; LANE_PIXELS]
    }

    #[inline(always)]
    fn add_pair(
        self,
        mut sum: Self::Sum,
        first: &[u8; LANE_PIXELS],
        second: &[u8; LANE_PIXELS],
    ) -> Self::Sum {
        for ((sum, &first), &second) in sum.iter_mut().zip(first).zip(second) {
            *sum = sum.wrapping_add(u16::from(first.wrapping_add(second)));
        }
        sum
    }

    #[inline(always)]
    fn add(self, left: Self::Sum, right: Self::Sum) -> Self::Sum {
        array::from_fn(|i| left[i].wrapping_add(right[i]))
    }

    #[inline(always)]
    fn difference(self, plus: Self::Sum, minus: Self::Sum) -> Self::Signed {
        array::from_fn(|i| plus[i].wrapping_sub(minus[i]).cast_signed())
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
