//! From head tensors to boxes.

/// Detections of one frame at most.
pub const DETECTIONS_MAX: usize = 300;
