//! The sockets of one simulated processor.

use super::config::ProcessorConfig;
use super::http;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

/// Open connections. A judge's user is one connection and an api opens one for each call under way, so this is several
/// times what the limiter admits; beyond it connections stay in the kernel's backlog until another one closes.
pub const CONNECTIONS_MAX: usize = 8_192;

/// The kernel's backlog. All of the judge's users or all of an api's calls may connect within one millisecond, and a
/// connection that does not fit is retried after a second.
const BACKLOG: u32 = 4_096;

/// How long accepting rests when the process is out of descriptors, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds `addr` with a backlog that takes all callers at once.
///
/// # Errors
/// What the system says.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Plays one processor on `listener` until `shutdown` is ready.
///
/// It ends at once, like a killed container: open connections close without an answer, and what was recorded is gone.
/// It makes tasks with [`tokio::spawn`] and wants a runtime with I/O and time; a current-thread one is enough.
pub async fn serve(listener: TcpListener, config: ProcessorConfig, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let service = Arc::new(http::Service::new(&config));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            Some(_) = connections.join_next() => (),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(http::connection(stream, Arc::clone(&service)));
                }
                // The peer's own doing; the next connection is not affected.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => (),
                Err(error) => {
                    tracing::warn!(processor = config.name.name(), %error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}
