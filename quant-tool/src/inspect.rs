//! What is in a bundle, for people.

use anyhow::Result;
use ternwatch_bundle::model::{ConvLayer, ModelLayer};
use ternwatch_detector::{Detector, golden};
use ternwatch_kernels::{Isa, Trit};

use crate::cli::BundleFile;
use crate::files;

/// Checks a bundle and prints its layers.
pub fn print(file: &BundleFile) -> Result<()> {
    let model = files::model(file)?;
    let levels = Isa::available();
    for &isa in &levels {
        golden::check(&model, isa)?;
    }
    let detector = Detector::new(&model, Isa::detect())?;
    let input = model.input();
    let hash = ternwatch_bundle::hex::encode(&model.sha256());
    println!(
        "{} version {}, sha256 {hash}",
        model.id().name,
        model.id().version
    );
    println!(
        "input {} x {} x {}, classes {}",
        input.channels,
        input.height,
        input.width,
        model.classes().join(", ")
    );
    println!(
        "{:.1} MMAC, arena {} bytes",
        model.macs() as f64 / 1e6,
        detector.arena_len()
    );
    let names: Vec<String> = levels.iter().map(ToString::to_string).collect();
    println!(
        "signature good; {} golden vectors match on {}",
        model.golden().len(),
        names.join(", ")
    );
    println!(
        "{:12} {:>16} {:>8} {:>9} {:>7}",
        "layer", "output", "weights", "kMAC", "zeros"
    );
    for layer in model.layers() {
        let shape = layer.output_shape();
        let output = format!("{} x {} x {}", shape.channels, shape.height, shape.width);
        match layer {
            ModelLayer::Conv(conv) => {
                let part = zeros_percent(conv);
                let macs = layer.macs() / 1000;
                println!(
                    "{:12} {output:>16} {:8} {macs:9} {part:6.1}%",
                    layer.name(),
                    conv.trits.len()
                );
            }
            ModelLayer::AddUpsampled(_)
            | ModelLayer::Add(_)
            | ModelLayer::Concat(_)
            | ModelLayer::Pool(_) => println!("{:12} {output:>16}", layer.name()),
        }
    }
    Ok(())
}

/// How many of a layer's weights are zero.
pub(crate) fn zeros_percent(conv: &ConvLayer) -> f64 {
    let zeros = conv.trits.iter().filter(|t| **t == Trit::Zero).count();
    100.0 * zeros as f64 / conv.trits.len() as f64
}
