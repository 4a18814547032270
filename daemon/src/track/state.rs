//! One tracked object: what is known of it.

use super::boxes::{self, Xyxy};
use super::motion::Motion;
use super::path::{Path, Point};
use ternwatch_detector::Detection;

/// How far something may wander and still count as standing, in its own heights.
const STANDING_RADIUS: f32 = 0.2;

/// How certain it is that the object is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Seen too few times to be believed.
    Tentative,
    /// Believed, and seen lately.
    Confirmed,
    /// Believed, but not seen for a while.
    Lost,
}

/// One time that the object was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// On the clock of the frames.
    pub at_ns: u64,
    /// The detection's.
    pub score: f32,
    /// The detection's: left, top, right, bottom in pixels.
    pub xyxy: Xyxy,
}

/// A tracked object.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    pub(super) id: u64,
    pub(super) class: u16,
    pub(super) state: State,
    pub(super) first: Sighting,
    pub(super) last: Sighting,
    pub(super) best: Sighting,
    pub(super) motion: Motion,
    pub(super) path: Path,
    /// Times that it was seen.
    pub(super) sightings: u32,
    /// Steps since it was seen.
    pub(super) missed: u32,
    /// Where it was when it last moved away from where it had been.
    standing_at: [f32; 2],
    standing_since_ns: u64,
    pub(super) is_stationary: bool,
    /// What was told of that.
    pub(super) was_stationary: bool,
    /// When its last change was told.
    pub(super) told_ns: u64,
}

impl Track {
    pub(super) fn begin(detection: &Detection, at_ns: u64) -> Self {
        let sighting = Sighting {
            at_ns,
            score: detection.score,
            xyxy: detection.xyxy,
        };
        let [x, y] = boxes::foot(detection.xyxy);
        Self {
            id: 0,
            class: detection.class,
            state: State::Tentative,
            first: sighting,
            last: sighting,
            best: sighting,
            motion: Motion::begin(detection.xyxy),
            path: Path::begin(Point { at_ns, x, y }),
            sightings: 1,
            missed: 0,
            standing_at: [x, y],
            standing_since_ns: at_ns,
            is_stationary: false,
            was_stationary: false,
            told_ns: at_ns,
        }
    }

    /// The object was seen again; the motion stands at this moment.
    pub(super) fn see(&mut self, detection: &Detection, at_ns: u64, stationary_ns: u64) {
        self.motion.correct(detection.xyxy);
        self.last = Sighting {
            at_ns,
            score: detection.score,
            xyxy: detection.xyxy,
        };
        if detection.score > self.best.score {
            self.best = self.last;
        }
        self.sightings = self.sightings.saturating_add(1);
        self.missed = 0;
        let [x, y] = self.foot();
        self.path.add(Point { at_ns, x, y });
        self.watch_standing([x, y], at_ns, stationary_ns);
    }

    fn watch_standing(&mut self, [x, y]: [f32; 2], at_ns: u64, stationary_ns: u64) {
        let [_, height] = boxes::size(self.motion.xyxy());
        let radius = STANDING_RADIUS * height;
        let [from_x, from_y] = self.standing_at;
        let (along, down) = (x - from_x, y - from_y);
        if along * along + down * down > radius * radius {
            self.standing_at = [x, y];
            self.standing_since_ns = at_ns;
            self.is_stationary = false;
        } else if at_ns.saturating_sub(self.standing_since_ns) >= stationary_ns {
            self.is_stationary = true;
        }
    }

    /// Unique in this run of the tracker, from 1; 0 while tentative.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Index into the model's classes.
    pub fn class(&self) -> u16 {
        self.class
    }

    /// How certain it is that it is there.
    pub fn state(&self) -> State {
        self.state
    }

    /// The first time that it was seen.
    pub fn first(&self) -> Sighting {
        self.first
    }

    /// The last time that it was seen.
    pub fn last(&self) -> Sighting {
        self.last
    }

    /// The time that it was seen with the highest score.
    pub fn best(&self) -> Sighting {
        self.best
    }

    /// From the first to the last sighting, in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.last.at_ns.saturating_sub(self.first.at_ns)
    }

    /// Whether it has stood where it is for the configured time.
    pub fn is_stationary(&self) -> bool {
        self.is_stationary
    }

    /// Whether it was seen in the last step.
    pub fn is_seen(&self) -> bool {
        self.missed == 0
    }

    /// Where it is now, smoothed; a guess while it is not seen. Left, top, right, bottom in pixels; may reach beyond the
    /// frame.
    pub fn xyxy(&self) -> [f32; 4] {
        self.motion.xyxy()
    }

    /// Where it stands now, smoothed: the middle of the lower edge in pixels.
    pub fn foot(&self) -> [f32; 2] {
        boxes::foot(self.motion.xyxy())
    }

    /// Where it stood, in the order of time, from its beginning on.
    pub fn path(&self) -> &[Point] {
        self.path.points()
    }
}
