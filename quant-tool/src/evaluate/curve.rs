//! The choice of a threshold as a picture: precision, recall and false alarms.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use ternwatch_bundle::Model;

use super::Point;
use crate::files;

const SIZE: (u32, u32) = (860, 460);

type Value = fn(&Point) -> f64;

/// Draws what each threshold gives for a model, and which one is its default, as an SVG file: precision against recall, and all
/// three against the threshold.
pub fn draw(points: &[Point], model: &Model, path: &Path) -> Result<()> {
    let id = model.id();
    let title = format!(
        "{} version {}: choice of the threshold",
        id.name, id.version
    );
    let mut svg = String::new();
    paint(points, model.thresholds().score, &title, &mut svg)
        .map_err(|e| anyhow!("drawing: {e}"))
        .with_context(|| path.display().to_string())?;
    files::write(path, svg.as_bytes())
}

fn paint(
    points: &[Point],
    threshold: f32,
    title: &str,
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.titled(title, ("sans-serif", 20))?;
    let (left, right) = area.split_horizontally(SIZE.0 / 2);
    let chosen = points.iter().min_by(|a, b| {
        let distance = |p: &Point| (p.threshold - f64::from(threshold)).abs();
        distance(a).total_cmp(&distance(b))
    });

    let mut chart = ChartBuilder::on(&left)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("recall")
        .y_desc("precision")
        .draw()?;
    let shown = points.iter().filter(|p| p.precision > 0.0);
    chart.draw_series(LineSeries::new(
        shown.map(|p| (p.recall, p.precision)),
        BLUE.stroke_width(2),
    ))?;
    chart.draw_series(chosen.map(|p| Circle::new((p.recall, p.precision), 5, RED.filled())))?;

    let mut chart = ChartBuilder::on(&right)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(30)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("threshold")
        .draw()?;
    let curves: [(&str, RGBColor, Value); 3] = [
        ("precision", BLUE, |p| p.precision),
        ("recall", RGBColor(44, 160, 44), |p| p.recall),
        (
            "false alarms a view without people",
            RGBColor(255, 127, 14),
            |p| p.false_alarms.min(1.0),
        ),
    ];
    for (name, colour, value) in curves {
        // What nothing is left of has no precision.
        let left = points.iter().filter(|p| p.recall > 0.0);
        let line = left.map(|p| (p.threshold, value(p)));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let at = f64::from(threshold);
    let line = PathElement::new([(at, 0.0), (at, 1.0)], RED.stroke_width(1));
    chart.draw_series([line])?;
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
