//! The order of the stages: capture, newest-wins mailbox, motion gate, inference, tracking, zones, documents, outlet.
//!
//! Two threads, and a third one that makes pictures. Capture opens the source, opens a live one again when it fails, and puts frames into the mailbox.
//! Inference takes the newest, follows what it finds there, and hands documents to the outlet. Each ends after the one before it: the end of a
//! file, a stop, or a broken camera runs through all of them, and what was captured last is still published.

pub mod mail;
pub mod switches;
mod watch;

pub use watch::{Places, Watch};

use crate::backoff::Backoff;
use crate::camera::{self, CameraError, FrameBuffer, FrameSource, Next};
use crate::clock::Timestamp;
use crate::config::Invalid;
use crate::config::choice::Choice;
use crate::exit::Reason;
use crate::health::Health;
use crate::mailbox::{Mailbox, Put, Taken};
use crate::model;
use crate::motion::{Gate, Need, Verdict};
use crate::publish::camera_state::Condition;
use crate::publish::payload::{Examined, Shown, Source};
use crate::publish::{Document, Outgoing};
use crate::stop::Stop;
use crate::update::slot::Slot;
use mail::Mail;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use switches::Switches;
use ternwatch_detector::{Detection, Detector, Frame, FrameError, Thresholds};
use thiserror::Error;

/// So long the service waits for its first frame before it is ready without: systemd gives it a minute.
const FIRST_FRAME: Duration = Duration::from_secs(20);
/// The longest wait of a thread before it shows a sign of life.
const WAIT: Duration = Duration::from_millis(500);

/// The `[pipeline]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What happens to frames that arrive while the detector is busy.
    #[serde(with = "crate::config::choice")]
    pub when_busy: WhenBusy,
}

/// What happens to frames that arrive while the detector is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBusy {
    /// Only the newest is kept.
    DropOldest,
    /// The source waits.
    Wait,
}

impl Choice for WhenBusy {
    const NAMED: &'static [(&'static str, Self)] =
        &[("drop-oldest", Self::DropOldest), ("wait", Self::Wait)];
}

impl Config {
    /// Checks the values against the kind of source.
    pub fn validate(&self, camera: &camera::Config) -> Result<(), Invalid> {
        if self.when_busy == WhenBusy::Wait && !camera.source.is_finite() {
            let reason = "\"wait\" is for videos and stills: a camera does not wait";
            return Err(Invalid::new("pipeline.when_busy", reason));
        }
        Ok(())
    }
}

/// What both threads share.
#[derive(Clone)]
pub struct Shared {
    /// From capture to inference.
    pub mailbox: Arc<Mailbox<FrameBuffer>>,
    /// What happens to frames, and to documents, that nobody takes.
    pub when_busy: WhenBusy,
    /// The wish to end.
    pub stop: Stop,
    /// Signs of life.
    pub health: Arc<Health>,
    /// What was asked for while it runs.
    pub switches: Arc<Switches>,
}

/// Whether a source that failed is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revival {
    /// A camera may come, and come back.
    Reopen {
        /// Which settings name another one.
        advice: &'static str,
    },
    /// A file that is broken stays so.
    Never,
}

/// The capture thread: ends well at the end of the source or on a stop.
pub fn capture(
    shared: &Shared,
    revival: Revival,
    mut open: impl FnMut() -> Result<Box<dyn FrameSource>, CameraError>,
) -> Result<(), CameraError> {
    let mut capture = Capture {
        shared,
        buffer: FrameBuffer::empty(),
        sequence: 0,
        worked: None,
        backoff: Backoff::default(),
    };
    loop {
        shared.health.capture_lives();
        let error = match open().and_then(|mut source| capture.deliver(source.as_mut())) {
            Ok(Delivered::Everything) | Err(CameraError::Stopped) => return Ok(()),
            Ok(Delivered::UntilRestart) => continue,
            // A signal to the terminal's programs, or the service manager's to all of ours, ends a decoder sooner than us.
            Err(_) if shared.stop.requested() => return Ok(()),
            Err(error) => error,
        };
        let Revival::Reopen { advice } = revival else {
            return Err(error);
        };
        if !error.may_pass() {
            return Err(error);
        }
        // A camera that is not there yet may be plugged in; one that is named wrongly is told of until it is mended.
        let trouble = format!("{:#} ({advice})", anyhow::Error::new(error));
        shared.health.camera_failed(&trouble);
        let delay = capture.next_delay();
        log::warn!("{trouble}; next attempt in {:.1} s", delay.as_secs_f32());
        if capture.wait(delay) {
            return Ok(());
        }
    }
}

