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
    if work.bias.len() <= FEW_CHANNELS {
        run_planes::<F, FEW_CHANNELS>(isa, work, output, parts);
    } else {
        run_planes::<F, CHANNELS_MAX>(isa, work, output, parts);
    }
}

fn run_planes<F: Finish, const N: usize>(
    isa: Isa,
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
    run_strip::<F, N>(isa, work, strip, parts);
}

/// Halves the strip as long as there are threads.
fn run_strip<F: Finish, const N: usize>(
    isa: Isa,
    work: Work<'_, F>,
    strip: Strip<'_, '_, F::Value>,
    parts: &mut [Part],
) {
    let left_threads = parts.len() / 2;
    let (left_parts, right_parts) = parts.split_at_mut(left_threads);
    let left_lanes = strip.lanes.len() * left_threads / (left_threads + right_parts.len());
    // Whole groups; of few lanes half of one may make the halves equal, which is worth more.
    let group_lanes = group_lanes(isa);
    let granule = match strip.lanes.len() / group_lanes {
        ..MANY_GROUPS => group_lanes.div_ceil(2),
        _ => group_lanes,
    };
    let left_lanes = left_lanes.next_multiple_of(granule);
    if left_lanes == 0 || left_lanes >= strip.lanes.len() {
        return enter(isa, work, strip, &mut right_parts[0]);
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
        || run_strip::<F, N>(isa, work, left, left_parts),
        || run_strip::<F, N>(isa, work, right, right_parts),
    );
}

fn enter<F: Finish>(isa: Isa, work: Work<'_, F>, strip: Strip<'_, '_, F::Value>, part: &mut Part) {
    let task = Task {
        work,
        strip,
        scratch: part.bytes_mut(),
    };
    match isa {
        Isa::Scalar => unreachable!("the specification has no plan"),
        Isa::Portable(lanes) => lanes.enter(task),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(lanes) => lanes.enter(task),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(lanes) => lanes.enter(task),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonInOrder(lanes) => lanes.enter(task),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(lanes) => lanes.enter(task),
        #[cfg(target_arch = "arm")]
        Isa::Neon32(lanes) => lanes.enter(task),
    }
}

/// Lanes that are computed together.
fn group_lanes(isa: Isa) -> usize {
    const fn of<L: Lanes>(_: L) -> usize {
        L::GROUP_LANES
    }
    match isa {
        Isa::Scalar => 1,
        Isa::Portable(lanes) => of(lanes),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(lanes) => of(lanes),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(lanes) => of(lanes),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonInOrder(lanes) => of(lanes),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(lanes) => of(lanes),
        #[cfg(target_arch = "arm")]
        Isa::Neon32(lanes) => of(lanes),
    }
}
