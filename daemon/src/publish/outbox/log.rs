//! Events on the memory card: files to which records are appended, the oldest removed when all of it is done with.
//!
//! Takes events and gives them back after a restart. What [`Log::append`] has returned for survives a power cut. A file is
//! never changed except by appending, and never appended to in a later run; so what is torn can only be at the end of
//! the newest file, and everything else that is no record is damage, which is reported and skipped. Knows neither the
//! broker nor the clock.

use super::Event;
use super::record::{self, HEADER_BYTES, Record, TITLE};
use crate::disk::{Disk, write_whole};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

/// A file of this size is followed by another one.
pub const SEGMENT_BYTES: usize = 256 << 10;
/// The documents that are appended at once are not longer, unless it is a single one.
pub const BATCH_BYTES: usize = 128 << 10;
/// No file of ours is longer: a full one, and what was appended to it last. A document has at most 16 zones and 32 points.
const FILE_BYTES_MAX: usize = 2 << 20;
/// The ending of the files' names.
const ENDING: &str = ".events";

/// The files.
#[derive(Debug)]
pub struct Log<D> {
    disk: D,
    folder: PathBuf,
    segment_bytes: usize,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// Bytes of the newest segment, if it can be appended to.
    appendable: Option<u64>,
    /// What a short newest segment of an earlier run holds: it moves to the next one, so that a daemon that often starts
    /// does not leave many short files.
    carried: Vec<Event>,
    carried_from: Option<PathBuf>,
    next_name: u64,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    /// Every event in it has a lower number.
    end: u64,
}

/// What an earlier run left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Events that are not done with, oldest first.
    pub events: Vec<Event>,
    /// The number of the next event.
    pub next_sequence: u64,
    /// Events that are missing between those that were found.
    pub missing: u64,
    /// Events that were dropped because they were too many.
    pub dropped: u64,
    /// What was damaged, a line each.
    pub faults: Vec<String>,
}

impl<D: Disk> Log<D> {
    /// Reads what is in `folder`, whose parent must be there. At most `bytes_max` of events are kept. A file of
    /// `segment_bytes`, usually [`SEGMENT_BYTES`], is followed by another one.
    pub fn open(
        mut disk: D,
        folder: &Path,
        segment_bytes: usize,
        bytes_max: usize,
    ) -> io::Result<(Self, Recovered)> {
        if let Some(parent) = folder.parent() {
            disk.create_folder(folder)?;
            disk.sync_folder(parent)?;
        }
        let mut names = Vec::new();
        for name in disk.list(folder)? {
            match name.to_str().and_then(parse_name) {
                Some(number) => names.push((number, folder.join(&name))),
                // What was being written when the power went away, under its temporary name.
                None if name.to_str().is_some_and(|name| name.ends_with(".new")) => {
                    disk.remove_file(&folder.join(&name))?;
                }
                None => {}
            }
        }
        names.sort();
        let mut log = Self {
            disk,
            folder: folder.into(),
            segment_bytes,
            segments: VecDeque::new(),
            appendable: None,
            carried: Vec::new(),
            carried_from: None,
            next_name: names.last().map_or(0, |(number, _)| number + 1),
        };
        let recovered = log.read(names.into_iter().map(|(_, path)| path), bytes_max);
        Ok((log, recovered))
    }

    fn read(&mut self, paths: impl Iterator<Item = PathBuf>, bytes_max: usize) -> Recovered {
        let mut found = Recovered::default();
        // Sorted by number: what was carried into another file may be there twice.
        let mut events: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let (mut bytes, mut done_below) = (0, 0);
        let mut newest = (0, 0);
        // Of the newest file, and of those before it, which the runs that followed have told of.
        let (mut torn, mut torn_before) = (None, Vec::new());
        for path in paths {
            torn_before.extend(torn.take());
            let faults_before = found.faults.len();
            let file = match self.disk.read(&path, FILE_BYTES_MAX) {
                Ok(file) => file,
                Err(error) => {
                    found.faults.push(format!("{}: {error}", path.display()));
                    Vec::new()
                }
            };
            let content = record::read(&file);
            if content.damaged_bytes > 0 {
                let (path, bytes) = (path.display(), content.damaged_bytes);
                found
                    .faults
                    .push(format!("{path}: {bytes} bytes are damaged"));
            }
            let is_told = found.faults.len() > faults_before;
            if content.records.is_empty() {
                // The first write of a file is whole or not there, so this is no torn end.
                if !is_told {
                    let (path, bytes) = (path.display(), file.len());
                    let fault = format!("{path}: its {bytes} bytes are no events");
                    found.faults.push(fault);
                }
            } else if content.torn_bytes > 0 {
                let (path, bytes) = (path.display(), content.torn_bytes);
                torn = Some(format!("{path}: the last {bytes} bytes are torn"));
            }
            let mut first_new = u64::MAX;
            for record in &content.records {
                done_below = done_below.max(record.done_below);
                let is_event = !record.document.is_empty();
                let after = record.sequence.saturating_add(u64::from(is_event));
                found.next_sequence = found.next_sequence.max(after);
                if is_event {
                    first_new = first_new.min(record.sequence);
                    let document = record.document.to_vec();
                    bytes += size(&document);
                    if let Some(before) = events.insert(record.sequence, document) {
                        bytes -= size(&before);
                    }
                }
            }
            newest = (file.len(), first_new);
            while let Some(first) = events.first_entry()
                && (*first.key() < done_below || bytes > bytes_max)
            {
                found.dropped += u64::from(*first.key() >= done_below);
                bytes -= size(&first.remove());
            }
            let end = found.next_sequence;
            self.segments.push_back(Segment { path, end });
        }
        // Behind damage, numbers may have been given that nobody knows of any more, but never more than are done with.
        found.next_sequence = found.next_sequence.max(done_below);
        let event = |(sequence, document)| Event { sequence, document };
        found.events = events.into_iter().map(event).collect();
        let wanted = found.next_sequence - done_below;
        found.missing = wanted.saturating_sub(found.events.len() as u64 + found.dropped);
        if found.missing > 0 {
            found.faults.extend(torn_before);
        }
        found.faults.extend(torn);
        let (newest_bytes, first_in_newest) = newest;
        // One that cannot be read is left alone.
        if (1..self.segment_bytes / 2).contains(&newest_bytes) {
            let in_newest = |event: &&Event| event.sequence >= first_in_newest;
            self.carried = found.events.iter().filter(in_newest).cloned().collect();
            self.carried_from = self.segments.back().map(|segment| segment.path.clone());
        }
        found
    }

