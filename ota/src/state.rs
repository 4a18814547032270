//! The document in which a device says where its model's job is: docs/schema/model-state-1.json.

use crate::identity::Identity;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;
/// Longest document in bytes that a reader takes: far above what a device writes.
pub const STATE_BYTES_MAX: usize = 8 << 10;

/// Where the current or last job is, and which model looks at the frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of the schema.
    pub schema: u32,
    /// Name of the job's state. A reader has to be ready for names that it does not know.
    pub state: String,
    /// Why the job did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The job's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Identity>,
    /// A model that is offered and waits until somebody says that it is to be installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Identity>,
    /// While it is downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The model that looks at the frames.
    pub running: Running,
    /// Version of the keyring that says whose models are taken, if one is in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<u64>,
}

/// How much of a model is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Chunks that are there.
    pub received: u32,
    /// Chunks of the file.
    pub total: u32,
}

/// The model that looks at the frames, as the detections name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 of its file.
    pub sha256: String,
}

/// Why a document is no state.
#[derive(Debug, Error)]
pub enum StateError {
    /// Longer than any state.
    #[error("the state has {0} bytes, more than {STATE_BYTES_MAX}")]
    TooLong(usize),
    /// Not the JSON that the schema describes.
    #[error("the state is not what the schema says: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Of another version.
    #[error("the state has schema {0}, this program reads {SCHEMA}")]
    Schema(u32),
}

impl State {
    /// Reads a document from the network.
    pub fn parse(document: &[u8]) -> Result<Self, StateError> {
        if document.len() > STATE_BYTES_MAX {
            return Err(StateError::TooLong(document.len()));
        }
        let state: Self = serde_json::from_slice(document)?;
        if state.schema != SCHEMA {
            return Err(StateError::Schema(state.schema));
        }
        Ok(state)
    }

    /// Whether the job waits until somebody on the device's side says that the model is to be installed.
    pub fn waits_for_owner(&self) -> bool {
        self.state == "offered"
    }

    /// Whether the job is over.
    pub fn is_over(&self) -> bool {
        ["committed", "rolled_back", "rejected"].contains(&self.state.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_device_may_add_keys_and_states() {
        let document = br#"{"schema":1,"state":"dreaming","since":3,
            "running":{"name":"person","version":3,"sha256":"00","note":"new"}}"#;
        let state = State::parse(document).expect("a state");
        assert!(!state.is_over());
        assert_eq!((state.running.version, state.job), (3, None));
        let newer =
            br#"{"schema":2,"state":"idle","running":{"name":"p","version":3,"sha256":"00"}}"#;
        assert!(matches!(State::parse(newer), Err(StateError::Schema(2))));
    }
}
