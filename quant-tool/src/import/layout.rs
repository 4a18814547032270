//! From a file's nodes to the layers that the trainer and the detector know.
//!
//! Only nodes that the wanted heads depend on are looked at, so what a file does with them afterwards does not matter.

use std::collections::{HashMap, HashSet};

use ternwatch_bundle::manifest::{Activation, Head, HeadKind, Input, Layer, PoolMode};
use ternwatch_bundle::model::limits::{INPUT_SIDE_MAX, INPUT_SIDE_MIN};

use super::ImportError;
use super::config::{self, Config, Distances};
use super::file::{self, Graph, Node};
use super::float::{FloatConv, FloatNetwork};
use super::operators::{Shape, Step, Walk};
use crate::network::{IMAGE, Network};

/// Channels of distances.
const SIDES: usize = 4;

/// What a tensor of the file is to us.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Seen {
    /// The input.
    Image,
    /// A convolution that nothing activates yet.
    Sum(usize),
    /// The sigmoid of one.
    Scores(usize),
    /// Another layer's output.
    Tensor(usize),
    /// A layer's output, twice as high and wide, perhaps cut.
    Enlarged { of: usize, size: [u32; 2] },
    /// The means of a layer's planes.
    Means(usize),
    /// Sigmoid or softmax of them.
    Votes(usize),
}

/// A layer before it has its name.
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    /// The greatest value that the file lets it have.
    pub(super) clip: Option<f32>,
    /// By plane: by how many times its zero a tensor is raised that may be negative; 0 where it may not.
    pub(super) raises: Vec<u8>,
    /// Its node in the file.
    pub(super) origin: String,
}

pub(super) enum Kind {
    Conv(DraftConv),
    AddUpsampled {
        fine: usize,
        coarse: usize,
    },
    Add([usize; 2]),
    Concat(Vec<usize>),
    Pool {
        input: usize,
        mode: PoolMode,
        kernel: u32,
        stride: u32,
    },
}

impl Kind {
    /// The layers that it reads.
    fn inputs(&self) -> Vec<usize> {
        match self {
            Self::Conv(conv) => conv.input.into_iter().collect(),
            Self::AddUpsampled { fine, coarse } => vec![*fine, *coarse],
            Self::Add(inputs) => inputs.to_vec(),
            Self::Concat(inputs) => inputs.clone(),
            Self::Pool { input, .. } => vec![*input],
        }
    }

    /// What such layers are called.
    fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "conv",
            Self::AddUpsampled { .. } | Self::Add(_) => "add",
            Self::Concat(_) => "concat",
            Self::Pool { .. } => "pool",
        }
    }
}

pub(super) struct DraftConv {
    /// A layer, or the image.
    pub(super) input: Option<usize>,
    pub(super) kernel: u32,
    pub(super) stride: u32,
    /// `Linear` as long as nothing reads it but heads.
    pub(super) activation: Activation,
    pub(super) float: FloatConv,
}

/// Reads a file's bytes: the layers below the heads that `config` names, for so many classes.
pub(super) fn read(
    bytes: &[u8],
    config: &Config,
    classes: usize,
) -> Result<FloatNetwork, ImportError> {
    let graph = Graph::read(bytes)?;
    let image = graph.image()?;
    let size = image_size(image)?;
    let needed = needed(&graph, &config.heads)?;
    for head in config.heads.iter().filter(|h| h.kind == HeadKind::Boxes) {
        refuse_exponents(&graph, head)?;
    }
    let nodes = || graph.nodes.iter().zip(&needed).filter(|(_, n)| **n);
    let mut readers = HashMap::new();
    let outputs = config.heads.iter().flat_map(|h| &h.outputs);
    let read = nodes().flat_map(|(node, _)| node.inputs.iter().copied());
    for name in read.chain(outputs.map(String::as_str)) {
        *readers.entry(name).or_insert(0) += 1;
    }
    let mut walk = Walk::new(&graph.constants, readers, image.name, size);
    for (node, _) in nodes() {
        walk.node(node).map_err(|why| ImportError::Node {
            node: node.label().to_owned(),
            operator: node.operator.to_owned(),
            why,
        })?;
    }
    let mut heads = Vec::new();
    for head in &config.heads {
        let index = resolve(&mut walk, head, classes).map_err(|why| ImportError::Head {
            output: head.outputs.join(", "),
            why,
        })?;
        if head.kind == HeadKind::Boxes && config.distances == Distances::Pixels {
            let Kind::Conv(conv) = &mut walk.layers[index].kind else {
                unreachable!("a head is a convolution");
            };
            conv.float.scale_last(SIDES, 1.0 / head.stride as f32);
        }
        heads.push((index, head));
    }
    let input = Input {
        width: size[0],
        height: size[1],
        channels: 3,
        fill: config.fill,
    };
    Ok(finish(walk.layers, input, &heads))
}

