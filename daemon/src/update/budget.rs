//! How often a download may begin: whoever may offer models must not be able to wear the memory card out with it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that is looked back.
const WINDOW: Duration = Duration::from_secs(3600);

/// Downloads that began within the last hour. Resuming one is not a beginning.
#[derive(Clone, Debug)]
pub struct Budget {
    max: usize,
    begun: VecDeque<Instant>,
}

impl Budget {
    /// So many an hour.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            begun: VecDeque::with_capacity(max),
        }
    }

    /// Whether one may begin now; then it counts.
    pub fn take(&mut self, now: Instant) -> bool {
        while self
            .begun
            .front()
            .is_some_and(|begun| now.saturating_duration_since(*begun) >= WINDOW)
        {
            self.begun.pop_front();
        }
        let has_room = self.begun.len() < self.max;
        if has_room {
            self.begun.push_back(now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_often_somebody_asks_only_so_many_begin_within_any_hour() {
        let mut budget = Budget::new(3);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        // Every second of three hours.
        let begun: Vec<u64> = (0..10_800)
            .filter(|second| budget.take(at(*second)))
            .collect();
        assert_eq!(begun, [0, 1, 2, 3600, 3601, 3602, 7200, 7201, 7202]);
    }
}
