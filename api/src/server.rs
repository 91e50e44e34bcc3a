//! What runs together in one api: the link to the store, the settler, and the edge over its Unix socket and over the
//! clients that lb hands off.

use crate::config::Config;
use crate::desk::Desk;
use crate::handoff::HandOff;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::processor::Processor as Peer;
use crate::routes::Routes;
use crate::settle::{Settler, Shared};
use edge::unix::UnixStream;
use edge::{Edge, Stream};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::{Instant, sleep};
use wire::PerProcessor;

/// How long a draining api waits for its clients, and then for its calls.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at whether a draining api is done.
const DRAIN_TICK: Duration = Duration::from_millis(10);

/// After an accept that failed for want of descriptors, which a closing connection gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then drains: clients get their answers, calls their reports.
/// Must run inside a [`tokio::runtime::LocalRuntime`].
///
/// # Errors
/// When the listener cannot be used at all.
pub async fn run(
    listener: std::os::unix::net::UnixListener,
    control: OwnedFd,
    store: PathBuf,
    config: &Config,
    instance: u64,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let edge = Rc::new(
        Edge::new(config.limits.connections_max()).with_held_bytes_max(config.limits.held_bytes_max()),
    );
    let link = Rc::new(Link::new(Desk::new(instance, config.calls_max)));
    let addresses = PerProcessor([&config.processor_default_url, &config.processor_fallback_url]);
    let [default, fallback] = addresses.0.map(Peer::new);
    let peers = PerProcessor([default?, fallback?]);
    let settler = Rc::new(Settler::new(Rc::clone(&link), peers));
    let metrics = Rc::new(Metrics::new(config.name.clone(), Rc::clone(&edge), Rc::clone(&link)));
    let routes = Rc::new(Routes::new(Rc::clone(&link), metrics, config.purge, config.purge_token.clone()));

    tokio::task::spawn_local({
        let (link, work) = (Rc::clone(&link), Rc::new(Shared(settler)));
        async move { link.run(store, work).await }
    });
    let hand_off = Rc::new(HandOff::new(Rc::clone(&edge), Rc::clone(&routes)));
    tokio::select! {
        () = accept(&listener, &edge, &routes) => (),
        () = edge.keep_time(sleep) => (),
        ended = hand_off.run(control) => ended?,
        () = shutdown => (),
    }
    tracing::info!("draining");
    // What the kernel has taken for us is served; after that a balancer is refused here and goes to another api.
    while let Some(Ok(stream)) = now_or_never(UnixStream::accept(&listener)).await {
        serve(stream, &edge, &routes);
    }
    drop(listener);
    link.desk().drain();
    hand_off.drain();
    edge.drain(DRAIN_TIMEOUT).await;
    hand_off.close();
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    while !link.is_settled() && Instant::now() < deadline {
        sleep(DRAIN_TICK).await;
    }
    Ok(())
}

async fn accept(listener: &UnixListener, edge: &Rc<Edge>, routes: &Rc<Routes>) {
    loop {
        match UnixStream::accept(listener).await {
            Ok(stream) => serve(stream, edge, routes),
            Err(error) => {
                tracing::warn!("cannot accept: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve(stream: UnixStream, edge: &Rc<Edge>, routes: &Rc<Routes>) {
    let routes = Rc::clone(routes);
    let handler = move |request| Rc::clone(&routes).handle(request);
    tokio::task::spawn_local(edge.serve(Stream::Unix(stream), None, handler));
}

async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}
