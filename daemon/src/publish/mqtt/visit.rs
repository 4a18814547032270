//! A short visit to the broker, beside others' connections: to see whether it lets this account in, and to have it forget.

use super::SessionError;
use super::link::{self, Polled, Session};
use super::message::Message;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

/// Why a visit failed.
#[derive(Debug, Error)]
pub enum VisitError {
    /// There is no connection to open.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The system has no resources for it.
    #[error("cannot prepare the network")]
    Runtime(#[from] std::io::Error),
    /// The broker is not there, or does not let us in.
    #[error("no connection to the broker at {broker}: {reason}")]
    Unreachable {
        /// `host:port`.
        broker: String,
        /// Why.
        reason: String,
    },
}

/// Connects with a client id of its own and leaves, all of it `within` this time.
pub fn call(session: &Session, within: Duration) -> Result<(), VisitError> {
    super::alone(forget(session, &[], within))?
}

/// Connects, has the broker forget what it keeps on these topics, and leaves, all of it `within` this time.
pub async fn forget(
    session: &Session,
    topics: &[String],
    within: Duration,
) -> Result<(), VisitError> {
    let session = &session.clone().for_an_errand();
    let (link, mut poller) = link::prepare(session)?;
    let (tell, mut is_connected) = watch::channel(false);
    let polling = async {
        loop {
            match poller.poll(session).await {
                Polled::Connected => {
                    tell.send_replace(true);
                }
                Polled::Failed(failure) => return Err(failure.reason),
                Polled::Ended => return Ok(()),
                Polled::Message { .. } | Polled::Other => {}
            }
        }
    };
    let work = async {
        if is_connected.wait_for(|is| *is).await.is_ok() {
            for topic in topics {
                // An empty retained message takes the place of the one that is kept.
                link.publish(Message::status(topic, Vec::new())).await;
            }
            link.disconnect().await;
        }
        // The connection ends once the broker has the last packet.
        std::future::pending::<()>().await;
    };
    let visit = async {
        tokio::select! {
            result = polling => result,
            () = work => Ok(()),
        }
    };
    let late = || Err(format!("it did not answer within {} s", within.as_secs()));
    let result = timeout(within, visit).await.unwrap_or_else(|_| late());
    result.map_err(|reason| VisitError::Unreachable {
        broker: session.broker(),
        reason,
    })
}
