//! A model whose every number was checked.
//!
//! Takes a [`VerifiedBundle`], gives typed layers with their parameters unpacked, their inputs resolved to indices
//! and all shapes computed. A [`Model`] keeps these promises, on which `detector` relies:
//! layers read only layers before them (or the image) and of the right shape; a `linear` layer is a head and nothing
//! reads it; every layer is read or is a head; parameters have one entry per weight or output channel; a depthwise
//! convolution ends in `relu`; a pool that takes the mean has input of even sides; nothing exceeds [`limits`]. A signature says who made a model, not that it is sane: a mistake of the maker must not
//! crash a device.

mod check;
pub mod limits;
mod load;

use ternwatch_kernels::Trit;

pub use self::load::ModelError;
use crate::manifest::{Golden, HeadKind, Input, Manifest, ModelId, PoolMode, Thresholds};
use crate::verify::VerifiedBundle;

/// A loaded model. Only [`Model::load`] makes one.
#[derive(Clone, Debug)]
pub struct Model {
    manifest: Manifest,
    sha256: [u8; 32],
    layers: Vec<ModelLayer>,
    heads: Vec<ModelHead>,
}

impl Model {
    /// Checks everything that a signed bundle says, and unpacks it.
    pub fn load(bundle: &VerifiedBundle<'_>) -> Result<Self, ModelError> {
        let (layers, heads) = load::load(bundle.manifest(), bundle.parameters())?;
        Ok(Self {
            manifest: bundle.manifest().clone(),
            sha256: bundle.sha256(),
            layers,
            heads,
        })
    }

    /// Name and version.
    pub fn id(&self) -> &ModelId {
        &self.manifest.model
    }

    /// SHA-256 of the bundle file: two models are the same if and only if this is.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Names, indexed by a detection's class.
    pub fn classes(&self) -> &[String] {
        &self.manifest.classes
    }

    /// The thresholds that the model's authors recommend.
    pub fn thresholds(&self) -> Thresholds {
        self.manifest.thresholds
    }

    /// What the network takes.
    pub fn input(&self) -> &Input {
        &self.manifest.input
    }

    /// Shape of the input tensor.
    pub fn input_shape(&self) -> TensorShape {
        load::input_shape(&self.manifest.input)
    }

    /// The layers in the order they run.
    pub fn layers(&self) -> &[ModelLayer] {
        &self.layers
    }

    /// What is decoded.
    pub fn heads(&self) -> &[ModelHead] {
        &self.heads
    }

    /// What the network must answer. May be empty in a draft; `detector` refuses to call such a model checked.
    pub fn golden(&self) -> &[Golden] {
        &self.manifest.golden
    }

    /// The model card, for people.
    pub fn card(&self) -> &serde_json::Value {
        &self.manifest.card
    }

    /// Multiply-accumulates of one frame, zero weights included, as float networks are counted.
    pub fn macs(&self) -> u64 {
        self.layers.iter().map(ModelLayer::macs).sum()
    }

    /// The weights of a convolution, for tests that damage a model and expect that to be noticed.
    pub fn trits_mut(&mut self, layer: usize) -> Option<&mut [Trit]> {
        match self.layers.get_mut(layer) {
            Some(ModelLayer::Conv(conv)) => Some(&mut conv.trits),
            _ => None,
        }
    }
}

/// Shape of one tensor: planes of rows of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// Planes.
    pub channels: usize,
    /// Rows of a plane.
    pub height: usize,
    /// Values of a row.
    pub width: usize,
}

impl TensorShape {
    /// Values in the tensor.
    #[expect(clippy::len_without_is_empty, reason = "no tensor is empty")]
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// A tensor that a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The preprocessed frame.
    Image,
    /// The output of the layer with this index.
    Layer(usize),
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelLayer {
    /// Ternary convolution.
    Conv(ConvLayer),
    /// `min(127, fine + coarse enlarged twice)`.
    AddUpsampled(AddUpsampledLayer),
    /// `clamp(a + b - offset, 0, 127)`.
    Add(AddLayer),
    /// Several tensors' planes.
    Concat(ConcatLayer),
    /// The greatest value or the mean of windows.
    Pool(PoolLayer),
}

impl ModelLayer {
    /// Name, unique in the model.
    pub fn name(&self) -> &str {
        match self {
            Self::Conv(conv) => &conv.name,
            Self::AddUpsampled(add) => &add.name,
            Self::Add(add) => &add.name,
            Self::Concat(concat) => &concat.name,
            Self::Pool(pool) => &pool.name,
        }
    }

