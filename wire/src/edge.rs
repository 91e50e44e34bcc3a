//! The HTTP edge that lb and api have in common: one parser (hyper's), one set of limits, one form of answers, so that
//! what one of them takes the other cannot read in another way.
//!
//! A connection is served by [`Edge::serve`]; a request becomes a plain [`Request`], a handler turns it into a plain
//! [`Reply`]. What CONTRACT section 5 says about routing and framing is checked here, before the handler; what hyper
//! refuses by itself (a bare CR, an obs-fold, a signed Content-Length, ...) it answers with 400 or 431 or by closing.
//!
//! Time costs nothing per request: a connection notes in which phase it is and since when, and one sweep a second
//! ([`Edge::sweep`]) ends those that have been there too long. A closing answer is followed by a lingering close: shut
//! down writing, read a little, then close, since closing with unread bytes resets the connection and with it the answer.
//!
//! Bounds: [`CONNECTIONS_MAX_DEFAULT`] connections, [`REQUEST_LINE_BYTES_MAX`], [`HEAD_BYTES_MAX`], [`FIELDS_MAX`],
//! [`BODY_BYTES_MAX`], [`REQUEST_PATIENCE`], [`IDLE_PATIENCE`].

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode, Version, http};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections that one process serves at a time unless told otherwise (`CONNECTIONS_MAX`).
pub const CONNECTIONS_MAX_DEFAULT: usize = 20_000;

/// Connections beyond the cap that are told so at a time; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// The longest request line, in bytes.
pub const REQUEST_LINE_BYTES_MAX: usize = 2 * 1024;

/// The longest set of fields, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The most fields of a request.
pub const FIELDS_MAX: usize = 64;

/// The longest body, in bytes. It bounds the depth of JSON that the parser may meet, too.
pub const BODY_BYTES_MAX: usize = 4 * 1024;

/// From the first byte of a request to its last.
pub const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may be silent between requests, or before the first one.
pub const IDLE_PATIENCE: Duration = Duration::from_secs(120);

/// hyper's buffer of one connection: above the limits here, so that these are the ones that are told.
const BUFFER_BYTES: usize = 16 * 1024;

/// A lingering close reads at most so much ...
const LINGER_BYTES_MAX: usize = 64 * 1024;

/// ... for at most so long.
const LINGER_PATIENCE: Duration = Duration::from_secs(1);

/// One read of a connection; a request has some 200 bytes.
const READ_BYTES: usize = 4 * 1024;

/// A request that has passed the checks, with the fields that mean something here.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method, one of the registered ones.
    pub method: Method,
    /// Path and query, as the client wrote them.
    pub target: http::uri::PathAndQuery,
    /// `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// `Content-Encoding`.
    pub content_encoding: Option<HeaderValue>,
    /// `X-Rinha-Token`.
    pub token: Option<HeaderValue>,
    /// The whole body.
    pub body: Bytes,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// `Content-Type`, where there is a body.
    pub content_type: HeaderValue,
    /// `Allow`.
    pub allow: Option<HeaderValue>,
    /// `Retry-After: 1`.
    pub retry_after: bool,
    /// The connection closes after it.
    pub close: bool,
}

