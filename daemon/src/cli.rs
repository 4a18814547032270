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
#[derive(Clone, Debug, Default, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Watch the camera and publish.
    #[default]
    Run,
    /// Check the configuration, show what is in effect, and end: exit code 0 if it is valid, 78 if not.
    CheckConfig,
    /// Look at everything that the daemon needs on this board, and tell what is wrong and how to mend it: exit code 0 if
    /// nothing is. Changes nothing, and can run beside the service.
    Doctor,
    /// Look at the model, replace it, or take the one before back.
    Model {
        /// What to do with it.
        #[command(subcommand)]
        action: ModelAction,
    },
}

/// What to do with the model. Run it as the user whom the state folder belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ModelAction {
    /// Check a signed model on this device and store it; the daemon puts it on trial.
    Install {
        /// The bundle.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show which models are in use, stored and refused.
    List,
    /// Put a signed list of keys into effect: models of other keys are not taken, and taken away.
    Trust {
        /// The keyring.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Take the model before back; the one in use, or on trial, is not tried again.
    Rollback,
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
