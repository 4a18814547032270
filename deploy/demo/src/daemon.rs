//! The daemon under demonstration: its configuration file and its process.

use crate::Arguments;
use crate::child::Running;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const TOPIC_PREFIX: &str = "ternwatch";

/// Starts it on the video, publishing to the broker on the loopback port.
pub(crate) fn start(arguments: &Arguments, port: u16) -> Result<Running> {
    let path = arguments.out.join("ternwatch.toml");
    let text = config(&arguments.video, &arguments.bundle, &arguments.key, port);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let log_path = log(arguments);
    let log = fs::File::create(&log_path)
        .with_context(|| format!("cannot write {}", log_path.display()))?;
    Running::start(
        "the daemon",
        Command::new(&arguments.daemon)
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("a file can be shared")?)
            .stderr(log),
    )
}

/// Where its messages go.
pub(crate) fn log(arguments: &Arguments) -> PathBuf {
    arguments.out.join("ternwatchd.log")
}

/// The configuration file.
fn config(video: &Path, bundle: &Path, key: &Path, port: u16) -> String {
    // TOML's basic strings are quoted and escaped as Rust quotes and escapes them, for printable paths.
    format!(
        "[device]\nname = \"demo\"\n\n[camera]\nname = \"street\"\nkind = \"file\"\npath = {video:?}\n\n\
         [model]\nbundle = {bundle:?}\nkeys = [{key:?}]\n\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nprefix = {TOPIC_PREFIX:?}\n"
    )
}