/// `Content-Type` of JSON.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Reply {
    /// An answer with a JSON body.
    #[must_use]
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { status, body, content_type: JSON, allow: None, retry_after: false, close: false }
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self::json(status, Bytes::new())
    }

    /// An error: a code for machines and a sentence that says what to change. Neither echoes the input.
    #[must_use]
    pub fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::json(status, format!(r#"{{"error":"{code}","message":"{message}"}}"#))
    }

    /// The same, and the connection closes after it.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// 503: nothing was recorded.
    #[must_use]
    pub fn unavailable(code: &str, message: &str) -> Self {
        Self { retry_after: true, ..Self::error(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let has_body = !self.body.is_empty();
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if has_body {
            headers.insert(header::CONTENT_TYPE, self.content_type);
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        if self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The client's connection, whatever carries it.
#[derive(Debug)]
pub enum Stream {
    /// From the listener on 9999, or handed off by lb.
    Tcp(TcpStream),
    /// From lb, or a process on this machine.
    Unix(UnixStream),
}

/// What a connection is doing, for the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// A request has begun and is not complete.
    Receiving,
    /// Its handler works.
    Handling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    GoOn,
    Drain,
    End,
}

/// What the edge knows of one connection.
#[derive(Debug)]
struct Connection {
    phase: Cell<Phase>,
    /// What the last read brought behind its last empty line: the body, or more if the next request came with it.
    tail_bytes: Cell<usize>,
    since: Cell<Instant>,
    order: Cell<Order>,
    ordered: Notify,
}

impl Connection {
    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    fn order(&self, order: Order) {
        self.order.set(order);
        self.ordered.notify_one();
    }
}

/// All connections of a process.
#[derive(Debug)]
pub struct Edge {
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next: Cell<u64>,
    connections_max: usize,
    turned_away: Cell<usize>,
    draining: Cell<bool>,
    empty: Notify,
}

impl Edge {
    /// An edge without connections.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self {
            connections: RefCell::default(),
            next: Cell::new(0),
            connections_max,
            turned_away: Cell::new(0),
            draining: Cell::new(false),
            empty: Notify::new(),
        }
    }

    /// Connections that are served now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Serves a connection to its end.
    pub async fn serve<H, F>(&self, stream: Stream, handler: H)
    where
        H: Fn(Request) -> F,
        F: Future<Output = Reply>,
    {
        let stream = Rc::new(RefCell::new(stream));
        if self.len() >= self.connections_max {
            if self.turned_away.get() < TURNED_AWAY_MAX {
                self.turned_away.set(self.turned_away.get() + 1);
                turn_away(&stream).await;
                self.turned_away.set(self.turned_away.get() - 1);
            }
            return;
        }
        let connection = Rc::new(Connection {
            phase: Cell::new(Phase::Idle),
            tail_bytes: Cell::new(0),
            since: Cell::new(Instant::now()),
            order: Cell::new(if self.draining.get() { Order::Drain } else { Order::GoOn }),
            ordered: Notify::new(),
        });
        let number = self.next.get();
        self.next.set(number + 1);
        self.connections.borrow_mut().insert(number, Rc::clone(&connection));
        self.drive(&stream, &connection, &handler).await;
        self.connections.borrow_mut().remove(&number);
        if self.is_empty() {
            self.empty.notify_waiters();
        }
    }

    async fn drive<H, F>(&self, stream: &Rc<RefCell<Stream>>, connection: &Rc<Connection>, handler: &H)
    where
        H: Fn(Request) -> F,
        F: Future<Output = Reply>,
    {
        let io = Io { stream: Rc::clone(stream), connection: Rc::clone(connection) };
        let service = service_fn(|request: hyper::Request<Incoming>| async {
            if connection.phase.get() != Phase::Receiving {
                connection.enter(Phase::Receiving);
            }
            let mut body_bytes = 0;
            let mut reply = match receive(request).await {
                Ok(request) => {
                    body_bytes = request.body.len();
                    connection.enter(Phase::Handling);
                    handler(request).await
                }
                Err(reply) => reply.closing(),
            };
            reply.close |= self.draining.get();
            let has_next_begun = connection.tail_bytes.get() > body_bytes;
            connection.enter(if has_next_begun { Phase::Receiving } else { Phase::Idle });
            Ok::<_, Infallible>(reply.into_response())
        });
        let mut builder = http1::Builder::new();
        builder.half_close(true).max_buf_size(BUFFER_BYTES);
        let mut serving = pin!(builder.serve_connection(io, service));
        loop {
            tokio::select! {
                biased;
                // Whether the client has ended it, or an answer after which it closes: the client may still be writing.
                _ = &mut serving => return linger(stream).await,
                () = connection.ordered.notified() => match connection.order.get() {
                    Order::GoOn => (),
                    Order::Drain => serving.as_mut().graceful_shutdown(),
                    Order::End => return,
                },
            }
        }
    }

    /// Ends connections that have been receiving a request, or idle, for too long. To be called about once a second.
    pub fn sweep(&self) {
        let now = Instant::now();
        for connection in self.connections.borrow().values() {
            let patience = match connection.phase.get() {
                Phase::Idle => IDLE_PATIENCE,
                Phase::Receiving => REQUEST_PATIENCE,
                Phase::Handling => continue,
            };
            if now.duration_since(connection.since.get()) > patience {
                connection.order(Order::End);
            }
        }
    }

    /// Answers what has begun, closes what is idle, and returns when no connection is left or `patience` is over.
    pub async fn drain(&self, patience: Duration) {
        self.draining.set(true);
        for connection in self.connections.borrow().values() {
            connection.order(Order::Drain);
        }
        let empty = async {
            let mut notified = pin!(self.empty.notified());
            notified.as_mut().enable();
            if !self.is_empty() {
                notified.await;
            }
        };
        let _ = tokio::time::timeout(patience, empty).await;
    }
}

// One request.

/// Checks the head and reads the body.
async fn receive(request: hyper::Request<Incoming>) -> Result<Request, Reply> {
    let (head, body) = request.into_parts();
    check_head(&head)?;
    let target = head
        .uri
        .path_and_query()
        .cloned()
        .ok_or_else(|| Reply::error(StatusCode::BAD_REQUEST, "bad_target", "send a path"))?;
    let body = read_body(body).await?;
    let mut headers = head.headers;
    Ok(Request {
        method: head.method,
        target,
        content_type: headers.remove(header::CONTENT_TYPE),
        content_encoding: headers.remove(header::CONTENT_ENCODING),
        token: headers.remove(TOKEN),
        body,
    })
}

/// The header that carries a token, as the processors' own does (CONTRACT section 2).
pub const TOKEN: header::HeaderName = header::HeaderName::from_static("x-rinha-token");

fn check_head(head: &http::request::Parts) -> Result<(), Reply> {
    let bad = |code, message| Err(Reply::error(StatusCode::BAD_REQUEST, code, message));
    if !is_registered(&head.method) {
        return Err(Reply::error(
            StatusCode::NOT_IMPLEMENTED,
            "unknown_method",
            "use GET, HEAD, POST or OPTIONS",
        ));
    }
    let target_bytes = head.uri.path_and_query().map_or(0, |target| target.as_str().len())
        + head.uri.authority().map_or(0, |authority| authority.as_str().len() + "http://".len());
    // Method, target, two spaces, version, CR LF.
    if head.method.as_str().len() + target_bytes + 12 > REQUEST_LINE_BYTES_MAX {
        return Err(Reply::error(
            StatusCode::URI_TOO_LONG,
            "target_too_long",
            "send a request line of at most 2 KiB",
        ));
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head.headers.len() > FIELDS_MAX || bytes > HEAD_BYTES_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Reply::error(
            status,
            "head_too_large",
            "send at most 64 header fields and 8 KiB of them",
        ));
    }
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        return bad("bad_host", "send exactly one Host field");
    }
    check_transfer_coding(&head.headers)
}

