//! What the service manager is told: ready, alive, and how things are.
//!
//! The watchdog is fed by the pipeline, not by a timer: by the inference thread, and only while the capture thread
//! also shows signs of life. A camera driver that hangs, or a network that computes for ever, therefore ends in a
//! restart. Waiting is a sign of life if it is on purpose: for a camera that is away, for the next picture.
//!
//! The service is ready with the first frame, or when it is clear that there is none for now: then its status says what is
//! missing and which setting names another.

use crate::clock::Timestamp;
use crate::latency::{Histogram, Recorder, Summary};
use crate::model::ModelIdentity;
use crate::publish::camera_state::{Condition, Reporter};
use sd_notify::NotifyState;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the status line is renewed.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// Added to the time that the capture thread may wait for a frame, before its silence means that it hangs.
const CAPTURE_SLACK: Duration = Duration::from_secs(5);

/// Nothing was heard of the camera yet.
const CAMERA_UNKNOWN: u8 = 0;
/// The last that was heard of the camera is a frame.
const CAMERA_WORKS: u8 = 1;
/// The last that was heard of the camera is a failure.
const CAMERA_AWAY: u8 = 2;

/// Counters of a run and the line to the service manager.
#[derive(Debug)]
pub struct Health {
    /// Frames captured, dropped ones included.
    pub captured: AtomicU64,
    /// Frames captured and never examined.
    pub dropped: AtomicU64,
    /// Frames examined.
    pub examined: AtomicU64,
    /// Frames not examined because they showed nothing new.
    pub skipped: AtomicU64,
    /// Frames not examined because detection was off.
    pub at_rest: AtomicU64,
    /// Documents handed to the network.
    pub published: AtomicU64,
    /// Documents dropped because the broker was away for too long.
    pub documents_dropped: AtomicU64,
    /// Snapshots handed to the network.
    pub snapshots_published: AtomicU64,
    /// Snapshots that there was no room or time for, or that could not be made.
    pub snapshots_dropped: AtomicU64,
    /// Whether the camera delivers, for everybody who wants to know.
    pub camera: Reporter,
    /// One of [`CAMERA_UNKNOWN`], [`CAMERA_WORKS`], [`CAMERA_AWAY`].
    camera_state: AtomicU8,
    inference: Recorder,
    model: Mutex<ModelIdentity>,
    /// Connections to the broker that there are.
    pub connections: AtomicU64,
    /// How long the broker took to confirm each event.
    confirmations: Mutex<Histogram>,
    capture_alive_ns: AtomicU64,
    /// `host:port`, if documents go to a broker.
    broker: Option<String>,
    patience: Duration,
    watchdog: Option<Duration>,
    is_ready: AtomicBool,
    /// When the service manager is told something again, on the monotonic clock: until then no frame takes the lock.
    quiet_until_ns: AtomicU64,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    fed_at: Option<Instant>,
    status_at: Instant,
    looked_at_then: u64,
    /// Why the camera is away, the last time that it was.
    camera_trouble: String,
    /// Why there was no connection to the broker, the last time.
    broker_trouble: String,
}

impl Health {
    /// Of a program whose source, called `camera`, may be silent for `patience` at a time, and whose documents go to
    /// `broker` (`host:port`).
    pub fn new(patience: Duration, broker: Option<String>, camera: &str) -> Self {
        Self {
            captured: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            examined: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            at_rest: AtomicU64::new(0),
            published: AtomicU64::new(0),
            documents_dropped: AtomicU64::new(0),
            snapshots_published: AtomicU64::new(0),
            snapshots_dropped: AtomicU64::new(0),
            camera: Reporter::new(camera),
            camera_state: AtomicU8::new(CAMERA_UNKNOWN),
            inference: Recorder::default(),
            model: Mutex::new(ModelIdentity::default()),
            connections: AtomicU64::new(0),
            confirmations: Mutex::new(Histogram::default()),
            capture_alive_ns: AtomicU64::new(Timestamp::now().monotonic_ns),
            broker,
            patience,
            watchdog: sd_notify::watchdog_enabled(),
            is_ready: AtomicBool::new(false),
            quiet_until_ns: AtomicU64::new(0),
            line: Mutex::new(Line {
                fed_at: None,
                status_at: Instant::now(),
                looked_at_then: 0,
                camera_trouble: String::new(),
                broker_trouble: String::new(),
            }),
        }
    }

