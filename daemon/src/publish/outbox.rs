//! Events on their way to the broker: each stays here until the broker has confirmed it.
//!
//! They are held in memory: what waits when the device loses its power is lost, and numbers begin anew with each run of
//! the daemon. A store that outlives that takes the place of the queue; everybody else knows only the functions of
//! [`Outbox`].

use super::queue::Queue;
use std::time::Duration;

/// Events that the broker has not confirmed, the oldest first. Bounded: a full one drops its oldest.
#[derive(Debug)]
pub struct Outbox(Queue<Event>);

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
        Self(Queue::new(events_max))
    }

    /// The number of the first event of this run.
    pub fn first_sequence(&self) -> u64 {
        0
    }

    /// Appends an event; a full outbox drops its oldest.
    pub fn push(&self, event: Event) {
        self.0.push(event);
    }

    /// Appends an event once there is room; gives it back if there was none in time.
    pub fn offer(&self, event: Event, timeout: Duration) -> Result<(), Event> {
        self.0.offer(event, timeout)
    }

    /// A copy of the oldest event, once there is one. It stays until it is confirmed. For one consumer.
    pub async fn first(&self) -> Event {
        self.0.first().await
    }

    /// The event with this number needs no more care.
    pub fn confirm(&self, sequence: u64) {
        // It may have been dropped meanwhile.
        self.0.remove_first_if(|event| event.sequence == sequence);
    }

    /// Says that no event will follow.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether it was closed and everything was confirmed.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until it was closed and everything was confirmed.
    pub async fn finished(&self) {
        self.0.finished().await;
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Events dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
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
