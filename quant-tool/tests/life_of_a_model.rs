//! A model's way through the program: keys, training, quantization, export, evaluation, on photographs that the test
//! draws, with a network small enough for seconds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, PHOTOGRAPHS, TINY};
use quant_tool::train::config::Config;
use quant_tool::train::parameters::Role;
use quant_tool::train::stage::{Stage, State};
use ternwatch_bundle::model::ModelLayer;

fn tiny() -> Bench {
    let bench = Bench::new();
    bench.write("tiny.toml", TINY);
    bench
}

/// Calls `train` or `quantize`.
fn stage(bench: &Bench, command: &str, run: &str, more: &str) {
    bench.succeed(&format!(
        "{command} --config tiny.toml --data data --run {run} {more}"
    ));
}

fn state(bench: &Bench, run: &str) -> State {
    let config = Config::read(&bench.path("tiny.toml")).unwrap();
    let network = config.network(&bench.path(run)).unwrap();
    State::read(
        &Stage::Hard.path(&bench.path(run)),
        &network,
        &config.recipe(),
    )
    .unwrap()
}

fn export(out: &str) -> String {
    format!("export --config tiny.toml --run run --key key.secret --out {out}")
}

#[test]
fn a_stopped_run_ends_like_an_uninterrupted_one() {
    for more in [
        "",
        "fit = \"outputs\"\n",
        "fit = \"outputs\"\nsoft = \"forward\"\n",
    ] {
        let bench = Bench::new();
        bench.write(
            "tiny.toml",
            TINY.replace("[augment]", &format!("{more}[augment]")),
        );
        stage(&bench, "train", "straight", "");
        stage(&bench, "quantize", "straight", "");
        for _ in 0..3 {
            stage(&bench, "train", "stopped", "--max-steps 2");
        }
        for _ in 0..4 {
            stage(&bench, "quantize", "stopped", "--max-steps 2");
        }
        let (a, b) = (state(&bench, "straight"), state(&bench, "stopped"));
        assert!(a.quantizer.is_ternary() && b.quantizer.is_ternary());
        for (a, b) in a.average.0.iter().zip(&b.average.0) {
            assert_eq!(a.value, b.value, "{more}: {}", a.name);
        }
    }
}

#[test]
fn another_runs_float_network_may_teach() {
    let bench = tiny();
    let config = |name: &str, teacher: &str| {
        let taught = TINY.replace("[augment]", "distillation = 1.0\n[augment]");
        bench.write(
            name,
            taught.replace("[network]", &format!("{teacher}[network]")),
        );
    };
    config("own.toml", "");
    config("taught.toml", "teacher = \"large\"\n");
    bench.write("large.toml", TINY.replace("stage8 = [6]", "stage8 = [10]"));
    let call = |command: &str, name: &str| {
        format!("{command} --config {name}.toml --data data --run {name}")
    };
    bench.succeed(&call("train", "taught"));
    bench.fail(&call("quantize", "taught"), 66, "large/config.toml");
    bench.succeed(&call("train", "large"));
    bench.succeed(&call("quantize", "taught"));
    bench.succeed(&call("train", "own"));
    bench.succeed(&call("quantize", "own"));
    let (own, taught) = (state(&bench, "own"), state(&bench, "taught"));
    assert!(taught.quantizer.is_ternary());
    let mut pairs = own.average.0.iter().zip(&taught.average.0);
    assert!(
        pairs.any(|(a, b)| a.value != b.value),
        "it learned nothing of it"
    );

    config("wrong.toml", "teacher = \"other\"\n");
    std::fs::create_dir(bench.path("other")).unwrap();
    let dogs = TINY.replace("[network]", "classes = [\"dog\"]\n[network]");
    bench.write("other/config.toml", dogs);
    bench.succeed(&call("train", "wrong"));
    bench.fail(&call("quantize", "wrong"), 78, "other classes");
}