    /// The broker confirmed an event, after that time.
    pub fn event_confirmed(&self, took: Duration) {
        let mut confirmations = (self.confirmations.lock()).unwrap_or_else(PoisonError::into_inner);
        confirmations.record(took);
    }

    /// How long the broker took to confirm each event of this run.
    pub fn confirmations(&self) -> Histogram {
        let confirmations = self.confirmations.lock();
        confirmations
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The capture thread got a frame, or waits on purpose.
    pub fn capture_lives(&self) {
        self.capture_alive_ns
            .store(Timestamp::now().monotonic_ns, Ordering::Relaxed);
    }

    /// The camera failed because of `trouble` and will be opened again. A service that waits for its first frame is ready
    /// all the same: waiting is what it does now.
    pub fn camera_failed(&self, trouble: &str) {
        let mut line = self.lock();
        self.camera_state.store(CAMERA_AWAY, Ordering::Relaxed);
        self.camera.tell(Condition::Away, trouble, Timestamp::now());
        trouble.clone_into(&mut line.camera_trouble);
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            notify(&[NotifyState::Ready]);
        }
        notify(&[NotifyState::Status(&self.status(&line, 0.0))]);
    }

    /// The camera delivered a frame; tells whether it was away.
    pub fn camera_works(&self) -> bool {
        let before = self.camera_state.swap(CAMERA_WORKS, Ordering::Relaxed);
        if before != CAMERA_WORKS {
            self.camera.tell(Condition::Ok, "", Timestamp::now());
        }
        before == CAMERA_AWAY
    }

    /// There is no connection to the broker because of `trouble`.
    pub fn broker_failed(&self, trouble: &str) {
        trouble.clone_into(&mut self.lock().broker_trouble);
    }

    /// There was no room or time for a snapshot, or it could not be made.
    pub fn snapshot_dropped(&self) {
        self.snapshots_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How it is with the camera; `None` before it is known.
    pub fn camera_condition(&self) -> Option<Condition> {
        match self.camera_state.load(Ordering::Relaxed) {
            CAMERA_WORKS => Some(Condition::Ok),
            CAMERA_AWAY => Some(Condition::Away),
            _ => None,
        }
    }

    /// Frames are examined with this model from now on.
    pub fn model_is(&self, model: ModelIdentity) {
        *self.model.lock().unwrap_or_else(PoisonError::into_inner) = model;
    }

    /// The model that frames are examined with.
    pub fn model(&self) -> ModelIdentity {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.clone()
    }

    /// How long inferences took since this was called the last time; `None` if there were none.
    pub fn take_inference_times(&self) -> Option<Summary> {
        self.inference.take().summary()
    }

    /// The inference thread examined a frame, in so much time: the service is ready with the first one.
    pub fn frame_examined(&self, inference: Duration) {
        self.inference.record(inference);
        self.examined.fetch_add(1, Ordering::Relaxed);
        self.had_a_frame("The first frame was examined");
    }

    /// The inference thread need not examine a frame: it shows nothing new.
    pub fn frame_skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        self.had_a_frame("The first frame shows nothing new");
    }

    /// The inference thread may not examine a frame: detection is switched off.
    pub fn frame_at_rest(&self) {
        self.at_rest.fetch_add(1, Ordering::Relaxed);
        self.had_a_frame("The first frame came, detection is switched off");
    }

    /// Frames that the inference thread was done with so far, examined or not.
    pub fn looked_at(&self) -> u64 {
        count(&self.examined) + count(&self.skipped) + count(&self.at_rest)
    }

    /// What became of the frames, for people.
    pub fn frames(&self) -> String {
        let mut frames = format!(
            "{} examined, {} skipped, {} dropped",
            count(&self.examined),
            count(&self.skipped),
            count(&self.dropped)
        );
        let at_rest = count(&self.at_rest);
        if at_rest > 0 {
            frames.push_str(&format!(", {at_rest} while detection was off"));
        }
        frames
    }

    fn had_a_frame(&self, first: &str) {
        self.ready(first);
        self.inference_lives();
    }

    /// The service is ready, because of this, if it was not yet. One that waits for its first frame for long is so, too.
    pub fn ready(&self, why: &str) {
        // A swap is a write: it is for the first time only.
        let was_ready = self.is_ready.load(Ordering::Relaxed);
        if !was_ready && !self.is_ready.swap(true, Ordering::Relaxed) {
            log::info!("{why}");
            notify(&[NotifyState::Ready, NotifyState::Status(why)]);
        }
    }

