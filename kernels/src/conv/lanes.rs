//! What the convolution asks of an instruction set: a few operations on 32 neighbouring pixels.
//!
//! An implementor is a token of [`crate::isa`]. Owning one proves that the processor has the instructions, so that all
//! operations here are safe to call, and the plan, the tiling and the loops are written once, in safe Rust.

use super::run::{Finish, Task};

/// Pixels that one operation works on.
pub(super) const LANE_PIXELS: usize = 32;

/// Operations on [`LANE_PIXELS`] pixels.
///
/// Implementations mark every operation `#[inline(always)]`: only code that is inlined below [`Lanes::enter`] is
/// compiled for the instruction set.
pub(super) trait Lanes: Copy {
    /// Unsigned sums modulo 2^16, in whichever order and encoding is linear and cheap.
    type Sum: Copy;
    /// Exact 16-bit values, in whichever order.
    type Signed: Copy;
    /// Exact 32-bit values, in whichever order.
    type Wide: Copy;

    /// Calls [`Task::run`] from a function that is compiled for this instruction set.
    fn enter<F: Finish>(self, task: Task<'_, F>);

    /// Sums of zero.
    fn zero(self) -> Self::Sum;

    /// `sum + first + second`. The bytes are u7, so that a byte holds the sum of two.
    fn add_pair(
        self,
        sum: Self::Sum,
        first: &[u8; LANE_PIXELS],
        second: &[u8; LANE_PIXELS],
    ) -> Self::Sum;

    /// `left + right`.
    fn add(self, left: Self::Sum, right: Self::Sum) -> Self::Sum;

    /// `plus - minus`, where the caller knows that the true difference fits in 16 signed bits.
    fn difference(self, plus: Self::Sum, minus: Self::Sum) -> Self::Signed;

    /// `sat_i16(x + bias)`.
    fn add_bias(self, x: Self::Signed, bias: i16) -> Self::Signed;

    /// Wide values of zero.
    fn zero_wide(self) -> Self::Wide;

    /// `wide + x`.
    fn widen_add(self, wide: Self::Wide, x: Self::Signed) -> Self::Wide;

    /// `sat_i16(wide + bias)`.
    fn narrow(self, wide: Self::Wide, bias: i16) -> Self::Signed;

    /// [`crate::requantize::relu`], in the order of the pixels.
    fn relu(self, x: Self::Signed, multiplier: i16, pre_shift: u8, output: &mut [u8; LANE_PIXELS]);

    /// The values themselves, in the order of the pixels.
    fn store(self, x: Self::Signed, output: &mut [i16; LANE_PIXELS]);
}
