//! The settings of one source, and what may stand there: the defaults say which keys exist and of which types they are.

use super::ConfigError;
use ::config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;

/// The values of one source, by key with sections.
pub(super) struct Layer {
    pub(super) origin: String,
    pub(super) values: BTreeMap<String, ValueKind>,
    /// Environment variables are texts whatever the setting's type is.
    from_environment: bool,
}

impl Layer {
    pub(super) fn toml(origin: String, text: &str) -> Result<Self, ConfigError> {
        let source = File::from_str(text, FileFormat::Toml);
        Self::collect(origin, &source, false).map_err(|error| without_line(error, text))
    }

    pub(super) fn environment(
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
        let tree = source.collect().map_err(|source| ConfigError::Source {
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

    pub(super) fn origin_of(&self, key: &str) -> String {
        if self.from_environment {
            let name = key.replace('.', "__").to_uppercase();
            format!("environment variable TERNWATCH_{name}")
        } else {
            self.origin.clone()
        }
    }

    /// Checks a value of `layer` against these defaults.
    pub(super) fn check(
        &self,
        layer: &Self,
        key: &str,
        value: &ValueKind,
    ) -> Result<(), ConfigError> {
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
    pub(super) fn check_type(
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
pub(super) fn examples(defaults: &str) -> String {
    let lines = defaults.lines().filter_map(|line| line.strip_prefix('#'));
    let settings = lines.filter(|line| !line.starts_with(' ') && !line.is_empty());
    settings.collect::<Vec<_>>().join("\n")
}

/// Checks the sections of a list against the first one of an example.
pub(super) fn check_list(
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

/// The parser's error shows the line that it is about.
fn without_line(error: ConfigError, text: &str) -> ConfigError {
    let ConfigError::Source {
        origin,
        source: ::config::ConfigError::FileParse { cause, .. },
    } = error
    else {
        return error;
    };
    let cause = cause.downcast_ref::<toml::de::Error>();
    let at = cause
        .and_then(toml::de::Error::span)
        .map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or(before);
    ConfigError::Syntax {
        origin,
        line: 1 + before.matches('\n').count(),
        column: 1 + line.chars().count(),
        message: cause.map_or("no TOML", toml::de::Error::message).into(),
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
