//! The retained document that says how many are where: docs/schema/counts-1.json.
//!
//! Readers must ignore keys that they do not know; keys are added, but never removed or changed, within a schema
//! version.

use crate::clock::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// The version of the document's schema.
pub const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
struct Counts<'a> {
    schema: u32,
    camera: &'a str,
    started_at: &'a str,
    captured_at: String,
    captured_monotonic_ns: u64,
    in_view: usize,
    zones: BTreeMap<&'a str, InZone>,
    lines: BTreeMap<&'a str, OverLine>,
}

/// Who is in a zone.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct InZone {
    /// Objects.
    pub occupancy: u32,
}

/// How often a line was crossed since the start.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OverLine {
    /// From right to left, looking from its first point to its second.
    pub to_left: u64,
    /// From left to right.
    pub to_right: u64,
}

/// The document, as JSON. `in_view`: objects that are followed; zones and lines come by their names.
pub fn document<'a>(
    camera: &'a str,
    started_at: &'a str,
    captured_at: Timestamp,
    in_view: usize,
    zones: impl Iterator<Item = (&'a str, InZone)>,
    lines: impl Iterator<Item = (&'a str, OverLine)>,
) -> Vec<u8> {
    let counts = Counts {
        schema: SCHEMA,
        camera,
        started_at,
        captured_at: captured_at.rfc3339(),
        captured_monotonic_ns: captured_at.monotonic_ns,
        in_view,
        zones: zones.collect(),
        lines: lines.collect(),
    };
    serde_json::to_vec(&counts).expect("numbers and strings always become JSON")
}
