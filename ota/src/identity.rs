//! Which model: what it says of itself, and what it is.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};

/// Longest name of a model in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Greatest version: larger numbers are not exact in every JSON reader, and one must stay above it.
pub const VERSION_MAX: u64 = (1 << 53) - 1;
/// Longest id of a job in bytes.
pub const JOB_BYTES_MAX: usize = 64;

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Digest of the whole file.
    pub sha256: Digest,
}

impl Identity {
    /// Whether this is another file of the same name and version.
    pub fn is_namesake_of(&self, other: &Self) -> bool {
        (&self.name, self.version) == (&other.name, other.version) && self.sha256 != other.sha256
    }
}

/// Whether the text is 1 to `bytes_max` letters, digits, `.`, `_` and `-`: what a job or a level of a topic may be.
pub fn is_word(text: &str, bytes_max: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(is_plain)
}
