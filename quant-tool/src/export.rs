//! Export: trained parameters in, a signed bundle out.
//!
//! Batch normalization, the weights' scales and the activations' steps fold into one bias and one fixed-point multiplier
//! a channel (docs/bundle-format.md); what remains of the weights are their trits. The golden vectors are recorded by
//! the detector from the bundle as it was first signed, then it is signed again with them.

use anyhow::{Context, Result, ensure};
use ternwatch_bundle::SecretKey;
use ternwatch_bundle::manifest::{Activation, Layer, Manifest, ModelId, Thresholds};
use ternwatch_bundle::write::{Draft, ParameterWriter};
use ternwatch_detector::golden;
use ternwatch_kernels::Trit;

use crate::files;
use crate::network::{IMAGE, Network};
use crate::quantize::Quantizer;
use crate::quantize::activation::{IMAGE_STEP, STEP};
use crate::train::graph::EPSILON;
use crate::train::parameters::{Parameters, Role};

/// Frames of the golden vectors: seed, width, height. So many that hardly a weight is without effect on all of them; some
/// pass through the letterbox. A small network needs fewer, and they would be a large part of its file.
const GOLDEN_FRAMES: [(u64, u32, u32); 6] = [
    (1, 320, 240),
    (2, 320, 240),
    (3, 201, 263),
    (4, 320, 240),
    (5, 96, 72),
    (6, 400, 300),
];

/// A network with fewer bytes of parameters is small.
const SMALL_BYTES: usize = 20_000;
/// Golden vectors of a small network, the first ones.
const GOLDEN_FRAMES_SMALL: usize = 3;

/// One in the multipliers' Q15.
const ONE_Q15: f64 = 32768.0;
/// A channel whose sums had no more variance than this was never seen to change.
const STILL_MAX: f64 = 1e-12;
/// An output that its inputs change by less than this part is taken for constant where it cannot be written otherwise.
const STILL_PART: f32 = 0.05;
/// The least step of an output.
const STEP_MIN: f32 = 1e-9;
/// Steps of an output that is constant.
const CONSTANT: f32 = 16384.0;

/// What a bundle is made of.
pub struct Source<'a> {
    /// Name and version of the model.
    pub id: ModelId,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Thresholds that the model recommends.
    pub thresholds: Thresholds,
    /// The layers.
    pub network: &'a Network,
    /// Trained parameters.
    pub parameters: &'a Parameters,
    /// Their levels.
    pub quantizer: &'a Quantizer,
    /// The model card's record.
    pub card: serde_json::Value,
}

/// Folds, records and signs: the bytes of the bundle.
pub fn bundle(source: &Source<'_>, key: &SecretKey) -> Result<Vec<u8>> {
    let mut draft = draft(source)?;
    record_golden(&mut draft, key)?;
    Ok(draft.sign(key)?)
}

/// Puts the answers that the detector gives with the draft's network into the draft, in place of others.
pub fn record_golden(draft: &mut Draft, key: &SecretKey) -> Result<()> {
    draft.manifest.golden.clear();
    let model = files::model_from(&draft.sign(key)?, key.public_key())?;
    let frames = match draft.parameters.len() {
        ..SMALL_BYTES => GOLDEN_FRAMES_SMALL,
        _ => GOLDEN_FRAMES.len(),
    };
    draft.manifest.golden = GOLDEN_FRAMES[..frames]
        .iter()
        .map(|&(seed, width, height)| golden::record(&model, seed, width, height))
        .collect::<Result<_, _>>()
        .context("recording the golden vectors")?;
    Ok(())
}

/// Refuses numbers that no bundle can hold, naming the layer: as they are now, whatever is still to be learned.
pub fn check(network: &Network, parameters: &Parameters, quantizer: &Quantizer) -> Result<()> {
    fold(network, parameters, quantizer).map(drop)
}

fn draft(source: &Source<'_>) -> Result<Draft> {
    let (layers, parameters) = fold(source.network, source.parameters, source.quantizer)?;
    let manifest = Manifest {
        schema: 1,
        model: source.id.clone(),
        input: source.network.input.clone(),
        classes: source.classes.clone(),
        thresholds: source.thresholds,
        layers,
        heads: source.network.heads.clone(),
        golden: Vec::new(),
        release: None,
        card: source.card.clone(),
    };
    Ok(Draft {
        manifest,
        parameters,
    })
}

