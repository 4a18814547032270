//! The documents that the device publishes about its model: docs/schema/model-state-1.json, and requests for chunks.

use super::digest::Digest;
use super::machine::{Identity, Machine, Phase};
use crate::config::choice::Choice;
use crate::publish::payload::ModelIdentity;
use serde::Serialize;

/// The version of the documents' schemas.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct State<'a> {
    schema: u32,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Identity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    running: &'a ModelIdentity,
}

#[derive(Serialize)]
struct Progress {
    received: u32,
    total: u32,
}

/// The state document: where the current job is, and which model looks at the frames.
pub fn state(machine: &Machine, running: &ModelIdentity) -> Vec<u8> {
    let phase = machine.phase();
    let (job, model) = machine.subject();
    let progress = match phase {
        Phase::Downloading { received, total } => Some(Progress { received, total }),
        _ => None,
    };
    let state = State {
        schema: SCHEMA,
        state: phase.name(),
        reason: phase.reason().map(Choice::name),
        job,
        model,
        progress,
        running,
    };
    serde_json::to_vec(&state).expect("numbers and strings always become JSON")
}

/// A request for chunks.
pub fn request(sha256: &Digest, chunks: &[usize]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Request<'a> {
        schema: u32,
        sha256: &'a Digest,
        chunks: &'a [usize],
    }
    let request = Request {
        schema: SCHEMA,
        sha256,
        chunks,
    };
    serde_json::to_vec(&request).expect("numbers and strings always become JSON")
}
