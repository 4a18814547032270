//! The signature check: the only place where a file becomes trusted.
//!
//! Takes an [`UnverifiedBundle`] and the keys to trust, gives a [`VerifiedBundle`] or an error. The signature covers
//! the exact bytes of the file and is checked before any of the body is parsed, so a parser never sees a forger's bytes.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::keys::TrustedKeys;
use crate::manifest::{self, Manifest};
use crate::parse::{
    BundleError, MANIFEST_LEN_MAX, SIGNATURE_DOMAIN, SIGNED_HEADER_LEN, UnverifiedBundle,
};

/// A bundle that a trusted key signed. Its manifest has the right syntax; what it says is checked by
/// [`crate::Model::load`].
#[derive(Clone, Debug)]
pub struct VerifiedBundle<'a> {
    file: &'a [u8],
    manifest: Manifest,
    parameters: &'a [u8],
    sha256: [u8; 32],
}

impl<'a> UnverifiedBundle<'a> {
    /// Checks the signature, then parses the manifest.
    pub fn verify(self, keys: &TrustedKeys) -> Result<VerifiedBundle<'a>, BundleError> {
        let message = signed_message(&self.file[..SIGNED_HEADER_LEN], self.body);
        let mut candidates = keys.with_id(self.key_id).peekable();
        if candidates.peek().is_none() {
            return Err(BundleError::UnknownKey {
                key_id: self.key_id,
            });
        }
        if !candidates.any(|key| key.has_signed(&message, self.signature)) {
            return Err(BundleError::BadSignature {
                key_id: self.key_id,
            });
        }
        let (manifest, parameters) = split_body(self.body)?;
        Ok(VerifiedBundle {
            file: self.file,
            manifest: parse_manifest(manifest)?,
            parameters,
            sha256: Sha256::digest(self.file).into(),
        })
    }
}

impl VerifiedBundle<'_> {
    /// What the model says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The layers' parameters; the manifest's offsets count from here.
    pub fn parameters(&self) -> &[u8] {
        self.parameters
    }

    /// SHA-256 of the whole file: the model's identity.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Length of the whole file in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a bundle is never empty")]
    pub fn len(&self) -> usize {
        self.file.len()
    }
}

/// What is signed: `ternwatch bundle v1\0`, the header up to the signature, the body.
pub(crate) fn signed_message(header: &[u8], body: &[u8]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, header, body].concat()
}

fn split_body(body: &[u8]) -> Result<(&[u8], &[u8]), BundleError> {
    let (len, rest) = body
        .split_first_chunk()
        .ok_or(BundleError::BodyTooShort { body: body.len() })?;
    let declared = u32::from_le_bytes(*len);
    if declared as usize > MANIFEST_LEN_MAX {
        return Err(BundleError::ManifestLength {
            declared,
            body: body.len(),
        });
    }
    rest.split_at_checked(declared as usize)
        .ok_or(BundleError::ManifestLength {
            declared,
            body: body.len(),
        })
}

fn parse_manifest(json: &[u8]) -> Result<Manifest, BundleError> {
    /// A later schema may have keys that this one refuses: its number is read first, so that the message says so.
    #[derive(Deserialize)]
    struct Schema {
        schema: u32,
    }
    let Schema { schema } = serde_json::from_slice(json).map_err(BundleError::Manifest)?;
    if schema != manifest::SCHEMA {
        return Err(BundleError::ManifestSchema { found: schema });
    }
    serde_json::from_slice(json).map_err(|source| match daemon_min(json) {
        Some(daemon_min) => BundleError::ManifestOfDaemon { daemon_min, source },
        None => BundleError::Manifest(source),
    })
}

/// The daemon that a manifest asks for, whatever else is in it: keys that only later readers know come with it.
fn daemon_min(json: &[u8]) -> Option<[u32; 3]> {
    #[derive(Deserialize)]
    struct Manifest {
        release: Release,
    }
    #[derive(Deserialize)]
    struct Release {
        daemon_min: [u32; 3],
    }
    let manifest: Option<Manifest> = serde_json::from_slice(json).ok();
    manifest.map(|manifest| manifest.release.daemon_min)
}
