//! The signed model file of Ternwatch (docs/bundle-format.md).
//!
//! Takes the bytes of a file, gives a [`Model`] whose every number was checked. The types are the gates:
//! [`UnverifiedBundle`] knows only the header, [`VerifiedBundle`] exists only behind a good signature of a trusted
//! key, and [`Model::load`] takes nothing else. No input, however broken, panics or allocates more than its bounds.
//! On purpose this crate reads no file and runs no network: bytes come from the caller, arithmetic is `detector`'s.

pub mod hex;
pub mod keyring;
pub mod keys;
pub mod manifest;
pub mod model;
pub mod parse;
#[cfg(feature = "testing")]
pub mod testing;
pub mod verify;
#[cfg(feature = "sign")]
pub mod write;

pub use keyring::{Keyring, KeyringError, Roots};
#[cfg(feature = "sign")]
pub use keys::SecretKey;
pub use keys::{KeyError, KeyId, PublicKey, TrustedKeys};
pub use manifest::{Manifest, Thresholds};
pub use model::{Model, ModelError};
pub use parse::{BundleError, UnverifiedBundle};
pub use verify::VerifiedBundle;
