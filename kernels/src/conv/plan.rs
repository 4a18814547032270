//! Pattern-sorted ternary accumulation: the weights of a convolution as lists of what to add, built once at load.
//!
//! A *block* is up to three output channels. Each *item*, an input channel with a tap, has one weight in each of them,
//! together a ternary pattern; items whose pattern is all zero are dropped. The patterns are walked in reflected Gray
//! order, in which neighbours differ in one weight by one:
//!
//! ```text
//! channel 0: - 0 + + 0 - - 0 +      sum_j = sum over patterns p of weight_j(p) * (sum of the items of p)
//! channel 1: - - - 0 0 0 + + +            = weight_j(last) * R(last) - sum over borders of change_j * R(border)
//! ```
//! where R is the running sum of all items so far (summation by parts). One pass of additions over the items thus serves
//! all channels of the block, and a border between two patterns costs one more addition, to one channel.
//!
//! The sums are taken modulo 2^16. They are exact for the items of one *pass*, of which no channel adds or subtracts more
//! than [`PASS_ITEMS_MAX`]; a block with more is cut into several passes whose results are added in 32 bits.

use std::num::NonZeroU16;

use super::Shape;
use super::tiling::{Tiling, ZERO_OFFSET};
use crate::Trit;
use crate::requantize::ACTIVATION_MAX;

/// Most channels in a block: 27 patterns. With four, the 80 borders would cost more than the additions saved.
pub(super) const BLOCK_CHANNELS_MAX: usize = 3;

/// Pairs that may be loaded before they are added: so many more follow the last one.
pub(super) const PAIRS_AHEAD: usize = 2;

/// Most items that a channel may add, or subtract, in one pass: their exact sum still fits in 16 signed bits.
const PASS_ITEMS_MAX: usize = i16::MAX as usize / ACTIVATION_MAX as usize;

/// What a border costs, compared with adding one pair of items: an addition and now and then a mispredicted branch.
const BORDER_COST: usize = 2;

/// What each pass costs besides, compared with adding one pair of items.
const PASS_COST: usize = 4;

/// Two items: the offsets of their inputs in the window.
pub(super) type Pair = [u16; 2];

/// The weights of a convolution.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// In the order of the output channels.
    pub(super) blocks: Vec<Block>,
}

/// Neighbouring output channels that share their additions.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) first_channel: usize,
    /// `1..=BLOCK_CHANNELS_MAX`.
    pub(super) channel_count: usize,
    /// At least one.
    pub(super) passes: Vec<Pass>,
}

/// Items whose sums are exact in 16 bits, and which lie in one window. Assembly walks over it without a test: what
/// [`Pass::new`] has checked stays so.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    window_start: usize,
    pair_counts: Vec<NonZeroU16>,
    pairs: Vec<Pair>,
}

/// The items of one window, in the order of the weights.
struct WindowItems {
    /// First byte of the window in the scratch.
    window_start: usize,
    first_item: usize,
    /// Where in the window the input of each item lies.
    offsets: Vec<u16>,
}

impl Pass {
    /// Of so many channels.
    ///
    /// # Panics
    /// If the counts are not those of the channels' patterns and of the pairs.
    fn new(
        channel_count: usize,
        window_start: usize,
        pair_counts: Vec<NonZeroU16>,
        pairs: Vec<Pair>,
    ) -> Self {
        assert_eq!(pair_counts.len(), counts_len(channel_count), "patterns");
        let counted: usize = pair_counts
            .iter()
            .map(|count| usize::from(count.get()))
            .sum();
        assert_eq!(pairs.len(), counted + PAIRS_AHEAD, "pairs");
        Self {
            window_start,
            pair_counts,
            pairs,
        }
    }

    /// First byte of the window in the scratch.
    #[inline(always)]
    pub(super) fn window_start(&self) -> usize {
        self.window_start
    }

    /// One a pattern, but for the pattern of zeros: [`counts_len`]. None is zero, so that the loop over pairs tests its end
    /// only.
    #[inline(always)]
    pub(super) fn pair_counts(&self) -> &[NonZeroU16] {
        &self.pair_counts
    }

    /// The pairs of all patterns, as many as the counts add up to, and [`PAIRS_AHEAD`] more.
    #[inline(always)]
    pub(super) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }
}

/// Counts of pairs in a pass of so many channels.
pub(super) const fn counts_len(channel_count: usize) -> usize {
    3_usize.pow(channel_count as u32) - 1
}

