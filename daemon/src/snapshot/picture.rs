//! From a shot to a JPEG: cut, made smaller, blurred, marked, encoded, in this order. Pure.
//!
//! Blurring comes after everything that could take it back: what the encoder gets has, wherever somebody may be, cells of one
//! colour, at most [`CELLS_MAX`] a side of a box. Nothing finer is left to be made out of it.

use super::album::Shot;
use super::{Blur, Config};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::thumbnail;
use image::{ImageError, Rgb, RgbImage};
use ternwatch_detector::{Frame, FrameError, PixelFormat};
use thiserror::Error;

/// Cells a side of a blurred box.
const CELLS_MAX: u32 = 8;
/// Pixels a side of a cell, at least.
const CELL_PIXELS_MIN: u32 = 4;
/// A blurred box is larger than the detection's by this part of its side, all around: boxes are never exact.
const BLUR_MARGIN: f32 = 0.15;
/// What is shown around whom a cut picture is about, in parts of their sides.
const CROP_MARGIN: f32 = 0.25;
/// Pixels a side of what is cut out, at least.
const CROP_PIXELS_MIN: f32 = 16.0;
/// The least quality that is tried.
const QUALITY_MIN: u8 = 10;
/// Width of the rectangle's line in pixels, and its colour.
const LINE_PIXELS: u32 = 2;
const LINE_COLOUR: Rgb<u8> = Rgb([255, 176, 0]);

/// Left, top, right, bottom in pixels of a picture, the latter two not included.
type Area = [u32; 4];

/// Why there is no picture.
#[derive(Debug, Error)]
pub(super) enum PictureError {
    #[error("the frame is not one")]
    Frame(#[from] FrameError),
    #[error("it cannot be encoded")]
    Encode(#[from] ImageError),
    #[error("{bytes} bytes at the least quality (snapshots.kib_max, snapshots.height_max)")]
    TooLarge { bytes: usize },
}

/// A JPEG of the shot, which is about the `subject` (left, top, right, bottom in pixels of the frame), or about nobody.
pub(super) fn jpeg(
    shot: &Shot,
    subject: Option<[f32; 4]>,
    config: &Config,
) -> Result<Vec<u8>, PictureError> {
    let picture = draw(shot, subject, config)?;
    encode(&picture, config.quality, config.kib_max << 10)
}

/// The picture as it is encoded.
fn draw(shot: &Shot, subject: Option<[f32; 4]>, config: &Config) -> Result<RgbImage, PictureError> {
    let frame = shot.frame.frame()?;
    let whole = [0, 0, frame.width(), frame.height()];
    let region = match subject {
        Some(subject) if config.crop => surroundings(subject, whole),
        _ => whole,
    };
    let (mut picture, view) = View::take(&frame, region, config.height_max);
    if config.blur == Blur::Persons {
        // Whoever it is about is among them, unless a detection is weaker than those that are asked for.
        for &person in shot.people.iter().chain(&subject) {
            if let Some(area) = view.area(grown(person, BLUR_MARGIN)) {
                pixelate(&mut picture, area);
            }
        }
    }
    if let Some(area) = subject.and_then(|subject| view.area(subject))
        && config.bounding_box
    {
        outline(&mut picture, area);
    }
    Ok(picture)
}

/// With less quality if it becomes too large.
fn encode(picture: &RgbImage, quality: u8, bytes_max: usize) -> Result<Vec<u8>, PictureError> {
    let mut quality = quality;
    loop {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture)?;
        if bytes.len() <= bytes_max {
            return Ok(bytes);
        }
        if quality <= QUALITY_MIN {
            let bytes = bytes.len();
            return Err(PictureError::TooLarge { bytes });
        }
        quality = (quality / 2).max(QUALITY_MIN);
    }
}

/// Which part of a frame a picture shows, and how much smaller.
#[derive(Clone, Copy, Debug)]
struct View {
    left: f32,
    top: f32,
    /// Pixels of the picture to one of the frame.
    scale: [f32; 2],
    width: u32,
    height: u32,
}

impl View {
    /// The region of the frame, at most `height_max` high.
    fn take(frame: &Frame<'_>, region: Area, height_max: u32) -> (RgbImage, Self) {
        let [left, top, right, bottom] = region;
        let factor = ((bottom - top) / height_max).max(1).min(right - left);
        let reduced = reduced(frame, region, factor);
        let covered = [reduced.width() * factor, reduced.height() * factor];
        let height = reduced.height().min(height_max);
        let width = (u64::from(reduced.width()) * u64::from(height) / u64::from(reduced.height()))
            .max(1) as u32;
        let picture = if height == reduced.height() {
            reduced
        } else {
            thumbnail(&reduced, width, height)
        };
        let view = Self {
            left: left as f32,
            top: top as f32,
            scale: [
                picture.width() as f32 / covered[0] as f32,
                picture.height() as f32 / covered[1] as f32,
            ],
            width: picture.width(),
            height: picture.height(),
        };
        (picture, view)
    }

