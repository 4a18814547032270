//! The header of a bundle, read before anything is trusted.
//!
//! Takes the bytes of a file, gives an [`UnverifiedBundle`] whose lengths agree with the file. Knows nothing of the
//! body beyond its length: that is read behind the signature only ([`crate::verify`]).

use crate::keys::KeyId;

/// What a bundle begins with.
pub const MAGIC: [u8; 8] = *b"TERNWTCH";
/// The format that this library reads and writes.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes before the body.
pub const HEADER_LEN: usize = 88;
/// Longest body, in bytes.
pub const BODY_LEN_MAX: usize = 16 << 20;
/// Longest manifest, in bytes.
pub const MANIFEST_LEN_MAX: usize = 1 << 20;
/// Longest file, in bytes: a reader need not take more.
pub const FILE_LEN_MAX: usize = HEADER_LEN + BODY_LEN_MAX;

/// The header's bytes that the signature covers.
pub(crate) const SIGNED_HEADER_LEN: usize = 24;
/// Sets these signatures apart from those that the same key may make elsewhere.
pub(crate) const SIGNATURE_DOMAIN: &[u8] = b"ternwatch bundle v1\0";

/// A file that has the shape of a bundle. Nothing in it is trusted.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedBundle<'a> {
    pub(crate) file: &'a [u8],
    pub(crate) key_id: KeyId,
    pub(crate) signature: &'a [u8; 64],
    pub(crate) body: &'a [u8],
}

impl<'a> UnverifiedBundle<'a> {
    /// Reads the header: magic, version, lengths and the signer's key id.
    pub fn from_bytes(file: &'a [u8]) -> Result<Self, BundleError> {
        // The magic comes first: a file that is no bundle at all should hear that, however short it is.
        if !file.starts_with(&MAGIC[..file.len().min(8)]) {
            return Err(BundleError::NotABundle);
        }
        let too_short = BundleError::HeaderTooShort { len: file.len() };
        let Some((header, body)) = file.split_at_checked(HEADER_LEN) else {
            return Err(too_short);
        };
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != FORMAT_VERSION {
            return Err(BundleError::FormatVersion { found: version });
        }
        if header[10..12] != [0, 0] {
            return Err(BundleError::Reserved);
        }
        let declared = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
        // Endless data: nobody makes us hold more than the bound.
        if declared as usize > BODY_LEN_MAX {
            return Err(BundleError::BodyTooLong { declared });
        }
        if declared as usize != body.len() {
            return Err(BundleError::BodyLength {
                declared,
                found: body.len(),
            });
        }
        let (Some(key_id), Some(signature)) =
            (header[16..24].first_chunk(), header[24..].first_chunk())
        else {
            return Err(too_short);
        };
        Ok(Self {
            file,
            key_id: KeyId(*key_id),
            signature,
            body,
        })
    }

    /// The id of the key that the file says it is signed with.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }
}

/// Why a file is no bundle that can be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Wrong magic.
    #[error("not a Ternwatch bundle: the file does not begin with \"TERNWTCH\"")]
    NotABundle,
    /// Cut off within the header.
    #[error("the bundle ends within its header: {len} bytes of {HEADER_LEN}")]
    HeaderTooShort {
        /// Bytes in the file.
        len: usize,
    },
    /// Another format.
    #[error("bundle format version {found} is not supported, this program reads version {FORMAT_VERSION}: {}",
        if *found > FORMAT_VERSION { "the bundle needs a newer Ternwatch" } else { "no such version was ever released" })]
    FormatVersion {
        /// The file's format.
        found: u16,
    },
    /// Bytes that must be zero are not.
    #[error("the bundle's reserved header bytes 10 and 11 are not zero")]
    Reserved,
    /// Longer than any bundle.
    #[error("the bundle declares a body of {declared} bytes, more than {BODY_LEN_MAX}")]
    BodyTooLong {
        /// Length in the header.
        declared: u32,
    },
    /// Cut off or continued.
    #[error("the bundle's body is {found} bytes long, its header declares {declared}")]
    BodyLength {
        /// Length in the header.
        declared: u32,
        /// Length of what follows the header.
        found: usize,
    },
    /// Signed by a stranger.
    #[error("the bundle is signed with key {key_id}, which is not trusted here")]
    UnknownKey {
        /// The key that the header names.
        key_id: KeyId,
    },
    /// Damaged or forged.
    #[error(
        "the bundle's signature is not one of key {key_id} over these bytes: the file is damaged or forged"
    )]
    BadSignature {
        /// The key that the header names.
        key_id: KeyId,
    },
    /// The manifest reaches beyond the body.
    #[error(
        "the manifest's length of {declared} bytes at offset {HEADER_LEN} is not within the body of {body} bytes and {MANIFEST_LEN_MAX}"
    )]
    ManifestLength {
        /// Length that the body declares.
        declared: u32,
        /// Length of the body.
        body: usize,
    },
    /// The body does not even hold the manifest's length.
    #[error("the bundle's body of {body} bytes ends before the manifest's length")]
    BodyTooShort {
        /// Length of the body.
        body: usize,
    },
    /// A manifest of another program.
    #[error("manifest schema {found} is not supported, this program reads schema {}: {}", crate::manifest::SCHEMA,
        if *found > crate::manifest::SCHEMA { "the bundle needs a newer Ternwatch" } else { "no such schema was ever released" })]
    ManifestSchema {
        /// The manifest's schema.
        found: u32,
    },
    /// The manifest is not what the schema says.
    #[error("the manifest is wrong: {0}")]
    Manifest(#[source] serde_json::Error),
    /// The manifest is not what the schema says, and names the least daemon that reads it.
    #[error("the manifest is wrong, unless it is for {}.{}.{}, the oldest daemon that it asks for: {source}",
        daemon_min[0], daemon_min[1], daemon_min[2])]
    ManifestOfDaemon {
        /// Major, minor and patch version.
        daemon_min: [u32; 3],
        /// What this reader does not know.
        source: serde_json::Error,
    },
}
