//! The program `arena`: reads the command line, makes the runtime, and hands over to a command.
//!
//! One thread runs everything: a second one would compete with the system under test, and the children die with the
//! thread that started them. What goes wrong is said in one line with its causes, and the exit status is then 1; what
//! the statuses of a fight mean is in `config`.

use anyhow::Context;
use arena::config::{Arguments, Command};
use arena::{bench, chaos, fight, hostile, lab, processor, profile, simulate, up};
use clap::ValueEnum;
use std::process::ExitCode;
use tokio::runtime::{Builder, LocalOptions};
use wire::trace::LogFlags;

fn main() -> ExitCode {
    let code = run(wire::config::parse()).unwrap_or_else(|error| {
        wire::stderr::say(&format!("arena: {error:#}"));
        ExitCode::FAILURE
    });
    wire::stderr::flush();
    code
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    wire::trace::start(&arguments.log).map_err(anyhow::Error::msg)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = runtime.context("cannot make the runtime")?;
    let envs = log_envs(&arguments.log);
    runtime.block_on(async {
        match arguments.command {
            Command::Processors(args) => Box::pin(processor::run(args)).await.map(|()| ExitCode::SUCCESS),
            Command::Up(args) => Box::pin(up::up(*args, envs)).await,
            Command::Fight(args) => Box::pin(fight::fight(*args, envs)).await,
            Command::Chaos(args) => Box::pin(chaos::chaos(*args, envs)).await,
            Command::Hostile(args) => Box::pin(hostile::hostile(*args, envs)).await,
            Command::Profile(args) => Box::pin(profile::profile(*args, envs)).await,
            Command::Simulate(args) => simulate::simulate(&args),
            Command::Lab(args) => lab::lab(&args),
            Command::Bench(args) => Box::pin(bench::bench(*args, envs)).await,
        }
    })
}

/// What tells the children to log as arena does.
fn log_envs(log: &LogFlags) -> Vec<(String, String)> {
    let format = log.log_format.to_possible_value().expect("no format is hidden");
    vec![("LOG_LEVEL".into(), log.log_level.clone()), ("LOG_FORMAT".into(), format.get_name().into())]
}
