//! What a simulation comes to.

use crate::latency::Histogram;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of the cameras.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) events: AtomicU64,
    pub(super) event_bytes: AtomicU64,
    pub(super) counts: AtomicU64,
    pub(super) count_bytes: AtomicU64,
    /// Who came by.
    pub(super) people: AtomicU64,
    /// Frames that were left out because this machine did not keep up.
    pub(super) skipped: AtomicU64,
    /// The latest that a frame was.
    pub(super) late_us_max: AtomicU64,
}

/// The figures at the end.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) cameras: u32,
    pub(super) took: Duration,
    pub(super) tally: &'a Tally,
    /// Of the events that the broker confirmed.
    pub(super) latencies: &'a Histogram,
    /// Events and counts that the broker confirmed.
    pub(super) messages: u64,
    pub(super) dropped: u64,
}

impl Report<'_> {
    /// Whether the broker has every event.
    pub(super) fn is_complete(&self) -> bool {
        u64::from(self.latencies.count()) == get(&self.tally.events)
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = self.tally;
        let mean = |bytes, count: u64| get(bytes).checked_div(count).unwrap_or(0);
        let (events, counts) = (get(&tally.events), get(&tally.counts));
        let confirmed = u64::from(self.latencies.count());
        let seconds = self.took.as_secs_f64();
        writeln!(f, "cameras               {}", self.cameras)?;
        writeln!(f, "seconds               {seconds:.1}")?;
        writeln!(f, "people who came by    {}", get(&tally.people))?;
        writeln!(f, "events published      {events}")?;
        writeln!(f, "events confirmed      {confirmed}")?;
        writeln!(f, "events dropped        {}", self.dropped)?;
        // A document of counts that is overtaken by a newer one is not sent.
        let others = self.messages.saturating_sub(confirmed);
        writeln!(f, "counts written        {counts}")?;
        writeln!(f, "counts confirmed      {others}")?;
        let rate = self.messages as f64 / seconds.max(1e-3);
        writeln!(f, "messages per second   {rate:.1}")?;
        let bytes = mean(&tally.event_bytes, events);
        writeln!(f, "bytes of an event     {bytes}")?;
        let bytes = mean(&tally.count_bytes, counts);
        writeln!(f, "bytes of counts       {bytes}")?;
        for percent in [50, 95, 99] {
            let ms = self.latencies.quantile(percent).as_secs_f64() * 1e3;
            writeln!(f, "confirmation p{percent}      {ms:.2} ms")?;
        }
        let late_ms = get(&tally.late_us_max) as f64 / 1e3;
        writeln!(f, "frames late by up to  {late_ms:.1} ms")?;
        write!(f, "frames left out       {}", get(&tally.skipped))
    }
}
