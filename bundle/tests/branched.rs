//! The layers that networks trained elsewhere have: what a signed model may say of them, and what it hears when it says
//! something else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use ternwatch_bundle::manifest::{Layer, Manifest, PoolMode};
use ternwatch_bundle::model::{ConvLayer, Epilogue, ModelLayer, Source};
use ternwatch_bundle::testing::{
    branched_bundle, branched_draft, load, sign_manifest, small_draft, small_key,
};
use ternwatch_bundle::write::ParameterWriter;
use ternwatch_bundle::{Model, TrustedKeys, UnverifiedBundle};
use ternwatch_kernels::Trit;

/// The model, or the message of whichever step refused it.
fn try_load(manifest: &Value, parameters: &[u8]) -> Result<Model, String> {
    let file = sign_manifest(manifest.to_string().as_bytes(), parameters, &small_key()).unwrap();
    let keys = TrustedKeys::from_iter([small_key().public_key()]);
    let bundle = UnverifiedBundle::from_bytes(&file).unwrap().verify(&keys);
    let bundle = bundle.map_err(|error| error.to_string())?;
    Model::load(&bundle).map_err(|error| error.to_string())
}

/// The message when one value of the branched model is another one.
fn refusal(pointer: &str, value: Value) -> String {
    let draft = branched_draft(0);
    let mut manifest = serde_json::to_value(&draft.manifest).unwrap();
    *manifest.pointer_mut(pointer).expect(pointer) = value;
    try_load(&manifest, &draft.parameters).expect_err(pointer)
}

/// The message of a model of these layers, which have no parameters and read an image of 8 x 8 pixels.
fn refusal_of(layers: Value) -> String {
    let mut manifest = serde_json::to_value(&small_draft(0).manifest).unwrap();
    manifest["input"]["width"] = json!(8);
    manifest["input"]["height"] = json!(8);
    manifest["layers"] = layers;
    try_load(&manifest, &[]).unwrap_err()
}

fn conv(layer: &ModelLayer) -> &ConvLayer {
    match layer {
        ModelLayer::Conv(conv) => conv,
        other => panic!("{other:?} is no convolution"),
    }
}

#[test]
fn a_branched_model_is_what_the_draft_says() {
    let (file, key) = branched_bundle(3);
    let model = load(&file, &key);
    let shapes: Vec<_> = model
        .layers()
        .iter()
        .map(|layer| (layer.name(), layer.output_shape()))
        .map(|(name, s)| (name, [s.channels, s.height, s.width]))
        .collect();
    assert_eq!(
        shapes,
        [
            ("stem", [6, 14, 18]),
            ("mean4", [6, 7, 9]),
            ("deep4", [6, 7, 9]),
            ("mix4", [6, 7, 9]),
            ("sum4", [6, 7, 9]),
            ("scale4", [6, 7, 9]),
            ("deeper4", [6, 7, 9]),
            ("around4", [6, 7, 9]),
            ("all4", [18, 7, 9]),
            ("down8", [18, 4, 5]),
            ("double8", [18, 4, 5]),
            ("corner8", [18, 4, 5]),
            ("merge4", [18, 7, 9]),
            ("head4", [6, 7, 9]),
            ("half8", [18, 4, 5]),
            ("sum8", [18, 4, 5]),
            ("head8", [6, 4, 5]),
        ]
    );
    let layer = |index: usize| &model.layers()[index];
    let sources = [0, 2, 4, 8, 9, 10, 12].map(|index| layer(index).sources());
    let reads =
        |indices: &[usize]| -> Vec<_> { indices.iter().copied().map(Source::Layer).collect() };
    let expected = [
        vec![Source::Image],
        reads(&[0]),
        reads(&[1, 3]),
        reads(&[4, 7, 6]),
        reads(&[8]),
        reads(&[9, 9]),
        reads(&[8, 11]),
    ];
    assert_eq!(sources, expected);
    let trits =
        [0, 2, 3, 5, 6].map(|index| (conv(layer(index)).groups, conv(layer(index)).trits.len()));
    assert_eq!(trits, [(1, 162), (6, 54), (1, 36), (6, 6), (6, 54)]);
    assert!(matches!(layer(15), ModelLayer::Add(add) if add.offset == 80));
    assert!(matches!(layer(1), ModelLayer::Pool(pool)
        if pool.mode == PoolMode::Mean && (pool.kernel, pool.stride) == (2, 2) && pool.input_shape.height == 14));
    let macs = 162 * 14 * 18 + (54 + 36 + 6 + 54 + 108) * 7 * 9 + 972 * 4 * 5;
    assert_eq!(
        model.macs(),
        macs,
        "a depthwise weight runs over one plane only"
    );
}

