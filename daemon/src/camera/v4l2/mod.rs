//! USB cameras through Video4Linux.
//!
//! A driver may block for ever, in any call. So a thread of its own talks to it, hands raw frames over, and is waited for with
//! patience; when it does not come back, the camera counts as hung and the program has to end, which frees the driver.
//! Choosing a format and turning raw bytes into a frame are pure functions beside this module.

pub mod decode;
mod driver;
pub mod format;

use super::minute::Minute;
use super::{CLOSING_MAX, CameraError, FrameBuffer, FrameSource, Next, Waits};
use crate::clock::Timestamp;
use crate::config::{Invalid, in_range};
use crate::mailbox::{Mailbox, Put, Taken};
use crate::stop::Stop;
use decode::{DecodeError, Decoder};
use driver::Streaming;
use format::{Layout, Offer, Wanted};
use nokhwa::utils::{ApiBackend, CameraIndex};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a waiting reader looks whether a stop was asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Cameras that an error names in place of one that is not there.
const NAMED_MAX: usize = 4;
/// Frames in a row that cannot be decoded before the camera counts as broken.
const DAMAGED_MAX: u32 = 30;
/// So many damaged frames in a minute are told of.
const DAMAGED_MANY: u64 = 30;

/// The `[camera.v4l2]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `/dev/videoN` or a link to it.
    pub device: PathBuf,
    /// Wanted pixels.
    pub width: u32,
    /// Wanted pixels.
    pub height: u32,
    /// Wanted rate.
    pub frames_per_second: u32,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.device.as_os_str().is_empty() {
            return Err(Invalid::new(
                "camera.v4l2.device",
                "is empty; name a device such as /dev/video0",
            ));
        }
        in_range("camera.v4l2.width", self.width, 16..=super::SIDE_MAX)?;
        in_range("camera.v4l2.height", self.height, 16..=super::SIDE_MAX)?;
        in_range(
            "camera.v4l2.frames_per_second",
            self.frames_per_second,
            1..=240,
        )
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            width: self.width,
            height: self.height,
            frames_per_second: self.frames_per_second,
        }
    }
}

/// An open camera.
pub struct Camera {
    device: String,
    decoder: Decoder,
    mailbox: Arc<Mailbox<Raw>>,
    raw: Raw,
    driver: Option<JoinHandle<Result<(), String>>>,
    ending: Arc<AtomicBool>,
    /// Frames that the driver's thread put in the place of others since the last one was taken.
    replaced: Arc<AtomicU64>,
    damaged: Minute,
    stall: Duration,
    /// Time for the driver's thread to end after it was asked to.
    closing: Duration,
    stop: Stop,
}

/// Bytes as the driver gave them.
#[derive(Default)]
struct Raw {
    bytes: Vec<u8>,
    captured_at: Timestamp,
}

impl Camera {
    /// Opens the camera in the offered format that is nearest to the wanted one.
    pub fn open(config: &Config, waits: Waits, stop: Stop) -> Result<Self, CameraError> {
        let device = config.device.display().to_string();
        let index = openable(&config.device).map_err(|source| cannot_open(&device, source))?;
        let failed = |reason: String| CameraError::Device {
            device: device.clone(),
            reason,
        };
        let mailbox = Arc::new(Mailbox::new(Raw::default()));
        let ending = Arc::new(AtomicBool::new(false));
        let replaced = Arc::new(AtomicU64::new(0));
        let (opened, opening) = mpsc::sync_channel(1);
        let wanted = config.wanted();
        let driver = thread::Builder::new()
            .name("v4l2".into())
            .spawn({
                let (mailbox, ending) = (mailbox.clone(), ending.clone());
                let replaced = replaced.clone();
                move || {
                    let _closing = Closing(&mailbox);
                    let mut camera = Streaming::open(index, &wanted, &ending)?;
                    let _ = opened.send(camera.layout());
                    drive(&mut camera, &mailbox, &replaced, &ending)
                }
            })
            .map_err(|error| failed(error.to_string()))?;
        let mut camera = Self {
            device: device.clone(),
            decoder: Decoder::default(),
            mailbox,
            raw: Raw::default(),
            driver: Some(driver),
            ending,
            replaced,
            damaged: Minute::default(),
            stall: waits.stall,
            closing: CLOSING_MAX,
            stop,
        };
        let layout = camera.started(&opening, waits.opening)?;
        log::info!("camera {device} delivers {}", layout.offer);
        camera.decoder = Decoder::new(layout);
        Ok(camera)
    }

