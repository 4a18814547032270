//! Asking for chunks: few at a time, so that detections are not held up, and again when no answer comes.

use super::chunks::{Chunk, Download};
use crate::disk::Disk;
use std::io;
use std::time::{Duration, Instant};
use ternwatch_ota::request::CHUNKS_AT_ONCE_MAX;

/// An answer that takes longer is not expected any more.
const PATIENCE_FIRST: Duration = Duration::from_secs(5);
/// The longest wait, when nobody answers for long.
const PATIENCE_LAST: Duration = Duration::from_secs(60);

/// So often in a row one way may give no answer before the other one is tried.
const DISAPPOINTMENTS_MAX: u32 = 2;

/// A download over the network.
#[derive(Debug)]
pub struct Fetch {
    /// What is here.
    pub download: Download,
    in_flight: Vec<(usize, Instant)>,
    patience: Duration,
    /// How often in a row patience has ended.
    disappointments: u32,
    /// Whether what is complete is kept as it is for now.
    pub holds: bool,
}

impl Fetch {
    /// Nothing was asked for yet.
    pub fn new(download: Download) -> Self {
        Self {
            download,
            in_flight: Vec::with_capacity(CHUNKS_AT_ONCE_MAX),
            patience: PATIENCE_FIRST,
            disappointments: 0,
            holds: false,
        }
    }

    /// The connection is a new one: what was asked for on the old one may not come.
    pub fn reconnected(&mut self) {
        self.in_flight.clear();
        self.patience = PATIENCE_FIRST;
    }

    /// The chunks to ask for now.
    pub fn wanted(&mut self, now: Instant) -> Vec<usize> {
        let (patience, before) = (self.patience, self.in_flight.len());
        self.in_flight
            .retain(|(_, asked_at)| now.saturating_duration_since(*asked_at) < patience);
        if self.in_flight.len() < before {
            self.patience = (2 * patience).min(PATIENCE_LAST);
            self.disappointments = self.disappointments.wrapping_add(1);
        }
        let room = CHUNKS_AT_ONCE_MAX - self.in_flight.len();
        let is_new = |index: &usize| self.in_flight.iter().all(|(asked, _)| asked != index);
        let wanted: Vec<usize> = self.download.missing().filter(is_new).take(room).collect();
        self.in_flight
            .extend(wanted.iter().map(|index| (*index, now)));
        wanted
    }

    /// Whether to try a web server now, where there are two ways: whichever gives no answer a few times in a row makes room
    /// for the other one.
    pub fn prefers_web(&self) -> bool {
        (self.disappointments / DISAPPOINTMENTS_MAX).is_multiple_of(2)
    }

    /// Takes a chunk that came. A wrong one is asked for again only when patience ends, so that nobody can make the
    /// device ask faster.
    pub fn take<D: Disk>(&mut self, disk: &mut D, index: usize, bytes: &[u8]) -> io::Result<Chunk> {
        let taken = self.download.take(disk, index, bytes)?;
        if taken == Chunk::Stored {
            self.in_flight.retain(|(asked, _)| *asked != index);
            self.patience = PATIENCE_FIRST;
            self.disappointments = 0;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::offer::{CHUNK_BYTES, Offer};
    use super::*;
    use crate::disk::SystemDisk;

    #[test]
    fn few_chunks_are_asked_for_at_a_time_and_again_without_an_answer() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = vec![9; 6 * CHUNK_BYTES];
        let offer = Offer::of("job", "person", 1, &file);
        let download = Download::open(&mut SystemDisk, folder.path(), offer);
        let mut fetch = Fetch::new(download.expect("the disk works"));
        let start = Instant::now();
        assert_eq!(fetch.wanted(start), [0, 1, 2, 3]);
        assert!(fetch.wanted(start).is_empty(), "four are in flight");
        let take = |fetch: &mut Fetch, index: usize, bytes: &[u8]| {
            fetch
                .take(&mut SystemDisk, index, bytes)
                .expect("the disk works")
        };
        assert_eq!(take(&mut fetch, 1, &file[..CHUNK_BYTES]), Chunk::Stored);
        assert_eq!(fetch.wanted(start), [4]);
        assert_eq!(take(&mut fetch, 2, b"wrong"), Chunk::Wrong);
        assert!(
            fetch.wanted(start + PATIENCE_FIRST / 2).is_empty(),
            "no haste"
        );
        assert_eq!(fetch.wanted(start + PATIENCE_FIRST), [0, 2, 3, 4]);
        fetch.reconnected();
        assert_eq!(fetch.wanted(start), [0, 2, 3, 4]);
    }

    #[test]
    fn a_way_that_gives_no_answer_makes_room_for_the_other_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = vec![9; 6 * CHUNK_BYTES];
        let offer = Offer::of("job", "person", 1, &file);
        let download = Download::open(&mut SystemDisk, folder.path(), offer);
        let mut fetch = Fetch::new(download.expect("the disk works"));
        let mut now = Instant::now();
        let mut ways = String::new();
        for _ in 0..7 {
            assert!(!fetch.wanted(now).is_empty());
            ways.push(if fetch.prefers_web() { 'w' } else { 'b' });
            now += PATIENCE_LAST;
        }
        assert_eq!(ways, "wwbbwwb");
        let taken = fetch.take(&mut SystemDisk, 0, &file[..CHUNK_BYTES]);
        assert_eq!(taken.expect("the disk works"), Chunk::Stored);
        assert!(fetch.prefers_web());
    }

    #[test]
    fn when_nobody_answers_the_device_asks_less_often() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let offer = Offer::of("job", "person", 1, b"small");
        let download = Download::open(&mut SystemDisk, folder.path(), offer);
        let mut fetch = Fetch::new(download.expect("the disk works"));
        let start = Instant::now();
        let asked = (0..3600).filter(|second| {
            let now = start + Duration::from_secs(*second);
            !fetch.wanted(now).is_empty()
        });
        assert_eq!(
            asked.count(),
            4 + 59,
            "after 5, 10, 20, 40 s, then every minute"
        );
    }
}
