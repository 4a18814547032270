//! How long something took, many times over: a histogram of fixed size that allocates nothing.
//!
//! A bucket is a sixteenth of a power of two wide, so that what is read from it is at most a sixteenth too high.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Buckets of a power of two.
const STEPS: u32 = 16;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// Microseconds below 16 have a bucket each; then come the powers of two from 2^4 to 2^31.
const BUCKETS: usize = (STEPS * (32 - STEPS_LOG2 + 1)) as usize;

/// A histogram of durations of up to 71 minutes; longer ones count as that long.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
    count: u32,
    max_us: u32,
}

/// A histogram that one thread records in and another one empties, without a lock between them.
#[derive(Debug)]
pub struct Recorder {
    buckets: [AtomicU32; BUCKETS],
    max_us: AtomicU32,
}

/// What a histogram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Half of them took at most so long.
    pub p50: Duration,
    /// Nineteen out of twenty took at most so long.
    pub p95: Duration,
    /// None took longer.
    pub max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            count: 0,
            max_us: 0,
        }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let us = microseconds(duration);
        if let Some(count) = self.buckets.get_mut(bucket(us)) {
            *count = count.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.max_us = self.max_us.max(us);
    }

    /// What was counted so far; `None` if nothing was.
    pub fn summary(&self) -> Option<Summary> {
        (self.count > 0).then(|| Summary {
            p50: self.quantile(50),
            p95: self.quantile(95),
            max: Duration::from_micros(self.max_us.into()),
        })
    }

    /// How many were counted.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The duration that so many of a hundred do not exceed; 0 if nothing was counted.
    pub fn quantile(&self, percent: u64) -> Duration {
        let wanted = (u64::from(self.count) * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Duration::from_micros(upper_us(index).min(self.max_us).into());
            }
        }
        Duration::from_micros(self.max_us.into())
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            max_us: AtomicU32::new(0),
        }
    }
}

impl Recorder {
    /// Counts a duration.
    pub fn record(&self, duration: Duration) {
        let us = microseconds(duration);
        self.max_us.fetch_max(us, Ordering::Relaxed);
        if let Some(count) = self.buckets.get(bucket(us)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted since this was called the last time.
    pub fn take(&self) -> Histogram {
        let mut taken = Histogram {
            max_us: self.max_us.swap(0, Ordering::Relaxed),
            ..Histogram::default()
        };
        for (index, count) in self.buckets.iter().enumerate() {
            let count = count.swap(0, Ordering::Relaxed);
            taken.buckets[index] = count;
            taken.count = taken.count.saturating_add(count);
            // A duration that is recorded at this moment may have left its maximum to the histogram before.
            if count > 0 && bucket(taken.max_us) < index {
                taken.max_us = upper_us(index);
            }
        }
        taken
    }
}

fn microseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn bucket(us: u32) -> usize {
    if us < STEPS {
        return us as usize;
    }
    // The highest bit says which power of two, the four below it which part of it.
    let power = us.ilog2() - STEPS_LOG2;
    let part = (us >> power) - STEPS;
    (STEPS * (power + 1) + part) as usize
}

/// The longest duration of a bucket.
fn upper_us(index: usize) -> u32 {
    let index = index as u32;
    if index < STEPS {
        return index;
    }
    let (power, part) = (index / STEPS - 1, index % STEPS);
    let next = u64::from(STEPS + part + 1) << power;
    u32::try_from(next - 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_empty_recorder_says_nothing_and_taking_empties_it() {
        let recorder = Recorder::default();
        assert_eq!(recorder.take().summary(), None);
        recorder.record(ms(7));
        assert_eq!(recorder.take().summary().map(|s| s.max), Some(ms(7)));
        assert_eq!(recorder.take().summary(), None);
        recorder.record(Duration::ZERO);
        assert_eq!(recorder.take().summary().map(|s| s.max), Some(ms(0)));
    }

    #[test]
    fn no_duration_is_lost_between_two_threads_and_none_is_above_the_maximum() {
        const COUNT: u32 = 20_000;
        let recorder = Recorder::default();
        let mut taken = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| (0..COUNT).for_each(|i| recorder.record(ms(u64::from(i % 50)))));
            while taken < COUNT {
                let part = recorder.take();
                taken += part.count();
                if let Some(summary) = part.summary() {
                    assert!(summary.p50 <= summary.p95 && summary.p95 <= summary.max);
                    assert!(summary.max <= ms(52), "{summary:?}");
                }
            }
        });
        assert_eq!((taken, recorder.take().count()), (COUNT, 0));
    }

    #[test]
    fn one_slow_frame_of_a_hundred_is_the_maximum_and_not_the_percentile() {
        let mut histogram = Histogram::default();
        (0..99).for_each(|_| histogram.record(ms(20)));
        histogram.record(ms(900));
        let summary = histogram.summary().expect("counted");
        assert_eq!(summary.max, ms(900));
        let close = ms(20)..=Duration::from_micros(21_250);
        assert!(close.contains(&summary.p50), "{summary:?}");
        assert!(close.contains(&summary.p95), "{summary:?}");
    }

    #[test]
    fn every_duration_has_a_bucket_and_buckets_do_not_overlap() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(upper_us(index)), index);
            if index + 1 < BUCKETS {
                assert_eq!(bucket(upper_us(index) + 1), index + 1);
            }
        }
        assert_eq!(upper_us(BUCKETS - 1), u32::MAX);
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX);
        let summary = histogram.summary().expect("counted");
        assert_eq!(summary.max, Duration::from_micros(u32::MAX.into()));
    }

    proptest! {
        #[test]
        fn percentiles_are_at_most_a_sixteenth_too_high(mut durations in prop::collection::vec(0..10_000_000u64, 1..200)) {
            let mut histogram = Histogram::default();
            let recorder = Recorder::default();
            for us in &durations {
                histogram.record(Duration::from_micros(*us));
                recorder.record(Duration::from_micros(*us));
            }
            prop_assert_eq!(recorder.take().summary(), histogram.summary());
            durations.sort_unstable();
            let summary = histogram.summary().expect("counted");
            for (percent, found) in [(50, summary.p50), (95, summary.p95)] {
                let rank = (durations.len() * percent).div_ceil(100);
                let exact = durations[rank - 1];
                let found = found.as_micros() as u64;
                prop_assert!((exact..=exact + exact / 16).contains(&found), "{found} for {exact}");
            }
            prop_assert_eq!(summary.max.as_micros() as u64, durations[durations.len() - 1]);
        }
    }
}
