//! What lb and an api do alike as processes: one thread, an end by signal, and a health check from outside.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, Error};
use hyperlocal::{UnixClientExt, Uri};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, LocalRuntime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// How long a health check waits for an answer.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A runtime that keeps all tasks on this thread.
///
/// # Errors
/// What the system says.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(Default::default())
}

/// Handles SIGTERM, SIGINT and SIGHUP from now on; the future is ready at the first of them. As process 1 of a container, a
/// process ignores a signal without a handler.
///
/// # Errors
/// When the system refuses the handlers.
pub fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
            _ = hang_up.recv() => (),
        }
    })
}

/// Why there is no health.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No process listens.
    #[error("no process answers at the socket")]
    Absent(#[from] Error),
    /// It does not answer in time.
    #[error("no answer within 2 s")]
    Silent,
    /// It answers that it cannot serve.
    #[error("the answer is {0}")]
    Unwell(StatusCode),
}

/// Asks the process behind a Unix socket for its health.
///
/// # Errors
/// [`ProbeError`] unless it answers with a 2xx.
pub async fn probe(socket: &Path) -> Result<(), ProbeError> {
    let client: Client<_, Empty<Bytes>> = Client::unix();
    let asked = client.get(Uri::new(socket, "/health").into());
    let status = timeout(HEALTHCHECK_TIMEOUT, asked).await.map_err(|_| ProbeError::Silent)??.status();
    if status.is_success() { Ok(()) } else { Err(ProbeError::Unwell(status)) }
}
