//! The documents that the device publishes about its model: where the current job is, and requests for chunks.

use super::digest::Digest;
use super::machine::{Identity, Machine, Phase};
use crate::config::choice::Choice;
use crate::model::ModelIdentity;
use serde::Serialize;
use ternwatch_ota::request::Request;
use ternwatch_ota::state::{Progress, Running, SCHEMA, State};

/// The state document: where the current job is, and which model looks at the frames.
pub fn state(machine: &Machine, running: &ModelIdentity) -> Vec<u8> {
    document(machine, running, (machine.phase(), machine.subject()))
}

/// The same of an offer that was answered at once, beside the current job.
pub fn answer(
    machine: &Machine,
    running: &ModelIdentity,
    phase: Phase,
    (job, model): (&str, Option<&Identity>),
) -> Vec<u8> {
    document(machine, running, (phase, (Some(job), model)))
}

fn document(
    machine: &Machine,
    running: &ModelIdentity,
    (phase, (job, model)): (Phase, (Option<&str>, Option<&Identity>)),
) -> Vec<u8> {
    let progress = match phase {
        Phase::Downloading { received, total } => Some(Progress { received, total }),
        _ => None,
    };
    json(&State {
        schema: SCHEMA,
        state: phase.name().into(),
        reason: phase.reason().map(|reason| reason.name().into()),
        job: job.map(Into::into),
        model: model.cloned(),
        offered: machine
            .offered()
            .filter(|offered| !offered.is_approved)
            .map(|offered| offered.identity.clone()),
        progress,
        running: Running {
            name: running.name.clone(),
            version: running.version,
            sha256: running.sha256.clone(),
        },
    })
}

/// A request for chunks.
pub fn request(sha256: &Digest, chunks: Vec<usize>) -> Vec<u8> {
    json(&Request::new(*sha256, chunks))
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("numbers and strings always become JSON")
}
