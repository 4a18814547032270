//! Checks of what a manifest says outside of its layers, and the messages.

use super::ModelError;
use super::limits::*;
use crate::hex;
use crate::manifest::{Activation, Golden, Input, Manifest};

type Result<T> = std::result::Result<T, ModelError>;

pub(super) fn identity(manifest: &Manifest) -> Result<()> {
    let name = &manifest.model.name;
    let is_name = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if !(1..=NAME_LEN_MAX).contains(&name.len()) || !name.bytes().all(is_name) {
        let problem = format!(
            "{:?} is not 1 to {NAME_LEN_MAX} of a-z, 0-9 and -",
            shortened(name)
        );
        return Err(manifest_error("model.name", problem));
    }
    bounded("classes", manifest.classes.len(), 1, CLASSES_MAX)?;
    for (index, class) in manifest.classes.iter().enumerate() {
        if !(1..=NAME_LEN_MAX).contains(&class.len()) || class.chars().any(char::is_control) {
            let problem = format!(
                "{:?} is not 1 to {NAME_LEN_MAX} bytes without control characters",
                shortened(class)
            );
            return Err(manifest_error(&format!("classes[{index}]"), problem));
        }
        if manifest.classes[..index].contains(class) {
            return Err(manifest_error(
                &format!("classes[{index}]"),
                format!("{class:?} is there twice"),
            ));
        }
    }
    for (key, value) in [
        ("score", manifest.thresholds.score),
        ("iou", manifest.thresholds.iou),
    ] {
        if !(0.0..=1.0).contains(&value) {
            return Err(manifest_error(
                &format!("thresholds.{key}"),
                format!("{value} is not 0 to 1"),
            ));
        }
    }
    Ok(())
}

pub(super) fn input(input: &Input) -> Result<()> {
    for (key, value) in [("width", input.width), ("height", input.height)] {
        bounded(
            &format!("input.{key}"),
            value as usize,
            INPUT_SIDE_MIN as usize,
            INPUT_SIDE_MAX as usize,
        )?;
    }
    bounded("input.channels", input.channels as usize, 3, 3)?;
    bounded("input.fill", usize::from(input.fill), 0, 127)
}

pub(super) fn layer_name(name: &str) -> Result<()> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    if !(1..=NAME_LEN_MAX).contains(&name.len()) || !name.bytes().all(is_name) {
        let problem =
            format!("the name is not 1 to {NAME_LEN_MAX} of A-Z, a-z, 0-9, _, -, . and /");
        return Err(layer_error(&shortened(name), problem));
    }
    Ok(())
}

pub(super) fn pre_shift(layer: &str, activation: Activation, pre_shift: u8) -> Result<()> {
    let max = match activation {
        Activation::Relu => PRE_SHIFT_MAX,
        Activation::Linear => 0,
    };
    if pre_shift > max {
        return Err(layer_error(
            layer,
            format!("pre_shift is {pre_shift}, more than {max}"),
        ));
    }
    Ok(())
}

pub(super) fn golden(golden: &[Golden], layers: usize) -> Result<()> {
    bounded("golden", golden.len(), 0, GOLDEN_MAX)?;
    for (index, golden) in golden.iter().enumerate() {
        let place = format!("golden[{index}]");
        for side in [golden.width, golden.height] {
            bounded(
                &place,
                side as usize,
                GOLDEN_SIDE_MIN as usize,
                GOLDEN_SIDE_MAX as usize,
            )?;
        }
        if u64::from(golden.width) * u64::from(golden.height) > GOLDEN_PIXELS_MAX {
            let problem = format!(
                "{} x {} is more than {GOLDEN_PIXELS_MAX} pixels",
                golden.width, golden.height
            );
            return Err(manifest_error(&place, problem));
        }
        if golden.layers.len() != layers {
            let problem = format!(
                "has {} layer digests for {layers} layers",
                golden.layers.len()
            );
            return Err(manifest_error(&place, problem));
        }
        let digests = golden
            .layers
            .iter()
            .map(|digest| (digest, 16))
            .chain([(&golden.input, 64), (&golden.detections, 64)]);
        for (digest, digits) in digests {
            if !hex::is_digits(digest, digits) {
                let problem = format!(
                    "{:?} is not {digits} lower-case hex digits",
                    shortened(digest)
                );
                return Err(manifest_error(&place, problem));
            }
        }
    }
    Ok(())
}

pub(super) fn bounded(place: &str, value: usize, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(manifest_error(
        place,
        format!("{value} is not {min} to {max}"),
    ))
}

pub(super) fn manifest_error(place: &str, problem: impl Into<String>) -> ModelError {
    ModelError::Manifest {
        place: place.to_owned(),
        problem: problem.into(),
    }
}

pub(super) fn layer_error(layer: &str, problem: impl Into<String>) -> ModelError {
    ModelError::Layer {
        layer: layer.to_owned(),
        problem: problem.into(),
    }
}

/// At most as much of a text from outside as belongs into a message.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(NAME_LEN_MAX).collect()
}
