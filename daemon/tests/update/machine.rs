//! The update machine under random histories: its promises hold after every event, and across every crash.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use ternwatch_daemon::update::digest::Digest;
use ternwatch_daemon::update::machine::{
    Ending, Event, Identity, Machine, NAMES_MAX, NotNow, Offered, Phase, QUARANTINE_MAX, Record,
    StoredKeyring, Trust,
};
use ternwatch_daemon::update::reason::Reason;

const ATTEMPTS_MAX: u32 = 3;

fn model(name: &str, version: u64, variant: u8) -> Identity {
    Identity {
        name: name.into(),
        version,
        sha256: Digest::of(format!("{name} {version} {variant}").as_bytes()),
    }
}

fn packaged() -> Identity {
    model("person", 2, 0)
}

fn machine(record: Record) -> Machine {
    Machine::new(record, Some(packaged()), ATTEMPTS_MAX)
}

/// What an observer remembers of a history.
#[derive(Default)]
struct Witness {
    committed: BTreeSet<Digest>,
    failed: BTreeSet<Digest>,
    highest: BTreeMap<String, u64>,
    attempts: BTreeMap<Digest, u32>,
    /// Files that somebody wanted to be installed.
    wanted: BTreeSet<Digest>,
}

impl Witness {
    /// Holds after every event.
    fn verify_invariants(&self, machine: &Machine) {
        let record = machine.record();
        record.validate().expect("a record that can be stored");
        let on_trial = record.candidate.as_ref().filter(|c| c.is_on_trial);
        if let Some(running) = machine.running() {
            let is_on_trial = on_trial.is_some_and(|c| c.identity == *running);
            assert!(is_on_trial || self.committed.contains(&running.sha256));
            assert_eq!(is_on_trial, machine.phase() == Phase::Trial);
        }
        for model in [&record.committed, &record.previous].into_iter().flatten() {
            assert!(self.committed.contains(&model.sha256));
            assert!(!self.failed.contains(&model.sha256));
        }
        if let Some(offered) = &record.offered {
            let sha256 = offered.identity.sha256;
            let is_wanted = self.wanted.contains(&sha256);
            assert!(is_wanted || !offered.is_approved, "nobody wanted it");
        }
        let is_fetched = matches!(
            machine.phase(),
            Phase::Queued | Phase::Downloading { .. } | Phase::Verifying
        );
        if let (true, (_, Some(identity))) = (is_fetched, machine.subject()) {
            assert!(self.wanted.contains(&identity.sha256), "nobody wanted it");
        }
        if let Some(candidate) = &record.candidate {
            let in_use = record.committed.clone().unwrap_or_else(packaged);
            assert_ne!(candidate.identity, in_use, "a trial against itself");
            assert!(!self.failed.contains(&candidate.identity.sha256));
            assert!(candidate.attempts <= ATTEMPTS_MAX);
        }
    }