fn image_size(image: &file::Input<'_>) -> Result<[u32; 2], ImportError> {
    let refuse = |why: String| Err(ImportError::File(format!("input {:?} {why}", image.name)));
    let [_, channels, height, width] = image.dims[..] else {
        return refuse(format!("has {} sides, not 4", image.dims.len()));
    };
    if channels != Some(3) {
        let hint = match width {
            Some(3) => {
                "; it is laid out as batch, height, width, channel: write it as batch, channel, height, width"
            }
            _ => "",
        };
        return refuse(format!("has no 3 channels in second place{hint}"));
    }
    let side = |side: Option<i64>| {
        let side = u32::try_from(side?).ok()?;
        (INPUT_SIDE_MIN..=INPUT_SIDE_MAX)
            .contains(&side)
            .then_some(side)
    };
    match (side(width), side(height)) {
        (Some(width), Some(height)) => Ok([width, height]),
        _ => refuse(format!(
            "has no fixed height and width of {INPUT_SIDE_MIN} to {INPUT_SIDE_MAX}: write the file for one size"
        )),
    }
}

/// Which nodes the heads depend on.
fn needed(graph: &Graph<'_>, heads: &[config::Head]) -> Result<Vec<bool>, ImportError> {
    let mut makers = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            if makers.insert(*output, index).is_some() {
                let why = format!("two nodes give {output:?}");
                return Err(ImportError::File(why));
            }
        }
    }
    let mut needed = vec![false; graph.nodes.len()];
    let mut open = Vec::new();
    for name in heads.iter().flat_map(|head| &head.outputs) {
        let Some(&index) = makers.get(name.as_str()) else {
            return Err(ImportError::Head {
                output: name.clone(),
                why: "no node of the file gives a tensor of this name".into(),
            });
        };
        open.push(index);
    }
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut needed[index], true) {
            let node: &Node<'_> = &graph.nodes[index];
            open.extend(node.inputs.iter().filter_map(|name| makers.get(name)));
        }
    }
    Ok(needed)
}

/// Refuses a head whose output the file makes sizes of by an exponential function: what is decoded here are the distances themselves.
fn refuse_exponents(graph: &Graph<'_>, head: &config::Head) -> Result<(), ImportError> {
    /// They move numbers about, or multiply and add constants.
    const PASSING: [&str; 13] = [
        "Add",
        "Cast",
        "Concat",
        "Flatten",
        "Gather",
        "Identity",
        "Mul",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ];
    let mut reached: HashSet<&str> = head.outputs.iter().map(String::as_str).collect();
    // Nodes come after those that they read.
    for node in &graph.nodes {
        if !node.inputs.iter().any(|name| reached.contains(name)) {
            continue;
        }
        if ["Exp", "Softplus"].contains(&node.operator) {
            let (label, operator) = (node.label(), node.operator);
            return Err(ImportError::Head {
                output: head.outputs.join(", "),
                why: format!(
                    "node {label:?} takes {operator} of it; expected are the distances themselves, as a detector gives them that was trained to"
                ),
            });
        }
        if PASSING.contains(&node.operator) {
            reached.extend(node.outputs.iter().copied());
        }
    }
    Ok(())
}

/// The layer that is a head.
fn resolve(walk: &mut Walk<'_, '_>, head: &config::Head, classes: usize) -> Step<usize> {
    let seen: Vec<Seen> = head
        .outputs
        .iter()
        .map(|name| walk.seen(name))
        .collect::<Step<_>>()?;
    let index = match (head.kind, &seen[..]) {
        (HeadKind::Boxes, [Seen::Sum(index)]) => *index,
        (HeadKind::Boxes, [Seen::Scores(_)]) => {
            return Err(
                "a sigmoid covers the distances, too; name the convolution's own output".into(),
            );
        }
        (HeadKind::Boxes, [Seen::Sum(logits) | Seen::Scores(logits), distances]) => {
            merge(walk, *logits, *distances, classes)?
        }
        (HeadKind::Classes, [Seen::Sum(index) | Seen::Means(index) | Seen::Votes(index)]) => *index,
        _ => return Err("is not what a convolution gives before its activation".into()),
    };
    let layer = &walk.layers[index];
    let Kind::Conv(conv) = &layer.kind else {
        return Err("is not what a convolution gives before its activation".into());
    };
    if conv.activation != Activation::Linear {
        return Err(
            "is read by other layers, or has a ReLU before it; a head is a convolution with neither"
                .into(),
        );
    }
    if conv.float.is_depthwise {
        return Err("is a depthwise convolution, which no head can be".into());
    }
    let channels = head.kind.channels(classes);
    if layer.shape.channels as usize != channels {
        return Err(format!(
            "has {} channels, a head of {classes} classes needs {channels}",
            layer.shape.channels
        ));
    }
    if layer.shape.stride != head.stride {
        return Err(format!(
            "lies at stride {}, not {}",
            layer.shape.stride, head.stride
        ));
    }
    Ok(index)
}

