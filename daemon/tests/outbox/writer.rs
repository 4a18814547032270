//! The thread that stores events: how often it asks the card, when the card refuses, and how much it leaves there.

use super::faults::SimulatedDisk;
use super::{document, empty_disk, folder};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use ternwatch_daemon::disk::Disk;
use ternwatch_daemon::publish::outbox::writer::write_all;
use ternwatch_daemon::publish::outbox::{
    BATCH_BYTES, Bounds, Event, Log, Outbox, Recovered, SEGMENT_BYTES,
};

/// For things that take milliseconds on a quiet machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// A card that refuses is asked so often.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Card {
    disk: SimulatedDisk,
    refuses: bool,
    /// Writes that were asked for.
    attempts: u64,
    file_syncs: u64,
    /// The most that was ever in the folder.
    bytes_max: usize,
}

/// One card for the writer and for whoever looks at it.
#[derive(Clone, Debug)]
struct SharedCard(Arc<Mutex<Card>>);

impl SharedCard {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Card {
            disk: empty_disk(),
            refuses: false,
            attempts: 0,
            file_syncs: 0,
            bytes_max: 0,
        })))
    }

    fn card(&self) -> MutexGuard<'_, Card> {
        self.0.lock().expect("no panic")
    }

    fn write_with(
        &self,
        write: impl FnOnce(&mut SimulatedDisk) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut card = self.card();
        card.attempts += 1;
        if card.refuses {
            return Err(io::Error::other("it refuses"));
        }
        write(&mut card.disk)?;
        let files = card.disk.list(folder())?;
        let len = |name: &OsString| Ok(card.disk.read(&folder().join(name), usize::MAX - 1)?.len());
        let bytes = files.iter().map(len).sum::<io::Result<usize>>()?;
        card.bytes_max = card.bytes_max.max(bytes);
        Ok(())
    }
}

impl Disk for SharedCard {
    type Lock = ();

    fn lock(&mut self, path: &Path) -> io::Result<()> {
        self.card().disk.lock(path)
    }
    fn read(&self, path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
        self.card().disk.read(path, len_max)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.card().disk.list(folder)
    }
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        self.card().disk.free_bytes(folder)
    }
    fn occupied_bytes(&self, path: &Path) -> io::Result<u64> {
        self.card().disk.occupied_bytes(path)
    }
    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        self.card().disk.create_folder(path)
    }
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write_with(|disk| disk.write(path, bytes))
    }
    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_with(|disk| disk.write_at(path, offset, bytes))
    }
    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        let mut card = self.card();
        card.file_syncs += 1;
        card.disk.sync_file(path)
    }
    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        self.card().disk.sync_folder(path)
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.card().disk.rename(from, to)
    }
    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.card().disk.remove_file(path)
    }
    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        self.card().disk.remove_folder(path)
    }
}

fn bounds() -> Bounds {
    Bounds {
        events_max: 100_000,
        bytes_max: 2 << 20,
    }
}

fn event(sequence: u64, len: usize) -> Event {
    Event {
        sequence,
        document: document(sequence, 0, len),
    }
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is_there() {
        assert!(Instant::now() < until, "waited {DEADLINE:?} for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What the next run finds.
fn found(card: &SharedCard) -> Recovered {
    let (_, recovered) =
        Log::open(card.clone(), folder(), SEGMENT_BYTES, bounds().bytes_max).expect("it opens");
    recovered
}

/// Does `work` beside a writer with such a pause, and lets the writer finish. Gives how long all of that took.
fn beside_a_writer(
    card: &SharedCard,
    outbox: &Outbox,
    pause: Duration,
    work: impl FnOnce(),
) -> Duration {
    let (mut log, _) =
        Log::open(card.clone(), folder(), SEGMENT_BYTES, bounds().bytes_max).expect("it opens");
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| write_all(&mut log, outbox, pause));
        work();
        outbox.leave();
    });
    began.elapsed()
}

#[test]
fn the_card_is_written_to_once_in_a_pause_however_much_happens() {
    const PAUSE: Duration = Duration::from_millis(100);
    let (card, outbox) = (
        SharedCard::new(),
        Outbox::kept(bounds(), Recovered::default()),
    );
    let took = beside_a_writer(&card, &outbox, PAUSE, || {
        for sequence in 0..300 {
            outbox.push(event(sequence, 100));
            thread::sleep(Duration::from_millis(2));
        }
    });
    let syncs = u128::from(card.card().file_syncs);
    // At the beginning, after every pause, and at the end.
    let syncs_max = took.as_millis() / PAUSE.as_millis() + 2;
    assert!(syncs >= 2 && syncs <= syncs_max, "{syncs} of {syncs_max}");
    assert_eq!(found(&card).events.len(), 300);
}

#[test]
fn a_card_that_refuses_for_a_while_has_everything_afterwards() {
    let (card, outbox) = (
        SharedCard::new(),
        Outbox::kept(bounds(), Recovered::default()),
    );
    beside_a_writer(&card, &outbox, Duration::ZERO, || {
        outbox.push(event(0, 100));
        wait_for("the first event to be stored", || outbox.durable() == 1);
        card.card().refuses = true;
        outbox.push(event(1, 100));
        wait_for("the refusal", || !outbox.is_durable());
        outbox.push(event(2, 100));
        assert_eq!((outbox.durable(), outbox.len()), (1, 3));
        card.card().refuses = false;
        wait_for("everything to be stored", || outbox.durable() == 3);
        assert!(outbox.is_durable());
    });
    let found = found(&card);
    assert_eq!(found.events, [event(0, 100), event(1, 100), event(2, 100)]);
    assert_eq!((found.missing, found.faults), (0, vec![]));
}

#[test]
fn a_card_that_refuses_is_not_asked_without_a_pause_when_nothing_follows() {
    let (card, outbox) = (
        SharedCard::new(),
        Outbox::kept(bounds(), Recovered::default()),
    );
    card.card().refuses = true;
    let took = beside_a_writer(&card, &outbox, Duration::ZERO, || {
        outbox.push(event(0, 100));
        outbox.close();
        wait_for("two refusals", || card.card().attempts >= 2);
    });
    let attempts = u128::from(card.card().attempts);
    let attempts_max = took.as_millis() / RETRY.as_millis() + 2;
    assert!(attempts <= attempts_max, "{attempts} of {attempts_max}");
    assert!(took < DEADLINE, "and it ends: {took:?}");
}

#[test]
fn the_folder_stays_within_its_bounds_while_the_broker_is_away() {
    const BATCH: u64 = 20;
    const EVENT_BYTES: usize = 5_000;
    let (card, outbox) = (
        SharedCard::new(),
        Outbox::kept(bounds(), Recovered::default()),
    );
    let most = bounds().bytes_max;
    let rounds = (3 * most / (BATCH as usize * EVENT_BYTES)) as u64;
    beside_a_writer(&card, &outbox, Duration::ZERO, || {
        for round in 0..rounds {
            for sequence in round * BATCH..(round + 1) * BATCH {
                outbox.push(event(sequence, EVENT_BYTES));
            }
            wait_for("a batch to be stored", || outbox.durable() == outbox.len());
        }
    });
    assert!(outbox.dropped() > 0);
    let bytes = card.card().bytes_max;
    let least = most - 2 * (SEGMENT_BYTES + BATCH_BYTES);
    assert!((least..=most).contains(&bytes), "{bytes} of {most} bytes");
    let found = found(&card);
    assert_eq!(found.events.len(), outbox.len(), "the newest are there");
    assert_eq!(found.next_sequence, rounds * BATCH);
}
