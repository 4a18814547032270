//! Motion gate, tracker, zones and best shots allocate when they are made, and never again; what is noted of every frame does
//! not either.

#![expect(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait"
)]

#[path = "../../detector/tests/counting/mod.rs"]
mod counting;

use counting::allocations_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use ternwatch_daemon::camera::FrameBuffer;
use ternwatch_daemon::config::Config as Settings;
use ternwatch_daemon::health::Health;
use ternwatch_daemon::motion::{self, Frames, Gate, Need, Verdict};
use ternwatch_daemon::publish::Outgoing;
use ternwatch_daemon::publish::outbox::{Bounds, Outbox};
use ternwatch_daemon::snapshot::{Album, Seen, Studio};
use ternwatch_daemon::track::{Config, Tracker};
use ternwatch_daemon::zones::{LINES_MAX, LineConfig, Subject, ZONES_MAX, ZoneConfig, Zones};
use ternwatch_detector::{DETECTIONS_MAX, Detection, Frame, PixelFormat};

#[test]
fn the_counter_counts() {
    assert_eq!(
        allocations_of(|| drop(std::hint::black_box(vec![1u8; 100]))),
        1
    );
    assert_eq!(allocations_of(|| ()), 0);
}

/// As many detections as there can be: a crowd that moves and of which every third is missed.
fn crowd(step: u64) -> Vec<Detection> {
    (0..DETECTIONS_MAX as u64)
        .filter(|index| !(index + step).is_multiple_of(3))
        .map(|index| {
            let (column, row) = (index % 30, index / 30);
            let x = (column * 25 + step * 2) as f32;
            let y = (row * 60) as f32;
            Detection {
                class: 0,
                score: if index % 2 == 0 { 0.8 } else { 0.2 },
                xyxy: [x, y, x + 40.0, y + 80.0],
            }
        })
        .collect()
}

#[test]
fn neither_a_crowd_nor_its_end_allocates() {
    let zones: Vec<ZoneConfig> = (0..ZONES_MAX)
        .map(|number| ZoneConfig {
            name: number.to_string(),
            points: vec![[0.2, 0.0], [1.0, 0.0], [1.0, 1.0], [0.2, 1.0]],
            score_min: 0.0,
            height_min: 0.0,
            height_max: 1.0,
            loiter_s: 0.5,
        })
        .collect();
    let lines: Vec<LineConfig> = (0..LINES_MAX)
        .map(|number| LineConfig {
            name: number.to_string(),
            points: vec![[0.3, 1.0], [0.3, 0.0]],
        })
        .collect();
    let config = Config {
        score_low: 0.1,
        confirm_s: 0.3,
        lost_s: 1.0,
        update_s: 0.5,
        stationary_s: 1.0,
    };
    let mut zones = Zones::new(&zones, &lines, ternwatch_daemon::track::TRACKS_MAX);
    let mut tracker = Tracker::new(&config, 0.4);
    let (mut changes, mut happenings) = (0, 0);
    for step in 0..60u64 {
        // Nobody is left in the last seconds.
        let detections = if step < 40 { crowd(step) } else { Vec::new() };
        let now_ns = step * 100_000_000;
        let allocations = allocations_of(|| {
            tracker.step(now_ns, &detections);
            changes += tracker.changes().count();
            for track in tracker.tracks() {
                let [x, y] = track.foot();
                let subject = Subject {
                    id: track.id(),
                    foot: [x / 800.0, y / 700.0],
                    height: 0.1,
                    score: track.best().score,
                };
                zones.observe(&subject, now_ns, 1.1);
                happenings += zones.happenings().len();
            }
        });
        assert_eq!(allocations, 0, "step {step}");
    }
    assert!(
        changes > 100 && happenings > 1000,
        "{changes}, {happenings}"
    );
    assert_eq!(tracker.tracks().count(), 0);
    assert_eq!(allocations_of(|| tracker.finish()), 0);
    assert_eq!(allocations_of(|| zones.forget(1, 0)), 0);
    assert_eq!(allocations_of(|| tracker.hold(100_000_000_000)), 0);
}

