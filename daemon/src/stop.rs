//! The wish to end, shared by all threads.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Asked once, seen by every clone.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Asks everybody to end and wakes those who wait.
    pub fn request(&self) {
        *self
            .0
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        *self
            .0
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `deadline`, or less if somebody asks; tells whether somebody did.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        let mut requested = self
            .0
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !*requested {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (requested, _) = self
                .0
                .changed
                .wait_timeout(requested, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Waits for `time`, or less if somebody asks; tells whether somebody did.
    pub fn wait(&self, time: Duration) -> bool {
        self.wait_until(Instant::now() + time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_every_wait() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::from_millis(1)));
        let waiting = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait(Duration::from_secs(60))
        });
        stop.request();
        assert!(waiting.join().expect("no panic"));
        assert!(stop.requested());
    }
}
