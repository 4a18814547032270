//! Working memory that the caller allocates once and lends to every convolution.

/// Alignment of the working memory: one cache line, and at least one vector.
const ALIGNMENT: usize = 64;

/// Working memory for [`super::Conv::run_relu`] and [`super::Conv::run_linear`], a part for each thread that computes. Its
/// content means nothing between runs, so one scratch of the greatest [`super::Conv::scratch_len`] serves all layers of a
/// network.
#[derive(Debug)]
pub struct Scratch {
    parts: Box<[Part]>,
    split_cost_min: usize,
}

/// Work that is worth a second thread, in additions of two inputs to 32 sums. They take some ten cycles on a small core, and
/// waking a thread takes some microseconds.
const SPLIT_COST_MIN: usize = 2000;

/// What one thread needs.
#[derive(Debug)]
pub(super) struct Part {
    /// `ALIGNMENT - 1` bytes longer than asked for; never grows, so `start` stays aligned.
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Scratch {
    /// Allocates `len` bytes for one thread.
    pub fn with_len(len: usize) -> Self {
        Self::for_threads(len, 1)
    }

    /// Allocates `len` bytes for each of `threads`, of which there is one at least.
    pub fn for_threads(len: usize, threads: usize) -> Self {
        Self {
            parts: (0..threads.max(1)).map(|_| Part::with_len(len)).collect(),
            split_cost_min: SPLIT_COST_MIN,
        }
    }

    /// Convolutions of less work than this run on one thread. It is counted in additions of two inputs to 32 sums.
    pub fn with_split_cost_min(self, split_cost_min: usize) -> Self {
        Self {
            split_cost_min,
            ..self
        }
    }

    /// The number of bytes that each thread has.
    pub fn len(&self) -> usize {
        self.parts[0].len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many threads there are bytes for.
    pub fn threads(&self) -> usize {
        self.parts.len()
    }

    /// How many threads a run of this cost is worth.
    pub(super) fn threads_for(&self, cost: usize) -> usize {
        // Who is in no pool would wake one that nobody has asked for.
        let is_shared = cost >= self.split_cost_min && rayon_core::current_thread_index().is_some();
        if is_shared { self.parts.len() } else { 1 }
    }

    /// What each of these threads gets.
    pub(super) fn parts_for(&mut self, cost: usize) -> &mut [Part] {
        let threads = self.threads_for(cost);
        &mut self.parts[..threads]
    }
}

impl Part {
    fn with_len(len: usize) -> Self {
        let bytes = vec![0; len + ALIGNMENT - 1].into_boxed_slice();
        // The offset may be reported as impossible; unaligned memory is then slower, and as correct.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1);
        Self { bytes, start, len }
    }

    /// The aligned bytes.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_aligned_and_as_many_as_asked_for() {
        for len in [0, 1, 63, 64, 1000] {
            let mut scratch = Scratch::for_threads(len, 3);
            assert_eq!((scratch.len(), scratch.threads()), (len, 3));
            for part in &mut scratch.parts {
                assert_eq!(part.bytes_mut().len(), len);
                assert_eq!(part.bytes_mut().as_ptr().addr() % ALIGNMENT, 0);
            }
        }
    }
}
