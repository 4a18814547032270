//! Fifth stage: areas and lines in the picture, and who is in them or crosses them.
//!
//! Takes where one object stands (the middle of the lower edge of its box) at one moment after another; tells when it
//! enters, stays in or leaves a zone and when it crosses a line, and counts both. Coordinates are parts of the frame's
//! width and height, so that zones survive another resolution. A border is wider for leaving than for entering, and a
//! line has a band in which nothing is decided: somebody who trembles on either is counted once.
//!
//! It reads no clock, follows at most as many objects as it was made for, and allocates nothing after its construction.
//! It knows nothing of detections, tracks, nor of what is published.

mod config;
mod shape;

pub use config::{LINES_MAX, LineConfig, POINTS_MAX, ZONES_MAX, ZoneConfig, validate};

use shape::{Point, Polygon, Segment, Side};
use std::ops::RangeInclusive;

/// The last place within the picture, in parts of its width or height.
const LAST: f32 = 1.0 - f32::EPSILON;
/// How far outside a zone somebody has left it, in the object's heights.
const LEAVE_MARGIN: f32 = 0.1;
/// How far from a line it is certain on which side somebody is, in the object's heights.
const SIDE_MARGIN: f32 = 0.05;

/// Which way a line was crossed, looking from its first point to its second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the right side to the left.
    ToLeft,
    /// From the left side to the right.
    ToRight,
}

/// Something that an object did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It came into a zone.
    Enter {
        /// Index of the zone.
        zone: usize,
    },
    /// It has been in a zone for the zone's time. Told once a stay.
    Loiter {
        /// Index of the zone.
        zone: usize,
        /// Since it entered.
        dwell_ns: u64,
    },
    /// It left a zone, or ended within it.
    Leave {
        /// Index of the zone.
        zone: usize,
        /// Since it entered.
        dwell_ns: u64,
    },
    /// It went from one side of a line to the other.
    Cross {
        /// Index of the line.
        line: usize,
        /// Which way.
        direction: Direction,
    },
}

/// One object at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subject {
    /// Unique among the objects that are followed.
    pub id: u64,
    /// Where it stands, in parts of the frame's width and height.
    pub foot: [f32; 2],
    /// Height of its box in parts of the frame's height.
    pub height: f32,
    /// Its best score so far.
    pub score: f32,
}

impl Subject {
    /// Somebody who is cut off by the picture's edge stands on it, or by smoothing behind it: within a zone that reaches to it.
    fn within_picture(&self) -> Self {
        Self {
            foot: self.foot.map(|part| part.clamp(0.0, LAST)),
            ..*self
        }
    }
}

/// How often a line was crossed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossings {
    /// From right to left.
    pub to_left: u64,
    /// From left to right.
    pub to_right: u64,
}

#[derive(Debug)]
struct Zone {
    area: Polygon,
    score_min: f32,
    heights: RangeInclusive<f32>,
    loiter_ns: Option<u64>,
    occupancy: u32,
}

#[derive(Debug)]
struct Line {
    segment: Segment,
    crossings: Crossings,
}

/// What is remembered of an object.
#[derive(Clone, Copy, Debug)]
struct Member {
    id: u64,
    stays: [Option<Stay>; ZONES_MAX],
    entered: Entered,
    /// Where it last was for certain on one side of a line, and on which.
    sides: [Option<(Side, Point)>; LINES_MAX],
}

/// Zones in the order in which they were entered for the first time.
#[derive(Clone, Copy, Debug, Default)]
struct Entered {
    zones: [usize; ZONES_MAX],
    count: usize,
}

impl Entered {
    fn note(&mut self, zone: usize) {
        if !self.zones().contains(&zone) {
            self.zones[self.count] = zone;
            self.count += 1;
        }
    }

    fn zones(&self) -> &[usize] {
        &self.zones[..self.count]
    }
}

#[derive(Clone, Copy, Debug)]
struct Stay {
    since_ns: u64,
    is_told: bool,
}

/// Zones and lines with who is in them.
#[derive(Debug)]
pub struct Zones {
    zones: Vec<Zone>,
    lines: Vec<Line>,
    members: Vec<Member>,
    members_max: usize,
    /// Who was forgotten last.
    gone: Option<Member>,
    happenings: Vec<Happening>,
}

impl Zones {
    /// Of checked settings, for at most `members_max` objects at a time; others are not noticed.
    ///
    /// # Panics
    /// When the settings were not checked by [`validate`].
    pub fn new(zones: &[ZoneConfig], lines: &[LineConfig], members_max: usize) -> Self {
        let zone = |config: &ZoneConfig| Zone {
            area: Polygon::new(&config.points).expect("validated settings"),
            score_min: config.score_min,
            heights: config.height_min..=config.height_max,
            loiter_ns: (config.loiter_s > 0.0).then(|| (f64::from(config.loiter_s) * 1e9) as u64),
            occupancy: 0,
        };
        let line = |config: &LineConfig| Line {
            segment: Segment::new(&config.points).expect("validated settings"),
            crossings: Crossings::default(),
        };
        assert!(zones.len() <= ZONES_MAX && lines.len() <= LINES_MAX);
        Self {
            zones: zones.iter().map(zone).collect(),
            lines: lines.iter().map(line).collect(),
            members: Vec::with_capacity(members_max),
            members_max,
            gone: None,
            // An object may enter and loiter at once, if the time for that is short.
            happenings: Vec::with_capacity(2 * ZONES_MAX + LINES_MAX),
        }
    }

