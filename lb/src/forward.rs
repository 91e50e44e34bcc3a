//! A request goes through: to a backend, to another one if that is gone, and its answer back.
//!
//! | what happens | then |
//! |---|---|
//! | the backend takes no connection, or hands the request back unwritten | the next backend, as often as there are |
//! | none takes one | all again, until [`NO_BACKEND_TIMEOUT`] is over: 503, nothing was sent on |
//! | it was sent and the connection ended without an answer | once more on another backend if it is repeatable and the budget pays for it, else 504 |
//! | no answer within [`ANSWER_TIMEOUT`] | the same, and the backend is suspect |
//! | a request that only reads is given up | 503, whatever became of it: there is nothing to be uncertain of |
//! | the second backend says 503 to a payment | 504: it knows of itself only, and the first may have recorded it |
//! | a backend has said nothing for a while | it is asked for its health |
//!
//! An api holds a request for at most a second when its store is away, so an answer that takes longer than
//! [`ANSWER_TIMEOUT`] is not going to come: the api is stopped.

use crate::backend::Backend;
use crate::balance::{self, BackendState, RetryBudget};
use crate::deadlines::Deadlines;
use bytes::Bytes;
use edge::{Reply, Request, SendError};
use http::Method;
use http::uri::PathAndQuery;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a request waits for any backend to take it.
const NO_BACKEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two rounds over backends of which none took it.
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// How long a backend may think about a request, and up to the interval between two [checks](Forward::check) longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a backend may take to answer a check. It answers without asking the store.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// The apis, and whose turn it is.
pub struct Forward {
    backends: Vec<Backend>,
    turn: Cell<usize>,
    started: Instant,
    budget: Cell<RetryBudget>,
    timeout: Deadlines,
    retries: Cell<u64>,
    unavailable: Cell<u64>,
    unknown: Cell<u64>,
}

impl Forward {
    /// A balancer over these apis.
    #[must_use]
    pub fn new(backends: Vec<Backend>) -> Self {
        Self {
            backends,
            turn: Cell::new(0),
            started: Instant::now(),
            budget: Cell::default(),
            timeout: Deadlines::default(),
            retries: Cell::new(0),
            unavailable: Cell::new(0),
            unknown: Cell::new(0),
        }
    }

    /// The apis.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Requests sent a second time, answered with 503 and with 504 by the balancer itself.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.retries.get(), self.unavailable.get(), self.unknown.get())
    }

    /// Gets a request answered.
    pub async fn handle(self: Rc<Self>, request: Request) -> Reply {
        let mut now = Instant::now();
        let deadline = now + NO_BACKEND_TIMEOUT;
        let repeatable = request.is_repeatable();
        let mut tried = Vec::new();
        let mut lost = 0;
        self.change_budget(RetryBudget::earn);
        loop {
            let Some(at) = self.pick(&tried, now) else {
                if now >= deadline {
                    return self.give_up(&request.method, lost);
                }
                sleep(ROUND_PAUSE).await;
                now = Instant::now();
                tried.clear();
                continue;
            };
            match self.attempt(&self.backends[at], &request, now).await {
                Attempt::Answered(reply)
                    if lost > 0 && request.method == Method::POST && reply.denies_a_record() =>
                {
                    return self.give_up(&request.method, lost);
                }
                Attempt::Answered(reply) => return reply,
                Attempt::Unreachable => (),
                Attempt::Unanswered if repeatable && lost == 0 && self.change_budget(RetryBudget::spend) => {
                    lost += 1;
                    self.retries.set(self.retries.get() + 1);
                }
                Attempt::Unanswered => return self.give_up(&request.method, lost + 1),
            }
            tried.push(at);
            now = Instant::now();
        }
    }

    fn pick(&self, tried: &[usize], now: Instant) -> Option<usize> {
        self.turn.set(self.turn.get().wrapping_add(1));
        balance::pick(&self.backends, Backend::load, tried, self.turn.get(), self.as_ms(now))
    }

    fn as_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn now_ms(&self) -> u64 {
        self.as_ms(Instant::now())
    }

    fn change_budget<T>(&self, change: impl FnOnce(&mut RetryBudget) -> T) -> T {
        let mut budget = self.budget.get();
        let outcome = change(&mut budget);
        self.budget.set(budget);
        outcome
    }

    async fn attempt(&self, backend: &Backend, request: &Request, now: Instant) -> Attempt {
        let _in_flight = backend.enter();
        let outcome = self.timeout.wait(now + ANSWER_TIMEOUT, backend.ask(request)).await;
        let now_ms = self.now_ms();
        match outcome {
            Some(Ok(reply)) => {
                backend.note(|load| load.on_answer(now_ms));
                Attempt::Answered(reply)
            }
            Some(Err(SendError::NeverSent)) => {
                backend.note(|load| load.on_refusal(now_ms));
                Attempt::Unreachable
            }
            Some(Err(SendError::Unknown)) => Attempt::Unanswered,
            None => {
                backend.note(BackendState::on_silence);
                Attempt::Unanswered
            }
        }
    }

    /// Gives up requests that backends have thought about for too long, and asks backends for their health that have said
    /// nothing for a while. To be called a few times a second.
    pub fn check(self: &Rc<Self>) {
        self.timeout.sweep(Instant::now());
        let now_ms = self.now_ms();
        for at in 0..self.backends.len() {
            self.backends[at].tidy();
            if self.backends[at].load().is_due(now_ms) {
                self.backends[at].note(|load| load.checked_ms = now_ms);
                let this = Rc::clone(self);
                tokio::task::spawn_local(async move { this.check_one(&this.backends[at]).await });
            }
        }
    }

    async fn check_one(&self, backend: &Backend) {
        // The answer of an api that cannot reach the store is as good: none of the others can.
        let outcome = timeout(CHECK_TIMEOUT, backend.ask(&health())).await;
        let now_ms = self.now_ms();
        backend.note(|load| match outcome {
            Ok(Ok(_)) => load.on_answer(now_ms),
            Ok(Err(SendError::NeverSent)) => load.on_refusal(now_ms),
            Ok(Err(SendError::Unknown)) => (),
            Err(_) => load.on_silence(),
        });
    }

    /// The balancer's own answers.
    fn give_up(&self, method: &Method, lost: u32) -> Reply {
        if lost == 0 || *method != Method::POST {
            self.unavailable.set(self.unavailable.get() + 1);
            return Reply::unavailable("no_api", "nothing was recorded; retry later");
        }
        self.unknown.set(self.unknown.get() + 1);
        Reply::unknown()
    }
}

enum Attempt {
    Answered(Reply),
    Unreachable,
    Unanswered,
}

/// What a backend is asked for its health.
fn health() -> Request {
    Request {
        method: Method::GET,
        target: PathAndQuery::from_static("/health"),
        content_type: None,
        content_encoding: None,
        token: None,
        accept: None,
        body: Bytes::new(),
    }
}
