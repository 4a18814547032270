//! What a signed model may say, and what it hears when it says something else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use ternwatch_bundle::model::{Epilogue, ModelLayer, Source, TensorShape};
use ternwatch_bundle::testing::{load, sign_manifest, small_bundle, small_draft, small_key};
use ternwatch_bundle::{Model, ModelError, TrustedKeys, UnverifiedBundle};
use ternwatch_kernels::Trit;

fn try_load(manifest: &Value, parameters: &[u8]) -> Result<Model, ModelError> {
    let file = sign_manifest(manifest.to_string().as_bytes(), parameters, &small_key()).unwrap();
    let keys = TrustedKeys::from_iter([small_key().public_key()]);
    Model::load(
        &UnverifiedBundle::from_bytes(&file)
            .unwrap()
            .verify(&keys)
            .unwrap(),
    )
}

/// The message when one value of the small model is another one.
fn refusal(pointer: &str, value: Value) -> String {
    let draft = small_draft(0);
    let mut manifest = serde_json::to_value(&draft.manifest).unwrap();
    *manifest.pointer_mut(pointer).expect(pointer) = value;
    try_load(&manifest, &draft.parameters)
        .expect_err(pointer)
        .to_string()
}

#[test]
fn a_model_is_what_the_draft_says() {
    let draft = small_draft(7);
    let (file, key) = small_bundle(7);
    let model = load(&file, &key);
    assert_eq!(model.id(), &draft.manifest.model);
    assert_eq!(model.classes(), ["person", "bicycle"]);
    assert_eq!(
        model.input_shape(),
        TensorShape {
            channels: 3,
            height: 28,
            width: 36
        }
    );
    assert_eq!(model.layers().len(), 9);
    assert_eq!(
        model
            .heads()
            .iter()
            .map(|head| (head.layer, head.stride))
            .collect::<Vec<_>>(),
        [(7, 4), (8, 8)]
    );
    assert_eq!(model.card(), &json!({"purpose": "tests"}));
    let shapes: Vec<_> = model
        .layers()
        .iter()
        .map(|layer| layer.output_shape())
        .map(|s| [s.channels, s.height, s.width])
        .collect();
    assert_eq!(
        shapes,
        [
            [6, 14, 18],
            [6, 7, 9],
            [6, 7, 9],
            [8, 4, 5],
            [6, 4, 5],
            [6, 7, 9],
            [6, 7, 9],
            [6, 7, 9],
            [6, 4, 5]
        ]
    );
    let ModelLayer::AddUpsampled(merge) = &model.layers()[5] else {
        panic!("layer 5 is merge4")
    };
    assert_eq!(
        (merge.fine, merge.coarse),
        (Source::Layer(2), Source::Layer(4))
    );
    let ModelLayer::Conv(stem) = &model.layers()[0] else {
        panic!("layer 0 is a convolution")
    };
    assert_eq!(
        (stem.input, stem.kernel, stem.stride),
        (Source::Image, 3, 2)
    );
    assert!(
        matches!(&stem.epilogue, Epilogue::Relu { multiplier, pre_shift: 1 } if multiplier.len() == 6)
    );
    assert_eq!(model.layers()[0].macs(), 6 * 3 * 9 * 14 * 18);
    assert_eq!(
        model.macs(),
        model.layers().iter().map(ModelLayer::macs).sum::<u64>()
    );
}