    /// Waits for the driver's thread to have started the camera.
    fn started(
        &mut self,
        opening: &mpsc::Receiver<Layout>,
        patience: Duration,
    ) -> Result<Layout, CameraError> {
        let deadline = Instant::now() + patience;
        loop {
            match opening.recv_timeout(LOOK_INTERVAL) {
                Ok(layout) => return Ok(layout),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.end()),
                Err(mpsc::RecvTimeoutError::Timeout) if self.stop.requested() => {
                    return Err(CameraError::Stopped);
                }
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(self.give_up(CameraError::Stalled {
                        input: self.device.clone(),
                        stall: patience,
                    }));
                }
            }
        }
    }

    /// Ends the driver's thread, for this reason, unless it hangs: then that is the reason.
    fn give_up(&mut self, reason: CameraError) -> CameraError {
        match self.end() {
            hung @ CameraError::Hung { .. } => hung,
            _ => reason,
        }
    }

    /// Ends the driver's thread and tells what was wrong.
    fn end(&mut self) -> CameraError {
        self.let_go();
        let Some(driver) = self.driver.take() else {
            return CameraError::Stopped;
        };
        let deadline = Instant::now() + self.closing;
        while !driver.is_finished() {
            // At the end of the program nobody waits for the driver: the time to end is bounded.
            if self.stop.requested() {
                return CameraError::Stopped;
            }
            if Instant::now() > deadline {
                // The thread stays behind with the device; nothing but the end of the process frees it.
                return CameraError::Hung {
                    device: self.device.clone(),
                };
            }
            thread::sleep(Duration::from_millis(5));
        }
        let reason = match driver.join() {
            Ok(Ok(())) => "it was closed".into(),
            Ok(Err(reason)) => reason,
            Err(_) => "the camera library panicked".into(),
        };
        CameraError::Device {
            device: self.device.clone(),
            reason,
        }
    }

    fn let_go(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.mailbox.close();
    }

    /// A frame could not be decoded. One that was damaged on the cable is common with USB; many are worth a look at it.
    fn note_damage(&mut self, error: &DecodeError) {
        log::debug!("camera {}: frame skipped: {error}", self.device);
        match self.damaged.add(Instant::now()) {
            Some(before) if before >= DAMAGED_MANY => log::warn!(
                "camera {}: {before} damaged frames in a minute, such as: {error}; its cable may be bad, or its bus too busy",
                self.device
            ),
            _ => {}
        }
    }
}

impl FrameSource for Camera {
    fn next_frame(&mut self, buffer: &mut FrameBuffer) -> Result<Next, CameraError> {
        let deadline = Instant::now() + self.stall;
        let mut damaged = 0;
        loop {
            if self.stop.requested() {
                return Err(CameraError::Stopped);
            }
            match self.mailbox.take(&mut self.raw, LOOK_INTERVAL) {
                Taken::Item => {}
                Taken::Closed => return Err(self.end()),
                Taken::TimedOut if Instant::now() < deadline => continue,
                Taken::TimedOut => {
                    return Err(self.give_up(CameraError::Stalled {
                        input: self.device.clone(),
                        stall: self.stall,
                    }));
                }
            }
            match self.decoder.decode(&self.raw.bytes, buffer) {
                Ok(()) => {
                    buffer.captured_at = self.raw.captured_at;
                    buffer.moment_ns = self.raw.captured_at.monotonic_ns;
                    buffer.replaced = self.replaced.swap(0, Ordering::Relaxed);
                    return Ok(Next::Frame);
                }
                // A camera that sends nothing else is broken.
                Err(error) => {
                    damaged += 1;
                    self.note_damage(&error);
                    if damaged >= DAMAGED_MAX || Instant::now() >= deadline {
                        return Err(self.give_up(CameraError::Device {
                            device: self.device.clone(),
                            reason: format!("{damaged} damaged frames in a row, the last: {error}"),
                        }));
                    }
                }
            }
        }
    }

    fn close(&mut self) -> Result<(), CameraError> {
        match self.end() {
            hung @ CameraError::Hung { .. } => Err(hung),
            _ => Ok(()),
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        // It is not waited for: whoever wants to open the camera again has closed it.
        self.let_go();
    }
}

/// What a camera offers, for people to read. Gives up on a driver that does not answer within `patience`.
pub fn offered(config: &Config, patience: Duration) -> Result<Vec<String>, CameraError> {
    let name = config.device.display().to_string();
    let index = openable(&config.device).map_err(|source| cannot_open(&name, source))?;
    let (answer, answers) = mpsc::sync_channel(1);
    let wanted = config.wanted();
    // A driver that hangs keeps the thread, until the program ends.
    thread::spawn(move || answer.send(driver::offers(index, &wanted)));
    match answers.recv_timeout(patience) {
        Ok(Ok(offers)) => Ok(offers.iter().map(Offer::to_string).collect()),
        Ok(Err(reason)) => Err(CameraError::Device {
            device: name,
            reason,
        }),
        Err(_) => Err(CameraError::Hung { device: name }),
    }
}

/// The N of `/dev/videoN`, which a link may point to.
fn device_index(device: &Path) -> io::Result<u32> {
    let resolved = device.canonicalize()?;
    resolved
        .to_str()
        .and_then(|path| path.strip_prefix("/dev/video"))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| io::Error::other("it is not a /dev/videoN"))
}

