//! Writing and signing a bundle.
//!
//! Takes a manifest and parameters, gives the bytes of the file. What the manifest says is not checked here: sign,
//! then read the file back and load it, as its user will.

use ternwatch_kernels::{Trit, trit};

use crate::keys::SecretKey;
use crate::manifest::Manifest;
use crate::parse::{
    BODY_LEN_MAX, FORMAT_VERSION, HEADER_LEN, MAGIC, MANIFEST_LEN_MAX, SIGNED_HEADER_LEN,
};
use crate::verify::{VerifiedBundle, signed_message};

/// A model before its signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What the model says of itself.
    pub manifest: Manifest,
    /// The layers' parameters, as [`ParameterWriter`] lays them out.
    pub parameters: Vec<u8>,
}

impl Draft {
    /// What another one signed, to be signed anew.
    pub fn of(bundle: &VerifiedBundle<'_>) -> Self {
        Self {
            manifest: bundle.manifest().clone(),
            parameters: bundle.parameters().into(),
        }
    }

    /// The bytes of the signed file.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, WriteError> {
        let manifest = serde_json::to_vec(&self.manifest).map_err(WriteError::Manifest)?;
        sign_raw(&manifest, &self.parameters, key)
    }
}

/// Signs a manifest that is given as bytes, so that tests can sign what [`Draft`] cannot say.
pub(crate) fn sign_raw(
    manifest: &[u8],
    parameters: &[u8],
    key: &SecretKey,
) -> Result<Vec<u8>, WriteError> {
    if manifest.len() > MANIFEST_LEN_MAX {
        return Err(WriteError::ManifestTooLong {
            len: manifest.len(),
        });
    }
    let body_len = 4 + manifest.len() + parameters.len();
    if body_len > BODY_LEN_MAX {
        return Err(WriteError::BodyTooLong { len: body_len });
    }
    let mut file = Vec::with_capacity(HEADER_LEN + body_len);
    file.extend(MAGIC);
    file.extend(FORMAT_VERSION.to_le_bytes());
    file.extend([0, 0]);
    file.extend((body_len as u32).to_le_bytes());
    file.extend(key.public_key().id().0);
    file.extend([0; HEADER_LEN - SIGNED_HEADER_LEN]);
    file.extend((manifest.len() as u32).to_le_bytes());
    file.extend(manifest);
    file.extend(parameters);
    let signature = key.sign(&signed_message(
        &file[..SIGNED_HEADER_LEN],
        &file[HEADER_LEN..],
    ));
    file[SIGNED_HEADER_LEN..HEADER_LEN].copy_from_slice(&signature);
    Ok(file)
}

/// Lays the parameters of convolutions out one after another.
#[derive(Clone, Debug, Default)]
pub struct ParameterWriter {
    bytes: Vec<u8>,
}

impl ParameterWriter {
    /// An empty section.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a `relu` convolution and returns its offset: trits `[out][in][ky][kx]` (depthwise: `[channel][ky][kx]`), bias and
    /// multiplier per output channel. Past 4 GiB the offset stays at its greatest value; such a draft is refused when it is signed.
    pub fn relu_conv(&mut self, trits: &[Trit], bias: &[i16], multiplier: &[i16]) -> u32 {
        let offset = self.begin(trits, bias);
        self.bytes
            .extend(multiplier.iter().flat_map(|m| m.to_le_bytes()));
        offset
    }

    /// Appends a `linear` convolution and returns its offset: as [`Self::relu_conv`], with a scale instead of a
    /// multiplier per output channel.
    pub fn linear_conv(&mut self, trits: &[Trit], bias: &[i16], scale: &[f32]) -> u32 {
        let offset = self.begin(trits, bias);
        self.bytes
            .extend(scale.iter().flat_map(|s| s.to_le_bytes()));
        offset
    }

    /// The section.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn begin(&mut self, trits: &[Trit], bias: &[i16]) -> u32 {
        let offset = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend(trit::pack_base3(trits));
        self.bytes.extend(bias.iter().flat_map(|b| b.to_le_bytes()));
        offset
    }
}

/// Why a draft cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No JSON.
    #[error("the manifest cannot be written as JSON: {0}")]
    Manifest(#[source] serde_json::Error),
    /// More than a reader takes.
    #[error("the manifest is {len} bytes long, more than {MANIFEST_LEN_MAX}")]
    ManifestTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// More than a reader takes.
    #[error("the body is {len} bytes long, more than {BODY_LEN_MAX}")]
    BodyTooLong {
        /// Its length in bytes.
        len: usize,
    },
}
