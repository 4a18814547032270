//! A detector allocates when it is made, and never again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ternwatch_bundle::testing::load;
use ternwatch_detector::{Detector, Frame, Isa, Model, PixelFormat, Team, Thresholds, testing};

struct Counting;

thread_local! {
    /// Allocations of this thread; `const` and without a destructor, so that counting does not allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Not there any more while the thread ends.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches a thread-local number only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`, and `pointer` came from the system's allocator.
        unsafe { System.realloc(pointer, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(action: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    action();
    ALLOCATIONS.get() - before
}

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

#[test]
fn threads_allocate_nothing_either() {
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
        allocations_of(|| {
            std::hint::black_box(detector.detect(&frame, thresholds));
        })
    };
    // The first halves that are handed over make the helper known to the pool.
    detect();
    for frame in 0..200 {
        assert_eq!(detect(), 0, "frame {frame}");
    }
}
