//! Starts an api: arguments, socket, runtime, signals; then [`api::server`] serves until it is told to end.

use anyhow::{Context, ensure};
use api::config::{Arguments, Command, Config};
use api::server;
use bytes::Bytes;
use edge::handoff;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyperlocal::{UnixClientExt, Uri};
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
        Some(Command::Healthcheck) => runtime.block_on(healthcheck(&arguments.config)),
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    // As process 1 of a container a signal without a handler is ignored.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    };
    let store = socket::store_path(config.store_socket_dir());
    let instance = uuid::Uuid::new_v4().as_u64_pair().0;
    server::run(listener, control, store, config, instance, shutdown).await?;
    tracing::info!("{} ended", config.name);
    Ok(())
}

async fn healthcheck(config: &Config) -> anyhow::Result<()> {
    let path = socket::backend_path(&config.socket_dir, &config.name);
    let client: Client<_, Empty<Bytes>> = Client::unix();
    let answer =
        tokio::time::timeout(HEALTHCHECK_TIMEOUT, client.get(Uri::new(&path, "/health").into())).await;
    let status = answer.context("the api does not answer")?.context("no api there")?.status();
    ensure!(status.is_success(), "the api answered {status}");
    Ok(())
}
