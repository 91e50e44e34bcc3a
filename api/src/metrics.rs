//! The api's metrics: what it answered, what is out.

use crate::link::Link;
use edge::Edge;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use wire::metrics::{LOG_LINES_DROPPED, Sample, Snapshot};

/// Counts of this process.
pub struct Metrics {
    name: String,
    replies: RefCell<BTreeMap<u16, u64>>,
    edge: Rc<Edge>,
    link: Rc<Link>,
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(name: String, edge: Rc<Edge>, link: Rc<Link>) -> Self {
        Self { name, replies: RefCell::default(), edge, link }
    }

    /// Counts an answer by its status.
    pub fn count(&self, status: u16) {
        *self.replies.borrow_mut().entry(status).or_default() += 1;
    }

    /// All numbers, as OpenMetrics. Each carries the api's name: a balancer answers with those of any api.
    #[must_use]
    pub fn render(&self) -> String {
        let mut snapshot = Snapshot::default();
        let api = || ("api", self.name.clone());
        let one = |value: usize| -> Vec<Sample> { vec![(vec![api()], value as u64)] };
        let label = |status: &u16| vec![api(), ("status", status.to_string())];
        let replies = self.replies.borrow().iter().map(|(status, count)| (label(status), *count)).collect();
        snapshot.counter("replies", "Answers by status", replies);
        let dropped = vec![(vec![api()], wire::stderr::dropped())];
        snapshot.counter("log_lines_dropped", LOG_LINES_DROPPED, dropped);
        snapshot.gauge("connections", "Client connections", one(self.edge.len()));
        snapshot.gauge(
            "handed_off",
            "Client connections that lb has handed off",
            one(self.edge.handed_off_len()),
        );
        snapshot.gauge("calls", "Posts to processors that are out", one(self.link.calls_len()));
        self.edge.held_bytes().report(&mut snapshot, &[api()]);
        snapshot.render("api")
    }
}
