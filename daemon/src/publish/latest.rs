//! A document of which only the last version matters, on its way to the broker, which retains it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The last version, and whether it was told.
#[derive(Debug, Default)]
pub struct Latest {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    document: Vec<u8>,
    /// 0: there is no document yet.
    version: u64,
    told: u64,
    is_closed: bool,
}

impl Latest {
    /// Replaces the document.
    pub fn set(&self, document: Vec<u8>) {
        let mut state = self.lock();
        state.document = document;
        state.version += 1;
        drop(state);
        self.changed.notify_one();
    }

    /// The last version and its number, once there is one that was not told. For one consumer.
    pub async fn next(&self) -> (u64, Vec<u8>) {
        loop {
            // Registered before looking: a new version in between leaves a permit behind.
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if state.version != state.told {
                    return (state.version, state.document.clone());
                }
            }
            changed.await;
        }
    }

    /// The version with this number was told.
    pub fn told(&self, version: u64) {
        self.lock().told = version;
        self.changed.notify_one();
    }

    /// A new connection: what was told before may be forgotten.
    pub fn tell_again(&self) {
        self.lock().told = 0;
    }

    /// Says that no version will follow.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Whether it was closed and the last version was told.
    pub fn is_finished(&self) -> bool {
        let state = self.lock();
        state.is_closed && state.version == state.told
    }

    /// Waits until it was closed and the last version was told.
    pub async fn finished(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_finished() {
                return;
            }
            changed.await;
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

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    #[test]
    fn only_the_last_version_is_told_and_again_after_a_new_connection() {
        let latest = Latest::default();
        latest.set(vec![1]);
        latest.set(vec![2]);
        assert_eq!(run(latest.next()), (2, vec![2]));
        latest.set(vec![3]);
        latest.told(2);
        assert_eq!(run(latest.next()), (3, vec![3]), "it changed meanwhile");
        latest.told(3);
        latest.close();
        assert!(latest.is_finished());
        latest.tell_again();
        assert_eq!(run(latest.next()), (3, vec![3]));
    }

    #[test]
    fn without_a_version_there_is_nothing_to_tell() {
        let latest = Latest::default();
        latest.tell_again();
        latest.close();
        assert!(latest.is_finished());
        run(latest.finished());
    }
}
