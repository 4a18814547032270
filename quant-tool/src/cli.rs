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
    /// Begin a run with a float network that was trained elsewhere (ONNX); `quantize` goes on from it.
    Import(Import),
    /// Train a float detector; goes on where an earlier call was stopped.
    Train(Run),
    /// Quantize the trained detector in two stages, soft and hard; goes on where an earlier call was stopped.
    Quantize(Run),
    /// Fold, record golden vectors and sign: a run's last state becomes a bundle.
    Export(Export),
    /// Print the average precision (AP50) of a bundle, by source and overall.
    Evaluate(Evaluate),
    /// Compare ways to make a network ternary, on a public data set or one's own photographs, and write a report.
    Reproduce(Reproduce),
    /// Check a bundle's signature and golden vectors, and print what is in it.
    Inspect(BundleFile),
    /// Write a bundle's model card as a page of Markdown, with a picture of what each threshold gives.
    Card(Card),
    /// Write a bundle's network as an ONNX file, for other engines.
    Onnx(Onnx),
    /// Check a bundle's signature and golden vectors, and say who signed it.
    Verify(BundleFile),
    /// Sign a bundle anew: with another key, as another version, for another input size. Its answers are recorded anew.
    Sign(Sign),
    /// Show in what two bundles differ: manifest, layers, weights.
    Diff(Diff),
    /// Write the file of root keys, for `model.roots` of the daemon.
    Roots(Roots),
    /// Sign a keyring: which keys sign models, and which no longer do.
    Keyring(Keyring),
    /// Send a bundle to devices over MQTT, and wait until each has tried it.
    Push(Push),
    /// Send a keyring to devices over MQTT, and wait until it is in effect on each.
    Trust(Trust),
}

/// What to sign anew.
#[derive(Debug, Args)]
pub struct Sign {
    /// The bundle and the key that checks it now.
    #[command(flatten)]
    pub bundle: BundleFile,
    /// Secret key to sign with.
    #[arg(long, value_name = "SECRET")]
    pub with: PathBuf,
    /// The new version [default: as it is].
    #[arg(long)]
    pub version: Option<u64>,
    /// Days from now on which it may be installed [default: for ever].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub valid_days: Option<u64>,
    /// The oldest daemon that may run it, MAJOR.MINOR.PATCH [default: as it is].
    #[arg(long, value_parser = daemon_version)]
    pub daemon_min: Option<[u32; 3]>,
    /// Another size of the network's input, WIDTHxHEIGHT in pixels: larger finds smaller people, smaller is faster. The
    /// weights stay.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = input_size)]
    pub input: Option<[u32; 2]>,
    /// Another default threshold: the least score that is shown, 0 to 1.
    #[arg(long, value_parser = score)]
    pub score: Option<f32>,
    /// The new name [default: as it is].
    #[arg(long)]
    pub name: Option<String>,
    /// The bundle to write.
    #[arg(long)]
    pub out: PathBuf,
}

/// The root keys.
#[derive(Debug, Args)]
pub struct Roots {
    /// Public keys of the roots.
    #[arg(required = true)]
    pub keys: Vec<PathBuf>,
    /// How many of them have to sign a keyring.
    #[arg(long)]
    pub threshold: usize,
    /// The file to write.
    #[arg(long)]
    pub out: PathBuf,
}

/// What a keyring says.
#[derive(Debug, Args)]
pub struct Keyring {
    /// Greater than that of the keyring before.
    #[arg(long)]
    pub version: u64,
    /// Public key that signs models; may be given several times.
    #[arg(long)]
    pub model: Vec<PathBuf>,
    /// Public key that no longer does; all of the keyring before have to be given again.
    #[arg(long)]
    pub revoke: Vec<PathBuf>,
    /// Let this version and later ones of a model be installed again.
    #[arg(long, value_name = "NAME=VERSION", value_parser = reset)]
    pub reset: Vec<(String, u64)>,
    /// Secret key of a root; as many as their file asks for.
    #[arg(long, value_name = "SECRET", required = true)]
    pub root: Vec<PathBuf>,
    /// The keyring to write.
    #[arg(long)]
    pub out: PathBuf,
}

