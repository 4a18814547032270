//! A model's way through the program: keys, training, quantization, export, evaluation, on photographs that the test
//! draws, with a network small enough for seconds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use std::process::Stdio;

use bench::{Bench, PHOTOGRAPHS, TINY};
use quant_tool::files;
use quant_tool::train::config::Config;
use quant_tool::train::parameters::{Parameters, Role};
use quant_tool::train::stage::{Stage, State, average_after};
use ternwatch_bundle::model::ModelLayer;
use ternwatch_kernels::Trit;

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
    state_after(bench, run, Stage::Hard)
}

fn state_after(bench: &Bench, run: &str, stage: Stage) -> State {
    let config = Config::read(&bench.path("tiny.toml")).unwrap();
    let run = bench.path(run);
    let network = config.network(&run).unwrap();
    State::read(&stage.path(&run), &network, &config.recipe()).unwrap()
}

/// What the float stage came to.
fn learned(bench: &Bench, run: &str) -> Parameters {
    let config = Config::read(&bench.path("tiny.toml")).unwrap();
    let run = bench.path(run);
    average_after(&run, Stage::Float, &config.network(&run).unwrap()).unwrap()
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
fn levels_that_are_frozen_stay_the_same_from_stage_to_stage() {
    let bench = Bench::new();
    let frozen = TINY.replace("[augment]", "levels = \"frozen\"\n[augment]");
    bench.write("tiny.toml", frozen);
    stage(&bench, "train", "run", "");
    stage(&bench, "quantize", "run", "");
    let [soft, hard] = [Stage::Soft, Stage::Hard].map(|stage| state_after(&bench, "run", stage));
    assert!(soft.step > 0, "the soft stage moved the weights");
    for (soft, hard) in soft.quantizer.layers.iter().zip(&hard.quantizer.layers) {
        assert_eq!(soft.scale, hard.scale);
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
fn a_folder_is_kept_for_what_its_checkpoints_were_made_with() {
    let bench = tiny();
    let write = |change: &dyn Fn(String) -> String| bench.write("tiny.toml", change(TINY.into()));
    let train = "train --config tiny.toml --data data --run run";
    // A mistake is mended, and the call made again.
    write(&|text| text.replace("[network]", "classes = [\"persn\"]\n[network]"));
    bench.fail(train, 65, "persn");
    write(&|text| text);
    stage(&bench, "train", "run", "");
    let at_work = std::fs::File::open(bench.path("run")).unwrap();
    at_work.lock().unwrap();
    bench.fail(train, 75, "another quant-tool is at work in run");
    drop(at_work);

    write(&|text| text.replace("seed = 5", "seed = 6"));
    bench.fail(train, 78, "another configuration than the one given (seed)");
    // No stage has used these yet.
    write(&|text| text.replace("hard_steps = 5", "hard_steps = 4"));
    stage(&bench, "quantize", "run", "");
    write(&|text| text.replace("pull = 0.1", "pull = 0.2"));
    let quantize = "quantize --config tiny.toml --data data --run run";
    bench.fail(quantize, 78, "(quantize.hard_steps, quantize.pull)");
    bench.fail(&export("other.tern"), 78, "quantize.hard_steps");

    write(&|text| text.replace("hard_steps = 5", "hard_steps = 4"));
    bench.draw("changed");
    let annotations = bench.text("changed/annotations.json");
    bench.write(
        "changed/annotations.json",
        annotations.replacen("14,30", "14,29", 1),
    );
    let warning = "warning: changed: the hard stage began with other pictures or annotations";
    for (data, is_changed) in [("data", false), ("changed", true)] {
        let (_, told) = bench.succeed(&quantize.replace("data data", &format!("data {data}")));
        assert_eq!(told.contains(warning), is_changed, "{told}");
        assert_eq!(
            told.matches("it had ended already, nothing was done")
                .count(),
            2,
            "{told}"
        );
    }
    bench.succeed(&export("own.tern"));
    bench.fail(&export("no/folder/own.tern"), 73, "no/folder/own.tern");
}

#[test]
fn work_goes_on_where_nobody_reads() {
    let bench = tiny();
    for _ in 0..5 {
        let mut child = bench
            .command("keygen another")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert!(child.wait().unwrap().success());
        for ending in ["secret", "pub"] {
            std::fs::remove_file(bench.path(&format!("another.{ending}"))).unwrap();
        }
    }
}

#[test]
fn a_run_may_begin_with_what_another_learned() {
    let bench = tiny();
    stage(&bench, "train", "run", "");
    stage(&bench, "quantize", "run", "");
    bench.succeed(&format!("{} --float learned", export("default.tern")));

    let config = |change: &dyn Fn(&str) -> String| {
        let start = TINY.replace("[network]", "start = \"learned\"\n[network]");
        bench.write("next.toml", change(&start));
    };
    let train = |run: &str| format!("train --config next.toml --data data --run {run}");
    config(&|text| text.replacen("steps = 6", "steps = 0", 1));
    bench.succeed(&train("same"));
    let (first, same) = (learned(&bench, "run"), learned(&bench, "same"));
    for (a, b) in first.0.iter().zip(&same.0) {
        assert_eq!(a.value, b.value, "{}", a.name);
    }

    config(&|text| {
        let two = "classes = [\"person\", \"dog\"]\nstart";
        text.replacen("start", two, 1)
            .replacen("steps = 6", "steps = 0", 1)
    });
    let text = bench.text("data/annotations.json");
    let mut annotations: serde_json::Value = serde_json::from_str(&text).unwrap();
    let categories = annotations["categories"].as_array_mut().unwrap();
    categories.push(serde_json::json!({ "id": 2, "name": "dog" }));
    bench.write("data/annotations.json", annotations.to_string());
    let (_, told) = bench.succeed(&train("two"));
    let anew = "head8, head16, head32 begin anew";
    assert!(told.contains(anew), "{told}");

    config(&|text| text.replace("stage16 = [6]", "stage16 = [7]"));
    bench.fail(&train("wider"), 65, "average/stage16_0.weight");
    config(&|text| text.replace("\"learned\"", "\"nothing\""));
    bench.fail(&train("none"), 66, "nothing");
    bench.write("nothing", "no checkpoint");
    bench.fail(&train("none"), 65, "nothing");
}

#[test]
fn a_bundle_may_be_begun_with() {
    let bench = tiny();
    stage(&bench, "train", "run", "");
    stage(&bench, "quantize", "run", "");
    bench.succeed(&export("first.tern"));
    let start = "start = \"first.tern\"\nstart_key = \"key.pub\"\n";
    let config = |start: &str, change: &dyn Fn(&str) -> String| {
        let text = TINY.replace("[network]", &format!("{start}[network]"));
        bench.write("next.toml", change(&text));
    };
    let call = |task: &str, run: &str| format!("{task} --config next.toml --data data --run {run}");
    // Not trained further, and rounded at once: what began as levels comes back to them.
    let rounded = |text: &str| {
        text.replacen("steps = 6", "steps = 0", 1)
            .replace("soft_steps = 3", "soft_steps = 0")
            .replace("hard_steps = 5", "hard_steps = 1")
            .replace("hard_rate = 0.001", "hard_rate = 0.0")
            .replace("groups = [0.0, 0.5, 1.0]", "groups = [1.0]")
    };
    config(start, &rounded);
    bench.succeed(&call("train", "next"));
    bench.succeed(&call("quantize", "next"));
    bench.succeed("export --config next.toml --run next --key key.secret --out second.tern");
    let weights = |name: &str| {
        let key = files::public_key(&bench.path("key.pub")).unwrap();
        let opened = files::open(&bench.path(name), [key]).unwrap();
        let convs = opened
            .model
            .layers()
            .iter()
            .filter_map(|layer| match layer {
                ModelLayer::Conv(conv) => Some((conv.name.clone(), conv.trits.clone())),
                _ => None,
            });
        convs.collect::<Vec<_>>()
    };
    assert_eq!(weights("first.tern"), weights("second.tern"));
    bench.succeed("card --bundle second.tern --key key.pub --out .");
    let page = bench.text("tiny.md");
    assert!(
        page.contains("It began with `tiny` version 3 (SHA-256"),
        "{page}"
    );
    // No threshold parts weights of one size: their levels stay, and not all become zero.
    config(start, &|text| {
        rounded(text).replace("[augment]", "levels = \"frozen\"\nzeros = 0.9\n[augment]")
    });
    bench.succeed(&call("train", "sparse"));
    bench.succeed(&call("quantize", "sparse"));
    bench.succeed("export --config next.toml --run sparse --key key.secret --out third.tern");
    let is_empty = |(_, trits): &(String, Vec<Trit>)| trits.iter().all(|trit| *trit == Trit::Zero);
    assert!(!weights("third.tern").iter().any(is_empty));

    config("", &|text| format!("{text}\nstart = \"first.tern\"\n"));
    bench.fail(&call("train", "behind"), 78, "start stands in [card]");

    config(start, &|text| {
        text.replace("stage16 = [6]", "stage16 = [7]")
    });
    bench.fail(
        &call("train", "wider"),
        65,
        "first.tern: its layer stage16_0",
    );
    config("start = \"first.tern\"\n", &str::to_owned);
    bench.fail(&call("train", "unchecked"), 66, "default.pub");
    config("start_key = \"key.pub\"\n", &str::to_owned);
    bench.fail(&call("train", "nothing"), 78, "start_key");
}

#[test]
fn an_exported_bundle_is_inspected_and_evaluated() {
    let bench = tiny();
    stage(&bench, "train", "run", "");
    bench.fail(&export("early.tern"), 66, "hard.safetensors");
    // All weights are fixed then, but one step is to come.
    stage(&bench, "quantize", "run", "--max-steps 7");
    assert!(state(&bench, "run").quantizer.is_ternary());
    bench.fail(&export("early.tern"), 65, "4 of 5 steps");
    bench.succeed(&format!("{} --unfinished", export("early.tern")));
    stage(&bench, "quantize", "run", "");
    let call = format!("{} --evaluate data --onnx own.onnx", export("default.tern"));
    bench.succeed(&call);
    bench.succeed("onnx --bundle default.tern --key key.pub --out later.onnx");
    let onnx = |name: &str| std::fs::read(bench.path(name)).unwrap();
    assert_eq!(onnx("own.onnx"), onnx("later.onnx"));

    let (text, _) = bench.succeed("inspect --bundle default.tern --key key.pub");
    for part in [
        "tiny version 3",
        "about: what the test draws",
        "thresholds: score 0.3, IoU 0.5",
        "signature good",
        "golden vectors match",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let bytes = std::fs::metadata(bench.path("default.tern")).unwrap().len();
    assert!(text.contains(&format!("{bytes} bytes, ")), "{text}");
    assert_zeros_are_told(&bench, &text);
    assert_layers_are_told(&bench);
    let call = "evaluate --bundle default.tern --key key.pub --data data";
    let more = "--json --coco coco --failures wrong.jpg";
    let (text, told) = bench.succeed(&format!("{call} {more}"));
    assert!(
        told.contains("wrong.jpg: the 6 worst of 6 pictures"),
        "{told}"
    );
    assert!(told.contains("images/0.png: 1 missed"), "{told}");
    let drawn = image::open(bench.path("wrong.jpg")).unwrap();
    assert_eq!(drawn.width(), 3 * 388 + 4);
    bench.fail(&format!("{call} --failures wrong.txt"), 64, ".png or .jpg");
    bench.succeed(&format!("{call} --curve curve.svg"));
    let svg = bench.text("curve.svg");
    assert!(
        svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
        "{svg}"
    );
    bench.fail(&format!("{call} --curve no/curve.svg"), 73, "no/curve.svg");
    bench.fail(&format!("{call} --coco key.pub/coco"), 73, "key.pub/coco");
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
    let model = files::model_from(&bytes, key).unwrap();
    assert_eq!(model.card()["evaluation"]["ternary"], scores);
    assert_eq!(model.card()["training"]["stages"]["float"]["steps"], 6);
    assert_levels_are_in_the_bundle(&state(&bench, "run"), &model);
    assert_resized(&bench, &model);
    assert_a_reader_may_leave(&bench);
}

/// Whether a layer's part of zeros is that of the checkpoint.
fn assert_zeros_are_told(bench: &Bench, inspected: &str) {
    let state = state(bench, "run");
    for (name, trits) in state
        .average
        .0
        .iter()
        .filter(|p| p.role == Role::Weight)
        .map(|p| p.name.trim_end_matches(".weight"))
        .zip(state.quantizer.trits(&state.average))
    {
        let zeros = trits.iter().filter(|t| **t as i8 == 0).count();
        let zeros = format!("{:.1}%", 100.0 * zeros as f64 / trits.len() as f64);
        let line = inspected
            .lines()
            .find(|l| l.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no layer {name}: {inspected}"));
        assert!(line.ends_with(&zeros), "{name}: {zeros} in {line}");
    }
}

/// Whether the run tells of every layer at the end of both stages.
fn assert_layers_are_told(bench: &Bench) {
    let table = bench.text("run/layers.csv");
    let layers = state(bench, "run").quantizer.layers.len();
    for (stage, near) in [("soft,3,", 0.0..=1.0), ("hard,5,", 1.0..=1.0)] {
        let lines: Vec<&str> = table.lines().filter(|l| l.starts_with(stage)).collect();
        assert_eq!(lines.len(), layers, "{stage}: {table}");
        for line in lines {
            let value: f64 = line.split(',').nth(3).unwrap().parse().unwrap();
            assert!(near.contains(&value), "{line}");
        }
    }
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
    let after = files::model_from(&bytes, key).unwrap();
    assert_eq!(after.id().name, "wide");
    assert_eq!(after.thresholds().score, 0.75);
    assert_eq!((after.input().width, after.input().height), (128, 64));
    assert_ne!(after.golden(), before.golden());
    assert_eq!(after.card()["evaluation"], serde_json::Value::Null);
    assert_measured_as_signed(bench, before);
    let trits = |model: &ternwatch_bundle::Model| {
        let convs = model.layers().iter().filter_map(|layer| match layer {
            ModelLayer::Conv(conv) => Some(conv.trits.clone()),
            _ => None,
        });
        convs.collect::<Vec<_>>()
    };
    assert_eq!(trits(&after), trits(before));
}

/// Whether a card's figures are those of the default threshold that it stands beside.
fn assert_measured_as_signed(bench: &Bench, before: &ternwatch_bundle::Model) {
    let same = before.thresholds().score;
    let key = ternwatch_bundle::PublicKey::from_text(&bench.text("key.pub")).unwrap();
    for (score, is_measured) in [(same, true), (0.75, false)] {
        let (_, told) = bench.succeed(&format!(
            "sign --bundle default.tern --key key.pub --with key.secret --out other.tern --score {score}"
        ));
        assert_eq!(
            told.contains("measured at another threshold"),
            !is_measured,
            "{told}"
        );
        let bytes = std::fs::read(bench.path("other.tern")).unwrap();
        let after = files::model_from(&bytes, key.clone()).unwrap();
        assert_eq!(after.thresholds().score, score);
        assert_eq!(after.card().get("evaluation").is_some(), is_measured);
    }
}

/// Whether the program ends in silence when nobody reads on.
fn assert_a_reader_may_leave(bench: &Bench) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = bench
        .command("inspect --bundle default.tern --key key.pub")
        .stdout(writer)
        .stderr(Stdio::piped())
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
    bench.write("half.pub", "another's");
    bench.fail("keygen half", 73, "half.pub");
    assert!(!bench.path("half.secret").exists());
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
        "0.png: annotation 0, [400.0, 8.0, 414.0, 38.0], lies outside of its 96 x 72 pixels",
    );
    let picture = bench.path("far/images/0.png");
    std::fs::rename(&picture, bench.path("away.png")).unwrap();
    bench.fail(&train("tiny.toml", "far"), 66, "images/0.png");
    bench.write("far/images/0.png", "no picture");
    bench.fail(&train("tiny.toml", "far"), 65, "images/0.png");
    std::fs::rename(bench.path("away.png"), &picture).unwrap();
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
    bench.write("binary.pub", [0xFF; 32]);
    bench.fail(&inspect("binary.pub"), 65, "binary.pub");

    // Another recipe must not go on from this one's checkpoints.
    stage(&bench, "train", "run", "--max-steps 1");
    bench.write("other.toml", TINY.replace("seed = 5", "seed = 6"));
    bench.fail(&train("other.toml", "data"), 78, "another configuration");
    assert_bad_checkpoints_are_named(&bench, &train("tiny.toml", "data"));
}

/// Whether a checkpoint that was cut off, and one whose network computes no numbers, are refused by name and stay what they are.
fn assert_bad_checkpoints_are_named(bench: &Bench, train: &str) {
    let path = bench.path("run/float.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for len in [0, 7, 900, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        bench.fail(train, 65, "run/float.safetensors cannot be used");
    }
    std::fs::write(&path, &whole).unwrap();
    let config = Config::read(&bench.path("tiny.toml")).unwrap();
    let network = config.network(&bench.path("run")).unwrap();
    let mut state = State::read(&path, &network, &config.recipe()).unwrap();
    for p in &mut state.parameters.0 {
        p.value.fill(3e38);
    }
    state.write(&path).unwrap();
    let huge = std::fs::read(&path).unwrap();
    bench.fail(
        train,
        65,
        "in step 1 of the float stage; run/float.safetensors",
    );
    assert_eq!(std::fs::read(&path).unwrap(), huge);
}

/// The same photographs as COCO, Pascal VOC and YOLO describe them, of two classes, and a model learned from each.
#[test]
fn every_layout_of_annotations_trains_the_same_model() {
    let bench = tiny();
    let mut coco: serde_json::Value =
        serde_json::from_str(&bench.text("data/annotations.json")).unwrap();
    coco["categories"] =
        serde_json::json!([{ "id": 1, "name": "person" }, { "id": 2, "name": "dog" }]);
    for (index, annotation) in coco["annotations"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .enumerate()
    {
        annotation["category_id"] = (1 + index % 2).into();
    }
    for image in coco["images"].as_array_mut().unwrap() {
        image["source"] = "all".into();
    }
    bench.write("data/annotations.json", coco.to_string());
    for folder in [
        "voc/Annotations",
        "voc/JPEGImages",
        "yolo/labels",
        "yolo/images",
    ] {
        std::fs::create_dir_all(bench.path(folder)).unwrap();
    }
    bench.write("yolo/classes.txt", "dog\nperson\n");
    for (index, annotation) in coco["annotations"].as_array().unwrap().iter().enumerate() {
        let picture = std::fs::read(bench.path(&format!("data/images/{index}.png"))).unwrap();
        bench.write(&format!("voc/JPEGImages/{index}.png"), &picture);
        bench.write(&format!("yolo/images/{index}.png"), &picture);
        let sides: Vec<f64> = serde_json::from_value(annotation["bbox"].clone()).unwrap();
        let [x, y, w, h] = sides[..].try_into().unwrap();
        let class = ["person", "dog"][index % 2];
        let (right, bottom) = (x + w, y + h);
        let (left, top) = (x + 1.0, y + 1.0);
        let xml = format!(
            "<annotation><folder>all</folder><filename>{index}.png</filename><object><name>{class}</name><bndbox><xmin>{left}</xmin>\
             <ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>"
        );
        bench.write(&format!("voc/Annotations/{index}.xml"), xml);
        let (cx, cy) = ((x + w / 2.0) / 96.0, (y + h / 2.0) / 72.0);
        let line = format!("{} {cx} {cy} {} {}\n", 1 - index % 2, w / 96.0, h / 72.0);
        bench.write(&format!("yolo/labels/{index}.txt"), line);
    }
    bench.write(
        "tiny.toml",
        TINY.replace("[network]", "classes = [\"person\", \"dog\"]\n[network]"),
    );
    for layout in ["data", "voc", "yolo"] {
        for command in ["train", "quantize"] {
            let call = format!("{command} --config tiny.toml --data {layout} --run {layout}-run");
            bench.succeed(&call);
        }
    }
    let [coco, voc, yolo] = ["data-run", "voc-run", "yolo-run"].map(|run| state(&bench, run));
    for ((a, b), c) in coco
        .average
        .0
        .iter()
        .zip(&voc.average.0)
        .zip(&yolo.average.0)
    {
        assert_eq!(a.value, b.value, "{}: Pascal VOC", a.name);
        // Parts of the picture's size are rounded.
        let near = a
            .value
            .iter()
            .zip(&c.value)
            .all(|(a, c)| (a - c).abs() <= 1e-3 * a.abs().max(1.0));
        assert!(near, "{}: YOLO", a.name);
    }
    bench.write(
        "tiny.toml",
        TINY.replace("[network]", "classes = [\"persn\"]\n[network]"),
    );
    bench.fail(
        "train --config tiny.toml --data voc --run x",
        65,
        "no object is a \"persn\"; there are: dog, person",
    );
    bench.fail(
        "train --config tiny.toml --data yolo --run x",
        65,
        "no class \"persn\"",
    );
}

#[test]
fn a_run_that_was_killed_ends_like_an_uninterrupted_one() {
    let bench = Bench::new();
    let long = TINY
        .replace("steps = 6", "steps = 110")
        .replace("hard_steps = 5", "hard_steps = 110");
    let taught = long.replace(
        "[augment]",
        "distillation = 1.0\nlevels = \"refit\"\n[augment]",
    );
    bench.write("tiny.toml", taught);
    for (command, last) in [("train", "float"), ("quantize", "hard")] {
        stage(&bench, command, "straight", "");
        let call = format!("{command} --config tiny.toml --data data --run killed");
        // Checkpoints are written once a minute: what a kill loses is done again, from the same samples.
        stage(&bench, command, "killed", "--max-steps 9");
        for told in [50, 100] {
            let mut child = bench.command(&call).stderr(Stdio::null()).spawn().unwrap();
            let line = format!("{last},{told},");
            while !bench.text("killed/log.csv").contains(&line) {
                assert!(child.try_wait().unwrap().is_none(), "it ended too early");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().code(), None, "it was still at work");
        }
        bench.succeed(&call);
    }
    let (a, b) = (state(&bench, "straight"), state(&bench, "killed"));
    for (a, b) in a.average.0.iter().zip(&b.average.0) {
        assert_eq!(a.value, b.value, "{}", a.name);
    }
    let steps = |run: &str| -> Vec<String> {
        let log = bench.text(&format!("{run}/log.csv"));
        let named = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join(" ");
        log.lines().map(named).collect()
    };
    assert_eq!(steps("killed"), steps("straight"), "no step is told twice");
}
