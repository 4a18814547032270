//! The network's parameters as named plain vectors, and the checkpoint that holds them.
//!
//! Everything that training changes lives here, on the host: the optimizer, the moving average and the quantizer are
//! plain loops over slices, and the autodiff tensors are made anew from them in every step. A checkpoint is one
//! safetensors file, written beside its final name and renamed, so that a stop at any time leaves the last one whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};
use ternwatch_bundle::manifest::HeadKind;

use crate::files;
use crate::network::Network;

/// The set of averaged parameters in a checkpoint.
pub const AVERAGE: &str = "average";

/// The largest checkpoint that is read, in bytes.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

/// What a parameter is to its convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `[out, in, kernel, kernel]`; becomes ternary.
    Weight,
    /// `[out]`; batch normalization's scale, or a linear output's scale.
    Gamma,
    /// `[out]`; batch normalization's shift, or a linear output's bias.
    Beta,
    /// `[out]`; running mean, not trained by gradient.
    Mean,
    /// `[out]`; running variance, not trained by gradient.
    Variance,
}

/// One named parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// `layer.role`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub value: Vec<f32>,
}

impl Parameter {
    fn is(&self, layer: &str, role: Role) -> bool {
        self.role == role && self.is_of(layer)
    }

    fn is_of(&self, layer: &str) -> bool {
        self.name.strip_suffix(self.role.suffix()) == Some(layer)
    }
}

/// Why a look-up cannot fail.
const ALL_FIVE: &str = "every convolution of the network has all five parameters";

/// All parameters, in the network's order: five per convolution.
#[derive(Clone, Debug)]
pub struct Parameters(pub Vec<Parameter>);

/// The prior probability of a person in a cell, which the logits start from (FCOS, section 4; Lin et al. 2017).
const PRIOR: f32 = 0.01;
/// Where the distances start, in strides.
const DISTANCE_START: f32 = 3.0;

impl Parameters {
    /// He-initialized weights (He et al. 2015), neutral normalization, and outputs that start from the prior.
    pub fn init(network: &Network, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut all = Vec::new();
        for conv in network.convs() {
            let out = conv.shape[0];
            let deviation = (2.0 / conv.fan_in() as f32).sqrt();
            let weight = (0..conv.weights_len())
                .map(|_| normal(&mut rng) * deviation)
                .collect();
            let (gamma, beta) = match network.head_kind(conv.name) {
                None => (1.0, vec![0.0; out]),
                Some(HeadKind::Classes) => (0.1, vec![0.0; out]),
                Some(HeadKind::Boxes) => {
                    let mut beta = vec![(PRIOR / (1.0 - PRIOR)).ln(); out];
                    beta[out.saturating_sub(4)..].fill(DISTANCE_START);
                    (0.1, beta)
                }
            };
            let gamma = vec![gamma; out];
            let roles = [
                (Role::Weight, conv.shape.to_vec(), weight),
                (Role::Gamma, vec![out], gamma),
                (Role::Beta, vec![out], beta),
                (Role::Mean, vec![out], vec![0.0; out]),
                (Role::Variance, vec![out], vec![1.0; out]),
            ];
            all.extend(roles.map(|(role, shape, value)| Parameter {
                name: format!("{}{}", conv.name, role.suffix()),
                role,
                shape,
                value,
            }));
        }
        Self(all)
    }

    /// The values of `layer`'s parameter of this role.
    pub fn get(&self, layer: &str, role: Role) -> &[f32] {
        let found = self.0.iter().find(|p| p.is(layer, role));
        &found.expect(ALL_FIVE).value
    }

    /// As [`Parameters::get`], to be changed.
    pub fn get_mut(&mut self, layer: &str, role: Role) -> &mut [f32] {
        let found = self.0.iter_mut().find(|p| p.is(layer, role));
        &mut found.expect(ALL_FIVE).value
    }

    /// Takes for its own the averaged parameters of a checkpoint, which is of a network like `network`. Heads for another number of
    /// classes stay as they are; their layers are returned.
    pub fn begin_with(
        &mut self,
        network: &Network,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<String>> {
        let tensors = checkpoint.tensors()?;
        let is_other = |p: &Parameter| {
            let tensor = tensors.tensor(&key(AVERAGE, p));
            tensor.is_ok_and(|tensor| tensor.shape() != p.shape)
        };
        let heads = network.heads.iter().map(|head| &head.layer);
        let others = heads.filter(|layer| self.0.iter().any(|p| p.is_of(layer) && is_other(p)));
        let others: Vec<String> = others.cloned().collect();
        let kept = self.0.iter_mut();
        let kept = kept.filter(|p| !others.iter().any(|layer| p.is_of(layer)));
        checkpoint.load_each(AVERAGE, kept)?;
        Ok(others)
    }

    /// Zeros of the same shapes.
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.0.iter_mut().for_each(|p| p.value.fill(0.0));
        zeros
    }
}

