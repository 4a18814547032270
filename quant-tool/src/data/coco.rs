//! COCO JSON annotations (https://cocodataset.org, "Data format", object detection) of one folder:
//! `annotations.json` beside `images/`.
//!
//! Two additions to COCO are read where they stand: an image's `source` (a name to balance and to report by) and a
//! box's `ignore` (neither a hit nor a miss; `iscrowd` means the same here).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The largest annotation file that is read, in bytes.
const JSON_BYTES_MAX: u64 = 1 << 30;

/// The images of a folder with their boxes.
#[derive(Debug)]
pub struct Dataset {
    /// In the file's order.
    pub images: Vec<ImageRecord>,
}

/// One annotated image.
#[derive(Debug)]
pub struct ImageRecord {
    /// Where its file is.
    pub path: PathBuf,
    /// Where it comes from; `all` if the file does not say.
    pub source: String,
    /// Its boxes.
    pub boxes: Vec<Annotation>,
}

/// One annotated box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Annotation {
    /// Left, top, right, bottom in pixels.
    pub xyxy: [f32; 4],
    /// Neither a hit nor a miss.
    pub ignore: bool,
}

impl ImageRecord {
    /// Reads and decodes the image.
    pub fn decode(&self) -> Result<image::RgbImage> {
        let image = image::open(&self.path);
        let image = image.with_context(|| format!("decoding {}", self.path.display()))?;
        Ok(image.into_rgb8())
    }
}

#[derive(Deserialize)]
struct File {
    images: Vec<FileImage>,
    annotations: Vec<FileAnnotation>,
    categories: Vec<FileCategory>,
}

#[derive(Deserialize)]
struct FileImage {
    id: i64,
    file_name: String,
    source: Option<String>,
}

#[derive(Deserialize)]
struct FileAnnotation {
    id: i64,
    image_id: i64,
    category_id: i64,
    bbox: [f32; 4],
    #[serde(default)]
    ignore: u8,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct FileCategory {
    id: i64,
    name: String,
}

impl Dataset {
    /// Reads `folder/annotations.json`; boxes of other categories than `class` are left out.
    pub fn read(folder: &Path, class: &str) -> Result<Self> {
        let path = folder.join("annotations.json");
        let size = std::fs::metadata(&path)
            .with_context(|| format!("reading {}", path.display()))?
            .len();
        ensure!(
            size <= JSON_BYTES_MAX,
            "{}: {size} bytes are too many",
            path.display()
        );
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let file: File = serde_json::from_str(&text)
            .with_context(|| format!("{}: not COCO JSON", path.display()))?;
        Self::from_file(file, &folder.join("images"), class)
            .with_context(|| path.display().to_string())
    }

    fn from_file(file: File, folder: &Path, class: &str) -> Result<Self> {
        let category = file
            .categories
            .iter()
            .find(|c| c.name == class)
            .map(|c| c.id);
        let category = category.with_context(|| format!("no category \"{class}\""))?;
        let mut images = Vec::with_capacity(file.images.len());
        let mut index = HashMap::new();
        for image in file.images {
            let name = Path::new(&image.file_name);
            let plain = name
                .components()
                .all(|c| matches!(c, std::path::Component::Normal(_)));
            ensure!(
                plain,
                "image {}: file_name \"{}\" leaves the folder",
                image.id,
                image.file_name
            );
            if index.insert(image.id, images.len()).is_some() {
                bail!("image {}: its id stands twice", image.id);
            }
            let source = image.source.unwrap_or_else(|| "all".into());
            images.push(ImageRecord {
                path: folder.join(name),
                source,
                boxes: Vec::new(),
            });
        }
        for a in file.annotations {
            let image = index.get(&a.image_id);
            let &image =
                image.with_context(|| format!("annotation {}: no image {}", a.id, a.image_id))?;
            let [x, y, w, h] = a.bbox;
            let sound = a.bbox.iter().all(|v| v.is_finite()) && w >= 0.0 && h >= 0.0;
            ensure!(
                sound,
                "annotation {}: bbox {:?} is not x, y, width, height",
                a.id,
                a.bbox
            );
            if a.category_id == category {
                let ignore = a.ignore != 0 || a.iscrowd != 0;
                images[image].boxes.push(Annotation {
                    xyxy: [x, y, x + w, y + h],
                    ignore,
                });
            }
        }
        Ok(Self { images })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Dataset> {
        Dataset::from_file(serde_json::from_str(json)?, Path::new("images"), "person")
    }

    #[test]
    fn boxes_find_their_image_and_other_categories_are_left_out() {
        let data = parse(
            r#"{"categories":[{"id":7,"name":"person"},{"id":8,"name":"dog"}],
                "images":[{"id":3,"file_name":"a.jpg","source":"street"},{"id":4,"file_name":"b.jpg"}],
                "annotations":[{"id":1,"image_id":4,"category_id":7,"bbox":[1,2,3,4],"iscrowd":1},
                               {"id":2,"image_id":3,"category_id":8,"bbox":[1,2,3,4]}]}"#,
        )
        .unwrap();
        assert_eq!(data.images[0].source, "street");
        assert!(data.images[0].boxes.is_empty());
        assert_eq!(
            data.images[1].boxes,
            [Annotation {
                xyxy: [1.0, 2.0, 4.0, 6.0],
                ignore: true
            }]
        );
    }

    #[test]
    fn errors_name_the_entry() {
        let person = r#""categories":[{"id":1,"name":"person"}]"#;
        for (rest, part) in [
            (
                r#""images":[],"annotations":[{"id":5,"image_id":9,"category_id":1,"bbox":[0,0,1,1]}]"#,
                "annotation 5: no image 9",
            ),
            (
                r#""images":[{"id":1,"file_name":"../x"}],"annotations":[]"#,
                "leaves the folder",
            ),
            (
                r#""images":[{"id":1,"file_name":"a"},{"id":1,"file_name":"b"}],"annotations":[]"#,
                "stands twice",
            ),
            (
                r#""images":[{"id":1,"file_name":"a"}],"annotations":[{"id":2,"image_id":1,"category_id":1,"bbox":[0,0,-1,1]}]"#,
                "annotation 2: bbox",
            ),
        ] {
            let error = parse(&format!("{{{person},{rest}}}")).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
        let error = parse(r#"{"categories":[],"images":[],"annotations":[]}"#).unwrap_err();
        assert!(format!("{error:#}").contains("no category \"person\""));
    }
}
