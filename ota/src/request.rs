//! The document that asks for chunks: docs/schema/model-request-1.json.

use crate::digest::Digest;
use crate::offer::CHUNKS_MAX;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;
/// Chunks that a device asks for at a time.
pub const CHUNKS_AT_ONCE_MAX: usize = 4;
/// Longest document in bytes: far above what so many indices take.
pub const REQUEST_BYTES_MAX: usize = 4 << 10;

/// What a device wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Version of the schema.
    pub schema: u32,
    /// Of which bundle.
    pub sha256: Digest,
    /// Indices of the chunks.
    pub chunks: Vec<usize>,
}

/// Why a document is no request.
#[derive(Debug, Error)]
pub enum RequestError {
    /// Longer than any request.
    #[error("the request has {0} bytes, more than {REQUEST_BYTES_MAX}")]
    TooLong(usize),
    /// Not the JSON that the schema describes.
    #[error("the request is not what the schema says: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Of another version.
    #[error("the request has schema {0}, this program reads {SCHEMA}")]
    Schema(u32),
    /// More chunks than a device may ask for, or ones that no bundle has.
    #[error("the request's `chunks` is out of bounds")]
    Bounds,
}

impl Request {
    /// A request for these chunks.
    pub fn new(sha256: Digest, chunks: Vec<usize>) -> Self {
        Self {
            schema: SCHEMA,
            sha256,
            chunks,
        }
    }

    /// Reads a document from the network.
    pub fn parse(document: &[u8]) -> Result<Self, RequestError> {
        if document.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong(document.len()));
        }
        let request: Self = serde_json::from_slice(document)?;
        if request.schema != SCHEMA {
            return Err(RequestError::Schema(request.schema));
        }
        let chunks = &request.chunks;
        if chunks.len() > CHUNKS_AT_ONCE_MAX || chunks.iter().any(|index| *index >= CHUNKS_MAX) {
            return Err(RequestError::Bounds);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_greed_is_refused() {
        let request = |chunks: &[usize]| Request::new(Digest::of(b"file"), chunks.into());
        let parse = |request: &Request| {
            let document = serde_json::to_vec(request).expect("JSON");
            Request::parse(&document)
        };
        let modest = request(&[0, 7, 512]);
        assert_eq!(parse(&modest).expect("a request"), modest);
        for greedy in [&[0, 1, 2, 3, 4][..], &[513]] {
            assert!(matches!(parse(&request(greedy)), Err(RequestError::Bounds)));
        }
        let endless = vec![b' '; REQUEST_BYTES_MAX + 1];
        assert!(matches!(
            Request::parse(&endless),
            Err(RequestError::TooLong(_))
        ));
    }
}