    /// Makes events durable, and that those before `done_below` are done with. The events' numbers follow `next` downwards
    /// without gaps or are fewer; `next` is the number after the last of them. After a failure nothing is promised of these
    /// events; all of them may be appended again.
    pub fn append(&mut self, events: &[Event], next: u64, done_below: u64) -> io::Result<()> {
        let result = match self.appendable {
            Some(bytes) if bytes < self.segment_bytes as u64 => {
                self.extend(bytes, events, next, done_below)
            }
            _ => self.begin(events, next, done_below),
        };
        if result.is_err() {
            // Nobody knows what is in it now: it is read at the next start, but not appended to.
            self.appendable = None;
            return result;
        }
        self.retire(done_below);
        Ok(())
    }

    fn extend(&mut self, at: u64, events: &[Event], next: u64, done_below: u64) -> io::Result<()> {
        let Some(newest) = self.segments.back_mut() else {
            return Err(io::Error::other("there is no file to append to"));
        };
        let bytes = records(events, next, done_below);
        newest.end = newest.end.max(next);
        self.disk.write_at(&newest.path, at, &bytes)?;
        self.disk.sync_file(&newest.path)?;
        self.appendable = Some(at + bytes.len() as u64);
        Ok(())
    }

    /// Begins another file with these events, and with those that are carried over.
    fn begin(&mut self, events: &[Event], next: u64, done_below: u64) -> io::Result<()> {
        let carried = self.carried.iter();
        let carried = carried.filter(|event| event.sequence >= done_below);
        let together: Vec<Event> = carried.chain(events).cloned().collect();
        let mut bytes = TITLE.to_vec();
        // Even without an event, it says which number comes next.
        bytes.extend(records(&[], next, done_below));
        bytes.extend(records(&together, next, done_below));
        // After a failure the same name is taken again: what the file may have is appended again, too.
        let name = format!("{:016x}{ENDING}", self.next_name);
        write_whole(&mut self.disk, &self.folder, &name, &bytes)?;
        self.next_name += 1;
        self.appendable = Some(bytes.len() as u64);
        self.carried = Vec::new();
        if let Some(before) = self.carried_from.take() {
            // If this fails, its events are read twice and kept once.
            let _ = self.disk.remove_file(&before);
            self.segments.retain(|segment| segment.path != before);
        }
        let path = self.folder.join(name);
        self.segments.push_back(Segment { path, end: next });
        Ok(())
    }

    /// Removes files whose events are all done with. The newest one knows the next number, and stays.
    fn retire(&mut self, done_below: u64) {
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
            && oldest.end <= done_below
            // If it fails, it is tried again the next time.
            && self.disk.remove_file(&oldest.path).is_ok()
        {
            self.segments.pop_front();
        }
    }

    /// The file system.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }
}

/// Bytes that an event takes.
pub(super) fn size(document: &[u8]) -> usize {
    HEADER_BYTES + document.len()
}

/// The records of these events; of none, a record that says what is done.
fn records(events: &[Event], next: u64, done_below: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(events.iter().map(|event| size(&event.document)).sum());
    for event in events {
        let record = Record {
            sequence: event.sequence,
            done_below,
            document: &event.document,
        };
        record.write(&mut bytes);
    }
    if events.is_empty() {
        let record = Record {
            sequence: next,
            done_below,
            document: &[],
        };
        record.write(&mut bytes);
    }
    bytes
}

fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    let is_ours = digits.len() == 16;
    is_ours.then(|| u64::from_str_radix(digits, 16).ok())?
}
