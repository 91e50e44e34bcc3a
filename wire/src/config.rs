//! How every binary reads its command line and its variables: as `clap` does, but what is wrong is said by way of
//! [`crate::stderr`], so that a standard error that takes nothing does not keep the process.

use crate::stderr;
use clap::Parser;
use std::process;

/// The settings of this process. Help and version are printed, and end it with 0.
///
/// What is wrong is said, and ends it with 2.
#[must_use]
pub fn parse<A: Parser>() -> A {
    A::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            stderr::say(error.to_string().trim_end());
            stderr::flush();
        } else {
            // A reader that has gone needs no help.
            let _ = error.print();
        }
        process::exit(error.exit_code())
    })
}