    /// Where a box of the frame is in the picture, rounded to the outside; `None` if it is not in it.
    fn area(&self, [left, top, right, bottom]: [f32; 4]) -> Option<Area> {
        let x = |x: f32| (x - self.left) * self.scale[0];
        let y = |y: f32| (y - self.top) * self.scale[1];
        // A conversion to an integer saturates.
        let area = [
            x(left).floor() as u32,
            y(top).floor() as u32,
            (x(right).ceil() as u32).min(self.width),
            (y(bottom).ceil() as u32).min(self.height),
        ];
        (area[0] < area[2] && area[1] < area[3]).then_some(area)
    }
}

/// What a picture that is about `subject` shows: at least a pixel, at most everything.
fn surroundings(subject: [f32; 4], whole: Area) -> Area {
    let [left, top, right, bottom] = grown(subject, CROP_MARGIN);
    let side = |low: f32, high: f32, end: u32| {
        let more = ((CROP_PIXELS_MIN - (high - low)) / 2.0).max(0.0);
        let low = ((low - more).floor() as u32).min(end - 1);
        let high = ((high + more).ceil() as u32).clamp(low + 1, end);
        [low, high]
    };
    let [left, right] = side(left, right, whole[2]);
    let [top, bottom] = side(top, bottom, whole[3]);
    [left, top, right, bottom]
}

/// Whether all of one box is blurred where another one is.
pub fn covers(blurred: [f32; 4], other: [f32; 4]) -> bool {
    let [left, top, right, bottom] = grown(blurred, BLUR_MARGIN);
    left <= other[0] && top <= other[1] && other[2] <= right && other[3] <= bottom
}

/// A box that is larger by this part of its sides, all around.
fn grown([left, top, right, bottom]: [f32; 4], margin: f32) -> [f32; 4] {
    let (x, y) = ((right - left) * margin, (bottom - top) * margin);
    [left - x, top - y, right + x, bottom + y]
}

/// One colour a cell.
fn pixelate(picture: &mut RgbImage, [left, top, right, bottom]: Area) {
    let cell = |from: u32, to: u32| (to - from).div_ceil(CELLS_MAX).max(CELL_PIXELS_MIN);
    let (width, height) = (cell(left, right), cell(top, bottom));
    for y in (top..bottom).step_by(height as usize) {
        for x in (left..right).step_by(width as usize) {
            let area = [x, y, (x + width).min(right), (y + height).min(bottom)];
            let colour = mean(picture, area);
            for (x, y) in pixels(area) {
                picture.put_pixel(x, y, colour);
            }
        }
    }
}

fn mean(picture: &RgbImage, area: Area) -> Rgb<u8> {
    let mut sums = [0u64; 3];
    for (x, y) in pixels(area) {
        for (sum, value) in sums.iter_mut().zip(picture.get_pixel(x, y).0) {
            *sum += u64::from(value);
        }
    }
    let [left, top, right, bottom] = area;
    let count = u64::from(right - left) * u64::from(bottom - top);
    Rgb(sums.map(|sum| (sum / count) as u8))
}

fn outline(picture: &mut RgbImage, [left, top, right, bottom]: Area) {
    for (x, y) in pixels([left, top, right, bottom]) {
        let is_edge = x < left + LINE_PIXELS
            || y < top + LINE_PIXELS
            || x + LINE_PIXELS >= right
            || y + LINE_PIXELS >= bottom;
        if is_edge {
            picture.put_pixel(x, y, LINE_COLOUR);
        }
    }
}

fn pixels([left, top, right, bottom]: Area) -> impl Iterator<Item = (u32, u32)> {
    (top..bottom).flat_map(move |y| (left..right).map(move |x| (x, y)))
}

/// The region, every pixel the mean of `factor` by `factor` of the frame's; what is left over at the end is cut off.
fn reduced(frame: &Frame<'_>, [left, top, right, bottom]: Area, factor: u32) -> RgbImage {
    let (width, height) = ((right - left) / factor, (bottom - top) / factor);
    let colour = Colour::of(frame);
    let count = i64::from(factor) * i64::from(factor);
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (left + x * factor, top + y * factor);
        let mut sums = [0i64; 3];
        for (x, y) in pixels([x, y, x + factor, y + factor]) {
            for (sum, value) in sums.iter_mut().zip(colour.at(x as usize, y as usize)) {
                *sum += i64::from(value);
            }
        }
        Rgb(sums.map(|sum| (sum / count) as u8))
    })
}

