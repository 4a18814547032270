//! The graph in burn, on its own CPU backend.

use std::collections::HashMap;

use anyhow::{Context, Result};
use burn::tensor::module::{batch_norm, batch_norm_train, conv2d, interpolate};
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{self, Device, Tensor, TensorData};
use ternwatch_bundle::manifest::{Activation, Layer};

use super::{Activations, EPSILON, Gradients, HeadOutput, Images, Statistics};
use crate::network::{IMAGE, Network};
use crate::quantize::activation::{CLIP, STEP};
use crate::train::parameters::{Parameters, Role};

/// A forward pass whose backward pass is still to come.
pub struct Pass {
    leaves: Vec<Option<Leaf>>,
    heads: Vec<Tensor<4>>,
    /// Batch means and variances by layer name.
    pub statistics: Vec<(String, Vec<f32>, Vec<f32>)>,
    /// The outputs to compute the loss from.
    pub outputs: Vec<HeadOutput>,
}

enum Leaf {
    Weight(Tensor<4>),
    Channel(Tensor<1>),
}

impl Leaf {
    fn gradient(&self, gradients: &tensor::Gradients) -> Result<Option<Vec<f32>>> {
        let data = match self {
            Self::Weight(t) => t.grad(gradients).map(Tensor::into_data),
            Self::Channel(t) => t.grad(gradients).map(Tensor::into_data),
        };
        data.map(values).transpose()
    }
}

/// A tensor whose gradient is kept, where there are gradients at all.
fn leaf<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.device().is_autodiff() {
        true => tensor.require_grad(),
        false => tensor,
    }
}

fn values(data: TensorData) -> Result<Vec<f32>> {
    data.try_to_vec::<f32>().context("reading a tensor back")
}

/// Runs the network forward.
pub fn forward(
    network: &Network,
    parameters: &Parameters,
    images: Images,
    (activations, statistics): (Activations, Statistics),
    gradients: Gradients,
) -> Result<Pass> {
    let device = &match gradients {
        Gradients::Kept => Device::flex().autodiff(),
        Gradients::None => Device::flex(),
    };
    let mut leaves = Vec::new();
    let mut measured = Vec::new();
    let shape = [images.count, 3, images.height, images.width];
    let image = Tensor::<4>::from_data(TensorData::new(images.data, shape), device);
    let mut tensors = HashMap::from([(IMAGE, image)]);
    let mut next = parameters.0.iter();

    for layer in &network.layers {
        let (name, output) = match layer {
            Layer::AddUpsampled { name, fine, coarse } => (
                name,
                add_upsampled(
                    tensors[fine.as_str()].clone(),
                    tensors[coarse.as_str()].clone(),
                ),
            ),
            Layer::Conv {
                name,
                input,
                kernel,
                stride,
                activation,
                ..
            } => {
                let mut take = |role: Role| {
                    let p = next
                        .next()
                        .filter(|p| p.role == role)
                        .context("parameters out of order")?;
                    Ok::<_, anyhow::Error>(p)
                };
                let weight = take(Role::Weight)?;
                let shape: [usize; 4] = weight.shape.as_slice().try_into()?;
                let weight = leaf(Tensor::<4>::from_data(
                    TensorData::new(weight.value.clone(), shape),
                    device,
                ));
                let channels = shape[0];
                let vector = |value: &[f32]| {
                    Tensor::<1>::from_data(TensorData::new(value.to_vec(), [channels]), device)
                };
                let gamma = leaf(vector(&take(Role::Gamma)?.value));
                let beta = leaf(vector(&take(Role::Beta)?.value));
                let mean = &take(Role::Mean)?.value;
                let variance = &take(Role::Variance)?.value;
                leaves.push(Some(Leaf::Weight(weight.clone())));
                leaves.push(Some(Leaf::Channel(gamma.clone())));
                leaves.push(Some(Leaf::Channel(beta.clone())));
                leaves.extend([None, None]);

                let (k, s) = (*kernel as usize, *stride as usize);
                let options = ConvOptions::new([s, s], [k / 2, k / 2], [1, 1], 1);
                let sum = conv2d(tensors[input.as_str()].clone(), weight, None, options);
                let output = match (activation, statistics) {
                    (Activation::Linear, _) => {
                        sum * gamma.reshape([1, channels, 1, 1]) + beta.reshape([1, channels, 1, 1])
                    }
                    (Activation::Relu, Statistics::Running) => activate(
                        batch_norm(sum, gamma, beta, vector(mean), vector(variance), EPSILON),
                        activations,
                    ),
                    (Activation::Relu, Statistics::Batch) => {
                        let normed = batch_norm_train(sum, gamma, beta, EPSILON);
                        let (mean, variance) =
                            (normed.mean.into_data(), normed.variance.into_data());
                        measured.push((name.clone(), values(mean)?, values(variance)?));
                        activate(normed.output, activations)
                    }
                };
                (name, output)
            }
        };
        tensors.insert(name, output);
    }

    let heads: Vec<Tensor<4>> = network
        .heads
        .iter()
        .map(|h| tensors[h.layer.as_str()].clone())
        .collect();
    let outputs = heads
        .iter()
        .zip(&network.heads)
        .map(|(tensor, head)| {
            let [_, channels, height, width] = tensor.dims();
            Ok(HeadOutput {
                data: values(tensor.clone().into_data())?,
                channels,
                height,
                width,
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
        let mut surrogate: Option<Tensor<1>> = None;
        for (head, gradient) in self.heads.into_iter().zip(output_gradients) {
            let gradient =
                Tensor::<4>::from_data(TensorData::new(gradient, head.dims()), &head.device());
            let term = (head * gradient).sum();
            surrogate = Some(match surrogate {
                Some(sum) => sum + term,
                None => term,
            });
        }
        let gradients = surrogate.context("a network without heads")?.backward();
        self.leaves
            .iter()
            .map(|leaf| leaf.as_ref().map_or(Ok(None), |l| l.gradient(&gradients)))
            .collect()
    }
}

fn add_upsampled(fine: Tensor<4>, coarse: Tensor<4>) -> Tensor<4> {
    let [_, _, height, width] = fine.dims();
    let [count, channels, h, w] = coarse.dims();
    let options =
        InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([2 * h, 2 * w]);
    let mut enlarged = interpolate(coarse, options);
    if (2 * h, 2 * w) != (height, width) {
        enlarged = enlarged.slice([0..count, 0..channels, 0..height, 0..width]);
    }
    (fine + enlarged).clamp_max(CLIP)
}

fn activate(x: Tensor<4>, activations: Activations) -> Tensor<4> {
    let clipped = x.clamp(0.0, CLIP);
    match activations {
        Activations::Float => clipped,
        Activations::U7 => {
            let error = (clipped.clone().detach() / STEP).round() * STEP - clipped.clone().detach();
            clipped + error
        }
    }
}
