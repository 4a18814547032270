//! The threads of a run: none ends, well or not, without being heard of.

use super::Ended;
use crate::camera;
use crate::clock::Timestamp;
use crate::command::Control;
use crate::config::Config;
use crate::exit::{Failure, Reason};
use crate::model::Loaded;
use crate::motion::{Frames, Gate};
use crate::pipeline::mail::Mail;
use crate::pipeline::{self, Inference, Outlet, Revival, Shared, Watch};
use crate::publish::Outgoing;
use crate::publish::event::EventWriter;
use crate::publish::outbox::writer::Kept;
use crate::publish::payload::Source;
use crate::snapshot::{Album, Studio};
use crate::stop::Stop;
use crate::track::Tracker;
use crate::update::agent::Agent;
use crate::update::network::Inbox;
use crate::update::slot::Slot;
use anyhow::{Context, anyhow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use ternwatch_detector::Team;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Starts capture and inference, and what makes pictures if there is a desk for them; all report how they ended.
pub(super) fn frames(
    config: &Config,
    loaded: Loaded,
    shared: &Shared,
    outgoing: Option<Arc<Outgoing>>,
    slot: Arc<Slot>,
    control: &Control,
) -> Result<mpsc::UnboundedReceiver<Ended>, Failure> {
    let (ended, ends) = mpsc::unbounded_channel();
    let started_at = Timestamp::now().rfc3339();
    let album = match (control.desk.clone(), outgoing.clone()) {
        (Some(desk), Some(outgoing)) => {
            let (settings, health) = (&config.snapshots, &shared.health);
            let (studio, orders) =
                Studio::new(settings, started_at.clone(), outgoing, health.clone());
            spawn("snapshots", ended.clone(), shared, move |shared| {
                studio.run(&shared.stop);
                Ok(())
            })?;
            Some(Album::new(settings, orders, desk, health.clone()))
        }
        _ => None,
    };
    let received = (slot, control.mail.clone());
    let inference = inference(config, loaded, started_at, outgoing, album, received);
    capture(config.camera.clone(), ended.clone(), shared)?;
    let threads = config.model.threads;
    spawn("inference", ended, shared, move |shared| {
        // It helps as long as frames come.
        let _team = Team::of_this_thread(threads)
            .map_err(|error| Failure::new(Reason::Unavailable, error))?;
        let result = inference.run(shared);
        result.map_err(|error| Failure::new(error.reason(), error))
    })?;
    Ok(ends)
}

/// What the inference thread does with a frame. It receives other models from the slot, and other settings by mail.
fn inference(
    config: &Config,
    loaded: Loaded,
    started_at: String,
    outgoing: Option<Arc<Outgoing>>,
    album: Option<Album>,
    (slot, mail): (Arc<Slot>, Arc<Mail>),
) -> Inference {
    let camera = &config.camera.name;
    let writer = EventWriter {
        camera: camera.clone(),
        model: loaded.identity.clone(),
        classes: loaded.classes.clone(),
        started_at,
        sequence: outgoing.as_ref().map_or(0, |o| o.events.first_sequence()),
    };
    let tracker = Tracker::new(&config.track, loaded.thresholds.score);
    let frames = if config.publish.frames {
        Frames::EachForItself
    } else {
        Frames::ForTracks
    };
    Inference {
        gate: Gate::new(&config.motion, frames),
        is_at_rest: false,
        detector: loaded.detector,
        thresholds: loaded.thresholds,
        recommended: loaded.recommended,
        model: config.model.clone(),
        source: config.publish.frames.then(|| Source {
            camera: camera.clone(),
            model: loaded.identity,
            classes: loaded.classes,
        }),
        watch: Watch::new(tracker, &config.zones, &config.lines, writer).with_album(album),
        outlet: Outlet {
            outgoing,
            stdout: config.stdout.enabled,
        },
        slot,
        mail,
    }
}

/// Starts what opens the camera, again and again if it is one, and hands its frames over.
fn capture(
    config: camera::Config,
    ended: mpsc::UnboundedSender<Ended>,
    shared: &Shared,
) -> Result<(), Failure> {
    spawn("capture", ended, shared, move |shared| {
        let source = config.source;
        let revival = if source.is_finite() {
            Revival::Never
        } else {
            let advice = source.advice();
            Revival::Reopen { advice }
        };
        let open = || camera::open(&config, &shared.stop);
        let result = pipeline::capture(shared, revival, open);
        result.map_err(|error| Failure::new(error.reason(), error))
    })
}

/// Starts the thread that makes events durable; the receiver hears when it has ended.
pub(super) fn outbox(
    config: &Config,
    kept: Kept,
    outgoing: Arc<Outgoing>,
    broken: &mpsc::UnboundedSender<Failure>,
) -> Result<Receiver<()>, Failure> {
    let pause = Duration::from_secs_f64(config.mqtt.outbox_sync_s);
    keep("outbox", broken, move || kept.run(&outgoing.events, pause))
}

/// Starts the update thread; the receiver hears when it has ended.
pub(super) fn updates(
    agent: Agent,
    inbox: Inbox,
    stop: &Stop,
    broken: &mpsc::UnboundedSender<Failure>,
) -> Result<Receiver<()>, Failure> {
    let stop = stop.clone();
    keep("update", broken, move || agent.run(&inbox, &stop))
}

/// A thread beside the frame path. Its panic is a failure of the program: what it does, nobody else does.
fn keep(
    name: &'static str,
    broken: &mpsc::UnboundedSender<Failure>,
    body: impl FnOnce() + Send + 'static,
) -> Result<Receiver<()>, Failure> {
    let (ended, ends) = std::sync::mpsc::channel();
    let broken = broken.clone();
    start(name, move || {
        // The program may have gone on without us.
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(()) => drop(ended.send(())),
            Err(_) => drop(broken.send(panicked(name))),
        }
    })?;
    Ok(ends)
}

