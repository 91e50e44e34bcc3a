//! HTTP to one processor: kept connections, as many as there are calls at once.
//!
//! What matters is to tell apart what was never sent, what was answered, and what is unknown ([`crate::pool`]). A call has no time limit here: giving up would close its socket, and a closed socket
//! does not cancel a payment.

use crate::config::Address;
use crate::evidence::Answer;
use crate::pool::{self, Pool};
use crate::resolver::Resolver;
use bytes::Bytes;
use edge::SendError;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use wire::frame::{CallKind, Health, Lease};

/// A connection that is not made within this is not made at all: nothing was sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an address is believed. Containers that are made anew may swap their addresses, and a payment at the wrong
/// processor is charged twice; that takes longer than this.
const RESOLVED_FOR: Duration = Duration::from_secs(1);

/// How long the rest of an answer may take whose head has said all: then its connection is closed.
const REST_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest answer that is read. A processor's own has a hundred bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Connections kept without a call. Half of the calls that may be out; Kestrel closes them after 130 s by itself.
const IDLE_MAX: usize = 512;

/// How long a health call may hang: two windows of its limiter (docs/contract.md) and some.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(12);

/// When the kernel begins to ask whether a silent peer is still there, how often it asks, and after how many questions without
/// an answer the connection is broken: after 45 s in all. The call is lost then, and its payment unknown.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 6;

/// When a connection is broken on which bytes of ours are not acknowledged: the kernel alone would try for 15 minutes.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(45);

/// The answer to a call; its body may still be on its way.
pub struct Answering(pool::Answering);

/// One processor.
pub struct Processor {
    host: HeaderValue,
    resolver: Resolver,
    resolved: Mutex<Option<(Rc<[SocketAddr]>, Instant)>>,
    pool: Pool,
}

impl Processor {
    /// A processor that has not been spoken to yet.
    ///
    /// # Errors
    /// When the system has no thread to look its name up in.
    ///
    /// # Panics
    /// Never: an authority is a valid field.
    pub fn new(address: &Address) -> io::Result<Self> {
        let host = HeaderValue::from_str(address.authority.as_str()).expect("an authority is a valid field");
        let (name, port) = address.host_and_port();
        let resolver = Resolver::start(name, port)?;
        Ok(Self { host, resolver, resolved: Mutex::default(), pool: Pool::new(IDLE_MAX) })
    }

    /// Makes a leased call and returns with the head of its answer.
    ///
    /// # Errors
    /// [`SendError`] when there will be no answer.
    pub async fn call(&self, lease: &Lease) -> Result<Answering, SendError> {
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
        tokio::time::timeout(HEALTH_TIMEOUT, asked).await.ok().flatten().unwrap_or(Health::Unanswered)
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

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answering, SendError> {
        self.pool.send(request, async || self.connect().await).await.map(Answering)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let addresses = in_time(CONNECT_TIMEOUT, self.resolve()).await?;
        let timeout = CONNECT_TIMEOUT / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let mut connected = Err(io::ErrorKind::NotFound.into());
        for address in &*addresses {
            connected = in_time(timeout, TcpStream::connect(address)).await;
            if connected.is_ok() {
                break;
            }
        }
        let stream = connected?;
        stream.set_nodelay(true)?;
        notice_a_vanished_host(&stream)?;
        Ok(stream)
    }

    /// Where the processor is now, each address that its name has. Connections that are made together share one answer of
    /// the resolver.
    async fn resolve(&self) -> io::Result<Rc<[SocketAddr]>> {
        let mut resolved = self.resolved.lock().await;
        if let Some((addresses, at)) = &*resolved
            && at.elapsed() < RESOLVED_FOR
        {
            return Ok(Rc::clone(addresses));
        }
        let found: Rc<[SocketAddr]> = self.resolver.resolve().await?.into();
        if found.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        *resolved = Some((Rc::clone(&found), Instant::now()));
        Ok(found)
    }

    /// Gives a connection back for the next call, once what is left of the answer is read. One whose answer is too long
    /// is closed: its payment has been answered.
    pub async fn put_back(&self, mut answering: Answering) {
        let rest = async {
            answering.read_body().await?;
            Some(self.pool.put_back(answering.0).await)
        };
        // Dropped before that, the connection is closed.
        let _ = tokio::time::timeout(REST_TIMEOUT, rest).await;
    }
}

impl Answering {
    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.response.status().as_u16()
    }

    /// Its `Content-Length`.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.0.response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Reads the body to its end. `None` when it broke off or is too long.
    pub async fn read_body(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let body = self.0.response.body_mut();
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

async fn in_time<T>(timeout: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A host that vanishes ends no connection: the kernel has to ask.
fn notice_a_vanished_host(stream: &TcpStream) -> io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[tokio::test]
    async fn a_vanished_host_is_noticed_within_a_minute() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        let stream = Processor::new(&Address { authority }).unwrap().connect().await.unwrap();
        let socket = socket2::SockRef::from(&stream);
        let asked = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        let silent = socket.tcp_keepalive_time().unwrap() + asked;
        assert!(socket.keepalive().unwrap() && silent <= Duration::from_secs(60), "{silent:?}");
        assert!(socket.tcp_user_timeout().unwrap().is_some_and(|after| after <= Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn a_processor_that_has_two_addresses_is_found_at_the_second() {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (gone, there) = (bind(), bind());
        let addresses: Rc<[SocketAddr]> = [&gone, &there].map(|bound| bound.local_addr().unwrap()).into();
        drop(gone);
        let authority = "processor:8080".parse().unwrap();
        let processor = Processor::new(&Address { authority }).unwrap();
        *processor.resolved.lock().await = Some((Rc::clone(&addresses), Instant::now()));
        assert_eq!(processor.connect().await.unwrap().peer_addr().unwrap(), addresses[1]);
    }
}
