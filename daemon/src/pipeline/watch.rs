//! From detections to events: the tracker's answer goes to the zones, and what both say is written down.

use crate::camera::FrameBuffer;
use crate::clock::Timestamp;
use crate::model::Loaded;
use crate::publish::Document;
use crate::publish::counts::{self, InZone, OverLine};
use crate::publish::event::{self, AtLine, EventWriter, Kind, Moment, Object};
use crate::publish::outbox::Event;
use crate::publish::payload::Source;
use crate::snapshot::{Album, BLUR_FROM, Seen, covers};
use crate::track::{Change, Sighting, State, TRACKS_MAX, Track, Tracker, foot};
use crate::zones::{Direction, Happening, LineConfig, Subject, ZoneConfig, Zones};
use std::mem;
use std::time::Duration;
use ternwatch_detector::Detection;

/// Follows objects through the zones and tells of it.
#[derive(Debug)]
pub struct Watch {
    tracker: Tracker,
    zones: Zones,
    names: Names,
    writer: EventWriter,
    /// Best shots, if there are snapshots.
    album: Option<Album>,
    /// The frame that was looked at last.
    now: Option<Now>,
    /// Numbers of the last document of counts.
    counted: Option<Vec<u64>>,
}

/// Zones and lines, with nobody in them yet.
#[derive(Debug)]
pub struct Places {
    zones: Zones,
    names: Names,
}

impl Places {
    /// Of checked settings.
    pub fn new(zones: &[ZoneConfig], lines: &[LineConfig]) -> Self {
        Self {
            zones: Zones::new(zones, lines, TRACKS_MAX),
            names: Names {
                zones: zones.iter().map(|zone| zone.name.clone()).collect(),
                lines: lines.iter().map(|line| line.name.clone()).collect(),
            },
        }
    }
}

/// What zones and lines are called.
#[derive(Debug)]
struct Names {
    zones: Vec<String>,
    lines: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    moment: Moment,
    at_ns: u64,
}

impl Now {
    fn of(buffer: &FrameBuffer) -> Self {
        Self {
            moment: Moment {
                frame_sequence: buffer.sequence,
                captured_at: buffer.captured_at,
                width: buffer.width,
                height: buffer.height,
            },
            at_ns: buffer.moment_ns,
        }
    }

    fn size(&self) -> [f32; 2] {
        [self.moment.width as f32, self.moment.height as f32]
    }
}

impl Watch {
    /// Of a tracker, of checked zones and lines, and of a writer of events.
    pub fn new(
        tracker: Tracker,
        zones: &[ZoneConfig],
        lines: &[LineConfig],
        writer: EventWriter,
    ) -> Self {
        let Places { zones, names } = Places::new(zones, lines);
        Self {
            tracker,
            zones,
            names,
            writer,
            album: None,
            now: None,
            counted: None,
        }
    }

    /// The same, keeping best shots.
    pub fn with_album(self, album: Option<Album>) -> Self {
        Self { album, ..self }
    }

    /// The lowest score of a detection that it has a use for.
    pub fn score_low(&self) -> f32 {
        let followed = self.tracker.score_low();
        let is_blurring = self.album.is_some();
        if is_blurring {
            followed.min(BLUR_FROM)
        } else {
            followed
        }
    }

    /// Exchanges the model's names for those of `next`, whose detections are believed from `score_high` on. Tracks go on if it knows the
    /// same classes; otherwise they end: a number would mean something else.
    pub fn change_model(
        &mut self,
        next: &mut Loaded,
        score_high: f32,
        documents: &mut Vec<Document>,
    ) {
        if self.writer.classes != next.classes {
            self.end_all(documents);
        }
        mem::swap(&mut self.writer.model, &mut next.identity);
        mem::swap(&mut self.writer.classes, &mut next.classes);
        self.tracker.believe_from(score_high);
    }

    /// Believes detections from `score_high` on. Tracks go on.
    pub fn believe_from(&mut self, score_high: f32) {
        self.tracker.believe_from(score_high);
    }

    /// Watches other places: everybody leaves those of before, and the counts begin anew. Tracks go on.
    pub fn change_places(&mut self, places: Places, documents: &mut Vec<Document>) {
        let Self {
            tracker,
            zones,
            names,
            writer,
            now,
            ..
        } = self;
        if let Some(now) = *now {
            for track in tracker.tracks() {
                zones.forget(track.id(), now.at_ns);
                for &happening in zones.happenings() {
                    let kind = names.kind(happening, zones);
                    documents.push(write(writer, kind, now, track, zones, names));
                }
            }
        }
        (self.zones, self.names) = (places.zones, places.names);
        self.counted = None;
    }

    /// Tells the documents of frames what the present model is called.
    pub fn name_model(&self, source: &mut Source) {
        source.model.clone_from(&self.writer.model);
        source.classes.clone_from(&self.writer.classes);
    }

