//! What waits between the inference thread and the network: bounded, oldest dropped first.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The queue. The frame path never waits for the network, unless it chooses to ([`offer`](Self::offer)).
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    removed: Condvar,
    changed: Notify,
    items_max: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    dropped: u64,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// An empty queue for at most `items_max` items.
    pub fn new(items_max: usize) -> Self {
        assert!(items_max > 0, "a queue holds something");
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                dropped: 0,
                is_closed: false,
            }),
            removed: Condvar::new(),
            changed: Notify::new(),
            items_max,
        }
    }

    /// Appends an item; a full queue drops its oldest.
    pub fn push(&self, item: T) {
        let mut state = self.lock();
        if state.items.len() == self.items_max {
            state.items.pop_front();
            state.dropped += 1;
        }
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
    }

    /// Appends an item once there is room; gives it back if there was none in time.
    pub fn offer(&self, item: T, timeout: Duration) -> Result<(), T> {
        let (mut state, _) = self
            .removed
            .wait_timeout_while(self.lock(), timeout, |state| {
                state.items.len() == self.items_max
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.items.len() == self.items_max {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The oldest item, once there is one; `None` when the queue is closed and empty. For one consumer.
    pub async fn pop(&self) -> Option<T> {
        self.pop_where(|_| true).await
    }

    /// The oldest item that may go, once there is one; `None` when the queue is closed and empty. It is asked again when an item
    /// is appended; whoever knows that the answer has changed calls again. For one consumer.
    pub async fn pop_where(&self, may_go: impl Fn(&T) -> bool) -> Option<T> {
        loop {
            // Registered before looking: a push in between leaves a permit behind.
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                let found = state.items.iter().position(&may_go);
                if let Some(item) = found.and_then(|index| state.items.remove(index)) {
                    self.removed.notify_one();
                    return Some(item);
                }
                if state.is_closed && state.items.is_empty() {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// A copy of the oldest item, once there is one. It stays where it is. For one consumer.
    pub async fn first(&self) -> T
    where
        T: Clone,
    {
        loop {
            let changed = self.changed.notified();
            if let Some(item) = self.lock().items.front() {
                return item.clone();
            }
            changed.await;
        }
    }

    /// Removes the oldest item if it is the one that is meant.
    pub fn remove_first_if(&self, is_meant: impl FnOnce(&T) -> bool) {
        let mut state = self.lock();
        if state.items.front().is_some_and(is_meant) {
            state.items.pop_front();
        }
        drop(state);
        self.removed.notify_one();
        self.changed.notify_one();
    }

    /// Says that no item will follow.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Whether it was closed and everything was removed.
    pub fn is_finished(&self) -> bool {
        let state = self.lock();
        state.is_closed && state.items.is_empty()
    }

    /// Waits until it was closed and everything was removed.
    pub async fn finished(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_finished() {
                return;
            }
            changed.await;
        }
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items dropped so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
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
        let queue = Queue::new(2);
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
        let queue = Arc::new(Queue::new(1));
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
        let queue = Arc::new(Queue::new(8));
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
