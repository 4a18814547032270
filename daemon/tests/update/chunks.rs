//! Downloads in parts: whatever order, loss, damage and interruption, the file is whole in the end or refused.

use crate::faults::{CUTS, Cut, Fault, SimulatedDisk};
use proptest::prelude::*;
use std::path::Path;
use ternwatch_daemon::disk::Disk;
use ternwatch_daemon::update::chunks::{Chunk, Download};
use ternwatch_daemon::update::offer::{CHUNK_BYTES, Offer};

const ROOT: &str = "/state";
const LEN: usize = 20 * CHUNK_BYTES + 777;

fn file(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed)
        .collect()
}

fn offer(file: &[u8]) -> Offer {
    Offer::of("job", "person", 3, file)
}

fn disk() -> SimulatedDisk {
    SimulatedDisk::with_folder(Path::new(ROOT))
}

fn open(disk: &mut SimulatedDisk, file: &[u8]) -> Download {
    Download::open(disk, Path::new(ROOT), offer(file)).expect("the disk works")
}

fn chunk(file: &[u8], index: usize) -> &[u8] {
    file.chunks(CHUNK_BYTES)
        .nth(index)
        .expect("within the file")
}

fn fetch_rest(disk: &mut SimulatedDisk, download: &mut Download, file: &[u8]) -> usize {
    let missing: Vec<usize> = download.missing().collect();
    for index in &missing {
        let taken = download.take(disk, *index, chunk(file, *index));
        assert_eq!(taken.expect("the disk works"), Chunk::Stored);
    }
    missing.len()
}

#[test]
fn reordered_and_duplicate_chunks_make_the_same_file() {
    let (mut disk, file) = (disk(), file(1, LEN));
    let mut download = open(&mut disk, &file);
    let count = file.len().div_ceil(CHUNK_BYTES);
    for index in (0..count).rev() {
        let take = |download: &mut Download, disk: &mut SimulatedDisk| {
            download
                .take(disk, index, chunk(&file, index))
                .expect("the disk works")
        };
        assert_eq!(take(&mut download, &mut disk), Chunk::Stored);
        assert_eq!(take(&mut download, &mut disk), Chunk::Duplicate);
    }
    assert!(download.is_complete());
    assert_eq!(
        download.finish(&mut disk).expect("the disk works"),
        Some(file)
    );
}

#[test]
fn corrupt_short_long_and_misplaced_chunks_are_refused_and_asked_for_again() {
    let (mut disk, file) = (disk(), file(1, LEN));
    let mut download = open(&mut disk, &file);
    let mut corrupt = chunk(&file, 3).to_vec();
    corrupt[100] ^= 1;
    let long = [chunk(&file, 3), b"x"].concat();
    let wrong: [(usize, &[u8]); 7] = [
        (3, &corrupt),
        (3, &chunk(&file, 3)[1..]),
        (3, &long),
        (3, b""),
        (3, chunk(&file, 4)),
        (21, chunk(&file, 3)),
        (usize::MAX, chunk(&file, 3)),
    ];
    for (index, bytes) in wrong {
        assert_eq!(
            download
                .take(&mut disk, index, bytes)
                .expect("the disk works"),
            Chunk::Wrong
        );
    }
    assert_eq!(download.missing().count(), 21);
    fetch_rest(&mut disk, &mut download, &file);
    assert_eq!(
        download.finish(&mut disk).expect("the disk works"),
        Some(file)
    );
}

#[test]
fn an_interrupted_download_goes_on_where_it_was() {
    let (mut disk, file) = (disk(), file(1, LEN));
    let mut download = open(&mut disk, &file);
    for index in 0..12 {
        download
            .take(&mut disk, index, chunk(&file, index))
            .expect("the disk works");
    }
    // Eight are synchronized together, so that at most seven are lost.
    for cut in CUTS {
        let mut after = disk.after(cut);
        let mut download = open(&mut after, &file);
        assert!(download.received() >= 8, "{cut:?}: {}", download.received());
        let fetched = fetch_rest(&mut after, &mut download, &file);
        assert!(fetched <= 13, "{cut:?}: fetched {fetched} again");
        assert_eq!(
            download
                .finish(&mut after)
                .expect("the disk works")
                .as_ref(),
            Some(&file)
        );
    }
    download.synchronize(&mut disk).expect("the disk works");
    assert_eq!(open(&mut disk.after(Cut::Lost), &file).received(), 12);
}

#[test]
fn a_power_cut_after_any_step_never_makes_a_wrong_file() {
    let file = file(1, LEN);
    for step in 0.. {
        let mut disk = disk();
        disk.fault = Fault::From(step);
        let first = Download::open(&mut disk, Path::new(ROOT), offer(&file));
        let is_done = first.is_ok_and(|mut download| {
            let mut indices = 0..download.missing().count();
            indices.all(|index| download.take(&mut disk, index, chunk(&file, index)).is_ok())
        });
        for cut in CUTS {
            let mut after = disk.after(cut);
            let mut download = open(&mut after, &file);
            if is_done {
                assert!(download.is_complete(), "{cut:?}");
            }
            fetch_rest(&mut after, &mut download, &file);
            let finished = download.finish(&mut after).expect("the disk works");
            assert_eq!(finished.as_ref(), Some(&file), "step {step}, {cut:?}");
        }
        if is_done {
            assert!(step > 30, "only {step} steps");
            return;
        }
    }
}

