//! What a folder of the run was made with, and what was measured in it, so that neither is mixed up nor done twice.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files;

/// Checkpoints of other settings than those asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} holds checkpoints of other settings ({}): choose another --run, or remove that folder",
    .folder.display(), .keys.join(", ")
)]
pub(crate) struct OtherSettings {
    folder: PathBuf,
    /// Those that differ.
    keys: Vec<String>,
}

/// What was measured, and with which pictures.
#[derive(Serialize, Deserialize)]
struct Measured<T> {
    /// SHA-256 of what was examined with.
    examined_with: String,
    outcome: T,
}

/// Creates a folder for these settings (a table), or checks that it is theirs.
pub(super) fn claim(folder: &Path, settings: &impl Serialize) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = folder.join("settings.json");
    let text = serde_json::to_string_pretty(settings)?;
    if path.exists() {
        // Numbers are compared as they are read: not every one is read as it was before it was written.
        let settings: Value = serde_json::from_str(&text)?;
        let before: Value = read(&path)?;
        let keys = files::differing(&before, &settings);
        if !keys.is_empty() {
            let folder = folder.into();
            bail!(OtherSettings { folder, keys });
        }
        return Ok(());
    }
    files::write(&path, text.as_bytes())
}

/// What was measured in a folder with the same pictures, if it was.
pub(super) fn outcome<T: DeserializeOwned>(
    folder: &Path,
    examined_with: &str,
) -> Result<Option<T>> {
    let path = folder.join("outcome.json");
    if !path.exists() {
        return Ok(None);
    }
    let measured: Measured<T> = read(&path)?;
    Ok((measured.examined_with == examined_with).then_some(measured.outcome))
}

/// Keeps what was measured; the last that is written into a folder.
pub(super) fn keep<T: Serialize>(folder: &Path, examined_with: &str, outcome: T) -> Result<T> {
    let measured = Measured {
        examined_with: examined_with.to_owned(),
        outcome,
    };
    let text = serde_json::to_string_pretty(&measured)?;
    files::write(&folder.join("outcome.json"), text.as_bytes())?;
    Ok(measured.outcome)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&files::read_text(path)?).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_folder_is_of_one_set_of_settings_which_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("way");
        let settings = |rate: f32| json!({ "seed": 1, "quantize": { "rate": rate, "steps": 3 } });
        claim(&folder, &settings(0.5)).unwrap();
        claim(&folder, &settings(0.5)).unwrap();
        let error = claim(&folder, &settings(0.25)).unwrap_err().to_string();
        assert!(error.contains("(quantize.rate)"), "{error}");
        let error = claim(&folder, &json!({ "seed": 1 }))
            .unwrap_err()
            .to_string();
        assert!(error.contains("(quantize.rate, quantize.steps)"), "{error}");
    }

    #[test]
    fn what_was_measured_holds_for_the_same_pictures() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(outcome::<u32>(folder.path(), "a").unwrap(), None);
        keep(folder.path(), "a", 7).unwrap();
        assert_eq!(outcome(folder.path(), "a").unwrap(), Some(7));
        assert_eq!(outcome::<u32>(folder.path(), "b").unwrap(), None);
    }
}
