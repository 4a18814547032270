//! Image in, detections out; no I/O, no clock.
//!
//! Takes a [`Frame`] in a camera's pixel format, gives [`Detection`]s in that frame's pixels. The stages, in their
//! order: `preprocess` (letterbox to the network's input), `infer` (integer layers), `decode` (boxes, NMS);
//! [`Detector`] alone knows that order. The same frame gives the same bytes on every architecture and [`Isa`]
//! (docs/adr/0001-integer-inference.md), which [`golden`] checks against the answers recorded in the bundle.
//! Everything is allocated by [`Detector::new`].

#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test fails by panicking")
)]

mod decode;
mod detection;
mod detector;
mod frame;
pub mod golden;
mod infer;
mod letterbox;
mod preprocess;
mod team;
#[cfg(feature = "testing")]
pub mod testing;

pub use ternwatch_bundle::{Model, Thresholds};
pub use ternwatch_kernels::Isa;
pub use ternwatch_kernels::conv::Probe;

pub use self::decode::{CANDIDATES_MAX, DETECTIONS_MAX};
pub use self::detection::Detection;
pub use self::detector::{Detector, DetectorError};
pub use self::frame::{Frame, FrameError, PixelFormat, SIDE_MAX, SIDE_MIN};
pub use self::infer::{LayerOutput, NetworkError};
pub use self::team::{Team, TeamError};
