//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Trains, quantizes, evaluates, signs and inspects the ternary detectors that Ternwatch runs.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The tasks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key pair: PREFIX.secret signs bundles, PREFIX.pub checks them.
    Keygen {
        /// Path without its ending.
        prefix: PathBuf,
    },
    /// Train a float detector; goes on where an earlier call was stopped.
    Train(Run),
    /// Quantize the trained detector in two stages, soft and hard; goes on where an earlier call was stopped.
    Quantize(Run),
    /// Fold, record golden vectors and sign: a run's last state becomes a bundle.
    Export(Export),
    /// Print the average precision (AP50) of a bundle, by source and overall.
    Evaluate(Evaluate),
    /// Compare ways to make a network ternary, on a public data set, and write a report.
    Reproduce(Reproduce),
    /// Check a bundle's signature and golden vectors, and print what is in it.
    Inspect(BundleFile),
    /// Write a bundle's network as an ONNX file, for other engines.
    Onnx(Onnx),
}

/// A training run.
#[derive(Debug, Args)]
pub struct Run {
    /// Training configuration (TOML).
    #[arg(long)]
    pub config: PathBuf,
    /// Folder with annotations.json (COCO) and images/.
    #[arg(long)]
    pub data: PathBuf,
    /// Folder for checkpoints and the log.
    #[arg(long)]
    pub run: PathBuf,
    /// Stop after this many steps; the same call goes on from there.
    #[arg(long)]
    pub max_steps: Option<u64>,
}

/// What to reproduce.
#[derive(Debug, Args)]
pub struct Reproduce {
    /// The experiment.
    pub what: Experiments,
    /// Folder with the data set's files, as they are distributed.
    #[arg(long)]
    pub data: PathBuf,
    /// Folder for checkpoints and logs; the same call goes on from there.
    #[arg(long)]
    pub run: PathBuf,
    /// How often everything is done, each time with another seed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub seeds: u64,
    /// Steps of the float training, where the experiment's own are too many for a trial.
    #[arg(long, value_parser = clap::value_parser!(u64).range(100..))]
    pub steps: Option<u64>,
    /// File (TOML) with a table of quantization settings for each further way to compare.
    #[arg(long)]
    pub also: Option<PathBuf>,
    /// Folder for report.md and its pictures.
    #[arg(long)]
    pub out: PathBuf,
}

/// The experiments.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Experiments {
    /// Digits, a network of LeNet-5's class.
    Mnist,
    /// Ten classes of things, a network in the manner of VGG.
    Cifar10,
}

/// What to export.
#[derive(Debug, Args)]
pub struct Export {
    /// Training configuration (TOML) of the run.
    #[arg(long)]
    pub config: PathBuf,
    /// Folder with the run's checkpoints.
    #[arg(long)]
    pub run: PathBuf,
    /// Secret key to sign with.
    #[arg(long)]
    pub key: PathBuf,
    /// Export even if not all weights are fixed yet, to look at a run under way.
    #[arg(long)]
    pub unfinished: bool,
    /// Folder to evaluate on; the result goes into the model card.
    #[arg(long)]
    pub evaluate: Option<PathBuf>,
    /// The bundle to write.
    #[arg(long)]
    pub out: PathBuf,
}

/// What to evaluate.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// The bundle and its key.
    #[command(flatten)]
    pub bundle: BundleFile,
    /// Folder with annotations.json (COCO) and images/.
    #[arg(long)]
    pub data: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Also draw precision, recall and false alarms by threshold, as SVG.
    #[arg(long)]
    pub curve: Option<PathBuf>,
}

/// What to write as ONNX.
#[derive(Debug, Args)]
pub struct Onnx {
    /// The bundle and its key.
    #[command(flatten)]
    pub bundle: BundleFile,
    /// The ONNX file to write.
    #[arg(long)]
    pub out: PathBuf,
    /// Scale the weights and do not round: what a float engine is fast with, and nearly the same numbers. Without, the
    /// file gives the bundle's outputs exactly.
    #[arg(long)]
    pub folded: bool,
}

/// A bundle and the key that checks it.
#[derive(Debug, Args)]
pub struct BundleFile {
    /// The bundle.
    #[arg(long)]
    pub bundle: PathBuf,
    /// Public key that checks the bundle [default: default.pub beside it].
    #[arg(long)]
    pub key: Option<PathBuf>,
}
