//! The report in Markdown.

use std::fmt::Write;

use super::experiment::Experiment;
use super::methods::{Kind, Method};
use super::{Outcome, Results};
use crate::network::Network;

/// The paper's memory: two of 32 bits.
const MEMORY_MAX: f64 = 0.0625;
/// The paper's overhead.
const OVERHEAD_MAX: f64 = 0.03;

/// Mean and standard deviation of a sample.
struct Spread {
    mean: f64,
    deviation: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count().max(1) as f64;
        let mean = values.clone().sum::<f64>() / count;
        let squares = values.map(|v| (v - mean).powi(2)).sum::<f64>();
        let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
        Self { mean, deviation }
    }

    fn percent(&self) -> String {
        format!("{:.2} ± {:.2}", 100.0 * self.mean, 100.0 * self.deviation)
    }
}

/// The whole report.
pub(super) fn markdown(e: &Experiment, network: &Network, results: &Results, seeds: u64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, e, network, results, seeds);
    text
}

fn write(
    text: &mut String,
    e: &Experiment,
    network: &Network,
    results: &Results,
    seeds: u64,
) -> std::fmt::Result {
    let weights: usize = network.convs().map(|c| c.weights_len()).sum();
    let float = Spread::of(results.float.iter().map(|f| f.accuracy));
    writeln!(text, "# Ternary networks on {}\n", e.title)?;
    writeln!(
        text,
        "Made by `quant-tool reproduce {} --data DATA --run RUN --seeds {seeds} --steps {} --out OUT`, seeds 1 to {seeds}.\n",
        e.key, e.float.steps
    )?;
    writeln!(text, "- Data: {}.", e.data)?;
    let convs: Vec<String> = e.convs.iter().map(|(c, s)| format!("{c}/{s}")).collect();
    writeln!(
        text,
        "- Network: 3x3 convolutions of channels/stride {}, batch normalization and ReLU after each, then one logit a class and \
         cell, averaged: {weights} weights, {:.1} MMAC.",
        convs.join(", "),
        network.macs() as f64 / 1e6
    )?;
    writeln!(
        text,
        "- Float training: {} steps of {} pictures (AdamW, half a cosine from {}), shifted by up to {} pixels{}.",
        e.float.steps,
        e.float.batch,
        e.float.rate,
        e.shift,
        if e.mirror { " and mirrored" } else { "" }
    )?;
    writeln!(
        text,
        "- Every way starts from the same float network and may spend {} steps, {:.1} % of its training. Activations are u7 in all of \
         them. Accuracy is that of the signed bundle, run by the integer kernels that the daemon runs; the last state of each \
         run is taken as it is.\n",
        e.budget,
        100.0 * e.budget as f64 / e.float.steps as f64
    )?;
    writeln!(
        text,
        "| | test accuracy, % | against float, points | file, bytes | of float32, % | zeros, % | extra steps, % | extra time, % |"
    )?;
    writeln!(text, "|---|--:|--:|--:|--:|--:|--:|--:|")?;
    writeln!(
        text,
        "| float32 | {} | | {} | 100 | | | |",
        float.percent(),
        results.float_len
    )?;
    for method in &e.methods {
        writeln!(text, "{}", row(e, results, method))?;
    }
    writeln!(
        text,
        "\nMean ± standard deviation over the seeds; the differences are those of the same seed. A file is everything that a device \
         needs: header, manifest, golden vectors, parameters, signature. float32 is the weights and one bias a channel.\n"
    )?;
    writeln!(text, "What each way does:\n")?;
    for method in &e.methods {
        writeln!(text, "- {}: {}.", method.name, method.about)?;
    }
    writeln!(text, "\n## Targets\n")?;
    targets(text, e, results)?;
    writeln!(text, "\n## Pictures\n")?;
    writeln!(text, "![Learning curves](learning.svg)\n")?;
    writeln!(text, "![Weights after each stage](weights.svg)\n")?;
    writeln!(text, "![Accuracy against memory](memory.svg)")
}

fn of<'a>(
    results: &'a Results,
    method: &'a Method,
) -> impl Iterator<Item = &'a Outcome> + Clone + 'a {
    let all = results.ternary.iter();
    all.filter(move |o| o.method == method.key)
}

/// Accuracy minus that of the float network of the same seed.
fn differences<'a>(
    results: &'a Results,
    method: &'a Method,
) -> impl Iterator<Item = f64> + Clone + 'a {
    of(results, method).filter_map(|o| {
        let float = results.float.iter().find(|f| f.seed == o.seed)?;
        Some(o.accuracy - float.accuracy)
    })
}

fn row(e: &Experiment, results: &Results, method: &Method) -> String {
    let accuracy = Spread::of(of(results, method).map(|o| o.accuracy));
    let difference = Spread::of(differences(results, method));
    let len = Spread::of(of(results, method).map(|o| o.file_len as f64));
    let zeros = Spread::of(of(results, method).map(|o| o.zeros));
    let steps = Spread::of(of(results, method).map(|o| o.steps as f64));
    let seconds = of(results, method).map(|o| o.seconds).sum::<f64>();
    let float_seconds = results.float.iter().map(|f| f.seconds).sum::<f64>();
    format!(
        "| {} | {} | {:+.2} ± {:.2} | {:.0} | {:.2} | {:.0} | {:.1} | {:.1} |",
        method.name,
        accuracy.percent(),
        100.0 * difference.mean,
        100.0 * difference.deviation,
        len.mean,
        100.0 * len.mean / results.float_len as f64,
        100.0 * zeros.mean,
        100.0 * steps.mean / e.float.steps as f64,
        100.0 * seconds / float_seconds,
    )
}

fn targets(text: &mut String, e: &Experiment, results: &Results) -> std::fmt::Result {
    let mean = |method| Spread::of(of(results, method).map(|o| o.accuracy)).mean;
    let Some(own) = e.methods.iter().find(|m| m.kind == Kind::Ours) else {
        return Ok(());
    };
    let ours = mean(own);
    let difference = Spread::of(differences(results, own)).mean;
    let baselines = e.methods.iter().filter(|m| m.kind == Kind::Baseline);
    let best = baselines.max_by(|a, b| mean(a).total_cmp(&mean(b)));
    let len = Spread::of(of(results, own).map(|o| o.file_len as f64)).mean;
    let memory = len / results.float_len as f64;
    let steps = e.budget as f64 / e.float.steps as f64;
    let least = e.difference_min;
    let mut line = |what: String, met: bool| {
        let verdict = if met { "met" } else { "**missed**" };
        writeln!(text, "- {what}: {verdict}.")
    };
    line(
        format!(
            "Accuracy at least float {:+.1} points: {:+.2}",
            100.0 * least,
            100.0 * difference
        ),
        difference >= least,
    )?;
    if let Some(best) = best {
        line(
            format!(
                "Ahead of every baseline: {:+.2} points over the best, {}",
                100.0 * (ours - mean(best)),
                best.name
            ),
            ours > mean(best),
        )?;
    }
    line(
        format!(
            "File at most {:.2} % of float32: {:.2} %",
            100.0 * MEMORY_MAX,
            100.0 * memory
        ),
        memory <= MEMORY_MAX,
    )?;
    line(
        format!(
            "At most {:.0} % more steps: {:.1} %",
            100.0 * OVERHEAD_MAX,
            100.0 * steps
        ),
        steps <= OVERHEAD_MAX,
    )
}
