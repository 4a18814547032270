//! Convolutions and their normalization.

use ternwatch_bundle::model::limits::CHANNELS_MAX;

use super::super::float::Normal;
use super::{FloatConv, Kind, Node, Seen, Shape, Step, Walk, integer, window};

impl<'g, 'a: 'g> Walk<'g, 'a> {
    pub(super) fn conv(&mut self, node: &Node<'a>) -> Step<Seen> {
        let (input, shape, of_means) = self.conv_input(node)?;
        let weight = self.needed(node, 1, "weights")?;
        let sizes = sizes(node, &weight.dims, shape, of_means)?;
        let (out, kernel, stride) = (sizes.out, sizes.kernel, sizes.stride);
        if sizes.is_depthwise && input.is_none() {
            return Err("is a depthwise convolution of the picture, which is not supported".into());
        }
        let weight = weight.floats()?;
        let bias = match node.input(2) {
            Some(_) => self.per_channel(node, 2, "biases", out as u32)?,
            None => vec![0.0; out],
        };
        let mut float = FloatConv::new(weight, bias, sizes.planes);
        float.is_depthwise = sizes.is_depthwise;
        let index = self.push_conv(node, (input, shape), (kernel, stride), float)?;
        Ok(match of_means {
            true => Seen::Means(index),
            false => Seen::Sum(index),
        })
    }

    /// What a convolution reads: a layer or the image, its shape, and whether only the means of its planes.
    fn conv_input(&mut self, node: &Node<'a>) -> Step<(Option<usize>, Shape, bool)> {
        let (layer, of_means) = match self.read(node, 0)? {
            Seen::Image => {
                let shape = Shape {
                    channels: 3,
                    size: self.size,
                    stride: 1,
                };
                return Ok((None, shape, false));
            }
            Seen::Means(index) => {
                self.raise(index);
                (index, true)
            }
            _ => (self.stored(node, 0)?, false),
        };
        Ok((Some(layer), self.layers[layer].shape, of_means))
    }

    pub(super) fn batch_normalization(&mut self, node: &Node<'a>) -> Step<Seen> {
        let Seen::Sum(index) = self.read(node, 0)? else {
            return Err(
                "does not follow a convolution; supported is Conv, BatchNormalization, Relu".into(),
            );
        };
        if !self.is_only_reader(node) {
            return Err("is not alone to read the convolution before it".into());
        }
        if integer(node, "training_mode", 0) != 0 {
            return Err("is in training mode; write the file for inference".into());
        }
        let channels = self.layers[index].shape.channels;
        let epsilon = node
            .attribute("epsilon")
            .and_then(|a| a.float)
            .unwrap_or(1e-5);
        let part = |i: usize, what: &str| self.per_channel(node, i, what, channels);
        let normal = Normal {
            gamma: part(1, "scales")?,
            beta: part(2, "shifts")?,
            mean: part(3, "means")?,
            variance: part(4, "variances")?.iter().map(|v| v + epsilon).collect(),
        };
        if !normal.variance.iter().all(|v| *v > 0.0 && v.is_finite()) {
            return Err("has a variance that is not above zero".into());
        }
        let Kind::Conv(conv) = &mut self.layers[index].kind else {
            return Err("does not follow a convolution".into());
        };
        if conv.float.normal.is_some() {
            return Err("follows another BatchNormalization; fold them into one".into());
        }
        conv.float.normal = Some(normal);
        Ok(Seen::Sum(index))
    }
}

struct Sizes {
    /// Channels of the output.
    out: usize,
    /// Planes of the input that each reads.
    planes: usize,
    is_depthwise: bool,
    kernel: u32,
    stride: u32,
}

/// The sizes of a convolution with weights of these sides.
fn sizes(node: &Node<'_>, dims: &[usize], shape: Shape, of_means: bool) -> Step<Sizes> {
    let [out, each, height, width] = *dims else {
        return Err(format!("its weights have {} sides, not 4", dims.len()));
    };
    let (group, channels) = (integer(node, "group", 1), shape.channels);
    let is_depthwise = group != 1;
    if is_depthwise && (group != i64::from(channels) || out != channels as usize) {
        return Err(format!(
            "group = {group} with {out} channels of {channels}; supported are group = 1, and as many as both (depthwise)"
        ));
    }
    let planes = if is_depthwise { 1 } else { channels as usize };
    if each != planes {
        return Err(format!(
            "weights for {each} channels read a tensor of {channels}"
        ));
    }
    let kernel = match (height, width, of_means) {
        (1, 1, _) => 1,
        (3, 3, false) => 3,
        _ => {
            let problem = format!("a kernel of {height} x {width}");
            return Err(format!("{problem}; supported are 1 x 1 and 3 x 3"));
        }
    };
    if !(1..=CHANNELS_MAX as usize).contains(&out) {
        return Err(format!(
            "gives {out} channels; supported are 1 to {CHANNELS_MAX}"
        ));
    }
    let stride = window::stride(node, kernel, shape.size)?;
    if of_means && stride != 1 {
        return Err(format!(
            "a stride of {stride}; supported is 1 where means of planes are read"
        ));
    }
    Ok(Sizes {
        out,
        planes,
        is_depthwise,
        kernel,
        stride,
    })
}
