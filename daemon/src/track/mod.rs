//! Fourth stage: from detections to objects that keep their identity.
//!
//! Takes the detections of one frame after another, each with its moment; gives tracks, and tells when one is new, has
//! changed, or has ended. The method is ByteTrack's (Zhang et al. 2022, arXiv:2110.06864): detections of a high score
//! are matched first, and then those of a low score continue tracks that found none, because a person half hidden has a
//! low score rather than none. From OC-SORT (Cao et al. 2023, arXiv:2203.14360) comes a step that looks for whoever
//! stopped where it was last seen. Overlaps are measured between boxes that were grown by the doubt about the
//! prediction, after C-BIoU (Yang et al. 2023, arXiv:2211.14317), so that fast objects are followed at low frame rates.
//!
//! Every limit is in seconds. One is in frames besides: whoever is believed was seen three times, because two boxes by chance happen at any frame
//! rate; below seven frames a second that takes longer than the usual time. It reads no clock, holds at most [`TRACKS_MAX`] tracks, and allocates
//! nothing after its construction. It knows nothing of zones, nor of what is published.

mod assign;
mod boxes;
mod motion;
mod path;
mod state;

pub(crate) use boxes::foot;
pub use path::{POINTS_MAX, Point};
pub use state::{Sighting, State, Track};

use crate::config::{Invalid, in_range};
use assign::Assignment;
use boxes::Xyxy;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use ternwatch_detector::{DETECTIONS_MAX, Detection};

/// Tracks at a time, tentative and lost ones included. Beyond that, nothing new is noticed until a track ends.
pub const TRACKS_MAX: usize = 128;

/// Least overlap of a prediction with a detection of a high score, with one of a low score, of a tentative track with a
/// detection, and of a detection with the place of the last sighting. The first three are ByteTrack's.
const IOU_MIN_HIGH: f32 = 0.2;
const IOU_MIN_LOW: f32 = 0.5;
const IOU_MIN_TENTATIVE: f32 = 0.3;
const IOU_MIN_STOPPED: f32 = 0.3;
/// A box grows by the standard deviation of its position, but at most by this part of its side.
const GROWTH_MAX: f32 = 0.4;
/// Sightings that make a track believable, besides the configured time.
const SIGHTINGS_MIN: u32 = 3;
/// A track that was not seen for so long, and for more than one frame, counts as lost and is not continued by a low
/// score; a tentative one is forgotten.
const UNSEEN_NS: u64 = 500_000_000;

/// The `[track]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Detections from this score on continue a track, even if they are too weak to be published.
    pub score_low: f32,
    /// Seconds that something must have been seen for, and at least three times, before it is told of.
    pub confirm_s: f32,
    /// Seconds without a sighting after which a track ends.
    pub lost_s: f32,
    /// Seconds between two updates about a track; 0: only when it stops or starts to move.
    pub update_s: f32,
    /// Seconds that something must stand still for to count as stationary.
    pub stationary_s: f32,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        in_range("track.score_low", self.score_low, 0.01..=1.0)?;
        in_range("track.confirm_s", self.confirm_s, 0.0..=60.0)?;
        in_range("track.lost_s", self.lost_s, 0.1..=60.0)?;
        in_range("track.update_s", self.update_s, 0.0..=3600.0)?;
        in_range("track.stationary_s", self.stationary_s, 1.0..=3600.0)
    }
}

/// What happened to a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is believed from now on.
    New,
    /// It started or stopped to move, or enough time has passed.
    Update,
    /// It was not seen for too long, or tracking ends.
    End,
}

/// Follows objects.
#[derive(Debug)]
pub struct Tracker {
    confirm_ns: u64,
    lost_ns: u64,
    update_ns: Option<u64>,
    stationary_ns: u64,
    score_high: f32,
    score_low: f32,
    /// The setting; a model may be believed from a lower score on.
    score_low_wanted: f32,
    now_ns: u64,
    ids: u64,
    tracks: Vec<Track>,
    /// Confirmed tracks that ended in the last step.
    ended: Vec<Track>,
    /// Changes of the last step, with the index of the track.
    changed: Vec<(Change, usize)>,
    assignment: Assignment,
    /// Indices of the tracks and detections that are being matched, and what became of the detections.
    rows: Vec<usize>,
    columns: Vec<usize>,
    is_taken: Vec<bool>,
}

