//! Progress bars of one look, on standard error.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` steps of `what`. It draws nothing where standard error is no terminal.
pub fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix:>14} [{bar:30}] {pos}/{len} {elapsed} ({eta} left) {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_prefix(what)
}
