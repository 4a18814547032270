//! Which model the daemon begins with. Whatever the state folder has become, there is an answer.

use super::check::{self, Refusal, chain};
use super::machine::{Event, Identity};
use super::store::{Store, StoreError};
use super::trust;
use crate::config::Config;
use crate::disk::{Disk, SystemDisk};
use crate::model::{self, LoadError, Loaded};
use ternwatch_bundle::parse::FILE_LEN_MAX;
use ternwatch_detector::Isa;

use super::digest::Digest;

/// What the daemon begins with.
#[derive(Debug)]
pub struct Start {
    /// The model in use: never one that is on trial.
    pub loaded: Loaded,
    /// Where updates are kept, if they are possible.
    pub store: Option<Store<SystemDisk>>,
}

/// Checks this processor, loads the model in use; falls back to the one before and to the packaged one.
pub fn start(config: &Config, isa: Isa) -> Result<Start, LoadError> {
    model::check_cameras(isa)?;
    let folder = &config.update.state_dir;
    if !folder.is_dir() {
        log::info!("no updates of the model: {} is no folder", folder.display());
        return packaged_only(config, isa);
    }
    let mut store = match open_store(config) {
        Ok(store) => store,
        Err(error) => {
            log::warn!("no updates of the model: {}", chain(&error));
            return packaged_only(config, isa);
        }
    };
    if let Some(damage) = store.damage() {
        log::error!("{damage}; the packaged model is used, and updates begin anew");
    }
    if let Err(error) = store.step(Event::Restart) {
        log::warn!(
            "the state of the model cannot be changed: {}",
            chain(&error)
        );
    }
    // A mistyped path to the roots is a mistake to be told, and must not cost the model in use.
    trust::model_keys(&config.model, store.machine().record())?;
    while let Some(Identity { sha256, .. }) = store.machine().record().committed.clone() {
        match load_stored(&config.model, isa, &store, &sha256) {
            Ok(loaded) => {
                let store = Some(store);
                return Ok(Start { loaded, store });
            }
            Err(refusal) if refusal.passes() => {
                log::error!(
                    "the model in use cannot be read now, the packaged one begins: {}",
                    refusal.message
                );
                break;
            }
            Err(refusal) => {
                log::error!("the model in use is lost: {}", refusal.message);
                if let Err(error) = store.step(Event::Lose(sha256, refusal.reason)) {
                    log::error!("{}", chain(&error));
                    break;
                }
            }
        }
    }
    let loaded = model::load(&config.model, isa)?;
    let store = Some(store);
    Ok(Start { loaded, store })
}

fn packaged_only(config: &Config, isa: Isa) -> Result<Start, LoadError> {
    Ok(Start {
        loaded: model::load(&config.model, isa)?,
        store: None,
    })
}

/// Opens the state folder. A packaged model that is missing or refused is no obstacle.
pub fn open_store(config: &Config) -> Result<Store<SystemDisk>, StoreError> {
    let packaged = packaged(&config.model).ok().flatten();
    let mut store = Store::open(
        SystemDisk,
        &config.update.state_dir,
        packaged,
        config.update.attempts_max,
    )?;
    store.accept_only(config.update.names.clone());
    Ok(store)
}

/// What the packaged model says of itself.
fn packaged(config: &model::Config) -> Result<Option<Identity>, LoadError> {
    let keys = model::trusted_keys(config)?;
    let file = model::read(&config.bundle, FILE_LEN_MAX)?;
    model::verify(&keys, &config.bundle, &file).map(|bundle| check::identity(&bundle))
}

/// Loads a stored model: its signature and its recorded answers are checked every time.
pub fn load_stored<D: Disk>(
    config: &model::Config,
    isa: Isa,
    store: &Store<D>,
    sha256: &Digest,
) -> Result<Loaded, Refusal> {
    let file = store.model(sha256).map_err(check::unread)?;
    let keys = trust::model_keys(config, store.machine().record());
    let keys = keys.map_err(|error| check::refusal(&error, None))?;
    let path = store.model_path(sha256);
    let checked = check::check(config, &keys, isa, &path, &file, f64::MAX)?;
    Ok(checked.loaded)
}
