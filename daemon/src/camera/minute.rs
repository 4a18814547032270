//! Counts within minutes, for what may happen many times a second and is to be told of seldom.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// What happened in a minute. The next one begins with the first time that something happens after it.
#[derive(Debug, Default)]
pub(super) struct Minute {
    began: Option<Instant>,
    count: u64,
}

impl Minute {
    /// It happened `now`. Gives how often it did in the minute before if that is over.
    pub(super) fn add(&mut self, now: Instant) -> Option<u64> {
        let is_over = |began: Instant| now.saturating_duration_since(began) >= MINUTE;
        if self.began.is_some_and(|began| !is_over(began)) {
            self.count += 1;
            return None;
        }
        let before = self.began.replace(now).map(|_| self.count);
        self.count = 1;
        before
    }

    /// How often it happened in this one.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_told_of_when_something_happens_after_it() {
        let mut minute = Minute::default();
        let then = Instant::now();
        let mut at = |seconds| minute.add(then + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(59)], [None; 3]);
        assert_eq!(at(60), Some(3));
        assert_eq!([at(61), at(119)], [None; 2]);
        assert_eq!(at(1000), Some(3));
        assert_eq!(minute.count(), 1);
    }
}
