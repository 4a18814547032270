//! The architecture: from a few widths to the layer list that training, export and the detector share.
//!
//! An anchor-free detector in the manner of FCOS (Tian et al. 2019, "FCOS: Fully convolutional one-stage object
//! detection", section 3): dense 3x3 convolutions down to strides 8, 16 and 32, a top-down neck that adds the
//! coarser level to the finer one, and per level one convolution before the output (logits, then four distances).
//! It knows nothing of weights.

use serde::{Deserialize, Serialize};
use ternwatch_bundle::manifest::{Activation, Head, HeadKind, Input, Layer};

use crate::train::check::{BadValue, check};

/// The letterbox's grey, u7, of networks that are laid out here.
pub const FILL: u8 = 57;

/// The tensor that the first layer reads.
pub const IMAGE: &str = "image";

/// The widths of the network, in channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the input in pixels.
    pub width: u32,
    /// Height of the input in pixels.
    pub height: u32,
    /// Convolutions of stride 2 down to stride 4.
    pub stem: [u32; 2],
    /// Convolutions at stride 8; the first one has stride 2.
    pub stage8: Vec<u32>,
    /// Convolutions at stride 16; the first one has stride 2.
    pub stage16: Vec<u32>,
    /// Convolutions at stride 32; the first one has stride 2.
    pub stage32: Vec<u32>,
    /// Channels of the neck and of the heads.
    pub neck: u32,
}

impl Config {
    /// One channel everywhere.
    pub(crate) fn smallest() -> Self {
        Self {
            width: 32,
            height: 32,
            stem: [1; 2],
            stage8: vec![1],
            stage16: vec![1],
            stage32: vec![1],
            neck: 1,
        }
    }

    /// Refuses values out of their range, by their key.
    pub fn check(&self) -> Result<(), BadValue> {
        let widths = [
            &self.stem[..],
            &self.stage8,
            &self.stage16,
            &self.stage32,
            &[self.neck],
        ]
        .concat();
        let wide = widths.iter().all(|w| (1..=1024).contains(w));
        check(wide, "network", &widths, "widths are 1 to 1024 channels")?;
        let stages = [&self.stage8, &self.stage16, &self.stage32]
            .iter()
            .all(|s| !s.is_empty());
        check(stages, "network", &widths, "every stage needs a layer")?;
        let sides = [self.width, self.height];
        check(
            sides.iter().all(|s| (32..=2048).contains(s)),
            "network.width, height",
            &sides,
            "sides are 32 to 2048 pixels",
        )
    }
}

/// A network's layers in the order they run, and the outputs to decode.
#[derive(Clone, Debug)]
pub struct Network {
    /// What it takes.
    pub input: Input,
    /// Layers; parameter offsets and shifts are filled in at export.
    pub layers: Vec<Layer>,
    /// Decoded outputs, finest stride first.
    pub heads: Vec<Head>,
}

/// Side lengths, in pixels, of the people that each stride answers for: the larger side of the box.
pub const SIZE_RANGES: [(u32, f32, f32); 3] = [
    (8, 0.0, 64.0),
    (16, 64.0, 128.0),
    (32, 128.0, f32::INFINITY),
];

impl Network {
    /// Lays the layers out for `classes` classes.
    pub fn new(config: &Config, classes: u32) -> Self {
        let mut layers = Layers::default();
        let stem = layers.conv("stem2", (IMAGE, 3), config.stem[0], 3, 2);
        let stem = layers.conv("stem4", stem.as_ref(), config.stem[1], 3, 2);
        let c8 = layers.stage("stage8", stem.as_ref(), &config.stage8);
        let c16 = layers.stage("stage16", c8.as_ref(), &config.stage16);
        let c32 = layers.stage("stage32", c16.as_ref(), &config.stage32);

        let p32 = layers.conv("lateral32", c32.as_ref(), config.neck, 1, 1);
        let l16 = layers.conv("lateral16", c16.as_ref(), config.neck, 1, 1);
        let m16 = layers.add("merge16", &l16, &p32);
        let p16 = layers.conv("smooth16", m16.as_ref(), config.neck, 3, 1);
        let l8 = layers.conv("lateral8", c8.as_ref(), config.neck, 1, 1);
        let p8 = layers.add("merge8", &l8, &p16);

        let heads = [(8, p8), (16, p16), (32, p32)]
            .into_iter()
            .map(|(stride, level)| {
                let tower =
                    layers.conv(&format!("tower{stride}"), level.as_ref(), config.neck, 3, 1);
                let layer = layers.linear(&format!("head{stride}"), tower.as_ref(), classes + 4);
                Head {
                    layer,
                    stride,
                    kind: HeadKind::Boxes,
                }
            })
            .collect();
        let input = Input {
            width: config.width,
            height: config.height,
            channels: 3,
            fill: FILL,
        };
        Self {
            input,
            layers: layers.0,
            heads,
        }
    }

