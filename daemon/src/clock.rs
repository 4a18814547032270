//! Both system clocks, read at one moment.
//!
//! The wall clock places a frame in time, but it jumps when it is set. The monotonic clock never jumps and is the
//! same for every process of this boot, so that a subscriber on this machine can measure a latency with it.

use rustix::time::{ClockId, Timespec, clock_gettime};
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};

/// RFC 3339 with microseconds, which is also ISO 8601.
const RFC3339_MICROSECONDS: EncodedConfig = Config::DEFAULT
    .set_time_precision(TimePrecision::Second {
        decimal_digits: std::num::NonZeroU8::new(6),
    })
    .encode();

/// 2025-01-01: a wall clock that shows an earlier time was never set.
pub const EARLIEST_S: u64 = 1_735_689_600;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// `CLOCK_REALTIME`: nanoseconds since 1970-01-01 00:00 UTC.
    pub realtime_ns: i128,
    /// `CLOCK_MONOTONIC`: nanoseconds since an arbitrary moment, the same for all processes of this boot.
    pub monotonic_ns: u64,
}

impl Timestamp {
    /// The present moment.
    pub fn now() -> Self {
        let realtime = clock_gettime(ClockId::Realtime);
        let monotonic = nanoseconds(clock_gettime(ClockId::Monotonic));
        Self {
            realtime_ns: nanoseconds(realtime),
            monotonic_ns: u64::try_from(monotonic).unwrap_or(0),
        }
    }

    /// `2026-11-24T06:40:01.123456Z`. A wall clock outside the years 0 to 9999 reads as 1970.
    pub fn rfc3339(&self) -> String {
        // RFC 3339 wants whole microseconds here; the formatter truncates the rest.
        OffsetDateTime::from_unix_timestamp_nanos(self.realtime_ns)
            .ok()
            .filter(|moment| (0..=9999).contains(&moment.year()))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .format(&Iso8601::<RFC3339_MICROSECONDS>)
            .unwrap_or_else(|_| "1970-01-01T00:00:00.000000Z".into())
    }
}

/// Seconds since 1970 on the wall clock; 0 if it is set to before that.
pub fn seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}

/// Whether the wall clock was ever set. On a board without a clock of its own it begins in the past.
pub fn is_set() -> bool {
    seconds() >= EARLIEST_S
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_with_six_digits() {
        let moment = |realtime_ns| Timestamp {
            realtime_ns,
            monotonic_ns: 0,
        };
        assert_eq!(moment(0).rfc3339(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            moment(1_795_502_401_000_007_999).rfc3339(),
            "2026-11-24T06:40:01.000007Z"
        );
        assert_eq!(
            moment(951_782_400_500_000_000).rfc3339(),
            "2000-02-29T00:00:00.500000Z"
        );
    }

    #[test]
    fn an_absurd_wall_clock_is_not_a_panic() {
        for realtime_ns in [i128::MIN, i128::MAX, i128::from(i64::MAX), -1] {
            let text = Timestamp {
                realtime_ns,
                monotonic_ns: 0,
            }
            .rfc3339();
            assert_eq!(text.len(), "1970-01-01T00:00:00.000000Z".len(), "{text}");
        }
    }

    #[test]
    fn the_monotonic_clock_is_the_systems() {
        // /proc/uptime counts from the boot, as CLOCK_MONOTONIC does except for time asleep and containers.
        let first = Timestamp::now();
        let second = Timestamp::now();
        assert!(second.monotonic_ns >= first.monotonic_ns);
        assert!(first.monotonic_ns > 0);
    }
}
