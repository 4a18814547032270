//! A camera's bytes become a frame.
//!
//! Uncompressed formats pass as they are, the detector reads them; a JPEG becomes RGB. The bytes come from a device
//! that anybody may plug in: lengths are checked, and a panic of the JPEG decoder costs a frame, not the thread.

use super::format::{Encoding, Layout};
use crate::camera::{FrameBuffer, SIDE_MAX};
use image::codecs::jpeg::JpegDecoder;
use image::{ColorType, ImageDecoder};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use ternwatch_detector::PixelFormat;
use thiserror::Error;

/// Why a frame is skipped.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Fewer bytes than a frame has.
    #[error("{found} bytes instead of {expected}")]
    Short {
        /// What arrived.
        found: usize,
        /// What the format needs.
        expected: usize,
    },
    /// The end of a JPEG picture is missing.
    #[error("a JPEG without its end")]
    Cut,
    /// Not a JPEG file, or a damaged one.
    #[error("damaged JPEG: {0}")]
    Jpeg(#[from] image::ImageError),
    /// A JPEG of another size than the stream's.
    #[error("a JPEG of {0}x{1} pixels instead of {2}x{3}")]
    Size(u32, u32, u32, u32),
    /// A JPEG of an unusual kind.
    #[error("{0:?} JPEG of {1}x{2} pixels is not supported")]
    Kind(ColorType, u32, u32),
    /// The decoder has a bug that this frame found.
    #[error("the JPEG decoder panicked")]
    Panic,
}

/// A JPEG picture's first two bytes.
const START_OF_IMAGE: [u8; 2] = [0xFF, 0xD8];
/// A JPEG picture's last two bytes.
const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
/// The second byte of the marker before the tables that a JPEG picture's pixels are coded with.
const HUFFMAN_TABLES: u8 = 0xC4;
/// The second byte of the marker before a JPEG picture's pixels.
const START_OF_SCAN: u8 = 0xDA;
/// The beginning of a picture of an AVI film, which makes the decoder take the usual tables for those that are not there.
const USUAL_TABLES: [u8; 20] = *b"\xFF\xD8\xFF\xE0\x00\x10AVI1\0\0\0\0\0\0\0\0\0\0";

/// Makes frames of a stream's bytes.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    layout: Layout,
    /// Whether a JPEG picture had its end so far. There are cameras that leave it out.
    has_ends: bool,
    /// A JPEG picture that came without its tables, with them.
    completed: Vec<u8>,
}

impl Decoder {
    /// For a stream of this layout.
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            has_ends: false,
            completed: Vec::new(),
        }
    }

    /// Decodes `raw` into `buffer`.
    pub(super) fn decode(
        &mut self,
        raw: &[u8],
        buffer: &mut FrameBuffer,
    ) -> Result<(), DecodeError> {
        let Layout { offer, line_bytes } = self.layout;
        let (width, height) = (offer.width as usize, offer.height as usize);
        let (format, line, lines) = match offer.encoding {
            Encoding::Yuyv => (PixelFormat::Yuyv, 2 * width, height),
            Encoding::Nv12 => (PixelFormat::Nv12, width, height / 2 * 3),
            Encoding::Mjpeg => {
                // Drivers may fill up what is behind it.
                let has_end = raw.windows(2).rev().any(|bytes| bytes == END_OF_IMAGE);
                if self.has_ends && !has_end {
                    return Err(DecodeError::Cut);
                }
                self.has_ends = has_end;
                let raw = if lacks_tables(raw) {
                    self.completed.clear();
                    self.completed.extend_from_slice(&USUAL_TABLES);
                    self.completed
                        .extend_from_slice(&raw[START_OF_IMAGE.len()..]);
                    &self.completed
                } else {
                    raw
                };
                return decode_safely(raw, Some((offer.width, offer.height)), buffer);
            }
        };
        let step = line_bytes.max(line);
        let expected = step * (lines - 1) + line;
        let Some(raw) = raw.get(..expected) else {
            return Err(DecodeError::Short {
                found: raw.len(),
                expected,
            });
        };
        let frame = buffer.prepare(format, offer.width, offer.height, line * lines);
        for (to, from) in frame.chunks_exact_mut(line).zip(raw.chunks(step)) {
            to.copy_from_slice(&from[..line]);
        }
        Ok(())
    }
}

/// Decodes a JPEG picture, whatever its size is.
pub fn jpeg(raw: &[u8], buffer: &mut FrameBuffer) -> Result<(), DecodeError> {
    decode_safely(raw, None, buffer)
}

fn decode_safely(
    raw: &[u8],
    size: Option<(u32, u32)>,
    buffer: &mut FrameBuffer,
) -> Result<(), DecodeError> {
    catch_unwind(AssertUnwindSafe(|| decode_jpeg(raw, size, buffer)))
        .unwrap_or(Err(DecodeError::Panic))
}

