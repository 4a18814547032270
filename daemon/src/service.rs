//! A run of the daemon from the loaded model to the farewell: starts the threads, waits for whatever ends first, and
//! sees to it that everything ends in time.

mod threads;

use crate::camera;
use crate::clock::Timestamp;
use crate::command::{self, Control};
use crate::config::Config;
use crate::detection::Detection;
use crate::exit::{Failure, Reason};
use crate::health::Health;
use crate::mailbox::Mailbox;
use crate::model::Loaded;
use crate::motion::{Frames, Gate};
use crate::pipeline::{self, Inference, Outlet, Revival, Shared, Watch};
use crate::publish::event::EventWriter;
use crate::publish::home_assistant::{self, Announcement, Names, Subject};
use crate::publish::mqtt::conversation::Conversation;
use crate::publish::mqtt::{self, Destination, Session, Term};
use crate::publish::outbox::writer::{self, Kept};
use crate::publish::outbox::{Bounds, Outbox};
use crate::publish::payload::Source;
use crate::publish::settings::Reporter;
use crate::publish::{Outgoing, about, topic};
use crate::reload::{self, Mail};
use crate::schedule::Schedule;
use crate::snapshot::{Album, Desk, Studio};
use crate::stop::Stop;
use crate::track::Tracker;
use crate::update::agent::Agent;
use crate::update::hawkbit::Courier;
use crate::update::network;
use crate::update::slot::Slot;
use crate::update::start::Start;
use crate::update::web::Web;
use anyhow::{Context, anyhow};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use ternwatch_detector::{Isa, Team};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// After SIGTERM, time for the frame in work and for the documents that wait; then `offline` is said.
const DRAIN_ON_SIGNAL: Duration = Duration::from_millis(1000);
/// Time for the threads beside the frame path to end.
const THREADS_END: Duration = Duration::from_millis(400);
/// After the last frame of a file, time for the documents that wait.
const DRAIN_AT_END: Duration = Duration::from_secs(10);

/// What is published when and where.
struct Publishing {
    session: Session,
    destination: Destination,
    outgoing: Arc<Outgoing>,
    conversations: Vec<Conversation>,
    announcement: Option<Arc<Announcement>>,
}

impl Publishing {
    fn prepare(config: &Config, device: &str, outbox: Outbox) -> Result<Self, mqtt::SessionError> {
        let (mqtt, camera) = (&config.mqtt, &config.camera.name);
        let (expiry_s, snapshot_expiry_s) =
            (config.publish.event_expiry_s, config.snapshots.expire_s);
        Ok(Self {
            session: mqtt.session(device)?,
            destination: Destination {
                events: topic::events(&mqtt.prefix, device, camera),
                counts: topic::counts(&mqtt.prefix, device, camera),
                frames: topic::detections(&mqtt.prefix, device, camera),
                snapshots: topic::snapshot(&mqtt.prefix, device, camera),
                event_expiry_s: (expiry_s > 0).then_some(expiry_s),
                snapshot_expiry_s: (snapshot_expiry_s > 0).then_some(snapshot_expiry_s),
            },
            outgoing: Arc::new(Outgoing::new(outbox, mqtt.queue_documents_max)),
            conversations: Vec::new(),
            announcement: None,
        })
    }

    /// Adds what Home Assistant is told, if it is to be told.
    fn announce(&mut self, config: &Config, device: &str, is_updatable: bool) {
        if config.home_assistant.enabled {
            let announcement = Arc::new(Announcement::new(Subject {
                prefix: config.mqtt.prefix.clone(),
                device: device.into(),
                camera: config.camera.name.clone(),
                names: Names::new(&config.zones, &config.lines),
                has_statistics: config.publish.statistics_s > 0,
                is_updatable,
                waits_for_owner: !config.update.automatic,
                has_snapshots: config.snapshots.enabled,
                takes_commands: config.mqtt.commands,
            }));
            let conversation = home_assistant::connect(&config.home_assistant, &announcement);
            self.conversations.push(conversation);
            self.announcement = Some(announcement);
        }
    }

    /// Adds what the device says of itself. Within the runtime.
    fn tell_about_itself(&mut self, config: &Config, device: &str, health: &Arc<Health>) {
        let (conversation, measuring) = about::connect(config, device, health, &self.outgoing);
        self.conversations.push(conversation);
        tokio::spawn(measuring);
    }
}

/// How a thread ended.
type Ended = Result<(), Failure>;

