//! Splits a run among threads: each computes some lanes of all output channels, and gathers the inputs of these only.
//!
//! The threads are those of the rayon pool that the caller belongs to. Nothing is allocated: what each thread may write, a
//! stretch of every plane, is listed on the stack.

use std::array;
use std::ops::Range;

use super::lanes::Lanes;
use super::run::{Finish, Task, Work};
use super::scratch::Part;
use super::shape::CHANNELS_MAX;
use crate::Isa;

/// Output channels up to which the lists are short.
const FEW_CHANNELS: usize = 128;

/// Groups from which on one more or less makes halves hardly unequal.
const MANY_GROUPS: usize = 4;

/// Some lanes of an output, and what of every plane is theirs.
pub(super) struct Strip<'s, 'o, T> {
    pub(super) lanes: Range<usize>,
    /// By channel.
    planes: &'s mut [&'o mut [T]],
    /// The index in its plane at which each of them begins.
    start: usize,
}

impl<T> Strip<'_, '_, T> {
    /// What is theirs of a channel's plane, and the index in the plane at which it begins.
    #[inline(always)]
    pub(super) fn plane(&mut self, channel: usize) -> (&mut [T], usize) {
        (&mut *self.planes[channel], self.start)
    }
}

/// Computes the whole output on as many threads as there are parts of scratch, at most. Where these are several, the caller is
/// in a pool.
pub(super) fn run<F: Finish>(
    isa: Isa,
    work: Work<'_, F>,
    output: &mut [F::Value],
    parts: &mut [Part],
) {
    match isa {
        Isa::Scalar => unreachable!("the specification has no plan"),
        Isa::Portable(lanes) => run_lanes(lanes, work, output, parts),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(lanes) => run_lanes(lanes, work, output, parts),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(lanes) => run_lanes(lanes, work, output, parts),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonInOrder(lanes) => run_lanes(lanes, work, output, parts),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(lanes) => run_lanes(lanes, work, output, parts),
        #[cfg(target_arch = "arm")]
        Isa::Neon32(lanes) => run_lanes(lanes, work, output, parts),
    }
}

fn run_lanes<L: Lanes, F: Finish>(
    lanes: L,
    work: Work<'_, F>,
    output: &mut [F::Value],
    parts: &mut [Part],
) {
    if work.bias.len() <= FEW_CHANNELS {
        run_planes::<L, F, FEW_CHANNELS>(lanes, work, output, parts);
    } else {
        run_planes::<L, F, CHANNELS_MAX>(lanes, work, output, parts);
    }
}

fn run_planes<L: Lanes, F: Finish, const N: usize>(
    lanes: L,
    work: Work<'_, F>,
    output: &mut [F::Value],
    parts: &mut [Part],
) {
    let plane_len = output.len() / work.bias.len();
    let mut planes: [&mut [F::Value]; N] = array::from_fn(|_| Default::default());
    for (plane, output) in planes.iter_mut().zip(output.chunks_exact_mut(plane_len)) {
        *plane = output;
    }
    let strip = Strip {
        lanes: 0..work.tiling.lanes(),
        planes: &mut planes,
        start: 0,
    };
    run_strip::<L, F, N>(lanes, work, strip, parts);
}

/// Halves the strip as long as there are threads.
fn run_strip<L: Lanes, F: Finish, const N: usize>(
    lanes: L,
    work: Work<'_, F>,
    strip: Strip<'_, '_, F::Value>,
    parts: &mut [Part],
) {
    let left_threads = parts.len() / 2;
    let (left_parts, right_parts) = parts.split_at_mut(left_threads);
    let left_lanes = strip.lanes.len() * left_threads / (left_threads + right_parts.len());
    // Whole groups; of few lanes half of one may make the halves equal, which is worth more.
    let granule = match strip.lanes.len() / L::GROUP_LANES {
        ..MANY_GROUPS => L::GROUP_LANES.div_ceil(2),
        _ => L::GROUP_LANES,
    };
    let left_lanes = left_lanes.next_multiple_of(granule);
    if left_lanes == 0 || left_lanes >= strip.lanes.len() {
        return lanes.enter(Task {
            work,
            strip,
            scratch: right_parts[0].bytes_mut(),
        });
    }
    let middle = strip.lanes.start + left_lanes;
    let middle_start = work.tiling.plane_index(middle);
    let mut left: [&mut [F::Value]; N] = array::from_fn(|_| Default::default());
    let mut right: [&mut [F::Value]; N] = array::from_fn(|_| Default::default());
    let halves = left.iter_mut().zip(&mut right);
    for (plane, (left, right)) in strip.planes.iter_mut().zip(halves) {
        let at = plane.len().min(middle_start - strip.start);
        (*left, *right) = plane.split_at_mut(at);
    }
    let left = Strip {
        lanes: strip.lanes.start..middle,
        planes: &mut left,
        start: strip.start,
    };
    let right = Strip {
        lanes: middle..strip.lanes.end,
        planes: &mut right,
        start: middle_start,
    };
    rayon_core::join(
        || run_strip::<L, F, N>(lanes, work, left, left_parts),
        || run_strip::<L, F, N>(lanes, work, right, right_parts),
    );
}
