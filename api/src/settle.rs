//! Leases become calls, calls become reports.
//!
//! Each call is a small task of its own, so a processor that takes seconds costs memory and nothing else. What is out
//! and what was reported is on the [`crate::desk`]; here is only the doing.

use crate::evidence::{self, Answer};
use crate::link::{Link, Work};
use crate::processor::Processor as Peer;
use edge::SendError;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, timeout};
use wire::frame::{AttemptId, CallKind, FromApi, Lease, Outcome};
use wire::{PerProcessor, Processor};

/// A `GET` that hangs is given up: it has nothing to lose.
const INQUIRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the calls.
pub struct Settler {
    link: Rc<Link>,
    processors: PerProcessor<Peer>,
    posts: RefCell<BTreeMap<AttemptId, AbortHandle>>,
}

/// The settler as the link sees it: calls run as tasks that share it.
pub struct Shared(pub Rc<Settler>);

impl Settler {
    /// A settler with nothing to do.
    #[must_use]
    pub fn new(link: Rc<Link>, processors: PerProcessor<Peer>) -> Self {
        Self { link, processors, posts: RefCell::default() }
    }

    async fn post(&self, lease: Lease) {
        let peer = &self.processors[lease.processor];
        let since = Instant::now();
        let mut answering = match peer.call(&lease).await {
            Ok(answering) => answering,
            Err(SendError::NeverSent) => return self.finish(&lease, Outcome::Unreachable, 0, since),
            Err(SendError::Unknown) => return self.finish(&lease, Outcome::Lost, 0, since),
        };
        let status = answering.status();
        // A head that says all is reported at once; the rest of the answer may take its time.
        let mut outcome =
            evidence::outcome(lease.kind, lease.id, Answer { body: None, ..answering.answer(None) });
        if outcome == Outcome::Unclear {
            let body = answering.read_body().await;
            outcome = evidence::outcome(lease.kind, lease.id, answering.answer(body.as_deref()));
        }
        self.finish(&lease, outcome, status, since);
        peer.put_back(answering).await;
    }

    async fn get(&self, lease: Lease) {
        let peer = &self.processors[lease.processor];
        let since = Instant::now();
        let asked = async {
            let mut answering = match peer.call(&lease).await {
                Ok(answering) => answering,
                Err(SendError::NeverSent) => return (Outcome::Unreachable, 0),
                Err(SendError::Unknown) => return (Outcome::Lost, 0),
            };
            let body = answering.read_body().await;
            let outcome = evidence::outcome(lease.kind, lease.id, answering.answer(body.as_deref()));
            let status = answering.status();
            peer.put_back(answering).await;
            (outcome, status)
        };
        let (outcome, status) = timeout(INQUIRY_TIMEOUT, asked).await.unwrap_or((Outcome::Lost, 0));
        self.finish(&lease, outcome, status, since);
    }

    fn finish(&self, lease: &Lease, outcome: Outcome, status: u16, since: Instant) {
        self.posts.borrow_mut().remove(&lease.attempt);
        let latency_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.link.desk().finish(lease, outcome, status, latency_us);
    }
}

impl Work for Shared {
    fn call(&self, lease: Lease) {
        let settler = Rc::clone(&self.0);
        match lease.kind {
            CallKind::Post => {
                let task = spawn_local(async move { settler.post(lease).await });
                self.0.posts.borrow_mut().insert(lease.attempt, task.abort_handle());
            }
            CallKind::Get => {
                spawn_local(async move { settler.get(lease).await });
            }
        }
    }

    fn close(&self, attempt: AttemptId) {
        if let Some(task) = self.0.posts.borrow_mut().remove(&attempt) {
            task.abort();
        }
    }

    fn health(&self, processor: Processor) {
        let settler = Rc::clone(&self.0);
        spawn_local(async move {
            let health = settler.processors[processor].health().await;
            settler.link.desk().tell(&FromApi::HealthReport { processor, health });
        });
    }
}