/// The layers with their shifts and offsets, and the parameters.
fn fold(
    network: &Network,
    parameters: &Parameters,
    quantizer: &Quantizer,
) -> Result<(Vec<Layer>, Vec<u8>)> {
    let mut writer = ParameterWriter::new();
    let mut layers = network.layers.clone();
    let mut trits = quantizer.trits(parameters).into_iter();
    let mut scales = quantizer.layers.iter().map(|l| l.scale.as_slice());
    for layer in &mut layers {
        match layer {
            Layer::AddUpsampled { .. }
            | Layer::Add { .. }
            | Layer::Concat { .. }
            | Layer::Pool { .. } => {}
            Layer::Conv {
                name,
                input,
                activation,
                pre_shift,
                offset,
                ..
            } => {
                let channels = Channels {
                    trits: trits.next().context("a layer without levels")?,
                    scale: scales.next().context("a layer without scales")?,
                    // All tensors but the image have one step.
                    input_step: if input == IMAGE { IMAGE_STEP } else { STEP },
                    gamma: parameters.get(name, Role::Gamma),
                    beta: parameters.get(name, Role::Beta),
                    mean: parameters.get(name, Role::Mean),
                    variance: parameters.get(name, Role::Variance),
                };
                match activation {
                    Activation::Relu => {
                        let folded = channels
                            .fold_relu()
                            .with_context(|| format!("layer {name}"))?;
                        *pre_shift = folded.pre_shift;
                        *offset = writer.relu_conv(&folded.trits, &folded.bias, &folded.multiplier);
                    }
                    Activation::Linear => {
                        let folded = channels
                            .fold_linear()
                            .with_context(|| format!("layer {name}"))?;
                        *offset = writer.linear_conv(&folded.trits, &folded.bias, &folded.scale);
                    }
                }
            }
        }
    }
    Ok((layers, writer.finish()))
}

/// A network that no bundle can hold.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub(crate) String);

/// One convolution's output channels before they are folded.
struct Channels<'a> {
    trits: Vec<Trit>,
    /// Value of +1 in each channel.
    scale: &'a [f32],
    /// Value of one u7 step of the input.
    input_step: f32,
    gamma: &'a [f32],
    beta: &'a [f32],
    mean: &'a [f32],
    variance: &'a [f32],
}

struct FoldedRelu {
    trits: Vec<Trit>,
    bias: Vec<i16>,
    multiplier: Vec<i16>,
    pre_shift: u8,
}

struct FoldedLinear {
    trits: Vec<Trit>,
    bias: Vec<i16>,
    scale: Vec<f32>,
}

