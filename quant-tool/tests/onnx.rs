//! The ONNX files of the model that ships, run by another engine (tract), against the model itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;

use quant_tool::files;
use quant_tool::onnx::{Form, encode};
use ternwatch_bundle::model::{Epilogue, ModelLayer};
use ternwatch_bundle::{Model, PublicKey};
use ternwatch_detector::{Detector, LayerOutput};
use ternwatch_kernels::Isa;
use tract_onnx::prelude::*;

fn person() -> Model {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let key = std::fs::read_to_string(models.join("default.pub")).unwrap();
    let bytes = std::fs::read(models.join("person.tern")).unwrap();
    files::model_from(&bytes, PublicKey::from_text(&key).unwrap()).unwrap()
}

/// Bright and dark patches, so that people's scores are neither all low nor all saturated.
fn image(len: usize, width: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(12);
    let patch = |i: usize| ((i % width) / 24 * 37 + i / (width * 16) * 53) % 108;
    (0..len).map(|i| patch(i) as u8 + rng.u8(0..20)).collect()
}

/// The heads' outputs in their real units, by layer.
fn own(model: &Model, image: &[u8]) -> HashMap<usize, Vec<f32>> {
    let mut detector = Detector::new(model, Isa::detect()).unwrap();
    detector.input_mut().copy_from_slice(image);
    let mut outputs = HashMap::new();
    detector.infer_observed(|layer, output| {
        let ModelLayer::Conv(conv) = &model.layers()[layer] else {
            return;
        };
        if let (LayerOutput::I16(values), Epilogue::Linear { scale }) = (output, &conv.epilogue) {
            let cells = conv.output_shape.height * conv.output_shape.width;
            let real = values.iter().enumerate();
            let real = real.map(|(i, v)| f32::from(*v) * scale[i / cells]);
            outputs.insert(layer, real.collect());
        }
    });
    outputs
}

fn tracts(model: &Model, image: &[u8], form: Form) -> Vec<Vec<f32>> {
    let bytes = encode(model, form);
    let plan = onnx()
        .model_for_read(&mut bytes.as_slice())
        .unwrap()
        .into_optimized()
        .unwrap()
        .into_runnable()
        .unwrap();
    let shape = model.input_shape();
    let values: Vec<f32> = image.iter().map(|v| f32::from(*v)).collect();
    let input = Tensor::from_shape(&[1, shape.channels, shape.height, shape.width], &values);
    let outputs = plan.run(tvec!(input.unwrap().into())).unwrap();
    let values = |output: &TValue| {
        let view = output.to_plain_array_view::<f32>().unwrap();
        view.iter().copied().collect()
    };
    outputs.iter().map(values).collect()
}

/// Largest difference of any output, in parts of the largest output of its head.
fn difference(model: &Model, form: Form) -> f32 {
    let shape = model.input_shape();
    let image = image(shape.len(), shape.width);
    let own = own(model, &image);
    let theirs = tracts(model, &image, form);
    assert_eq!(theirs.len(), model.heads().len());
    let mut worst = 0.0f32;
    for (head, theirs) in model.heads().iter().zip(theirs) {
        let own = &own[&head.layer];
        assert_eq!(own.len(), theirs.len());
        let largest = own.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let differences = own.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
        worst = worst.max(differences.fold(0.0, f32::max) / largest);
    }
    worst
}

#[test]
fn the_exact_form_gives_the_same_outputs() {
    let difference = difference(&person(), Form::Exact);
    assert!(difference < 1e-6, "{difference}");
}

#[test]
fn the_folded_form_differs_by_rounding_only() {
    let difference = difference(&person(), Form::Folded);
    assert!(difference > 0.0 && difference < 0.1, "{difference}");
}
