//! First stage: a frame becomes the network's input.
//!
//! Takes a [`Frame`] of any format and size, fills `[channel][row][column]` planes of red, green and blue, each value
//! half of a pixel's byte; the border around the letterboxed frame is the model's fill value. Guarantees the same
//! bytes everywhere (integers only) and no allocation. A YUV frame is resampled plane by plane, at the planes' own
//! resolution, and turned into RGB afterwards: fewer bytes to filter, and fewer pixels to convert.

mod colour;
mod layout;
mod resample;
mod taps;

use crate::frame::{Frame, PixelFormat, SIDE_MAX};
use crate::letterbox::Letterbox;
use layout::Resolution;
use resample::{ROWS, RowMix, Woven};
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
    /// Rows of a plane, filtered vertically: as long as the widest frame's row.
    mixed: Vec<Woven<i16>>,
    /// Rows of each component, filtered in both directions: as long as the input's row.
    components: [Vec<Woven<i16>>; 3],
    /// The same rows of red, green and blue.
    rgb: [Vec<Woven<u8>>; 3],
}

#[derive(Debug)]
struct Axes {
    x: Taps,
    y: Taps,
}

impl Axes {
    fn plan(&mut self, resolution: Resolution, frame: &Frame<'_>, letterbox: &Letterbox) {
        // The tables of half resolution are for nobody where a side has a single pair or is odd.
        let values = |pixels| resolution.of(pixels).max(1);
        self.x.plan(values(frame.width()), letterbox.x.content);
        self.y.plan(values(frame.height()), letterbox.y.content);
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
            mixed: vec![[0; ROWS]; 3 * SIDE_MAX as usize],
            components: [(); 3].map(|()| vec![[0; ROWS]; width as usize]),
            rgb: [(); 3].map(|()| vec![[0; ROWS]; width as usize]),
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
        for y in (0..content_height).step_by(ROWS) {
            self.resample_rows(frame, y);
            let components = self
                .components
                .each_ref()
                .map(|rows| rows[..content_width].as_flattened());
            let rgb = self
                .rgb
                .each_mut()
                .map(|rows| rows[..content_width].as_flattened_mut());
            match frame.format() {
                PixelFormat::Rgb8 => colour::rgb_to_u7(components, rgb),
                PixelFormat::Yuyv | PixelFormat::Nv12 | PixelFormat::I420 => {
                    colour::yuv_to_u7(components, rgb)
                }
            }
            let rows = y..content_height.min(y + ROWS);
            for (plane, woven) in input.chunks_exact_mut(plane_len).zip(&self.rgb) {
                for (row, y) in rows.clone().enumerate() {
                    let at = (top + y) * self.width + left;
                    unweave(woven, row, &mut plane[at..at + content_width]);
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
        self.letterbox = Letterbox::fit(
            (frame.width(), frame.height()),
            (self.width as u32, self.height as u32),
        );
        self.full.plan(Resolution::Full, frame, &self.letterbox);
        self.half.plan(Resolution::Half, frame, &self.letterbox);
    }

    /// The rows of the content from `y` on, all components. The last row is repeated where there are no more.
    fn resample_rows(&mut self, frame: &Frame<'_>, y: usize) {
        let mut data = frame.data();
        for plane in layout::planes(frame.format()) {
            let row_len = plane.bytes_per_two_pixels * frame.width() as usize / 2;
            let rows = plane.rows.of(frame.height()) as usize;
            let (plane_data, rest) = data.split_at(rows * row_len);
            data = rest;
            let taps = &axes(&self.full, &self.half, plane.rows).y;
            let mixes = std::array::from_fn(|row| {
                let (first_row, weights) = taps.of((y + row).min(taps.len() - 1));
                RowMix {
                    rows: &plane_data[first_row * row_len..],
                    weights,
                }
            });
            let mixed = &mut self.mixed[..row_len];
            resample::mix_rows(&mixes, mixed);
            for component in plane.components {
                let taps = &axes(&self.full, &self.half, component.columns).x;
                let output = &mut self.components[component.index];
                resample::mix_columns(&mixed[component.first..], component.step, taps, output);
            }
        }
    }
}

/// One of the rows that are woven into each other.
fn unweave(woven: &[Woven<u8>], row: usize, output: &mut [u8]) {
    for (value, woven) in output.iter_mut().zip(woven) {
        *value = woven[row];
    }
}

fn axes<'a>(full: &'a Axes, half: &'a Axes, resolution: Resolution) -> &'a Axes {
    match resolution {
        Resolution::Full => full,
        Resolution::Half => half,
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
