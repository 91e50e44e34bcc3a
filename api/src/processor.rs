//! HTTP to one processor: a pool of keep-alive connections, as many as there are calls at once.
//!
//! What matters is to tell apart what was never sent, what was answered, and what is unknown. Never sent is only a
//! connection that could not be made, and a request that hyper hands back as not written; everything else that ends
//! without an answer is unknown. A call has no time limit here: giving up would close its socket, and a closed socket
//! does not cancel a payment.

use crate::config::Address;
use crate::evidence::Answer;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use wire::frame::{CallKind, Health, Lease};

/// A connection that is not made within this is not made at all: nothing was sent.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// How long an address is believed. Containers that are made anew may swap their addresses, and a payment at the wrong
/// processor is charged twice; that takes longer than this.
const RESOLVED_FOR: Duration = Duration::from_secs(1);

/// How long the rest of an answer may take whose head has said all: then its connection is closed.
const REST_PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer that is read. A processor's own has a hundred bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Connections kept without a call. As many as calls may be out; Kestrel closes them after 130 s by itself.
const IDLE_MAX: usize = 512;

/// How long a health call may hang: two windows of its limiter (CONTRACT section 2) and some.
const HEALTH_PATIENCE: Duration = Duration::from_secs(12);

/// When the kernel begins to ask whether a silent peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);

/// How a call ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Not a byte of it was written.
    NeverSent,
    /// It may have arrived.
    Unknown,
}

/// A connection with the head of an answer on it; the body follows.
pub struct Answering {
    response: Response<Incoming>,
    sender: SendRequest<Full<Bytes>>,
}

/// One processor.
pub struct Processor {
    address: Address,
    host: HeaderValue,
    resolved: Mutex<Option<(SocketAddr, Instant)>>,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
}

impl Processor {
    /// A processor that nobody has spoken to yet.
    ///
    /// # Panics
    /// Never: an authority is a valid field.
    #[must_use]
    pub fn new(address: Address) -> Self {
        let host = HeaderValue::from_str(address.authority.as_str()).expect("an authority is a valid field");
        Self { address, host, resolved: Mutex::default(), idle: RefCell::default() }
    }

    /// Makes a leased call and returns with the head of its answer.
    ///
    /// # Errors
    /// [`CallError`] when there will be no answer.
    pub async fn call(&self, lease: &Lease) -> Result<Answering, CallError> {
        match lease.kind {
            CallKind::Post => self.send(self.request(Method::POST, "/payments", payment(lease))).await,
            CallKind::Get => {
                let path = format!("/payments/{}", lease.id);
                self.send(self.request(Method::GET, &path, String::new())).await
            }
        }
    }

    /// Asks for the processor's own opinion of itself.
    pub async fn health(&self) -> Health {
        let asked = async {
            let request = self.request(Method::GET, "/payments/service-health", String::new());
            let mut answering = self.send(request).await.ok()?;
            let status = answering.status();
            let body = answering.read_body().await;
            self.put_back(answering).await;
            match (status, body) {
                (200, Some(body)) => health(&body),
                (429, _) => Some(Health::Busy),
                _ => None,
            }
        };
        tokio::time::timeout(HEALTH_PATIENCE, asked).await.ok().flatten().unwrap_or(Health::Unanswered)
    }

    fn request(&self, method: Method, path: &str, body: String) -> Request<Full<Bytes>> {
        let is_post = method == Method::POST;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("our paths are valid");
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        if is_post {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request
    }

    /// Sends on an idle connection if one is alive, else on a new one. A request that comes back unwritten, because the
    /// processor had closed an idle connection, goes on the next.
    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answering, CallError> {
        loop {
            let idle = self.take_idle();
            let is_new = idle.is_none();
            let mut sender = match idle {
                Some(sender) => sender,
                None => self.connect().await.map_err(|_| CallError::NeverSent)?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Answering { response, sender }),
                Err(mut error) => match error.take_message() {
                    Some(_) if is_new => return Err(CallError::NeverSent),
                    Some(unsent) => request = unsent,
                    None => return Err(CallError::Unknown),
                },
            }
        }
    }

    /// The connection used last is the likeliest to be alive.
    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let connecting = async {
            let address = self.resolve().await?;
            TcpStream::connect(address).await
        };
        let connected = tokio::time::timeout(CONNECT_PATIENCE, connecting).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Its errors come back through the sender.
        tokio::task::spawn_local(async move { connection.await.ok() });
        Ok(sender)
    }

    /// Where the processor is now. Connections that are made together share one answer of the resolver.
    async fn resolve(&self) -> io::Result<SocketAddr> {
        let mut resolved = self.resolved.lock().await;
        if let Some((address, at)) = *resolved
            && at.elapsed() < RESOLVED_FOR
        {
            return Ok(address);
        }
        let (host, port) = self.address.host_and_port();
        let found = tokio::net::lookup_host((host.as_str(), port)).await?.next();
        *resolved = found.map(|address| (address, Instant::now()));
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Gives a connection back for the next call, once what is left of the answer is read. One whose answer is too long
    /// is closed: its payment has been answered.
    pub async fn put_back(&self, mut answering: Answering) {
        let rest = async {
            answering.read_body().await?;
            answering.sender.ready().await.ok()
        };
        let is_usable = matches!(tokio::time::timeout(REST_PATIENCE, rest).await, Ok(Some(())));
        if is_usable && self.idle.borrow().len() < IDLE_MAX {
            self.idle.borrow_mut().push(answering.sender);
        }
    }
}

impl Answering {
    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Its `Content-Length`.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Reads the body to its end. `None` when it broke off or is too long.
    pub async fn read_body(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let body = self.response.body_mut();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.ok()?.into_data() {
                if bytes.len() + data.len() > ANSWER_BYTES_MAX {
                    return None;
                }
                bytes.extend_from_slice(&data);
            }
        }
        Some(bytes)
    }

    /// What [`crate::evidence`] wants to see, with the body if it was read.
    #[must_use]
    pub fn answer<'a>(&self, body: Option<&'a [u8]>) -> Answer<'a> {
        Answer { status: self.status(), content_length: self.content_length(), body }
    }
}

fn payment(lease: &Lease) -> String {
    let mut body = String::with_capacity(128);
    let Lease { id, cents, requested_at, .. } = lease;
    write!(body, r#"{{"correlationId":"{id}","amount":{cents},"requestedAt":"{requested_at}"}}"#)
        .expect("a string takes any text");
    body
}

fn health(body: &[u8]) -> Option<Health> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Words {
        failing: bool,
        min_response_time: u32,
    }
    let words: Words = sonic_rs::from_slice(body).ok()?;
    Some(Health::Answered { failing: words.failing, min_response_ms: words.min_response_time })
}
