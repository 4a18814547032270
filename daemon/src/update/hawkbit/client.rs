//! The way to the server: small documents, and nowhere else than to it.

use super::config::{Access, Authorization};
use super::ddi::{DOCUMENT_BYTES_MAX, DocumentError};
use crate::update::web::is_below;
use std::io::{self, Read};
use thiserror::Error;
use ureq::http::{StatusCode, header};

const JSON: &str = "application/json";

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    access: Access,
}

/// Why the server did not answer as it should.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// It is not there.
    #[error("{0}")]
    Http(#[from] ureq::Error),
    /// It does not know this device.
    #[error("the server does not accept this device's token ({0}; update.hawkbit.token_file)")]
    Forbidden(StatusCode),
    /// It says something else.
    #[error("the server answers {0}")]
    Status(StatusCode),
    /// It sends us elsewhere.
    #[error(
        "the server's link {0:?} does not begin as this device's URL there (update.hawkbit.url)"
    )]
    Elsewhere(String),
    /// It says too much.
    #[error("the server's answer has more than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// It does not end what it says.
    #[error("the answer ends early: {0}")]
    Short(#[from] io::Error),
    /// It says something else than the API.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl ClientError {
    /// Whether the action is none any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Status(StatusCode::GONE | StatusCode::NOT_FOUND))
    }
}

impl Client {
    pub(super) fn new(agent: ureq::Agent, access: Access) -> Self {
        Self { agent, access }
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// What there is to do.
    pub(super) fn poll(&self) -> Result<Vec<u8>, ClientError> {
        self.read(&self.access.home)
    }

    /// The document behind a link of the server's.
    pub(super) fn get(&self, link: &str) -> Result<Vec<u8>, ClientError> {
        self.read(self.within(link)?)
    }

    /// Tells of the action behind this link.
    pub(super) fn feedback(&self, link: &str, document: &[u8]) -> Result<(), ClientError> {
        let action = self.within(link)?;
        let action = action.split_once('?').map_or(action, |(path, _)| path);
        let request = self.agent.post(format!("{action}/feedback"));
        self.send(request, document)
    }

    /// Tells of the device.
    pub(super) fn put(&self, link: &str, document: &[u8]) -> Result<(), ClientError> {
        self.send(self.agent.put(self.within(link)?), document)
    }

    /// The threat is a server, or somebody in its place, that has the device fetch from or tell others.
    fn within<'a>(&self, link: &'a str) -> Result<&'a str, ClientError> {
        let is_plain = link.bytes().all(|byte| byte.is_ascii_graphic());
        if is_plain && is_below(link, &format!("{}/", self.access.home)) {
            return Ok(link);
        }
        Err(ClientError::Elsewhere(link.chars().take(200).collect()))
    }

    fn read(&self, url: &str) -> Result<Vec<u8>, ClientError> {
        let mut request = self.agent.get(url).header(header::ACCEPT, JSON);
        if let Some(value) = self.authorization() {
            request = request.header(header::AUTHORIZATION, value);
        }
        let mut response = request.call()?;
        expect_ok(response.status())?;
        let mut document = Vec::new();
        response
            .body_mut()
            .as_reader()
            .take(DOCUMENT_BYTES_MAX as u64 + 1)
            .read_to_end(&mut document)?;
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(ClientError::TooLong);
        }
        Ok(document)
    }

    fn send(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        document: &[u8],
    ) -> Result<(), ClientError> {
        let mut request = request.header(header::CONTENT_TYPE, JSON);
        if let Some(value) = self.authorization() {
            request = request.header(header::AUTHORIZATION, value);
        }
        expect_ok(request.send(document)?.status())
    }

    fn authorization(&self) -> Option<&str> {
        self.access
            .authorization
            .as_ref()
            .map(Authorization::header)
    }
}

fn expect_ok(status: StatusCode) -> Result<(), ClientError> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ClientError::Forbidden(status)),
        status => Err(ClientError::Status(status)),
    }
}
