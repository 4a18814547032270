//! The daemon under demonstration: its configuration file and its process.

use crate::Arguments;
use crate::child::Running;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const TOPIC_PREFIX: &str = "ternwatch";
pub(crate) const DEVICE: &str = "demo";
/// Lines of the daemon's log that an error shows.
const LAST_LINES: usize = 5;

/// The models that it begins with and takes.
pub(crate) struct Models<'a> {
    /// The packaged one.
    pub(crate) bundle: &'a Path,
    /// The key that signs them.
    pub(crate) key: &'a Path,
    /// Where new ones are kept; none: there are no updates.
    pub(crate) state_dir: Option<&'a Path>,
}

/// Starts it on the video, publishing to the broker on the loopback port.
pub(crate) fn start(arguments: &Arguments, models: &Models<'_>, port: u16) -> Result<Running> {
    let path = arguments.out.join("ternwatch.toml");
    let text = config(&arguments.video, models, port);
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
fn log(arguments: &Arguments) -> PathBuf {
    arguments.out.join("ternwatchd.log")
}

/// The end of its messages, for an error's text.
pub(crate) fn last_words(arguments: &Arguments) -> String {
    let path = log(arguments);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
    format!("{end}\n(all of them: {})", path.display())
}

/// The configuration file; what it leaves out has the daemon's defaults.
fn config(video: &Path, models: &Models<'_>, port: u16) -> String {
    let quoted = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    // A trial is short here: nobody wants to watch one for as long as a device should.
    let update = models.state_dir.map(|folder| {
        format!(
            "\n[update]\nstate_dir = {}\ntrial_frames = 30\ntrial_s = 2\n",
            quoted(folder)
        )
    });
    format!(
        r#"[device]
id = "{DEVICE}"

[camera]
name = "street"
source = "video"

[camera.video]
path = {}
pace = "real-time"

[model]
bundle = {}
key = {}

[publish]
frames = true

[mqtt]
host = "127.0.0.1"
port = {port}
prefix = "{TOPIC_PREFIX}"
{}"#,
        quoted(video),
        quoted(models.bundle),
        quoted(models.key),
        update.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::{Table, Value};

    /// Keys of `given` that `defaults` lacks, with their sections.
    fn unknown(given: &Table, defaults: &Table, prefix: &str) -> Vec<String> {
        given
            .iter()
            .flat_map(|(key, value)| match (value, defaults.get(key)) {
                (Value::Table(given), Some(Value::Table(defaults))) => {
                    unknown(given, defaults, &format!("{prefix}{key}."))
                }
                (_, None) => vec![format!("{prefix}{key}")],
                _ => Vec::new(),
            })
            .collect()
    }

    #[test]
    fn the_configuration_has_only_keys_that_the_daemon_knows_and_paths_survive_quoting() {
        let video = Path::new("/videos/a \"street\" \\ at night.avi");
        let models = Models {
            bundle: Path::new("m.tern"),
            key: Path::new("k.pub"),
            state_dir: Some(Path::new("/state")),
        };
        let text = config(video, &models, 12345);
        let given: Table = text.parse().expect("the configuration is TOML");
        let defaults: Table = include_str!("../../config/ternwatch.toml")
            .parse()
            .expect("the defaults are TOML");
        assert_eq!(unknown(&given, &defaults, ""), [] as [String; 0]);
        assert_eq!(given["camera"]["video"]["path"].as_str(), video.to_str());
    }
}
