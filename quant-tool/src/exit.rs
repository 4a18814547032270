//! Exit codes (sysexits.h) and the last line on standard error.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::string::FromUtf8Error;

use ternwatch_bundle::{BundleError, KeyError, KeyringError, ModelError};
use ternwatch_detector::golden::GoldenMismatch;
use ternwatch_ota::push::PushError;

use crate::data::{BadData, dataset::NotAnnotated};
use crate::export::Unfit;
use crate::files::{Busy, CannotWrite, Exists, TooLarge};
use crate::import::ImportError;
use crate::reproduce::{BadWay, OtherSettings};
use crate::run::{NotTrained, Unfinished};
use crate::send::NotEverywhere;
use crate::tell::note;
use crate::train::{
    check::BadValue,
    config::ConfigError,
    parameters::BadCheckpoint,
    stage::{Diverged, Unready},
    start::BadStart,
};

/// A device refused the model or took it back.
const NOT_KEPT: u8 = 1;
const USAGE: u8 = 64;
const DATA: u8 = 65;
const NO_INPUT: u8 = 66;
const UNAVAILABLE: u8 = 69;
const SOFTWARE: u8 = 70;
const CANNOT_CREATE: u8 = 73;
const IO: u8 = 74;
/// A device had not decided when the time was over, or another call is at work in the same folder.
const NOT_NOW: u8 = 75;
const NO_PERMISSION: u8 = 77;
const CONFIG: u8 = 78;

/// Prints clap's message; help and version are no errors.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed standard error leaves nobody to tell.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// A mistake on the command line that only shows when its words are looked at.
pub fn misused(text: String) -> anyhow::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, text).into()
}

/// Prints an error and gives its code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    note!("quant-tool: {error:#}");
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    let is = |test: fn(&(dyn std::error::Error + 'static)) -> bool| error.chain().any(test);
    if is(|e| {
        e.is::<ConfigError>() || e.is::<BadValue>() || e.is::<BadWay>() || e.is::<OtherSettings>()
    }) {
        return CONFIG;
    }
    if is(|e| e.is::<clap::Error>()) {
        return USAGE;
    }
    match error.downcast_ref() {
        Some(NotEverywhere { failed: 1.., .. }) => return NOT_KEPT,
        Some(NotEverywhere { forbidden: 1.., .. }) => return NO_PERMISSION,
        Some(NotEverywhere { .. }) => return NOT_NOW,
        None => {}
    }
    match error.downcast_ref() {
        Some(PushError::Options(_)) => return CONFIG,
        Some(PushError::Unreachable(..) | PushError::NoDevice(_) | PushError::OffersStay(..)) => {
            return UNAVAILABLE;
        }
        Some(PushError::TooMany(_)) => return USAGE,
        Some(PushError::Forbidden(_)) => return NO_PERMISSION,
        Some(PushError::Stopped | PushError::Unheard(_)) => return NOT_NOW,
        Some(PushError::System(_)) | None => {}
    }
    if is(|e| e.is::<NotAnnotated>()) {
        return NO_INPUT;
    }
    if is(|e| e.is::<Busy>()) {
        return NOT_NOW;
    }
    if is(|e| e.is::<Exists>()) {
        return CANNOT_CREATE;
    }
    let io = error
        .chain()
        .find_map(|e| e.downcast_ref::<std::io::Error>());
    if let Some(io) = io {
        return match io.kind() {
            ErrorKind::PermissionDenied => NO_PERMISSION,
            ErrorKind::AlreadyExists => CANNOT_CREATE,
            _ if error.is::<CannotWrite>() => CANNOT_CREATE,
            ErrorKind::NotFound => NO_INPUT,
            // A text that is none, an archive that ends early.
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => DATA,
            _ => IO,
        };
    }
    let data = is(|e| {
        e.is::<BundleError>()
            || e.is::<KeyringError>()
            || e.is::<ModelError>()
            || e.is::<KeyError>()
            || e.is::<GoldenMismatch>()
            || e.is::<ImportError>()
            || e.is::<Diverged>()
            || e.is::<Unfinished>()
            || e.is::<Unready>()
            || e.is::<Unfit>()
            || e.is::<TooLarge>()
            || e.is::<NotTrained>()
            || e.is::<BadStart>()
            || e.is::<FromUtf8Error>()
    }) || is(|e| e.is::<serde_json::Error>() || e.is::<image::ImageError>());
    // Contexts are no links of the chain.
    if data || error.is::<BadData>() || error.is::<BadCheckpoint>() {
        DATA
    } else {
        SOFTWARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn errors_have_the_codes_of_sysexits() {
        let missing = std::fs::read("/nonexistent")
            .context("reading")
            .unwrap_err();
        assert_eq!(code(&missing), NO_INPUT);
        let config = crate::train::config::Config::parse("x = 1").unwrap_err();
        assert_eq!(
            code(&anyhow::Error::from(config).context("person.toml")),
            CONFIG
        );
        let bundle = ternwatch_bundle::UnverifiedBundle::from_bytes(b"short").unwrap_err();
        assert_eq!(code(&anyhow::Error::from(bundle)), DATA);
        let import = ImportError::File("short".into());
        assert_eq!(code(&anyhow::Error::from(import).context("a.onnx")), DATA);
        assert_eq!(code(&anyhow::anyhow!("odd")), SOFTWARE);
    }
}
