//! `ternwatchd simulate`: the traffic of a fleet, for whoever sizes a broker.
//!
//! Every camera is a device and an MQTT client of its own: people walk by in the street of [`street`], the real tracker,
//! zones and writers make documents of it, and the real publisher brings them to the broker. Nothing of it is kept there:
//! what is retained is removed at the end.

mod camera;
mod report;
mod street;

use crate::clock::Timestamp;
use crate::config::Config;
use crate::exit::{Failure, Reason};
use crate::health::Health;
use crate::logging;
use crate::publish::mqtt::visit::{self, VisitError};
use crate::publish::mqtt::{self, Destination, Session, SessionError, Term};
use crate::publish::outbox::{Bounds, Outbox};
use crate::publish::{Document, Outgoing, topic};
use crate::tell::{note, out};
use anyhow::{Context, anyhow};
use camera::{Camera, FRAMES_PER_SECOND};
use report::{Report, Tally};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

/// Cameras at most.
pub const CAMERAS_MAX: u32 = 20_000;
/// Seconds at most: a day.
pub const SECONDS_MAX: u32 = 86_400;
/// Events a second and camera, at least and at most: beyond that a street is too crowded to be followed.
pub const RATE: std::ops::RangeInclusive<f64> = 0.001..=10.0;

/// Time for the broker to answer the first of us.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two clients that connect: no broker has to take them all at once.
const CONNECT_PAUSE: Duration = Duration::from_millis(2);
/// Time for all of them, and for each.
const CONNECT_WITHIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(10));
/// Time in which the cameras end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Time for what waits after the last frame.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for the clients to leave, if they have to before the end.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// Time for the broker to forget what it keeps, and for each device of it.
const FORGET_WITHIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(10));
/// Events that wait for a broker that does not keep up, all cameras together.
const EVENTS_WAITING_MAX: usize = 200_000;
/// Files of a process besides its connections.
const OTHER_FILES: u64 = 64;

/// How many, how long, how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// 1 to [`CAMERAS_MAX`].
    pub cameras: u32,
    /// 1 to [`SECONDS_MAX`].
    pub seconds: u32,
    /// Events a second and camera, within [`RATE`].
    pub rate: f64,
    /// The same seed makes the same people.
    pub seed: u64,
}

/// A simulated device.
struct Member {
    session: Session,
    destination: Destination,
    outgoing: Arc<Outgoing>,
}

/// Simulates until the time is over, or SIGTERM or SIGINT comes; then tells what it came to. Fails if the broker does not have every event.
pub fn run(config: &Config, plan: &Plan) -> Result<(), Failure> {
    if !config.mqtt.enabled {
        let error = anyhow!("`mqtt.enabled` is false, so there is no broker to publish to");
        return Err(Failure::new(Reason::Config, error));
    }
    // Connections are told of in numbers, not one by one.
    logging::start(&logging::Config {
        level: config.log.level.min(log::LevelFilter::Warn),
    });
    let members = members(config, plan)?;
    raise_file_limit(plan.cameras)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot prepare the network")
        .map_err(unavailable)?;
    let result = runtime.block_on(simulate(config, plan, members));
    runtime.shutdown_background();
    result
}

fn unavailable(error: anyhow::Error) -> Failure {
    Failure::new(Reason::Unavailable, error)
}

fn members(config: &Config, plan: &Plan) -> Result<Vec<Member>, Failure> {
    let first = config.device.id();
    let name = |number: u32| format!("{first}-{number:04}");
    topic::validate_level("device.id", &name(plan.cameras)).map_err(|invalid| {
        let error = anyhow!(
            "`device.id`: with a number behind it, it {}",
            invalid.reason
        );
        Failure::new(Reason::Config, error)
    })?;
    let session = (config.mqtt.session(&first))
        .map_err(|error: SessionError| Failure::new(Reason::Config, error))?;
    let (prefix, camera) = (&config.mqtt.prefix, &config.camera.name);
    let expiry_s = config.publish.event_expiry_s;
    let bounds = Bounds {
        events_max: (EVENTS_WAITING_MAX / plan.cameras as usize)
            .clamp(16, config.mqtt.queue_events_max),
        bytes_max: config.mqtt.outbox_mib_max << 20,
    };
    let member = |number| {
        let device = name(number);
        Member {
            session: session.numbered(number, topic::state(prefix, &device)),
            destination: Destination {
                events: topic::events(prefix, &device, camera),
                counts: topic::counts(prefix, &device, camera),
                frames: topic::detections(prefix, &device, camera),
                snapshots: topic::snapshot(prefix, &device, camera),
                event_expiry_s: (expiry_s > 0).then_some(expiry_s),
                snapshot_expiry_s: None,
            },
            outgoing: Arc::new(Outgoing::new(Outbox::in_memory(bounds), 1)),
        }
    };
    Ok((1..=plan.cameras).map(member).collect())
}

