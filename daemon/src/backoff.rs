//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait, before chance.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait, before chance.
const LAST: Duration = Duration::from_secs(30);

/// What worked for so long worked well: the next attempt after its end comes soon.
const LASTING: Duration = Duration::from_secs(10);

/// Waits that double from half a second to half a minute. Chance takes up to a half off, so that the devices of a
/// site do not all return in the same moment.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait.
    pub fn next_delay(&mut self) -> Duration {
        let delay = delay(self.attempts, chance());
        self.attempts = self.attempts.saturating_add(1);
        delay
    }

    /// After a success that lasted so long. A short one changes nothing: what fails again and again soon after it began is
    /// to be tried as seldom as what never begins.
    pub fn worked_for(&mut self, duration: Duration) {
        if duration >= LASTING {
            self.attempts = 0;
        }
    }
}

/// `chance` is 0 to 65535.
fn delay(attempts: u32, chance: u16) -> Duration {
    let full = FIRST.saturating_mul(1 << attempts.min(16)).min(LAST);
    full - full / 2 * u32::from(chance) / u32::from(u16::MAX)
}

/// The standard library seeds its hash tables by chance; that is all the chance needed here.
fn chance() -> u16 {
    RandomState::new().hash_one(0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let waits: Vec<f64> = (0..9).map(|n| delay(n, 0).as_secs_f64()).collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!(delay(u32::MAX, 0), LAST);
    }

    #[test]
    fn only_what_lasted_begins_the_waits_anew() {
        let mut backoff = Backoff::default();
        for attempts in 1..=7 {
            // It works, but never for long.
            backoff.worked_for(LASTING - Duration::from_millis(1));
            backoff.next_delay();
            assert_eq!(backoff.attempts, attempts);
        }
        backoff.worked_for(LASTING);
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn chance_takes_up_to_a_half_off() {
        for attempts in 0..40 {
            let (full, half) = (delay(attempts, 0), delay(attempts, u16::MAX));
            assert_eq!(half, full / 2);
            let mut backoff = Backoff { attempts };
            let drawn = backoff.next_delay();
            assert!((half..=full).contains(&drawn), "{drawn:?}");
        }
    }
}
