//! Why the program ends, in the numbers of `sysexits.h`.

use std::fmt;
use std::process::ExitCode;

/// A reason to end without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// The model or a picture is damaged, or not signed by the trusted key (`EX_DATAERR`).
    Data = 65,
    /// A file or a camera that the configuration names is not there (`EX_NOINPUT`).
    NoInput = 66,
    /// The camera or its decoder failed (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// A bug (`EX_SOFTWARE`).
    Software = 70,
    /// The memory card does not take or give what it should (`EX_IOERR`).
    Io = 74,
    /// Something else has to end first (`EX_TEMPFAIL`).
    NotNow = 75,
    /// Another user has to do it (`EX_NOPERM`).
    NoPermission = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
}

impl Reason {
    /// Every reason and what an operator is told of it, in the order of the numbers.
    pub const EXPLAINED: &'static [(Self, &'static str)] = &[
        (Self::Usage, "The command line is wrong."),
        (
            Self::Data,
            "The model or a picture is damaged, or the trusted key did not sign the model.",
        ),
        (
            Self::NoInput,
            "A file, a folder or a program that the configuration names is not there.",
        ),
        (
            Self::Unavailable,
            "The camera, its decoder or the broker failed.",
        ),
        (Self::Software, "A bug; please report it."),
        (
            Self::Io,
            "The memory card, or standard output, does not take or give what it should.",
        ),
        (Self::NotNow, "Something else has to end first."),
        (Self::NoPermission, "Another user has to do it."),
        (Self::Config, "The configuration is wrong."),
    ];
}

impl From<Reason> for ExitCode {
    fn from(reason: Reason) -> Self {
        ExitCode::from(reason as u8)
    }
}

/// An error at the program's edge: what went wrong, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    /// Becomes the exit code.
    pub reason: Reason,
    /// What went wrong, with its causes.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with the causes of `error`.
    pub fn new(reason: Reason, error: impl Into<anyhow::Error>) -> Self {
        Self {
            reason,
            error: error.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:#}` puts the causes on the same line.
        write!(f, "{:#}", self.error)
    }
}
