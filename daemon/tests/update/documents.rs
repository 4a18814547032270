//! The documents about models against their schemas.

#[path = "../schema/mod.rs"]
mod schema;

use schema::violations;
use serde_json::Value;
use ternwatch_daemon::config::choice::Choice;
use ternwatch_daemon::model::ModelIdentity;
use ternwatch_daemon::update::digest::Digest;
use ternwatch_daemon::update::machine::{Event, Identity, Machine, Phase, Record};
use ternwatch_daemon::update::offer::{CHUNKS_MAX, OFFER_BYTES_MAX, Offer};
use ternwatch_daemon::update::reason::Reason;
use ternwatch_daemon::update::status::{self, Present};

const OFFER: &str = include_str!("../../../docs/schema/model-offer-1.json");
const REQUEST: &str = include_str!("../../../docs/schema/model-request-1.json");
const STATE: &str = include_str!("../../../docs/schema/model-state-1.json");

fn obeys(schema: &str, document: &[u8]) -> Value {
    let schema = serde_json::from_str(schema).expect("a schema is JSON");
    let document = serde_json::from_slice(document).expect("a document is JSON");
    assert_eq!(violations(&schema, &document), [""; 0], "{document}");
    document
}

fn identity() -> Identity {
    Identity {
        name: "person".into(),
        version: 4,
        sha256: Digest::of(b"four"),
    }
}

fn state(machine: &Machine) -> Value {
    let running = ModelIdentity {
        name: "person".into(),
        version: 3,
        sha256: Digest::of(b"three").to_string(),
    };
    let present = Present {
        running: &running,
        keyring: Some(3),
    };
    obeys(STATE, &status::state(machine, present))
}

#[test]
fn every_state_on_the_way_obeys_the_schema() {
    let mut machine = Machine::new(Record::default(), None, 3);
    assert_eq!(state(&machine)["state"], "idle");
    let (job, identity) = (|| "job-1".to_string(), identity());
    let offer = Event::Offer {
        job: job(),
        identity: identity.clone(),
    };
    let admit = Event::Admit {
        job: job(),
        identity,
    };
    let progress = Event::Progress {
        received: 3,
        total: 7,
    };
    for event in [offer, progress, Event::Complete, admit, Event::BeginTrial] {
        machine.step(event).expect("in order");
        let state = state(&machine);
        let is_download = matches!(machine.phase(), Phase::Downloading { .. });
        assert_eq!(state["progress"].is_object(), is_download);
        assert_eq!(state["job"], "job-1");
    }
    machine.step(Event::Pass).expect("on trial");
    assert_eq!(state(&machine)["state"], "committed");
}

#[test]
fn an_offer_that_waits_obeys_the_schema_and_is_shown_until_somebody_wants_it() {
    let mut machine = Machine::new(Record::default(), None, 3);
    let propose = Event::Propose {
        job: "job-1".into(),
        identity: identity(),
    };
    machine.step(propose).expect("always possible");
    let waits = state(&machine);
    assert_eq!(
        (&waits["state"], &waits["job"]),
        (&"offered".into(), &"job-1".into())
    );
    assert_eq!(waits["offered"], waits["model"]);
    machine.step(Event::Approve).expect("one waits");
    let wanted = state(&machine);
    assert_eq!(
        (&wanted["state"], &wanted["offered"]),
        (&"queued".into(), &Value::Null)
    );
}

#[test]
fn every_reason_obeys_the_schema_and_the_protocol_lists_it() {
    let page = include_str!("../../../docs/ota.md");
    for (name, reason) in Reason::NAMED {
        let mut machine = Machine::new(Record::default(), None, 3);
        let event = Event::Reject {
            job: "job-1".into(),
            signed: Some(identity()),
            reason: *reason,
        };
        machine.step(event).expect("always possible");
        let state = state(&machine);
        assert_eq!(
            (&state["state"], &state["reason"]),
            (&"rejected".into(), &(*name).into())
        );
        assert!(
            page.contains(&format!("| `{name}` |")),
            "docs/ota.md: {name}"
        );
    }
    let damaged = Machine::new(Record::after_damage(), None, 3);
    assert_eq!(state(&damaged)["state"], "rolled_back");
}

#[test]
fn the_longest_offer_obeys_the_schema_and_its_bound() {
    let file = vec![0; ternwatch_bundle::parse::FILE_LEN_MAX];
    let offer = Offer::of(&"j".repeat(64), &"n".repeat(64), (1 << 53) - 1, &file);
    let document = serde_json::to_vec(&offer).expect("JSON");
    obeys(OFFER, &document);
    assert!(document.len() < OFFER_BYTES_MAX, "{}", document.len());
    let request = status::request(&offer.sha256, vec![0, 1, 2, CHUNKS_MAX - 1]);
    obeys(REQUEST, &request);
}
