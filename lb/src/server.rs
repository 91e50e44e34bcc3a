//! What runs together in the balancer: the edge over TCP for clients, and a small one over `lb.sock` for the health check
//! and metrics.

use crate::backend::Backend;
use crate::config::Config;
use crate::forward::Forward;
use crate::metrics;
use hyper::StatusCode;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{MissedTickBehavior, interval, sleep};
use wire::edge::{Edge, Reply, Request, Stream};
use wire::socket;

/// Connections that the kernel completes before we accept them: a burst of clients that all come at once.
const BACKLOG: i32 = 4_096;

/// How long a draining balancer waits for answers.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at connections that take too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// After an accept that failed for want of descriptors, which a closing connection gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections to `lb.sock`.
const ADMIN_CONNECTIONS_MAX: usize = 16;

/// Binds the clients' port. What is set here, accepted sockets inherit.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves until `shutdown`, then drains: what has begun is answered.
/// Must run inside a [`tokio::runtime::LocalRuntime`].
///
/// # Errors
/// When the listeners cannot be used at all.
pub async fn run(
    listener: std::net::TcpListener,
    admin: std::os::unix::net::UnixListener,
    config: &Config,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (listener, admin) = (TcpListener::from_std(listener)?, UnixListener::from_std(admin)?);
    let clients = Rc::new(Edge::new(config.connections_max));
    let backends = config.backends.iter().map(|name| {
        let path = socket::backend_path(&config.socket_dir, name);
        Backend::new(name.clone(), path)
    });
    let forward = Rc::new(Forward::new(backends.collect()));
    tokio::select! {
        () = accept_clients(&listener, &clients, &forward) => (),
        () = accept_admins(&admin, &clients, &forward) => (),
        () = shutdown => (),
    }
    tracing::info!("draining");
    // New connections are refused from here on: the next balancer, or nobody, takes them.
    drop(listener);
    clients.drain(DRAIN_PATIENCE).await;
    Ok(())
}

async fn accept_clients(listener: &TcpListener, clients: &Rc<Edge>, forward: &Rc<Forward>) {
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (clients, forward) = (Rc::clone(clients), Rc::clone(forward));
                    tokio::task::spawn_local(async move {
                        clients.serve(Stream::Tcp(stream), |request| forward.handle(request)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = sweep.tick() => clients.sweep(),
        }
    }
}

async fn accept_admins(listener: &UnixListener, clients: &Rc<Edge>, forward: &Rc<Forward>) {
    let admins = Rc::new(Edge::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (admins, clients, forward) = (Rc::clone(&admins), Rc::clone(clients), Rc::clone(forward));
        tokio::task::spawn_local(async move {
            admins.serve(Stream::Unix(stream), |request| administer(request, &clients, &forward)).await;
        });
    }
}

async fn administer(request: Request, clients: &Edge, forward: &Forward) -> Reply {
    match request.target.path() {
        "/metrics" => Reply::json(StatusCode::OK, metrics::render(forward, clients)),
        "/health" => {
            for backend in forward.backends() {
                if backend.is_reachable().await {
                    return Reply::json(StatusCode::OK, r#"{"status":"ok"}"#);
                }
            }
            Reply::unavailable("no_api", "no api takes a connection")
        }
        _ => Reply::error(StatusCode::NOT_FOUND, "unknown_path", "GET /metrics or GET /health"),
    }
}
