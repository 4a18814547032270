//! The model card of a bundle as a page of Markdown and a picture: what its makers signed, set for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Deserialize;
use ternwatch_bundle::model::ModelLayer;
use ternwatch_bundle::{Model, hex};
use ternwatch_kernels::Trit;

use crate::evaluate::{OVERALL, Point, Score, curve};
use crate::exit::misused;
use crate::inspect::zeros_percent;
use crate::train::start::Origin;
use crate::{cli, files};

/// What `export` wrote down. A bundle of somebody else's may have less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Card {
    about: BTreeMap<String, String>,
    training: Training,
    evaluation: Option<Both>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Training {
    start: Option<Origin>,
    stages: BTreeMap<String, Cost>,
}

#[derive(Debug, Deserialize)]
struct Cost {
    steps: u64,
    seconds: f64,
}

/// The bundle, and the float network that it was made of.
#[derive(Debug, Deserialize)]
struct Both {
    ternary: Measured,
    float: Measured,
}

#[derive(Debug, Deserialize)]
struct Measured {
    sources: BTreeMap<String, Score>,
    heights: Vec<OfHeight>,
    vacant_regions: usize,
    curve: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct OfHeight {
    height: String,
    #[serde(flatten)]
    score: Score,
}

/// The rest of the head of a table of scores.
const HEAD: &str =
    "this model | float | difference | found | right |\n|---|--:|--:|--:|--:|--:|--:|--:|\n";

/// Writes NAME.md and, where the bundle was evaluated, NAME.svg into a folder.
pub fn write(args: &cli::Card) -> Result<()> {
    let opened = files::open(&args.bundle.bundle, [files::key_of(&args.bundle)?])?;
    let model = &opened.model;
    let card = Card::deserialize(model.card())
        .with_context(|| format!("{}: the model card", args.bundle.bundle.display()))?;
    files::create_folder(&args.out)?;
    let name = &model.id().name;
    let picture = args.picture.as_deref();
    let picture = picture.map(|name| shown(name, args)).transpose()?;
    let page = page(&opened, &card, picture.as_deref());
    files::write(&args.out.join(format!("{name}.md")), page.as_bytes())?;
    if let Some(both) = &card.evaluation {
        let path = args.out.join(format!("{name}.svg"));
        curve::draw(&both.ternary.curve, model, &path)?;
    }
    Ok(())
}

fn page(opened: &files::Opened, card: &Card, picture: Option<&str>) -> String {
    let model = &opened.model;
    let id = model.id();
    let mut out = format!(
        "# {} version {}\n\n{}\n",
        id.name,
        id.version,
        told(card, "about")
    );
    out += &facts(opened);
    out += &format!(
        "\n## What it does not do\n\n{}\n\n## Data\n\n{}\n",
        told(card, "limits"),
        told(card, "data")
    );
    out += &training(card);
    if let Some(both) = &card.evaluation {
        out += &accuracy(model, both);
    }
    out += picture.unwrap_or_default();
    out += &layers(model);
    out
}

/// The part of the page with a picture that lies beside it.
fn shown(name: &str, args: &cli::Card) -> Result<String> {
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !is_plain || !args.out.join(name).is_file() {
        return Err(misused(format!(
            "--picture: {name:?} is not the name of a file in {}, of letters, digits, `.`, `_` and `-`",
            args.out.display()
        )));
    }
    let caption = args.caption.as_deref().map(|text| format!("{text} "));
    Ok(format!(
        "\n## What it finds and misses\n\n{}Boxes that it finds (green) and misses (red), and reports that no such box overlaps by half (yellow), at the \
         default threshold; `quant-tool evaluate --failures` draws them.\n\n![What it finds and misses]({name})\n",
        caption.unwrap_or_default()
    ))
}

fn told<'a>(card: &'a Card, key: &str) -> &'a str {
    card.about.get(key).map_or("Nothing is said.", |text| text)
}

fn facts(opened: &files::Opened) -> String {
    let model = &opened.model;
    let input = model.input();
    let weights: usize = convs(model).map(<[Trit]>::len).sum();
    let (ternary, float) = (weights.div_ceil(4), weights * 4);
    format!(
        "\n| | |\n|---|---|\n\
         | input | {} x {} pixels, RGB, 7 bits a value |\n\
         | classes | {} |\n\
         | multiply-accumulates that its additions stand for | {:.1} million a frame |\n\
         | weights | {weights}, each -1, 0 or +1 times a scale of its channel |\n\
         | memory of the weights | {ternary} bytes at 2 bits, {:.2} % of the {float} of float32 |\n\
         | parameters in the file | {} bytes: five weights a byte, a multiplier and a bias for each channel |\n\
         | file | {} bytes, with signature, golden vectors and this card |\n\
         | default threshold | {} |\n\
         | SHA-256 | `{}` |\n",
        input.width,
        input.height,
        model.classes().join(", "),
        model.macs() as f64 / 1e6,
        100.0 * ternary as f64 / float as f64,
        opened.parameters_len,
        opened.file_len,
        model.thresholds().score,
        hex::encode(&model.sha256())
    )
}

