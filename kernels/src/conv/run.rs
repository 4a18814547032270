//! Runs a plan over the tiles of a picture, for any [`Lanes`].
//!
//! Safe code throughout: an offset of 16 bits cannot leave a window, which the compiler sees, so that the inner loop has
//! no bounds checks.

use std::num::NonZeroU16;

use super::lanes::{Cursor, Job, LANE_PIXELS, Lanes};
use super::plan::{Block, Pass, Plan};
use super::tiling::{Group, Tiling};

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

/// Work on one group of a block: N lanes of K channels.
struct GroupJob<'t, 'a, F: Finish, const N: usize, const K: usize> {
    task: &'t mut Task<'a, F>,
    block: &'a Block,
    group: Group,
}

/// Values of N times 32 pixels for each of K channels.
type Values<L, const N: usize, const K: usize> = [[<L as Lanes>::Signed; N]; K];

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

impl<F: Finish, L: Lanes> Job<L> for Task<'_, F> {
    #[inline(always)]
    fn run(mut self, lanes: L) {
        let (plan, tiling) = (self.plan, self.tiling);
        tiling.clear(self.scratch);
        for tile in tiling.tiles() {
            tiling.gather(tile, self.input, self.scratch);
            for block in &plan.blocks {
                for group in tiling.groups(tile, L::GROUP_LANES) {
                    match group.lanes {
                        1 => self.run_group::<L, 1>(lanes, block, group),
                        2 => self.run_group::<L, 2>(lanes, block, group),
                        3 if L::GROUP_LANES > 2 => self.run_group::<L, 3>(lanes, block, group),
                        4 if L::GROUP_LANES > 2 => self.run_group::<L, 4>(lanes, block, group),
                        _ => unreachable!("a group has no more lanes than asked for"),
                    }
                }
            }
        }
    }
}

impl<'a, F: Finish> Task<'a, F> {
    #[inline(always)]
    fn run_group<L: Lanes, const N: usize>(&mut self, lanes: L, block: &'a Block, group: Group) {
        match block.channel_count {
            1 => self.enter_group::<L, N, 1>(lanes, block, group),
            2 => self.enter_group::<L, N, 2>(lanes, block, group),
            3 => self.enter_group::<L, N, 3>(lanes, block, group),
            _ => unreachable!("a block has one to three channels"),
        }
    }

    #[inline(always)]
    fn enter_group<L: Lanes, const N: usize, const K: usize>(
        &mut self,
        lanes: L,
        block: &'a Block,
        group: Group,
    ) {
        let task = self;
        lanes.enter(GroupJob::<F, N, K> { task, block, group });
    }
}

impl<F: Finish, L: Lanes, const N: usize, const K: usize> Job<L> for GroupJob<'_, '_, F, N, K> {
    #[inline(always)]
    fn run(self, lanes: L) {
        let Self { task, block, group } = self;
        let bias: &[i16; K] = task.bias[block.first_channel..]
            .first_chunk()
            .expect("every channel has its bias");
        let values: Values<L, N, K> = match block.passes.as_slice() {
            [pass] => sum_narrow(lanes, pass, bias, group, task.scratch),
            passes => sum_wide(lanes, passes, bias, group, task.scratch),
        };
        let plane_len = task.output.len() / task.bias.len();
        for (channel, values) in (block.first_channel..).zip(&values) {
            let mut results = [[F::Value::default(); LANE_PIXELS]; N];
            for (results, &x) in results.iter_mut().zip(values) {
                task.finish.finish(lanes, channel, x, results);
            }
            let plane = &mut task.output[channel * plane_len..][..plane_len];
            task.tiling.scatter(group, results.as_flattened(), plane);
        }
    }
}

/// The sums of a block whose only pass is exact in 16 bits, plus the bias.
#[inline(always)]
fn sum_narrow<L: Lanes, const N: usize, const K: usize>(
    lanes: L,
    pass: &Pass,
    bias: &[i16; K],
    group: Group,
    scratch: &[u8],
) -> Values<L, N, K> {
    let mut values = zero_values(lanes);
    run_pass(lanes, pass, group, scratch, &mut values);
    for (values, &bias) in values.iter_mut().zip(bias) {
        for x in values {
            *x = lanes.add_bias(*x, bias);
        }
    }
    values
}

/// A pass whose result the caller needs in memory.
struct PassJob<'a, L: Lanes, const N: usize, const K: usize> {
    pass: &'a Pass,
    group: Group,
    scratch: &'a [u8],
    values: &'a mut Values<L, N, K>,
}