fn reset(text: &str) -> Result<(String, u64), String> {
    let pair = text.split_once('=');
    let pair = pair.and_then(|(name, version)| Some((name.into(), version.parse().ok()?)));
    pair.ok_or_else(|| format!("{text:?} is not NAME=VERSION"))
}

fn daemon_version(text: &str) -> Result<[u32; 3], String> {
    let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| format!("{text:?} is not MAJOR.MINOR.PATCH"))
}

fn score(text: &str) -> Result<f32, String> {
    let score = text
        .parse()
        .ok()
        .filter(|score| (0.0..=1.0).contains(score));
    score.ok_or_else(|| format!("{text:?} is not a number from 0 to 1"))
}

/// The name of a picture that can be written.
fn picture(name: &str) -> Result<PathBuf, String> {
    match image::ImageFormat::from_path(name) {
        Ok(image::ImageFormat::Png | image::ImageFormat::Jpeg) => Ok(name.into()),
        _ => Err("its name has to end in .png or .jpg".into()),
    }
}

fn input_size(text: &str) -> Result<[u32; 2], String> {
    let sides = text.split_once('x');
    let sides = sides.and_then(|(width, height)| Some([width.parse().ok()?, height.parse().ok()?]));
    sides.ok_or_else(|| format!("{text:?} is not WIDTHxHEIGHT"))
}

/// What to compare.
#[derive(Debug, Args)]
pub struct Diff {
    /// A bundle.
    pub before: PathBuf,
    /// Another one.
    pub after: PathBuf,
    /// Public keys, one of which checks each of them [default: default.pub beside each].
    #[arg(long)]
    pub key: Vec<PathBuf>,
}

/// What to send, to whom.
#[derive(Debug, Args)]
pub struct Push {
    /// The bundle and the key that checks it; what it does not check is not sent.
    #[command(flatten)]
    pub bundle: BundleFile,
    /// To whom.
    #[command(flatten)]
    pub to: Recipients,
    /// Let the broker keep the offer for devices that are off now; it is removed at the end.
    #[arg(long)]
    pub retain: bool,
    /// Where devices may fetch the same file by HTTP with ranges, if their `update.urls` allow it; the others get it over MQTT.
    #[arg(long)]
    pub url: Option<String>,
    /// Id of the job [default: made of the file's digest and the time].
    #[arg(long)]
    pub job: Option<String>,
    /// Seconds until devices that have not decided are given up.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub timeout_s: u64,
}

/// Which keyring to send, to whom.
#[derive(Debug, Args)]
pub struct Trust {
    /// The keyring.
    pub keyring: PathBuf,
    /// File of root keys, as the devices' `model.roots` has it; what they do not vouch for is not sent.
    #[arg(long)]
    pub roots: PathBuf,
    /// To whom.
    #[command(flatten)]
    pub to: Recipients,
    /// Let the broker keep it, also afterwards, for devices that are off now and for those that forget.
    #[arg(long)]
    pub retain: bool,
    /// Seconds until devices that have not taken it are given up.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub timeout_s: u64,
}

/// The devices, and the way to them.
#[derive(Debug, Args)]
pub struct Recipients {
    /// Id of a device; may be given several times.
    #[arg(long, value_name = "ID", required_unless_present = "all")]
    pub device: Vec<String>,
    /// All devices that have told of their model below the prefix.
    #[arg(long, conflicts_with = "device")]
    pub all: bool,
    /// Of them those only on which a model of this name is in use, of whatever version.
    #[arg(long, value_name = "NAME", requires = "all")]
    pub running: Option<String>,
    /// Say what would happen, and publish nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// First part of every topic.
    #[arg(long, default_value = "ternwatch")]
    pub prefix: String,
    /// The broker.
    #[command(flatten)]
    pub broker: Broker,
}

