//! A camera's bytes become a frame.
//!
//! Uncompressed formats pass as they are, the detector reads them; a JPEG becomes RGB. The bytes come from a device
//! that anybody may plug in: lengths are checked, and a panic of the JPEG decoder costs a frame, not the thread.

use super::format::{Encoding, Offer};
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
    /// Not a JPEG file, or a damaged one.
    #[error("damaged JPEG: {0}")]
    Jpeg(#[from] image::ImageError),
    /// A JPEG of an unusual kind.
    #[error("{0:?} JPEG of {1}x{2} pixels is not supported")]
    Kind(ColorType, u32, u32),
    /// The decoder has a bug that this frame found.
    #[error("the JPEG decoder panicked")]
    Panic,
}

/// Decodes `raw`, which is in the format of `offer`, into `buffer`.
pub fn decode(offer: &Offer, raw: &[u8], buffer: &mut FrameBuffer) -> Result<(), DecodeError> {
    let pixels = offer.width as usize * offer.height as usize;
    match offer.encoding {
        Encoding::Yuyv => copy(PixelFormat::Yuyv, pixels * 2, offer, raw, buffer),
        Encoding::Nv12 => copy(PixelFormat::Nv12, pixels / 2 * 3, offer, raw, buffer),
        Encoding::Mjpeg => catch_unwind(AssertUnwindSafe(|| decode_jpeg(raw, buffer)))
            .unwrap_or(Err(DecodeError::Panic)),
    }
}

fn copy(
    format: PixelFormat,
    len: usize,
    offer: &Offer,
    raw: &[u8],
    buffer: &mut FrameBuffer,
) -> Result<(), DecodeError> {
    // The driver hands over its whole buffer, which may be longer than the frame.
    let Some(frame) = raw.get(..len) else {
        return Err(DecodeError::Short {
            found: raw.len(),
            expected: len,
        });
    };
    buffer
        .prepare(format, offer.width, offer.height, len)
        .copy_from_slice(frame);
    Ok(())
}

fn decode_jpeg(raw: &[u8], buffer: &mut FrameBuffer) -> Result<(), DecodeError> {
    let decoder = JpegDecoder::new(Cursor::new(raw))?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
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

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use proptest::prelude::*;

    fn offer(encoding: Encoding, width: u32, height: u32) -> Offer {
        Offer {
            width,
            height,
            frames_per_second: 15,
            encoding,
        }
    }

    fn jpeg(pixels: &[u8], width: u32, height: u32, color: image::ExtendedColorType) -> Vec<u8> {
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
        decode(&offer(Encoding::Yuyv, 4, 2), &raw, &mut buffer).expect("long enough");
        assert_eq!(buffer.data, raw[..16]);
        assert!(buffer.frame().is_ok());
        decode(&offer(Encoding::Nv12, 4, 2), &raw, &mut buffer).expect("long enough");
        assert_eq!(buffer.data, raw[..12]);
        assert!(buffer.frame().is_ok());
        assert!(matches!(
            decode(&offer(Encoding::Yuyv, 4, 2), &raw[..15], &mut buffer),
            Err(DecodeError::Short {
                found: 15,
                expected: 16
            })
        ));
    }

    #[test]
    fn a_jpeg_has_its_own_size_and_trailing_bytes_do_not_matter() {
        let pixels: Vec<u8> = [200, 100, 50].repeat(16 * 8);
        let mut raw = jpeg(&pixels, 16, 8, image::ExtendedColorType::Rgb8);
        raw.extend_from_slice(&[0; 1000]);
        let mut buffer = FrameBuffer::empty();
        decode(&offer(Encoding::Mjpeg, 640, 480), &raw, &mut buffer).expect("valid");
        assert_eq!((buffer.width, buffer.height), (16, 8));
        assert!(buffer.frame().is_ok());
        for (found, expected) in buffer.data.iter().zip(&pixels) {
            assert!(found.abs_diff(*expected) <= 3, "{found} for {expected}");
        }
    }

    #[test]
    fn a_grey_jpeg_becomes_rgb() {
        let pixels: Vec<u8> = (0..8 * 8).map(|i| 60 + i).collect();
        let raw = jpeg(&pixels, 8, 8, image::ExtendedColorType::L8);
        let mut buffer = FrameBuffer::empty();
        decode(&offer(Encoding::Mjpeg, 8, 8), &raw, &mut buffer).expect("valid");
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
        ) {
            let pixels: Vec<u8> = (0..16u16 * 16 * 3).map(|i| (i % 251) as u8).collect();
            let mut raw = jpeg(&pixels, 16, 16, image::ExtendedColorType::Rgb8);
            raw.truncate(len);
            if let Some(byte) = raw.get_mut(at) {
                *byte = value;
            }
            let mut buffer = FrameBuffer::empty();
            if decode(&offer(Encoding::Mjpeg, 16, 16), &raw, &mut buffer).is_ok() {
                prop_assert!(buffer.frame().is_ok());
            }
        }
    }
}
