//! The program `measure`: reads the command line, makes the runtime, and hands over to a measurement.
//!
//! One thread runs everything: a second one would compete with the system under test, and the children die with the
//! thread that started them.

use anyhow::Context;
use clap::{Parser, Subcommand};
use measure::bench::Measurement;
use measure::{bench, profile};
use std::process::ExitCode;
use tokio::runtime::{Builder, LocalOptions};
use wire::trace::LogFlags;

/// Measures Espora, beside what others do with the same work.
#[derive(Clone, Debug, Parser)]
#[command(name = "measure", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Bench(Box<Measurement>),
    /// Record every process under load with perf: flame graphs, tables, what a payment costs
    Profile(Box<profile::args::ProfileArgs>),
}

fn main() -> ExitCode {
    let code = run(wire::config::parse()).unwrap_or_else(|error| {
        wire::stderr::say(&format!("measure: {error:#}"));
        ExitCode::FAILURE
    });
    wire::stderr::flush();
    code
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    wire::trace::start(&arguments.log).map_err(anyhow::Error::msg)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = runtime.context("cannot make the runtime")?;
    let envs = arena::child::log_envs(&arguments.log);
    runtime.block_on(async {
        match arguments.command {
            Command::Bench(measurement) => Box::pin(bench::bench(*measurement, envs)).await,
            Command::Profile(args) => Box::pin(profile::profile(*args, envs)).await,
        }
    })
}
