//! Counts what a model asks for while its layers are loaded, so that too much is refused before any of it is allocated.

use super::Result;
use crate::manifest::Activation;
use crate::model::TensorShape;
use crate::model::check::layer_error;
use crate::model::limits::*;

pub(super) struct Budget {
    trits: u64,
    work: u64,
    activation_bytes: u64,
}

impl Budget {
    /// Nothing but the image is there.
    pub(super) fn beginning_with(image: &TensorShape) -> Self {
        Self {
            trits: 0,
            work: 0,
            activation_bytes: values(image),
        }
    }

    /// Adds a convolution's weights.
    pub(super) fn weights(&mut self, layer: &str, count: usize) -> Result<()> {
        self.trits += count as u64;
        if self.trits > TRITS_MAX {
            return Err(layer_error(
                layer,
                format!("with it the model has more than {TRITS_MAX} weights"),
            ));
        }
        Ok(())
    }

    /// Adds a layer's multiply-accumulates, or what else it does as often.
    pub(super) fn work(&mut self, layer: &str, operations: u64) -> Result<()> {
        self.work += operations;
        if self.work > MACS_MAX {
            return Err(layer_error(
                layer,
                format!("with it a frame takes more than {MACS_MAX} multiply-accumulates"),
            ));
        }
        Ok(())
    }

    /// Adds a layer's output.
    pub(super) fn activations(
        &mut self,
        layer: &str,
        shape: &TensorShape,
        activation: Activation,
    ) -> Result<()> {
        let bytes_per_value = match activation {
            Activation::Relu => size_of::<u8>(),
            Activation::Linear => size_of::<i16>(),
        };
        self.activation_bytes += bytes_per_value as u64 * values(shape);
        if self.activation_bytes > ACTIVATION_BYTES_MAX {
            let problem = format!("with it the activations exceed {ACTIVATION_BYTES_MAX} bytes");
            return Err(layer_error(layer, problem));
        }
        Ok(())
    }
}

/// Values of a tensor, which may be more than this machine can address.
pub(super) fn values(shape: &TensorShape) -> u64 {
    [shape.channels, shape.height, shape.width]
        .iter()
        .map(|&side| side as u64)
        .product()
}
