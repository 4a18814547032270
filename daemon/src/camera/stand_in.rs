//! Scripts that stand in for the programs that deliver frames, for tests.

use super::{CameraError, Waits};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, io};
use tempfile::TempDir;

/// Longer than anything takes here.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A program that does what the script says, as long as its folder is kept.
pub(super) fn program(name: &str, script: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join(name);
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    (folder, program)
}

/// What `start` gives. A process that another test starts may hold the script open for a moment.
pub(super) fn started<T>(start: impl Fn() -> Result<T, CameraError>) -> Result<T, CameraError> {
    let deadline = Instant::now() + LONG;
    loop {
        match start() {
            Err(CameraError::Open { source, .. })
                if source.kind() == io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < deadline => {}
            started => return started,
        }
    }
}

/// So long for everything.
pub(super) fn all(wait: Duration) -> Waits {
    Waits {
        opening: wait,
        stall: wait,
    }
}
