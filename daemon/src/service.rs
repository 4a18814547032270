//! A run of the daemon from the loaded model to the farewell: starts the threads, waits for whatever ends first, and
//! sees to it that everything ends in time.

mod publishing;
mod threads;
mod updating;

use self::publishing::Publishing;
use self::updating::Updating;
use crate::camera;
use crate::command::Control;
use crate::config::Config;
use crate::detection::Detection;
use crate::exit::{Failure, Reason};
use crate::health::Health;
use crate::mailbox::Mailbox;
use crate::model::Loaded;
use crate::pipeline::Shared;
use crate::publish::mqtt::{self, Term};
use crate::publish::outbox::writer::{self, Kept};
use crate::publish::outbox::{Bounds, Outbox};
use crate::publish::settings::Reporter;
use crate::publish::topic;
use crate::reload;
use crate::schedule::Schedule;
use crate::stop::Stop;
use crate::update::start::Start;
use anyhow::{Context, anyhow};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use ternwatch_detector::Isa;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// After SIGTERM, time for the frame in work and for the documents that wait; then `offline` is said.
const DRAIN_ON_SIGNAL: Duration = Duration::from_millis(1000);
/// Time for the threads beside the frame path to end.
const THREADS_END: Duration = Duration::from_millis(400);
/// After the last frame of a file, time for the documents that wait.
const DRAIN_AT_END: Duration = Duration::from_secs(10);

/// How a thread ended.
type Ended = Result<(), Failure>;

/// Reads the configuration again.
pub type Reread<'a> = &'a dyn Fn() -> Result<Config, Failure>;

/// Watches until the source ends, a thread fails, or SIGTERM or SIGINT comes. SIGHUP takes over what can be changed of
/// what `reread` gives.
pub fn run(config: &Config, start: Start, isa: Isa, reread: Reread<'_>) -> Result<(), Failure> {
    let device = config.device.id();
    let Start { loaded, store } = start;
    let shared = share(config, &loaded);
    let mut updating = Updating::prepare(config, &device, (isa, &loaded), store)?;
    let detection = detection(config, &shared)?;
    let (outbox, kept) = open_outbox(config);
    let mut publishing = Publishing::prepare(config, &device, outbox)?;
    if let Some(publishing) = &mut publishing {
        publishing
            .conversations
            .extend(updating.take_conversation());
        publishing.announce(config, &device, updating.is_possible());
        let topic = topic::detection(&config.mqtt.prefix, &device, &config.camera.name);
        publishing.conversations.push(detection.connect(topic));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot prepare the network")
        .map_err(|error| Failure::new(Reason::Unavailable, error))?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()
            .context("cannot listen to signals")
            .map_err(|error| Failure::new(Reason::Unavailable, error))?;
        let outgoing = publishing
            .as_ref()
            .map(|publishing| publishing.outgoing.clone());
        // Of threads beside the frame path, only that they broke is of interest before the end.
        let (broken, breakdowns) = mpsc::unbounded_channel();
        let outbox_ends = kept
            .zip(outgoing.clone())
            .map(|(kept, outgoing)| threads::outbox(config, kept, outgoing, &broken))
            .transpose()?;
        let (slot, updates_inbox) = (updating.slot.clone(), updating.sender.clone());
        let updates_end = updating.start(&shared.stop, &broken)?;
        tokio::spawn(detection.clone().keep());
        let control = Control {
            running: Arc::new(Mutex::new(config.clone())),
            settings: Arc::new(Reporter::new(config)),
            mail: Arc::default(),
            switches: shared.switches.clone(),
            detection,
            announcement: publishing
                .as_ref()
                .and_then(|publishing| publishing.announcement.clone()),
            desk: config.snapshots.enabled.then(Arc::default),
            health: shared.health.clone(),
            updates: updates_inbox,
        };
        if let Some(publishing) = &mut publishing {
            publishing.tell_about_itself(config, &device, &shared.health);
            publishing.obey(config, &device, &control);
        }
        let frames = threads::frames(config, loaded, &shared, outgoing.clone(), slot, &control)?;
        let watched = (frames, breakdowns);
        let mut on_reload = || read_again(&control, reread);
        let outcome = supervise(&shared, watched, publishing, &mut signals, &mut on_reload).await;
        shared.stop.request();
        if let Some(outgoing) = &outgoing {
            outgoing.events.leave();
        }
        threads::wait_for(updates_end, outbox_ends, Instant::now() + THREADS_END);
        outcome
    });
    // Name resolution may still occupy a thread of the runtime; nobody waits for its answer any more.
    runtime.shutdown_background();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    log::info!(
        "{} frames captured, {}, {} documents published",
        count(&shared.health.captured),
        shared.health.frames(),
        count(&shared.health.published),
    );
    outcome
}

/// What the threads of the frame path share.
fn share(config: &Config, loaded: &Loaded) -> Shared {
    let broker = format!("{}:{}", config.mqtt.host, config.mqtt.port);
    let health = Health::new(
        config.camera.patience(),
        config.mqtt.enabled.then_some(broker),
        &config.camera.name,
    );
    health.model_is(loaded.identity.clone());
    Shared {
        mailbox: Arc::new(Mailbox::new(camera::FrameBuffer::empty())),
        when_busy: config.pipeline.when_busy,
        stop: Stop::default(),
        health: Arc::new(health),
        switches: Arc::default(),
    }
}

