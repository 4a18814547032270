//! Runs a plan over the tiles of a picture, for any [`Lanes`].
//!
//! Safe code throughout.

use super::lanes::{Job, LANE_PIXELS, Lanes};
use super::plan::{Block, Pass, Plan};
use super::strip::Strip;
use super::tiling::{Group, Tiling};
use crate::requantize::relu;

/// What is left to do with the exact sum of a channel plus its bias.
pub(super) trait Finish: Copy + Send + Sync {
    /// An element of the output.
    type Value: Copy + Default + Send;

    /// Turns the value of one pixel of an output channel into an element of the output: the specification.
    fn finish_one(self, channel: usize, x: i16) -> Self::Value;

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
#[derive(Clone, Copy)]
pub(super) struct Work<'a, F: Finish> {
    pub(super) plan: &'a Plan,
    pub(super) tiling: &'a Tiling,
    pub(super) bias: &'a [i16],
    pub(super) finish: F,
    pub(super) input: &'a [u8],
}

/// Some lanes of a run.
pub(super) struct Task<'a, 'o, F: Finish> {
    pub(super) work: Work<'a, F>,
    pub(super) strip: Strip<'a, 'o, F::Value>,
    pub(super) scratch: &'a mut [u8],
}

/// Work on one group of a block: N lanes of K channels.
struct GroupJob<'t, 'a, 'o, F: Finish, const N: usize, const K: usize> {
    task: &'t mut Task<'a, 'o, F>,
    block: &'a Block,
    group: Group,
}

/// Values of N times 32 pixels for each of K channels.
type Values<L, const N: usize, const K: usize> = [[<L as Lanes>::Signed; N]; K];

impl Finish for Relu<'_> {
    type Value = u8;

    fn finish_one(self, channel: usize, x: i16) -> u8 {
        relu(x, self.multiplier[channel], self.pre_shift)
    }

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

    fn finish_one(self, _channel: usize, x: i16) -> i16 {
        x
    }

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

impl<F: Finish, L: Lanes> Job<L> for Task<'_, '_, F> {
    #[inline(always)]
    fn run(mut self, lanes: L) {
        let (plan, tiling) = (self.work.plan, self.work.tiling);
        tiling.clear(self.scratch);
        for tile in tiling.tiles(self.strip.lanes.clone()) {
            tiling.gather(lanes, tile, self.work.input, self.scratch);
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

impl<'a, F: Finish> Task<'a, '_, F> {
    #[inline(always)]
    fn run_group<L: Lanes, const N: usize>(&mut self, lanes: L, block: &'a Block, group: Group) {
        match block.channels.len() {
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

impl<F: Finish, L: Lanes, const N: usize, const K: usize> Job<L> for GroupJob<'_, '_, '_, F, N, K> {
    #[inline(always)]
    fn run(self, lanes: L) {
        let Self { task, block, group } = self;
        let work = task.work;
        let channels: &[usize; K] = block
            .channels
            .first_chunk()
            .expect("the block has this number of channels");
        let mut bias = [0; K];
        for (bias, &channel) in bias.iter_mut().zip(channels) {
            *bias = work.bias[channel];
        }
        let values: Values<L, N, K> = match &*block.passes {
            [pass] => sum_narrow(lanes, pass, &bias, group, task.scratch),
            passes => sum_wide(lanes, passes, &bias, group, task.scratch),
        };
        for (&channel, values) in channels.iter().zip(&values) {
            let mut results = [[F::Value::default(); LANE_PIXELS]; N];
            for (results, &x) in results.iter_mut().zip(values) {
                work.finish.finish(lanes, channel, x, results);
            }
            let (plane, start) = task.strip.plane(channel);
            work.tiling
                .scatter(group, results.as_flattened(), plane, start);
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

#[inline(always)]
fn zero_values<L: Lanes, const N: usize, const K: usize>(lanes: L) -> Values<L, N, K> {
    [[lanes.zero(); N]; K]
}

/// The sums of one pass.
#[inline(always)]
fn run_pass<L: Lanes, const N: usize, const K: usize>(
    lanes: L,
    pass: &Pass,
    group: Group,
    scratch: &[u8],
    values: &mut Values<L, N, K>,
) {
    let window = scratch[pass.window_start() + group.start..]
        .first_chunk()
        .expect("the scratch is as long as the tiling asks for");
    lanes.sum(pass, window, values);
}
