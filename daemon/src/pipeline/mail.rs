//! Settings on their way to the inference thread, which exchanges them between two frames.

use super::Places;
use crate::model;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the inference thread finds new settings.
#[derive(Debug, Default)]
pub struct Mail {
    /// Whether there are some: looked at for every frame, without the lock.
    is_full: AtomicBool,
    waiting: Mutex<Option<Box<Settings>>>,
}

/// What can be changed.
#[derive(Debug)]
pub struct Settings {
    /// Its thresholds are.
    pub model: model::Config,
    /// Other zones and lines; `None` if they stay as they are, with who is in them and the counts.
    pub places: Option<Places>,
}

impl Mail {
    /// Hands settings over; they take the place of others that nobody has taken yet.
    pub fn put(&self, mut settings: Settings) {
        let mut waiting = self.lock();
        // Places that were not taken yet are still news.
        if settings.places.is_none() {
            settings.places = waiting.take().and_then(|waiting| waiting.places);
        }
        *waiting = Some(Box::new(settings));
        self.is_full.store(true, Ordering::Release);
    }

    /// The settings that wait.
    pub fn take(&self) -> Option<Box<Settings>> {
        if !self.is_full.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = self.lock();
        self.is_full.store(false, Ordering::Release);
        waiting.take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Settings>>> {
        // No code of ours can panic between two consistent states.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_the_lock_of_an_empty_mail() {
        let mail = Mail::default();
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let lock = mail.lock();
            scope.spawn(|| done.send(mail.take().is_none()));
            let is_empty = is_done.recv_timeout(std::time::Duration::from_secs(10));
            drop(lock);
            assert_eq!(is_empty, Ok(true), "within ten seconds");
        });
    }
}