    fn step(&mut self, machine: &mut Machine, event: Event) -> Result<(), NotNow> {
        let before = machine.clone();
        match &event {
            Event::Offer { identity, .. } => {
                self.wanted.insert(identity.sha256);
            }
            Event::Approve => {
                let offered = before.record().offered.iter();
                self.wanted
                    .extend(offered.map(|offered| offered.identity.sha256));
            }
            _ => {}
        }
        let result = machine.step(event.clone());
        if result.is_err() {
            assert_eq!(
                machine.record(),
                before.record(),
                "a refusal changed something"
            );
        }
        let candidate = machine.record().candidate.clone();
        if let Event::Propose { identity, .. } = &event {
            let (old, new) = (&before.record().offered, &machine.record().offered);
            let is_taken = new
                .as_ref()
                .is_some_and(|offered| offered.identity == *identity);
            assert_eq!(is_taken, before.is_worth_fetching(identity));
            assert!(is_taken || new == old || new.is_none());
        }
        match (&event, &before.record().candidate, result.is_ok()) {
            (Event::Admit { identity, .. }, _, true) => {
                // One that waits already stays, whatever came of this.
                let is_taken = candidate != before.record().candidate
                    && candidate.is_some_and(|c| c.identity == *identity && c.attempts == 0);
                let highest = self.highest.get(&identity.name).copied().unwrap_or(0);
                if is_taken {
                    assert!(!self.failed.contains(&identity.sha256), "tried again");
                    assert!(identity.version >= highest, "older than an accepted one");
                    self.attempts.remove(&identity.sha256);
                }
            }
            (Event::Trust(trust), _, true) => {
                for (name, least) in &trust.resets {
                    // The only way back, and never below the packaged one.
                    self.highest
                        .entry(name.clone())
                        .and_modify(|highest| *highest = *least);
                }
            }
            (Event::Pass, Some(passed), true) => {
                self.committed.insert(passed.identity.sha256);
                let highest = self
                    .highest
                    .entry(passed.identity.name.clone())
                    .or_default();
                *highest = passed.identity.version.max(*highest);
                assert_eq!(machine.record().committed.as_ref(), Some(&passed.identity));
            }
            (Event::Fail(reason), Some(tried), true) if reason.is_lasting() => {
                self.failed.insert(tried.identity.sha256);
            }
            (Event::Lose(sha256, reason), Some(tried), true)
                if tried.identity.sha256 == *sha256 && reason.is_lasting() =>
            {
                self.failed.insert(*sha256);
            }
            (Event::RollBack, Some(tried), true) => {
                self.failed.insert(tried.identity.sha256);
            }
            (Event::RollBack, None, true) => {
                self.failed
                    .extend(before.record().committed.as_ref().map(|m| m.sha256));
            }
            (Event::BeginTrial, Some(tried), true) => {
                if candidate.is_some() {
                    let attempts = self.attempts.entry(tried.identity.sha256).or_default();
                    *attempts += 1;
                    assert!(*attempts <= ATTEMPTS_MAX, "tried too often");
                } else {
                    self.failed.insert(tried.identity.sha256);
                }
            }
            (Event::Interrupt, Some(tried), true) => {
                *self.attempts.entry(tried.identity.sha256).or_insert(1) -= 1;
            }
            (Event::Restart, Some(tried), true) if candidate.is_none() => {
                assert_eq!(tried.attempts, ATTEMPTS_MAX);
                self.failed.insert(tried.identity.sha256);
            }
            _ => {}
        }
        if let (Event::Lose(sha256, _), true) = (&event, result.is_ok())
            && (before.record().candidate.as_ref()).is_none_or(|c| c.identity.sha256 != *sha256)
        {
            // What proved itself here may come again, whatever it fails by now.
            let (was, is) = (&before.record().quarantine, &machine.record().quarantine);
            assert_eq!(was, is);
        }
        if let Event::Reject {
            signed: Some(identity),
            reason,
            ..
        } = &event
        {
            let is_quarantined = machine.objection(identity) == Some(Reason::Quarantined);
            let in_use = before
                .record()
                .committed
                .iter()
                .chain([&packaged()])
                .cloned()
                .collect::<Vec<_>>();
            let waits = before
                .record()
                .candidate
                .iter()
                .any(|c| c.identity == *identity);
            assert!(is_quarantined || !reason.is_lasting() || waits || in_use.contains(identity));
            if is_quarantined {
                self.failed.insert(identity.sha256);
            }
        }
        self.verify_invariants(machine);
        result
    }

    /// What the daemon finds after a power cut at this very moment.
    fn crash(&mut self, machine: &Machine) -> Machine {
        let mut after = Machine::new(machine.record().clone(), Some(packaged()), ATTEMPTS_MAX);
        self.step(&mut after, Event::Restart)
            .expect("always possible");
        let committed = after.record().committed.clone();
        assert_eq!(
            after.running(),
            committed.as_ref(),
            "a crash ends in the old model"
        );
        assert_eq!(committed, machine.record().committed);
        assert_eq!(after.record().offered, machine.record().offered);
        after
    }
}

fn models() -> impl Strategy<Value = Identity> {
    (
        prop::sample::select(vec!["person", "vehicle"]),
        0_u64..6,
        0_u8..2,
    )
        .prop_map(|(name, version, variant)| model(name, version, variant))
}

fn reasons() -> impl Strategy<Value = Reason> {
    prop::sample::select(vec![
        Reason::Flood,
        Reason::Silence,
        Reason::TooSlow,
        Reason::GoldenMismatch,
        Reason::FileDamaged,
        Reason::BadSignature,
    ])
}

