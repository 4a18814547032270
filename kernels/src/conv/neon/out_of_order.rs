//! The inner loop for cores that look for independent instructions themselves: Cortex-A72, A76 and their like.
//!
//! As few instructions as possible: `LDP` loads 32 bytes.
#![expect(unsafe_code, reason = "the inner loop in assembly")]

use std::arch::asm;
use std::num::NonZeroU16;

use super::{Schedule, Sum};
use crate::conv::lanes::{Cursor, Window};
use crate::conv::plan::Pair;
use crate::isa::Neon;

impl Schedule for Neon {
    type Ahead = ();

    #[inline(always)]
    fn load_ahead<const N: usize>(self, _window: &Window, _pairs: &[Pair]) {}

    #[inline(always)]
    fn add_pairs_1(self, running: &mut Sum, cursor: &mut Cursor<'_, ()>, count: NonZeroU16) {
        let window = cursor.window.as_ptr();
        let pairs = cursor.take(count).as_ptr();
        // SAFETY: `self` proves that the processor has NEON. There are `count` pairs, and from each 16-bit offset on a window
        // reaches one group.
        unsafe {
            asm!(
                "2:",
                "ldr {pair:w}, [{pairs}], #4",
                "subs {count:w}, {count:w}, #1",
                "add {first}, {window}, {pair:w}, uxth",
                "add {second}, {window}, {pair:x}, lsr #16",
                "ldp q0, q1, [{first}]",
                "ldp q2, q3, [{second}]",
                "add v0.16b, v0.16b, v2.16b",
                "add v1.16b, v1.16b, v3.16b",
                "uaddw {sum0:v}.8h, {sum0:v}.8h, v0.8b",
                "uaddw2 {sum1:v}.8h, {sum1:v}.8h, v0.16b",
                "uaddw {sum2:v}.8h, {sum2:v}.8h, v1.8b",
                "uaddw2 {sum3:v}.8h, {sum3:v}.8h, v1.16b",
                "b.ne 2b",
                window = in(reg) window,
                pairs = inout(reg) pairs => _,
                count = inout(reg) u32::from(count.get()) => _,
                pair = out(reg) _,
                first = out(reg) _,
                second = out(reg) _,
                sum0 = inout(vreg) running[0],
                sum1 = inout(vreg) running[1],
                sum2 = inout(vreg) running[2],
                sum3 = inout(vreg) running[3],
                out("v0") _,
                out("v1") _,
                out("v2") _,
                out("v3") _,
                options(nostack, readonly),
            );
        }
    }

    #[inline(always)]
    fn add_pairs_2(
        self,
        [one, two]: [&mut Sum; 2],
        cursor: &mut Cursor<'_, ()>,
        count: NonZeroU16,
    ) {
        let window = cursor.window.as_ptr();
        let pairs = cursor.take(count).as_ptr();
        // SAFETY: `self` proves that the processor has NEON. There are `count` pairs, and from each 16-bit offset on a window
        // reaches one group.
        unsafe {
            asm!(
                "2:",
                "ldr {pair:w}, [{pairs}], #4",
                "subs {count:w}, {count:w}, #1",
                "add {first}, {window}, {pair:w}, uxth",
                "add {second}, {window}, {pair:x}, lsr #16",
                "ldp q0, q1, [{first}]",
                "ldp q4, q5, [{second}]",
                "ldp q2, q3, [{first}, #32]",
                "ldp q6, q7, [{second}, #32]",
                "add v0.16b, v0.16b, v4.16b",
                "add v1.16b, v1.16b, v5.16b",
                "add v2.16b, v2.16b, v6.16b",
                "add v3.16b, v3.16b, v7.16b",
                "uaddw {sum0:v}.8h, {sum0:v}.8h, v0.8b",
                "uaddw2 {sum1:v}.8h, {sum1:v}.8h, v0.16b",
                "uaddw {sum2:v}.8h, {sum2:v}.8h, v1.8b",
                "uaddw2 {sum3:v}.8h, {sum3:v}.8h, v1.16b",
                "uaddw {sum4:v}.8h, {sum4:v}.8h, v2.8b",
                "uaddw2 {sum5:v}.8h, {sum5:v}.8h, v2.16b",
                "uaddw {sum6:v}.8h, {sum6:v}.8h, v3.8b",
                "uaddw2 {sum7:v}.8h, {sum7:v}.8h, v3.16b",
                "b.ne 2b",
                window = in(reg) window,
                pairs = inout(reg) pairs => _,
                count = inout(reg) u32::from(count.get()) => _,
                pair = out(reg) _,
                first = out(reg) _,
                second = out(reg) _,
                sum0 = inout(vreg) one[0],
                sum1 = inout(vreg) one[1],
                sum2 = inout(vreg) one[2],
                sum3 = inout(vreg) one[3],
                sum4 = inout(vreg) two[0],
                sum5 = inout(vreg) two[1],
                sum6 = inout(vreg) two[2],
                sum7 = inout(vreg) two[3],
                out("v0") _,
                out("v1") _,
                out("v2") _,
                out("v3") _,
                out("v4") _,
                out("v5") _,
                out("v6") _,
                out("v7") _,
                options(nostack, readonly),
            );
        }
    }
}
