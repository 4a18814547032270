//! Detections leave the device: a document a frame, over MQTT and, if wanted, to standard output.

pub mod mqtt;
pub mod payload;
pub mod queue;
pub mod topic;

use serde::{Deserialize, Serialize};

/// The `[stdout]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// Whether documents are written to standard output too.
    pub enabled: bool,
}
