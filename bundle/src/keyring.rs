//! The keyring: which keys sign models, and which no longer may, signed by root keys (docs/bundle-format.md).
//!
//! Takes the bytes of a file and the roots that came with the program, gives a [`Keyring`] or an error. As with bundles,
//! the signatures are checked over the exact bytes before anything of the body is parsed. Roots sign rarely and are kept
//! offline; several of them have to agree, so that a stolen one is not enough. Versions only grow: who keeps the last
//! one compares.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::hex;
use crate::keys::{KeyError, PublicKey, TrustedKeys};
use crate::model::limits::NAME_LEN_MAX;

/// What a keyring begins with.
pub const MAGIC: [u8; 8] = *b"TERNKEYS";
/// The format that this library reads and writes.
pub const FORMAT_VERSION: u16 = 1;
/// The schema of the body.
pub const SCHEMA: u32 = 1;
/// Bytes before the signatures.
pub const HEADER_LEN: usize = 16;
/// Longest body, in bytes.
pub const BODY_LEN_MAX: usize = 8 << 10;
/// Signatures, and root keys that may make them.
pub const ROOTS_MAX: usize = 16;
/// Longest file, in bytes.
pub const FILE_LEN_MAX: usize = HEADER_LEN + ROOTS_MAX * SIGNATURE_LEN + BODY_LEN_MAX;
/// Keys that sign models.
pub const MODEL_KEYS_MAX: usize = 16;
/// Keys that no longer may.
pub const REVOKED_MAX: usize = 64;
/// Names of models whose versions begin anew.
pub const RESETS_MAX: usize = 16;

/// A key id and a signature.
const SIGNATURE_LEN: usize = 8 + 64;
/// Sets these signatures apart from those that the same key may make elsewhere.
const SIGNATURE_DOMAIN: &[u8] = b"ternwatch keys v1\0";
const ROOTS_TITLE: &str = "ternwatch root keys, threshold ";

/// The root keys that came with the program, and how many of them have to agree.
#[derive(Clone, Debug)]
pub struct Roots {
    keys: Vec<PublicKey>,
    threshold: usize,
}

impl Roots {
    /// These keys, so many of which have to agree.
    pub fn new(keys: Vec<PublicKey>, threshold: usize) -> Result<Self, KeyringError> {
        let distinct: BTreeSet<[u8; 32]> = keys.iter().map(PublicKey::to_bytes).collect();
        let is_sound = distinct.len() == keys.len() && keys.len() <= ROOTS_MAX;
        if !is_sound || threshold == 0 || threshold > keys.len() {
            return Err(KeyringError::Roots);
        }
        Ok(Self { keys, threshold })
    }

    /// Reads the text of a file: `ternwatch root keys, threshold N`, then a line of 64 lower-case hex digits a key.
    pub fn from_text(text: &str) -> Result<Self, KeyringError> {
        let mut lines = text.lines();
        let threshold = lines.next().and_then(|line| line.strip_prefix(ROOTS_TITLE));
        let threshold = threshold.and_then(|number| number.parse().ok());
        let threshold = threshold.ok_or(KeyringError::RootsTitle)?;
        let keys = lines
            .filter(|line| !line.trim().is_empty())
            .take(ROOTS_MAX + 1);
        let keys: Result<_, _> = keys.map(key).collect();
        Self::new(keys?, threshold)
    }

    /// The text of that file.
    pub fn to_text(&self) -> String {
        let title = format!("{ROOTS_TITLE}{}\n", self.threshold);
        self.keys.iter().fold(title, |text, key| {
            text + &hex::encode(&key.to_bytes()) + "\n"
        })
    }
}

