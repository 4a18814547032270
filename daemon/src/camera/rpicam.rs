//! Cameras on a Pi's ribbon connector, through a `rpicam-vid` process that writes uncompressed frames into a pipe.
//!
//! The camera's own processor has to be steered (exposure, white balance, focus) by a library that changes with every camera and
//! system; the program that the system brings along has it, in a process of its own. It writes I420 frames one after the other
//! and nothing else, so that all that can be checked is that they come.

use super::child::{self, Helper};
use super::pipe::{self, PatientPipe};
use super::{CameraError, FrameBuffer, FrameSource, Next, Waits};
use crate::config::{Invalid, in_range};
use crate::stop::Stop;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ChildStdout, Command};
use std::time::{Duration, Instant};
use ternwatch_detector::PixelFormat;

/// The image processor fills its lines up to a multiple of so many bytes, and the program writes them as they are.
const LINE_BYTES: u32 = 64;

/// The `[camera.rpicam]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name or path of the program.
    pub program: PathBuf,
    /// Number of the camera, as `rpicam-hello --list-cameras` has it.
    pub camera: u32,
    /// Pixels, a multiple of 64.
    pub width: u32,
    /// Pixels, even.
    pub height: u32,
    /// Frames a second.
    pub frames_per_second: u32,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.program.as_os_str().is_empty() {
            let reason = "is empty; name a program such as rpicam-vid";
            return Err(Invalid::new("camera.rpicam.program", reason));
        }
        in_range("camera.rpicam.camera", self.camera, 0..=15)?;
        in_range("camera.rpicam.width", self.width, LINE_BYTES..=4096)?;
        in_range("camera.rpicam.height", self.height, 16..=4096)?;
        if !self.width.is_multiple_of(LINE_BYTES) {
            let reason = format!("{} is no multiple of {LINE_BYTES}", self.width);
            return Err(Invalid::new("camera.rpicam.width", reason));
        }
        if !self.height.is_multiple_of(2) {
            let reason = format!("{} is odd", self.height);
            return Err(Invalid::new("camera.rpicam.height", reason));
        }
        in_range(
            "camera.rpicam.frames_per_second",
            self.frames_per_second,
            1..=120,
        )
    }

    /// Which camera, for messages that begin with that word.
    fn shown(&self) -> String {
        format!("{} of {}", self.camera, self.program.display())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--nopreview", "--timeout", "0", "--codec", "yuv420"])
            .args(["--camera", &self.camera.to_string()])
            .args(["--width", &self.width.to_string()])
            .args(["--height", &self.height.to_string()])
            .args(["--framerate", &self.frames_per_second.to_string()])
            // One line instead of one for every frame.
            .args(["--verbose", "0", "--flush", "--output", "-"]);
        child::seclude(&mut command);
        command
    }
}

/// A running `rpicam-vid` and the frames it writes.
pub struct Camera {
    config: Config,
    helper: Helper,
    frames: PatientPipe<ChildStdout>,
    stall: Duration,
}

impl Camera {
    /// Starts the program.
    pub fn start(config: &Config, waits: Waits, stop: Stop) -> Result<Self, CameraError> {
        let (helper, stdout) = Helper::start("rpicam-vid", config.command(), Vec::new())?;
        Ok(Self {
            config: config.clone(),
            helper,
            frames: PatientPipe::new(stdout, waits.opening, stop),
            stall: waits.stall,
        })
    }

    /// Why there are no more frames.
    fn explain(&mut self, error: &io::Error) -> CameraError {
        if pipe::is_stop(error) {
            return CameraError::Stopped;
        }
        match error.kind() {
            io::ErrorKind::TimedOut => CameraError::Stalled {
                input: format!("camera {}", self.config.shown()),
                stall: self.frames.patience(),
            },
            // The cause is in what the program said, not in the truncated output.
            io::ErrorKind::UnexpectedEof => CameraError::Device {
                device: self.config.shown(),
                reason: self.helper.farewell(),
            },
            _ => CameraError::Device {
                device: self.config.shown(),
                reason: error.to_string(),
            },
        }
    }
}

impl FrameSource for Camera {
    fn next_frame(&mut self, buffer: &mut FrameBuffer) -> Result<Next, CameraError> {
        let (width, height) = (self.config.width, self.config.height);
        let len = width as usize * height as usize * 3 / 2;
        let frame = buffer.prepare(PixelFormat::I420, width, height, len);
        match read_frame(&mut self.frames, frame) {
            Ok(()) => {
                buffer.arrived();
                self.frames.be_patient_for(self.stall);
                Ok(Next::Frame)
            }
            Err(error) => Err(self.explain(&error)),
        }
    }
}

