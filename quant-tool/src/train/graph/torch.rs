//! The graph in LibTorch. The interface is that of `burn.rs`, and a test holds the two together.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};
use ternwatch_bundle::manifest::{Activation, Layer, PoolMode};

use super::{Activations, EPSILON, Gradients, HeadOutput, Images, ODD_SIDES, Statistics};
use crate::network::{IMAGE, Network};
use crate::quantize::activation::{CLIP, STEP};
use crate::train::parameters::{Parameter, Parameters, Role};

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
    let image = tensor(
        &images.data,
        &[images.count, 3, images.height, images.width],
    );
    let mut tensors = HashMap::from([(IMAGE, image)]);
    // The image comes in its own unit, and what a linear convolution gives is in that of its scale.
    let mut units = HashMap::from([(IMAGE, 1.0)]);
    let mut convs = Convs {
        differentiable,
        mode: (activations, statistics),
        next: parameters.0.iter(),
        leaves: Vec::new(),
        measured: Vec::new(),
    };
    for layer in &network.layers {
        let read = |name: &String| &tensors[name.as_str()];
        let output = match layer {
            Layer::Conv { input, .. } => convs.conv(layer, read(input), units[input.as_str()])?,
            Layer::AddUpsampled { fine, coarse, .. } => add_upsampled(read(fine), read(coarse)),
            Layer::Add { inputs, offset, .. } => {
                let sum = read(&inputs[0]) + read(&inputs[1]);
                (sum - f64::from(*offset) * f64::from(STEP) * UNIT).relu6()
            }
            Layer::Concat { inputs, .. } => {
                Tensor::cat(&inputs.iter().map(read).collect::<Vec<_>>(), 1)
            }
            Layer::Pool {
                input,
                mode,
                kernel,
                stride,
                ..
            } => match mode {
                PoolMode::Max => max_pool(read(input), i64::from(*kernel), i64::from(*stride)),
                PoolMode::Mean => {
                    mean_pool(read(input), activations).with_context(|| layer.name().to_owned())?
                }
            },
        };
        let is_linear = matches!(
            layer,
            Layer::Conv {
                activation: Activation::Linear,
                ..
            }
        );
        units.insert(layer.name(), if is_linear { 1.0 } else { UNIT });
        tensors.insert(layer.name(), output);
    }

    let heads: Vec<Tensor> = network
        .heads
        .iter()
        .map(|h| &tensors[h.layer.as_str()] / units[h.layer.as_str()])
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
        leaves: convs.leaves,
        heads,
        statistics: convs.measured,
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

/// What the convolutions share while a pass is built.
struct Convs<'a> {
    differentiable: bool,
    mode: (Activations, Statistics),
    /// Parameters of the convolutions that are still to come.
    next: std::slice::Iter<'a, Parameter>,
    leaves: Vec<Option<Tensor>>,
    measured: Vec<(String, Vec<f32>, Vec<f32>)>,
}

impl Convs<'_> {
    fn take(&mut self, role: Role) -> Result<Tensor> {
        let p = self.next.next().filter(|p| p.role == role);
        let p = p.context("parameters out of order")?;
        Ok(tensor(&p.value, &p.shape))
    }

    fn leaf(&mut self, role: Role) -> Result<Tensor> {
        let leaf = self.take(role)?.set_requires_grad(self.differentiable);
        self.leaves.push(Some(leaf.shallow_clone()));
        Ok(leaf)
    }

    /// A convolution of what is `unit` times as large as elsewhere, with what follows it.
    fn conv(&mut self, layer: &Layer, read: &Tensor, unit: f64) -> Result<Tensor> {
        let Layer::Conv {
            name,
            kernel,
            stride,
            groups,
            activation,
            ..
        } = layer
        else {
            anyhow::bail!("layer {} is no convolution", layer.name());
        };
        let weight = self.leaf(Role::Weight)?;
        let (gamma, beta) = (self.leaf(Role::Gamma)?, self.leaf(Role::Beta)?);
        let (mean, variance) = (self.take(Role::Mean)?, self.take(Role::Variance)?);
        self.leaves.extend([None, None]);

        let (padding, stride) = (i64::from(kernel / 2), i64::from(*stride));
        let sum = read.conv2d(
            &(&weight / unit),
            None::<Tensor>,
            [stride, stride],
            [padding, padding],
            [1, 1],
            i64::from(*groups),
        );
        let (activations, statistics) = self.mode;
        Ok(match (activation, statistics) {
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
                let statistic = (name.clone(), values(&mean)?, values(&variance)?);
                self.measured.push(statistic);
                activate(&normed, activations)
            }
        })
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

fn max_pool(x: &Tensor, kernel: i64, stride: i64) -> Tensor {
    let around = (kernel - 1) / 2;
    if kernel % 2 == 1 {
        return x.max_pool2d(
            [kernel, kernel],
            [stride, stride],
            [around, around],
            [1, 1],
            false,
        );
    }
    // An even kernel's last window may reach out at the end, where zeros count for nothing.
    let size = x.size();
    let end = |side: i64| ((side + stride - 1) / stride - 1) * stride + kernel - side;
    let x = x.constant_pad_nd([0, end(size[3]), 0, end(size[2])]);
    x.max_pool2d([kernel, kernel], [stride, stride], [0, 0], [1, 1], false)
}

/// Means of 2x2 windows.
fn mean_pool(x: &Tensor, activations: Activations) -> Result<Tensor> {
    let size = x.size();
    ensure!(size[2] % 2 == 0 && size[3] % 2 == 0, ODD_SIDES);
    let means = x.avg_pool2d([2, 2], [2, 2], [0, 0], false, false, None::<i64>);
    Ok(match activations {
        Activations::Float => means,
        Activations::U7 => {
            let step = f64::from(STEP) * UNIT;
            // The four's sum is a whole number of steps; half a step goes up.
            let sum = (&means * (4.0 / step)).round();
            let error = ((sum + 2.0) / 4.0).floor() * step - &means;
            &means + error.detach()
        }
    })
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
