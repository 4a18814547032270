//! The graph in burn: on its own CPU backend, or on a GPU with the features `cuda` and `wgpu`.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use burn_tensor::module::{
    avg_pool2d, batch_norm, batch_norm_train, conv2d, interpolate, max_pool2d,
};
use burn_tensor::ops::{
    AvgPoolOptions, ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions,
};
use burn_tensor::{self as tensor, Device, Tensor, TensorData};
use ternwatch_bundle::manifest::{Activation, Layer, PoolMode};

use super::{Activations, EPSILON, Gradients, HeadOutput, Images, ODD_SIDES, Statistics};
use crate::network::{IMAGE, Network};
use crate::quantize::activation::{CLIP, STEP};
use crate::train::parameters::{Parameter, Parameters, Role};

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

/// What it was built for.
fn device() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(tensor::DeviceIndex::Default);
    #[cfg(all(feature = "wgpu", not(feature = "cuda")))]
    return Device::wgpu(tensor::DeviceKind::DefaultDevice);
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    Device::flex()
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
        Gradients::Kept => device().autodiff(),
        Gradients::None => device(),
    };
    let shape = [images.count, 3, images.height, images.width];
    let image = Tensor::<4>::from_data(TensorData::new(images.data, shape), device);
    let mut tensors = HashMap::from([(IMAGE, image)]);
    let mut convs = Convs {
        device,
        mode: (activations, statistics),
        next: parameters.0.iter(),
        leaves: Vec::new(),
        measured: Vec::new(),
    };
    for layer in &network.layers {
        let read = |name: &String| tensors[name.as_str()].clone();
        let output = match layer {
            Layer::Conv { input, .. } => convs.conv(layer, read(input))?,
            Layer::AddUpsampled { fine, coarse, .. } => add_upsampled(read(fine), read(coarse)),
            Layer::Add { inputs, offset, .. } => {
                let sum = read(&inputs[0]) + read(&inputs[1]);
                (sum - f32::from(*offset) * STEP).clamp(0.0, CLIP)
            }
            Layer::Concat { inputs, .. } => Tensor::cat(inputs.iter().map(read).collect(), 1),
            Layer::Pool {
                input,
                mode,
                kernel,
                stride,
                ..
            } => match mode {
                PoolMode::Max => max_pool(read(input), *kernel as usize, *stride as usize),
                PoolMode::Mean => {
                    mean_pool(read(input), activations).with_context(|| layer.name().to_owned())?
                }
            },
        };
        tensors.insert(layer.name(), output);
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

/// What the convolutions share while a pass is built.
struct Convs<'a> {
    device: &'a Device,
    mode: (Activations, Statistics),
    /// Parameters of the convolutions that are still to come.
    next: std::slice::Iter<'a, Parameter>,
    leaves: Vec<Option<Leaf>>,
    measured: Vec<(String, Vec<f32>, Vec<f32>)>,
}

impl<'a> Convs<'a> {
    fn take(&mut self, role: Role) -> Result<&'a Parameter> {
        let next = self.next.next().filter(|p| p.role == role);
        next.context("parameters out of order")
    }

    fn vector(&self, value: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(value.to_vec(), [value.len()]), self.device)
    }

    /// A convolution with what follows it.
    fn conv(&mut self, layer: &Layer, input: Tensor<4>) -> Result<Tensor<4>> {
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
        let weight = self.take(Role::Weight)?;
        let shape: [usize; 4] = weight.shape.as_slice().try_into()?;
        let weight = TensorData::new(weight.value.clone(), shape);
        let weight = leaf(Tensor::<4>::from_data(weight, self.device));
        let gamma = self.take(Role::Gamma)?;
        let gamma = leaf(self.vector(&gamma.value));
        let beta = self.take(Role::Beta)?;
        let beta = leaf(self.vector(&beta.value));
        let (mean, variance) = (self.take(Role::Mean)?, self.take(Role::Variance)?);
        self.leaves.push(Some(Leaf::Weight(weight.clone())));
        self.leaves.push(Some(Leaf::Channel(gamma.clone())));
        self.leaves.push(Some(Leaf::Channel(beta.clone())));
        self.leaves.extend([None, None]);

        let (k, s) = (*kernel as usize, *stride as usize);
        let options = ConvOptions::new([s, s], [k / 2, k / 2], [1, 1], *groups as usize);
        let sum = conv2d(input, weight, None, options);
        let (activations, statistics) = self.mode;
        Ok(match (activation, statistics) {
            (Activation::Linear, _) => {
                let by_channel = [1, shape[0], 1, 1];
                sum * gamma.reshape(by_channel) + beta.reshape(by_channel)
            }
            (Activation::Relu, Statistics::Running) => {
                let (mean, variance) = (self.vector(&mean.value), self.vector(&variance.value));
                let normed = batch_norm(sum, gamma, beta, mean, variance, EPSILON);
                activate(normed, activations)
            }
            (Activation::Relu, Statistics::Batch) => {
                let normed = batch_norm_train(sum, gamma, beta, EPSILON);
                let (mean, variance) = (normed.mean.into_data(), normed.variance.into_data());
                let statistic = (name.clone(), values(mean)?, values(variance)?);
                self.measured.push(statistic);
                activate(normed.output, activations)
            }
        })
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

fn max_pool(x: Tensor<4>, kernel: usize, stride: usize) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let options = MaxPoolOptions::new([kernel, kernel]).with_stride([stride, stride]);
    let around = (kernel - 1) / 2;
    // An even kernel's last window may reach out at the end.
    let end = |side: usize| (side.div_ceil(stride) - 1) * stride + kernel - side;
    let options = match kernel % 2 {
        0 => options.with_padding_pairs([(0, end(height)), (0, end(width))]),
        _ => options.with_padding([around, around]),
    };
    max_pool2d(x, options)
}

/// Means of 2x2 windows.
fn mean_pool(x: Tensor<4>, activations: Activations) -> Result<Tensor<4>> {
    let [_, _, height, width] = x.dims();
    ensure!(height % 2 == 0 && width % 2 == 0, ODD_SIDES);
    let means = avg_pool2d(x, AvgPoolOptions::new([2, 2]));
    Ok(match activations {
        Activations::Float => means,
        Activations::U7 => {
            let exact = means.clone().detach();
            // The four's sum is a whole number of steps; half a step goes up.
            let sum = (exact.clone() * (4.0 / STEP)).round();
            let error = ((sum + 2.0) / 4.0).floor() * STEP - exact;
            means + error
        }
    })
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
