//! `quant-tool reproduce` on digits and photographs that the test draws: every way to quantize gives a bundle, the report
//! names all of them, and a call that was made before gives the same report again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use std::io::Write;
use std::path::Path;

use bench::{Bench, TINY};
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

const WAYS: [&str; 10] = [
    "round",
    "hwang-sung",
    "twn",
    "twn-channel",
    "fitted",
    "soft",
    "hard",
    "untaught",
    "soft-hard",
    "fitted-hard",
];

/// Calls twice, and gives what was measured in percent: of the float network, then of each of these ways.
fn reproduce(bench: &Bench, what: &str, ways: &[&str]) -> Vec<f64> {
    let call = |out: &str| {
        bench.succeed(&format!(
            "reproduce {what} --data set --run run --seeds 1 --steps 100 --out {out}"
        ));
        bench.text(&format!("{out}/report.md"))
    };
    let report = call("out");
    for name in ["round to nearest", "(ours)"] {
        assert!(report.contains(name), "{name} is missing: {report}");
    }
    for picture in ["learning.svg", "weights.svg", "memory.svg"] {
        let svg = bench.text(&format!("out/{picture}"));
        assert!(svg.starts_with("<svg") && svg.len() > 4000, "{picture}");
    }
    for way in ways {
        let bundle = bench.path("run/seed-1").join(way).join("model.tern");
        assert!(bundle.exists(), "{}", bundle.display());
    }
    let outcome = bench.path("run/seed-1/hard/outcome.json");
    let measured = std::fs::metadata(&outcome).unwrap().modified().unwrap();
    assert_eq!(call("again"), report, "nothing is trained twice");
    let again = std::fs::metadata(&outcome).unwrap().modified().unwrap();
    assert_eq!(again, measured, "nothing is measured twice");
    let rows = report.lines().filter(|line| line.starts_with("| "));
    let measured = rows.filter_map(|line| {
        let cell = line.split('|').nth(2)?.trim();
        cell.split(' ').next()?.parse().ok()
    });
    let measured: Vec<f64> = measured.collect();
    assert_eq!(measured.len(), 1 + ways.len(), "{report}");
    measured
}

/// Whether checkpoints of other settings are refused, and whether a file adds a way.
fn assert_settings_are_not_mixed(bench: &Bench, what: &str) {
    let call = |more: &str| format!("reproduce {what} --data set --run run --out more {more}");
    bench.fail(
        &call("--steps 101"),
        78,
        "run/seed-1/float holds checkpoints of other settings (float.steps)",
    );
    let also = |width: f32| {
        bench.write(
            "also.toml",
            format!("[zeros]\nlike = \"hard\"\nzero_width = {width}\n"),
        );
        call("--steps 100 --also also.toml")
    };
    bench.succeed(&also(0.7));
    assert!(bench.text("more/report.md").contains("| zeros |"));
    bench.fail(
        &also(0.8),
        78,
        "run/seed-1/zeros holds checkpoints of other settings (quantize.zero_width)",
    );
}

#[test]
fn some_ways_to_tell_digits_apart_are_compared() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("set")).unwrap();
    digits(&bench.path("set"), "train", 400);
    digits(&bench.path("set"), "t10k", 100);
    let accuracies = reproduce(
        &bench,
        "mnist --only soft-hard,hard,round",
        &["round", "hard", "soft-hard"],
    );
    // Stripes are easy to tell apart, and guessing is right in 10 %.
    assert!(accuracies[0] > 40.0, "float: {} %", accuracies[0]);
    let best = accuracies[1..].iter().copied().fold(0.0, f64::max);
    assert!(best > 30.0, "the best of the ternary ones: {best} %");
}

#[test]
fn every_way_ends_in_a_bundle_and_in_the_report() {
    let bench = Bench::new();
    bench.draw("set/train");
    bench.draw("set/val");
    bench.write("tiny.toml", TINY);
    let precisions = reproduce(&bench, "pedestrian --config tiny.toml", &WAYS);
    // So few steps teach hardly anything; what is measured are percents.
    assert!(
        precisions.iter().all(|ap50| (0.0..=100.0).contains(ap50)),
        "{precisions:?}"
    );
    assert_settings_are_not_mixed(&bench, "pedestrian --config tiny.toml");
    let report = bench.text("out/report.md");
    assert!(
        report.contains("AP50, %") && report.contains("--config tiny.toml"),
        "{report}"
    );
    for name in ["Hwang and Sung", "TWN"] {
        assert!(report.contains(name), "{name} is missing: {report}");
    }
    let again = "reproduce mnist --data set --run run --out out --config tiny.toml";
    bench.fail(again, 64, "pedestrian");
    let unknown = "reproduce pedestrian --data set --config tiny.toml --steps 100 --run run --out out --only hard,twm";
    bench.fail(unknown, 64, "--only twm: no such way; there are round, ");
}

#[test]
fn a_wrong_data_set_is_named() {
    let bench = Bench::new();
    let call = "reproduce mnist --data . --run run --out out";
    bench.fail(call, 66, "t10k-images-idx3-ubyte.gz");
    digits(&bench.path(""), "t10k", 20);
    idx(&bench.path("t10k-labels-idx1-ubyte.gz"), &[20], &[77; 20]);
    bench.fail(call, 65, "record 0 has the label 77");
}
