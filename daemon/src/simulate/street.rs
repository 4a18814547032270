//! People who walk by a camera, as a detector sees them. Reads no clock, and is the same every time for the same seed.
//!
//! Visits begin as a Poisson process. A person crosses the picture at walking speed, which is in proportion to the height
//! that it has there; one in five stops for a while. The detector misses some, trembles, and is at times unsure.

use fastrand::Rng;
use ternwatch_detector::Detection;

/// Pixels.
pub(super) const WIDTH: f32 = 640.0;
/// Pixels.
pub(super) const HEIGHT: f32 = 480.0;
/// People at a time; whoever comes beyond that is not there.
const VISITORS_MAX: usize = 64;
/// Pixels, for those far away and those near.
const HEIGHTS: std::ops::Range<f32> = 70.0..250.0;
/// Heights a second: 1.4 m/s for somebody of 1.75 m, and how much people differ.
const SPEED: (f32, f32) = (0.8, 0.15);
/// Part of the people who stop, and for how many seconds in the mean.
const STOPS: (f32, f32) = (0.2, 8.0);
/// Part of the sightings that the detector misses.
const MISSED: f32 = 0.05;
/// Part of the sightings of which it is unsure.
const UNSURE: f32 = 0.1;
/// How much an edge trembles, in heights.
const JITTER: f32 = 0.02;

/// A street.
#[derive(Debug)]
pub(super) struct Street {
    chance: Rng,
    visits_per_s: f64,
    next_visit_ns: u64,
    visitors: Vec<Visitor>,
    visits: u64,
}

#[derive(Clone, Copy, Debug)]
struct Visitor {
    /// Pixels.
    height: f32,
    /// Where the feet are, in pixels from the top.
    foot: f32,
    /// The middle, in pixels from the left.
    x: f32,
    /// Pixels a second.
    speed: f32,
    seen_ns: u64,
    /// Where it is going to stop, and for how long.
    stop: Option<(f32, u64)>,
}

impl Street {
    /// Where so many people come by in a second, from `now_ns` on.
    pub(super) fn new(visits_per_s: f64, seed: u64, now_ns: u64) -> Self {
        let mut street = Self {
            chance: Rng::with_seed(seed),
            visits_per_s,
            next_visit_ns: now_ns,
            visitors: Vec::with_capacity(VISITORS_MAX),
            visits: 0,
        };
        street.next_visit_ns += street.gap_ns();
        street
    }

    /// People who have come so far.
    pub(super) fn visits(&self) -> u64 {
        self.visits
    }

    /// What the detector finds at `now_ns`, which must not be earlier than before.
    pub(super) fn look(&mut self, now_ns: u64, detections: &mut Vec<Detection>) {
        while self.next_visit_ns <= now_ns {
            let visitor = self.visitor(self.next_visit_ns);
            self.next_visit_ns += self.gap_ns();
            self.visits += 1;
            if self.visitors.len() < VISITORS_MAX {
                self.visitors.push(visitor);
            }
        }
        self.visitors
            .iter_mut()
            .for_each(|visitor| visitor.walk(now_ns));
        self.visitors.retain(Visitor::is_here);
        detections.clear();
        for index in 0..self.visitors.len() {
            let visitor = self.visitors[index];
            if self.chance.f32() >= MISSED {
                detections.push(self.sighting(&visitor));
            }
        }
    }

    /// Time until the next visit: at least a microsecond, at most a year.
    fn gap_ns(&mut self) -> u64 {
        let seconds = exponential(&mut self.chance) / self.visits_per_s;
        (seconds.clamp(1e-6, 3.2e7) * 1e9) as u64
    }

