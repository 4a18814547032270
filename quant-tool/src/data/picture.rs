//! A photograph's file: pixels that lie as viewers show them. Cameras that are held upright store the picture lying and say so in its
//! EXIF data (CIPA DC-008, tag 0x0112 "Orientation").

use std::path::Path;

use anyhow::{Context, Result, bail};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};

/// Width and height of a picture as it is shown.
pub(super) fn size(path: &Path) -> Result<[u32; 2]> {
    let stored = open(path).with_context(|| place(path))?;
    Ok(stored.shown_size())
}

/// Decodes a picture. Annotations that know its size decide whether they were made of the picture as it is shown, or as it is stored.
pub(super) fn read(path: &Path, annotated: Option<[u32; 2]>) -> Result<RgbImage> {
    let stored = open(path).with_context(|| place(path))?;
    let (shown, lying) = (stored.shown_size(), stored.size);
    let is_turned = match annotated {
        None => true,
        Some(size) if size == shown => true,
        Some(size) if size == lying => false,
        Some([width, height]) => bail!(
            "{}: {} x {} pixels, its annotations are of {width} x {height}",
            path.display(),
            shown[0],
            shown[1]
        ),
    };
    let mut image = DynamicImage::from_decoder(stored.decoder).with_context(|| place(path))?;
    if is_turned {
        image.apply_orientation(stored.orientation);
    }
    Ok(image.into_rgb8())
}

fn place(path: &Path) -> String {
    format!("decoding {}", path.display())
}

/// A file whose head was read.
struct Stored<D> {
    decoder: D,
    size: [u32; 2],
    orientation: Orientation,
}

/// Reads the head of a file. The content says what it is, whatever its name ends with.
fn open(path: &Path) -> Result<Stored<impl ImageDecoder>> {
    let reader = ImageReader::open(path)?.with_guessed_format()?;
    let mut decoder = reader.into_decoder()?;
    Limits::default().reserve(decoder.total_bytes())?;
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation()?;
    Ok(Stored {
        decoder,
        size: [width, height],
        orientation,
    })
}

impl<D> Stored<D> {
    fn shown_size(&self) -> [u32; 2] {
        let [width, height] = self.size;
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => [height, width],
            Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical => [width, height],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    /// A JPEG of 16 x 8 pixels whose left half is bright, to be turned to the right by a quarter.
    fn upright(folder: &Path) -> std::path::PathBuf {
        let tiff = [
            &b"II*\0\x08\0\0\0"[..],          // little endian, the directory at 8
            &b"\x01\0"[..],                   // one entry:
            &b"\x12\x01\x03\0\x01\0\0\0"[..], // Orientation, one 16-bit number,
            &b"\x06\0\0\0\0\0\0\0"[..],       // 6; no more directories
        ];
        let pixels: Vec<u8> = (0..16 * 8)
            .flat_map(|i| [if i % 16 < 8 { 200 } else { 20 }; 3])
            .collect();
        let mut file = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut file, 95);
        encoder.set_exif_metadata(tiff.concat()).unwrap();
        encoder
            .write_image(&pixels, 16, 8, ExtendedColorType::Rgb8)
            .unwrap();
        // Its name tells something else.
        let path = folder.join("upright.png");
        std::fs::write(&path, file).unwrap();
        path
    }

    #[test]
    fn a_picture_is_turned_as_its_camera_was_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = upright(folder.path());
        assert_eq!(size(&path).unwrap(), [8, 16]);
        for annotated in [None, Some([8, 16])] {
            let image = read(&path, annotated).unwrap();
            assert_eq!(image.dimensions(), (8, 16));
            assert!(image.get_pixel(4, 2).0[0] > 150 && image.get_pixel(4, 13).0[0] < 70);
        }
    }

    #[test]
    fn annotations_of_the_stored_picture_are_believed_and_others_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = upright(folder.path());
        assert_eq!(read(&path, Some([16, 8])).unwrap().dimensions(), (16, 8));
        let error = read(&path, Some([16, 9])).unwrap_err().to_string();
        assert!(
            error.ends_with("upright.png: 8 x 16 pixels, its annotations are of 16 x 9"),
            "{error}"
        );
    }
}