impl<L: Lanes, const N: usize, const K: usize> Job<L> for PassJob<'_, L, N, K> {
    #[inline(always)]
    fn run(self, lanes: L) {
        run_pass(lanes, self.pass, self.group, self.scratch, self.values);
    }
}

/// The sums of a block whose passes are exact in 16 bits but whose total may not be, plus the bias.
#[inline(always)]
fn sum_wide<L: Lanes, const N: usize, const K: usize>(
    lanes: L,
    passes: &[Pass],
    bias: &[i16; K],
    group: Group,
    scratch: &[u8],
) -> Values<L, N, K> {
    let mut totals = [[lanes.zero_wide(); N]; K];
    let mut values = zero_values::<L, N, K>(lanes);
    for pass in passes {
        lanes.enter(PassJob {
            pass,
            group,
            scratch,
            values: &mut values,
        });
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
fn run_pass<L: Lanes, const N: usize, const K: usize>(
    lanes: L,
    pass: &Pass,
    group: Group,
    scratch: &[u8],
    values: &mut Values<L, N, K>,
) {
    let window = scratch[pass.window_start + group.start..]
        .first_chunk()
        .expect("the scratch is as long as the tiling asks for");
    let mut walk = Walk::<L, N> {
        lanes,
        running: [lanes.zero(); N],
        cursor: Cursor {
            window,
            pairs: &pass.pairs,
            ahead: lanes.load_ahead::<N>(window, &pass.pairs),
        },
        pair_counts: pass.pair_counts.iter(),
    };
    let mut sums = [[lanes.zero(); N]; K];
    match sums.as_mut_slice() {
        [first] => walk.line(true, true, first),
        [first, second] => walk.plane(true, true, first, second),
        [first, second, third] => walk.cube(first, second, third),
        _ => unreachable!("a block has one to three channels"),
    }
    // The last pattern is all plus.
    for (values, sums) in values.iter_mut().zip(sums) {
        for ((x, sum), &running) in values.iter_mut().zip(sums).zip(&walk.running) {
            *x = lanes.signed(lanes.add(sum, running));
        }
    }
}

/// The patterns of a block in Gray order, written out, so that the sums of the channels stay in registers.
struct Walk<'a, L: Lanes, const N: usize> {
    lanes: L,
    running: [L::Sum; N],
    cursor: Cursor<'a, L::Ahead>,
    pair_counts: std::slice::Iter<'a, NonZeroU16>,
}

impl<L: Lanes, const N: usize> Walk<'_, L, N> {
    /// Three patterns, in which the weight of the first channel goes up from minus to plus, or down. The one in the
    /// middle may be the pattern of zeros, which has no items.
    #[inline(always)]
    fn line(&mut self, up: bool, zeros: bool, first: &mut [L::Sum; N]) {
        self.segment();
        self.border(up, first);
        if !zeros {
            self.segment();
        }
        self.border(up, first);
        self.segment();
    }

    /// Nine patterns, in which the weight of the second channel goes up or down.
    #[inline(always)]
    fn plane(&mut self, up: bool, zeros: bool, first: &mut [L::Sum; N], second: &mut [L::Sum; N]) {
        self.line(up, false, first);
        self.border(up, second);
        self.line(!up, zeros, first);
        self.border(up, second);
        self.line(up, false, first);
    }

    /// All 27 patterns of three channels.
    #[inline(always)]
    fn cube(&mut self, first: &mut [L::Sum; N], second: &mut [L::Sum; N], third: &mut [L::Sum; N]) {
        self.plane(true, false, first, second);
        self.border(true, third);
        self.plane(false, true, first, second);
        self.border(true, third);
        self.plane(true, false, first, second);
    }

    /// Adds the items of one pattern.
    #[inline(always)]
    fn segment(&mut self) {
        let count = *self
            .pair_counts
            .next()
            .expect("a pass has a count for each pattern");
        self.lanes
            .add_pairs(&mut self.running, &mut self.cursor, count);
    }

    /// The weight of a channel changes by one.
    #[inline(always)]
    fn border(&self, up: bool, sums: &mut [L::Sum; N]) {
        for (sum, &running) in sums.iter_mut().zip(&self.running) {
            *sum = if up {
                self.lanes.subtract(*sum, running)
            } else {
                self.lanes.add(*sum, running)
            };
        }
    }
}

#[inline(always)]
fn zero_values<L: Lanes, const N: usize, const K: usize>(lanes: L) -> Values<L, N, K> {
    [[lanes.signed(lanes.zero()); N]; K]
}
