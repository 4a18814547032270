//! Last stage: a picture of everybody who was seen, at their best, and one on demand.
//!
//! The [`Album`] keeps, in the frame path, the frame in which each track is best seen; it hands it over when the track ends. The
//! [`Studio`], a thread of its own, makes a JPEG of it and leaves it for the broker. A [`Desk`] is where a picture is asked for.
//! What takes too long, or has no room, is dropped and counted: a picture is never worth an event.

mod album;
mod desk;
mod picture;
mod studio;

pub use album::{Album, Seen};
pub use desk::Desk;
pub use picture::covers;
pub use studio::{Order, Snapshot, Studio};

use crate::config::choice::Choice;
use crate::config::{Invalid, in_range};
use serde::{Deserialize, Serialize};

/// Who is detected with this score is blurred, long before it is worth following.
pub const BLUR_FROM: f32 = 0.1;
/// Snapshots that wait for the broker; further ones drop the oldest.
pub const WAITING_MAX: usize = 8;

/// The `[snapshots]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether pictures leave the device.
    pub enabled: bool,
    /// What of them nobody can make out.
    #[serde(with = "crate::config::choice")]
    pub blur: Blur,
    /// Whether only the surroundings of whom it is about are shown.
    pub crop: bool,
    /// Whether a rectangle is drawn around whom it is about.
    pub bounding_box: bool,
    /// Pixels; a higher picture is made smaller.
    pub height_max: u32,
    /// Of the JPEG.
    pub quality: u8,
    /// KiB; a larger picture is made anew with less quality.
    pub kib_max: usize,
    /// Seconds for which the broker retains the newest one; 0: not at all.
    pub expire_s: u32,
    /// MiB for the frames in which somebody is best seen.
    pub memory_mib: usize,
}

/// What nobody can make out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blur {
    /// Everybody who was detected or is followed.
    Persons,
    /// Nothing.
    None,
}

impl Choice for Blur {
    const NAMED: &'static [(&'static str, Self)] =
        &[("persons", Self::Persons), ("none", Self::None)];
}

impl Config {
    /// Checks the values; pictures need `mqtt`.
    pub fn validate(&self, mqtt: bool) -> Result<(), Invalid> {
        in_range("snapshots.height_max", self.height_max, 64..=2160)?;
        in_range("snapshots.quality", self.quality, 10..=100)?;
        in_range("snapshots.kib_max", self.kib_max, 16..=240)?;
        in_range("snapshots.expire_s", self.expire_s, 0..=31_536_000)?;
        in_range("snapshots.memory_mib", self.memory_mib, 1..=512)?;
        if self.enabled && !mqtt {
            let reason = "true, and `mqtt.enabled` is false: pictures go nowhere else";
            return Err(Invalid::new("snapshots.enabled", reason));
        }
        Ok(())
    }
}
