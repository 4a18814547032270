//! Golden vectors: the answers that a network must give, bit for bit, on every processor.
//!
//! Takes a model, gives (`record`) or checks (`check`) digests of its input tensor, of every layer's output and of its
//! detections, for frames that a fixed generator draws. A device that computes anything wrong, be it by a broken
//! memory or a miscompiled kernel, or a model that was damaged after its signature was checked, is found out before it
//! watches anything. docs/bundle-format.md specifies the generator and the digests.

mod draw;

use sha2::{Digest, Sha256};
use ternwatch_bundle::hex;
use ternwatch_bundle::manifest::Golden;
use ternwatch_bundle::{Model, Thresholds};
use ternwatch_kernels::Isa;

pub use self::draw::draw;
use crate::detection::Detection;
use crate::detector::{Detector, DetectorError};
use crate::frame::{Frame, FrameError, PixelFormat};
use crate::infer::LayerOutput;
use crate::preprocess::Preprocessor;

/// Side lengths of the input that cameras' frames are resampled to: small, so that a check takes no time.
const CAMERA_INPUT: (u32, u32) = (48, 36);
/// Frames that lead to every way of resampling that: by 5/3, 2, 8/3 with a border, 10/3, 5 and 8.
const CAMERA_FRAMES: [(u32, u32); 6] = [
    (80, 60),
    (96, 72),
    (128, 72),
    (160, 120),
    (240, 180),
    (384, 288),
];
/// Seed of the bytes that they hold.
const CAMERA_SEED: u64 = 7;

/// Score threshold of the recorded detections: low, so that there are some.
const SCORE_MIN: f32 = 0.05;

/// The model's answers to the frame of this seed and size, computed by the scalar specification.
pub fn record(model: &Model, seed: u64, width: u32, height: u32) -> Result<Golden, GoldenMismatch> {
    answer(
        &mut Detector::new(model, Isa::Scalar)?,
        model,
        seed,
        width,
        height,
    )
}

/// Whether frames in the formats of cameras become the same inputs on this instruction set level as by the scalar specification. The
/// answers that a model records are of RGB frames.
pub fn check_cameras(isa: Isa) -> Result<(), GoldenMismatch> {
    let preprocessor = |isa| Preprocessor::new(CAMERA_INPUT.0, CAMERA_INPUT.1, 0, isa);
    compare_cameras(&mut preprocessor(Isa::Scalar), &mut preprocessor(isa))
}

/// Whether the model gives the answers that are recorded in it, on this instruction set level.
pub fn check(model: &Model, isa: Isa) -> Result<(), GoldenMismatch> {
    if model.golden().is_empty() {
        return Err(GoldenMismatch::NoneRecorded);
    }
    let mut detector = Detector::new(model, isa)?;
    for expected in model.golden() {
        let found = answer(
            &mut detector,
            model,
            expected.seed,
            expected.width,
            expected.height,
        )?;
        compare(model, expected, found)?;
    }
    Ok(())
}

/// Whether both make the same inputs of the frames of cameras.
fn compare_cameras(
    expected: &mut Preprocessor,
    found: &mut Preprocessor,
) -> Result<(), GoldenMismatch> {
    let [_, .., (width, height)] = CAMERA_FRAMES;
    // What the bytes of a drawn picture show in another format, repeated or cut off, does not matter.
    let (drawn_width, drawn_height) = CAMERA_INPUT;
    let drawn = draw(CAMERA_SEED, drawn_width, drawn_height);
    let bytes_max = PixelFormat::Rgb8.frame_len(width, height)?;
    let bytes: Vec<u8> = drawn.into_iter().cycle().take(bytes_max).collect();
    let input_len = 3 * (CAMERA_INPUT.0 * CAMERA_INPUT.1) as usize;
    let mut inputs = [vec![0; input_len], vec![0; input_len]];
    for (width, height) in CAMERA_FRAMES {
        for format in PixelFormat::ALL {
            let len = format.frame_len(width, height)?;
            let frame = Frame::new(format, width, height, &bytes[..len])?;
            let [one, other] = &mut inputs;
            expected.run(&frame, one);
            found.run(&frame, other);
            if one != other {
                return Err(GoldenMismatch::Camera {
                    format,
                    width,
                    height,
                });
            }
        }
    }
    Ok(())
}

