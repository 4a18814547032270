//! Exit codes (sysexits.h) and the last line on standard error.

use std::io::ErrorKind;
use std::panic;
use std::process::ExitCode;

use ternwatch_bundle::{BundleError, KeyError, KeyringError, ModelError};
use ternwatch_detector::golden::GoldenMismatch;
use ternwatch_ota::push::PushError;

use crate::data::{BadData, dataset::NotAnnotated};
use crate::import::ImportError;
use crate::push::NotEverywhere;
use crate::reproduce::{BadWay, OtherSettings};
use crate::run::Unfinished;
use crate::train::{
    check::BadValue, config::ConfigError, parameters::BadCheckpoint, stage::Diverged,
};

/// A device refused the model or took it back.
const NOT_KEPT: u8 = 1;
const USAGE: u8 = 64;
const DATA: u8 = 65;
const NO_INPUT: u8 = 66;
const UNAVAILABLE: u8 = 69;
const SOFTWARE: u8 = 70;
const CANNOT_CREATE: u8 = 73;
/// A device had not decided when the time was over.
const NOT_DECIDED: u8 = 75;
const NO_PERMISSION: u8 = 77;
const CONFIG: u8 = 78;

/// Lets the program end in silence when whoever reads its output has read enough, as in `quant-tool inspect | head`;
/// printing would panic.
pub fn end_with_the_reader() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>();
        // The words of the standard library's `print!`.
        let reader_is_gone = text.is_some_and(|text| {
            text.starts_with("failed printing to stdout") && text.contains("Broken pipe")
        });
        if reader_is_gone {
            std::process::exit(0);
        }
        usual(info);
    }));
}

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

/// Prints an error and gives its code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("quant-tool: {error:#}");
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
        Some(NotEverywhere { .. }) => return NOT_DECIDED,
        None => {}
    }
    match error.downcast_ref() {
        Some(PushError::Options(_)) => return CONFIG,
        Some(PushError::Unreachable(..) | PushError::NoDevice(_)) => return UNAVAILABLE,
        Some(PushError::Forbidden(_)) => return NO_PERMISSION,
        Some(PushError::Stopped) => return NOT_DECIDED,
        Some(PushError::System(_)) | None => {}
    }
    if is(|e| e.is::<NotAnnotated>()) {
        return NO_INPUT;
    }
    if let Some(io) = error
        .chain()
        .find_map(|e| e.downcast_ref::<std::io::Error>())
    {
        return match io.kind() {
            ErrorKind::NotFound => NO_INPUT,
            ErrorKind::PermissionDenied => NO_PERMISSION,
            ErrorKind::AlreadyExists => CANNOT_CREATE,
            _ => SOFTWARE,
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