    /// The tensors that it reads.
    pub fn sources(&self) -> Vec<Source> {
        match self {
            Self::Conv(conv) => vec![conv.input],
            Self::AddUpsampled(add) => vec![add.fine, add.coarse],
            Self::Add(add) => add.inputs.to_vec(),
            Self::Concat(concat) => concat.inputs.clone(),
            Self::Pool(pool) => vec![pool.input],
        }
    }

    /// Shape of the output tensor.
    pub fn output_shape(&self) -> TensorShape {
        match self {
            Self::Conv(conv) => conv.output_shape,
            Self::AddUpsampled(add) => add.shape,
            Self::Add(add) => add.shape,
            Self::Concat(concat) => concat.shape,
            Self::Pool(pool) => pool.output_shape,
        }
    }

    /// Multiply-accumulates of one frame; only convolutions have any.
    pub fn macs(&self) -> u64 {
        match self {
            Self::Conv(conv) => {
                conv.trits.len() as u64
                    * (conv.output_shape.height * conv.output_shape.width) as u64
            }
            Self::AddUpsampled(_) | Self::Add(_) | Self::Concat(_) | Self::Pool(_) => 0,
        }
    }
}

/// Ternary convolution, padding `kernel / 2` with zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvLayer {
    /// Name, unique in the model.
    pub name: String,
    /// What it reads.
    pub input: Source,
    /// Shape of what it reads.
    pub input_shape: TensorShape,
    /// Shape of what it gives.
    pub output_shape: TensorShape,
    /// 1 or 3.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// 1: each output plane reads all input planes. Otherwise as many as there are planes on either side (depthwise): each output
    /// plane reads the input plane of its index, and `epilogue` is `Relu`.
    pub groups: usize,
    /// `[out][in / groups][ky][kx]`.
    pub trits: Vec<Trit>,
    /// One per output channel.
    pub bias: Vec<i16>,
    /// What follows the accumulation.
    pub epilogue: Epilogue,
}

/// What follows a convolution's accumulation.
#[derive(Clone, Debug, PartialEq)]
pub enum Epilogue {
    /// Requantized to u7.
    Relu {
        /// Q15, not negative, one per output channel.
        multiplier: Vec<i16>,
        /// Left shift before the multiplication, 0 to 7.
        pre_shift: u8,
    },
    /// The i16 sum itself.
    Linear {
        /// Real value of one step, one per output channel; finite and positive.
        scale: Vec<f32>,
    },
}

/// `min(127, fine + coarse enlarged twice by repetition)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddUpsampledLayer {
    /// Name, unique in the model.
    pub name: String,
    /// Tensor of the output's shape.
    pub fine: Source,
    /// Tensor of half its height and width, rounded up.
    pub coarse: Source,
    /// Shape of the output.
    pub shape: TensorShape,
}

/// `clamp(a + b - offset, 0, 127)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddLayer {
    /// Name, unique in the model.
    pub name: String,
    /// Two tensors of the output's shape, or twice the same one.
    pub inputs: [Source; 2],
    /// 0 to 254.
    pub offset: u8,
    /// Shape of the output.
    pub shape: TensorShape,
}

/// The planes of several tensors, one tensor after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcatLayer {
    /// Name, unique in the model.
    pub name: String,
    /// Two or more tensors of the output's height and width, whose channels add up to the output's. One may be there twice.
    pub inputs: Vec<Source>,
    /// Shape of the output.
    pub shape: TensorShape,
}

/// The greatest value, or the mean, of every window of a plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLayer {
    /// Name, unique in the model.
    pub name: String,
    /// What it reads.
    pub input: Source,
    /// Shape of what it reads; of even sides for the mean.
    pub input_shape: TensorShape,
    /// Shape of what it gives.
    pub output_shape: TensorShape,
    /// What is taken of a window.
    pub mode: PoolMode,
    /// 2, 3 or 5; 2 for the mean.
    pub kernel: usize,
    /// 1 or 2; 2 for the mean.
    pub stride: usize,
}

/// An output of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelHead {
    /// Index of a `linear` convolution with the channels that `kind` says.
    pub layer: usize,
    /// Input pixels per cell.
    pub stride: u32,
    /// What its channels mean.
    pub kind: HeadKind,
}
