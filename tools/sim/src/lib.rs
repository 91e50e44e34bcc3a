//! The white box: what the store and the apis decide, in simulated time and in one thread, from a seed.
//!
//! Reading order: [`simulation`] plays the money under faults, and [`money`] runs many seeds of it; [`lab`] judges the
//! router over random plans, beside the clairvoyant.

pub mod lab;
pub mod money;
pub mod simulation;

use std::fmt;
use std::io::{self, Write};

/// Writes a result to standard output. A reader that has gone wants no more of it.
fn print(text: impl fmt::Display) {
    let _ = write!(io::stdout(), "{text}");
}