/// Reads the configuration again.
pub type Reread<'a> = &'a dyn Fn() -> Result<Config, Failure>;

/// Watches until the source ends, a thread fails, or SIGTERM or SIGINT comes. SIGHUP takes over what can be changed of
/// what `reread` gives.
pub fn run(config: &Config, start: Start, isa: Isa, reread: Reread<'_>) -> Result<(), Failure> {
    let unavailable = |error: anyhow::Error| Failure::new(Reason::Unavailable, error);
    let device = config.device.id();
    let Start { loaded, store } = start;
    let listens = config.update.over_mqtt;
    let (conversation, ends) = network::connect(&config.mqtt.prefix, &device, listens);
    let slot = Arc::new(Slot::default());
    let updates_inbox = store.as_ref().map(|_| ends.sender.clone());
    let states = ends.outbox.state.subscribe();
    let courier = Courier::new(&config.update, &device, ends.sender.clone(), states)
        .map_err(|error| Failure::new(Reason::Config, error))?;
    let access = courier.as_ref().map(Courier::access);
    let web = Web::start(&config.update, access, ends.sender)
        .map_err(|error| Failure::new(error.reason(), error))?;
    let agent = store.map(|store| {
        let identity = loaded.identity.clone();
        Agent::new(config, isa, store, slot.clone(), ends.outbox, identity).with_web(web)
    });
    let (outbox, kept) = open_outbox(config);
    let shared = Shared {
        mailbox: Arc::new(Mailbox::new(camera::FrameBuffer::empty())),
        when_busy: config.pipeline.when_busy,
        stop: Stop::default(),
        health: Arc::new(Health::new(
            config.camera.patience(),
            (config.mqtt.enabled).then(|| format!("{}:{}", config.mqtt.host, config.mqtt.port)),
            &config.camera.name,
        )),
        switches: Arc::default(),
    };
    shared.health.model_is(loaded.identity.clone());
    let schedule = Schedule::new(&config.schedule)
        .map_err(|invalid| Failure::new(Reason::Config, anyhow!(invalid.reason)))?;
    let detection = Detection::new(schedule, shared.switches.clone(), config.mqtt.commands);
    let detection = Arc::new(detection);
    let mut publishing = config
        .mqtt
        .enabled
        .then(|| Publishing::prepare(config, &device, outbox))
        .transpose()
        .map_err(|error: mqtt::SessionError| Failure::new(error.reason(), error))?;
    if let Some(publishing) = &mut publishing {
        publishing
            .conversations
            .extend(agent.is_some().then_some(conversation));
        publishing.announce(config, &device, agent.is_some());
        let topic = topic::detection(&config.mqtt.prefix, &device, &config.camera.name);
        publishing.conversations.push(detection.connect(topic));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot prepare the network")
        .map_err(unavailable)?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()
            .context("cannot listen to signals")
            .map_err(unavailable)?;
        if let Some(publishing) = &mut publishing {
            publishing.tell_about_itself(config, &device, &shared.health);
        }
        let outgoing = publishing
            .as_ref()
            .map(|publishing| publishing.outgoing.clone());
        // Of threads beside the frame path, only that they broke is of interest before the end.
        let (broken, breakdowns) = mpsc::unbounded_channel();
        let outbox_ends = kept
            .zip(outgoing.clone())
            .map(|(kept, outgoing)| threads::outbox(config, kept, outgoing, &broken))
            .transpose()?;
        let updates = agent
            .map(|agent| threads::updates(agent, ends.inbox, &shared.stop, &broken))
            .transpose()?;
        if updates.is_some()
            && let Some(courier) = courier
        {
            let started = courier.start(&shared.stop);
            started.map_err(|error| Failure::new(Reason::Unavailable, error))?;
        }
        tokio::spawn(detection.clone().keep());
        let mail = Arc::new(Mail::default());
        let desk = config.snapshots.enabled.then(Arc::<Desk>::default);
        let threads = start_threads(
            config,
            loaded,
            &shared,
            outgoing.clone(),
            slot,
            mail.clone(),
            desk.clone(),
        )?;
        let control = Control {
            running: Arc::new(Mutex::new(config.clone())),
            settings: Arc::new(Reporter::new(config)),
            mail,
            switches: shared.switches.clone(),
            detection,
            announcement: publishing
                .as_ref()
                .and_then(|publishing| publishing.announcement.clone()),
            desk,
            health: shared.health.clone(),
            updates: updates_inbox,
        };
        if let Some(publishing) = &mut publishing
            && config.mqtt.commands
        {
            let conversation = command::connect(control.clone(), &device);
            publishing.conversations.push(conversation);
        }
        let mut on_reload = || {
            let mut running = control.running();
            read_again(&mut running, reread, &control.mail);
            control.settings.tell(&running);
            if let Some(announcement) = &control.announcement {
                announcement.change_places(&running.zones, &running.lines);
            }
            // It was checked as it was read.
            if let Ok(schedule) = Schedule::new(&running.schedule) {
                control.detection.change_schedule(schedule);
            }
        };
        let watched = (threads, breakdowns);
        let outcome = supervise(&shared, watched, publishing, &mut signals, &mut on_reload).await;
        shared.stop.request();
        if let Some(outgoing) = &outgoing {
            outgoing.events.leave();
        }
        let until = Instant::now() + THREADS_END;
        // Whatever they are at may be cut off at any moment; a trial that is then counts as an attempt.
        if threads::is_cut_off(updates, until) {
            log::warn!("the update of the model is cut off");
        }
        if threads::is_cut_off(outbox_ends, until) {
            log::warn!("the memory card does not answer in time: the newest events may be lost");
        }
        outcome
    });
    // Name resolution may still occupy a thread of the runtime; nobody waits for its answer any more.
    runtime.shutdown_background();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    log::info!(
        "{} frames captured, {}, {} documents published",
        count(&shared.health.captured),
        shared.health.frames(),
        count(&shared.health.published),
    );
    outcome
}

