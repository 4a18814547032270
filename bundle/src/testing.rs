//! Small random bundles for tests (feature `testing`).
//!
//! The small network is of the kind that quant-tool trains; the branched one has every layer that networks trained elsewhere
//! have. Both have odd sizes at each stride and two heads; their weights are random, so their detections mean nothing. The
//! golden vectors are left to `detector`, which can run them.

use std::collections::BTreeMap;

use ternwatch_kernels::Trit;

use crate::hex;
use crate::keyring::{self, Body};
use crate::keys::{PublicKey, SecretKey, TrustedKeys};
use crate::manifest::{
    Activation, Head, HeadKind, Input, Layer, Manifest, ModelId, PoolMode, SCHEMA, Thresholds,
};
use crate::model::Model;
use crate::parse::UnverifiedBundle;
use crate::write::{Draft, ParameterWriter, WriteError, sign_raw};

/// Signs the test bundles. Everybody knows it: never trust it outside of tests.
pub fn small_key() -> SecretKey {
    SecretKey::from_bytes(&[7; 32])
}

/// The secret key that everybody can make of this seed.
pub fn secret(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

/// When the keyrings of [`keyring`] were signed, in seconds since 1970.
pub const KEYRING_SIGNED_AT_S: u64 = 1_790_000_000;

/// A keyring that trusts and revokes the keys of these seeds, signed by the roots of those.
pub fn keyring(version: u64, models: &[u8], revoked: &[u8], roots: &[u8]) -> Vec<u8> {
    let text = |seed: &u8| hex::encode(&secret(*seed).public_key().to_bytes());
    let body = Body {
        schema: keyring::SCHEMA,
        version,
        signed_at_s: KEYRING_SIGNED_AT_S,
        models: models.iter().map(text).collect(),
        revoked: revoked.iter().map(text).collect(),
        resets: BTreeMap::new(),
    };
    let roots: Vec<SecretKey> = roots.iter().map(|seed| secret(*seed)).collect();
    keyring::sign(&body, &roots).expect("within the bounds")
}

/// A signed random model without golden vectors, and the key that checks it.
pub fn small_bundle(seed: u64) -> (Vec<u8>, PublicKey) {
    signed(&small_draft(seed))
}

/// As [`small_bundle`], of [`branched_draft`].
pub fn branched_bundle(seed: u64) -> (Vec<u8>, PublicKey) {
    signed(&branched_draft(seed))
}

fn signed(draft: &Draft) -> (Vec<u8>, PublicKey) {
    let key = small_key();
    let file = draft
        .sign(&key)
        .expect("a small model is within the bounds");
    (file, key.public_key())
}

/// Verifies and loads a file, as the daemon does.
pub fn load(file: &[u8], key: &PublicKey) -> Model {
    let keys = TrustedKeys::from_iter([key.clone()]);
    let bundle = UnverifiedBundle::from_bytes(file).and_then(|bundle| bundle.verify(&keys));
    Model::load(&bundle.expect("the bundle is signed with this key")).expect("the model is sane")
}

/// Signs any bytes as a manifest, so that tests reach what lies behind the signature.
pub fn sign_manifest(
    manifest: &[u8],
    parameters: &[u8],
    key: &SecretKey,
) -> Result<Vec<u8>, WriteError> {
    sign_raw(manifest, parameters, key)
}

/// A random model before its signature: 36 x 28 pixels, heads at strides 4 and 8.
pub fn small_draft(seed: u64) -> Draft {
    let mut maker = Maker::new(seed);
    maker.relu("stem", "image", [3, 6], 3, 2);
    maker.relu("down4", "stem", [6, 6], 3, 2);
    maker.relu("body4", "down4", [6, 6], 3, 1);
    maker.relu("down8", "body4", [6, 8], 3, 2);
    maker.relu("lateral8", "down8", [8, 6], 1, 1);
    maker.add_upsampled("merge4", "body4", "lateral8");
    maker.relu("mix4", "merge4", [6, 6], 3, 1);
    maker.linear("head4", "mix4", [6, 6], 1);
    maker.linear("head8", "down8", [8, 6], 3);
    maker.finish("small-test")
}

/// A random model before its signature, of the same input and heads: depthwise convolutions of both kernels and strides,
/// additions with an offset and without, one of a tensor to itself, a concatenation, and pools of both modes and all kernels.
pub fn branched_draft(seed: u64) -> Draft {
    let mut maker = Maker::new(seed);
    maker.relu("stem", "image", [3, 6], 3, 2);
    maker.pool("mean4", "stem", PoolMode::Mean, 2, 2);
    maker.depthwise("deep4", "stem", 6, 3, 2);
    maker.relu("mix4", "deep4", [6, 6], 1, 1);
    maker.add("sum4", ["mean4", "mix4"], 0);
    maker.depthwise("scale4", "sum4", 6, 1, 1);
    maker.depthwise("deeper4", "scale4", 6, 3, 1);
    maker.pool("around4", "deeper4", PoolMode::Max, 5, 1);
    maker.concat("all4", &["sum4", "around4", "deeper4"]);
    maker.pool("down8", "all4", PoolMode::Max, 3, 2);
    maker.add("double8", ["down8", "down8"], 100);
    maker.pool("corner8", "double8", PoolMode::Max, 2, 1);
    maker.add_upsampled("merge4", "all4", "corner8");
    maker.linear("head4", "merge4", [18, 6], 1);
    maker.pool("half8", "merge4", PoolMode::Max, 2, 2);
    maker.add("sum8", ["half8", "double8"], 80);
    maker.linear("head8", "sum8", [18, 6], 3);
    maker.finish("branched-test")
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

struct Maker {
    random: Random,
    writer: ParameterWriter,
    layers: Vec<Layer>,
}

impl Maker {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            writer: ParameterWriter::new(),
            layers: Vec::new(),
        }
    }

    /// A model of two classes whose heads are named `head4` and `head8`.
    fn finish(self, name: &str) -> Draft {
        let head = |stride| Head {
            layer: format!("head{stride}"),
            stride,
            kind: HeadKind::Boxes,
        };
        let manifest = Manifest {
            schema: SCHEMA,
            model: ModelId {
                name: name.into(),
                version: 1,
            },
            input: Input {
                width: 36,
                height: 28,
                channels: 3,
                fill: 57,
            },
            classes: vec!["person".into(), "bicycle".into()],
            thresholds: Thresholds {
                score: 0.5,
                iou: 0.5,
            },
            layers: self.layers,
            heads: vec![head(4), head(8)],
            golden: Vec::new(),
            release: None,
            card: serde_json::json!({ "purpose": "tests" }),
        };
        Draft {
            manifest,
            parameters: self.writer.finish(),
        }
    }

    fn relu(&mut self, name: &str, input: &str, channels: [u32; 2], kernel: u32, stride: u32) {
        self.hidden(name, input, channels, 1, kernel, stride);
    }

    fn depthwise(&mut self, name: &str, input: &str, channels: u32, kernel: u32, stride: u32) {
        self.hidden(name, input, [channels; 2], channels, kernel, stride);
    }

    /// A hidden layer. Bias and multiplier are such that most channels neither die nor saturate.
    fn hidden(
        &mut self,
        name: &str,
        input: &str,
        [in_channels, out_channels]: [u32; 2],
        groups: u32,
        kernel: u32,
        stride: u32,
    ) {
        let group_inputs = in_channels / groups;
        let trits = self.trits([group_inputs, out_channels], kernel);
        let spread = self.spread(group_inputs * kernel * kernel);
        let bias = self.draw(out_channels, |random| {
            (spread + random.below(u64::from(spread) / 2) as u32) as i16
        });
        let multiplier = self.draw(out_channels, |random| {
            ((28 << 15) / spread + random.below(256) as u32) as i16
        });
        // Half of the multiplier and a shift of one are the same function: both paths run.
        let multiplier: Vec<i16> = multiplier.iter().map(|m| m / 2).collect();
        let offset = self.writer.relu_conv(&trits, &bias, &multiplier);
        self.layers.push(Layer::Conv {
            name: name.into(),
            input: input.into(),
            in_channels,
            out_channels,
            kernel,
            stride,
            groups,
            activation: Activation::Relu,
            pre_shift: 1,
            offset,
        });
    }

    fn linear(
        &mut self,
        name: &str,
        input: &str,
        [in_channels, out_channels]: [u32; 2],
        kernel: u32,
    ) {
        let trits = self.trits([in_channels, out_channels], kernel);
        let spread = self.spread(in_channels * kernel * kernel);
        let bias = self.draw(out_channels, |random| {
            random.below(u64::from(2 * spread)) as i16 - spread as i16 / 2
        });
        let scale: Vec<f32> = vec![2.0 / spread as f32; out_channels as usize];
        let offset = self.writer.linear_conv(&trits, &bias, &scale);
        self.layers.push(Layer::Conv {
            name: name.into(),
            input: input.into(),
            in_channels,
            out_channels,
            kernel,
            stride: 1,
            groups: 1,
            activation: Activation::Linear,
            pre_shift: 0,
            offset,
        });
    }

    fn add_upsampled(&mut self, name: &str, fine: &str, coarse: &str) {
        self.layers.push(Layer::AddUpsampled {
            name: name.into(),
            fine: fine.into(),
            coarse: coarse.into(),
        });
    }

    fn add(&mut self, name: &str, inputs: [&str; 2], offset: u8) {
        self.layers.push(Layer::Add {
            name: name.into(),
            inputs: inputs.map(String::from),
            offset,
        });
    }

    fn concat(&mut self, name: &str, inputs: &[&str]) {
        self.layers.push(Layer::Concat {
            name: name.into(),
            inputs: inputs.iter().copied().map(String::from).collect(),
        });
    }

    fn pool(&mut self, name: &str, input: &str, mode: PoolMode, kernel: u32, stride: u32) {
        self.layers.push(Layer::Pool {
            name: name.into(),
            input: input.into(),
            mode,
            kernel,
            stride,
        });
    }

    /// Random trits, but as many plus as minus within each kernel, or among the inputs of a kernel of one: the sums
    /// then have a mean of about zero whatever the inputs' means, and `bias` alone decides that a channel is alive.
    fn trits(&mut self, [in_channels, out_channels]: [u32; 2], kernel: u32) -> Vec<Trit> {
        let group_len = if kernel == 1 {
            in_channels
        } else {
            kernel * kernel
        };
        let count = in_channels * out_channels * kernel * kernel;
        let group = |_| {
            let mut trits: Vec<Trit> = (0..group_len as usize)
                .map(|i| [Trit::Plus, Trit::Minus, Trit::Zero][i % 3])
                .collect();
            for last in (1..trits.len()).rev() {
                trits.swap(last, self.random.below(last as u64 + 1) as usize);
            }
            trits
        };
        (0..count / group_len).flat_map(group).collect()
    }

    fn draw<T>(&mut self, count: u32, mut one: impl FnMut(&mut Random) -> T) -> Vec<T> {
        (0..count).map(|_| one(&mut self.random)).collect()
    }

    /// Roughly the standard deviation of the sum of `terms` random trits times activations.
    fn spread(&self, terms: u32) -> u32 {
        24 * (terms * 2 / 3).isqrt().max(2)
    }
}
