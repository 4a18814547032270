//! A camera that is not there: its street goes through the real tracker, zones and writers of documents.

use super::street::{HEIGHT, Street, WIDTH};
use crate::camera::FrameBuffer;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::model::ModelIdentity;
use crate::pipeline::Watch;
use crate::publish::Document;
use crate::publish::event::EventWriter;
use crate::track::Tracker;
use ternwatch_detector::Detection;

/// Frames a second: what a small board manages.
pub(super) const FRAMES_PER_SECOND: u64 = 10;
/// The score from which on a model is believed, if the configuration does not say.
const SCORE_MIN: f32 = 0.35;
/// A street on which the events of a visit are counted has so many visits at least.
const VISITS_COUNTED: f64 = 400.0;

/// One camera.
#[derive(Debug)]
pub(super) struct Camera {
    street: Street,
    watch: Watch,
    frame: FrameBuffer,
    detections: Vec<Detection>,
    documents: Vec<Document>,
}

impl Camera {
    /// With the zones, lines and limits of the configuration, where so many people come by in a second.
    pub(super) fn new(config: &Config, visits_per_s: f64, seed: u64, now: Timestamp) -> Self {
        let score_min = match config.model.score_min {
            0.0 => SCORE_MIN,
            score => score,
        };
        let writer = EventWriter {
            camera: config.camera.name.clone(),
            model: ModelIdentity {
                name: "simulated".into(),
                version: 1,
                sha256: "0".repeat(64),
            },
            classes: vec!["person".into()],
            started_at: now.rfc3339(),
            sequence: 0,
        };
        let tracker = Tracker::new(&config.track, score_min);
        let mut frame = FrameBuffer::empty();
        (frame.width, frame.height) = (WIDTH as u32, HEIGHT as u32);
        Self {
            street: Street::new(visits_per_s, seed, now.monotonic_ns),
            watch: Watch::new(tracker, &config.zones, &config.lines, writer),
            frame,
            detections: Vec::new(),
            documents: Vec::new(),
        }
    }

    /// People who have come so far.
    pub(super) fn visits(&self) -> u64 {
        self.street.visits()
    }

    /// Looks at the street, and gives what there is to tell.
    pub(super) fn step(&mut self, now: Timestamp) -> impl Iterator<Item = Document> + '_ {
        self.street.look(now.monotonic_ns, &mut self.detections);
        self.frame.captured_at = now;
        self.frame.moment_ns = now.monotonic_ns;
        self.watch
            .step(&self.frame, &self.detections, &mut self.documents);
        self.frame.sequence += 1;
        self.documents.drain(..)
    }

    /// Ends everything.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = Document> + '_ {
        self.watch.finish(&mut self.documents);
        self.documents.drain(..)
    }
}

/// How many people have to come by in a second for so many events a second: a street is watched for that, in no time.
pub(super) fn visits_for(config: &Config, events_per_s: f64, seed: u64) -> f64 {
    let guess = (events_per_s / 5.0).clamp(0.02, 2.0);
    let start = Timestamp {
        realtime_ns: 0,
        monotonic_ns: 1,
    };
    let mut camera = Camera::new(config, guess, seed, start);
    let frames = (VISITS_COUNTED / guess) as u64 * FRAMES_PER_SECOND;
    let is_event = |document: &Document| matches!(document, Document::Event(_));
    let mut events = 0;
    for frame in 0..frames {
        let passed_ns = frame * 1_000_000_000 / FRAMES_PER_SECOND;
        let now = Timestamp {
            realtime_ns: i128::from(passed_ns),
            monotonic_ns: start.monotonic_ns + passed_ns,
        };
        events += camera.step(now).filter(is_event).count();
    }
    events += camera.finish().filter(is_event).count();
    // Nobody is never told of, so there is something to divide by.
    let per_visit = events.max(1) as f64 / camera.visits().max(1) as f64;
    events_per_s / per_visit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_events_come_as_were_asked_for() {
        let mut config = Config::load(None, []).expect("the defaults");
        let yard = r#"{"name":"yard","points":[[0.2,0.5],[0.8,0.5],[0.8,1.0],[0.2,1.0]]}"#;
        let gate = r#"{"name":"gate","points":[[0.5,1.0],[0.5,0.0]]}"#;
        config.zones = vec![serde_json::from_str(yard).expect("a zone")];
        config.lines = vec![serde_json::from_str(gate).expect("a line")];
        for wanted in [0.1, 1.0] {
            let visits = visits_for(&config, wanted, 1);
            let mut camera = Camera::new(&config, visits, 99, Timestamp::default());
            let seconds = 4000;
            let mut sequences = Vec::new();
            for frame in 0..seconds * FRAMES_PER_SECOND {
                let now = Timestamp {
                    realtime_ns: 0,
                    monotonic_ns: frame * 100_000_000,
                };
                sequences.extend(camera.step(now).filter_map(|document| match document {
                    Document::Event(event) => Some(event.sequence),
                    _ => None,
                }));
            }
            let found = sequences.len() as f64 / seconds as f64;
            assert!((found / wanted - 1.0).abs() < 0.25, "{found}, not {wanted}");
            let numbers = 0..sequences.len() as u64;
            assert!(sequences.into_iter().eq(numbers), "a gap");
        }
    }
}
