//! The inner loop for cores that take instructions in the order of the program: Cortex-A53, A55 and their like.
//!
//! Such a core starts two instructions a cycle if they fit each other, and a 16-byte load fits nothing for two cycles. So
//! the lower halves are loaded into vector registers, each beside the insertion of an upper half (`INS`) that came through a
//! general register, and that beside an addition. The upper halves belong to the pair after the one that is added: they
//! are there when they are needed.
#![expect(unsafe_code, reason = "the inner loop in assembly")]

use std::arch::asm;
use std::num::NonZeroU16;

use super::{Schedule, Sum, VECTOR_BYTES};
use crate::conv::lanes::{Cursor, LANE_PIXELS, Window};
use crate::conv::plan::{PAIRS_AHEAD, Pair};
use crate::isa::NeonInOrder;

/// Vectors of bytes in a pair of two lanes.
const PAIR_VECTORS: usize = 2 * 2 * LANE_PIXELS / VECTOR_BYTES;

/// What is loaded of the pair to be added next, and the offsets of the pair after it.
#[derive(Clone, Copy)]
pub(in crate::conv) struct Ahead {
    /// As wide as the register that it is in: the upper half of the offsets is taken by shifting all of it.
    pair: u64,
    /// In the window, at the offset of the next pair's first item.
    first: *const u8,
    second: *const u8,
    /// The upper half of each vector.
    high: [u64; PAIR_VECTORS],
}

impl Schedule for NeonInOrder {
    type Ahead = Ahead;

    #[inline(always)]
    fn load_ahead<const N: usize>(self, window: &Window, pairs: &[Pair]) -> Ahead {
        let [first, second] = pairs[0].map(|offset| &window[usize::from(offset)..]);
        let item_vectors = N * LANE_PIXELS / VECTOR_BYTES;
        let mut high = [0; PAIR_VECTORS];
        for i in 0..item_vectors {
            let upper_half = |item: &[u8]| {
                let bytes = &item[i * VECTOR_BYTES + VECTOR_BYTES / 2..];
                u64::from_ne_bytes(*bytes.first_chunk().expect("a window reaches one group on"))
            };
            high[i] = upper_half(first);
            high[item_vectors + i] = upper_half(second);
        }
        let [low, high_half] = pairs[1].map(u64::from);
        Ahead {
            pair: low | high_half << 16,
            first: first.as_ptr(),
            second: second.as_ptr(),
            high,
        }
    }