    /// Takes the detections of a frame and appends what there is to tell.
    pub fn step(
        &mut self,
        buffer: &FrameBuffer,
        detections: &[Detection],
        documents: &mut Vec<Document>,
    ) {
        let now = Now::of(buffer);
        // Another size means other pixels: nothing can be followed from one to the other.
        if self.now.is_some_and(|before| before.size() != now.size()) {
            self.end_all(documents);
        }
        self.now = Some(now);
        self.tracker.step(now.at_ns, detections);
        self.tell(now, documents);
    }

    /// The track that the last step saw again by this detection, if it is believed.
    pub fn whose(&self, detection: &Detection) -> Option<u64> {
        let sees = |track: &Track| {
            let last = track.last();
            track.is_seen() && last.xyxy == detection.xyxy && last.score == detection.score
        };
        let track = self.tracker.tracks().find(|track| sees(track));
        track.map(Track::id)
    }

    /// Whether somebody waits for a picture of now, so that this frame has to be examined.
    pub fn is_asked_for_a_picture(&self) -> bool {
        self.album.as_ref().is_some_and(Album::is_asked)
    }

    /// Turns down whoever waits for a picture that does not come.
    pub fn attend(&self, is_at_rest: bool) {
        if let Some(album) = &self.album {
            album.attend(is_at_rest);
        }
    }

    /// Whether a frame that shows what the last one did would tell nothing new.
    pub fn is_settled(&self) -> bool {
        self.tracker.is_settled()
    }

    /// Takes a frame that shows what the last one did, and appends what the time that passed gives to tell.
    pub fn hold(&mut self, buffer: &FrameBuffer, documents: &mut Vec<Document>) {
        let now = Now::of(buffer);
        self.now = Some(now);
        self.tracker.hold(now.at_ns);
        self.tell(now, documents);
    }

    /// Takes a moment at which nobody is looked at. What the broker retains may be of a run that was killed, or of other
    /// zones: the first such moment tells that nobody is followed.
    pub fn rest(&mut self, at: Timestamp, documents: &mut Vec<Document>) {
        if self.counted.is_none() {
            self.count(at, documents);
        }
    }

    /// Tells the counts of other places, if no frame came since.
    pub fn recount(&mut self, documents: &mut Vec<Document>) {
        if let Some(now) = self.now {
            self.rest(now.moment.captured_at, documents);
        }
    }

    /// How long somebody is followed whom no frame shows.
    pub fn lost_after(&self) -> Duration {
        self.tracker.lost_after()
    }

    /// Ends everything at `at`, the camera being away: nobody knows who is still there.
    pub fn lose_sight(&mut self, at: Timestamp, documents: &mut Vec<Document>) {
        self.end_all(documents);
        self.rest(at, documents);
    }

    /// Ends everything: no frame will follow.
    pub fn finish(&mut self, documents: &mut Vec<Document>) {
        self.end_all(documents);
    }

    fn end_all(&mut self, documents: &mut Vec<Document>) {
        self.tracker.finish();
        if let Some(now) = self.now {
            self.tell(now, documents);
        }
    }

    /// Takes the same frame again, once it was stepped: it may show somebody at their best, or be asked for. `candidates` are the boxes that
    /// competed to be a detection.
    pub fn keep_shots(
        &mut self,
        buffer: &FrameBuffer,
        detections: &[Detection],
        candidates: impl Iterator<Item = [f32; 4]> + Clone,
    ) {
        let Some(album) = &mut self.album else {
            return;
        };
        let seen = self.tracker.tracks().filter(|track| track.is_seen());
        let seen = seen.map(|track| Seen {
            track: track.id(),
            score: track.last().score,
            xyxy: track.last().xyxy,
        });
        // Weak detections and those who were not seen this time, too: they may be there, where they were last or where they have
        // gone since. And somebody may be behind somebody else, whose box won.
        let detected = detections.iter().map(|detection| detection.xyxy);
        let is_covered = |one: &[f32; 4]| detections.iter().any(|d| covers(d.xyxy, *one));
        let behind = candidates.filter(|one| !is_covered(one));
        let followed = self.tracker.everybody();
        let followed = followed.map(|track| hull(track.last().xyxy, track.xyxy()));
        album.see(buffer, seen, detected.chain(followed).chain(behind));
    }

