//! Runs a plan over the tiles of a picture, for any [`Lanes`].
//!
//! Safe code throughout: an offset of 16 bits cannot leave a window, which the compiler sees, so that the inner loop has
//! no bounds checks.

use super::lanes::{LANE_PIXELS, Lanes};
use super::plan::{
    BLOCK_CHANNELS_MAX, Block, Pass, Plan, SLOTS_MAX, TOTAL_SLOT, minus_slot, plus_slot,
};
use super::tiling::{Group, Tiling, WINDOW_LEN};

/// What is left to do with the exact sum of a channel plus its bias.
pub(super) trait Finish: Copy {
    /// An element of the output.
    type Value: Copy + Default;

    /// Turns the values of 32 pixels of an output channel into elements of the output.
    fn finish<L: Lanes>(
        self,
        lanes: L,
        channel: usize,
        x: L::Signed,
        output: &mut [Self::Value; LANE_PIXELS],
    );
}

/// [`super::Epilogue::Relu`], without its bias.
#[derive(Clone, Copy)]
pub(super) struct Relu<'a> {
    pub(super) multiplier: &'a [i16],
    pub(super) pre_shift: u8,
}

/// [`super::Epilogue::Linear`], without its bias.
#[derive(Clone, Copy)]
pub(super) struct Linear;

/// One run of a convolution.
pub(super) struct Task<'a, F: Finish> {
    pub(super) plan: &'a Plan,
    pub(super) tiling: &'a Tiling,
    pub(super) bias: &'a [i16],
    pub(super) finish: F,
    pub(super) input: &'a [u8],
    pub(super) output: &'a mut [F::Value],
    pub(super) scratch: &'a mut [u8],
}

/// What a group can reach of the scratch.
type Window = [u8; WINDOW_LEN];

/// Values of `N` times 32 pixels for each channel of a block.
type BlockValues<L, const N: usize> = [[<L as Lanes>::Signed; N]; BLOCK_CHANNELS_MAX];

impl Finish for Relu<'_> {
    type Value = u8;

    #[inline(always)]
    fn finish<L: Lanes>(
        self,
        lanes: L,
        channel: usize,
        x: L::Signed,
        output: &mut [u8; LANE_PIXELS],
    ) {
        lanes.relu(x, self.multiplier[channel], self.pre_shift, output);
    }
}

impl Finish for Linear {
    type Value = i16;

    #[inline(always)]
    fn finish<L: Lanes>(
        self,
        lanes: L,
        _channel: usize,
        x: L::Signed,
        output: &mut [i16; LANE_PIXELS],
    ) {
        lanes.store(x, output);
    }
}

