//! Asking for chunks: few at a time, so that detections are not held up, and again when no answer comes.
//!
//! How long an answer may take is learnt from those before. On a slow line a chunk is asked for only when the one before is
//! here, and after a rest of as long as that took: what is on its way is not asked for again, and half of the time belongs to
//! everything else, such as the broker's confirmations of events. Pure: times are passed in.

use super::chunks::{Chunk, Download};
use crate::disk::Disk;
use std::io;
use std::time::{Duration, Instant};
use ternwatch_ota::request::CHUNKS_AT_ONCE_MAX;

/// After so long without anything an answer is not expected any more, where answers are quick.
const PATIENCE_FIRST: Duration = Duration::from_secs(5);
/// The longest wait when nobody answers for long.
const PATIENCE_LAST: Duration = Duration::from_secs(60);
/// The longest wait on a slow line: a chunk in two and a half minutes is 1.7 kbit/s.
const PATIENCE_SLOW: Duration = Duration::from_secs(300);
/// An errand that takes longer is forgotten: its server's answers have bounds of their own, well below.
const ERRAND_MAX: Duration = Duration::from_secs(1800);

/// What has come is made durable after so long, however little it is: on a slow line a device may be switched off soon.
const KEEP_AFTER: Duration = Duration::from_secs(10);

/// So often in a row one way may give no answer before the other one is tried.
const DISAPPOINTMENTS_MAX: u32 = 2;

/// A download over the network.
#[derive(Debug)]
pub struct Fetch {
    /// What is here.
    pub download: Download,
    /// Whether what is complete is kept as it is for now.
    pub holds: bool,
    asked: Vec<Asked>,
    /// Since when nothing has come that was asked for.
    quiet_since: Instant,
    /// The same, but not begun anew by asking again: the next chunk tells how long one takes. None while none is on its way.
    waiting_since: Option<Instant>,
    patience: Duration,
    /// Chunks that may be on their way at a time.
    window: usize,
    errand: Option<Errand>,
    /// Nothing is asked for before that.
    rests_until: Option<Instant>,
    /// When what is here was made durable last.
    kept_at: Instant,
    /// Whether it is a web server's turn, where there are two ways.
    prefers_web: bool,
    /// How often in a row this way gave no answer.
    disappointments: u32,
}

/// A chunk that was asked for.
#[derive(Debug)]
struct Asked {
    index: usize,
    at: Instant,
    /// Whether one has come that was asked for later.
    is_overtaken: bool,
}

/// Somebody is on the way to a web server.
#[derive(Debug)]
struct Errand {
    since: Instant,
    has_brought: bool,
}

impl Fetch {
    /// Nothing was asked for yet.
    pub fn new(download: Download, now: Instant) -> Self {
        Self {
            download,
            holds: false,
            asked: Vec::with_capacity(CHUNKS_AT_ONCE_MAX),
            quiet_since: now,
            waiting_since: None,
            patience: PATIENCE_FIRST,
            window: 1,
            errand: None,
            rests_until: None,
            kept_at: now,
            prefers_web: true,
            disappointments: 0,
        }
    }

    /// Makes what is here durable, if that is due.
    pub fn keep<D: Disk>(&mut self, disk: &mut D, now: Instant) -> io::Result<()> {
        if now.saturating_duration_since(self.kept_at) < KEEP_AFTER {
            return Ok(());
        }
        self.kept_at = now;
        self.download.synchronize(disk)
    }

    /// The connection is a new one: what was asked for on the old one may not come.
    pub fn reconnected(&mut self) {
        self.asked.clear();
        self.waiting_since = None;
        self.rests_until = None;
        self.patience = PATIENCE_FIRST;
        self.window = 1;
    }

    /// The chunks to ask the broker's side for now.
    pub fn wanted(&mut self, now: Instant) -> Vec<usize> {
        let patience = self.patience;
        if !self.asked.is_empty() && now.saturating_duration_since(self.quiet_since) >= patience {
            self.asked.clear();
            self.window = 1;
            self.disappointed();
        }
        let is_lost = |asked: &Asked| {
            asked.is_overtaken && now.saturating_duration_since(asked.at) >= patience
        };
        self.asked.retain(|asked| !is_lost(asked));
        if self.asked.is_empty() {
            if self.rests_until.is_some_and(|until| now < until) {
                return Vec::new();
            }
            self.quiet_since = now;
            self.waiting_since.get_or_insert(now);
        }
        let room = self.window.saturating_sub(self.asked.len());
        let is_new = |index: &usize| self.asked.iter().all(|asked| asked.index != *index);
        let wanted: Vec<usize> = self.download.missing().filter(is_new).take(room).collect();
        self.asked.extend(wanted.iter().map(|index| Asked {
            index: *index,
            at: now,
            is_overtaken: false,
        }));
        wanted
    }

