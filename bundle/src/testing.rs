//! Small random bundles for tests (feature `testing`).
//!
//! The network has every kind of layer, odd sizes at each stride and two heads; its weights are random, so its
//! detections mean nothing. The golden vectors are left to `detector`, which can run it.

use std::collections::BTreeMap;

use ternwatch_kernels::Trit;

use crate::hex;
use crate::keyring::{self, Body};
use crate::keys::{PublicKey, SecretKey, TrustedKeys};
use crate::manifest::{
    Activation, Head, HeadKind, Input, Layer, Manifest, ModelId, SCHEMA, Thresholds,
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

/// A keyring that trusts and revokes the keys of these seeds, signed by the roots of those.
pub fn keyring(version: u64, models: &[u8], revoked: &[u8], roots: &[u8]) -> Vec<u8> {
    let text = |seed: &u8| hex::encode(&secret(*seed).public_key().to_bytes());
    let body = Body {
        schema: keyring::SCHEMA,
        version,
        signed_at_s: 1_790_000_000,
        models: models.iter().map(text).collect(),
        revoked: revoked.iter().map(text).collect(),
        resets: BTreeMap::new(),
    };
    let roots: Vec<SecretKey> = roots.iter().map(|seed| secret(*seed)).collect();
    keyring::sign(&body, &roots).expect("within the bounds")
}

/// A signed random model without golden vectors, and the key that checks it.
pub fn small_bundle(seed: u64) -> (Vec<u8>, PublicKey) {
    let key = small_key();
    let file = small_draft(seed)
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
    let mut maker = Maker {
        random: Random(seed),
        writer: ParameterWriter::new(),
        layers: Vec::new(),
    };
    maker.relu("stem", "image", [3, 6], 3, 2);
    maker.relu("down4", "stem", [6, 6], 3, 2);
    maker.relu("body4", "down4", [6, 6], 3, 1);
    maker.relu("down8", "body4", [6, 8], 3, 2);
    maker.relu("lateral8", "down8", [8, 6], 1, 1);
    maker.layers.push(Layer::AddUpsampled {
        name: "merge4".into(),
        fine: "body4".into(),
        coarse: "lateral8".into(),
    });
    maker.relu("mix4", "merge4", [6, 6], 3, 1);
    maker.linear("head4", "mix4", [6, 6], 1);
    maker.linear("head8", "down8", [8, 6], 3);
    let manifest = Manifest {
        schema: SCHEMA,
        model: ModelId {
            name: "small-test".into(),
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
        layers: maker.layers,
        heads: vec![
            Head {
                layer: "head4".into(),
                stride: 4,
                kind: HeadKind::Boxes,
            },
            Head {
                layer: "head8".into(),
                stride: 8,
                kind: HeadKind::Boxes,
            },
        ],
        golden: Vec::new(),
        release: None,
        card: serde_json::json!({ "purpose": "tests" }),
    };
    Draft {
        manifest,
        parameters: maker.writer.finish(),
    }
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
    /// A hidden layer. Bias and multiplier are such that most channels neither die nor saturate.
    fn relu(&mut self, name: &str, input: &str, channels: [u32; 2], kernel: u32, stride: u32) {
        let trits = self.trits(channels, kernel);
        let spread = self.spread(channels[0] * kernel * kernel);
        let bias = self.draw(channels[1], |random| {
            (spread + random.below(u64::from(spread) / 2) as u32) as i16
        });
        let multiplier = self.draw(channels[1], |random| {
            ((28 << 15) / spread + random.below(256) as u32) as i16
        });
        // Half of the multiplier and a shift of one are the same function: both paths run.
        let multiplier: Vec<i16> = multiplier.iter().map(|m| m / 2).collect();
        let offset = self.writer.relu_conv(&trits, &bias, &multiplier);
        self.push(
            name,
            input,
            channels,
            kernel,
            stride,
            Activation::Relu,
            offset,
        );
    }

    fn linear(&mut self, name: &str, input: &str, channels: [u32; 2], kernel: u32) {
        let trits = self.trits(channels, kernel);
        let spread = self.spread(channels[0] * kernel * kernel);
        let bias = self.draw(channels[1], |random| {
            random.below(u64::from(2 * spread)) as i16 - spread as i16 / 2
        });
        let scale: Vec<f32> = vec![2.0 / spread as f32; channels[1] as usize];
        let offset = self.writer.linear_conv(&trits, &bias, &scale);
        self.push(name, input, channels, kernel, 1, Activation::Linear, offset);
    }

    #[expect(clippy::too_many_arguments, reason = "they are the layer's fields")]
    fn push(
        &mut self,
        name: &str,
        input: &str,
        [in_channels, out_channels]: [u32; 2],
        kernel: u32,
        stride: u32,
        activation: Activation,
        offset: u32,
    ) {
        let pre_shift = if activation == Activation::Relu { 1 } else { 0 };
        let (name, input) = (name.to_owned(), input.to_owned());
        self.layers.push(Layer::Conv {
            name,
            input,
            in_channels,
            out_channels,
            kernel,
            stride,
            activation,
            pre_shift,
            offset,
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
        24 * (terms * 2 / 3).isqrt()
    }
}
