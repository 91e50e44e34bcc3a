//! A request goes through: to a backend, to another one if that is gone, and its answer back.
//!
//! | what happens | then |
//! |---|---|
//! | the backend takes no connection, or hands the request back unwritten | the next backend, as often as there are |
//! | none takes one | all again, until [`HOLD`] is over: 503, nothing was sent on |
//! | it was sent and the connection ended without an answer | once more on another backend if it is repeatable and the budget pays for it, else 504 |
//! | no answer within [`ANSWER_PATIENCE`] | the same, and the backend is suspect |
//! | a request that only reads is given up | 503, whatever became of it: there is nothing to be uncertain of |
//! | the second backend says 503 to a payment | 504: it knows of itself only, and the first may have recorded it |
//! | a backend has said nothing for a while | it is asked for its health |
//!
//! An api holds a request for at most a second when its store is away, so an answer that takes longer than
//! [`ANSWER_PATIENCE`] is not going to come: the api is stopped.

use crate::backend::Backend;
use crate::balance::{self, Load, RetryBudget};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode, http};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use wire::edge::{Reply, Request, TOKEN};
use wire::pool::{Answering, SendError};

/// How long a request waits for any backend to take it.
const HOLD: Duration = Duration::from_secs(1);

/// Between two rounds over backends of which none took it.
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// How long a backend may think about a request.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// How long a backend may think about a check. It needs nobody's help for the answer.
const CHECK_PATIENCE: Duration = Duration::from_millis(500);

/// The name that backends are called by: the client's own name for us means nothing to them.
const HOST: HeaderValue = HeaderValue::from_static("espora");

/// The apis, and whose turn it is.
pub struct Forward {
    backends: Vec<Backend>,
    turn: Cell<usize>,
    started: Instant,
    budget: Cell<RetryBudget>,
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
        let deadline = Instant::now() + HOLD;
        let repeatable = request.is_repeatable();
        let mut tried = Vec::new();
        let mut lost = 0;
        self.change_budget(RetryBudget::earn);
        loop {
            let Some(at) = self.pick(&tried) else {
                if Instant::now() >= deadline {
                    return self.give_up(&request.method, lost);
                }
                sleep(ROUND_PAUSE).await;
                tried.clear();
                continue;
            };
            tried.push(at);
            match self.attempt(&self.backends[at], &request).await {
                Attempt::Answered(reply) if lost > 0 && denies_a_record(&request.method, &reply) => {
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
        }
    }

    fn pick(&self, tried: &[usize]) -> Option<usize> {
        let loads: Vec<Load> = self.backends.iter().map(Backend::load).collect();
        self.turn.set(self.turn.get().wrapping_add(1));
        balance::pick(&loads, tried, self.turn.get(), self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn change_budget<T>(&self, change: impl FnOnce(&mut RetryBudget) -> T) -> T {
        let mut budget = self.budget.get();
        let outcome = change(&mut budget);
        self.budget.set(budget);
        outcome
    }

    async fn attempt(&self, backend: &Backend, request: &Request) -> Attempt {
        let _in_flight = backend.enter();
        let answered = async {
            let mut answering = match backend.send(upstream(request), !request.is_repeatable()).await {
                Ok(answering) => answering,
                Err(SendError::NeverSent) => return Attempt::Unreachable,
                Err(SendError::Unknown) => return Attempt::Unanswered,
            };
            match downstream(&mut answering).await {
                Some(reply) => {
                    backend.put_back(answering).await;
                    Attempt::Answered(reply)
                }
                None => Attempt::Unanswered,
            }
        };
        let attempt = timeout(ANSWER_PATIENCE, answered).await;
        let now_ms = self.now_ms();
        match &attempt {
            Ok(Attempt::Answered(_)) => backend.note(|load| load.on_answer(now_ms)),
            Ok(Attempt::Unreachable) => backend.note(|load| load.on_refusal(now_ms)),
            Ok(Attempt::Unanswered) => (),
            Err(_) => backend.note(Load::on_silence),
        }
        attempt.unwrap_or(Attempt::Unanswered)
    }

    /// Asks backends for their health that have said nothing for a while. To be called a few times a second.
    pub fn check(self: &Rc<Self>) {
        let now_ms = self.now_ms();
        for at in 0..self.backends.len() {
            if self.backends[at].load().is_due(now_ms) {
                self.backends[at].note(|load| load.checked_ms = now_ms);
                let this = Rc::clone(self);
                tokio::task::spawn_local(async move { this.check_one(&this.backends[at]).await });
            }
        }
    }

    async fn check_one(&self, backend: &Backend) {
        // The answer of an api that cannot reach the store is as good: none of the others can.
        let mut request = http::Request::new(Full::default());
        *request.uri_mut() = http::Uri::from_static("/health");
        request.headers_mut().insert(header::HOST, HOST);
        let answered = async {
            let mut answering = backend.send(request, false).await?;
            if downstream(&mut answering).await.is_some() {
                backend.put_back(answering).await;
            }
            Ok(())
        };
        let outcome = timeout(CHECK_PATIENCE, answered).await;
        let now_ms = self.now_ms();
        backend.note(|load| match outcome {
            Ok(Ok(())) => load.on_answer(now_ms),
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
        Reply::error(
            StatusCode::GATEWAY_TIMEOUT,
            "unknown",
            "the outcome is unknown; repeating a payment with the same correlationId is safe",
        )
    }
}

/// True for a 503 to something that is recorded: it says that nothing was (CONTRACT section 5).
fn denies_a_record(method: &Method, reply: &Reply) -> bool {
    *method == Method::POST && reply.status == StatusCode::SERVICE_UNAVAILABLE
}

enum Attempt {
    Answered(Reply),
    Unreachable,
    Unanswered,
}

/// The request as a backend gets it: written anew, with the fields that mean something there.
fn upstream(request: &Request) -> http::Request<Full<Bytes>> {
    let mut upstream = http::Request::new(Full::new(request.body.clone()));
    *upstream.method_mut() = request.method.clone();
    *upstream.uri_mut() = request.target.clone().into();
    let headers = upstream.headers_mut();
    headers.insert(header::HOST, HOST);
    let fields = [
        (header::CONTENT_TYPE, &request.content_type),
        (header::CONTENT_ENCODING, &request.content_encoding),
        (TOKEN, &request.token),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    if request.body.is_empty() && request.method == Method::POST {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    upstream
}

/// A backend's answer as a client gets it. `None` when it broke off.
async fn downstream(answering: &mut Answering) -> Option<Reply> {
    let response = &mut answering.response;
    let headers = response.headers_mut();
    let content_type = headers.remove(header::CONTENT_TYPE).unwrap_or(wire::edge::JSON);
    let (allow, retry_after) = (headers.remove(header::ALLOW), headers.contains_key(header::RETRY_AFTER));
    let status = response.status();
    let body = response.body_mut().collect().await.ok()?.to_bytes();
    Some(Reply { status, body, content_type, allow, retry_after, close: false })
}
