//! Where a picture of now is asked for: from the network's side to the frame path's.

use crate::command::answer::{Refusal, Reply};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nobody waits longer for a frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those who wait. There are as many at most as commands whose answers may wait.
#[derive(Debug, Default)]
pub struct Desk(Mutex<Vec<(Instant, Reply)>>);

impl Desk {
    /// Asks for a picture; it is published before the reply says so.
    pub fn ask(&self, reply: Reply) {
        self.lock().push((Instant::now(), reply));
    }

    /// Whether somebody waits.
    pub fn is_asked(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Everybody who waits.
    pub(super) fn take(&self) -> Vec<Reply> {
        let waiting = std::mem::take(&mut *self.lock());
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
        let is_late = |asked: &Instant| asked.elapsed() >= PATIENCE;
        if self.lock().iter().any(|(asked, _)| is_late(asked)) {
            self.refuse("no_picture", "the camera gives no frame");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Reply)>> {
        // No code of ours can panic between two consistent states.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
