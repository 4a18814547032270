//! The sizes of a convolution, checked once.

use thiserror::Error;

/// Most channels on either side.
pub const CHANNELS_MAX: usize = 1024;

/// Most rows or columns of the input.
pub const SIDE_MAX: usize = 2048;

/// Sizes of one convolution, which no later product of them can overflow: [`Shape::new`] refuses tensors beyond the
/// address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    in_channels: usize,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    in_height: usize,
    in_width: usize,
}

/// A size outside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// A count of channels.
    #[error("{side} channels: {count} is outside 1..={CHANNELS_MAX}")]
    Channels {
        /// `input` or `output`.
        side: &'static str,
        /// The count given.
        count: usize,
    },
    /// A side of the input.
    #[error("input {side}: {len} is outside 1..={SIDE_MAX}")]
    Side {
        /// `height` or `width`.
        side: &'static str,
        /// The length given.
        len: usize,
    },
    /// The side of the kernel.
    #[error("kernel {kernel} is neither 1 nor 3")]
    Kernel {
        /// The side given.
        kernel: usize,
    },
    /// The stride.
    #[error("stride {stride} is neither 1 nor 2")]
    Stride {
        /// The stride given.
        stride: usize,
    },
    /// The tensors do not fit in this machine's address space.
    #[error("the input or the output does not fit in memory")]
    TooLarge,
}

impl Shape {
    /// Checks the sizes: kernel 1 or 3 (padded with zeros by 0 or 1), stride 1 or 2, channels up to
    /// [`CHANNELS_MAX`], sides up to [`SIDE_MAX`].
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        in_height: usize,
        in_width: usize,
    ) -> Result<Self, ShapeError> {
        for (side, count) in [("input", in_channels), ("output", out_channels)] {
            if !(1..=CHANNELS_MAX).contains(&count) {
                return Err(ShapeError::Channels { side, count });
            }
        }
        for (side, len) in [("height", in_height), ("width", in_width)] {
            if !(1..=SIDE_MAX).contains(&len) {
                return Err(ShapeError::Side { side, len });
            }
        }
        if !matches!(kernel, 1 | 3) {
            return Err(ShapeError::Kernel { kernel });
        }
        if !matches!(stride, 1 | 2) {
            return Err(ShapeError::Stride { stride });
        }
        // Two bytes an element: logits are 16 bits wide. Half of the address space is the limit of a slice.
        let bytes = 2 * in_channels.max(out_channels) as u64 * (in_height * in_width) as u64;
        if bytes > isize::MAX as u64 {
            return Err(ShapeError::TooLarge);
        }
        Ok(Self {
            in_channels,
            out_channels,
            kernel,
            stride,
            in_height,
            in_width,
        })
    }

    /// Channels of the input.
    pub const fn in_channels(&self) -> usize {
        self.in_channels
    }

    /// Channels of the output.
    pub const fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// Side of the square kernel: 1 or 3.
    pub const fn kernel(&self) -> usize {
        self.kernel
    }

    /// Step between output pixels, in input pixels: 1 or 2.
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// Rows of the input.
    pub const fn in_height(&self) -> usize {
        self.in_height
    }

    /// Columns of the input.
    pub const fn in_width(&self) -> usize {
        self.in_width
    }

    /// Zeros on each side of the input: 0 for kernel 1, 1 for kernel 3.
    pub const fn padding(&self) -> usize {
        self.kernel / 2
    }

    /// Rows of the output.
    pub const fn out_height(&self) -> usize {
        self.in_height.div_ceil(self.stride)
    }

    /// Columns of the output.
    pub const fn out_width(&self) -> usize {
        self.in_width.div_ceil(self.stride)
    }

    /// Elements of the input.
    pub const fn in_len(&self) -> usize {
        self.in_channels * self.in_height * self.in_width
    }

    /// Elements of the output.
    pub const fn out_len(&self) -> usize {
        self.out_channels * self.out_height() * self.out_width()
    }

    /// Number of weights.
    pub const fn weights_len(&self) -> usize {
        self.out_channels * self.items_len()
    }

    /// Weights of one output channel: its input channels times its taps.
    pub const fn items_len(&self) -> usize {
        self.in_channels * self.kernel * self.kernel
    }

    /// Multiply-accumulate steps that an engine with multiplications would do, zero weights and padding included.
    pub const fn macs(&self) -> u64 {
        self.out_len() as u64 * self.items_len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sizes_round_up() {
        let shape = Shape::new(3, 16, 3, 2, 241, 320).unwrap();
        assert_eq!((shape.out_height(), shape.out_width()), (121, 160));
        assert_eq!(shape.in_len(), 3 * 241 * 320);
        assert_eq!(shape.out_len(), 16 * 121 * 160);
        assert_eq!(shape.weights_len(), 16 * 27);
        assert_eq!(shape.macs(), 16 * 121 * 160 * 27);
        let point = Shape::new(1, 1, 1, 2, 1, 1).unwrap();
        assert_eq!((point.out_height(), point.out_width()), (1, 1));
        assert_eq!(point.padding(), 0);
    }

    #[test]
    fn sizes_outside_the_bounds_are_refused() {
        let channels = |side, count| Err(ShapeError::Channels { side, count });
        let side = |side, len| Err(ShapeError::Side { side, len });
        assert_eq!(Shape::new(0, 1, 1, 1, 1, 1), channels("input", 0));
        assert_eq!(Shape::new(1025, 1, 1, 1, 1, 1), channels("input", 1025));
        assert_eq!(Shape::new(1, 0, 1, 1, 1, 1), channels("output", 0));
        assert_eq!(Shape::new(1, 1025, 1, 1, 1, 1), channels("output", 1025));
        assert_eq!(Shape::new(1, 1, 1, 1, 0, 1), side("height", 0));
        assert_eq!(Shape::new(1, 1, 1, 1, 2049, 1), side("height", 2049));
        assert_eq!(Shape::new(1, 1, 1, 1, 1, 0), side("width", 0));
        assert_eq!(Shape::new(1, 1, 1, 1, 1, 2049), side("width", 2049));
        for kernel in [0, 2, 4, 5] {
            let refused = Shape::new(1, 1, kernel, 1, 1, 1);
            assert_eq!(refused, Err(ShapeError::Kernel { kernel }));
        }
        for stride in [0, 3] {
            let refused = Shape::new(1, 1, 1, stride, 1, 1);
            assert_eq!(refused, Err(ShapeError::Stride { stride }));
        }
        #[cfg(target_pointer_width = "64")]
        assert!(Shape::new(1024, 1024, 3, 1, 2048, 2048).is_ok());
    }
}
