//! An ONNX file as a graph: names, numbers and constants, each bounded before it is kept (onnx.proto3 of
//! <https://github.com/onnx/onnx>). Nothing is known here of what the operators mean.

use std::collections::HashMap;

use ternwatch_bundle::model::limits::TRITS_MAX;

use super::ImportError;
use super::wire::{Fields, Value, WireError};

/// Operator sets that are understood: from the first whose Resize enlarges to the last one that was looked at.
const OPSETS: std::ops::RangeInclusive<i64> = 9..=23;
/// Nodes of a graph, also its constants, inputs and outputs.
const NODES_MAX: usize = 4096;
/// Inputs, outputs or attributes of a node.
const NODE_PARTS_MAX: usize = 64;
/// Numbers in an attribute, or in a constant of integers.
const NUMBERS_MAX: usize = 4096;
/// Sides of a tensor.
const DIMS_MAX: usize = 8;
/// Bytes of a name.
const NAME_LEN_MAX: usize = 1024;

/// Element types.
const FLOAT: i64 = 1;
const INT64: i64 = 7;

type Result<T> = std::result::Result<T, ImportError>;

/// The network of a file.
#[derive(Default)]
pub(super) struct Graph<'a> {
    /// In the order they run.
    pub(super) nodes: Vec<Node<'a>>,
    /// By name.
    pub(super) constants: HashMap<&'a str, Tensor<'a>>,
    /// Tensors that come from outside; old files list constants here, too.
    pub(super) inputs: Vec<Input<'a>>,
}

/// An operator with its settings.
#[derive(Default)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) operator: &'a str,
    /// Empty for those of ONNX itself.
    pub(super) domain: &'a str,
    /// An optional input that is left out has an empty name.
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) attributes: Vec<Attribute<'a>>,
}

/// A setting of a node.
#[derive(Default)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    pub(super) float: Option<f32>,
    pub(super) integer: Option<i64>,
    pub(super) text: Option<&'a [u8]>,
    pub(super) tensor: Option<Tensor<'a>>,
    pub(super) floats: Vec<f32>,
    pub(super) integers: Vec<i64>,
}

/// Constants.
#[derive(Clone, Default)]
pub(super) struct Tensor<'a> {
    name: &'a str,
    pub(super) dims: Vec<usize>,
    element: i64,
    raw: &'a [u8],
    floats: Vec<f32>,
    integers: Vec<i64>,
    is_elsewhere: bool,
}

/// An input of the graph.
#[derive(Default)]
pub(super) struct Input<'a> {
    pub(super) name: &'a str,
    is_float: bool,
    /// `None` where a side is not a number.
    pub(super) dims: Vec<Option<i64>>,
}

impl From<WireError> for ImportError {
    fn from(error: WireError) -> Self {
        Self::File(error.to_string())
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(ImportError::File(why.into()))
}

/// Appends to a list that is bounded.
fn push<T>(list: &mut Vec<T>, value: T, max: usize, what: &str) -> Result<()> {
    if list.len() == max {
        return refuse(format!("more than {max} {what}"));
    }
    list.push(value);
    Ok(())
}

fn name<'a>(value: Value<'a>) -> Result<&'a str> {
    let name = value.text()?;
    if name.len() > NAME_LEN_MAX {
        return refuse(format!("a name of more than {NAME_LEN_MAX} bytes"));
    }
    Ok(name)
}

