//! The operators that map to our layers, and what is said of the others.

mod activate;
mod conv;
mod ending;
mod enlarge;
mod join;
mod pool;
mod window;

use std::collections::{HashMap, HashSet};

use ternwatch_bundle::manifest::Activation;
use ternwatch_bundle::model::limits::{LAYERS_MAX, TRITS_MAX};

use super::file::{Node, Tensor};
use super::float::FloatConv;
use super::layout::{Draft, DraftConv, Kind, Seen};

/// Something, or why it cannot be imported.
pub(super) type Step<T> = Result<T, String>;

const SUPPORTED: &str = "Conv, BatchNormalization, Relu, Clip, Add, Concat, MaxPool, AveragePool, Resize, Upsample, Slice after these, \
     GlobalAveragePool, ReduceMean, Flatten, Reshape, Gemm, Sigmoid, Softmax, Identity, Dropout, Constant";

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
    /// Values of constants that go by several names.
    copied: u64,
    seen: HashMap<&'a str, Seen>,
    /// How many nodes and heads read a tensor.
    readers: HashMap<&'g str, usize>,
    /// Other names of tensors that something else reads, too.
    shared: HashSet<&'a str>,
    /// Layers that give another one's output at twice its size, by that and the size.
    enlarged: HashMap<(usize, [u32; 2]), usize>,
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
            copied: 0,
            seen: HashMap::from([(image, Seen::Image)]),
            readers,
            shared: HashSet::new(),
            enlarged: HashMap::new(),
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
                self.share(node);
                if let Some(tensor) = self.constant(node, 0) {
                    let tensor = tensor.clone();
                    self.copied += tensor.values_len() as u64;
                    if self.copied > TRITS_MAX {
                        return Err(format!("repeats constants: more than {TRITS_MAX} values"));
                    }
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
            "Concat" => self.concat(node)?,
            "MaxPool" => self.max_pool(node)?,
            "AveragePool" => self.average_pool(node)?,
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

    /// The node's output is its first input by another name: whoever reads it must not change what others read. One layer
    /// enlarges a tensor for all who ask for that.
    fn share(&mut self, node: &Node<'a>) {
        let is_enlarged = matches!(self.read(node, 0), Ok(Seen::Enlarged { .. }));
        if is_enlarged || !self.is_only_reader(node) {
            self.shared.extend(node.outputs.first());
        }
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

    /// The layer whose output a node reads. A convolution that nothing activates is raised, and kept as others are.
    fn stored(&mut self, node: &Node<'a>, index: usize) -> Step<usize> {
        match self.read(node, index)? {
            Seen::Tensor(layer) | Seen::Sum(layer) => {
                self.raise(layer);
                Ok(layer)
            }
            Seen::Image => Err("reads the picture; supported is a Conv of it".into()),
            Seen::Enlarged { of, size } => self.enlarged(node, (of, size)),
            _ => Err("reads what is not the output of a layer".into()),
        }
    }

    /// Lets others read a layer.
    fn raise(&mut self, layer: usize) {
        let draft = &mut self.layers[layer];
        if let Kind::Conv(conv) = &mut draft.kind
            && conv.activation == Activation::Linear
        {
            conv.activation = Activation::Relu;
            draft.raises.fill(1);
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
        let channels = float.bias.len();
        self.push(Draft {
            shape: Shape {
                channels: channels as u32,
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
            raises: vec![0; channels],
            origin: node.label().to_owned(),
        })
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
