//! The api's metrics: what it answered, what is out.

use crate::link::Link;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use wire::edge::Edge;
use wire::metrics::{LOG_LINES_DROPPED, Snapshot, plain};

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

    /// All numbers, as Prometheus text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut snapshot = Snapshot::default();
        let label = |status: &u16| vec![("api", self.name.clone()), ("status", status.to_string())];
        let replies = self.replies.borrow().iter().map(|(status, count)| (label(status), *count)).collect();
        snapshot.counter("replies", "Answers by status", replies);
        let dropped = vec![(vec![("api", self.name.clone())], wire::stderr::dropped())];
        snapshot.counter("log_lines_dropped", LOG_LINES_DROPPED, dropped);
        snapshot.gauge("connections", "Client connections", plain(self.edge.len() as u64));
        snapshot.gauge(
            "handed_off",
            "Client connections that lb has handed off",
            plain(self.edge.handed_off_len() as u64),
        );
        snapshot.gauge("calls", "Posts to processors that are out", plain(self.link.calls_len() as u64));
        snapshot.render("api")
    }
}