impl<'a> Graph<'a> {
    /// Reads the bytes of a file.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let (mut graph, mut opset) = (None, None);
        for field in Fields::of(bytes) {
            match field? {
                (7, value) => graph = Some(value.bytes()?),
                (8, value) => {
                    let (domain, version) = operator_set(value.bytes()?)?;
                    if domain.is_empty() || domain == "ai.onnx" {
                        opset = Some(version);
                    }
                }
                _ => {}
            }
        }
        let Some(graph) = graph else {
            return refuse("there is no graph in it");
        };
        match opset {
            Some(version) if OPSETS.contains(&version) => Self::of(graph),
            Some(version) => refuse(format!(
                "its operators are of set {version}, understood are {} to {}",
                OPSETS.start(),
                OPSETS.end()
            )),
            None => refuse("it does not say which set of operators it uses"),
        }
    }

    fn of(message: &'a [u8]) -> Result<Self> {
        let mut graph = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, value) => {
                    let node = Node::of(value.bytes()?)?;
                    push(&mut graph.nodes, node, NODES_MAX, "nodes")?;
                }
                (5, value) => {
                    let tensor = Tensor::of(value.bytes()?)?;
                    if graph.constants.len() == NODES_MAX {
                        return refuse(format!("more than {NODES_MAX} constants"));
                    }
                    let name = tensor.name;
                    if graph.constants.insert(name, tensor).is_some() {
                        return refuse(format!("two constants of the name {name:?}"));
                    }
                }
                (11, value) => {
                    let input = Input::of(value.bytes()?)?;
                    push(&mut graph.inputs, input, NODES_MAX, "inputs")?;
                }
                _ => {}
            }
        }
        Ok(graph)
    }

    /// The one input that is no constant.
    pub(super) fn image(&self) -> Result<&Input<'a>> {
        let is_image = |input: &&Input<'a>| !self.constants.contains_key(input.name);
        let mut inputs = self.inputs.iter().filter(is_image);
        let (Some(image), None) = (inputs.next(), inputs.next()) else {
            let count = self.inputs.iter().filter(is_image).count();
            return refuse(format!("it has {count} inputs, a detector has one"));
        };
        if !image.is_float {
            return refuse(format!("input {:?} is not of 32-bit floats", image.name));
        }
        Ok(image)
    }
}

fn operator_set(message: &[u8]) -> Result<(&str, i64)> {
    let (mut domain, mut version) = ("", 0);
    for field in Fields::of(message) {
        match field? {
            (1, value) => domain = name(value)?,
            (2, value) => version = value.integer()?,
            _ => {}
        }
    }
    Ok((domain, version))
}

impl<'a> Node<'a> {
    fn of(message: &'a [u8]) -> Result<Self> {
        let mut node = Self::default();
        for field in Fields::of(message) {
            let (number, value) = field?;
            match number {
                1 => push(
                    &mut node.inputs,
                    name(value)?,
                    NODE_PARTS_MAX,
                    "inputs of a node",
                )?,
                2 => push(
                    &mut node.outputs,
                    name(value)?,
                    NODE_PARTS_MAX,
                    "outputs of a node",
                )?,
                3 => node.name = name(value)?,
                4 => node.operator = name(value)?,
                5 => {
                    let attribute = Attribute::of(value.bytes()?)?;
                    let max = NODE_PARTS_MAX;
                    push(&mut node.attributes, attribute, max, "attributes of a node")?;
                }
                7 => node.domain = name(value)?,
                _ => {}
            }
        }
        Ok(node)
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|a| a.name == name)
    }

    /// The name of an input, if it is there.
    pub(super) fn input(&self, index: usize) -> Option<&'a str> {
        self.inputs
            .get(index)
            .copied()
            .filter(|name| !name.is_empty())
    }

    /// What to call it in messages: exporters may leave the name out.
    pub(super) fn label(&self) -> &'a str {
        match self.name {
            "" => self.outputs.first().copied().unwrap_or(""),
            name => name,
        }
    }
}

impl<'a> Attribute<'a> {
    fn of(message: &'a [u8]) -> Result<Self> {
        let mut attribute = Self::default();
        for field in Fields::of(message) {
            let (number, value) = field?;
            match number {
                1 => attribute.name = name(value)?,
                2 => attribute.float = Some(value.float()?),
                3 => attribute.integer = Some(value.integer()?),
                4 => attribute.text = Some(value.bytes()?),
                5 => attribute.tensor = Some(Tensor::of(value.bytes()?)?),
                7 => value.floats(&mut attribute.floats, NUMBERS_MAX)?,
                8 => value.integers(&mut attribute.integers, NUMBERS_MAX)?,
                _ => {}
            }
        }
        Ok(attribute)
    }
}

impl<'a> Tensor<'a> {
    /// Values that are not just where they are in the file.
    pub(super) fn values_len(&self) -> usize {
        self.floats.len() + self.integers.len()
    }

