//! The way that something took, in a fixed number of points.
//!
//! When the points run out, every second one goes and the distance in time between the remaining ones doubles: the
//! path always reaches from the beginning to the last point, however long it lasts.

/// Points of a path at most.
pub const POINTS_MAX: usize = 32;
/// Time between two points at first.
const INTERVAL_NS: u64 = 250_000_000;

/// Where something stood at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// On the clock of the frames.
    pub at_ns: u64,
    /// Pixels from the left.
    pub x: f32,
    /// Pixels from the top.
    pub y: f32,
}

/// Points in the order of their times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    points: [Point; POINTS_MAX],
    len: usize,
    interval_ns: u64,
}

impl Path {
    pub(super) fn begin(point: Point) -> Self {
        let mut path = Self {
            points: [Point::default(); POINTS_MAX],
            len: 1,
            interval_ns: INTERVAL_NS,
        };
        path.points[0] = point;
        path
    }

    /// Takes the point if enough time has passed since the last one.
    pub(super) fn add(&mut self, point: Point) {
        let last = self.points[self.len - 1];
        if point.at_ns.saturating_sub(last.at_ns) < self.interval_ns {
            return;
        }
        if self.len == POINTS_MAX {
            for kept in 1..POINTS_MAX / 2 {
                self.points[kept] = self.points[2 * kept];
            }
            self.len = POINTS_MAX / 2;
            self.interval_ns *= 2;
            return self.add(point);
        }
        self.points[self.len] = point;
        self.len += 1;
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_path_covers_all_of_its_time_in_few_points(
            steps_ms in proptest::collection::vec(1u64..2000, 1..600),
        ) {
            let point = |at_ns| Point { at_ns, x: at_ns as f32, y: 0.0 };
            let mut now_ns = 7;
            let mut path = Path::begin(point(now_ns));
            for step_ms in steps_ms {
                now_ns += step_ms * 1_000_000;
                path.add(point(now_ns));
                let points = path.points();
                prop_assert!(points.len() <= POINTS_MAX);
                prop_assert_eq!(points[0].at_ns, 7, "the beginning stays");
                prop_assert!(points.windows(2).all(|two| two[0].at_ns < two[1].at_ns));
                let last = points[points.len() - 1].at_ns;
                prop_assert!(now_ns - last < 2 * path.interval_ns, "the end is near");
            }
        }
    }
}