#[test]
fn names_and_inputs_of_a_manifests_layers_are_those_of_the_model() {
    let draft = branched_draft(0);
    let model = load(&branched_bundle(0).0, &small_key().public_key());
    let name = |source: &Source| match source {
        Source::Image => "image",
        Source::Layer(index) => model.layers()[*index].name(),
    };
    for (declared, loaded) in draft.manifest.layers.iter().zip(model.layers()) {
        assert_eq!(declared.name(), loaded.name());
        let sources = loaded.sources();
        assert_eq!(
            declared.inputs(),
            sources.iter().map(name).collect::<Vec<_>>()
        );
    }
}

/// What an old reader would refuse is written only where it is needed, so that it goes on reading the other models.
#[test]
fn keys_that_came_later_are_left_out_where_they_say_nothing() {
    let manifest = branched_draft(0).manifest;
    let text = serde_json::to_value(&manifest).unwrap();
    let layer = |index: usize| &text["layers"][index];
    assert_eq!(layer(2)["groups"], json!(6));
    assert_eq!(layer(0).get("groups"), None);
    assert_eq!(layer(15)["offset"], json!(80));
    assert_eq!(layer(4).get("offset"), None);
    assert_eq!(serde_json::from_value::<Manifest>(text).unwrap(), manifest);
    let small = serde_json::to_string(&small_draft(0).manifest).unwrap();
    assert!(!small.contains("groups"), "{small}");
}

#[test]
fn depthwise_parameters_are_read_as_they_were_written() {
    let trits: Vec<Trit> = (0..27)
        .map(|i| [Trit::Minus, Trit::Plus, Trit::Zero][i * i % 3])
        .collect();
    let mut writer = ParameterWriter::new();
    writer.relu_conv(&[Trit::Zero; 5], &[1], &[2]);
    let offset = writer.relu_conv(&trits, &[-5, 0, i16::MAX], &[0, 7, i16::MAX]);
    let head = writer.linear_conv(&trits[..18], &[0; 6], &[1.0; 6]);
    let mut manifest = serde_json::to_value(&small_draft(0).manifest).unwrap();
    manifest["layers"] = json!([
        {"op": "conv", "name": "deep", "input": "image", "in_channels": 3, "out_channels": 3, "kernel": 3, "stride": 2,
         "groups": 3, "activation": "relu", "pre_shift": 0, "offset": offset},
        {"op": "conv", "name": "head", "input": "deep", "in_channels": 3, "out_channels": 6, "kernel": 1, "stride": 1,
         "groups": 1, "activation": "linear", "pre_shift": 0, "offset": head},
    ]);
    manifest["heads"] = json!([{"layer": "head", "stride": 2}]);
    let parameters = writer.finish();
    let model = try_load(&manifest, &parameters).unwrap();
    let deep = conv(&model.layers()[0]);
    assert_eq!(
        (&deep.trits, deep.bias.as_slice()),
        (&trits, [-5, 0, i16::MAX].as_slice())
    );
    assert!(
        matches!(&deep.epilogue, Epilogue::Relu { multiplier, pre_shift: 0 } if multiplier == &[0, 7, i16::MAX])
    );
    assert_eq!(model.layers()[0].macs(), 27 * 14 * 18);
    manifest["layers"][0]["offset"] = json!(parameters.len() - 10);
    let found = try_load(&manifest, &parameters).unwrap_err();
    assert!(
        found.starts_with("layer \"deep\": its 18 bytes of parameters at offset "),
        "{found}"
    );
}