/// A thread of the frame path. It closes the mailbox behind itself, so that the others end too, and reports how it ended.
fn spawn(
    name: &'static str,
    ended: mpsc::UnboundedSender<Ended>,
    shared: &Shared,
    body: impl FnOnce(&Shared) -> Ended + Send + 'static,
) -> Result<(), Failure> {
    let shared = shared.clone();
    start(name, move || {
        let body = AssertUnwindSafe(|| body(&shared));
        let result = catch_unwind(body).unwrap_or_else(|_| Err(panicked(name)));
        shared.mailbox.close();
        if result.is_err() {
            // One that waits for a camera looks at the mailbox only when a frame comes.
            shared.stop.request();
        }
        // Nobody listens when the program already gave up on this thread.
        let _ = ended.send(result);
    })
}

fn start(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
        .with_context(|| format!("cannot start the {name} thread"))
        .map_err(|error| Failure::new(Reason::Unavailable, error))
}

fn panicked(name: &str) -> Failure {
    Failure::new(Reason::Software, anyhow!("the {name} thread panicked"))
}

/// Waits until the threads beside the frame path have ended, but not longer than until then.
pub(super) fn wait_for(
    updates: Option<Receiver<()>>,
    outbox: Option<Receiver<()>>,
    until: Instant,
) {
    let is_cut_off = |ends: Option<Receiver<()>>| {
        let left = until.saturating_duration_since(Instant::now());
        ends.is_some_and(|ends| ends.recv_timeout(left) == Err(RecvTimeoutError::Timeout))
    };
    // Whatever they are at may be cut off at any moment; a trial that is then counts as an attempt.
    if is_cut_off(updates) {
        log::warn!("the update of the model is cut off");
    }
    if is_cut_off(outbox) {
        log::warn!("the memory card does not answer in time: the newest events may be lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_breaks_is_heard_of_and_one_that_ends_too() {
        let (broken, mut breakdowns) = mpsc::unbounded_channel();
        let ends = keep("good", &broken, || {}).expect("a thread");
        assert_eq!(ends.recv_timeout(Duration::from_secs(60)), Ok(()));
        let ends = keep("bad", &broken, || panic!("on purpose")).expect("a thread");
        assert_eq!(
            ends.recv_timeout(Duration::from_secs(60)),
            Err(RecvTimeoutError::Disconnected)
        );
        let failure = breakdowns.blocking_recv().expect("it is told");
        assert_eq!(failure.reason, Reason::Software);
        assert!(failure.to_string().contains("the bad thread"), "{failure}");
    }
}