/// Fills the frame. A program that lets bytes trickle does not deliver frames either: the whole one has to come in time.
fn read_frame(source: &mut PatientPipe<impl Read + AsFd>, frame: &mut [u8]) -> io::Result<()> {
    let started = Instant::now();
    let mut filled = 0;
    while let Some(rest) = frame.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => filled += len,
        }
        if started.elapsed() > source.patience() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::stand_in::{self, LONG, started};
    use std::fs;
    use std::thread;
    use tempfile::TempDir;

    fn config(program: PathBuf) -> Config {
        Config {
            program,
            camera: 0,
            width: 64,
            height: 16,
            frames_per_second: 15,
        }
    }

    /// A stand-in for `rpicam-vid`.
    fn stand_in(script: &str) -> (TempDir, Config) {
        let (folder, program) = stand_in::program("rpicam-vid", script);
        (folder, config(program))
    }

    fn start(config: &Config, stall: Duration) -> Camera {
        start_with(config, stall, Stop::default())
    }

    fn start_with(config: &Config, wait: Duration, stop: Stop) -> Camera {
        let waits = stand_in::all(wait);
        started(|| Camera::start(config, waits, stop.clone())).expect("starts")
    }

    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn frames_arrive_whole_and_a_program_that_dies_is_quoted() {
        // Two frames of 1536 bytes and a part of a third.
        let script = "head -c 3100 /dev/zero | tr '\\0' 'y'; echo '*** no cameras available ***' >&2; exit 255";
        let (_folder, config) = stand_in(script);
        let mut camera = start(&config, LONG);
        let mut buffer = FrameBuffer::empty();
        for _ in 0..2 {
            assert_eq!(
                camera.next_frame(&mut buffer).expect("a frame"),
                Next::Frame
            );
            assert_eq!((buffer.width, buffer.height), (64, 16));
            assert_eq!(buffer.data, vec![b'y'; 1536]);
            buffer.frame().expect("a frame for the detector");
        }
        let error = camera.next_frame(&mut buffer).expect_err("it died");
        let text = error.to_string();
        assert!(text.contains("no cameras available"), "{text}");
        assert!(text.contains("255"), "{text}");
        assert!(error.may_pass());
    }

    #[test]
    fn what_a_script_around_the_program_has_started_ends_with_it() {
        let (folder, config) = stand_in("sleep 600 & echo $! >\"$0.id\"; wait");
        let camera = start(&config, LONG);
        let deadline = Instant::now() + LONG;
        let id = loop {
            let text = fs::read_to_string(folder.path().join("rpicam-vid.id")).unwrap_or_default();
            if let Ok(id) = text.trim().parse::<u32>() {
                break id;
            }
            assert!(Instant::now() < deadline, "it did not start");
            thread::sleep(Duration::from_millis(5));
        };
        drop(camera);
        // Nobody may wait for it here: then it stays in the table of processes, as one that has ended.
        let lives = || {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while lives() {
            assert!(Instant::now() < deadline, "process {id} lives on");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_that_hangs_or_trickles_counts_as_stalled() {
        for script in ["exec sleep 600", "while :; do printf y; sleep 0.05; done"] {
            let (_folder, config) = stand_in(script);
            let mut camera = start(&config, SHORT);
            let error = camera
                .next_frame(&mut FrameBuffer::empty())
                .expect_err(script);
            assert!(matches!(error, CameraError::Stalled { .. }), "{error}");
        }
    }

    #[test]
    fn the_first_frame_may_take_longer_than_those_after_it() {
        let (_folder, config) = stand_in("sleep 1; head -c 1536 /dev/zero; exec sleep 600");
        let waits = Waits {
            opening: LONG,
            stall: SHORT,
        };
        let start = || Camera::start(&config, waits, Stop::default());
        let mut camera = started(start).expect("starts");
        let mut buffer = FrameBuffer::empty();
        camera.next_frame(&mut buffer).expect("it is waited for");
        let error = camera.next_frame(&mut buffer).expect_err("it hangs");
        assert!(
            matches!(error, CameraError::Stalled { stall: SHORT, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_program_that_floods_is_read_frame_by_frame_and_ends_with_its_source() {
        let (_folder, config) = stand_in("exec cat /dev/zero");
        let mut camera = start(&config, LONG);
        let mut buffer = FrameBuffer::empty();
        for _ in 0..500 {
            camera.next_frame(&mut buffer).expect("a frame");
        }
        assert_eq!(buffer.data.capacity(), 1536, "no more than a frame is kept");
        let id = camera.helper.id();
        drop(camera);
        let is_gone = !std::path::Path::new(&format!("/proc/{id}")).exists();
        assert!(is_gone, "the program is still there");
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let (_folder, config) = stand_in("exec sleep 600");
        let stop = Stop::default();
        let mut camera = start_with(&config, LONG, stop.clone());
        stop.request();
        let error = camera
            .next_frame(&mut FrameBuffer::empty())
            .expect_err("stopped");
        assert!(matches!(error, CameraError::Stopped));
    }

    #[test]
    fn the_program_is_told_what_is_wanted() {
        let (folder, config) =
            stand_in(r#"echo "$@" >"$(dirname "$0")/said"; env >>"$(dirname "$0")/said""#);
        let mut camera = start(&config, LONG);
        camera
            .next_frame(&mut FrameBuffer::empty())
            .expect_err("no frame");
        let said = fs::read_to_string(folder.path().join("said")).expect("written");
        for part in [
            "--codec yuv420",
            "--width 64",
            "--height 16",
            "--framerate 15",
            "--camera 0",
            "--output -",
        ] {
            assert!(said.contains(part), "no {part}: {said}");
        }
        assert!(!said.contains("CARGO"), "it sees our environment: {said}");
    }

    #[test]
    fn sizes_that_would_be_filled_up_are_refused() {
        let valid = config("rpicam-vid".into());
        assert_eq!(valid.validate(), Ok(()));
        let refused = |config: Config| config.validate().expect_err("refused").key;
        assert_eq!(
            refused(Config {
                width: 650,
                ..valid.clone()
            }),
            "camera.rpicam.width"
        );
        assert_eq!(
            refused(Config {
                height: 17,
                ..valid.clone()
            }),
            "camera.rpicam.height"
        );
        assert_eq!(refused(config("".into())), "camera.rpicam.program");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Camera::start(
            &config("/nonexistent/rpicam-vid".into()),
            stand_in::all(LONG),
            Stop::default(),
        );
        let text = error.err().expect("missing").to_string();
        assert!(text.contains("/nonexistent/rpicam-vid"), "{text}");
    }
}
