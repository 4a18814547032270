//! Signatures of bundles that are there already: checked, and made anew with another key, as another version, or for
//! another size of the input.

use anyhow::{Context, Result};
use ternwatch_bundle::manifest::Release;
use ternwatch_bundle::write::Draft;
use ternwatch_bundle::{Model, PublicKey, TrustedKeys, UnverifiedBundle, hex};
use ternwatch_detector::golden;
use ternwatch_kernels::Isa;
use ternwatch_ota::identity::VERSION_MAX;

use crate::cli::{BundleFile, Sign};
use crate::exit::misused;
use crate::tell::{note, out};
use crate::{export, files};

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Checks a bundle as a device does, and says what it is.
pub fn verify(file: &BundleFile) -> Result<()> {
    let (key, bytes) = (files::key_of(file)?, files::read(&file.bundle)?);
    let id = key.id();
    let model = checked(&bytes, key).with_context(|| file.bundle.display().to_string())?;
    out!(
        "{} version {}, sha256 {}, {} bytes, signed with key {id}, {} golden vectors match",
        model.id().name,
        model.id().version,
        hex::encode(&model.sha256()),
        bytes.len(),
        model.golden().len()
    );
    Ok(())
}

/// Signs a bundle anew. A model that gives its recorded answers gets new ones, which may be more than it had.
pub fn sign(args: &Sign) -> Result<()> {
    let key = files::key_of(&args.bundle)?;
    let keys = TrustedKeys::from_iter([key.clone()]);
    let path = || args.bundle.bundle.display().to_string();
    let file = files::read(&args.bundle.bundle)?;
    checked(&file, key).with_context(path)?;
    let bundle = UnverifiedBundle::from_bytes(&file).and_then(|bundle| bundle.verify(&keys));
    let mut draft = Draft::of(&bundle.with_context(path)?);
    if let Some(version) = args.version {
        if version > VERSION_MAX {
            return Err(misused(format!(
                "--version: {version} is more than {VERSION_MAX}, the greatest that every device can count"
            )));
        }
        draft.manifest.model.version = version;
    }
    if let Some(name) = &args.name {
        draft.manifest.model.name.clone_from(name);
    }
    let threshold = &mut draft.manifest.thresholds.score;
    let score = args.score.unwrap_or(*threshold);
    let mut is_measured = score == *threshold;
    *threshold = score;
    let signed_at_s = files::seconds_since_1970();
    let before = draft.manifest.release.take();
    draft.manifest.release = Some(Release {
        signed_at_s,
        not_after_s: args.valid_days.map(|days| signed_at_s + days * DAY_S),
        daemon_min: args.daemon_min.or(before.and_then(|r| r.daemon_min)),
    });
    let key = files::secret_key(&args.with)?;
    if let Some([width, height]) = args.input {
        let input = &mut draft.manifest.input;
        let before = [input.width, input.height];
        (input.width, input.height) = (width, height);
        if let Some(card) = draft.manifest.card.as_object_mut() {
            card.insert("resized_from".into(), before.into());
        }
        is_measured = false;
    }
    if !is_measured
        && let Some(card) = draft.manifest.card.as_object_mut()
        && card.remove("evaluation").is_some()
    {
        note!(
            "its card tells no more how well it does: that was measured at another threshold or size; `quant-tool evaluate` \
             measures it anew"
        );
    }
    export::record_golden(&mut draft, &key)?;
    let signed = draft.sign(&key)?;
    let model = checked(&signed, key.public_key()).with_context(path)?;
    files::write(&args.out, &signed)?;
    out!(
        "{}: {} version {}, signed with key {}",
        args.out.display(),
        model.id().name,
        model.id().version,
        key.public_key().id()
    );
    Ok(())
}

/// The model in a bundle that a device takes: its signature is good, its numbers make sense, it has recorded answers and
/// gives them here.
pub fn checked(file: &[u8], key: PublicKey) -> Result<Model> {
    let model = files::model_from(file, key)?;
    golden::check(&model, Isa::detect())?;
    Ok(model)
}
