//! Test accuracy of a float network, and of the integer one in a bundle.

use anyhow::{Context, Result};
use ternwatch_bundle::Model;
use ternwatch_bundle::model::{Epilogue, ModelLayer};
use ternwatch_detector::{Detector, LayerOutput};
use ternwatch_kernels::Isa;

use crate::data::labelled::Labelled;
use crate::network::Network;
use crate::train::classify::{argmax, mean_logits, paint};
use crate::train::graph::{Activations, Gradients, Images, Statistics, forward};
use crate::train::parameters::Parameters;

/// Pictures that are computed at once.
const BATCH: usize = 250;

/// Part of the pictures that the float network classifies right.
pub(super) fn float(network: &Network, parameters: &Parameters, test: &Labelled) -> Result<f64> {
    let size = [network.input.width as usize, network.input.height as usize];
    let picture_len = 3 * size[0] * size[1];
    let mut right = 0;
    for start in (0..test.count()).step_by(BATCH) {
        let indices = start..(start + BATCH).min(test.count());
        let mut data = vec![0.0; indices.len() * picture_len];
        for (index, canvas) in indices.clone().zip(data.chunks_exact_mut(picture_len)) {
            paint(test, index, size, ([0, 0], false), |at, value| {
                canvas[at] = f32::from(value) / 127.0;
            });
        }
        let images = Images {
            data,
            count: indices.len(),
            height: size[1],
            width: size[0],
        };
        let mode = (Activations::Float, Statistics::Running);
        let pass = forward(network, parameters, images, mode, Gradients::None)?;
        let output = &pass.outputs[0];
        let cells = output.height * output.width;
        let each = output.channels * cells;
        for (index, logits) in indices.zip(output.data.chunks_exact(each)) {
            let class = argmax(&mean_logits(logits, cells));
            right += usize::from(class == usize::from(test.labels[index]));
        }
    }
    Ok(right as f64 / test.count().max(1) as f64)
}

/// Part of the pictures that the bundle's network classifies right, run by the daemon's own kernels.
pub(super) fn integer(model: &Model, test: &Labelled) -> Result<f64> {
    let head = model
        .heads()
        .first()
        .context("a model without a head")?
        .layer;
    let ModelLayer::Conv(conv) = &model.layers()[head] else {
        anyhow::bail!("the head is no convolution");
    };
    let Epilogue::Linear { scale } = &conv.epilogue else {
        anyhow::bail!("the head is not linear");
    };
    let cells = conv.output_shape.height * conv.output_shape.width;
    let size = [model.input().width as usize, model.input().height as usize];
    let mut detector = Detector::new(model, Isa::detect())?;
    let mut right = 0;
    for index in 0..test.count() {
        let canvas = detector.input_mut();
        canvas.fill(0);
        paint(test, index, size, ([0, 0], false), |at, value| {
            canvas[at] = value
        });
        let mut class = 0;
        detector.infer_observed(|layer, output| {
            if let (true, LayerOutput::I16(values)) = (layer == head, output) {
                let sum = |plane: &[i16]| plane.iter().map(|v| f32::from(*v)).sum::<f32>();
                let planes = values.chunks_exact(cells).zip(scale);
                let logits: Vec<f32> = planes.map(|(plane, scale)| sum(plane) * scale).collect();
                class = argmax(&logits);
            }
        });
        right += usize::from(class == usize::from(test.labels[index]));
    }
    Ok(right as f64 / test.count().max(1) as f64)
}
