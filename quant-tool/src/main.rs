//! The program: one command, one exit code.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use quant_tool::cli::{Cli, Command};
use quant_tool::train::stage::Stage;
use quant_tool::{
    card, diff, exit, files, import, inspect, keyring, onnx, reproduce, run, send, sign,
};

// Training makes and drops large tensors in every step; glibc's allocator gives each back to the kernel, which clears
// its pages anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Keygen { prefix } => files::keygen(&prefix),
        Command::Import(args) => import::run(&args),
        Command::Train(args) => run::train(&args, &[Stage::Float]),
        Command::Quantize(args) => run::train(&args, &[Stage::Soft, Stage::Hard]),
        Command::Export(args) => run::export(&args),
        Command::Evaluate(args) => run::evaluate(&args),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Inspect(file) => inspect::print(&file),
        Command::Card(args) => card::write(&args),
        Command::Onnx(args) => onnx::run(&args),
        Command::Verify(file) => sign::verify(&file),
        Command::Sign(args) => sign::sign(&args),
        Command::Diff(args) => diff::print(&args),
        Command::Roots(args) => keyring::roots(&args),
        Command::Keyring(args) => keyring::sign(&args),
        Command::Push(args) => send::push(&args),
        Command::Trust(args) => send::trust(&args),
    }
}