    #[inline(always)]
    fn add_pairs_1(self, running: &mut Sum, cursor: &mut Cursor<'_, Ahead>, count: NonZeroU16) {
        let window = cursor.window.as_ptr();
        // The first two have begun to load.
        let pairs = cursor.pairs[PAIRS_AHEAD..].as_ptr();
        cursor.take(count);
        let ahead = &mut cursor.ahead;
        // SAFETY: `self` proves that the processor has NEON. There are `count` pairs behind the first two, and from each
        // 16-bit offset on a window reaches one group. `ahead` has pointers of this kind only.
        unsafe {
            asm!(
                "2:",
                "ldr d0, [{first}, #0]",
                "subs {count:w}, {count:w}, #1",
                "ldr d1, [{first}, #16]",
                "ins v0.d[1], {high0}",
                "ldr d2, [{second}, #0]",
                "ins v1.d[1], {high1}",
                "ldr d3, [{second}, #16]",
                "ins v2.d[1], {high2}",
                "ins v3.d[1], {high3}",
                "add {first}, {window}, {pair:w}, uxth",
                "add v0.16b, v0.16b, v2.16b",
                "add {second}, {window}, {pair:x}, lsr #16",
                "add v1.16b, v1.16b, v3.16b",
                "ldr {high0}, [{first}, #8]",
                "uaddw {sum0:v}.8h, {sum0:v}.8h, v0.8b",
                "ldr {high1}, [{first}, #24]",
                "uaddw2 {sum1:v}.8h, {sum1:v}.8h, v0.16b",
                "ldr {high2}, [{second}, #8]",
                "uaddw {sum2:v}.8h, {sum2:v}.8h, v1.8b",
                "ldr {high3}, [{second}, #24]",
                "uaddw2 {sum3:v}.8h, {sum3:v}.8h, v1.16b",
                "ldr {pair:w}, [{pairs}], #4",
                "b.ne 2b",
                window = in(reg) window,
                pairs = inout(reg) pairs => _,
                count = inout(reg) u32::from(count.get()) => _,
                pair = inout(reg) ahead.pair,
                first = inout(reg) ahead.first,
                second = inout(reg) ahead.second,
                high0 = inout(reg) ahead.high[0],
                high1 = inout(reg) ahead.high[1],
                high2 = inout(reg) ahead.high[2],
                high3 = inout(reg) ahead.high[3],
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
        cursor: &mut Cursor<'_, Ahead>,
        count: NonZeroU16,
    ) {
        let window = cursor.window.as_ptr();
        // The first two have begun to load.
        let pairs = cursor.pairs[PAIRS_AHEAD..].as_ptr();
        cursor.take(count);
        let ahead = &mut cursor.ahead;
        // SAFETY: `self` proves that the processor has NEON. There are `count` pairs behind the first two, and from each
        // 16-bit offset on a window reaches one group. `ahead` has pointers of this kind only.
        unsafe {
            asm!(
                "2:",
                "ldr d0, [{first}, #0]",
                "subs {count:w}, {count:w}, #1",
                "ldr d1, [{first}, #16]",
                "ins v0.d[1], {high0}",
                "ldr d2, [{first}, #32]",
                "ins v1.d[1], {high1}",
                "ldr d3, [{first}, #48]",
                "ins v2.d[1], {high2}",
                "ldr d4, [{second}, #0]",
                "ins v3.d[1], {high3}",
                "ldr d5, [{second}, #16]",
                "ins v4.d[1], {high4}",
                "ldr d6, [{second}, #32]",
                "ins v5.d[1], {high5}",
                "ldr d7, [{second}, #48]",
                "ins v6.d[1], {high6}",
                "ins v7.d[1], {high7}",
                "add {first}, {window}, {pair:w}, uxth",
                "add v0.16b, v0.16b, v4.16b",
                "add {second}, {window}, {pair:x}, lsr #16",
                "add v1.16b, v1.16b, v5.16b",
                "ldr {high0}, [{first}, #8]",
                "add v2.16b, v2.16b, v6.16b",
                "ldr {high1}, [{first}, #24]",
                "add v3.16b, v3.16b, v7.16b",
                "ldr {high2}, [{first}, #40]",
                "uaddw {sum0:v}.8h, {sum0:v}.8h, v0.8b",
                "ldr {high3}, [{first}, #56]",
                "uaddw2 {sum1:v}.8h, {sum1:v}.8h, v0.16b",
                "ldr {high4}, [{second}, #8]",
                "uaddw {sum2:v}.8h, {sum2:v}.8h, v1.8b",
                "ldr {high5}, [{second}, #24]",
                "uaddw2 {sum3:v}.8h, {sum3:v}.8h, v1.16b",
                "ldr {high6}, [{second}, #40]",
                "uaddw {sum4:v}.8h, {sum4:v}.8h, v2.8b",
                "ldr {high7}, [{second}, #56]",
                "uaddw2 {sum5:v}.8h, {sum5:v}.8h, v2.16b",
                "ldr {pair:w}, [{pairs}], #4",
                "uaddw {sum6:v}.8h, {sum6:v}.8h, v3.8b",
                "uaddw2 {sum7:v}.8h, {sum7:v}.8h, v3.16b",
                "b.ne 2b",
                window = in(reg) window,
                pairs = inout(reg) pairs => _,
                count = inout(reg) u32::from(count.get()) => _,
                pair = inout(reg) ahead.pair,
                first = inout(reg) ahead.first,
                second = inout(reg) ahead.second,
                high0 = inout(reg) ahead.high[0],
                high1 = inout(reg) ahead.high[1],
                high2 = inout(reg) ahead.high[2],
                high3 = inout(reg) ahead.high[3],
                high4 = inout(reg) ahead.high[4],
                high5 = inout(reg) ahead.high[5],
                high6 = inout(reg) ahead.high[6],
                high7 = inout(reg) ahead.high[7],
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
