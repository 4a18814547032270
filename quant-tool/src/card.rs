//! The model card of a bundle as a page of Markdown and a picture: what its makers signed, set for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Deserialize;
use ternwatch_bundle::model::ModelLayer;
use ternwatch_bundle::{Model, hex};
use ternwatch_kernels::Trit;

use crate::evaluate::{OVERALL, Point, Score, curve};
use crate::inspect::zeros_percent;
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

/// Writes NAME.md and, where the bundle was evaluated, NAME.svg into a folder.
pub fn write(args: &cli::Card) -> Result<()> {
    let bytes = files::read(&args.bundle.bundle)?;
    let model = files::model_from(&bytes, files::key_of(&args.bundle)?)?;
    let card = Card::deserialize(model.card())
        .with_context(|| format!("{}: the model card", args.bundle.bundle.display()))?;
    let name = &model.id().name;
    let page = page(&model, &card, bytes.len());
    files::write(&args.out.join(format!("{name}.md")), page.as_bytes())?;
    if let Some(both) = &card.evaluation {
        let path = args.out.join(format!("{name}.svg"));
        curve::draw(&both.ternary.curve, &model, &path)?;
    }
    Ok(())
}

fn page(model: &Model, card: &Card, bytes: usize) -> String {
    let id = model.id();
    let mut out = format!(
        "# {} version {}\n\n{}\n",
        id.name,
        id.version,
        told(card, "about")
    );
    out += &facts(model, bytes);
    out += &format!(
        "\n## What it does not do\n\n{}\n\n## Data\n\n{}\n",
        told(card, "limits"),
        told(card, "data")
    );
    out += &training(model, card);
    if let Some(both) = &card.evaluation {
        out += &accuracy(model, both);
    }
    out += &layers(model);
    out
}

fn told<'a>(card: &'a Card, key: &str) -> &'a str {
    card.about.get(key).map_or("Nothing is said.", |text| text)
}

fn facts(model: &Model, bytes: usize) -> String {
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
         | file | {bytes} bytes, with signature, golden vectors and this card |\n\
         | default threshold | {} |\n\
         | SHA-256 | `{}` |\n",
        input.width,
        input.height,
        model.classes().join(", "),
        model.macs() as f64 / 1e6,
        100.0 * ternary as f64 / float as f64,
        model.thresholds().score,
        hex::encode(&model.sha256())
    )
}

fn training(model: &Model, card: &Card) -> String {
    let name = &model.id().name;
    let mut out = format!(
        "\n## Training\n\n`make train-default MODEL={name} DATA=FOLDER KEY=FILE` does it again; {name}.toml is the recipe. Times are of \
         the machine that it was made on, with whatever else that did.\n\n| stage | steps | minutes |\n|---|--:|--:|\n"
    );
    for stage in ["float", "soft", "hard"] {
        if let Some(cost) = card.training.stages.get(stage) {
            let minutes = cost.seconds / 60.0;
            let _ = writeln!(out, "| {stage} | {} | {minutes:.0} |", cost.steps);
        }
    }
    out
}

fn accuracy(model: &Model, both: &Both) -> String {
    let (ternary, float) = (&both.ternary, &both.float);
    let mut out = String::from(
        "\n## Accuracy\n\nAP50 (COCO's protocol, 101 points) of the signed file, run by the detector that the daemon runs, and of the float network that it \
         was made of.\n\n| source | pictures | people | this model | float |\n|---|--:|--:|--:|--:|\n",
    );
    let last = |name: &str| name == OVERALL;
    let mut sources: Vec<_> = ternary.sources.iter().collect();
    sources.sort_by_key(|(name, _)| last(name));
    for (name, score) in sources {
        let twin = float.sources.get(name);
        out += &score_row(name, score, twin);
    }
    out += "\n| height in the network's input | pictures | people | this model | float |\n|---|--:|--:|--:|--:|\n";
    for of in &ternary.heights {
        let twin = float.heights.iter().find(|twin| twin.height == of.height);
        out += &score_row(&of.height, &of.score, twin.map(|twin| &twin.score));
    }
    let _ = write!(
        out,
        "\n![Precision, recall and false alarms by threshold]({}.svg)\n\n\
         False alarms are counted in {} regions of the pictures in which nobody is.\n\n\
         | threshold | of what it reports is right | of the people it finds | false alarms a region |\n|--:|--:|--:|--:|\n",
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
    let twin = twin.map_or_else(|| "-".into(), |twin| format!("{:.3}", twin.ap50));
    format!(
        "| {name} | {} | {} | {:.3} | {twin} |\n",
        score.images, score.boxes, score.ap50
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

    /// The pages beside the bundles that ship are what is signed in them.
    #[test]
    fn the_pages_of_the_shipped_models_are_theirs() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        for name in ["person", "person-lite"] {
            let folder = tempfile::tempdir().unwrap();
            write(&cli::Card {
                bundle: cli::BundleFile {
                    bundle: models.join(format!("{name}.tern")),
                    key: None,
                },
                out: PathBuf::from(folder.path()),
            })
            .unwrap();
            for ending in ["md", "svg"] {
                let file = format!("{name}.{ending}");
                let made = std::fs::read_to_string(folder.path().join(&file)).unwrap();
                let there = std::fs::read_to_string(models.join(&file)).unwrap_or_default();
                assert!(
                    made == there,
                    "models/{file} is of another bundle: `quant-tool card --bundle models/{name}.tern --out models` writes it"
                );
            }
        }
    }
}
