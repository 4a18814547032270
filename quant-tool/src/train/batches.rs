//! Batches, drawn ahead by a thread of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result};

use super::graph::Images;
use super::task::Task;

/// Batches drawn before they are asked for.
const AHEAD: usize = 4;

/// A batch: images and what is true of each.
pub type Batch<T> = (Images, Vec<T>);

/// Which batches to draw.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seed of the run and its stage.
    pub seed: u64,
    /// First and one past the last step.
    pub steps: (u64, u64),
    /// Images a batch.
    pub batch: usize,
    /// Pixels of a sample: width, height.
    pub sample: [usize; 2],
}

/// Starts to draw the batches of the plan; the thread ends with the plan or with the receiver.
pub fn draw<T: Task>(task: Arc<T>, plan: Plan) -> Receiver<Batch<T::Truth>> {
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::spawn(move || {
        for step in plan.steps.0..plan.steps.1 {
            if sender.send(batch(task.as_ref(), plan, step)).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The next of the batches that were asked for.
pub fn next<T>(batches: &Receiver<Batch<T>>) -> Result<Batch<T>> {
    let next = batches.recv();
    next.context("the thread that draws batches ended")
}

fn batch<T: Task>(task: &T, plan: Plan, step: u64) -> Batch<T::Truth> {
    let [width, height] = plan.sample;
    let mut rng = fastrand::Rng::with_seed(
        plan.seed
            .wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
    );
    let mut data = Vec::with_capacity(plan.batch * 3 * width * height);
    let mut truth = Vec::with_capacity(plan.batch);
    for _ in 0..plan.batch {
        let (image, what) = task.sample(&mut rng, plan.sample);
        data.extend_from_slice(&image);
        truth.push(what);
    }
    (
        Images {
            data,
            count: plan.batch,
            height,
            width,
        },
        truth,
    )
}
