//! What the server is told of an action: pure, from the state document that everybody else is told too.

use serde::Serialize;
use ternwatch_ota::state::State;

/// Steps in which progress is told: each one is a line in the server's history.
const STEPS: u32 = 4;

/// How far an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Execution {
    /// It waits.
    Scheduled,
    /// It is being done.
    Proceeding,
    /// The file is here, and not installed yet.
    Downloaded,
    /// It is over.
    Closed,
    /// It (or its cancellation) is not done.
    Rejected,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finished {
    /// Well.
    Success,
    /// Not well.
    Failure,
    /// Not yet.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Progress {
    cnt: u32,
    of: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Outcome {
    finished: Finished,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Telling {
    execution: Execution,
    result: Outcome,
    details: Vec<String>,
}

impl Telling {
    /// Something that is told without progress.
    pub fn new(execution: Execution, finished: Finished, detail: impl Into<String>) -> Self {
        Self {
            execution,
            result: Outcome {
                finished,
                progress: None,
            },
            details: vec![detail.into()],
        }
    }

    /// What is told of an action in this state.
    pub fn of(state: &State) -> Self {
        let progress = state.progress.filter(|progress| progress.total > 0);
        let reason = || state.reason.as_deref().unwrap_or("unknown");
        match (state.state.as_str(), progress) {
            ("committed", _) => Self::new(Execution::Closed, Finished::Success, "committed"),
            (name @ ("rejected" | "rolled_back"), _) => {
                let mut telling = Self::new(Execution::Closed, Finished::Failure, reason());
                telling.details.push(name.into());
                telling
            }
            ("offered", _) => {
                let detail = "offered: waits until the device's owner has it installed";
                Self::new(Execution::Scheduled, Finished::None, detail)
            }
            ("downloading", Some(progress)) if progress.received >= progress.total => {
                Self::new(Execution::Downloaded, Finished::None, "downloaded")
            }
            (name, Some(progress)) => {
                let mut telling = Self::new(Execution::Proceeding, Finished::None, name);
                let part = u64::from(progress.received) * u64::from(STEPS);
                let steps = u32::try_from(part / u64::from(progress.total)).unwrap_or(STEPS);
                telling.result.progress = Some(Progress {
                    cnt: steps,
                    of: STEPS,
                });
                telling
            }
            (name, None) => Self::new(Execution::Proceeding, Finished::None, name),
        }
    }

    /// Whether it ends the action.
    pub fn is_end(&self) -> bool {
        self.execution == Execution::Closed
    }

    /// The document that tells it.
    pub fn document(&self, action: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Feedback<'a> {
            id: &'a str,
            status: &'a Telling,
        }
        let feedback = Feedback {
            id: action,
            status: self,
        };
        serde_json::to_vec(&feedback).expect("strings always become JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(state: Value) -> Value {
        let mut document = state;
        document["schema"] = 1.into();
        document["running"] = json!({ "name": "person", "version": 3, "sha256": "00" });
        let state = State::parse(document.to_string().as_bytes()).expect("a state");
        serde_json::from_slice(&Telling::of(&state).document("17")).expect("JSON")
    }

    #[test]
    fn the_end_is_told_with_its_reason() {
        assert_eq!(
            told(json!({ "state": "committed" })),
            json!({ "id": "17", "status": { "execution": "closed",
                "result": { "finished": "success" }, "details": ["committed"] } })
        );
        assert_eq!(
            told(json!({ "state": "rolled_back", "reason": "flood" })),
            json!({ "id": "17", "status": { "execution": "closed",
                "result": { "finished": "failure" }, "details": ["flood", "rolled_back"] } })
        );
    }

    #[test]
    fn progress_is_told_in_quarters() {
        let mut before = Value::Null;
        let mut count = 0;
        for received in 0..100 {
            let progress = json!({ "received": received, "total": 100 });
            let now = told(json!({ "state": "downloading", "progress": progress }));
            assert_eq!(now["status"]["result"]["finished"], "none");
            count += usize::from(now != before);
            before = now;
        }
        assert_eq!(count, 4);
        assert_eq!(
            before["status"]["result"]["progress"],
            json!({ "cnt": 3, "of": 4 })
        );
        let all = json!({ "received": 100, "total": 100 });
        let all = told(json!({ "state": "downloading", "progress": all }));
        assert_eq!(all["status"]["execution"], "downloaded");
    }

    #[test]
    fn what_waits_and_what_is_new_is_told_as_such() {
        let execution = |name: &str| told(json!({ "state": name }))["status"]["execution"].clone();
        assert_eq!(execution("offered"), "scheduled");
        for name in [
            "queued",
            "verifying",
            "staged",
            "trial",
            "of a later version",
        ] {
            assert_eq!(execution(name), "proceeding");
        }
    }
}