impl Tracker {
    /// Follows what is detected with at least `score_high`.
    pub fn new(config: &Config, score_high: f32) -> Self {
        let nanoseconds = |seconds: f32| (f64::from(seconds) * 1e9) as u64;
        Self {
            confirm_ns: nanoseconds(config.confirm_s),
            lost_ns: nanoseconds(config.lost_s),
            update_ns: (config.update_s > 0.0).then(|| nanoseconds(config.update_s)),
            stationary_ns: nanoseconds(config.stationary_s),
            score_high,
            score_low: config.score_low.min(score_high),
            score_low_wanted: config.score_low,
            now_ns: 0,
            ids: 0,
            tracks: Vec::with_capacity(TRACKS_MAX),
            ended: Vec::with_capacity(TRACKS_MAX),
            changed: Vec::with_capacity(TRACKS_MAX),
            assignment: Assignment::new(TRACKS_MAX, DETECTIONS_MAX),
            rows: Vec::with_capacity(TRACKS_MAX),
            columns: Vec::with_capacity(DETECTIONS_MAX),
            is_taken: vec![false; DETECTIONS_MAX],
        }
    }

    /// Follows from now on what is detected with at least `score_high`: another model has other scores.
    pub fn believe_from(&mut self, score_high: f32) {
        self.score_high = score_high;
        self.score_low = self.score_low_wanted.min(score_high);
    }

    /// The lowest score that it has a use for.
    pub fn score_low(&self) -> f32 {
        self.score_low
    }

    /// How long a track goes on without a sighting.
    pub fn lost_after(&self) -> Duration {
        Duration::from_nanos(self.lost_ns)
    }

    /// Takes the detections of the frame at `now_ns`. A clock that runs backwards stands still; of more than
    /// [`DETECTIONS_MAX`] detections the rest is left out.
    pub fn step(&mut self, now_ns: u64, detections: &[Detection]) {
        let detections = &detections[..detections.len().min(DETECTIONS_MAX)];
        let now_ns = now_ns.max(self.now_ns);
        let passed_s = (now_ns - self.now_ns) as f64 / 1e9;
        self.now_ns = now_ns;
        self.ended.clear();
        self.changed.clear();
        self.forget();
        for track in &mut self.tracks {
            track.missed = track.missed.saturating_add(1);
            track.motion.predict(passed_s as f32);
        }
        self.associate(detections);
        self.judge();
    }

    /// Whether everything that is followed was seen in the last step and stands still, so that the same picture again
    /// would say nothing new.
    pub fn is_settled(&self) -> bool {
        let is_settled = |track: &Track| {
            track.state == State::Confirmed && track.is_seen() && track.is_stationary
        };
        self.tracks.iter().all(is_settled)
    }

    /// Takes a frame at `now_ns` that shows what the last step's did: who was believed and seen then is still there, and
    /// counts as seen. It is no sighting that makes anybody more believable.
    pub fn hold(&mut self, now_ns: u64) {
        self.now_ns = now_ns.max(self.now_ns);
        self.ended.clear();
        self.changed.clear();
        for track in &mut self.tracks {
            if track.state == State::Confirmed && track.is_seen() {
                track.last.at_ns = self.now_ns;
            }
        }
        self.judge();
    }

    /// Ends every track. To be called once no frames come any more, or frames of another kind.
    pub fn finish(&mut self) {
        self.changed.clear();
        self.ended.clear();
        let confirmed = |track: &Track| track.state != State::Tentative;
        self.ended
            .extend(self.tracks.drain(..).filter(|track| confirmed(track)));
    }

    /// What happened in the last step: ends first, then the others in the order of their tracks' ids.
    pub fn changes(&self) -> impl Iterator<Item = (Change, &Track)> {
        let ends = self.ended.iter().map(|track| (Change::End, track));
        let others = self.changed.iter();
        ends.chain(others.map(|&(change, index)| (change, &self.tracks[index])))
    }

