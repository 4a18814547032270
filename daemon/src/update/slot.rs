//! Where the inference thread finds another model, between two frames.
//!
//! The update thread builds a detector aside and puts it here; the inference thread exchanges it for its own before
//! the next frame and never waits, allocates or frees. No frame is lost. It takes the lock only if there is a model.

use super::trial::Tally;
use crate::model::Loaded;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The slot.
#[derive(Debug, Default)]
pub struct Slot {
    /// Whether there is a model to take: looked at for every frame.
    is_full: AtomicBool,
    /// Whether the present model is watched for a comparison.
    is_compared: AtomicBool,
    counts: Counts,
    /// How often the frames ceased to be comparable with those before.
    breaks: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: Option<Box<Loaded>>,
    retired: Option<Box<Loaded>>,
}

/// What the present model has examined: only the inference thread writes.
#[derive(Debug, Default)]
struct Counts {
    frames: AtomicU64,
    detections: AtomicU64,
    inference_ns: AtomicU64,
}

impl Slot {
    /// For the update thread: hands `next` over and waits for the model that it replaces. Gives `next` back if nobody
    /// takes it in time.
    pub fn exchange(
        &self,
        next: Box<Loaded>,
        timeout: Duration,
    ) -> Result<Box<Loaded>, Box<Loaded>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        state.next = Some(next);
        self.is_full.store(true, Ordering::Release);
        loop {
            if let Some(retired) = state.retired.take() {
                return Ok(retired);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero()
                && let Some(next) = state.next.take()
            {
                self.is_full.store(false, Ordering::Release);
                return Err(next);
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left.max(Duration::from_millis(1)))
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For the inference thread: if there is another model, `swap` exchanges it for the present one.
    pub fn take(&self, swap: impl FnOnce(&mut Loaded)) {
        if !self.is_full.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        if let Some(mut model) = state.next.take() {
            swap(&mut model);
            state.retired = Some(model);
            let Counts {
                frames,
                detections,
                inference_ns,
            } = &self.counts;
            for count in [frames, detections, inference_ns] {
                count.store(0, Ordering::Relaxed);
            }
        }
        self.is_full.store(false, Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    /// For the update thread: whether every frame is to be examined, because models are compared.
    pub fn compare(&self, is_compared: bool) {
        self.is_compared.store(is_compared, Ordering::Relaxed);
    }

    /// For the inference thread: whether every frame is to be examined.
    pub fn is_compared(&self) -> bool {
        self.is_compared.load(Ordering::Relaxed)
    }

    /// For the inference thread: what is counted from now on says nothing beside what was counted before. Detection pauses, the
    /// camera was away, or another threshold decides what counts.
    pub fn break_off(&self) {
        self.breaks.fetch_add(1, Ordering::Release);
    }

    /// How often that was so.
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Acquire)
    }

    /// For the inference thread: counts a frame.
    pub fn examined(&self, detections: usize, inference: Duration) {
        let counts = &self.counts;
        let inference_ns = u64::try_from(inference.as_nanos()).unwrap_or(u64::MAX);
        counts
            .detections
            .fetch_add(detections as u64, Ordering::Relaxed);
        counts
            .inference_ns
            .fetch_add(inference_ns, Ordering::Relaxed);
        counts.frames.fetch_add(1, Ordering::Release);
    }

    /// What the present model has examined. Detections and time may be those of one frame more.
    pub fn tally(&self) -> Tally {
        let counts = &self.counts;
        Tally {
            frames: counts.frames.load(Ordering::Acquire),
            detections: counts.detections.load(Ordering::Relaxed),
            inference: Duration::from_nanos(counts.inference_ns.load(Ordering::Relaxed)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours can panic between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_frame_is_counted_without_the_lock() {
        let slot = Slot::default();
        let (done, is_done) = channel();
        std::thread::scope(|scope| {
            let lock = slot.lock();
            scope.spawn(|| {
                slot.take(|_| ());
                slot.examined(3, Duration::from_millis(7));
                slot.examined(1, Duration::from_millis(5));
                done.send(slot.tally())
            });
            let tally = is_done.recv_timeout(Duration::from_secs(10));
            drop(lock);
            let expected = Tally {
                frames: 2,
                detections: 4,
                inference: Duration::from_millis(12),
            };
            assert_eq!(tally, Ok(expected), "within ten seconds");
        });
    }
}
