//! What the convolution asks of an instruction set: a few operations on 32 neighbouring pixels.
//!
//! An implementor is a token of [`crate::isa`]. Owning one proves that the processor has the instructions, so that all
//! operations here are safe to call, and the plan, the tiling and the loops are written once, in safe Rust.

use std::num::NonZeroU16;

use super::plan::{PAIRS_AHEAD, Pair, Pass};
use super::tiling::WINDOW_LEN;

/// Pixels that one operation works on.
pub(super) const LANE_PIXELS: usize = 32;

/// What a group can reach of the scratch.
pub(super) type Window = [u8; WINDOW_LEN];

/// Work that is compiled for an instruction set, by [`Lanes::enter`].
pub(super) trait Job<L> {
    /// To be marked `#[inline(always)]`.
    fn run(self, lanes: L);
}

/// How far the additions of a pass have come.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a, A> {
    pub(super) window: &'a Window,
    /// The pairs that are still to be added, and [`PAIRS_AHEAD`] more.
    pub(super) pairs: &'a [Pair],
    #[cfg_attr(
        not(target_arch = "aarch64"),
        expect(
            dead_code,
            reason = "only cores without an order of their own load ahead"
        )
    )]
    pub(super) ahead: A,
}

impl<'a, A> Cursor<'a, A> {
    /// The next `count` pairs, of which all are followed by [`PAIRS_AHEAD`] that may be loaded.
    #[inline(always)]
    pub(super) fn take(&mut self, count: NonZeroU16) -> &'a [Pair] {
        let (now, later) = self.pairs.split_at(usize::from(count.get()));
        assert!(
            later.len() >= PAIRS_AHEAD,
            "a pass ends with pairs to load ahead"
        );
        self.pairs = later;
        now
    }
}

/// Operations on [`LANE_PIXELS`] pixels.
///
/// Implementations mark every operation `#[inline(always)]`: only code that is inlined below [`Lanes::enter`] is
/// compiled for the instruction set.
pub(super) trait Lanes: Copy + Send + Sync {
    /// How many lanes are computed together, as many as registers allow: at most
    /// [`super::tiling::GROUP_LANES_MAX`].
    const GROUP_LANES: usize;

    /// Exact 16-bit values, in whichever order.
    type Signed: Copy;
    /// Exact 32-bit values, in whichever order.
    type Wide: Copy;

    /// Calls [`Job::run`] from a function that is compiled for this instruction set.
    fn enter<J: Job<Self>>(self, job: J);

    /// Values of zero.
    fn zero(self) -> Self::Signed;

    /// Fills `values` with the sums of a pass, N lanes of each of its K channels, the inputs of which lie one behind the
    /// other. The bytes are u7, so that a byte holds the sum of two; the caller knows that the true sums fit in 16 signed
    /// bits.
    fn sum<const N: usize, const K: usize>(
        self,
        pass: &Pass,
        window: &Window,
        values: &mut [[Self::Signed; N]; K],
    );

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

    /// Copies the first byte of each pair. `bytes` is as long as `pairs`.
    fn copy_first_of_pairs(self, pairs: &[[u8; 2]], bytes: &mut [u8]) {
        copy_first_of_pairs(pairs, bytes);
    }
}

/// What [`super::walk`] makes [`Lanes::sum`] of: operations on one lane, or on several at once. Implementations mark every
/// operation `#[inline(always)]`.
pub(super) trait Adders: Copy {
    /// Exact 16-bit values, in whichever order.
    type Value: Copy;
    /// Unsigned sums modulo 2^16, in whichever order and encoding is linear and cheap.
    type Sum: Copy;
    /// What is loaded before it is added.
    type Ahead: Copy;

    /// Sums of zero.
    fn zero_sum(self) -> Self::Sum;

    /// What [`Adders::add_pairs`] expects to be loaded of the first pairs. There are at least [`PAIRS_AHEAD`].
    fn load_ahead<const N: usize>(self, window: &Window, pairs: &[Pair]) -> Self::Ahead;

    /// Adds the inputs of the next `count` pairs of items: of N lanes, which lie one behind the other.
    fn add_pairs<const N: usize>(
        self,
        running: &mut [Self::Sum; N],
        cursor: &mut Cursor<'_, Self::Ahead>,
        count: NonZeroU16,
    );

    /// `left + right`.
    fn add(self, left: Self::Sum, right: Self::Sum) -> Self::Sum;

    /// `left - right`.
    fn subtract(self, left: Self::Sum, right: Self::Sum) -> Self::Sum;

    /// The sums as numbers, where the caller knows that the true ones fit in 16 signed bits.
    fn signed(self, sum: Self::Sum) -> Self::Value;
}

/// The inputs of 32 pixels: lane `index` of an item.
#[inline(always)]
pub(super) fn lane(window: &Window, offset: u16, index: usize) -> &[u8; LANE_PIXELS] {
    window[usize::from(offset) + index * LANE_PIXELS..]
        .first_chunk()
        .expect("a window reaches one group beyond the largest offset")
}

/// Pairs that are halved at once.
pub(super) const PAIR_CHUNK: usize = 16;

/// [`Lanes::copy_first_of_pairs`] in plain Rust.
pub(super) fn copy_first_of_pairs(pairs: &[[u8; 2]], bytes: &mut [u8]) {
    // Written so that the compiler narrows vectors of words instead of picking bytes.
    let first = |pair: [u8; 2]| u16::from_le_bytes(pair) as u8;
    let (chunks, rest) = bytes.as_chunks_mut::<PAIR_CHUNK>();
    for (chunk, pairs) in chunks.iter_mut().zip(pairs.as_chunks::<PAIR_CHUNK>().0) {
        *chunk = pairs.map(first);
    }
    if rest.is_empty() {
        return;
    }
    // The last whole chunk overlaps the one before.
    if let (Some(chunk), Some(pairs)) = (bytes.last_chunk_mut::<PAIR_CHUNK>(), pairs.last_chunk()) {
        *chunk = <[[u8; 2]; PAIR_CHUNK]>::map(*pairs, first);
        return;
    }
    for (byte, &pair) in bytes.iter_mut().zip(pairs) {
        *byte = first(pair);
    }
}
