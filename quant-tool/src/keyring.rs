//! Keyrings: which keys sign models, signed by roots (docs/ota.md).

use std::path::Path;

use anyhow::{Context, Result};
use ternwatch_bundle::keyring::{self, Body, Keyring, SCHEMA};
use ternwatch_bundle::{SecretKey, hex};

use crate::cli;
use crate::files;
use crate::tell::out;

/// Writes the file of root keys.
pub fn roots(args: &cli::Roots) -> Result<()> {
    let keys = args.keys.iter().map(|path| files::public_key(path));
    let roots = keyring::Roots::new(keys.collect::<Result<_>>()?, args.threshold)?;
    files::write(&args.out, roots.to_text().as_bytes())
}

/// Signs a keyring, and reads it back as a device will.
pub fn sign(args: &cli::Keyring) -> Result<()> {
    let text = |path: &std::path::PathBuf| key_text(path);
    let body = Body {
        schema: SCHEMA,
        version: args.version,
        signed_at_s: files::seconds_since_1970(),
        models: args.model.iter().map(text).collect::<Result<_>>()?,
        revoked: args.revoke.iter().map(text).collect::<Result<_>>()?,
        resets: args.reset.iter().cloned().collect(),
    };
    let roots = args.root.iter().map(|path| files::secret_key(path));
    let roots: Vec<SecretKey> = roots.collect::<Result<_>>()?;
    let file = keyring::sign(&body, &roots)?;
    // Whether these are enough is for the devices' file of roots to say; that they are different, here.
    let keys: Vec<_> = roots.iter().map(SecretKey::public_key).collect();
    let count = keys.len();
    let signers = keyring::Roots::new(keys, count).context("--root")?;
    Keyring::verify(&file, &signers).context("what was signed")?;
    files::write(&args.out, &file)?;
    out!(
        "{}: version {}, {} keys, {} revoked, signed by {count} roots",
        args.out.display(),
        body.version,
        body.models.len(),
        body.revoked.len()
    );
    Ok(())
}

fn key_text(path: &Path) -> Result<String> {
    Ok(hex::encode(&files::public_key(path)?.to_bytes()))
}
