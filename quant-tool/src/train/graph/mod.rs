//! The network as an autodiff graph: parameters and a batch in, head outputs out, gradients back.
//!
//! The tensors live for one step. The loss is computed on the host (`loss.rs`), which hands its gradient with respect
//! to the head outputs back here, so that the graph holds nothing but the network itself. Two engines build the same
//! graph: burn's CPU backend, and LibTorch (feature `libtorch`), which is faster where it is at hand.

pub mod flex;
#[cfg(feature = "libtorch")]
pub mod torch;

#[cfg(not(feature = "libtorch"))]
pub use flex::forward;
#[cfg(feature = "libtorch")]
pub use torch::forward;

/// Batch normalization's guard against a variance of zero.
pub const EPSILON: f64 = 1e-5;

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

#[cfg(all(test, feature = "libtorch"))]
mod tests {
    use super::*;
    use crate::train::parameters::{Parameters, Role};

    fn images(rng: &mut fastrand::Rng) -> Images {
        Images {
            data: (0..2 * 3 * 64 * 96).map(|_| rng.f32()).collect(),
            count: 2,
            height: 64,
            width: 96,
        }
    }

    /// Largest difference, in parts of the largest value.
    fn difference(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        let size = a.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max) / size
    }

    #[test]
    fn both_engines_compute_the_same() {
        let config = include_str!("../../../../models/person.toml");
        let config: crate::train::config::Config = toml::from_str(config).unwrap();
        let network = crate::network::Network::new(config.network.as_ref().unwrap(), 1);
        let mut parameters = Parameters::init(&network, 3);
        let mut rng = fastrand::Rng::with_seed(4);
        for p in &mut parameters.0 {
            if matches!(p.role, Role::Beta | Role::Mean) {
                p.value.iter_mut().for_each(|v| *v += rng.f32() - 0.5);
            }
        }
        for statistics in [Statistics::Batch, Statistics::Running] {
            let mode = (Activations::Float, statistics);
            let batch = || images(&mut fastrand::Rng::with_seed(5));
            let flex = flex::forward(&network, &parameters, batch(), mode, Gradients::Kept);
            let torch = torch::forward(&network, &parameters, batch(), mode, Gradients::Kept);
            let (flex, torch) = (flex.unwrap(), torch.unwrap());
            for (a, b) in flex.outputs.iter().zip(&torch.outputs) {
                assert_eq!((a.height, a.width, a.stride), (b.height, b.width, b.stride));
                assert!(difference(&a.data, &b.data) < 1e-3);
            }
            assert_eq!(flex.statistics.len(), torch.statistics.len());
            for (a, b) in flex.statistics.iter().zip(&torch.statistics) {
                assert_eq!(a.0, b.0);
                assert!(difference(&a.1, &b.1) < 1e-3, "mean of {}", a.0);
                assert!(difference(&a.2, &b.2) < 1e-3, "variance of {}", a.0);
            }
            let slopes: Vec<Vec<f32>> = flex
                .outputs
                .iter()
                .map(|o| (0..o.data.len()).map(|_| rng.f32() - 0.5).collect())
                .collect();
            let flex = flex.backward(slopes.clone()).unwrap();
            let torch = torch.backward(slopes).unwrap();
            for ((a, b), p) in flex.iter().zip(&torch).zip(&parameters.0) {
                match (a, b) {
                    (Some(a), Some(b)) => {
                        let difference = difference(a, b);
                        assert!(difference < 5e-3, "{}: {difference}", p.name);
                    }
                    (None, None) => {}
                    _ => panic!("{}: one engine has a gradient, the other has none", p.name),
                }
            }
        }
    }
}
