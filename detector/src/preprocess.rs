//! First stage: a frame becomes the network's input.
//!
//! Takes a [`Frame`] of any format and size, fills `[channel][row][column]` planes of red, green and blue, each value
//! half of a pixel's byte; the border around the letterboxed frame is the model's fill value. Guarantees the same
//! bytes everywhere (integers only) and no allocation. A YUV frame is resampled plane by plane, at the planes' own
//! resolution, and turned into RGB afterwards: fewer bytes to filter, and fewer pixels to convert.

mod colour;
mod resample;
mod taps;

use crate::frame::{Frame, PixelFormat, SIDE_MAX};
use crate::letterbox::Letterbox;
use taps::Taps;

/// Turns frames into inputs of one size.
#[derive(Debug)]
pub(crate) struct Preprocessor {
    width: usize,
    height: usize,
    fill: u8,
    /// What the tables below are for.
    planned: Option<(PixelFormat, u32, u32)>,
    letterbox: Letterbox,
    /// Tables for planes with a value per pixel, and for those with a value per two.
    full: Axes,
    half: Axes,
    /// One row of a plane, filtered vertically: as long as the widest frame's row.
    mixed: Vec<i16>,
    /// One row of each component, filtered in both directions: as long as the input's row.
    components: [Vec<i16>; 3],
}

#[derive(Debug)]
struct Axes {
    x: Taps,
    y: Taps,
}

/// A run of rows within a frame's bytes.
struct Plane {
    /// Bytes of a row for every two pixels of the frame.
    bytes_per_two_pixels: usize,
    /// Whether the rows are as many as the frame's.
    rows: Resolution,
    components: &'static [Component],
}

/// The values of one kind within the rows of a plane.
struct Component {
    /// 0 to 2: red, green, blue or luma, u, v.
    index: usize,
    /// Bytes before the first value.
    first: usize,
    /// Bytes from one value to the next.
    step: usize,
    columns: Resolution,
}

#[derive(Clone, Copy)]
enum Resolution {
    Full,
    Half,
}

use Resolution::{Full, Half};

const fn component(index: usize, first: usize, step: usize, columns: Resolution) -> Component {
    Component {
        index,
        first,
        step,
        columns,
    }
}

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

fn planes(format: PixelFormat) -> &'static [Plane] {
    match format {
        PixelFormat::Rgb8 => RGB8,
        PixelFormat::Yuyv => YUYV,
        PixelFormat::Nv12 => NV12,
        PixelFormat::I420 => I420,
    }
}

impl Preprocessor {
    /// Allocates for frames of any size.
    pub(crate) fn new(width: u32, height: u32, fill: u8) -> Self {
        let axes = || Axes {
            x: Taps::with_capacity(SIDE_MAX, width),
            y: Taps::with_capacity(SIDE_MAX, height),
        };
        Self {
            width: width as usize,
            height: height as usize,
            fill,
            planned: None,
            letterbox: Letterbox::fit((width, height), (width, height)),
            full: axes(),
            half: axes(),
            mixed: vec![0; 3 * SIDE_MAX as usize],
            components: [(); 3].map(|()| vec![0; width as usize]),
        }
    }

    /// Fills the input, `3 * height * width` bytes, and says where the frame lies in it.
    pub(crate) fn run(&mut self, frame: &Frame<'_>, input: &mut [u8]) -> Letterbox {
        self.plan(frame);
        let (left, top) = (
            self.letterbox.x.offset as usize,
            self.letterbox.y.offset as usize,
        );
        let (content_width, content_height) = (self.full.x.len(), self.full.y.len());
        let plane_len = self.width * self.height;
        for plane in input.chunks_exact_mut(plane_len) {
            fill_border(
                plane,
                self.width,
                left..left + content_width,
                top..top + content_height,
                self.fill,
            );
        }
        let (red, rest) = input.split_at_mut(plane_len);
        let (green, blue) = rest.split_at_mut(plane_len);
        for y in 0..content_height {
            self.resample_row(frame, y);
            let at = (top + y) * self.width + left;
            let row = at..at + content_width;
            let rgb = [
                &mut red[row.clone()],
                &mut green[row.clone()],
                &mut blue[row],
            ];
            let components = self
                .components
                .each_ref()
                .map(|component| &component[..content_width]);
            match frame.format() {
                PixelFormat::Rgb8 => colour::rgb_to_u7(components, rgb),
                PixelFormat::Yuyv | PixelFormat::Nv12 | PixelFormat::I420 => {
                    colour::yuv_to_u7(components, rgb)
                }
            }
        }
        self.letterbox
    }

    /// Computes the tables, unless the last frame was of the same kind.
    fn plan(&mut self, frame: &Frame<'_>) {
        let kind = (frame.format(), frame.width(), frame.height());
        if self.planned == Some(kind) {
            return;
        }
        self.planned = Some(kind);
        let (width, height) = (frame.width(), frame.height());
        self.letterbox = Letterbox::fit((width, height), (self.width as u32, self.height as u32));
        let (content_width, content_height) = (self.letterbox.x.content, self.letterbox.y.content);
        self.full.x.plan(width, content_width);
        self.full.y.plan(height, content_height);
        self.half.x.plan((width / 2).max(1), content_width);
        self.half.y.plan((height / 2).max(1), content_height);
    }

    /// One row of the content, all components.
    fn resample_row(&mut self, frame: &Frame<'_>, y: usize) {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let mut data = frame.data();
        for plane in planes(frame.format()) {
            let row_len = plane.bytes_per_two_pixels * width / 2;
            let (rows, axes_y) = match plane.rows {
                Full => (height, &self.full.y),
                Half => (height / 2, &self.half.y),
            };
            let (plane_data, rest) = data.split_at(rows * row_len);
            data = rest;
            let (first_row, weights) = axes_y.of(y);
            let mixed = &mut self.mixed[..row_len];
            resample::mix_rows(&plane_data[first_row * row_len..], row_len, weights, mixed);
            for component in plane.components {
                let taps = match component.columns {
                    Full => &self.full.x,
                    Half => &self.half.x,
                };
                let output = &mut self.components[component.index];
                resample::mix_columns(&mixed[component.first..], component.step, taps, output);
            }
        }
    }
}

/// Everything outside of the content's columns and rows.
fn fill_border(
    plane: &mut [u8],
    width: usize,
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
    fill: u8,
) {
    for (y, row) in plane.chunks_exact_mut(width).enumerate() {
        if rows.contains(&y) {
            row[..columns.start].fill(fill);
            row[columns.end..].fill(fill);
        } else {
            row.fill(fill);
        }
    }
}

#[cfg(test)]
mod tests;