/// The colours of a frame.
struct Colour<'a> {
    format: PixelFormat,
    width: usize,
    height: usize,
    data: &'a [u8],
}

impl<'a> Colour<'a> {
    fn of(frame: &Frame<'a>) -> Self {
        Self {
            format: frame.format(),
            width: frame.width() as usize,
            height: frame.height() as usize,
            data: frame.data(),
        }
    }

    /// Of a pixel that lies in the frame.
    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let (row, pixels) = (y * self.width, self.width * self.height);
        let (half_row, half) = (y / 2 * (self.width / 2), x / 2);
        let [luma, u, v] = match self.format {
            PixelFormat::Rgb8 => {
                let at = (row + x) * 3;
                return [self.data[at], self.data[at + 1], self.data[at + 2]];
            }
            PixelFormat::Yuyv => {
                let pair = row * 2 + half * 4;
                [row * 2 + x * 2, pair + 1, pair + 3]
            }
            PixelFormat::Nv12 => {
                let pair = pixels + (half_row + half) * 2;
                [row + x, pair, pair + 1]
            }
            PixelFormat::I420 => {
                let u = pixels + half_row + half;
                [row + x, u, u + pixels / 4]
            }
        };
        rgb(self.data[luma], self.data[u], self.data[v])
    }
}

