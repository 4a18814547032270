//! What a file must pass before it is stored: signature, sanity, recorded answers, speed on this very device.

use super::digest::Digest;
use super::machine::Identity;
use super::reason::Reason;
use super::release;
use super::store::StoreError;
use crate::disk::is_nothing;
use crate::model::{self, LoadError, Loaded};
use std::path::Path;
use std::time::{Duration, Instant};
use ternwatch_bundle::manifest::{Release, SCHEMA};
use ternwatch_bundle::parse::FORMAT_VERSION;
use ternwatch_bundle::{BundleError, TrustedKeys, VerifiedBundle};
use ternwatch_detector::{Detector, Frame, Isa, PixelFormat, Thresholds, golden};
use ternwatch_ota::identity::NAME_BYTES_MAX;

/// Inferences that are timed; the median counts.
const TIMED: usize = 5;
/// The frame that is timed: as large as the cameras that the daemon prefers.
const FRAME: (u32, u32) = (640, 480);

/// A model that passed.
#[derive(Debug)]
pub struct Checked {
    /// Ready to run.
    pub loaded: Loaded,
    /// What its file says.
    pub identity: Identity,
    /// When and for whom it was released.
    pub release: Option<Release>,
}

/// A model that did not pass.
#[derive(Debug)]
pub struct Refusal {
    /// Why, for programs.
    pub reason: Reason,
    /// What the file says, if its signature is good.
    pub signed: Option<Identity>,
    /// Why, for people.
    pub message: String,
}

impl Refusal {
    /// Whether it says nothing of the file: the memory card or the settings keep it from being read, now.
    pub fn passes(&self) -> bool {
        self.reason == Reason::StoreFailed
    }
}

/// Checks the bytes of a file that one of `keys` must have signed; `origin` is where they came from.
pub fn check(
    config: &model::Config,
    keys: &TrustedKeys,
    isa: Isa,
    origin: &Path,
    file: &[u8],
    latency_ms_max: f64,
) -> Result<Checked, Refusal> {
    let bundle = model::verify(keys, origin, file).map_err(|error| refusal(&error, None))?;
    let release = bundle.manifest().release.clone();
    let examined = examine(config, isa, origin, &bundle, latency_ms_max);
    match examined {
        Ok((loaded, identity)) => Ok(Checked {
            loaded,
            identity,
            release,
        }),
        // A later daemon may do what this one cannot: the file is not to be remembered as one that fails.
        Err(refusal) if release.as_ref().is_some_and(release::is_of_later) => Err(Refusal {
            reason: Reason::DaemonTooOld,
            ..refusal
        }),
        Err(refusal) => Err(refusal),
    }
}

/// What comes behind the signature.
fn examine(
    config: &model::Config,
    isa: Isa,
    origin: &Path,
    bundle: &VerifiedBundle<'_>,
    latency_ms_max: f64,
) -> Result<(Loaded, Identity), Refusal> {
    let identity = identity(bundle);
    let mut loaded = model::prepare(config, isa, origin, bundle)
        .map_err(|error| refusal(&error, identity.clone()))?;
    let too_slow = latency_ms_max < latency(&mut loaded.detector, loaded.thresholds);
    match identity {
        Some(identity) if !too_slow => Ok((loaded, identity)),
        signed => Err(Refusal {
            reason: if too_slow {
                Reason::TooSlow
            } else {
                Reason::ModelInvalid
            },
            signed,
            message: format!(
                "{}: an inference takes longer than {latency_ms_max} ms here (update.latency_ms_max)",
                origin.display()
            ),
        }),
    }
}

/// What a signed bundle says of itself, if its name has a length that a model's may have.
pub fn identity(bundle: &VerifiedBundle<'_>) -> Option<Identity> {
    let model = &bundle.manifest().model;
    (model.name.len() <= NAME_BYTES_MAX).then(|| Identity {
        name: model.name.clone(),
        version: model.version,
        sha256: Digest(bundle.sha256()),
    })
}

/// A stored model that could not be read. What is gone or has become something else stays so; what the card did not give may come
/// the next time.
pub(super) fn unread(error: StoreError) -> Refusal {
    Refusal {
        reason: match &error {
            StoreError::Io { source, .. } if !is_nothing(source) => Reason::StoreFailed,
            _ => Reason::FileDamaged,
        },
        signed: None,
        message: chain(&error),
    }
}

/// A model that did not pass because of this error.
pub(super) fn refusal(error: &LoadError, signed: Option<Identity>) -> Refusal {
    Refusal {
        reason: match error {
            LoadError::Read { .. } | LoadError::Key { .. } | LoadError::Roots { .. } => {
                Reason::StoreFailed
            }
            LoadError::Bundle { source, .. } => bundle_reason(source),
            LoadError::Model { .. } | LoadError::NoBoxes { .. } | LoadError::Detector { .. } => {
                Reason::ModelInvalid
            }
            LoadError::Golden { .. } | LoadError::Cameras { .. } => Reason::GoldenMismatch,
        },
        signed,
        message: chain(error),
    }
}

/// Somebody whose key is trusted here signed what is wrong with a manifest, and a format of later is no forgery.
fn bundle_reason(error: &BundleError) -> Reason {
    match error {
        BundleError::FormatVersion { found } if *found > FORMAT_VERSION => Reason::DaemonTooOld,
        BundleError::ManifestSchema { found } if *found > SCHEMA => Reason::DaemonTooOld,
        BundleError::ManifestOfDaemon { daemon_min, .. } if release::is_later(*daemon_min) => {
            Reason::DaemonTooOld
        }
        BundleError::ManifestSchema { .. }
        | BundleError::Manifest(_)
        | BundleError::ManifestOfDaemon { .. }
        | BundleError::ManifestLength { .. }
        | BundleError::BodyTooShort { .. } => Reason::ModelInvalid,
        _ => Reason::BadSignature,
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Milliseconds of an inference: the median of a few.
fn latency(detector: &mut Detector, thresholds: Thresholds) -> f64 {
    let (width, height) = FRAME;
    let picture = golden::draw(0, width, height);
    let frame = Frame::new(PixelFormat::Rgb8, width, height, &picture)
        .expect("the picture was drawn in this size");
    let mut times = [Duration::ZERO; TIMED];
    // The first one finds cold caches.
    detector.detect(&frame, thresholds);
    for time in &mut times {
        let begin = Instant::now();
        detector.detect(&frame, thresholds);
        *time = begin.elapsed();
    }
    times.sort_unstable();
    times[TIMED / 2].as_secs_f64() * 1000.0
}