    /// Ends come first, then what is new or has changed, then who went where: so an object is never in a zone before
    /// it is new, nor after it has ended.
    fn tell(&mut self, now: Now, documents: &mut Vec<Document>) {
        let Self {
            tracker,
            zones,
            names,
            writer,
            album,
            ..
        } = self;
        let [width, height] = now.size();
        let aspect = width / height;
        let subject = |id, xyxy: [f32; 4], score| {
            let [x, y] = foot(xyxy);
            Subject {
                id,
                foot: [x / width, y / height],
                height: (xyxy[3] - xyxy[1]) / height,
                score,
            }
        };
        for (change, track) in tracker.changes() {
            let kind = match change {
                Change::New => {
                    let Sighting { xyxy, score, .. } = track.first();
                    zones.begin(&subject(track.id(), xyxy, score), aspect);
                    Kind::New
                }
                Change::Update => Kind::Update,
                Change::End => {
                    // Who was not seen for a while was not there for a while.
                    zones.forget(track.id(), track.last().at_ns);
                    for &happening in zones.happenings() {
                        let kind = names.kind(happening, zones);
                        documents.push(write(writer, kind, now, track, zones, names));
                    }
                    if let Some(album) = album {
                        album.end(track.id(), writer.sequence);
                    }
                    Kind::End
                }
            };
            documents.push(write(writer, kind, now, track, zones, names));
        }
        for track in tracker.tracks().filter(|track| track.is_seen()) {
            let subject = subject(track.id(), track.xyxy(), track.best().score);
            zones.observe(&subject, now.at_ns, aspect);
            for &happening in zones.happenings() {
                let kind = names.kind(happening, zones);
                documents.push(write(writer, kind, now, track, zones, names));
            }
        }
        self.count(now.moment.captured_at, documents);
    }

    /// Tells how many are where since `at`, if that has changed.
    fn count(&mut self, at: Timestamp, documents: &mut Vec<Document>) {
        let (zones, names) = (&self.zones, &self.names);
        let in_view = self.tracker.tracks().count();
        let occupancies = (0..names.zones.len()).map(|zone| zones.occupancy(zone));
        let crossings = (0..names.lines.len()).map(|line| zones.crossings(line));
        let numbers = std::iter::once(in_view as u64)
            .chain(occupancies.clone().map(u64::from))
            .chain(
                crossings
                    .clone()
                    .flat_map(|line| [line.to_left, line.to_right]),
            );
        let is_told = |counted: &Vec<u64>| counted.iter().copied().eq(numbers.clone());
        if self.counted.as_ref().is_some_and(is_told) {
            return;
        }
        let in_zones = occupancies.map(|occupancy| InZone { occupancy });
        let over_lines = crossings.map(|line| OverLine {
            to_left: line.to_left,
            to_right: line.to_right,
        });
        documents.push(Document::Counts(counts::document(
            &self.writer.camera,
            &self.writer.started_at,
            at,
            in_view,
            names.zones.iter().map(String::as_str).zip(in_zones),
            names.lines.iter().map(String::as_str).zip(over_lines),
        )));
        self.counted = Some(numbers.collect());
    }
}

impl Names {
    /// What happened in a zone or at a line, with their names and counts.
    fn kind(&self, happening: Happening, zones: &Zones) -> Kind<'_> {
        let in_zone = |zone: usize, dwell_ns| event::InZone {
            name: &self.zones[zone],
            dwell_ns,
            occupancy: zones.occupancy(zone),
        };
        match happening {
            Happening::Enter { zone } => Kind::ZoneEnter(in_zone(zone, 0)),
            Happening::Loiter { zone, dwell_ns } => Kind::ZoneLoiter(in_zone(zone, dwell_ns)),
            Happening::Leave { zone, dwell_ns } => Kind::ZoneLeave(in_zone(zone, dwell_ns)),
            Happening::Cross { line, direction } => Kind::LineCross(AtLine {
                name: &self.lines[line],
                direction: match direction {
                    Direction::ToLeft => "to_left",
                    Direction::ToRight => "to_right",
                },
                to_left: zones.crossings(line).to_left,
                to_right: zones.crossings(line).to_right,
            }),
        }
    }
}

/// Writes the next event.
fn write(
    writer: &mut EventWriter,
    kind: Kind<'_>,
    now: Now,
    track: &Track,
    zones: &Zones,
    names: &Names,
) -> Document {
    let age_ns = |at_ns: u64| now.at_ns.saturating_sub(at_ns);
    let sighting = |seen: Sighting| event::Sighting {
        age_ns: age_ns(seen.at_ns),
        score: seen.score,
        xyxy: seen.xyxy,
    };
    let name = |zone: usize| names.zones[zone].as_str();
    let in_zones: Vec<&str> = zones.zones_of(track.id()).map(name).collect();
    let entered = zones.entered_by(track.id()).iter();
    let zones_entered: Vec<&str> = entered.map(|zone| name(*zone)).collect();
    let points = track.path().iter();
    let path: Vec<(u64, [f32; 2])> = points
        .map(|point| (age_ns(point.at_ns), [point.x, point.y]))
        .collect();
    let object = Object {
        id: track.id(),
        class: track.class(),
        is_lost: track.state() == State::Lost,
        is_stationary: track.is_stationary(),
        duration_ns: track.duration_ns(),
        first: sighting(track.first()),
        last: sighting(track.last()),
        best: sighting(track.best()),
        zones: &in_zones,
        zones_entered: &zones_entered,
        path: &path,
    };
    let (sequence, document) = writer.write(kind, &now.moment, &object);
    Document::Event(Event { sequence, document })
}

/// The least box around two.
fn hull(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
    [
        a[0].min(b[0]),
        a[1].min(b[1]),
        a[2].max(b[2]),
        a[3].max(b[3]),
    ]
}
