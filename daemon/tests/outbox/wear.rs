//! What a day costs the memory card.

use super::{document, folder};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use ternwatch_daemon::disk::Disk;
use ternwatch_daemon::publish::outbox::{Event, Log, SEGMENT_BYTES};

/// A file system writes whole blocks.
const BLOCK_BYTES: u64 = 4096;
/// As the longest paths give; the shortest documents have a third of it.
const DOCUMENT_BYTES: usize = 2000;
const SECONDS_AN_HOUR: u64 = 3600;

/// Counts what is written and how often it is made durable.
#[derive(Default)]
struct Meter {
    bytes: u64,
    blocks: u64,
    syncs: u64,
}

impl Meter {
    fn count(&mut self, offset: u64, len: usize) {
        let end = offset + len as u64;
        self.bytes += len as u64;
        self.blocks += end.div_ceil(BLOCK_BYTES) - offset / BLOCK_BYTES;
    }
}

impl Disk for Meter {
    type Lock = ();

    fn lock(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn read(&self, _: &Path, _: usize) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        Ok(Vec::new())
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    fn occupied_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(0)
    }
    fn create_folder(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn write(&mut self, _: &Path, bytes: &[u8]) -> io::Result<()> {
        self.count(0, bytes.len());
        Ok(())
    }
    fn write_at(&mut self, _: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.count(offset, bytes.len());
        Ok(())
    }
    fn sync_file(&mut self, _: &Path) -> io::Result<()> {
        self.syncs += 1;
        Ok(())
    }
    fn sync_folder(&mut self, _: &Path) -> io::Result<()> {
        self.syncs += 1;
        Ok(())
    }
    fn rename(&mut self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove_file(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove_folder(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// An hour in which `events` come together every `interval_s`, and are confirmed before the next ones.
fn an_hour(events: u64, interval_s: u64) -> Meter {
    let (mut log, _) =
        Log::open(Meter::default(), folder(), SEGMENT_BYTES, 1 << 20).expect("it opens");
    let (mut next, mut done) = (0, 0);
    for _ in 0..SECONDS_AN_HOUR / interval_s {
        let batch: Vec<Event> = (next..next + events)
            .map(|sequence| Event {
                sequence,
                document: document(sequence, 0, DOCUMENT_BYTES),
            })
            .collect();
        next += events;
        log.append(&batch, next, done).expect("it takes everything");
        done = next;
        // That they are confirmed is written alone only if nothing comes for half a minute.
        if interval_s > 30 {
            log.append(&[], next, done).expect("it takes everything");
        }
    }
    std::mem::take(log.disk())
}

#[test]
fn how_often_the_card_is_written_is_bounded_whatever_happens() {
    println!("events a day | syncs a day | MB handed over | MB in blocks");
    let show = |name: &str, events, interval_s| {
        let hour = an_hour(events, interval_s);
        let count = 24 * events * (SECONDS_AN_HOUR / interval_s);
        let mb_a_day = |bytes: u64| 24.0 * bytes as f64 / 1e6;
        let (given, written) = (mb_a_day(hour.bytes), mb_a_day(hour.blocks * BLOCK_BYTES));
        let syncs = 24 * hour.syncs;
        println!("{name}: {count} | {syncs} | {given:.1} | {written:.1}");
        (syncs, given, written)
    };
    let (_, _, quiet) = show("one event every five minutes", 1, 300);
    let (_, _, street) = show("one event every five seconds", 1, 5);
    // With `outbox_sync_s = 1`, nothing is written more often, and more events share the blocks.
    let (syncs, given, written) = show("ten events every second", 10, 1);
    let ceiling = 24 * (SECONDS_AN_HOUR + SECONDS_AN_HOUR / 10);
    assert!(syncs <= ceiling, "{syncs} syncs");
    assert!(written < given * 1.3, "{written} MB for {given} MB");
    assert!(quiet < 6.0, "{quiet} MB on a quiet day");
    assert!(street < 150.0, "{street} MB on a busy street");
}