/// An event, or a crash.
fn events() -> impl Strategy<Value = Option<Event>> {
    let job = || "job".to_string();
    prop_oneof![
        1 => models().prop_map(move |identity| Some(Event::Offer { job: job(), identity })),
        2 => models().prop_map(move |identity| Some(Event::Propose { job: job(), identity })),
        1 => Just(Some(Event::Approve)),
        4 => models().prop_map(move |identity| Some(Event::Admit { job: job(), identity })),
        1 => (reasons(), models()).prop_map(move |(reason, model)| Some(Event::Reject {
            job: job(),
            signed: (reason != Reason::BadSignature).then_some(model),
            reason,
        })),
        1 => (reasons(), models()).prop_map(move |(reason, model)| Some(Event::TurnDown {
            job: job(),
            claimed: Some(model),
            reason,
        })),
        1 => (0_u32..9).prop_map(|received| Some(Event::Progress { received, total: 9 })),
        1 => Just(Some(Event::Complete)),
        6 => Just(Some(Event::BeginTrial)),
        1 => Just(Some(Event::Interrupt)),
        4 => Just(Some(Event::Pass)),
        2 => reasons().prop_map(|reason| Some(Event::Fail(reason))),
        1 => Just(Some(Event::RollBack)),
        1 => (models(), reasons()).prop_map(|(model, reason)| Some(Event::Lose(model.sha256, reason))),
        1 => (0_u64..9).prop_map(|at_s| Some(Event::SignedAt(at_s))),
        1 => (0_u64..9, prop::option::of(0_u64..6)).prop_map(|(version, least)| {
            let resets: Vec<(&str, u64)> = least.map(|least| ("person", least)).into_iter().collect();
            Some(keyring(version, &resets))
        }),
        2 => Just(None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold_whatever_happens(history in prop::collection::vec(events(), 1..120)) {
        let mut machine = machine(Record::default());
        let mut witness = Witness::default();
        for event in history {
            match event {
                // A refusal is an answer too.
                Some(event) => {
                    let _ = witness.step(&mut machine, event);
                }
                None => machine = witness.crash(&machine),
            }
            // Whatever came before: cutting the power now ends in the old model.
            let mut cut = Machine::new(machine.record().clone(), Some(packaged()), ATTEMPTS_MAX);
            cut.step(Event::Restart).expect("always possible");
            prop_assert_eq!(cut.running(), machine.record().committed.as_ref());
        }
    }

    #[test]
    fn a_record_survives_being_written(history in prop::collection::vec(events(), 1..60)) {
        let mut machine = machine(Record::default());
        history.into_iter().flatten().for_each(|event| {
            let _ = machine.step(event);
        });
        let text = serde_json::to_string(machine.record()).expect("JSON");
        let read: Record = serde_json::from_str(&text).expect("what was written");
        prop_assert_eq!(&read, machine.record());
    }
}

fn admitted(version: u64) -> Event {
    let (job, identity) = ("job".into(), model("person", version, 0));
    Event::Admit { job, identity }
}

fn commit(machine: &mut Machine, version: u64) {
    commit_model(machine, model("person", version, 0));
}

fn commit_model(machine: &mut Machine, identity: Identity) {
    let (job, admitted) = ("job".into(), identity.clone());
    let admit = Event::Admit {
        job,
        identity: admitted,
    };
    for event in [admit, Event::BeginTrial, Event::Pass] {
        machine.step(event).expect("in order");
    }
    assert_eq!(machine.running(), Some(&identity));
}

#[test]
fn a_model_goes_from_the_offer_to_the_commit() {
    let mut machine = machine(Record::default());
    assert_eq!((machine.phase(), machine.running()), (Phase::Idle, None));
    let identity = model("person", 3, 0);
    let offer = Event::Offer {
        job: "j1".into(),
        identity: identity.clone(),
    };
    let admit = Event::Admit {
        job: "j1".into(),
        identity: identity.clone(),
    };
    let path = [
        (offer, "queued"),
        (
            Event::Progress {
                received: 1,
                total: 2,
            },
            "downloading",
        ),
        (Event::Complete, "verifying"),
        (admit, "staged"),
        (Event::BeginTrial, "trial"),
        (Event::Pass, "committed"),
    ];
    for (event, phase) in path {
        machine.step(event).expect("in order");
        assert_eq!(machine.phase().name(), phase);
        assert_eq!(machine.subject(), (Some("j1"), Some(&identity)));
    }
    assert_eq!(machine.running(), Some(&identity));
}

fn proposed(job: &str, version: u64) -> Event {
    let (job, identity) = (job.into(), model("person", version, 0));
    Event::Propose { job, identity }
}

fn offered(machine: &Machine) -> Option<(&str, u64, bool)> {
    let offered = machine.record().offered.as_ref()?;
    let Offered { identity, job, .. } = offered;
    Some((job, identity.version, offered.is_approved))
}

#[test]
fn an_offer_waits_for_its_owner_across_restarts_and_is_then_fetched_to_the_end() {
    let again = |machine: &Machine| {
        let mut after = Machine::new(machine.record().clone(), Some(packaged()), ATTEMPTS_MAX);
        after.step(Event::Restart).expect("always possible");
        after
    };
    let mut machine = machine(Record::default());
    assert_eq!(machine.step(Event::Approve), Err(NotNow::NothingOffered));
    machine.step(proposed("j1", 3)).expect("an answer");
    machine = again(&machine);
    assert_eq!(machine.phase(), Phase::Offered);
    assert_eq!(
        machine.subject(),
        (Some("j1"), Some(&model("person", 3, 0)))
    );
    machine.step(Event::Approve).expect("one waits");
    machine = again(&machine);
    assert_eq!(machine.phase(), Phase::Queued);
    let (job, identity) = ("j1".to_string(), model("person", 3, 0));
    let offer = Event::Offer {
        job: job.clone(),
        identity: identity.clone(),
    };
    machine.step(offer).expect("nothing is on trial");
    machine.step(Event::Complete).expect("a job");
    machine = again(&machine);
    assert_eq!(machine.phase(), Phase::Queued, "it is not stored yet");
    machine
        .step(Event::Admit { job, identity })
        .expect("it is good");
    assert_eq!((machine.phase(), offered(&machine)), (Phase::Staged, None));
}

#[test]
fn a_newer_offer_takes_the_place_of_an_older_one_and_a_bad_one_does_not() {
    let mut machine = machine(Record::default());
    machine.step(proposed("j3", 3)).expect("an answer");
    machine.step(proposed("j4", 4)).expect("an answer");
    assert_eq!(offered(&machine), Some(("j4", 4, false)));
    machine.step(proposed("old", 1)).expect("an answer");
    let ending = Ending::Rejected(Reason::VersionTooOld);
    assert_eq!(machine.phase(), Phase::Ended(ending));
    assert_eq!(offered(&machine), Some(("j4", 4, false)));
    machine.step(Event::Approve).expect("one waits");
    assert_eq!(machine.phase(), Phase::Queued);
    // Another one was not meant; the same file is wanted whoever offers it.
    machine.step(proposed("again", 4)).expect("an answer");
    assert_eq!(offered(&machine), Some(("again", 4, true)));
    machine.step(proposed("j5", 5)).expect("an answer");
    assert_eq!(offered(&machine), Some(("j5", 5, false)));
}

#[test]
fn an_offer_that_comes_during_a_trial_is_shown_after_its_end() {
    let mut machine = machine(Record::default());
    machine.step(admitted(3)).expect("admitted");
    machine.step(Event::BeginTrial).expect("a trial");
    machine.step(proposed("next", 4)).expect("an answer");
    assert_eq!(machine.phase(), Phase::Trial);
    machine.step(Event::Pass).expect("on trial");
    assert_eq!(machine.phase(), Phase::Ended(Ending::Committed));
    assert_eq!(machine.subject().0, Some("job"), "its end is told");
    assert_eq!(offered(&machine), Some(("next", 4, false)));
}

#[test]
fn the_packaged_model_has_none_before_it_even_where_it_was_committed() {
    let mut machine = machine(Record::default());
    let other = model("vehicle", 2, 0);
    for identity in [other.clone(), packaged()] {
        commit_model(&mut machine, identity);
    }
    let lost = Event::Lose(other.sha256, Reason::FileDamaged);
    machine.step(lost).expect("always possible");
    let record = machine.record().clone();
    assert_eq!(machine.step(Event::RollBack), Err(NotNow::NothingBefore));
    assert_eq!(machine.record(), &record);
}

#[test]
fn a_version_below_an_accepted_one_is_rejected_and_an_equal_one_is_not() {
    let mut machine = machine(Record::default());
    let objection = |machine: &Machine, version| machine.objection(&model("person", version, 0));
    assert_eq!(
        objection(&machine, 1),
        Some(Reason::VersionTooOld),
        "older than the package"
    );
    commit(&mut machine, 4);
    assert_eq!(objection(&machine, 3), Some(Reason::VersionTooOld));
    assert_eq!(objection(&machine, 4), None);
    machine.step(Event::RollBack).expect("there is one before");
    assert_eq!(machine.running(), None);
    assert_eq!(
        objection(&machine, 3),
        Some(Reason::VersionTooOld),
        "a rollback forgets nothing"
    );
    machine.step(admitted(3)).expect("an answer");
    assert_eq!(
        machine.phase(),
        Phase::Ended(Ending::Rejected(Reason::VersionTooOld))
    );
}

#[test]
fn only_models_of_accepted_names_are_taken() {
    let mut machine = machine(Record::default());
    machine.accept_only(vec!["person".into(), "vehicle".into()]);
    let found =
        ["person", "vehicle", "persona", ""].map(|name| machine.objection(&model(name, 9, 0)));
    let other = Some(Reason::NameNotAccepted);
    assert_eq!(found, [None, None, other, other]);
    let identity = model("persona", 9, 0);
    let job = "job".into();
    machine
        .step(Event::Admit { job, identity })
        .expect("an answer");
    assert_eq!(
        machine.phase(),
        Phase::Ended(Ending::Rejected(Reason::NameNotAccepted))
    );
    assert_eq!(machine.record().candidate, None);
    machine.accept_only(Vec::new());
    assert_eq!(machine.objection(&model("persona", 9, 0)), None);
}

#[test]
fn a_version_names_one_file() {
    let mut machine = machine(Record::default());
    let reused = |machine: &Machine, version| {
        machine.objection(&model("person", version, 1)) == Some(Reason::VersionReused)
    };
    assert!(reused(&machine, 2), "the packaged one's");
    commit(&mut machine, 3);
    commit(&mut machine, 4);
    assert!(reused(&machine, 4), "that of the one in use");
    assert_eq!(machine.objection(&model("person", 4, 0)), None, "itself");
    assert_eq!(machine.objection(&model("vehicle", 4, 1)), None);
    machine.step(admitted(5)).expect("admitted");
    assert!(reused(&machine, 5), "that of the one that waits");
    for event in [Event::BeginTrial, Event::Fail(Reason::Flood)] {
        machine.step(event).expect("in order");
    }
    assert!(reused(&machine, 5), "that of one that failed");
    assert_eq!(machine.objection(&model("person", 6, 1)), None);
}

fn keyring(version: u64, resets: &[(&str, u64)]) -> Event {
    let resets = resets.iter().map(|(name, least)| ((*name).into(), *least));
    Event::Trust(Trust {
        keyring: StoredKeyring {
            version,
            file: String::new(),
        },
        signed_at_s: 1000 * version,
        is_revocation: false,
        resets: resets.collect(),
    })
}

/// The same, by which a key that was trusted before is not any more.
fn revocation(version: u64) -> Event {
    match keyring(version, &[]) {
        Event::Trust(trust) => Event::Trust(Trust {
            is_revocation: true,
            ..trust
        }),
        other => other,
    }
}

#[test]
fn a_replayed_old_model_is_refused_until_a_keyring_opens_the_way_back() {
    let mut machine = machine(Record::default());
    commit(&mut machine, 3);
    commit(&mut machine, 6);
    let replayed = model("person", 4, 0);
    assert_eq!(machine.objection(&replayed), Some(Reason::VersionTooOld));
    machine.step(keyring(1, &[])).expect("newer");
    assert_eq!(machine.objection(&replayed), Some(Reason::VersionTooOld));
    let reset = keyring(2, &[("person", 4), ("unheard-of", 9)]);
    machine.step(reset).expect("newer");
    assert_eq!(machine.objection(&replayed), None);
    assert_eq!(
        machine.objection(&model("person", 3, 0)),
        Some(Reason::VersionTooOld)
    );
    assert_eq!(
        machine.record().floors.len(),
        1,
        "no room for the unheard-of"
    );
    commit(&mut machine, 4);
    // The package's own version is never undercut.
    machine.step(keyring(3, &[("person", 0)])).expect("newer");
    assert_eq!(
        machine.objection(&model("person", 1, 0)),
        Some(Reason::VersionTooOld)
    );
}

#[test]
fn a_replayed_keyring_is_refused_and_signed_times_grow_until_a_key_is_revoked() {
    let mut machine = machine(Record::default());
    machine.step(keyring(2, &[])).expect("the first one");
    for version in [1, 2] {
        let refusal = machine.step(keyring(version, &[("person", 0)]));
        assert_eq!(refusal, Err(NotNow::OldKeyring(2)));
    }
    assert_eq!(machine.record().time_floor_s, 2000);
    machine
        .step(Event::SignedAt(5000))
        .expect("always possible");
    machine
        .step(Event::SignedAt(4000))
        .expect("always possible");
    machine.step(keyring(3, &[])).expect("newer");
    assert_eq!(machine.record().time_floor_s, 5000);
    // What a key says of the time is forgotten with it.
    machine
        .step(Event::SignedAt(u64::MAX))
        .expect("always possible");
    machine.step(keyring(4, &[])).expect("newer");
    assert_eq!(machine.record().time_floor_s, u64::MAX);
    machine.step(revocation(5)).expect("newer");
    assert_eq!(machine.record().time_floor_s, 5000);
}

#[test]
fn a_model_that_kills_the_program_is_given_up() {
    let mut machine = machine(Record::default());
    commit(&mut machine, 3);
    machine.step(admitted(4)).expect("admitted");
    for attempt in 1..=ATTEMPTS_MAX {
        machine.step(Event::BeginTrial).expect("a trial");
        let attempts = machine.record().candidate.as_ref().map(|c| c.attempts);
        assert_eq!(attempts, Some(attempt), "counted before the load");
        machine = Machine::new(machine.record().clone(), Some(packaged()), ATTEMPTS_MAX);
        machine.step(Event::Restart).expect("always possible");
    }
    let ending = Ending::RolledBack(Reason::AttemptsExceeded);
    assert_eq!(machine.phase(), Phase::Ended(ending));
    assert_eq!(machine.running(), Some(&model("person", 3, 0)));
    assert_eq!(
        machine.objection(&model("person", 4, 0)),
        Some(Reason::Quarantined)
    );
}

#[test]
fn a_stop_on_purpose_costs_no_attempt() {
    let mut machine = machine(Record::default());
    machine.step(admitted(4)).expect("admitted");
    for _ in 0..10 * ATTEMPTS_MAX {
        machine.step(Event::BeginTrial).expect("a trial");
        assert_eq!(machine.phase(), Phase::Trial);
        machine.step(Event::Interrupt).expect("on trial");
        machine.step(Event::Restart).expect("always possible");
        assert_eq!(machine.phase(), Phase::Staged);
    }
}

#[test]
fn a_quarantine_that_is_full_forgets_a_file_and_still_refuses_it() {
    let mut machine = machine(Record::default());
    for version in 10..11 + QUARANTINE_MAX as u64 {
        machine.step(admitted(version)).expect("admitted");
        machine.step(Event::BeginTrial).expect("a trial");
        machine.step(Event::Fail(Reason::Flood)).expect("on trial");
    }
    assert_eq!(machine.record().quarantine.len(), QUARANTINE_MAX);
    let first = model("person", 10, 0);
    assert_eq!(machine.objection(&first), Some(Reason::VersionTooOld));
    // The roots may open the way back to it, but not to what is remembered.
    let reset = keyring(1, &[("person", 10)]);
    machine.step(reset).expect("the first one");
    assert_eq!(machine.objection(&first), None);
    let second = model("person", 11, 0);
    assert_eq!(machine.objection(&second), Some(Reason::Quarantined));
}

#[test]
fn names_are_bounded_and_known_ones_keep_working() {
    let mut machine = machine(Record::default());
    for name in 0..NAMES_MAX {
        let identity = model(&format!("m{name}"), 1, 0);
        let admit = Event::Admit {
            job: "j".into(),
            identity,
        };
        for event in [admit, Event::BeginTrial, Event::Pass] {
            machine.step(event).expect("in order");
        }
    }
    assert_eq!(machine.objection(&model("m0", 2, 0)), None);
    assert_eq!(
        machine.objection(&model("new", 2, 0)),
        Some(Reason::ModelInvalid)
    );
}

#[test]
fn strangers_leave_no_trace_in_the_record() {
    let mut machine = machine(Record::default());
    let before = machine.record().clone();
    for reason in [
        Reason::BadSignature,
        Reason::HashMismatch,
        Reason::OfferInvalid,
    ] {
        let (job, signed) = ("j".into(), None);
        machine
            .step(Event::Reject {
                job,
                signed,
                reason,
            })
            .expect("an answer");
        assert_eq!(machine.phase().reason(), Some(reason));
    }
    assert_eq!(machine.record(), &before);
}

#[test]
fn a_newer_package_takes_the_place_of_an_older_update() {
    let mut old = machine(Record::default());
    commit(&mut old, 4);
    let newer = Some(model("person", 5, 0));
    let machine = Machine::new(old.record().clone(), newer, ATTEMPTS_MAX);
    assert_eq!(machine.running(), None, "the packaged one");
    let older = Machine::new(old.record().clone(), Some(packaged()), ATTEMPTS_MAX);
    assert_eq!(older.running(), Some(&model("person", 4, 0)));
}

#[test]
fn a_newer_package_ends_an_older_update_that_waits_for_its_trial() {
    let mut old = machine(Record::default());
    let (job, identity) = ("j".to_owned(), model("person", 4, 0));
    old.step(Event::Admit { job, identity }).expect("in order");
    let newer = Some(model("person", 5, 0));
    let machine = Machine::new(old.record().clone(), newer, ATTEMPTS_MAX);
    assert_eq!(machine.phase().reason(), Some(Reason::VersionTooOld));
    assert_eq!(machine.subject().0, Some("j"));
    assert_eq!(machine.record().candidate, None);
}

#[test]
fn an_offer_under_the_name_of_another_job_takes_nothing_away() {
    let mut machine = machine(Record::default());
    let propose = |identity| Event::Propose {
        job: "j".into(),
        identity,
    };
    machine.step(propose(model("person", 4, 0))).expect("waits");
    machine.step(Event::Approve).expect("wanted");
    machine
        .step(propose(model("person", 0, 0)))
        .expect("too old");
    let offered = machine.offered().expect("still there");
    assert_eq!(offered.identity, model("person", 4, 0));
    assert!(offered.is_approved);
    let turned_down = Event::TurnDown {
        job: "j".into(),
        claimed: None,
        reason: Reason::TooManyDownloads,
    };
    machine.step(turned_down).expect("always possible");
    assert!(machine.offered().is_some());
}

#[test]
fn a_lost_file_falls_back_step_by_step() {
    let mut machine = machine(Record::default());
    commit(&mut machine, 3);
    commit(&mut machine, 4);
    for (lost, then) in [(4, Some(3)), (3, None)] {
        let sha256 = model("person", lost, 0).sha256;
        machine
            .step(Event::Lose(sha256, Reason::FileDamaged))
            .expect("always possible");
        assert_eq!(machine.running().map(|model| model.version), then);
    }
    assert_eq!(machine.step(Event::RollBack), Err(NotNow::NothingBefore));
}

#[test]
fn a_model_that_comes_back_into_use_needs_no_trial() {
    let mut machine = machine(Record::default());
    let vehicle = model("vehicle", 5, 0);
    let admit = || Event::Admit {
        job: "again".into(),
        identity: vehicle.clone(),
    };
    for event in [admit(), Event::BeginTrial, Event::Pass] {
        machine.step(event).expect("in order");
    }
    commit(&mut machine, 4);
    for event in [admit(), Event::BeginTrial] {
        machine
            .step(event)
            .expect("the one before may be offered again");
    }
    let lost = model("person", 4, 0).sha256;
    machine
        .step(Event::Lose(lost, Reason::FileDamaged))
        .expect("always possible");
    assert_eq!(machine.running(), Some(&vehicle));
    assert_eq!(machine.phase(), Phase::Ended(Ending::Committed));
    assert_eq!(machine.step(Event::Fail(Reason::Flood)), Err(NotNow::NoJob));
}
