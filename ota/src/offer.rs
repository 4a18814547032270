//! The document that offers a model: docs/schema/model-offer-1.json.
//!
//! It is not signed and not trusted: its digests say what was meant to be sent, the bundle's signature says by whom.
//! Every length is checked before anything is allocated or stored for it.

use crate::digest::Digest;
use crate::identity::{Identity, JOB_BYTES_MAX, NAME_BYTES_MAX, VERSION_MAX, is_word};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use ternwatch_bundle::parse::FILE_LEN_MAX;
use thiserror::Error;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;
/// Bytes of every chunk but the last.
pub const CHUNK_BYTES: usize = 32 << 10;
/// Chunks of the longest bundle.
pub const CHUNKS_MAX: usize = FILE_LEN_MAX.div_ceil(CHUNK_BYTES);
/// Longest URL in bytes.
pub const URL_BYTES_MAX: usize = 2048;
/// Longest document in bytes: 67 a chunk, and room for the rest.
pub const OFFER_BYTES_MAX: usize = 48 << 10;

/// What is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Version of the schema.
    pub schema: u32,
    /// Who wants it: comes back in the state document.
    pub job: String,
    /// What it claims to be.
    pub model: Claim,
    /// Digest of the whole file.
    pub sha256: Digest,
    /// Bytes of the whole file.
    pub bytes: usize,
    /// Digests of the chunks, in their order. None in an offer that the broker did not carry, but a server that vouches for the
    /// whole file only ([`Offer::whole`]).
    pub chunks: Vec<Digest>,
    /// Where the file can be fetched by HTTP too, at most [`URL_BYTES_MAX`] bytes. A device goes there only if its settings
    /// allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Name and version as the offer claims them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Name.
    pub name: String,
    /// Version.
    pub version: u64,
}

/// Why a document is no offer.
#[derive(Debug, Error)]
pub enum OfferError {
    /// Longer than any offer.
    #[error("the offer has {0} bytes, more than {OFFER_BYTES_MAX}")]
    TooLong(usize),
    /// Not the JSON that the schema describes.
    #[error("the offer is not what the schema says: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Of another version.
    #[error("the offer has schema {0}, this program reads {SCHEMA}")]
    Schema(u32),
    /// A text or number out of its bounds.
    #[error("the offer's `{0}` is out of bounds")]
    Bounds(&'static str),
    /// The lengths do not agree.
    #[error("the offer has {found} chunks, a file of {bytes} bytes has {expected}")]
    Chunks {
        /// Digests in the offer.
        found: usize,
        /// Digests that there must be.
        expected: usize,
        /// Length of the file.
        bytes: usize,
    },
}

impl Offer {
    /// Whether it is this job's, of this file.
    pub fn is_of(&self, job: &str, sha256: &Digest) -> bool {
        self.job == job && self.sha256 == *sha256
    }

    /// Reads a document from the network.
    pub fn parse(document: &[u8]) -> Result<Self, OfferError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        if document.len() > OFFER_BYTES_MAX {
            return Err(OfferError::TooLong(document.len()));
        }
        let Version { schema } = serde_json::from_slice(document)?;
        if schema != SCHEMA {
            return Err(OfferError::Schema(schema));
        }
        let offer: Self = serde_json::from_slice(document)?;
        offer.validate()?;
        offer.validate_chunks()?;
        Ok(offer)
    }

    /// Reads a document that the device itself had kept: also an offer of a whole file.
    pub fn recall(document: &[u8]) -> Result<Self, OfferError> {
        let offer: Self = match Self::parse(document) {
            Err(OfferError::Chunks { found: 0, .. }) => serde_json::from_slice(document)?,
            other => return other,
        };
        Ok(offer)
    }

    /// The offer of a file whose chunks have no digests: it comes from this URL only.
    pub fn whole(
        job: &str,
        claim: Claim,
        sha256: Digest,
        bytes: usize,
        url: String,
    ) -> Result<Self, OfferError> {
        let offer = Self {
            schema: SCHEMA,
            job: job.into(),
            model: claim,
            sha256,
            bytes,
            chunks: Vec::new(),
            url: Some(url),
        };
        offer.validate()?;
        Ok(offer)
    }

