//! The frames in which everybody is best seen, in memory that is bounded and made once.
//!
//! Takes every examined frame with who is in it. A frame is copied only when it shows somebody better, by a margin, than all
//! before; one copy serves everybody who is at their best in it. The frames are made when the first one comes, or one of another
//! size, and never after. If all of them are in use, whoever is seen worst goes without a picture.

use super::desk::Desk;
use super::studio::Order;
use super::{Config, studio};
use crate::camera::FrameBuffer;
use crate::health::Health;
use crate::track::TRACKS_MAX;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use ternwatch_detector::CANDIDATES_MAX;

/// A frame takes the place of another one if it is so many times better.
const BETTER: f32 = 1.1;
/// Frames that are kept, whatever memory there is.
const SHOTS_MAX: usize = 64;

/// Boxes that one is blurred in: what was detected is among the candidates.
const PEOPLE_MAX: usize = CANDIDATES_MAX + TRACKS_MAX;

/// Somebody in a frame: left, top, right, bottom in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Whose track it is.
    pub track: u64,
    /// The detection's.
    pub score: f32,
    /// The detection's.
    pub xyxy: [f32; 4],
}

/// A frame that is kept, and where somebody is in it.
#[derive(Debug)]
pub(super) struct Shot {
    pub(super) frame: FrameBuffer,
    pub(super) people: Vec<[f32; 4]>,
}

#[derive(Debug)]
struct Best {
    seen: Seen,
    value: f32,
    shot: Arc<Shot>,
}

/// Best shots of everybody who is followed.
#[derive(Debug)]
pub struct Album {
    memory_bytes: usize,
    /// Bytes of a frame that there is room for.
    frame_bytes: usize,
    /// One that nobody else refers to is free.
    shots: Vec<Arc<Shot>>,
    bests: Vec<Best>,
    orders: SyncSender<Order>,
    desk: Arc<Desk>,
    health: Arc<Health>,
}