/// BT.601 of limited range, in steps of 1/256.
fn rgb(luma: u8, u: u8, v: u8) -> [u8; 3] {
    let [luma, u, v] = [i32::from(luma) - 16, i32::from(u) - 128, i32::from(v) - 128];
    let steps = [
        298 * luma + 409 * v,
        298 * luma - 100 * u - 208 * v,
        298 * luma + 516 * u,
    ];
    steps.map(|steps| ((steps + 128) >> 8).clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::FrameBuffer;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn config() -> Config {
        let config = crate::config::Config::load(None, []).expect("the defaults");
        config.snapshots
    }

    /// Noise, which no two pixels share.
    fn shot(width: u32, height: u32, people: &[[f32; 4]]) -> Shot {
        let mut frame = FrameBuffer::empty();
        let len = (width * height * 3) as usize;
        let mut random = fastrand::Rng::with_seed(1);
        random.fill(frame.prepare(PixelFormat::Rgb8, width, height, len));
        let people = people.to_vec();
        Shot { frame, people }
    }

    fn colours(picture: &RgbImage, area: Area) -> BTreeSet<[u8; 3]> {
        pixels(area)
            .map(|(x, y)| picture.get_pixel(x, y).0)
            .collect()
    }

    const PERSON: [f32; 4] = [40.0, 30.0, 120.0, 190.0];

    #[test]
    fn a_blurred_person_is_a_few_cells_of_one_colour_each() {
        let shot = shot(320, 240, &[PERSON]);
        let picture = draw(&shot, None, &config()).expect("a picture");
        // 80 by 160 pixels and the margin: 104 by 208, in cells of 13 by 26.
        let area = [28, 6, 132, 214];
        for y in (area[1]..area[3]).step_by(26) {
            for x in (area[0]..area[2]).step_by(13) {
                let cell = [x, y, x + 13, y + 26];
                assert_eq!(colours(&picture, cell).len(), 1, "{cell:?}");
                // The mean of 338 random pixels says nothing of any of them.
                let [colour] = colours(&picture, cell).into_iter().collect::<Vec<_>>()[..] else {
                    unreachable!("it was counted");
                };
                assert!(colour.iter().all(|value| (90..165).contains(value)));
            }
        }
        let whole = shot.frame.frame().expect("a frame");
        let untouched = reduced(&whole, [0, 0, 320, 240], 1);
        for (x, y) in pixels([0, 0, 320, 240]) {
            let is_in = (28..132).contains(&x) && (6..214).contains(&y);
            if !is_in {
                assert_eq!(picture.get_pixel(x, y), untouched.get_pixel(x, y));
            }
        }
    }

    #[test]
    fn without_blur_nothing_is_changed_but_for_the_rectangle() {
        let mut config = config();
        config.blur = Blur::None;
        config.bounding_box = false;
        let shot = shot(320, 240, &[PERSON]);
        let whole = shot.frame.frame().expect("a frame");
        let untouched = reduced(&whole, [0, 0, 320, 240], 1);
        let draw = |config: &Config| draw(&shot, Some(PERSON), config).expect("a picture");
        assert_eq!(draw(&config), untouched);
        config.bounding_box = true;
        let marked = draw(&config);
        assert_eq!(marked.get_pixel(40, 100), &LINE_COLOUR);
        assert_eq!(marked.get_pixel(119, 100), &LINE_COLOUR);
        assert_eq!(marked.get_pixel(80, 30), &LINE_COLOUR);
        assert_eq!(marked.get_pixel(80, 100), untouched.get_pixel(80, 100));
    }

    #[test]
    fn a_cut_picture_shows_whom_it_is_about_and_a_high_one_is_made_smaller() {
        let mut config = config();
        config.crop = true;
        let shot = shot(320, 240, &[PERSON]);
        let draw = |config: &Config| draw(&shot, Some(PERSON), config).expect("a picture");
        // 80 by 160 and a quarter all around, as far as there is a picture.
        assert_eq!(draw(&config).dimensions(), (120, 230));
        config.height_max = 100;
        assert_eq!(draw(&config).height(), 100);
        config.crop = false;
        assert_eq!(draw(&config).dimensions(), (133, 100));
    }

    #[test]
    fn a_large_picture_loses_quality_and_what_is_still_too_large_is_not_made() {
        let mut config = config();
        config.blur = Blur::None;
        let shot = shot(640, 480, &[]);
        config.quality = 100;
        config.kib_max = 240;
        let bytes = jpeg(&shot, None, &config).expect("fits");
        assert!(bytes.len() <= 240 << 10, "{}", bytes.len());
        let decoded = image::load_from_memory(&bytes).expect("a JPEG");
        assert_eq!((decoded.width(), decoded.height()), (640, 480));
        config.kib_max = 16;
        let error = jpeg(&shot, None, &config).expect_err("noise");
        assert!(error.to_string().contains("snapshots.kib_max"), "{error}");
    }

    #[test]
    fn every_format_has_the_same_colours() {
        // Red, as BT.601 of limited range has it.
        let [luma, u, v] = [81u8, 90, 240];
        let data = |format: PixelFormat| -> Vec<u8> {
            let [y, u, v] = [[luma; 16].to_vec(), [u; 4].to_vec(), [v; 4].to_vec()];
            match format {
                PixelFormat::Rgb8 => [255, 0, 0].repeat(16),
                PixelFormat::Yuyv => [luma, u[0], luma, v[0]].repeat(8),
                PixelFormat::Nv12 => [y, [u[0], v[0]].repeat(4)].concat(),
                PixelFormat::I420 => [y, u, v].concat(),
            }
        };
        for format in [
            PixelFormat::Rgb8,
            PixelFormat::Yuyv,
            PixelFormat::Nv12,
            PixelFormat::I420,
        ] {
            let data = data(format);
            let frame = Frame::new(format, 4, 4, &data).expect("a frame");
            for (x, y) in pixels([0, 0, 4, 4]) {
                let [red, green, blue] = Colour::of(&frame).at(x as usize, y as usize);
                assert!(red >= 253 && green <= 2 && blue <= 2, "{format} {x} {y}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_box_and_no_size_is_too_strange(
            (width, height) in (1..60u32, 1..60u32),
            height_max in 1..80u32,
            boxes in prop::collection::vec(prop::array::uniform4(-50.0..150.0f32), 1..4),
            (crop, blur) in (any::<bool>(), any::<bool>()),
        ) {
            let mut config = config();
            config.height_max = height_max;
            config.crop = crop;
            config.blur = if blur { Blur::Persons } else { Blur::None };
            let shot = shot(width + 1, height + 1, &boxes);
            let bytes = jpeg(&shot, Some(boxes[0]), &config).expect("a picture");
            let picture = image::load_from_memory(&bytes).expect("a JPEG");
            prop_assert!(picture.height() <= height_max && picture.width() >= 1);
        }

        #[test]
        fn a_blurred_box_has_few_colours(
            (width, height, height_max) in (16..200u32, 16..200u32, 64..200u32),
            [x, y, other_x, other_y] in prop::array::uniform4(0.0..200.0f32),
        ) {
            // As the detector gives it.
            let person = [x.min(other_x), y.min(other_y), x.max(other_x), y.max(other_y)];
            let mut config = config();
            config.height_max = height_max;
            let shot = shot(width, height, &[person]);
            let frame = shot.frame.frame().expect("a frame");
            let (_, view) = View::take(&frame, [0, 0, width, height], height_max);
            let picture = draw(&shot, None, &config).expect("a picture");
            if let Some(area) = view.area(person) {
                let count = colours(&picture, area).len();
                prop_assert!(count <= (CELLS_MAX * CELLS_MAX) as usize, "{count}");
            }
        }
    }
}
