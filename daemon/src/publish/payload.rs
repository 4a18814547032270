//! The document that is published for a frame: docs/schema/detections-1.json.
//!
//! Readers must ignore keys that they do not know; keys are added, but never removed or changed, within a schema
//! version.

use crate::clock::Timestamp;
use crate::model::ModelIdentity;
use serde::Serialize;
use ternwatch_detector::Detection;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;

/// Everything but the detections' conversion, in the order of the document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    camera: &'a str,
    sequence: u64,
    captured_at: String,
    captured_monotonic_ns: u64,
    frame: Size,
    model: &'a ModelIdentity,
    inference_ms: f64,
    dropped: u64,
    detections: Vec<Found<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    class: &'a str,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    track: Option<u64>,
    box_px: [f32; 4],
    box_norm: [f32; 4],
}

/// What stays the same from frame to frame.
#[derive(Clone, Debug)]
pub struct Source {
    /// The camera's name.
    pub camera: String,
    /// The model.
    pub model: ModelIdentity,
    /// Class names by the detections' `class`.
    pub classes: Vec<String>,
}

/// What was found, and who it is.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Where.
    pub detection: Detection,
    /// The id of the track that it is a sighting of, if that is believed.
    pub track: Option<u64>,
}

/// One examined frame.
#[derive(Clone, Copy, Debug)]
pub struct Examined<'a> {
    /// The frame's number in this run, dropped ones counted.
    pub sequence: u64,
    /// When it was captured.
    pub captured_at: Timestamp,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Time from the frame to the detections.
    pub inference_ms: f64,
    /// Frames of this run that were captured before this one and never examined.
    pub dropped: u64,
    /// What was found, the best first.
    pub detections: &'a [Shown],
}

impl Source {
    /// The document of a frame, as JSON.
    pub fn document(&self, examined: &Examined<'_>) -> Vec<u8> {
        let (width, height) = (examined.width as f32, examined.height as f32);
        let found = |shown: &Shown| {
            let Shown { detection, track } = shown;
            let [x1, y1, x2, y2] = detection.xyxy;
            Found {
                class: self
                    .classes
                    .get(usize::from(detection.class))
                    .map_or("?", String::as_str),
                score: detection.score,
                track: *track,
                box_px: detection.xyxy,
                box_norm: [x1 / width, y1 / height, x2 / width, y2 / height],
            }
        };
        let document = Document {
            schema: SCHEMA,
            camera: &self.camera,
            sequence: examined.sequence,
            captured_at: examined.captured_at.rfc3339(),
            captured_monotonic_ns: examined.captured_at.monotonic_ns,
            frame: Size {
                width: examined.width,
                height: examined.height,
            },
            model: &self.model,
            // Microseconds are as fine as the measurement is.
            inference_ms: (examined.inference_ms * 1000.0).round() / 1000.0,
            dropped: examined.dropped,
            detections: examined.detections.iter().map(found).collect(),
        };
        serde_json::to_vec(&document).expect("numbers and strings always become JSON")
    }
}
