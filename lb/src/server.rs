//! What runs together in the balancer: one of the two modes for clients, and a small edge over `lb.sock` for the health
//! check and metrics.

use crate::backend::Backend;
use crate::config::{Config, Mode};
use crate::forward::Forward;
use crate::handoff::HandOff;
use crate::metrics;
use hyper::StatusCode;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{MissedTickBehavior, interval, sleep};
use wire::edge::{Edge, Reply, Request, Stream};
use wire::handoff::control_path;
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

/// What serves the clients.
#[derive(Clone)]
enum Balancer {
    Forward(Rc<Edge>, Rc<Forward>),
    HandOff(Rc<RefCell<HandOff>>),
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
    let admin = UnixListener::from_std(admin)?;
    let balancer = match config.mode {
        Mode::Forward => {
            let backend =
                |name: &String| Backend::new(name.clone(), socket::backend_path(&config.socket_dir, name));
            let forward = Forward::new(config.backends.iter().map(backend).collect());
            Balancer::Forward(Rc::new(Edge::new(config.connections_max)), Rc::new(forward))
        }
        Mode::HandOff => {
            let backend = |name: &String| (name.clone(), control_path(&config.socket_dir, name));
            let backends = config.backends.iter().map(backend);
            let hand_off = HandOff::new(listener.try_clone()?, backends, config.connections_max)?;
            Balancer::HandOff(Rc::new(RefCell::new(hand_off)))
        }
    };
    tokio::select! {
        ended = balance(listener, &balancer) => ended?,
        () = accept_admins(&admin, &balancer) => (),
        () = shutdown => (),
    }
    tracing::info!("draining");
    // The listener is closed by now: new connections are refused. Clients that were handed off stay with their apis.
    if let Balancer::Forward(clients, _) = &balancer {
        clients.drain(DRAIN_PATIENCE).await;
    }
    Ok(())
}

async fn balance(listener: std::net::TcpListener, balancer: &Balancer) -> io::Result<()> {
    match balancer {
        Balancer::Forward(clients, forward) => {
            let listener = TcpListener::from_std(listener)?;
            accept_clients(&listener, clients, forward).await;
            Ok(())
        }
        Balancer::HandOff(hand_off) => HandOff::run(hand_off).await,
    }
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
                        clients.serve(Stream::Tcp(stream), None, |request| forward.handle(request)).await;
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

async fn accept_admins(listener: &UnixListener, balancer: &Balancer) {
    let admins = Rc::new(Edge::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (admins, balancer) = (Rc::clone(&admins), balancer.clone());
        tokio::task::spawn_local(async move {
            admins.serve(Stream::Unix(stream), None, |request| administer(request, &balancer)).await;
        });
    }
}

async fn administer(request: Request, balancer: &Balancer) -> Reply {
    match request.target.path() {
        "/metrics" => Reply::json(
            StatusCode::OK,
            match balancer {
                Balancer::Forward(clients, forward) => metrics::of_forward(forward, clients),
                Balancer::HandOff(hand_off) => metrics::of_hand_off(&hand_off.borrow()),
            },
        ),
        "/health" if balancer.has_api().await => Reply::json(StatusCode::OK, r#"{"status":"ok"}"#),
        "/health" => Reply::unavailable("no_api", "no api takes a connection"),
        _ => Reply::error(StatusCode::NOT_FOUND, "unknown_path", "GET /metrics or GET /health"),
    }
}

impl Balancer {
    async fn has_api(&self) -> bool {
        match self {
            Self::Forward(_, forward) => {
                for backend in forward.backends() {
                    if backend.is_reachable().await {
                        return true;
                    }
                }
                false
            }
            Self::HandOff(hand_off) => hand_off.borrow().has_api(),
        }
    }
}
