//! The network as an autodiff graph: parameters and a batch in, head outputs out, gradients back.
//!
//! The tensors live for one step. The loss is computed on the host (`loss.rs`), which hands its gradient with respect
//! to the head outputs back here, so that the graph holds nothing but the network itself. Two engines build the same
//! graph: burn's CPU backend, and LibTorch (feature `libtorch`), which is faster where it is at hand.

pub mod burn;
#[cfg(feature = "libtorch")]
pub mod torch;

#[cfg(not(feature = "libtorch"))]
pub use burn::forward;
#[cfg(feature = "libtorch")]
pub use torch::forward;

/// Batch normalization's guard against a variance of zero.
pub const EPSILON: f64 = 1e-5;

/// Why a mean cannot be pooled.
const ODD_SIDES: &str =
    "means of 2 x 2 windows need even sides: choose a size of samples that leaves them";

/// How activations are represented in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// Floating point, clipped to the u7 range.
    Float,
    /// Rounded to u7 steps; gradients pass straight through (Bengio et al. 2013, section 4).
    U7,
}

/// Which statistics batch normalization uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// The batch's own, as training does.
    Batch,
    /// The running ones, as the exported network does.
    Running,
}

/// A batch of images: `[count, 3, height, width]`, u7 values / 127.
#[derive(Clone)]
pub struct Images {
    /// Row-major values.
    pub data: Vec<f32>,
    /// Number of images.
    pub count: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
}

impl Images {
    /// Cuts a batch into at most `parts` batches of nearly the same size.
    pub fn split(mut self, parts: usize) -> Vec<Self> {
        let image = self.data.len() / self.count.max(1);
        let size = self.count.div_ceil(parts.max(1)).max(1);
        let mut all = Vec::new();
        while self.count > size {
            let data = self.data.split_off(self.data.len() - size * image);
            self.count -= size;
            all.push(Self {
                data,
                count: size,
                height: self.height,
                width: self.width,
            });
        }
        all.push(self);
        all.reverse();
        all
    }
}

/// One head's output on the host: `[count, channels, height, width]`.
pub struct HeadOutput {
    /// Row-major values.
    pub data: Vec<f32>,
    /// Values per cell.
    pub channels: usize,
    /// Cells per column.
    pub height: usize,
    /// Cells per row.
    pub width: usize,
    /// Input pixels per cell.
    pub stride: u32,
}

/// Whether a pass can be differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradients {
    /// It can: the pass keeps what its backward pass needs.
    Kept,
    /// It cannot.
    None,
}
