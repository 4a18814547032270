//! Zones and lines: who enters, stays, leaves and crosses, and that nobody is counted twice.

use proptest::prelude::*;
use ternwatch_daemon::zones::{
    Crossings, Direction, Happening, LINES_MAX, LineConfig, Subject, ZONES_MAX, ZoneConfig, Zones,
    validate,
};

const SECOND_NS: u64 = 1_000_000_000;
const ASPECT: f32 = 4.0 / 3.0;
const HEIGHT: f32 = 0.25;

fn zone(name: &str, points: &[[f32; 2]]) -> ZoneConfig {
    ZoneConfig {
        name: name.into(),
        points: points.to_vec(),
        score_min: 0.0,
        height_min: 0.0,
        height_max: 1.0,
        loiter_s: 0.0,
    }
}

/// The right half of the picture.
fn yard() -> ZoneConfig {
    zone("yard", &[[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]])
}

/// Upwards through the middle of the picture, but not to its top.
fn gate() -> LineConfig {
    LineConfig {
        name: "gate".into(),
        points: vec![[0.5, 1.0], [0.5, 0.4]],
    }
}

fn made(zones: &[ZoneConfig], lines: &[LineConfig]) -> Zones {
    validate(zones, lines).expect("valid");
    Zones::new(zones, lines, 8)
}

fn subject(id: u64, x: f32, y: f32) -> Subject {
    Subject {
        id,
        foot: [x, y],
        height: HEIGHT,
        score: 0.5,
    }
}

/// What somebody does on a way of one point a second.
fn walk(zones: &mut Zones, id: u64, way: &[[f32; 2]]) -> Vec<(u64, Happening)> {
    let mut told = Vec::new();
    for (second, [x, y]) in (0u64..).zip(way) {
        zones.observe(&subject(id, *x, *y), second * SECOND_NS, ASPECT);
        told.extend(
            zones
                .happenings()
                .iter()
                .map(|&happening| (second, happening)),
        );
    }
    told
}

#[test]
fn a_line_that_was_crossed_before_anybody_was_believed_counts() {
    let mut zones = made(&[], &[gate()]);
    zones.begin(&subject(1, 0.4, 0.8), ASPECT);
    let told = walk(&mut zones, 1, &[[0.6, 0.8], [0.7, 0.8]]);
    let line_cross = Happening::Cross {
        line: 0,
        direction: Direction::ToRight,
    };
    assert_eq!(told, [(0, line_cross)]);
    // On the same side there is nothing to count, nor for who began on the line.
    for (id, x) in [(2, 0.7), (3, 0.5)] {
        zones.begin(&subject(id, x, 0.8), ASPECT);
        assert_eq!(walk(&mut zones, id, &[[0.6, 0.8]]), []);
    }
}

#[test]
fn who_is_cut_off_by_the_pictures_edge_stands_in_a_zone_that_reaches_to_it() {
    let whole = zone("all", &[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]);
    for foot in [[0.5, 1.0], [0.5, 1.04], [1.01, 0.5], [-0.01, 1.0]] {
        let mut zones = made(std::slice::from_ref(&whole), &[]);
        let told = walk(&mut zones, 1, &[foot]);
        assert_eq!(told, [(0, Happening::Enter { zone: 0 })], "{foot:?}");
    }
}

#[test]
fn entering_staying_and_leaving_are_told_with_their_times() {
    let loitering = ZoneConfig {
        loiter_s: 2.0,
        ..yard()
    };
    let mut zones = made(&[loitering], &[]);
    let way = [0.3, 0.6, 0.7, 0.8, 0.9, 0.3].map(|x| [x, 0.5]);
    let dwell_ns = |seconds| seconds * SECOND_NS;
    assert_eq!(
        walk(&mut zones, 1, &way),
        [
            (1, Happening::Enter { zone: 0 }),
            (
                3,
                Happening::Loiter {
                    zone: 0,
                    dwell_ns: dwell_ns(2)
                }
            ),
            (
                5,
                Happening::Leave {
                    zone: 0,
                    dwell_ns: dwell_ns(4)
                }
            ),
        ]
    );
    assert_eq!(zones.occupancy(0), 0);
}