impl Album {
    /// An empty one, which hands shots over as `orders` and looks at the wishes on the desk.
    pub fn new(
        config: &Config,
        orders: SyncSender<Order>,
        desk: Arc<Desk>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            memory_bytes: config.memory_mib << 20,
            frame_bytes: 0,
            shots: Vec::new(),
            bests: Vec::with_capacity(TRACKS_MAX),
            orders,
            desk,
            health,
        }
    }

    /// Whether somebody waits for a picture of now.
    pub fn is_asked(&self) -> bool {
        self.desk.is_asked()
    }

    /// Turns down who cannot be served; to be called with or without a frame.
    pub fn attend(&self, is_at_rest: bool) {
        if is_at_rest {
            self.desk.refuse("detection_off", "detection is off");
        } else {
            self.desk.give_up();
        }
    }

    /// Takes an examined frame: who of those that are followed was seen in it, and where anybody may be.
    pub fn see(
        &mut self,
        frame: &FrameBuffer,
        seen: impl Iterator<Item = Seen>,
        people: impl Iterator<Item = [f32; 4]> + Clone,
    ) {
        if self.frame_bytes != frame.data.len() {
            self.make_room(frame);
        }
        let mut taken: Option<Arc<Shot>> = None;
        for seen in seen {
            let value = value(&seen, frame);
            let before = self.bests.iter().position(|best| is_of(best, seen.track));
            if before.is_some_and(|index| value <= self.bests[index].value * BETTER) {
                continue;
            }
            let shot = taken
                .take()
                .or_else(|| self.take(frame, &people, seen.track, value));
            let Some(shot) = shot else { continue };
            taken = Some(shot.clone());
            self.forget(seen.track);
            if self.bests.len() < TRACKS_MAX {
                self.bests.push(Best { seen, value, shot });
            }
        }
        if self.desk.is_asked() {
            let shot = taken.or_else(|| self.take(frame, &people, 0, f32::INFINITY));
            self.serve(shot);
        }
    }

    /// A track has ended, with the event of this number: its best shot is handed over.
    pub fn end(&mut self, track: u64, event: u64) {
        let Some(index) = self.bests.iter().position(|best| is_of(best, track)) else {
            self.health.snapshot_dropped();
            return;
        };
        let Best { seen, shot, .. } = self.bests.swap_remove(index);
        let about = studio::About { seen, event };
        let order = Order::of_track(shot, about);
        if self.orders.try_send(order).is_err() {
            self.health.snapshot_dropped();
        }
    }

    /// Hands a picture of now over to those who asked for one.
    fn serve(&self, shot: Option<Arc<Shot>>) {
        let Some(shot) = shot else {
            let message = "there is no memory left for it (snapshots.memory_mib)";
            self.desk.refuse("not_published", message);
            return;
        };
        // An order that is refused answers by itself.
        if self
            .orders
            .try_send(Order::of_now(shot, self.desk.take()))
            .is_err()
        {
            self.health.snapshot_dropped();
        }
    }

    /// A copy of the frame, if there is room for one of this value.
    fn take(
        &mut self,
        frame: &FrameBuffer,
        people: &(impl Iterator<Item = [f32; 4]> + Clone),
        track: u64,
        value: f32,
    ) -> Option<Arc<Shot>> {
        let index = self.cheapest(track, value)?;
        let shot = &mut self.shots[index];
        self.bests.retain(|best| !Arc::ptr_eq(&best.shot, shot));
        Arc::get_mut(shot)?.copy(frame, people.clone());
        Some(shot.clone())
    }

    /// The frame that costs least to give up for one of this value: a free one, then one that is replaced anyway, then that of those who are
    /// seen worst. None of whom it costs is seen better, and no picture is being made of it.
    fn cheapest(&self, track: u64, value: f32) -> Option<usize> {
        let cost = |shot: &Arc<Shot>| {
            let (mut holders, mut cost) = (0, f32::NEG_INFINITY);
            for best in self.bests.iter().filter(|b| Arc::ptr_eq(&b.shot, shot)) {
                holders += 1;
                cost = cost.max(if is_of(best, track) { 0.0 } else { best.value });
            }
            let is_ours = Arc::strong_count(shot) == 1 + holders;
            (is_ours && cost < value).then_some(cost)
        };
        let costs = self.shots.iter().enumerate();
        let costs = costs.filter_map(|(index, shot)| Some((index, cost(shot)?)));
        let cheapest = costs.min_by(|(_, a), (_, b)| a.total_cmp(b));
        cheapest.map(|(index, _)| index)
    }

    fn forget(&mut self, track: u64) {
        self.bests.retain(|best| !is_of(best, track));
    }

    /// Makes memory for frames like this one. What is kept of other ones stays with whom it belongs to.
    fn make_room(&mut self, frame: &FrameBuffer) {
        self.frame_bytes = frame.data.len();
        let count = (self.memory_bytes / self.frame_bytes.max(1)).min(SHOTS_MAX);
        if count == 0 {
            let (width, height) = (frame.width, frame.height);
            log::warn!(
                "no snapshots: a frame of {width} x {height} pixels takes more than snapshots.memory_mib"
            );
        }
        let shot = || Arc::new(Shot::with_room(self.frame_bytes));
        self.shots = std::iter::repeat_with(shot).take(count).collect();
    }
}

impl Shot {
    fn with_room(len: usize) -> Self {
        let mut frame = FrameBuffer::empty();
        frame.data.reserve_exact(len);
        Self {
            frame,
            people: Vec::with_capacity(PEOPLE_MAX),
        }
    }

    fn copy(&mut self, frame: &FrameBuffer, people: impl Iterator<Item = [f32; 4]>) {
        let FrameBuffer {
            format,
            width,
            height,
            ref data,
            captured_at,
            moment_ns,
            sequence,
            replaced: _,
        } = *frame;
        let copy = &mut self.frame;
        copy.prepare(format, width, height, data.len())
            .copy_from_slice(data);
        copy.captured_at = captured_at;
        (copy.moment_ns, copy.sequence) = (moment_ns, sequence);
        self.people.clear();
        self.people.extend(people.take(PEOPLE_MAX));
    }
}

fn is_of(best: &Best, track: u64) -> bool {
    best.seen.track == track
}