impl Plan {
    /// Builds the plan with the size of blocks that costs least for these weights.
    pub(super) fn new(shape: &Shape, weights: &[Trit], tiling: &Tiling) -> Self {
        let windows = window_items(shape.kernel(), tiling);
        (1..=BLOCK_CHANNELS_MAX)
            .map(|channels| Self::with_block_channels(channels, shape, weights, &windows))
            .min_by_key(Self::cost)
            .expect("there is at least one size of blocks")
    }

    fn with_block_channels(
        block_channels: usize,
        shape: &Shape,
        weights: &[Trit],
        windows: &[WindowItems],
    ) -> Self {
        let channels: Vec<_> = weights.chunks_exact(shape.items_len()).collect();
        let block_count = channels.len().div_ceil(block_channels);
        // As even as it goes: a block of one channel after blocks of three would be the dearest.
        let bound = |block: usize| block * channels.len() / block_count;
        let blocks = (0..block_count).map(|block| {
            let channels = &channels[bound(block)..bound(block + 1)];
            Block {
                first_channel: bound(block),
                channel_count: channels.len(),
                passes: passes(channels, windows),
            }
        });
        Self {
            blocks: blocks.collect(),
        }
    }

    /// Time of a run, in additions of a pair to each lane.
    pub(super) fn cost(&self) -> usize {
        let passes = self.blocks.iter().flat_map(|block| &block.passes);
        passes
            .map(|pass| pass.pairs.len() + BORDER_COST * pass.pair_counts.len() + PASS_COST)
            .sum()
    }
}

/// All items, by window.
fn window_items(kernel: usize, tiling: &Tiling) -> Vec<WindowItems> {
    let taps = kernel * kernel;
    let windows = tiling.windows().map(|(window_start, channels)| {
        let first_item = channels.start * taps;
        let items = first_item..channels.end * taps;
        let offsets = items
            .map(|item| tiling.item_offset(item / taps, item % taps / kernel, item % kernel))
            .collect();
        WindowItems {
            window_start,
            first_item,
            offsets,
        }
    });
    windows.collect()
}

/// Cuts the items of a block into passes. `channels` are the weights of each channel.
fn passes(channels: &[&[Trit]], windows: &[WindowItems]) -> Vec<Pass> {
    let mut pattern = [Trit::Zero; BLOCK_CHANNELS_MAX];
    let pattern = &mut pattern[..channels.len()];
    let mut passes = Vec::new();
    for window in windows {
        let mut builder = PassBuilder::new(channels.len());
        for (item, &offset) in (window.first_item..).zip(&window.offsets) {
            for (weight, weights) in pattern.iter_mut().zip(channels) {
                *weight = weights[item];
            }
            if !builder.has_room_for(pattern) {
                passes.push(builder.finish(window.window_start));
                builder = PassBuilder::new(channels.len());
            }
            builder.push(pattern, offset);
        }
        if !builder.is_empty() || passes.is_empty() {
            passes.push(builder.finish(window.window_start));
        }
    }
    passes
}

/// Collects the items of one pass.
struct PassBuilder {
    channel_count: usize,
    /// The offsets of the items of each pattern, in Gray order.
    offsets: Vec<Vec<u16>>,
    /// How many items each channel adds, and subtracts.
    side_items: [usize; 2 * BLOCK_CHANNELS_MAX],
}

impl PassBuilder {
    fn new(channel_count: usize) -> Self {
        Self {
            channel_count,
            offsets: vec![Vec::new(); counts_len(channel_count) + 1],
            side_items: [0; 2 * BLOCK_CHANNELS_MAX],
        }
    }

    fn is_empty(&self) -> bool {
        self.offsets.iter().all(Vec::is_empty)
    }

    /// Whether the sums stay exact with one more item.
    fn has_room_for(&self, pattern: &[Trit]) -> bool {
        sides(pattern).all(|side| self.side_items[side] < PASS_ITEMS_MAX)
    }

    fn push(&mut self, pattern: &[Trit], offset: u16) {
        for side in sides(pattern) {
            self.side_items[side] += 1;
        }
        if pattern.iter().any(|&weight| weight != Trit::Zero) {
            self.offsets[gray_rank(pattern)].push(offset);
        }
    }

