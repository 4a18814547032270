//! COCO JSON annotations (https://cocodataset.org, "Data format", object detection): `annotations.json` beside `images/`.
//!
//! Two additions to COCO are read where they stand: an image's `source` (a name to balance and to report by) and a
//! box's `ignore` (neither a hit nor a miss; `iscrowd` means the same here).

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::dataset::{Annotation, ImageRecord, class_index, inside, read_text, stated_size};

/// The largest annotation file that is read, in bytes.
const JSON_BYTES_MAX: u64 = 1 << 30;
/// Names of categories that an error lists.
const TOLD_MAX: usize = 20;

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
    width: Option<u32>,
    height: Option<u32>,
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

/// Reads `folder/annotations.json`.
pub(super) fn read(folder: &Path, classes: &[String]) -> Result<Vec<ImageRecord>> {
    let path = folder.join("annotations.json");
    let text = read_text(&path, JSON_BYTES_MAX)?;
    let file: File = serde_json::from_str(&text)
        .with_context(|| format!("{}: not COCO JSON", path.display()))?;
    records(file, &folder.join("images"), classes).with_context(|| path.display().to_string())
}

fn records(file: File, folder: &Path, classes: &[String]) -> Result<Vec<ImageRecord>> {
    for class in classes {
        let names = || file.categories.iter().map(|c| c.name.as_str());
        if names().all(|name| name != class) {
            let there: Vec<&str> = names().take(TOLD_MAX).collect();
            bail!("no category \"{class}\"; there are: {}", there.join(", "));
        }
    }
    let known = file.categories.iter();
    let known: HashMap<i64, Option<u16>> = known
        .map(|c| (c.id, class_index(classes, &c.name)))
        .collect();
    let mut images = Vec::with_capacity(file.images.len());
    let mut index = HashMap::new();
    for image in file.images {
        if index.insert(image.id, images.len()).is_some() {
            bail!("image {}: its id stands twice", image.id);
        }
        let path = inside(folder, &image.file_name);
        images.push(ImageRecord {
            path: path.with_context(|| format!("image {}", image.id))?,
            source: image.source.unwrap_or_else(|| "all".into()),
            size: stated_size([image.width, image.height]),
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
        let class = known
            .get(&a.category_id)
            .with_context(|| format!("annotation {}: no category {}", a.id, a.category_id))?;
        if let Some(class) = *class {
            images[image].boxes.push(Annotation {
                xyxy: [x, y, x + w, y + h],
                class,
                ignore: a.ignore != 0 || a.iscrowd != 0,
                number: a.id,
            });
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<ImageRecord>> {
        let classes = ["person".to_owned()];
        records(serde_json::from_str(json)?, Path::new("images"), &classes)
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
        assert_eq!(data[0].source, "street");
        assert!(data[0].boxes.is_empty());
        assert_eq!(
            data[1].boxes,
            [Annotation {
                xyxy: [1.0, 2.0, 4.0, 6.0],
                class: 0,
                ignore: true,
                number: 1
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
            (
                r#""images":[{"id":1,"file_name":"a"}],"annotations":[{"id":2,"image_id":1,"category_id":3,"bbox":[0,0,1,1]}]"#,
                "annotation 2: no category 3",
            ),
        ] {
            let error = parse(&format!("{{{person},{rest}}}")).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
        let error = parse(r#"{"categories":[],"images":[],"annotations":[]}"#).unwrap_err();
        assert!(format!("{error:#}").contains("no category \"person\""));
    }
}
