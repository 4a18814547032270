//! The stages in their order.
//!
//! Takes frames, gives detections. [`Detector::new`] allocates everything; afterwards no stage allocates. A call out
//! of order is a mistake in the program and panics.

use ternwatch_bundle::{Model, Thresholds};
use ternwatch_kernels::Isa;

use crate::decode::Decoder;
use crate::detection::Detection;
use crate::frame::Frame;
use crate::infer::{LayerOutput, Network, NetworkError};
use crate::letterbox::Letterbox;
use crate::preprocess::Preprocessor;

/// A model that is ready to run on one instruction set level.
#[derive(Debug)]
pub struct Detector {
    preprocessor: Preprocessor,
    network: Network,
    decoder: Decoder,
    /// Where the frame lies in the input.
    letterbox: Letterbox,
    /// Letterbox of an input without a frame.
    whole_input: Letterbox,
    macs: u64,
    progress: Progress,
}

/// What the memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Nothing,
    Preprocessed,
    /// An input that the caller wrote and nobody checked.
    Filled,
    Inferred,
}

impl Detector {
    /// Plans the memory and builds every layer, to run on the caller's thread.
    pub fn new(model: &Model, isa: Isa) -> Result<Self, DetectorError> {
        Self::for_threads(model, isa, 1)
    }

    /// As `new`. Where the calling thread has a [`crate::Team`], the layers that are large enough run on `threads` of it.
    pub fn for_threads(model: &Model, isa: Isa, threads: usize) -> Result<Self, DetectorError> {
        let input = model.input();
        let size = (input.width, input.height);
        let whole_input = Letterbox::fit(size, size);
        Ok(Self {
            preprocessor: Preprocessor::new(input.width, input.height, input.fill, isa),
            network: Network::new(model, isa, threads)?,
            decoder: Decoder::new(model),
            letterbox: whole_input,
            whole_input,
            macs: model.macs(),
            progress: Progress::Nothing,
        })
    }

    /// Bytes of all tensors that are alive at once, and of the kernels' working memory.
    pub fn arena_len(&self) -> usize {
        self.network.memory_len()
    }

    /// Multiply-accumulates of one frame, zero weights included.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// The instruction set level that the layers run on.
    pub fn isa(&self) -> Isa {
        self.network.isa()
    }

    /// All stages.
    pub fn detect(&mut self, frame: &Frame<'_>, thresholds: Thresholds) -> &[Detection] {
        self.preprocess(frame);
        self.infer();
        self.decode(thresholds)
    }

    /// First stage: fills the network's input with the letterboxed frame.
    pub fn preprocess(&mut self, frame: &Frame<'_>) {
        self.letterbox = self.preprocessor.run(frame, self.network.image_mut());
        self.progress = Progress::Preprocessed;
    }

    /// The network's input, `[channel][row][column]` of 0 to 127. Only until `infer`, which reuses its memory.
    ///
    /// # Panics
    /// When there is no fresh input.
    pub fn input(&self) -> &[u8] {
        self.assert_fresh_input();
        self.network.image()
    }

    /// The network's input, to be filled by the caller instead of `preprocess`; what it holds before is undefined.
    /// Boxes are then in input pixels.
    pub fn input_mut(&mut self) -> &mut [u8] {
        self.letterbox = self.whole_input;
        self.progress = Progress::Filled;
        self.network.image_mut()
    }

    /// Second stage: runs the layers on the input. Consumes the input.
    ///
    /// # Panics
    /// When there is no fresh input, or the caller filled it with a value above 127.
    pub fn infer(&mut self) {
        self.infer_observed(|_, _| ());
    }

    /// As `infer`, and shows the output of each layer right after it ran: index of the layer, values.
    ///
    /// # Panics
    /// As `infer`.
    pub fn infer_observed(&mut self, observe: impl FnMut(usize, LayerOutput<'_>)) {
        self.assert_fresh_input();
        if self.progress == Progress::Filled {
            let highest = self.network.image().iter().max();
            assert!(
                highest <= Some(&127),
                "the input that the caller filled holds {highest:?}, more than 127"
            );
        }
        self.progress = Progress::Inferred;
        self.network.run(observe);
    }

    /// Third stage: boxes of the frame that was preprocessed last, best first, at most [`crate::DETECTIONS_MAX`].
    /// May be called again with other thresholds.
    ///
    /// # Panics
    /// When the network has not run since the last input.
    pub fn decode(&mut self, thresholds: Thresholds) -> &[Detection] {
        assert_eq!(
            self.progress,
            Progress::Inferred,
            "decode comes after infer"
        );
        self.decoder.run(
            |layer| self.network.logits(layer),
            self.letterbox,
            thresholds,
        )
    }

    /// What `decode` gave last.
    pub fn detections(&self) -> &[Detection] {
        self.decoder.detections()
    }

    /// The boxes that competed in it, best first, those too that a better one of their class suppressed: at most
    /// [`crate::CANDIDATES_MAX`].
    pub fn candidates(&self) -> impl Iterator<Item = &Detection> + Clone {
        self.decoder.candidates()
    }

    /// Decodes head outputs that were computed elsewhere, say by the float network that this one was made from, in
    /// the scales of this model's heads. `logits` gives a head's `[channel][row][column]` by the layer's index. Boxes
    /// are those of the frame that was preprocessed last.
    pub fn decode_from<'a>(
        &mut self,
        logits: impl Fn(usize) -> &'a [i16],
        thresholds: Thresholds,
    ) -> &[Detection] {
        self.decoder.run(logits, self.letterbox, thresholds)
    }

    fn assert_fresh_input(&self) {
        assert!(
            matches!(self.progress, Progress::Preprocessed | Progress::Filled),
            "there is no fresh input: call preprocess or input_mut first ({:?})",
            self.progress
        );
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