#[test]
fn parameters_are_read_as_they_were_written() {
    use ternwatch_bundle::write::ParameterWriter;
    let trits: Vec<Trit> = (0..54)
        .map(|i| [Trit::Minus, Trit::Plus, Trit::Zero][i % 3])
        .collect();
    let mut writer = ParameterWriter::new();
    let first = writer.relu_conv(&trits, &[-5, i16::MAX], &[0, i16::MAX]);
    let second = writer.linear_conv(
        &trits[..10],
        &[i16::MIN, 2, 3, 4, 5],
        &[0.5, 1.0, 1e-9, 1e6, 3.25],
    );
    let mut manifest = serde_json::to_value(&small_draft(0).manifest).unwrap();
    manifest["classes"] = json!(["person"]);
    manifest["layers"] = json!([
        {"op": "conv", "name": "a", "input": "image", "in_channels": 3, "out_channels": 2, "kernel": 3, "stride": 2,
         "activation": "relu", "pre_shift": 7, "offset": first},
        {"op": "conv", "name": "b", "input": "a", "in_channels": 2, "out_channels": 5, "kernel": 1, "stride": 1,
         "activation": "linear", "pre_shift": 0, "offset": second},
    ]);
    manifest["heads"] = json!([{"layer": "b", "stride": 2}]);
    let model = try_load(&manifest, &writer.finish()).unwrap();
    let [ModelLayer::Conv(a), ModelLayer::Conv(b)] = model.layers() else {
        panic!("two convolutions")
    };
    assert_eq!(
        (a.trits.as_slice(), a.bias.as_slice()),
        (trits.as_slice(), [-5, i16::MAX].as_slice())
    );
    assert_eq!(
        a.epilogue,
        Epilogue::Relu {
            multiplier: vec![0, i16::MAX],
            pre_shift: 7
        }
    );
    assert_eq!(b.trits, trits[..10]);
    assert_eq!(b.bias, [i16::MIN, 2, 3, 4, 5]);
    assert_eq!(
        b.epilogue,
        Epilogue::Linear {
            scale: vec![0.5, 1.0, 1e-9, 1e6, 3.25]
        }
    );
}

#[test]
fn numbers_and_texts_out_of_bounds_are_named() {
    for (pointer, value, message) in [
        ("/model/name", json!(""), "manifest, model.name: "),
        (
            "/model/name",
            json!("Person"),
            "manifest, model.name: \"Person\" is not 1 to 64 of a-z, 0-9 and -",
        ),
        ("/model/name", json!("../../etc"), "manifest, model.name: "),
        (
            "/model/name",
            json!("a".repeat(65)),
            "manifest, model.name: ",
        ),
        (
            "/input/width",
            json!(0),
            "manifest, input.width: 0 is not 8 to 2048",
        ),
        (
            "/input/height",
            json!(2049),
            "manifest, input.height: 2049 is not 8 to 2048",
        ),
        (
            "/input/channels",
            json!(1),
            "manifest, input.channels: 1 is not 3 to 3",
        ),
        (
            "/input/fill",
            json!(128),
            "manifest, input.fill: 128 is not 0 to 127",
        ),
        (
            "/classes",
            json!([]),
            "manifest, classes: 0 is not 1 to 256",
        ),
        (
            "/classes",
            json!(["a", "a"]),
            "manifest, classes[1]: \"a\" is there twice",
        ),
        ("/classes", json!(["a", "b\n"]), "manifest, classes[1]: "),
        (
            "/thresholds/score",
            json!(1.5),
            "manifest, thresholds.score: 1.5 is not 0 to 1",
        ),
        (
            "/thresholds/iou",
            json!(-0.1),
            "manifest, thresholds.iou: -0.1 is not 0 to 1",
        ),
        ("/layers", json!([]), "manifest, layers: 0 is not 1 to 256"),
        ("/heads", json!([]), "manifest, heads: 0 is not 1 to 8"),
        (
            "/heads/0/layer",
            json!("image"),
            "manifest, heads: there is no layer \"image\"",
        ),
        (
            "/heads/0/layer",
            json!("nose"),
            "manifest, heads: there is no layer \"nose\"",
        ),
        (
            "/heads/0/layer",
            json!("stem"),
            "layer \"stem\": is a head, but not a linear convolution",
        ),
        (
            "/heads/0/layer",
            json!("head8"),
            "layer \"head8\": its head says stride 4, but it lies at stride 8",
        ),
        (
            "/heads/1",
            json!({"layer": "head4", "stride": 4}),
            "layer \"head4\": is a head twice",
        ),
        (
            "/classes",
            json!(["person"]),
            "layer \"head4\": has 6 channels, a head of 1 classes needs 5",
        ),
    ] {
        let found = refusal(pointer, value);
        assert!(found.starts_with(message), "{pointer}: {found}");
    }
}