fn answer(
    detector: &mut Detector,
    model: &Model,
    seed: u64,
    width: u32,
    height: u32,
) -> Result<Golden, GoldenMismatch> {
    // The size is checked before anything is drawn.
    PixelFormat::Rgb8.frame_len(width, height)?;
    let picture = draw(seed, width, height);
    detector.preprocess(&Frame::new(PixelFormat::Rgb8, width, height, &picture)?);
    let input = hex::encode(&Sha256::digest(detector.input()));
    let mut layers = Vec::with_capacity(model.layers().len());
    detector.infer_observed(|_, output| layers.push(layer_digest(output)));
    let iou = model.thresholds().iou;
    let detections = detections_digest(detector.decode(Thresholds {
        score: SCORE_MIN,
        iou,
    }));
    Ok(Golden {
        seed,
        width,
        height,
        input,
        layers,
        detections,
    })
}

fn compare(model: &Model, expected: &Golden, found: Golden) -> Result<(), GoldenMismatch> {
    let seed = expected.seed;
    if expected.input != found.input {
        let (expected, found) = (expected.input.clone(), found.input);
        return Err(GoldenMismatch::Input {
            seed,
            expected,
            found,
        });
    }
    let layers = expected.layers.iter().zip(found.layers).enumerate();
    for (index, (expected, found)) in layers {
        if *expected != found {
            let layer = model.layers()[index].name().to_owned();
            let expected = expected.clone();
            return Err(GoldenMismatch::Layer {
                seed,
                index,
                layer,
                expected,
                found,
            });
        }
    }
    if expected.detections != found.detections {
        let (expected, found) = (expected.detections.clone(), found.detections);
        return Err(GoldenMismatch::Detections {
            seed,
            expected,
            found,
        });
    }
    Ok(())
}

/// The first 16 hex digits; i16 values as little endian.
fn layer_digest(output: LayerOutput<'_>) -> String {
    let digest = match output {
        LayerOutput::U7(values) => Sha256::digest(values),
        LayerOutput::I16(values) => {
            let mut hasher = Sha256::new();
            values
                .iter()
                .for_each(|value| hasher.update(value.to_le_bytes()));
            hasher.finalize()
        }
    };
    hex::encode(&digest[..8])
}

/// Per detection class, score and box, little endian, best first.
fn detections_digest(detections: &[Detection]) -> String {
    let mut hasher = Sha256::new();
    for Detection { class, score, xyxy } in detections {
        hasher.update(class.to_le_bytes());
        hasher.update(score.to_le_bytes());
        xyxy.iter()
            .for_each(|side| hasher.update(side.to_le_bytes()));
    }
    hex::encode(&hasher.finalize())
}

/// Why a model is not to be used here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenMismatch {
    /// Nothing to check: a bundle that is deployed has golden vectors.
    #[error("the model has no golden vectors")]
    NoneRecorded,
    /// The frame has no such size.
    #[error("golden frame: {0}")]
    Frame(#[from] FrameError),
    /// The model cannot run.
    #[error(transparent)]
    Detector(#[from] DetectorError),
    /// Preprocessing differs.
    #[error("golden frame {seed}: the preprocessed input is {found}, not {expected}")]
    Input {
        /// Seed of the golden frame.
        seed: u64,
        /// Recorded digest.
        expected: String,
        /// Digest found.
        found: String,
    },
    /// Preprocessing of what a camera gives differs from its specification.
    #[error(
        "a {format} frame of {width} x {height} pixels does not become the input that it has to"
    )]
    Camera {
        /// Its format.
        format: PixelFormat,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// A layer differs; it is the first one.
    #[error(
        "golden frame {seed}: the output of layer {index}, \"{layer}\", is {found}, not {expected}"
    )]
    Layer {
        /// Seed of the golden frame.
        seed: u64,
        /// Index of the layer.
        index: usize,
        /// Name of the layer.
        layer: String,
        /// Recorded digest.
        expected: String,
        /// Digest found.
        found: String,
    },
    /// Only the decoding differs.
    #[error("golden frame {seed}: the detections are {found}, not {expected}")]
    Detections {
        /// Seed of the golden frame.
        seed: u64,
        /// Recorded digest.
        expected: String,
        /// Digest found.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cameras_give_is_compared_in_every_format() {
        for isa in Isa::available() {
            let compared = check_cameras(isa);
            assert!(compared.is_ok(), "{isa}: {compared:?}");
        }
        let (width, height) = CAMERA_INPUT;
        let filled = |fill| Preprocessor::new(width, height, fill, Isa::detect());
        // Another fill value is all that differs: only frames with a border show it.
        match compare_cameras(&mut filled(0), &mut filled(1)) {
            Err(GoldenMismatch::Camera {
                format: PixelFormat::Rgb8,
                width: 128,
                height: 72,
            }) => {}
            other => panic!("{other:?}"),
        }
    }
}
