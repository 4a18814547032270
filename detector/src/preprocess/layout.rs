//! Where the values are within the bytes of a frame.

use crate::frame::PixelFormat;

/// A run of rows within a frame's bytes.
pub(crate) struct Plane {
    /// Bytes of a row for every two pixels of the frame.
    pub(crate) bytes_per_two_pixels: usize,
    pub(crate) rows: Resolution,
    pub(crate) components: &'static [Component],
}

/// The values of one kind within the rows of a plane.
pub(crate) struct Component {
    /// 0 to 2: red, green, blue or luma, u, v.
    pub(crate) index: usize,
    /// Bytes before the first value.
    pub(crate) first: usize,
    /// Bytes from one value to the next.
    pub(crate) step: usize,
    pub(crate) columns: Resolution,
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

const RGB8: &[Plane] = &[plane(
    6,
    Full,
    &[
        component(0, 0, 3, Full),
        component(1, 1, 3, Full),
        component(2, 2, 3, Full),
    ],
)];
const YUYV: &[Plane] = &[plane(
    4,
    Full,
    &[
        component(0, 0, 2, Full),
        component(1, 1, 4, Half),
        component(2, 3, 4, Half),
    ],
)];
const NV12: &[Plane] = &[
    plane(2, Full, &[component(0, 0, 1, Full)]),
    plane(
        2,
        Half,
        &[component(1, 0, 2, Half), component(2, 1, 2, Half)],
    ),
];
const I420: &[Plane] = &[
    plane(2, Full, &[component(0, 0, 1, Full)]),
    plane(1, Half, &[component(1, 0, 1, Half)]),
    plane(1, Half, &[component(2, 0, 1, Half)]),
];

const fn plane(
    bytes_per_two_pixels: usize,
    rows: Resolution,
    components: &'static [Component],
) -> Plane {
    Plane {
        bytes_per_two_pixels,
        rows,
        components,
    }
}

const fn component(index: usize, first: usize, step: usize, columns: Resolution) -> Component {
    Component {
        index,
        first,
        step,
        columns,
    }
}
