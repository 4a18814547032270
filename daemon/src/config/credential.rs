//! Files that settings name, which may be credentials of systemd's.

use std::path::{Path, PathBuf};

/// Where the file is. A name without a slash is a credential (systemd.exec(5), "Credentials"): none if systemd passed none.
pub fn located(path: &Path) -> Option<PathBuf> {
    if path.components().count() != 1 || !path.is_relative() {
        return Some(path.into());
    }
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    Some(Path::new(&folder).join(path))
}
