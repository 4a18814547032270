//! Lines for whoever called a command, who may have read enough and be gone: then the work goes on in silence, where `println!` would
//! panic.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

/// A line of what a command gives.
pub fn out(line: impl Display) {
    // Nobody is left to be told that nobody reads.
    let _ = writeln!(stdout(), "{line}");
}

/// A line about what goes on.
pub fn note(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