/// Which broker, and as whom.
#[derive(Debug, Args)]
pub struct Broker {
    /// Name or address of the broker.
    #[arg(long, default_value = "localhost")]
    pub host: String,
    /// Its port [default: 8883 with --tls, else 1883].
    #[arg(long)]
    pub port: Option<u16>,
    /// Account at the broker. The password comes from --password-file or $TERNWATCH_MQTT_PASSWORD.
    #[arg(long)]
    pub username: Option<String>,
    /// File whose first line is the password.
    #[arg(long, requires = "username")]
    pub password_file: Option<PathBuf>,
    /// Encrypt the connection.
    #[arg(long)]
    pub tls: bool,
    /// Certificate authorities (PEM) that the broker must be signed by [default: those of the system].
    #[arg(long, requires = "tls")]
    pub ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to the broker.
    #[arg(long, requires = "ca_file", requires = "client_key")]
    pub client_certificate: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, requires = "client_certificate")]
    pub client_key: Option<PathBuf>,
}

/// A training run.
#[derive(Debug, Args)]
pub struct Run {
    /// Training configuration (TOML).
    #[arg(long)]
    pub config: PathBuf,
    /// Folder of annotated pictures: COCO, Pascal VOC or YOLO.
    #[arg(long)]
    pub data: PathBuf,
    /// Folder for checkpoints and the log.
    #[arg(long)]
    pub run: PathBuf,
    /// Stop after this many steps; the same call goes on from there.
    #[arg(long)]
    pub max_steps: Option<u64>,
}

/// A network from elsewhere.
#[derive(Debug, Args)]
pub struct Import {
    /// The ONNX file: float32, one fixed size, batch normalization for inference. docs/training.md lists the operators.
    pub model: PathBuf,
    /// Training configuration (TOML) with a table `[imported]` in place of `[network]`: heads, what the input is.
    #[arg(long)]
    pub config: PathBuf,
    /// Folder for the run: checkpoints, the network's layers.
    #[arg(long)]
    pub run: PathBuf,
    /// Folder with annotated pictures, as `train` takes it: ranges of activations are measured on them.
    #[arg(
        long,
        required_unless_present = "without_data",
        conflicts_with = "without_data"
    )]
    pub data: Option<PathBuf>,
    /// Estimate ranges from the weights, and round these to nearest levels at once. Costs most of what the network can; `export`
    /// goes on from it.
    #[arg(long)]
    pub without_data: bool,
}

/// What to reproduce.
#[derive(Debug, Args)]
pub struct Reproduce {
    /// The experiment.
    pub what: Experiments,
    /// Folder with the data set's files, as they are distributed; for `pedestrian` one with train/ and val/.
    #[arg(long)]
    pub data: PathBuf,
    /// Training configuration (TOML) for `pedestrian` [default: that of the model `person`].
    #[arg(long)]
    pub config: Option<PathBuf>,
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
    /// Compare these ways only, by the names of their folders and of the tables in --also [default: all].
    #[arg(long, value_name = "WAY,...", value_delimiter = ',')]
    pub only: Vec<String>,
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
    /// A detector on annotated photographs, which may be one's own.
    Pedestrian,
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
    /// Also write the float network's parameters, for `start` in other configurations: training on other pictures begins with them.
    #[arg(long, value_name = "FILE")]
    pub float: Option<PathBuf>,
    /// Also write the network as an ONNX file that gives the bundle's outputs, as `onnx` does.
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,
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
    /// Folder of annotated pictures: COCO, Pascal VOC or YOLO.
    #[arg(long)]
    pub data: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Also draw precision, recall and false alarms by threshold, as SVG.
    #[arg(long)]
    pub curve: Option<PathBuf>,
    /// Also draw the pictures with most errors at the default threshold (.png or .jpg): found green, missed red, false alarms yellow.
    #[arg(long, value_name = "FILE", value_parser = picture)]
    pub failures: Option<PathBuf>,
    /// Also write the boxes and what was detected into this folder, in COCO's format: truth.json, detections.json.
    #[arg(long, value_name = "FOLDER")]
    pub coco: Option<PathBuf>,
}

/// The model card.
#[derive(Debug, Args)]
pub struct Card {
    /// The bundle and its key.
    #[command(flatten)]
    pub bundle: BundleFile,
    /// Name of a picture in that folder, drawn by `evaluate --failures`, to be shown in the page.
    #[arg(long, value_name = "NAME")]
    pub picture: Option<String>,
    /// What pictures it shows, in Markdown.
    #[arg(long, value_name = "TEXT", requires = "picture")]
    pub caption: Option<String>,
    /// Folder for NAME.md and NAME.svg.
    #[arg(long)]
    pub out: PathBuf,
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
