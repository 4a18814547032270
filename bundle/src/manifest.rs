//! What a model says of itself: the JSON part of a bundle (docs/bundle-format.md).
//!
//! Only the shape of the JSON is checked here; what it says is checked by [`crate::Model::load`].

use serde::{Deserialize, Serialize};

/// The schema that this library reads and writes.
pub const SCHEMA: u32 = 1;

/// The manifest of one model. Unknown keys are refused by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this schema: 1.
    pub schema: u32,
    /// Which model this is.
    pub model: ModelId,
    /// What the network takes.
    pub input: Input,
    /// Class names, indexed by a detection's class.
    pub classes: Vec<String>,
    /// Thresholds that the model's authors recommend.
    pub thresholds: Thresholds,
    /// The layers in the order they run; a layer reads only layers before it (or `image`).
    pub layers: Vec<Layer>,
    /// The layers whose outputs are decoded, one per stride.
    pub heads: Vec<Head>,
    /// What the network must answer, bit for bit, on every processor.
    pub golden: Vec<Golden>,
    /// When and for whom it was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// The model card: data, training and evaluation record, for people.
    #[serde(default)]
    pub card: serde_json::Value,
}

/// Name and version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelId {
    /// Lower-case letters, digits and `-`; 1 to 64 bytes.
    pub name: String,
    /// Grows with every release of the same name.
    pub version: u64,
}

/// When a model was signed, until when it may be installed, and by which daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Seconds since 1970.
    pub signed_at_s: u64,
    /// Seconds since 1970 from which on no device installs it any more; one that uses it goes on. None: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_s: Option<u64>,
    /// The oldest daemon that may run it: major, minor and patch version. None: any that can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_min: Option<[u32; 3]>,
}

/// The network's input: `channels` planes (red, green, blue) of `height` x `width` u7 values (a pixel's byte / 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// 3.
    pub channels: u32,
    /// u7 value of the letterbox's border.
    pub fill: u8,
}

/// Default thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Detections with a lower score are dropped; 0 to 1.
    pub score: f32,
    /// Of two boxes of a class that overlap more (IoU), the one with the lower score is dropped; 0 to 1.
    pub iou: f32,
}

/// One operation. Its output tensor has the layer's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// Ternary convolution, padding `kernel / 2` with zeros.
    Conv {
        /// Name, unique in the model.
        name: String,
        /// The tensor it reads.
        input: String,
        /// Planes of the input tensor.
        in_channels: u32,
        /// Planes of the output tensor.
        out_channels: u32,
        /// 1 or 3.
        kernel: u32,
        /// 1 or 2.
        stride: u32,
        /// 1: every output plane reads all input planes. `in_channels`: plane i of the output reads plane i of the input only
        /// (depthwise); then there are as many of both, and `relu` follows.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        groups: u32,
        /// What follows the accumulation.
        activation: Activation,
        /// Left shift before the requantizing multiplication, 0 to 7; 0 for `linear`.
        pre_shift: u8,
        /// Where this layer's parameters begin in the bundle's parameter section, in bytes.
        offset: u32,
    },
    /// `min(127, fine + coarse)`, the coarse tensor enlarged twice by repetition: `fine[y][x] + coarse[y/2][x/2]`.
    AddUpsampled {
        /// Name, unique in the model.
        name: String,
        /// Tensor of the output's size.
        fine: String,
        /// Tensor of half the size (rounded up), with as many channels.
        coarse: String,
    },
    /// `clamp(a + b - offset, 0, 127)`, for residuals.
    Add {
        /// Name, unique in the model.
        name: String,
        /// The two tensors, of one shape and stride; they may be the same.
        inputs: [String; 2],
        /// 0 to 254. Values that may be negative are stored raised by some steps: this is how many the inputs are raised by
        /// together, less those by which the output is.
        #[serde(default, skip_serializing_if = "is_zero")]
        offset: u8,
    },
    /// The planes of several tensors, one tensor after the other.
    Concat {
        /// Name, unique in the model.
        name: String,
        /// 2 to 16 tensors of one height, width and stride; one may be there twice.
        inputs: Vec<String>,
    },
    /// The greatest value, or the mean, of every window of a plane. The window of output row y begins `(kernel - 1) / 2` rows, rounded
    /// down, before input row `y * stride`, and likewise for columns; what lies outside of the plane counts for nothing.
    Pool {
        /// Name, unique in the model.
        name: String,
        /// The tensor it reads.
        input: String,
        /// What is taken of a window.
        mode: PoolMode,
        /// 2, 3 or 5; 2 for the mean.
        kernel: u32,
        /// 1 or 2; 2 for the mean. The output's sides are `ceil(side / stride)`.
        stride: u32,
    },
}

impl Layer {
    /// Name, unique in the model.
    pub fn name(&self) -> &str {
        match self {
            Self::Conv { name, .. }
            | Self::AddUpsampled { name, .. }
            | Self::Add { name, .. }
            | Self::Concat { name, .. }
            | Self::Pool { name, .. } => name,
        }
    }

    /// Names of the tensors that it reads, in the order of its fields.
    pub fn inputs(&self) -> Vec<&str> {
        match self {
            Self::Conv { input, .. } | Self::Pool { input, .. } => vec![input],
            Self::AddUpsampled { fine, coarse, .. } => vec![fine, coarse],
            Self::Add { inputs, .. } => inputs.iter().map(String::as_str).collect(),
            Self::Concat { inputs, .. } => inputs.iter().map(String::as_str).collect(),
        }
    }
}

/// What a pool takes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// The greatest value.
    Max,
    /// `(sum of the four + 2) >> 2`; the input has even sides.
    Mean,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(groups: &u32) -> bool {
    *groups == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(offset: &u8) -> bool {
    *offset == 0
}

/// What follows a convolution's accumulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Requantized to u7. Parameters: trits (depthwise: one kernel a channel), then `bias: [i16; out]`, then `multiplier: [i16; out]` (Q15, >= 0).
    Relu,
    /// The i16 sum itself. Parameters: trits, then `bias: [i16; out]`, then `scale: [f32; out]`.
    Linear,
}

/// An output of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// A `linear` convolution with the channels that `kind` says.
    pub layer: String,
    /// Input pixels per cell.
    pub stride: u32,
    /// What its channels mean.
    #[serde(default, skip_serializing_if = "HeadKind::is_boxes")]
    pub kind: HeadKind,
}

/// What a head's channels mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// Per cell a logit for each class, then the distances left, top, right, bottom in strides.
    #[default]
    Boxes,
    /// Per cell a logit for each class; their mean over the cells classifies the picture. No detections come of it.
    Classes,
}

impl HeadKind {
    /// Channels of such a head.
    pub fn channels(self, classes: usize) -> usize {
        match self {
            Self::Boxes => classes + 4,
            Self::Classes => classes,
        }
    }

    fn is_boxes(&self) -> bool {
        *self == Self::Boxes
    }
}

/// A frame drawn by a fixed generator, and what every layer must answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Seed of the generator (docs/bundle-format.md).
    pub seed: u64,
    /// Width of the frame in pixels.
    pub width: u32,
    /// Height of the frame in pixels.
    pub height: u32,
    /// SHA-256 (hex) of the preprocessed input tensor.
    pub input: String,
    /// First 16 hex digits of the SHA-256 of each layer's output, in the order of `layers` (i16 as little endian).
    pub layers: Vec<String>,
    /// SHA-256 (hex) of the decoded detections.
    pub detections: String,
}