#[test]
fn comparing_frames_of_any_kind_does_not_allocate() {
    let mut gate = Gate::new(
        &motion::Config {
            enabled: true,
            examine_s: 5.0,
        },
        Frames::ForTracks,
    );
    let mut verdicts = [0, 0];
    let formats = [
        PixelFormat::Nv12,
        PixelFormat::Yuyv,
        PixelFormat::Rgb8,
        PixelFormat::I420,
    ];
    for (index, format) in (0u64..).zip(formats) {
        for (width, height) in [(640, 480), (8192, 64), (2, 2)] {
            let len = format.frame_len(width, height).expect("a size");
            let data: Vec<u8> = (0..len).map(|at| (at * at % 251) as u8).collect();
            let frame = Frame::new(format, width, height, &data).expect("a frame");
            for step in 0..40 {
                let now_ns = index * 10_000_000_000 + step * 100_000_000;
                let allocations = allocations_of(|| {
                    let verdict = gate.judge(&frame, now_ns, Need::Changes);
                    verdicts[usize::from(verdict == Verdict::Examine)] += 1;
                });
                assert_eq!(allocations, 0, "{frame:?}, step {step}");
            }
        }
    }
    assert!(verdicts[0] > 100 && verdicts[1] > 100, "{verdicts:?}");
}

#[test]
fn what_is_noted_of_a_frame_does_not_allocate() {
    let health = Health::new(Duration::from_secs(1), None, "door");
    // The first frame is told of.
    health.camera_works();
    health.frame_examined(Duration::from_millis(20));
    let allocations = allocations_of(|| {
        for ms in 0..1000 {
            health.capture_lives();
            health.camera_works();
            health.frame_examined(Duration::from_millis(ms));
        }
        let summary = health.take_inference_times().expect("counted");
        assert_eq!(summary.max, Duration::from_millis(999));
    });
    assert_eq!(allocations, 0);
}

#[test]
fn best_shots_do_not_allocate_after_the_first_frame() {
    let settings = Settings::load(None, []).expect("the defaults");
    let health = Arc::new(Health::new(Duration::from_secs(1), None, "door"));
    let outbox = Outbox::in_memory(Bounds {
        events_max: 1,
        bytes_max: 1 << 20,
    });
    let outgoing = Arc::new(Outgoing::new(outbox, 1));
    // Nobody takes the orders: those beyond a few are dropped.
    let (_studio, orders) =
        Studio::new(&settings.snapshots, "now".into(), outgoing, health.clone());
    let mut album = Album::new(&settings.snapshots, orders, Arc::default(), health.clone());
    let mut frame = FrameBuffer::empty();
    let len = PixelFormat::Nv12.frame_len(640, 480).expect("a size");
    frame.prepare(PixelFormat::Nv12, 640, 480, len);
    let mut ended = 0;
    for step in 0..400u64 {
        // Four people, who grow for a while, then stand still, then go; others come.
        let size = 20.0 + (step % 40).min(20) as f32 * 10.0;
        let seen = (0..4).map(|number| Seen {
            track: step / 40 * 4 + number,
            score: 0.5,
            xyxy: [0.0, 0.0, size, size + number as f32],
        });
        let people = detections_of(step);
        let allocations = allocations_of(|| {
            album.see(&frame, seen, people.iter().map(|found| found.xyxy));
            album.attend(false);
            if step % 40 == 39 {
                for number in 0..4 {
                    album.end(step / 40 * 4 + number, step);
                    ended += 1;
                }
            }
        });
        assert!(step == 0 || allocations == 0, "step {step}: {allocations}");
    }
    assert_eq!(ended, 40);
    let dropped = health.snapshots_dropped.load(Ordering::Relaxed);
    assert_eq!(dropped, 40 - 16, "sixteen wait");
}

/// As many as there can be.
fn detections_of(step: u64) -> Vec<Detection> {
    let mut detections = crowd(step);
    detections.extend(crowd(step + 1));
    detections.truncate(DETECTIONS_MAX);
    detections
}
