//! Times one network on this thread: `engine_time ours|tract BUNDLE PUBLIC_KEY ROUNDS [ISA]`.
//!
//! Prints the thread's processor time of every inference in milliseconds, one a line; the first ones, which plan and warm
//! up, are left out. `deploy/peers/run.py` compares them with those of other engines.

use std::hint::black_box;

use anyhow::{Context, Result, bail};
use quant_tool::files;
use quant_tool::onnx::{Form, encode};
use rustix::time::{ClockId, clock_gettime};
use ternwatch_bundle::{Model, PublicKey};
use ternwatch_detector::Detector;
use ternwatch_kernels::Isa;
use tract_onnx::prelude::*;

/// Inferences that are not counted.
const WARM_UP: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (engine, bundle, key, rounds, isa) = match arguments[..] {
        [engine, bundle, key, rounds] => (engine, bundle, key, rounds, None),
        [engine, bundle, key, rounds, isa] => (engine, bundle, key, rounds, Some(isa)),
        _ => bail!("usage: engine_time ours|tract BUNDLE PUBLIC_KEY ROUNDS [ISA]"),
    };
    let key = PublicKey::from_text(&std::fs::read_to_string(key)?)?;
    let model = files::model_from(&std::fs::read(bundle)?, key)?;
    let rounds: usize = rounds.parse().context("ROUNDS")?;
    match engine {
        "ours" => ours(&model, rounds, isa),
        "tract" => tract(&model, rounds),
        other => bail!("no engine {other}"),
    }
}

/// The same values for every engine: what they are does not matter, but they are no zeros.
fn image(model: &Model) -> Vec<u8> {
    (0..model.input_shape().len())
        .map(|i| (i * 31 % 128) as u8)
        .collect()
}

fn ours(model: &Model, rounds: usize, isa: Option<&str>) -> Result<()> {
    let isa = match isa {
        Some(name) => Isa::available()
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .with_context(|| format!("{name}: this processor does not have it"))?,
        None => Isa::detect(),
    };
    let mut detector = Detector::new(model, isa)?;
    let image = image(model);
    times(rounds, || {
        // The network's memory is used again for its layers: every inference needs its input.
        detector.input_mut().copy_from_slice(&image);
        detector.infer();
        Ok(())
    })
}

fn tract(model: &Model, rounds: usize) -> Result<()> {
    let bytes = encode(model, Form::Folded);
    let plan = onnx()
        .model_for_read(&mut bytes.as_slice())?
        .into_optimized()?
        .into_runnable()?;
    let shape = model.input_shape();
    let values: Vec<f32> = image(model).into_iter().map(f32::from).collect();
    let input = Tensor::from_shape(&[1, shape.channels, shape.height, shape.width], &values)?;
    times(rounds, || {
        black_box(plan.run(tvec!(input.clone().into()))?);
        Ok(())
    })
}

fn times(rounds: usize, mut infer: impl FnMut() -> Result<()>) -> Result<()> {
    for round in 0..WARM_UP + rounds {
        let start = clock_gettime(ClockId::ThreadCPUTime);
        infer()?;
        let end = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = end.tv_sec - start.tv_sec;
        let nanoseconds = seconds * 1_000_000_000 + (end.tv_nsec - start.tv_nsec);
        if round >= WARM_UP {
            println!("{:.4}", nanoseconds as f64 / 1e6);
        }
    }
    Ok(())
}
