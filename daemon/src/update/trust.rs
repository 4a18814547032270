//! Whose signatures count for models that come from elsewhere than the package.
//!
//! Without a keyring it is `model.key` alone. A keyring that enough of the packaged roots (`model.roots`) signed takes its
//! place: it names the keys, and those that were revoked for good. The packaged model is checked with the packaged key
//! whatever the keyring says: both came with the program, and a device has to have a model to begin with.

use super::machine::{Event, Record, StoredKeyring, Trust};
use crate::model::{self, LoadError};
use ternwatch_bundle::keyring::{Keyring, KeyringError, Roots};
use ternwatch_bundle::{PublicKey, TrustedKeys, hex};
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

/// Whose models are taken.
pub struct Trusted {
    /// The keys that models from elsewhere must be signed with.
    pub keys: TrustedKeys,
    /// Version of the keyring that says so; none if the settings do.
    pub keyring: Option<u64>,
}

/// Whose models are taken. A stored keyring that the present roots did not sign is not in effect: the package that brought other
/// roots decides.
pub fn in_effect(config: &model::Config, record: &Record) -> Result<Trusted, LoadError> {
    // Without a keyring nobody needs the roots.
    if record.keyring.is_some()
        && let Some(roots) = roots(config)?
        && let Some(keyring) = effective(record, &roots)
    {
        return Ok(Trusted {
            keys: keyring.models().clone(),
            keyring: Some(keyring.body().version),
        });
    }
    Ok(Trusted {
        keys: model::trusted_keys(config)?,
        keyring: None,
    })
}

/// The keys that models from elsewhere must be signed with.
pub fn model_keys(config: &model::Config, record: &Record) -> Result<TrustedKeys, LoadError> {
    in_effect(config, record).map(|trusted| trusted.keys)
}

/// Checks a keyring from outside: the event that puts it into effect.
pub fn consider(config: &model::Config, record: &Record, file: &[u8]) -> Result<Event, TrustError> {
    let roots = roots(config)?.ok_or(TrustError::NoRoots)?;
    let keyring = Keyring::verify(file, &roots)?;
    let present = effective(record, &roots);
    if let Some(present) = &present
        && !keyring.follows(present)
    {
        return Err(TrustError::DoesNotFollow {
            found: keyring.body().version,
            present: present.body().version,
        });
    }
    let body = keyring.body();
    let is_trusted = |key: &PublicKey| keyring.models().iter().any(|trusted| trusted == key);
    let is_revocation = !model_keys(config, record)?.iter().all(is_trusted);
    let before_s = present.map_or(0, |present| present.body().signed_at_s);
    Ok(Event::Trust(Trust {
        keyring: StoredKeyring {
            version: body.version,
            file: hex::encode(file),
        },
        signed_at_s: body.signed_at_s.max(before_s),
        is_revocation,
        resets: body.resets.clone(),
    }))
}

/// The stored keyring, if these roots signed it. The record bounds its length.
fn effective(record: &Record, roots: &Roots) -> Option<Keyring> {
    let file = hex::decode_all(&record.keyring.as_ref()?.file)?;
    Keyring::verify(&file, roots).ok()
}

/// The packaged roots; none if the settings name no file.
fn roots(config: &model::Config) -> Result<Option<Roots>, LoadError> {
    let path = &config.roots;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = model::read(path, ROOTS_BYTES_MAX)?;
    let roots = Roots::from_text(&String::from_utf8_lossy(&text));
    roots.map(Some).map_err(|source| LoadError::Roots {
        path: path.clone(),
        source,
    })
}
