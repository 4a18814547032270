//! The retained document that says how the device is doing: docs/schema/statistics-1.json.
//!
//! Readers must ignore keys that they do not know; keys are added, but never removed or changed, within a schema
//! version.

use super::Outgoing;
use crate::clock::Timestamp;
use crate::health::Health;
use crate::latency::Summary;
use crate::model::ModelIdentity;
use crate::vitals::Vitals;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;
/// The first document comes so soon, so that nobody waits long for it after a start.
const FIRST_AFTER: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Document {
    schema: u32,
    version: &'static str,
    model: ModelIdentity,
    measured_at: String,
    uptime_s: f64,
    interval_s: f64,
    frames: Frames,
    frames_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    inference_ms: Option<Inference>,
    documents: Documents,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshots: Option<Documents>,
    events_waiting: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    processor_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature_c: Option<f64>,
}

#[derive(Serialize)]
struct Frames {
    captured: u64,
    examined: u64,
    skipped: u64,
    at_rest: u64,
    dropped: u64,
}

#[derive(Serialize)]
struct Documents {
    published: u64,
    dropped: u64,
}

#[derive(Serialize)]
struct Inference {
    p50: f64,
    p95: f64,
    max: f64,
}

impl From<Summary> for Inference {
    fn from(summary: Summary) -> Self {
        let ms = |duration: Duration| rounded(duration.as_secs_f64() * 1000.0, 1000.0);
        Self {
            p50: ms(summary.p50),
            p95: ms(summary.p95),
            max: ms(summary.max),
        }
    }
}

/// Looks at what there is to tell, from interval to interval.
pub struct Observer {
    health: Arc<Health>,
    outgoing: Arc<Outgoing>,
    has_snapshots: bool,
    vitals: Vitals,
    started: Instant,
    before: Sample,
}

/// What an interval is measured by.
struct Sample {
    at: Instant,
    examined: u64,
    skipped: u64,
    processor_time: Duration,
}

impl Observer {
    /// Of a run that begins now, which may publish snapshots.
    pub fn new(health: Arc<Health>, outgoing: Arc<Outgoing>, has_snapshots: bool) -> Self {
        let started = Instant::now();
        Self {
            health,
            outgoing,
            has_snapshots,
            vitals: Vitals::of_this_process(),
            started,
            before: Sample {
                at: started,
                examined: 0,
                skipped: 0,
                processor_time: Vitals::processor_time(),
            },
        }
    }

    /// The document of the time since the one before.
    pub fn document(&mut self) -> Vec<u8> {
        let health = &self.health;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let now = Sample {
            at: Instant::now(),
            examined: count(&health.examined),
            skipped: count(&health.skipped),
            processor_time: Vitals::processor_time(),
        };
        let before = std::mem::replace(&mut self.before, now);
        let now = &self.before;
        let interval_s = (now.at - before.at).as_secs_f64().max(0.001);
        let used = now.processor_time.saturating_sub(before.processor_time);
        let document = Document {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            model: health.model(),
            measured_at: Timestamp::now().rfc3339(),
            uptime_s: rounded((now.at - self.started).as_secs_f64(), 10.0),
            interval_s: rounded(interval_s, 1000.0),
            frames: Frames {
                captured: count(&health.captured),
                examined: now.examined,
                skipped: now.skipped,
                at_rest: count(&health.at_rest),
                dropped: count(&health.dropped),
            },
            frames_per_second: rounded(
                (now.examined + now.skipped).saturating_sub(before.examined + before.skipped)
                    as f64
                    / interval_s,
                100.0,
            ),
            inference_ms: health.take_inference_times().map(Into::into),
            documents: Documents {
                published: count(&health.published),
                dropped: self.outgoing.dropped(),
            },
            snapshots: self.has_snapshots.then(|| Documents {
                published: count(&health.snapshots_published),
                dropped: count(&health.snapshots_dropped) + self.outgoing.snapshots.dropped(),
            }),
            events_waiting: self.outgoing.events.len(),
            memory_bytes: self.vitals.memory_bytes(),
            processor_share: rounded(used.as_secs_f64() / interval_s, 1000.0),
            temperature_c: self.vitals.temperature_c(),
        };
        serde_json::to_vec(&document).expect("numbers and strings always become JSON")
    }
}

/// Observes every `interval`, for the first time sooner, until nobody wants to know any more.
pub async fn observe(mut observer: Observer, interval: Duration, newest: watch::Sender<Vec<u8>>) {
    let mut pause = interval.min(FIRST_AFTER);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = newest.closed() => return,
        }
        newest.send_replace(observer.document());
        pause = interval;
    }
}

/// With `steps` to one.
fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}