fn training(card: &Card) -> String {
    let begun = card.training.start.as_ref().map(|origin| {
        let what = match &origin.model {
            Some(model) => format!("`{}` version {}", model.name, model.version),
            None => "another network's parameters".into(),
        };
        let sha256 = &origin.sha256;
        format!(" It began with {what} (SHA-256 `{sha256}`), not with random parameters.")
    });
    let mut out = format!(
        "\n## Training\n\nThe whole configuration is in the bundle (`training.configuration` of its card). Times are of the machine that it was trained on, with \
         whatever else that did.{}\n\n| stage | steps | minutes |\n|---|--:|--:|\n",
        begun.unwrap_or_default()
    );
    let mut row = |name: &str, steps: u64, seconds: f64| {
        let _ = writeln!(out, "| {name} | {steps} | {:.0} |", seconds / 60.0);
    };
    let stages = &card.training.stages;
    let known = ["float", "soft", "hard"].map(|stage| Some((stage, stages.get(stage)?)));
    for (stage, cost) in known.into_iter().flatten() {
        row(stage, cost.steps, cost.seconds);
    }
    let all = stages.values();
    row(
        "together",
        all.clone().map(|cost| cost.steps).sum(),
        all.map(|cost| cost.seconds).sum(),
    );
    out
}

fn accuracy(model: &Model, both: &Both) -> String {
    let (ternary, float) = (&both.ternary, &both.float);
    let mut out = String::from(
        "\n## Accuracy\n\nAP50 (COCO's protocol, 101 points) of the signed file, run by the detector that the daemon runs, and of the float network that it \
         was made of, with the difference in points; and at the default threshold the part of the boxes that it finds and the part of its reports that are right.\n\n",
    );
    out += &format!("| source | pictures | boxes | {HEAD}");
    let last = |name: &str| name == OVERALL;
    let mut sources: Vec<_> = ternary.sources.iter().collect();
    sources.sort_by_key(|(name, _)| last(name));
    for (name, score) in sources {
        let twin = float.sources.get(name);
        out += &score_row(name, score, twin);
    }
    out += &format!("\n| height in the network's input | pictures | boxes | {HEAD}");
    for of in &ternary.heights {
        let twin = float.heights.iter().find(|twin| twin.height == of.height);
        out += &score_row(&of.height, &of.score, twin.map(|twin| &twin.score));
    }
    let _ = write!(
        out,
        "\n![Precision, recall and false alarms by threshold]({}.svg)\n\n\
         False alarms are counted in {} regions of the pictures without any box.\n\n\
         | threshold | of what it reports is right | of the boxes it finds | false alarms a region |\n|--:|--:|--:|--:|\n",
        model.id().name,
        ternary.vacant_regions
    );
    for point in ternary.curve.iter().filter(|point| point.recall > 0.0) {
        let _ = writeln!(
            out,
            "| {:.2} | {:.0} % | {:.0} % | {:.2} |",
            point.threshold,
            100.0 * point.precision,
            100.0 * point.recall,
            point.false_alarms
        );
    }
    out
}

fn score_row(name: &str, score: &Score, twin: Option<&Score>) -> String {
    let (float, points) = match twin {
        Some(twin) => {
            let points = 100.0 * (score.ap50 - twin.ap50);
            (format!("{:.3}", twin.ap50), format!("{points:+.1}"))
        }
        None => ("-".into(), "-".into()),
    };
    format!(
        "| {name} | {} | {} | {:.3} | {float} | {points} | {:.0} % | {:.0} % |\n",
        score.images,
        score.boxes,
        score.ap50,
        100.0 * score.recall,
        100.0 * score.precision
    )
}

fn layers(model: &Model) -> String {
    let mut out =
        String::from("\n## Layers\n\n| layer | output | weights | zeros |\n|---|---|--:|--:|\n");
    for layer in model.layers() {
        let shape = layer.output_shape();
        let (name, output) = (
            layer.name(),
            format!("{} x {} x {}", shape.channels, shape.height, shape.width),
        );
        let _ = match layer {
            ModelLayer::Conv(conv) => {
                let part = zeros_percent(conv);
                writeln!(
                    out,
                    "| {name} | {output} | {} | {part:.1} % |",
                    conv.trits.len()
                )
            }
            ModelLayer::AddUpsampled(_)
            | ModelLayer::Add(_)
            | ModelLayer::Concat(_)
            | ModelLayer::Pool(_) => writeln!(out, "| {name} | {output} | | |"),
        };
    }
    out
}

fn convs(model: &Model) -> impl Iterator<Item = &[Trit]> {
    model.layers().iter().filter_map(|layer| match layer {
        ModelLayer::Conv(conv) => Some(&conv.trits[..]),
        ModelLayer::AddUpsampled(_)
        | ModelLayer::Add(_)
        | ModelLayer::Concat(_)
        | ModelLayer::Pool(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// As deploy/cards.sh has it.
    const CAPTION: &str = "Of twelve frames of a street video that it has not learned from (vtest.avi of Debian's opencv-doc), labelled by hand in [street](street/annotations.json), those with most mistakes.";

    /// The pages beside the bundles that ship are what is signed in them.
    #[test]
    fn the_pages_of_the_shipped_models_are_theirs() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        for name in ["person", "person-lite"] {
            let folder = tempfile::tempdir().unwrap();
            let picture = format!("{name}-failures.jpg");
            std::fs::copy(models.join(&picture), folder.path().join(&picture)).unwrap();
            write(&cli::Card {
                bundle: cli::BundleFile {
                    bundle: models.join(format!("{name}.tern")),
                    key: None,
                },
                picture: Some(picture),
                caption: Some(CAPTION.into()),
                out: PathBuf::from(folder.path()),
            })
            .unwrap();
            for ending in ["md", "svg"] {
                let file = format!("{name}.{ending}");
                let made = std::fs::read_to_string(folder.path().join(&file)).unwrap();
                let there = std::fs::read_to_string(models.join(&file)).unwrap_or_default();
                assert!(
                    made == there,
                    "models/{file} is of another bundle: `make cards` writes it"
                );
            }
        }
    }
}
