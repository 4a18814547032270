//! The outbox's files on a simulated memory card: power cuts, failures, damage; and how much is written.

#[path = "../update/faults.rs"]
mod faults;
mod wear;
mod writer;

use faults::{CUTS, Cut, Fault, SimulatedDisk};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use ternwatch_daemon::disk::Disk;
use ternwatch_daemon::publish::outbox::{Event, Log, Recovered};

const BYTES_MAX: usize = 1 << 20;
/// Small, so that tests are fast.
const SEGMENT_BYTES: usize = 4096;

fn folder() -> &'static Path {
    Path::new("/state/outbox")
}

fn empty_disk() -> SimulatedDisk {
    SimulatedDisk::with_folder(Path::new("/state"))
}

/// Different for every number and run, and of very different lengths.
fn document(sequence: u64, run: u64, len: usize) -> Vec<u8> {
    let mut document = format!("{{\"sequence\":{sequence},\"run\":{run}}}").into_bytes();
    document.resize(document.len().max(len), b' ');
    document
}

fn event(sequence: u64) -> Event {
    Event {
        sequence,
        document: document(sequence, 0, 0),
    }
}

/// A log, and what it has promised.
struct Run {
    log: Log<SimulatedDisk>,
    number: u64,
    next: u64,
    done_below: u64,
    /// Stored, or found at the start.
    promised: BTreeMap<u64, Vec<u8>>,
    /// Handed over, whether or not the call returned.
    tried: Vec<Event>,
}

impl Run {
    fn start(disk: SimulatedDisk, number: u64) -> (Self, Recovered) {
        let (log, recovered) =
            Log::open(disk, folder(), SEGMENT_BYTES, BYTES_MAX).expect("it opens");
        let found = recovered.events.iter().cloned();
        let run = Self {
            log,
            number,
            next: recovered.next_sequence,
            done_below: recovered
                .events
                .first()
                .map_or(recovered.next_sequence, |e| e.sequence),
            promised: found
                .map(|event| (event.sequence, event.document))
                .collect(),
            tried: Vec::new(),
        };
        (run, recovered)
    }

    /// Hands over so many events, with those that failed before, and confirms so many.
    fn step(&mut self, events: u64, confirm: u64, len: usize) {
        let sequences = self.next..self.next + events;
        self.tried.extend(sequences.map(|sequence| Event {
            sequence,
            document: document(sequence, self.number, len),
        }));
        self.next += events;
        let stored_below = self
            .promised
            .keys()
            .next_back()
            .map_or(self.done_below, |last| last + 1);
        // Only what was stored can be confirmed.
        self.done_below = (self.done_below + confirm).min(stored_below.max(self.done_below));
        let is_new = |event: &&Event| event.sequence >= stored_below;
        let batch: Vec<Event> = self.tried.iter().filter(is_new).cloned().collect();
        if self.log.append(&batch, self.next, self.done_below).is_ok() {
            self.promised.extend(
                batch
                    .into_iter()
                    .map(|event| (event.sequence, event.document)),
            );
        }
        let done_below = self.done_below;
        self.promised.retain(|sequence, _| *sequence >= done_below);
    }

    /// The power is cut: what does the next run find?
    fn check_after(&mut self, cut: Cut) -> (Self, Recovered) {
        let disk = self.log.disk().after(cut);
        let (run, recovered) = Self::start(disk, self.number + 1);
        let place = format!("{cut:?}, run {}", self.number);
        assert_eq!(recovered.missing, 0, "{place}");
        assert_eq!(recovered.dropped, 0, "{place}");
        let found = &run.promised;
        for (sequence, document) in &self.promised {
            assert!(
                found.get(sequence) == Some(document),
                "{place}: event {sequence} is lost"
            );
        }
        for event in &recovered.events {
            // More than was promised may be found, but nothing that never was.
            let is_promised = self.promised.contains_key(&event.sequence);
            let is_tried = self.tried.contains(event);
            let is_done = event.sequence < self.done_below;
            assert!(
                is_promised || is_tried || is_done,
                "{place}: {event:?} is invented"
            );
        }
        let newest = self.promised.keys().next_back();
        assert!(
            newest.is_none_or(|newest| run.next > *newest),
            "{place}: a number comes again"
        );
        assert!(run.next >= self.done_below, "{place}: a number comes again");
        (run, recovered)
    }
}