    /// The chunks to send for at a web server now: none, as long as somebody is on the way or it is too early for another try.
    pub fn errand(&mut self, now: Instant) -> Vec<usize> {
        self.asked.clear();
        self.waiting_since = None;
        let is_on_the_way =
            |errand: &Errand| now.saturating_duration_since(errand.since) < ERRAND_MAX;
        let rests = self.rests_until.is_some_and(|until| now < until);
        if rests || self.errand.as_ref().is_some_and(is_on_the_way) {
            return Vec::new();
        }
        self.errand = Some(Errand {
            since: now,
            has_brought: false,
        });
        self.download.missing().take(CHUNKS_AT_ONCE_MAX).collect()
    }

    /// Whoever was on the way to the web server is back.
    pub fn returned(&mut self, now: Instant) {
        let errand = self.errand.take();
        if errand.is_some_and(|errand| !errand.has_brought) {
            self.rests_until = Some(now + self.patience);
            self.disappointed();
        }
    }

    fn disappointed(&mut self) {
        // On a slow line it is longer already.
        self.patience = (2 * self.patience).min(PATIENCE_LAST).max(self.patience);
        self.disappointments += 1;
        if self.disappointments >= DISAPPOINTMENTS_MAX {
            self.disappointments = 0;
            self.prefers_web = !self.prefers_web;
            // The other way need not wait for that.
            self.rests_until = None;
        }
    }

    /// Whether to try a web server now, where there are two ways: whichever gives no answer a few times in a row makes room
    /// for the other one.
    pub fn prefers_web(&self) -> bool {
        self.prefers_web
    }

    /// Takes a chunk that came. A wrong one is asked for again only when patience ends, so that nobody can make the
    /// device ask faster.
    pub fn take<D: Disk>(
        &mut self,
        disk: &mut D,
        index: usize,
        bytes: &[u8],
        now: Instant,
    ) -> io::Result<Chunk> {
        let taken = self.download.take(disk, index, bytes)?;
        if taken == Chunk::Stored {
            self.came(index, now);
        }
        Ok(taken)
    }