fn decode_jpeg(
    raw: &[u8],
    size: Option<(u32, u32)>,
    buffer: &mut FrameBuffer,
) -> Result<(), DecodeError> {
    let decoder = JpegDecoder::new(Cursor::new(raw))?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    if let Some(wanted) = size
        && !(is_filled_up(width, wanted.0) && is_filled_up(height, wanted.1))
    {
        return Err(DecodeError::Size(width, height, wanted.0, wanted.1));
    }
    let sides_fit = [width, height]
        .iter()
        .all(|side| (2..=SIDE_MAX).contains(side));
    if !sides_fit || !matches!(color, ColorType::Rgb8 | ColorType::L8) {
        return Err(DecodeError::Kind(color, width, height));
    }
    let pixels = width as usize * height as usize;
    let bytes = buffer.prepare(PixelFormat::Rgb8, width, height, pixels * 3);
    match color {
        ColorType::Rgb8 => decoder.read_image(bytes)?,
        _ => {
            // Grey: decode into the front, then spread from the back, where nothing is overwritten unread.
            decoder.read_image(&mut bytes[..pixels])?;
            for pixel in (0..pixels).rev() {
                let grey = bytes[pixel];
                bytes[pixel * 3..pixel * 3 + 3].fill(grey);
            }
        }
    }
    Ok(())
}

/// Whether a side is the wanted one, or that filled up to whole blocks.
fn is_filled_up(side: u32, wanted: u32) -> bool {
    [1, 8, 16]
        .iter()
        .any(|block| side == wanted.next_multiple_of(*block))
}

