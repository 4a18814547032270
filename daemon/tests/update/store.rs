//! The store when the card fails and when the power is cut: after every single step, and for everything that a file
//! system may make of it, the next start finds a usable model and never a half-written one.

use crate::faults::{CUTS, Cut, Fault, SimulatedDisk};
use std::ffi::OsString;
use std::path::Path;
use ternwatch_daemon::disk::Disk;
use ternwatch_daemon::update::chunks::{Chunk, Download};
use ternwatch_daemon::update::digest::Digest;
use ternwatch_daemon::update::machine::{Ending, Event, Identity, Machine, Phase};
use ternwatch_daemon::update::offer::{CHUNK_BYTES, Offer};
use ternwatch_daemon::update::reason::Reason;
use ternwatch_daemon::update::store::{Store, StoreError};

const ROOT: &str = "/state";
const ATTEMPTS_MAX: u32 = 3;

fn file(version: u64) -> Vec<u8> {
    format!("the bytes of version {version}, ")
        .repeat(40)
        .into_bytes()
}

fn model(version: u64) -> Identity {
    Identity {
        name: "person".into(),
        version,
        sha256: Digest::of(&file(version)),
    }
}

fn open(disk: SimulatedDisk) -> Store<SimulatedDisk> {
    Store::open(disk, Path::new(ROOT), Some(model(1)), ATTEMPTS_MAX).expect("it always opens")
}

fn fresh() -> Store<SimulatedDisk> {
    open(SimulatedDisk::with_folder(Path::new(ROOT)))
}

fn admit(store: &mut Store<SimulatedDisk>, version: u64) -> Result<(), StoreError> {
    store.admit("job", &model(version), &file(version))
}

/// A store that has had two updates: version 3 in use, version 2 before it.
fn with_history() -> Store<SimulatedDisk> {
    let mut store = fresh();
    for version in [2, 3] {
        admit(&mut store, version).expect("stored");
        store.step(Event::BeginTrial).expect("a candidate");
        store.step(Event::Pass).expect("on trial");
    }
    store.collect().expect("collected");
    store
}

type Operation = fn(&mut Store<SimulatedDisk>) -> Result<(), StoreError>;

/// What is done from which beginning; the running versions that may be found afterwards.
fn operations() -> Vec<(&'static str, Store<SimulatedDisk>, Operation, [u64; 2])> {
    let mut staged = with_history();
    admit(&mut staged, 4).expect("stored");
    let mut on_trial = open(staged.disk().clone());
    on_trial.step(Event::BeginTrial).expect("a candidate");
    let mut failed = open(on_trial.disk().clone());
    failed.step(Event::Fail(Reason::Flood)).expect("on trial");
    let reopened = |store: &mut Store<SimulatedDisk>| open(store.disk().clone());
    vec![
        (
            "install the first",
            fresh(),
            |store| admit(store, 2),
            [1, 1],
        ),
        ("install", with_history(), |store| admit(store, 4), [3, 3]),
        (
            "begin a trial",
            staged,
            |store| store.step(Event::BeginTrial),
            [3, 3],
        ),
        (
            "commit",
            reopened(&mut on_trial),
            |store| store.step(Event::Pass),
            [3, 4],
        ),
        (
            "fail",
            on_trial,
            |store| store.step(Event::Fail(Reason::Flood)),
            [3, 3],
        ),
        ("collect", failed, |store| store.collect(), [3, 3]),
        (
            "propose",
            with_history(),
            |store| store.propose("next", &model(4), b"an offer"),
            [3, 3],
        ),
        (
            "roll back",
            with_history(),
            |store| store.step(Event::RollBack),
            [3, 2],
        ),
    ]
}

/// What the daemon finds and does at its start.
fn restart(disk: SimulatedDisk, place: &str) -> Store<SimulatedDisk> {
    let mut store = open(disk);
    assert_eq!(store.damage(), None, "{place}: the state file is whole");
    store.step(Event::Restart).expect("the card works again");
    let record = store.machine().record().clone();
    for sha256 in record.needs() {
        store
            .model(&sha256)
            .unwrap_or_else(|error| panic!("{place}: {error:#}"));
    }
    store
        .collect()
        .unwrap_or_else(|error| panic!("{place}: {error:#}"));
    store
}

fn running(machine: &Machine) -> u64 {
    machine.running().map_or(1, |model| model.version)
}

#[test]
fn a_power_cut_after_any_step_leaves_a_usable_model() {
    let mut cuts = 0;
    for (name, mut before, operation, [old, new]) in operations() {
        let clean = before.disk().clone();
        for step in 0.. {
            let mut store = open(clean.clone());
            store.disk().steps = 0;
            store.disk().fault = Fault::From(step);
            let result = operation(&mut store);
            let is_done = result.is_ok();
            for cut in CUTS {
                let place = format!("{name}, power gone at step {step}, {cut:?}");
                let after = restart(store.disk().after(cut), &place);
                let version = running(after.machine());
                assert!(version == old || version == new, "{place}: runs {version}");
                if is_done {
                    assert_eq!(version, new, "{place}: what was promised is kept");
                }
                cuts += 1;
            }
            if is_done {
                assert!(step > 3, "{name} has {step} steps only");
                break;
            }
        }
    }
    assert!(cuts > 200, "only {cuts} cuts were tried");
}

