//! What a broker does not want now is put off: for half a second, then for twice as long each time up to half a minute.

use crate::backoff::Backoff;
use tokio::time::{Instant, sleep_until};

/// Until when events and counts wait, and what was logged of it.
#[derive(Debug, Default)]
pub(super) struct Patience {
    backoff: Backoff,
    until: Option<Instant>,
    /// The topic that was told of.
    told: Option<String>,
}

impl Patience {
    /// Whether it is to be waited.
    pub(super) fn is_needed(&self) -> bool {
        self.until.is_some()
    }

    /// Until the wait is over; never, if there is none.
    pub(super) async fn wait(&self) {
        match self.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    /// The wait is over, or there is another connection: it may be tried again.
    pub(super) fn try_again(&mut self) {
        self.until = None;
    }

    /// The broker does not want what was published on `topic`, and says why.
    pub(super) fn put_off(&mut self, topic: &str, reason: &str) {
        self.until = Some(Instant::now() + self.backoff.next_delay());
        if self.told.is_none() {
            log::warn!("the broker does not accept {topic} ({reason}): it is tried again");
            self.told = Some(topic.into());
        }
    }

    /// The broker took what was put off.
    pub(super) fn accepted(&mut self) {
        if let Some(topic) = &self.told {
            log::info!("the broker accepts {topic} again");
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waits_become_longer_until_something_is_accepted() {
        let mut patience = Patience::default();
        assert!(!patience.is_needed());
        let mut last = Duration::ZERO;
        for _ in 0..5 {
            patience.put_off("a", "quota exceeded");
            let left = patience.until.expect("a wait") - Instant::now();
            assert!(left > last, "{left:?} after {last:?}");
            // Chance takes up to a half off each, so that only every second one is surely longer.
            last = left / 2;
            patience.try_again();
            assert!(!patience.is_needed());
        }
        patience.accepted();
        patience.put_off("a", "quota exceeded");
        let left = patience.until.expect("a wait") - Instant::now();
        assert!(left <= Duration::from_millis(500), "{left:?}");
    }
}