/// Why a source delivers no more.
#[derive(Debug)]
enum Delivered {
    /// It ended, or nobody takes frames any more.
    Everything,
    /// It is to be opened again.
    UntilRestart,
}

struct Capture<'a> {
    shared: &'a Shared,
    buffer: FrameBuffer,
    sequence: u64,
    /// When the first and the last frame came since the camera was opened.
    worked: Option<(Instant, Instant)>,
    backoff: Backoff,
}

impl Capture<'_> {
    /// Puts every frame of the source into the mailbox.
    fn deliver(&mut self, source: &mut dyn FrameSource) -> Result<Delivered, CameraError> {
        let health = &self.shared.health;
        loop {
            health.capture_lives();
            if source.next_frame(&mut self.buffer)? == Next::End {
                return Ok(Delivered::Everything);
            }
            if health.camera_works() {
                log::info!("the camera is back");
            }
            let now = Instant::now();
            let (first, _) = self.worked.unwrap_or((now, now));
            self.worked = Some((first, now));
            // Those that the source itself replaced are dropped like those that the mailbox replaces.
            let replaced = self.buffer.replaced;
            self.buffer.sequence = self.sequence + replaced;
            self.sequence += replaced + 1;
            health.captured.fetch_add(replaced + 1, Ordering::Relaxed);
            health.dropped.fetch_add(replaced, Ordering::Relaxed);
            if !self.put() {
                return Ok(Delivered::Everything);
            }
            if self.shared.switches.take_restart() {
                log::info!("the camera is opened again, as was asked for");
                source.close()?;
                return Ok(Delivered::UntilRestart);
            }
        }
    }

    /// Hands the frame over; `false` if nobody takes frames any more.
    fn put(&mut self) -> bool {
        let Shared {
            mailbox,
            when_busy,
            stop,
            health,
            ..
        } = self.shared;
        loop {
            let put = match when_busy {
                WhenBusy::DropOldest => mailbox.replace(&mut self.buffer),
                WhenBusy::Wait => mailbox.offer(&mut self.buffer, WAIT),
            };
            match put {
                Put::Stored => return true,
                Put::Replaced => {
                    health.dropped.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Put::Closed => return false,
                // The detector is busy with a frame, or with waiting for the broker.
                Put::TimedOut if stop.requested() => return false,
                Put::TimedOut => health.capture_lives(),
            }
        }
    }

    /// The wait before the next attempt: a short one only if the camera delivered for a while.
    fn next_delay(&mut self) -> Duration {
        if let Some((first, last)) = self.worked.take() {
            self.backoff.worked_for(last - first);
        }
        self.backoff.next_delay()
    }

    /// Waits on purpose, not as long if the camera is to be opened again; tells whether a stop was asked for.
    fn wait(&self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        loop {
            if self.shared.switches.take_restart() {
                return self.shared.stop.requested();
            }
            self.shared.health.capture_lives();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.shared.stop.requested();
            }
            if self.shared.stop.wait(left.min(WAIT)) {
                return true;
            }
        }
    }
}

/// Where documents go.
pub struct Outlet {
    /// To the broker.
    pub outgoing: Option<Arc<Outgoing>>,
    /// To standard output.
    pub stdout: bool,
}

/// Why the inference thread ended.
#[derive(Debug, Error)]
pub enum InferenceError {
    /// A source delivered something that is not a frame: a bug.
    #[error("frame {sequence} is not one")]
    Frame {
        /// The frame's number.
        sequence: u64,
        /// Why.
        source: FrameError,
    },
    /// Standard output is closed.
    #[error("cannot write to standard output")]
    Stdout(#[from] std::io::Error),
}

impl InferenceError {
    /// The exit code that says so.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Frame { .. } => Reason::Software,
            Self::Stdout(_) => Reason::Io,
        }
    }
}

