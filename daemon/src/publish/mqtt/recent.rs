//! Events that the broker confirmed a moment ago.
//!
//! A broker confirms an event once it has it, not once its subscribers do. If it dies in between, the event dies with
//! it, unless it is published again. So what was confirmed shortly before a connection was lost is published once more on
//! the next one. Subscribers know an event by its number and drop what they have. A connection that fades away is
//! noticed long after the last confirmation: then nothing is repeated.

use crate::publish::outbox::Event;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// A broker that is alive has passed on what it confirmed so long ago.
const SETTLES_AFTER: Duration = Duration::from_secs(5);
/// Bounds of what is remembered. A burst that is longer than that is repeated in part.
const EVENTS_MAX: usize = 256;
const BYTES_MAX: usize = 1 << 20;

/// The events that were confirmed last, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    events: VecDeque<(Instant, Event)>,
    bytes: usize,
}

impl Recent {
    /// Remembers an event that was confirmed `now`.
    pub(super) fn confirmed(&mut self, event: Event, now: Instant) {
        self.forget_settled(now);
        self.bytes += event.document.len();
        self.events.push_back((now, event));
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            self.forget_oldest();
        }
    }

    /// The connection was lost `now`: what may have been lost with it, in order. Each is to be remembered again once it
    /// is confirmed again.
    pub(super) fn lost(&mut self, now: Instant) -> VecDeque<Event> {
        self.forget_settled(now);
        self.bytes = 0;
        let events = std::mem::take(&mut self.events);
        events.into_iter().map(|(_, event)| event).collect()
    }

    fn forget_settled(&mut self, now: Instant) {
        let is_settled = |at: Instant| now.saturating_duration_since(at) >= SETTLES_AFTER;
        while self.events.front().is_some_and(|(at, _)| is_settled(*at)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, event)) = self.events.pop_front() {
            self.bytes -= event.document.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, bytes: usize) -> Event {
        Event {
            sequence,
            document: vec![b' '; bytes],
        }
    }

    fn numbers(events: VecDeque<Event>) -> Vec<u64> {
        events.into_iter().map(|event| event.sequence).collect()
    }

    #[test]
    fn what_was_confirmed_shortly_before_the_loss_comes_again_once() {
        let start = Instant::now();
        let mut recent = Recent::default();
        for (sequence, after_ms) in [(0, 0), (1, 900), (2, 3500), (3, 4400)] {
            recent.confirmed(event(sequence, 10), start + Duration::from_millis(after_ms));
        }
        let lost_at = start + Duration::from_millis(6000);
        assert_eq!(numbers(recent.lost(lost_at)), [2, 3]);
        assert!(recent.lost(lost_at).is_empty());
        assert_eq!(recent.bytes, 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut recent = Recent::default();
        (0..1000).for_each(|sequence| recent.confirmed(event(sequence, 10), now));
        assert_eq!(numbers(recent.lost(now)), (744..1000).collect::<Vec<_>>());
        (0..10).for_each(|sequence| recent.confirmed(event(sequence, BYTES_MAX / 4), now));
        assert_eq!(numbers(recent.lost(now)), [6, 7, 8, 9]);
    }
}
