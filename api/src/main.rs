//! Starts an api: arguments, socket, runtime, signals; then [`api::server`] serves until it is told to end.

use anyhow::Context;
use api::config::{Arguments, Command, Config};
use api::server;
use edge::{handoff, process};
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
        Some(Command::Healthcheck) => runtime.block_on(healthcheck(&arguments.config)),
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let shutdown = process::shutdown()?;
    socket::raise_descriptor_limit();
    let path = socket::backend_path(&config.socket_dir, &config.name);
    let (listener, _lock) =
        socket::bind(&path).context("SOCKET_DIR, API_NAME: cannot bind this api's socket")?;
    let control = handoff::bind_control(&handoff::control_path(&config.socket_dir, &config.name))
        .context("SOCKET_DIR, API_NAME: cannot bind this api's control socket")?;
    tracing::info!(
        "{} listens on {}, default at {}, fallback at {}",
        config.name,
        path.display(),
        config.processor_default_url.authority,
        config.processor_fallback_url.authority
    );
    let store = socket::store_path(config.store_socket_dir());
    let instance = uuid::Uuid::new_v4().as_u64_pair().0;
    server::run(listener, control, store, config, instance, shutdown).await?;
    tracing::info!("{} ended", config.name);
    Ok(())
}

async fn healthcheck(config: &Config) -> anyhow::Result<()> {
    let path = socket::backend_path(&config.socket_dir, &config.name);
    process::probe(&path).await.with_context(|| format!("{} is not well", config.name))
}
