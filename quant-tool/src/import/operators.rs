//! The operators that map to our layers, and what is said of the others.

mod ending;
mod enlarge;

use std::collections::{HashMap, HashSet};

use ternwatch_bundle::manifest::Activation;
use ternwatch_bundle::model::limits::{CHANNELS_MAX, LAYERS_MAX, TRITS_MAX};

use super::file::{Node, Tensor};
use super::float::{FloatConv, Normal};
use super::layout::{Draft, DraftConv, Kind, Seen};

/// Something, or why it cannot be imported.
pub(super) type Step<T> = Result<T, String>;

const SUPPORTED: &str = "Conv, BatchNormalization, Relu, Clip, Resize or Upsample with Add and Slice, GlobalAveragePool, ReduceMean, \
     Flatten, Reshape, Gemm, Sigmoid, Softmax, Identity, Dropout, Constant";

/// A tensor's size, and the input pixels between its neighbouring values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) channels: u32,
    /// Width, height.
    pub(super) size: [u32; 2],
    pub(super) stride: u32,
}

/// The way through the nodes, in their order.
pub(super) struct Walk<'g, 'a> {
    constants: &'g HashMap<&'a str, Tensor<'a>>,
    /// Constants that nodes give.
    made: HashMap<&'a str, Tensor<'a>>,
    seen: HashMap<&'a str, Seen>,
    /// How many nodes and heads read a tensor.
    readers: HashMap<&'g str, usize>,
    /// Other names of tensors that something else reads, too.
    shared: HashSet<&'a str>,
    /// Width, height.
    size: [u32; 2],
    weights: u64,
    pub(super) layers: Vec<Draft>,
}