/// Every client needs an open file; the ordinary limit is 1024.
fn raise_file_limit(cameras: u32) -> Result<(), Failure> {
    let wanted = u64::from(cameras) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| {
            format!("{cameras} clients need {wanted} open files; `ulimit -Hn` must allow them")
        })
        .map_err(unavailable)
}

async fn simulate(config: &Config, plan: &Plan, members: Vec<Member>) -> Result<(), Failure> {
    let failed = |error: VisitError| Failure::new(Reason::Unavailable, error);
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals");
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals");
    let interrupt = interrupt
        .as_mut()
        .map_err(|e| unavailable(anyhow!("{e}")))?;
    let terminate = terminate
        .as_mut()
        .map_err(|e| unavailable(anyhow!("{e}")))?;
    let Some(guide) = members.first().map(|member| member.session.clone()) else {
        return Ok(());
    };
    visit::forget(&guide, &[], ANSWER_WITHIN)
        .await
        .map_err(failed)?;

    let retained: Vec<String> = members
        .iter()
        .flat_map(|member| {
            let state = member.session.state_topic().to_owned();
            [state, member.destination.counts.clone()]
        })
        .collect();
    let outgoing: Vec<_> = members.iter().map(|m| m.outgoing.clone()).collect();
    let health = Arc::new(Health::new(Duration::ZERO, None, &config.camera.name));
    let (set_term, term) = watch::channel(Term::Open);
    let mut clients = JoinSet::new();
    let work = async {
        connect(members, &health, &term, &mut clients).await?;
        let tally = Arc::new(Tally::default());
        let started = Instant::now();
        publish(config, plan, outgoing.clone(), &tally, &health).await?;
        set_term.send_replace(Term::Until(time::Instant::now() + DRAIN));
        while clients.join_next().await.is_some() {}
        let report = Report {
            cameras: plan.cameras,
            took: started.elapsed(),
            tally: &tally,
            latencies: &health.confirmations(),
            messages: health.published.load(Ordering::Relaxed),
            dropped: outgoing.iter().map(|o| o.dropped()).sum(),
        };
        out(&report);
        if report.is_complete() {
            return Ok(());
        }
        Err(unavailable(anyhow!(
            "the broker did not confirm every event"
        )))
    };
    let result = tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Err(unavailable(anyhow!("stopped before the end"))),
        _ = terminate.recv() => Err(unavailable(anyhow!("stopped before the end"))),
    };
    // Whoever is still connected says goodbye, so that no last will comes after what is removed here.
    set_term.send_replace(Term::Until(time::Instant::now()));
    let goodbye = async { while clients.join_next().await.is_some() {} };
    let _ = time::timeout(LEAVE_WITHIN, goodbye).await;
    clients.shutdown().await;
    let (all, each) = FORGET_WITHIN;
    let forgotten = visit::forget(&guide, &retained, all + each * plan.cameras).await;
    result.and(forgotten.map_err(failed))
}

/// Lets the clients connect, one after the other, and waits until all have.
async fn connect(
    members: Vec<Member>,
    health: &Arc<Health>,
    term: &watch::Receiver<Term>,
    clients: &mut JoinSet<()>,
) -> Result<(), Failure> {
    let count = members.len() as u64;
    let (all, each) = CONNECT_WITHIN;
    let until = time::Instant::now() + all + each * u32::try_from(count).unwrap_or(u32::MAX);
    for member in members {
        let (health, term) = (health.clone(), term.clone());
        clients.spawn(async move {
            let Member {
                session,
                destination,
                outgoing,
            } = member;
            // The settings were good for the first of us.
            if let Err(error) =
                mqtt::run(&session, &destination, &outgoing, &health, Vec::new(), term).await
            {
                log::error!("{error}");
            }
        });
        time::sleep(CONNECT_PAUSE).await;
    }
    loop {
        let connected = health.connections.load(Ordering::Relaxed);
        note(format_args!("{connected} of {count} clients are connected"));
        if connected >= count {
            return Ok(());
        }
        if time::Instant::now() >= until {
            let error = anyhow!("only {connected} of {count} clients could connect");
            return Err(unavailable(error));
        }
        time::sleep(Duration::from_secs(1)).await;
    }
}

