//! A folder of pictures, in the order of their names, one every interval.

use super::{CameraError, FrameBuffer, FrameSource, Next, SIDE_MAX};
use crate::config::{Invalid, in_range};
use crate::stop::Stop;
use image::{DynamicImage, ImageDecoder, ImageReader, ImageResult, Limits};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ternwatch_detector::PixelFormat;

/// Files of a folder that are looked at.
const FILES_MAX: usize = 1_000_000;
/// Memory that decoding one picture may take.
const DECODE_BYTES_MAX: u64 = 512 << 20;

/// The `[camera.stills]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the pictures are.
    pub folder: PathBuf,
    /// Milliseconds between two pictures.
    pub interval_ms: u64,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.folder.as_os_str().is_empty() {
            return Err(Invalid::new(
                "camera.stills.folder",
                "is empty; name a folder of pictures",
            ));
        }
        in_range("camera.stills.interval_ms", self.interval_ms, 0..=3_600_000)
    }
}

/// The pictures of a folder. The list is made once, at the start.
pub struct Folder {
    pictures: std::vec::IntoIter<PathBuf>,
    interval: Duration,
    next_at: Instant,
    stop: Stop,
}

impl Folder {
    /// Lists the folder.
    pub fn open(config: &Config, stop: Stop) -> Result<Self, CameraError> {
        let failed = |source| CameraError::Open {
            what: config.folder.display().to_string(),
            source,
        };
        let mut pictures = Vec::new();
        for entry in std::fs::read_dir(&config.folder)
            .map_err(failed)?
            .take(FILES_MAX)
        {
            let path = entry.map_err(failed)?.path();
            if is_picture(&path) {
                pictures.push(path);
            }
        }
        if pictures.is_empty() {
            return Err(CameraError::NoPictures(config.folder.clone()));
        }
        pictures.sort();
        Ok(Self {
            pictures: pictures.into_iter(),
            interval: Duration::from_millis(config.interval_ms),
            next_at: Instant::now(),
            stop,
        })
    }
}

impl FrameSource for Folder {
    fn next_frame(&mut self, buffer: &mut FrameBuffer) -> Result<Next, CameraError> {
        let Some(path) = self.pictures.next() else {
            return Ok(Next::End);
        };
        if self.stop.wait_until(self.next_at) {
            return Err(CameraError::Stopped);
        }
        // A picture that took longer than the interval does not make the ones after it hurry.
        self.next_at = self.next_at.max(Instant::now()) + self.interval;
        decode(&path, buffer).map_err(|reason| CameraError::Picture { path, reason })?;
        buffer.arrived();
        Ok(Next::Frame)
    }
}

fn is_picture(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| {
            ["jpg", "jpeg", "png"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        })
}

/// Decodes a picture, turned as its camera was held (EXIF).
fn read(mut reader: ImageReader<impl BufRead + Seek>) -> ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE_MAX), Some(SIDE_MAX));
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn decode(path: &Path, buffer: &mut FrameBuffer) -> Result<(), String> {
    let reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|error| error.to_string())?;
    // Decoders have panicked on damaged files before; a panic here must not take the capture thread with it.
    let picture = catch_unwind(AssertUnwindSafe(|| read(reader)))
        .map_err(|_| String::from("the decoder panicked"))?
        .map_err(|error| error.to_string())?;
    let picture = match picture {
        DynamicImage::ImageRgb8(picture) => picture,
        other => other.to_rgb8(),
    };
    let (width, height) = picture.dimensions();
    if width < 2 || height < 2 {
        return Err(format!("{width}x{height} pixels are no picture"));
    }
    let bytes = picture.as_raw();
    buffer
        .prepare(PixelFormat::Rgb8, width, height, bytes.len())
        .copy_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};

    fn folder_of(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (index, name) in files.iter().enumerate() {
            let shade = u8::try_from(index).expect("few files") * 50;
            RgbImage::from_pixel(4, 2, Rgb([shade, 0, 0]))
                .save(folder.path().join(name))
                .expect("saved");
        }
        folder
    }

    fn open(folder: &Path) -> Result<Folder, CameraError> {
        let config = Config {
            folder: folder.into(),
            interval_ms: 0,
        };
        Folder::open(&config, Stop::default())
    }

    #[test]
    fn pictures_come_in_the_order_of_their_names_and_end() {
        let folder = folder_of(&["b.png", "c.PNG", "a.png"]);
        std::fs::write(folder.path().join("notes.txt"), "not a picture").expect("written");
        let mut source = open(folder.path()).expect("opens");
        let mut buffer = FrameBuffer::empty();
        let mut shades = Vec::new();
        while source.next_frame(&mut buffer).expect("decodes") == Next::Frame {
            assert_eq!((buffer.width, buffer.height, buffer.data.len()), (4, 2, 24));
            assert!(buffer.frame().is_ok());
            shades.push(buffer.data[0]);
        }
        assert_eq!(shades, [100, 0, 50]);
    }

    #[test]
    fn a_picture_is_turned_as_its_camera_was_held() {
        // TIFF's beginning, one entry: Orientation, a 16-bit number, 6: to be turned to the right.
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut file = Vec::new();
        let mut encoder = JpegEncoder::new(&mut file);
        encoder
            .set_exif_metadata(exif.to_vec())
            .expect("JPEG has it");
        encoder
            .write_image(&[128; 16 * 8 * 3], 16, 8, ExtendedColorType::Rgb8)
            .expect("a picture");
        let folder = folder_of(&[]);
        std::fs::write(folder.path().join("upright.jpg"), file).expect("written");
        let mut buffer = FrameBuffer::empty();
        let mut source = open(folder.path()).expect("opens");
        source.next_frame(&mut buffer).expect("decodes");
        assert_eq!((buffer.width, buffer.height), (8, 16));
    }

    #[test]
    fn a_damaged_picture_is_named() {
        let folder = folder_of(&[]);
        std::fs::write(
            folder.path().join("broken.jpg"),
            b"\xff\xd8\xff\xe0 nothing",
        )
        .expect("written");
        let mut source = open(folder.path()).expect("opens");
        let error = source
            .next_frame(&mut FrameBuffer::empty())
            .expect_err("damaged");
        assert!(error.to_string().contains("broken.jpg"), "{error}");
    }

    #[test]
    fn a_folder_without_pictures_is_an_error() {
        let folder = folder_of(&[]);
        assert!(matches!(
            open(folder.path()),
            Err(CameraError::NoPictures(_))
        ));
        assert!(matches!(
            open(&folder.path().join("missing")),
            Err(CameraError::Open { .. })
        ));
    }

    #[test]
    fn a_stop_ends_the_wait_between_pictures() {
        let folder = folder_of(&["a.png", "b.png"]);
        let stop = Stop::default();
        let config = Config {
            folder: folder.path().into(),
            interval_ms: 3_600_000,
        };
        let mut source = Folder::open(&config, stop.clone()).expect("opens");
        let mut buffer = FrameBuffer::empty();
        assert_eq!(source.next_frame(&mut buffer).expect("first"), Next::Frame);
        stop.request();
        assert!(matches!(
            source.next_frame(&mut buffer),
            Err(CameraError::Stopped)
        ));
    }
}
