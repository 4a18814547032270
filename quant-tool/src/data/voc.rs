//! Pascal VOC annotations (Everingham et al. 2010, development kit, section 3): one XML file a picture in `Annotations/`,
//! pictures in `JPEGImages/`. Objects marked `difficult` are neither hits nor misses, as the challenge has it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use roxmltree::{Document, Node};

use super::dataset::{
    Annotation, ImageRecord, class_index, files_with, inside, read_text, stated_size,
};
use crate::tell::note;

/// The largest annotation file that is read, in bytes.
const XML_BYTES_MAX: u64 = 1 << 20;

/// Reads all of `folder/Annotations`.
pub(super) fn read(folder: &Path, classes: &[String]) -> Result<Vec<ImageRecord>> {
    let annotations = folder.join("Annotations");
    let mut names = BTreeSet::new();
    let mut images = Vec::new();
    for path in files_with(&annotations, "xml")? {
        let text = read_text(&path, XML_BYTES_MAX)?;
        let image = record(&text, &folder.join("JPEGImages"), classes, &mut names);
        images.push(image.with_context(|| path.display().to_string())?);
    }
    // There is no list of classes that a name could be looked up in: a class that no object has may be misspelt, or rare.
    let known = names.iter().map(String::as_str).collect::<Vec<_>>();
    let known = known.join(", ");
    ensure!(
        names.is_empty() || classes.iter().any(|class| names.contains(class)),
        "{}: no object is a \"{}\"; there are: {known}",
        annotations.display(),
        classes.join("\" or a \""),
    );
    for class in classes.iter().filter(|&class| !names.contains(class)) {
        let folder = annotations.display();
        note!("{folder}: no object is a \"{class}\"; there are: {known}");
    }
    Ok(images)
}

/// One picture's annotations. The names of its objects are added to `names`, whatever their class.
fn record(
    text: &str,
    folder: &Path,
    classes: &[String],
    names: &mut BTreeSet<String>,
) -> Result<ImageRecord> {
    let document = Document::parse(text).context("not XML")?;
    let root = document.root_element();
    let source = child(root, "folder").and_then(|n| n.text());
    let mut boxes = Vec::new();
    let objects = root.children().filter(|n| n.has_tag_name("object"));
    for (index, object) in objects.enumerate() {
        let place = || format!("object {index}");
        let name = text_of(object, "name").with_context(place)?;
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        let bounds = child(object, "bndbox").context("no bndbox");
        let bounds = bounds.with_context(place)?;
        let side = |key| {
            let text = text_of(bounds, key)?;
            let value: f32 = text
                .parse()
                .with_context(|| format!("{key} = \"{text}\""))?;
            ensure!(value.is_finite(), "{key} = {value}");
            Ok(value)
        };
        let sides = ["xmin", "ymin", "xmax", "ymax"].map(|key| side(key).with_context(place));
        let [left, top, right, bottom] = sides;
        // Pixels are counted from 1, and the last one belongs to the box.
        let xyxy = [left? - 1.0, top? - 1.0, right?, bottom?];
        ensure!(
            xyxy[0] <= xyxy[2] && xyxy[1] <= xyxy[3],
            "object {index}: bndbox {xyxy:?} has its sides exchanged"
        );
        if let Some(class) = class_index(classes, name) {
            boxes.push(Annotation {
                xyxy,
                class,
                ignore: child(object, "difficult").and_then(|n| n.text()) == Some("1"),
                number: index as i64,
            });
        }
    }
    Ok(ImageRecord {
        path: inside(folder, text_of(root, "filename")?)?,
        source: source.unwrap_or("all").trim().to_owned(),
        size: stated_size(["width", "height"].map(|side| {
            let text = child(child(root, "size")?, side)?.text()?;
            text.trim().parse().ok()
        })),
        boxes,
    })
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|n| n.has_tag_name(name))
}

fn text_of<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str> {
    let text = child(node, name).and_then(|n| n.text());
    Ok(text.with_context(|| format!("no {name}"))?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(objects: &str) -> Result<ImageRecord> {
        let text = format!(
            "<annotation><folder>street</folder><filename>a.jpg</filename>{objects}</annotation>"
        );
        let classes = ["person".to_owned(), "dog".to_owned()];
        record(
            &text,
            Path::new("JPEGImages"),
            &classes,
            &mut BTreeSet::new(),
        )
    }

    fn object(name: &str, sides: [&str; 4], more: &str) -> String {
        let [a, b, c, d] = sides;
        format!(
            "<object><name>{name}</name>{more}<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        )
    }

    #[test]
    fn objects_become_boxes_counted_from_zero() {
        let dog = object("dog", ["1", "2", "10", "20"], "");
        let hard = object("person", ["3", "3", "4", "4"], "<difficult>1</difficult>");
        let cat = object("cat", ["3", "3", "4", "4"], "");
        let record = parse(&(dog + &hard + &cat)).unwrap();
        assert_eq!(record.path, Path::new("JPEGImages/a.jpg"));
        assert_eq!(record.source, "street");
        assert_eq!(record.boxes.len(), 2);
        assert_eq!(record.boxes[0].xyxy, [0.0, 1.0, 10.0, 20.0]);
        assert_eq!((record.boxes[0].class, record.boxes[0].ignore), (1, false));
        assert_eq!((record.boxes[1].class, record.boxes[1].ignore), (0, true));
    }

    #[test]
    fn errors_name_the_object() {
        for (sides, part) in [
            (["1", "2", "x", "20"], "object 0: xmax = \"x\""),
            (["9", "2", "3", "20"], "object 0: bndbox"),
            (["1", "2", "inf", "20"], "object 0: xmax = inf"),
        ] {
            let error = parse(&object("dog", sides, "")).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
        let error = parse("<object></object>").unwrap_err();
        assert!(
            format!("{error:#}").contains("object 0: no name"),
            "{error:#}"
        );
        assert!(parse("<object>").is_err());
    }
}
