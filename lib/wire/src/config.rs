//! How every binary reads its command line and its variables: as `clap` does, with two differences.
//!
//! A variable that is set and empty is as unset: a compose file writes `NAME: ${NAME:-}` for "not given". And what is wrong
//! is said by way of [`crate::stderr`], so that a standard error that takes nothing does not keep the process.

use crate::stderr;
use clap::{Arg, Command, Parser};
use std::ffi::OsString;
use std::{env, process};

/// The settings of this process. Help and version are printed, and end it with 0.
///
/// What is wrong is said, and ends it with 2.
#[must_use]
pub fn parse<A: Parser>() -> A {
    try_parse_from(env::args_os()).unwrap_or_else(|error| {
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

/// The settings that this command line and the variables give; the first word is the program.
///
/// # Errors
/// What is wrong with them, or what was asked for instead, such as help.
pub fn try_parse_from<A: Parser>(
    line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<A, clap::Error> {
    let mut command = without_empty_variables(A::command());
    let mut matches = command.try_get_matches_from_mut(line)?;
    A::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    let command =
        command.mut_args(|arg| if is_empty(&arg) { arg.env(clap::builder::Resettable::Reset) } else { arg });
    command.mut_subcommands(without_empty_variables)
}
