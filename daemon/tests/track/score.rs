//! How well tracks fit to the truth: the CLEAR MOT measures (Bernardin and Stiefelhagen 2008).

use std::collections::{BTreeMap, BTreeSet};

/// Least overlap of a track with whom it is about.
const IOU_MIN: f32 = 0.5;

#[derive(Debug, Default)]
pub(crate) struct Score {
    truths: usize,
    pub(crate) misses: usize,
    pub(crate) false_positives: usize,
    pub(crate) switches: usize,
    /// Whom every track was about in the frame before.
    pairs: BTreeMap<usize, u64>,
    /// The last track of everybody.
    last: BTreeMap<usize, u64>,
}

impl Score {
    /// Takes one frame: people with their boxes, and tracks with theirs.
    pub(crate) fn add(&mut self, truth: &[(usize, [f32; 4])], tracks: &[(u64, [f32; 4])]) {
        let mut pairs = BTreeMap::new();
        let mut taken = BTreeSet::new();
        // A pair of the frame before stays one while it overlaps; the others take the best that is left.
        for &(person, at) in truth {
            let kept = self.pairs.get(&person).and_then(|id| {
                tracks
                    .iter()
                    .find(|track| track.0 == *id && iou(at, track.1) >= IOU_MIN)
            });
            if let Some(&(id, _)) = kept {
                pairs.insert(person, id);
                taken.insert(id);
            }
        }
        let mut candidates: Vec<(f32, usize, u64)> = truth
            .iter()
            .flat_map(|&(person, at)| {
                tracks
                    .iter()
                    .map(move |&(id, xyxy)| (iou(at, xyxy), person, id))
            })
            .filter(|candidate| candidate.0 >= IOU_MIN)
            .collect();
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, person, id) in candidates {
            if !pairs.contains_key(&person) && taken.insert(id) {
                pairs.insert(person, id);
            }
        }
        for (&person, &id) in &pairs {
            if self
                .last
                .insert(person, id)
                .is_some_and(|before| before != id)
            {
                self.switches += 1;
            }
        }
        self.truths += truth.len();
        self.misses += truth.len() - pairs.len();
        self.false_positives += tracks.len() - pairs.len();
        self.pairs = pairs;
    }

    /// 1 at best; may be negative.
    pub(crate) fn mota(&self) -> f64 {
        let wrong = self.misses + self.false_positives + self.switches;
        1.0 - wrong as f64 / self.truths as f64
    }
}

fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |of: [f32; 4]| (of[2] - of[0]) * (of[3] - of[1]);
    width * height / (area(a) + area(b) - width * height)
}

#[test]
fn the_scorer_counts_misses_false_positives_and_switches() {
    let (here, there) = ([0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]);
    let mut score = Score::default();
    score.add(&[(0, here)], &[(1, here)]);
    score.add(&[(0, here)], &[(1, here), (2, here)]);
    assert_eq!(
        (score.switches, score.false_positives),
        (0, 1),
        "a pair stays one"
    );
    score.add(&[(0, here), (1, there)], &[(2, here)]);
    assert_eq!((score.switches, score.misses), (1, 1));
    score.add(&[(0, here)], &[(2, there)]);
    assert_eq!((score.misses, score.false_positives), (2, 2));
    assert_eq!(score.mota(), 1.0 - 5.0 / 5.0);
}