#[test]
fn an_exported_bundle_is_inspected_and_evaluated() {
    let bench = tiny();
    stage(&bench, "train", "run", "");
    bench.fail(&export("early.tern"), 66, "hard.safetensors");
    stage(&bench, "quantize", "run", "");
    bench.succeed(&format!("{} --evaluate data", export("default.tern")));

    let (text, _) = bench.succeed("inspect --bundle default.tern --key key.pub");
    assert!(
        text.contains("tiny version 3") && text.contains("golden vectors match"),
        "{text}"
    );
    let (text, _) = bench
        .succeed("evaluate --bundle default.tern --key key.pub --data data --json --coco coco");
    let scores: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(scores["sources"]["overall"]["images"], PHOTOGRAPHS);
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
    let key = ternwatch_bundle::PublicKey::from_text(&bench.text("key.pub")).unwrap();
    let model = quant_tool::files::model_from(&bytes, key).unwrap();
    assert_eq!(model.card()["evaluation"]["ternary"], scores);
    assert_eq!(model.card()["training"]["stages"]["float"]["steps"], 6);
    assert_levels_are_in_the_bundle(&state(&bench, "run"), &model);
    assert_resized(&bench, &model);
    assert_a_reader_may_leave(&bench);
}

/// Whether the files have every box, and detections of no others than their images.
fn assert_coco_files(bench: &Bench) {
    let json =
        |name: &str| -> serde_json::Value { serde_json::from_str(&bench.text(name)).unwrap() };
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
    let sign = |change: &str| {
        format!(
            "sign --bundle default.tern --key key.pub --with key.secret --out wide.tern {change}"
        )
    };
    bench.fail(&sign("--input wide"), 64, "WIDTHxHEIGHT");
    bench.fail(&sign("--score 7"), 64, "0 to 1");
    bench.fail(&sign("--input 0x64"), 65, "input");
    bench.succeed(&sign("--input 128x64 --name wide --score 0.75"));
    bench.succeed("verify --bundle wide.tern --key key.pub");
    let bytes = std::fs::read(bench.path("wide.tern")).unwrap();
    let key = ternwatch_bundle::PublicKey::from_text(&bench.text("key.pub")).unwrap();
    let after = quant_tool::files::model_from(&bytes, key).unwrap();
    assert_eq!(after.id().name, "wide");
    assert_eq!(after.thresholds().score, 0.75);
    assert_eq!((after.input().width, after.input().height), (128, 64));
    assert_ne!(after.golden(), before.golden());
    assert_eq!(after.card()["evaluation"], serde_json::Value::Null);
    let trits = |model: &ternwatch_bundle::Model| {
        let convs = model.layers().iter().filter_map(|layer| match layer {
            ModelLayer::Conv(conv) => Some(conv.trits.clone()),
            _ => None,
        });
        convs.collect::<Vec<_>>()
    };
    assert_eq!(trits(&after), trits(before));
}

/// Whether the program ends in silence when nobody reads on.
fn assert_a_reader_may_leave(bench: &Bench) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = bench
        .command("inspect --bundle default.tern --key key.pub")
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
        _ => None,
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

#[test]
fn mistakes_are_named_and_nothing_is_overwritten() {
    let bench = tiny();
    bench.fail("trian", 64, "trian");
    bench.fail("keygen key", 73, "key.secret");
    let train =
        |config: &str, data: &str| format!("train --config {config} --data {data} --run run");
    bench.fail(
        &train("tiny.toml", "nowhere"),
        66,
        "nowhere/annotations.json",
    );
    let annotations = bench.text("data/annotations.json");
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
    bench.write("far/annotations.json", far.to_string());
    bench.fail(
        &train("tiny.toml", "far"),
        65,
        "lies outside of its 96 x 72 pixels",
    );
    far["annotations"][0]["category_id"] = 9.into();
    bench.write("far/annotations.json", far.to_string());
    bench.fail(
        &train("tiny.toml", "far"),
        65,
        "annotation 0: no category 9",
    );
    bench.write("bad.toml", TINY.replace("mosaic =", "mosiac ="));
    bench.fail(&train("bad.toml", "data"), 78, "mosiac");
    bench.write("junk.tern", "TERNWTCH, but not really");
    let inspect = |key: &str| format!("inspect --bundle junk.tern --key {key}");
    bench.fail(&inspect("key.pub"), 65, "junk.tern");
    bench.fail(&inspect("key.secret"), 65, "key.secret");

    // Another recipe must not go on from this one's checkpoints.
    stage(&bench, "train", "run", "--max-steps 1");
    bench.write("other.toml", TINY.replace("seed = 5", "seed = 6"));
    bench.fail(&train("other.toml", "data"), 70, "another configuration");
}
