//! Settings: defaults, then the file, then the environment; what is in effect is known and can be shown.
//!
//! The defaults live in `deploy/config/ternwatch.toml` alone, which is compiled in. That file also says which keys
//! exist and of which type they are, so that a misspelt key or a wrong type is reported with its name and the place
//! it came from ([`layer`]). Each module owns the meaning of its section; this one only composes them.

pub mod choice;
pub mod credential;
mod layer;

use crate::exit::Reason;
use crate::{
    camera, logging, model, motion, pipeline, publish, schedule, snapshot, track, update, zones,
};
use ::config::ValueKind;
use layer::{Layer, check_list, examples};
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
    /// Not TOML. The line itself is not shown: it may hold a password.
    #[error("{origin}: line {line}, column {column}: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// Where, from 1.
        line: usize,
        /// Where in the line, in characters from 1.
        column: usize,
        /// What.
        message: String,
    },
    /// What the library that merges the settings does not take.
    #[error("{origin}: {source}")]
    Source {
        /// The file or the environment.
        origin: String,
        /// Why.
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

impl ConfigError {
    /// The exit code's reason.
    pub fn reason(&self) -> Reason {
        match self {
            // The packaged settings are for root and the service.
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Reason::NoPermission
            }
            _ => Reason::Config,
        }
    }
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

fn set(
    builder: ::config::ConfigBuilder<::config::builder::DefaultState>,
    origin: &str,
    key: &str,
    value: &ValueKind,
) -> Result<::config::ConfigBuilder<::config::builder::DefaultState>, ConfigError> {
    builder
        .set_override(key, value.clone())
        .map_err(|source| ConfigError::Source {
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