/// The number of a camera that is there and that this user may open. The library does not tell the two failures apart.
pub(crate) fn openable(device: &Path) -> io::Result<u32> {
    let index = device_index(device)?;
    match access(device, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Ok(index),
        Err(Errno::ACCESS) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "permission denied; cameras belong to the group video, and this user has to be in it",
        )),
        Err(error) => Err(error.into()),
    }
}

fn cannot_open(device: &str, source: io::Error) -> CameraError {
    let source = match source.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(source.kind(), format!("{source}; {}", there_is()))
        }
        _ => source,
    };
    CameraError::Open {
        what: device.into(),
        source,
    }
}

/// Which cameras the system knows, for whoever named another one.
fn there_is() -> String {
    let cameras = nokhwa::query(ApiBackend::Video4Linux).unwrap_or_default();
    let mut named: Vec<(u32, String)> = cameras
        .iter()
        .filter_map(|camera| match camera.index() {
            CameraIndex::Index(index) => Some((*index, camera.human_name())),
            CameraIndex::String(_) => None,
        })
        .collect();
    named.sort();
    if named.is_empty() {
        return "no other camera is there".into();
    }
    let first: Vec<String> = named
        .iter()
        .take(NAMED_MAX)
        .map(|(index, name)| format!("/dev/video{index} ({name})"))
        .collect();
    let mut text = format!("there is {}", first.join(", "));
    if named.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", named.len() - NAMED_MAX));
    }
    text
}

/// Tells whoever waits for frames that none will come, also when the library panics.
struct Closing<'a>(&'a Mailbox<Raw>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The driver's thread: hands frames over until it is told to end.
fn drive(
    camera: &mut Streaming,
    mailbox: &Mailbox<Raw>,
    replaced: &AtomicU64,
    ending: &AtomicBool,
) -> Result<(), String> {
    let mut raw = Raw::default();
    while !ending.load(Ordering::Relaxed) {
        let next = camera.next(LOOK_INTERVAL);
        let Some(bytes) = next.map_err(|error| format!("it gives no frame: {error}"))? else {
            continue;
        };
        raw.captured_at = Timestamp::now();
        raw.bytes.clear();
        raw.bytes.extend_from_slice(bytes);
        if !hand_over(&mut raw, mailbox, replaced) {
            break;
        }
    }
    Ok(())
}

/// Hands a frame over, in the place of one that nobody took; `false` if nobody takes frames any more.
fn hand_over(raw: &mut Raw, mailbox: &Mailbox<Raw>, replaced: &AtomicU64) -> bool {
    let put = mailbox.replace(raw);
    if put == Put::Replaced {
        replaced.fetch_add(1, Ordering::Relaxed);
    }
    put != Put::Closed
}

#[cfg(test)]
mod tests {
    use super::format::Encoding;
    use super::*;
    use crate::camera::stand_in::{self, LONG};
    use std::sync::mpsc::{Receiver, Sender};

    const SHORT: Duration = Duration::from_millis(50);

    /// A camera of two by two pixels whose driver's thread does this.
    fn camera(driver: impl FnOnce() + Send + 'static, stop: Stop) -> Camera {
        let offer = Offer {
            width: 2,
            height: 2,
            encoding: Encoding::Yuyv,
            ..Offer::default()
        };
        Camera {
            device: "/dev/video0".into(),
            decoder: Decoder::new(Layout {
                offer,
                line_bytes: 0,
            }),
            mailbox: Arc::new(Mailbox::new(Raw::default())),
            raw: Raw::default(),
            driver: Some(thread::spawn(move || {
                driver();
                Ok(())
            })),
            ending: Arc::default(),
            replaced: Arc::default(),
            damaged: Minute::default(),
            stall: SHORT,
            closing: SHORT,
            stop,
        }
    }

    /// A camera whose driver hangs until the sender is dropped.
    fn hanging(stop: Stop) -> (Camera, Sender<()>) {
        let (held, hold): (_, Receiver<()>) = mpsc::channel();
        let driver = move || {
            let _ = hold.recv();
        };
        (camera(driver, stop), held)
    }

