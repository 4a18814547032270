//! The report's pictures, as SVG.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Results;
use super::experiment::Experiment;
use super::methods::{Kind, Method};
use crate::files;
use crate::train::parameters::Role;
use crate::train::stage::{Stage, average_after};

const SIZE: (u32, u32) = (860, 480);
const COLOURS: [RGBColor; 11] = [
    RGBColor(30, 30, 30),
    RGBColor(127, 127, 127),
    RGBColor(148, 103, 189),
    RGBColor(31, 119, 180),
    RGBColor(23, 190, 207),
    RGBColor(152, 223, 138),
    RGBColor(188, 189, 34),
    RGBColor(255, 127, 14),
    RGBColor(140, 86, 75),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
];
/// Of the float, soft and hard stages.
const STAGE_COLOURS: [RGBColor; 3] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(214, 39, 40),
];
/// Lines of the log whose mean is one point.
const SMOOTHED: usize = 5;
/// Bins of a histogram.
const BINS: usize = 61;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws all pictures of the report into `out`.
pub(super) fn draw(
    experiment: &Experiment,
    results: &Results,
    run: &Path,
    out: &Path,
) -> Result<()> {
    let folder = run.join("seed-1");
    picture(&out.join("learning.svg"), |area| {
        learning(area, experiment, &folder)
    })?;
    picture(&out.join("weights.svg"), |area| {
        weights(area, experiment, &folder)
    })?;
    picture(&out.join("memory.svg"), |area| {
        memory(area, experiment, results)
    })
}

fn picture(path: &Path, paint: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<()> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    paint(&area)?;
    area.present().map_err(failed)?;
    drop(area);
    files::write(path, svg.as_bytes())
}

/// plotters' errors borrow what they speak of.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

/// The colour of the float network (0) and of each way, in their order, in every picture.
fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The ways that the pictures show.
fn drawn(experiment: &Experiment) -> impl Iterator<Item = &Method> {
    let methods = experiment.methods.iter();
    methods.filter(|method| method.kind != Kind::Tried)
}

/// Loss by step of the first seed: the float training, and every way beside it from where it begins.
fn learning(area: &Area<'_>, experiment: &Experiment, folder: &Path) -> Result<()> {
    let float = losses(&folder.join("float"), [0.0; 2])?;
    let float = smoothed(&float);
    let end = experiment.float.steps as f64;
    let mut curves = vec![("float", colour(0), float)];
    for (i, method) in drawn(experiment).enumerate() {
        let starts = [end, end + method.settings.soft_steps as f64];
        let curve = losses(&folder.join(&method.key), starts)?;
        if curve.len() > 1 {
            curves.push((method.name.as_str(), colour(i + 1), curve));
        }
    }
    // The float training's end, and the ways' steps.
    let from = end * 0.97;
    let seen = || {
        curves
            .iter()
            .flat_map(|(_, _, c)| c)
            .filter(|p| p.0 >= from)
    };
    let right = seen().map(|p| p.0).fold(from + 1.0, f64::max);
    let top = seen().map(|p| p.1).fold(0.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(
            "Training loss (with the teacher's part, where there is one)",
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(from..right, 0.0..top)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("step")
        .y_desc("loss")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()
        .map_err(failed)?;
    for (name, colour, curve) in curves {
        let points = curve.into_iter().filter(|p| p.0 >= from);
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .map_err(failed)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    // The float training's end is low: there is room above it.
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4))
        .draw()
        .map_err(failed)
}

/// (step, loss) of a run's log; `starts` says where the float or soft stage begins, and where the hard one.
fn losses(folder: &Path, starts: [f64; 2]) -> Result<Vec<(f64, f64)>> {
    let path = folder.join("log.csv");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(Vec::new());
    };
    let point = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok());
        let start = starts[usize::from(fields[0] == Stage::Hard.name())];
        let (Some(step), Some(score), Some(boxes)) = (number(1), number(4), number(5)) else {
            anyhow::bail!("{}: no step and losses in \"{line}\"", path.display());
        };
        Ok((start + step, score + boxes))
    };
    text.lines().skip(1).map(point).collect()
}

/// The mean of [`SMOOTHED`] neighbours.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let windows = points.windows(SMOOTHED.min(points.len().max(1)));
    let means = windows.map(|w| {
        let mean = w.iter().map(|p| p.1).sum::<f64>() / w.len() as f64;
        (w[w.len() - 1].0, mean)
    });
    means.collect()
}

