//! What runs together in the balancer: one of the two modes for clients, and a small edge over `lb.sock` for the health
//! check and metrics.

use crate::backend::Backend;
use crate::config::{Config, Mode};
use crate::forward::Forward;
use crate::handoff::HandOff;
use crate::metrics;
use crate::takeover::{self, Applicant, Holdings, Passage, Sockets, Start};
use crate::timer::Timer;
use edge::handoff::control_path;
use edge::unix::UnixStream;
use edge::{Edge, Reply, Request, Stream};
use http::StatusCode;
use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::time::sleep;
use wire::socket;

/// How long a draining balancer waits for answers.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at which backends are to be checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// After an accept that failed for want of descriptors, which a closing connection gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections to `lb.sock`.
const ADMIN_CONNECTIONS_MAX: usize = 16;

/// Bytes held for them: many times the metrics for each.
const ADMIN_HELD_BYTES_MAX: usize = 1 << 20;

/// What serves the clients.
#[derive(Clone)]
enum Balancer {
    Forward(Rc<Forwarding>),
    HandOff(Rc<RefCell<HandOff>>),
}

/// Clients whose requests are forwarded.
struct Forwarding {
    clients: Rc<Edge>,
    forward: Rc<Forward>,
}

/// Serves until `shutdown`, then drains: what has begun is answered. When another balancer takes over, that one gets the
/// clients instead. Must run inside a [`tokio::runtime::LocalRuntime`].
///
/// # Errors
/// When the sockets cannot be used at all.
pub async fn run(start: Start, config: &Config, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let Start { sockets, holdings, predecessor } = start;
    let takes_over = predecessor.is_some();
    let begin = async {
        let balancer = Balancer::new(config, &sockets.clients, holdings)?;
        let admin = UnixListener::from_std(sockets.admin.try_clone()?)?;
        let control = UnixListener::from_std(sockets.control.try_clone()?.into())?;
        if let Some(predecessor) = predecessor {
            // A successor that we do not release exits: two balancers would hand out the same slots.
            let passage = takeover::dismiss(predecessor).await?;
            let balancer = balancer.clone();
            tokio::task::spawn_local(async move { balancer.take_clients(&passage).await });
        }
        Ok((balancer, admin, control))
    };
    let (balancer, admin, control) = match begin.await {
        Ok(begun) => begun,
        Err(error) => {
            if takes_over {
                // They are those of the balancer that goes on.
                sockets.forget();
            }
            return Err(error);
        }
    };
    let mut shutdown = pin!(shutdown);
    let successor = loop {
        let applicant = tokio::select! {
            ended = balancer.serve(&sockets.clients) => return ended,
            () = accept_admins(&admin, &balancer) => continue,
            () = &mut shutdown => break None,
            applicant = Applicant::next(&control) => applicant,
        };
        // Nothing is balanced meanwhile: what is passed on is the state of one moment.
        match balancer.pass_on(&sockets, applicant).await {
            Ok(passage) => break Some(passage),
            Err(error) => tracing::warn!("no balancer has taken over ({error}): going on"),
        }
    };
    // From here on we accept no connection: the next balancer does, if there is one.
    match &successor {
        None => {
            // Clients that the kernel has accepted for us, and that have sent something, are.
            balancer.accept_rest(&sockets.clients);
            drop((sockets, control, admin));
        }
        Some(_) => {
            tracing::info!("another balancer has taken over");
            sockets.forget();
        }
    }
    tracing::info!("draining");
    match (&balancer, successor) {
        (Balancer::Forward(forwarding), Some(successor)) => forwarding.pass_on(&successor).await,
        (Balancer::Forward(forwarding), None) => forwarding.clients.drain(DRAIN_TIMEOUT).await,
        // Clients that were handed off stay with their apis.
        (Balancer::HandOff(hand_off), None) => HandOff::place_rest(hand_off).await,
        (Balancer::HandOff(_), Some(_)) => (),
    }
    Ok(())
}

impl Balancer {
    fn new(
        config: &Config,
        clients: &Rc<std::net::TcpListener>,
        holdings: Option<Holdings>,
    ) -> io::Result<Self> {
        Ok(match config.mode {
            Mode::Forward => {
                let backend = |name: &String| {
                    Backend::new(name.clone(), socket::backend_path(&config.socket_dir, name))
                };
                let forward = Rc::new(Forward::new(config.backends.iter().map(backend).collect()));
                // As long as the process, its end included: what waits for an answer then must not wait for ever either.
                tokio::task::spawn_local(check_backends(Rc::clone(&forward)));
                let clients = Edge::new(config.limits.connections_max())
                    .with_held_bytes_max(config.limits.held_bytes_max());
                Self::Forward(Rc::new(Forwarding { clients: Rc::new(clients), forward }))
            }
            Mode::HandOff => {
                let backend = |name: &String| (name.clone(), control_path(&config.socket_dir, name));
                let backends = config.backends.iter().map(backend);
                let hand_off =
                    HandOff::new(Rc::clone(clients), backends, config.limits.connections_max(), holdings)?;
                Self::HandOff(Rc::new(RefCell::new(hand_off)))
            }
        })
    }

    async fn serve(&self, clients: &std::net::TcpListener) -> io::Result<()> {
        match self {
            Self::Forward(forwarding) => {
                let listener = TcpListener::from_std(clients.try_clone()?)?;
                tokio::join!(accept_clients(&listener, forwarding), keep_time(&forwarding.clients));
                Ok(())
            }
            Self::HandOff(hand_off) => HandOff::run(hand_off).await,
        }
    }

