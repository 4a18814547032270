//! Whose signatures count for models that come from elsewhere than the package.
//!
//! Without a keyring it is `model.key` alone. A keyring that enough of the packaged roots (`model.roots`) signed takes its
//! place: it names the keys, and those that were revoked for good. The packaged model is checked with the packaged key
//! whatever the keyring says: both came with the program, and a device has to have a model to begin with.

use super::machine::{Event, Record, StoredKeyring};
use crate::model::{self, LoadError};
use std::path::Path;
use ternwatch_bundle::keyring::{self, Keyring, KeyringError, Roots};
use ternwatch_bundle::{TrustedKeys, hex};
use thiserror::Error;

/// Longest file of roots in bytes: a title and a line a key.
const ROOTS_BYTES_MAX: usize = 4096;

/// Why a keyring is not taken.
#[derive(Debug, Error)]
pub enum TrustError {
    /// There are no roots that could have signed it.
    #[error("keyrings are not taken here: `model.roots` is empty")]
    NoRoots,
    /// The roots cannot be read.
    #[error(transparent)]
    Roots(#[from] LoadError),
    /// The roots did not sign it, or it makes no sense.
    #[error("the keyring is refused")]
    Keyring(#[from] KeyringError),
    /// It would make a revocation undone, or is an old one.
    #[error(
        "the keyring of version {found} does not follow version {present}: it is not newer, or forgets a key that was revoked"
    )]
    DoesNotFollow {
        /// Its version.
        found: u64,
        /// The version in effect.
        present: u64,
    },
}

/// The keys that models from elsewhere must be signed with. A stored keyring that the present roots did not sign is
/// not in effect: the package that brought other roots decides.
pub fn model_keys(config: &model::Config, record: &Record) -> Result<TrustedKeys, LoadError> {
    match effective(config, record)? {
        Some(keyring) => Ok(keyring.models().clone()),
        None => model::trusted_keys(config),
    }
}

/// Checks a keyring from outside: the event that puts it into effect.
pub fn consider(config: &model::Config, record: &Record, file: &[u8]) -> Result<Event, TrustError> {
    if config.roots.as_os_str().is_empty() {
        return Err(TrustError::NoRoots);
    }
    let keyring = Keyring::verify(file, &roots(&config.roots)?)?;
    if let Some(present) = effective(config, record)?
        && !keyring.follows(&present)
    {
        return Err(TrustError::DoesNotFollow {
            found: keyring.body().version,
            present: present.body().version,
        });
    }
    let body = keyring.body();
    Ok(Event::Trust {
        keyring: StoredKeyring {
            version: body.version,
            file: hex::encode(file),
        },
        signed_at_s: body.signed_at_s,
        resets: body.resets.clone(),
    })
}

fn effective(config: &model::Config, record: &Record) -> Result<Option<Keyring>, LoadError> {
    let (false, Some(stored)) = (config.roots.as_os_str().is_empty(), &record.keyring) else {
        return Ok(None);
    };
    let roots = roots(&config.roots)?;
    Ok(bytes(&stored.file).and_then(|file| Keyring::verify(&file, &roots).ok()))
}

fn roots(path: &Path) -> Result<Roots, LoadError> {
    let text = model::read(path, ROOTS_BYTES_MAX)?;
    Roots::from_text(&String::from_utf8_lossy(&text)).map_err(|source| LoadError::Roots {
        path: path.into(),
        source,
    })
}

/// The bytes that the text writes in hexadecimal.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if text.len() > 2 * keyring::FILE_LEN_MAX || !text.is_ascii() {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair| hex::decode::<1>(std::str::from_utf8(pair).ok()?).map(|[byte]| byte);
    pairs.map(byte).collect()
}
