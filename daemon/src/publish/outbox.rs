//! Events on their way to the broker: each stays here until the broker has confirmed it.
//!
//! What waits is in memory, and a thread of its own ([`writer`]) keeps a copy on the memory card. An event is given to
//! the network only once it is durable: so its number never comes again for another event, and whatever a subscriber
//! has seen is known after a power cut. Where there is no state folder, or while the card fails, memory has to do.

mod log;
mod record;
pub mod writer;

pub use log::{BATCH_BYTES, Log, Recovered, SEGMENT_BYTES};

use log::size;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Events that the broker has not confirmed, the oldest first. Bounded: a full one drops its oldest.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    /// For the one consumer.
    changed: Notify,
    /// For the one who waits until an event waits no more.
    passed: Notify,
    /// For the writer, and for whoever offers.
    moved: Condvar,
    bounds: Bounds,
}

/// An event's document and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows by one from event to event.
    pub sequence: u64,
    /// The document.
    pub document: Vec<u8>,
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Events.
    pub events_max: usize,
    /// Bytes of the files.
    pub bytes_max: usize,
}

impl Bounds {
    /// Bytes of the events that wait. The files have up to two segments more: the oldest one goes when all of it is done with,
    /// and the newest one has records that are no events.
    fn waiting_bytes_max(&self) -> usize {
        self.bytes_max
            .saturating_sub(2 * (SEGMENT_BYTES + BATCH_BYTES))
    }
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Event>,
    waiting_bytes: usize,
    first_sequence: u64,
    /// The number of the next event.
    next: u64,
    /// Events before this one were stored.
    stored_below: u64,
    /// Events before this one may be published.
    released_below: u64,
    dropped: u64,
    is_closed: bool,
    /// Whether there will be no more confirmations either.
    is_over: bool,
    /// Whether a writer makes events durable, and can.
    keeping: Keeping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// In memory only.
    Never,
    /// On the card.
    Works,
    /// Only in memory for now: the card refuses.
    Fails,
}

/// What the writer has to do.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    events: Vec<Event>,
    /// The number after the last of them.
    next: u64,
    done_below: u64,
}

impl Outbox {
    /// An empty outbox that is lost with the process.
    pub fn in_memory(bounds: Bounds) -> Self {
        Self::new(bounds, Recovered::default(), Keeping::Never)
    }

    /// What an earlier run left; a writer has to make durable what comes.
    pub fn kept(bounds: Bounds, recovered: Recovered) -> Self {
        Self::new(bounds, recovered, Keeping::Works)
    }

