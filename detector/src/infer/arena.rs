//! Lays tensors out in one piece of memory, so that those which never live at once share bytes.

use std::ops::Range;

/// Tensors begin at multiples of this many bytes: whole cache lines, so that no two tensors share one.
const ALIGNMENT: usize = 64;

/// One tensor: its bytes, and the steps from the one that writes it to the last one that reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub(crate) len: usize,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Lifetime {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Where each tensor is.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ranges: Vec<Range<usize>>,
    pub(crate) len: usize,
}

/// Places the largest tensors first, each in the tightest gap that its contemporaries leave, or above them.
pub(crate) fn plan(tensors: &[Lifetime]) -> Plan {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(tensors[index].len));
    let mut ranges = vec![0..0; tensors.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(tensors.len());
    for index in order {
        let tensor = tensors[index];
        let mut taken: Vec<Range<usize>> = placed
            .iter()
            .filter(|&&other| tensors[other].meets(&tensor))
            .map(|&other| ranges[other].clone())
            .collect();
        taken.sort_by_key(|range| range.start);
        let start = tightest_gap(&taken, tensor.len);
        ranges[index] = start..start + tensor.len;
        placed.push(index);
    }
    let len = ranges.iter().map(|range| range.end).max().unwrap_or(0);
    Plan { ranges, len }
}

/// Start of the smallest gap of at least `len` bytes between ranges in order, or the end of all.
fn tightest_gap(taken: &[Range<usize>], len: usize) -> usize {
    let mut end = 0;
    let mut best: Option<(usize, usize)> = None;
    for range in taken {
        let start = usize::next_multiple_of(end, ALIGNMENT);
        if let Some(gap) = range.start.checked_sub(start)
            && gap >= len
            && best.is_none_or(|(smallest, _)| gap < smallest)
        {
            best = Some((gap, start));
        }
        end = end.max(range.end);
    }
    best.map_or(end.next_multiple_of(ALIGNMENT), |(_, start)| start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lifetime(len: usize, first: usize, last: usize) -> Lifetime {
        Lifetime { len, first, last }
    }

    #[test]
    fn a_chain_needs_two_neighbours_at_a_time() {
        let chain: Vec<_> = (0..10).map(|time| lifetime(640, time, time + 1)).collect();
        assert_eq!(plan(&chain).len, 2 * 640);
    }

    #[test]
    fn small_tensors_take_the_tightest_gap() {
        // The wide gap is 0..256, the tight one 320..384.
        let taken = [256..320, 384..448];
        assert_eq!(tightest_gap(&taken, 64), 320);
        assert_eq!(tightest_gap(&taken, 65), 0);
        assert_eq!(tightest_gap(&taken, 257), 448);
    }

    proptest! {
        #[test]
        fn tensors_that_live_at_once_never_overlap(
            tensors in proptest::collection::vec((0usize..5000, 0usize..30, 0usize..10), 0..40)
        ) {
            let tensors: Vec<_> = tensors.into_iter().map(|(len, first, age)| lifetime(len, first, first + age)).collect();
            let plan = plan(&tensors);
            for (i, a) in tensors.iter().enumerate() {
                prop_assert_eq!(plan.ranges[i].len(), a.len);
                prop_assert_eq!(plan.ranges[i].start % ALIGNMENT, 0);
                prop_assert!(plan.ranges[i].end <= plan.len);
                for (j, b) in tensors.iter().enumerate().take(i) {
                    let (x, y) = (&plan.ranges[i], &plan.ranges[j]);
                    prop_assert!(!a.meets(b) || x.end <= y.start || y.end <= x.start, "{:?} {:?}", x, y);
                }
            }
            let sum: usize = tensors.iter().map(|tensor| tensor.len.next_multiple_of(ALIGNMENT)).sum();
            prop_assert!(plan.len <= sum);
        }
    }
}
