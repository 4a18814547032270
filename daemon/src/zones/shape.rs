//! Polygons and segments in parts of the frame's width and height.

use std::cmp::Ordering;

/// Left to right and top to bottom, 0 to 1 within the frame.
pub(super) type Point = [f32; 2];

/// An area that is less than this part of the frame is a mistake.
const AREA_MIN: f32 = 1e-4;
/// A line, or an edge, that is shorter than this part of the frame is a mistake.
const LENGTH_MIN: f32 = 1e-3;

/// The sides of a line, looking from its first point to its second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Why points make no shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ShapeError {
    /// Edges that have no length to speak of.
    SamePoint { index: usize, next: usize },
    /// Two edges that meet where no corner is.
    Crossing { edge: usize, other: usize },
    /// Hardly any area between the points.
    NoArea,
    /// Too few or too many points for a line.
    NotTwo { count: usize },
}

/// An area with an uninterrupted border that does not cross itself.
#[derive(Clone, Debug)]
pub(super) struct Polygon {
    corners: Vec<Point>,
}

impl Polygon {
    /// Of at least three corners.
    pub(super) fn new(corners: &[Point]) -> Result<Self, ShapeError> {
        let polygon = Self {
            corners: corners.to_vec(),
        };
        let edges: Vec<(Point, Point)> = polygon.edges().collect();
        let count = edges.len();
        for (index, &(from, to)) in edges.iter().enumerate() {
            if is_short(from, to) {
                let next = (index + 1) % count;
                return Err(ShapeError::SamePoint { index, next });
            }
        }
        for (edge, &(a, b)) in edges.iter().enumerate() {
            for (other, &(c, d)) in edges.iter().enumerate().skip(edge + 1) {
                let follows = other == edge + 1;
                let precedes = edge == 0 && other == count - 1;
                // Neighbours share a corner: they must not run back over each other.
                let is_bad = match (follows, precedes) {
                    (false, false) => meet(a, b, c, d),
                    (true, _) => runs_back(a, b, d),
                    (_, true) => runs_back(c, d, b),
                };
                if is_bad {
                    return Err(ShapeError::Crossing { edge, other });
                }
            }
        }
        let doubled: f32 = edges.iter().map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum();
        if doubled.abs() / 2.0 < AREA_MIN {
            return Err(ShapeError::NoArea);
        }
        Ok(polygon)
    }

    /// Whether a point lies within. A point on the border may count either way.
    pub(super) fn contains(&self, [x, y]: Point) -> bool {
        let mut is_inside = false;
        for (from, to) in self.edges() {
            // A ray to the right: every border that it meets changes the side. Ends count for one edge only.
            if (from[1] > y) != (to[1] > y) {
                let meets_at = from[0] + (y - from[1]) / (to[1] - from[1]) * (to[0] - from[0]);
                is_inside ^= x < meets_at;
            }
        }
        is_inside
    }

    /// Distance of a point to the border, in parts of the frame's height.
    pub(super) fn distance(&self, point: Point, aspect: f32) -> f32 {
        self.edges()
            .map(|(from, to)| distance(point, from, to, aspect))
            .fold(f32::INFINITY, f32::min)
    }

    fn edges(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        let next = self.corners.iter().cycle().skip(1);
        self.corners.iter().copied().zip(next.copied())
    }
}

/// A straight line between two points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    from: Point,
    to: Point,
}

impl Segment {
    /// From the first point to the second.
    pub(super) fn new(points: &[Point]) -> Result<Self, ShapeError> {
        let &[from, to] = points else {
            let count = points.len();
            return Err(ShapeError::NotTwo { count });
        };
        if is_short(from, to) {
            return Err(ShapeError::SamePoint { index: 0, next: 1 });
        }
        Ok(Self { from, to })
    }

    /// On which side of the endless line through it a point lies, and how far from that line in parts of the frame's
    /// height.
    pub(super) fn side(&self, point: Point, aspect: f32) -> (Side, f32) {
        let wide = |[x, y]: Point| [x * aspect, y];
        let (from, to, point) = (wide(self.from), wide(self.to), wide(point));
        let turn = cross(from, to, point);
        let length = squared(from, to).sqrt();
        // The picture's y grows downwards, so a turn to the right is positive.
        let side = if turn < 0.0 { Side::Left } else { Side::Right };
        (side, turn.abs() / length)
    }

    /// Whether the way between two points crosses it.
    pub(super) fn is_crossed(&self, before: Point, after: Point) -> bool {
        meet(self.from, self.to, before, after)
    }
}

fn is_short(from: Point, to: Point) -> bool {
    squared(from, to) < LENGTH_MIN * LENGTH_MIN
}

fn squared(a: Point, b: Point) -> f32 {
    let (x, y) = (b[0] - a[0], b[1] - a[1]);
    x * x + y * y
}

/// Twice the area of the triangle: positive if `c` lies to the right of the way from `a` to `b` as it is seen in the
/// picture.
fn cross(a: Point, b: Point, c: Point) -> f32 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// Whether two segments have a point in common.
fn meet(a: Point, b: Point, c: Point, d: Point) -> bool {
    let turn = |a, b, c| cross(a, b, c).partial_cmp(&0.0).unwrap_or(Ordering::Equal);
    let (of_c, of_d) = (turn(a, b, c), turn(a, b, d));
    let (of_a, of_b) = (turn(c, d, a), turn(c, d, b));
    if of_c != of_d && of_a != of_b {
        return true;
    }
    (of_c.is_eq() && is_between(a, b, c))
        || (of_d.is_eq() && is_between(a, b, d))
        || (of_a.is_eq() && is_between(c, d, a))
        || (of_b.is_eq() && is_between(c, d, b))
}

