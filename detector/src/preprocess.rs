//! First stage: a frame becomes the network's input.
//!
//! Takes a [`Frame`] of any format and size, fills `[channel][row][column]` planes of red, green and blue, each value
//! half of a pixel's byte; the border around the letterboxed frame is the model's fill value. Guarantees the same
//! bytes everywhere (integers only) and no allocation. A YUV frame is resampled plane by plane, at the planes' own
//! resolution, and turned into RGB afterwards: fewer bytes to filter, and fewer pixels to convert.
//!
//! Each row of the input is made at once, so that what is between the passes stays in a first-level cache: rows of the
//! frame are mixed, components taken apart, columns mixed, colours converted ([`picture`]).

mod layout;

use ternwatch_kernels::Isa;
use ternwatch_kernels::picture::{self, SLACK, Taps};

use crate::frame::{Frame, PixelFormat, SIDE_MAX};
use crate::letterbox::Letterbox;
use layout::{Resolution, Row};

/// Turns frames into inputs of one size.
#[derive(Debug)]
pub(crate) struct Preprocessor {
    isa: Isa,
    width: usize,
    height: usize,
    fill: u8,
    /// What the tables below are for.
    planned: Option<(PixelFormat, u32, u32)>,
    letterbox: Letterbox,
    /// Tables for planes with a value per pixel, and for those with a value per two.
    full: Axes,
    half: Axes,
    rows: Rows,
}

#[derive(Debug)]
struct Axes {
    x: Taps,
    y: Taps,
}

/// Rows of filtered values, as long as the widest frame's or the input's.
#[derive(Debug)]
struct Rows {
    /// A row of a plane, mixed of several.
    mixed: Vec<i16>,
    /// U and v by turns.
    chroma: Vec<i16>,
    /// The components of that row.
    apart: [Vec<i16>; 3],
    /// The same, as wide as the content.
    components: [Vec<i16>; 3],
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
    pub(crate) fn new(width: u32, height: u32, fill: u8, isa: Isa) -> Self {
        let axes = || Axes {
            x: Taps::with_capacity(SIDE_MAX, width),
            y: Taps::with_capacity(SIDE_MAX, height),
        };
        let side_max = SIDE_MAX as usize;
        Self {
            isa,
            width: width as usize,
            height: height as usize,
            fill,
            planned: None,
            letterbox: Letterbox::fit((width, height), (width, height)),
            full: axes(),
            half: axes(),
            rows: Rows {
                mixed: vec![0; 3 * side_max],
                chroma: vec![0; side_max],
                apart: [(); 3].map(|()| vec![0; side_max + SLACK]),
                components: [(); 3].map(|()| vec![0; width as usize]),
            },
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
            let rgb = [&mut *red, &mut *green, &mut *blue]
                .map(|plane| &mut plane[at..at + content_width]);
            let components = self.rows.components.each_ref();
            let components = components.map(|row| &row[..content_width]);
            match frame.format() {
                PixelFormat::Rgb8 => {
                    for (values, output) in components.into_iter().zip(rgb) {
                        picture::to_u7(self.isa, values, output);
                    }
                }
                PixelFormat::Yuyv | PixelFormat::Nv12 | PixelFormat::I420 => {
                    picture::yuv_to_u7(self.isa, components, rgb);
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

    /// The components of row `y` of the content.
    fn resample_row(&mut self, frame: &Frame<'_>, y: usize) {
        let mut data = frame.data();
        for plane in layout::planes(frame.format()) {
            let row_len = plane.bytes_per_two_pixels * frame.width() as usize / 2;
            let row_count = plane.rows.of(frame.height()) as usize;
            let (plane_data, rest) = data.split_at(row_count * row_len);
            data = rest;
            let (first_row, weights) = axes(&self.full, &self.half, plane.rows).y.trimmed(y);
            let rows = &plane_data[first_row * row_len..][..weights.len() * row_len];
            self.rows.mix(self.isa, plane.row, rows, weights, row_len);
        }
        let apart = self.rows.apart.iter().zip(&mut self.rows.components);
        for (columns, (values, output)) in layout::columns(frame.format()).into_iter().zip(apart) {
            let taps = &axes(&self.full, &self.half, columns).x;
            let values = &values[..taps.input_len() + SLACK];
            picture::mix_columns(self.isa, values, taps, &mut output[..taps.len()]);
        }
    }
}

impl Rows {
    /// Mixes rows of a plane, and takes their components apart.
    fn mix(&mut self, isa: Isa, row: Row, rows: &[u8], weights: &[i16], row_len: usize) {
        if let Row::One(component) = row {
            let output = &mut self.apart[component][..row_len];
            return picture::mix_rows(isa, rows, weights, output);
        }
        let [a, b, c] = &mut self.apart;
        let mixed = &mut self.mixed[..row_len];
        picture::mix_rows(isa, rows, weights, mixed);
        match row {
            Row::One(_) => unreachable!("needs nothing taken apart"),
            Row::Chroma => {
                let half = row_len / 2;
                picture::split_pairs(isa, mixed, &mut b[..half], &mut c[..half]);
            }
            Row::Three => {
                let outputs = [a, b, c].map(|output| &mut output[..row_len / 3]);
                picture::split_triples(isa, mixed, outputs);
            }
            Row::LumaWithChroma => {
                let (half, quarter) = (row_len / 2, row_len / 4);
                let chroma = &mut self.chroma[..half];
                picture::split_pairs(isa, mixed, &mut a[..half], chroma);
                picture::split_pairs(isa, chroma, &mut b[..quarter], &mut c[..quarter]);
            }
        }
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
