//! What a configuration says of a network that comes from a file, in place of `[network]`.

use serde::{Deserialize, Serialize};
use ternwatch_bundle::manifest::HeadKind;
use ternwatch_bundle::model::limits::HEADS_MAX;

use crate::train::check::{BadValue, check};

/// The table `[imported]`. Unknown keys are refused by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What a white pixel is before `mean` is subtracted: 1 or 255, say. The file's input is `(pixel - mean) / std`, with
    /// pixels from 0 to this.
    #[serde(default = "one")]
    pub range: f32,
    /// Subtracted from red, green and blue.
    #[serde(default)]
    pub mean: [f32; 3],
    /// What red, green and blue are divided by then.
    #[serde(default = "ones")]
    pub std: [f32; 3],
    /// In which order the file's input has the colours.
    #[serde(default)]
    pub order: Colours,
    /// u7 value of the letterbox's border: half of the byte that the network was trained with.
    #[serde(default = "grey")]
    pub fill: u8,
    /// Part of a tensor's values that its range has to hold; the others are clipped.
    #[serde(default = "nearly_all")]
    pub percentile: f32,
    /// In which unit the file's boxes are.
    #[serde(default)]
    pub distances: Distances,
    /// The outputs to decode, finest stride first.
    pub heads: Vec<Head>,
}

/// An output of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The tensor in the file, by its name; what follows it there is left out. Two, if logits and distances come from
    /// two convolutions that read the same tensor.
    pub outputs: Vec<String>,
    /// Input pixels per cell.
    pub stride: u32,
    /// What its channels mean.
    #[serde(default)]
    pub kind: HeadKind,
}

/// The order of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Colours {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// The unit of a cell's distances to the sides of its box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distances {
    /// The head's stride.
    #[default]
    Strides,
    /// Pixels of the input.
    Pixels,
}

fn one() -> f32 {
    1.0
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}

fn grey() -> u8 {
    57
}

fn nearly_all() -> f32 {
    0.9999
}

impl Config {
    /// Refuses values out of their range, by their key.
    pub fn check(&self) -> Result<(), BadValue> {
        check(
            self.range > 0.0 && self.range <= 65536.0,
            "imported.range",
            &self.range,
            "above 0, at most 65536",
        )?;
        check(
            self.mean.iter().all(|v| v.abs() <= 65536.0),
            "imported.mean",
            &self.mean,
            "from -65536 to 65536",
        )?;
        check(
            self.std.iter().all(|v| (1e-3..=65536.0).contains(v)),
            "imported.std",
            &self.std,
            "from 0.001 to 65536",
        )?;
        check(self.fill <= 127, "imported.fill", &self.fill, "0 to 127")?;
        check(
            (0.9..=1.0).contains(&self.percentile),
            "imported.percentile",
            &self.percentile,
            "from 0.9 to 1",
        )?;
        check(
            (1..=HEADS_MAX).contains(&self.heads.len()),
            "imported.heads",
            &self.heads.len(),
            "1 to 8 heads",
        )?;
        for head in &self.heads {
            check(
                (1..=2).contains(&head.outputs.len()),
                "imported.heads.outputs",
                &head.outputs,
                "one or two names",
            )?;
        }
        let strides: Vec<u32> = self.heads.iter().map(|h| h.stride).collect();
        check(
            strides.windows(2).all(|pair| pair[0] < pair[1]),
            "imported.heads.stride",
            &strides,
            "finest stride first, each once",
        )
    }

    /// Whether it names the classes of whole pictures.
    pub fn classifies(&self) -> bool {
        self.heads.iter().any(|h| h.kind == HeadKind::Classes)
    }
}
