//! Lays tensors out in one piece of memory, so that those which never live at once share bytes.

use std::ops::Range;

/// Tensors begin at multiples of this many bytes from the arena's start.
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

/// The tensors that one step reads.
pub(crate) struct Inputs<'a> {
    ranges: &'a [Range<usize>],
    before: &'a [u8],
    after: &'a [u8],
    /// Where `after` begins in the arena.
    after_start: usize,
}

/// The tensor that a step writes, and those that it reads: any number, and the same one more than once.
pub(crate) fn apart<'a>(
    arena: &'a mut [u8],
    output: &Range<usize>,
    inputs: &'a [Range<usize>],
) -> (&'a mut [u8], Inputs<'a>) {
    let (before, rest) = arena.split_at_mut(output.start);
    let (written, after) = rest.split_at_mut(output.len());
    let inputs = Inputs {
        ranges: inputs,
        before,
        after,
        after_start: output.end,
    };
    (written, inputs)
}

impl<'a> Inputs<'a> {
    /// The input of this index.
    ///
    /// # Panics
    /// If there is none, or it overlaps the output.
    pub(crate) fn get(&self, index: usize) -> &'a [u8] {
        let range = &self.ranges[index];
        if range.end <= self.before.len() {
            return &self.before[range.clone()];
        }
        let start = range.start.checked_sub(self.after_start);
        let start = start.expect("the plan keeps tensors that live at once apart");
        &self.after[start..start + range.len()]
    }

    /// All of them.
    ///
    /// # Panics
    /// If one overlaps the output.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.ranges.len()).map(|index| self.get(index))
    }
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

    #[test]
    fn one_tensor_is_written_while_others_are_read() {
        let mut bytes: Vec<u8> = (0..10).collect();
        let ranges = [0..3, 8..9, 6..10, 8..9];
        let (output, inputs) = apart(&mut bytes, &(3..6), &ranges);
        output.fill(99);
        assert_eq!(inputs.get(1), [8]);
        let all: Vec<_> = inputs.iter().collect();
        assert_eq!(all, [&[0, 1, 2][..], &[8], &[6, 7, 8, 9], &[8]]);
        assert_eq!(bytes, [0, 1, 2, 99, 99, 99, 6, 7, 8, 9]);
    }

    #[test]
    #[should_panic(expected = "the plan keeps tensors that live at once apart")]
    fn a_tensor_is_not_read_while_it_is_written() {
        let (mut bytes, inputs) = ([0; 10], [0..3, 5..8]);
        apart(&mut bytes, &(3..6), &inputs).1.get(1);
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
