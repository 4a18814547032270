//! The fuzz targets with the stable toolchain: all of the corpus, then some seconds of seeded random changes of it.

#[path = "../../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate makes it reachable")]
mod targets;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

/// Seconds for all targets together, which run beside each other, unless the environment says how many.
const SECONDS: u64 = 2;
const SECONDS_VARIABLE: &str = "FUZZ_SECONDS";
/// Longest input in bytes.
const LEN_MAX: usize = 64 << 10;
/// Written with a failure, so that it can be repeated.
const SEED: u64 = 0x7465_726e;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("readable").path())
        .collect();
    // The same order everywhere, so that the seed means the same.
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("readable"))
        .collect()
}

/// A number below the bound; 0 if there is none.
fn below(random: &mut fastrand::Rng, bound: usize) -> usize {
    random.usize(..bound.max(1))
}

/// Changes an input in one of the ways in which files and messages go wrong, or are made to.
fn mutate(data: &mut Vec<u8>, others: &[Vec<u8>], random: &mut fastrand::Rng) {
    const NUMBERS: [&[u8]; 6] = [
        b"0",
        b"-1",
        b"4294967296",
        b"1e999",
        b"18446744073709551616",
        b"null",
    ];
    let at = below(random, data.len());
    match below(random, 9) {
        0 if !data.is_empty() => data[at] ^= 1 << below(random, 8),
        1 if !data.is_empty() => data[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{'][below(random, 7)],
        2 => data.truncate(at),
        3 => data.insert(at, random.u8(..)),
        4 => {
            // A part again.
            let end = at + below(random, data.len() - at).min(64);
            let part = data[at..end].to_vec();
            data.splice(at..at, part);
        }
        5 => {
            let end = at + below(random, data.len() - at).min(16);
            data.drain(at..end);
        }
        6 => {
            data.splice(
                at..at,
                NUMBERS[below(random, NUMBERS.len())].iter().copied(),
            );
        }
        7 => {
            // The end of another one.
            let other = &others[below(random, others.len())];
            data.truncate(at);
            data.extend(&other[below(random, other.len())..]);
        }
        _ => {
            // A digit for a digit: the text stays what it is, its numbers do not.
            if let Some(place) = data.iter().skip(at).position(u8::is_ascii_digit) {
                data[at + place] = random.u8(b'0'..=b'9');
            }
        }
    }
    data.truncate(LEN_MAX);
}

/// How many inputs the target was given.
fn run(name: &str, target: Target, time: Duration) -> u64 {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus.iter().for_each(|data| target(data));
    let mut random = fastrand::Rng::with_seed(SEED);
    let (until, mut count) = (Instant::now() + time, 0);
    while Instant::now() < until {
        let mut data = corpus[below(&mut random, corpus.len())].clone();
        for _ in 0..1 + below(&mut random, 6) {
            mutate(&mut data, &corpus, &mut random);
        }
        let outcome = std::panic::catch_unwind(|| target(&data));
        assert!(
            outcome.is_ok(),
            "{name}, seed {SEED:#x}, input {count}: {:?}",
            String::from_utf8_lossy(&data)
        );
        count += 1;
    }
    count
}

#[test]
fn every_target_survives_its_corpus_and_seconds_of_random_changes() {
    let seconds = std::env::var(SECONDS_VARIABLE);
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("whole seconds"));
    let time = Duration::from_secs(seconds);
    let counts: Vec<(&str, u64)> = std::thread::scope(|scope| {
        let running = TARGETS
            .iter()
            .map(|(name, target)| (*name, scope.spawn(move || run(name, *target, time))));
        let running: Vec<_> = running.collect();
        let counts = running
            .into_iter()
            .map(|(name, thread)| (name, thread.join()));
        counts
            .map(|(name, count)| (name, count.expect("the target survives")))
            .collect()
    });
    for (name, count) in counts {
        println!("{name}: {count} inputs");
        assert!(count > 0, "{name} was given nothing");
    }
}
