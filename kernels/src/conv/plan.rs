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

/// Partial sums of a block: one of what is added and one of what is subtracted for each channel, and the total.
pub(super) const SLOTS_MAX: usize = 2 * BLOCK_CHANNELS_MAX + 1;

/// The slot of the sum of all items, which every channel adds: the last pattern is all plus.
pub(super) const TOTAL_SLOT: usize = 2 * BLOCK_CHANNELS_MAX;

/// Most items that a channel may add, or subtract, in one pass: their exact sum still fits in 16 signed bits.
const PASS_ITEMS_MAX: usize = i16::MAX as usize / ACTIVATION_MAX as usize;

/// What a border costs compared with adding one pair of items: the addition to memory and a mispredicted branch.
const BORDER_COST: usize = 2;

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

/// Items whose sums are exact in 16 bits, and which lie in one window.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// First byte of the window in the scratch.
    pub(super) window_start: usize,
    /// One a pattern.
    pub(super) segments: Vec<Segment>,
    /// The pairs of all segments.
    pub(super) pairs: Vec<Pair>,
}

/// Adds items to the running sum, and then the running sum to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Not zero, so that the loop over the pairs tests its end only, which also allocates registers better.
    pub(super) pair_count: NonZeroU16,
    pub(super) slot: u8,
}

/// The slot of what a channel adds.
pub(super) const fn plus_slot(channel: usize) -> usize {
    2 * channel
}

/// The slot of what a channel subtracts.
pub(super) const fn minus_slot(channel: usize) -> usize {
    2 * channel + 1
}

/// The items of one window, in the order of the weights.
struct WindowItems {
    /// First byte of the window in the scratch.
    window_start: usize,
    first_item: usize,
    /// Where in the window the input of each item lies.
    offsets: Vec<u16>,
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
        let block_weights = weights.chunks(block_channels * shape.items_len());
        let blocks = block_weights.enumerate().map(|(index, weights)| {
            let channels: Vec<_> = weights.chunks_exact(shape.items_len()).collect();
            Block {
                first_channel: index * block_channels,
                channel_count: channels.len(),
                passes: passes(&channels, windows),
            }
        });
        Self {
            blocks: blocks.collect(),
        }
    }

    /// Time of a run, in additions of a pair.
    fn cost(&self) -> usize {
        let passes = self.blocks.iter().flat_map(|block| &block.passes);
        passes
            .map(|pass| pass.pairs.len() + BORDER_COST * pass.segments.len())
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
    /// All patterns in Gray order.
    patterns: Vec<Vec<Trit>>,
    /// The offsets of the items of each pattern.
    offsets: Vec<Vec<u16>>,
    /// How many items each slot counts.
    slot_items: [usize; SLOTS_MAX],
}

impl PassBuilder {
    fn new(channel_count: usize) -> Self {
        let patterns = gray_patterns(channel_count);
        Self {
            offsets: vec![Vec::new(); patterns.len()],
            patterns,
            slot_items: [0; SLOTS_MAX],
        }
    }

    fn is_empty(&self) -> bool {
        self.offsets.iter().all(Vec::is_empty)
    }

    /// Whether the sums stay exact with one more item.
    fn has_room_for(&self, pattern: &[Trit]) -> bool {
        slots(pattern).all(|slot| self.slot_items[slot] < PASS_ITEMS_MAX)
    }

    fn push(&mut self, pattern: &[Trit], offset: u16) {
        for slot in slots(pattern) {
            self.slot_items[slot] += 1;
        }
        if pattern.iter().any(|&weight| weight != Trit::Zero) {
            self.offsets[gray_rank(pattern)].push(offset);
        }
    }

    fn finish(self, window_start: usize) -> Pass {
        let mut segments = Vec::new();
        let mut pairs = Vec::new();
        for (rank, offsets) in self.offsets.iter().enumerate() {
            // A segment has at least one pair, and an odd last item is paired with zeros.
            let pair_count = offsets.len().div_ceil(2).max(1);
            let mut offsets = offsets.iter().copied();
            pairs.extend((0..pair_count).map(|_| {
                [offsets.next(), offsets.next()].map(|offset| offset.unwrap_or(ZERO_OFFSET))
            }));
            segments.push(Segment {
                pair_count: u16::try_from(pair_count)
                    .ok()
                    .and_then(NonZeroU16::new)
                    .expect("a window has fewer items than 16-bit offsets"),
                slot: self.slot_after(rank),
            });
        }
        Pass {
            window_start,
            segments,
            pairs,
        }
    }

    /// The slot that takes the running sum when the items of a pattern have been added: that of the channel whose weight
    /// changes, with the sign turned.
    fn slot_after(&self, rank: usize) -> u8 {
        let Some(next) = self.patterns.get(rank + 1) else {
            return TOTAL_SLOT as u8;
        };
        let mut weights = self.patterns[rank].iter().zip(next);
        let channel = weights
            .position(|(weight, next)| weight != next)
            .expect("neighbouring patterns differ");
        let slot = if next[channel] > self.patterns[rank][channel] {
            minus_slot(channel)
        } else {
            plus_slot(channel)
        };
        slot as u8
    }
}

/// The slots that an item of this pattern counts for.
fn slots(pattern: &[Trit]) -> impl Iterator<Item = usize> {
    let slot = |(channel, &weight): (usize, &Trit)| match weight {
        Trit::Minus => Some(minus_slot(channel)),
        Trit::Zero => None,
        Trit::Plus => Some(plus_slot(channel)),
    };
    pattern.iter().enumerate().filter_map(slot)
}

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

/// The place of a pattern in [`gray_patterns`].
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
