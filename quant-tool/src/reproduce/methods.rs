//! The ways to make a float network ternary that are compared.

use crate::quantize::{Config, Free, Order, Rule, Scales};

/// Steps that a way may spend after the float training.
#[derive(Clone, Copy)]
pub(super) struct Budget(pub u64);

/// One way.
pub(super) struct Method {
    /// For files.
    pub(super) key: &'static str,
    /// For people.
    pub(super) name: &'static str,
    /// What it does, in a line.
    pub(super) about: &'static str,
    /// Its settings.
    pub(super) settings: fn(Budget) -> Config,
}

/// The two stages of the paper.
pub(super) static OURS: Method = Method {
    key: "soft-hard",
    name: "soft, then hard (ours)",
    about: "weights are drawn to their levels for a third of the budget, then fixed group by group while the others learn",
    settings: |budget| Config {
        soft_steps: budget.0 / 3,
        hard_steps: budget.0 - budget.0 / 3,
        ..hard(budget)
    },
};

/// All ways, in the order of the report.
pub(super) static ALL: [&Method; 7] = [
    &Method {
        key: "round",
        name: "round to nearest",
        about: "every weight goes to its nearest level at once; normalization is measured anew, nothing is trained",
        settings: |_| round(),
    },
    &Method {
        key: "hwang-sung",
        name: "Hwang and Sung 2014",
        about: "levels of least squared error, kept; retrained with straight-through gradients",
        settings: |budget| Config {
            levels: Rule::Frozen,
            scales: Scales::Layer,
            ..direct(budget)
        },
    },
    &Method {
        key: "twn",
        name: "TWN (Li and Liu 2016)",
        about: "threshold 0.7 x mean magnitude, refitted in every step; retrained with straight-through gradients",
        settings: |budget| Config {
            levels: Rule::Twn,
            scales: Scales::Layer,
            ..direct(budget)
        },
    },
    &Method {
        key: "twn-channel",
        name: "TWN with a scale a channel",
        about: "as TWN, with as many scales as ours",
        settings: |budget| Config {
            levels: Rule::Twn,
            ..direct(budget)
        },
    },
    &Method {
        key: "soft",
        name: "soft only",
        about: "the whole budget in the soft stage, then rounded",
        settings: |budget| Config {
            soft_steps: budget.0 - 1,
            ..round()
        },
    },
    &Method {
        key: "hard",
        name: "hard only",
        about: "the whole budget in the hard stage",
        settings: hard,
    },
    &OURS,
];

/// No soft stage, weights fixed in growing groups.
fn hard(budget: Budget) -> Config {
    Config {
        soft_steps: 0,
        soft_rate: 0.001,
        pull: 0.1,
        hard_steps: budget.0,
        hard_rate: 0.001,
        free: Free::StraightThrough,
        groups: vec![0.0, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0],
        last_group_at: 0.8,
        order: Order::Nearest,
        scales: Scales::Channel,
        levels: Rule::Refit,
        zero_width: 0.5,
    }
}

/// Retraining with straight-through gradients and nothing fixed before the last step.
fn direct(budget: Budget) -> Config {
    Config {
        groups: vec![0.0, 1.0],
        last_group_at: (budget.0 - 1) as f32 / budget.0 as f32,
        ..hard(budget)
    }
}

/// One step in which nothing is learned and everything is fixed.
fn round() -> Config {
    Config {
        hard_rate: 0.0,
        groups: vec![1.0],
        ..hard(Budget(1))
    }
}
