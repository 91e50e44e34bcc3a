//! The program `arena`: reads the command line, makes the runtime, and hands over to a command.
//!
//! One thread runs everything: a second one would compete with the system under test, and the children die with the
//! thread that started them. What goes wrong is said in one line with its causes, and the exit status is then 1; what
//! the statuses of a fight mean is in `cli`.

use anyhow::Context;
use arena::cli::{Arguments, Command};
use arena::{chaos, fight, hostile, processor, up};
use std::process::ExitCode;
use tokio::runtime::{Builder, LocalOptions};

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
    let envs = arena::child::log_envs(&arguments.log);
    runtime.block_on(async {
        match arguments.command {
            Command::Processors(args) => Box::pin(processor::run(args)).await.map(|()| ExitCode::SUCCESS),
            Command::Up(args) => Box::pin(up::up(*args, envs)).await,
            Command::Fight(args) => Box::pin(fight::fight(*args, envs)).await,
            Command::Chaos(args) => Box::pin(chaos::chaos(*args, envs)).await,
            Command::Hostile(args) => Box::pin(hostile::hostile(*args, envs)).await,
        }
    })
}