/// Histograms of one layer's weights, in its scales, after each stage of ours; of the last way, where ours is left out.
fn weights(area: &Area<'_>, experiment: &Experiment, folder: &Path) -> Result<()> {
    let network = &experiment.network;
    let layer = experiment.largest_layer();
    let layer = layer.context("a network without layers")?;
    let mut methods = experiment.methods.iter();
    let ours = methods.clone().find(|m| m.kind == Kind::Ours);
    let ours = ours
        .or(methods.next_back())
        .context("nothing is compared")?;
    let parts = area.split_evenly((1, 3));
    for ((part, stage), colour) in parts
        .iter()
        .zip([Stage::Float, Stage::Soft, Stage::Hard])
        .zip(STAGE_COLOURS)
    {
        let parameters = average_after(&folder.join(&ours.key), stage, network)?;
        let values = parameters.get(&layer, Role::Weight);
        let channels = network
            .convs()
            .find(|c| c.name == layer)
            .map_or(1, |c| c.shape[0]);
        let bars = histogram(values, values.len() / channels);
        let top = bars.iter().copied().fold(0.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(part)
            .caption(format!("{layer}, {}", stage.name()), ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(48)
            .build_cartesian_2d(-2.5f64..2.5, 0.0..top)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(5)
            .x_desc("weight / scale")
            .light_line_style(TRANSPARENT)
            .y_label_formatter(&|y| match top < 0.1 {
                true => format!("{:.1} %", 100.0 * y),
                false => format!("{:.0} %", 100.0 * y),
            })
            .draw()
            .map_err(failed)?;
        let width = 5.0 / BINS as f64;
        let bars = bars.iter().enumerate().map(|(i, &height)| {
            let left = -2.5 + i as f64 * width;
            Rectangle::new([(left, 0.0), (left + width, height)], colour.filled())
        });
        chart.draw_series(bars).map_err(failed)?;
    }
    Ok(())
}

/// Part of the weights in each bin from -2.5 to 2.5 scales of their channel.
fn histogram(weights: &[f32], fan_in: usize) -> Vec<f64> {
    let mut bins = vec![0.0; BINS];
    for channel in weights.chunks_exact(fan_in) {
        let scale = crate::quantize::ternary::fit_scale(channel).max(f32::MIN_POSITIVE);
        for w in channel {
            let position = (f64::from(w / scale) + 2.5) / 5.0 * BINS as f64;
            bins[(position.max(0.0) as usize).min(BINS - 1)] += 1.0 / weights.len() as f64;
        }
    }
    bins
}

/// What was measured against bytes: every seed of every way.
fn memory(area: &Area<'_>, experiment: &Experiment, results: &Results) -> Result<()> {
    let measured = || {
        let ternary = results.ternary.iter().map(|o| o.measured);
        ternary.chain(results.float.iter().map(|f| f.measured))
    };
    let highest = measured().fold(0.0, f64::max);
    // What is far behind would press all others together.
    let floor = highest - experiment.shown;
    let lowest = measured().fold(1.0, f64::min).max(floor);
    let room = (highest - lowest).max(0.001) * 0.1;
    let smallest = results.ternary.iter().map(|o| o.file_len).min();
    let left = smallest.unwrap_or(results.float_len) as f64 / 1000.0 / 2.0;
    let right = results.float_len as f64 / 1000.0 * 2.0;
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!(
                "{} against the size of the parameters, every seed",
                experiment.measure
            ),
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (left..right).log_scale(),
            100.0 * (lowest - room)..100.0 * (highest + room),
        )
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("kB (logarithmic)")
        .y_desc(format!("{}, %", experiment.measure))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .draw()
        .map_err(failed)?;
    let mut series = vec![(
        "float32",
        results
            .float
            .iter()
            .map(|f| (results.float_len, f.measured))
            .collect::<Vec<_>>(),
    )];
    for method in drawn(experiment) {
        let own = results.ternary.iter();
        let own = own.filter(|o| o.method == method.key);
        series.push((
            method.name.as_str(),
            own.map(|o| (o.file_len, o.measured)).collect(),
        ));
    }
    for (i, (name, points)) in series.into_iter().enumerate() {
        let colour = colour(i);
        let all = points.len();
        let shown = points.into_iter().filter(|p| p.1 >= floor);
        let shown: Vec<_> = shown.collect();
        let label = match all - shown.len() {
            0 => name.to_owned(),
            below => format!("{name} ({below} below)"),
        };
        let dots = shown.into_iter().map(|(len, measured)| {
            Circle::new((len as f64 / 1000.0, 100.0 * measured), 5, colour.filled())
        });
        chart
            .draw_series(dots)
            .map_err(failed)?
            .label(label)
            .legend(move |(x, y)| Circle::new((x + 9, y), 5, colour.filled()));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4))
        .draw()
        .map_err(failed)
}