/// What a keyring says, as JSON. Unknown keys are refused: one that takes trust away must not be skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// Version of this schema: 1.
    pub schema: u32,
    /// Grows with every keyring.
    pub version: u64,
    /// When it was signed, in seconds since 1970: the present is not before that.
    pub signed_at_s: u64,
    /// The keys that sign models, 64 hex digits each.
    pub models: Vec<String>,
    /// Keys that no longer may, for good.
    #[serde(default)]
    pub revoked: Vec<String>,
    /// By name of a model: the least version that is taken from now on, lower ones than before included. The way back
    /// from a release that should not have been made.
    #[serde(default)]
    pub resets: BTreeMap<String, u64>,
}

/// A keyring that enough roots signed.
#[derive(Clone, Debug)]
pub struct Keyring {
    body: Body,
    models: TrustedKeys,
}

/// Why a file is no keyring that can be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The first line of the file of roots is another one.
    #[error("the first line of the roots is not \"{ROOTS_TITLE}\" and a number")]
    RootsTitle,
    /// No roots, the same one twice, or a threshold that they cannot reach.
    #[error(
        "the roots are not 1 to {ROOTS_MAX} different keys with a threshold that they can reach"
    )]
    Roots,
    /// A key is none.
    #[error("the key {text:?} is none: {source}")]
    Key {
        /// What is there instead.
        text: String,
        /// Why.
        source: KeyError,
    },
    /// Wrong magic, or cut off.
    #[error("not a Ternwatch keyring: the file does not begin with \"TERNKEYS\" and its lengths")]
    NotAKeyring,
    /// Another format.
    #[error(
        "keyring format version {found} is not supported, this program reads version {FORMAT_VERSION}"
    )]
    FormatVersion {
        /// The file's format.
        found: u16,
    },
    /// Lengths that do not agree with the file or are beyond the bounds.
    #[error("the keyring's lengths are out of bounds or not those of the file")]
    Lengths,
    /// Damaged, forged, or not signed by enough.
    #[error("the keyring has good signatures of {found} root keys, {needed} are needed")]
    Threshold {
        /// Different roots that signed these bytes.
        found: usize,
        /// How many have to.
        needed: usize,
    },
    /// Not the JSON that the schema describes.
    #[error("the keyring is wrong: {0}")]
    Syntax(#[source] serde_json::Error),
    /// Of another version.
    #[error("keyring schema {0} is not supported, this program reads schema {SCHEMA}")]
    Schema(u32),
    /// A list that is too long, a version that is too great, or a key that is trusted and revoked.
    #[error("the keyring's `{0}` makes no sense")]
    Bounds(&'static str),
}

impl Keyring {
    /// Checks the signatures, then parses what they cover.
    pub fn verify(file: &[u8], roots: &Roots) -> Result<Self, KeyringError> {
        let Parts {
            header,
            signatures,
            body,
        } = split(file)?;
        let message = signed_message(header, body);
        // By key, so that one that signed twice counts once.
        let has_signed = |key: &&PublicKey| {
            signatures.chunks_exact(SIGNATURE_LEN).any(|entry| {
                let (id, signature) = entry.split_at(8);
                let signature = signature.first_chunk().filter(|_| id == key.id().0);
                signature.is_some_and(|signature| key.has_signed(&message, signature))
            })
        };
        let (found, needed) = (
            roots.keys.iter().filter(has_signed).count(),
            roots.threshold,
        );
        if found < needed {
            return Err(KeyringError::Threshold { found, needed });
        }
        Self::parse(body)
    }

    fn parse(json: &[u8]) -> Result<Self, KeyringError> {
        #[derive(Deserialize)]
        struct Schema {
            schema: u32,
        }
        let Schema { schema } = serde_json::from_slice(json).map_err(KeyringError::Syntax)?;
        if schema != SCHEMA {
            return Err(KeyringError::Schema(schema));
        }
        let body: Body = serde_json::from_slice(json).map_err(KeyringError::Syntax)?;
        let is_exact = |version: u64| version < 1 << 53;
        if !is_exact(body.version) || !is_exact(body.signed_at_s) {
            return Err(KeyringError::Bounds("version"));
        }
        if body.models.len() > MODEL_KEYS_MAX {
            return Err(KeyringError::Bounds("models"));
        }
        let is_trusted_too = |key: &String| body.models.contains(key);
        if body.revoked.len() > REVOKED_MAX || body.revoked.iter().any(is_trusted_too) {
            return Err(KeyringError::Bounds("revoked"));
        }
        let is_sane =
            |(name, version): (&String, &u64)| name.len() <= NAME_LEN_MAX && is_exact(*version);
        if body.resets.len() > RESETS_MAX || !body.resets.iter().all(is_sane) {
            return Err(KeyringError::Bounds("resets"));
        }
        let models = body.models.iter().map(key);
        let models = models.collect::<Result<_, _>>()?;
        for text in &body.revoked {
            key(text)?;
        }
        Ok(Self { body, models })
    }

    /// What it says.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The keys that sign models.
    pub fn models(&self) -> &TrustedKeys {
        &self.models
    }

    /// Whether this key is revoked.
    pub fn has_revoked(&self, key: &PublicKey) -> bool {
        self.body.revoked.contains(&hex::encode(&key.to_bytes()))
    }

    /// Whether it may follow `before`: a newer version, and nothing that was revoked is forgotten.
    pub fn follows(&self, before: &Self) -> bool {
        let keeps = |revoked: &String| self.body.revoked.contains(revoked);
        self.body.version > before.body.version && before.body.revoked.iter().all(keeps)
    }
}

/// A file's parts. Nothing in it is trusted.
struct Parts<'a> {
    header: &'a [u8],
    signatures: &'a [u8],
    body: &'a [u8],
}

