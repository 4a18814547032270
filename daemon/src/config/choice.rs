//! Settings with a few named values: `#[serde(with = "crate::config::choice")]`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// A type with a few values, each with a name.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every value with its name in the configuration.
    const NAMED: &'static [(&'static str, Self)];

    /// The name of this value.
    fn name(self) -> &'static str {
        Self::NAMED
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("?", |(name, _)| name)
    }
}

/// Takes a name; the error lists those there are.
pub fn deserialize<'de, T: Choice, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let given = String::deserialize(deserializer)?;
    if let Some((_, value)) = T::NAMED.iter().find(|(name, _)| *name == given) {
        return Ok(*value);
    }
    let names: Vec<String> = T::NAMED
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    Err(D::Error::custom(format!(
        "\"{given}\" is none of {}",
        names.join(", ")
    )))
}

/// Gives the name.
pub fn serialize<T: Choice, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.name())
}
