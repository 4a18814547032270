//! Frames from a camera, a video or a folder.
//!
//! Takes the `[camera]` section, gives one frame at a time into a buffer that the caller owns and uses again. A source
//! may block, but never longer than [`Config::patience`] and never much after a stop was asked for. It knows nothing of
//! what happens to its frames.

mod child;
pub mod ffmpeg;
mod minute;
mod pipe;
pub mod rpicam;
#[cfg(test)]
mod stand_in;
pub mod stills;
pub mod v4l2;

use crate::clock::Timestamp;
use crate::config::choice::Choice;
use crate::config::{Invalid, Secret, in_range};
use crate::exit::Reason;
use crate::publish::topic;
use crate::stop::Stop;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use ternwatch_detector::{Frame, FrameError, PixelFormat};
use thiserror::Error;

/// The longest side of a frame in pixels.
pub const SIDE_MAX: u32 = 8192;
/// A source that is opened has at least so long: a network camera's first picture comes with its next key frame only.
const OPENING_MIN: Duration = Duration::from_secs(30);
/// A source has so long to let go of its camera. The driver of USB cameras gives each of the two requests that this takes five
/// seconds before it counts them as failed.
const CLOSING_MAX: Duration = Duration::from_secs(12);

/// The `[camera]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Part of the topic.
    pub name: String,
    /// Which of the sections below is used.
    #[serde(with = "crate::config::choice")]
    pub source: SourceKind,
    /// Seconds without a frame after which the source counts as stalled.
    pub stall_s: u64,
    /// USB cameras.
    pub v4l2: v4l2::Config,
    /// Cameras on a Pi's ribbon connector.
    pub rpicam: rpicam::Config,
    /// Video files.
    pub video: VideoConfig,
    /// Network cameras.
    pub rtsp: RtspConfig,
    /// Folders of pictures.
    pub stills: stills::Config,
    /// The decoder of videos and network cameras.
    pub ffmpeg: FfmpegConfig,
}

/// The `[camera.video]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VideoConfig {
    /// The file.
    pub path: PathBuf,
    /// Whether to wait between frames.
    #[serde(with = "crate::config::choice")]
    pub pace: Pace,
}

/// The `[camera.rtsp]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RtspConfig {
    /// Where the stream is; may contain a password.
    pub url: Secret,
}

/// The `[camera.ffmpeg]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FfmpegConfig {
    /// Name or path of the program.
    pub program: PathBuf,
}

/// The kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A USB camera.
    V4l2,
    /// A camera on a Pi's ribbon connector.
    Rpicam,
    /// A video file.
    Video,
    /// A network camera.
    Rtsp,
    /// A folder of pictures.
    Stills,
}

impl Choice for SourceKind {
    const NAMED: &'static [(&'static str, Self)] = &[
        ("v4l2", Self::V4l2),
        ("rpicam", Self::Rpicam),
        ("video", Self::Video),
        ("rtsp", Self::Rtsp),
        ("stills", Self::Stills),
    ];
}

impl SourceKind {
    /// A finite source ends by itself and can be made to wait; a live one is opened again when it fails.
    pub fn is_finite(self) -> bool {
        matches!(self, Self::Video | Self::Stills)
    }

    /// Which settings name another source.
    pub fn advice(self) -> &'static str {
        match self {
            Self::V4l2 => "camera.v4l2.device names another camera, camera.source another kind",
            Self::Rpicam => "camera.rpicam.camera names another camera, camera.source another kind",
            Self::Video => "camera.video.path names another file, camera.source another kind",
            Self::Rtsp => "camera.rtsp.url names another camera, camera.source another kind",
            Self::Stills => "camera.stills.folder names another folder, camera.source another kind",
        }
    }
}

/// How fast the frames of a file are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At the rate they were recorded with.
    RealTime,
    /// As fast as they are taken.
    AsFastAsPossible,
}

impl Choice for Pace {
    const NAMED: &'static [(&'static str, Self)] = &[
        ("real-time", Self::RealTime),
        ("as-fast-as-possible", Self::AsFastAsPossible),
    ];
}

impl Config {
    /// Checks the values of the source that is used.
    pub fn validate(&self) -> Result<(), Invalid> {
        topic::validate_level("camera.name", &self.name)?;
        in_range("camera.stall_s", self.stall_s, 1..=600)?;
        match self.source {
            SourceKind::V4l2 => self.v4l2.validate(),
            SourceKind::Rpicam => self.rpicam.validate(),
            SourceKind::Video => self.video.validate(),
            SourceKind::Rtsp => self.rtsp.validate(),
            SourceKind::Stills => self.stills.validate(),
        }
    }

    /// The longest time that a source may be silent without being broken.
    pub fn patience(&self) -> Duration {
        match self.source {
            SourceKind::Stills => self.stall() + Duration::from_millis(self.stills.interval_ms),
            // One that stalled has to be closed, too.
            _ => self.waits().opening + CLOSING_MAX,
        }
    }

    /// Time without a frame after which the source counts as stalled.
    pub fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_s)
    }

    fn waits(&self) -> Waits {
        Waits {
            opening: self.stall().max(OPENING_MIN),
            stall: self.stall(),
        }
    }
}

/// How long a source is waited for, before it counts as stalled.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Until it delivers.
    pub opening: Duration,
    /// From one frame to the next.
    pub stall: Duration,
}

impl VideoConfig {
    fn validate(&self) -> Result<(), Invalid> {
        if self.path.as_os_str().is_empty() {
            return Err(Invalid::new(
                "camera.video.path",
                "is empty; name a video file",
            ));
        }
        Ok(())
    }
}

