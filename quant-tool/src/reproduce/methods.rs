//! The ways to make a float network ternary that are compared.

use std::path::Path;

use anyhow::{Context, Result};

use crate::exit::misused;
use crate::quantize::{Config, Fit, Free, Order, Rule, Scales, Soft};
use crate::train::config::ConfigError;

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
            "the whole budget in the soft stage, with the float network as teacher, then rounded",
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

/// Further ways, from a file with a table of settings each, or of what is other than in one of the `known` ways: `like` names it.
pub(super) fn read(path: &Path, known: &[Method]) -> Result<Vec<Method>> {
    let place = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(place)?;
    let tables: toml::Table = toml::from_str(&text)
        .map_err(ConfigError::from)
        .with_context(place)?;
    let method = |(key, table): (String, toml::Value)| {
        let way = tried(&key, table, known);
        way.with_context(|| format!("{}: [{key}]", path.display()))
    };
    tables.into_iter().map(method).collect()
}

/// Those of the ways that are named by their keys, in the order of the report.
pub(super) fn only(keys: &[String], all: Vec<Method>) -> Result<Vec<Method>> {
    if let Some(key) = keys.iter().find(|key| all.iter().all(|m| m.key != **key)) {
        let text = format!("--only {key}: no such way; there are {}", listed(&all));
        return Err(misused(text));
    }
    let mut methods = all;
    methods.retain(|method| keys.contains(&method.key));
    Ok(methods)
}

fn listed(methods: &[Method]) -> String {
    let keys: Vec<&str> = methods.iter().map(|method| method.key.as_str()).collect();
    keys.join(", ")
}

/// The way that a table describes.
fn tried(key: &str, table: toml::Value, known: &[Method]) -> Result<Method, BadWay> {
    let is_plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    // The float network has a folder beside those of the ways.
    let is_taken = key == "float" || known.iter().any(|method| method.key == key);
    if key.is_empty() || !is_plain || is_taken {
        return Err(BadWay::Key);
    }
    let toml::Value::Table(mut own) = table else {
        return Err(BadWay::NoTable);
    };
    let like = own.remove("like");
    let mut settings = match &like {
        None => toml::Table::new(),
        Some(like) => {
            let named = |method: &&Method| like.as_str() == Some(&method.key);
            let method = known.iter().find(named);
            let method = method.ok_or_else(|| BadWay::Like(like.to_string(), listed(known)))?;
            toml::Table::try_from(&method.settings)?
        }
    };
    settings.extend(own);
    let settings: Config = settings.try_into().map_err(ConfigError::from)?;
    settings.check().map_err(ConfigError::from)?;
    Ok(Method {
        name: key.into(),
        about: format!("settings of [{key}] in the file given with --also"),
        key: key.into(),
        settings,
        kind: Kind::Tried,
    })
}

/// Why a table of a file with further ways is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadWay {
    /// A name that is no folder's, or another way's.
    #[error("a way is named with letters, digits and -, and not as another one or float")]
    Key,
    /// A value outside of all tables.
    #[error("no table of settings")]
    NoTable,
    /// A way to begin with that there is not.
    #[error("like = {0}: no such way; there are {1}")]
    Like(String, String),
    /// Settings that are none.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// Settings of a known way that cannot be written.
    #[error(transparent)]
    Written(#[from] toml::ser::Error),
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
        zeros: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Method>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path(), &all(30))
    }

    #[test]
    fn a_table_says_what_is_other_than_in_a_known_way() {
        let ways = read_text("[more-zeros]\nlike = \"soft-hard\"\nzero_width = 0.7\n").unwrap();
        let known = all(30);
        let like = known.iter().find(|m| m.key == "soft-hard").unwrap();
        let expected = Config {
            zero_width: 0.7,
            ..like.settings.clone()
        };
        assert_eq!(ways[0].settings, expected);
        assert_eq!(
            (ways[0].key.as_str(), ways[0].kind),
            ("more-zeros", Kind::Tried)
        );
    }

    #[test]
    fn the_reports_files_are_read() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for (report, ways) in [("mnist", 20), ("cifar10", 12)] {
            let file = docs.join(report).join("tried.toml");
            assert_eq!(read(&file, &all(270)).unwrap().len(), ways, "{report}");
        }
    }

    #[test]
    fn a_bad_table_is_named() {
        for (text, part) in [
            (
                "[a]\nlike = \"hrad\"",
                "[a]: like = \"hrad\": no such way; there are round, ",
            ),
            ("[a]\nlike = \"hard\"\nzero_with = 0.7", "zero_with"),
            (
                "[a]\nlike = \"hard\"\nzero_width = 7",
                "quantize.zero_width = 7.0",
            ),
            ("[a]\nzero_width = 0.5", "missing field"),
            ("[hard]\nlike = \"hard\"", "[hard]: a way is named"),
            ("[float]\nlike = \"hard\"", "[float]: a way is named"),
            ("[\"\"]\nlike = \"hard\"", "a way is named"),
            ("a = 1", "[a]: no table"),
            ("[a", "expected"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
}
