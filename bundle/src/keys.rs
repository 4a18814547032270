//! Ed25519 keys, and the text files that hold them.
//!
//! A key file has two lines: what it is, then 64 lower-case hex digits. The public key's first line is
//! `ternwatch ed25519 public key`, the secret key's `ternwatch ed25519 secret key`, so that nobody installs the
//! wrong one. Entropy is the caller's business.

use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::hex;

const PUBLIC_TITLE: &str = "ternwatch ed25519 public key";
#[cfg(feature = "sign")]
const SECRET_TITLE: &str = "ternwatch ed25519 secret key";

/// The first 8 bytes of a public key's SHA-256: names the key in a bundle's header.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

impl Display for KeyId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

impl Debug for KeyId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key that checks signatures. Never one of the weak keys, for which signatures can be forged.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// A key from its 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        Ok(Self(key))
    }

    /// The 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The id under which bundles name this key.
    pub fn id(&self) -> KeyId {
        let digest = Sha256::digest(self.0.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// A key from the text of its file.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&key_bytes(text, PUBLIC_TITLE)?)
    }

    /// The text of this key's file.
    pub fn to_text(&self) -> String {
        format!("{PUBLIC_TITLE}\n{}\n", hex::encode(self.0.as_bytes()))
    }

    /// Whether this key signed exactly these bytes. Strict: one message and key have no second valid signature form.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0
            .verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_text(text)
    }
}

impl Debug for PublicKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", hex::encode(self.0.as_bytes()))
    }
}

/// A key that makes signatures. Its memory is wiped when it is dropped, and `Debug` shows only the public half.
#[cfg(feature = "sign")]
pub struct SecretKey(ed25519_dalek::SigningKey);

#[cfg(feature = "sign")]
impl SecretKey {
    /// A key from 32 bytes of entropy.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(bytes))
    }

    /// A key from the text of its file.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        Ok(Self::from_bytes(&key_bytes(text, SECRET_TITLE)?))
    }

    /// The text of this key's file: a secret.
    pub fn to_text(&self) -> String {
        format!("{SECRET_TITLE}\n{}\n", hex::encode(self.0.as_bytes()))
    }

    /// The key that checks this key's signatures.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The signature over exactly these bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        use ed25519_dalek::Signer as _;
        self.0.sign(message).to_bytes()
    }
}

#[cfg(feature = "sign")]
impl Debug for SecretKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public_key())
    }
}

/// The public keys whose bundles are accepted.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(Vec<PublicKey>);

impl TrustedKeys {
    /// The keys in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }

    /// The keys with this id. An id is short enough to collide, so there may be several.
    pub(crate) fn with_id(&self, id: KeyId) -> impl Iterator<Item = &PublicKey> {
        self.0.iter().filter(move |key| key.id() == id)
    }
}

impl FromIterator<PublicKey> for TrustedKeys {
    fn from_iter<T: IntoIterator<Item = PublicKey>>(keys: T) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// Why a key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The first line names another thing.
    #[error("the first line of the key file is not \"{expected}\"")]
    Title {
        /// What the first line has to say.
        expected: &'static str,
    },
    /// The second line is no key.
    #[error("the second line of the key file is not 64 lower-case hex digits")]
    Digits,
    /// The file goes on.
    #[error("the key file has text after its second line")]
    Trailing,
    /// The bytes are no point of the curve.
    #[error("the 32 bytes are not an Ed25519 public key")]
    NotAPoint,
    /// The key has small order.
    #[error("the public key is weak: anybody can forge its signatures")]
    Weak,
}

fn key_bytes(text: &str, title: &'static str) -> Result<[u8; 32], KeyError> {
    let mut lines = text.lines();
    if lines.next() != Some(title) {
        return Err(KeyError::Title { expected: title });
    }
    let bytes = lines.next().and_then(hex::decode).ok_or(KeyError::Digits)?;
    if lines.any(|line| !line.trim().is_empty()) {
        return Err(KeyError::Trailing);
    }
    Ok(bytes)
}