    fn raw(bytes: &[u8]) -> Raw {
        Raw {
            bytes: bytes.into(),
            captured_at: Timestamp::now(),
        }
    }

    /// Hands frames of these bytes over, again and again, until nobody takes them.
    fn feed(camera: &Camera, bytes: &'static [u8]) -> JoinHandle<()> {
        let (mailbox, replaced) = (camera.mailbox.clone(), camera.replaced.clone());
        thread::spawn(move || while hand_over(&mut raw(bytes), &mailbox, &replaced) {})
    }

    #[test]
    fn a_driver_that_hangs_is_told_of_whyever_the_camera_is_closed() {
        let mut buffer = FrameBuffer::empty();
        let is_hung = |error: &CameraError| matches!(error, CameraError::Hung { .. });
        let (mut silent, _held) = hanging(Stop::default());
        let error = silent.next_frame(&mut buffer).expect_err("no frame");
        assert!(is_hung(&error), "{error}");
        let (mut damaged, _held) = hanging(Stop::default());
        damaged.stall = LONG;
        let feeder = feed(&damaged, b"short");
        let error = damaged.next_frame(&mut buffer).expect_err("damaged");
        assert!(is_hung(&error), "{error}");
        feeder.join().expect("it ends");
        let (mut restarted, _held) = hanging(Stop::default());
        let error = restarted.close().expect_err("it hangs");
        assert!(is_hung(&error), "{error}");
    }

    #[test]
    fn a_driver_that_takes_its_time_to_end_is_waited_for() {
        let slow = || camera(|| thread::sleep(10 * SHORT), Stop::default());
        let mut silent = slow();
        silent.closing = CLOSING_MAX;
        let error = silent.next_frame(&mut FrameBuffer::empty());
        let error = error.expect_err("no frame");
        assert!(matches!(error, CameraError::Stalled { .. }), "{error}");
        let mut restarted = slow();
        restarted.closing = CLOSING_MAX;
        restarted.close().expect("closed");
        // Two requests of the driver for USB cameras, at five seconds each.
        const { assert!(CLOSING_MAX.as_secs() > 10) };
    }

    #[test]
    fn a_driver_that_does_not_start_the_camera_is_given_up() {
        let (_opened, opening) = mpsc::sync_channel(1);
        let (mut hung, _held) = hanging(Stop::default());
        let error = hung.started(&opening, SHORT).expect_err("it hangs");
        assert!(matches!(error, CameraError::Hung { .. }), "{error}");
        let mut slow = camera(|| (), Stop::default());
        slow.closing = LONG;
        let error = slow.started(&opening, SHORT).expect_err("it is slow");
        assert!(
            matches!(error, CameraError::Stalled { stall: SHORT, .. }),
            "{error}"
        );
        let stop = Stop::default();
        stop.request();
        let (mut stopped, _held) = hanging(stop);
        let error = stopped.started(&opening, LONG).expect_err("stopped");
        assert!(matches!(error, CameraError::Stopped), "{error}");
    }

    #[test]
    fn a_driver_that_hangs_is_not_waited_for_at_the_end_of_the_program() {
        let stop = Stop::default();
        stop.request();
        let (mut camera, _held) = hanging(stop);
        camera.closing = LONG;
        let asked_at = Instant::now();
        camera.close().expect("nobody waits");
        drop(camera);
        assert!(asked_at.elapsed() < LONG);
    }

    #[test]
    fn frames_that_came_too_fast_are_counted_with_the_next_one() {
        let (mut camera, _held) = hanging(Stop::default());
        camera.stall = LONG;
        let mut buffer = FrameBuffer::empty();
        for (came, replaced) in [(3, 2), (1, 0)] {
            for _ in 0..came {
                assert!(hand_over(
                    &mut raw(&[7; 8]),
                    &camera.mailbox,
                    &camera.replaced
                ));
            }
            camera.next_frame(&mut buffer).expect("a frame");
            assert_eq!(buffer.replaced, replaced);
        }
    }

    #[test]
    fn a_device_that_is_not_there_or_not_a_camera_is_named() {
        let config = |device: &str| Config {
            device: device.into(),
            width: 640,
            height: 480,
            frames_per_second: 15,
        };
        for device in ["/dev/video-missing", "/dev/null"] {
            let waits = stand_in::all(Duration::from_secs(1));
            let error = Camera::open(&config(device), waits, Stop::default())
                .err()
                .expect("no camera");
            assert!(matches!(error, CameraError::Open { .. }), "{error}");
            assert!(error.to_string().contains(device), "{error}");
        }
    }
}
