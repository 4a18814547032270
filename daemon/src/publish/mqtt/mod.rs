//! The way to the broker.
//!
//! Takes what waits and publishes it: events at least once each (QoS 1, again after a lost connection until the broker
//! confirms them), counts retained, frames and pictures at most once (QoS 0). Says `online` on every connection and `offline` before
//! leaving, and leaves a last will that says `offline` for it. One task polls the connection and opens it again when it
//! is lost, another one publishes: publishing from the polling task would wait for itself.

mod config;
pub mod conversation;
pub mod errand;
mod link;
pub mod message;
mod patience;
mod publisher;
mod recent;
mod tls;
pub mod visit;

pub use config::{Config, Protocol, SessionError};
pub use link::Session;

use super::Outgoing;
use crate::backoff::Backoff;
use crate::health::Health;
use conversation::{Conversation, Listener};
use link::{Failure, Polled, Poller};
use patience::Patience;
use publisher::Publisher;
use recent::Recent;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// For so long a device listens to nothing that was sent more than it takes: what is retained comes again on every connection,
/// and would end each.
const DEAF: Duration = Duration::from_secs(600);

/// Between two attempts to connect, once only what waits is still to be published.
const PAUSE_AT_END: Duration = Duration::from_millis(500);

/// How long the publisher may go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    /// Until the queue is closed and empty.
    Open,
    /// So long, whatever is left in the queue then.
    Until(Instant),
}

/// The state of the connection, counted so that no reconnection goes unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Lost,
    Made(u64),
}

/// Where documents go, and how long the broker keeps events.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Topic of the events.
    pub events: String,
    /// Topic of the counts.
    pub counts: String,
    /// Topic of the frames' detections.
    pub frames: String,
    /// Topic of the snapshots.
    pub snapshots: String,
    /// Seconds.
    pub event_expiry_s: Option<u32>,
    /// Seconds for which the newest snapshot is retained; `None`: it is not.
    pub snapshot_expiry_s: Option<u32>,
}

/// Does some work on a connection that nothing else is done beside.
fn alone<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // Name resolution may still occupy a thread.
    runtime.shutdown_background();
    Ok(done)
}

/// Publishes what waits until nothing will follow or the term is over, then leaves.
pub async fn run(
    session: &Session,
    destination: &Destination,
    outgoing: &Outgoing,
    health: &Arc<Health>,
    conversations: Vec<Conversation>,
    term: watch::Receiver<Term>,
) -> Result<(), SessionError> {
    let (link, poller) = link::prepare(session)?;
    let (dialogues, listeners) = conversations.into_iter().map(Conversation::split).unzip();
    let (report, connection) = watch::channel(Connection::Lost);
    let (deafen, deaf_until) = watch::channel(None);
    let (give_up, given_up) = watch::channel(Connection::Lost);
    if let Some(doubt) = session.doubt() {
        log::warn!("{doubt}");
    }
    let mut polling = tokio::spawn(keep_connected(
        poller,
        session.clone(),
        Reports {
            connection: report,
            deaf_until: deafen,
        },
        (given_up, term.clone()),
        health.clone(),
        listeners,
    ));
    let mut publisher = Publisher {
        link,
        state_topic: &session.state_topic,
        destination,
        outgoing,
        health,
        dialogues,
        connection,
        deaf_until,
        give_up,
        confirmation_max: session.confirmation_max(),
        term,
        lost: 0,
        refused: 0,
        refused_snapshots: 0,
        dropped_told: 0,
        patience_for_events: Patience::default(),
        patience_for_states: Patience::default(),
        put_off: BTreeSet::new(),
        patience_for_counts: Patience::default(),
        recent: Recent::default(),
        again: VecDeque::new(),
    };
    tokio::select! {
        () = publisher.publish_all() => {}
        ended = &mut polling => return Err(SessionError::Unkept(ended.err())),
    }
    publisher.leave().await;
    polling.abort();
    let frames = &outgoing.frames;
    let unpublished = frames.len() as u64 + frames.dropped() + publisher.lost;
    if unpublished > 0 {
        log::warn!("{unpublished} documents were not published, the broker being away");
    }
    let snapshots = outgoing.snapshots.len() as u64 + publisher.refused_snapshots;
    if snapshots > 0 {
        log::info!("{snapshots} snapshots were not published");
    }
    let events = &outgoing.events;
    let waiting = events.durable();
    if waiting > 0 {
        log::info!("{waiting} events wait in the outbox for the next start");
    }
    let unpublished = (events.len() - waiting) as u64 + events.dropped() + publisher.refused;
    if unpublished > 0 {
        log::warn!("{unpublished} events were not published");
    }
    Ok(())
}

/// What the polling task tells the publisher.
struct Reports {
    connection: watch::Sender<Connection>,
    /// Until when nothing is to be listened to, if so.
    deaf_until: watch::Sender<Option<Instant>>,
}

/// Polls the connection, and opens it again when it is lost, until the publisher has left.
async fn keep_connected(
    mut poller: Poller,
    session: Session,
    reports: Reports,
    (mut given_up, mut term): (watch::Receiver<Connection>, watch::Receiver<Term>),
    health: Arc<Health>,
    mut listeners: Vec<Listener>,
) {
    let broker = session.broker();
    let mut backoff = Backoff::default();
    let mut count = 0;
    let mut connected_at: Option<Instant> = None;
    loop {
        let polled = tokio::select! {
            polled = poller.poll(&session) => polled,
            // Wherever this leaves the library, it forgets the connection. Only while there is one: the next has another number.
            () = is(&mut given_up, Connection::Made(count)), if connected_at.is_some() => {
                poller.give_up(&session)
            }
        };
        match polled {
            Polled::Connected => {
                count += 1;
                connected_at = Some(Instant::now());
                log::info!("connected to the broker at {broker}");
                health.connections.fetch_add(1, Ordering::Relaxed);
                reports.connection.send_replace(Connection::Made(count));
                listeners.iter_mut().for_each(Listener::connected);
            }
            Polled::Message(heard) => {
                listeners
                    .iter_mut()
                    .for_each(|listener| listener.hear(&heard));
            }
            Polled::Other => {}
            Polled::Ended => return,
            Polled::Failed(Failure { reason, is_flooded }) => {
                if is_flooded {
                    reports.deaf_until.send_replace(Some(Instant::now() + DEAF));
                }
                reports.connection.send_replace(Connection::Lost);
                if let Some(connected_at) = connected_at.take() {
                    health.connections.fetch_sub(1, Ordering::Relaxed);
                    backoff.worked_for(Instant::elapsed(&connected_at));
                }
                health.broker_failed(&reason);
                let delay = backoff.next_delay();
                log::warn!(
                    "no connection to the broker at {broker}: {reason}; next attempt in {:.1} s",
                    delay.as_secs_f32()
                );
                pause(delay, &mut term).await;
            }
        }
    }
}

/// A wait of this time before the next attempt; a short one once the end is near, or what waits would be lost although the broker is back.
async fn pause(delay: Duration, term: &mut watch::Receiver<Term>) {
    let near_the_end = async {
        // It also changes when nobody sets it any more.
        let _ = term.wait_for(|term| *term != Term::Open).await;
        sleep(PAUSE_AT_END).await;
    };
    tokio::select! {
        () = sleep(delay) => {}
        () = near_the_end => {}
    }
}

/// Until this connection is the one; never, if nobody can say so any more.
async fn is(given_up: &mut watch::Receiver<Connection>, connection: Connection) {
    if given_up.wait_for(|it| *it == connection).await.is_err() {
        std::future::pending().await
    }
}
