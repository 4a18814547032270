//! The report in Markdown.

use std::fmt::Write;

use super::experiment::Experiment;
use super::methods::{Kind, Method};
use super::{Outcome, Results};

/// The paper's memory: two of 32 bits.
const MEMORY_MAX: f64 = 0.0625;
/// The paper's overhead.
const OVERHEAD_MAX: f64 = 0.03;

/// Mean and standard deviation of a sample; one value has no deviation.
struct Spread {
    mean: f64,
    deviation: Option<f64>,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count();
        let mean = values.clone().sum::<f64>() / count.max(1) as f64;
        let squares = values.map(|v| (v - mean).powi(2)).sum::<f64>();
        let deviation = (count > 1).then(|| (squares / (count - 1) as f64).sqrt());
        Self { mean, deviation }
    }

    fn percent(&self) -> String {
        format!("{:.2}{}", 100.0 * self.mean, self.around())
    }

    /// In points, with its sign.
    fn points(&self) -> String {
        format!("{:+.2}{}", 100.0 * self.mean, self.around())
    }

    fn around(&self) -> String {
        self.deviation
            .map_or_else(String::new, |d| format!(" ± {:.2}", 100.0 * d))
    }
}

/// The whole report. `drawn` tells how samples are made, `seeds` how often everything was done.
pub(super) fn markdown(e: &Experiment, drawn: &str, results: &Results, seeds: u64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, e, drawn, results, seeds);
    text
}

fn write(
    text: &mut String,
    e: &Experiment,
    drawn: &str,
    results: &Results,
    seeds: u64,
) -> std::fmt::Result {
    let weights = e.network.weights_len();
    let float = Spread::of(results.float.iter().map(|f| f.measured));
    writeln!(text, "# Ternary networks on {}\n", e.title)?;
    writeln!(
        text,
        "Made by `quant-tool reproduce {} --data DATA --run RUN --seeds {seeds} --steps {}{} --out OUT`; the seeds are 1, 2 and so on.\n",
        e.key, e.float.steps, e.options
    )?;
    writeln!(text, "- Data: {}.", e.data)?;
    writeln!(
        text,
        "- Network: {}: {weights} weights, {:.1} MMAC.",
        e.architecture,
        e.network.macs() as f64 / 1e6
    )?;
    let [width, height] = e.float.sample;
    writeln!(
        text,
        "- Float training: {} steps of {} samples of {width} x {height} pixels (AdamW, half a cosine from {}), {drawn}.",
        e.float.steps, e.float.batch, e.float.rate
    )?;
    writeln!(
        text,
        "- Every way starts from the same float network and may spend {} steps, {:.1} % of its training. Activations are u7 in all of \
         them. What is measured is the signed bundle, run by the integer kernels that the daemon runs; the last state of each \
         run is taken as it is.\n",
        e.budget,
        100.0 * e.budget as f64 / e.float.steps as f64
    )?;
    writeln!(
        text,
        "| | {}, % | against float, points | file, bytes | of float32, % | zeros, % | extra steps, % | extra time, % |",
        e.measure
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
        "\n{} A file is everything that a device needs: header, manifest, golden vectors, parameters, signature. float32 is the weights \
         and one bias a channel.\n",
        match seeds {
            1 => "One seed: differences of a few tenths are chance.",
            _ =>
                "Mean ± standard deviation over the seeds; the differences are those of the same seed.",
        }
    )?;
    writeln!(text, "What each way does:\n")?;
    for method in &e.methods {
        writeln!(text, "- {}: {}.", method.name, method.about)?;
    }
    writeln!(text, "\n## Targets\n")?;
    for own in e.methods.iter().filter(|m| m.kind == Kind::Ours) {
        writeln!(text, "{}:\n", capitalized(&own.name))?;
        targets(text, e, results, own)?;
        writeln!(text)?;
    }
    writeln!(text, "## Pictures\n")?;
    writeln!(text, "![Learning curves](learning.svg)\n")?;
    writeln!(text, "![Weights after each stage](weights.svg)\n")?;
    writeln!(
        text,
        "![{} against memory](memory.svg)",
        capitalized(e.measure)
    )
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_uppercase() + rest
}

fn of<'a>(
    results: &'a Results,
    method: &'a Method,
) -> impl Iterator<Item = &'a Outcome> + Clone + 'a {
    let all = results.ternary.iter();
    all.filter(move |o| o.method == method.key)
}

/// What was measured, minus that of the float network of the same seed.
fn differences<'a>(
    results: &'a Results,
    method: &'a Method,
) -> impl Iterator<Item = f64> + Clone + 'a {
    of(results, method).filter_map(|o| {
        let float = results.float.iter().find(|f| f.seed == o.seed)?;
        Some(o.measured - float.measured)
    })
}

fn row(e: &Experiment, results: &Results, method: &Method) -> String {
    let measured = Spread::of(of(results, method).map(|o| o.measured));
    let difference = Spread::of(differences(results, method));
    let len = Spread::of(of(results, method).map(|o| o.file_len as f64));
    let zeros = Spread::of(of(results, method).map(|o| o.zeros));
    let steps = Spread::of(of(results, method).map(|o| o.steps as f64));
    let seconds = of(results, method).map(|o| o.seconds).sum::<f64>();
    let float_seconds = results.float.iter().map(|f| f.seconds).sum::<f64>();
    format!(
        "| {} | {} | {} | {:.0} | {:.2} | {:.0} | {:.1} | {:.1} |",
        method.name,
        measured.percent(),
        difference.points(),
        len.mean,
        100.0 * len.mean / results.float_len as f64,
        100.0 * zeros.mean,
        100.0 * steps.mean / e.float.steps as f64,
        100.0 * seconds / float_seconds,
    )
}

/// Which targets one of our ways meets.
fn targets(text: &mut String, e: &Experiment, results: &Results, own: &Method) -> std::fmt::Result {
    let mean = |method| Spread::of(of(results, method).map(|o| o.measured)).mean;
    let ours = mean(own);
    let difference = Spread::of(differences(results, own)).mean;
    let baselines = e.methods.iter().filter(|m| m.kind == Kind::Baseline);
    let best = baselines.max_by(|a, b| mean(a).total_cmp(&mean(b)));
    let len = Spread::of(of(results, own).map(|o| o.file_len as f64)).mean;
    let memory = len / results.float_len as f64;
    let steps = Spread::of(of(results, own).map(|o| o.steps as f64)).mean / e.float.steps as f64;
    let least = e.difference_min;
    let mut line = |what: String, met: bool| {
        let verdict = if met { "met" } else { "**missed**" };
        writeln!(text, "- {what}: {verdict}.")
    };
    line(
        format!(
            "{} at least that of float {:+.1} points: {:+.2}",
            capitalized(e.measure),
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