#[test]
fn layers_that_cannot_run_are_named() {
    for (pointer, value, message) in [
        ("/layers/0/name", json!(""), "layer \"\": the name is not"),
        (
            "/layers/0/name",
            json!("a b"),
            "layer \"a b\": the name is not",
        ),
        (
            "/layers/0/name",
            json!("image"),
            "layer \"image\": a second tensor of this name",
        ),
        (
            "/layers/1/name",
            json!("stem"),
            "layer \"stem\": a second tensor of this name",
        ),
        (
            "/layers/0/input",
            json!("down4"),
            "layer \"stem\": reads \"down4\", which is neither \"image\" nor a layer before it",
        ),
        (
            "/layers/0/input",
            json!("stem"),
            "layer \"stem\": reads \"stem\", which is neither",
        ),
        (
            "/layers/8/input",
            json!("head4"),
            "layer \"head8\": reads \"head4\", whose output is linear",
        ),
        (
            "/layers/0/in_channels",
            json!(4),
            "layer \"stem\": in_channels is 4, but \"image\" has 3 channels",
        ),
        (
            "/layers/0/out_channels",
            json!(0),
            "layer \"stem\": out_channels is 0, not 1 to 1024",
        ),
        (
            "/layers/0/out_channels",
            json!(1025),
            "layer \"stem\": out_channels is 1025, not 1 to 1024",
        ),
        (
            "/layers/0/kernel",
            json!(5),
            "layer \"stem\": kernel is 5, not 1 or 3",
        ),
        (
            "/layers/0/stride",
            json!(3),
            "layer \"stem\": stride is 3, not 1 or 2",
        ),
        (
            "/layers/0/pre_shift",
            json!(8),
            "layer \"stem\": pre_shift is 8, more than 7",
        ),
        (
            "/layers/7/pre_shift",
            json!(1),
            "layer \"head4\": pre_shift is 1, more than 0",
        ),
        (
            "/layers/5/coarse",
            json!("body4"),
            "layer \"merge4\": coarse \"body4\" is",
        ),
        (
            "/layers/6/input",
            json!("down4"),
            "layer \"merge4\": no layer reads its output and it is no head",
        ),
    ] {
        let found = refusal(pointer, value);
        assert!(found.starts_with(message), "{pointer}: {found}");
    }
}

#[test]
fn parameters_out_of_the_section_are_refused() {
    for offset in [2_000u32, u32::MAX] {
        let found = refusal("/layers/8/offset", json!(offset));
        assert!(found.starts_with("layer \"head8\": its "), "{found}");
        assert!(
            found.contains(&format!(
                "of parameters at offset {offset} end after the section of "
            )),
            "{found}"
        );
    }
}

#[test]
fn damaged_parameters_are_named_by_layer_and_place() {
    let draft = small_draft(0);
    let manifest = serde_json::to_value(&draft.manifest).unwrap();
    let offset = |layer: usize| manifest["layers"][layer]["offset"].as_u64().unwrap() as usize;
    let refusal = |at: usize, bytes: &[u8]| {
        let mut parameters = draft.parameters.clone();
        parameters[at..at + bytes.len()].copy_from_slice(bytes);
        try_load(&manifest, &parameters)
            .expect_err("the parameters are damaged")
            .to_string()
    };
    let at = offset(1) + 3;
    assert_eq!(
        refusal(at, &[243]),
        format!(
            "layer \"down4\": the byte at offset {at} of the parameters is no code of five trits"
        )
    );
    // The stem has 162 trits: three of the last byte's five are its tail, and their digits are not zero here.
    let at = offset(0) + 32;
    assert!(refusal(at, &[242]).contains(&format!("offset {at}")));
    // Six multipliers of the stem follow 33 bytes of trits and 12 of bias.
    assert_eq!(
        refusal(offset(0) + 33 + 12 + 2 * 5, &(-3i16).to_le_bytes()),
        "layer \"stem\": the multiplier of channel 5 is -3, below 0"
    );
    // Six scales of head4 follow 8 bytes of trits and 12 of bias.
    for bad in [
        0.0,
        -1.0,
        f32::NAN,
        f32::INFINITY,
        1e-10,
        1e7,
        f32::MIN_POSITIVE / 2.0,
    ] {
        let found = refusal(offset(7) + 8 + 12 + 4 * 2, &bad.to_le_bytes());
        assert!(
            found.starts_with("layer \"head4\": the scale of channel 2 is "),
            "{found}"
        );
    }
}

