//! A model's way through the program: keys, training, quantization, export, evaluation, on photographs that the test
//! draws, with a network small enough for seconds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quant_tool::train::config::Config;
use quant_tool::train::parameters::Role;
use quant_tool::train::stage::{Stage, State};
use ternwatch_bundle::model::ModelLayer;

const CONFIG: &str = r#"
name = "tiny"
version = 3
seed = 5
thresholds = [0.3, 0.5]
[network]
width = 64
height = 48
stem = [4, 4]
stage8 = [6]
stage16 = [6]
stage32 = [8]
neck = 6
[float]
steps = 6
batch = 4
sample = [64, 64]
rate = 0.002
weight_decay = 0.0001
average_decay = 0.9
[quantize]
soft_steps = 3
soft_rate = 0.001
pull = 0.1
hard_steps = 5
hard_rate = 0.001
free = "straight-through"
groups = [0.0, 0.5, 1.0]
last_group_at = 0.5
[augment]
mosaic = 0.5
scale = [0.6, 1.5]
aspect = 0.1
grey = 0.2
light = [0.5, 1.4]
blur = 0.2
cut_out = 0.3
noise = 0.05
source_weights = {}
stretched = {}
"#;

/// A folder of the test's own with a data set, a configuration and a key pair.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(bench.path("data/images")).unwrap();
        let (mut images, mut annotations) = (Vec::new(), Vec::new());
        for id in 0..6u32 {
            let (x, y) = (5 + 9 * id, 8 + 3 * id);
            let mut picture = image::RgbImage::from_pixel(96, 72, image::Rgb([40, 50, 60]));
            for (dx, dy) in (0..14).flat_map(|dx| (0..30).map(move |dy| (dx, dy))) {
                picture.put_pixel(x + dx, y + dy, image::Rgb([230, 200, 180]));
            }
            picture
                .save(bench.path(&format!("data/images/{id}.png")))
                .unwrap();
            images.push(serde_json::json!({ "id": id, "file_name": format!("{id}.png"), "source": "drawn" }));
            let bbox = [x, y, 14, 30];
            annotations.push(
                serde_json::json!({ "id": id, "image_id": id, "category_id": 1, "bbox": bbox }),
            );
        }
        let categories = [serde_json::json!({ "id": 1, "name": "person" })];
        let file = serde_json::json!({ "images": images, "annotations": annotations, "categories": categories });
        std::fs::write(bench.path("data/annotations.json"), file.to_string()).unwrap();
        std::fs::write(bench.path("tiny.toml"), CONFIG).unwrap();
        bench.succeed(&["keygen", "key"]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn call(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quant-tool"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Calls that must fail with this code and name this on standard error.
    fn fail(&self, arguments: &[&str], code: i32, named: &str) {
        let output = self.call(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(
            errors.contains(named),
            "{arguments:?}: no \"{named}\" in: {errors}"
        );
    }

    fn stage(&self, command: &str, run: &str, more: &[&str]) {
        let common = [
            command,
            "--config",
            "tiny.toml",
            "--data",
            "data",
            "--run",
            run,
        ];
        self.succeed(&[&common[..], more].concat());
    }

    fn state(&self, run: &str) -> State {
        let config = Config::read(&self.path("tiny.toml")).unwrap();
        let network = config.network(&self.path(run)).unwrap();
        State::read(
            &Stage::Hard.path(&self.path(run)),
            &network,
            &config.recipe(),
        )
        .unwrap()
    }
}

fn export(run: &str, out: &str) -> [String; 9] {
    [
        "export",
        "--config",
        "tiny.toml",
        "--run",
        run,
        "--key",
        "key.secret",
        "--out",
        out,
    ]
    .map(str::to_owned)
}

#[test]
fn a_stopped_run_ends_like_an_uninterrupted_one() {
    let bench = Bench::new();
    bench.stage("train", "straight", &[]);
    bench.stage("quantize", "straight", &[]);
    for _ in 0..3 {
        bench.stage("train", "stopped", &["--max-steps", "2"]);
    }
    for _ in 0..4 {
        bench.stage("quantize", "stopped", &["--max-steps", "2"]);
    }
    let (a, b) = (bench.state("straight"), bench.state("stopped"));
    assert!(a.quantizer.is_ternary() && b.quantizer.is_ternary());
    for (a, b) in a.average.0.iter().zip(&b.average.0) {
        assert_eq!(a.value, b.value, "{}", a.name);
    }
}

#[test]
fn an_exported_bundle_is_inspected_and_evaluated() {
    let bench = Bench::new();
    bench.stage("train", "run", &[]);
    let unfinished = export("run", "early.tern");
    bench.fail(
        &unfinished.each_ref().map(String::as_str),
        66,
        "hard.safetensors",
    );
    bench.stage("quantize", "run", &[]);
    let arguments = export("run", "default.tern");
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--evaluate", "data"]);
    bench.succeed(&arguments);

    let text = bench.succeed(&["inspect", "--bundle", "default.tern", "--key", "key.pub"]);
    assert!(
        text.contains("tiny version 3") && text.contains("golden vectors match"),
        "{text}"
    );
    let text = bench.succeed(&[
        "evaluate",
        "--bundle",
        "default.tern",
        "--key",
        "key.pub",
        "--data",
        "data",
        "--json",
        "--coco",
        "coco",
    ]);
    let scores: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(scores["sources"]["overall"]["images"], 6);
    assert_eq!(scores["sources"]["drawn"], scores["sources"]["overall"]);
    let boxes = |scores: &serde_json::Value| scores["boxes"].as_u64().unwrap();
    let heights = scores["heights"].as_array().unwrap().iter().map(boxes);
    assert_eq!(
        heights.sum::<u64>(),
        boxes(&scores["sources"]["overall"]),
        "every box has a height"
    );

    assert_coco_files(&bench);

    // The card tells where the model comes from and how well it does.
    let bytes = std::fs::read(bench.path("default.tern")).unwrap();
    let key = ternwatch_bundle::PublicKey::from_text(&read(&bench.path("key.pub"))).unwrap();
    let model = quant_tool::files::model_from(&bytes, key).unwrap();
    assert_eq!(model.card()["evaluation"]["ternary"], scores);
    assert_eq!(model.card()["training"]["stages"]["float"]["steps"], 6);
    assert_levels_are_in_the_bundle(&bench.state("run"), &model);
    assert_resized(&bench, &model);
    assert_a_reader_may_leave(&bench);
}

/// Whether the files have every box, and detections of no others than their images.
fn assert_coco_files(bench: &Bench) {
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_str(&read(&bench.path(name))).unwrap()
    };
    let truth = json("coco/truth.json");
    assert_eq!(truth["annotations"].as_array().unwrap().len(), 6);
    assert_eq!(
        truth["annotations"][1]["bbox"],
        serde_json::json!([14.0, 11.0, 14.0, 30.0])
    );
    for detection in json("coco/detections.json").as_array().unwrap() {
        let (image, score) = (&detection["image_id"], &detection["score"]);
        assert!((1..=6).contains(&image.as_u64().unwrap()), "{detection}");
        assert!(
            (0.0..=1.0).contains(&score.as_f64().unwrap()),
            "{detection}"
        );
    }
}

/// Whether a bundle that is signed anew for another input has the same weights, answers of its own, and tells so.
fn assert_resized(bench: &Bench, before: &ternwatch_bundle::Model) {
    let common = [
        "sign",
        "--bundle",
        "default.tern",
        "--key",
        "key.pub",
        "--with",
        "key.secret",
        "--out",
        "wide.tern",
    ];
    bench.fail(
        &[&common[..], &["--input", "wide"]].concat(),
        64,
        "WIDTHxHEIGHT",
    );
    bench.fail(&[&common[..], &["--score", "7"]].concat(), 64, "0 to 1");
    bench.fail(&[&common[..], &["--input", "0x64"]].concat(), 65, "input");
    let changes = ["--input", "128x64", "--name", "wide", "--score", "0.75"];
    bench.succeed(&[&common[..], &changes].concat());
    bench.succeed(&["verify", "--bundle", "wide.tern", "--key", "key.pub"]);
    let bytes = std::fs::read(bench.path("wide.tern")).unwrap();
    let key = ternwatch_bundle::PublicKey::from_text(&read(&bench.path("key.pub"))).unwrap();
    let after = quant_tool::files::model_from(&bytes, key).unwrap();
    assert_eq!(after.id().name, "wide");
    assert_eq!(after.thresholds().score, 0.75);
    assert_eq!((after.input().width, after.input().height), (128, 64));
    assert_ne!(after.golden(), before.golden());
    assert_eq!(after.card()["evaluation"], serde_json::Value::Null);
    let trits = |model: &ternwatch_bundle::Model| {
        let convs = model.layers().iter().filter_map(|layer| match layer {
            ModelLayer::Conv(conv) => Some(conv.trits.clone()),
            ModelLayer::AddUpsampled(_) => None,
        });
        convs.collect::<Vec<_>>()
    };
    assert_eq!(trits(&after), trits(before));
}

/// Whether the program ends in silence when nobody reads on.
fn assert_a_reader_may_leave(bench: &Bench) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quant-tool"));
    let arguments = ["inspect", "--bundle", "default.tern", "--key", "key.pub"];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command
        .args(arguments)
        .current_dir(bench.0.path())
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Whether every weight of the run is on a level, and the bundle has those levels and no others.
fn assert_levels_are_in_the_bundle(state: &State, model: &ternwatch_bundle::Model) {
    let weights = state.average.0.iter().filter(|p| p.role == Role::Weight);
    let convs = model.layers().iter().filter_map(|layer| match layer {
        ModelLayer::Conv(conv) => Some(conv),
        ModelLayer::AddUpsampled(_) => None,
    });
    let mut seen = 0;
    for ((weights, levels), conv) in weights.zip(&state.quantizer.layers).zip(convs) {
        let fan_in = weights.value.len() / levels.scale.len();
        let channels = weights.value.chunks_exact(fan_in);
        for ((channel, scale), trits) in channels
            .zip(&levels.scale)
            .zip(conv.trits.chunks_exact(fan_in))
        {
            let signs = channel.iter().map(|w| {
                assert!(*w == 0.0 || w.abs() == *scale, "{}: {w}", weights.name);
                if *w == 0.0 { 0 } else { w.signum() as i8 }
            });
            let signs: Vec<i8> = signs.collect();
            let trits: Vec<i8> = trits.iter().map(|t| *t as i8).collect();
            let negated: Vec<i8> = signs.iter().map(|s| -s).collect();
            // A channel whose normalization has a negative factor is stored with the opposite signs.
            assert!(trits == signs || trits == negated, "{}", weights.name);
            seen += fan_in;
        }
    }
    let all = state.quantizer.layers.iter().map(|l| l.fixed.len());
    assert_eq!(seen, all.sum::<usize>());
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn mistakes_are_named_and_nothing_is_overwritten() {
    let bench = Bench::new();
    bench.fail(&["trian"], 64, "trian");
    bench.fail(&["keygen", "key"], 73, "key.secret");
    let train = |config: &'static str, data: &'static str| {
        ["train", "--config", config, "--data", data, "--run", "run"]
    };
    bench.fail(
        &train("tiny.toml", "nowhere"),
        66,
        "nowhere/annotations.json",
    );
    let annotations = read(&bench.path("data/annotations.json"));
    std::fs::create_dir_all(bench.path("far/images")).unwrap();
    std::fs::copy(
        bench.path("data/images/0.png"),
        bench.path("far/images/0.png"),
    )
    .unwrap();
    let mut far: serde_json::Value = serde_json::from_str(&annotations).unwrap();
    far["images"].as_array_mut().unwrap().truncate(1);
    far["annotations"].as_array_mut().unwrap().truncate(1);
    far["annotations"][0]["bbox"] = serde_json::json!([400, 8, 14, 30]);
    std::fs::write(bench.path("far/annotations.json"), far.to_string()).unwrap();
    bench.fail(
        &train("tiny.toml", "far"),
        65,
        "lies outside of its 96 x 72 pixels",
    );
    far["annotations"][0]["category_id"] = 9.into();
    std::fs::write(bench.path("far/annotations.json"), far.to_string()).unwrap();
    bench.fail(
        &train("tiny.toml", "far"),
        65,
        "annotation 0: no category 9",
    );
    std::fs::write(
        bench.path("bad.toml"),
        CONFIG.replace("mosaic =", "mosiac ="),
    )
    .unwrap();
    bench.fail(&train("bad.toml", "data"), 78, "mosiac");
    std::fs::write(bench.path("junk.tern"), b"TERNWTCH, but not really").unwrap();
    bench.fail(
        &["inspect", "--bundle", "junk.tern", "--key", "key.pub"],
        65,
        "junk.tern",
    );
    bench.fail(
        &["inspect", "--bundle", "junk.tern", "--key", "key.secret"],
        65,
        "key.secret",
    );

    // Another recipe must not go on from this one's checkpoints.
    bench.stage("train", "run", &["--max-steps", "1"]);
    std::fs::write(
        bench.path("other.toml"),
        CONFIG.replace("seed = 5", "seed = 6"),
    )
    .unwrap();
    bench.fail(&train("other.toml", "data"), 70, "another configuration");
}