    /// The tracks that are believed, in the order of their ids.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        let believed = |track: &&Track| track.state != State::Tentative;
        self.tracks.iter().filter(believed)
    }

    /// All of them, those too that are not believed yet.
    pub fn everybody(&self) -> impl Iterator<Item = &Track> + Clone {
        self.tracks.iter()
    }

    /// Lets go of what was not seen for too long.
    fn forget(&mut self) {
        let (now_ns, lost_ns) = (self.now_ns, self.lost_ns);
        let ended = &mut self.ended;
        self.tracks.retain(|track| {
            let unseen_ns = now_ns - track.last.at_ns;
            if track.state == State::Tentative {
                let is_old = unseen_ns > UNSEEN_NS && track.missed > 0;
                return !is_old && unseen_ns <= lost_ns;
            }
            if unseen_ns > lost_ns {
                ended.push(*track);
                return false;
            }
            true
        });
    }

    /// Finds the detection of every track, and begins tracks with what is left.
    fn associate(&mut self, detections: &[Detection]) {
        self.is_taken.fill(false);
        let (high, low) = (self.score_high, self.score_low);
        let now_ns = self.now_ns;
        let is_believed = |track: &Track| track.missed > 0 && track.state != State::Tentative;
        let is_high = |detection: &Detection| detection.score >= high;
        self.pair(detections, IOU_MIN_HIGH, is_believed, is_high, predicted);
        let is_recent = |track: &Track| {
            is_believed(track) && (track.missed == 1 || now_ns - track.last.at_ns <= UNSEEN_NS)
        };
        let is_low = |detection: &Detection| detection.score >= low && !is_high(detection);
        self.pair(detections, IOU_MIN_LOW, is_recent, is_low, predicted);
        self.pair(detections, IOU_MIN_STOPPED, is_believed, is_high, stopped);
        let is_tentative = |track: &Track| track.missed > 0 && track.state == State::Tentative;
        self.pair(
            detections,
            IOU_MIN_TENTATIVE,
            is_tentative,
            is_high,
            predicted,
        );
        for (index, detection) in detections.iter().enumerate() {
            if is_high(detection) && !self.is_taken[index] && self.tracks.len() < TRACKS_MAX {
                self.tracks.push(Track::begin(detection, now_ns));
            }
        }
    }

    /// One round of matching: `overlap` tells how well a track and a detection of the same class fit, and only pairs
    /// above `iou_min` are made.
    fn pair(
        &mut self,
        detections: &[Detection],
        iou_min: f32,
        is_row: impl Fn(&Track) -> bool,
        is_column: impl Fn(&Detection) -> bool,
        overlap: impl Fn(&Track, Xyxy) -> f32,
    ) {
        self.rows.clear();
        let tracks = self.tracks.iter().enumerate();
        self.rows
            .extend(tracks.filter_map(|(index, track)| is_row(track).then_some(index)));
        self.columns.clear();
        let free = detections.iter().enumerate().filter_map(|(index, found)| {
            (!self.is_taken[index] && is_column(found)).then_some(index)
        });
        self.columns.extend(free);
        if self.rows.is_empty() || self.columns.is_empty() {
            return;
        }
        self.assignment.begin(self.rows.len(), self.columns.len());
        for (row, &track) in self.rows.iter().enumerate() {
            let track = &self.tracks[track];
            for (column, &detection) in self.columns.iter().enumerate() {
                let detection = &detections[detection];
                if detection.class == track.class {
                    let weight = overlap(track, detection.xyxy) - iou_min;
                    self.assignment.set(row, column, weight.max(0.0));
                }
            }
        }
        for (row, column) in self.assignment.solve() {
            let detection = self.columns[column];
            self.is_taken[detection] = true;
            self.tracks[self.rows[row]].see(
                &detections[detection],
                self.now_ns,
                self.stationary_ns,
            );
        }
    }

    /// Decides what is believed and what is worth telling.
    fn judge(&mut self) {
        let now_ns = self.now_ns;
        // Numbers are given in the order of the list, to its end, so the list is sorted by them: tentative ones last.
        for track in &mut self.tracks {
            let is_believable =
                track.sightings >= SIGHTINGS_MIN && track.duration_ns() >= self.confirm_ns;
            if track.state == State::Tentative && track.is_seen() && is_believable {
                self.ids += 1;
                track.id = self.ids;
            }
        }
        self.tracks
            .sort_unstable_by_key(|track| if track.id == 0 { u64::MAX } else { track.id });
        for (index, track) in self.tracks.iter_mut().enumerate() {
            if track.id == 0 {
                break;
            }
            let is_new = track.state == State::Tentative;
            let unseen_ns = now_ns - track.last.at_ns;
            track.state = if unseen_ns > UNSEEN_NS && track.missed > 1 {
                State::Lost
            } else {
                State::Confirmed
            };
            if !track.is_seen() {
                continue;
            }
            let has_turned = track.is_stationary != track.was_stationary;
            let is_due = self
                .update_ns
                .is_some_and(|interval_ns| now_ns - track.told_ns >= interval_ns);
            if is_new || has_turned || is_due {
                let change = if is_new { Change::New } else { Change::Update };
                self.changed.push((change, index));
                track.told_ns = now_ns;
                track.was_stationary = track.is_stationary;
            }
        }
    }
}

/// How well a detection fits to where the track should be by now.
fn predicted(track: &Track, found: Xyxy) -> f32 {
    let [width, height] = boxes::size(found);
    let [x, y] = track.motion.doubt();
    let growth = [x.min(GROWTH_MAX * width), y.min(GROWTH_MAX * height)];
    boxes::iou(
        boxes::grow(track.motion.xyxy(), growth),
        boxes::grow(found, growth),
    )
}

/// How well a detection fits to where the track was last seen.
fn stopped(track: &Track, found: Xyxy) -> f32 {
    boxes::iou(track.last.xyxy, found)
}
