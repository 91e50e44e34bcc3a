//! One api behind the balancer: how it is reached, and what was counted.
//!
//! What is believed of it is in [`crate::balance`]; here it is noted when something happens.

use crate::balance::BackendState;
use crate::upstream::Upstream;
use edge::{Reply, Request, SendError};
use std::cell::Cell;
use std::path::PathBuf;

/// One api.
pub struct Backend {
    /// Its name, for logs and metrics.
    pub name: String,
    upstream: Upstream,
    load: Cell<BackendState>,
    answered: Cell<u64>,
    failed: Cell<u64>,
}

impl Backend {
    /// A backend that was not asked yet.
    #[must_use]
    pub fn new(name: String, path: PathBuf) -> Self {
        Self {
            name,
            upstream: Upstream::new(path),
            load: Cell::default(),
            answered: Cell::new(0),
            failed: Cell::new(0),
        }
    }

    /// What balancing looks at.
    #[must_use]
    pub fn load(&self) -> BackendState {
        self.load.get()
    }

    /// Changes what balancing looks at.
    pub fn note(&self, change: impl FnOnce(&mut BackendState)) {
        let mut load = self.load.get();
        change(&mut load);
        if load.is_suspect != self.load.get().is_suspect {
            let what = if load.is_suspect { "does not answer: it is passed over" } else { "answers again" };
            tracing::info!("{} {what}", self.name);
        }
        self.load.set(load);
    }

    /// Requests that it has answered, and that it failed to.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.answered.get(), self.failed.get())
    }

    /// Counts a request in until the returned value is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlight<'_> {
        self.note(|load| load.in_flight += 1);
        InFlight(self)
    }

    /// True when it takes a connection now.
    pub async fn is_reachable(&self) -> bool {
        self.upstream.is_reachable().await
    }

    /// Closes kept connections that it has closed. To be called now and then.
    pub fn tidy(&self) {
        self.upstream.tidy();
    }

    /// Puts a request to it.
    ///
    /// # Errors
    /// [`SendError`] tells what may be tried again.
    pub async fn ask(&self, request: &Request) -> Result<Reply, SendError> {
        let outcome = self.upstream.ask(request).await;
        let count = if outcome.is_ok() { &self.answered } else { &self.failed };
        count.set(count.get() + 1);
        outcome
    }
}

/// A request that a backend has not answered yet.
pub struct InFlight<'a>(&'a Backend);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.note(|load| load.in_flight -= 1);
    }
}