impl<'g, 'a: 'g> Walk<'g, 'a> {
    pub(super) fn new(
        constants: &'g HashMap<&'a str, Tensor<'a>>,
        readers: HashMap<&'g str, usize>,
        image: &'a str,
        size: [u32; 2],
    ) -> Self {
        Self {
            constants,
            made: HashMap::new(),
            seen: HashMap::from([(image, Seen::Image)]),
            readers,
            shared: HashSet::new(),
            size,
            weights: 0,
            layers: Vec::new(),
        }
    }

    /// Takes one node.
    pub(super) fn node(&mut self, node: &Node<'a>) -> Step<()> {
        let Some(&output) = node.outputs.first() else {
            return Err("gives nothing".into());
        };
        if !matches!(node.domain, "" | "ai.onnx") {
            return Err(format!(
                "is of the domain {:?}; supported are {SUPPORTED}",
                node.domain
            ));
        }
        let seen = match node.operator {
            "Constant" => {
                self.made.insert(output, constant_of(node)?);
                return Ok(());
            }
            "Identity" | "Dropout" => {
                if !self.is_only_reader(node) {
                    self.shared.insert(output);
                }
                if let Some(tensor) = self.constant(node, 0) {
                    let tensor = tensor.clone();
                    self.made.insert(output, tensor);
                    return Ok(());
                }
                self.pass(node)?
            }
            "Conv" => self.conv(node)?,
            "BatchNormalization" => self.batch_normalization(node)?,
            "Relu" => self.activate(node, None)?,
            "Clip" => self.clip(node)?,
            "Resize" | "Upsample" => self.enlarge(node)?,
            "Slice" => self.slice(node)?,
            "Add" => self.add(node)?,
            "GlobalAveragePool" => self.means(node)?,
            "ReduceMean" => self.reduce_mean(node)?,
            "Flatten" => self.flatten(node)?,
            "Reshape" => self.reshape(node)?,
            "Gemm" => self.gemm(node)?,
            "Sigmoid" | "Softmax" => self.votes(node)?,
            "Shape" | "Gather" => {
                return Err(
                    "computes sizes; write the file for one fixed size, with constants folded"
                        .into(),
                );
            }
            _ => return Err(format!("is not supported; supported are {SUPPORTED}")),
        };
        self.seen.insert(output, seen);
        Ok(())
    }

    /// What a tensor is.
    pub(super) fn seen(&self, name: &str) -> Step<Seen> {
        let seen = self.seen.get(name).copied();
        seen.ok_or_else(|| format!("reads {name:?}, which no node before it gives"))
    }

    fn read(&self, node: &Node<'a>, index: usize) -> Step<Seen> {
        match node.input(index) {
            Some(name) if self.constant(node, index).is_some() => Err(format!(
                "reads the constant {name:?} where a tensor should be"
            )),
            Some(name) => self.seen(name),
            None => Err(format!("has no input {index}")),
        }
    }

    fn constant(&self, node: &Node<'a>, index: usize) -> Option<&Tensor<'a>> {
        let name = node.input(index)?;
        self.constants.get(name).or_else(|| self.made.get(name))
    }

    /// A constant that has to be there.
    fn needed(&self, node: &Node<'a>, index: usize, what: &str) -> Step<&Tensor<'a>> {
        let constant = self.constant(node, index);
        constant.ok_or_else(|| format!("its {what} are no constant"))
    }

    /// One value for each channel.
    fn per_channel(
        &self,
        node: &Node<'a>,
        index: usize,
        what: &str,
        channels: u32,
    ) -> Step<Vec<f32>> {
        let constant = self.needed(node, index, what)?;
        let count: usize = constant
            .dims
            .iter()
            .fold(1, |n, side| n.saturating_mul(*side));
        if count != channels as usize {
            return Err(format!(
                "has {count} values as {what} of {channels} channels"
            ));
        }
        constant.floats()
    }

    /// Whether nothing but this node reads its first input.
    fn is_only_reader(&self, node: &Node<'a>) -> bool {
        let name = node.inputs.first().copied().unwrap_or("");
        self.readers.get(name) == Some(&1) && !self.shared.contains(name)
    }

    fn push(&mut self, draft: Draft) -> Step<usize> {
        if self.layers.len() == LAYERS_MAX {
            return Err(format!("is one layer more than {LAYERS_MAX}"));
        }
        self.layers.push(draft);
        Ok(self.layers.len() - 1)
    }

    fn pass(&self, node: &Node<'a>) -> Step<Seen> {
        if node.operator == "Dropout" && node.input(2).is_some() {
            return Err("may be in training mode; write the file for inference".into());
        }
        self.read(node, 0)
    }

    fn conv(&mut self, node: &Node<'a>) -> Step<Seen> {
        let (input, shape, of_means) = self.conv_input(node)?;
        let weight = self.needed(node, 1, "weights")?;
        let (out, kernel, stride) = conv_sizes(node, &weight.dims, shape, of_means)?;
        let weight = weight.floats()?;
        let bias = match node.input(2) {
            Some(_) => self.per_channel(node, 2, "biases", out as u32)?,
            None => vec![0.0; out],
        };
        let float = FloatConv::new(weight, bias);
        let index = self.push_conv(node, (input, shape), (kernel, stride), float)?;
        Ok(match of_means {
            true => Seen::Means(index),
            false => Seen::Sum(index),
        })
    }

    /// What a convolution reads: a layer or the image, its shape, and whether only the means of its planes.
    fn conv_input(&self, node: &Node<'a>) -> Step<(Option<usize>, Shape, bool)> {
        let shape = |index: usize| self.layers[index].shape;
        match self.read(node, 0)? {
            Seen::Image => {
                let (channels, size, stride) = (3, self.size, 1);
                let shape = Shape {
                    channels,
                    size,
                    stride,
                };
                Ok((None, shape, false))
            }
            Seen::Tensor(index) => Ok((Some(index), shape(index), false)),
            Seen::Means(index) => Ok((Some(self.activated(index)?), shape(index), true)),
            Seen::Sum(_) => Err(
                "reads a convolution without a ReLU between; supported is Conv, Relu, Conv".into(),
            ),
            _ => Err(
                "reads what is not the output of a layer; an enlarged tensor may only be added"
                    .into(),
            ),
        }
    }

    fn push_conv(
        &mut self,
        node: &Node<'a>,
        (input, shape): (Option<usize>, Shape),
        (kernel, stride): (u32, u32),
        float: FloatConv,
    ) -> Step<usize> {
        self.weights += float.weight.len() as u64;
        if self.weights > TRITS_MAX {
            return Err(format!(
                "with it the network has more than {TRITS_MAX} weights"
            ));
        }
        self.push(Draft {
            shape: Shape {
                channels: float.bias.len() as u32,
                size: shape.size.map(|side| side.div_ceil(stride)),
                stride: shape.stride.saturating_mul(stride),
            },
            kind: Kind::Conv(DraftConv {
                input,
                kernel,
                stride,
                activation: Activation::Linear,
                float,
            }),
            clip: None,
            origin: node.label().to_owned(),
        })
    }

    /// The index of a layer that others may read.
    fn activated(&self, index: usize) -> Step<usize> {
        match &self.layers[index].kind {
            Kind::Conv(conv) if conv.activation == Activation::Linear => {
                Err("reads a convolution without a ReLU between".into())
            }
            _ => Ok(index),
        }
    }

    fn batch_normalization(&mut self, node: &Node<'a>) -> Step<Seen> {
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

    /// A ReLU, with a greatest value or without.
    fn activate(&mut self, node: &Node<'a>, most: Option<f32>) -> Step<Seen> {
        let seen = self.read(node, 0)?;
        let alone = self.is_only_reader(node);
        let (Seen::Sum(index) | Seen::Tensor(index)) = seen else {
            return Err("does not follow a convolution or an addition".into());
        };
        let layer = &mut self.layers[index];
        // What is activated or added is not negative: only a greatest value changes it.
        let is_changed = matches!(seen, Seen::Sum(_)) || most.is_some();
        if is_changed && !alone {
            return Err("is not alone to read what it activates".into());
        }
        if let Kind::Conv(conv) = &mut layer.kind {
            conv.activation = Activation::Relu;
        }
        layer.clip = match (layer.clip, most) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok(Seen::Tensor(index))
    }

    fn clip(&mut self, node: &Node<'a>) -> Step<Seen> {
        let bound = |index: usize, name: &str| match node.attribute(name).and_then(|a| a.float) {
            Some(value) => Ok(Some(value)),
            None if node.input(index).is_none() => Ok(None),
            None => {
                let values = self.needed(node, index, "bounds")?.floats()?;
                values
                    .first()
                    .copied()
                    .map(Some)
                    .ok_or_else(|| "has an empty bound".to_owned())
            }
        };
        let (least, most) = (bound(1, "min")?, bound(2, "max")?);
        // Exporters write the greatest float for no bound.
        let most = most.filter(|most| *most < f32::MAX);
        match (least, most) {
            (Some(0.0), most) if most.is_none_or(|m| m.is_finite() && m > 0.0) => {
                self.activate(node, most)
            }
            _ => Err(format!(
                "clips from {least:?} to {most:?}; supported is from 0 to a positive number"
            )),
        }
    }
}

/// Output channels, kernel and stride of a convolution with weights of these sides.
fn conv_sizes(
    node: &Node<'_>,
    dims: &[usize],
    shape: Shape,
    of_means: bool,
) -> Step<(usize, u32, u32)> {
    let [out, each, height, width] = *dims else {
        return Err(format!("its weights have {} sides, not 4", dims.len()));
    };
    let group = integer(node, "group", 1);
    if group != 1 {
        return Err(format!(
            "group = {group}: depthwise and grouped convolutions are not supported, group = 1 is"
        ));
    }
    if each != shape.channels as usize {
        let channels = shape.channels;
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
    if integers(node, "dilations").iter().any(|d| *d != 1) {
        return Err("dilations other than 1 are not supported".into());
    }
    let stride = match integers(node, "strides") {
        [] | [1, 1] => 1,
        [2, 2] if !of_means => 2,
        other => {
            let problem = format!("strides = {}", list(other));
            return Err(format!("{problem}; supported are [1, 1] and [2, 2]"));
        }
    };
    padding(node, kernel, stride, shape.size)?;
    Ok((out, kernel, stride))
}

/// Whether the padding is that of our convolutions: half of the kernel on every side.
fn padding(node: &Node<'_>, kernel: u32, stride: u32, size: [u32; 2]) -> Step<()> {
    let side = i64::from(kernel / 2);
    let is_sound = match text(node, "auto_pad", "NOTSET") {
        "NOTSET" | "" => match integers(node, "pads") {
            [] => side == 0,
            pads => pads.len() == 4 && pads.iter().all(|p| *p == side),
        },
        "VALID" => side == 0,
        // With a stride of 2 an even side has its padding behind only.
        "SAME_UPPER" | "SAME_LOWER" => {
            side == 0 || stride == 1 || size.iter().all(|side| side % 2 == 1)
        }
        _ => false,
    };
    match is_sound {
        true => Ok(()),
        false => Err(format!(
            "pads = {}, auto_pad = {:?}; supported is {side} on every side",
            list(integers(node, "pads")),
            text(node, "auto_pad", "NOTSET")
        )),
    }
}

fn constant_of<'a>(node: &Node<'a>) -> Step<Tensor<'a>> {
    let [attribute] = &node.attributes[..] else {
        return Err("has not one value".into());
    };
    let (floats, integers) = (&attribute.floats, &attribute.integers);
    match (attribute.name, &attribute.tensor) {
        ("value", Some(tensor)) => Ok(tensor.clone()),
        ("value_float", _) => Ok(Tensor::from_floats(attribute.float.as_slice(), vec![])),
        ("value_floats", _) => Ok(Tensor::from_floats(floats, vec![floats.len()])),
        ("value_int", _) => Ok(Tensor::from_integers(attribute.integer.as_slice(), vec![])),
        ("value_ints", _) => Ok(Tensor::from_integers(integers, vec![integers.len()])),
        (name, _) => Err(format!("{name} is not supported")),
    }
}

fn integer(node: &Node<'_>, name: &str, default: i64) -> i64 {
    node.attribute(name)
        .and_then(|a| a.integer)
        .unwrap_or(default)
}

fn integers<'n>(node: &'n Node<'_>, name: &str) -> &'n [i64] {
    node.attribute(name).map_or(&[], |a| a.integers.as_slice())
}

fn text<'n>(node: &'n Node<'_>, name: &str, default: &'n str) -> &'n str {
    match node.attribute(name).map(|a| a.text) {
        None => default,
        Some(text) => text
            .and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or("?"),
    }
}

/// The first few of many numbers.
fn list<T: std::fmt::Debug>(values: &[T]) -> String {
    match values.len() {
        0..=8 => format!("{values:?}"),
        len => format!("{:?} and {} more", &values[..8], len - 8),
    }
}
