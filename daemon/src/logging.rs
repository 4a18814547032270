//! Log lines go to the journal with their fields when systemd started the program, else to standard error as text.

use crate::clock::Timestamp;
use crate::config::choice::Choice;
use log::kv::{Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::Write as _;
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// The `[log]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The least important level that is logged.
    #[serde(with = "crate::config::choice")]
    pub level: LevelFilter,
}

impl Choice for LevelFilter {
    const NAMED: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// Starts logging; later calls change nothing.
pub fn start(config: &Config) {
    let journal = connected_to_journal()
        .then(JournalLog::new)
        .and_then(Result::ok);
    let installed = match journal {
        Some(journal) => journal
            .with_extra_fields([("VERSION", env!("CARGO_PKG_VERSION"))])
            .install(),
        None => log::set_logger(&Terminal),
    };
    if installed.is_ok() {
        log::set_max_level(config.level);
    }
}

/// Writes `time LEVEL target: message key=value` lines to standard error.
struct Terminal;

impl Log for Terminal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut line = format!(
            "{} {:5} {}: {}",
            Timestamp::now().rfc3339(),
            record.level(),
            record.target(),
            record.args()
        );
        // Appending to a string cannot fail.
        let _ = record.key_values().visit(&mut Fields(&mut line));
        line.push('\n');
        // One write per line keeps lines of several threads apart; a closed standard error is nobody's to report.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}
