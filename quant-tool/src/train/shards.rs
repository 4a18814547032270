//! A batch in parts, differentiated side by side.

use std::thread::ScopedJoinHandle;

use anyhow::{Context, Result, bail};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::graph::{self, Activations, Images, Statistics, forward};
use super::parameters::Parameters;
use super::stage::{Stage, Teacher};
use super::task::{Loss, Task};
use crate::network::Network;

/// Parts of a batch. It is part of the recipe (each part is normalized by itself), not a matter of the machine.
const SHARDS: usize = 2;

/// A layer's name, means and variances.
pub(super) type Statistic = (String, Vec<f32>, Vec<f32>);
/// A gradient for each parameter that has one.
pub(super) type Gradients = Vec<Option<Vec<f32>>>;

/// Differentiates the parts of a batch side by side and averages their gradients.
///
/// Elementwise operations run on one thread each, so that parts keep all processors busy where one graph does not; each
/// part has a thread pool of one, so that the parts do not wait for each other's convolutions. Each part is normalized
/// by its own statistics ("ghost batches", Hoffer et al. 2017).
pub(super) struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start() -> Result<Self> {
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build();
        let pools = (0..SHARDS)
            .map(pool)
            .collect::<Result<_, _>>()
            .context("starting the training threads")?;
        Ok(Self { pools })
    }

    /// The loss of a batch, every part's statistics, and the gradient of each parameter.
    pub(super) fn differentiate<T: Task>(
        &self,
        stage: Stage,
        network: &Network,
        (parameters, teacher): (&Parameters, Option<(&Teacher, f32)>),
        images: Images,
        (task, truth): (&T, &[T::Truth]),
    ) -> Result<(Loss, Vec<Vec<Statistic>>, Gradients)> {
        let mut rest = truth;
        let results: Vec<Result<_>> = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (part, pool) in images.split(SHARDS).into_iter().zip(&self.pools) {
                let (truth, after) = rest.split_at(part.count);
                rest = after;
                let work = move || {
                    let mode = (stage.activations(), Statistics::Batch);
                    let taught = teacher
                        .map(|(teacher, weight)| {
                            let mode = (Activations::Float, Statistics::Batch);
                            let (images, none) = (part.clone(), graph::Gradients::None);
                            let pass =
                                forward(&teacher.network, &teacher.parameters, images, mode, none)?;
                            Ok::<_, anyhow::Error>((pass.outputs, weight))
                        })
                        .transpose()?;
                    let mut pass =
                        forward(network, parameters, part, mode, graph::Gradients::Kept)?;
                    let (mut loss, mut output_gradients) = task.loss(&pass.outputs, truth);
                    if let Some((taught, weight)) = taught {
                        let (distance, slopes) = task.distil(&pass.outputs, &taught);
                        loss.add(weight, distance);
                        let slopes = slopes.into_iter().flatten();
                        let pairs = output_gradients.iter_mut().flatten().zip(slopes);
                        pairs.for_each(|(g, s)| *g += weight * s);
                    }
                    let statistics = std::mem::take(&mut pass.statistics);
                    Ok((loss, statistics, pass.backward(output_gradients)?))
                };
                threads.push(scope.spawn(|| pool.install(work)));
            }
            let join = |t: ScopedJoinHandle<'_, _>| {
                t.join()
                    .unwrap_or_else(|_| bail!("a training thread panicked"))
            };
            threads.into_iter().map(join).collect()
        });
        let share = 1.0 / results.len() as f32;
        let mut total = Loss::default();
        let mut all_statistics = Vec::new();
        let mut sum: Gradients = vec![None; parameters.0.len()];
        for result in results {
            let (loss, statistics, gradients) = result?;
            total.score += loss.score * share;
            total.bbox += loss.bbox * share;
            total.positives += loss.positives;
            all_statistics.push(statistics);
            for (sum, gradient) in sum.iter_mut().zip(gradients) {
                let Some(gradient) = gradient else { continue };
                let sum = sum.get_or_insert_with(|| vec![0.0; gradient.len()]);
                sum.iter_mut()
                    .zip(gradient)
                    .for_each(|(s, g)| *s += g * share);
            }
        }
        Ok((total, all_statistics, sum))
    }
}
