//! Videos and network cameras, decoded by an `ffmpeg` process that writes uncompressed frames into a pipe.
//!
//! A decoder for files and streams from anywhere is the largest attack surface of a camera program, so it runs in a
//! process of its own, without our environment, and speaks a format to us that a small bounded parser reads (`y4m`).

pub mod y4m;

use super::child::{self, Helper};
use super::pipe::{self, PatientPipe};
use super::{CameraError, FrameBuffer, FrameSource, Next, Pace, RtspConfig, VideoConfig, Waits};
use crate::stop::Stop;
use std::ffi::OsString;
use std::io::{self, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command};
use ternwatch_detector::PixelFormat;
use y4m::{Y4mError, Y4mReader};

/// What ffmpeg reads.
#[derive(Clone, Debug)]
pub struct Input {
    /// For messages: without a password.
    shown: String,
    /// The secret parts of an address, to be removed from ffmpeg's messages.
    secrets: Vec<String>,
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
            secrets: Vec::new(),
            arguments,
            finite: true,
            is_paced: config.pace == Pace::RealTime,
        })
    }

    /// A network camera.
    pub fn rtsp(config: &RtspConfig) -> Self {
        let url = config.url.expose();
        let (shown, secrets) = redact(url);
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
            secrets,
            arguments: arguments.map(OsString::from).to_vec(),
            finite: false,
            is_paced: true,
        }
    }
}

/// An address without what lets somebody in, and that. A password that should have been escaped may have anything in it: what comes
/// before the last `@` is not shown. Some cameras want both in the path, as `/user=me&password=pass`, or behind a `?`: what comes from
/// there on is not shown either.
fn redact(url: &str) -> (String, Vec<String>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.into(), Vec::new());
    };
    let mut secrets = Vec::new();
    let mut shown = format!("{scheme}://");
    let mut address = rest;
    if let Some((account, behind)) = rest.rsplit_once('@') {
        secrets.push(account.into());
        shown.push_str("[redacted]@");
        address = behind;
    }
    let (host, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    let settings = path
        .find(['=', '?'])
        .map(|at| match path[at..].starts_with('?') {
            true => at + 1,
            false => path[..at].rfind('/').map_or(at, |slash| slash + 1),
        });
    let (path, settings) = path.split_at(settings.unwrap_or(path.len()));
    shown.push_str(host);
    shown.push_str(path);
    if !settings.is_empty() {
        secrets.push(settings.into());
        shown.push_str("[redacted]");
    }
    (shown, secrets)
}

/// A running ffmpeg and the frames it writes.
pub struct Decoder {
    input: Input,
    helper: Helper,
    frames: Y4mReader<BufReader<PatientPipe<ChildStdout>>>,
    /// Frames so far, and when the first one came.
    count: u64,
    first_ns: u64,
}

impl Decoder {
    /// Starts ffmpeg and waits for the size of its frames, which it knows with the first one.
    pub fn start(
        program: &Path,
        input: Input,
        waits: Waits,
        stop: Stop,
    ) -> Result<Self, CameraError> {
        let command = command(program, &input);
        let (helper, stdout) = Helper::start("ffmpeg", command, input.secrets.clone())?;
        let pipe = PatientPipe::new(stdout, waits.opening, stop);
        let pipe = BufReader::with_capacity(1 << 16, pipe);
        let mut decoder = Self {
            input,
            helper,
            frames: Y4mReader::new(pipe),
            count: 0,
            first_ns: 0,
        };
        if let Err(error) = decoder.frames.read_header() {
            return Err(decoder.explain(error));
        }
        decoder.pipe().be_patient_for(waits.stall);
        Ok(decoder)
    }

    fn pipe(&mut self) -> &mut PatientPipe<ChildStdout> {
        self.frames.reader_mut().get_mut()
    }

