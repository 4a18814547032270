//! ReLU, with a greatest value or without.

use ternwatch_bundle::manifest::Activation;

use super::{Kind, Node, Seen, Step, Walk};

impl<'g, 'a: 'g> Walk<'g, 'a> {
    /// A ReLU, with a greatest value or without.
    pub(super) fn activate(&mut self, node: &Node<'a>, most: Option<f32>) -> Step<Seen> {
        let seen = self.read(node, 0)?;
        let alone = self.is_only_reader(node);
        let (Seen::Sum(index) | Seen::Tensor(index)) = seen else {
            return Err("does not follow a convolution or an addition".into());
        };
        let is_negative = matches!(seen, Seen::Sum(_)) || self.may_be_negative(index);
        // What is not negative is changed by a greatest value only.
        if (is_negative || most.is_some()) && !alone {
            return Err("is not alone to read what it activates".into());
        }
        if is_negative {
            self.rectify(index)?;
        }
        self.share(node);
        let layer = &mut self.layers[index];
        layer.clip = match (layer.clip, most) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok(Seen::Tensor(index))
    }

    fn may_be_negative(&self, layer: usize) -> bool {
        self.layers[layer].raises.iter().any(|n| *n > 0)
    }

    /// Lets a layer give nothing below zero.
    fn rectify(&mut self, index: usize) -> Step<()> {
        let layer = &self.layers[index];
        match &layer.kind {
            Kind::Conv(_) => {}
            // One offset has to take back what all planes are raised by.
            Kind::Add(inputs) => {
                let sums = self.sums(*inputs);
                if sums.iter().any(|n| *n != sums[0]) {
                    return Err(
                        "follows an addition of planes of which some may be negative and others not"
                            .into(),
                    );
                }
            }
            Kind::AddUpsampled { .. } | Kind::Concat(_) | Kind::Pool { .. } => {
                return Err(
                    "follows a pooling, a Concat or the addition of an enlarged tensor; supported is a ReLU before it"
                        .into(),
                );
            }
        }
        let layer = &mut self.layers[index];
        layer.raises.fill(0);
        if let Kind::Conv(conv) = &mut layer.kind {
            conv.activation = Activation::Relu;
        }
        Ok(())
    }

    pub(super) fn clip(&mut self, node: &Node<'a>) -> Step<Seen> {
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
