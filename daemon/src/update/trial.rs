//! What the camera says of a model: the frames of its trial against as many of the model before.
//!
//! Pure: takes what was counted, gives the verdict. It finds models that are broken in this place, not ones that are a
//! little worse: nobody labels the frames of a street.

use super::reason::Reason;
use std::ops::Sub;
use std::time::Duration;

/// A flood: more than so many times the detections of the model before...
const FLOOD_FACTOR: f64 = 4.0;
/// ... and so many a frame, which an empty street may have at most.
const FLOOD_ADDED: f64 = 10.0;
/// Silence: fewer than one in so many of the detections of the model before...
const SILENCE_DIVISOR: f64 = 10.0;
/// ... if at least so many were to be expected: on an empty street silence says nothing.
const SILENCE_EXPECTED: f64 = 10.0;

/// Frames that a model examined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames.
    pub frames: u64,
    /// Detections in them.
    pub detections: u64,
    /// Time that the inferences took.
    pub inference: Duration,
}

impl Sub for Tally {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(earlier.frames),
            detections: self.detections.saturating_sub(earlier.detections),
            inference: self.inference.saturating_sub(earlier.inference),
        }
    }
}

impl Tally {
    fn detections_a_frame(self) -> f64 {
        self.detections as f64 / self.frames.max(1) as f64
    }

    /// Mean time of an inference, milliseconds.
    pub fn latency_ms(self) -> f64 {
        self.inference.as_secs_f64() * 1000.0 / self.frames.max(1) as f64
    }
}

/// How long a model is watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Length {
    /// So many frames at least...
    pub frames: u64,
    /// ... and so long at least.
    pub time: Duration,
}

impl Length {
    /// Whether so many frames in so long a time are enough.
    pub fn is_reached(&self, seen: Tally, passed: Duration) -> bool {
        seen.frames >= self.frames && passed >= self.time
    }
}

/// Why the trial was not passed, if so.
pub fn objection(before: Tally, trial: Tally, latency_ms_max: f64) -> Option<Reason> {
    if trial.latency_ms() > latency_ms_max {
        return Some(Reason::TooSlow);
    }
    let (usual, found) = (before.detections_a_frame(), trial.detections_a_frame());
    if found > FLOOD_FACTOR * usual + FLOOD_ADDED {
        return Some(Reason::Flood);
    }
    let expected = usual * trial.frames as f64;
    if expected >= SILENCE_EXPECTED && found < usual / SILENCE_DIVISOR {
        return Some(Reason::Silence);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(frames: u64, detections: u64) -> Tally {
        Tally {
            frames,
            detections,
            inference: Duration::from_millis(20 * frames),
        }
    }

    fn verdict(before: u64, trial: u64) -> Option<Reason> {
        objection(tally(50, before), tally(50, trial), 100.0)
    }

    #[test]
    fn what_changes_with_the_street_is_no_objection() {
        for (before, trial) in [(0, 0), (0, 400), (9, 0), (100, 11), (100, 700), (500, 500)] {
            assert_eq!(verdict(before, trial), None, "{before} then {trial}");
        }
    }

    #[test]
    fn a_flood_and_silence_are_objections() {
        assert_eq!(verdict(0, 501), Some(Reason::Flood));
        assert_eq!(verdict(100, 1000), Some(Reason::Flood));
        assert_eq!(verdict(100, 9), Some(Reason::Silence));
        assert_eq!(verdict(10, 0), Some(Reason::Silence));
    }

    #[test]
    fn a_slow_model_is_an_objection_whatever_it_finds() {
        assert_eq!(
            objection(tally(50, 9), tally(50, 9), 19.0),
            Some(Reason::TooSlow)
        );
        assert_eq!(objection(tally(50, 9), tally(50, 9), 21.0), None);
    }

    #[test]
    fn a_trial_needs_its_frames_and_its_time() {
        let length = Length {
            frames: 30,
            time: Duration::from_secs(10),
        };
        let seconds = Duration::from_secs;
        assert!(!length.is_reached(tally(29, 0), seconds(60)));
        assert!(!length.is_reached(tally(999, 0), seconds(9)));
        assert!(length.is_reached(tally(30, 0), seconds(10)));
    }
}