fn split(file: &[u8]) -> Result<Parts<'_>, KeyringError> {
    let (header, rest) = file
        .split_at_checked(HEADER_LEN)
        .filter(|(header, _)| header.starts_with(&MAGIC))
        .ok_or(KeyringError::NotAKeyring)?;
    let found = u16::from_le_bytes([header[8], header[9]]);
    if found != FORMAT_VERSION {
        return Err(KeyringError::FormatVersion { found });
    }
    let count = usize::from(u16::from_le_bytes([header[10], header[11]]));
    let declared = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
    if count > ROOTS_MAX || declared > BODY_LEN_MAX {
        return Err(KeyringError::Lengths);
    }
    let (signatures, body) = rest
        .split_at_checked(count * SIGNATURE_LEN)
        .filter(|(_, body)| body.len() == declared)
        .ok_or(KeyringError::Lengths)?;
    Ok(Parts {
        header,
        signatures,
        body,
    })
}

/// What is signed: everything but the signatures and their number, which grows as one root after the other signs.
fn signed_message(header: &[u8], body: &[u8]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, &header[..10], &header[12..], body].concat()
}

fn key(text: impl AsRef<str>) -> Result<PublicKey, KeyringError> {
    let text = text.as_ref();
    let bytes = hex::decode(text).ok_or(KeyError::Digits);
    bytes
        .and_then(|bytes| PublicKey::from_bytes(&bytes))
        .map_err(|source| KeyringError::Key {
            text: text.chars().take(64).collect(),
            source,
        })
}

/// The bytes of a keyring that these keys signed.
#[cfg(feature = "sign")]
pub fn sign(body: &Body, keys: &[crate::SecretKey]) -> Result<Vec<u8>, KeyringError> {
    let json = serde_json::to_vec(body).map_err(KeyringError::Syntax)?;
    let too_long = json.len() > BODY_LEN_MAX || keys.len() > ROOTS_MAX;
    let (Ok(count), Ok(len)) = (u16::try_from(keys.len()), u32::try_from(json.len())) else {
        return Err(KeyringError::Lengths);
    };
    if too_long {
        return Err(KeyringError::Lengths);
    }
    let mut file = MAGIC.to_vec();
    file.extend(FORMAT_VERSION.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend(len.to_le_bytes());
    let message = signed_message(&file, &json);
    for key in keys {
        file.extend(key.public_key().id().0);
        file.extend(key.sign(&message));
    }
    file.extend(json);
    Ok(file)
}
