//! As `no_allocation`, of all threads together: alone in its process, because it counts whatever allocates there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait"
)]

mod counting;

use counting::allocations_of_all;
use std::time::{Duration, Instant};
use ternwatch_bundle::testing::load;
use ternwatch_detector::{Detector, Frame, Isa, PixelFormat, Team, Thresholds};

#[test]
fn no_thread_allocates() {
    // One whose layers are large enough to be shared.
    let file = std::fs::read("../models/person-lite.tern").unwrap();
    let key = std::fs::read_to_string("../models/default.pub").unwrap();
    let model = load(&file, &key.parse().unwrap());
    let team = Team::of_this_thread(2).unwrap();
    assert_eq!(team.threads(), 2);
    let mut detector = Detector::for_threads(&model, Isa::detect(), team.threads()).unwrap();
    let data = vec![200; 3 * 640 * 480];
    let frame = Frame::new(PixelFormat::Rgb8, 640, 480, &data).unwrap();
    let thresholds = Thresholds {
        score: 0.1,
        iou: 0.5,
    };
    let mut detect = || {
        allocations_of_all(|| {
            std::hint::black_box(detector.detect(&frame, thresholds));
        })
    };
    // The first halves that are handed over make the helper known to the pool.
    detect();
    // A test that takes a minute is told of by the harness, which allocates, too.
    let started = Instant::now();
    for frame in 0..200 {
        assert_eq!(detect(), 0, "frame {frame}");
        if frame >= 10 && started.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
}
