//! A picture of what a model gets wrong: the photographs with most misses and false alarms.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use ternwatch_bundle::Model;
use ternwatch_detector::Detection;

use super::matching::{Verdict, verdicts};
use crate::data::dataset::{Annotation, Dataset, ImageRecord};
use crate::files;
use crate::tell::note;

/// Photographs that are shown at most.
const TILES_MAX: usize = 9;
/// Width of a photograph, the greatest height, and the space around it, in pixels.
const WIDTH: u32 = 384;
const HEIGHT_MAX: u32 = 384;
const GAP: u32 = 4;
/// Width of a line.
const LINE: u32 = 2;

const PAPER: Rgb<u8> = Rgb([24, 26, 30]);
const FOUND: Rgb<u8> = Rgb([60, 200, 90]);
const MISSED: Rgb<u8> = Rgb([240, 60, 60]);
const ALARM: Rgb<u8> = Rgb([255, 196, 0]);

/// What there is to draw in a photograph.
struct Marked<'a> {
    record: &'a ImageRecord,
    /// Sides in the photograph's pixels; what comes later is drawn over what comes earlier.
    boxes: Vec<([f32; 4], Rgb<u8>)>,
}

impl Marked<'_> {
    fn count(&self, colour: Rgb<u8>) -> usize {
        self.boxes.iter().filter(|(_, c)| *c == colour).count()
    }

    fn errors(&self) -> usize {
        self.count(MISSED) + self.count(ALARM)
    }
}

/// What was drawn.
pub struct Drawn {
    /// Photographs in reading order: where they are, boxes that were missed, false alarms.
    pub worst: Vec<(PathBuf, usize, usize)>,
    /// How many there are with errors.
    pub with_errors: usize,
}

impl Drawn {
    /// Says which photographs are in the picture.
    pub fn tell(&self, picture: &Path) {
        let picture = picture.display();
        if self.worst.is_empty() {
            note!("{picture} is not written: there is no error at the default threshold");
            return;
        }
        note!(
            "{picture}: the {} worst of {} pictures with errors",
            self.worst.len(),
            self.with_errors
        );
        for (path, missed, alarms) in &self.worst {
            note!(
                "  {}: {missed} missed, {alarms} false alarms",
                path.display()
            );
        }
    }
}

/// Draws the photographs with most errors at the model's default threshold, worst first: found green, missed red, false alarms
/// yellow. Nothing is written where there is no error. The file's name ends as its format does, `.png` or `.jpg`.
pub fn draw(
    dataset: &Dataset,
    model: &Model,
    detections: &[Vec<Detection>],
    path: &Path,
) -> Result<Drawn> {
    let place = || path.display().to_string();
    let format = ImageFormat::from_path(path).with_context(place)?;
    let (worst, with_errors) = worst(dataset, detections, model.thresholds().score);
    if !worst.is_empty() {
        let tiles = worst.iter().map(tile).collect::<Result<Vec<_>>>()?;
        let mut bytes = Cursor::new(Vec::new());
        let written = sheet(&tiles).write_to(&mut bytes, format);
        written.with_context(place)?;
        files::write(path, bytes.get_ref())?;
    }
    let entry = |m: &Marked<'_>| (m.record.path.clone(), m.count(MISSED), m.count(ALARM));
    Ok(Drawn {
        worst: worst.iter().map(entry).collect(),
        with_errors,
    })
}

/// The photographs to show, and how many there are with errors.
fn worst<'a>(
    dataset: &'a Dataset,
    detections: &[Vec<Detection>],
    threshold: f32,
) -> (Vec<Marked<'a>>, usize) {
    let pairs = dataset.images.iter().zip(detections);
    let mut all: Vec<Marked<'_>> = pairs
        .map(|(record, detections)| mark(record, detections, threshold))
        .filter(|marked| marked.errors() > 0)
        .collect();
    // The order of the data set among those with as many.
    all.sort_by_key(|marked| std::cmp::Reverse(marked.errors()));
    let with_errors = all.len();
    all.truncate(TILES_MAX);
    (all, with_errors)
}

fn mark<'a>(record: &'a ImageRecord, detections: &[Detection], threshold: f32) -> Marked<'a> {
    let shown = detections.iter().filter(|d| d.score >= threshold);
    let shown: Vec<Detection> = shown.copied().collect();
    let verdicts = verdicts(&shown, &record.boxes, |_| true);
    let is_missed =
        |(i, b): &(usize, &Annotation)| !b.ignore && !verdicts.contains(&Verdict::Hit(*i));
    let missed = record.boxes.iter().enumerate().filter(is_missed);
    let missed = missed.map(|(_, b)| (b.xyxy, MISSED));
    let seen = shown.iter().zip(&verdicts);
    let seen = seen.filter_map(|(d, verdict)| match verdict {
        Verdict::Hit(_) => Some((d.xyxy, FOUND)),
        Verdict::Alarm => Some((d.xyxy, ALARM)),
        Verdict::Spared => None,
    });
    Marked {
        record,
        boxes: missed.chain(seen).collect(),
    }
}

/// The photograph made small, with its boxes.
fn tile(marked: &Marked<'_>) -> Result<RgbImage> {
    let photograph = marked.record.decode()?;
    let (width, height) = (photograph.width() as f32, photograph.height() as f32);
    let scale = (WIDTH as f32 / width).min(HEIGHT_MAX as f32 / height);
    let side = |length: f32| ((length * scale).round() as u32).max(1);
    let (width, height) = (side(width), side(height));
    let mut tile = imageops::resize(&photograph, width, height, FilterType::Triangle);
    for (xyxy, colour) in &marked.boxes {
        // A float beyond the range of u32 ends at the range's limit.
        outline(&mut tile, xyxy.map(|v| (v * scale).round() as u32), *colour);
    }
    Ok(tile)
}

