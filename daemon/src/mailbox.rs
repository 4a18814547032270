//! One slot between two threads, in which the newest item wins.
//!
//! Items are exchanged, never moved: whoever puts a full buffer in gets the old one back, whoever takes one out leaves
//! an empty one behind. Three buffers therefore go round for ever and nothing is allocated.
//!
//! A lock and a condition are right here: one side sleeps until the other one has something, and the lock is held for
//! an exchange of pointers only.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The slot.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    slot: T,
    is_full: bool,
    is_closed: bool,
}

/// What became of an item that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It waits to be taken.
    Stored,
    /// It waits to be taken, in the place of one that never was: that one is lost.
    Replaced,
    /// It is still with the caller: the slot stayed full.
    TimedOut,
    /// It is still with the caller: nobody takes items any more.
    Closed,
}

/// What came of taking an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The newest item.
    Item,
    /// None came in time.
    TimedOut,
    /// None will come any more.
    Closed,
}

impl<T> Mailbox<T> {
    /// An empty slot; `spare` is what the first exchange gives back.
    pub fn new(spare: T) -> Self {
        Self {
            state: Mutex::new(State {
                slot: spare,
                is_full: false,
                is_closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Puts `item` in, whether or not the one before was taken. Never waits.
    pub fn replace(&self, item: &mut T) -> Put {
        let mut state = self.lock();
        if state.is_closed {
            return Put::Closed;
        }
        mem::swap(&mut state.slot, item);
        let lost = mem::replace(&mut state.is_full, true);
        drop(state);
        self.changed.notify_all();
        if lost { Put::Replaced } else { Put::Stored }
    }

    /// Puts `item` in once the one before was taken.
    pub fn offer(&self, item: &mut T, timeout: Duration) -> Put {
        let mut state = self.wait(timeout, |state| !state.is_full || state.is_closed);
        if state.is_closed {
            return Put::Closed;
        }
        if state.is_full {
            return Put::TimedOut;
        }
        mem::swap(&mut state.slot, item);
        state.is_full = true;
        drop(state);
        self.changed.notify_all();
        Put::Stored
    }

    /// Takes the item, leaving the contents of `item` as the spare. An item that was put in before the mailbox was
    /// closed can still be taken.
    pub fn take(&self, item: &mut T, timeout: Duration) -> Taken {
        let mut state = self.wait(timeout, |state| state.is_full || state.is_closed);
        if !state.is_full {
            return if state.is_closed {
                Taken::Closed
            } else {
                Taken::TimedOut
            };
        }
        mem::swap(&mut state.slot, item);
        state.is_full = false;
        drop(state);
        self.changed.notify_all();
        Taken::Item
    }

    /// Lets nothing in any more and wakes everybody.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of ours can panic between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(
        &self,
        timeout: Duration,
        is_ready: impl Fn(&State<T>) -> bool,
    ) -> MutexGuard<'_, State<T>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while !is_ready(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}
