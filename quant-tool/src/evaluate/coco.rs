//! Boxes and detections as two files in COCO's format (https://cocodataset.org, "Data format" and "Results format"), so
//! that other tools can judge them: `truth.json`, `detections.json`.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use ternwatch_detector::Detection;

use crate::data::dataset::Dataset;
use crate::files;

/// Writes both into a folder. Image ids count from 1 in the data set's order, categories are the model's classes, from 1 too.
pub fn write(
    dataset: &Dataset,
    classes: &[String],
    detections: &[Vec<Detection>],
    folder: &Path,
) -> Result<()> {
    files::create_folder(folder)?;
    let text = serde_json::to_vec(&truth(dataset, classes))?;
    files::write(&folder.join("truth.json"), &text)?;
    let text = serde_json::to_vec(&results(detections))?;
    files::write(&folder.join("detections.json"), &text)
}

fn truth(dataset: &Dataset, classes: &[String]) -> Value {
    let (mut images, mut annotations) = (Vec::new(), Vec::<Value>::new());
    for (i, record) in dataset.images.iter().enumerate() {
        let file_name = record.path.file_name().map(|name| name.to_string_lossy());
        images.push(json!({ "id": i + 1, "file_name": file_name, "source": record.source }));
        for b in &record.boxes {
            let [x, y, width, height] = xywh(&b.xyxy);
            annotations.push(json!({
                "id": annotations.len() + 1,
                "image_id": i + 1,
                "category_id": b.class + 1,
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": u8::from(b.ignore),
            }));
        }
    }
    let categories: Vec<Value> = (1..)
        .zip(classes)
        .map(|(id, name)| json!({ "id": id, "name": name }))
        .collect();
    json!({ "info": {}, "images": images, "annotations": annotations, "categories": categories })
}

fn results(detections: &[Vec<Detection>]) -> Vec<Value> {
    let of_image = |(i, detections): (usize, &Vec<Detection>)| -> Vec<Value> {
        let result = |d: &Detection| {
            json!({
                "image_id": i + 1,
                "category_id": d.class + 1,
                "bbox": xywh(&d.xyxy),
                "score": d.score,
            })
        };
        detections.iter().map(result).collect()
    };
    detections.iter().enumerate().flat_map(of_image).collect()
}

fn xywh(&[left, top, right, bottom]: &[f32; 4]) -> [f32; 4] {
    [left, top, right - left, bottom - top]
}
