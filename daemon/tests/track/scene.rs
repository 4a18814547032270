//! A street as a detector sees it: people who walk, hide each other and are missed now and then.

use ternwatch_detector::Detection;

/// Pixels.
pub(crate) const WIDTH: f32 = 640.0;
/// Pixels.
pub(crate) const HEIGHT: f32 = 480.0;

/// A small generator of numbers that look random (xorshift64*), so that a scene is the same every time.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 0 to 1.
    pub(crate) fn part(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Around zero, with this standard deviation.
    pub(crate) fn noise(&mut self, deviation: f32) -> f32 {
        // The sum of twelve has variance one.
        ((0..12).map(|_| self.part()).sum::<f32>() - 6.0) * deviation
    }
}

/// Someone who walks in a straight line.
#[derive(Clone, Copy)]
pub(crate) struct Walker {
    /// Seconds.
    pub(crate) begins: f32,
    /// Seconds.
    pub(crate) ends: f32,
    /// Where the feet are at the beginning.
    pub(crate) from: [f32; 2],
    /// Pixels a second.
    pub(crate) speed: [f32; 2],
    /// Pixels.
    pub(crate) height: f32,
}

impl Walker {
    /// The box at a moment, within the frame; nothing when out of it or hidden to more than half by its border.
    pub(crate) fn at(&self, second: f32) -> Option<[f32; 4]> {
        if !(self.begins..self.ends).contains(&second) {
            return None;
        }
        let passed = second - self.begins;
        let x = self.from[0] + self.speed[0] * passed;
        let y = self.from[1] + self.speed[1] * passed;
        let half = self.height * 0.2;
        let inside = (0.0..WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y);
        inside.then_some([
            (x - half).max(0.0),
            (y - self.height).max(0.0),
            (x + half).min(WIDTH),
            y,
        ])
    }
}

/// How good the detector is.
#[derive(Clone, Copy)]
pub(crate) struct Quality {
    /// Part of the visible people that it misses.
    pub(crate) missed: f32,
    /// Standard deviation of an edge, in heights.
    pub(crate) jitter: f32,
    /// Boxes without anybody in them, a frame.
    pub(crate) false_positives: f32,
}

/// One frame.
pub(crate) struct Seen {
    pub(crate) at_ns: u64,
    /// Index of the walker, and where it is.
    pub(crate) truth: Vec<(usize, [f32; 4])>,
    pub(crate) detections: Vec<Detection>,
}

/// Every frame of a scene.
pub(crate) fn render(
    walkers: &[Walker],
    seconds: f32,
    rate: u32,
    quality: Quality,
    seed: u64,
) -> Vec<Seen> {
    let mut chance = Chance::new(seed);
    let frames = (seconds * rate as f32) as u64;
    (0..frames)
        .map(|frame| {
            let at_ns = frame * 1_000_000_000 / u64::from(rate);
            let second = at_ns as f32 / 1e9;
            let mut truth: Vec<(usize, [f32; 4])> = walkers
                .iter()
                .enumerate()
                .filter_map(|(index, walker)| Some((index, walker.at(second)?)))
                .collect();
            // Whoever stands lower in the picture is nearer, and hides the others.
            truth.sort_by(|a, b| b.1[3].total_cmp(&a.1[3]));
            let mut detections = Vec::new();
            for (index, &(_, xyxy)) in truth.iter().enumerate() {
                let hidden = truth[..index]
                    .iter()
                    .map(|&(_, nearer)| covered(xyxy, nearer))
                    .fold(0.0, f32::max);
                if hidden > 0.6 || chance.part() < quality.missed {
                    continue;
                }
                let score = if hidden > 0.25 { 0.15 } else { 0.45 } + 0.4 * chance.part();
                let jitter = quality.jitter * (xyxy[3] - xyxy[1]);
                let mut moved = xyxy.map(|edge| edge + chance.noise(jitter));
                moved[2] = moved[2].max(moved[0] + 2.0);
                moved[3] = moved[3].max(moved[1] + 2.0);
                detections.push(Detection {
                    class: 0,
                    score,
                    xyxy: moved,
                });
            }
            if chance.part() < quality.false_positives {
                let (x, y) = (chance.part() * WIDTH, 100.0 + chance.part() * 300.0);
                detections.push(Detection {
                    class: 0,
                    score: 0.35 + 0.2 * chance.part(),
                    xyxy: [x, y, x + 40.0, y + 80.0],
                });
            }
            Seen {
                at_ns,
                truth,
                detections,
            }
        })
        .collect()
}

/// The part of a box that another one covers.
fn covered(of: [f32; 4], by: [f32; 4]) -> f32 {
    let width = (of[2].min(by[2]) - of[0].max(by[0])).max(0.0);
    let height = (of[3].min(by[3]) - of[1].max(by[1])).max(0.0);
    width * height / ((of[2] - of[0]) * (of[3] - of[1]))
}