/// Lets people walk by until the time is over, and tells once a second how far it is.
async fn publish(
    config: &Config,
    plan: &Plan,
    outgoing: Vec<Arc<Outgoing>>,
    tally: &Arc<Tally>,
    health: &Health,
) -> Result<(), Failure> {
    let is_over = Arc::new(AtomicBool::new(false));
    let streets = {
        let (config, plan) = (config.clone(), plan.clone());
        let (tally, is_over) = (tally.clone(), is_over.clone());
        thread::Builder::new()
            .name("streets".into())
            .spawn(move || watch_streets(&config, &plan, &outgoing, &tally, &is_over))
            .context("cannot start a thread")
            .map_err(unavailable)?
    };
    // Ends the thread too if this wait is given up.
    let _over = SetAtEnd(is_over);
    let started = Instant::now();
    while !streets.is_finished() {
        time::sleep(Duration::from_secs(1).min(Duration::from_millis(100) * plan.seconds)).await;
        note(format_args!(
            "{:4.0} s: {} events published, {} confirmed, {} clients connected",
            started.elapsed().as_secs_f64(),
            tally.events.load(Ordering::Relaxed),
            health.confirmations().count(),
            health.connections.load(Ordering::Relaxed)
        ));
    }
    streets
        .join()
        .map_err(|_| Failure::new(Reason::Software, anyhow!("the streets panicked")))
}

struct SetAtEnd(Arc<AtomicBool>);

impl Drop for SetAtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every camera in turn, each at its moment of a frame's time, until the time is over.
fn watch_streets(
    config: &Config,
    plan: &Plan,
    outgoing: &[Arc<Outgoing>],
    tally: &Tally,
    is_over: &AtomicBool,
) {
    let visits_per_s = camera::visits_for(config, plan.rate, plan.seed);
    let now = Timestamp::now();
    let seed = |number: usize| plan.seed.wrapping_add(1 + number as u64);
    let mut cameras: Vec<(Camera, &Outgoing)> = outgoing
        .iter()
        .enumerate()
        .map(|(number, outgoing)| {
            let camera = Camera::new(config, visits_per_s, seed(number), now);
            (camera, outgoing.as_ref())
        })
        .collect();
    let period = Duration::from_secs(1) / FRAMES_PER_SECOND as u32;
    let step = period / plan.cameras;
    let started = Instant::now();
    'time: for frame in 0..plan.seconds * FRAMES_PER_SECOND as u32 {
        for (number, (camera, outgoing)) in (0u32..).zip(&mut cameras) {
            let due = period * frame + step * number;
            let late = started.elapsed().saturating_sub(due);
            if late >= period {
                tally.skipped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let early = due.saturating_sub(started.elapsed());
            if early >= Duration::from_millis(1) {
                thread::sleep(early);
            }
            if is_over.load(Ordering::Relaxed) {
                break 'time;
            }
            let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
            tally.late_us_max.fetch_max(late_us, Ordering::Relaxed);
            hand_over(camera.step(Timestamp::now()), outgoing, tally);
        }
    }
    // One after the other: that a fleet sees its last people at the same moment would be another thing to measure.
    let pause = END_WITHIN / plan.cameras;
    let started = Instant::now();
    for (number, (camera, outgoing)) in (0u32..).zip(&mut cameras) {
        let early = (pause * number).saturating_sub(started.elapsed());
        if early >= Duration::from_millis(1) && !is_over.load(Ordering::Relaxed) {
            thread::sleep(early);
        }
        tally.people.fetch_add(camera.visits(), Ordering::Relaxed);
        // Ends are told with the moment of the last frame: that must not be long ago.
        hand_over(camera.step(Timestamp::now()), outgoing, tally);
        hand_over(camera.finish(), outgoing, tally);
        outgoing.close();
    }
}

fn hand_over(documents: impl Iterator<Item = Document>, outgoing: &Outgoing, tally: &Tally) {
    for document in documents {
        let bytes = document.bytes().len() as u64;
        let (count, sum) = match document {
            Document::Event(_) => (&tally.events, &tally.event_bytes),
            Document::Counts(_) | Document::Frame(_) => (&tally.counts, &tally.count_bytes),
        };
        count.fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(bytes, Ordering::Relaxed);
        outgoing.push(document);
    }
}
