//! The tracker against scenes with a known truth, and against anything at all.

mod benchmark;
mod scene;
mod score;

use proptest::prelude::*;
use scene::{Chance, Quality, Seen, Walker, render};
use score::Score;
use std::collections::{BTreeMap, BTreeSet};
use ternwatch_daemon::track::{Change, Config, POINTS_MAX, State, TRACKS_MAX, Tracker};
use ternwatch_detector::Detection;

const SCORE_HIGH: f32 = 0.4;
const SECOND_NS: u64 = 1_000_000_000;

const PERFECT: Quality = Quality {
    missed: 0.0,
    jitter: 0.0,
    false_positives: 0.0,
};
/// Every fourth sighting is missed, boxes tremble, and every fifth frame has a box without anybody in it.
const POOR: Quality = Quality {
    missed: 0.25,
    jitter: 0.02,
    false_positives: 0.2,
};

fn config() -> Config {
    Config {
        score_low: 0.1,
        confirm_s: 0.3,
        lost_s: 2.0,
        update_s: 1.0,
        stationary_s: 4.0,
    }
}

fn tracker() -> Tracker {
    Tracker::new(&config(), SCORE_HIGH)
}

/// What a tracker made of a scene.
#[derive(Debug, Default)]
struct Outcome {
    score: Score,
    /// Per id: what happened to it, in order, and when.
    histories: BTreeMap<u64, Vec<(Change, u64)>>,
    stationary: BTreeSet<u64>,
}

impl Outcome {
    fn take_changes(&mut self, tracker: &Tracker, at_ns: u64) {
        for (change, track) in tracker.changes() {
            self.histories
                .entry(track.id())
                .or_default()
                .push((change, at_ns));
            if track.is_stationary() {
                self.stationary.insert(track.id());
            }
        }
    }
}

fn follow(scene: &[Seen]) -> Outcome {
    let mut tracker = tracker();
    let mut outcome = Outcome::default();
    for seen in scene {
        tracker.step(seen.at_ns, &seen.detections);
        outcome.take_changes(&tracker, seen.at_ns);
        let present: Vec<(u64, [f32; 4])> = tracker
            .tracks()
            .filter(|track| track.state() == State::Confirmed)
            .map(|track| (track.id(), track.xyxy()))
            .collect();
        outcome.score.add(&seen.truth, &present);
    }
    tracker.finish();
    outcome.take_changes(&tracker, scene.last().map_or(0, |seen| seen.at_ns));
    outcome
}

/// Two people who meet in the middle of the street and walk on; the nearer one hides the other.
fn crossing() -> [Walker; 2] {
    let walker = |x, speed, y| Walker {
        begins: 0.0,
        ends: 8.0,
        from: [x, y],
        speed: [speed, 0.0],
        height: 120.0,
    };
    [walker(40.0, 70.0, 300.0), walker(600.0, -70.0, 320.0)]
}

/// A street with a dozen people who come and go in both directions.
fn street() -> Vec<Walker> {
    let mut chance = Chance::new(11);
    (0u8..12)
        .map(|number| {
            let from_left = number % 2 == 0;
            let height = 70.0 + 60.0 * chance.part();
            let speed = height * (0.5 + 0.5 * chance.part());
            Walker {
                begins: f32::from(number) * 1.5,
                ends: 40.0,
                from: [if from_left { 10.0 } else { 630.0 }, height * 3.2],
                speed: [if from_left { speed } else { -speed }, 0.0],
                height,
            }
        })
        .collect()
}

#[test]
fn people_who_cross_keep_their_identities() {
    for (rate, seed) in [(5, 1), (10, 2), (15, 3), (30, 4)] {
        let outcome = follow(&render(&crossing(), 8.0, rate, PERFECT, seed));
        assert_eq!(outcome.score.switches, 0, "{rate} frames a second");
        assert_eq!(outcome.histories.len(), 2, "{:?}", outcome.histories);
        let mota = outcome.score.mota();
        assert!(mota > 0.85, "{mota} at {rate} frames a second");
    }
}

