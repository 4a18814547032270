//! Several tensors become one: sums and planes side by side.

use ternwatch_bundle::model::limits::{CHANNELS_MAX, CONCAT_INPUTS_MAX};

use super::{Draft, Kind, Node, Seen, Shape, Step, Walk, integer};

/// A tensor is raised by no more times the zero of its group: a few additions of enlarged tensors, one to the other.
const RAISES_MAX: u8 = 8;

impl<'g, 'a: 'g> Walk<'g, 'a> {
    pub(super) fn add(&mut self, node: &Node<'a>) -> Step<Seen> {
        match (self.read(node, 0)?, self.read(node, 1)?) {
            (Seen::Enlarged { .. }, Seen::Enlarged { .. }) => Err(
                "adds two enlarged tensors; supported is to add one to another one of its size"
                    .into(),
            ),
            (Seen::Enlarged { of, size }, _) => self.add_enlarged(node, 1, (of, size)),
            (_, Seen::Enlarged { of, size }) => self.add_enlarged(node, 0, (of, size)),
            _ => self.add_equals(node),
        }
    }

    /// Adds an enlarged tensor to the input of this number.
    fn add_enlarged(
        &mut self,
        node: &Node<'a>,
        number: usize,
        (coarse, size): (usize, [u32; 2]),
    ) -> Step<Seen> {
        let fine = self.stored(node, number)?;
        let (shape, coarse_shape) = (self.layers[fine].shape, self.layers[coarse].shape);
        let expected = Shape {
            size: shape.size.map(|side| side.div_ceil(2)),
            stride: shape.stride.saturating_mul(2),
            ..shape
        };
        if size != shape.size || coarse_shape != expected {
            return Err(format!(
                "adds tensors that do not fit: {shape:?} and {coarse_shape:?}, enlarged to {size:?}"
            ));
        }
        let raises = self.sums([fine, coarse]);
        self.push_sum(node, Kind::AddUpsampled { fine, coarse }, shape, raises)
    }

    /// Adds two tensors of one size.
    fn add_equals(&mut self, node: &Node<'a>) -> Step<Seen> {
        let inputs = [self.stored(node, 0)?, self.stored(node, 1)?];
        let [a, b] = inputs.map(|layer| self.layers[layer].shape);
        if a != b {
            return Err(format!("adds tensors that do not fit: {a:?} and {b:?}"));
        }
        let mut raises = self.sums(inputs);
        // As much is taken back as leaves the plane that is raised least with one zero.
        let least = raises.iter().copied().min().unwrap_or(0);
        let back = least.saturating_sub(1);
        raises.iter_mut().for_each(|n| *n -= back);
        self.push_sum(node, Kind::Add(inputs), a, raises)
    }

    pub(super) fn concat(&mut self, node: &Node<'a>) -> Step<Seen> {
        if !matches!(integer(node, "axis", 1), 1 | -3) {
            let axis = integer(node, "axis", 1);
            return Err(format!(
                "joins along axis {axis}; supported is axis 1, planes after planes"
            ));
        }
        let count = node.inputs.len();
        if !(1..=CONCAT_INPUTS_MAX).contains(&count) {
            return Err(format!(
                "joins {count} tensors; supported are 1 to {CONCAT_INPUTS_MAX}"
            ));
        }
        let inputs: Vec<usize> = (0..count)
            .map(|number| self.stored(node, number))
            .collect::<Step<_>>()?;
        if let [only] = inputs[..] {
            self.share(node);
            return Ok(Seen::Tensor(only));
        }
        let shapes = inputs.iter().map(|layer| self.layers[*layer].shape);
        let first = self.layers[inputs[0]].shape;
        let like = |shape: Shape| (shape.size, shape.stride);
        if let Some(other) = shapes.clone().find(|shape| like(*shape) != like(first)) {
            return Err(format!(
                "joins tensors that do not fit: {first:?} and {other:?}"
            ));
        }
        let channels = shapes.fold(0u32, |sum, shape| sum.saturating_add(shape.channels));
        if channels > CHANNELS_MAX {
            return Err(format!(
                "gives {channels} channels; supported are up to {CHANNELS_MAX}"
            ));
        }
        let raises = inputs.iter().flat_map(|layer| &self.layers[*layer].raises);
        let raises = raises.copied().collect();
        let clips = inputs.iter().map(|layer| self.layers[*layer].clip);
        let clip = clips.reduce(|a, b| Some(a?.max(b?))).flatten();
        let draft = Draft {
            kind: Kind::Concat(inputs),
            shape: Shape { channels, ..first },
            clip,
            raises,
            origin: node.label().to_owned(),
        };
        Ok(Seen::Tensor(self.push(draft)?))
    }

    /// By how many zeros the planes of two tensors' sum are raised.
    pub(super) fn sums(&self, inputs: [usize; 2]) -> Vec<u8> {
        let [a, b] = inputs.map(|layer| &self.layers[layer].raises);
        a.iter().zip(b).map(|(a, b)| a + b).collect()
    }

    fn push_sum(
        &mut self,
        node: &Node<'a>,
        kind: Kind,
        shape: Shape,
        raises: Vec<u8>,
    ) -> Step<Seen> {
        if raises.iter().any(|n| *n > RAISES_MAX) {
            return Err(format!(
                "is the sum of more than {RAISES_MAX} tensors without a ReLU"
            ));
        }
        let draft = Draft {
            kind,
            shape,
            clip: None,
            raises,
            origin: node.label().to_owned(),
        };
        Ok(Seen::Tensor(self.push(draft)?))
    }
}