#[test]
fn groups_are_one_or_all() {
    for (pointer, value, message) in [
        (
            "/layers/2/groups",
            json!(0),
            "layer \"deep4\": groups is 0, neither 1 nor the number of channels on both sides, 6 and 6",
        ),
        (
            "/layers/2/groups",
            json!(2),
            "layer \"deep4\": groups is 2, neither",
        ),
        (
            "/layers/2/groups",
            json!(u32::MAX),
            "layer \"deep4\": groups is 4294967295, neither",
        ),
        (
            "/layers/2/out_channels",
            json!(12),
            "layer \"deep4\": groups is 6, neither 1 nor the number of channels on both sides, 6 and 12",
        ),
        (
            "/layers/2/in_channels",
            json!(12),
            "layer \"deep4\": in_channels is 12, but \"stem\" has 6 channels",
        ),
        (
            "/layers/2/activation",
            json!("linear"),
            "layer \"deep4\": is depthwise and linear, which a head cannot be",
        ),
        (
            "/layers/2/kernel",
            json!(5),
            "layer \"deep4\": kernel is 5, not 1 or 3",
        ),
    ] {
        let found = refusal(pointer, value);
        assert!(found.starts_with(message), "{pointer}: {found}");
    }
    let draft = branched_draft(0);
    let mut manifest = serde_json::to_value(&draft.manifest).unwrap();
    for (layer, groups) in [("stem", 3), ("head4", 18), ("head4", 6)] {
        let index = draft
            .manifest
            .layers
            .iter()
            .position(|other| other.name() == layer)
            .unwrap();
        manifest["layers"][index]["groups"] = json!(groups);
        let found = try_load(&manifest, &draft.parameters).unwrap_err();
        assert!(
            found.starts_with(&format!("layer \"{layer}\": groups is {groups}, neither")),
            "{found}"
        );
        manifest["layers"][index]["groups"] = json!(1);
    }
    try_load(&manifest, &draft.parameters).expect("one group is what they had");
}

#[test]
fn what_is_joined_has_to_fit() {
    for (pointer, value, message) in [
        (
            "/layers/10/offset",
            json!(255),
            "layer \"double8\": offset is 255, more than 254",
        ),
        (
            "/layers/4/inputs/1",
            json!("stem"),
            "layer \"sum4\": \"stem\" is TensorShape",
        ),
        (
            "/layers/4/inputs/0",
            json!("stem"),
            "layer \"sum4\": \"mix4\" is TensorShape",
        ),
        (
            "/layers/4/inputs/0",
            json!("sum4"),
            "layer \"sum4\": reads \"sum4\", which is neither \"image\" nor a layer before it",
        ),
        (
            "/layers/4/inputs/1",
            json!("nose"),
            "layer \"sum4\": reads \"nose\", which is neither",
        ),
        (
            "/layers/15/inputs/1",
            json!("head4"),
            "layer \"sum8\": reads \"head4\", whose output is linear",
        ),
        (
            "/layers/15/inputs/1",
            json!("mean4"),
            "layer \"sum8\": \"mean4\" is TensorShape",
        ),
        (
            "/layers/8/inputs",
            json!([]),
            "layer \"all4\": joins 0 tensors, not 2 to 16",
        ),
        (
            "/layers/8/inputs",
            json!(["sum4"]),
            "layer \"all4\": joins 1 tensors, not 2 to 16",
        ),
        (
            "/layers/8/inputs",
            json!(vec!["sum4"; 17]),
            "layer \"all4\": joins 17 tensors, not 2 to 16",
        ),
        (
            "/layers/8/inputs/2",
            json!("stem"),
            "layer \"all4\": \"stem\" is TensorShape",
        ),
        (
            "/layers/8/inputs/0",
            json!("nose"),
            "layer \"all4\": reads \"nose\", which is neither",
        ),
        (
            "/layers/8/inputs/0",
            json!("down8"),
            "layer \"all4\": reads \"down8\", which is neither",
        ),
        // Six channels fewer than the layers after it expect.
        (
            "/layers/8/inputs",
            json!(["sum4", "around4"]),
            "layer \"head4\": in_channels is 18, but \"merge4\" has 12 channels",
        ),
        (
            "/layers/12/coarse",
            json!("deeper4"),
            "layer \"merge4\": coarse \"deeper4\" is",
        ),
        (
            "/layers/16/input",
            json!("double8"),
            "layer \"sum8\": no layer reads its output and it is no head",
        ),
    ] {
        let found = refusal(pointer, value);
        assert!(found.starts_with(message), "{pointer}: {found}");
    }
}