/// The bounds are a little below what is measured: at five frames a second everybody is believed a fifth of a second later than at ten,
/// and walks further between two sightings.
#[test]
fn a_street_seen_by_a_poor_detector_is_followed_whatever_the_frame_rate() {
    for (rate, mota_mean_min, mota_min, switches_max) in [
        (5, 0.83, 0.78, 20),
        (10, 0.88, 0.86, 15),
        (20, 0.89, 0.88, 13),
    ] {
        let (mut sum, mut least, mut switches) = (0.0, 1.0f64, 0);
        for seed in 1..=10 {
            let outcome = follow(&render(&street(), 30.0, rate, POOR, seed));
            let mota = outcome.score.mota();
            (sum, least) = (sum + mota, least.min(mota));
            switches += outcome.score.switches;
        }
        let mean = sum / 10.0;
        let measured = format!(
            "{rate} frames a second: MOTA {mean:.3}, {least:.3} at least, {switches} switches in ten runs with a dozen people each"
        );
        println!("{measured}");
        assert!(mean > mota_mean_min && least > mota_min, "{measured}");
        assert!(switches <= switches_max, "{measured}");
    }
}

#[test]
fn half_of_the_frames_give_the_same_tracks() {
    // Everybody walks on their own, so that who is who does not hang on chance.
    let walkers: Vec<Walker> = (0u8..4)
        .map(|number| Walker {
            begins: f32::from(number),
            ends: 12.0 + f32::from(number),
            from: [20.0, 120.0 + 110.0 * f32::from(number)],
            speed: [35.0 + 5.0 * f32::from(number), 0.0],
            height: 100.0,
        })
        .collect();
    let quality = Quality {
        jitter: 0.02,
        ..PERFECT
    };
    let spans = |rate| {
        let outcome = follow(&render(&walkers, 18.0, rate, quality, 3));
        assert_eq!(outcome.score.switches, 0, "{rate} frames a second");
        let spans = outcome.histories.values().map(|history| {
            let second = |index: usize| history[index].1 as f64 / SECOND_NS as f64;
            (second(0), second(history.len() - 1))
        });
        spans.collect::<Vec<_>>()
    };
    let fast = spans(20);
    assert_eq!(fast.len(), 4);
    for rate in [10, 5] {
        let slow = spans(rate);
        assert_eq!(slow.len(), fast.len(), "{rate} frames a second");
        for (fast, slow) in fast.iter().zip(&slow) {
            let frame = 1.0 / f64::from(rate);
            assert!(
                (fast.0 - slow.0).abs() <= 3.0 * frame,
                "began {fast:?} and {slow:?}"
            );
            assert!(
                (fast.1 - slow.1).abs() <= 2.0 * frame,
                "ended {fast:?} and {slow:?}"
            );
        }
    }
}

#[test]
fn a_gap_shorter_than_the_limit_keeps_the_identity_and_a_longer_one_ends_it() {
    let scene = |gap: std::ops::Range<f32>| {
        let mut scene = render(&crossing()[..1], 8.0, 10, PERFECT, 1);
        for seen in &mut scene {
            if gap.contains(&(seen.at_ns as f32 / 1e9)) {
                seen.detections.clear();
            }
        }
        follow(&scene)
    };
    let short = scene(3.0..4.5);
    assert_eq!(short.histories.len(), 1, "{:?}", short.histories);
    let long = scene(3.0..6.0);
    assert_eq!(long.histories.len(), 2, "{:?}", long.histories);
    let ended_at = long.histories[&1].last().expect("it ended").1;
    // Last seen at 2.9 s, and 2 s are allowed.
    assert_eq!(ended_at, 5 * SECOND_NS);
}

#[test]
fn a_camera_that_was_away_ends_everything_with_its_first_frame() {
    let mut tracker = tracker();
    let scene = render(&crossing(), 2.0, 10, PERFECT, 1);
    for seen in &scene {
        tracker.step(seen.at_ns, &seen.detections);
    }
    assert_eq!(tracker.tracks().count(), 2);
    tracker.step(600 * SECOND_NS, &scene[19].detections);
    let ends = tracker
        .changes()
        .filter(|(change, _)| *change == Change::End);
    assert_eq!(ends.count(), 2);
    assert_eq!(tracker.tracks().count(), 0, "nothing is believed at once");
}

#[test]
fn somebody_half_hidden_is_followed_by_a_low_score() {
    let mut scene = render(&crossing()[..1], 6.0, 10, PERFECT, 1);
    for seen in &mut scene {
        let is_hidden = seen.at_ns > 2 * SECOND_NS;
        for detection in &mut seen.detections {
            detection.score = if is_hidden { 0.2 } else { 0.8 };
        }
    }
    let outcome = follow(&scene);
    assert_eq!(outcome.histories.len(), 1);
    let (change, ended_at) = outcome.histories[&1].last().copied().expect("it ended");
    assert_eq!(change, Change::End);
    assert_eq!(
        ended_at,
        scene[scene.len() - 1].at_ns,
        "seen to the last frame"
    );

    let only_low: Vec<Seen> = scene
        .into_iter()
        .filter(|seen| seen.at_ns > 2 * SECOND_NS)
        .collect();
    assert_eq!(
        follow(&only_low).histories.len(),
        0,
        "a low score begins no track"
    );
}

