//! The command line.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Where the package installs the configuration.
pub const CONFIG_PATH_DEFAULT: &str = "/etc/ternwatch/ternwatch.toml";

/// Watches a camera, detects pedestrians and publishes them over MQTT.
#[derive(Debug, Parser)]
#[command(name = "ternwatchd", version, about)]
pub struct Arguments {
    /// The configuration file [default: /etc/ternwatch/ternwatch.toml if it exists].
    #[arg(long, short, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// What to do; `run` if nothing is given.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Watch the camera and publish.
    #[default]
    Run,
    /// Check the configuration, show what is in effect, and end: exit code 0 if it is valid, 78 if not.
    CheckConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_may_stand_before_and_after_the_command() {
        for line in [
            ["ternwatchd", "--config", "a.toml", "check-config"],
            ["ternwatchd", "check-config", "--config", "a.toml"],
        ] {
            let arguments = Arguments::try_parse_from(line).expect("valid");
            assert_eq!(arguments.config, Some(PathBuf::from("a.toml")));
            assert_eq!(arguments.command, Some(Command::CheckConfig));
        }
        let arguments = Arguments::try_parse_from(["ternwatchd"]).expect("valid");
        assert_eq!(arguments.command.unwrap_or_default(), Command::Run);
    }
}
