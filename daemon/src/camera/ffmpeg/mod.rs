//! Videos and network cameras, decoded by an `ffmpeg` process that writes uncompressed frames into a pipe.
//!
//! A decoder for files and streams from anywhere is the largest attack surface of a camera program, so it runs in a
//! process of its own, without our environment, and speaks a format to us that a small bounded parser reads (`y4m`).
//! The process is killed when the source is dropped; should we be killed, it dies of the closed pipe.

mod pipe;
pub mod y4m;

use super::{CameraError, FrameBuffer, FrameSource, Next, Pace, RtspConfig, VideoConfig};
use crate::stop::Stop;
use pipe::PatientPipe;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use ternwatch_detector::PixelFormat;
use y4m::{Y4mError, Y4mReader};

/// The longest line of ffmpeg's messages that is logged.
const MESSAGE_BYTES_MAX: u64 = 1024;
/// Time for ffmpeg to end by itself after its last frame.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// What ffmpeg reads.
#[derive(Clone, Debug)]
pub struct Input {
    /// For messages: without a password.
    shown: String,
    /// The secret part of an address, to be removed from ffmpeg's messages.
    secret: Option<String>,
    /// Options before `-i`, and the input.
    arguments: Vec<OsString>,
    /// Whether an end of the stream is the end of the source, or a failure.
    finite: bool,
    /// Whether frames come at the rate they were recorded with.
    is_paced: bool,
}

impl Input {
    /// A video file.
    pub fn video(config: &VideoConfig) -> Result<Self, CameraError> {
        let shown = config.path.display().to_string();
        // Opening it here gives a plainer error than ffmpeg's, and its own exit code.
        if let Err(source) = std::fs::File::open(&config.path) {
            return Err(CameraError::Open {
                what: shown,
                source,
            });
        }
        let mut arguments = Vec::new();
        if config.pace == Pace::RealTime {
            arguments.push("-re".into());
        }
        // `file:` keeps ffmpeg from reading a name with a colon as an address.
        let mut path = OsString::from("file:");
        path.push(&config.path);
        arguments.extend(["-i".into(), path]);
        Ok(Self {
            shown,
            secret: None,
            arguments,
            finite: true,
            is_paced: config.pace == Pace::RealTime,
        })
    }

    /// A network camera.
    pub fn rtsp(config: &RtspConfig) -> Self {
        let url = config.url.expose();
        let (shown, secret) = redact(url);
        // TCP: a lost UDP packet smears a picture until the next key frame. `nobuffer`: the newest frame counts.
        let arguments = [
            "-rtsp_transport",
            "tcp",
            "-fflags",
            "nobuffer",
            "-flags",
            "low_delay",
            "-i",
            url,
        ];
        Self {
            shown,
            secret,
            arguments: arguments.map(OsString::from).to_vec(),
            finite: false,
            is_paced: true,
        }
    }
}

/// An address without the user and password in it, and those.
fn redact(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.into(), None);
    };
    let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority_len].rfind('@') {
        Some(at) => (
            format!("{scheme}://[redacted]@{}", &rest[at + 1..]),
            Some(rest[..at].into()),
        ),
        None => (url.into(), None),
    }
}

/// A running ffmpeg and the frames it writes.
pub struct Decoder {
    input: Input,
    child: Child,
    frames: Y4mReader<BufReader<PatientPipe<ChildStdout>>>,
    last_message: Arc<Mutex<String>>,
    stall: Duration,
    /// Frames so far, and when the first one came.
    count: u64,
    first_ns: u64,
}

impl Decoder {
    /// Starts ffmpeg and waits for the size of its frames.
    pub fn start(
        program: &Path,
        input: Input,
        stall: Duration,
        stop: Stop,
    ) -> Result<Self, CameraError> {
        let mut child = command(program, &input)
            .spawn()
            .map_err(|source| CameraError::Open {
                what: format!("the program {}", program.display()),
                source,
            })?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let last_message = Arc::new(Mutex::new(String::new()));
        let messages = MessageLog {
            secret: input.secret.clone(),
            last: last_message.clone(),
        };
        // It ends with the pipe, which ends with the child.
        let logging = thread::Builder::new()
            .name("ffmpeg-log".into())
            .spawn(move || messages.run(stderr));
        let pipe = BufReader::with_capacity(1 << 16, PatientPipe::new(stdout, stall, stop));
        let mut decoder = Self {
            input,
            child,
            frames: Y4mReader::new(pipe),
            last_message,
            stall,
            count: 0,
            first_ns: 0,
        };
        if let Err(source) = logging {
            return Err(CameraError::Open {
                what: "a thread for ffmpeg's messages".into(),
                source,
            });
        }
        match decoder.frames.read_header() {
            Ok(()) => Ok(decoder),
            Err(error) => Err(decoder.explain(error)),
        }
    }

