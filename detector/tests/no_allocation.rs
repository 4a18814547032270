//! A detector allocates when it is made, and never again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait"
)]

mod counting;

use counting::allocations_of;
use ternwatch_bundle::testing::load;
use ternwatch_detector::{Detector, Frame, Isa, Model, PixelFormat, Thresholds, testing};

#[test]
fn the_counter_counts() {
    assert_eq!(
        allocations_of(|| drop(std::hint::black_box(vec![1u8; 100]))),
        1
    );
    assert_eq!(allocations_of(|| ()), 0);
}

#[test]
fn no_frame_of_any_kind_allocates() {
    for (file, key) in [testing::small_bundle(0), testing::branched_bundle(0)] {
        assert_no_frame_allocates(&load(&file, &key));
    }
}

fn assert_no_frame_allocates(model: &Model) {
    use PixelFormat::{I420, Nv12, Rgb8, Yuyv};
    let sizes = [
        (768, 576),
        (2, 2),
        (8192, 2),
        (2, 8192),
        (36, 28),
        (35, 29),
        (8192, 200),
        (640, 480),
    ];
    let data = vec![200; 3 * 8192 * 200];
    for isa in Isa::available() {
        let mut detector = Detector::new(model, isa).unwrap();
        for format in [Rgb8, Yuyv, Nv12, I420] {
            for (width, height) in sizes {
                let Ok(len) = format.frame_len(width, height) else {
                    continue;
                };
                let frame = Frame::new(format, width, height, &data[..len]).unwrap();
                // A score of 0 makes every cell a candidate, which is the most that decoding can have to do.
                for score in [0.5, 0.0] {
                    let mut found = 0;
                    let allocations = allocations_of(|| {
                        found = detector
                            .detect(&frame, Thresholds { score, iou: 1.0 })
                            .len();
                    });
                    assert_eq!(allocations, 0, "{isa}, {frame:?}, score {score}");
                    assert!(score > 0.0 || found > 0, "{isa}, {frame:?}");
                }
            }
        }
        let allocations = allocations_of(|| {
            detector.input_mut().fill(99);
            detector.infer();
            detector.decode(Thresholds {
                score: 0.1,
                iou: 0.5,
            });
        });
        assert_eq!(allocations, 0, "{isa}, filled by the caller");
    }
}