/// Whether a JPEG picture leaves its Huffman tables out and means the usual ones, as many cameras' do. Of one that is damaged before
/// its pixels begin the decoder knows more to tell.
fn lacks_tables(raw: &[u8]) -> bool {
    let Some(mut rest) = raw.strip_prefix(&START_OF_IMAGE) else {
        return false;
    };
    loop {
        match rest {
            // Any number of these may come before a marker.
            [0xFF, 0xFF, ..] => rest = &rest[1..],
            [0xFF, START_OF_SCAN, ..] => return true,
            [0xFF, HUFFMAN_TABLES, ..] => return false,
            [0xFF, _, high, low, ..] => {
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                let Some(behind) = rest.get(2 + len..) else {
                    return false;
                };
                rest = behind;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Offer;
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use proptest::prelude::*;

    fn decoder(encoding: Encoding, width: u32, height: u32, line_bytes: usize) -> Decoder {
        let offer = Offer {
            width,
            height,
            encoding,
            ..Offer::default()
        };
        Decoder::new(Layout { offer, line_bytes })
    }

    fn picture(pixels: &[u8], width: u32, height: u32, color: image::ExtendedColorType) -> Vec<u8> {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 100)
            .encode(pixels, width, height, color)
            .expect("encodes");
        bytes
    }

    #[test]
    fn uncompressed_frames_pass_without_the_drivers_padding() {
        let mut buffer = FrameBuffer::empty();
        let raw: Vec<u8> = (0..100).collect();
        let mut yuyv = decoder(Encoding::Yuyv, 4, 2, 0);
        yuyv.decode(&raw, &mut buffer).expect("long enough");
        assert_eq!(buffer.data, raw[..16]);
        assert!(buffer.frame().is_ok());
        let mut nv12 = decoder(Encoding::Nv12, 4, 2, 4);
        nv12.decode(&raw, &mut buffer).expect("long enough");
        assert_eq!(buffer.data, raw[..12]);
        assert!(buffer.frame().is_ok());
        let short = yuyv.decode(&raw[..15], &mut buffer);
        assert!(matches!(
            short,
            Err(DecodeError::Short {
                found: 15,
                expected: 16
            })
        ));
    }

    #[test]
    fn lines_that_lie_further_apart_are_put_together() {
        let mut buffer = FrameBuffer::empty();
        let raw: Vec<u8> = (0..28).collect();
        let mut yuyv = decoder(Encoding::Yuyv, 4, 2, 20);
        yuyv.decode(&raw, &mut buffer).expect("long enough");
        assert_eq!(buffer.data[..8], raw[..8]);
        assert_eq!(buffer.data[8..], raw[20..28]);
        let mut nv12 = decoder(Encoding::Nv12, 4, 2, 10);
        nv12.decode(&raw, &mut buffer).expect("long enough");
        assert_eq!(
            buffer.data,
            [&raw[..4], &raw[10..14], &raw[20..24]].concat()
        );
        assert!(nv12.decode(&raw[..23], &mut buffer).is_err());
    }

    #[test]
    fn a_jpeg_that_was_cut_off_is_damaged_unless_the_camera_never_ends_one() {
        let pixels: Vec<u8> = (0..=255).cycle().take(64 * 64 * 3).collect();
        let raw = picture(&pixels, 64, 64, image::ExtendedColorType::Rgb8);
        let (half, endless) = (&raw[..raw.len() / 2], &raw[..raw.len() - 2]);
        let mut buffer = FrameBuffer::empty();
        let mut good = decoder(Encoding::Mjpeg, 64, 64, 0);
        good.decode(&raw, &mut buffer).expect("whole");
        assert!(matches!(
            good.decode(half, &mut buffer),
            Err(DecodeError::Cut)
        ));
        assert!(good.decode(&[], &mut buffer).is_err());
        good.decode(&raw, &mut buffer).expect("whole again");
        let mut lazy = decoder(Encoding::Mjpeg, 64, 64, 0);
        for _ in 0..2 {
            lazy.decode(endless, &mut buffer).expect("all pixels");
        }
    }

    /// A picture without its tables, and without its first segment, which may say that they are the usual ones.
    fn without_tables(raw: &[u8]) -> Vec<u8> {
        let (start, mut rest) = raw.split_at(2);
        let mut left = start.to_vec();
        while rest[1] != START_OF_SCAN {
            let len = 2 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            if ![HUFFMAN_TABLES, 0xE0].contains(&rest[1]) {
                left.extend_from_slice(&rest[..len]);
            }
            rest = &rest[len..];
        }
        left.extend_from_slice(rest);
        left
    }

    #[test]
    fn a_jpeg_without_tables_means_the_usual_ones() {
        let pixels: Vec<u8> = (0..=255).cycle().take(64 * 64 * 3).collect();
        let whole = picture(&pixels, 64, 64, image::ExtendedColorType::Rgb8);
        let bare = without_tables(&whole);
        assert!(bare.len() + 400 < whole.len(), "the tables are left out");
        let mut buffer = FrameBuffer::empty();
        let mut camera = decoder(Encoding::Mjpeg, 64, 64, 0);
        camera.decode(&whole, &mut buffer).expect("valid");
        assert!(camera.completed.is_empty(), "nothing was added");
        let expected = buffer.data.clone();
        buffer.data.fill(0);
        camera.decode(&bare, &mut buffer).expect("valid");
        assert_eq!(buffer.data, expected);
        for len in 0..bare.len() - 2 {
            assert!(camera.decode(&bare[..len], &mut buffer).is_err(), "{len}");
        }
    }

    #[test]
    fn a_jpeg_of_another_size_is_damaged_unless_it_is_filled_up_to_blocks() {
        let mut buffer = FrameBuffer::empty();
        for (width, height, fits) in [
            (36, 20, true),
            (40, 24, true),
            (48, 32, true),
            (36, 24, true),
            (20, 36, false),
            (18, 10, false),
            (52, 20, false),
            (36, 16, false),
        ] {
            let pixels = vec![100; width as usize * height as usize * 3];
            let raw = picture(&pixels, width, height, image::ExtendedColorType::Rgb8);
            let decoded = decoder(Encoding::Mjpeg, 36, 20, 0).decode(&raw, &mut buffer);
            assert_eq!(decoded.is_ok(), fits, "{width}x{height}: {decoded:?}");
            if fits {
                assert_eq!((buffer.width, buffer.height), (width, height));
            }
            jpeg(&raw, &mut buffer).expect("a picture by itself has any size");
        }
    }

    #[test]
    fn bytes_behind_a_jpeg_do_not_matter() {
        let pixels: Vec<u8> = [200, 100, 50].repeat(16 * 8);
        let mut raw = picture(&pixels, 16, 8, image::ExtendedColorType::Rgb8);
        raw.extend_from_slice(&[0; 1000]);
        let mut buffer = FrameBuffer::empty();
        decoder(Encoding::Mjpeg, 16, 8, 0)
            .decode(&raw, &mut buffer)
            .expect("valid");
        assert!(buffer.frame().is_ok());
        for (found, expected) in buffer.data.iter().zip(&pixels) {
            assert!(found.abs_diff(*expected) <= 3, "{found} for {expected}");
        }
    }

    #[test]
    fn a_grey_jpeg_becomes_rgb() {
        let pixels: Vec<u8> = (0..8 * 8).map(|i| 60 + i).collect();
        let raw = picture(&pixels, 8, 8, image::ExtendedColorType::L8);
        let mut buffer = FrameBuffer::empty();
        decoder(Encoding::Mjpeg, 8, 8, 0)
            .decode(&raw, &mut buffer)
            .expect("valid");
        assert_eq!(buffer.data.len(), 8 * 8 * 3);
        for (rgb, expected) in buffer.data.chunks_exact(3).zip(&pixels) {
            assert!(rgb.iter().all(|value| *value == rgb[0]), "grey: {rgb:?}");
            assert!(rgb[0].abs_diff(*expected) <= 3, "{rgb:?} for {expected}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_jpeg_is_an_error_or_a_picture(
            at in 0usize..600,
            value in any::<u8>(),
            len in 0usize..700,
            is_bare in any::<bool>(),
        ) {
            let pixels: Vec<u8> = (0..16u16 * 16 * 3).map(|i| (i % 251) as u8).collect();
            let mut raw = picture(&pixels, 16, 16, image::ExtendedColorType::Rgb8);
            if is_bare {
                raw = without_tables(&raw);
            }
            raw.truncate(len);
            if let Some(byte) = raw.get_mut(at) {
                *byte = value;
            }
            let mut buffer = FrameBuffer::empty();
            let mut decoder = decoder(Encoding::Mjpeg, 16, 16, 0);
            if decoder.decode(&raw, &mut buffer).is_ok() {
                prop_assert!(buffer.frame().is_ok());
            }
        }
    }
}
