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
