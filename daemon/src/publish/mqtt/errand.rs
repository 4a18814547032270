//! One message, said by a program that is not the daemon and may run beside it.

use super::link::{self, Polled, Said};
use super::message::Message;
use super::{Session, SessionError};
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

/// A broker that takes longer to connect and to confirm is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time to leave in order.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why it was not said.
#[derive(Debug, Error)]
pub enum ErrandError {
    /// There is nothing to connect with.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The system has no resources for it.
    #[error("cannot prepare the network")]
    Runtime(#[from] std::io::Error),
    /// There is no connection.
    #[error("no connection: {0}")]
    Connection(String),
    /// The broker does not accept the message.
    #[error("the broker does not accept {0}")]
    Refused(String),
    /// The broker is silent.
    #[error("no answer for {} s", PATIENCE.as_secs())]
    Silent,
}

/// Says it, with a client id of its own and without a last will: the daemon neither loses its connection nor is declared
/// offline. Returns once the broker has confirmed it.
pub fn say(session: Session, message: Message<'_>) -> Result<(), ErrandError> {
    super::alone(async {
        let saying = say_once(session.for_an_errand(), message);
        let said = timeout(PATIENCE, saying).await;
        said.unwrap_or(Err(ErrandError::Silent))
    })?
}

async fn say_once(session: Session, message: Message<'_>) -> Result<(), ErrandError> {
    let topic = message.topic.to_string();
    let (link, mut poller) = link::prepare(&session)?;
    let publishing = link.publish(message);
    tokio::pin!(publishing);
    let said = loop {
        tokio::select! {
            said = &mut publishing => break said,
            polled = poller.poll(&session) => if let Polled::Failed(failure) = polled {
                return Err(ErrandError::Connection(failure.reason));
            },
        }
    };
    match said {
        Said::Heard => {}
        Said::Refused(_) | Said::Later(_) => return Err(ErrandError::Refused(topic)),
        Said::Lost => return Err(ErrandError::Connection("it was lost".into())),
    }
    link.disconnect().await;
    let leaving = async {
        while !matches!(
            poller.poll(&session).await,
            Polled::Ended | Polled::Failed(_)
        ) {}
    };
    // It is said; how we part does not matter.
    let _ = timeout(FAREWELL, leaving).await;
    Ok(())
}
