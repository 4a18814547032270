//! YOLO's text labels: `labels/NAME.txt` has a line `class centre-x centre-y width height` a box, in parts of the picture's
//! size; the picture is `images/NAME.jpg`, `.jpeg` or `.png`; `classes.txt` has the class names, one a line. A picture without labels
//! shows nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

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
    let mut images = Vec::new();
    for path in files_with(&folder.join("labels"), "txt")? {
        let file = picture_of(&folder.join("images"), &path)?;
        let size = picture::size(&file)?;
        let text = read_text(&path, TEXT_BYTES_MAX)?;
        images.push(ImageRecord {
            boxes: boxes(&text, size, &known).with_context(|| path.display().to_string())?,
            path: file,
            source: "all".into(),
            size: Some(size),
        });
    }
    let labelled: BTreeSet<PathBuf> = images.iter().map(|image| image.path.clone()).collect();
    for ending in ENDINGS {
        let pictures = files_with(&folder.join("images"), ending)?;
        let empty = pictures.into_iter().filter(|p| !labelled.contains(p));
        images.extend(empty.map(|path| ImageRecord {
            boxes: Vec::new(),
            path,
            source: "all".into(),
            size: None,
        }));
    }
    Ok(images)
}

/// The picture that a label file belongs to.
fn picture_of(folder: &Path, label: &Path) -> Result<PathBuf> {
    // A name may have dots of its own.
    let candidates = ENDINGS.map(|ending| {
        let mut name = label.file_stem().unwrap_or_default().to_owned();
        name.push(".");
        name.push(ending);
        folder.join(name)
    });
    let found = candidates.iter().find(|p| p.exists());
    let missing = || format!("{}: no {}", label.display(), candidates[0].display());
    found.cloned().with_context(missing)
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

    #[test]
    fn pictures_without_labels_come_after_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["images", "labels"] {
            std::fs::create_dir(file(name)).unwrap();
        }
        for name in ["a.png", "b.png", "c.jpg"] {
            let picture = image::RgbImage::new(8, 8);
            picture.save(file("images").join(name)).unwrap();
        }
        std::fs::write(file("classes.txt"), "person\n").unwrap();
        std::fs::write(file("labels/b.txt"), "0 0.5 0.5 0.5 0.5\n").unwrap();
        let images = read(folder.path(), &["person".into()]).unwrap();
        let found: Vec<_> = images
            .iter()
            .map(|i| (i.path.strip_prefix(file("images")).unwrap(), i.boxes.len()))
            .collect();
        let expected = [("b.png", 1), ("c.jpg", 0), ("a.png", 0)];
        assert_eq!(
            found,
            expected.map(|(name, boxes)| (Path::new(name), boxes))
        );
    }

    #[test]
    fn a_picture_has_the_whole_name_of_its_labels() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["cam.jpg", "cam.1.jpg", "cam.2.png"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        for (labels, name) in [("cam.1.txt", "cam.1.jpg"), ("cam.2.txt", "cam.2.png")] {
            let found = picture_of(folder.path(), Path::new(labels)).unwrap();
            assert_eq!(found, folder.path().join(name));
        }
        let error = picture_of(folder.path(), Path::new("cam.3.txt")).unwrap_err();
        assert!(error.to_string().contains("cam.3.jpg"), "{error}");
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