#[test]
fn boxes_that_come_once_are_never_told_of() {
    let alone = Quality {
        false_positives: 0.3,
        ..PERFECT
    };
    let outcome = follow(&render(&[], 120.0, 10, alone, 1));
    assert_eq!(outcome.histories.len(), 0, "{:?}", outcome.histories);
}

#[test]
fn standing_still_is_noticed_once_and_so_is_walking_on() {
    let standing = Walker {
        begins: 0.0,
        ends: 10.0,
        from: [300.0, 300.0],
        speed: [0.0, 0.0],
        height: 100.0,
    };
    let walking = Walker {
        begins: 10.0,
        ends: 13.0,
        speed: [60.0, 0.0],
        ..standing
    };
    let jitter = Quality {
        jitter: 0.02,
        ..PERFECT
    };
    let scene = render(&[standing, walking], 13.0, 10, jitter, 1);
    let mut tracker = Tracker::new(
        &Config {
            update_s: 0.0,
            ..config()
        },
        SCORE_HIGH,
    );
    let mut told = Vec::new();
    for seen in &scene {
        tracker.step(seen.at_ns, &seen.detections);
        told.extend(tracker.changes().map(|(change, track)| {
            (
                change,
                track.id(),
                track.is_stationary(),
                seen.at_ns / SECOND_NS,
            )
        }));
    }
    assert_eq!(
        told,
        [
            (Change::New, 1, false, 0),
            (Change::Update, 1, true, 4),
            (Change::Update, 1, false, 10),
        ]
    );
}

#[test]
fn other_classes_are_other_objects() {
    let mut tracker = tracker();
    for step in 0..20u64 {
        let detections = [0, 1].map(|class| Detection {
            class,
            score: 0.9,
            xyxy: [100.0, 100.0, 140.0, 200.0],
        });
        tracker.step(step * SECOND_NS / 10, &detections);
    }
    let mut classes: Vec<u16> = tracker.tracks().map(|track| track.class()).collect();
    classes.sort_unstable();
    assert_eq!(classes, [0, 1]);
}

/// Any box within the frame, of any score.
fn detection() -> impl Strategy<Value = Detection> {
    // Few places, so that overlaps are frequent.
    (0u8..8, 0u8..4, 1u8..=3, 0u8..=10, 0u16..2).prop_map(|(x, y, size, score, class)| {
        let (x, y) = (f32::from(x) * 60.0, f32::from(y) * 80.0);
        let (width, height) = (f32::from(size) * 40.0, f32::from(size) * 80.0);
        Detection {
            class,
            score: f32::from(score) / 10.0,
            xyxy: [x, y, x + width, y + height],
        }
    })
}

proptest! {
    #[test]
    fn every_track_is_new_once_and_ends_once_whatever_is_seen(
        frames in proptest::collection::vec(
            (0u64..700, proptest::collection::vec(detection(), 0..12)),
            0..120,
        ),
    ) {
        let mut tracker = tracker();
        let mut now_ns = 5 * SECOND_NS;
        let mut open = BTreeSet::new();
        let mut id_max = 0;
        for (passed_ms, detections) in &frames {
            now_ns += passed_ms * 1_000_000;
            tracker.step(now_ns, detections);
            check_changes(&tracker, &mut open, &mut id_max)?;
            let believed: BTreeSet<u64> = tracker.tracks().map(|track| track.id()).collect();
            prop_assert_eq!(&believed, &open, "what is believed was told, and has not ended");
            for track in tracker.tracks() {
                prop_assert!(track.xyxy().iter().all(|edge| edge.is_finite()));
                prop_assert!(track.first().at_ns <= track.best().at_ns);
                prop_assert!(track.best().at_ns <= track.last().at_ns);
                prop_assert!(track.best().score >= track.first().score);
                prop_assert!(track.best().score >= track.last().score);
                prop_assert!(now_ns - track.last().at_ns <= 2 * SECOND_NS);
                prop_assert!((1..=POINTS_MAX).contains(&track.path().len()));
            }
        }
        tracker.finish();
        check_changes(&tracker, &mut open, &mut id_max)?;
        prop_assert!(open.is_empty(), "{open:?} never ended");
        prop_assert_eq!(tracker.tracks().count(), 0);
    }

    #[test]
    fn no_more_tracks_are_held_than_there_is_room_for(
        shift in 0u8..20,
        count in 100usize..400,
        steps in 4u64..6,
    ) {
        let mut tracker = tracker();
        // Boxes side by side, none of which overlaps another.
        let detections: Vec<Detection> = (0..count).map(|index| {
            let (column, row) = (index % 20, index / 20);
            let (x, y) = (column as f32 * 30.0 + f32::from(shift), row as f32 * 50.0);
            Detection { class: 0, score: 0.9, xyxy: [x, y, x + 20.0, y + 40.0] }
        }).collect();
        for step in 0..steps {
            tracker.step(step * SECOND_NS / 5, &detections);
            prop_assert!(tracker.tracks().count() <= TRACKS_MAX);
        }
        prop_assert_eq!(tracker.tracks().count(), count.min(TRACKS_MAX));
        tracker.finish();
        prop_assert_eq!(tracker.changes().count(), count.min(TRACKS_MAX));
    }
}