#[test]
fn golden_vectors_have_the_right_form() {
    let golden = json!({"seed": 1, "width": 64, "height": 48, "input": "0".repeat(64),
        "layers": vec!["0123456789abcdef"; 9], "detections": "f".repeat(64)});
    let mut draft = small_draft(0);
    draft.manifest.golden = vec![serde_json::from_value(golden.clone()).unwrap()];
    let manifest = serde_json::to_value(&draft.manifest).unwrap();
    assert_eq!(
        try_load(&manifest, &draft.parameters).unwrap().golden(),
        draft.manifest.golden
    );
    for (key, value, message) in [
        ("width", json!(1), "1 is not 2 to 8192"),
        ("height", json!(8193), "8193 is not 2 to 8192"),
        (
            "layers",
            json!(["0123456789abcdef"]),
            "has 1 layer digests for 9 layers",
        ),
        (
            "layers",
            json!(vec!["0123456789ABCDEF"; 9]),
            "\"0123456789ABCDEF\" is not 16 lower-case hex digits",
        ),
        (
            "input",
            json!("00"),
            "\"00\" is not 64 lower-case hex digits",
        ),
        (
            "detections",
            json!("é".repeat(32)),
            "is not 64 lower-case hex digits",
        ),
    ] {
        let mut manifest = manifest.clone();
        manifest["golden"][0][key] = value;
        let found = try_load(&manifest, &draft.parameters)
            .unwrap_err()
            .to_string();
        assert!(
            found.starts_with("manifest, golden[0]: ") && found.contains(message),
            "{found}"
        );
    }
    let mut large = manifest.clone();
    large["golden"][0]["width"] = json!(8192);
    large["golden"][0]["height"] = json!(8192);
    assert!(
        try_load(&large, &draft.parameters)
            .unwrap_err()
            .to_string()
            .contains("pixels")
    );
    let mut many = manifest;
    many["golden"] = json!(vec![golden; 17]);
    assert!(
        try_load(&many, &draft.parameters)
            .unwrap_err()
            .to_string()
            .contains("17 is not 0 to 16")
    );
}

/// A chain of layers that share parameters, so that a small file asks for a lot.
fn chain(side: u32, channels: u32, layers: u32) -> (Value, Vec<u8>) {
    let mut manifest = serde_json::to_value(&small_draft(0).manifest).unwrap();
    manifest["input"]["width"] = json!(side);
    manifest["input"]["height"] = json!(side);
    let conv = |index: u32| {
        let input = if index == 0 {
            "image".to_owned()
        } else {
            format!("l{}", index - 1)
        };
        json!({"op": "conv", "name": format!("l{index}"), "input": input,
            "in_channels": if index == 0 { 3 } else { channels }, "out_channels": channels, "kernel": 3, "stride": 1,
            "activation": "relu", "pre_shift": 0, "offset": 0})
    };
    manifest["layers"] = (0..layers).map(conv).collect();
    let len = (channels * channels * 9).div_ceil(5) + 4 * channels;
    // 121 is five zeros as trits, and positive as a multiplier.
    (manifest, vec![121; len as usize])
}

#[test]
fn models_that_ask_too_much_are_refused_before_it_is_allocated() {
    for (side, channels, layers, message) in [
        (
            8,
            1024,
            3,
            "layer \"l2\": with it the model has more than 16777216 weights",
        ),
        (
            2048,
            64,
            2,
            "layer \"l0\": with it the activations exceed 268435456 bytes",
        ),
        (
            512,
            128,
            2,
            "layer \"l1\": with it a frame takes more than 17179869184 multiply-accumulates",
        ),
    ] {
        let (manifest, parameters) = chain(side, channels, layers);
        let found = try_load(&manifest, &parameters).unwrap_err().to_string();
        assert_eq!(found, message);
    }
}

#[test]
fn a_trit_can_be_damaged_on_purpose() {
    let (file, key) = small_bundle(0);
    let mut model = load(&file, &key);
    let before = model.clone().trits_mut(1).unwrap().to_vec();
    let trits = model.trits_mut(1).unwrap();
    trits[5] = if trits[5] == Trit::Plus {
        Trit::Minus
    } else {
        Trit::Plus
    };
    let ModelLayer::Conv(layer) = &model.layers()[1] else {
        panic!("layer 1 is a convolution")
    };
    assert_eq!(
        layer
            .trits
            .iter()
            .zip(&before)
            .filter(|(a, b)| a != b)
            .count(),
        1
    );
    assert!(model.trits_mut(5).is_none(), "merge4 has no weights");
    assert!(model.trits_mut(9).is_none(), "there are nine layers");
}