fn outline(picture: &mut RgbImage, [x0, y0, x1, y1]: [u32; 4], colour: Rgb<u8>) {
    let (x1, y1) = (x1.min(picture.width()), y1.min(picture.height()));
    for y in y0..y1 {
        for x in x0..x1 {
            let from_side = (x - x0).min(x1 - 1 - x).min(y - y0).min(y1 - 1 - y);
            if from_side < LINE {
                picture.put_pixel(x, y, colour);
            }
        }
    }
}

/// The tiles in rows, in reading order.
fn sheet(tiles: &[RgbImage]) -> RgbImage {
    // As many beside each other as there are rows, or one more.
    let columns = (1..).find(|n| n * n >= tiles.len()).unwrap_or(1);
    let rows: Vec<&[RgbImage]> = tiles.chunks(columns).collect();
    let height_of = |row: &[RgbImage]| row.iter().map(RgbImage::height).max().unwrap_or(0);
    let height = rows.iter().map(|row| height_of(row) + GAP).sum::<u32>() + GAP;
    let mut sheet = RgbImage::from_pixel(columns as u32 * (WIDTH + GAP) + GAP, height, PAPER);
    let mut y = GAP;
    for row in rows {
        for (x, tile) in (GAP..).step_by((WIDTH + GAP) as usize).zip(row) {
            imageops::replace(&mut sheet, tile, x.into(), y.into());
        }
        y += height_of(row) + GAP;
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::super::tests::{annotation, detection};
    use super::*;

    #[test]
    fn misses_and_false_alarms_are_marked_above_the_threshold() {
        let record = ImageRecord {
            path: "street.png".into(),
            source: "all".into(),
            size: None,
            boxes: vec![
                annotation([0.0, 0.0, 10.0, 20.0], false),
                annotation([50.0, 0.0, 60.0, 20.0], false),
                annotation([80.0, 0.0, 90.0, 20.0], true),
            ],
        };
        let detections = [
            detection(0.9, [0.0, 0.0, 10.0, 19.0]),
            detection(0.8, [80.0, 0.0, 90.0, 19.0]),
            detection(0.7, [30.0, 0.0, 40.0, 19.0]),
            detection(0.4, [50.0, 0.0, 60.0, 19.0]),
        ];
        let marked = mark(&record, &detections, 0.5);
        assert_eq!(marked.errors(), 2);
        let expected = [
            ([50.0, 0.0, 60.0, 20.0], MISSED),
            ([0.0, 0.0, 10.0, 19.0], FOUND),
            ([30.0, 0.0, 40.0, 19.0], ALARM),
        ];
        assert_eq!(marked.boxes, expected);
        assert_eq!(mark(&record, &detections, 0.35).errors(), 1);
    }

    #[test]
    fn the_worst_come_first_and_are_as_many_as_can_be_shown() {
        let record = |misses: usize| ImageRecord {
            path: format!("{misses}.png").into(),
            source: "all".into(),
            size: None,
            boxes: vec![annotation([0.0, 0.0, 10.0, 20.0], false); misses],
        };
        let misses = [1, 0, 3, 2, 1, 1, 1, 1, 1, 1, 1, 5];
        let dataset = Dataset {
            images: misses.map(record).into(),
        };
        let (shown, with_errors) = worst(&dataset, &vec![Vec::new(); misses.len()], 0.5);
        let counts: Vec<usize> = shown.iter().map(Marked::errors).collect();
        assert_eq!(counts, [5, 3, 2, 1, 1, 1, 1, 1, 1]);
        assert_eq!(with_errors, 11);
        let (shown, with_errors) = worst(&dataset, &[Vec::new(), Vec::new()], 0.5);
        assert_eq!((shown.len(), with_errors), (1, 1));
    }

    #[test]
    fn outlines_end_at_the_pictures_border() {
        let mut picture = RgbImage::new(20, 10);
        for sides in [
            [18, 8, 300, 300],
            [30, 2, 40, 4],
            [5, 5, 5, 5],
            [7, 7, 6, 6],
        ] {
            outline(&mut picture, sides, MISSED);
        }
        outline(&mut picture, [2, 1, 12, 9], FOUND);
        for (x, y) in [(2, 1), (3, 5), (11, 8), (7, 2)] {
            assert_eq!(*picture.get_pixel(x, y), FOUND, "({x}, {y})");
        }
        for (x, y) in [(4, 3), (12, 5), (1, 1), (7, 6)] {
            assert_eq!(picture.get_pixel(x, y).0, [0; 3], "({x}, {y})");
        }
        assert_eq!(*picture.get_pixel(19, 9), MISSED);
    }

    #[test]
    fn rows_are_as_high_as_their_highest_tile() {
        let tile = |height, shade| RgbImage::from_pixel(WIDTH, height, Rgb([shade; 3]));
        let tiles = [tile(10, 1), tile(30, 2), tile(20, 3), tile(15, 4)];
        assert_eq!(sheet(&tiles[..1]).width(), GAP + WIDTH + GAP);
        let sheet = sheet(&tiles);
        assert_eq!(sheet.height(), GAP + 30 + GAP + 20 + GAP);
        assert_eq!(sheet.width(), GAP + 2 * (WIDTH + GAP));
        let third = (GAP, GAP + 30 + GAP);
        assert_eq!(sheet.get_pixel(third.0, third.1).0, [3; 3]);
        assert_eq!(*sheet.get_pixel(GAP, GAP + 12), PAPER);
    }
}
