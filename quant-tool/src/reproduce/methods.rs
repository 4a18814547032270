//! The ways to make a float network ternary that are compared.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::quantize::{Config, Fit, Free, Order, Rule, Scales, Soft};

/// Learning rate at the start of what follows the float training, from the nearest levels.
const RATE: f32 = 0.002;
/// The part of it that is left where the soft stage ends and the hard one begins.
const RATE_BETWEEN: f32 = 0.75;
/// Learning rate at the start of a hard stage that begins with levels by outputs, which more of it forgets.
const FITTED_RATE: f32 = 0.0004;

/// One way.
#[derive(Clone, Debug)]
pub(super) struct Method {
    /// For files.
    pub(super) key: String,
    /// For people.
    pub(super) name: String,
    /// What it does, in a line.
    pub(super) about: String,
    /// Its settings.
    pub(super) settings: Config,
    /// What it is compared as.
    pub(super) kind: Kind,
}

/// What a way is compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An earlier method.
    Baseline,
    /// A part of ours.
    Ablation,
    /// The two stages of the paper, or levels by outputs in place of the first.
    Ours,
    /// Settings from a file, for the table only.
    Tried,
}

/// All ways, in the order of the report, each with at most `budget` steps after the float training.
pub(super) fn all(budget: u64) -> Vec<Method> {
    let way = |kind, key: &str, name: &str, about: &str, settings| Method {
        key: key.into(),
        name: name.into(),
        about: about.into(),
        settings,
        kind,
    };
    vec![
        way(
            Kind::Baseline,
            "round",
            "round to nearest",
            "every weight goes to its nearest level at once; normalization is measured anew, nothing is trained",
            round(),
        ),
        way(
            Kind::Baseline,
            "hwang-sung",
            "Hwang and Sung 2014",
            "levels of least squared error, kept; retrained with straight-through gradients",
            Config {
                scales: Scales::Layer,
                ..direct(budget)
            },
        ),
        way(
            Kind::Baseline,
            "twn",
            "TWN (Li and Liu 2016)",
            "threshold 0.7 x mean magnitude, refitted in every step; retrained with straight-through gradients",
            Config {
                levels: Rule::Twn,
                scales: Scales::Layer,
                ..direct(budget)
            },
        ),
        way(
            Kind::Baseline,
            "twn-channel",
            "TWN with a scale a channel",
            "as TWN, with as many scales as ours",
            Config {
                levels: Rule::Twn,
                ..direct(budget)
            },
        ),
        way(
            Kind::Ablation,
            "fitted",
            "levels by outputs only",
            "levels of least squared error of what is computed with them, layer by layer; nothing is trained",
            Config {
                fit: Fit::Outputs,
                ..round()
            },
        ),
        way(
            Kind::Ablation,
            "soft",
            "soft only",
            "the whole budget in the soft stage, then rounded",
            Config {
                soft_steps: budget.saturating_sub(1),
                ..round()
            },
        ),
        way(
            Kind::Ablation,
            "hard",
            "hard only",
            "the whole budget in the hard stage, with the float network as teacher",
            hard(budget),
        ),
        way(
            Kind::Ablation,
            "untaught",
            "soft, then hard, without a teacher",
            "ours without the loss that draws the outputs to the float network's",
            Config {
                distillation: 0.0,
                ..soft_hard(budget)
            },
        ),
        way(
            Kind::Ours,
            "soft-hard",
            "soft, then hard (ours)",
            "for a third of the budget the network turns ternary by degrees, then weights are fixed group by group while \
             the others learn, in one descent of the learning rate; the float network teaches",
            soft_hard(budget),
        ),
        way(
            Kind::Ours,
            "fitted-hard",
            "levels by outputs, then hard (ours)",
            "levels that give nearly what the float network gives, in place of the soft stage; then as above at a lower learning rate",
            Config {
                fit: Fit::Outputs,
                hard_rate: FITTED_RATE,
                ..hard(budget)
            },
        ),
    ]
}

/// Further ways, from a file with a table of settings each.
pub(super) fn read(path: &Path) -> Result<Vec<Method>> {
    let place = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(place)?;
    let tables: BTreeMap<String, Config> = toml::from_str(&text).with_context(place)?;
    let plain = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    tables
        .into_iter()
        .map(|(key, settings)| {
            anyhow::ensure!(
                plain(&key),
                "{}: [{key}]: letters, digits and - only",
                place()
            );
            settings
                .check()
                .with_context(|| format!("{}: [{key}]", place()))?;
            Ok(Method {
                name: key.clone(),
                about: format!("settings of [{key}] in the file given with --also"),
                key,
                settings,
                kind: Kind::Tried,
            })
        })
        .collect()
}

/// The two stages, over which the learning rate has one descent.
fn soft_hard(budget: u64) -> Config {
    Config {
        soft_steps: budget / 3,
        soft_rate_end: RATE_BETWEEN,
        hard_steps: budget - budget / 3,
        hard_rate: RATE * RATE_BETWEEN,
        ..hard(budget)
    }
}

/// No soft stage, weights fixed in growing groups.
fn hard(budget: u64) -> Config {
    Config {
        soft_steps: 0,
        soft_rate: RATE,
        soft_rate_end: 0.01,
        pull: 1.0,
        soft: Soft::Forward,
        hard_steps: budget,
        hard_rate: RATE,
        free: Free::StraightThrough,
        groups: vec![0.0, 0.5, 0.8, 1.0],
        last_group_at: 0.9,
        order: Order::Nearest,
        fit: Fit::Weights,
        scales: Scales::Channel,
        levels: Rule::Frozen,
        zero_width: 0.5,
        distillation: 4.0,
    }
}

/// Retraining with straight-through gradients and nothing fixed before the last step.
fn direct(budget: u64) -> Config {
    Config {
        groups: vec![0.0, 1.0],
        last_group_at: (budget - 1) as f32 / budget as f32,
        distillation: 0.0,
        ..hard(budget)
    }
}

/// One step in which nothing is learned and everything is fixed.
fn round() -> Config {
    Config {
        hard_rate: 0.0,
        groups: vec![1.0],
        ..hard(1)
    }
}
