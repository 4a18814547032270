//! Gate before the detector: whether a frame shows anything that the last examined one did not.
//!
//! Takes one frame after another, each with its moment, and whether somebody is followed who needs every frame; says
//! whether to examine it. A frame is compared with the last *examined* one, on a coarse grid of luma: what changes
//! slowly adds up until it is seen, and a network that would get the same picture again would give the same answer. One
//! gain for the whole picture and one offset for each row of the grid are taken out first, so that neither dusk, nor a
//! camera's exposure, nor lamps on mains current are motion.
//!
//! It reads no clock and allocates nothing after its construction. On purpose it errs to one side: what it takes for
//! motion costs an inference, what it overlooks is seen [`Config::examine_s`] later at the latest. It knows nothing of
//! tracks, nor of what is done with its answer.

use crate::config::{Invalid, in_range};
use serde::{Deserialize, Serialize};
use std::mem;
use ternwatch_detector::{Frame, PixelFormat};

/// Cells of the grid. With the usual input of 320 x 240 pixels one is 4 x 4 of the network's, and the smallest people
/// that it finds are 6 cells high and 2 wide.
const COLUMNS: usize = 80;
const ROWS: usize = 60;
/// The shortest side of a cell in pixels of the frame: the mean of fewer pixels is too noisy.
const CELL_MIN: usize = 4;
/// So many rows of pixels are read of each row of cells.
const LINES_MAX: usize = 4;
/// Cells hold luma in sixteenths of a level, so that a mean of many pixels is finer than one of them.
const LEVEL: i16 = 16;
/// A cell has changed if it differs by more than noise does: this many times the median difference of all cells...
const NOISE_FACTOR: i16 = 8;
/// ... but at least by so many levels, and at most: beyond that anything counts, however noisy the picture.
const CHANGE_MIN: i16 = 4 * LEVEL;
const CHANGE_MAX: i16 = 16 * LEVEL;
/// What a gain of one is written as, and how far the light may change between two examined frames without being motion.
const GAIN_ONE: i32 = 1024;
const GAIN_RANGE: std::ops::RangeInclusive<i32> = 819..=1280;
/// Medians of all cells are those of every third.
const SAMPLE: usize = 3;
/// Cells darker than this say nothing of the gain.
const DARK: i16 = 24 * LEVEL;
/// Levels that a whole row may flicker by.
const FLICKER_MAX: i16 = 10 * LEVEL;
/// After motion, every frame is examined for so long: who has just stopped is worth more than one look.
const AFTERMATH_NS: u64 = 1_000_000_000;

/// The `[motion]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether frames that show nothing new are skipped.
    pub enabled: bool,
    /// A frame is examined at least once in so many seconds.
    pub examine_s: f32,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        in_range("motion.examine_s", self.examine_s, 0.1..=60.0)
    }
}

/// Whether frames may be skipped at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Somebody is followed who moves, or was not seen lately: every frame counts.
    EveryFrame,
    /// Only what changes is of interest.
    Changes,
}

/// What frames are examined for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// For what happens in them.
    ForTracks,
    /// Each for its own sake: none is skipped.
    EachForItself,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look at it.
    Examine,
    /// It shows what the last examined one did.
    Skip,
}

/// Compares frames.
#[derive(Debug)]
pub struct Gate {
    is_enabled: bool,
    examine_ns: u64,
    /// Of the last examined frame; `None` makes the next one be examined.
    kind: Option<(PixelFormat, u32, u32)>,
    examined_ns: u64,
    moved_ns: u64,
    /// Cells of this frame and of the last examined one: `(rows, columns)`, sixteenths of a level.
    now: Grid,
    examined: Grid,
    /// What they differ by, and room to find a median in.
    difference: Box<[i16]>,
    sorted: Box<[i16]>,
    /// Sums of some lines of pixels, a value per column of the frame.
    sums: Box<[u16]>,
}

impl Gate {
    /// Allocates for frames of any size.
    pub fn new(config: &Config, frames: Frames) -> Self {
        let cells = || vec![0; ROWS * COLUMNS].into_boxed_slice();
        Self {
            is_enabled: config.enabled && frames == Frames::ForTracks,
            examine_ns: (f64::from(config.examine_s) * 1e9) as u64,
            kind: None,
            examined_ns: 0,
            moved_ns: 0,
            now: Grid::new(),
            examined: Grid::new(),
            difference: cells(),
            sorted: cells(),
            sums: vec![0; ternwatch_detector::SIDE_MAX as usize].into_boxed_slice(),
        }
    }

    /// Makes the next frame be examined whatever it shows, and those of a while after it.
    pub fn open(&mut self) {
        self.kind = None;
    }

