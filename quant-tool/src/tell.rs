//! Lines for whoever called the program, who may have read enough and be gone: then the work goes on in silence, where
//! `println!` would panic.

use std::fmt::Arguments;
use std::io::{Write, stderr, stdout};

/// A line of what the command gives.
pub(crate) fn line_out(line: Arguments<'_>) {
    // Nobody is left to be told that nobody reads.
    let _ = writeln!(stdout(), "{line}");
}

/// A line about what goes on.
pub(crate) fn line_about(line: Arguments<'_>) {
    let _ = writeln!(stderr(), "{line}");
}

/// As `println!`.
macro_rules! out {
    ($($text:tt)*) => { $crate::tell::line_out(format_args!($($text)*)) };
}

/// As `eprintln!`.
macro_rules! note {
    ($($text:tt)*) => { $crate::tell::line_about(format_args!($($text)*)) };
}

pub(crate) use {note, out};
