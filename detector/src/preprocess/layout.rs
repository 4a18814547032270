//! Where the values are within the bytes of a frame.

use crate::frame::PixelFormat;

/// A run of rows within a frame's bytes.
pub(crate) struct Plane {
    /// Bytes of a row for every two pixels of the frame.
    pub(crate) bytes_per_two_pixels: usize,
    pub(crate) rows: Resolution,
    pub(crate) row: Row,
}

/// The values of a row, by component: 0 to 2 are red, green, blue or luma, u, v.
#[derive(Clone, Copy)]
pub(crate) enum Row {
    /// Of this component only.
    One(usize),
    /// Of all three by turns.
    Three,
    /// U and v by turns.
    Chroma,
    /// Luma, u, luma, v.
    LumaWithChroma,
}

/// How many values there are for the frame's pixels along one axis.
#[derive(Clone, Copy)]
pub(crate) enum Resolution {
    /// One per pixel.
    Full,
    /// One per two.
    Half,
}

use Resolution::{Full, Half};

impl Resolution {
    pub(crate) fn of(self, pixels: u32) -> u32 {
        match self {
            Full => pixels,
            Half => pixels / 2,
        }
    }
}

/// The planes in the order of their bytes.
pub(crate) fn planes(format: PixelFormat) -> &'static [Plane] {
    match format {
        PixelFormat::Rgb8 => RGB8,
        PixelFormat::Yuyv => YUYV,
        PixelFormat::Nv12 => NV12,
        PixelFormat::I420 => I420,
    }
}

const RGB8: &[Plane] = &[plane(6, Full, Row::Three)];
const YUYV: &[Plane] = &[plane(4, Full, Row::LumaWithChroma)];
const NV12: &[Plane] = &[plane(2, Full, Row::One(0)), plane(2, Half, Row::Chroma)];
const I420: &[Plane] = &[
    plane(2, Full, Row::One(0)),
    plane(1, Half, Row::One(1)),
    plane(1, Half, Row::One(2)),
];

/// The columns of each component.
pub(crate) fn columns(format: PixelFormat) -> [Resolution; 3] {
    match format {
        PixelFormat::Rgb8 => [Full; 3],
        PixelFormat::Yuyv | PixelFormat::Nv12 | PixelFormat::I420 => [Full, Half, Half],
    }
}

const fn plane(bytes_per_two_pixels: usize, rows: Resolution, row: Row) -> Plane {
    Plane {
        bytes_per_two_pixels,
        rows,
        row,
    }
}