/// A day in the life: alone, in batches, over several segments, with and without confirmations.
const SCRIPT: [(u64, u64, usize); 12] = [
    (1, 0, 0),
    (3, 1, 50),
    (0, 3, 0),
    (1, 0, 2000),
    (2, 0, 40),
    (1, 2, 3000),
    (2, 0, 40),
    (1, 1, 5000),
    (5, 0, 0),
    (1, 8, 40),
    (0, 1, 0),
    (2, 0, 10),
];

fn play(run: &mut Run) {
    for (events, confirm, len) in SCRIPT {
        run.step(events, confirm, len);
    }
}

#[test]
fn what_was_stored_survives_a_power_cut_at_every_step() {
    let mut steps = 0;
    for fault in 0.. {
        let mut disk = empty_disk();
        // Not during the first opening, which has promised nothing yet.
        let (mut run, _) = Run::start(disk.clone(), 0);
        let opened = run.log.disk().steps;
        run.log.disk().fault = Fault::From(opened + fault);
        play(&mut run);
        for cut in CUTS {
            let (mut next, _) = run.check_after(cut);
            // The power goes away again, during the first steps of the next run.
            for again in 0..8 {
                let disk = run.log.disk().after(cut);
                let (mut next, _) = Run::start(disk, 1);
                let opened = next.log.disk().steps;
                next.log.disk().fault = Fault::From(opened + again);
                next.step(1, 0, 100);
                next.step(2, 1, 100);
                CUTS.iter().for_each(|cut| drop(next.check_after(*cut)));
            }
            play(&mut next);
            CUTS.iter().for_each(|cut| drop(next.check_after(*cut)));
        }
        disk = run.log.disk().clone();
        if disk.steps < opened + fault {
            steps = fault;
            break;
        }
    }
    assert!(steps > 20, "the script has {steps} steps only");
}

#[test]
fn one_step_that_fails_is_made_up_for() {
    for fault in 0..40 {
        let (mut run, _) = Run::start(empty_disk(), 0);
        let opened = run.log.disk().steps;
        run.log.disk().fault = Fault::Once(opened + fault);
        play(&mut run);
        // Without another fault, everything that was tried is stored at the end.
        while run.log.disk().steps <= opened + fault {
            run.step(1, 0, 10);
        }
        run.step(1, 0, 10);
        let waiting = run
            .tried
            .iter()
            .filter(|event| event.sequence >= run.done_below);
        assert!(waiting.clone().count() > 1);
        for event in waiting {
            assert_eq!(
                run.promised.get(&event.sequence),
                Some(&event.document),
                "fault {fault}"
            );
        }
        CUTS.iter().for_each(|cut| drop(run.check_after(*cut)));
    }
}

/// The files of a run of three segments, none of it done with, and their names.
fn three_segments() -> (SimulatedDisk, Vec<PathBuf>, BTreeMap<u64, Vec<u8>>) {
    let (mut run, _) = Run::start(empty_disk(), 0);
    for _ in 0..8 {
        run.step(3, 0, 500);
    }
    let disk = run.log.disk().after(Cut::Kept);
    let names = disk.list(folder()).expect("a folder");
    let paths: Vec<PathBuf> = names.iter().map(|name| folder().join(name)).collect();
    assert!(paths.len() >= 3, "{paths:?}");
    (disk, paths, run.promised)
}

