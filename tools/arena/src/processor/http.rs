//! The routes of one processor and the order in which each call is handled.
//!
//! Every route is one function from a request to a reply. Payments and look-ups go through the limiter, the health call
//! through its window, and everything under `/admin/` wants the token. Hyper drops the future of a call when the
//! caller's connection closes; that is what takes a waiting call out of a queue, and why [`Service::pay`] moves to a
//! task of its own as soon as it has left the queue.
//!
//! One endpoint is ours and not the competition's: `GET /admin/payments?after=N&limit=M`, token needed. It answers
//!
//! ```text
//! {"running":0,"waiting":0,"next":1000,"payments":[{"correlationId":"..","amount":19.90,"requestedAt":"..Z"},..]}
//! ```
//!
//! with up to `limit` rows (1,000 if not given, at most 10,000) after the first `after` (0 if not given) in the order of
//! their recording. `next` is the `after` of the next page, or null at the end. `running` and `waiting` are the calls
//! in the limiter: only when both are 0 can no payment that was already sent be recorded any more. A purge counts anew.
//! The other routes of ours are those of `misbehaviour`.

use super::config::ProcessorConfig;
use super::limiter::Limiter;
use super::line::{Break, Breaker, Line};
use super::misbehaviour::{Conduct, Ending, HealthFault, Misbehaviour, PaymentFault};
use super::pace::Pace;
use super::payment::Payment;
use super::reply::{Fee, Reply, Stored, json, method_not_allowed, status, too_many_requests, unbindable};
use super::rows::{self, Insertion, Row, Rows};
use super::window::HealthWindow;
use bytes::Bytes;
use contest::rules::{RUNNING_MAX, WAITING_MAX};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt::{Display, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};
use wire::secret::Secret;
use wire::{PaymentId, Timestamp};

/// The longest body that is read. A payment is 120 bytes; the real one takes 30 MB.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Hyper's smallest read buffer, which is also the longest head; it is the larger part of what a connection costs.
const BUFFER_BYTES_MAX: usize = 8 * 1024;

/// Rows of one page when the caller names no number, and the most it may name: about 1 MB of text.
const PAGE_ROWS: usize = 1_000;
const PAGE_ROWS_MAX: usize = 10_000;

const TOKEN_HEADER: &str = "x-rinha-token";
const PROCESSED: &str = r#"{"message":"payment processed successfully"}"#;
const GATEWAY_ERROR: &str = r#"{"message":"The gateway has waited for long enough."}"#;
const BROKEN: &str = r#"{"message":"Something else is broken."}"#;

/// How long a gateway waits for the processor behind it. Real ones wait for a minute; rounds are short.
const GATEWAY_TIMEOUT: Duration = Duration::from_millis(300);

/// What is sent where an answer in HTTP is awaited.
const GARBAGE: &[u8] = b"\x16\x03\x01 HTTP/9.9 \0\xff\r\n200 OK\n\n{]";

/// The length that the long one of the floods has and says.
const FLOOD_BYTES: u64 = 100_000_000;
const LONG_FLOOD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n";
const ENDLESS_FLOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
const HEADLESS_FLOOD: &[u8] = b"";

/// Serves one connection until either side ends it.
pub(super) async fn connection(stream: TcpStream, service: Arc<Service>) {
    // Fails on a connection that is closed already, which the first read finds out too.
    let _ = stream.set_nodelay(true);
    let breaker = Arc::new(Breaker::default());
    let line = Line::new(stream, Arc::clone(&breaker), Arc::clone(&service.conduct));
    let routes = service_fn(move |request| {
        let (service, breaker) = (Arc::clone(&service), Arc::clone(&breaker));
        async move { Ok::<_, Infallible>(service.answer(request, breaker).await) }
    });
    // A user of the judge is silent for a second between two requests and an idle connection may stay for minutes: no
    // time limit on heads. What ends in an error is a peer that hung up or broke the protocol, and it knows.
    let _ = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(line), routes)
        .await;
}

/// One processor, shared by its connections.
#[derive(Debug)]
pub(super) struct Service {
    limiter: Limiter,
    health_window: HealthWindow,
    fee: Fee,
    conduct: Arc<Conduct>,
    state: Mutex<State>,
}

