//! The threads of a run: none ends, well or not, without being heard of.

use super::Ended;
use crate::config::Config;
use crate::exit::{Failure, Reason};
use crate::pipeline::Shared;
use crate::publish::Outgoing;
use crate::publish::outbox::writer::Kept;
use crate::stop::Stop;
use crate::update::agent::Agent;
use crate::update::network::Inbox;
use anyhow::{Context, anyhow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

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
pub(super) fn spawn(
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

/// Whether a thread, if there is one, has not ended until then.
pub(super) fn is_cut_off(ends: Option<Receiver<()>>, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    ends.is_some_and(|ends| ends.recv_timeout(left) == Err(RecvTimeoutError::Timeout))
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