    /// Whether to examine the frame at `now_ns`. A clock that runs backwards makes it be examined.
    pub fn judge(&mut self, frame: &Frame<'_>, now_ns: u64, need: Need) -> Verdict {
        if !self.is_enabled {
            return Verdict::Examine;
        }
        self.now.measure(frame, &mut self.sums);
        let kind = Some((frame.format(), frame.width(), frame.height()));
        let is_new = self.kind != kind || now_ns < self.examined_ns;
        if is_new || self.has_changed() {
            self.moved_ns = now_ns;
        }
        let has_moved_lately = now_ns.saturating_sub(self.moved_ns) < AFTERMATH_NS;
        let is_due = now_ns.saturating_sub(self.examined_ns) >= self.examine_ns;
        if !is_new && !has_moved_lately && !is_due && need == Need::Changes {
            return Verdict::Skip;
        }
        mem::swap(&mut self.now, &mut self.examined);
        self.kind = kind;
        self.examined_ns = now_ns;
        Verdict::Examine
    }

    /// Whether this frame, of the same kind as the last examined one, shows anything else.
    fn has_changed(&mut self) -> bool {
        let (now, examined) = (self.now.cells(), self.examined.cells());
        let columns = self.now.columns;
        let gain = gain(now, examined, &mut self.sorted);
        let difference = &mut self.difference[..now.len()];
        for ((difference, now), examined) in difference.iter_mut().zip(now).zip(examined) {
            let expected = i32::from(*examined) * gain / GAIN_ONE;
            // Both lie within 0 to 5100.
            *difference = (i32::from(*now) - expected) as i16;
        }
        for row in difference.chunks_exact_mut(columns) {
            let sorted = &mut self.sorted[..columns];
            sorted.copy_from_slice(row);
            let offset = median(sorted).clamp(-FLICKER_MAX, FLICKER_MAX);
            for difference in row {
                *difference = (*difference - offset).abs();
            }
        }
        let sample = difference.iter().step_by(SAMPLE);
        let count = sample.len();
        for (sorted, difference) in self.sorted.iter_mut().zip(sample) {
            *sorted = *difference;
        }
        let noise = median(&mut self.sorted[..count]).min(CHANGE_MAX);
        let change = (NOISE_FACTOR * noise).clamp(CHANGE_MIN, CHANGE_MAX);
        has_neighbours(difference, columns, change)
    }
}

/// Means of the luma of a frame's parts.
#[derive(Debug)]
struct Grid {
    cells: Box<[i16]>,
    columns: usize,
    rows: usize,
}

impl Grid {
    fn new() -> Self {
        Self {
            cells: vec![0; ROWS * COLUMNS].into_boxed_slice(),
            columns: 0,
            rows: 0,
        }
    }

    fn cells(&self) -> &[i16] {
        &self.cells[..self.columns * self.rows]
    }

    /// Reads some lines of every row of cells, all their pixels.
    fn measure(&mut self, frame: &Frame<'_>, sums: &mut [u16]) {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let columns = (width / CELL_MIN).clamp(1, COLUMNS);
        let rows = (height / CELL_MIN).clamp(1, ROWS);
        (self.columns, self.rows) = (columns, rows);
        let sums = &mut sums[..width];
        for (row, cells) in self.cells.chunks_exact_mut(columns).take(rows).enumerate() {
            let (top, bottom) = (row * height / rows, (row + 1) * height / rows);
            let lines = LINES_MAX.min(bottom - top);
            sums.fill(0);
            for line in 0..lines {
                // The middle of each of so many equal parts.
                let y = top + (2 * line + 1) * (bottom - top) / (2 * lines);
                add_line(frame, y, sums);
            }
            for (column, cell) in cells.iter_mut().enumerate() {
                let (left, right) = (column * width / columns, (column + 1) * width / columns);
                let sum: u32 = sums[left..right].iter().map(|&sum| u32::from(sum)).sum();
                // At most 255 sixteen times: fits.
                *cell = (sum * LEVEL as u32 / ((right - left) * lines) as u32) as i16;
            }
        }
    }
}

/// Adds the luma of a line of pixels to `sums`, which has a value for each of them.
fn add_line(frame: &Frame<'_>, y: usize, sums: &mut [u16]) {
    let width = sums.len();
    let line = |bytes: usize| &frame.data()[y * width * bytes..][..width * bytes];
    match frame.format() {
        PixelFormat::Nv12 | PixelFormat::I420 => {
            for (sum, luma) in sums.iter_mut().zip(line(1)) {
                *sum += u16::from(*luma);
            }
        }
        PixelFormat::Yuyv => {
            for (sum, pixel) in sums.iter_mut().zip(line(2).chunks_exact(2)) {
                *sum += u16::from(pixel[0]);
            }
        }
        PixelFormat::Rgb8 => {
            for (sum, pixel) in sums.iter_mut().zip(line(3).chunks_exact(3)) {
                let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u16::from);
                *sum += (red + 2 * green + blue) / 4;
            }
        }
    }
}

