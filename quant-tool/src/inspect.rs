//! What is in a bundle, for people.

use anyhow::{Context, Result};
use ternwatch_bundle::manifest::Release;
use ternwatch_bundle::model::{ConvLayer, ModelLayer};
use ternwatch_bundle::{Manifest, Model, hex};
use ternwatch_detector::{Detector, golden};
use ternwatch_kernels::{Isa, Trit};

use crate::cli::BundleFile;
use crate::files;
use crate::tell::out;

/// Checks a bundle and prints what it says of itself, and its layers.
pub fn print(file: &BundleFile) -> Result<()> {
    let opened = files::open(&file.bundle, [files::key_of(file)?])?;
    let model = opened.model;
    let levels = Isa::available();
    for &isa in &levels {
        golden::check(&model, isa).with_context(|| file.bundle.display().to_string())?;
    }
    let detector = Detector::new(&model, Isa::detect())?;
    let names: Vec<String> = levels.iter().map(ToString::to_string).collect();
    print_manifest(&opened.manifest);
    out!(
        "{} bytes, {} of them parameters; sha256 {}",
        opened.file_len,
        opened.parameters_len,
        hex::encode(&model.sha256())
    );
    out!(
        "signature good; {} golden vectors match on {}",
        model.golden().len(),
        names.join(", ")
    );
    out!(
        "{:.1} MMAC, arena {} bytes",
        model.macs() as f64 / 1e6,
        detector.arena_len()
    );
    print_layers(&model);
    Ok(())
}

/// What the signer says of the model.
fn print_manifest(manifest: &Manifest) {
    let Manifest {
        model,
        input,
        thresholds,
        ..
    } = manifest;
    out!("{} version {}", model.name, model.version);
    for key in ["about", "data", "limits"] {
        if let Some(text) = manifest.card["about"][key].as_str() {
            out!("{key}: {text}");
        }
    }
    out!(
        "input {} x {} x {}, classes {}; thresholds: score {}, IoU {}",
        input.channels,
        input.height,
        input.width,
        manifest.classes.join(", "),
        thresholds.score,
        thresholds.iou
    );
    if let Some(release) = &manifest.release {
        out!("{}", release_line(release));
    }
}

fn release_line(release: &Release) -> String {
    // A time beyond the calendar is shown as it stands.
    let date = |seconds: u64| {
        let timestamp = i64::try_from(seconds).ok();
        let timestamp = timestamp.and_then(|s| jiff::Timestamp::from_second(s).ok());
        timestamp.map_or_else(|| format!("{seconds} s after 1970"), |t| t.to_string())
    };
    let mut line = format!("signed {}", date(release.signed_at_s));
    if let Some(end) = release.not_after_s {
        line += &format!(", to be installed before {}", date(end));
    }
    if let Some([major, minor, patch]) = release.daemon_min {
        line += &format!(", for ternwatchd {major}.{minor}.{patch} and later");
    }
    line
}

fn print_layers(model: &Model) {
    out!(
        "{:12} {:>16} {:>8} {:>9} {:>7}",
        "layer",
        "output",
        "weights",
        "kMAC",
        "zeros"
    );
    for layer in model.layers() {
        let shape = layer.output_shape();
        let output = format!("{} x {} x {}", shape.channels, shape.height, shape.width);
        match layer {
            ModelLayer::Conv(conv) => {
                let part = zeros_percent(conv);
                let macs = layer.macs() / 1000;
                out!(
                    "{:12} {output:>16} {:8} {macs:9} {part:6.1}%",
                    layer.name(),
                    conv.trits.len()
                );
            }
            ModelLayer::AddUpsampled(_)
            | ModelLayer::Add(_)
            | ModelLayer::Concat(_)
            | ModelLayer::Pool(_) => out!("{:12} {output:>16}", layer.name()),
        }
    }
}

/// How many of a layer's weights are zero.
pub(crate) fn zeros_percent(conv: &ConvLayer) -> f64 {
    let zeros = conv.trits.iter().filter(|t| **t == Trit::Zero).count();
    100.0 * zeros as f64 / conv.trits.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_told_in_dates() {
        let release = Release {
            signed_at_s: 1_700_000_000,
            not_after_s: Some(1_702_592_000),
            daemon_min: Some([0, 2, 1]),
        };
        assert_eq!(
            release_line(&release),
            "signed 2023-11-14T22:13:20Z, to be installed before 2023-12-14T22:13:20Z, for ternwatchd 0.2.1 and later"
        );
        let far = Release {
            signed_at_s: u64::MAX,
            ..Release::default()
        };
        assert_eq!(
            release_line(&far),
            "signed 18446744073709551615 s after 1970"
        );
    }
}
