//! Lines for the operator.

use std::fmt;
use std::io::Write;

/// Writes a line to stderr, as `eprintln!` does; but where it cannot be written (to a full disk, to a pipe that nobody
/// reads) only the line is lost. `eprintln!` panics there, and takes with it what was going on.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::say_line(format_args!($($text)*)) };
}

#[doc(hidden)]
pub fn say_line(text: fmt::Arguments<'_>) {
    let line = format!("{text}\n");
    // There is nobody left to tell.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
