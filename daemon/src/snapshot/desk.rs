//! Where a picture of now is asked for: from the network's side to the frame path's.

use crate::publish::answer::{Refusal, Reply};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nobody waits longer for a frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those who wait. There are as many at most as commands whose answers may wait.
#[derive(Debug, Default)]
pub struct Desk {
    /// Whether somebody waits: looked at for every frame, without the lock.
    is_asked: AtomicBool,
    waiting: Mutex<Vec<(Instant, Reply)>>,
}

impl Desk {
    /// Asks for a picture; it is published before the reply says so.
    pub fn ask(&self, reply: Reply) {
        let mut waiting = self.lock();
        waiting.push((Instant::now(), reply));
        self.is_asked.store(true, Ordering::Release);
    }

    /// Whether somebody waits.
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    /// Everybody who waits.
    pub(super) fn take(&self) -> Vec<Reply> {
        let mut waiting = self.lock();
        self.is_asked.store(false, Ordering::Release);
        let waiting = std::mem::take(&mut *waiting);
        waiting.into_iter().map(|(_, reply)| reply).collect()
    }

    /// Turns everybody down.
    pub(super) fn refuse(&self, reason: &'static str, message: &str) {
        // Nobody waits, as a rule: then nothing is allocated.
        if self.is_asked() {
            for reply in self.take() {
                reply.refuse(Refusal::new(reason, message));
            }
        }
    }

    /// Turns down who has waited for too long.
    pub(super) fn give_up(&self) {
        let is_late = |(asked, _): &(Instant, Reply)| asked.elapsed() >= PATIENCE;
        // Nobody is late, as a rule: then nothing is allocated.
        if self.is_asked() && self.lock().iter().any(is_late) {
            for reply in self.take_those(is_late) {
                reply.refuse(Refusal::new("no_picture", "the camera gives no frame"));
            }
        }
    }

    fn take_those(&self, is_late: impl FnMut(&(Instant, Reply)) -> bool) -> Vec<Reply> {
        let mut waiting = self.lock();
        let (late, others) = std::mem::take(&mut *waiting).into_iter().partition(is_late);
        *waiting = others;
        self.is_asked.store(!waiting.is_empty(), Ordering::Release);
        let late: Vec<(Instant, Reply)> = late;
        late.into_iter().map(|(_, reply)| reply).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Reply)>> {
        // No code of ours can panic between two consistent states.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
