//! The network's outputs.

use super::{Loader, Result};
use crate::manifest::{Activation, Head};
use crate::model::ModelHead;
use crate::model::check::{bounded, layer_error, manifest_error};
use crate::model::limits::HEADS_MAX;

impl Loader<'_> {
    /// The heads, and the check that no layer is left over: it would cost time for nothing.
    pub(super) fn heads(&self, heads: &[Head], classes: usize) -> Result<Vec<ModelHead>> {
        bounded("heads", heads.len(), 1, HEADS_MAX)?;
        let mut loaded: Vec<ModelHead> = Vec::with_capacity(heads.len());
        for Head {
            layer,
            stride,
            kind,
        } in heads
        {
            let Some(index) = self
                .names
                .get(layer.as_str())
                .and_then(|index| index.checked_sub(1))
            else {
                return Err(manifest_error(
                    "heads",
                    format!("there is no layer {layer:?}"),
                ));
            };
            let tensor = self.tensors[index + 1];
            if tensor.activation != Activation::Linear {
                return Err(layer_error(
                    layer,
                    "is a head, but not a linear convolution",
                ));
            }
            let channels = kind.channels(classes);
            if tensor.shape.channels != channels {
                let problem = format!(
                    "has {} channels, a head of {classes} classes needs {channels}",
                    tensor.shape.channels,
                );
                return Err(layer_error(layer, problem));
            }
            if tensor.stride != *stride {
                let problem = format!(
                    "its head says stride {stride}, but it lies at stride {}",
                    tensor.stride
                );
                return Err(layer_error(layer, problem));
            }
            if loaded.iter().any(|head| head.layer == index) {
                return Err(layer_error(layer, "is a head twice"));
            }
            loaded.push(ModelHead {
                layer: index,
                stride: *stride,
                kind: *kind,
            });
        }
        let is_head = |index| loaded.iter().any(|head| head.layer == index);
        for (index, (layer, tensor)) in self.layers.iter().zip(&self.tensors[1..]).enumerate() {
            if !tensor.is_read && !is_head(index) {
                return Err(layer_error(
                    layer.name(),
                    "no layer reads its output and it is no head",
                ));
            }
        }
        Ok(loaded)
    }
}