fn check_changes(
    tracker: &Tracker,
    open: &mut BTreeSet<u64>,
    id_max: &mut u64,
) -> Result<(), TestCaseError> {
    for (change, track) in tracker.changes() {
        match change {
            Change::New => {
                prop_assert!(track.id() > *id_max, "{} was given before", track.id());
                *id_max = track.id();
                open.insert(track.id());
            }
            Change::Update => prop_assert!(open.contains(&track.id())),
            Change::End => prop_assert!(open.remove(&track.id())),
        }
    }
    Ok(())
}

/// Somebody who stands in a corner, seen in ten frames a second for six seconds.
fn standing(tracker: &mut Tracker) -> Detection {
    let detection = Detection {
        class: 0,
        score: 0.8,
        xyxy: [100.0, 100.0, 140.0, 200.0],
    };
    for step in 0..=60 {
        tracker.step(step * SECOND_NS / 10, &[detection]);
    }
    detection
}

#[test]
fn who_stands_in_a_picture_that_does_not_change_stays_and_is_told_of() {
    let mut tracker = tracker();
    let detection = standing(&mut tracker);
    assert!(tracker.is_settled());
    let mut updates = 0;
    for second in 7..=600 {
        tracker.hold(second * SECOND_NS);
        for (change, track) in tracker.changes() {
            assert_eq!(change, Change::Update);
            assert_eq!(track.duration_ns(), second * SECOND_NS);
            assert_eq!(track.last().xyxy, detection.xyxy);
            updates += 1;
        }
        assert!(tracker.is_settled());
    }
    assert_eq!(updates, 594, "one a second, as configured");
    let id = tracker.tracks().next().expect("it is there").id();
    tracker.step(601 * SECOND_NS, &[detection]);
    assert_eq!(tracker.tracks().next().expect("it is there").id(), id);
    // It leaves: unseen in the next frame that is looked at, and gone when it was not seen for long enough.
    tracker.step(602 * SECOND_NS, &[]);
    assert!(!tracker.is_settled());
    tracker.step(604 * SECOND_NS, &[]);
    assert!(tracker.changes().any(|(change, _)| change == Change::End));
    assert!(tracker.is_settled(), "nobody needs to be looked at");
}

#[test]
fn a_picture_that_does_not_change_makes_nobody_believable() {
    let detection = Detection {
        class: 0,
        score: 0.8,
        xyxy: [100.0, 100.0, 140.0, 200.0],
    };
    let mut tracker = tracker();
    tracker.step(0, &[detection]);
    assert!(!tracker.is_settled(), "it was seen once");
    for step in 1..50 {
        tracker.hold(step * SECOND_NS / 10);
        assert_eq!(tracker.changes().count(), 0);
    }
    assert_eq!(tracker.tracks().count(), 0);
}

#[test]
fn who_walks_or_was_not_seen_needs_every_frame() {
    let mut tracker = tracker();
    assert!(tracker.is_settled());
    for step in 0..60u8 {
        let x = f32::from(step) * 8.0;
        let detection = Detection {
            class: 0,
            score: 0.8,
            xyxy: [x, 100.0, x + 40.0, 200.0],
        };
        tracker.step(u64::from(step) * SECOND_NS / 10, &[detection]);
        assert!(!tracker.is_settled(), "step {step}");
    }
    let mut tracker = self::tracker();
    standing(&mut tracker);
    tracker.step(61 * SECOND_NS / 10, &[]);
    assert!(!tracker.is_settled());
}