/// What calls read and change; never locked across an await.
#[derive(Debug)]
struct State {
    rows: Rows,
    /// Rows that were deleted on purpose, in the order of their loss.
    lost: Vec<Row>,
    pace: Pace,
    token: Secret,
    /// As configured: zero and less are no delay.
    delay_ms: i32,
    is_failing: bool,
}

#[derive(Deserialize)]
struct TokenBody {
    token: String,
}

#[derive(Deserialize)]
struct DelayBody {
    delay: i32,
}

#[derive(Deserialize)]
struct FailureBody {
    failure: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LossBody {
    #[serde(default)]
    share_percent: u8,
    #[serde(default)]
    ids: Vec<String>,
}

impl LossBody {
    /// `None` when an id is none.
    fn lose(&self, rows: &mut Rows) -> Option<Vec<Row>> {
        let ids: HashSet<PaymentId> =
            self.ids.iter().map(|id| PaymentId::parse(id)).collect::<Option<_>>()?;
        let mut lost = rows.lose_if(|_, row| ids.contains(&row.id));
        lost.extend(rows.lose(self.share_percent));
        Some(lost)
    }
}

impl Service {
    pub(super) fn new(config: &ProcessorConfig) -> Self {
        Self {
            limiter: Limiter::new(RUNNING_MAX, WAITING_MAX),
            health_window: HealthWindow::new(config.health_window),
            fee: Fee { basis_points: config.fee_bp },
            conduct: Arc::default(),
            state: Mutex::new(State {
                rows: Rows::new(),
                lost: Vec::new(),
                pace: Pace::new(config.service_time, config.capacity),
                token: Secret::parse(&config.token).expect("the token is checked at the start"),
                delay_ms: 0,
                is_failing: false,
            }),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, breaker: Arc<Breaker>) -> Reply {
        breaker.set(None);
        let path = request.uri().path();
        match path.strip_prefix("/payments") {
            Some("") => match *request.method() {
                Method::POST => self.pay(request, breaker).await,
                _ => method_not_allowed("POST"),
            },
            Some("/service-health") => match *request.method() {
                Method::GET => self.health(&breaker).await,
                _ => method_not_allowed("GET"),
            },
            Some(rest) if rest.starts_with('/') => match *request.method() {
                Method::GET => self.look_up(&rest[1..]).await,
                _ => method_not_allowed("GET"),
            },
            _ if path.starts_with("/admin/") => self.administer(request).await,
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    /// The order of docs/contract.md: limiter, binding, delay, failure flag, recording.
    async fn pay(self: Arc<Self>, request: Request<Incoming>, breaker: Arc<Breaker>) -> Reply {
        let fault = self.conduct.with_payment();
        if fault == Some(PaymentFault::TooMany) {
            return too_many_requests();
        }
        let (head, body) = request.into_parts();
        // The body is taken in while the call waits, because hyper notices a hang-up only once nothing is left to read,
        // and holds back the second piece of a body until the first is taken. It is looked at after the limiter only.
        let (permit, body) = tokio::join!(self.limiter.enter(), read(body));
        let Some(permit) = permit else {
            return too_many_requests();
        };
        let body = match json_body(&head.headers, body) {
            Ok(body) => body,
            Err(refusal) => return status(refusal),
        };
        let Some(payment) = Payment::bind(&body) else {
            return unbindable();
        };
        self.conduct.observe_running(self.limiter.running());
        if let Some(fault) = fault {
            let misbehaving = tokio::spawn(self.misbehave(fault, payment, permit, breaker));
            return misbehaving.await.expect("the handler does not panic, and it is not aborted");
        }
        let (delay, is_instant) = {
            let state = self.state();
            (Duration::from_millis(state.delay_ms.max(0).unsigned_abs().into()), state.pace.is_instant())
        };
        if delay.is_zero() && is_instant {
            // Does not wait for anything, so no hang-up can come between.
            return self.handle(payment, None).await;
        }
        // Counted from here and not from the task's first turn, which may come late when many arrive at once.
        let delayed_until = (!delay.is_zero()).then(|| Instant::now() + delay);
        let handler = tokio::spawn(async move {
            let reply = self.handle(payment, delayed_until).await;
            drop(permit);
            reply
        });
        handler.await.expect("the handler does not panic, and it is not aborted")
    }

    /// What happens after binding, whether or not the caller is still there.
    async fn handle(&self, payment: Payment, delayed_until: Option<Instant>) -> Reply {
        if let Some(delayed_until) = delayed_until {
            sleep_until(delayed_until).await;
        }
        let recorded_at = {
            let mut state = self.state();
            if state.is_failing {
                return status(StatusCode::INTERNAL_SERVER_ERROR);
            }
            if state.pace.is_instant() { None } else { state.pace.admit(Instant::now()) }
        };
        if let Some(recorded_at) = recorded_at {
            sleep_until(recorded_at).await;
        }
        self.record(payment)
    }

    /// The same without the delay and the flag, and with something wrong.
    async fn misbehave(
        self: Arc<Self>,
        fault: PaymentFault,
        payment: Payment,
        permit: OwnedSemaphorePermit,
        breaker: Arc<Breaker>,
    ) -> Reply {
        let turn = || self.conduct.turn(fault);
        match fault {
            PaymentFault::ResetAfterInsert => {
                breaker.set(Some(Break::Cut { left: 0, ending: Ending::Reset }));
                self.record(payment)
            }
            PaymentFault::CutInAnswer => {
                let (left, ending) = self.conduct.in_answer();
                breaker.set(Some(Break::Cut { left, ending }));
                self.record(payment)
            }
            PaymentFault::LateAnswer => {
                let reply = self.record(payment);
                sleep(self.conduct.lateness(fault)).await;
                reply
            }
            PaymentFault::ErrorWithRow => {
                self.record(payment);
                json(StatusCode::INTERNAL_SERVER_ERROR, BROKEN)
            }
            PaymentFault::ErrorWithoutRow => json(StatusCode::INTERNAL_SERVER_ERROR, BROKEN),
            PaymentFault::Garbage => {
                if turn().is_multiple_of(2) {
                    self.record(payment);
                }
                let bytes = Bytes::from_static(GARBAGE);
                breaker.set(Some(Break::Replace { bytes, filler: 0 }));
                status(StatusCode::OK)
            }
            PaymentFault::Flood => {
                let floods =
                    [(LONG_FLOOD, FLOOD_BYTES), (ENDLESS_FLOOD, u64::MAX), (HEADLESS_FLOOD, u64::MAX)];
                let (bytes, filler) = floods[turn() % floods.len()];
                let reply = self.record(payment);
                // A flood that says 200 says the truth.
                if reply.status() == StatusCode::OK || bytes.is_empty() {
                    breaker.set(Some(Break::Replace { bytes: Bytes::from_static(bytes), filler }));
                }
                reply
            }
            PaymentFault::StrangeStatus => self.answer_strangely(turn(), payment),
            PaymentFault::GatewayTimeout => {
                let late = self.conduct.lateness(fault);
                tokio::spawn(async move {
                    // The call counts as running until its row is there.
                    let _permit = permit;
                    sleep(late).await;
                    self.record(payment);
                });
                sleep(GATEWAY_TIMEOUT).await;
                json(StatusCode::GATEWAY_TIMEOUT, GATEWAY_ERROR)
            }
            PaymentFault::TooMany | PaymentFault::CutInRequest => {
                unreachable!("{} is done before the payment is bound", fault.name())
            }
        }
    }

    fn answer_strangely(&self, turn: usize, payment: Payment) -> Reply {
        // Where a processor gives one of these before it would insert (docs/contract.md), there is no row.
        const EARLY: [u16; 4] = [401, 403, 404, 405];
        const STRANGE: [u16; 5] = [201, 202, 204, 302, 307];
        let is_early = turn.is_multiple_of(3);
        let code = if is_early { EARLY[turn / 3 % EARLY.len()] } else { STRANGE[turn / 3 % STRANGE.len()] };
        if turn % 3 == 1 {
            self.record(payment);
        }
        status(StatusCode::from_u16(code).expect("the codes above are codes"))
    }

    fn record(&self, payment: Payment) -> Reply {
        if !payment.is_utc {
            let text = r#"{"message":"Cannot write DateTime: requestedAt must be in UTC and end in Z."}"#;
            return json(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        let insertion = self.state().rows.insert(payment.row);
        match insertion {
            Insertion::Recorded => json(StatusCode::OK, PROCESSED),
            Insertion::Duplicate => {
                let id = payment.row.id;
                let text = format!("Payment could not be processed. CorrelationId already exists: {id}.");
                json(StatusCode::UNPROCESSABLE_ENTITY, format!(r#"{{"message":"{text}"}}"#))
            }
            Insertion::Full => {
                let text = r#"{"message":"The table is full: purge it."}"#;
                json(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }

    async fn health(&self, breaker: &Breaker) -> Reply {
        let fault = self.conduct.with_health();
        if fault == Some(HealthFault::Hang) {
            return std::future::pending().await;
        }
        if !self.health_window.enter().await {
            return too_many_requests();
        }
        if fault == Some(HealthFault::Garbage) {
            breaker.set(Some(Break::Replace { bytes: Bytes::from_static(GARBAGE), filler: 0 }));
        }
        let state = self.state();
        let is_lie = fault == Some(HealthFault::Lie);
        let (is_failing, delay_ms) = (state.is_failing != is_lie, if is_lie { 0 } else { state.delay_ms });
        json(StatusCode::OK, format!(r#"{{"failing":{is_failing},"minResponseTime":{delay_ms}}}"#))
    }

    async fn look_up(&self, id: &str) -> Reply {
        let Some(_permit) = self.limiter.enter().await else {
            return too_many_requests();
        };
        let Some(id) = PaymentId::parse(id) else {
            return unbindable();
        };
        match self.state().rows.get(id) {
            Some(row) => json(StatusCode::OK, Stored(row).to_string()),
            None => status(StatusCode::NOT_FOUND),
        }
    }

    async fn administer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let token = head.headers.get(TOKEN_HEADER);
        if !token.is_some_and(|token| self.state().token.is(token.as_bytes())) {
            return status(StatusCode::UNAUTHORIZED);
        }
        let path = head.uri.path();
        let method = match path {
            "/admin/misbehaviour" if head.method == Method::GET => Method::GET,
            "/admin/payments-summary" | "/admin/payments" | "/admin/lost-payments" => Method::GET,
            "/admin/purge-payments" | "/admin/lose-payments" | "/admin/replace-payment" => Method::POST,
            "/admin/misbehaviour"
            | "/admin/configurations/token"
            | "/admin/configurations/delay"
            | "/admin/configurations/failure" => Method::PUT,
            _ => return status(StatusCode::NOT_FOUND),
        };
        if head.method != method {
            return method_not_allowed(method.as_str());
        }
        let query = head.uri.query().unwrap_or_default();
        match path {
            "/admin/payments-summary" => self.summary(query),
            "/admin/payments" => self.page(query, |state| state.rows.all()),
            "/admin/lost-payments" => self.page(query, |state| &state.lost),
            "/admin/purge-payments" => self.purge(),
            "/admin/misbehaviour" if method == Method::GET => self.conduct(),
            _ => match json_body(&head.headers, read(body).await) {
                Ok(body) => self.configure(path, &body).unwrap_or_else(unbindable),
                Err(refusal) => status(refusal),
            },
        }
    }

    /// `None` when the body cannot be bound.
    fn configure(&self, path: &str, body: &[u8]) -> Option<Reply> {
        fn bind<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
            serde_json::from_slice(body).ok()
        }
        let mut state = self.state();
        let changed = |name: &str, was: &dyn Display, is: &dyn Display| {
            json(StatusCode::OK, format!(r#"{{"config":"{name}","was":{was},"is":{is}}}"#))
        };
        Some(match path {
            "/admin/configurations/token" => {
                state.token = Secret::parse(&bind::<TokenBody>(body)?.token).ok()?;
                status(StatusCode::NO_CONTENT)
            }
            "/admin/configurations/delay" => {
                let DelayBody { delay } = bind(body)?;
                let was = std::mem::replace(&mut state.delay_ms, delay);
                changed("delay", &was, &delay)
            }
            "/admin/misbehaviour" => {
                self.conduct.set(bind::<Misbehaviour>(body)?);
                status(StatusCode::NO_CONTENT)
            }
            "/admin/replace-payment" => {
                let Payment { row, .. } = Payment::bind(body)?;
                if state.rows.lose_if(|_, old| old.id == row.id).is_empty() {
                    return Some(status(StatusCode::NOT_FOUND));
                }
                state.rows.insert(row);
                status(StatusCode::NO_CONTENT)
            }
            "/admin/lose-payments" => {
                let lost = bind::<LossBody>(body)?.lose(&mut state.rows)?;
                let reply = json(StatusCode::OK, format!(r#"{{"lost":{}}}"#, lost.len()));
                state.lost.extend(lost);
                reply
            }
            _ => {
                let FailureBody { failure } = bind(body)?;
                let was = std::mem::replace(&mut state.is_failing, failure);
                changed("failure", &was, &failure)
            }
        })
    }

    /// With either bound missing, everything: the quirk of the real one.
    fn summary(&self, query: &str) -> Reply {
        let bound = |name| match query_value(query, name) {
            None => Some(None),
            Some(text) if text.is_empty() => Some(None),
            Some(text) => Timestamp::parse(&text).map(Some),
        };
        let (Some(from), Some(to)) = (bound("from"), bound("to")) else {
            return unbindable();
        };
        let state = self.state();
        let sum = match (from, to) {
            (Some(from), Some(to)) => state.rows.sum_between(from, to),
            _ => state.rows.sum(),
        };
        json(StatusCode::OK, self.fee.summary(sum))
    }

    fn conduct(&self) -> Reply {
        let (set, observed) = self.conduct.get();
        let text = serde_json::json!({ "set": set, "observed": observed });
        json(StatusCode::OK, text.to_string())
    }

    fn page(&self, query: &str, of: impl FnOnce(&State) -> &[Row]) -> Reply {
        let number = |name, default| query_value(query, name).map_or(Some(default), |text| text.parse().ok());
        let (Some(after), Some(limit)) = (number("after", 0_usize), number("limit", PAGE_ROWS)) else {
            return unbindable();
        };
        let state = self.state();
        let all = of(&state);
        let rows = rows::page(all, after, limit.min(PAGE_ROWS_MAX));
        let mut text =
            format!(r#"{{"running":{},"waiting":{}"#, self.limiter.running(), self.limiter.waiting());
        let end = after.saturating_add(rows.len());
        let written = if end < all.len() {
            write!(text, r#","next":{end},"payments":["#)
        } else {
            write!(text, r#","next":null,"payments":["#)
        };
        written.expect("writing to a String does not fail");
        for (number, row) in rows.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let (id, amount, time) = (row.id, row.amount, row.requested_at);
            write!(text, r#"{comma}{{"correlationId":"{id}","amount":{amount},"requestedAt":"{time}"}}"#)
                .expect("writing to a String does not fail");
        }
        text.push_str("]}");
        json(StatusCode::OK, text)
    }

    fn purge(&self) -> Reply {
        let mut state = self.state();
        (state.rows, state.lost) = (Rows::new(), Vec::new());
        json(StatusCode::OK, r#"{"message":"All payments purged."}"#)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// The whole body, or the status that its reading ends in.
async fn read(body: Incoming) -> Result<Bytes, StatusCode> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        // The caller hung up or broke the framing; there is no reader.
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

/// A body that is said to be JSON. The real one answers 415 to any other, whatever is in it, but 400 to none at all.
fn json_body(headers: &HeaderMap, body: Result<Bytes, StatusCode>) -> Result<Bytes, StatusCode> {
    let body = body?;
    let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !body.is_empty() && !media_type.eq_ignore_ascii_case(b"application/json") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    Ok(body)
}

/// The first value of `name`, decoded. A malformed escape decodes to nothing that any reader accepts.
fn query_value(query: &str, name: &str) -> Option<String> {
    let values = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = values.into_iter().find(|(key, _)| *key == name)?;
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [byte, tail @ ..] = rest {
        let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (character, next) = match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => (u8::try_from(high * 16 + low).ok()?, &tail[2..]),
            (b'+', ..) => (b' ', tail),
            _ => (*byte, tail),
        };
        decoded.push(character);
        rest = next;
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}
