//! The document that is published for an event: docs/schema/event-1.json.
//!
//! Readers must ignore keys and types that they do not know; both are added, but never removed or changed, within a
//! schema version.

use super::payload::Size;
use crate::clock::Timestamp;
use crate::model::ModelIdentity;
use serde::Serialize;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind<'a> {
    /// An object is there.
    New,
    /// It started or stopped to move, or is still there.
    Update,
    /// It is not there any more.
    End,
    /// It came into a zone.
    ZoneEnter(InZone<'a>),
    /// It has been in a zone for the zone's time.
    ZoneLoiter(InZone<'a>),
    /// It left a zone.
    ZoneLeave(InZone<'a>),
    /// It crossed a line.
    LineCross(AtLine<'a>),
}

/// A zone in which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InZone<'a> {
    /// Its name.
    pub name: &'a str,
    /// Since the object entered.
    #[serde(rename = "dwell_s", serialize_with = "as_seconds")]
    pub dwell_ns: u64,
    /// Objects within it, after what happened.
    pub occupancy: u32,
}

/// A line that was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtLine<'a> {
    /// Its name.
    pub name: &'a str,
    /// `to_left` or `to_right`, looking from its first point to its second.
    pub direction: &'static str,
    /// Crossings from right to left since the start, this one included.
    pub to_left: u64,
    /// Crossings from left to right since the start, this one included.
    pub to_right: u64,
}

/// One time that an object was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// How long before the event's frame.
    pub age_ns: u64,
    /// 0 to 1.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the frame.
    pub xyxy: [f32; 4],
}

/// What is known of the object.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Unique in this run of the daemon.
    pub id: u64,
    /// Index of its class.
    pub class: u16,
    /// Whether it has not been seen for a while.
    pub is_lost: bool,
    /// Whether it stands still.
    pub is_stationary: bool,
    /// From the first sighting to the last.
    pub duration_ns: u64,
    /// The first sighting.
    pub first: Sighting,
    /// The last sighting.
    pub last: Sighting,
    /// The sighting with the highest score.
    pub best: Sighting,
    /// Names of the zones that it is in.
    pub zones: &'a [&'a str],
    /// Names of the zones that it has been in, in the order in which it entered them first.
    pub zones_entered: &'a [&'a str],
    /// Where it stood, the oldest point first: age in nanoseconds, and pixels from the left and the top.
    pub path: &'a [(u64, [f32; 2])],
}

/// The frame that an event comes of.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The frame's number in this run.
    pub frame_sequence: u64,
    /// When it was captured.
    pub captured_at: Timestamp,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Writes events and numbers them.
#[derive(Clone, Debug)]
pub struct EventWriter {
    /// The camera's name.
    pub camera: String,
    /// The model.
    pub model: ModelIdentity,
    /// Class names by the objects' `class`.
    pub classes: Vec<String>,
    /// When this run of the daemon began: tells its numbers from those of another run.
    pub started_at: String,
    /// The next event's number.
    pub sequence: u64,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    r#type: &'static str,
    camera: &'a str,
    sequence: u64,
    started_at: &'a str,
    captured_at: String,
    captured_monotonic_ns: u64,
    frame_sequence: u64,
    frame: Size,
    model: &'a ModelIdentity,
    track: Track<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<InZone<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<AtLine<'a>>,
}

#[derive(Debug, Serialize)]
struct Track<'a> {
    id: u64,
    class: &'a str,
    state: &'static str,
    stationary: bool,
    duration_s: f64,
    best_score: f32,
    first: Seen,
    last: Seen,
    best: Seen,
    zones: &'a [&'a str],
    zones_entered: &'a [&'a str],
    path: Vec<[f64; 3]>,
}

#[derive(Debug, Serialize)]
struct Seen {
    age_s: f64,
    score: f32,
    box_px: [f32; 4],
    box_norm: [f32; 4],
}

impl EventWriter {
    /// The next event's number and its document, as JSON.
    pub fn write(
        &mut self,
        kind: Kind<'_>,
        moment: &Moment,
        object: &Object<'_>,
    ) -> (u64, Vec<u8>) {
        let sequence = self.sequence;
        self.sequence += 1;
        let (width, height) = (moment.width as f32, moment.height as f32);
        let seen = |sighting: Sighting| {
            let [x1, y1, x2, y2] = sighting.xyxy;
            Seen {
                age_s: seconds(sighting.age_ns),
                score: sighting.score,
                box_px: sighting.xyxy,
                box_norm: [x1 / width, y1 / height, x2 / width, y2 / height],
            }
        };
        let point = |&(age_ns, [x, y]): &(u64, [f32; 2])| {
            [seconds(age_ns), part(x / width), part(y / height)]
        };
        let (r#type, zone, line) = match kind {
            Kind::New => ("new", None, None),
            Kind::Update => ("update", None, None),
            Kind::End => ("end", None, None),
            Kind::ZoneEnter(zone) => ("zone_enter", Some(zone), None),
            Kind::ZoneLoiter(zone) => ("zone_loiter", Some(zone), None),
            Kind::ZoneLeave(zone) => ("zone_leave", Some(zone), None),
            Kind::LineCross(line) => ("line_cross", None, Some(line)),
        };
        let document = Document {
            schema: SCHEMA,
            r#type,
            camera: &self.camera,
            sequence,
            started_at: &self.started_at,
            captured_at: moment.captured_at.rfc3339(),
            captured_monotonic_ns: moment.captured_at.monotonic_ns,
            frame_sequence: moment.frame_sequence,
            frame: Size {
                width: moment.width,
                height: moment.height,
            },
            model: &self.model,
            track: Track {
                id: object.id,
                class: self
                    .classes
                    .get(usize::from(object.class))
                    .map_or("?", String::as_str),
                state: if object.is_lost { "lost" } else { "confirmed" },
                stationary: object.is_stationary,
                duration_s: seconds(object.duration_ns),
                best_score: object.best.score,
                first: seen(object.first),
                last: seen(object.last),
                best: seen(object.best),
                zones: object.zones,
                zones_entered: object.zones_entered,
                path: object.path.iter().map(point).collect(),
            },
            zone,
            line,
        };
        let document =
            serde_json::to_vec(&document).expect("numbers and strings always become JSON");
        (sequence, document)
    }
}

fn as_seconds<S: serde::Serializer>(nanoseconds: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(seconds(*nanoseconds))
}

/// In seconds, to the millisecond.
fn seconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 1e6).round() / 1e3
}

/// Within the frame, to a ten-thousandth of it.
fn part(of_frame: f32) -> f64 {
    (f64::from(of_frame.clamp(0.0, 1.0)) * 1e4).round() / 1e4
}
