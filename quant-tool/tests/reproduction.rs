//! `quant-tool reproduce` on digits that the test draws: every way to quantize gives a bundle, the report names all of
//! them, and a call that was made before gives the same report again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

use flate2::{Compression, write::GzEncoder};

/// Writes an IDX file of bytes.
fn idx(path: &Path, sizes: &[u32], data: &[u8]) {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    bytes.extend(sizes.iter().flat_map(|n| n.to_be_bytes()));
    bytes.extend(data);
    let mut file = GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast());
    file.write_all(&bytes).unwrap();
    file.finish().unwrap();
}

/// "Digits": stripes in noise, whose direction and period tell the class. (Where something is tells nothing: the network
/// looks everywhere alike.)
fn digits(folder: &Path, prefix: &str, count: u32) {
    let mut rng = fastrand::Rng::with_seed(u64::from(count));
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for i in 0..count {
        let label = (i % 10) as u8;
        labels.push(label);
        let period = 2 + 2 * (label % 5);
        for (y, x) in (0..28u8).flat_map(|y| (0..28u8).map(move |x| (y, x))) {
            let along = if label < 5 { y } else { x };
            let bright = along % period < period / 2;
            pixels.push(rng.u8(0..40) + if bright { 200 } else { 0 });
        }
    }
    let name = |part: &str| folder.join(format!("{prefix}-{part}-ubyte.gz"));
    idx(&name("images-idx3"), &[count, 28, 28], &pixels);
    idx(&name("labels-idx1"), &[count], &labels);
}

#[test]
fn every_way_ends_in_a_bundle_and_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    digits(&data, "train", 400);
    digits(&data, "t10k", 100);
    let call = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quant-tool"));
        command.current_dir(folder.path());
        command.args(["reproduce", "mnist", "--data", "data", "--run", "run"]);
        command.args(["--seeds", "1", "--steps", "100", "--out", out]);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        std::fs::read_to_string(folder.path().join(out).join("report.md")).unwrap()
    };
    let report = call("out");
    for name in [
        "float32",
        "round to nearest",
        "Hwang and Sung",
        "TWN",
        "(ours)",
    ] {
        assert!(
            report.contains(&format!("| {name}")) || report.contains(name),
            "{name}"
        );
    }
    let accuracies: Vec<f64> = report
        .lines()
        .filter(|line| line.contains(" \u{b1} "))
        .filter_map(|line| {
            line.split('|')
                .nth(2)?
                .trim()
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .collect();
    assert_eq!(accuracies.len(), 9, "float and eight ways: {report}");
    // Stripes are easy to tell apart, and guessing is right in 10 %.
    assert!(accuracies[0] > 40.0, "float: {} %", accuracies[0]);
    let best = accuracies[1..].iter().copied().fold(0.0, f64::max);
    assert!(best > 30.0, "the best of the ternary ones: {best} %");
    for picture in ["learning.svg", "weights.svg", "memory.svg"] {
        let svg = std::fs::read_to_string(folder.path().join("out").join(picture)).unwrap();
        assert!(svg.starts_with("<svg") && svg.len() > 4000, "{picture}");
    }
    for way in [
        "round",
        "hwang-sung",
        "twn",
        "twn-channel",
        "soft",
        "hard",
        "untaught",
        "soft-hard",
    ] {
        let bundle = folder
            .path()
            .join("run/seed-1")
            .join(way)
            .join("model.tern");
        assert!(bundle.exists(), "{}", bundle.display());
    }
    assert_eq!(call("again"), report, "nothing is trained twice");
}

#[test]
fn a_wrong_data_set_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let call = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quant-tool"));
        command.current_dir(folder.path());
        command.args([
            "reproduce",
            "mnist",
            "--data",
            ".",
            "--run",
            "run",
            "--out",
            "out",
        ]);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(call().contains("t10k-images-idx3-ubyte.gz"));
    digits(folder.path(), "t10k", 20);
    idx(
        &folder.path().join("t10k-labels-idx1-ubyte.gz"),
        &[20],
        &[77; 20],
    );
    let error = call();
    assert!(error.contains("record 0 has the label 77"), "{error}");
}
