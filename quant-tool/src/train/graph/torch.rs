//! The graph in LibTorch. The interface is that of `flex.rs`, and a test holds the two together.

use std::collections::HashMap;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};
use ternwatch_bundle::manifest::{Activation, Layer};

use super::{Activations, EPSILON, Gradients, HeadOutput, Images, Statistics};
use crate::network::{IMAGE, Network};
use crate::quantize::activation::{CLIP, STEP};
use crate::train::parameters::{Parameters, Role};

/// Activations are kept `UNIT` times as large as elsewhere, so that their clip at [`CLIP`] becomes `relu6`, the one
/// bounded activation in the bindings whose backward pass is vectorized. Normalizations write this unit, weights read it.
const UNIT: f64 = 6.0 / CLIP as f64;

/// A forward pass whose backward pass is still to come.
pub struct Pass {
    leaves: Vec<Option<Tensor>>,
    heads: Vec<Tensor>,
    /// Batch means and variances by layer name.
    pub statistics: Vec<(String, Vec<f32>, Vec<f32>)>,
    /// The outputs to compute the loss from.
    pub outputs: Vec<HeadOutput>,
}

/// Runs the network forward on this thread alone.
pub fn forward(
    network: &Network,
    parameters: &Parameters,
    images: Images,
    (activations, statistics): (Activations, Statistics),
    gradients: Gradients,
) -> Result<Pass> {
    let differentiable = gradients == Gradients::Kept;
    tch::set_num_threads(1);
    let _mode = (!differentiable).then(tch::no_grad_guard);
    let mut leaves = Vec::new();
    let mut measured = Vec::new();
    let image = tensor(
        &images.data,
        &[images.count, 3, images.height, images.width],
    );
    let mut tensors = HashMap::from([(IMAGE, image)]);
    let mut next = parameters.0.iter();

    for layer in &network.layers {
        let (name, output) = match layer {
            Layer::AddUpsampled { name, fine, coarse } => {
                let (fine, coarse) = (&tensors[fine.as_str()], &tensors[coarse.as_str()]);
                (name, add_upsampled(fine, coarse))
            }
            Layer::Conv {
                name,
                input,
                kernel,
                stride,
                activation,
                ..
            } => {
                let mut take = |role: Role| {
                    let p = next.next().filter(|p| p.role == role);
                    let p = p.context("parameters out of order")?;
                    Ok::<_, anyhow::Error>(tensor(&p.value, &p.shape))
                };
                let mut leaf = |role: Role| take(role).map(|t| t.set_requires_grad(differentiable));
                let (weight, gamma, beta) =
                    (leaf(Role::Weight)?, leaf(Role::Gamma)?, leaf(Role::Beta)?);
                let (mean, variance) = (take(Role::Mean)?, take(Role::Variance)?);
                for leaf in [&weight, &gamma, &beta] {
                    leaves.push(Some(leaf.shallow_clone()));
                }
                leaves.extend([None, None]);

                // The image comes in its own unit.
                let unit = if input == IMAGE { 1.0 } else { UNIT };
                let (padding, stride) = (i64::from(kernel / 2), i64::from(*stride));
                let sum = tensors[input.as_str()].conv2d(
                    &(&weight / unit),
                    None::<Tensor>,
                    [stride, stride],
                    [padding, padding],
                    [1, 1],
                    1,
                );
                let output = match (activation, statistics) {
                    (Activation::Linear, _) => {
                        sum * gamma.reshape([1, -1, 1, 1]) + beta.reshape([1, -1, 1, 1])
                    }
                    (Activation::Relu, Statistics::Running) => {
                        let normed = sum.batch_norm(
                            Some(gamma * UNIT),
                            Some(beta * UNIT),
                            Some(mean),
                            Some(variance),
                            false,
                            0.0,
                            EPSILON,
                            false,
                        );
                        activate(&normed, activations)
                    }
                    (Activation::Relu, Statistics::Batch) => {
                        let (normed, mean, deviation) = Tensor::native_batch_norm(
                            &sum,
                            Some(gamma * UNIT),
                            Some(beta * UNIT),
                            None::<Tensor>,
                            None::<Tensor>,
                            true,
                            0.0,
                            EPSILON,
                        );
                        let variance = deviation.pow_tensor_scalar(-2) - EPSILON;
                        measured.push((name.clone(), values(&mean)?, values(&variance)?));
                        activate(&normed, activations)
                    }
                };
                (name, output)
            }
        };
        tensors.insert(name, output);
    }

    let heads: Vec<Tensor> = network
        .heads
        .iter()
        .map(|h| tensors[h.layer.as_str()].shallow_clone())
        .collect();
    let outputs = heads
        .iter()
        .zip(&network.heads)
        .map(|(tensor, head)| {
            let (_, channels, height, width) = tensor.size4()?;
            Ok(HeadOutput {
                data: values(tensor)?,
                channels: channels as usize,
                height: height as usize,
                width: width as usize,
                stride: head.stride,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Pass {
        leaves,
        heads,
        statistics: measured,
        outputs,
    })
}

impl Pass {
    /// Gradients of the loss with respect to every parameter, given those with respect to the outputs.
    /// `None` where a parameter is not trained.
    pub fn backward(self, output_gradients: Vec<Vec<f32>>) -> Result<Vec<Option<Vec<f32>>>> {
        // The sum of output x gradient has exactly these gradients with respect to the outputs.
        let terms = self.heads.iter().zip(output_gradients).map(|(head, g)| {
            let gradient = Tensor::from_slice(&g).reshape(head.size());
            (head * gradient).sum(Kind::Float)
        });
        let surrogate = terms.reduce(|a, b| a + b);
        let surrogate = surrogate.context("a network without heads")?;
        let leaves: Vec<&Tensor> = self.leaves.iter().flatten().collect();
        let gradients = Tensor::f_run_backward(&[surrogate], &leaves, false, false)?;
        let mut gradients = gradients.iter();
        self.leaves
            .iter()
            .map(|leaf| match leaf {
                Some(_) => gradients.next().map(values).transpose(),
                None => Ok(None),
            })
            .collect()
    }
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Tensor::from_slice(values).reshape(shape)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.detach().contiguous().view([-1]);
    Vec::<f32>::try_from(&flat).context("reading a tensor back")
}

fn add_upsampled(fine: &Tensor, coarse: &Tensor) -> Tensor {
    let (fine_size, coarse_size) = (fine.size(), coarse.size());
    let (height, width) = (fine_size[2], fine_size[3]);
    let enlarged = coarse.upsample_nearest2d([2 * coarse_size[2], 2 * coarse_size[3]], None, None);
    let enlarged = enlarged.narrow(2, 0, height).narrow(3, 0, width);
    (fine + enlarged).relu6()
}

fn activate(x: &Tensor, activations: Activations) -> Tensor {
    let clipped = x.relu6();
    match activations {
        Activations::Float => clipped,
        Activations::U7 => {
            let step = f64::from(STEP) * UNIT;
            let error = (&clipped / step).round() * step - &clipped;
            &clipped + error.detach()
        }
    }
}