    fn visitor(&mut self, now_ns: u64) -> Visitor {
        let chance = &mut self.chance;
        let height = HEIGHTS.start + (HEIGHTS.end - HEIGHTS.start) * chance.f32();
        let speed = height * (SPEED.0 + SPEED.1 * normal(chance)).max(0.3);
        let half = height * 0.2;
        let (x, speed) = if chance.bool() {
            (-half, speed)
        } else {
            (WIDTH + half, -speed)
        };
        let stop = (chance.f32() < STOPS.0).then(|| {
            let seconds = exponential(chance).min(20.0) * f64::from(STOPS.1);
            (WIDTH * (0.2 + 0.6 * chance.f32()), (seconds * 1e9) as u64)
        });
        Visitor {
            height,
            // Whoever is larger is nearer, and stands lower in the picture.
            foot: 180.0 + 1.15 * height,
            x,
            speed,
            seen_ns: now_ns,
            stop,
        }
    }

    fn sighting(&mut self, visitor: &Visitor) -> Detection {
        let chance = &mut self.chance;
        let mut edge =
            |at: f32, most: f32| (at + JITTER * visitor.height * normal(chance)).clamp(0.0, most);
        let half = visitor.height * 0.2;
        let left = edge(visitor.x - half, WIDTH - 2.0);
        let top = edge(visitor.foot - visitor.height, HEIGHT - 2.0);
        let right = edge(visitor.x + half, WIDTH).max(left + 2.0);
        let bottom = edge(visitor.foot, HEIGHT).max(top + 2.0);
        let score = if chance.f32() < UNSURE { 0.2 } else { 0.5 };
        Detection {
            class: 0,
            score: score + 0.4 * chance.f32(),
            xyxy: [left, top, right, bottom],
        }
    }
}

impl Visitor {
    fn walk(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.seen_ns);
        self.seen_ns = now_ns;
        let mut walks_ns = passed_ns;
        if let Some((at, left_ns)) = &mut self.stop
            && (self.x - *at) * self.speed.signum() >= 0.0
        {
            let stands_ns = passed_ns.min(*left_ns);
            walks_ns -= stands_ns;
            *left_ns -= stands_ns;
        }
        self.x += self.speed * (walks_ns as f64 / 1e9) as f32;
    }

    fn is_here(&self) -> bool {
        let half = self.height * 0.2;
        let has_left = (self.speed > 0.0 && self.x - half >= WIDTH)
            || (self.speed < 0.0 && self.x + half <= 0.0);
        !has_left
    }
}

/// With the mean 1.
fn exponential(chance: &mut Rng) -> f64 {
    -(1.0 - chance.f64()).ln()
}

/// With the mean 0 and the deviation 1: the sum of twelve has the variance 1.
fn normal(chance: &mut Rng) -> f32 {
    (0..12).map(|_| chance.f32()).sum::<f32>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_come_as_often_as_they_should_and_leave_again() {
        let mut street = Street::new(0.2, 7, 0);
        let (mut detections, mut sightings, mut moments) = (Vec::new(), 0, 0);
        for tick in 0..100_000u64 {
            street.look(tick * 100_000_000, &mut detections);
            assert!(detections.len() <= VISITORS_MAX);
            for Detection { score, xyxy, .. } in &detections {
                let [left, top, right, bottom] = *xyxy;
                assert!(0.0 <= left && left < right && right <= WIDTH, "{xyxy:?}");
                assert!(0.0 <= top && top < bottom && bottom <= HEIGHT, "{xyxy:?}");
                assert!((0.0..1.0).contains(score));
            }
            sightings += detections.len();
            moments += usize::from(!detections.is_empty());
        }
        // Within three deviations of 2,000.
        assert!(
            (1866..2134).contains(&street.visits()),
            "{}",
            street.visits()
        );
        // Some seconds each: people leave.
        let seconds = sightings as f64 / 10.0 / street.visits() as f64;
        assert!((3.0..12.0).contains(&seconds), "{seconds} s a visit");
        assert!(moments < 90_000, "there is always somebody");
    }

    #[test]
    fn a_seed_gives_the_same_street_again() {
        let look = |seed| {
            let mut street = Street::new(1.0, seed, 5);
            let mut detections = Vec::new();
            (0..200u64)
                .flat_map(|tick| {
                    street.look(5 + tick * 100_000_000, &mut detections);
                    detections.clone()
                })
                .map(|detection| detection.xyxy)
                .collect::<Vec<_>>()
        };
        assert_eq!(look(1), look(1));
        assert_ne!(look(1), look(2));
    }
}
