//! Where the inference thread finds another model, between two frames.
//!
//! The update thread builds a detector aside and puts it here; the inference thread exchanges it for its own before
//! the next frame and never waits, allocates or frees. No frame is lost.

use super::trial::Tally;
use crate::model::Loaded;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The slot.
#[derive(Debug, Default)]
pub struct Slot {
    /// Whether there is a model to take: looked at for every frame.
    is_full: AtomicBool,
    /// Whether the present model is watched for a comparison.
    is_compared: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: Option<Box<Loaded>>,
    retired: Option<Box<Loaded>>,
    tally: Tally,
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
            state.tally = Tally::default();
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

    /// For the inference thread: counts a frame.
    pub fn examined(&self, detections: usize, inference: Duration) {
        let tally = &mut self.lock().tally;
        tally.frames += 1;
        tally.detections += detections as u64;
        tally.inference += inference;
    }

    /// What the present model has examined.
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours can panic between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
