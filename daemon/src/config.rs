//! Settings: defaults, then the file, then the environment; what is in effect is known and can be shown.
//!
//! The defaults live in `deploy/config/ternwatch.toml` alone, which is compiled in. That file also says which keys
//! exist and of which type they are, so that a misspelt key or a wrong type is reported with its name and the place
//! it came from. Each module owns the meaning of its section; this one only composes them.

pub mod choice;
pub mod credential;

use crate::{
    camera, logging, model, motion, pipeline, publish, schedule, snapshot, track, update, zones,
};
use ::config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The commented file with every default, as the package installs it.
pub const DEFAULTS: &str = include_str!("../../deploy/config/ternwatch.toml");

/// A configuration file longer than this is not one.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All settings, checked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this device is.
    pub device: publish::topic::DeviceConfig,
    /// Where frames come from.
    pub camera: camera::Config,
    /// What looks at them.
    pub model: model::Config,
    /// How it is replaced.
    pub update: update::config::Config,
    /// Which frames are looked at.
    pub motion: motion::Config,
    /// When frames are looked at.
    pub schedule: schedule::Config,
    /// How frames travel.
    pub pipeline: pipeline::Config,
    /// How objects are followed.
    pub track: track::Config,
    /// Areas that are watched.
    #[serde(default)]
    pub zones: Vec<zones::ZoneConfig>,
    /// Lines whose crossings are counted.
    #[serde(default)]
    pub lines: Vec<zones::LineConfig>,
    /// What is published.
    pub publish: publish::Config,
    /// Which pictures are.
    pub snapshots: snapshot::Config,
    /// Whether Home Assistant is told of this device.
    pub home_assistant: publish::home_assistant::Config,
    /// Where documents go.
    pub mqtt: publish::mqtt::Config,
    /// Whether documents go to standard output too.
    pub stdout: publish::StdoutConfig,
    /// What is logged.
    pub log: logging::Config,
}

/// A setting whose value makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The key with its sections, such as `mqtt.port` or `zones[1].points`.
    pub key: Cow<'static, str>,
    /// What is wrong with the value.
    pub reason: String,
}

impl Invalid {
    /// `key` has a bad value because of `reason`.
    pub fn new(key: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            reason: reason.into(),
        }
    }
}

/// Checks that `value` lies in `range`.
pub fn in_range<T: PartialOrd + fmt::Display>(
    key: impl Into<Cow<'static, str>>,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), Invalid> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Invalid::new(
        key,
        format!("{value} is not within {least} to {most}"),
    ))
}

