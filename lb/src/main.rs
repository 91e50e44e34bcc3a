//! Starts the balancer: arguments, sockets, runtime, signals; then [`lb::server`] serves until it is told to end.

use anyhow::Context;
use edge::process;
use lb::config::{Arguments, Command, Config};
use lb::server;
use lb::takeover::Start;
use std::path::Path;
use std::process::ExitCode;
use wire::socket;

fn main() -> ExitCode {
    wire::trace::end(run(wire::config::parse()))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    wire::trace::start(&arguments.log_flags).map_err(anyhow::Error::msg)?;
    let runtime = process::runtime()?;
    match arguments.command {
        None => runtime.block_on(serve(&arguments.config)),
        Some(Command::Healthcheck) => runtime.block_on(healthcheck(&arguments.config.socket_dir)),
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let shutdown = process::shutdown()?;
    socket::raise_descriptor_limit();
    let start = Start::new(config).await.context("SOCKET_DIR, LISTEN: cannot have the balancer's sockets")?;
    let backends = config.backends.join(", ");
    tracing::info!("lb listens on {}, mode {:?}, for {backends}", config.listen, config.mode);
    server::run(start, config, shutdown).await?;
    tracing::info!("lb ended");
    Ok(())
}

async fn healthcheck(socket_dir: &Path) -> anyhow::Result<()> {
    let probed = process::probe(&socket::backend_path(socket_dir, "lb")).await;
    probed.context("lb is not there, or no api takes a connection")
}
