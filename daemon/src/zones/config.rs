//! The `[[zones]]` and `[[lines]]` of the configuration.

use super::shape::{Point, Polygon, Segment, ShapeError};
use crate::config::{Invalid, in_range};
use crate::publish::topic::validate_level;
use serde::{Deserialize, Serialize};

/// Zones at most.
pub const ZONES_MAX: usize = 16;
/// Lines at most.
pub const LINES_MAX: usize = 16;
/// Corners of a zone at most.
pub const POINTS_MAX: usize = 32;

/// One of `[[zones]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneConfig {
    /// Unique among the zones.
    pub name: String,
    /// Corners in parts of the frame's width and height, in order.
    pub points: Vec<Point>,
    /// Least best score of whoever counts as within.
    #[serde(default)]
    pub score_min: f32,
    /// Least height of whoever enters, in parts of the frame's height.
    #[serde(default)]
    pub height_min: f32,
    /// Greatest height of whoever enters, in parts of the frame's height.
    #[serde(default = "whole")]
    pub height_max: f32,
    /// Seconds within the zone after which somebody loiters; 0: never.
    #[serde(default)]
    pub loiter_s: f32,
}

/// Of the frame.
fn whole() -> f32 {
    1.0
}

/// One of `[[lines]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LineConfig {
    /// Unique among the lines.
    pub name: String,
    /// From where to where, in parts of the frame's width and height.
    pub points: Vec<Point>,
}

/// Checks both lists.
pub fn validate(zones: &[ZoneConfig], lines: &[LineConfig]) -> Result<(), Invalid> {
    let too_many = |key: &'static str, len: usize, len_max: usize| {
        (len > len_max).then(|| Invalid::new(key, format!("{len} of them, {len_max} are allowed")))
    };
    if let Some(invalid) = too_many("zones", zones.len(), ZONES_MAX)
        .or_else(|| too_many("lines", lines.len(), LINES_MAX))
    {
        return Err(invalid);
    }
    for (index, zone) in zones.iter().enumerate() {
        let key = |name: &str| format!("zones[{index}].{name}");
        let before = zones[..index].iter().map(|zone| zone.name.as_str());
        validate_name(key("name"), &zone.name, before)?;
        let count = zone.points.len();
        if !(3..=POINTS_MAX).contains(&count) {
            let reason = format!("has {count} points; 3 to {POINTS_MAX} make a zone");
            return Err(Invalid::new(key("points"), reason));
        }
        validate_points(key("points"), &zone.points)?;
        Polygon::new(&zone.points).map_err(|error| Invalid::new(key("points"), explain(&error)))?;
        in_range(key("score_min"), zone.score_min, 0.0..=1.0)?;
        in_range(key("height_min"), zone.height_min, 0.0..=1.0)?;
        in_range(key("height_max"), zone.height_max, 0.0..=1.0)?;
        if zone.height_max < zone.height_min {
            let reason = format!(
                "is lower than height_min, {}: nobody enters",
                zone.height_min
            );
            return Err(Invalid::new(key("height_max"), reason));
        }
        in_range(key("loiter_s"), zone.loiter_s, 0.0..=86400.0)?;
    }
    for (index, line) in lines.iter().enumerate() {
        let key = |name: &str| format!("lines[{index}].{name}");
        let before = lines[..index].iter().map(|line| line.name.as_str());
        validate_name(key("name"), &line.name, before)?;
        validate_points(key("points"), &line.points)?;
        Segment::new(&line.points).map_err(|error| Invalid::new(key("points"), explain(&error)))?;
    }
    Ok(())
}

fn validate_name<'a>(
    key: String,
    name: &str,
    mut before: impl Iterator<Item = &'a str>,
) -> Result<(), Invalid> {
    if before.any(|other| other == name) {
        return Err(Invalid::new(key, format!("{name:?} is there twice")));
    }
    validate_level(key, name)
}

fn validate_points(key: String, points: &[Point]) -> Result<(), Invalid> {
    for (index, [x, y]) in points.iter().enumerate() {
        if !(0.0..=1.0).contains(x) || !(0.0..=1.0).contains(y) {
            let reason = format!(
                "point {index}, [{x}, {y}], is not within 0 to 1: points are parts of the frame's width and height"
            );
            return Err(Invalid::new(key, reason));
        }
    }
    Ok(())
}

fn explain(error: &ShapeError) -> String {
    match error {
        ShapeError::SamePoint { index, next } => {
            format!("points {index} and {next} are the same")
        }
        ShapeError::Crossing { edge, other } => format!(
            "the border crosses or touches itself: the edges that begin at points {edge} and {other} meet"
        ),
        ShapeError::NotTwo { count } => format!("has {count} points, a line has 2"),
        ShapeError::NoArea => "the points enclose no area".into(),
    }
}
