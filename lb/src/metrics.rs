//! The balancer's metrics, served on its own Unix socket.

use crate::backend::Backend;
use crate::forward::Forward;
use crate::handoff::HandOff;
use edge::Edge;
use wire::metrics::{LOG_LINES_DROPPED, Sample, Snapshot, plain};

/// All numbers of mode hand-off, as Prometheus text.
#[must_use]
pub fn of_hand_off(hand_off: &HandOff) -> String {
    let mut snapshot = Snapshot::default();
    let label = |name: &str| vec![("backend", name.to_owned())];
    let handed_off = hand_off.each().map(|(name, count, _)| (label(name), count)).collect();
    let held = hand_off.each().map(|(name, _, held)| (label(name), held as u64)).collect();
    let counts = hand_off.counts();
    snapshot.counter("handed_off", "Clients handed off", handed_off);
    snapshot.counter("moved", "Clients that went on with another api", plain(counts.moved));
    snapshot.counter("reset", "Clients reset because their api had ended", plain(counts.reset));
    snapshot.counter("unavailable", "Answers 503 of the balancer itself", plain(counts.refused));
    snapshot.counter("log_lines_dropped", LOG_LINES_DROPPED, plain(wire::stderr::dropped()));
    snapshot.gauge("held", "Clients that an api has", held);
    snapshot.gauge("connections", "Client connections", plain(hand_off.len() as u64));
    snapshot.render("lb")
}

/// All numbers of mode forward, as Prometheus text.
#[must_use]
pub fn of_forward(forward: &Forward, clients: &Edge) -> String {
    let mut snapshot = Snapshot::default();
    let each = |value: &dyn Fn(&Backend) -> u64| -> Vec<Sample> {
        let label = |backend: &Backend| vec![("backend", backend.name.clone())];
        forward.backends().iter().map(|backend| (label(backend), value(backend))).collect()
    };
    snapshot.counter(
        "answered",
        "Requests and checks that a backend answered",
        each(&|backend| backend.counts().0),
    );
    snapshot.counter(
        "failed",
        "Requests and checks that a backend did not answer",
        each(&|backend| backend.counts().1),
    );
    let (retries, unavailable, unknown) = forward.counts();
    snapshot.counter("retries", "Requests sent a second time", plain(retries));
    snapshot.counter("unavailable", "Answers 503 of the balancer itself", plain(unavailable));
    snapshot.counter("unknown", "Answers 504 of the balancer itself", plain(unknown));
    snapshot.counter("log_lines_dropped", LOG_LINES_DROPPED, plain(wire::stderr::dropped()));
    snapshot.gauge(
        "in_flight",
        "Requests without an answer",
        each(&|backend| backend.load().in_flight as u64),
    );
    snapshot.gauge(
        "suspect",
        "1 for a backend that did not answer and is passed over",
        each(&|backend| u64::from(backend.load().is_suspect)),
    );
    snapshot.gauge("connections", "Client connections", plain(clients.len() as u64));
    clients.held_bytes().report(&mut snapshot, &[]);
    snapshot.render("lb")
}
