//! Sending a bundle: what is offered, and what a device would do with it.

use std::time::Duration;

use anyhow::{Context, Result};
use ternwatch_ota::identity::JOB_BYTES_MAX;
use ternwatch_ota::offer::{Offer, is_url};
use ternwatch_ota::sender::{Package, Sender};
use ternwatch_ota::state::State;

use super::fleet::{self, Goods};
use crate::cli::Push;
use crate::exit::misused;
use crate::tell::out;
use crate::{files, sign};

/// Sends a bundle, or says what would happen.
pub fn push(args: &Push) -> Result<()> {
    let to = &args.to;
    fleet::check(to)?;
    if let Some(url) = args.url.as_ref().filter(|url| !is_url(url)) {
        return Err(misused(format!(
            "--url: {url:?} is not a URL of a web server"
        )));
    }
    let package = package(args)?;
    let offer = package.offer().clone();
    out!(
        "{} version {}, {} bytes in {} chunks, sha256 {}, job {}",
        offer.model.name,
        offer.model.version,
        offer.bytes,
        offer.chunks.len(),
        offer.sha256,
        offer.job
    );
    let sender = Sender::new(&to.prefix, &to.device, package, args.retain);
    let limit = Duration::from_secs(args.timeout_s);
    fleet::send(sender, to, Goods::Model, limit, |state| {
        forecast(state, &offer)
    })
}

/// The bundle, if its signature is good and it gives its recorded answers here.
fn package(args: &Push) -> Result<Package> {
    let key = files::key_of(&args.bundle)?;
    let file = files::read(&args.bundle.bundle)?;
    let model =
        sign::checked(&file, key).with_context(|| args.bundle.bundle.display().to_string())?;
    let job = match &args.job {
        Some(job) => job.clone(),
        None => {
            let digest = ternwatch_bundle::hex::encode(&model.sha256());
            format!("{digest:.8}-{}", files::seconds_since_1970())
        }
    };
    let package =
        Package::new(&job, &model.id().name, model.id().version, file).ok_or_else(|| {
            misused(format!(
                "--job: {job:?} is not 1 to {JOB_BYTES_MAX} letters, digits, `.`, `_` and `-`"
            ))
        })?;
    Ok(package.at(args.url.clone()))
}

/// What an offer would come to, as far as can be told from here.
fn forecast(state: &State, offer: &Offer) -> String {
    let running = &state.running;
    let sha256 = offer.sha256.to_string();
    if running.sha256 == sha256 {
        "this very model is in use".into()
    } else if running.name == offer.model.name && running.version > offer.model.version {
        format!("would refuse it: version {} is in use", running.version)
    } else {
        format!(
            "would fetch it; {} version {} is in use",
            running.name, running.version
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::tests::sender_that_heard;
    use super::*;

    #[test]
    fn the_forecast_knows_what_a_device_would_refuse() {
        let sender = sender_that_heard(&[("committed", None)]);
        let package = Package::new("job-2", "person", 2, vec![7; 100]).unwrap();
        let state = sender.devices()["d0"].state.as_ref().unwrap();
        let words = forecast(state, package.offer());
        assert!(
            words.contains("would refuse it: version 3 is in use"),
            "{words}"
        );
    }
}