    /// The inference thread did its work, or waits on purpose: feeds the watchdog if the capture thread lives too.
    pub fn inference_lives(&self) {
        let now_ns = Timestamp::now().monotonic_ns;
        // Systemd starts the watchdog when the service is ready.
        if !self.is_ready.load(Ordering::Relaxed)
            || now_ns < self.quiet_until_ns.load(Ordering::Relaxed)
        {
            return;
        }
        let now = Instant::now();
        let mut line = self.lock();
        let hungry_for = line.fed_at.map(|fed_at| now - fed_at);
        if let Some(watchdog) = self.watchdog
            && is_to_be_fed(watchdog, hungry_for, self.capture_silence(), self.patience)
        {
            line.fed_at = Some(now);
            notify(&[NotifyState::Watchdog]);
        }
        let passed = now - line.status_at;
        if passed >= STATUS_INTERVAL {
            self.camera.follow_clock(Timestamp::now());
            let looked_at = self.looked_at();
            let rate = (looked_at - line.looked_at_then) as f64 / passed.as_secs_f64();
            (line.status_at, line.looked_at_then) = (now, looked_at);
            notify(&[NotifyState::Status(&self.status(&line, rate))]);
        }
        let quiet = quiet_for(self.watchdog, line.fed_at, line.status_at, now);
        let quiet_ns = u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX);
        self.quiet_until_ns
            .store(now_ns.saturating_add(quiet_ns), Ordering::Relaxed);
    }

    /// The program ends.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    fn capture_silence(&self) -> Duration {
        let then = self.capture_alive_ns.load(Ordering::Relaxed);
        Duration::from_nanos(Timestamp::now().monotonic_ns.saturating_sub(then))
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self, line: &Line, rate: f64) -> String {
        let camera = if self.camera_state.load(Ordering::Relaxed) == CAMERA_AWAY {
            format!("camera away: {}", line.camera_trouble)
        } else {
            format!("{rate:.1} frames/s")
        };
        let broker = match &self.broker {
            _ if self.connections.load(Ordering::Relaxed) > 0 => "broker connected".into(),
            Some(broker) if line.broker_trouble.is_empty() => {
                format!("broker away: {broker} (mqtt.host, mqtt.port)")
            }
            // It names the settings that it is about.
            Some(broker) if line.broker_trouble.contains("mqtt.") => {
                format!("broker away: {broker}: {}", line.broker_trouble)
            }
            Some(broker) => format!(
                "broker away: {broker}: {} (mqtt.host, mqtt.port)",
                line.broker_trouble
            ),
            None => "no broker".into(),
        };
        format!(
            "{camera}; frames: {}; documents: {} published, {} dropped; {broker}",
            self.frames(),
            self.published.load(Ordering::Relaxed),
            self.documents_dropped.load(Ordering::Relaxed),
        )
    }
}

/// Whether to feed a watchdog that was fed `hungry_for` ago, the capture thread having been silent for `silence`.
fn is_to_be_fed(
    watchdog: Duration,
    hungry_for: Option<Duration>,
    silence: Duration,
    patience: Duration,
) -> bool {
    // Systemd advises half of the time; a quarter leaves room for one slow frame.
    let is_due = hungry_for.is_none_or(|hungry_for| hungry_for >= watchdog / 4);
    is_due && silence <= patience + CAPTURE_SLACK
}

/// How long nothing is to be told, from `now` on.
fn quiet_for(
    watchdog: Option<Duration>,
    fed_at: Option<Instant>,
    status_at: Instant,
    now: Instant,
) -> Duration {
    let until_status = STATUS_INTERVAL.saturating_sub(now - status_at);
    let until_fed = match (watchdog, fed_at) {
        (None, _) => Duration::MAX,
        // It would have been fed if the capture thread lived: the next sign of life is looked at.
        (Some(_), None) => Duration::ZERO,
        (Some(watchdog), Some(fed_at)) => (watchdog / 4).saturating_sub(now - fed_at),
    };
    until_status.min(until_fed)
}