#[test]
fn a_damaged_segment_costs_no_more_than_what_is_damaged() {
    let (disk, paths, stored) = three_segments();
    for path in &paths {
        for at in (0..SEGMENT_BYTES / 2).step_by(97) {
            let mut disk = disk.clone();
            disk.damage(path, |file| file[at] ^= 0x10);
            let (mut run, recovered) = Run::start(disk, 1);
            let lost = stored.len() - recovered.events.len();
            assert!(lost <= 1, "{lost} lost by byte {at}");
            // What is missing at the very end cannot be told from what was never stored.
            let at_the_end = stored.len() as u64 - run.next;
            assert_eq!(recovered.missing + at_the_end, lost as u64);
            let fault = recovered.faults.first().expect("it is reported");
            assert!(fault.contains(path.to_str().expect("UTF-8")), "{fault}");
            for event in &recovered.events {
                assert_eq!(stored.get(&event.sequence), Some(&event.document));
            }
            run.step(1, 0, 10);
            let (next, again) = Run::start(run.log.disk().after(Cut::Kept), 2);
            assert_eq!(next.promised, run.promised);
            // What was missing at the front is behind everybody now.
            assert!(again.missing <= recovered.missing);
        }
    }
}

/// A way to damage a file.
type Damage = &'static dyn Fn(&mut Vec<u8>);

#[test]
fn a_segment_that_is_garbage_or_cannot_be_read_is_skipped_and_reported() {
    let (disk, paths, stored) = three_segments();
    let garbage: [Damage; 4] = [
        &|file| file.clear(),
        &|file| file.fill(0),
        &|file| file.fill(0xff),
        // Longer than any file of ours: refused before it is read.
        &|file| file.resize(5 << 20, b'x'),
    ];
    for (path, change) in paths
        .iter()
        .flat_map(|path| garbage.map(|change| (path, change)))
    {
        let mut disk = disk.clone();
        disk.damage(path, change);
        let (mut run, recovered) = Run::start(disk, 1);
        // What is missing at the very end cannot be told from what was never stored.
        let at_the_end = stored.len() - run.next as usize;
        let lost = stored.len() - recovered.events.len();
        assert!(lost > 0);
        assert_eq!(recovered.missing as usize + at_the_end, lost);
        assert_eq!(at_the_end > 0, Some(path) == paths.last());
        assert_eq!(recovered.faults.len(), 1, "{:?}", recovered.faults);
        let fault = &recovered.faults[0];
        assert!(fault.contains(path.to_str().expect("UTF-8")), "{fault}");
        let before = recovered.events.len();
        run.step(1, 0, 10);
        let (next, _) = Run::start(run.log.disk().after(Cut::Kept), 2);
        assert_eq!(next.promised.len(), before + 1);
    }
}

#[test]
fn a_torn_end_is_told_of_once_unless_events_are_missing() {
    let (mut run, _) = Run::start(empty_disk(), 0);
    (0..2).for_each(|_| run.step(2, 0, 60));
    let mut disk = run.log.disk().after(Cut::Kept);
    let path = folder().join(&disk.list(folder()).expect("a folder")[0]);
    let torn = format!("{}: the last 9 bytes are torn", path.display());
    disk.damage(&path, |file| file.extend([b'x'; 9]));
    // Too long to move to the next run's file.
    let (mut log, recovered) = Log::open(disk, folder(), 64, BYTES_MAX).expect("it opens");
    assert_eq!(recovered.faults, std::slice::from_ref(&torn));
    log.append(&[event(4)], 5, 0).expect("it takes everything");
    let again = |disk| {
        Log::open(disk, folder(), 64, BYTES_MAX)
            .expect("it opens")
            .1
    };
    let disk = log.disk().after(Cut::Kept);
    assert_eq!(again(disk).faults, [""; 0], "it is known");
    log.append(&[event(6)], 7, 0).expect("it takes everything");
    let recovered = again(log.disk().after(Cut::Kept));
    assert_eq!((recovered.missing, recovered.faults), (1, vec![torn]));
}