#[test]
fn a_pool_has_one_of_few_windows() {
    for (pointer, value, message) in [
        (
            "/layers/7/kernel",
            json!(0),
            "layer \"around4\": kernel is 0, not one of [2, 3, 5], those of a Max pool",
        ),
        (
            "/layers/7/kernel",
            json!(4),
            "layer \"around4\": kernel is 4, not one of",
        ),
        (
            "/layers/7/kernel",
            json!(u32::MAX),
            "layer \"around4\": kernel is 4294967295, not one of",
        ),
        (
            "/layers/7/stride",
            json!(0),
            "layer \"around4\": stride is 0, not one of [1, 2], those of a Max pool",
        ),
        (
            "/layers/7/stride",
            json!(3),
            "layer \"around4\": stride is 3, not one of",
        ),
        (
            "/layers/1/kernel",
            json!(3),
            "layer \"mean4\": kernel is 3, not one of [2], those of a Mean pool",
        ),
        (
            "/layers/1/stride",
            json!(1),
            "layer \"mean4\": stride is 1, not one of [2], those of a Mean pool",
        ),
        (
            "/layers/14/mode",
            json!("mean"),
            "layer \"half8\": takes the mean of 2 x 2 values, but \"merge4\" is TensorShape",
        ),
        (
            "/layers/14/input",
            json!("head4"),
            "layer \"half8\": reads \"head4\", whose output is linear",
        ),
        (
            "/layers/14/input",
            json!("half8"),
            "layer \"half8\": reads \"half8\", which is neither",
        ),
    ] {
        let found = refusal(pointer, value);
        assert!(found.starts_with(message), "{pointer}: {found}");
    }
}

/// Halves an image of 8 x 8 pixels until it is one pixel, and once more.
fn halves() -> Vec<Value> {
    let pool = |name: &str, input: &str| json!({"op": "pool", "name": name, "input": input, "mode": "max", "kernel": 2, "stride": 2});
    vec![
        pool("p2", "image"),
        pool("p4", "p2"),
        pool("p8", "p4"),
        pool("p16", "p8"),
    ]
}

#[test]
fn tensors_of_one_size_at_two_strides_are_not_joined() {
    for (op, found) in [("add", "not as"), ("concat", "which does not fit to")] {
        let mut layers = halves();
        layers.push(json!({"op": op, "name": "both", "inputs": ["p8", "p16"]}));
        let expected = format!(
            "layer \"both\": \"p16\" is TensorShape {{ channels: 3, height: 1, width: 1 }} at stride 16, {found} \"p8\", \
             TensorShape {{ channels: 3, height: 1, width: 1 }} at stride 8"
        );
        assert_eq!(refusal_of(layers.into()), expected);
    }
}

#[test]
fn joined_layers_that_ask_too_much_are_refused() {
    // 3 planes, 48, 768, 1536.
    let concat = |name: &str, input: &str, count: usize| json!({"op": "concat", "name": name, "inputs": vec![input; count]});
    let found = refusal_of(json!([
        concat("a", "image", 16),
        concat("b", "a", 16),
        concat("c", "b", 2)
    ]));
    assert_eq!(found, "layer \"c\": gives 1536 channels, not 1 to 1024");

    // 12 MiB a layer, without a byte of parameters.
    let mut manifest = serde_json::to_value(&small_draft(0).manifest).unwrap();
    manifest["input"]["width"] = json!(2048);
    manifest["input"]["height"] = json!(2048);
    let chain = |op: &dyn Fn(&str) -> Value| -> Value {
        let layer = |index: usize| {
            let input = if index == 0 {
                "image".into()
            } else {
                format!("l{}", index - 1)
            };
            let mut layer = op(&input);
            layer["name"] = json!(format!("l{index}"));
            layer
        };
        (0..100).map(layer).collect()
    };
    let pool = |input: &str| json!({"op": "pool", "input": input, "mode": "max", "kernel": 3, "stride": 1});
    let add = |input: &str| json!({"op": "add", "inputs": [input, input]});
    for op in [&pool as &dyn Fn(&str) -> Value, &add] {
        manifest["layers"] = chain(op);
        let found = try_load(&manifest, &[]).unwrap_err();
        assert_eq!(
            found,
            "layer \"l20\": with it the activations exceed 268435456 bytes"
        );
    }
}

#[test]
fn what_no_reader_knows_is_refused_by_name() {
    for (index, key, value, message) in [
        (4, "op", json!("subtract"), "unknown variant `subtract`"),
        (4, "scale", json!(2), "unknown field `scale`"),
        (7, "padding", json!(1), "unknown field `padding`"),
        (7, "mode", json!("median"), "unknown variant `median`"),
        (8, "axis", json!(1), "unknown field `axis`"),
        (2, "dilation", json!(2), "unknown field `dilation`"),
    ] {
        let draft = branched_draft(0);
        let mut manifest = serde_json::to_value(&draft.manifest).unwrap();
        manifest["layers"][index][key] = value;
        let found = try_load(&manifest, &draft.parameters).unwrap_err();
        assert!(found.contains(message), "{key}: {found}");
    }
    let one_input = json!({"op": "add", "name": "a", "inputs": ["image"]});
    assert!(
        serde_json::from_value::<Layer>(one_input).is_err(),
        "an addition has two inputs"
    );
}
