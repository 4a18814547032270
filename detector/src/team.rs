//! The threads that layers run on.
//!
//! Layers split their work among the threads of the rayon pool that their caller belongs to. A team is such a pool around
//! a thread that is there already, so that nothing has to be handed over for a frame: the helpers look for halves of layers, and
//! sleep when there are none for a while.

use rayon_core::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Helpers of the thread that made the team, until the team is dropped.
#[derive(Debug)]
pub struct Team(Option<ThreadPool>);

impl Team {
    /// A team of `threads`, the calling one among them. A thread makes one team in its life; one of one thread is none.
    pub fn of_this_thread(threads: usize) -> Result<Self, TeamError> {
        if threads <= 1 {
            return Ok(Self(None));
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .use_current_thread()
            .thread_name(|index| format!("infer-{index}"))
            .build()?;
        // The first look for other threads' work allocates what this thread needs for all later ones.
        rayon_core::yield_now();
        Ok(Self(Some(pool)))
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.0.as_ref().map_or(1, ThreadPool::current_num_threads)
    }
}

/// The system gives no threads, or this thread has had a team before.
#[derive(Debug, thiserror::Error)]
#[error("cannot start threads for the layers")]
pub struct TeamError(#[from] ThreadPoolBuildError);
