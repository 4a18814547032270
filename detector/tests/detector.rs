//! The whole detector from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ternwatch_bundle::testing::load;
use ternwatch_detector::{
    Detection, Detector, Frame, Isa, LayerOutput, Model, PixelFormat, Thresholds, golden, testing,
};

const LOW: Thresholds = Thresholds {
    score: 0.05,
    iou: 0.7,
};

fn detector(isa: Isa) -> Detector {
    let (file, key) = testing::small_bundle(3);
    Detector::new(&load(&file, &key), isa).unwrap()
}

fn bits(detections: &[Detection]) -> Vec<(u16, u32, [u32; 4])> {
    detections
        .iter()
        .map(|found| {
            (
                found.class,
                found.score.to_bits(),
                found.xyxy.map(f32::to_bits),
            )
        })
        .collect()
}

#[test]
fn every_instruction_set_finds_the_same_bits() {
    for seed in 0..6 {
        let (width, height) =
            [(64, 48), (33, 77), (150, 20), (36, 28), (9, 9), (301, 200)][seed as usize];
        let picture = golden::draw(seed, width, height);
        let frame = Frame::new(PixelFormat::Rgb8, width, height, &picture).unwrap();
        let expected = bits(detector(Isa::Scalar).detect(&frame, LOW));
        assert!(!expected.is_empty(), "seed {seed}");
        for isa in Isa::available() {
            assert_eq!(
                bits(detector(isa).detect(&frame, LOW)),
                expected,
                "{isa}, seed {seed}"
            );
        }
    }
}

#[test]
fn detections_are_sorted_bounded_and_within_the_frame() {
    let picture = golden::draw(1, 123, 77);
    let frame = Frame::new(PixelFormat::Rgb8, 123, 77, &picture).unwrap();
    let mut detector = detector(Isa::detect());
    let found = detector.detect(
        &frame,
        Thresholds {
            score: 0.0,
            iou: 1.0,
        },
    );
    assert!(found.len() > 20 && found.len() <= 300, "{}", found.len());
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    for Detection {
        class,
        score,
        xyxy: [left, top, right, bottom],
    } in found
    {
        assert!(*class < 2 && (0.0..=1.0).contains(score));
        assert!(
            0.0 <= *left
                && left < right
                && *right <= 123.0
                && 0.0 <= *top
                && top < bottom
                && *bottom <= 77.0
        );
    }
}

#[test]
fn a_frame_does_not_depend_on_the_ones_before() {
    let pictures = [1, 2, 3].map(|seed| golden::draw(seed, 50, 40));
    let frames = pictures
        .each_ref()
        .map(|picture| Frame::new(PixelFormat::Rgb8, 50, 40, picture).unwrap());
    let mut used = detector(Isa::detect());
    for frame in frames.iter().chain(frames.iter().rev()) {
        let fresh = bits(detector(Isa::detect()).detect(frame, LOW));
        assert_eq!(bits(used.detect(frame, LOW)), fresh);
    }
}

#[test]
fn decoding_again_with_other_thresholds_needs_no_new_inference() {
    let picture = golden::draw(1, 50, 40);
    let frame = Frame::new(PixelFormat::Rgb8, 50, 40, &picture).unwrap();
    let mut detector = detector(Isa::detect());
    let low = bits(detector.detect(&frame, LOW));
    let none = detector
        .decode(Thresholds {
            score: 1.0,
            iou: 0.5,
        })
        .len();
    assert_eq!(none, 0);
    assert_eq!(bits(detector.decode(LOW)), low);
}

#[test]
fn an_input_filled_by_the_caller_is_the_same_as_a_preprocessed_one() {
    // As large as the input, so that input pixels are frame pixels.
    let picture = golden::draw(1, 36, 28);
    let frame = Frame::new(PixelFormat::Rgb8, 36, 28, &picture).unwrap();
    let mut detector = detector(Isa::detect());
    let expected = bits(detector.detect(&frame, LOW));
    detector.preprocess(&frame);
    let input = detector.input().to_vec();
    detector.input_mut().copy_from_slice(&input);
    detector.infer();
    assert_eq!(bits(detector.decode(LOW)), expected);
}

#[test]
fn the_observer_sees_every_layer_in_its_order_and_shape() {
    for (file, key) in [testing::small_bundle(3), testing::branched_bundle(3)] {
        assert_every_layer_is_seen(&load(&file, &key));
    }
}

fn assert_every_layer_is_seen(model: &Model) {
    let mut detector = Detector::new(model, Isa::detect()).unwrap();
    detector.input_mut().fill(64);
    let mut lens = Vec::new();
    detector.infer_observed(|index, output| {
        assert_eq!(index, lens.len());
        lens.push(match output {
            LayerOutput::U7(values) => {
                assert!(values.iter().all(|&value| value <= 127));
                values.len()
            }
            LayerOutput::I16(values) => values.len(),
        });
    });
    let expected: Vec<_> = model
        .layers()
        .iter()
        .map(|layer| layer.output_shape().len())
        .collect();
    assert_eq!(lens, expected);
    assert!(detector.arena_len() >= expected[0]);
    assert_eq!(detector.macs(), model.macs());
}

#[test]
#[should_panic(expected = "there is no fresh input")]
fn an_input_is_used_once() {
    let mut detector = detector(Isa::detect());
    detector.input_mut().fill(0);
    detector.infer();
    detector.infer();
}

#[test]
#[should_panic(expected = "more than 127")]
fn an_input_above_the_range_is_a_mistake_of_the_caller() {
    let mut detector = detector(Isa::detect());
    detector.input_mut().fill(128);
    detector.infer();
}

#[test]
#[should_panic(expected = "decode comes after infer")]
fn there_is_nothing_to_decode_before_inference() {
    let mut detector = detector(Isa::detect());
    detector.input_mut().fill(1);
    detector.decode(LOW);
}
