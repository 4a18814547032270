//! The command line.

use crate::simulate;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use ternwatch_detector::PixelFormat;

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
#[derive(Clone, Debug, Default, PartialEq, Subcommand)]
pub enum Command {
    /// Watch the camera and publish.
    #[default]
    Run,
    /// Check the configuration, show what is in effect, and end: exit code 0 if it is valid, 78 if not.
    CheckConfig,
    /// Look at everything that the daemon needs on this board, and tell what is wrong and how to mend it: exit code 0 if
    /// nothing is. Changes nothing, and can run beside the service; a broker that knows devices by their certificates
    /// takes it for the device, whose service then connects anew.
    Doctor,
    /// Measure how fast this board runs the model: every stage, every layer, and the memory that it takes.
    Bench(Bench),
    /// Publish what a fleet of cameras would, each as a device and a client of its own, to find out what a broker can take;
    /// tell how long it took to confirm. The devices are called like this one, with a number behind it.
    Simulate(Simulate),
    /// Look at the model, replace it, or take the one before back.
    Model {
        /// What to do with it.
        #[command(subcommand)]
        action: ModelAction,
    },
    /// What Home Assistant is told of this device.
    HomeAssistant {
        /// What to do about it.
        #[command(subcommand)]
        action: HomeAssistantAction,
    },
}

/// What to do about Home Assistant.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum HomeAssistantAction {
    /// Remove the device and its entities from Home Assistant, after `home_assistant.enabled` was switched off or before
    /// the device gets another id.
    Remove,
}

/// What to measure.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Bench {
    /// How many frames.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub frames: u32,
    /// Width and height of a frame, in pixels.
    #[arg(long, default_value = "640x480", value_name = "WIDTHxHEIGHT", value_parser = frame_size)]
    pub size: [u32; 2],
    /// How the camera delivers it.
    #[arg(long, value_enum, default_value_t = FrameFormat::Yuyv)]
    pub format: FrameFormat,
    /// A picture (JPEG) instead of the drawn frame, decoded anew each time.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "format"])]
    pub picture: Option<PathBuf>,
    /// Another model than the configured one, signed with the same key.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// How a camera delivers frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FrameFormat {
    /// YUV 4:2:2, most USB cameras.
    Yuyv,
    /// YUV 4:2:0 in two planes.
    Nv12,
    /// YUV 4:2:0 in three planes: files, network cameras and those on the ribbon connector.
    I420,
    /// Red, green, blue.
    Rgb,
    /// JPEG, USB cameras at high resolution.
    Jpeg,
}

impl FrameFormat {
    /// What the detector is given.
    pub fn pixel_format(self) -> PixelFormat {
        match self {
            Self::Yuyv => PixelFormat::Yuyv,
            Self::Nv12 => PixelFormat::Nv12,
            Self::I420 => PixelFormat::I420,
            Self::Rgb | Self::Jpeg => PixelFormat::Rgb8,
        }
    }
}

fn frame_size(text: &str) -> Result<[u32; 2], String> {
    let sides = text.split_once('x');
    let sides = sides.and_then(|(width, height)| Some([width.parse().ok()?, height.parse().ok()?]));
    sides.ok_or_else(|| format!("{text:?} is not WIDTHxHEIGHT"))
}

/// How many cameras, for how long, and how much happens.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Simulate {
    /// Cameras, up to 20000.
    #[arg(long, value_name = "N", value_parser = up_to(simulate::CAMERAS_MAX))]
    pub cameras: u32,
    /// Seconds, up to a day.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = up_to(simulate::SECONDS_MAX))]
    pub seconds: u32,
    /// Events a second and camera, 0.001 to 10.
    #[arg(long, value_name = "EVENTS", default_value_t = 0.1, value_parser = rate)]
    pub rate: f64,
    /// The same number makes the same people walk by.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

fn up_to(most: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(most))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if simulate::RATE.contains(&rate) {
        return Ok(rate);
    }
    let (least, most) = (simulate::RATE.start(), simulate::RATE.end());
    Err(format!("not within {least} to {most}"))
}

impl From<Simulate> for simulate::Plan {
    fn from(arguments: Simulate) -> Self {
        let Simulate {
            cameras,
            seconds,
            rate,
            seed,
        } = arguments;
        Self {
            cameras,
            seconds,
            rate,
            seed,
        }
    }
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
    /// Have the model installed that is offered and waits (`update.automatic = false`).
    Approve,
    /// Show which models are in use, offered, stored and refused.
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
        let simulate = |cameras: &str, rate: &str| {
            Arguments::try_parse_from(["a", "simulate", "--cameras", cameras, "--rate", rate])
        };
        simulate("20000", "0.001").expect("valid");
        for (cameras, rate) in [
            ("0", "1"),
            ("20001", "1"),
            ("1", "0"),
            ("1", "nan"),
            ("1", "11"),
        ] {
            simulate(cameras, rate).expect_err("out of bounds");
        }
        let arguments = Arguments::try_parse_from(["ternwatchd"]).expect("valid");
        assert_eq!(arguments.command.unwrap_or_default(), Command::Run);
    }
}
