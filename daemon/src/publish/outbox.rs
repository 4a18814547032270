//! Events on their way to the broker: each stays here until the broker has confirmed it.
//!
//! They are held in memory: what waits when the device loses its power is lost, and numbers begin anew with each run of
//! the daemon. A store that outlives that takes the place of [`State`]; everybody else knows only the functions of
//! [`Outbox`].

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Events that the broker has not confirmed, the oldest first. Bounded: a full one drops its oldest.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    confirmed: Condvar,
    changed: Notify,
    events_max: usize,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    dropped: u64,
    is_closed: bool,
}

/// An event's document and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows by one from event to event.
    pub sequence: u64,
    /// The document.
    pub document: Vec<u8>,
}

impl Outbox {
    /// An empty outbox for at most `events_max` events.
    pub fn new(events_max: usize) -> Self {
        assert!(events_max > 0, "an outbox holds something");
        Self {
            state: Mutex::default(),
            confirmed: Condvar::new(),
            changed: Notify::new(),
            events_max,
        }
    }

    /// The number of the first event of this run.
    pub fn first_sequence(&self) -> u64 {
        0
    }

    /// Appends an event; a full outbox drops its oldest.
    pub fn push(&self, event: Event) {
        let mut state = self.lock();
        if state.events.len() == self.events_max {
            state.events.pop_front();
            state.dropped += 1;
        }
        state.events.push_back(event);
        drop(state);
        self.changed.notify_one();
    }

    /// Appends an event once there is room; gives it back if there was none in time.
    pub fn offer(&self, event: Event, timeout: Duration) -> Result<(), Event> {
        let (mut state, _) = self
            .confirmed
            .wait_timeout_while(self.lock(), timeout, |state| {
                state.events.len() == self.events_max
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.events.len() == self.events_max {
            return Err(event);
        }
        state.events.push_back(event);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// A copy of the oldest event, once there is one. It stays until it is confirmed. For one consumer.
    pub async fn first(&self) -> Event {
        loop {
            // Registered before looking: a push in between leaves a permit behind.
            let changed = self.changed.notified();
            if let Some(event) = self.lock().events.front() {
                return event.clone();
            }
            changed.await;
        }
    }

    /// The event with this number needs no more care.
    pub fn confirm(&self, sequence: u64) {
        let mut state = self.lock();
        // It may have been dropped meanwhile.
        if state
            .events
            .front()
            .is_some_and(|event| event.sequence == sequence)
        {
            state.events.pop_front();
        }
        drop(state);
        self.confirmed.notify_one();
        self.changed.notify_one();
    }

    /// Says that no event will follow.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Whether it was closed and everything was confirmed.
    pub fn is_finished(&self) -> bool {
        let state = self.lock();
        state.is_closed && state.events.is_empty()
    }

    /// Waits until it was closed and everything was confirmed.
    pub async fn finished(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_finished() {
                return;
            }
            changed.await;
        }
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events dropped so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours can panic between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    fn event(sequence: u64) -> Event {
        Event {
            sequence,
            document: vec![7],
        }
    }

    #[test]
    fn an_event_stays_until_it_is_confirmed() {
        let outbox = Outbox::new(2);
        outbox.push(event(0));
        outbox.push(event(1));
        assert_eq!(run(outbox.first()), event(0));
        assert_eq!(run(outbox.first()), event(0), "not confirmed");
        outbox.confirm(1);
        assert_eq!(run(outbox.first()), event(0), "another one was");
        outbox.confirm(0);
        assert_eq!(run(outbox.first()), event(1));
        outbox.close();
        assert!(!outbox.is_finished());
        outbox.confirm(1);
        assert!(outbox.is_finished());
        run(outbox.finished());
    }

    #[test]
    fn a_full_outbox_drops_its_oldest_and_counts_it() {
        let outbox = Outbox::new(2);
        for sequence in 0..5 {
            outbox.push(event(sequence));
        }
        assert_eq!((outbox.dropped(), outbox.len()), (3, 2));
        // What was on its way when it was dropped takes nothing else with it.
        outbox.confirm(2);
        assert_eq!(run(outbox.first()), event(3));
    }

    #[test]
    fn an_offer_to_a_full_outbox_waits_for_a_confirmation() {
        let outbox = Arc::new(Outbox::new(1));
        assert_eq!(outbox.offer(event(0), Duration::ZERO), Ok(()));
        assert_eq!(outbox.offer(event(1), Duration::ZERO), Err(event(1)));
        let offering = std::thread::spawn({
            let outbox = outbox.clone();
            move || outbox.offer(event(1), Duration::from_secs(60))
        });
        outbox.confirm(0);
        assert_eq!(offering.join().expect("no panic"), Ok(()));
        assert_eq!(run(outbox.first()), event(1));
        assert_eq!(outbox.dropped(), 0);
    }
}