    /// Why there are no more frames.
    fn explain(&mut self, error: Y4mError) -> CameraError {
        if let Y4mError::Read(source) = &error {
            match source.kind() {
                io::ErrorKind::TimedOut => {
                    return CameraError::Stalled {
                        input: self.input.shown.clone(),
                        stall: self.pipe().patience(),
                    };
                }
                io::ErrorKind::Other if pipe::is_stop(source) => return CameraError::Stopped,
                _ => {}
            }
        }
        let reason = match error {
            // The cause is in what ffmpeg said, not in the truncated output.
            Y4mError::Truncated => self.helper.farewell(),
            other => other.to_string(),
        };
        CameraError::Ffmpeg {
            input: self.input.shown.clone(),
            reason,
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
                if self.input.finite
                    && self.helper.wait().is_some_and(|status| status.success()) =>
            {
                Ok(Next::End)
            }
            Ok(false) => Err(self.explain(Y4mError::Truncated)),
            Err(error) => Err(self.explain(error)),
        }
    }
}

fn command(program: &Path, input: &Input) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-hide_banner", "-nostdin", "-loglevel", "warning"])
        .args(&input.arguments)
        .args(["-map", "0:v:0", "-an", "-sn", "-dn"])
        // The detector's planar format has a chroma sample for two pixels each way: an odd last column or row goes. It is of
        // limited range. JPEG and some cameras' streams are not, and ffmpeg may leave that as it is.
        .args([
            "-vf",
            "crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0,scale=out_range=tv",
        ])
        // Every decoded frame once: the default repeats and drops frames to keep a constant rate.
        .args(["-fps_mode", "passthrough"]);
    if !input.finite {
        // RTP's clock. Frames that come unevenly would have the same time on one that ticks once a frame, which ffmpeg warns of.
        command.args(["-enc_time_base", "1/90000"]);
    }
    command.args(["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "pipe:1"]);
    child::seclude(&mut command);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::stand_in::{self, LONG, started};
    use std::fs;
    use std::time::Duration;

    /// What this ffmpeg makes of a file with these bytes, as fast as it can.
    fn decoded<T>(
        program: &Path,
        bytes: &[u8],
        waits: Waits,
        then: impl FnOnce(Result<Decoder, CameraError>) -> T,
    ) -> T {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, bytes).expect("written");
        let input = Input::video(&VideoConfig {
            path: file.path().into(),
            pace: Pace::AsFastAsPossible,
        });
        let input = input.expect("it is there");
        then(started(|| {
            Decoder::start(program, input.clone(), waits, Stop::default())
        }))
    }

    #[test]
    fn passwords_are_removed_from_addresses() {
        for (url, shown, secrets) in [
            (
                "rtsp://me:pass@cam/1",
                "rtsp://[redacted]@cam/1",
                &["me:pass"][..],
            ),
            (
                "rtsp://me:p@ss@cam:554",
                "rtsp://[redacted]@cam:554",
                &["me:p@ss"],
            ),
            (
                "rtsp://me:p/a?s#s@cam/1",
                "rtsp://[redacted]@cam/1",
                &["me:p/a?s#s"],
            ),
            ("rtsp://cam/a@b", "rtsp://[redacted]@b", &["cam/a"]),
            ("rtsp://cam/a", "rtsp://cam/a", &[]),
            (
                "rtsp://cam/live/user=me&password=pass&stream=0.sdp",
                "rtsp://cam/live/[redacted]",
                &["user=me&password=pass&stream=0.sdp"],
            ),
            (
                "rtsp://cam:554/live?username=me&password=pass",
                "rtsp://cam:554/live?[redacted]",
                &["username=me&password=pass"],
            ),
            (
                "rtsp://me:pass@cam/1?b=2",
                "rtsp://[redacted]@cam/1?[redacted]",
                &["me:pass", "b=2"],
            ),
        ] {
            assert_eq!(
                redact(url),
                (
                    shown.into(),
                    secrets.iter().map(|s| String::from(*s)).collect()
                ),
                "{url}"
            );
        }
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
            stand_in::all(Duration::from_secs(1)),
            Stop::default(),
        )
        .err()
        .expect("missing");
        assert!(error.to_string().contains("/nonexistent/ffmpeg"), "{error}");
    }

    #[test]
    fn frames_that_come_unevenly_are_nothing_to_warn_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("uneven.mp4");
        let picture = "testsrc=size=16x16:rate=10:duration=10,settb=1/90000,\
                       setpts=(N/10+random(0)*0.09)*90000";
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", picture])
            .args(["-fps_mode", "passthrough", "-enc_time_base", "1/90000"])
            .args(["-c:v", "libx264"])
            .arg(&file)
            .status();
        assert!(status.expect("ffmpeg runs").success());
        let input = Input {
            shown: "uneven".into(),
            secrets: Vec::new(),
            arguments: vec!["-i".into(), file.into()],
            finite: false,
            is_paced: true,
        };
        let waits = stand_in::all(LONG);
        let mut decoder =
            Decoder::start(Path::new("ffmpeg"), input, waits, Stop::default()).expect("it starts");
        let mut buffer = FrameBuffer::empty();
        for _ in 0..100 {
            decoder.next_frame(&mut buffer).expect("a frame");
        }
        let end = decoder.next_frame(&mut buffer).expect_err("the end");
        // A warning would be quoted.
        assert_eq!(
            end.to_string(),
            "ffmpeg could not decode uneven: it ended early"
        );
    }

    #[test]
    fn a_video_of_full_range_becomes_one_of_limited_range() {
        for (range, expected) in [
            ("FULL", [16, 71, 126, 180, 235]),
            ("LIMITED", [0, 64, 128, 191, 255]),
        ] {
            // Five columns of 16 pixels, grey.
            let row: Vec<u8> = [0, 64, 128, 191, 255].map(|luma| [luma; 16]).concat();
            let mut video =
                format!("YUV4MPEG2 W80 H16 F10:1 Ip A1:1 C420jpeg XCOLORRANGE={range}\nFRAME\n")
                    .into_bytes();
            video.extend(row.repeat(16));
            video.extend([128; 80 * 16 / 2]);
            decoded(
                Path::new("ffmpeg"),
                &video,
                stand_in::all(LONG),
                |decoder| {
                    let mut buffer = FrameBuffer::empty();
                    let next = decoder.expect("starts").next_frame(&mut buffer);
                    assert_eq!(next.expect("a frame"), Next::Frame);
                    for (column, expected) in expected.iter().enumerate() {
                        let found = buffer.data[column * 16 + 8];
                        assert!(
                            found.abs_diff(*expected) <= 1,
                            "{range}: {found} for {expected}"
                        );
                    }
                },
            );
        }
    }

    #[test]
    fn the_first_frame_may_take_longer_than_those_after_it() {
        let header = "printf 'YUV4MPEG2 W2 H2\\nFRAME\\nabcdef'";
        let short = Duration::from_millis(300);
        let waits = |opening| Waits {
            opening,
            stall: short,
        };
        let script = format!("sleep 1; {header}; exec sleep 600");
        let (_folder, program) = stand_in::program("ffmpeg", &script);
        let stall_of = |error: CameraError| match error {
            CameraError::Stalled { stall, .. } => stall,
            other => panic!("{other}"),
        };
        decoded(&program, &[], waits(LONG), |decoder| {
            let mut decoder = decoder.expect("it is waited for");
            let mut buffer = FrameBuffer::empty();
            assert_eq!(
                decoder.next_frame(&mut buffer).expect("a frame"),
                Next::Frame
            );
            let error = decoder.next_frame(&mut buffer).expect_err("it hangs");
            assert_eq!(stall_of(error), short);
        });
        decoded(&program, &[], waits(short), |decoder| {
            assert_eq!(stall_of(decoder.err().expect("too late")), short);
        });
    }
}