/// Looks at frames.
pub struct Inference {
    /// Which frames are looked at.
    pub gate: Gate,
    /// Whether none is, detection being switched off.
    pub is_at_rest: bool,
    /// The network.
    pub detector: Detector,
    /// Which detections are published.
    pub thresholds: Thresholds,
    /// What the model recommends where the settings say nothing.
    pub recommended: Thresholds,
    /// The settings of the thresholds.
    pub model: model::Config,
    /// What every document of a frame says; `None` if none is published.
    pub source: Option<Source>,
    /// What happens from frame to frame.
    pub watch: Watch,
    /// Where documents go.
    pub outlet: Outlet,
    /// Where another model comes from.
    pub slot: Arc<Slot>,
    /// Where other settings come from.
    pub mail: Arc<Mail>,
}

impl Inference {
    /// The inference thread: ends well when the mailbox is closed and empty.
    pub fn run(mut self, shared: &Shared) -> Result<(), InferenceError> {
        let mut buffer = FrameBuffer::empty();
        let mut documents = Vec::new();
        let mut came_at = Instant::now();
        self.watch.rest(Timestamp::now(), &mut documents);
        self.hand_over(&mut documents, shared)?;
        loop {
            self.change_model(&shared.health, &mut documents);
            self.change_settings(&mut documents);
            self.rest_or_not(shared, &mut documents)?;
            self.watch.attend(self.is_at_rest);
            let taken = shared.mailbox.take(&mut buffer, WAIT);
            if taken == Taken::Item {
                came_at = Instant::now();
            }
            match taken {
                Taken::Closed => {
                    self.watch.finish(&mut documents);
                    return self.hand_over(&mut documents, shared);
                }
                Taken::TimedOut => {
                    self.lose_sight_or_not(came_at, shared, &mut documents)?;
                    // Other settings or another model may have something to tell, and no frame comes to tell it with.
                    self.watch.recount(&mut documents);
                    self.hand_over(&mut documents, shared)?;
                    if came_at.elapsed() >= FIRST_FRAME {
                        shared.health.ready("No frame came yet");
                    }
                    shared.health.inference_lives();
                }
                Taken::Item if self.is_at_rest => {
                    self.watch.rest(buffer.captured_at, &mut documents);
                    self.hand_over(&mut documents, shared)?;
                    shared.health.frame_at_rest();
                }
                Taken::Item => {
                    self.look(&buffer, &shared.health, &mut documents)?;
                    self.hand_over(&mut documents, shared)?;
                }
            }
        }
    }

    /// Everything ends when detection is switched off, so that nobody seems to be there meanwhile.
    fn rest_or_not(
        &mut self,
        shared: &Shared,
        documents: &mut Vec<Document>,
    ) -> Result<(), InferenceError> {
        let is_at_rest = !shared.switches.is_detecting();
        if is_at_rest != self.is_at_rest {
            self.is_at_rest = is_at_rest;
            self.gate.open();
            self.slot.break_off();
            self.watch.finish(documents);
            self.hand_over(documents, shared)?;
        }
        Ok(())
    }

    /// Everything ends when the camera has been away for as long as nobody is followed unseen: subscribers need not wait for its
    /// return, which may take days.
    fn lose_sight_or_not(
        &mut self,
        came_at: Instant,
        shared: &Shared,
        documents: &mut Vec<Document>,
    ) -> Result<(), InferenceError> {
        let is_away = shared.health.camera_condition() == Some(Condition::Away);
        if is_away && came_at.elapsed() > self.watch.lost_after() {
            self.gate.open();
            self.slot.break_off();
            self.watch.lose_sight(Timestamp::now(), documents);
            self.hand_over(documents, shared)?;
        }
        Ok(())
    }

    /// Takes another model, if there is one: between two frames, so that none is lost.
    fn change_model(&mut self, health: &Health, documents: &mut Vec<Document>) {
        self.slot.take(|next| {
            mem::swap(&mut self.detector, &mut next.detector);
            mem::swap(&mut self.recommended, &mut next.recommended);
            self.gate.open();
            // By the settings of now, which may be newer than those that it was prepared with.
            self.thresholds = self.model.thresholds(self.recommended);
            health.model_is(next.identity.clone());
            self.watch
                .change_model(next, self.thresholds.score, documents);
            if let Some(source) = &mut self.source {
                self.watch.name_model(source);
            }
        });
    }

    /// Takes other settings, if there are some. What the zones tell of goes out with the next frame, or when none comes.
    fn change_settings(&mut self, documents: &mut Vec<Document>) {
        let Some(settings) = self.mail.take() else {
            return;
        };
        self.gate.open();
        self.model = settings.model;
        let before = self.thresholds;
        self.thresholds = self.model.thresholds(self.recommended);
        if self.thresholds != before {
            self.slot.break_off();
        }
        self.watch.believe_from(self.thresholds.score);
        if let Some(places) = settings.places {
            self.watch.change_places(places, documents);
        }
    }

