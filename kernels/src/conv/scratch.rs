//! Working memory that the caller allocates once and lends to every convolution.

/// Alignment of the working memory: one cache line, and at least one vector.
const ALIGNMENT: usize = 64;

/// Working memory for [`super::Conv::run_relu`] and [`super::Conv::run_linear`]. Its content means nothing between
/// runs, so one scratch of the greatest [`super::Conv::scratch_len`] serves all layers of a network.
#[derive(Debug)]
pub struct Scratch {
    /// `ALIGNMENT - 1` bytes longer than asked for; never grows, so `start` stays aligned.
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Scratch {
    /// Allocates `len` bytes.
    pub fn with_len(len: usize) -> Self {
        let bytes = vec![0; len + ALIGNMENT - 1].into_boxed_slice();
        // The offset may be reported as impossible; unaligned memory is then slower, and as correct.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1);
        Self { bytes, start, len }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The aligned bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_aligned_and_as_many_as_asked_for() {
        for len in [0, 1, 63, 64, 1000] {
            let mut scratch = Scratch::with_len(len);
            assert_eq!(scratch.bytes_mut().len(), len);
            assert_eq!(scratch.bytes_mut().as_ptr().addr() % ALIGNMENT, 0);
        }
    }
}