/// Makes one convolution of that for the logits and that for the distances; a ReLU on these is what decoding does anyway.
fn merge(walk: &mut Walk<'_, '_>, logits: usize, distances: Seen, classes: usize) -> Step<usize> {
    let (Seen::Sum(distances) | Seen::Tensor(distances)) = distances else {
        return Err("its distances are not what a convolution gives".into());
    };
    let part = |index: usize, channels: usize| {
        let layer = &walk.layers[index];
        match &layer.kind {
            Kind::Conv(conv) if layer.shape.channels as usize == channels => Ok(conv),
            _ => Err(format!(
                "expected are convolutions of {classes} and then {SIDES} channels"
            )),
        }
    };
    let (a, b) = (part(logits, classes)?, part(distances, SIDES)?);
    if logits == distances || (a.input, a.stride) != (b.input, b.stride) {
        return Err("its two convolutions do not read the same tensor at the same stride".into());
    }
    if walk.layers[distances].clip.is_some() {
        return Err("its distances are clipped from above".into());
    }
    if a.float.is_depthwise || b.float.is_depthwise {
        return Err("is a depthwise convolution, which no head can be".into());
    }
    let kernel = a.kernel.max(b.kernel);
    let float = FloatConv::stacked(&[(&a.float, a.kernel), (&b.float, b.kernel)], kernel);
    let draft = Draft {
        kind: Kind::Conv(DraftConv {
            input: a.input,
            kernel,
            stride: a.stride,
            activation: Activation::Linear,
            float,
        }),
        shape: Shape {
            channels: (classes + SIDES) as u32,
            ..walk.layers[logits].shape
        },
        clip: None,
        raises: vec![0; classes + SIDES],
        origin: walk.layers[logits].origin.clone(),
    };
    walk.layers.push(draft);
    Ok(walk.layers.len() - 1)
}

/// Names the layers, and leaves out those that nothing needs any more.
fn finish(layers: Vec<Draft>, input: Input, heads: &[(usize, &config::Head)]) -> FloatNetwork {
    let mut used = vec![false; layers.len()];
    heads.iter().for_each(|(index, _)| used[*index] = true);
    // A layer reads only layers before it.
    for index in (0..layers.len()).rev() {
        if used[index] {
            let inputs = layers[index].kind.inputs();
            inputs.into_iter().for_each(|i| used[i] = true);
        }
    }
    let name = |index: usize| {
        let head = heads.iter().find(|(i, _)| *i == index);
        match head {
            Some((_, head)) => format!("head{}", head.stride),
            None => format!("{}{index}", layers[index].kind.name()),
        }
    };
    let names: Vec<String> = (0..layers.len()).map(name).collect();
    let mut float = FloatNetwork {
        network: Network {
            input,
            layers: Vec::new(),
            heads: heads
                .iter()
                .map(|(index, head)| Head {
                    layer: names[*index].clone(),
                    stride: head.stride,
                    kind: head.kind,
                })
                .collect(),
        },
        convs: Vec::new(),
        clips: Vec::new(),
        raises: Vec::new(),
        origins: Vec::new(),
    };
    let channels: Vec<u32> = layers.iter().map(|l| l.shape.channels).collect();
    for (index, layer) in layers.into_iter().enumerate().filter(|(i, _)| used[*i]) {
        let name = names[index].clone();
        float.clips.push(layer.clip);
        float.raises.push(layer.raises);
        float.origins.push(layer.origin);
        let named = |index: usize| names[index].clone();
        float.network.layers.push(match layer.kind {
            Kind::AddUpsampled { fine, coarse } => Layer::AddUpsampled {
                name,
                fine: named(fine),
                coarse: named(coarse),
            },
            Kind::Add(inputs) => Layer::Add {
                name,
                inputs: inputs.map(named),
                offset: 0,
            },
            Kind::Concat(inputs) => Layer::Concat {
                name,
                inputs: inputs.into_iter().map(named).collect(),
            },
            Kind::Pool {
                input,
                mode,
                kernel,
                stride,
            } => Layer::Pool {
                name,
                input: named(input),
                mode,
                kernel,
                stride,
            },
            Kind::Conv(conv) => {
                let in_channels = conv.input.map_or(3, |i| channels[i]);
                let groups = if conv.float.is_depthwise {
                    in_channels
                } else {
                    1
                };
                float.convs.push(conv.float);
                Layer::Conv {
                    name,
                    input: conv.input.map_or(IMAGE.into(), named),
                    in_channels,
                    out_channels: layer.shape.channels,
                    kernel: conv.kernel,
                    stride: conv.stride,
                    groups,
                    activation: conv.activation,
                    pre_shift: 0,
                    offset: 0,
                }
            }
        });
    }
    float
}
