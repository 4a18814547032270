//! The stages in their order.
//!
//! Takes frames, gives detections. [`Detector::new`] allocates everything; afterwards no stage allocates.

use ternwatch_bundle::{Model, Thresholds};
use ternwatch_kernels::Isa;

use crate::detection::Detection;
use crate::frame::Frame;
use crate::infer::{LayerOutput, Network, NetworkError};

/// A model that is ready to run on one instruction set level.
#[derive(Debug)]
pub struct Detector {
    network: Network,
}

impl Detector {
    /// Plans the arena and builds every layer.
    pub fn new(_model: &Model, _isa: Isa) -> Result<Self, DetectorError> {
        todo!()
    }

    /// Bytes of all tensors that are alive at once, and of the kernels' working memory.
    pub fn arena_len(&self) -> usize {
        todo!()
    }

    /// Multiply-accumulates of one frame.
    pub fn macs(&self) -> u64 {
        todo!()
    }

    /// The instruction set level that the layers run on.
    pub fn isa(&self) -> Isa {
        todo!()
    }

    /// All stages.
    pub fn detect(&mut self, frame: &Frame<'_>, thresholds: Thresholds) -> &[Detection] {
        self.preprocess(frame);
        self.infer();
        self.decode(thresholds)
    }

    /// First stage: fills the network's input with the letterboxed frame.
    pub fn preprocess(&mut self, _frame: &Frame<'_>) {
        todo!()
    }

    /// The network's input, `[channel][row][column]` of 0 to 127. Only until `infer`, which reuses its memory.
    ///
    /// # Panics
    /// When there is no fresh input.
    pub fn input(&self) -> &[u8] {
        todo!()
    }

    /// The network's input, to be filled by the caller instead of `preprocess`. Boxes are then in input pixels.
    pub fn input_mut(&mut self) -> &mut [u8] {
        todo!()
    }

    /// Second stage: runs the layers on the input. Consumes the input.
    ///
    /// # Panics
    /// When there is no fresh input, or the caller filled it with a value above 127.
    pub fn infer(&mut self) {
        self.infer_observed(|_, _| ());
    }

    /// As `infer`, and shows the output of each layer right after it ran: index of the layer, values.
    pub fn infer_observed(&mut self, _observe: impl FnMut(usize, LayerOutput<'_>)) {
        todo!()
    }

    /// Third stage: boxes of the frame that was preprocessed last, best first, at most [`crate::DETECTIONS_MAX`].
    /// May be called again with other thresholds.
    ///
    /// # Panics
    /// When the network has not run.
    pub fn decode(&mut self, _thresholds: Thresholds) -> &[Detection] {
        todo!()
    }
}

/// Why a model cannot run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectorError {
    /// A layer cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
}