/// Takes over what can be changed of the configuration of now. One that is wrong changes nothing.
fn read_again(running: &mut Config, reread: Reread<'_>, mail: &Mail) {
    match reread() {
        Ok(next) => {
            let others = reload::apply(running, next, mail);
            log::info!("zones, lines, thresholds and the schedule are read again");
            if !others.is_empty() {
                let others = others.join(", ");
                log::warn!("changed, but read at the start only: {others}");
            }
        }
        Err(failure) => log::error!("the settings stay as they were: {failure}"),
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

/// Starts capture and inference, and what makes pictures if there is a desk for them; all report how they ended.
fn start_threads(
    config: &Config,
    loaded: Loaded,
    shared: &Shared,
    outgoing: Option<Arc<Outgoing>>,
    slot: Arc<Slot>,
    mail: Arc<Mail>,
    desk: Option<Arc<Desk>>,
) -> Result<mpsc::UnboundedReceiver<Ended>, Failure> {
    let (ended, ends) = mpsc::unbounded_channel();
    let camera = &config.camera.name;
    let writer = EventWriter {
        camera: camera.clone(),
        model: loaded.identity.clone(),
        classes: loaded.classes.clone(),
        started_at: Timestamp::now().rfc3339(),
        sequence: outgoing.as_ref().map_or(0, |o| o.events.first_sequence()),
    };
    let mut album = None;
    if let (Some(desk), Some(outgoing)) = (desk, outgoing.clone()) {
        let (settings, health) = (&config.snapshots, &shared.health);
        let started_at = writer.started_at.clone();
        let (studio, orders) = Studio::new(settings, started_at, outgoing, health.clone());
        album = Some(Album::new(settings, orders, desk, health.clone()));
        threads::spawn("snapshots", ended.clone(), shared, move |shared| {
            studio.run(&shared.stop);
            Ok(())
        })?;
    }
    let tracker = Tracker::new(&config.track, loaded.thresholds.score);
    let frames = if config.publish.frames {
        Frames::EachForItself
    } else {
        Frames::ForTracks
    };
    let inference = Inference {
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
    };
    let camera_config = config.camera.clone();
    threads::spawn("capture", ended.clone(), shared, move |shared| {
        let source = camera_config.source;
        let revival = if source.is_finite() {
            Revival::Never
        } else {
            let advice = source.advice();
            Revival::Reopen { advice }
        };
        let open = || camera::open(&camera_config, &shared.stop);
        let result = pipeline::capture(shared, revival, open);
        result.map_err(|error| Failure::new(error.reason(), error))
    })?;
    let threads = config.model.threads;
    threads::spawn("inference", ended, shared, move |shared| {
        // It helps as long as frames come.
        let _team = Team::of_this_thread(threads)
            .map_err(|error| Failure::new(Reason::Unavailable, error))?;
        let result = inference.run(shared);
        result.map_err(|error| Failure::new(error.reason(), error))
    })?;
    Ok(ends)
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
