//! A picture as a camera gives it.
//!
//! Takes borrowed bytes, gives a [`Frame`] whose length agrees with its size and format. Padding between rows is not
//! known here: who has some removes it.

use std::fmt::{self, Display, Formatter};

/// Shortest side of a frame, in pixels.
pub const SIDE_MIN: u32 = 2;
/// Longest side of a frame, in pixels.
pub const SIDE_MAX: u32 = 8192;

/// How a frame's bytes are laid out. The YUV formats are BT.601 of limited range, as cameras give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb8,
    /// Luma, u, luma, v for every two pixels of a row. The width is even.
    Yuyv,
    /// A plane of luma, then one of u, v for every two by two pixels. Both sides are even.
    Nv12,
    /// A plane of luma, then one of u, then one of v, the latter with one value for every two by two pixels. Both
    /// sides are even.
    I420,
}

impl PixelFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rgb8, Self::Yuyv, Self::Nv12, Self::I420];

    /// Bytes of a frame of this size, or why there is no such frame.
    pub fn frame_len(self, width: u32, height: u32) -> Result<usize, FrameError> {
        for side in [width, height] {
            if !(SIDE_MIN..=SIDE_MAX).contains(&side) {
                return Err(FrameError::Side { width, height });
            }
        }
        let (even_width, even_height) = match self {
            Self::Rgb8 => (false, false),
            Self::Yuyv => (true, false),
            Self::Nv12 | Self::I420 => (true, true),
        };
        if (even_width && !width.is_multiple_of(2)) || (even_height && !height.is_multiple_of(2)) {
            return Err(FrameError::OddSide {
                format: self,
                width,
                height,
            });
        }
        let pixels = width as usize * height as usize;
        Ok(match self {
            Self::Rgb8 => pixels * 3,
            Self::Yuyv => pixels * 2,
            Self::Nv12 | Self::I420 => pixels / 2 * 3,
        })
    }
}

impl Display for PixelFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rgb8 => "RGB8",
            Self::Yuyv => "YUYV",
            Self::Nv12 => "NV12",
            Self::I420 => "I420",
        })
    }
}

/// A picture whose bytes are all there.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    format: PixelFormat,
    width: u32,
    height: u32,
    data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks size and length. Both sides are 2 to 8192 pixels, and even where the format needs it.
    pub fn new(
        format: PixelFormat,
        width: u32,
        height: u32,
        data: &'a [u8],
    ) -> Result<Self, FrameError> {
        let expected = format.frame_len(width, height)?;
        if data.len() != expected {
            return Err(FrameError::Length {
                format,
                width,
                height,
                expected,
                found: data.len(),
            });
        }
        Ok(Self {
            format,
            width,
            height,
            data,
        })
    }

    /// Layout of the bytes.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// Pixels of a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} {} x {})", self.format, self.width, self.height)
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Too small or too large.
    #[error("a frame of {width} x {height} pixels: both sides must be {SIDE_MIN} to {SIDE_MAX}")]
    Side {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Chroma is shared by pairs of pixels.
    #[error(
        "a {format} frame of {width} x {height} pixels: the sides that share chroma must be even"
    )]
    OddSide {
        /// Layout.
        format: PixelFormat,
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Cut off or continued.
    #[error("a {format} frame of {width} x {height} pixels has {expected} bytes, not {found}")]
    Length {
        /// Layout.
        format: PixelFormat,
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes that it should have.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use PixelFormat::*;

    #[test]
    fn exact_lengths_are_taken_and_others_refused() {
        for (format, width, height, len) in [
            (Rgb8, 3, 5, 45),
            (Yuyv, 4, 3, 24),
            (Nv12, 4, 6, 36),
            (I420, 2, 2, 6),
            (Rgb8, 8192, 2, 49152),
        ] {
            let data = vec![0; len + 1];
            assert!(
                Frame::new(format, width, height, &data[..len]).is_ok(),
                "{format}"
            );
            for wrong in [0, len - 1, len + 1] {
                let error = Frame::new(format, width, height, &data[..wrong]).unwrap_err();
                assert_eq!(
                    error,
                    FrameError::Length {
                        format,
                        width,
                        height,
                        expected: len,
                        found: wrong
                    }
                );
            }
        }
    }

    #[test]
    fn sides_out_of_bounds_are_refused_whatever_the_length() {
        for (width, height) in [
            (0, 0),
            (1, 2),
            (2, 1),
            (8193, 2),
            (2, 8193),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(
                Frame::new(Rgb8, width, height, &[]).unwrap_err(),
                FrameError::Side { width, height }
            );
        }
    }

    #[test]
    fn odd_sides_are_refused_where_chroma_is_shared() {
        for (format, width, height) in [
            (Yuyv, 3, 2),
            (Nv12, 3, 2),
            (Nv12, 2, 3),
            (I420, 2, 3),
            (I420, 3, 2),
        ] {
            assert_eq!(
                Frame::new(format, width, height, &[]).unwrap_err(),
                FrameError::OddSide {
                    format,
                    width,
                    height
                }
            );
        }
        assert!(Frame::new(Yuyv, 2, 3, &[0; 12]).is_ok());
    }
}
