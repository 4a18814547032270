//! Which output channels share a block: those whose zeros fall together.
//!
//! A block adds each item that one of its channels has a weight for: the fewer these are together, the less it costs. The
//! best blocks would be a matter of all channels at once. What is done here takes milliseconds and gives most of it: a block
//! begins with the channel that has the fewest items of those left, and the best partners join it; then channels of two
//! blocks change places where this makes the items of both fewer. Integers decide, and of equals the first one, so that
//! every machine finds the same blocks.

use std::mem;
use std::ops::Range;

use super::plan::BLOCK_CHANNELS_MAX;
use crate::Trit;

/// Channels that are compared with each other. More are searched in parts, or the time would grow with their square. It is a
/// multiple of each size of blocks, so that no part ends with a smaller one.
const PART_CHANNELS_MAX: usize = 240;

/// The items that each channel has a weight for, as bits.
pub(super) struct Used {
    channels: Vec<Box<[u64]>>,
}

/// Blocks of neighbours, as even as it goes: a block of one channel after blocks of three would be the dearest.
pub(super) fn neighbours(
    channel_count: usize,
    block_channels: usize,
) -> impl Iterator<Item = Range<usize>> {
    let block_count = channel_count.div_ceil(block_channels);
    let bound = move |block: usize| block * channel_count / block_count;
    (0..block_count).map(move |block| bound(block)..bound(block + 1))
}

impl Used {
    /// Of the weights of each channel.
    pub(super) fn new<'w>(channels: impl IntoIterator<Item = &'w [Trit]>) -> Self {
        let word = |weights: &[Trit]| {
            let bits = weights.iter().enumerate();
            bits.fold(0, |word, (bit, &weight)| {
                word | u64::from(weight != Trit::Zero) << bit
            })
        };
        let set = |weights: &[Trit]| weights.chunks(u64::BITS as usize).map(word).collect();
        Self {
            channels: channels.into_iter().map(set).collect(),
        }
    }

    /// Blocks of at most so many channels, which add few items.
    pub(super) fn groups(&self, block_channels: usize) -> Vec<Vec<usize>> {
        let mut channels: Vec<_> = (0..self.channels.len()).collect();
        channels.sort_by_key(|&channel| self.items_len(&[channel]));
        let parts = channels.chunks(PART_CHANNELS_MAX);
        parts
            .flat_map(|part| {
                let mut groups = self.gather(part.to_vec(), block_channels);
                self.exchange(&mut groups);
                groups
            })
            .collect()
    }

    /// Takes the first channel that is left, and to it those with which it adds the fewest items.
    fn gather(&self, mut left: Vec<usize>, block_channels: usize) -> Vec<Vec<usize>> {
        let blocks = neighbours(left.len(), block_channels);
        blocks
            .map(|block| {
                let mut group = vec![left.remove(0)];
                while group.len() < block.len() {
                    let partner = (0..left.len()).min_by_key(|&index| {
                        group.push(left[index]);
                        let items_len = self.items_len(&group);
                        group.pop();
                        items_len
                    });
                    group.push(left.remove(partner.expect("the blocks have all channels")));
                }
                group
            })
            .collect()
    }

    /// Lets channels of two blocks change places where this makes their items fewer, once for each pair of blocks.
    fn exchange(&self, groups: &mut [Vec<usize>]) {
        for index in 1..groups.len() {
            let (earlier, later) = groups.split_at_mut(index);
            for first in earlier {
                self.exchange_between(first, &mut later[0]);
            }
        }
    }

    fn exchange_between(&self, first: &mut [usize], second: &mut [usize]) {
        let items_len =
            |first: &[usize], second: &[usize]| self.items_len(first) + self.items_len(second);
        let mut least = items_len(first, second);
        for i in 0..first.len() {
            for j in 0..second.len() {
                mem::swap(&mut first[i], &mut second[j]);
                let now = items_len(first, second);
                if now < least {
                    least = now;
                } else {
                    mem::swap(&mut first[i], &mut second[j]);
                }
            }
        }
    }

    /// How many items a block of these channels adds.
    fn items_len(&self, channels: &[usize]) -> u32 {
        let [first, rest @ ..] = channels else {
            return 0;
        };
        let first = self.channels[*first].iter();
        match *rest {
            [] => first.map(|word| word.count_ones()).sum(),
            [second] => {
                let words = first.zip(&self.channels[second]);
                words.map(|(a, b)| (a | b).count_ones()).sum()
            }
            [second, third] => {
                let words = first.zip(&self.channels[second]).zip(&self.channels[third]);
                words.map(|((a, b), c)| (a | b | c).count_ones()).sum()
            }
            _ => unreachable!("a block has at most {BLOCK_CHANNELS_MAX} channels"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A channel with weights for these of 300 items.
    fn channel(items: &[usize]) -> Vec<Trit> {
        let mut weights = vec![Trit::Zero; 300];
        for &item in items {
            weights[item] = Trit::ALL[item % 2 * 2];
        }
        weights
    }

    fn groups(channels: &[Vec<Trit>], block_channels: usize) -> Vec<Vec<usize>> {
        Used::new(channels.iter().map(Vec::as_slice)).groups(block_channels)
    }

    #[test]
    fn each_channel_is_in_one_block_however_many_there_are() {
        for count in (1..=12).chain([PART_CHANNELS_MAX, PART_CHANNELS_MAX + 1, 500]) {
            let weights = vec![vec![Trit::Plus; 5]; count];
            for block_channels in 2..=BLOCK_CHANNELS_MAX {
                let groups = groups(&weights, block_channels);
                assert_eq!(groups.len(), count.div_ceil(block_channels), "{count}");
                assert!(groups.iter().all(|group| group.len() <= block_channels));
                let mut channels = groups.concat();
                channels.sort();
                assert!(channels.into_iter().eq(0..count), "{count}");
            }
        }
    }

    #[test]
    fn channels_whose_zeros_fall_together_share_a_block() {
        // Those with the same remainder have two items in common, on either side of a word's end; each has one of its own.
        let channels = (0..8).map(|index| channel(&[index % 4, 70 + index % 4, 200 + index]));
        let mut groups = groups(&channels.collect::<Vec<_>>(), 2);
        groups.sort();
        assert_eq!(groups, [[0, 4], [1, 5], [2, 6], [3, 7]]);
    }

    #[test]
    fn channels_change_places_where_both_blocks_gain() {
        // The first two have the fewest items together, and leave two that have none in common.
        let channels = [
            channel(&[0, 1, 2, 3]),
            channel(&[0, 1, 2, 70, 71]),
            channel(&[1, 2, 3, 80, 81]),
            channel(&[0, 70, 71, 72, 73]),
        ];
        let used = Used::new(channels.iter().map(Vec::as_slice));
        let mut groups = used.gather(vec![0, 1, 2, 3], 2);
        assert_eq!(groups, [[0, 1], [2, 3]]);
        used.exchange(&mut groups);
        groups.iter_mut().for_each(|group| group.sort());
        groups.sort();
        assert_eq!(groups, [[0, 2], [1, 3]]);
    }
}
