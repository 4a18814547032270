//! Where a frame lies within the network's input: as large as fits, centred, its shape kept.

/// One axis: the frame's `frame` pixels become the input's `content` pixels from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) frame: u32,
    pub(crate) content: u32,
    pub(crate) offset: u32,
}

impl Axis {
    fn centred(frame: u32, content: u32, input: u32) -> Self {
        Self {
            frame,
            content,
            offset: (input - content) / 2,
        }
    }

    /// A coordinate of the input in the frame's pixels, clipped to the frame.
    fn to_frame(self, input: f32) -> f32 {
        let frame = self.frame as f32;
        let scale = frame / self.content as f32;
        ((input - self.offset as f32) * scale).clamp(0.0, frame)
    }
}

/// Both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Letterbox {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl Letterbox {
    /// The largest fit of a frame (width, height) in an input (width, height).
    pub(crate) fn fit(frame: (u32, u32), input: (u32, u32)) -> Self {
        // The scale is input / frame of the tighter axis: compare the two fractions crosswise.
        let width_is_tighter =
            u64::from(input.0) * u64::from(frame.1) <= u64::from(input.1) * u64::from(frame.0);
        let content = if width_is_tighter {
            (input.0, scaled(frame.1, input.0, frame.0).min(input.1))
        } else {
            (scaled(frame.0, input.1, frame.1).min(input.0), input.1)
        };
        Self {
            x: Axis::centred(frame.0, content.0, input.0),
            y: Axis::centred(frame.1, content.1, input.1),
        }
    }

    /// The box (left, top, right, bottom) of input pixels in frame pixels, clipped to the frame.
    pub(crate) fn to_frame(self, [left, top, right, bottom]: [f32; 4]) -> [f32; 4] {
        [
            self.x.to_frame(left),
            self.y.to_frame(top),
            self.x.to_frame(right),
            self.y.to_frame(bottom),
        ]
    }
}

/// `length * numerator / denominator`, to the nearest, at least one pixel.
fn scaled(length: u32, numerator: u32, denominator: u32) -> u32 {
    let (length, numerator, denominator) = (
        u64::from(length),
        u64::from(numerator),
        u64::from(denominator),
    );
    let rounded = (2 * length * numerator + denominator) / (2 * denominator);
    u32::try_from(rounded).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(frame: (u32, u32), input: (u32, u32)) -> [(u32, u32); 2] {
        let letterbox = Letterbox::fit(frame, input);
        [letterbox.x, letterbox.y].map(|axis| (axis.content, axis.offset))
    }

    #[test]
    fn wide_tall_and_exact_frames_are_centred() {
        assert_eq!(axes((640, 480), (320, 240)), [(320, 0), (240, 0)]);
        assert_eq!(axes((640, 360), (320, 240)), [(320, 0), (180, 30)]);
        assert_eq!(axes((480, 640), (320, 240)), [(180, 70), (240, 0)]);
        assert_eq!(axes((100, 100), (101, 104)), [(101, 0), (101, 1)]);
        assert_eq!(axes((32, 24), (320, 240)), [(320, 0), (240, 0)]);
    }

    #[test]
    fn extreme_shapes_keep_at_least_a_pixel() {
        assert_eq!(axes((8192, 2), (320, 240)), [(320, 0), (1, 119)]);
        assert_eq!(axes((2, 8192), (320, 240)), [(1, 159), (240, 0)]);
    }

    #[test]
    fn content_never_exceeds_the_input() {
        for input in [(8, 8), (320, 192), (33, 2048)] {
            for width in (2..8192).step_by(97) {
                for height in (2..8192).step_by(89) {
                    let letterbox = Letterbox::fit((width, height), input);
                    for (axis, side) in [(letterbox.x, input.0), (letterbox.y, input.1)] {
                        assert!(
                            axis.content >= 1 && axis.offset + axis.content <= side,
                            "{axis:?} in {side}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_content_corners_are_the_frame_corners() {
        let letterbox = Letterbox::fit((640, 360), (320, 240));
        assert_eq!(
            letterbox.to_frame([0.0, 30.0, 320.0, 210.0]),
            [0.0, 0.0, 640.0, 360.0]
        );
        assert_eq!(
            letterbox.to_frame([160.0, 120.0, 161.0, 122.0]),
            [320.0, 180.0, 322.0, 184.0]
        );
    }

    #[test]
    fn boxes_are_clipped_to_the_frame() {
        let letterbox = Letterbox::fit((640, 360), (320, 240));
        assert_eq!(
            letterbox.to_frame([-9.0, 0.0, 999.0, f32::INFINITY]),
            [0.0, 0.0, 640.0, 360.0]
        );
    }
}