impl Channels<'_> {
    /// `(sum + bias) x multiplier`, in output steps, equals batch normalization of `sum x scale x input step`.
    fn fold_relu(mut self) -> Result<FoldedRelu> {
        let affine: Vec<(f64, f64)> = (0..self.scale.len())
            .map(|n| self.normalization(n))
            .collect();
        let largest = affine
            .iter()
            .map(|(slope, _)| slope.abs() * ONE_Q15)
            .fold(0.0, f64::max);
        let pre_shift = (0..=7u8).find(|&p| (largest / f64::from(1u32 << p)).round() < ONE_Q15);
        let largest = largest / ONE_Q15;
        let too_large = || Unfit(format!("a multiplier of {largest:.1} is too large"));
        let pre_shift = pre_shift.ok_or_else(too_large)?;
        let fan_in = self.trits.len() / affine.len();
        let (mut bias, mut multiplier) = (Vec::new(), Vec::new());
        for (trits, (slope, shift)) in self.trits.chunks_exact_mut(fan_in).zip(affine) {
            let m = (slope.abs() * ONE_Q15 / f64::from(1u32 << pre_shift)).round();
            let b = (shift / slope.abs()).round();
            // The bias alone fills 16 bits, and these are less than it stands for.
            let is_full = b * f64::from(1u32 << pre_shift) > f64::from(i16::MAX) && m < 127.0;
            if m < 1.0 || b.abs() > f64::from(i16::MAX) || is_full {
                // The sum hardly matters: a channel that always answers the same.
                let constant = shift.round().clamp(0.0, 127.0) as i16;
                trits.fill(Trit::Zero);
                bias.push(2 * constant);
                multiplier.push((1 << 14) >> pre_shift);
            } else {
                if slope < 0.0 {
                    negate(trits);
                }
                bias.push(b as i16);
                multiplier.push(m as i16);
            }
        }
        Ok(FoldedRelu {
            trits: self.trits,
            bias,
            multiplier,
            pre_shift,
        })
    }

    fn fold_linear(mut self) -> Result<FoldedLinear> {
        let fan_in = self.trits.len() / self.scale.len();
        let (mut bias, mut scale) = (Vec::new(), Vec::new());
        for (n, trits) in self.trits.chunks_exact_mut(fan_in).enumerate() {
            let step = self.gamma[n] * self.scale[n] * self.input_step;
            let beta = self.beta[n];
            let b = (beta / step.abs()).round();
            let weights = trits.iter().filter(|t| **t != Trit::Zero).count();
            // By how much all of its inputs together change it at most.
            let reach = 127.0 * weights as f32 * step.abs();
            let is_still = reach < STILL_PART * beta.abs();
            if step.abs() < STEP_MIN || (b.abs() > f32::from(i16::MAX) && is_still) {
                // A channel that always answers the same.
                trits.fill(Trit::Zero);
                let step = (beta.abs() / CONSTANT).max(STEP_MIN);
                bias.push((beta / step).round() as i16);
                scale.push(step);
                continue;
            }
            ensure!(
                b.abs() <= f32::from(i16::MAX),
                Unfit(format!(
                    "channel {n}: a bias of {b} sums does not fit 16 bits"
                ))
            );
            if step < 0.0 {
                negate(trits);
            }
            bias.push(b as i16);
            scale.push(step.abs());
        }
        Ok(FoldedLinear {
            trits: self.trits,
            bias,
            scale,
        })
    }

    /// Output steps per sum, and output steps at a sum of zero; of a channel that was never seen to change, none per sum: what it was trained with
    /// says nothing of how much a sum would count.
    fn normalization(&self, n: usize) -> (f64, f64) {
        let slope = f64::from(self.gamma[n]) / (f64::from(self.variance[n]) + EPSILON).sqrt();
        let shift = f64::from(self.beta[n]) - slope * f64::from(self.mean[n]);
        let step = f64::from(STEP);
        if f64::from(self.variance[n]) < STILL_MAX {
            return (0.0, shift / step);
        }
        (
            slope * f64::from(self.scale[n]) * f64::from(self.input_step) / step,
            shift / step,
        )
    }
}

