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
use std::ops::Range;

use super::Shape;
use super::grouping::{Used, neighbours};
use super::tiling::{Tiling, ZERO_OFFSET};
use crate::Trit;
use crate::requantize::ACTIVATION_MAX;

/// Most channels in a block: 27 patterns. With four, the 80 borders would cost more than the additions saved.
pub(super) const BLOCK_CHANNELS_MAX: usize = 3;

/// Patterns of a block, at most.
const PATTERNS_MAX: usize = counts_len(BLOCK_CHANNELS_MAX) + 1;

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
    /// Every output channel is in one of them.
    pub(super) blocks: Box<[Block]>,
    cost: usize,
}

/// Output channels that share their additions.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// `1..=BLOCK_CHANNELS_MAX` of them.
    pub(super) channels: Box<[usize]>,
    /// At least one.
    pub(super) passes: Box<[Pass]>,
}

/// Items whose sums are exact in 16 bits, and which lie in one window. Assembly walks over it without a test: what
/// [`Pass::new`] has checked stays so.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    window_start: usize,
    pair_counts: Box<[NonZeroU16]>,
    pairs: Box<[Pair]>,
}

impl Pass {
    /// # Panics
    /// If the counts are not those of the patterns of a block and of the pairs.
    fn new(window_start: usize, pair_counts: Box<[NonZeroU16]>, pairs: Box<[Pair]>) -> Self {
        let is_counts_len = |channel_count| pair_counts.len() == counts_len(channel_count);
        assert!((1..=BLOCK_CHANNELS_MAX).any(is_counts_len), "patterns");
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
    /// Builds the plan with the size of blocks that costs least for these weights if neighbours share them, and with other
    /// channels together where these cost less. Sizes are not compared again with these: the estimate tells blocks of one
    /// size apart better than it tells sizes.
    pub(super) fn new(shape: &Shape, weights: &[Trit], tiling: &Tiling) -> Self {
        let layer = Layer::new(shape, weights, tiling);
        let cost = |groups: &Vec<_>| layer.cost(groups);
        let of_size = |block_channels| {
            let blocks = neighbours(layer.channels.len(), block_channels);
            blocks.map(Iterator::collect).collect()
        };
        let size = (1..=BLOCK_CHANNELS_MAX)
            .min_by_key(|&size| cost(&of_size(size)))
            .expect("there is at least one size of blocks");
        let neighbours = of_size(size);
        let grouped = Used::new(layer.channels.iter().copied()).groups(size);
        if cost(&grouped) < cost(&neighbours) {
            layer.plan(&grouped)
        } else {
            layer.plan(&neighbours)
        }
    }

    /// Time of a run, in additions of a pair to each lane.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }
}

/// What plans are made of.
struct Layer<'w> {
    /// The weights of each output channel.
    channels: Vec<&'w [Trit]>,
    windows: Vec<WindowItems>,
    /// The patterns of one channel, of two and of three, by their code.
    patterns: [Vec<Pattern>; BLOCK_CHANNELS_MAX],
}

/// The items of one window, in the order of the weights.
struct WindowItems {
    /// First byte of the window in the scratch.
    window_start: usize,
    items: Range<usize>,
    /// Where in the window the input of each item lies.
    offsets: Vec<u16>,
}

/// The weights that an item may have.
struct Pattern {
    /// Its place in Gray order.
    rank: usize,
    /// 1 for each channel that adds the item, then 1 for each that subtracts it.
    sides: Sides,
}

/// How many items each channel adds, and subtracts.
type Sides = [usize; 2 * BLOCK_CHANNELS_MAX];

/// Neighbouring items of a window that are one pass.
struct PassItems<'l> {
    window: &'l WindowItems,
    items: Range<usize>,
    /// How many of them have each pattern, in Gray order.
    counts: Vec<usize>,
    sides: Sides,
}

impl<'w> Layer<'w> {
    fn new(shape: &Shape, weights: &'w [Trit], tiling: &Tiling) -> Self {
        Self {
            channels: weights.chunks_exact(shape.items_len()).collect(),
            windows: window_items(shape.kernel(), tiling),
            patterns: [1, 2, 3].map(patterns),
        }
    }