#[test]
fn an_offer_that_waits_is_durable_with_its_document() {
    let mut store = with_history();
    store
        .propose("next", &model(4), b"an offer")
        .expect("the card works");
    for cut in CUTS {
        let after = restart(store.disk().after(cut), "an offer waits");
        assert_eq!(after.machine().phase(), Phase::Offered);
        let document = after.offered_document().expect("it was kept");
        assert_eq!(document, b"an offer");
    }
    // What is answered at once leaves nothing.
    let mut store = with_history();
    store
        .propose("old", &model(2), b"an offer")
        .expect("the card works");
    let rejected = Phase::Ended(Ending::Rejected(Reason::VersionTooOld));
    assert_eq!(store.machine().phase(), rejected);
    assert!(store.offered_document().is_err());
}

#[test]
fn a_write_that_fails_once_leaves_a_usable_model_and_can_be_repeated() {
    for (name, mut before, operation, [old, new]) in operations() {
        let clean = before.disk().clone();
        for step in 0.. {
            let mut store = open(clean.clone());
            store.disk().steps = 0;
            store.disk().fault = Fault::Once(step);
            let Err(error) = operation(&mut store) else {
                break;
            };
            let place = format!("{name}, step {step} failed");
            assert!(matches!(error, StoreError::Io { .. }), "{place}: {error:?}");
            let mut interrupted = open(store.disk().clone());
            let version = running(interrupted.machine());
            let on_trial = interrupted.machine().phase() == Phase::Trial;
            assert!(
                on_trial || version == old || version == new,
                "{place}: runs {version}"
            );
            // The state file may have got its name before the folder could not be synchronized: then it is done.
            if interrupted.machine().record() == before.machine().record() {
                operation(&mut interrupted).unwrap_or_else(|error| panic!("{place}: {error:#}"));
            }
            let after = restart(interrupted.disk().after(Cut::Kept), &place);
            assert_eq!(running(after.machine()), new, "{place}");
        }
    }
}

#[test]
fn the_attempt_is_durable_before_the_trial_begins() {
    let mut store = with_history();
    admit(&mut store, 4).expect("stored");
    for attempt in 1..=ATTEMPTS_MAX {
        store.step(Event::BeginTrial).expect("a candidate");
        let after = open(store.disk().after(Cut::Lost));
        let candidate = after.machine().record().candidate.clone().expect("one");
        assert_eq!((candidate.attempts, candidate.is_on_trial), (attempt, true));
        store = after;
        store.step(Event::Restart).expect("always possible");
    }
    let ending = Ending::RolledBack(Reason::AttemptsExceeded);
    assert_eq!(store.machine().phase(), Phase::Ended(ending));
    assert_eq!(running(store.machine()), 3);
}

#[test]
fn a_damaged_state_file_costs_the_update_and_not_the_start() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("empty", Vec::clear),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("flipped", |bytes| bytes[90] ^= 4),
        ("endless", |bytes| bytes.resize(1 << 20, b'x')),
    ];
    for (name, damage) in damages {
        let mut store = with_history();
        store.disk().damage(&Path::new(ROOT).join("state"), damage);
        let mut store = open(store.disk().clone());
        assert!(store.damage().is_some(), "{name} is reported");
        assert_eq!(running(store.machine()), 1, "{name}: the packaged model");
        let ending = Ending::RolledBack(Reason::StateDamaged);
        assert_eq!(store.machine().phase(), Phase::Ended(ending));
        store.collect().expect("collected");
        assert!(
            store.model(&model(3).sha256).is_ok(),
            "{name}: nothing is removed"
        );
        admit(&mut store, 5).expect("updates work again");
        assert_eq!(open(store.disk().clone()).damage(), None);
    }
}

#[test]
fn a_damaged_model_is_never_handed_out_and_can_be_stored_again() {
    let mut store = with_history();
    let path = store.model_path(&model(3).sha256);
    store.disk().damage(&path, |bytes| bytes[7] ^= 1);
    let error = store.model(&model(3).sha256).expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    store
        .step(Event::Lose(model(3).sha256, Reason::FileDamaged))
        .expect("always possible");
    assert_eq!(running(store.machine()), 2);
    admit(&mut store, 3).expect("the same model again");
    assert_eq!(store.model(&model(3).sha256).expect("whole"), file(3));
}

#[test]
fn a_file_under_another_models_name_is_refused() {
    let mut store = fresh();
    let error = store
        .admit("job", &model(2), &file(3))
        .expect_err("refused");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(store.machine().record().candidate, None);
}

#[test]
fn a_full_card_is_noticed_before_anything_is_written() {
    let mut store = fresh();
    store.disk().capacity = file(2).len() as u64 + (1 << 20) - 1;
    let error = admit(&mut store, 2).expect_err("full");
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
    assert_eq!(store.disk().steps, 0, "nothing was written");
}