#[cfg(test)]
impl Parameters {
    /// Random ones with every peculiarity that training can leave behind; the first convolution has a channel that does not depend on
    /// its input.
    pub(crate) fn as_training_leaves_them(network: &Network, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut parameters = Self::init(network, seed);
        for p in &mut parameters.0 {
            for (i, v) in p.value.iter_mut().enumerate() {
                match p.role {
                    Role::Weight => {}
                    Role::Gamma => *v *= [1.0, -1.0, 1.3, 0.7][i % 4] * (0.8 + 0.4 * rng.f32()),
                    Role::Beta | Role::Mean => *v += rng.f32() * 0.4 - 0.2,
                    Role::Variance => *v = 0.3 + rng.f32(),
                }
            }
        }
        parameters.0[1].value[2] = 0.0;
        parameters.0[2].value[2] = 0.9;
        parameters
    }
}

impl Role {
    fn suffix(self) -> &'static str {
        match self {
            Self::Weight => ".weight",
            Self::Gamma => ".gamma",
            Self::Beta => ".beta",
            Self::Mean => ".mean",
            Self::Variance => ".variance",
        }
    }
}

fn normal(rng: &mut fastrand::Rng) -> f32 {
    // Box and Muller 1958; 1 - f32 keeps the logarithm's argument above zero.
    let radius = (-2.0 * (1.0 - rng.f32()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.f32()).cos()
}

/// What a set's parameter is called in a file.
fn key(prefix: &str, parameter: &Parameter) -> String {
    format!("{prefix}/{}", parameter.name)
}

/// Writes several sets of parameters (prefix, values) and text metadata into one file.
pub fn save(
    path: &Path,
    sets: &[(&str, &Parameters)],
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    let mut tensors = Vec::new();
    for (prefix, set) in sets {
        for p in &set.0 {
            let bytes: Vec<u8> = p.value.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((key(prefix, p), p.shape.clone(), bytes));
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, Some(metadata.into_iter().collect()))?;
    files::write(path, &bytes)
}

/// A checkpoint read back.
pub struct Checkpoint {
    bytes: Vec<u8>,
    path: PathBuf,
    /// The text metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A checkpoint that is damaged, or belongs to another network.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint {} cannot be used", .0.display())]
pub struct BadCheckpoint(PathBuf);

impl Checkpoint {
    /// Reads a file that [`save`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let place = || format!("reading {}", path.display());
        let size = std::fs::metadata(path).with_context(place)?.len();
        ensure!(
            size <= CHECKPOINT_BYTES_MAX,
            "{}: {size} bytes are too many for a checkpoint",
            path.display()
        );
        let bytes = std::fs::read(path).with_context(place)?;
        let bad = || BadCheckpoint(path.into());
        let (_, header) = SafeTensors::read_metadata(&bytes).with_context(bad)?;
        let metadata = header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        Ok(Self {
            bytes,
            path: path.into(),
            metadata,
        })
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    /// Overwrites `into` with the set of this prefix; every name and shape must be there.
    pub fn load(&self, prefix: &str, into: &mut Parameters) -> Result<()> {
        self.load_each(prefix, into.0.iter_mut())
    }

    fn load_each<'a>(
        &self,
        prefix: &str,
        into: impl Iterator<Item = &'a mut Parameter>,
    ) -> Result<()> {
        self.load_any(prefix, into)
            .with_context(|| BadCheckpoint(self.path.clone()))
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes).with_context(|| BadCheckpoint(self.path.clone()))
    }

    fn load_any<'a>(
        &self,
        prefix: &str,
        into: impl Iterator<Item = &'a mut Parameter>,
    ) -> Result<()> {
        let tensors = self.tensors()?;
        for p in into {
            let name = key(prefix, p);
            let tensor = tensors
                .tensor(&name)
                .with_context(|| format!("no tensor {name}"))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != p.shape {
                bail!(
                    "{name} is {:?} {:?}, expected F32 {:?}",
                    tensor.dtype(),
                    tensor.shape(),
                    p.shape
                );
            }
            for (value, bytes) in p.value.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            ensure!(
                p.value.iter().all(|v| v.is_finite()),
                "{name} holds a number that is not finite"
            );
        }
        Ok(())
    }
}