    /// Examines a frame, or skips it if it shows nothing new.
    fn look(
        &mut self,
        buffer: &FrameBuffer,
        health: &Health,
        documents: &mut Vec<Document>,
    ) -> Result<(), InferenceError> {
        let frame = buffer.frame().map_err(|source| InferenceError::Frame {
            sequence: buffer.sequence,
            source,
        })?;
        let is_wanted = self.slot.is_compared() || self.watch.is_asked_for_a_picture();
        let need = if self.watch.is_settled() && !is_wanted {
            Need::Changes
        } else {
            Need::EveryFrame
        };
        match self.gate.judge(&frame, buffer.moment_ns, need) {
            Verdict::Examine => {
                let inference = self.examine(&frame, buffer, health, documents);
                health.frame_examined(inference);
            }
            Verdict::Skip => {
                self.watch.hold(buffer, documents);
                health.frame_skipped();
            }
        }
        Ok(())
    }

    /// Gives the time that the detector took.
    fn examine(
        &mut self,
        frame: &Frame<'_>,
        buffer: &FrameBuffer,
        health: &Health,
        documents: &mut Vec<Document>,
    ) -> Duration {
        let started = Instant::now();
        // The tracker has a use for weaker detections than those that are published.
        self.detector.detect(
            frame,
            Thresholds {
                score: self.watch.score_low(),
                ..self.thresholds
            },
        );
        let inference = started.elapsed();
        let detections = self.detector.detections();
        let candidates = self.detector.candidates().map(|candidate| candidate.xyxy);
        let strong = strong(detections, self.thresholds.score).len();
        self.slot.examined(strong, inference);
        let first = documents.len();
        self.watch.step(buffer, detections, documents);
        self.watch.keep_shots(buffer, detections, candidates);
        if let Some(source) = &self.source {
            // Who is followed is shown by a weak detection, too.
            let shown = detections
                .iter()
                .enumerate()
                .filter_map(|(index, detection)| {
                    let track = self.watch.whose(detection);
                    let detection = *detection;
                    (index < strong || track.is_some()).then_some(Shown { detection, track })
                });
            let shown: Vec<Shown> = shown.collect();
            // Frames are numbered without gaps: those missing before this one were dropped.
            let document = source.document(&Examined {
                sequence: buffer.sequence,
                captured_at: buffer.captured_at,
                width: buffer.width,
                height: buffer.height,
                inference_ms: inference.as_secs_f64() * 1000.0,
                dropped: buffer.sequence - health.looked_at(),
                detections: &shown,
            });
            // Before what happened in it.
            documents.insert(first, Document::Frame(document));
        }
        inference
    }

    fn hand_over(
        &self,
        documents: &mut Vec<Document>,
        shared: &Shared,
    ) -> Result<(), InferenceError> {
        for document in documents.drain(..) {
            self.outlet.hand_over(document, shared)?;
        }
        Ok(())
    }
}

/// Those that reach the score. Detections come best first, and a weaker one never suppresses a stronger one: what is
/// left is what the detector would have found with this threshold.
fn strong(detections: &[Detection], score_min: f32) -> &[Detection] {
    let count = detections.partition_point(|detection| detection.score >= score_min);
    &detections[..count]
}