/// How good a shot is: the score times the part of the picture that is theirs.
fn value(seen: &Seen, frame: &FrameBuffer) -> f32 {
    let [left, top, right, bottom] = seen.xyxy;
    let area = (right - left).max(0.0) * (bottom - top).max(0.0);
    seen.score * area / (frame.width as f32 * frame.height as f32).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::studio::Occasion;
    use super::*;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;
    use ternwatch_detector::PixelFormat;

    const SIDE: u32 = 100;

    struct Scene {
        album: Album,
        orders: Receiver<Order>,
        sequence: u64,
    }

    /// With room for so many frames.
    fn scene(frames: usize) -> Scene {
        let config = crate::config::Config::load(None, []).expect("the defaults");
        let (send, orders) = sync_channel(16);
        let health = Arc::new(Health::new(Duration::from_secs(1), None, "door"));
        let mut album = Album::new(&config.snapshots, send, Arc::default(), health);
        album.memory_bytes = frames * (SIDE * SIDE * 3) as usize;
        Scene {
            album,
            orders,
            sequence: 0,
        }
    }

    impl Scene {
        /// A frame in which these tracks have boxes of such a side, all of the same score.
        fn see(&mut self, sides: &[(u64, f32)]) {
            let mut frame = FrameBuffer::empty();
            let len = (SIDE * SIDE * 3) as usize;
            frame
                .prepare(PixelFormat::Rgb8, SIDE, SIDE, len)
                .fill(self.sequence as u8);
            frame.sequence = self.sequence;
            self.sequence += 1;
            let seen = sides.iter().map(|&(track, side)| Seen {
                track,
                score: 0.5,
                xyxy: [0.0, 0.0, side, side],
            });
            let people = seen.clone().map(|seen| seen.xyxy);
            self.album.see(&frame, seen, people);
        }

        /// Number of the frame that a track's picture is made of.
        fn end(&mut self, track: u64) -> Option<u64> {
            self.album.end(track, 7);
            let order = self.orders.try_recv().ok()?;
            let Occasion::End(about) = &order.occasion else {
                panic!("{order:?}");
            };
            assert_eq!((about.seen.track, about.event), (track, 7));
            let frame = &order.shot.frame;
            assert!(frame.data.iter().all(|&b| u64::from(b) == frame.sequence));
            Some(frame.sequence)
        }

        fn dropped(&self) -> u64 {
            self.album.health.snapshots_dropped.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn everybody_is_shown_at_their_best_and_a_little_better_is_not_worth_a_copy() {
        let mut scene = scene(8);
        scene.see(&[(1, 20.0), (2, 50.0)]);
        scene.see(&[(1, 40.0), (2, 51.0)]);
        scene.see(&[(1, 30.0), (2, 49.0)]);
        assert_eq!(scene.end(1), Some(1));
        assert_eq!(scene.end(2), Some(0));
        assert_eq!(scene.end(2), None, "nobody ends twice");
        assert_eq!(scene.dropped(), 1);
    }

    #[test]
    fn a_frame_that_is_best_of_several_is_kept_once() {
        let mut scene = scene(1);
        scene.see(&[(1, 20.0), (2, 30.0), (3, 40.0)]);
        assert_eq!(scene.album.shots.len(), 1);
        for track in 1..=3 {
            assert_eq!(scene.end(track), Some(0));
        }
    }

    #[test]
    fn without_room_whoever_is_seen_worst_goes_without_a_picture() {
        let mut scene = scene(2);
        scene.see(&[(1, 20.0)]);
        scene.see(&[(2, 40.0)]);
        scene.see(&[(3, 30.0)]);
        scene.see(&[(4, 10.0)]);
        assert_eq!(scene.album.shots.len(), 2, "no more than there was");
        let pictures: Vec<Option<u64>> = (1..=4).map(|track| scene.end(track)).collect();
        assert_eq!(pictures, [None, Some(1), Some(2), None]);
        assert_eq!(scene.dropped(), 2);
        // What was handed over and made is free again.
        scene.see(&[(5, 10.0)]);
        assert_eq!(scene.end(5), Some(4));
    }

    #[test]
    fn nobody_loses_a_picture_for_one_that_is_not_made() {
        let mut scene = scene(1);
        scene.see(&[(1, 50.0), (2, 20.0)]);
        // Better than before, but not than whom the frame is kept for.
        scene.see(&[(2, 30.0)]);
        assert_eq!(scene.end(2), Some(0));
        assert_eq!(scene.end(1), Some(0));
    }

    #[test]
    fn one_who_comes_nearer_uses_the_same_memory() {
        let mut scene = scene(1);
        for side in 1..=60 {
            scene.see(&[(1, side as f32)]);
        }
        let best = scene.end(1).expect("a picture");
        assert!((57..=59).contains(&best), "{best}");
    }

    #[test]
    fn a_frame_that_is_too_large_gives_no_pictures() {
        let mut scene = scene(0);
        scene.see(&[(1, 20.0)]);
        assert_eq!(scene.end(1), None);
        assert_eq!(scene.dropped(), 1);
    }
}