#[test]
fn whoever_ends_within_a_zone_leaves_it() {
    let mut zones = made(
        &[yard(), zone("all", &[[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])],
        &[],
    );
    walk(&mut zones, 1, &[[0.6, 0.3]]);
    walk(&mut zones, 2, &[[0.7, 0.3]]);
    assert_eq!((zones.occupancy(0), zones.occupancy(1)), (2, 2));
    assert_eq!(zones.zones_of(1).collect::<Vec<_>>(), [0, 1]);
    zones.forget(1, 3 * SECOND_NS);
    let dwell_ns = 3 * SECOND_NS;
    assert_eq!(
        zones.happenings(),
        [
            Happening::Leave { zone: 0, dwell_ns },
            Happening::Leave { zone: 1, dwell_ns }
        ]
    );
    assert_eq!((zones.occupancy(0), zones.occupancy(1)), (1, 1));
    zones.forget(1, 4 * SECOND_NS);
    assert_eq!(zones.happenings(), [], "nobody leaves twice");
}

#[test]
fn where_somebody_has_been_is_known_in_order_and_once_also_when_they_are_gone() {
    let left = zone("left", &[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]);
    let mut zones = made(&[yard(), left], &[]);
    assert_eq!(zones.entered_by(1), [0; 0]);
    walk(
        &mut zones,
        1,
        &[[0.1, 0.5], [0.9, 0.5], [0.1, 0.5], [0.9, 0.5]],
    );
    assert_eq!(zones.entered_by(1), [1, 0]);
    walk(&mut zones, 2, &[[0.8, 0.5]]);
    zones.forget(1, 4 * SECOND_NS);
    assert_eq!(zones.entered_by(1), [1, 0], "it was forgotten last");
    zones.forget(2, 4 * SECOND_NS);
    assert_eq!(
        (zones.entered_by(1), zones.entered_by(2)),
        (&[][..], &[0][..])
    );
}

#[test]
fn the_small_and_the_doubtful_do_not_enter_but_may_stay() {
    let picky = ZoneConfig {
        score_min: 0.6,
        height_min: 0.2,
        height_max: 0.6,
        ..yard()
    };
    let mut zones = made(&[picky], &[]);
    let mut see = |score: f32, height: f32| {
        let there = Subject {
            score,
            height,
            ..subject(1, 0.7, 0.5)
        };
        zones.observe(&there, 0, ASPECT);
        zones.happenings().to_vec()
    };
    assert_eq!(see(0.5, 0.3), []);
    assert_eq!(see(0.7, 0.1), []);
    assert_eq!(see(0.7, 0.7), []);
    assert_eq!(see(0.7, 0.3), [Happening::Enter { zone: 0 }]);
    assert_eq!(see(0.7, 0.1), [], "it is still within");
    assert_eq!(see(0.7, 0.7), [], "it is still within");
}

#[test]
fn a_line_is_counted_by_direction_and_only_between_its_ends() {
    let mut zones = made(&[], &[gate()]);
    let there = [0.3, 0.4, 0.6, 0.7].map(|x| [x, 0.8]);
    let direction = Direction::ToRight;
    assert_eq!(
        walk(&mut zones, 1, &there),
        [(2, Happening::Cross { line: 0, direction })]
    );
    // Back above the line's upper end, and across it again.
    let around = [[0.7, 0.2], [0.3, 0.2], [0.3, 0.8]];
    assert_eq!(walk(&mut zones, 1, &around), []);
    assert_eq!(walk(&mut zones, 1, &there).len(), 1);
    assert_eq!(
        zones.crossings(0),
        Crossings {
            to_left: 0,
            to_right: 2
        }
    );
    let back = [[0.3, 0.8]];
    let direction = Direction::ToLeft;
    assert_eq!(
        walk(&mut zones, 1, &back),
        [(0, Happening::Cross { line: 0, direction })]
    );
}

#[test]
fn more_people_than_there_is_room_for_are_not_noticed() {
    let mut zones = made(&[yard()], &[]);
    for id in 0..20 {
        walk(&mut zones, id, &[[0.7, 0.5]]);
    }
    assert_eq!(zones.occupancy(0), 8);
}

fn refused(zones: &[ZoneConfig], lines: &[LineConfig]) -> (String, String) {
    let invalid = validate(zones, lines).expect_err("refused");
    (invalid.key.into_owned(), invalid.reason)
}

#[test]
fn mistakes_are_named_by_their_place_in_the_list() {
    let bad_points = |points: &[[f32; 2]]| refused(&[yard(), zone("b", points)], &[]);
    let bow_tie = [[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]];
    for (points, says) in [
        (
            &bow_tie[..],
            "crosses or touches itself: the edges that begin at points 0 and 2 meet",
        ),
        (&[[0.0, 0.0], [1.0, 1.0]], "has 2 points"),
        (&[[0.0, 0.0], [1.0, 0.0], [0.5, 0.0001]], "no area"),
        (
            &[[0.1, 0.1], [0.1, 0.1], [1.0, 0.5]],
            "points 0 and 1 are the same",
        ),
        (
            &[[0.0, 0.0], [1.0, 0.0], [640.0, 480.0]],
            "point 2, [640, 480], is not within 0 to 1",
        ),
        (
            &[[0.0, 0.0], [1.0, 0.0], [f32::NAN, 0.5]],
            "point 2, [NaN, 0.5]",
        ),
    ] {
        let (key, reason) = bad_points(points);
        assert_eq!(key, "zones[1].points");
        assert!(reason.contains(says), "{reason:?} does not say {says:?}");
    }
    let (key, reason) = refused(&[yard(), yard()], &[]);
    assert_eq!(
        (key.as_str(), reason.as_str()),
        ("zones[1].name", "\"yard\" is there twice")
    );
    assert_eq!(refused(&[zone("a b", &[])], &[]).0, "zones[0].name");
    let loud = ZoneConfig {
        score_min: 1.5,
        ..yard()
    };
    assert_eq!(refused(&[loud], &[]).0, "zones[0].score_min");
    let empty = ZoneConfig {
        height_min: 0.5,
        height_max: 0.4,
        ..yard()
    };
    let (key, reason) = refused(&[empty], &[]);
    assert_eq!(key, "zones[0].height_max");
    assert!(reason.contains("lower than height_min, 0.5"), "{reason}");
    let point = LineConfig {
        points: vec![[0.5, 0.5]; 2],
        ..gate()
    };
    assert_eq!(refused(&[], &[point]).0, "lines[0].points");
    let many: Vec<ZoneConfig> = (0..=ZONES_MAX).map(|_| yard()).collect();
    assert_eq!(refused(&many, &[]).0, "zones");
    let many: Vec<LineConfig> = (0..=LINES_MAX).map(|_| gate()).collect();
    assert_eq!(refused(&[], &many).0, "lines");
}

/// A way in steps of a size that somebody can take, as differences.
fn steps() -> impl Strategy<Value = Vec<(f32, f32)>> {
    proptest::collection::vec((-0.2f32..0.2, -0.2f32..0.2), 1..80)
}

proptest! {
    /// Trembling by less than the margins on a border enters once at most, and on a line crosses nothing.
    #[test]
    fn trembling_on_a_border_counts_once(
        trembling in proptest::collection::vec(-0.04f32..0.04, 1..100),
    ) {
        let mut zones = made(&[yard()], &[gate()]);
        // The margins are 0.1 and 0.05 of a quarter of the picture's height, sideways by the aspect.
        let way: Vec<[f32; 2]> = trembling.iter().map(|by| [0.5 + by * HEIGHT / ASPECT, 0.8]).collect();
        let told = walk(&mut zones, 1, &way);
        let enters = told.iter().filter(|(_, what)| *what == Happening::Enter { zone: 0 }).count();
        prop_assert!(enters <= 1 && told.len() == enters, "{told:?}");
    }

    /// Whatever somebody does: enter and leave take turns, loitering lies between, occupancy is who is within.
    #[test]
    fn stays_begin_and_end_in_turn(
        ways in proptest::collection::vec(steps(), 1..5),
        starts in proptest::collection::vec((0.0f32..1.0, 0.0f32..1.0), 5),
    ) {
        let loitering = ZoneConfig { loiter_s: 3.0, ..yard() };
        let mut zones = made(&[loitering], &[gate()]);
        let mut places = starts.clone();
        let mut within = [false; 5];
        let mut told_of = [false; 5];
        let mut crossed = 0u64;
        let longest = ways.iter().map(Vec::len).max().unwrap_or(0);
        for second in 0..longest {
            for (id, way) in ways.iter().enumerate() {
                let now_ns = second as u64 * SECOND_NS;
                match way.get(second) {
                    Some((right, down)) => {
                        places[id].0 = (places[id].0 + right).clamp(0.0, 1.0);
                        places[id].1 = (places[id].1 + down).clamp(0.0, 1.0);
                        let (x, y) = places[id];
                        zones.observe(&subject(id as u64, x, y), now_ns, ASPECT);
                    }
                    None => zones.forget(id as u64, now_ns),
                }
                for &happening in zones.happenings() {
                    match happening {
                        Happening::Enter { .. } => {
                            prop_assert!(!within[id]);
                            (within[id], told_of[id]) = (true, false);
                        }
                        Happening::Loiter { dwell_ns, .. } => {
                            prop_assert!(within[id] && !told_of[id]);
                            prop_assert!(dwell_ns >= 3 * SECOND_NS);
                            told_of[id] = true;
                        }
                        Happening::Leave { .. } => {
                            prop_assert!(within[id]);
                            within[id] = false;
                        }
                        Happening::Cross { .. } => crossed += 1,
                    }
                }
                let expected = within.iter().filter(|is_within| **is_within).count();
                prop_assert_eq!(zones.occupancy(0) as usize, expected);
            }
        }
        let Crossings { to_left, to_right } = zones.crossings(0);
        prop_assert_eq!(to_left + to_right, crossed);
    }

    /// A line from edge to edge cannot be walked around: the directions take turns.
    #[test]
    fn a_line_across_the_picture_is_crossed_in_turns(way in steps()) {
        let across = LineConfig { name: "wall".into(), points: vec![[0.5, 1.0], [0.5, 0.0]] };
        let mut zones = made(&[], &[across]);
        let mut place = [0.2f32, 0.5f32];
        let mut points = vec![place];
        for (right, down) in way {
            place = [(place[0] + right).clamp(0.0, 1.0), (place[1] + down).clamp(0.01, 0.99)];
            points.push(place);
        }
        let told = walk(&mut zones, 1, &points);
        for (index, (_, happening)) in told.iter().enumerate() {
            let direction = if index % 2 == 0 { Direction::ToRight } else { Direction::ToLeft };
            prop_assert_eq!(*happening, Happening::Cross { line: 0, direction });
        }
    }
}
