//! What a network is trained for. The stages know nothing of it: detection and classification pass through the same code.

use super::graph::HeadOutput;

/// Samples with what is true of them, and how far the network's outputs are from it.
pub trait Task: Send + Sync + 'static {
    /// What is true of one sample.
    type Truth: Send + Sync;

    /// Draws one sample of `size` (width, height) pixels: `[3, height, width]` u7 values / 127, and its truth. The same
    /// state of `rng` gives the same sample.
    fn sample(&self, rng: &mut fastrand::Rng, size: [usize; 2]) -> (Vec<f32>, Self::Truth);

    /// The loss of a batch, and its gradient with respect to each output.
    fn loss(&self, outputs: &[HeadOutput], truth: &[Self::Truth]) -> (Loss, Vec<Vec<f32>>);

    /// How far the outputs are from those of a teacher on the same samples, and its gradient with respect to each output.
    fn distil(&self, outputs: &[HeadOutput], teacher: &[HeadOutput]) -> (Loss, Vec<Vec<f32>>);
}

/// The loss of a batch, and what it is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    /// Scores' part.
    pub score: f32,
    /// Boxes' part; 0 where there are none.
    pub bbox: f32,
    /// Detection: cells that answer for a box. Classification: samples that were classified right.
    pub positives: usize,
}

impl Loss {
    /// The number that is minimized.
    pub fn total(&self) -> f32 {
        self.score + self.bbox
    }

    /// Adds `weight` x another loss of the same outputs.
    pub fn add(&mut self, weight: f32, other: Self) {
        self.score += weight * other.score;
        self.bbox += weight * other.bbox;
    }
}
