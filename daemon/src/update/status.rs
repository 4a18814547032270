//! The documents that the device publishes about its model: where the current job is, and requests for chunks.

use super::digest::Digest;
use super::machine::{Identity, Machine, Phase};
use crate::config::choice::Choice;
use crate::model::ModelIdentity;
use serde::Serialize;
use ternwatch_ota::request::Request;
use ternwatch_ota::state::{Progress, Running, SCHEMA, State};

/// What is so on the device, whatever the job.
#[derive(Clone, Copy)]
pub struct Present<'a> {
    /// The model that looks at the frames.
    pub running: &'a ModelIdentity,
    /// Version of the keyring in effect.
    pub keyring: Option<u64>,
}

/// The state document: where the current job is, and which model looks at the frames.
pub fn state(machine: &Machine, present: Present<'_>) -> Vec<u8> {
    document(machine, present, (machine.phase(), machine.subject()))
}

/// The same of an offer that was answered at once, beside the current job.
pub fn answer(
    machine: &Machine,
    present: Present<'_>,
    phase: Phase,
    (job, model): (&str, Option<&Identity>),
) -> Vec<u8> {
    document(machine, present, (phase, (Some(job), model)))
}

fn document(
    machine: &Machine,
    Present { running, keyring }: Present<'_>,
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
        keyring,
    })
}

/// A request for chunks.
pub fn request(sha256: &Digest, chunks: Vec<usize>) -> Vec<u8> {
    json(&Request::new(*sha256, chunks))
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("numbers and strings always become JSON")
}
