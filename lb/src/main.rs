//! Starts the balancer: arguments, sockets, runtime, signals; then [`lb::server`] serves until it is told to end.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyperlocal::{UnixClientExt, Uri};
use lb::config::{Arguments, Command, Config};
use lb::server;
use lb::takeover::Start;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::LocalRuntime;
use tokio::signal::unix::{SignalKind, signal};
use wire::socket;

/// How long a health check waits for an answer.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    wire::trace::end(run(wire::config::parse()))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    wire::trace::start(&arguments.log_flags).map_err(anyhow::Error::msg)?;
    let runtime: LocalRuntime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    match arguments.command {
        None => runtime.block_on(serve(&arguments.config)),
        Some(Command::Healthcheck) => runtime.block_on(healthcheck(&arguments.config.socket_dir)),
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    // As process 1 of a container a signal without a handler is ignored.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    socket::raise_descriptor_limit();
    let start = Start::new(config).await.context("SOCKET_DIR, LISTEN: cannot have the balancer's sockets")?;
    let backends = config.backends.join(", ");
    tracing::info!("lb listens on {}, mode {:?}, for {backends}", config.listen, config.mode);
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    };
    server::run(start, config, shutdown).await?;
    tracing::info!("lb ended");
    Ok(())
}

async fn healthcheck(socket_dir: &Path) -> anyhow::Result<()> {
    let client: Client<_, Empty<Bytes>> = Client::unix();
    let url: hyper::Uri = Uri::new(socket::backend_path(socket_dir, "lb"), "/health").into();
    let answer = tokio::time::timeout(HEALTHCHECK_TIMEOUT, client.get(url)).await;
    let status = answer.context("lb does not answer")?.context("no lb there")?.status();
    ensure!(status.is_success(), "lb answered {status}: no api takes a connection");
    Ok(())
}