    /// Of a plan with these blocks.
    fn cost(&self, groups: &[Vec<usize>]) -> usize {
        let blocks = groups.iter().map(|channels| {
            let passes = self.passes(channels, &self.codes(channels));
            passes.iter().map(PassItems::cost).sum::<usize>()
        });
        blocks.sum()
    }

    /// With these blocks.
    fn plan(&self, groups: &[Vec<usize>]) -> Plan {
        let mut cost = 0;
        let blocks = groups.iter().map(|channels| {
            let codes = self.codes(channels);
            let passes = self.passes(channels, &codes);
            cost += passes.iter().map(PassItems::cost).sum::<usize>();
            let patterns = &self.patterns[channels.len() - 1];
            let passes = passes.iter().map(|pass| pass.build(&codes, patterns));
            Block {
                channels: channels.as_slice().into(),
                passes: passes.collect(),
            }
        });
        Plan {
            blocks: blocks.collect(),
            cost,
        }
    }

    /// The pattern that each item has in a block, by its code.
    fn codes(&self, channels: &[usize]) -> Vec<u8> {
        let mut codes = vec![0; self.channels[0].len()];
        // The last channel has the highest digit.
        for &channel in channels.iter().rev() {
            for (code, &weight) in codes.iter_mut().zip(self.channels[channel]) {
                *code = 3 * *code + digit(weight);
            }
        }
        codes
    }

    /// Cuts the items of a block into passes. The first one may be empty.
    fn passes(&self, channels: &[usize], codes: &[u8]) -> Vec<PassItems<'_>> {
        let patterns = &self.patterns[channels.len() - 1];
        let mut passes = Vec::new();
        for window in &self.windows {
            let mut rest = window.items.clone();
            while !rest.is_empty() {
                let mut pass = PassItems::new(window, rest.clone(), codes, patterns);
                if !pass.is_exact() {
                    let exact_len = exact_len(&codes[rest.clone()], patterns);
                    let items = rest.start..rest.start + exact_len;
                    pass = PassItems::new(window, items, codes, patterns);
                }
                rest.start = pass.items.end;
                if passes.is_empty() || !pass.is_empty() {
                    passes.push(pass);
                }
            }
        }
        passes
    }
}

/// How many of these items a pass has room for.
fn exact_len(codes: &[u8], patterns: &[Pattern]) -> usize {
    let mut sides = Sides::default();
    let is_beyond = |&code: &u8| {
        add_sides(&mut sides, &patterns[usize::from(code)], 1);
        sides.iter().any(|&items| items > PASS_ITEMS_MAX)
    };
    codes.iter().position(is_beyond).unwrap_or(codes.len())
}

fn add_sides(sides: &mut Sides, pattern: &Pattern, count: usize) {
    for (items, side) in sides.iter_mut().zip(pattern.sides) {
        *items += count * side;
    }
}

/// All items, by window.
fn window_items(kernel: usize, tiling: &Tiling) -> Vec<WindowItems> {
    let taps = kernel * kernel;
    let windows = tiling.windows().map(|(window_start, channels)| {
        let items = channels.start * taps..channels.end * taps;
        let offsets = items
            .clone()
            .map(|item| tiling.item_offset(item / taps, item % taps / kernel, item % kernel))
            .collect();
        WindowItems {
            window_start,
            items,
            offsets,
        }
    });
    windows.collect()
}

impl<'l> PassItems<'l> {
    /// Counts these items of a window.
    fn new(
        window: &'l WindowItems,
        items: Range<usize>,
        codes: &[u8],
        patterns: &[Pattern],
    ) -> Self {
        let mut counts_by_code = [0; PATTERNS_MAX];
        for &code in &codes[items.clone()] {
            counts_by_code[usize::from(code)] += 1;
        }
        let mut counts = vec![0; patterns.len()];
        let mut sides = Sides::default();
        for (pattern, count) in patterns.iter().zip(counts_by_code) {
            counts[pattern.rank] = count;
            add_sides(&mut sides, pattern, count);
        }
        Self {
            window,
            items,
            counts,
            sides,
        }
    }

    /// Whether no channel has a weight for any item.
    fn is_empty(&self) -> bool {
        self.sides == Sides::default()
    }