/// How much brighter `now` is than `examined`, the median of all cells that are not dark.
fn gain(now: &[i16], examined: &[i16], sorted: &mut [i16]) -> i32 {
    let mut count = 0;
    for (now, examined) in now.iter().zip(examined).step_by(SAMPLE) {
        if *examined >= DARK {
            let ratio = i32::from(*now) * GAIN_ONE / i32::from(*examined);
            sorted[count] = ratio.min(2 * GAIN_ONE) as i16;
            count += 1;
        }
    }
    if count <= now.len() / SAMPLE / 4 {
        return GAIN_ONE;
    }
    i32::from(median(&mut sorted[..count])).clamp(*GAIN_RANGE.start(), *GAIN_RANGE.end())
}

/// The middle value, or the upper one of the two in the middle; there is at least one.
fn median(values: &mut [i16]) -> i16 {
    let middle = values.len() / 2;
    *values.select_nth_unstable(middle).1
}

/// Whether two cells that lie side by side or one above the other differ by more than `change`. Noise and sparkle are
/// single cells.
fn has_neighbours(difference: &[i16], columns: usize, change: i16) -> bool {
    let below = difference.get(columns..).unwrap_or_default();
    let has_below = |(a, b): (&i16, &i16)| *a > change && *b > change;
    difference.iter().zip(below).any(has_below)
        || difference.chunks_exact(columns).any(|row| {
            row.windows(2)
                .any(|pair| pair[0] > change && pair[1] > change)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORMATS: [PixelFormat; 4] = [
        PixelFormat::Nv12,
        PixelFormat::I420,
        PixelFormat::Yuyv,
        PixelFormat::Rgb8,
    ];
    const SIZES: [(u32, u32); 4] = [(320, 240), (480, 270), (352, 200), (160, 120)];
    const FRAME_NS: u64 = 100_000_000;

    /// Numbers that look random (xorshift64*).
    struct Chance(u64);

    impl Chance {
        fn new(seed: u64) -> Self {
            Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
        }

        fn part(&mut self) -> f32 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u32 << 24) as f32
        }

        /// Around zero, with a standard deviation of one: the sum of four has variance a third.
        fn noise(&mut self) -> f32 {
            ((0..4).map(|_| self.part()).sum::<f32>() - 2.0) * 3f32.sqrt()
        }
    }

    /// A wall with bricks, darker to the right: 40 to 200.
    fn wall(x: u32, y: u32) -> f32 {
        let brick = ((x / 13 + y / 7 * 5) % 8) as f32 * 12.0;
        60.0 + brick + 40.0 * (y % 97) as f32 / 97.0 - 20.0 * (x % 320) as f32 / 320.0
    }

    /// What a camera with noise of so many levels makes of a scene.
    struct Camera {
        format: PixelFormat,
        size: (u32, u32),
        chance: Chance,
        /// Standard deviations; every frame takes them in another order.
        noise: Vec<f32>,
        data: Vec<u8>,
    }

    impl Camera {
        fn new(format: PixelFormat, size: (u32, u32), noise: f32, seed: u64) -> Self {
            let mut chance = Chance::new(seed);
            let noise = (0..40_009).map(|_| noise * chance.noise()).collect();
            let len = format.frame_len(size.0, size.1).expect("a size");
            Self {
                format,
                size,
                chance,
                noise,
                data: vec![128; len],
            }
        }

        fn take(&mut self, scene: impl Fn(u32, u32) -> f32) -> Frame<'_> {
            let (width, height) = self.size;
            let bytes = match self.format {
                PixelFormat::Rgb8 => 3,
                PixelFormat::Yuyv => 2,
                PixelFormat::Nv12 | PixelFormat::I420 => 1,
            };
            let first = (self.chance.part() * 40_000.0) as usize;
            let mut noise = self.noise.iter().cycle().skip(first);
            for y in 0..height {
                for x in 0..width {
                    let value = scene(x, y) + noise.next().expect("for ever");
                    let at = (y * width + x) as usize * bytes;
                    let is_grey = self.format == PixelFormat::Rgb8;
                    self.data[at..at + if is_grey { 3 } else { 1 }].fill(value as u8);
                }
            }
            Frame::new(self.format, width, height, &self.data).expect("a frame")
        }
    }

    fn gate(examine_s: f32) -> Gate {
        let config = Config {
            enabled: true,
            examine_s,
        };
        Gate::new(&config, Frames::ForTracks)
    }

    /// Shows the wall for the aftermath of the beginning, then `scene` in one frame after another; the numbers of those
    /// that are examined.
    fn examined(
        gate: &mut Gate,
        camera: &mut Camera,
        frames: u64,
        scene: impl Fn(u64, u32, u32) -> f32,
    ) -> Vec<u64> {
        let settling = AFTERMATH_NS / FRAME_NS;
        for frame in 0..settling {
            let verdict = gate.judge(
                &camera.take(|x, y| scene(0, x, y)),
                frame * FRAME_NS,
                Need::Changes,
            );
            assert_eq!(verdict, Verdict::Examine, "the beginning is looked at");
        }
        (0..frames)
            .filter(|&frame| {
                let now_ns = (settling + frame) * FRAME_NS;
                let picture = camera.take(|x, y| scene(frame, x, y));
                gate.judge(&picture, now_ns, Need::Changes) == Verdict::Examine
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn noise_is_still(
            format in 0..FORMATS.len(), size in 0..SIZES.len(), noise in 0.0f32..8.0, seed: u64,
        ) {
            let mut camera = Camera::new(FORMATS[format], SIZES[size], noise, seed);
            let seen = examined(&mut gate(60.0), &mut camera, 15, |_, x, y| wall(x, y));
            prop_assert_eq!(seen, [0u64; 0]);
        }

        /// 24 pixels high in an input of 320 x 240, and strolling: half of its height in a second.
        #[test]
        fn the_smallest_person_is_motion(
            format in 0..FORMATS.len(), size in 0..SIZES.len(), noise in 0.0f32..4.0,
            contrast in 20.0f32..60.0, is_dark: bool, x in 0.0f32..0.8, y in 0.0f32..0.9, seed: u64,
        ) {
            let (width, height) = SIZES[size];
            let scale = (width as f32 / 320.0).max(height as f32 / 240.0);
            let (left, top) = (x * width as f32, y * height as f32);
            let step = 24.0 * scale * 0.5 / 10.0;
            let contrast = if is_dark { -contrast } else { contrast };
            let mut camera = Camera::new(FORMATS[format], SIZES[size], noise, seed);
            let seen = examined(&mut gate(60.0), &mut camera, 10, |frame, x, y| {
                let x = x as f32 - left - frame as f32 * step;
                let y = y as f32 - top;
                let is_person = (0.0..9.0 * scale).contains(&x) && (0.0..24.0 * scale).contains(&y);
                wall((x + left + frame as f32 * step) as u32, (y + top) as u32)
                    + if is_person { contrast } else { 0.0 }
            });
            prop_assert!(!seen.is_empty());
        }

        #[test]
        fn dusk_and_dawn_are_still(
            format in 0..FORMATS.len(), noise in 0.0f32..4.0, is_dusk: bool, seed: u64,
        ) {
            let mut camera = Camera::new(FORMATS[format], (240, 180), noise, seed);
            // From full light to three fifths of it, or back, within twelve seconds.
            let light = |frame: u64| {
                let part = frame as f32 / 120.0;
                1.0 - 0.4 * if is_dusk { part } else { 1.0 - part }
            };
            let seen = examined(&mut gate(1.0), &mut camera, 120, |frame, x, y| {
                light(frame) * wall(x, y)
            });
            // Those that are due once a second, and no more.
            prop_assert!(seen.len() <= 13, "{:?}", seen);
        }

        #[test]
        fn lamps_that_flicker_are_still(
            format in 0..FORMATS.len(), noise in 0.0f32..4.0, depth in 0.0f32..4.5, seed: u64,
        ) {
            let mut camera = Camera::new(FORMATS[format], (240, 180), noise, seed);
            // Bands that wander, as a rolling shutter makes them.
            let seen = examined(&mut gate(60.0), &mut camera, 30, |frame, x, y| {
                let phase = y as f32 / 180.0 * 4.0 + frame as f32 * 0.37;
                wall(x, y) + depth * (phase * std::f32::consts::TAU).sin()
            });
            prop_assert_eq!(seen, [0u64; 0]);
        }

        /// Whatever comes, nothing overflows, and a frame a second is examined.
        #[test]
        fn anything_is_judged_in_time(
            sizes in proptest::collection::vec((1u32..70, 1u32..70), 1..4), seed: u64,
        ) {
            let mut gate = gate(1.0);
            let mut chance = Chance::new(seed);
            let mut examined_ns = 0;
            for frame in 0..60u64 {
                let (width, height) = sizes[frame as usize / 10 % sizes.len()];
                let (width, height) = (2 * width, 2 * height);
                let format = FORMATS[(frame / 7) as usize % 4];
                let len = format.frame_len(width, height).expect("a size");
                let level = chance.part() * 255.0;
                let data: Vec<u8> = (0..len).map(|_| (level * chance.part()) as u8).collect();
                let picture = Frame::new(format, width, height, &data).expect("a frame");
                let now_ns = frame * FRAME_NS * 3;
                if gate.judge(&picture, now_ns, Need::Changes) == Verdict::Examine {
                    examined_ns = now_ns;
                }
                prop_assert!(now_ns - examined_ns < 1_000_000_000);
            }
        }
    }

    fn camera() -> Camera {
        Camera::new(PixelFormat::Nv12, (320, 240), 2.0, 7)
    }

    #[test]
    fn a_lamp_that_is_switched_on_is_motion_and_everything_is_examined_for_a_while() {
        let seen = examined(&mut gate(60.0), &mut camera(), 40, |frame, x, y| {
            wall(x, y) * if frame < 5 { 0.5 } else { 1.0 }
        });
        assert_eq!(seen, (5..15).collect::<Vec<_>>());
    }

    #[test]
    fn what_creeps_adds_up() {
        // A dark thing of the smallest person's size, a pixel of the network's input in a second.
        let seen = examined(&mut gate(60.0), &mut camera(), 150, |frame, x, y| {
            let left = 100 + frame as u32 / 10;
            let is_there = (left..left + 9).contains(&x) && (100..124).contains(&y);
            if is_there { 30.0 } else { wall(x, y) }
        });
        assert!(!seen.is_empty());
    }

    #[test]
    fn who_is_followed_is_looked_at_in_every_frame() {
        let mut gate = gate(60.0);
        let mut camera = camera();
        for frame in 0..50 {
            let picture = camera.take(wall);
            let verdict = gate.judge(&picture, frame * FRAME_NS, Need::EveryFrame);
            assert_eq!(verdict, Verdict::Examine);
        }
        let verdict = gate.judge(&camera.take(wall), 50 * FRAME_NS, Need::Changes);
        assert_eq!(verdict, Verdict::Skip);
    }

    #[test]
    fn a_gate_that_was_opened_and_a_clock_that_went_back_are_new_beginnings() {
        let mut gate = gate(60.0);
        let mut camera = camera();
        let mut judge =
            |gate: &mut Gate, now_ns| gate.judge(&camera.take(wall), now_ns, Need::Changes);
        assert_eq!(judge(&mut gate, 0), Verdict::Examine);
        assert_eq!(judge(&mut gate, 2 * AFTERMATH_NS), Verdict::Skip);
        gate.open();
        assert_eq!(judge(&mut gate, 3 * AFTERMATH_NS), Verdict::Examine);
        assert_eq!(judge(&mut gate, 5 * AFTERMATH_NS), Verdict::Skip);
        assert_eq!(judge(&mut gate, AFTERMATH_NS), Verdict::Examine);
        // Another camera: the same scene in another format.
        let mut other = Camera::new(PixelFormat::Yuyv, (320, 240), 2.0, 7);
        let verdict = gate.judge(&other.take(wall), 9 * AFTERMATH_NS, Need::Changes);
        assert_eq!(verdict, Verdict::Examine);
    }

    #[test]
    fn darkness_is_still() {
        for size in [(640, 480), (2, 2)] {
            let mut camera = Camera::new(PixelFormat::Nv12, size, 0.0, 7);
            let seen = examined(&mut gate(60.0), &mut camera, 20, |_, _, _| 0.0);
            assert_eq!(seen, [0; 0]);
        }
    }

    #[test]
    fn switched_off_or_with_a_document_a_frame_everything_is_examined() {
        for (enabled, frames) in [(false, Frames::ForTracks), (true, Frames::EachForItself)] {
            let config = Config {
                enabled,
                examine_s: 1.0,
            };
            let mut gate = Gate::new(&config, frames);
            let mut camera = camera();
            for frame in 0..30 {
                let verdict = gate.judge(&camera.take(wall), frame * FRAME_NS, Need::Changes);
                assert_eq!(verdict, Verdict::Examine);
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for examine_s in [0.0, 61.0, f32::NAN] {
            let config = Config {
                enabled: true,
                examine_s,
            };
            assert_eq!(
                config.validate().expect_err("refused").key,
                "motion.examine_s"
            );
        }
    }
}
