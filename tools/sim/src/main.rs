//! The program `sim`: reads the command line and hands over to a command.

use clap::{Parser, Subcommand};
use sim::{lab, money};
use std::process::ExitCode;

const EXIT_CODES: &str = "\
Exit status:
  0    nothing is wrong
  1    sim could not do what it was asked
  2    the command line is wrong
  3    a promise about money was broken; the seed is told";

/// Lives through seeds of the simulated system, and judges its router over random plans.
#[derive(Clone, Debug, Parser)]
#[command(name = "sim", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Live through many seeds of the simulated system, or tell one event by event
    #[command(visible_alias = "simulate", after_help = EXIT_CODES)]
    Money(money::MoneyArgs),
    /// Judge the router over many random plans in simulated time
    Lab(lab::LabArgs),
}

fn main() -> ExitCode {
    let arguments: Arguments = wire::config::parse();
    let outcome = match arguments.command {
        Command::Money(args) => money::money(&args),
        Command::Lab(args) => lab::lab(&args),
    };
    let code = outcome.unwrap_or_else(|error| {
        wire::stderr::say(&format!("sim: {error:#}"));
        ExitCode::FAILURE
    });
    wire::stderr::flush();
    code
}