    /// Lays out an all-convolutional classifier (Springenberg et al. 2015, "Striving for simplicity"): 3x3 convolutions of
    /// these (channels, stride), then one logit per class and cell, whose mean over the cells classifies the picture.
    pub fn classifier(size: (u32, u32), convs: &[(u32, u32)], classes: u32) -> Self {
        let mut layers = Layers::default();
        let mut last = Tensor(IMAGE.into(), 3);
        for (i, &(channels, stride)) in convs.iter().enumerate() {
            last = layers.conv(&format!("conv{i}"), last.as_ref(), channels, 3, stride);
        }
        let head = Head {
            layer: layers.linear("classes", last.as_ref(), classes),
            stride: convs.iter().map(|(_, stride)| stride).product(),
            kind: HeadKind::Classes,
        };
        let input = Input {
            width: size.0,
            height: size.1,
            channels: 3,
            fill: 0,
        };
        Self {
            input,
            layers: layers.0,
            heads: vec![head],
        }
    }

    /// What the channels of a layer's output mean, if it is a head.
    pub fn head_kind(&self, layer: &str) -> Option<HeadKind> {
        self.heads.iter().find(|h| h.layer == layer).map(|h| h.kind)
    }

    /// The convolutions among the layers, in order.
    pub fn convs(&self) -> impl Iterator<Item = Conv<'_>> {
        self.layers.iter().filter_map(Conv::of)
    }

    /// Weights of all convolutions.
    pub fn weights_len(&self) -> usize {
        self.convs().map(|c| c.weights_len()).sum()
    }

    /// Multiply-accumulate operations of one inference at the input's size.
    pub fn macs(&self) -> u64 {
        let mut sizes =
            std::collections::HashMap::from([(IMAGE, (self.input.height, self.input.width))]);
        let mut macs = 0;
        for layer in &self.layers {
            let (height, width) = sizes[layer.inputs()[0]];
            let stride = match layer {
                Layer::Conv { stride, .. } | Layer::Pool { stride, .. } => *stride,
                Layer::AddUpsampled { .. } | Layer::Add { .. } | Layer::Concat { .. } => 1,
            };
            let out = (height.div_ceil(stride), width.div_ceil(stride));
            if let Some(conv) = Conv::of(layer) {
                macs += conv.weights_len() as u64 * u64::from(out.0) * u64::from(out.1);
            }
            sizes.insert(layer.name(), out);
        }
        macs
    }
}

/// A convolution of the layer list, by reference.
#[derive(Clone, Copy, Debug)]
pub struct Conv<'a> {
    /// Layer name.
    pub name: &'a str,
    /// The tensor that it reads.
    pub input: &'a str,
    /// `[out, in / groups, kernel, kernel]`.
    pub shape: [usize; 4],
    /// Input pixels per output pixel, along each side.
    pub stride: usize,
    /// Parts of the channels that know nothing of each other.
    pub groups: usize,
    /// What follows it.
    pub activation: Activation,
}

impl<'a> Conv<'a> {
    /// The convolution that a layer is, if it is one.
    pub fn of(layer: &'a Layer) -> Option<Self> {
        match layer {
            Layer::Conv {
                name,
                input,
                in_channels,
                out_channels,
                kernel,
                stride,
                groups,
                activation,
                ..
            } => {
                let groups = (*groups).max(1);
                let each = in_channels / groups;
                let shape = [*out_channels, each, *kernel, *kernel].map(|n| n as usize);
                Some(Self {
                    name,
                    input,
                    shape,
                    stride: *stride as usize,
                    groups: groups as usize,
                    activation: *activation,
                })
            }
            Layer::AddUpsampled { .. }
            | Layer::Add { .. }
            | Layer::Concat { .. }
            | Layer::Pool { .. } => None,
        }
    }

    /// Number of weights.
    pub fn weights_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of weights of one output channel.
    pub fn fan_in(&self) -> usize {
        self.shape[1..].iter().product()
    }
}

/// A tensor under construction: its name and channels.
struct Tensor(String, u32);

impl Tensor {
    fn as_ref(&self) -> (&str, u32) {
        (&self.0, self.1)
    }
}

#[derive(Default)]
struct Layers(Vec<Layer>);

impl Layers {
    fn push(
        &mut self,
        name: &str,
        input: (&str, u32),
        out: u32,
        kernel: u32,
        stride: u32,
        activation: Activation,
    ) {
        self.0.push(Layer::Conv {
            name: name.into(),
            input: input.0.into(),
            in_channels: input.1,
            out_channels: out,
            kernel,
            stride,
            groups: 1,
            activation,
            pre_shift: 0,
            offset: 0,
        });
    }

    fn conv(
        &mut self,
        name: &str,
        input: (&str, u32),
        out: u32,
        kernel: u32,
        stride: u32,
    ) -> Tensor {
        self.push(name, input, out, kernel, stride, Activation::Relu);
        Tensor(name.into(), out)
    }

    fn linear(&mut self, name: &str, input: (&str, u32), out: u32) -> String {
        self.push(name, input, out, 3, 1, Activation::Linear);
        name.into()
    }

    fn stage(&mut self, name: &str, input: (&str, u32), widths: &[u32]) -> Tensor {
        let mut tensor = Tensor(input.0.into(), input.1);
        for (i, &width) in widths.iter().enumerate() {
            let stride = if i == 0 { 2 } else { 1 };
            tensor = self.conv(&format!("{name}_{i}"), tensor.as_ref(), width, 3, stride);
        }
        tensor
    }

    fn add(&mut self, name: &str, fine: &Tensor, coarse: &Tensor) -> Tensor {
        self.0.push(Layer::AddUpsampled {
            name: name.into(),
            fine: fine.0.clone(),
            coarse: coarse.0.clone(),
        });
        Tensor(name.into(), fine.1)
    }
}