    /// Whether the sums cannot leave 16 bits.
    fn is_exact(&self) -> bool {
        self.sides.iter().all(|&items| items <= PASS_ITEMS_MAX)
    }

    /// How many pairs each pattern takes, but for the pattern of zeros, which is the middle one. There is at least one pair,
    /// and an odd last item is paired with zeros.
    fn pair_counts(&self) -> impl Iterator<Item = usize> {
        let ranks = self.counts.iter().enumerate();
        let used = ranks.filter(|&(rank, _)| rank != self.counts.len() / 2);
        used.map(|(_, count)| count.div_ceil(2).max(1))
    }

    /// Time of a run, in additions of a pair to each lane.
    fn cost(&self) -> usize {
        let borders = self.counts.len() - 1;
        self.pair_counts().sum::<usize>() + PAIRS_AHEAD + BORDER_COST * borders + PASS_COST
    }

    /// Sorts the items by their patterns.
    fn build(&self, codes: &[u8], patterns: &[Pattern]) -> Pass {
        assert!(
            self.is_exact(),
            "a channel could leave 16 bits: {:?} items",
            self.sides
        );
        let zeros_rank = self.counts.len() / 2;
        let mut pair_counts = Vec::with_capacity(self.counts.len() - 1);
        // Where the next item of each pattern goes.
        let mut places = vec![0; self.counts.len()];
        let mut end = 0;
        for (rank, pair_count) in self.pair_counts().enumerate() {
            places[rank + usize::from(rank >= zeros_rank)] = 2 * end;
            end += pair_count;
            let pair_count = u16::try_from(pair_count).ok().and_then(NonZeroU16::new);
            pair_counts.push(pair_count.expect("a window has fewer items than 16-bit offsets"));
        }
        let mut pairs = vec![[ZERO_OFFSET; 2]; end + PAIRS_AHEAD];
        for item in self.items.clone() {
            let rank = patterns[usize::from(codes[item])].rank;
            if rank != zeros_rank {
                pairs.as_flattened_mut()[places[rank]] =
                    self.window.offsets[item - self.window.items.start];
                places[rank] += 1;
            }
        }
        let window_start = self.window.window_start;
        Pass::new(window_start, pair_counts.into(), pairs.into())
    }
}

/// All patterns of so many channels by their code: the digits of the weights to the base 3, the first channel lowest.
fn patterns(channel_count: usize) -> Vec<Pattern> {
    let codes = 0..3_usize.pow(channel_count as u32);
    codes
        .map(|code| {
            let weight = |channel: usize| Trit::ALL[code / 3_usize.pow(channel as u32) % 3];
            let weights: Vec<_> = (0..channel_count).map(weight).collect();
            let mut sides = Sides::default();
            for (channel, weight) in weights.iter().enumerate() {
                match weight {
                    Trit::Minus => sides[BLOCK_CHANNELS_MAX + channel] = 1,
                    Trit::Zero => {}
                    Trit::Plus => sides[channel] = 1,
                }
            }
            Pattern {
                rank: gray_rank(&weights),
                sides,
            }
        })
        .collect()
}

/// The place of a weight in [`Trit::ALL`].
fn digit(weight: Trit) -> u8 {
    (weight.value() + 1) as u8
}