    /// Whether there is a digest of the whole file only. Such a file must not be put together from what anybody sends.
    pub fn is_whole(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many chunks the file has.
    pub fn chunk_count(&self) -> usize {
        self.bytes.div_ceil(CHUNK_BYTES)
    }

    /// Whether these bytes may be the chunk with this index, as far as the offer tells.
    pub fn is_chunk(&self, index: usize, bytes: &[u8]) -> bool {
        // The length first: what is too long is not even hashed.
        let has_length = index < self.chunk_count() && bytes.len() == self.chunk_bytes(index);
        let expected = self.chunks.get(index);
        has_length
            && (self.is_whole() || expected.is_some_and(|digest| Digest::of(bytes) == *digest))
    }

    /// The offer of a file: what a sender publishes.
    pub fn of(job: &str, name: &str, version: u64, file: &[u8]) -> Self {
        Self {
            schema: SCHEMA,
            job: job.into(),
            model: Claim {
                name: name.into(),
                version,
            },
            sha256: Digest::of(file),
            bytes: file.len(),
            chunks: file.chunks(CHUNK_BYTES).map(Digest::of).collect(),
            url: None,
        }
    }

    fn validate(&self) -> Result<(), OfferError> {
        if !is_word(&self.job, JOB_BYTES_MAX) {
            return Err(OfferError::Bounds("job"));
        }
        if !is_word(&self.model.name, NAME_BYTES_MAX) {
            return Err(OfferError::Bounds("model.name"));
        }
        if self.model.version > VERSION_MAX {
            return Err(OfferError::Bounds("model.version"));
        }
        if self.bytes == 0 || self.bytes > FILE_LEN_MAX {
            return Err(OfferError::Bounds("bytes"));
        }
        if self.url.as_deref().is_some_and(|url| !is_url(url)) {
            return Err(OfferError::Bounds("url"));
        }
        Ok(())
    }

    fn validate_chunks(&self) -> Result<(), OfferError> {
        let expected = self.chunk_count();
        if self.chunks.len() != expected {
            return Err(OfferError::Chunks {
                found: self.chunks.len(),
                expected,
                bytes: self.bytes,
            });
        }
        Ok(())
    }

    /// What it claims to be.
    pub fn identity(&self) -> Identity {
        Identity {
            name: self.model.name.clone(),
            version: self.model.version,
            sha256: self.sha256,
        }
    }

    /// Where the chunk with this index lies in the file.
    pub fn place(&self, index: usize) -> Range<usize> {
        let begin = index.saturating_mul(CHUNK_BYTES).min(self.bytes);
        begin..begin + self.chunk_bytes(index)
    }

    /// Bytes of the chunk with this index.
    pub fn chunk_bytes(&self, index: usize) -> usize {
        let before = index.saturating_mul(CHUNK_BYTES);
        self.bytes.saturating_sub(before).min(CHUNK_BYTES)
    }
}

/// Whether a device can fetch from there, as far as its shape tells.
pub fn is_url(url: &str) -> bool {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    is_web && url.len() <= URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(bytes: usize) -> Offer {
        Offer::of("job-1", "person", 3, &vec![7; bytes])
    }

    fn parse(offer: &Offer) -> Result<Offer, OfferError> {
        Offer::parse(&serde_json::to_vec(offer).expect("JSON"))
    }

    #[test]
    fn an_offer_reads_back_up_to_the_longest_file() {
        for bytes in [1, CHUNK_BYTES, CHUNK_BYTES + 1, FILE_LEN_MAX] {
            let offer = offer(bytes);
            assert_eq!(parse(&offer).expect("valid"), offer);
            let sum: usize = (0..offer.chunks.len()).map(|i| offer.chunk_bytes(i)).sum();
            assert_eq!(sum, bytes);
        }
        assert_eq!(offer(FILE_LEN_MAX).chunks.len(), CHUNKS_MAX);
    }

    #[test]
    fn oversize_lengths_are_refused_before_anything_is_allocated_for_them() {
        for bytes in [0, FILE_LEN_MAX + 1, usize::MAX] {
            let mut offer = offer(1);
            offer.bytes = bytes;
            assert!(matches!(parse(&offer), Err(OfferError::Bounds("bytes"))));
        }
        let endless = vec![b' '; OFFER_BYTES_MAX + 1];
        assert!(matches!(
            Offer::parse(&endless),
            Err(OfferError::TooLong(_))
        ));
        let huge = br#"{"schema":1,"job":"j","model":{"name":"n","version":1},"sha256":"","bytes":99999999999999999999,"chunks":[]}"#;
        assert!(matches!(Offer::parse(huge), Err(OfferError::Syntax(_))));
    }

    #[test]
    fn what_does_not_agree_is_refused_by_name() {
        let mut missing = offer(CHUNK_BYTES + 1);
        missing.chunks.pop();
        let error = parse(&missing).expect_err("refused").to_string();
        assert!(error.contains("has 1 chunks"), "{error}");
        for job in ["", "a/b", "a b", &"x".repeat(65)] {
            let mut offer = offer(1);
            offer.job = job.into();
            assert!(
                matches!(parse(&offer), Err(OfferError::Bounds("job"))),
                "{job:?}"
            );
        }
        let mut offer = offer(1);
        offer.schema = 2;
        assert!(matches!(parse(&offer), Err(OfferError::Schema(2))));
    }

    #[test]
    fn an_offer_of_a_whole_file_is_recalled_and_not_taken_from_the_broker() {
        let file = vec![7; CHUNK_BYTES + 1];
        let claim = Claim {
            name: "person".into(),
            version: 3,
        };
        let url = || "https://models.example/3.tern".to_string();
        let whole = |bytes| Offer::whole("j", claim.clone(), Digest::of(&file), bytes, url());
        let offer = whole(file.len()).expect("valid");
        let document = serde_json::to_vec(&offer).expect("JSON");
        assert_eq!(Offer::recall(&document).expect("our own"), offer);
        assert!(matches!(
            Offer::parse(&document),
            Err(OfferError::Chunks { found: 0, .. })
        ));
        assert_eq!(offer.chunk_count(), 2);
        assert!(offer.is_chunk(1, &[9]), "only the length is known");
        assert!(!offer.is_chunk(1, &[9; 2]) && !offer.is_chunk(2, &[]));
        for bytes in [0, FILE_LEN_MAX + 1] {
            assert!(matches!(whole(bytes), Err(OfferError::Bounds("bytes"))));
        }
        let listed = Offer::of("j", "person", 3, &file);
        assert!(listed.is_chunk(1, &[7]) && !listed.is_chunk(1, &[9]));
    }

    #[test]
    fn a_later_sender_may_add_keys() {
        let mut document = serde_json::to_value(offer(1)).expect("JSON");
        document["expires_at"] = "2030-01-01T00:00:00Z".into();
        document["model"]["note"] = "new".into();
        Offer::parse(document.to_string().as_bytes()).expect("still an offer");
    }
}