/// A file of so many chunks, and its offer.
fn long(version: u64, chunks: usize) -> (Vec<u8>, Offer) {
    let file = vec![version as u8; chunks * CHUNK_BYTES];
    let offer = Offer::of("job", "person", version, &file);
    (file, offer)
}

/// Fetches chunks until so many are here.
fn fetch(store: &mut Store<SimulatedDisk>, download: &mut Download, file: &[u8], count: usize) {
    let chunks = file.chunks(CHUNK_BYTES).enumerate().take(count);
    for (index, chunk) in chunks {
        let taken = download.take(store.disk(), index, chunk);
        assert_ne!(taken.expect("there is room"), Chunk::Wrong);
    }
}

/// The least card on which a download of this offer begins.
fn least_capacity(store: &mut Store<SimulatedDisk>, offer: &Offer) -> u64 {
    let clean = store.disk().clone();
    let begins = |capacity| {
        let mut store = open(clean.clone());
        store.disk().capacity = capacity;
        store.download(offer.clone()).is_ok()
    };
    let (mut too_small, mut enough) = (0, 1 << 30);
    while too_small + 1 < enough {
        let middle = u64::midpoint(too_small, enough);
        if begins(middle) {
            enough = middle;
        } else {
            too_small = middle;
        }
    }
    enough
}

const CHUNKS: usize = 40;

#[test]
fn where_a_download_begins_it_comes_to_its_end_however_often_it_is_interrupted() {
    let (file, offer) = long(2, CHUNKS);
    let mut store = fresh();
    store.disk().capacity = least_capacity(&mut store, &offer);
    for cut in CUTS {
        for count in [0, 1, 8, 30, CHUNKS] {
            let mut store = open(store.disk().clone());
            let mut download = store.download(offer.clone()).expect("room for all of it");
            fetch(&mut store, &mut download, &file, count);
            let mut store = open(store.disk().after(cut));
            let place = format!("{count} chunks, {cut:?}");
            let mut download = store
                .download(offer.clone())
                .unwrap_or_else(|error| panic!("{place}: {error:#}"));
            assert!(download.received() >= count / 8 * 8, "{place}");
            fetch(&mut store, &mut download, &file, CHUNKS);
            let whole = download.finish(store.disk()).expect("the disk works");
            assert_eq!(whole.as_ref(), Some(&file), "{place}");
            store
                .admit("job", &offer.identity(), &file)
                .unwrap_or_else(|error| panic!("{place}: {error:#}"));
        }
    }
}

#[test]
fn a_download_that_gives_way_makes_room_and_is_not_touched_for_one_that_does_not_fit() {
    let ((other, stale), (file, offer)) = (long(2, CHUNKS), long(3, CHUNKS));
    let mut store = fresh();
    let capacity = least_capacity(&mut store, &offer);
    store.disk().capacity = capacity;
    let mut download = store.download(stale.clone()).expect("an empty card");
    fetch(&mut store, &mut download, &other, CHUNKS - 1);
    download.synchronize(store.disk()).expect("the disk works");
    let mut crowded = open(store.disk().clone());

    let mut download = store.download(offer.clone()).expect("the other one goes");
    fetch(&mut store, &mut download, &file, CHUNKS);
    store
        .admit("job", &offer.identity(), &file)
        .expect("as much room as on an empty card");

    let (_, larger) = long(4, CHUNKS + 1);
    crowded.disk().steps = 0;
    let error = crowded.download(larger).expect_err("no room");
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
    assert_eq!(crowded.disk().steps, 0, "nothing was written or removed");
    let download = crowded.download(stale).expect("it goes on");
    assert_eq!(download.received(), CHUNKS - 1);
}

#[test]
fn what_could_not_be_written_takes_no_room() {
    let mut refused = 0;
    for step in 0.. {
        let mut store = with_history();
        store.disk().steps = 0;
        store.disk().fault = Fault::Once(step);
        if admit(&mut store, 4).is_ok() {
            break;
        }
        refused += 1;
        let folder = store.model_path(&model(4).sha256);
        let folder = folder.parent().expect("a folder of its own");
        for folder in [Path::new(ROOT), folder] {
            let names = store.disk().list(folder).expect("the disk works");
            let is_half = |name: &OsString| name.to_string_lossy().ends_with(".new");
            assert!(!names.iter().any(is_half), "step {step}: {names:?}");
        }
    }
    assert!(refused > 6, "only {refused} steps");
}

#[test]
fn models_that_nobody_needs_are_removed_and_the_one_before_stays() {
    let mut store = with_history();
    for version in [4, 5] {
        admit(&mut store, version).expect("stored");
        store.step(Event::BeginTrial).expect("a candidate");
        store.step(Event::Pass).expect("on trial");
    }
    store.collect().expect("collected");
    let is_there = |version| store.model(&model(version).sha256).is_ok();
    assert_eq!([2, 3, 4, 5].map(is_there), [false, false, true, true]);
}