    fn of(message: &'a [u8]) -> Result<Self> {
        let mut tensor = Self::default();
        let mut dims = Vec::new();
        for field in Fields::of(message) {
            let (number, value) = field?;
            match number {
                1 => value.integers(&mut dims, DIMS_MAX)?,
                2 => tensor.element = value.integer()?,
                4 => value.floats(&mut tensor.floats, TRITS_MAX as usize)?,
                7 => value.integers(&mut tensor.integers, NUMBERS_MAX)?,
                8 => tensor.name = name(value)?,
                9 => tensor.raw = value.bytes()?,
                13 => tensor.is_elsewhere = true,
                14 => tensor.is_elsewhere |= value.integer()? != 0,
                _ => {}
            }
        }
        let Some(dims) = dims.iter().map(|&n| usize::try_from(n).ok()).collect() else {
            return refuse(format!("constant {:?} has negative sides", tensor.name));
        };
        tensor.dims = dims;
        Ok(tensor)
    }

    /// Values of a constant that an attribute holds.
    pub(super) fn from_floats(floats: &[f32], dims: Vec<usize>) -> Self {
        Self {
            dims,
            element: FLOAT,
            floats: floats.to_vec(),
            ..Self::default()
        }
    }

    /// As [`Tensor::from_floats`].
    pub(super) fn from_integers(integers: &[i64], dims: Vec<usize>) -> Self {
        Self {
            dims,
            element: INT64,
            integers: integers.to_vec(),
            ..Self::default()
        }
    }

    /// Its finite 32-bit floats, as many as its sides say and no more than a model may have weights.
    pub(super) fn floats(&self) -> std::result::Result<Vec<f32>, String> {
        let len = self.len(TRITS_MAX as usize)?;
        if self.element != FLOAT {
            return Err(self.odd("is not of 32-bit floats"));
        }
        let (raw, rest) = self.raw.as_chunks::<4>();
        let there = raw.len() + self.floats.len();
        if there != len || !rest.is_empty() {
            return Err(self.odd(&format!("has {there} values, its sides say {len}")));
        }
        let raw = raw.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let values: Vec<f32> = raw.chain(self.floats.iter().copied()).collect();
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(self.odd("holds a number that is not finite")),
        }
    }

    /// Its 64-bit integers, as many as its sides say.
    pub(super) fn integers(&self) -> std::result::Result<Vec<i64>, String> {
        let len = self.len(NUMBERS_MAX)?;
        if self.element != INT64 {
            return Err(self.odd("is not of 64-bit integers"));
        }
        let (raw, rest) = self.raw.as_chunks::<8>();
        let there = raw.len() + self.integers.len();
        if there != len || !rest.is_empty() {
            return Err(self.odd(&format!("has {there} values, its sides say {len}")));
        }
        let raw = raw.iter().map(|bytes| i64::from_le_bytes(*bytes));
        Ok(raw.chain(self.integers.iter().copied()).collect())
    }

    fn len(&self, max: usize) -> std::result::Result<usize, String> {
        if self.is_elsewhere {
            return Err(self.odd("lies in another file; write one file with all of it"));
        }
        let product = |len: usize, side: &usize| len.checked_mul(*side).filter(|len| *len <= max);
        let len = self.dims.iter().try_fold(1, product);
        len.ok_or_else(|| self.odd(&format!("has more than {max} values")))
    }

    fn odd(&self, what: &str) -> String {
        format!("its constant {:?} {what}", self.name)
    }
}

impl<'a> Input<'a> {
    fn of(message: &'a [u8]) -> Result<Self> {
        let mut input = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, value) => input.name = name(value)?,
                // TypeProto, of which a tensor's type is field 1.
                (2, value) => {
                    for field in Fields::of(value.bytes()?) {
                        if let (1, value) = field? {
                            input.tensor(value.bytes()?)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(input)
    }

    fn tensor(&mut self, message: &'a [u8]) -> Result<()> {
        for field in Fields::of(message) {
            match field? {
                (1, value) => self.is_float = value.integer()? == FLOAT,
                (2, value) => {
                    for field in Fields::of(value.bytes()?) {
                        let (1, value) = field? else { continue };
                        let mut side = None;
                        for field in Fields::of(value.bytes()?) {
                            if let (1, value) = field? {
                                side = Some(value.integer()?);
                            }
                        }
                        push(&mut self.dims, side, DIMS_MAX, "sides of an input")?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