    fn came(&mut self, index: usize, now: Instant) {
        if let Some(place) = self.asked.iter().position(|asked| asked.index == index) {
            let came = self.asked.remove(place);
            for asked in &mut self.asked {
                asked.is_overtaken |= asked.at < came.at;
            }
        }
        let since = self.waiting_since.take().unwrap_or(now);
        if !self.asked.is_empty() {
            self.waiting_since = Some(now);
        }
        let took = now.saturating_duration_since(since);
        let twice = 2 * took;
        self.patience = twice.clamp(PATIENCE_FIRST, PATIENCE_SLOW);
        let is_slow = twice > PATIENCE_FIRST;
        self.window = if is_slow { 1 } else { CHUNKS_AT_ONCE_MAX };
        self.rests_until = is_slow.then(|| now + took.min(PATIENCE_LAST));
        self.quiet_since = now;
        self.disappointments = 0;
        if let Some(errand) = &mut self.errand {
            errand.has_brought = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::offer::{CHUNK_BYTES, Offer};
    use super::*;
    use crate::disk::SystemDisk;
    use std::collections::VecDeque;

    struct Bench {
        // Keeps the download's files.
        _folder: tempfile::TempDir,
        file: Vec<u8>,
        fetch: Fetch,
        start: Instant,
    }

    impl Bench {
        fn of_chunks(count: usize) -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let file = vec![9; count * CHUNK_BYTES];
            let offer = Offer::of("job", "person", 1, &file);
            let download = Download::open(&mut SystemDisk, folder.path(), offer);
            let start = Instant::now();
            Self {
                _folder: folder,
                file,
                fetch: Fetch::new(download.expect("the disk works"), start),
                start,
            }
        }

        fn take(&mut self, index: usize, now: Instant) -> Chunk {
            let chunk = &self.file[index * CHUNK_BYTES..(index + 1) * CHUNK_BYTES];
            let taken = self.fetch.take(&mut SystemDisk, index, chunk, now);
            taken.expect("the disk works")
        }
    }

    const BLINK: Duration = Duration::from_millis(10);

    #[test]
    fn few_chunks_are_asked_for_at_a_time_and_again_without_an_answer() {
        let mut bench = Bench::of_chunks(8);
        let mut now = bench.start;
        assert_eq!(bench.fetch.wanted(now), [0], "nothing is known of the line");
        assert!(bench.fetch.wanted(now).is_empty(), "it is on its way");
        now += BLINK;
        assert_eq!(bench.take(0, now), Chunk::Stored);
        assert_eq!(bench.fetch.wanted(now), [1, 2, 3, 4], "the line is quick");
        assert!(bench.fetch.wanted(now).is_empty(), "four are on their way");
        now += BLINK;
        assert_eq!(bench.take(2, now), Chunk::Stored);
        assert_eq!(bench.fetch.wanted(now), [5]);
        let wrong = bench.fetch.take(&mut SystemDisk, 3, b"wrong", now);
        assert_eq!(wrong.expect("the disk works"), Chunk::Wrong);
        assert!(
            bench.fetch.wanted(now + PATIENCE_FIRST / 2).is_empty(),
            "no haste"
        );
        now += PATIENCE_FIRST;
        assert_eq!(
            bench.fetch.wanted(now),
            [1],
            "nobody answers: one is enough to see"
        );
        bench.fetch.reconnected();
        assert_eq!(bench.fetch.wanted(now), [1]);
    }

    #[test]
    fn a_chunk_that_others_overtook_is_asked_for_again_without_a_pause_of_theirs() {
        let mut bench = Bench::of_chunks(40);
        let mut now = bench.start;
        assert_eq!(bench.fetch.wanted(now), [0]);
        bench.take(0, now);
        assert_eq!(bench.fetch.wanted(now), [1, 2, 3, 4]);
        // The first of them was lost. The others come, one a second, and so do those after them.
        let mut coming = VecDeque::from([2, 3, 4]);
        let mut again_at = None;
        for second in 1..=10 {
            now = bench.start + Duration::from_secs(second);
            let next = coming.pop_front().expect("something is on its way");
            assert_eq!(bench.take(next, now), Chunk::Stored);
            for index in bench.fetch.wanted(now) {
                if index == 1 {
                    again_at.get_or_insert(second);
                }
                coming.push_back(index);
            }
        }
        assert_eq!(again_at, Some(PATIENCE_FIRST.as_secs()));
    }

    /// A line over which a chunk takes so many seconds, with a queue in front of it: chunks that were sent, and seconds.
    fn over_a_line(chunks: usize, chunk_s: u64) -> (usize, u64) {
        let mut bench = Bench::of_chunks(chunks);
        let mut queue = VecDeque::new();
        let (mut sent, mut left_s) = (0, chunk_s);
        for second in 0..1_000_000 {
            let now = bench.start + Duration::from_secs(second);
            if !queue.is_empty() {
                left_s -= 1;
            }
            if left_s == 0 {
                let index = queue.pop_front().expect("one was on its way");
                bench.take(index, now);
                left_s = chunk_s;
            }
            let wanted = bench.fetch.wanted(now);
            sent += wanted.len();
            queue.extend(wanted);
            if bench.fetch.download.is_complete() {
                return (sent, second);
            }
        }
        panic!("it has no end");
    }

    #[test]
    fn on_a_slow_line_nothing_is_sent_much_more_often_than_once() {
        const CHUNKS: usize = 30;
        // 260, 130, 52, 32, 13 and 6.5 kbit/s.
        for chunk_s in [1, 2, 5, 8, 20, 40] {
            let (sent, seconds) = over_a_line(CHUNKS, chunk_s);
            let least_s = CHUNKS as u64 * chunk_s;
            assert!(sent <= CHUNKS + 5, "{chunk_s} s a chunk: {sent} were sent");
            // Where the line is slow it is left to others for half of the time.
            let bound_s = if chunk_s > 2 { 2 * least_s } else { least_s };
            assert!(
                seconds <= bound_s + 8 * chunk_s,
                "{chunk_s} s a chunk: {seconds} s instead of {least_s}"
            );
        }
    }

    #[test]
    fn a_way_that_gives_no_answer_makes_room_for_the_other_one_and_one_that_does_stays() {
        let mut bench = Bench::of_chunks(6);
        let mut now = bench.start;
        let mut ways = String::new();
        for _ in 0..8 {
            if bench.fetch.prefers_web() {
                ways.push('w');
                assert_eq!(bench.fetch.errand(now).len(), 4);
                assert!(bench.fetch.errand(now).is_empty(), "somebody is on the way");
                bench.fetch.returned(now);
                let is_turn = bench.fetch.prefers_web();
                assert!(!is_turn || bench.fetch.errand(now).is_empty(), "too early");
            } else {
                ways.push('b');
                assert_eq!(bench.fetch.wanted(now), [0]);
            }
            now += PATIENCE_LAST;
        }
        // That the broker's side does not answer is known when it is asked again.
        assert_eq!(ways, "wwbbbwwb");
        assert_eq!(bench.take(0, now), Chunk::Stored);
        assert!(
            !bench.fetch.prefers_web(),
            "it was the broker that answered"
        );
    }

    #[test]
    fn an_errand_that_brings_a_part_is_followed_by_the_next_one_at_once() {
        let mut bench = Bench::of_chunks(6);
        let now = bench.start;
        assert_eq!(bench.fetch.errand(now), [0, 1, 2, 3]);
        let later = now + Duration::from_secs(100);
        bench.take(0, later);
        bench.fetch.returned(later);
        assert_eq!(bench.fetch.errand(later), [1, 2, 3, 4]);
        // Back with nothing, or with what is not right.
        bench.fetch.returned(later);
        assert!(bench.fetch.errand(later + PATIENCE_FIRST / 2).is_empty());
        assert_eq!(bench.fetch.errand(later + PATIENCE_LAST).len(), 4);
    }

    #[test]
    fn when_nobody_answers_the_device_asks_less_often() {
        let mut bench = Bench::of_chunks(1);
        let asked = (0..3600).filter(|second| {
            let now = bench.start + Duration::from_secs(*second);
            !bench.fetch.wanted(now).is_empty()
        });
        assert_eq!(
            asked.count(),
            4 + 59,
            "after 5, 10, 20, 40 s, then every minute"
        );
    }
}