impl<F: Finish> Task<'_, F> {
    /// Computes the whole output. To be called from [`Lanes::enter`] only, which compiles it for the instruction set.
    #[inline(always)]
    pub(super) fn run<L: Lanes>(mut self, lanes: L) {
        let (plan, tiling) = (self.plan, self.tiling);
        tiling.clear(self.scratch);
        for tile in tiling.tiles() {
            tiling.gather(tile, self.input, self.scratch);
            for block in &plan.blocks {
                for group in tiling.groups(tile) {
                    match group.lanes {
                        1 => self.run_group::<L, 1>(lanes, block, group),
                        2 => self.run_group::<L, 2>(lanes, block, group),
                        3 => self.run_group::<L, 3>(lanes, block, group),
                        _ => self.run_group::<L, 4>(lanes, block, group),
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn run_group<L: Lanes, const N: usize>(&mut self, lanes: L, block: &Block, group: Group) {
        let bias = &self.bias[block.first_channel..][..block.channel_count];
        let values: BlockValues<L, N> = match block.passes.as_slice() {
            [pass] => sum_narrow(lanes, pass, bias, group, self.scratch),
            passes => sum_wide(lanes, passes, bias, group, self.scratch),
        };
        let plane_len = self.output.len() / self.bias.len();
        for (index, values) in values.iter().enumerate().take(block.channel_count) {
            let channel = block.first_channel + index;
            let mut results = [[F::Value::default(); LANE_PIXELS]; N];
            for (results, &x) in results.iter_mut().zip(values) {
                self.finish.finish(lanes, channel, x, results);
            }
            let plane = &mut self.output[channel * plane_len..][..plane_len];
            self.tiling.scatter(group, results.as_flattened(), plane);
        }
    }
}

/// The sums of a block whose only pass is exact in 16 bits, plus the bias.
#[inline(always)]
fn sum_narrow<L: Lanes, const N: usize>(
    lanes: L,
    pass: &Pass,
    bias: &[i16],
    group: Group,
    scratch: &[u8],
) -> BlockValues<L, N> {
    let mut values = run_pass(lanes, pass, group, scratch);
    for (values, &bias) in values.iter_mut().zip(bias) {
        for x in values {
            *x = lanes.add_bias(*x, bias);
        }
    }
    values
}

/// The sums of a block whose passes are exact in 16 bits but whose total may not be, plus the bias.
#[inline(always)]
fn sum_wide<L: Lanes, const N: usize>(
    lanes: L,
    passes: &[Pass],
    bias: &[i16],
    group: Group,
    scratch: &[u8],
) -> BlockValues<L, N> {
    let mut totals = [[lanes.zero_wide(); N]; BLOCK_CHANNELS_MAX];
    let mut values = zero_values(lanes);
    for pass in passes {
        values = run_pass::<L, N>(lanes, pass, group, scratch);
        for (totals, values) in totals.iter_mut().zip(&values) {
            for (total, &x) in totals.iter_mut().zip(values) {
                *total = lanes.widen_add(*total, x);
            }
        }
    }
    for ((values, totals), &bias) in values.iter_mut().zip(&totals).zip(bias) {
        for (x, &total) in values.iter_mut().zip(totals) {
            *x = lanes.narrow(total, bias);
        }
    }
    values
}

/// The sums of one pass. See [`super::plan`] for why these additions amount to them.
#[inline(always)]
fn run_pass<L: Lanes, const N: usize>(
    lanes: L,
    pass: &Pass,
    group: Group,
    scratch: &[u8],
) -> BlockValues<L, N> {
    let window: &Window = scratch[pass.window_start + group.start..]
        .first_chunk()
        .expect("the scratch is as long as the tiling asks for");
    let mut slots = [[lanes.zero(); N]; SLOTS_MAX];
    let mut running = [lanes.zero(); N];
    let mut pairs = pass.pairs.as_slice();
    for segment in &pass.segments {
        let (now, later) = pairs.split_at(usize::from(segment.pair_count.get()));
        pairs = later;
        for &[first, second] in now {
            for (i, running) in running.iter_mut().enumerate() {
                let (first, second) = (lane(window, first, i), lane(window, second, i));
                *running = lanes.add_pair(*running, first, second);
            }
        }
        for (slot, &running) in slots[usize::from(segment.slot)].iter_mut().zip(&running) {
            *slot = lanes.add(*slot, running);
        }
    }
    let mut values = zero_values(lanes);
    for (channel, values) in values.iter_mut().enumerate() {
        let (plus, minus) = (&slots[plus_slot(channel)], &slots[minus_slot(channel)]);
        for (i, x) in values.iter_mut().enumerate() {
            let plus = lanes.add(plus[i], slots[TOTAL_SLOT][i]);
            *x = lanes.difference(plus, minus[i]);
        }
    }
    values
}

/// The inputs of 32 pixels: lane `index` of an item.
#[inline(always)]
fn lane(window: &Window, offset: u16, index: usize) -> &[u8; LANE_PIXELS] {
    window[usize::from(offset) + index * LANE_PIXELS..]
        .first_chunk()
        .expect("a window reaches one group beyond the largest offset")
}

#[inline(always)]
fn zero_values<L: Lanes, const N: usize>(lanes: L) -> BlockValues<L, N> {
    [[lanes.difference(lanes.zero(), lanes.zero()); N]; BLOCK_CHANNELS_MAX]
}
