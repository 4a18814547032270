//! What the detector found.

/// One object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Index into the model's classes.
    pub class: u16,
    /// 0 to 1.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the frame: 0 is the left edge of the first pixel, the frame's width the
    /// right edge of the last. Always within the frame, and of positive area.
    pub xyxy: [f32; 4],
}
