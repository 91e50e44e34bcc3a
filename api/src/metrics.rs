//! The api's metrics: what it answered, what is out.

use crate::settle::Settler;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use wire::edge::Edge;
use wire::metrics::{Snapshot, plain};

/// Counts of this process.
pub struct Metrics {
    name: String,
    replies: RefCell<BTreeMap<u16, u64>>,
    edge: Rc<Edge>,
    settler: RefCell<Weak<Settler>>,
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(name: String, edge: Rc<Edge>) -> Self {
        Self {
            name,
            replies: RefCell::default(),
            edge,
            settler: RefCell::default(),
        }
    }

    /// Lets the calls that are out be told, too.
    pub fn watch(&self, settler: &Rc<Settler>) {
        *self.settler.borrow_mut() = Rc::downgrade(settler);
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
        let replies = self
            .replies
            .borrow()
            .iter()
            .map(|(status, count)| (label(status), *count))
            .collect();
        snapshot.counter("replies", "Answers by status", replies);
        snapshot.gauge("connections", "Client connections", plain(self.edge.len() as u64));
        if let Some(settler) = self.settler.borrow().upgrade() {
            snapshot.gauge(
                "calls",
                "Calls to processors that are out",
                plain(settler.attempts().len() as u64),
            );
        }
        snapshot.render("api")
    }
}