    /// Accepts all clients in the backlog.
    fn accept_rest(&self, clients: &std::net::TcpListener) {
        match self {
            Self::Forward(forwarding) => {
                loop {
                    let stream = clients.accept().and_then(|(client, _)| {
                        client.set_nonblocking(true)?;
                        TcpStream::from_std(client)
                    });
                    match stream {
                        Ok(stream) => forwarding.take(stream),
                        // The client has gone before it was accepted.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => (),
                        Err(_) => return,
                    }
                }
            }
            Self::HandOff(hand_off) => hand_off.borrow_mut().accept_rest(),
        }
    }

    /// Takes the clients that the balancer before this one has brought to rest.
    async fn take_clients(&self, passage: &Passage) {
        loop {
            match (passage.next_client().await, self) {
                (Ok(Some(client)), Self::Forward(forwarding)) => match TcpStream::from_std(client.into()) {
                    Ok(stream) => forwarding.take(stream),
                    Err(error) => tracing::warn!("cannot watch a client: {error}"),
                },
                (Ok(Some(client)), Self::HandOff(hand_off)) => match hand_off.try_borrow_mut() {
                    Ok(mut hand_off) => hand_off.take_over(client),
                    Err(_) => tracing::warn!("a client came while this balancer is taken over: it is closed"),
                },
                (Ok(None), _) => return,
                (Err(error), _) => return tracing::warn!("the balancer before this one: {error}"),
            }
        }
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "who would change it meanwhile asks whether it may")]
    async fn pass_on(&self, sockets: &Sockets, applicant: Applicant) -> io::Result<Passage> {
        match self {
            Self::Forward(_) => sockets.pass_on(applicant, None::<&HandOff>).await,
            Self::HandOff(hand_off) => sockets.pass_on(applicant, Some(&*hand_off.borrow())).await,
        }
    }

    fn metrics(&self) -> String {
        match self {
            Self::Forward(forwarding) => metrics::of_forward(&forwarding.forward, &forwarding.clients),
            Self::HandOff(hand_off) => {
                // While a balancer takes over it reads these clients, too.
                if let Ok(mut hand_off) = hand_off.try_borrow_mut() {
                    hand_off.reap_all();
                }
                metrics::of_hand_off(&hand_off.borrow())
            }
        }
    }

    async fn has_api(&self) -> bool {
        match self {
            Self::Forward(forwarding) => {
                for backend in forwarding.forward.backends() {
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

impl Forwarding {
    fn take(&self, stream: TcpStream) {
        let forward = Rc::clone(&self.forward);
        let handler = move |request| Rc::clone(&forward).handle(request);
        tokio::task::spawn_local(self.clients.serve(Stream::Tcp(stream), None, handler));
    }

    /// Passes the clients on as they come to rest.
    async fn pass_on(&self, successor: &Passage) {
        // At most one for each connection there is.
        let (at_rest_tx, mut at_rest) = mpsc::unbounded_channel();
        // Once the successor is gone, they are closed.
        let heir = move |stream| drop(at_rest_tx.send(stream));
        let pass_on = async {
            while let Some(stream) = at_rest.recv().await {
                if let Ok(client) = Stream::into_fd(stream) {
                    // Of one that cannot be sent ours is the last descriptor: its client sees the end.
                    let _ = successor.send_client(client.as_fd()).await;
                }
            }
        };
        tokio::join!(self.clients.release(DRAIN_TIMEOUT, heir), pass_on);
    }
}

async fn accept_clients(listener: &TcpListener, forwarding: &Rc<Forwarding>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => forwarding.take(stream),
            Err(error) => {
                tracing::warn!("cannot accept: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Ends clients whose time is over.
async fn keep_time(clients: &Edge) {
    let timer = Timer::new();
    clients.keep_time(async |pause| timer.pause(pause).await).await;
}

async fn check_backends(forward: Rc<Forward>) {
    let timer = Timer::new();
    loop {
        forward.check();
        timer.pause(CHECK_INTERVAL).await;
    }
}

async fn accept_admins(listener: &UnixListener, balancer: &Balancer) {
    let admins = Edge::new(ADMIN_CONNECTIONS_MAX).with_held_bytes_max(ADMIN_HELD_BYTES_MAX);
    let admins = Rc::new(admins);
    let accept = async {
        loop {
            let Ok(stream) = UnixStream::accept(listener).await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (admins, balancer) = (Rc::clone(&admins), balancer.clone());
            tokio::task::spawn_local(async move {
                admins.serve(Stream::Unix(stream), None, |request| administer(request, &balancer)).await;
            });
        }
    };
    tokio::join!(accept, keep_time(&admins));
}

async fn administer(request: Request, balancer: &Balancer) -> Reply {
    match request.target.path() {
        "/metrics" => Reply::metrics(balancer.metrics(), request.accept.as_ref()),
        "/health" if balancer.has_api().await => Reply::json(StatusCode::OK, r#"{"status":"ok"}"#),
        "/health" => Reply::unavailable("no_api", "no api takes a connection"),
        _ => Reply::error(StatusCode::NOT_FOUND, "unknown_path", "GET /metrics or GET /health"),
    }
}
