//! The additions of a pass, for any [`Adders`].
//!
//! Safe code: an offset of 16 bits cannot leave a window, which the compiler sees, so that the inner loop has no bounds
//! checks.

use std::num::NonZeroU16;

use super::lanes::{Adders, Cursor, Window};
use super::plan::Pass;

/// [`super::lanes::Lanes::sum`]. See [`super::plan`] for why these additions amount to the sums.
#[inline(always)]
pub(super) fn walk<L: Adders, const N: usize, const K: usize>(
    lanes: L,
    pass: &Pass,
    window: &Window,
    values: &mut [[L::Value; N]; K],
) {
    let mut walk = Walk::<L, N> {
        lanes,
        running: [lanes.zero_sum(); N],
        cursor: Cursor {
            window,
            pairs: pass.pairs(),
            ahead: lanes.load_ahead::<N>(window, pass.pairs()),
        },
        pair_counts: pass.pair_counts().iter(),
    };
    let mut sums = [[lanes.zero_sum(); N]; K];
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
struct Walk<'a, L: Adders, const N: usize> {
    lanes: L,
    running: [L::Sum; N],
    cursor: Cursor<'a, L::Ahead>,
    pair_counts: std::slice::Iter<'a, NonZeroU16>,
}

impl<L: Adders, const N: usize> Walk<'_, L, N> {
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
