//! YOLO's text labels: `labels/NAME.txt` has a line `class centre-x centre-y width height` a box, in parts of the picture's
//! size; the picture is `images/NAME.jpg`, `.jpeg` or `.png`; `classes.txt` has the class names, one a line. A picture without labels
//! shows nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::dataset::{Annotation, ImageRecord, class_index, files_with, read_text};
use super::picture;

/// How the names of pictures end.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];
/// The largest text file that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Reads all of `folder/labels`.
pub(super) fn read(folder: &Path, classes: &[String]) -> Result<Vec<ImageRecord>> {
    let names = folder.join("classes.txt");
    let text = read_text(&names, TEXT_BYTES_MAX)?;
    let known: Vec<Option<u16>> = text
        .lines()
        .map(|name| class_index(classes, name.trim()))
        .collect();
    for class in classes {
        let found = text.lines().any(|name| name.trim() == class);
        ensure!(found, "{}: no class \"{class}\"", names.display());
    }
    let mut pictures = pictures(&folder.join("images"))?;
    let mut images = Vec::new();
    for path in files_with(&folder.join("labels"), "txt")? {
        let Some(file) = pictures.remove(path.file_stem().unwrap_or_default()) else {
            // Where some programs put the names of the classes.
            ensure!(
                path.ends_with("classes.txt"),
                "{}: no picture of this name in images/",
                path.display()
            );
            continue;
        };
        let size = picture::size(&file)?;
        let text = read_text(&path, TEXT_BYTES_MAX)?;
        images.push(ImageRecord {
            boxes: boxes(&text, size, &known).with_context(|| path.display().to_string())?,
            path: file,
            source: "all".into(),
            size: Some(size),
        });
    }
    images.extend(pictures.into_values().map(|path| ImageRecord {
        boxes: Vec::new(),
        path,
        source: "all".into(),
        size: None,
    }));
    Ok(images)
}

/// The pictures of a folder by their names without endings.
fn pictures(folder: &Path) -> Result<BTreeMap<OsString, PathBuf>> {
    let mut pictures = BTreeMap::new();
    for ending in ENDINGS {
        for path in files_with(folder, ending)? {
            let stem = path.file_stem().unwrap_or_default().to_owned();
            if let Some(other) = pictures.insert(stem, path.clone()) {
                bail!(
                    "{} and {}: whose are the labels of this name?",
                    other.display(),
                    path.display()
                );
            }
        }
    }
    Ok(pictures)
}

fn boxes(text: &str, size: [u32; 2], known: &[Option<u16>]) -> Result<Vec<Annotation>> {
    let mut boxes = Vec::new();
    let [width, height] = size.map(|pixels| pixels as f32);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        ensure!(
            fields.len() == 5,
            "line {number}: {} fields, not class, x, y, width, height",
            fields.len()
        );
        let class: usize = fields[0]
            .parse()
            .with_context(|| format!("line {number}: class \"{}\"", fields[0]))?;
        let class = known
            .get(class)
            .with_context(|| format!("line {number}: class {class} is not in classes.txt"))?;
        let mut parts = [0.0f32; 4];
        for (part, field) in parts.iter_mut().zip(&fields[1..]) {
            *part = field
                .parse()
                .with_context(|| format!("line {number}: \"{field}\" is no number"))?;
            ensure!(
                (0.0..=1.0).contains(part),
                "line {number}: {field} is no part of the picture"
            );
        }
        let [x, y, w, h] = parts;
        if let Some(class) = *class {
            boxes.push(Annotation {
                xyxy: [
                    (x - w / 2.0) * width,
                    (y - h / 2.0) * height,
                    (x + w / 2.0) * width,
                    (y + h / 2.0) * height,
                ],
                class,
                ignore: false,
                number: number as i64,
            });
        }
    }
    Ok(boxes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_pixels_and_other_classes_are_left_out() {
        let known = [None, Some(0)];
        let found = boxes("1 0.5 0.5 0.5 1\n0 0.5 0.5 0.1 0.1\n\n", [200, 100], &known);
        let found = found.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].xyxy, [50.0, 0.0, 150.0, 100.0]);
    }

    fn folder_of(pictures: &[&str], labels: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["images", "labels"] {
            std::fs::create_dir(file(name)).unwrap();
        }
        for name in pictures {
            let picture = image::RgbImage::new(8, 8);
            picture.save(file("images").join(name)).unwrap();
        }
        std::fs::write(file("classes.txt"), "person\n").unwrap();
        for name in labels {
            let path = file("labels").join(name);
            std::fs::write(path, "0 0.5 0.5 0.5 0.5\n").unwrap();
        }
        folder
    }

    fn found(folder: &Path) -> Result<Vec<(String, usize)>> {
        let images = read(folder, &["person".into()])?;
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        Ok(images
            .iter()
            .map(|i| (name(&i.path), i.boxes.len()))
            .collect())
    }

    #[test]
    fn pictures_without_labels_come_after_the_others_however_their_names_end() {
        let folder = folder_of(&["a.png", "b.png", "c.JPG"], &["b.txt"]);
        let expected = [("b.png", 1), ("a.png", 0), ("c.JPG", 0)];
        assert_eq!(
            found(folder.path()).unwrap(),
            expected.map(|(name, boxes)| (String::from(name), boxes))
        );
    }

    #[test]
    fn a_picture_has_the_whole_name_of_its_labels() {
        let pictures = ["cam.jpg", "cam.1.JPEG", "cam.2.png"];
        // The names of the classes may lie beside the labels, too.
        let labels = ["cam.1.txt", "cam.2.txt", "classes.txt"];
        let folder = folder_of(&pictures, &labels);
        let expected = [("cam.1.JPEG", 1), ("cam.2.png", 1), ("cam.jpg", 0)];
        assert_eq!(
            found(folder.path()).unwrap(),
            expected.map(|(name, boxes)| (String::from(name), boxes))
        );
        std::fs::write(folder.path().join("labels/cam.3.txt"), "").unwrap();
        let error = found(folder.path()).unwrap_err().to_string();
        assert!(error.contains("cam.3.txt: no picture"), "{error}");
    }

    #[test]
    fn two_pictures_of_one_name_are_refused() {
        let folder = folder_of(&["a.jpg", "a.png"], &["a.txt"]);
        let error = found(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("a.jpg and ") && error.contains("a.png"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_the_line() {
        for (text, part) in [
            ("0 0.5 0.5 0.5", "line 1: 4 fields"),
            ("0 0 0 0 0\n7 0 0 0 0", "line 2: class 7"),
            ("0 0 0 0 1.5", "line 1: 1.5"),
            ("0 0 0 NaN 1", "line 1: NaN"),
            ("a 0 0 0 0", "line 1: class \"a\""),
        ] {
            let error = boxes(text, [10, 10], &[Some(0)]).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
}
