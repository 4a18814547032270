//! Until when a model may be installed, and by which daemon.
//!
//! A board without a battery does not know the time after a power cut. What it knows is that the present is not before
//! the latest time at which something that it holds was signed. So the clock is believed where it is later than that,
//! and never written down: a clock that was years ahead for a moment leaves no trace. What is in use goes on when it
//! expires: a camera that goes blind is the greater harm.

use super::reason::Reason;
use crate::clock;
use ternwatch_bundle::manifest::Release;

/// Why a model that says this of its release must not be installed here and now, if so. `floor_s` is the latest signed
/// time, in seconds since 1970.
pub fn objection_now(release: Option<&Release>, floor_s: u64) -> Option<Reason> {
    let clock_s = clock::seconds();
    objection(release, Now { clock_s, floor_s }, daemon_version())
}

/// Whether it asks for a later daemon than this one.
pub fn is_of_later(release: &Release) -> bool {
    release.daemon_min.is_some_and(is_later)
}

/// Whether this daemon is older than that version.
pub fn is_later(daemon: [u32; 3]) -> bool {
    daemon_version() < daemon
}

/// What is known of the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Now {
    /// The system's clock, in seconds since 1970.
    clock_s: u64,
    /// The latest signed time, in seconds since 1970.
    floor_s: u64,
}

/// The version of this program: major, minor, patch.
fn daemon_version() -> [u32; 3] {
    let number = |text: &str| text.parse().unwrap_or(0);
    [
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    ]
}

/// The same of any present and any daemon: pure.
fn objection(release: Option<&Release>, now: Now, daemon: [u32; 3]) -> Option<Reason> {
    let release = release?;
    if release.daemon_min.is_some_and(|least| daemon < least) {
        return Some(Reason::DaemonTooOld);
    }
    let present_s = now.clock_s.max(now.floor_s);
    let is_over = release.not_after_s.is_some_and(|end_s| present_s > end_s);
    is_over.then_some(Reason::Expired)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 86_400;
    const SIGNED_AT_S: u64 = 1_790_000_000;
    const DAEMON: [u32; 3] = [1, 4, 2];

    fn release(days: u64) -> Release {
        Release {
            signed_at_s: SIGNED_AT_S,
            not_after_s: Some(SIGNED_AT_S + days * DAY_S),
            daemon_min: None,
        }
    }

    fn objection_at(clock_s: u64, floor_s: u64) -> Option<Reason> {
        objection(Some(&release(30)), Now { clock_s, floor_s }, DAEMON)
    }

    #[test]
    fn a_model_expires_by_the_clock() {
        assert_eq!(objection_at(SIGNED_AT_S + 29 * DAY_S, 0), None);
        assert_eq!(
            objection_at(SIGNED_AT_S + 31 * DAY_S, 0),
            Some(Reason::Expired)
        );
    }

    #[test]
    fn a_clock_at_1970_does_not_make_an_expired_model_fresh() {
        assert_eq!(
            objection_at(0, SIGNED_AT_S + 31 * DAY_S),
            Some(Reason::Expired)
        );
        // And does not keep a fresh one out.
        assert_eq!(objection_at(0, SIGNED_AT_S), None);
        assert_eq!(objection_at(0, 0), None);
    }

    #[test]
    fn a_clock_ten_years_ahead_refuses_only_what_would_expire_and_only_for_that_moment() {
        let ahead_s = SIGNED_AT_S + 3653 * DAY_S;
        assert_eq!(objection_at(ahead_s, SIGNED_AT_S), Some(Reason::Expired));
        let lasting = Release {
            not_after_s: None,
            ..release(0)
        };
        let now = Now {
            clock_s: ahead_s,
            floor_s: SIGNED_AT_S,
        };
        assert_eq!(objection(Some(&lasting), now, DAEMON), None);
        assert_eq!(objection(None, now, DAEMON), None);
        // The clock is right again.
        assert_eq!(objection_at(SIGNED_AT_S + DAY_S, SIGNED_AT_S), None);
    }

    #[test]
    fn a_model_for_a_newer_daemon_is_refused() {
        let now = Now {
            clock_s: 0,
            floor_s: 0,
        };
        for (least, expected) in [
            ([1, 4, 2], None),
            ([0, 9, 9], None),
            ([1, 4, 3], Some(Reason::DaemonTooOld)),
            ([1, 10, 0], Some(Reason::DaemonTooOld)),
        ] {
            let release = Release {
                daemon_min: Some(least),
                ..Release::default()
            };
            assert_eq!(
                objection(Some(&release), now, DAEMON),
                expected,
                "{least:?}"
            );
        }
    }
}
