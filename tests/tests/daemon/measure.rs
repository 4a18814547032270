//! `ternwatchd bench`, and which instruction set the daemon takes.

use crate::bench::Bench;
use serde_json::Value;
use std::collections::BTreeSet;
use system_tests::broker::Broker;
use ternwatch_detector::Isa;

/// No broker is asked.
const NO_PORT: u16 = 1;

fn report(bench: &Bench, arguments: &[&str]) -> Value {
    let output = bench.command(&[&["bench", "--frames", "3", "--json"], arguments].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    serde_json::from_slice(&output.stdout).expect("JSON and nothing else")
}

fn stages(report: &Value) -> BTreeSet<&str> {
    let stages = report["stages"].as_array().expect("a list").iter();
    stages
        .map(|stage| {
            let of = |percentile: &str| stage[percentile].as_f64().expect("a number");
            let times = ["p50_ms", "p95_ms", "p99_ms", "max_ms"].map(of);
            assert!(times[0] > 0.0 && times.is_sorted(), "{stage}");
            stage["stage"].as_str().expect("a name")
        })
        .collect()
}

#[test]
fn every_stage_and_every_layer_is_measured() {
    let bench = Bench::new(NO_PORT);
    let all = BTreeSet::from(["preprocess", "infer", "decode", "total", "processor"]);
    for format in ["yuyv", "nv12", "i420", "rgb", "jpeg"] {
        let report = report(&bench, &["--format", format, "--size", "320x240"]);
        let mut stages = stages(&report);
        let decodes = stages.remove("decode JPEG");
        assert_eq!(decodes, format == "jpeg", "{report}");
        assert_eq!(stages, all);

        assert_eq!(report["schema"], 1);
        assert_eq!(report["model"]["name"], "small-test");
        assert_eq!(report["frames"], 3);
        assert_eq!(report["threads"], 1);
        assert_eq!(report["frame"]["width"], 320);
        assert!(report["frames_per_second"].as_f64() > Some(0.0), "{report}");
        for memory in ["arena_kib", "resident_kib", "resident_max_kib"] {
            assert!(report["memory"][memory].as_u64() > Some(0), "{report}");
        }
        let layers = report["layers"].as_array().expect("a list");
        assert!(layers.len() > 2, "{report}");
        let mmac: f64 = layers
            .iter()
            .filter_map(|layer| layer["mmac"].as_f64())
            .sum();
        let whole = report["mmac"].as_f64().expect("a number");
        assert!((mmac - whole).abs() < 1e-9, "{mmac} of {whole}");
        let isa = report["isa"].as_str().expect("a name").parse::<Isa>();
        assert!(Isa::rivals().contains(&isa.expect("of this processor")));
    }
}

#[test]
fn the_table_names_what_the_document_has() {
    let mut bench = Bench::new(NO_PORT);
    bench.set("MODEL__ISA", "scalar");
    bench.set("MODEL__THREADS", "2");
    let report = report(&bench, &[]);
    let output = bench.command(&["bench", "--frames", "3"]);
    let table = String::from_utf8(output.stdout).expect("text");
    let of = |list: &str, key: &str| {
        let list = report[list].as_array().expect("a list").iter();
        let names = list.map(|entry| entry[key].as_str().expect("a name").to_owned());
        names.collect::<Vec<_>>()
    };
    let mut wanted = [of("stages", "stage"), of("layers", "name")].concat();
    wanted.extend(
        [
            "small-test version",
            "instruction set scalar, as model.isa says",
            "2 thread(s)",
            "640 x 480, YUYV",
            "frames a second",
            "memory: arena",
        ]
        .map(Into::into),
    );
    for words in wanted {
        assert!(table.contains(&words), "{words:?} is not in\n{table}");
    }
}

#[test]
fn the_log_says_which_instruction_set_and_why() {
    let broker = Broker::start();
    let mut bench = Bench::with_video(3, broker.port());
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let line = log.lines().find(|line| line.contains("instruction set "));
    let line = line.expect("a line of the log");
    for rival in Isa::rivals() {
        assert!(line.contains(rival.name()), "{line}");
    }

    bench.set("MODEL__ISA", "portable");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("instruction set portable, as model.isa says"),
        "{log}"
    );
}
