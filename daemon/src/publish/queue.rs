//! Documents on their way from the inference thread to the network: bounded, oldest dropped first.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The queue. The frame path never waits for the network, unless it chooses to ([`offer`](Self::offer)).
#[derive(Debug)]
pub struct DocumentQueue {
    state: Mutex<State>,
    taken: Condvar,
    changed: Notify,
    documents_max: usize,
}

#[derive(Debug, Default)]
struct State {
    documents: VecDeque<Vec<u8>>,
    dropped: u64,
    is_closed: bool,
}

impl DocumentQueue {
    /// An empty queue for at most `documents_max` documents.
    pub fn new(documents_max: usize) -> Self {
        assert!(documents_max > 0, "a queue holds something");
        Self {
            state: Mutex::default(),
            taken: Condvar::new(),
            changed: Notify::new(),
            documents_max,
        }
    }

    /// Appends a document; a full queue drops its oldest.
    pub fn push(&self, document: Vec<u8>) {
        let mut state = self.lock();
        if state.documents.len() == self.documents_max {
            state.documents.pop_front();
            state.dropped += 1;
        }
        state.documents.push_back(document);
        drop(state);
        self.changed.notify_one();
    }

    /// Appends a document once there is room; gives it back if there was none in time.
    pub fn offer(&self, document: Vec<u8>, timeout: Duration) -> Result<(), Vec<u8>> {
        let (mut state, _) = self
            .taken
            .wait_timeout_while(self.lock(), timeout, |state| {
                state.documents.len() == self.documents_max
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.documents.len() == self.documents_max {
            return Err(document);
        }
        state.documents.push_back(document);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The oldest document, once there is one; `None` when the queue is closed and empty. For one consumer.
    pub async fn pop(&self) -> Option<Vec<u8>> {
        loop {
            // Registered before looking: a push in between leaves a permit behind.
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if let Some(document) = state.documents.pop_front() {
                    self.taken.notify_one();
                    return Some(document);
                }
                if state.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Says that no document will follow.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Whether it was closed and everything was taken.
    pub fn is_finished(&self) -> bool {
        let state = self.lock();
        state.is_closed && state.documents.is_empty()
    }

    /// Waits until it was closed and everything was taken.
    pub async fn finished(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_finished() {
                return;
            }
            changed.await;
        }
    }

    /// Documents that wait.
    pub fn len(&self) -> usize {
        self.lock().documents.len()
    }

    /// Whether no document waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Documents dropped so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours can panic between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    #[test]
    fn a_full_queue_drops_its_oldest_and_counts_it() {
        let queue = DocumentQueue::new(2);
        for number in 1..=5 {
            queue.push(vec![number]);
        }
        queue.close();
        assert_eq!(queue.dropped(), 3);
        assert!(!queue.is_finished());
        assert_eq!(run(queue.pop()), Some(vec![4]));
        assert_eq!(run(queue.pop()), Some(vec![5]));
        assert_eq!(run(queue.pop()), None);
        assert!(queue.is_finished());
    }

    #[test]
    fn an_offer_to_a_full_queue_waits_and_loses_nothing() {
        let queue = Arc::new(DocumentQueue::new(1));
        assert_eq!(queue.offer(vec![1], Duration::ZERO), Ok(()));
        assert_eq!(queue.offer(vec![2], Duration::ZERO), Err(vec![2]));
        let offering = std::thread::spawn({
            let queue = queue.clone();
            move || queue.offer(vec![2], Duration::from_secs(60))
        });
        assert_eq!(run(queue.pop()), Some(vec![1]));
        assert_eq!(offering.join().expect("no panic"), Ok(()));
        assert_eq!(run(queue.pop()), Some(vec![2]));
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_waiting_consumer_is_woken_by_another_thread() {
        let queue = Arc::new(DocumentQueue::new(8));
        let producer = std::thread::spawn({
            let queue = queue.clone();
            move || {
                (0..100).for_each(|number| {
                    while queue.offer(vec![number], Duration::from_secs(60)).is_err() {}
                });
                queue.close();
            }
        });
        let mut received = Vec::new();
        run(async {
            while let Some(document) = queue.pop().await {
                received.push(document[0]);
            }
        });
        producer.join().expect("no panic");
        assert_eq!(received, (0..100).collect::<Vec<u8>>());
    }
}