fn negate(trits: &mut [Trit]) {
    for t in trits {
        *t = match *t {
            Trit::Minus => Trit::Plus,
            Trit::Zero => Trit::Zero,
            Trit::Plus => Trit::Minus,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::quantize::Order;
    use crate::train::config::Config;
    use crate::train::graph::{Activations, Gradients, Images, Statistics, forward};
    use crate::train::parameters::Parameters;
    use ternwatch_detector::{Detector, LayerOutput};
    use ternwatch_kernels::Isa;

    /// Parameters that were trained, fixed at their levels.
    fn trained(network: &Network, seed: u64) -> (Parameters, Quantizer) {
        let mut parameters = Parameters::as_training_leaves_them(network, seed);
        let mut quantizer = Quantizer::fit(&parameters, &config().quantize);
        quantizer.fix(&mut parameters, 1.0, Order::Nearest);
        (parameters, quantizer)
    }

    fn config() -> Config {
        let mut config: Config = toml::from_str(include_str!("../../models/person.toml")).unwrap();
        config.network = Some(crate::network::Config {
            width: 72,
            height: 56,
            stem: [5, 7],
            stage8: vec![8, 6],
            stage16: vec![9],
            stage32: vec![10],
            neck: 6,
        });
        config
    }

    #[test]
    fn the_bundle_computes_what_was_trained() {
        let config = config();
        let network = Network::new(config.network.as_ref().unwrap(), 1);
        for seed in 0..3 {
            let (parameters, quantizer) = trained(&network, seed);
            let card = serde_json::Value::Null;
            let source = Source {
                id: config.id(),
                classes: vec!["person".into()],
                thresholds: config.thresholds(),
                network: &network,
                parameters: &parameters,
                quantizer: &quantizer,
                card,
            };
            let key = SecretKey::from_bytes(&[7; 32]);
            let file = bundle(&source, &key).unwrap();
            let model = files::model_from(&file, key.public_key()).unwrap();
            golden::check(&model, Isa::detect()).unwrap();

            let mut rng = fastrand::Rng::with_seed(seed);
            let image: Vec<u8> = (0..3 * 72 * 56).map(|_| rng.u8(0..128)).collect();
            let data = image.iter().map(|&v| f32::from(v) / 127.0).collect();
            let images = Images {
                data,
                count: 1,
                height: 56,
                width: 72,
            };
            let mode = (Activations::U7, Statistics::Running);
            let pass = forward(&network, &parameters, images, mode, Gradients::None).unwrap();

            let mut detector = Detector::new(&model, Isa::detect()).unwrap();
            detector.input_mut().copy_from_slice(&image);
            let mut outputs = HashMap::new();
            detector.infer_observed(|layer, output| {
                if let LayerOutput::I16(values) = output {
                    outputs.insert(layer, values.to_vec());
                }
            });
            for (head, expected) in model.heads().iter().zip(&pass.outputs) {
                let scales = match &model.layers()[head.layer] {
                    ternwatch_bundle::model::ModelLayer::Conv(conv) => match &conv.epilogue {
                        ternwatch_bundle::model::Epilogue::Linear { scale } => scale.clone(),
                        other => panic!("{other:?}"),
                    },
                    other => panic!("{other:?}"),
                };
                let cells = expected.height * expected.width;
                let errors = outputs[&head.layer].iter().zip(&expected.data).enumerate();
                let errors: Vec<f32> = errors
                    .map(|(i, (v, e))| (f32::from(*v) * scales[i / cells] - e).abs())
                    .collect();
                let mean = errors.iter().sum::<f32>() / errors.len() as f32;
                // Rounding can differ by a step where a sum lies on the border of two steps.
                assert!(mean < 0.02, "stride {}: mean error {mean}", head.stride);
            }
        }
    }

    /// Channels as they are folded.
    fn channels<'a>(
        trits: &[Trit],
        (scale, gamma, beta, variance): (&'a [f32], &'a [f32], &'a [f32], &'a [f32]),
    ) -> Channels<'a> {
        Channels {
            trits: trits.into(),
            scale,
            input_step: 1.0,
            gamma,
            beta,
            mean: &[0.0, 0.0],
            variance,
        }
    }

    #[test]
    fn an_output_that_hardly_depends_on_its_inputs_becomes_constant() {
        use Trit::{Plus, Zero};
        let ones = [1.0, 1.0];
        // No weights at all, and a weight that is nothing beside the bias.
        let scale = [0.0, 1e-6];
        let linear = channels(
            &[Zero, Zero, Plus, Zero],
            (&scale, &ones, &[-4.0, 3.0], &ones),
        );
        let folded = linear.fold_linear().unwrap();
        let answers: Vec<f32> = folded
            .bias
            .iter()
            .zip(&folded.scale)
            .map(|(b, s)| f32::from(*b) * s)
            .collect();
        assert_eq!(answers, [-4.0, 3.0]);
        assert!(folded.trits.iter().all(|t| *t == Zero));
        // One that does depend on them and does not fit is refused.
        let scale = [1e-4];
        let linear = channels(&[Plus; 20], (&scale, &[1.0], &[-4.0], &[1.0]));
        let error = linear.fold_linear().err().unwrap();
        assert!(error.is::<Unfit>(), "{error:#}");
        assert!(error.to_string().contains("channel 0"), "{error:#}");
    }

    #[test]
    fn a_channel_that_was_never_seen_to_change_decides_nothing_for_the_others() {
        use Trit::Plus;
        let (scale, gamma) = ([0.05, 0.05], [1.0, 1.0]);
        let relu = |variance: &[f32]| {
            channels(&[Plus; 4], (&scale, &gamma, &[2.0, 2.0], variance)).fold_relu()
        };
        let (alone, beside) = (relu(&[4.0, 4.0]).unwrap(), relu(&[4.0, 0.0]).unwrap());
        assert_eq!(beside.pre_shift, alone.pre_shift);
        assert_eq!(beside.multiplier[0], alone.multiplier[0]);
        assert_eq!(beside.trits[2..], [Trit::Zero; 2]);
    }
}
