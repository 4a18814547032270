//! What a model may ask of a device. All bounds are inclusive.
//!
//! They are far above what runs at a useful rate on the smallest supported board, and low enough that a mistaken
//! model is refused by a message and not by the kernel's out-of-memory killer.

/// Layers.
pub const LAYERS_MAX: usize = 256;
/// Decoded layers.
pub const HEADS_MAX: usize = 8;
/// Classes.
pub const CLASSES_MAX: usize = 256;
/// Golden vectors.
pub const GOLDEN_MAX: usize = 16;
/// Pixels of a golden frame.
pub const GOLDEN_PIXELS_MAX: u64 = 4 << 20;
/// Width and height of a golden frame, smallest.
pub const GOLDEN_SIDE_MIN: u32 = 2;
/// Width and height of a golden frame, greatest.
pub const GOLDEN_SIDE_MAX: u32 = 8192;
/// Bytes of a model's, class's or layer's name.
pub const NAME_LEN_MAX: usize = 64;
/// Width and height of the input, smallest.
pub const INPUT_SIDE_MIN: u32 = 8;
/// Width and height of the input, greatest.
pub const INPUT_SIDE_MAX: u32 = 2048;
/// Planes of a tensor.
pub const CHANNELS_MAX: u32 = 1024;
/// Tensors that a concatenation joins, most.
pub const CONCAT_INPUTS_MAX: usize = 16;
/// Weights of all layers together.
pub const TRITS_MAX: u64 = 16 << 20;
/// Multiply-accumulates of one frame. What the layers without weights do with a value counts as one each.
pub const MACS_MAX: u64 = 16 << 30;
/// Bytes of all layers' outputs together, as if none were ever reused.
pub const ACTIVATION_BYTES_MAX: u64 = 256 << 20;
/// Greatest left shift before the requantizing multiplication.
pub const PRE_SHIFT_MAX: u8 = 7;
/// Greatest offset of an addition: the greatest sum, of which it leaves nothing.
pub const ADD_OFFSET_MAX: u8 = 254;
/// Smallest real value of a head's step: keeps every product a normal number, so that processors that flush
/// subnormal ones to zero agree with those that do not.
pub const SCALE_MIN: f32 = 1e-9;
/// Greatest real value of a head's step: keeps every product finite.
pub const SCALE_MAX: f32 = 1e6;
