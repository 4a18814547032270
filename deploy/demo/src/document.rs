//! The published document, as a subscriber reads it.
//!
//! Takes the bytes of one message, gives the fields that the demonstration shows. Unknown fields are ignored, as
//! the schema asks of every reader; another schema number is refused.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The schema that this reader knows.
const SCHEMA: u32 = 1;

/// One frame's detections.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Document {
    schema: u32,
    /// Index of the captured frame, dropped ones counted: in a video file the index of the picture.
    pub(crate) sequence: u64,
    /// RFC 3339, UTC.
    pub(crate) captured_at: String,
    pub(crate) captured_monotonic_ns: u64,
    pub(crate) frame: FrameSize,
    pub(crate) inference_ms: f64,
    pub(crate) detections: Vec<Detection>,
}

/// Size of the frame that the boxes refer to, in pixels.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub(crate) struct FrameSize {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// One object in a frame.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Detection {
    pub(crate) score: f32,
    /// x1, y1, x2, y2.
    pub(crate) box_px: [f32; 4],
}

impl Document {
    /// Reads one message's payload.
    pub(crate) fn from_json(payload: &[u8]) -> Result<Self> {
        let document: Self = serde_json::from_slice(payload)
            .context("a published document does not fit the schema")?;
        ensure!(
            document.schema == SCHEMA,
            "a published document has schema {}, this demonstration reads schema {SCHEMA}",
            document.schema
        );
        Ok(document)
    }

    /// One line for the terminal: time of day, sequence, number of persons, best score.
    pub(crate) fn line(&self) -> String {
        let time = self.captured_at.get(11..23).unwrap_or(&self.captured_at);
        let head = format!("{time}  frame {:>5}", self.sequence);
        let best = self
            .detections
            .iter()
            .map(|detection| detection.score)
            .max_by(f32::total_cmp);
        match (best, self.detections.len()) {
            (None, _) => format!("{head}  nobody"),
            (Some(best), 1) => format!("{head}   1 person   best score {best:.2}"),
            (Some(best), count) => format!("{head}  {count:>2} persons  best score {best:.2}"),
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Event {
    schema: u32,
    r#type: String,
    captured_at: String,
    track: Track,
    zone: Option<Named>,
    line: Option<Named>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Track {
    id: u64,
    class: String,
    duration_s: f64,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Named {
    name: String,
}

impl Event {
    /// Reads one message's payload.
    pub(crate) fn from_json(payload: &[u8]) -> Result<Self> {
        let event: Self =
            serde_json::from_slice(payload).context("a published event does not fit the schema")?;
        ensure!(
            event.schema == SCHEMA,
            "a published event has schema {}, this demonstration reads schema {SCHEMA}",
            event.schema
        );
        Ok(event)
    }

    /// One line for the terminal: time of day, what happened, to whom and where.
    pub(crate) fn line(&self) -> String {
        let time = self.captured_at.get(11..23).unwrap_or(&self.captured_at);
        let Track {
            id,
            class,
            duration_s,
        } = &self.track;
        let place = self.zone.as_ref().or(self.line.as_ref());
        let place = place.map_or(String::new(), |place| format!("  {}", place.name));
        format!(
            "{time}  {} {id}: {}{place}, seen for {duration_s:.1} s",
            class, self.r#type
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_short_line() {
        let text = r#"{"schema":1,"type":"zone_enter","captured_at":"2026-11-24T06:38:40.123456Z",
            "track":{"id":3,"class":"person","duration_s":2.25,"path":[]},"zone":{"name":"yard"},"new":1}"#;
        let event = Event::from_json(text.as_bytes()).expect("an event");
        assert_eq!(
            event.line(),
            "06:38:40.123  person 3: zone_enter  yard, seen for 2.2 s"
        );
        let newer = text.replace("\"schema\":1", "\"schema\":2");
        assert!(Event::from_json(newer.as_bytes()).is_err());
    }

    /// A document with persons of these scores.
    pub(crate) fn document(sequence: u64, at_ms: u64, scores: &[f32]) -> Document {
        Document {
            schema: SCHEMA,
            sequence,
            captured_at: "2026-11-24T06:38:40.123456Z".into(),
            captured_monotonic_ns: at_ms * 1_000_000,
            frame: FrameSize {
                width: 768,
                height: 576,
            },
            inference_ms: 10.0 + at_ms as f64 / 1000.0,
            detections: scores
                .iter()
                .map(|&score| Detection {
                    score,
                    box_px: [10.0, 20.0, 50.0, 120.0],
                })
                .collect(),
        }
    }

    #[test]
    fn a_published_document_is_read_and_newer_fields_are_ignored() {
        let json = br#"{"schema":1,"camera":"street","sequence":7,"captured_at":"2026-11-24T06:38:40.123456Z",
            "captured_monotonic_ns":5,"frame":{"width":768,"height":576},"model":{"name":"person","version":1,"sha256":"00"},
            "inference_ms":12.5,"dropped":0,"track":"a later field",
            "detections":[{"class":"person","score":0.87,"box_px":[1,2,3,4],"box_norm":[0,0,1,1]}]}"#;
        let document = Document::from_json(json).expect("fits schema 1");
        assert_eq!(document.sequence, 7);
        assert_eq!(document.detections[0].box_px, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(
            document.line(),
            "06:38:40.123  frame     7   1 person   best score 0.87"
        );
    }

    #[test]
    fn another_schema_is_refused_by_number() {
        let json = br#"{"schema":2,"sequence":7,"captured_at":"","captured_monotonic_ns":5,
            "frame":{"width":1,"height":1},"inference_ms":1,"detections":[]}"#;
        let error = Document::from_json(json).expect_err("schema 2").to_string();
        assert!(error.contains("schema 2"), "{error}");
    }

    #[test]
    fn the_line_names_the_best_score_whatever_the_order() {
        assert!(
            document(3, 0, &[0.4, 0.9])
                .line()
                .ends_with("2 persons  best score 0.90")
        );
        assert!(document(3, 0, &[]).line().ends_with("nobody"));
    }
}
