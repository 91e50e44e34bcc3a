//! One api behind the balancer: its socket, kept connections to it, and what was counted.
//!
//! What is believed of it is in [`crate::balance`]; here it is noted when something happens.

use crate::balance::Load;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use std::cell::Cell;
use std::path::PathBuf;
use wire::pool::{Answering, Pool, SendError};
use wire::unix::UnixStream;

/// Idle connections kept to one backend: as many requests as one may have in flight at a time under a fight's load.
const IDLE_MAX: usize = 256;

/// One api.
pub struct Backend {
    /// Its name, for logs and metrics.
    pub name: String,
    path: PathBuf,
    pool: Pool,
    load: Cell<Load>,
    answered: Cell<u64>,
    failed: Cell<u64>,
}

impl Backend {
    /// A backend that nobody has spoken to yet.
    #[must_use]
    pub fn new(name: String, path: PathBuf) -> Self {
        Self {
            name,
            path,
            pool: Pool::new(IDLE_MAX),
            load: Cell::default(),
            answered: Cell::new(0),
            failed: Cell::new(0),
        }
    }

    /// What balancing looks at.
    #[must_use]
    pub fn load(&self) -> Load {
        self.load.get()
    }

    /// Changes what balancing looks at.
    pub fn note(&self, change: impl FnOnce(&mut Load)) {
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
        UnixStream::connect(&self.path).await.is_ok()
    }

    /// Sends a request and returns with the head of its answer; `alone` for one that must not be sent twice.
    ///
    /// # Errors
    /// [`SendError`] tells what may be tried again.
    pub async fn send(&self, request: Request<Full<Bytes>>, alone: bool) -> Result<Answering, SendError> {
        let connect = async || UnixStream::connect(&self.path).await;
        let outcome = match alone {
            true => self.pool.send_alone(request, connect).await,
            false => self.pool.send(request, connect).await,
        };
        let count = if outcome.is_ok() { &self.answered } else { &self.failed };
        count.set(count.get() + 1);
        outcome
    }

    /// Gives a connection back whose answer has been read to its end.
    pub async fn put_back(&self, answering: Answering) {
        self.pool.put_back(answering).await;
    }
}

/// A request that a backend has not answered yet.
pub struct InFlight<'a>(&'a Backend);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.note(|load| load.in_flight -= 1);
    }
}
