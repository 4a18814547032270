//! Annotated photographs of one folder, in one of three layouts:
//!
//! - COCO: `annotations.json` beside `images/`,
//! - Pascal VOC: `Annotations/*.xml` beside `JPEGImages/`,
//! - YOLO: `labels/*.txt` beside `images/`, with the class names in `classes.txt`.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use ternwatch_bundle::hex;

use super::{BadData, coco, picture, voc, yolo};

/// The images of a folder with their boxes.
#[derive(Debug)]
pub struct Dataset {
    /// In the annotations' order.
    pub images: Vec<ImageRecord>,
}

/// One annotated image.
#[derive(Debug)]
pub struct ImageRecord {
    /// Where its file is.
    pub path: PathBuf,
    /// Where it comes from; `all` if the annotations do not say.
    pub source: String,
    /// Width and height in pixels, where the annotations tell them.
    pub size: Option<[u32; 2]>,
    /// Its boxes.
    pub boxes: Vec<Annotation>,
}

/// One annotated box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Annotation {
    /// Left, top, right, bottom in pixels.
    pub xyxy: [f32; 4],
    /// Index of its class.
    pub class: u16,
    /// Neither a hit nor a miss.
    pub ignore: bool,
    /// What it is in its annotation file: COCO's id, VOC's object from 0 on, YOLO's line from 1 on.
    pub number: i64,
}

impl Dataset {
    /// Reads a folder; boxes of other classes than these are left out.
    pub fn read(folder: &Path, classes: &[String]) -> Result<Self> {
        Self::read_any(folder, classes).with_context(|| BadData(folder.into()))
    }

    fn read_any(folder: &Path, classes: &[String]) -> Result<Self> {
        let images = match folder {
            f if f.join("annotations.json").exists() => coco::read(f, classes)?,
            f if f.join("Annotations").is_dir() => voc::read(f, classes)?,
            f if f.join("labels").is_dir() => yolo::read(f, classes)?,
            // The layout that this program's own documentation uses is named first by its missing file.
            f => bail!(NotAnnotated(f.join("annotations.json"))),
        };
        ensure!(!images.is_empty(), "{}: no pictures", folder.display());
        Ok(Self { images })
    }

    /// SHA-256 of the annotations and of the pictures' names, sizes and sources: pictures are not read for it.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for image in &self.images {
            let len = std::fs::metadata(&image.path).map_or(0, |file| file.len());
            let (name, source) = (image.path.file_name(), &image.source);
            hash.update(format!("{name:?} {len} {source:?} {:?}\n", image.boxes));
        }
        hex::encode(&hash.finalize())
    }
}

/// A folder in none of the layouts.
#[derive(Debug, thiserror::Error)]
#[error("{} is missing, and there is neither Annotations/ nor labels/ beside it", .0.display())]
pub struct NotAnnotated(PathBuf);

impl ImageRecord {
    /// Reads and decodes the image, and checks that its boxes lie in it.
    pub fn decode(&self) -> Result<image::RgbImage> {
        let folder = || self.path.parent().unwrap_or(&self.path);
        self.decode_any().with_context(|| BadData(folder().into()))
    }

    fn decode_any(&self) -> Result<image::RgbImage> {
        let image = picture::read(&self.path, self.size)?;
        let (width, height) = image.dimensions();
        let outside = |b: &Annotation| {
            let [left, top, right, bottom] = b.xyxy;
            left >= width as f32 || top >= height as f32 || right <= 0.0 || bottom <= 0.0
        };
        if let Some(b) = self.boxes.iter().find(|b| outside(b)) {
            let (path, number, sides) = (self.path.display(), b.number, b.xyxy);
            bail!(
                "{path}: annotation {number}, {sides:?}, lies outside of its {width} x {height} pixels"
            );
        }
        Ok(image)
    }
}

/// The path of `name` in `folder`, if it stays there.
pub(super) fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    ensure!(
        plain && !name.is_empty(),
        "the file name \"{name}\" leaves the folder"
    );
    Ok(folder.join(path))
}

/// A picture's width and height by its annotations; tools that do not know them leave them out or write 0.
pub(super) fn stated_size(sides: [Option<u32>; 2]) -> Option<[u32; 2]> {
    let [width, height] = sides.map(|side| side.filter(|&pixels| pixels > 0));
    Some([width?, height?])
}

/// Index of the class of this name among `classes`.
pub(super) fn class_index(classes: &[String], name: &str) -> Option<u16> {
    let index = classes.iter().position(|c| c == name)?;
    u16::try_from(index).ok()
}

/// Reads a text file of at most `len_max` bytes.
pub(super) fn read_text(path: &Path, len_max: u64) -> Result<String> {
    let place = || format!("reading {}", path.display());
    let size = std::fs::metadata(path).with_context(place)?.len();
    ensure!(
        size <= len_max,
        "{}: {size} bytes are too many",
        path.display()
    );
    std::fs::read_to_string(path).with_context(place)
}

/// The files of a folder with this ending, however it is written, sorted by name.
pub(super) fn files_with(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let place = || format!("reading {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(place)? {
        let path = entry.with_context(place)?.path();
        if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(ending))
        {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_of_boxes_and_sources() {
        let digest = |source: &str, left: f32| {
            let boxes = vec![Annotation {
                xyxy: [left, 2.0, 30.0, 40.0],
                class: 0,
                ignore: false,
                number: 0,
            }];
            let image = ImageRecord {
                path: "none/a.png".into(),
                source: source.into(),
                size: None,
                boxes,
            };
            Dataset {
                images: vec![image],
            }
            .digest()
        };
        assert_eq!(digest("lobby", 1.0), digest("lobby", 1.0));
        assert_ne!(digest("lobby", 1.0), digest("street", 1.0));
        assert_ne!(digest("lobby", 1.0), digest("lobby", 1.5));
    }
}
