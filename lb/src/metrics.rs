//! The balancer's metrics, served on its own Unix socket.

use crate::backend::Backend;
use crate::forward::Forward;
use wire::edge::Edge;
use wire::metrics::{Sample, Snapshot, plain};

/// All numbers, as Prometheus text.
#[must_use]
pub fn render(forward: &Forward, clients: &Edge) -> String {
    let mut snapshot = Snapshot::default();
    let each = |value: &dyn Fn(&Backend) -> u64| -> Vec<Sample> {
        let label = |backend: &Backend| vec![("backend", backend.name.clone())];
        forward.backends().iter().map(|backend| (label(backend), value(backend))).collect()
    };
    snapshot.counter("answered", "Requests that a backend answered", each(&|backend| backend.counts().0));
    snapshot.counter(
        "failed",
        "Requests that a backend took and did not answer",
        each(&|backend| backend.counts().1),
    );
    let (retries, unavailable, unknown) = forward.counts();
    snapshot.counter("retries", "Requests sent a second time", plain(retries));
    snapshot.counter("unavailable", "Answers 503 of the balancer itself", plain(unavailable));
    snapshot.counter("unknown", "Answers 504 of the balancer itself", plain(unknown));
    snapshot.gauge(
        "in_flight",
        "Requests without an answer",
        each(&|backend| backend.load().in_flight as u64),
    );
    snapshot.gauge("connections", "Client connections", plain(clients.len() as u64));
    snapshot.render("lb")
}