#[test]
fn a_torn_end_is_cut_off_at_any_byte() {
    let (mut run, _) = Run::start(empty_disk(), 0);
    let file = |run: &mut Run| {
        let disk = run.log.disk().after(Cut::Kept);
        let path = folder().join(&disk.list(folder()).expect("a folder")[0]);
        let len = disk.read(&path, 1 << 20).expect("readable").len();
        (disk, path, len)
    };
    // The first write of a file is whole or not there.
    run.step(2, 0, 60);
    let (_, _, first_len) = file(&mut run);
    (0..3).for_each(|_| run.step(2, 0, 60));
    let (disk, path, len) = file(&mut run);
    for cut in first_len..=len {
        let mut disk = disk.clone();
        disk.damage(&path, |file| file.truncate(cut));
        let (mut next, recovered) = Run::start(disk, 1);
        assert_eq!(recovered.missing, 0);
        let count = recovered.events.len() as u64;
        assert_eq!(count, next.next, "those at the front are there");
        let record_len = (len - first_len) / 6;
        assert_eq!(count as usize, 2 + (cut - first_len) / record_len);
        let mut found = recovered.events.iter();
        assert!(found.all(|event| run.promised[&event.sequence] == event.document));
        // What comes next is stored, and the torn end does not come back.
        next.step(1, 0, 60);
        let (after, _) = next.check_after(Cut::Kept);
        assert_eq!(after.promised, next.promised);
    }
}

#[test]
fn files_go_when_everything_in_them_is_done_with() {
    let (mut run, _) = Run::start(empty_disk(), 0);
    for _ in 0..200 {
        run.step(5, 5, 300);
        let names = run.log.disk().list(folder()).expect("a folder");
        assert!(names.len() <= 2, "{names:?}");
    }
    assert_eq!(run.next, 1000);
}

#[test]
fn many_starts_leave_few_files() {
    let mut disk = empty_disk();
    for number in 0..100 {
        let (mut run, recovered) = Run::start(disk, number);
        assert_eq!(recovered.events.len() as u64, number);
        run.step(1, 0, 50);
        disk = run.log.disk().after(Cut::Kept);
    }
    // 100 events take 8 kB; a file is at least half full before another one begins.
    let names = disk.list(folder()).expect("a folder");
    assert!(names.len() <= 6, "{names:?}");
}

#[test]
fn more_than_fits_drops_the_oldest_and_says_so() {
    let (disk, _, stored) = three_segments();
    let (_, recovered) = Log::open(disk, folder(), SEGMENT_BYTES, SEGMENT_BYTES).expect("it opens");
    assert!(recovered.dropped > 0);
    assert_eq!(
        recovered.dropped as usize,
        stored.len() - recovered.events.len()
    );
    assert_eq!(
        recovered.events.last().map(|event| event.sequence),
        Some(stored.len() as u64 - 1)
    );
    assert_eq!(recovered.missing, 0);
    let bytes: usize = recovered
        .events
        .iter()
        .map(|event| event.document.len())
        .sum();
    assert!((SEGMENT_BYTES - 1000..=SEGMENT_BYTES).contains(&bytes));
}

proptest! {
    /// Whatever comes, fails and is cut off, run after run.
    #[test]
    fn nothing_that_was_stored_is_ever_missing(
        runs in proptest::collection::vec(
            (
                proptest::collection::vec((0u64..4, 0u64..5, 0usize..3000), 1..12),
                0usize..60,
                0usize..CUTS.len(),
            ),
            1..8,
        ),
    ) {
        let (mut run, _) = Run::start(empty_disk(), 0);
        for (steps, fault, cut) in runs {
            let begun = run.log.disk().steps;
            run.log.disk().fault = Fault::From(begun + fault);
            for (events, confirm, len) in steps {
                run.step(events, confirm, len);
            }
            run = run.check_after(CUTS[cut]).0;
        }
    }
}
