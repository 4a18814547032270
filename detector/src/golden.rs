//! Golden vectors: the answers that a network must give, bit for bit, on every processor.

use ternwatch_bundle::Model;
use ternwatch_bundle::manifest::Golden;
use ternwatch_kernels::Isa;

use crate::detector::DetectorError;
use crate::frame::FrameError;

/// The RGB8 frame of this seed and size.
pub fn draw(_seed: u64, _width: u32, _height: u32) -> Vec<u8> {
    todo!()
}

/// The model's answers to the frame of this seed and size, computed by the scalar specification.
pub fn record(
    _model: &Model,
    _seed: u64,
    _width: u32,
    _height: u32,
) -> Result<Golden, GoldenMismatch> {
    todo!()
}

/// Whether the model gives the answers that are recorded in it, on this instruction set level.
pub fn check(_model: &Model, _isa: Isa) -> Result<(), GoldenMismatch> {
    todo!()
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