#[test]
fn a_write_that_fails_once_costs_chunks_and_not_the_download() {
    let file = file(1, LEN);
    for step in 0.. {
        let mut disk = disk();
        disk.fault = Fault::Once(step);
        let count = file.len().div_ceil(CHUNK_BYTES);
        let mut fetch = || -> std::io::Result<Option<Vec<u8>>> {
            let mut download = Download::open(&mut disk, Path::new(ROOT), offer(&file))?;
            for index in 0..count {
                download.take(&mut disk, index, chunk(&file, index))?;
            }
            download.finish(&mut disk)
        };
        let Err(_) = fetch() else {
            assert!(step > 30, "only {step} steps");
            return;
        };
        // The card has room again: the same offer goes on with what is here.
        let mut download = open(&mut disk, &file);
        fetch_rest(&mut disk, &mut download, &file);
        let finished = download.finish(&mut disk).expect("the disk works");
        assert_eq!(finished.as_ref(), Some(&file), "step {step}");
    }
}

#[test]
fn chunks_of_two_offers_cannot_mix() {
    let (mut disk, one, other) = (disk(), file(1, LEN), file(2, LEN));
    let mut download = open(&mut disk, &one);
    for index in 0..16 {
        download
            .take(&mut disk, index, chunk(&one, index))
            .expect("the disk works");
    }
    let mut second = open(&mut disk, &other);
    assert_eq!(second.received(), 0, "another file begins anew");
    let taken = second
        .take(&mut disk, 0, chunk(&one, 0))
        .expect("the disk works");
    assert_eq!(taken, Chunk::Wrong);
    // The same file with another list of chunks is another offer too.
    let mut lie = offer(&other);
    lie.chunks.swap(0, 1);
    fetch_rest(&mut disk, &mut second, &other);
    let lying = Download::open(&mut disk, Path::new(ROOT), lie).expect("the disk works");
    assert_eq!(lying.received(), 0);
}

#[test]
fn an_offer_that_contradicts_itself_leaves_nothing_behind() {
    let (mut disk, file) = (disk(), file(1, LEN));
    let mut lie = offer(&file);
    lie.sha256 = ternwatch_daemon::update::digest::Digest::of(b"another file");
    let mut download = Download::open(&mut disk, Path::new(ROOT), lie).expect("the disk works");
    fetch_rest(&mut disk, &mut download, &file);
    assert_eq!(download.finish(&mut disk).expect("the disk works"), None);
    let left = disk.list(&Path::new(ROOT).join("incoming"));
    assert!(left.expect("the disk works").is_empty());
}

#[test]
fn a_damaged_bitmap_or_file_costs_chunks_and_not_the_download() {
    let file = file(1, LEN);
    for name in ["bitmap", "data", "offer"] {
        let mut disk = disk();
        let mut download = open(&mut disk, &file);
        fetch_rest(&mut disk, &mut download, &file);
        let path = Path::new(ROOT)
            .join("incoming")
            .join(offer(&file).sha256.to_string());
        disk.damage(&path.join(name), |bytes| bytes[0] ^= 0xff);
        let mut download = open(&mut disk, &file);
        assert!(!download.is_complete(), "{name}");
        fetch_rest(&mut disk, &mut download, &file);
        let finished = download.finish(&mut disk).expect("the disk works");
        assert_eq!(finished.as_ref(), Some(&file), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_chunks_and_restarts_makes_the_file(
        len in 1..LEN,
        history in prop::collection::vec((0_usize..22, 0_usize..22, 0_u8..4), 0..80),
    ) {
        let (mut disk, file) = (disk(), file(3, len));
        let mut download = open(&mut disk, &file);
        let count = file.len().div_ceil(CHUNK_BYTES);
        for (index, from, what) in history {
            match what {
                0 => {
                    let cut = CUTS[index % CUTS.len()];
                    disk = disk.after(cut);
                    download = open(&mut disk, &file);
                }
                _ => {
                    let from = if what == 1 { from % count } else { index % count };
                    let taken = download.take(&mut disk, index, chunk(&file, from));
                    let taken = taken.expect("the disk works");
                    prop_assert_eq!(taken == Chunk::Wrong, index != from && Some(chunk(&file, from)) != file.chunks(CHUNK_BYTES).nth(index));
                }
            }
        }
        fetch_rest(&mut disk, &mut download, &file);
        prop_assert_eq!(download.finish(&mut disk).expect("the disk works"), Some(file));
    }
}
