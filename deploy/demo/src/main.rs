//! The demonstration behind `make demo` and `make demo-ota`: a private broker, the daemon on a street video, a subscriber.
//!
//! Takes a video and a bundle; prints detections and events as the subscriber hears them, writes a contact sheet and ends with
//! a summary. It knows the daemon by its program, its configuration file and its published documents only.

mod broker;
mod child;
mod daemon;
mod document;
mod font;
mod ota;
mod sheet;
mod summary;
mod video;

use crate::broker::{Broker, Heard};
use crate::child::Running;
use crate::daemon::{Models, TOPIC_PREFIX};
use crate::document::{Document, Event};
use crate::summary::Summary;
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Pictures on the contact sheet.
const PICTURES: usize = 12;
/// From the daemon's start to its first document.
const FIRST_DOCUMENT_WITHIN: Duration = Duration::from_secs(20);
/// The daemon promises to end 2 s after SIGTERM; a busy machine may need longer to notice.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Watches a street video with ternwatchd and shows what it publishes.
#[derive(Parser)]
struct Arguments {
    /// The street video.
    #[arg(long)]
    video: PathBuf,
    /// How long to watch; the end of the video ends it earlier.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The daemon's program.
    #[arg(long, default_value = "target/release/ternwatchd")]
    daemon: PathBuf,
    /// The model.
    #[arg(long, default_value = "models/person.tern")]
    bundle: PathBuf,
    /// The model that --ota sends.
    #[arg(long, default_value = "models/person-lite.tern")]
    second: PathBuf,
    /// The public key that the models must be signed with.
    #[arg(long, default_value = "models/default.pub")]
    key: PathBuf,
    /// Where the contact sheet, the documents and the logs go.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
    /// Send the second model to the daemon while it watches, and then broken ones, instead of showing detections.
    #[arg(long)]
    ota: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ternwatch-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    for path in [
        &arguments.video,
        &arguments.daemon,
        &arguments.bundle,
        &arguments.key,
    ] {
        ensure!(path.exists(), "{} is not there", path.display());
    }
    fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make {}", arguments.out.display()))?;

    if arguments.ota {
        let second = &arguments.second;
        ensure!(second.exists(), "{} is not there", second.display());
        return ota::run(arguments);
    }
    let broker = Broker::start(&arguments.out)?;
    println!("broker   mosquitto on 127.0.0.1:{}", broker.port);
    let messages = broker::subscribe(broker.port, TOPIC_PREFIX)?;
    expect_subscribed(&messages)?;
    let models = Models {
        bundle: &arguments.bundle,
        key: &arguments.key,
        state_dir: None,
    };
    let daemon = daemon::start(arguments, &models, broker.port)?;
    println!(
        "daemon   {} on {}\n",
        arguments.daemon.display(),
        arguments.video.display()
    );

    let documents = watch(arguments, daemon, &messages)?;
    let summary = Summary::of(&documents).context("the daemon published no frame")?;
    let sheet = arguments.out.join("contact-sheet.png");
    draw(&documents, &arguments.video, &sheet)?;
    println!("\n{summary}\ncontact sheet       {}", sheet.display());
    ensure!(
        summary.detections > 0,
        "{} frames and not one detection",
        summary.frames
    );
    Ok(())
}

fn expect_subscribed(messages: &Receiver<Heard>) -> Result<()> {
    match messages.recv_timeout(Duration::from_secs(5)) {
        Ok(Heard::Subscribed) => Ok(()),
        Ok(other) => bail!("the broker answered a subscription with {other:?}"),
        Err(_) => bail!("the broker has not confirmed the subscription within 5 s"),
    }
}

/// Prints and keeps the documents until the time is over or the daemon has come to the video's end.
fn watch(
    arguments: &Arguments,
    mut daemon: Running,
    messages: &Receiver<Heard>,
) -> Result<Vec<Document>> {
    let started = Instant::now();
    let mut watching_since = None;
    let mut documents = Vec::new();
    let limit = Duration::from_secs(arguments.seconds);
    while watching_since.is_none_or(|since: Instant| since.elapsed() < limit) {
        match messages.recv_timeout(Duration::from_millis(100)) {
            Ok(heard) => {
                if let Some(document) = take(heard)? {
                    watching_since.get_or_insert_with(Instant::now);
                    documents.push(document);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = daemon.ended()? {
                    ensure!(
                        status.success(),
                        "the daemon ended with {status}, its last words:\n{}",
                        daemon::last_words(arguments)
                    );
                    break;
                }
                ensure!(
                    watching_since.is_some() || started.elapsed() < FIRST_DOCUMENT_WITHIN,
                    "no document within {FIRST_DOCUMENT_WITHIN:?}, the daemon's last words:\n{}",
                    daemon::last_words(arguments)
                );
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the subscriber has ended"),
        }
    }
    let status = daemon.stop(END_WITHIN)?;
    ensure!(
        status.success(),
        "the daemon ended with {status}, its last words:\n{}",
        daemon::last_words(arguments)
    );
    // What it published while it drained.
    while let Ok(heard) = messages.recv_timeout(Duration::from_millis(200)) {
        documents.extend(take(heard)?);
    }
    Ok(documents)
}

/// Shows one message, gives its document if it is one.
fn take(heard: Heard) -> Result<Option<Document>> {
    match heard {
        Heard::Message { topic, payload } if topic.ends_with("/detections") => {
            let document = Document::from_json(&payload)?;
            println!("{}", document.line());
            Ok(Some(document))
        }
        Heard::Message { topic, payload } if topic.ends_with("/events") => {
            println!("{}", Event::from_json(&payload)?.line());
            Ok(None)
        }
        Heard::Message { topic, payload } => {
            println!("{topic}  {}", String::from_utf8_lossy(&payload));
            Ok(None)
        }
        Heard::Subscribed => Ok(None),
        Heard::Lost(error) => bail!("the subscriber lost its broker: {error}"),
    }
}

fn draw(documents: &[Document], video: &Path, sheet: &Path) -> Result<()> {
    let chosen = sheet::choose(documents, PICTURES);
    let indices: Vec<u64> = chosen.iter().map(|document| document.sequence).collect();
    let size = chosen.first().context("there is a document")?.frame;
    let pictures = video::pictures(video, &indices, size.width, size.height)?;
    let pairs: Vec<_> = chosen.into_iter().zip(pictures).collect();
    sheet::save(&sheet::compose(&pairs)?, sheet)
}
