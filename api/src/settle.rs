//! Leases become calls, calls become reports.
//!
//! Each call is a small task of its own, so a processor that takes seconds costs memory and nothing else. What is out
//! is listed in [`Attempts`]: the hello to a new store tells it, and one look a second tells the store about calls that
//! are overdue. Their sockets are kept, because the answer may still come, up to [`OVERDUE_MAX`] of them.

use crate::evidence::{self, Answer};
use crate::link::{Link, Work};
use crate::processor::{CallError, Processor as Peer};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use wire::frame::{
    AttemptId, CallKind, FromApi, HELD_ATTEMPTS_MAX, HeldAttempt, LEASE_FRESH_MS, Lease, Outcome, Report,
};
use wire::{PerProcessor, Processor, Timestamp};

/// After so long a call no longer counts against the store's cap (MONEY.md, table of events).
const OVERDUE_AFTER: Duration = Duration::from_secs(30);

/// Overdue calls whose sockets are kept; beyond it the oldest is closed and its attempt unknown for good.
const OVERDUE_MAX: usize = 500;

/// A `GET` that hangs is given up: it has nothing to lose.
const INQUIRY_PATIENCE: Duration = Duration::from_secs(5);

// CALLS_MAX is at most 1,000 (config).
const _: () = assert!(1_000 + OVERDUE_MAX < HELD_ATTEMPTS_MAX);

struct Held {
    lease: Lease,
    since: Instant,
    is_overdue: bool,
    task: AbortHandle,
}

/// The posts that are out.
#[derive(Default)]
pub struct Attempts {
    held: RefCell<BTreeMap<AttemptId, Held>>,
}

impl Attempts {
    /// What a hello lists.
    #[must_use]
    pub fn held(&self) -> Vec<HeldAttempt> {
        let held = self.held.borrow();
        let age_ms = |held: &Held| u64::try_from(held.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        held.iter()
            .filter(|(_, held)| !held.is_overdue)
            .map(|(attempt, held)| HeldAttempt {
                attempt: *attempt,
                age_ms: age_ms(held),
            })
            .collect()
    }

    /// How many are out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.borrow().len()
    }

    /// True when nothing is out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.borrow().is_empty()
    }

    /// Tells the store which calls are overdue, and gives up the oldest of too many.
    pub fn sweep(&self, link: &Link) {
        let mut held = self.held.borrow_mut();
        for held in held
            .values_mut()
            .filter(|held| !held.is_overdue && held.since.elapsed() > OVERDUE_AFTER)
        {
            held.is_overdue = true;
            link.report(report(&held.lease, Outcome::Overdue, 0, held.since));
        }
        let overdue: Vec<AttemptId> = held
            .iter()
            .filter(|(_, held)| held.is_overdue)
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in overdue.iter().take(overdue.len().saturating_sub(OVERDUE_MAX)) {
            if let Some(given_up) = held.remove(attempt) {
                given_up.task.abort();
                link.report(report(&given_up.lease, Outcome::Lost, 0, given_up.since));
            }
        }
    }
}

/// Makes the calls.
pub struct Settler {
    link: Rc<Link>,
    processors: PerProcessor<Peer>,
    attempts: Attempts,
}

/// The settler as the link sees it: calls run as tasks that share it.
pub struct Shared(pub Rc<Settler>);

impl Settler {
    /// A settler with nothing to do.
    #[must_use]
    pub fn new(link: Rc<Link>, processors: PerProcessor<Peer>) -> Self {
        Self {
            link,
            processors,
            attempts: Attempts::default(),
        }
    }

    /// The posts that are out.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    async fn post(&self, lease: Lease) {
        let peer = &self.processors[lease.processor];
        let since = Instant::now();
        let mut answering = match peer.call(&lease).await {
            Ok(answering) => answering,
            Err(CallError::NeverSent) => return self.finish(&lease, Outcome::Unreachable, 0, since),
            Err(CallError::Unknown) => return self.finish(&lease, Outcome::Lost, 0, since),
        };
        let status = answering.status();
        // A head that says all is reported at once; the rest of the answer may take its time.
        let early = evidence::outcome(
            CallKind::Post,
            Answer {
                body: None,
                ..answering.answer(None)
            },
        );
        if early == Outcome::Unclear {
            let body = answering.read_body().await;
            let outcome = evidence::outcome(CallKind::Post, answering.answer(body.as_deref()));
            self.finish(&lease, outcome, status, since);
        } else {
            self.finish(&lease, early, status, since);
        }
        peer.put_back(answering).await;
    }

    async fn get(&self, lease: Lease) {
        let peer = &self.processors[lease.processor];
        let since = Instant::now();
        let asked = async {
            let mut answering = match peer.call(&lease).await {
                Ok(answering) => answering,
                Err(CallError::NeverSent) => return (Outcome::Unreachable, 0),
                Err(CallError::Unknown) => return (Outcome::Lost, 0),
            };
            let body = answering.read_body().await;
            let outcome = evidence::outcome(CallKind::Get, answering.answer(body.as_deref()));
            let status = answering.status();
            peer.put_back(answering).await;
            (outcome, status)
        };
        let (outcome, status) = tokio::time::timeout(INQUIRY_PATIENCE, asked)
            .await
            .unwrap_or((Outcome::Lost, 0));
        self.link.report(report(&lease, outcome, status, since));
    }

    fn finish(&self, lease: &Lease, outcome: Outcome, status: u16, since: Instant) {
        self.attempts.held.borrow_mut().remove(&lease.attempt);
        self.link.report(report(lease, outcome, status, since));
    }
}

impl Work for Shared {
    fn lease(&self, lease: Lease) {
        let settler = Rc::clone(&self.0);
        if lease.kind == CallKind::Get {
            tokio::task::spawn_local(async move { settler.get(lease).await });
            return;
        }
        let since = Instant::now();
        if is_stale(&lease, Timestamp::now()) {
            settler.link.report(report(&lease, Outcome::HandedBack, 0, since));
            return;
        }
        let task = tokio::task::spawn_local({
            let settler = Rc::clone(&settler);
            async move { settler.post(lease).await }
        });
        let held = Held {
            lease,
            since,
            is_overdue: false,
            task: task.abort_handle(),
        };
        settler.attempts.held.borrow_mut().insert(lease.attempt, held);
    }

    fn health(&self, processor: Processor) {
        let settler = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let health = settler.processors[processor].health().await;
            settler.link.tell(&FromApi::HealthReport { processor, health });
        });
    }

    fn attempts(&self) -> &Attempts {
        &self.0.attempts
    }
}

/// A fresh time that has become old on the way to us is handed back: an audit may already look at it.
fn is_stale(lease: &Lease, now: Timestamp) -> bool {
    lease.fresh && now.as_ms().saturating_sub(lease.requested_at.as_ms()) > LEASE_FRESH_MS
}

fn report(lease: &Lease, outcome: Outcome, status: u16, since: Instant) -> Report {
    Report {
        sequence: 0,
        attempt: lease.attempt,
        id: lease.id,
        processor: lease.processor,
        outcome,
        status,
        latency_us: u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX),
    }
}
