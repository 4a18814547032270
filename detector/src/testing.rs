//! Small random bundles with golden vectors for tests (feature `testing`).

use ternwatch_bundle::PublicKey;
use ternwatch_bundle::testing::{branched_draft, load, small_draft, small_key};
use ternwatch_bundle::write::Draft;

use crate::frame::Frame;
use crate::golden;
use crate::preprocess::Preprocessor;
use ternwatch_kernels::Isa;

/// A signed random model that passes [`golden::check`], and the key that checks its signature.
pub fn small_bundle(seed: u64) -> (Vec<u8>, PublicKey) {
    recorded(small_draft(seed), seed)
}

/// As [`small_bundle`], with the layers that networks trained elsewhere have.
pub fn branched_bundle(seed: u64) -> (Vec<u8>, PublicKey) {
    recorded(branched_draft(seed), seed)
}

fn recorded(mut draft: Draft, seed: u64) -> (Vec<u8>, PublicKey) {
    let key = small_key();
    let unrecorded = draft
        .sign(&key)
        .expect("a small model is within the bounds");
    let model = load(&unrecorded, &key.public_key());
    draft.manifest.golden = [(seed, 43, 28), (!seed, 30, 51)]
        .map(|(seed, width, height)| {
            golden::record(&model, seed, width, height)
                .expect("the model runs and the size is right")
        })
        .to_vec();
    let file = draft.sign(&key).expect("golden vectors are short");
    (file, key.public_key())
}

/// The first stage alone, for measurements: without a model, for inputs of one size.
#[derive(Debug)]
pub struct FirstStage(Preprocessor);

impl FirstStage {
    /// Inputs of `width` times `height` pixels.
    pub fn new(width: u32, height: u32, isa: Isa) -> Self {
        Self(Preprocessor::new(width, height, 57, isa))
    }

    /// Fills `3 * height * width` bytes.
    pub fn run(&mut self, frame: &Frame<'_>, input: &mut [u8]) {
        self.0.run(frame, input);
    }
}