/// The place of a pattern in reflected Gray order, from all minus to all plus. The first channel changes fastest.
fn gray_rank(pattern: &[Trit]) -> usize {
    let [fastest, slower @ ..] = pattern else {
        return 0;
    };
    let slower_rank = gray_rank(slower);
    let digit = usize::from(digit(*fastest));
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
    use crate::Isa;
    use crate::conv::run::{Linear, Work};
    use crate::conv::{Scratch, scalar, strip};
    use proptest::prelude::*;

    /// Steele, Lea and Flood's SplitMix64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((bits ^ bits >> 31) % bound as u64) as usize
        }
    }

    #[derive(Clone, Copy, Debug)]
    struct Case {
        shape: Shape,
        zero_percent: usize,
        seed: u64,
    }

    impl Case {
        /// Channels differ in how many of their weights are zero.
        fn weights(&self) -> Vec<Trit> {
            let mut random = Random(self.seed);
            (0..self.shape.weights_len())
                .map(|index| {
                    let channel = index / self.shape.items_len();
                    if random.below(100) < (self.zero_percent + 37 * channel) % 101 {
                        return Trit::Zero;
                    }
                    [Trit::Minus, Trit::Plus][random.below(2)]
                })
                .collect()
        }

        /// Channels in any order, in blocks of any size.
        fn any_groups(&self) -> Vec<Vec<usize>> {
            let mut random = Random(!self.seed);
            let mut left: Vec<_> = (0..self.shape.out_channels()).collect();
            let mut groups = Vec::new();
            while !left.is_empty() {
                let len = left.len().min(1 + random.below(BLOCK_CHANNELS_MAX));
                let group = (0..len).map(|_| left.swap_remove(random.below(left.len())));
                groups.push(group.collect());
            }
            groups
        }

        fn check_sums(&self) {
            let (shape, weights) = (&self.shape, self.weights());
            let mut random = Random(self.seed);
            let input = (0..shape.in_len()).map(|_| random.below(128) as u8);
            let input: Vec<_> = input.collect();
            let bias = (0..shape.out_channels()).map(|channel| 999 * channel as i16);
            let bias: Vec<_> = bias.collect();
            let mut expected = vec![0; shape.out_len()];
            scalar::run(shape, &weights, &bias, Linear, &input, &mut expected);
            let tiling = Tiling::new(shape);
            let plan = Layer::new(shape, &weights, &tiling).plan(&self.any_groups());
            let mut scratch = Scratch::with_len(tiling.scratch_len());
            for isa in &Isa::available()[1..] {
                let work = Work {
                    plan: &plan,
                    tiling: &tiling,
                    bias: &bias,
                    finish: Linear,
                    input: &input,
                };
                let mut output = vec![0; shape.out_len()];
                strip::run(*isa, work, &mut output, scratch.parts_for(0));
                assert_eq!(output, expected, "{isa}");
            }
        }

        fn check_cost(&self) {
            let (shape, weights) = (&self.shape, self.weights());
            let tiling = Tiling::new(shape);
            let plan = Plan::new(shape, &weights, &tiling);
            let channels = plan.blocks.iter().flat_map(|block| &block.channels);
            let mut channels: Vec<_> = channels.copied().collect();
            channels.sort();
            assert!(channels.into_iter().eq(0..shape.out_channels()));
            let layer = Layer::new(shape, &weights, &tiling);
            for size in 1..=BLOCK_CHANNELS_MAX {
                let groups = neighbours(shape.out_channels(), size).map(Iterator::collect);
                let groups: Vec<_> = groups.collect();
                assert!(plan.cost() <= layer.cost(&groups), "{size}");
            }
        }

        fn check_estimate(&self) {
            let (shape, weights) = (&self.shape, self.weights());
            let tiling = Tiling::new(shape);
            let layer = Layer::new(shape, &weights, &tiling);
            let groups = self.any_groups();
            let plan = layer.plan(&groups);
            let passes = plan.blocks.iter().flat_map(|block| &block.passes);
            let costs = passes
                .map(|pass| pass.pairs.len() + BORDER_COST * pass.pair_counts.len() + PASS_COST);
            let cost = costs.sum::<usize>();
            assert_eq!([plan.cost(), layer.cost(&groups)], [cost; 2]);
        }
    }

    fn case() -> impl Strategy<Value = Case> {
        let channels = prop_oneof![(1..=33_usize, Just(3)), (1..=600_usize, Just(1))];
        let parameters = (1..=20_usize, 1..=2_usize, 0..=100_usize, any::<u64>());
        (channels, parameters).prop_map(|((in_channels, kernel), parameters)| {
            let (out_channels, stride, zero_percent, seed) = parameters;
            let shape = Shape::new(in_channels, out_channels, kernel, stride, 3, 5);
            Case {
                shape: shape.unwrap(),
                zero_percent,
                seed,
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(60)
        })]

        #[test]
        fn any_blocks_give_the_sums_of_the_specification(case in case()) {
            case.check_sums();
        }

        #[test]
        fn no_plan_costs_more_than_one_of_neighbours(case in case()) {
            case.check_cost();
        }

        #[test]
        fn the_estimate_is_the_cost_of_what_is_built(case in case()) {
            case.check_estimate();
        }
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