    fn finish(self, window_start: usize) -> Pass {
        assert!(
            self.side_items.iter().all(|&items| items <= PASS_ITEMS_MAX),
            "a channel could leave 16 bits: {:?} items",
            self.side_items
        );
        let mut pair_counts = Vec::new();
        let mut pairs = Vec::new();
        for (rank, offsets) in self.offsets.iter().enumerate() {
            // The middle of an odd number of patterns is the pattern of zeros.
            if rank == self.offsets.len() / 2 {
                continue;
            }
            // There is at least one pair, and an odd last item is paired with zeros.
            let pair_count = offsets.len().div_ceil(2).max(1);
            let mut offsets = offsets.iter().copied();
            pairs.extend((0..pair_count).map(|_| {
                [offsets.next(), offsets.next()].map(|offset| offset.unwrap_or(ZERO_OFFSET))
            }));
            let pair_count = u16::try_from(pair_count).ok().and_then(NonZeroU16::new);
            pair_counts.push(pair_count.expect("a window has fewer items than 16-bit offsets"));
        }
        pairs.extend([[ZERO_OFFSET; 2]; PAIRS_AHEAD]);
        Pass::new(self.channel_count, window_start, pair_counts, pairs)
    }
}

/// What an item of this pattern counts for: the channels that add it, and those that subtract it, in this order.
fn sides(pattern: &[Trit]) -> impl Iterator<Item = usize> {
    let side = |(channel, &weight): (usize, &Trit)| match weight {
        Trit::Minus => Some(2 * channel + 1),
        Trit::Zero => None,
        Trit::Plus => Some(2 * channel),
    };
    pattern.iter().enumerate().filter_map(side)
}

/// The place of a pattern in reflected Gray order, from all minus to all plus. The first channel changes fastest.
fn gray_rank(pattern: &[Trit]) -> usize {
    let [fastest, slower @ ..] = pattern else {
        return 0;
    };
    let slower_rank = gray_rank(slower);
    let digit = (fastest.value() + 1) as usize;
    slower_rank * 3
        + if slower_rank.is_multiple_of(2) {
            digit
        } else {
            2 - digit
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All patterns of so many channels in reflected Gray order, from all minus to all plus.
    fn gray_patterns(channel_count: usize) -> Vec<Vec<Trit>> {
        let Some(slower_count) = channel_count.checked_sub(1) else {
            return vec![Vec::new()];
        };
        let mut patterns = Vec::new();
        for (index, slower) in gray_patterns(slower_count).into_iter().enumerate() {
            let mut fastest = Trit::ALL;
            if index % 2 == 1 {
                fastest.reverse();
            }
            patterns.extend(fastest.map(|weight| [&[weight], slower.as_slice()].concat()));
        }
        patterns
    }

    #[test]
    fn neighbouring_patterns_differ_in_one_weight_by_one() {
        for channel_count in 1..=BLOCK_CHANNELS_MAX {
            let patterns = gray_patterns(channel_count);
            assert_eq!(patterns.len(), 3_usize.pow(channel_count as u32));
            assert!(patterns[0].iter().all(|&weight| weight == Trit::Minus));
            let last = &patterns[patterns.len() - 1];
            assert!(last.iter().all(|&weight| weight == Trit::Plus));
            for neighbours in patterns.windows(2) {
                let weights = neighbours[0].iter().zip(&neighbours[1]);
                let change: i32 = weights.map(|(a, b)| (a.value() - b.value()).abs()).sum();
                assert_eq!(change, 1, "{neighbours:?}");
            }
        }
    }

    #[test]
    fn the_rank_is_the_place_in_the_order() {
        for channel_count in 1..=BLOCK_CHANNELS_MAX {
            for (rank, pattern) in gray_patterns(channel_count).iter().enumerate() {
                assert_eq!(gray_rank(pattern), rank, "{pattern:?}");
            }
        }
    }

    #[test]
    fn no_pass_can_leave_16_bits() {
        let largest = PASS_ITEMS_MAX * usize::from(ACTIVATION_MAX);
        assert!(largest <= i16::MAX as usize);
        let shape = Shape::new(1024, 3, 3, 1, 9, 9).unwrap();
        let mut weights = vec![Trit::Plus; shape.items_len()];
        weights.extend(vec![Trit::Minus; shape.items_len()]);
        weights.extend((0..shape.items_len()).map(|item| Trit::ALL[item % 3]));
        let plan = Plan::new(&shape, &weights, &Tiling::new(&shape));
        for block in &plan.blocks {
            for pass in &block.passes {
                // Only the third channel has zeros, and never three of them in a row.
                assert!(pass.pairs.len() <= PASS_ITEMS_MAX);
            }
            let items: usize = block.passes.iter().map(|pass| pass.pairs.len()).sum();
            assert!(2 * items >= shape.items_len() * 2 / 3);
        }
    }
}