/// A text that is never shown.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "\"\""
        } else {
            "[redacted]"
        })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "[redacted]" })
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there, not readable, too long or not text.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, or an environment variable that is not text.
    #[error("{origin}: {source}")]
    Syntax {
        /// The file or the environment.
        origin: String,
        /// Where and what.
        source: ::config::ConfigError,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`{hint}")]
    UnknownKey {
        /// The file or the variable.
        origin: String,
        /// The key with its sections.
        key: String,
        /// A similar key, if there is one.
        hint: String,
    },
    /// A value of another type than the default.
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    Type {
        /// The file or the variable.
        origin: String,
        /// The key with its sections.
        key: String,
        /// The type that is there.
        found: &'static str,
        /// The type that belongs there.
        expected: &'static str,
    },
    /// A value that does not fit.
    #[error("{origin}: `{key}`: {reason}")]
    Value {
        /// The file, the variable or the defaults.
        origin: String,
        /// The key with its sections.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

impl Config {
    /// Reads the defaults, `path` if there is one, and the variables of `environment` that begin with `TERNWATCH_`.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = vec![Layer::toml("the defaults".into(), DEFAULTS)?];
        let examples = Layer::toml("the defaults".into(), &examples(DEFAULTS))?;
        if let Some(path) = path {
            layers.push(Layer::toml(path.display().to_string(), &read(path)?)?);
        }
        layers.push(Layer::environment(environment)?);
        let (defaults, given) = layers.split_first().expect("the defaults are always there");

        let mut origins: BTreeMap<&str, String> = BTreeMap::new();
        let mut builder = ::config::Config::builder();
        for (key, value) in &defaults.values {
            builder = set(builder, &defaults.origin, key, value)?;
        }
        for layer in given {
            for (key, value) in &layer.values {
                match (value, examples.values.get(key)) {
                    (ValueKind::Array(items), Some(ValueKind::Array(example))) => {
                        check_list(&layer.origin, key, items, example)?;
                    }
                    (_, Some(example)) => {
                        layer.check_type(key, value, example)?;
                    }
                    (_, None) => defaults.check(layer, key, value)?,
                }
                origins.insert(key, layer.origin_of(key));
                builder = set(builder, &layer.origin, key, value)?;
            }
        }
        // A key that nobody set is missing in the file, rather than wrong in the defaults.
        let unset = path.map_or("the configuration".into(), |path| {
            path.display().to_string()
        });
        let origin_of = |key: &str| {
            // `zones[1].points` came with `zones`.
            let whole = key.split_once('[').map_or(key, |(list, _)| list);
            origins.get(whole).unwrap_or(&unset).clone()
        };
        let config: Self = builder
            .build()
            .and_then(::config::Config::try_deserialize)
            .map_err(|error| locate(error, origin_of))?;
        config.validate().map_err(|invalid| ConfigError::Value {
            origin: origin_of(&invalid.key),
            key: invalid.key.into_owned(),
            reason: invalid.reason,
        })?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.device.validate()?;
        self.camera.validate()?;
        self.model.validate()?;
        self.update.validate()?;
        self.motion.validate()?;
        self.schedule.validate()?;
        self.pipeline.validate(&self.camera)?;
        self.track.validate()?;
        zones::validate(&self.zones, &self.lines)?;
        self.publish.validate()?;
        self.snapshots.validate(self.mqtt.enabled)?;
        self.home_assistant.validate()?;
        self.mqtt.validate()?;
        if !self.mqtt.enabled && !self.stdout.enabled {
            return Err(Invalid::new(
                "mqtt.enabled",
                "false, and `stdout.enabled` is false too: nothing would be published",
            ));
        }
        Ok(())
    }

    /// What is in effect, a line a section, secrets left out: `mqtt: host="localhost" port=1883 ...`.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        // By way of text, which has the shortest decimals of every number.
        let text = serde_json::to_string(self).unwrap_or_default();
        if let Ok(serde_json::Value::Object(sections)) = serde_json::from_str(&text) {
            for (name, section) in sections {
                describe(&name, &section, &mut lines);
            }
        }
        lines
    }
}

fn describe(name: &str, section: &serde_json::Value, lines: &mut Vec<String>) {
    if let serde_json::Value::Array(items) = section {
        for (index, item) in items.iter().enumerate() {
            describe(&format!("{name}[{index}]"), item, lines);
        }
    }
    let serde_json::Value::Object(entries) = section else {
        return;
    };
    let mut line = format!("{name}:");
    let mut inner = Vec::new();
    for (key, value) in entries {
        if value.is_object() {
            describe(&format!("{name}.{key}"), value, &mut inner);
        } else {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    if line.len() > name.len() + 1 {
        lines.push(line);
    }
    lines.append(&mut inner);
}

/// The values of one source, by key with sections.
struct Layer {
    origin: String,
    values: BTreeMap<String, ValueKind>,
    /// Environment variables are texts whatever the setting's type is.
    from_environment: bool,
}

impl Layer {
    fn toml(origin: String, text: &str) -> Result<Self, ConfigError> {
        let source = File::from_str(text, FileFormat::Toml);
        Self::collect(origin, &source, false)
    }

    fn environment(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // Without `prefix_separator` the separator would be expected after the prefix as well.
        let source = Environment::with_prefix("TERNWATCH")
            .prefix_separator("_")
            .separator("__")
            .source(Some(variables.into_iter().collect()));
        Self::collect("the environment".into(), &source, true)
    }

    fn collect(
        origin: String,
        source: &dyn Source,
        from_environment: bool,
    ) -> Result<Self, ConfigError> {
        let tree = source.collect().map_err(|source| ConfigError::Syntax {
            origin: origin.clone(),
            source,
        })?;
        let mut values = BTreeMap::new();
        flatten("", tree, &mut values);
        Ok(Self {
            origin,
            values,
            from_environment,
        })
    }

    fn origin_of(&self, key: &str) -> String {
        if self.from_environment {
            let name = key.replace('.', "__").to_uppercase();
            format!("environment variable TERNWATCH_{name}")
        } else {
            self.origin.clone()
        }
    }

    /// Checks a value of `layer` against these defaults.
    fn check(&self, layer: &Self, key: &str, value: &ValueKind) -> Result<(), ConfigError> {
        let Some(default) = self.values.get(key) else {
            return Err(ConfigError::UnknownKey {
                origin: layer.origin_of(key),
                key: key.into(),
                hint: self.hint(key),
            });
        };
        layer.check_type(key, value, default)
    }

    /// Checks that a value of this layer is of the same type as `model`.
    fn check_type(
        &self,
        key: &str,
        value: &ValueKind,
        model: &ValueKind,
    ) -> Result<(), ConfigError> {
        let is_list = matches!(model, ValueKind::Array(_));
        if (self.from_environment && !is_list) || fits(value, model) {
            return Ok(());
        }
        Err(ConfigError::Type {
            origin: self.origin_of(key),
            key: key.into(),
            found: type_of(value),
            expected: type_of(model),
        })
    }

    fn hint(&self, key: &str) -> String {
        let section = format!("{key}.");
        if self.values.keys().any(|known| known.starts_with(&section)) {
            return format!(", `{key}` is a section");
        }
        similar(key, self.values.keys())
    }
}

/// The settings that the defaults file only mentions: its lines that begin with `#` and no space.
fn examples(defaults: &str) -> String {
    let lines = defaults.lines().filter_map(|line| line.strip_prefix('#'));
    let settings = lines.filter(|line| !line.starts_with(' ') && !line.is_empty());
    settings.collect::<Vec<_>>().join("\n")
}

/// Checks the sections of a list against the first one of an example.
fn check_list(
    origin: &str,
    list: &str,
    items: &[Value],
    example: &[Value],
) -> Result<(), ConfigError> {
    let Some(ValueKind::Table(known)) = example.first().map(|value| &value.kind) else {
        return Ok(());
    };
    for (index, item) in items.iter().enumerate() {
        let place = format!("{list}[{index}]");
        let ValueKind::Table(entries) = &item.kind else {
            return Err(ConfigError::Type {
                origin: origin.into(),
                key: place,
                found: type_of(&item.kind),
                expected: "a section",
            });
        };
        // In the order of their names, so that the same file gives the same message.
        for (name, value) in entries.iter().collect::<BTreeMap<_, _>>() {
            let key = format!("{place}.{name}");
            let Some(model) = known.get(name) else {
                return Err(ConfigError::UnknownKey {
                    origin: origin.into(),
                    hint: similar(name, known.keys()),
                    key,
                });
            };
            check_item(origin, key, &value.kind, &model.kind)?;
        }
        if let Some(name) = ["name", "points"]
            .iter()
            .find(|name| !entries.contains_key(**name))
        {
            return Err(ConfigError::Value {
                origin: origin.into(),
                key: format!("{place}.{name}"),
                reason: "is missing".into(),
            });
        }
    }
    Ok(())
}

/// Checks a value against one of the right type, lists item by item against the first one of a list.
fn check_item(
    origin: &str,
    key: String,
    value: &ValueKind,
    model: &ValueKind,
) -> Result<(), ConfigError> {
    if !fits(value, model) {
        return Err(ConfigError::Type {
            origin: origin.into(),
            key,
            found: type_of(value),
            expected: type_of(model),
        });
    }
    if let (ValueKind::Array(items), ValueKind::Array(example)) = (value, model)
        && let Some(model) = example.first()
    {
        // A list of lists may be longer or shorter than the example, a list of numbers is a point.
        let is_point = !matches!(model.kind, ValueKind::Array(_));
        if is_point && items.len() != example.len() {
            return Err(ConfigError::Value {
                origin: origin.into(),
                key,
                reason: format!("has {} numbers, expected {}", items.len(), example.len()),
            });
        }
        for (index, item) in items.iter().enumerate() {
            check_item(origin, format!("{key}[{index}]"), &item.kind, &model.kind)?;
        }
    }
    Ok(())
}

/// Whether a value has the type of another one; a whole number may stand for a fraction.
fn fits(value: &ValueKind, model: &ValueKind) -> bool {
    let (found, expected) = (type_of(value), type_of(model));
    found == expected || (found == "an integer" && expected == "a number")
}

/// A question about a key that may have been meant.
fn similar<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> String {
    known
        .map(|known| (edit_distance(known, key), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| format!(", did you mean `{known}`?"))
        .unwrap_or_default()
}

fn flatten(prefix: &str, tree: Map<String, Value>, values: &mut BTreeMap<String, ValueKind>) {
    for (name, value) in tree {
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value.kind {
            ValueKind::Table(inner) => flatten(&key, inner, values),
            kind => {
                values.insert(key, kind);
            }
        }
    }
}

fn set(
    builder: ::config::ConfigBuilder<::config::builder::DefaultState>,
    origin: &str,
    key: &str,
    value: &ValueKind,
) -> Result<::config::ConfigBuilder<::config::builder::DefaultState>, ConfigError> {
    builder
        .set_override(key, value.clone())
        .map_err(|source| ConfigError::Syntax {
            origin: origin.into(),
            source,
        })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.into(),
        source,
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("longer than 1 MiB")));
    }
    Ok(text)
}

/// Names the key and the place of a value that the types refused.
fn locate(error: ::config::ConfigError, origin_of: impl Fn(&str) -> String) -> ConfigError {
    use ::config::ConfigError as Inner;
    let (key, reason) = match error {
        Inner::Type {
            unexpected,
            expected,
            key,
            ..
        } => (key, format!("{unexpected} is not {expected}")),
        Inner::At { error, key, .. } => (key, error.to_string()),
        other => (None, other.to_string()),
    };
    let key = key.unwrap_or_default();
    ConfigError::Value {
        origin: origin_of(&key),
        key,
        reason,
    }
}

fn type_of(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "an integer"
        }
        ValueKind::Float(_) => "a number",
        ValueKind::String(_) => "a string",
        ValueKind::Table(_) => "a section",
        ValueKind::Array(_) => "a list",
    }
}

/// Insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(128).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
