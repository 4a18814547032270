//! The thread that makes events durable: so the frame path waits for no memory card.
//!
//! An event that comes alone is stored at once. After that the card rests for `outbox_sync_s`, and what came meanwhile
//! is stored together: how often the card is written is bounded, however much happens. That an event was confirmed is
//! written along with the next events, or alone after half a minute without any.

use super::{Bounds, Ending, Log, Outbox, Recovered, SEGMENT_BYTES};
use crate::disk::{Disk, SystemDisk, open_or_create};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Without events for so long, confirmations are written down.
const QUIET: Duration = Duration::from_secs(30);
/// A card that refuses is not asked more often.
const RETRY: Duration = Duration::from_secs(1);

/// The files, and the right to them.
#[derive(Debug)]
pub struct Kept {
    log: Log<SystemDisk>,
    /// Held until the end of the process or of the writer.
    _lock: File,
}

/// Opens the outbox below the state folder, reporting what is wrong; `None`: memory has to do.
pub fn open(state_dir: &Path, bounds: Bounds) -> Option<(Kept, Recovered)> {
    if !state_dir.is_dir() {
        let folder = state_dir.display();
        log::info!("events do not survive the end of the program: {folder} is no folder");
        return None;
    }
    let folder = state_dir.join("outbox");
    match try_open(state_dir, &folder, bounds) {
        Ok((kept, recovered)) => {
            report(&recovered);
            Some((kept, recovered))
        }
        Err(error) => {
            let folder = folder.display();
            log::warn!("events do not survive the end of the program: {folder}: {error}");
            None
        }
    }
}

fn try_open(state_dir: &Path, folder: &Path, bounds: Bounds) -> io::Result<(Kept, Recovered)> {
    let lock = open_or_create(&state_dir.join("outbox.lock"))?;
    // Another daemon of the same folder would give the same numbers.
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| io::Error::other(format!("another process has it ({error})")))?;
    let (log, recovered) = Log::open(
        SystemDisk,
        folder,
        SEGMENT_BYTES,
        bounds.waiting_bytes_max(),
    )?;
    Ok((Kept { log, _lock: lock }, recovered))
}

fn report(recovered: &Recovered) {
    for fault in &recovered.faults {
        log::warn!("outbox: {fault}; what is whole was kept");
    }
    let Recovered {
        events,
        next_sequence,
        missing,
        dropped,
        ..
    } = recovered;
    if *missing > 0 {
        log::error!("outbox: {missing} events are lost by damage; their numbers are missing");
    }
    if *dropped > 0 {
        log::warn!("outbox: the oldest {dropped} events do not fit and were dropped");
    }
    if !events.is_empty() {
        let count = events.len();
        log::info!(
            "{count} events of an earlier run wait; the next one has number {next_sequence}"
        );
    }
}

impl Kept {
    /// Stores what comes into the outbox until nothing and nobody will follow.
    pub fn run(mut self, outbox: &Outbox, pause: Duration) {
        write_all(&mut self.log, outbox, pause);
    }
}

/// Stores what comes into the outbox, with a pause after each time, until nothing and nobody will follow.
pub fn write_all<D: Disk>(log: &mut Log<D>, outbox: &Outbox, pause: Duration) {
    let mut marked_below = outbox.done_below();
    loop {
        let (work, ending) = outbox.work(Instant::now() + QUIET);
        let has_news = !work.events.is_empty() || marked_below != work.done_below;
        if has_news {
            let result = log.append(&work.events, work.next, work.done_below);
            if result.is_ok() {
                marked_below = work.done_below;
            }
            let is_news = outbox.stored(work.next, result.is_ok());
            match result {
                Ok(()) if is_news => log::info!("events are durable again"),
                Ok(()) => {}
                Err(error) if is_news => {
                    log::error!("events are kept in memory only: {error}; trying again");
                }
                Err(error) => log::debug!("events are kept in memory only: {error}"),
            }
            if ending == Ending::Last && outbox.is_durable() && !work.events.is_empty() {
                // More than one batch may be left.
                continue;
            }
        }
        if ending == Ending::Last {
            return;
        }
        if has_news {
            let pause = if outbox.is_durable() {
                pause
            } else {
                pause.max(RETRY)
            };
            outbox.pause(Instant::now() + pause);
        }
    }
}