fn notify(states: &[NotifyState<'_>]) {
    // Without a service manager this does nothing; with one, the watchdog finds out what a lost message means.
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("cannot notify the service manager: {error}");
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_of_a_missing_camera_and_broker() {
        let health = Health::new(
            Duration::from_secs(1),
            Some("broker.lan:1883".into()),
            "door",
        );
        health.examined.store(7, Ordering::Relaxed);
        health.skipped.store(3, Ordering::Relaxed);
        let status = |rate| health.status(&health.lock(), rate);
        assert_eq!(
            status(2.34),
            "2.3 frames/s; frames: 7 examined, 3 skipped, 0 dropped; documents: 0 published, 0 dropped; \
             broker away: broker.lan:1883 (mqtt.host, mqtt.port)"
        );
        let broker = |trouble| {
            health.broker_failed(trouble);
            let status = status(0.0);
            status
                .rsplit_once("; ")
                .map(|(_, broker)| String::from(broker))
        };
        assert_eq!(
            broker("Connection refused").as_deref(),
            Some("broker away: broker.lan:1883: Connection refused (mqtt.host, mqtt.port)")
        );
        assert_eq!(
            broker("it does not accept this account (mqtt.username)").as_deref(),
            Some("broker away: broker.lan:1883: it does not accept this account (mqtt.username)")
        );
        health.camera_failed("unplugged");
        health.connections.store(1, Ordering::Relaxed);
        assert_eq!(
            status(0.0),
            "camera away: unplugged; frames: 7 examined, 3 skipped, 0 dropped; documents: 0 published, 0 dropped; \
             broker connected"
        );
        health.frame_at_rest();
        assert_eq!(
            health.frames(),
            "7 examined, 3 skipped, 0 dropped, 1 while detection was off"
        );
        assert!(health.camera_works(), "it was away");
        assert!(!health.camera_works(), "it was here");
    }

    #[test]
    fn a_capture_thread_that_hangs_starves_the_watchdog() {
        let second = Duration::from_secs(1);
        let fed = |hungry_for, silence| is_to_be_fed(30 * second, hungry_for, silence, 10 * second);
        assert!(fed(None, second));
        assert!(fed(Some(8 * second), 10 * second), "a camera may be slow");
        assert!(!fed(Some(7 * second), second), "not due yet");
        assert!(
            !fed(Some(29 * second), 16 * second),
            "the capture thread hangs"
        );
    }

    #[test]
    fn it_is_quiet_until_the_watchdog_or_the_status_is_due() {
        let second = Duration::from_secs(1);
        let then = Instant::now();
        let now = then + 2 * second;
        assert_eq!(quiet_for(None, None, then, now), 3 * second);
        let watchdog = Some(12 * second);
        assert_eq!(quiet_for(watchdog, Some(then), then, now), second);
        assert_eq!(quiet_for(watchdog, Some(now), then, now), 3 * second);
        assert_eq!(
            quiet_for(watchdog, None, then, now),
            Duration::ZERO,
            "not fed"
        );
        let late = then + 9 * second;
        assert_eq!(quiet_for(watchdog, Some(then), late, late), Duration::ZERO);
    }

    #[test]
    fn a_frame_waits_for_no_lock_while_there_is_nothing_to_tell() {
        let health = Health::new(Duration::from_secs(1), None, "door");
        health.frame_examined(Duration::from_millis(1));
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let lock = health.lock();
            scope.spawn(|| {
                health.frame_examined(Duration::from_millis(2));
                health.frame_skipped();
                done.send(())
            });
            let waited = is_done.recv_timeout(Duration::from_secs(3));
            drop(lock);
            assert_eq!(waited, Ok(()), "before the next status is due");
        });
        assert_eq!(health.looked_at(), 3);
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_with_the_next_status() {
        let health = Health::new(Duration::from_secs(1), None, "door");
        let long_ago = Timestamp {
            realtime_ns: 0,
            ..Timestamp::now()
        };
        health.camera.tell(Condition::Ok, "", long_ago);
        let document = health.camera.document();
        health.frame_examined(Duration::from_millis(1));
        assert!(!document.has_changed().expect("it is there"), "not yet due");
        health.lock().status_at -= STATUS_INTERVAL;
        health.quiet_until_ns.store(0, Ordering::Relaxed);
        health.frame_examined(Duration::from_millis(1));
        assert!(document.has_changed().expect("it is there"));
    }

    #[test]
    fn silence_ends_with_a_sign_of_life() {
        let health = Health::new(Duration::from_secs(1), None, "door");
        health.capture_alive_ns.store(0, Ordering::Relaxed);
        assert!(health.capture_silence() > Duration::ZERO);
        health.capture_lives();
        assert!(health.capture_silence() < Duration::from_secs(5));
    }
}