    fn new(bounds: Bounds, recovered: Recovered, keeping: Keeping) -> Self {
        let next = recovered.next_sequence;
        let mut state = State {
            waiting_bytes: recovered.events.iter().map(|e| size(&e.document)).sum(),
            waiting: recovered.events.into(),
            first_sequence: next,
            next,
            stored_below: next,
            released_below: match keeping {
                Keeping::Never => u64::MAX,
                Keeping::Works | Keeping::Fails => next,
            },
            dropped: recovered.dropped,
            is_closed: false,
            is_over: false,
            keeping,
        };
        while state.waiting.len() > bounds.events_max {
            state.drop_oldest();
        }
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            passed: Notify::new(),
            moved: Condvar::new(),
            bounds,
        }
    }

    /// The number of the first event of this run.
    pub fn first_sequence(&self) -> u64 {
        self.lock().first_sequence
    }

    /// Appends an event; a full outbox drops its oldest.
    pub fn push(&self, event: Event) {
        let mut state = self.lock();
        while !state.has_room(&self.bounds, &event) {
            state.drop_oldest();
        }
        state.append(event);
        drop(state);
        self.tell();
    }

    /// Appends an event once there is room; gives it back if there was none in time.
    pub fn offer(&self, event: Event, timeout: Duration) -> Result<(), Event> {
        let until = Instant::now() + timeout;
        let mut state = self.wait(until, |state| !state.has_room(&self.bounds, &event));
        if !state.has_room(&self.bounds, &event) {
            return Err(event);
        }
        state.append(event);
        drop(state);
        self.tell();
        Ok(())
    }

    /// A copy of the oldest event, once there is one that may be published. It stays until it is confirmed. For one
    /// consumer.
    pub async fn first(&self) -> Event {
        loop {
            // Registered before looking: a change in between leaves a permit behind.
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if let Some(event) = state.waiting.front()
                    && event.sequence < state.released_below
                {
                    return event.clone();
                }
            }
            changed.await;
        }
    }

    /// The event with this number needs no more care.
    pub fn confirm(&self, sequence: u64) {
        let mut state = self.lock();
        // It may have been dropped meanwhile.
        if state
            .waiting
            .front()
            .is_some_and(|event| event.sequence == sequence)
        {
            state.remove_oldest();
        }
        drop(state);
        self.tell();
    }

    /// Says that no event will follow.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.tell();
    }

    /// Says that no confirmation will follow: what waits is left to the next run.
    pub fn leave(&self) {
        let mut state = self.lock();
        (state.is_closed, state.is_over) = (true, true);
        drop(state);
        self.tell();
    }

    /// Whether it was closed and everything was confirmed.
    pub fn is_finished(&self) -> bool {
        let state = self.lock();
        state.is_closed && state.waiting.is_empty()
    }

    /// Waits until it was closed and everything was confirmed.
    pub async fn finished(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_finished() {
                return;
            }
            changed.await;
        }
    }

    /// Whether the event with this number came and waits no more, nor does any before it: it was confirmed, or dropped.
    pub fn has_passed(&self, sequence: u64) -> bool {
        let state = self.lock();
        let oldest = state.waiting.front();
        let waits = oldest.is_some_and(|event| event.sequence <= sequence);
        !waits && (state.next > sequence || state.is_closed)
    }

    /// Waits for a moment after which another event may have passed. For one consumer.
    pub async fn moves_on(&self) {
        self.passed.notified().await;
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the events that wait.
    pub fn bytes(&self) -> usize {
        self.lock().waiting_bytes
    }

    /// Events that wait and survive the end of the process.
    pub fn durable(&self) -> usize {
        let state = self.lock();
        let is_stored = |event: &&Event| event.sequence < state.stored_below;
        let stored = state.waiting.iter().filter(is_stored).count();
        if state.keeping == Keeping::Never {
            0
        } else {
            stored
        }
    }

    /// Whether what comes now will survive the end of the process.
    pub fn is_durable(&self) -> bool {
        self.lock().keeping == Keeping::Works
    }

    /// Events dropped so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// For the writer: waits until there are events to store, or until `until`, or until no confirmation will follow. Not more at
    /// once than a batch.
    fn work(&self, until: Instant) -> (Work, Ending) {
        let state = self.wait(until, |state| !state.has_unstored() && !state.is_over);
        let ending = if state.is_over {
            Ending::Last
        } else {
            Ending::GoOn
        };
        (state.work(), ending)
    }

    /// For the writer: waits so long, unless nothing will follow. A card that refuses is not asked more often for that, but once more when
    /// nobody will follow either.
    fn pause(&self, until: Instant) {
        drop(self.wait(until, |state| match state.keeping {
            Keeping::Fails => !state.is_over,
            Keeping::Works | Keeping::Never => !state.is_closed,
        }));
    }

    /// Waits while `condition` holds, but not longer than until then.
    fn wait(&self, until: Instant, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self
            .moved
            .wait_timeout_while(self.lock(), left, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// For the writer: events before this one are done with.
    fn done_below(&self) -> u64 {
        self.lock().done_below()
    }

    /// For the writer: events before `next` were stored, or could not be; they may be published now. Tells whether that
    /// is news.
    fn stored(&self, next: u64, is_durable: bool) -> bool {
        let mut state = self.lock();
        let keeping = if is_durable {
            Keeping::Works
        } else {
            Keeping::Fails
        };
        let is_news = std::mem::replace(&mut state.keeping, keeping) != keeping;
        let released = if is_durable {
            state.stored_below = state.stored_below.max(next);
            next
        } else {
            // Whatever comes until the card works again would wait in vain.
            state.next
        };
        state.released_below = state.released_below.max(released);
        drop(state);
        self.tell();
        is_news
    }

    fn tell(&self) {
        self.moved.notify_all();
        self.changed.notify_one();
        self.passed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours can panic between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the writer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    GoOn,
    /// Nothing and nobody will follow.
    Last,
}

impl State {
    fn has_room(&self, bounds: &Bounds, event: &Event) -> bool {
        let bytes = self.waiting_bytes + size(&event.document);
        self.waiting.is_empty()
            || (self.waiting.len() < bounds.events_max && bytes <= bounds.waiting_bytes_max())
    }

    fn append(&mut self, event: Event) {
        self.next = event.sequence + 1;
        self.waiting_bytes += size(&event.document);
        self.waiting.push_back(event);
    }

    fn remove_oldest(&mut self) {
        if let Some(event) = self.waiting.pop_front() {
            self.waiting_bytes -= size(&event.document);
        }
    }

    fn drop_oldest(&mut self) {
        self.remove_oldest();
        self.dropped += 1;
    }

    fn has_unstored(&self) -> bool {
        let newest = self.waiting.back();
        newest.is_some_and(|event| event.sequence >= self.stored_below)
    }

    /// Events before this one are done with.
    fn done_below(&self) -> u64 {
        self.waiting
            .front()
            .map_or(self.next, |event| event.sequence)
    }

    /// As many events as fit a batch, and one at least, if there is one that was not stored.
    fn work(&self) -> Work {
        let mut bytes = 0;
        let is_unstored = |event: &&Event| event.sequence >= self.stored_below;
        let unstored = self.waiting.iter().filter(is_unstored);
        let batch = unstored.take_while(|event| {
            let is_first = bytes == 0;
            bytes += size(&event.document);
            is_first || bytes <= BATCH_BYTES
        });
        let events: Vec<Event> = batch.cloned().collect();
        let next = events.last().map_or(self.next, |event| event.sequence + 1);
        Work {
            events,
            next,
            done_below: self.done_below(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    fn event(sequence: u64) -> Event {
        Event {
            sequence,
            document: vec![7],
        }
    }

    fn bounds(events_max: usize) -> Bounds {
        Bounds {
            events_max,
            bytes_max: 2 << 20,
        }
    }

    /// The first event that may be published, if there is one now.
    fn first_now(outbox: &Outbox) -> Option<Event> {
        run(async {
            let first = tokio::time::timeout(Duration::from_millis(1), outbox.first());
            first.await.ok()
        })
    }

    #[test]
    fn an_event_stays_until_it_is_confirmed() {
        let outbox = Outbox::in_memory(bounds(2));
        outbox.push(event(0));
        outbox.push(event(1));
        assert_eq!(run(outbox.first()), event(0));
        assert_eq!(run(outbox.first()), event(0), "not confirmed");
        outbox.confirm(1);
        assert_eq!(run(outbox.first()), event(0), "another one was");
        outbox.confirm(0);
        assert_eq!(run(outbox.first()), event(1));
        outbox.close();
        assert!(!outbox.is_finished());
        outbox.confirm(1);
        assert!(outbox.is_finished());
        run(outbox.finished());
    }

    #[test]
    fn a_full_outbox_drops_its_oldest_and_counts_it() {
        let outbox = Outbox::in_memory(bounds(2));
        for sequence in 0..5 {
            outbox.push(event(sequence));
        }
        assert_eq!((outbox.dropped(), outbox.len()), (3, 2));
        // What was on its way when it was dropped takes nothing else with it.
        outbox.confirm(2);
        assert_eq!(run(outbox.first()), event(3));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let outbox = Outbox::in_memory(bounds(1_000_000));
        let document = vec![7; 10_000];
        for sequence in 0..1000 {
            let document = document.clone();
            outbox.push(Event { sequence, document });
        }
        let most = outbox.bounds.waiting_bytes_max();
        let size = size(&document);
        assert!((most - size..=most).contains(&outbox.bytes()));
        assert_eq!(outbox.dropped() as usize, 1000 - most / size);
    }

    #[test]
    fn an_offer_to_a_full_outbox_waits_for_a_confirmation() {
        let outbox = Arc::new(Outbox::in_memory(bounds(1)));
        assert_eq!(outbox.offer(event(0), Duration::ZERO), Ok(()));
        assert_eq!(outbox.offer(event(1), Duration::ZERO), Err(event(1)));
        let offering = std::thread::spawn({
            let outbox = outbox.clone();
            move || outbox.offer(event(1), Duration::from_secs(60))
        });
        outbox.confirm(0);
        assert_eq!(offering.join().expect("no panic"), Ok(()));
        assert_eq!(run(outbox.first()), event(1));
        assert_eq!(outbox.dropped(), 0);
    }

    #[test]
    fn nothing_is_published_before_it_is_stored_or_cannot_be() {
        let outbox = Outbox::kept(bounds(9), Recovered::default());
        outbox.push(event(0));
        assert_eq!(first_now(&outbox), None);
        let (work, ending) = outbox.work(Instant::now() + Duration::from_secs(9));
        assert_eq!(work.events, [event(0)]);
        assert_eq!((work.next, work.done_below), (1, 0));
        assert_eq!(ending, Ending::GoOn);
        assert!(!outbox.stored(1, true), "it was expected to work");
        assert_eq!(first_now(&outbox), Some(event(0)));
        assert_eq!(outbox.durable(), 1);
        // The card fails: events go on, and are stored once it works again.
        outbox.push(event(1));
        assert!(outbox.stored(2, false), "news");
        outbox.confirm(0);
        assert_eq!(first_now(&outbox), Some(event(1)));
        assert_eq!((outbox.durable(), outbox.is_durable()), (0, false));
        outbox.push(event(2));
        let (work, _) = outbox.work(Instant::now() + Duration::from_secs(9));
        assert_eq!(work.events, [event(1), event(2)]);
        assert_eq!((work.next, work.done_below), (3, 1));
    }

    #[test]
    fn what_is_left_over_is_the_next_runs() {
        let recovered = Recovered {
            events: vec![event(4), event(5)],
            next_sequence: 6,
            ..Recovered::default()
        };
        let outbox = Outbox::kept(bounds(9), recovered);
        assert_eq!(outbox.first_sequence(), 6);
        assert_eq!(first_now(&outbox), Some(event(4)), "it is durable already");
        outbox.confirm(4);
        outbox.leave();
        let (work, ending) = outbox.work(Instant::now() + Duration::from_secs(9));
        assert_eq!((work.events, work.next, work.done_below), (vec![], 6, 5));
        assert_eq!(ending, Ending::Last);
    }
}