impl RtspConfig {
    fn validate(&self) -> Result<(), Invalid> {
        let url = self.url.expose();
        let rest = ["rtsp://", "rtsps://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme));
        let reason = match rest {
            None => "does not begin with rtsp:// or rtsps://",
            Some(rest) if has_a_plain_password(rest) => {
                "has a password with `/`, `?` or `#` in it: write %2F, %3F or %23 instead"
            }
            Some(_) => return Ok(()),
        };
        Err(Invalid::new("camera.rtsp.url", reason))
    }
}

/// Whether what follows the scheme ends too early, within a password that is not escaped: what seems to be the port is none, and an `@`
/// is still to come.
fn has_a_plain_password(rest: &str) -> bool {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    // An IPv6 address ends with a bracket.
    let is_port = |port: &str| port.ends_with(']') || port.parse::<u16>().is_ok();
    path.contains('@') && port.is_some_and(|port| !is_port(port))
}

/// One frame and where it came from. Used again for every frame, so that the frame path allocates nothing once
/// every buffer has had its largest frame; but for the decoder of JPEG pictures, which copies each and has memory of its own.
#[derive(Clone, Debug)]
pub struct FrameBuffer {
    /// How the bytes are arranged.
    pub format: PixelFormat,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The pixels, without padding.
    pub data: Vec<u8>,
    /// When the last byte of the frame arrived.
    pub captured_at: Timestamp,
    /// Nanoseconds on the clock that motion is measured with: that of `captured_at`, unless a file is played faster
    /// than it was recorded.
    pub moment_ns: u64,
    /// Number of the frame in this run, from 0.
    pub sequence: u64,
    /// Frames that the camera delivered since the one before and that this one took the place of.
    pub replaced: u64,
}

impl FrameBuffer {
    /// A buffer without a frame.
    pub fn empty() -> Self {
        Self {
            format: PixelFormat::I420,
            width: 0,
            height: 0,
            data: Vec::new(),
            captured_at: Timestamp::default(),
            moment_ns: 0,
            sequence: 0,
            replaced: 0,
        }
    }

    /// Makes room for a frame and gives its bytes, whose contents are unspecified.
    pub fn prepare(
        &mut self,
        format: PixelFormat,
        width: u32,
        height: u32,
        len: usize,
    ) -> &mut [u8] {
        (self.format, self.width, self.height) = (format, width, height);
        self.data.resize(len, 0);
        &mut self.data
    }

    /// Notes that the frame has just arrived.
    pub fn arrived(&mut self) {
        self.captured_at = Timestamp::now();
        self.moment_ns = self.captured_at.monotonic_ns;
    }

    /// The frame, for the detector.
    pub fn frame(&self) -> Result<Frame<'_>, FrameError> {
        Frame::new(self.format, self.width, self.height, &self.data)
    }
}

/// What came of waiting for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The buffer holds a frame.
    Frame,
    /// There are no more.
    End,
}

/// A source of frames.
pub trait FrameSource {
    /// Waits for the next frame and puts it into `buffer`. After an error the source is of no use any more.
    fn next_frame(&mut self, buffer: &mut FrameBuffer) -> Result<Next, CameraError>;

    /// Lets go of the camera, so that it can be opened again. The source is of no use any more.
    fn close(&mut self) -> Result<(), CameraError> {
        Ok(())
    }
}

/// Why there is no frame.
#[derive(Debug, Error)]
pub enum CameraError {
    /// Something that the configuration names is not there.
    #[error("cannot open {what}")]
    Open {
        /// Which file, folder or program.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A folder without pictures.
    #[error("there is no .jpg, .jpeg or .png file in {}", .0.display())]
    NoPictures(PathBuf),
    /// A picture that cannot be decoded.
    #[error("cannot read the picture {}: {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The camera's driver refused.
    #[error("camera {device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// The camera's driver does not answer any more, and a thread of ours waits for it: only a new process helps.
    #[error("camera {device} hangs in its driver")]
    Hung {
        /// The device.
        device: String,
    },
    /// ffmpeg ended, or wrote nonsense.
    #[error("ffmpeg could not decode {input}: {reason}")]
    Ffmpeg {
        /// The file or the address, without a password.
        input: String,
        /// Why.
        reason: String,
    },
    /// No frame for too long.
    #[error("no frame from {input} for {} s", stall.as_secs())]
    Stalled {
        /// The source.
        input: String,
        /// How long.
        stall: Duration,
    },
    /// A stop was asked for while waiting.
    #[error("stopped")]
    Stopped,
}

impl CameraError {
    /// Whether opening the source again may help, provided that it is a live one.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Hung { .. } | Self::Stopped)
    }

    /// The exit code if the program ends because of it.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Open { .. } | Self::NoPictures(_) => Reason::NoInput,
            Self::Picture { .. } => Reason::Data,
            Self::Device { .. }
            | Self::Hung { .. }
            | Self::Ffmpeg { .. }
            | Self::Stalled { .. }
            | Self::Stopped => Reason::Unavailable,
        }
    }
}

/// Opens the source that the configuration names.
pub fn open(config: &Config, stop: &Stop) -> Result<Box<dyn FrameSource>, CameraError> {
    let (waits, stop) = (config.waits(), stop.clone());
    let decoder =
        |input| ffmpeg::Decoder::start(&config.ffmpeg.program, input, waits, stop.clone());
    Ok(match config.source {
        SourceKind::V4l2 => Box::new(v4l2::Camera::open(&config.v4l2, waits, stop)?),
        SourceKind::Rpicam => Box::new(rpicam::Camera::start(&config.rpicam, waits, stop)?),
        SourceKind::Video => Box::new(decoder(ffmpeg::Input::video(&config.video)?)?),
        SourceKind::Rtsp => Box::new(decoder(ffmpeg::Input::rtsp(&config.rtsp))?),
        SourceKind::Stills => Box::new(stills::Folder::open(&config.stills, stop)?),
    })
}
