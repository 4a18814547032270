//! Activations: unsigned 7-bit steps of one fixed range.

/// Batch-normalized activations are clipped to `0..=CLIP`. One range for all tensors lets two of them be added as they
/// are; the normalization before it makes the range fit every layer.
pub const CLIP: f32 = 4.0;

/// The value of one u7 step.
pub const STEP: f32 = CLIP / 127.0;

/// The value of one u7 step of the input image, whose pixels are 0 to 1.
pub const IMAGE_STEP: f32 = 1.0 / 127.0;