/// Whether frames are examined, by the schedule and by commands.
fn detection(config: &Config, shared: &Shared) -> Result<Arc<Detection>, Failure> {
    let schedule = Schedule::new(&config.schedule)
        .map_err(|invalid| Failure::new(Reason::Config, anyhow!(invalid.reason)))?;
    let switches = shared.switches.clone();
    Ok(Arc::new(Detection::new(schedule, switches)))
}

/// Takes over what can be changed of the configuration of now. One that is wrong changes nothing.
fn read_again(control: &Control, reread: Reread<'_>) {
    let mut running = control.running();
    match reread() {
        Ok(next) => {
            let others = reload::apply(&mut running, next, &control.mail);
            log::info!("zones, lines, thresholds and the schedule are read again");
            if !others.is_empty() {
                let others = others.join(", ");
                log::warn!("changed, but read at the start only: {others}");
            }
        }
        Err(failure) => log::error!("the settings stay as they were: {failure}"),
    }
    control.settings.tell(&running);
    if let Some(announcement) = &control.announcement {
        announcement.change_places(&running.zones, &running.lines);
    }
    // It was checked as it was read.
    if let Ok(schedule) = Schedule::new(&running.schedule) {
        control.detection.change_schedule(schedule);
    }
}

/// The outbox with what an earlier run left in it; and its files, if there are any.
fn open_outbox(config: &Config) -> (Outbox, Option<Kept>) {
    let bounds = Bounds {
        events_max: config.mqtt.queue_events_max,
        bytes_max: config.mqtt.outbox_mib_max << 20,
    };
    let opened = config
        .mqtt
        .enabled
        .then(|| writer::open(&config.update.state_dir, bounds));
    match opened.flatten() {
        Some((kept, recovered)) => (Outbox::kept(bounds, recovered), Some(kept)),
        None => (Outbox::in_memory(bounds), None),
    }
}

/// Waits for the end, whichever comes, and leads everything to it in time.
async fn supervise(
    shared: &Shared,
    (mut threads, mut breakdowns): (
        mpsc::UnboundedReceiver<Ended>,
        mpsc::UnboundedReceiver<Failure>,
    ),
    publishing: Option<Publishing>,
    signals: &mut Signals,
    on_reload: &mut dyn FnMut(),
) -> Result<(), Failure> {
    let (set_term, term) = watch::channel(Term::Open);
    let outgoing = publishing
        .as_ref()
        .map(|publishing| publishing.outgoing.clone());
    let health = shared.health.clone();
    let publisher = async {
        let Some(publishing) = publishing else {
            return Ok(());
        };
        let Publishing {
            session,
            destination,
            outgoing,
            conversations,
            ..
        } = publishing;
        mqtt::run(
            &session,
            &destination,
            &outgoing,
            &health,
            conversations,
            term,
        )
        .await
    };
    tokio::pin!(publisher);

    // Until both threads have ended, one way or the other.
    let mut outcome = Ok(());
    let mut deadline = None;
    let mut published = None;
    loop {
        tokio::select! {
            ended = threads.recv() => match ended {
                Some(result) => outcome = first_failure(outcome, result),
                None => break,
            },
            Some(failure) = breakdowns.recv() => {
                outcome = first_failure(outcome, Err(failure));
                stop(shared, &set_term, &mut deadline);
            }
            wish = signals.next() => match wish {
                Wish::End => {
                    log::info!("asked to end");
                    stop(shared, &set_term, &mut deadline);
                }
                Wish::Reload => on_reload(),
            },
            result = &mut publisher, if published.is_none() => {
                // On a signal it ends by its term; before that, only if it could not start.
                let failed = result.is_err();
                published = Some(result);
                if failed {
                    stop(shared, &set_term, &mut deadline);
                }
            }
            () = until(deadline) => {
                log::warn!("a thread does not end in time");
                break;
            }
        }
    }
    shared.health.stopping();
    if let Some(outgoing) = outgoing {
        outgoing.close();
    }
    if deadline.is_none() {
        set_term.send_replace(Term::Until(Instant::now() + DRAIN_AT_END));
    }
    let published = loop {
        if let Some(result) = published {
            break result;
        }
        tokio::select! {
            result = &mut publisher => break result,
            wish = signals.next() => if wish == Wish::End {
                stop(shared, &set_term, &mut deadline);
            },
        }
    };
    let published = published.map_err(|error| Failure::new(error.reason(), error));
    first_failure(outcome, published)
}

/// Asks the threads to end and gives the publisher its term; a second call changes nothing.
fn stop(shared: &Shared, term: &watch::Sender<Term>, deadline: &mut Option<Instant>) {
    shared.stop.request();
    shared.health.stopping();
    if deadline.is_none() {
        let until = Instant::now() + DRAIN_ON_SIGNAL;
        *deadline = Some(until);
        term.send_replace(Term::Until(until));
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The first thing that went wrong explains the ones after it.
fn first_failure(before: Ended, now: Ended) -> Ended {
    match (&before, &now) {
        (Err(_), Err(later)) => {
            log::error!("{later}");
            before
        }
        (Err(_), Ok(())) => before,
        (Ok(()), _) => now,
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    End,
    Reload,
}

/// SIGTERM, as systemd sends it, SIGINT, as a terminal does, and SIGHUP.
struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}