    /// Why there are no more frames.
    fn explain(&mut self, error: Y4mError) -> CameraError {
        if let Y4mError::Read(source) = &error {
            match source.kind() {
                io::ErrorKind::TimedOut => {
                    return CameraError::Stalled {
                        input: self.input.shown.clone(),
                        stall: self.stall,
                    };
                }
                io::ErrorKind::Other if pipe::is_stop(source) => return CameraError::Stopped,
                _ => {}
            }
        }
        let reason = match error {
            // The cause is in what ffmpeg said, not in the truncated output.
            Y4mError::Truncated => self.farewell(),
            other => other.to_string(),
        };
        CameraError::Ffmpeg {
            input: self.input.shown.clone(),
            reason,
        }
    }

    /// Waits for the end of ffmpeg and tells how it ended.
    fn farewell(&mut self) -> String {
        let status = match self.wait() {
            Some(status) if status.success() => "it ended early".into(),
            Some(status) => format!("it ended with {status}"),
            None => "it closed its output".into(),
        };
        let message = self
            .last_message
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if message.is_empty() {
            status
        } else {
            format!("{message} ({status})")
        }
    }

    fn wait(&mut self) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

impl FrameSource for Decoder {
    fn next_frame(&mut self, buffer: &mut FrameBuffer) -> Result<Next, CameraError> {
        let header = self.frames.header();
        let bytes = buffer.prepare(
            PixelFormat::I420,
            header.width,
            header.height,
            header.frame_len(),
        );
        match self.frames.read_frame(bytes) {
            Ok(true) => {
                buffer.arrived();
                if self.count == 0 {
                    self.first_ns = buffer.moment_ns;
                }
                if let Some(rate) = header.rate.filter(|_| !self.input.is_paced) {
                    buffer.moment_ns = self.first_ns.saturating_add(rate.moment_ns(self.count));
                }
                self.count += 1;
                Ok(Next::Frame)
            }
            Ok(false)
                if self.input.finite && self.wait().is_some_and(|status| status.success()) =>
            {
                Ok(Next::End)
            }
            Ok(false) => Err(self.explain(Y4mError::Truncated)),
            Err(error) => Err(self.explain(error)),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and `wait` only removes it from the process table.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &Path, input: &Input) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-hide_banner", "-nostdin", "-loglevel", "warning"])
        .args(&input.arguments)
        .args(["-map", "0:v:0", "-an", "-sn", "-dn"])
        // The detector's planar format has a chroma sample for two pixels each way: an odd last column or row goes.
        .args(["-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0"])
        // Every decoded frame once: the default repeats and drops frames to keep a constant rate.
        .args(["-fps_mode", "passthrough"])
        .args(["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "pipe:1"]);
    // Neither our settings, which may hold the broker's password, nor systemd's sockets are its business.
    command.env_clear();
    for name in ["PATH", "HOME", "LANG", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Logs what ffmpeg says and remembers the last of it.
struct MessageLog {
    secret: Option<String>,
    last: Arc<Mutex<String>>,
}

impl MessageLog {
    fn run(self, stderr: ChildStderr) {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            match stderr
                .by_ref()
                .take(MESSAGE_BYTES_MAX)
                .read_until(b'\n', &mut line)
            {
                Ok(0) | Err(_) => return,
                Ok(_) => self.note(&line),
            }
        }
    }

    fn note(&self, line: &[u8]) {
        let mut message = String::from_utf8_lossy(line).trim().to_string();
        if let Some(secret) = self.secret.as_deref().filter(|secret| !secret.is_empty()) {
            message = message.replace(secret, "[redacted]");
        }
        if message.is_empty() {
            return;
        }
        log::warn!("ffmpeg: {message}");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_removed_from_addresses() {
        for (url, shown, secret) in [
            (
                "rtsp://me:pass@cam/1",
                "rtsp://[redacted]@cam/1",
                Some("me:pass"),
            ),
            (
                "rtsp://me:p@ss@cam:554",
                "rtsp://[redacted]@cam:554",
                Some("me:p@ss"),
            ),
            ("rtsp://cam/a@b", "rtsp://cam/a@b", None),
            ("rtsp://cam?x=a@b", "rtsp://cam?x=a@b", None),
        ] {
            assert_eq!(
                redact(url),
                (shown.into(), secret.map(String::from)),
                "{url}"
            );
        }
    }

    #[test]
    fn messages_of_ffmpeg_are_remembered_without_the_password() {
        let log = MessageLog {
            secret: Some("me:pass".into()),
            last: Arc::default(),
        };
        log.note(b"rtsp://me:pass@cam/1: Connection refused\n");
        log.note(b"\n");
        assert_eq!(
            *log.last.lock().expect("no panic"),
            "rtsp://[redacted]@cam/1: Connection refused"
        );
    }

    #[test]
    fn a_missing_program_and_a_missing_video_are_named() {
        let video = VideoConfig {
            path: "/nonexistent/street.avi".into(),
            pace: Pace::RealTime,
        };
        let error = Input::video(&video).expect_err("missing");
        assert!(error.to_string().contains("street.avi"), "{error}");

        let input = Input::rtsp(&RtspConfig {
            url: serde_json::from_str("\"rtsp://cam/1\"").expect("a text"),
        });
        let error = Decoder::start(
            Path::new("/nonexistent/ffmpeg"),
            input,
            Duration::from_secs(1),
            Stop::default(),
        )
        .err()
        .expect("missing");
        assert!(error.to_string().contains("/nonexistent/ffmpeg"), "{error}");
    }
}