/// hyper reads a body whose last coding is chunked; anything before that one is a coding that nobody here undoes.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Reply> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Reply::error(
            StatusCode::NOT_IMPLEMENTED,
            "unknown_coding",
            "use Transfer-Encoding: chunked or none",
        )),
    }
}

fn is_registered(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::TRACE,
        Method::CONNECT,
    ]
    .contains(method)
}

async fn read_body(mut body: Incoming) -> Result<Bytes, Reply> {
    let too_large =
        || Reply::error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "send a body of at most 4 KiB");
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        let broken =
            |_| Reply::error(StatusCode::BAD_REQUEST, "bad_body", "send the body as it was announced");
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if whole.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        whole = if whole.is_empty() { data } else { [whole, data].concat().into() };
    }
    Ok(whole)
}

// Bytes.

/// hyper's view of a stream. The stream stays ours, so that a close can linger after hyper is done with it.
struct Io {
    stream: Rc<RefCell<Stream>>,
    connection: Rc<Connection>,
}

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut block = [MaybeUninit::uninit(); READ_BYTES];
        let len = out.remaining().min(READ_BYTES);
        let mut read = ReadBuf::uninit(&mut block[..len]);
        ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut read))?;
        let bytes = read.filled();
        if !bytes.is_empty() {
            let empty_line = bytes.windows(4).rposition(|four| four == b"\r\n\r\n");
            self.connection.tail_bytes.set(empty_line.map_or(0, |at| bytes.len() - at - 4));
            if self.connection.phase.get() == Phase::Idle {
                self.connection.enter(Phase::Receiving);
            }
        }
        out.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, out),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The connection cap is reached: say so and close.
#[expect(
    clippy::await_holding_refcell_ref,
    reason = "hyper never gets this stream: there is no other borrower"
)]
async fn turn_away(stream: &Rc<RefCell<Stream>>) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
        content-type: application/json\r\ncontent-length: 75\r\n\r\n\
        {\"error\":\"too_many_connections\",\"message\":\"close a connection, then retry\"}";
    let _ = tokio::time::timeout(LINGER_PATIENCE, stream.borrow_mut().write_all(ANSWER)).await;
    linger(stream).await;
}

/// Shuts down writing and reads until the client has seen it, so that its answer is not lost to a reset.
#[expect(
    clippy::await_holding_refcell_ref,
    reason = "hyper is done with this stream: there is no other borrower"
)]
async fn linger(stream: &Rc<RefCell<Stream>>) {
    let mut stream = stream.borrow_mut();
    let drain = async {
        stream.shutdown().await?;
        let mut block = [0; READ_BYTES];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut block).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER_PATIENCE, drain).await;
}