/// Of three points on a line: whether `c` is between the others.
fn is_between(a: Point, b: Point, c: Point) -> bool {
    let within = |axis: usize| {
        let (low, high) = (a[axis].min(b[axis]), a[axis].max(b[axis]));
        (low..=high).contains(&c[axis])
    };
    within(0) && within(1)
}

/// Whether the edge from `corner` to `next` lies on the one from `before` to `corner`.
fn runs_back(before: Point, corner: Point, next: Point) -> bool {
    let along = (before[0] - corner[0]) * (next[0] - corner[0])
        + (before[1] - corner[1]) * (next[1] - corner[1]);
    cross(before, corner, next) == 0.0 && along > 0.0
}

/// Distance of a point to a segment, in parts of the frame's height.
fn distance(point: Point, from: Point, to: Point, aspect: f32) -> f32 {
    let wide = |[x, y]: Point| [x * aspect, y];
    let (point, from, to) = (wide(point), wide(from), wide(to));
    let along = (point[0] - from[0]) * (to[0] - from[0]) + (point[1] - from[1]) * (to[1] - from[1]);
    let part = (along / squared(from, to)).clamp(0.0, 1.0);
    let nearest = [
        from[0] + part * (to[0] - from[0]),
        from[1] + part * (to[1] - from[1]),
    ];
    squared(point, nearest).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SQUARE: [Point; 4] = [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]];
    /// A square with a bay that opens to the right.
    const BAY: [Point; 7] = [
        [0.0, 0.0],
        [1.0, 0.0],
        [1.0, 0.4],
        [0.3, 0.5],
        [1.0, 0.6],
        [1.0, 1.0],
        [0.0, 1.0],
    ];

    #[test]
    fn a_bay_is_outside() {
        let bay = Polygon::new(&BAY).expect("a polygon");
        assert!(bay.contains([0.1, 0.5]) && bay.contains([0.9, 0.1]) && bay.contains([0.9, 0.9]));
        assert!(!bay.contains([0.9, 0.5]) && !bay.contains([1.1, 0.1]));
    }

    #[test]
    fn distances_are_in_frame_heights() {
        let square = Polygon::new(&SQUARE).expect("a polygon");
        let close = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-6, "{found}");
        close(square.distance([0.5, 0.9], 2.0), 0.1);
        close(square.distance([0.9, 0.5], 2.0), 0.2);
        close(square.distance([0.5, 0.5], 1.0), 0.3);
    }

    #[test]
    fn points_that_make_no_polygon_are_refused() {
        let bow_tie = [[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]];
        let refused = |points: &[Point]| Polygon::new(points).expect_err("refused");
        assert_eq!(
            refused(&bow_tie),
            ShapeError::Crossing { edge: 0, other: 2 }
        );
        let touching = [[0.0, 0.0], [1.0, 0.0], [0.5, 1.0], [0.5, 0.0], [0.2, 1.0]];
        assert!(matches!(refused(&touching), ShapeError::Crossing { .. }));
        let there_and_back = [[0.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.5, 1.0]];
        assert!(matches!(
            refused(&there_and_back),
            ShapeError::Crossing { .. }
        ));
        let twice = [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]];
        assert_eq!(refused(&twice), ShapeError::SamePoint { index: 0, next: 1 });
        let sliver = [[0.0, 0.0], [1.0, 0.0], [0.5, 0.0001]];
        assert_eq!(refused(&sliver), ShapeError::NoArea);
    }

    #[test]
    fn right_is_right_as_seen_in_the_picture() {
        let upwards = Segment::new(&[[0.5, 0.9], [0.5, 0.1]]).expect("a line");
        assert_eq!(upwards.side([0.75, 0.5], 2.0), (Side::Right, 0.5));
        assert_eq!(upwards.side([0.25, 0.5], 1.0), (Side::Left, 0.25));
        assert!(upwards.is_crossed([0.4, 0.5], [0.6, 0.5]));
        assert!(
            !upwards.is_crossed([0.4, 0.95], [0.6, 0.95]),
            "past its end"
        );
    }

    proptest! {
        /// Within a convex polygon is what lies to the same side of every edge.
        #[test]
        fn within_a_triangle_is_on_the_same_side_of_every_edge(
            corners in proptest::array::uniform3(proptest::array::uniform2(0.0f32..1.0)),
            point in proptest::array::uniform2(-0.2f32..1.2),
        ) {
            let Ok(polygon) = Polygon::new(&corners) else { return Ok(()) };
            let turns: Vec<f32> = polygon.edges().map(|(a, b)| cross(a, b, point)).collect();
            // Too near to the border to tell.
            prop_assume!(turns.iter().all(|turn| turn.abs() > 1e-5));
            let same = turns.iter().all(|turn| *turn > 0.0) || turns.iter().all(|turn| *turn < 0.0);
            prop_assert_eq!(polygon.contains(point), same);
        }

        #[test]
        fn it_does_not_matter_where_a_polygon_begins_and_which_way_it_goes(
            start in 0usize..7,
            point in proptest::array::uniform2(-0.2f32..1.2),
        ) {
            let bay = Polygon::new(&BAY).expect("a polygon");
            prop_assume!(bay.distance(point, 1.0) > 1e-4);
            let mut corners = BAY;
            corners.rotate_left(start);
            let rotated = Polygon::new(&corners).expect("a polygon");
            corners.reverse();
            let reversed = Polygon::new(&corners).expect("a polygon");
            prop_assert_eq!(rotated.contains(point), bay.contains(point));
            prop_assert_eq!(reversed.contains(point), bay.contains(point));
        }
    }
}