impl Outlet {
    fn hand_over(&self, document: Document, shared: &Shared) -> Result<(), InferenceError> {
        if self.stdout {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(document.bytes())?;
            stdout.write_all(b"\n")?;
        }
        let Some(outgoing) = &self.outgoing else {
            return Ok(());
        };
        let mut document = document;
        if shared.when_busy == WhenBusy::Wait {
            // While the broker is away, losing nothing matters more than time; unless there is no more time.
            while let Err(refused) = outgoing.offer(document, WAIT) {
                shared.health.inference_lives();
                document = refused;
                if shared.stop.requested() {
                    outgoing.push(document);
                    return Ok(());
                }
            }
            return Ok(());
        }
        outgoing.push(document);
        shared
            .health
            .documents_dropped
            .store(outgoing.dropped(), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn shared(when_busy: WhenBusy) -> Shared {
        Shared {
            mailbox: Arc::new(Mailbox::new(FrameBuffer::empty())),
            when_busy,
            stop: Stop::default(),
            health: Arc::new(Health::new(Duration::from_secs(1), None, "test")),
            switches: Arc::default(),
        }
    }

    const REOPEN: Revival = Revival::Reopen { advice: "test" };

    /// Delivers so many frames, then ends or fails, or fails to close.
    struct Script {
        frames: u32,
        ending: Option<CameraError>,
    }

    impl FrameSource for Script {
        fn next_frame(&mut self, _: &mut FrameBuffer) -> Result<Next, CameraError> {
            if self.frames > 0 {
                self.frames -= 1;
                return Ok(Next::Frame);
            }
            self.ending.take().map_or(Ok(Next::End), Err)
        }

        fn close(&mut self) -> Result<(), CameraError> {
            self.ending.take().map_or(Ok(()), Err)
        }
    }

    /// Delivers one frame in the place of so many others each time.
    struct Fast {
        replaced: VecDeque<u64>,
    }

    impl FrameSource for Fast {
        fn next_frame(&mut self, buffer: &mut FrameBuffer) -> Result<Next, CameraError> {
            let Some(replaced) = self.replaced.pop_front() else {
                return Ok(Next::End);
            };
            buffer.replaced = replaced;
            Ok(Next::Frame)
        }
    }

    fn stalled() -> CameraError {
        CameraError::Stalled {
            input: "test".into(),
            stall: Duration::ZERO,
        }
    }

    fn scripts(
        scripts: impl IntoIterator<Item = (u32, Option<CameraError>)>,
    ) -> impl FnMut() -> Result<Box<dyn FrameSource>, CameraError> {
        let mut scripts: VecDeque<_> = scripts.into_iter().collect();
        move || {
            let (frames, ending) = scripts.pop_front().expect("opened too often");
            Ok(Box::new(Script { frames, ending }))
        }
    }

    #[test]
    fn a_lower_threshold_changes_nothing_about_what_is_published() {
        let (bundle, key) = ternwatch_detector::testing::small_bundle(5);
        let model = ternwatch_bundle::testing::load(&bundle, &key);
        let mut detector = Detector::new(&model, ternwatch_detector::Isa::detect()).expect("runs");
        let mut differences = 0;
        for seed in 0..20u8 {
            let pixels: Vec<u8> = (0..96 * 64 * 3)
                .map(|index: usize| (index / 7 * usize::from(seed + 3)) as u8)
                .collect();
            let format = ternwatch_detector::PixelFormat::Rgb8;
            let frame = Frame::new(format, 96, 64, &pixels).expect("a frame");
            let at = |score| Thresholds {
                score,
                ..model.thresholds()
            };
            let expected = detector.detect(&frame, at(0.3)).to_vec();
            let weak = detector.detect(&frame, at(0.02)).to_vec();
            assert_eq!(strong(&weak, 0.3), expected);
            differences += usize::from(weak.len() > expected.len());
        }
        assert!(
            differences > 0,
            "the model finds nothing weak: nothing was compared"
        );
    }

    #[test]
    fn frames_are_numbered_and_drops_counted() {
        let shared = shared(WhenBusy::DropOldest);
        capture(&shared, Revival::Never, scripts([(5, None)])).expect("ends");
        let mut buffer = FrameBuffer::empty();
        assert_eq!(
            shared.mailbox.take(&mut buffer, Duration::ZERO),
            Taken::Item
        );
        assert_eq!(buffer.sequence, 4, "the newest");
        assert_eq!(shared.health.captured.load(Ordering::Relaxed), 5);
        assert_eq!(shared.health.dropped.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn frames_that_the_source_replaced_are_dropped_ones() {
        let shared = shared(WhenBusy::DropOldest);
        let open = || {
            let replaced = [2, 0, 3].into();
            Ok(Box::new(Fast { replaced }) as Box<dyn FrameSource>)
        };
        capture(&shared, Revival::Never, open).expect("ends");
        let mut buffer = FrameBuffer::empty();
        let taken = shared.mailbox.take(&mut buffer, Duration::ZERO);
        assert_eq!(taken, Taken::Item);
        assert_eq!(buffer.sequence, 7, "the newest");
        assert_eq!(shared.health.captured.load(Ordering::Relaxed), 8);
        let dropped = shared.health.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped, 7, "five by the source, two by the mailbox");
    }

    #[test]
    fn a_source_that_waits_loses_nothing() {
        let shared = shared(WhenBusy::Wait);
        let consumer = std::thread::spawn({
            let mailbox = shared.mailbox.clone();
            move || {
                let mut buffer = FrameBuffer::empty();
                let mut seen = Vec::new();
                while mailbox.take(&mut buffer, Duration::from_secs(60)) == Taken::Item {
                    seen.push(buffer.sequence);
                }
                seen
            }
        });
        capture(&shared, Revival::Never, scripts([(50, None)])).expect("ends");
        shared.mailbox.close();
        assert_eq!(
            consumer.join().expect("no panic"),
            (0..50).collect::<Vec<u64>>()
        );
        assert_eq!(shared.health.dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_camera_that_worked_is_opened_again_and_numbers_go_on() {
        let shared = shared(WhenBusy::DropOldest);
        let open = scripts([(2, Some(stalled())), (0, Some(stalled())), (3, None)]);
        capture(&shared, REOPEN, open).expect("ends");
        assert_eq!(shared.health.captured.load(Ordering::Relaxed), 5);
        assert!(!shared.health.camera_works(), "it is not away any more");
    }

    #[test]
    fn a_camera_that_dies_after_every_frame_is_opened_ever_more_seldom() {
        let shared = shared(WhenBusy::DropOldest);
        let mut capture = Capture {
            shared: &shared,
            buffer: FrameBuffer::empty(),
            sequence: 0,
            worked: None,
            backoff: Backoff::default(),
        };
        for _ in 0..6 {
            let mut source = Script {
                frames: 1,
                ending: Some(stalled()),
            };
            capture.deliver(&mut source).expect_err("it dies");
            capture.next_delay();
        }
        // After six short lives the wait is half a minute, less a half at most.
        let delay = capture.next_delay();
        assert!(delay >= Duration::from_secs(15), "{delay:?}");
        assert_eq!(shared.health.captured.load(Ordering::Relaxed), 6);
        let first = Instant::now();
        capture.worked = Some((first, first + Duration::from_secs(30)));
        let delay = capture.next_delay();
        assert!(delay <= Duration::from_millis(500), "{delay:?}");
    }

    #[test]
    fn a_camera_that_is_not_there_at_the_start_is_waited_for() {
        let shared = shared(WhenBusy::DropOldest);
        let open = scripts([(0, Some(stalled())), (3, None)]);
        capture(&shared, REOPEN, open).expect("ends");
        assert_eq!(shared.health.captured.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_camera_is_opened_again_when_that_is_wished_for() {
        let shared = shared(WhenBusy::DropOldest);
        shared.switches.ask_restart();
        let open = scripts([(5, None), (3, None)]);
        capture(&shared, REOPEN, open).expect("ends");
        assert_eq!(shared.health.captured.load(Ordering::Relaxed), 1 + 3);
    }

    #[test]
    fn a_broken_file_ends_the_program() {
        let open = scripts([(3, Some(stalled()))]);
        let ended = capture(&shared(WhenBusy::DropOldest), Revival::Never, open);
        assert!(matches!(ended, Err(CameraError::Stalled { .. })));
    }

    #[test]
    fn a_hanging_driver_ends_the_program_even_if_it_worked() {
        let hung = CameraError::Hung {
            device: "/dev/video0".into(),
        };
        let open = scripts([(3, Some(hung))]);
        let ended = capture(&shared(WhenBusy::DropOldest), REOPEN, open);
        assert!(matches!(ended, Err(CameraError::Hung { .. })));
    }

    #[test]
    fn a_driver_that_hangs_as_the_camera_is_to_be_opened_again_ends_the_program() {
        let shared = shared(WhenBusy::DropOldest);
        shared.switches.ask_restart();
        let hung = CameraError::Hung {
            device: "/dev/video0".into(),
        };
        let ended = capture(&shared, REOPEN, scripts([(5, Some(hung))]));
        assert!(matches!(ended, Err(CameraError::Hung { .. })));
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_camera() {
        let shared = shared(WhenBusy::DropOldest);
        let capturing = std::thread::spawn({
            let shared = shared.clone();
            move || {
                let mut opened = 0;
                capture(&shared, REOPEN, || {
                    opened += 1;
                    Ok(Box::new(Script {
                        frames: u32::from(opened == 1),
                        ending: Some(stalled()),
                    }) as Box<dyn FrameSource>)
                })
            }
        });
        shared.stop.request();
        capturing.join().expect("no panic").expect("ends well");
    }
}
