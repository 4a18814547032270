//! Runs the layers.

/// Output of one layer, `[channel][row][column]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LayerOutput<'a> {
    /// 0 to 127.
    U7(&'a [u8]),
    /// Of a `linear` convolution.
    I16(&'a [i16]),
}

#[derive(Debug)]
pub(crate) struct Network;

/// Why a layer cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {}
