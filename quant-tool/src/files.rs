//! Files in and out: keys and bundles, bounded before they are read.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use ternwatch_bundle::{Manifest, Model, PublicKey, SecretKey, TrustedKeys, UnverifiedBundle};

use crate::cli::BundleFile;
use crate::tell::out;

/// More than any bundle or key has, in bytes.
const FILE_BYTES_MAX: u64 = 17 << 20;

/// Reads a whole file of bounded size.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", path.display()))?;
    ensure!(bytes.len() as u64 <= FILE_BYTES_MAX, TooLarge(path.into()));
    Ok(bytes)
}

/// A file is larger than anything that it could be.
#[derive(Debug, thiserror::Error)]
#[error("{}: more than {FILE_BYTES_MAX} bytes", .0.display())]
pub struct TooLarge(PathBuf);

/// Reads a text of bounded size.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).with_context(|| format!("{}: not UTF-8", path.display()))
}

/// Reads a secret key.
pub fn secret_key(path: &Path) -> Result<SecretKey> {
    SecretKey::from_text(&read_text(path)?).with_context(|| path.display().to_string())
}

/// Reads a public key.
pub fn public_key(path: &Path) -> Result<PublicKey> {
    PublicKey::from_text(&read_text(path)?).with_context(|| path.display().to_string())
}

/// The key that checks a bundle.
pub fn key_of(file: &BundleFile) -> Result<PublicKey> {
    match &file.key {
        Some(key) => public_key(key),
        None => public_key(&file.bundle.with_file_name("default.pub")),
    }
}

/// A bundle whose signature is good, loaded.
pub fn model(file: &BundleFile) -> Result<Model> {
    let key = key_of(file)?;
    model_from(&read(&file.bundle)?, key).with_context(|| file.bundle.display().to_string())
}

/// A bundle from its bytes and the key that must have signed it.
pub fn model_from(bytes: &[u8], key: PublicKey) -> Result<Model> {
    let bundle = UnverifiedBundle::from_bytes(bytes)?.verify(&TrustedKeys::from_iter([key]))?;
    Ok(Model::load(&bundle)?)
}

/// All of a bundle whose signature is good.
pub struct Opened {
    /// What the signer says.
    pub manifest: Manifest,
    /// The network.
    pub model: Model,
    /// Bytes of the file.
    pub file_len: usize,
    /// Bytes of it that are parameters.
    pub parameters_len: usize,
}

/// Opens a bundle that one of these keys signed.
pub fn open(path: &Path, keys: impl IntoIterator<Item = PublicKey>) -> Result<Opened> {
    let file = read(path)?;
    let opened = || {
        let bundle = UnverifiedBundle::from_bytes(&file)?.verify(&TrustedKeys::from_iter(keys))?;
        Ok::<_, anyhow::Error>(Opened {
            manifest: bundle.manifest().clone(),
            model: Model::load(&bundle)?,
            file_len: file.len(),
            parameters_len: bundle.parameters().len(),
        })
    };
    opened().with_context(|| path.display().to_string())
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes)
}

/// Makes a key pair at `prefix`.secret and `prefix`.pub; never overwrites one.
pub fn keygen(prefix: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let key = SecretKey::from_bytes(&random()?);
    let path = |ending: &str| PathBuf::from(format!("{}.{ending}", prefix.display()));
    let write = |path: &Path, mode: u32, text: String| {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path);
        file.and_then(|mut f| f.write_all(text.as_bytes()))
            .with_context(|| format!("writing {}", path.display()))
    };
    let [secret, public] = ["secret", "pub"].map(path);
    for file in [&secret, &public] {
        ensure!(!file.exists(), Exists(file.clone()));
    }
    write(&secret, 0o600, key.to_text())?;
    // A secret key that nobody can check would only stand in the way of the next call.
    write(&public, 0o644, key.public_key().to_text())
        .inspect_err(|_| drop(std::fs::remove_file(&secret)))?;
    out!("{}\n{}", secret.display(), public.display());
    Ok(())
}

/// A file that is not overwritten.
#[derive(Debug, thiserror::Error)]
#[error("{} exists already", .0.display())]
pub struct Exists(PathBuf);

/// Another call that works in the same folder.
#[derive(Debug, thiserror::Error)]
#[error("another quant-tool is at work in {}", .0.display())]
pub struct Busy(PathBuf);

/// Creates a folder where there is none, and keeps every other call out of it until what comes back is dropped.
#[must_use = "others are let in where it is dropped"]
pub fn keep_others_out(folder: &Path) -> Result<File> {
    let place = || CannotWrite(folder.into());
    create_folder(folder)?;
    let handle = File::open(folder).with_context(place)?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => bail!(Busy(folder.into())),
        Err(TryLockError::Error(error)) => Err(error).with_context(place),
    }
}

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", .0.display())]
pub struct CannotWrite(PathBuf);

/// Writes a file beside its name and renames it, so that nobody sees half of it, not even after a power cut.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write()
        // Nothing is lost if it cannot be removed either.
        .inspect_err(|_| drop(std::fs::remove_file(&partial)))
        .with_context(|| CannotWrite(path.into()))
}

/// Refuses a file's place that is in no folder, before work is done for it.
pub fn check_place(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let is_folder = match std::fs::metadata(folder.unwrap_or(Path::new("."))) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(ErrorKind::NotADirectory.into()),
        Err(error) => Err(error),
    };
    is_folder.with_context(|| CannotWrite(path.into()))
}

/// Creates a folder and those around it where they are missing.
pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| CannotWrite(path.into()))
}

/// Removes a file if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| CannotWrite(path.into()))
        }
        _ => Ok(()),
    }
}

/// The system's clock.
pub fn seconds_since_1970() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// Keys whose values in two tables are not the same, of tables within tables as `outer.inner`.
pub fn differing(a: &Value, b: &Value) -> Vec<String> {
    let keys = |value: &Value| {
        let keys = value.as_object().into_iter().flat_map(Map::keys);
        keys.cloned().collect::<BTreeSet<_>>()
    };
    let all: Vec<String> = keys(a).union(&keys(b)).cloned().collect();
    if all.is_empty() {
        return (a != b).then(String::new).into_iter().collect();
    }
    // A key that is missing on one side counts as null there.
    let inner = all.iter().flat_map(|key| {
        let inner = differing(&a[key.as_str()], &b[key.as_str()]).into_iter();
        inner.map(move |below| match below.is_empty() {
            true => key.clone(),
            false => format!("{key}.{below}"),
        })
    });
    inner.collect()
}
