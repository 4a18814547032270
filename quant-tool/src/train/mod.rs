//! Training: a configuration and photographs in, checkpoints out.
//!
//! Three stages of one loop: float, soft, hard. Each begins where the one before ended, writes `<stage>.safetensors`
//! into the run's folder every minute and at its end, and goes on from there if it was stopped.

pub mod adamw;
pub mod batches;
pub mod check;
pub mod classify;
pub mod config;
pub mod distil;
pub mod graph;
pub(crate) mod log;
pub mod loss;
pub mod parameters;
mod readings;
mod shards;
pub mod stage;
pub mod start;
pub mod task;