    /// Notes where an object was when it was seen first, which may be long before it is believed: a line that it has crossed since is
    /// crossed when it is observed.
    pub fn begin(&mut self, subject: &Subject, aspect: f32) {
        let Some(index) = self.member(subject.id) else {
            return;
        };
        let subject = &subject.within_picture();
        let sides = &mut self.members[index].sides;
        for (line, side) in self.lines.iter_mut().zip(sides) {
            // The first side that somebody is on is none that was changed.
            if side.is_none() {
                line.observe(side, subject, aspect);
            }
        }
    }

    /// Notes where an object is at `now_ns`; [`happenings`](Self::happenings) tells what it did since the last time. `aspect` is the frame's width
    /// divided by its height.
    pub fn observe(&mut self, subject: &Subject, now_ns: u64, aspect: f32) {
        self.happenings.clear();
        let Some(index) = self.member(subject.id) else {
            return;
        };
        let subject = &subject.within_picture();
        let member = &mut self.members[index];
        let zones = self.zones.iter_mut().enumerate();
        for ((index, zone), stay) in zones.zip(&mut member.stays) {
            zone.observe(index, stay, subject, now_ns, aspect, &mut self.happenings);
        }
        for happening in &self.happenings {
            if let Happening::Enter { zone } = happening {
                member.entered.note(*zone);
            }
        }
        let lines = self.lines.iter_mut().enumerate();
        for ((index, line), side) in lines.zip(&mut member.sides) {
            if let Some(direction) = line.observe(side, subject, aspect) {
                let line = index;
                self.happenings.push(Happening::Cross { line, direction });
            }
        }
    }

    /// Forgets an object that is not there any more: it leaves the zones that it was in.
    pub fn forget(&mut self, id: u64, now_ns: u64) {
        self.happenings.clear();
        if let Some(index) = self.members.iter().position(|member| member.id == id) {
            let member = self.members.swap_remove(index);
            for (zone, stay) in member.stays.iter().enumerate() {
                if let Some(stay) = stay {
                    self.zones[zone].occupancy -= 1;
                    let dwell_ns = now_ns.saturating_sub(stay.since_ns);
                    self.happenings.push(Happening::Leave { zone, dwell_ns });
                }
            }
            self.gone = Some(member);
        }
    }

    /// What the last object that was noted or forgotten did, in order.
    pub fn happenings(&self) -> &[Happening] {
        &self.happenings
    }

    /// Objects within a zone.
    pub fn occupancy(&self, zone: usize) -> u32 {
        self.zones[zone].occupancy
    }

    /// How often a line was crossed.
    pub fn crossings(&self, line: usize) -> Crossings {
        self.lines[line].crossings
    }

    /// Indices of the zones that an object is in.
    pub fn zones_of(&self, id: u64) -> impl Iterator<Item = usize> + '_ {
        let member = self.members.iter().find(|member| member.id == id);
        let stays = member.into_iter().flat_map(|member| &member.stays);
        stays
            .enumerate()
            .filter_map(|(zone, stay)| stay.map(|_| zone))
    }

    /// Indices of the zones that an object has been in, in the order in which it entered them first; that of the object that was forgotten
    /// last, too.
    pub fn entered_by(&self, id: u64) -> &[usize] {
        let mut known = self.members.iter().chain(&self.gone);
        let member = known.find(|member| member.id == id);
        member.map_or(&[], |member| member.entered.zones())
    }

    /// Index of an object, which gets a place if it has none yet.
    fn member(&mut self, id: u64) -> Option<usize> {
        if let Some(index) = self.members.iter().position(|member| member.id == id) {
            return Some(index);
        }
        if self.members.len() == self.members_max {
            return None;
        }
        self.members.push(Member {
            id,
            stays: [None; ZONES_MAX],
            entered: Entered::default(),
            sides: [None; LINES_MAX],
        });
        Some(self.members.len() - 1)
    }
}

impl Zone {
    fn observe(
        &mut self,
        zone: usize,
        stay: &mut Option<Stay>,
        subject: &Subject,
        now_ns: u64,
        aspect: f32,
        happenings: &mut Vec<Happening>,
    ) {
        let is_inside = self.area.contains(subject.foot);
        let Some(present) = stay else {
            // A box that was smoothed may be a little higher than the frame.
            let height = subject.height.min(1.0);
            let is_wanted = subject.score >= self.score_min && self.heights.contains(&height);
            if is_inside && is_wanted {
                *stay = Some(Stay {
                    since_ns: now_ns,
                    is_told: false,
                });
                self.occupancy += 1;
                happenings.push(Happening::Enter { zone });
            }
            return;
        };
        let dwell_ns = now_ns.saturating_sub(present.since_ns);
        let margin = LEAVE_MARGIN * subject.height;
        if !is_inside && self.area.distance(subject.foot, aspect) > margin {
            *stay = None;
            self.occupancy -= 1;
            happenings.push(Happening::Leave { zone, dwell_ns });
        } else if !present.is_told && self.loiter_ns.is_some_and(|limit_ns| dwell_ns >= limit_ns) {
            present.is_told = true;
            happenings.push(Happening::Loiter { zone, dwell_ns });
        }
    }
}

impl Line {
    fn observe(
        &mut self,
        last: &mut Option<(Side, Point)>,
        subject: &Subject,
        aspect: f32,
    ) -> Option<Direction> {
        let (side, distance) = self.segment.side(subject.foot, aspect);
        if distance <= SIDE_MARGIN * subject.height {
            return None;
        }
        let (before, from) = last.replace((side, subject.foot))?;
        // Whoever walks around an end of the line changes the side without crossing it.
        if before == side || !self.segment.is_crossed(from, subject.foot) {
            return None;
        }
        Some(match side {
            Side::Left => {
                self.crossings.to_left += 1;
                Direction::ToLeft
            }
            Side::Right => {
                self.crossings.to_right += 1;
                Direction::ToRight
            }
        })
    }
}
