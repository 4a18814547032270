//! `ternwatchd`: the program.

use clap::Parser;
use std::path::Path;
use std::process::ExitCode;
use ternwatch_daemon::cli::{Arguments, CONFIG_PATH_DEFAULT, Command, HomeAssistantAction};
use ternwatch_daemon::config::Config;
use ternwatch_daemon::exit::{Failure, Reason};
use ternwatch_daemon::publish::home_assistant;
use ternwatch_daemon::tell::{note, out};
use ternwatch_daemon::update::{command, start};
use ternwatch_daemon::{bench, doctor, logging, service, simulate};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, and are no failure.
            let _ = error.print();
            return if error.use_stderr() {
                Reason::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let load = || load_config(&arguments);
    let result = match arguments.command.clone().unwrap_or_default() {
        Command::Doctor => doctor::run(load()),
        Command::Bench(wanted) => bench::run(load(), &wanted)
            .inspect_err(|failure| note(format_args!("ternwatchd: {failure}"))),
        Command::CheckConfig => load().map(|config| {
            config.lines().iter().for_each(out);
        }),
        Command::Model { action } => load().and_then(|config| {
            command::run(&config, &action)
                .inspect_err(|failure| note(format_args!("ternwatchd: {failure}")))
        }),
        Command::HomeAssistant {
            action: HomeAssistantAction::Remove,
        } => load().and_then(|config| {
            home_assistant::remove(&config)
                .inspect_err(|failure| note(format_args!("ternwatchd: {failure}")))
        }),
        Command::Simulate(plan) => load().and_then(|config| {
            simulate::run(&config, &plan.into()).inspect_err(|failure| {
                if failure.reason != Reason::Config {
                    note(format_args!("ternwatchd: {failure}"));
                }
            })
        }),
        Command::Run => load().and_then(|config| {
            logging::start(&config.log);
            run(&config, &load).inspect_err(|failure| log::error!("{failure}"))
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The log may not exist yet, or go to the journal: whoever started the program reads standard error.
            if failure.reason == Reason::Config {
                note(format_args!("ternwatchd: {failure}"));
            }
            failure.reason.into()
        }
    }
}

fn load_config(arguments: &Arguments) -> Result<Config, Failure> {
    let installed = Path::new(CONFIG_PATH_DEFAULT);
    let path = match &arguments.config {
        Some(path) => Some(path.as_path()),
        None => installed.exists().then_some(installed),
    };
    // A variable that is not text cannot be one of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::load(path, environment).map_err(|error| Failure::new(error.reason(), error))
}

fn run(config: &Config, reread: service::Reread<'_>) -> Result<(), Failure> {
    log::info!("ternwatchd {}", env!("CARGO_PKG_VERSION"));
    for line in config.lines() {
        log::info!("{line}");
    }
    let choice = config
        .model
        .choose_isa()
        .map_err(|invalid| Failure::new(Reason::Config, anyhow::anyhow!(invalid.reason)))?;
    log::info!("instruction set {choice}");
    let isa = choice.isa;
    let start = start::start(config, isa).map_err(|error| Failure::new(error.reason(), error))?;
    log::info!(
        "model {} {} runs on {isa}, {:.1} million multiply-accumulates a frame",
        start.loaded.identity.name,
        start.loaded.identity.version,
        start.loaded.detector.macs() as f64 / 1e6
    );
    service::run(config, start, isa, reread)
}
