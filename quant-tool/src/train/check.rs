//! Bounds of settings: what is out of them is named with its key.

use std::fmt::Debug;

/// A value out of its range.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {value}: {rule}")]
pub struct BadValue {
    /// Where it stands.
    pub key: &'static str,
    /// What it is.
    pub value: String,
    /// What it has to be.
    pub rule: &'static str,
}

/// Refuses `value` unless it is `sound`.
pub fn check(
    sound: bool,
    key: &'static str,
    value: &dyn Debug,
    rule: &'static str,
) -> Result<(), BadValue> {
    match sound {
        true => Ok(()),
        false => Err(BadValue {
            key,
            value: format!("{value:?}"),
            rule,
        }),
    }
}
