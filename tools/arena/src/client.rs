//! One HTTP/1.1 connection of the judge, written by hand so that a user costs next to nothing.
//!
//! The generator shares its processors with the system that it measures. So a request is a slice of bytes made
//! beforehand, an answer stays in a buffer that is used again, and only `httparse` looks at it: no allocation for a
//! request, one write, as a rule one read. A general client costs ten times as much and measures itself.
//!
//! What counts as the duration of a request is what k6 counts: from before the first byte is written until the answer
//! is complete, without connecting. A connection that the other side closed while it was idle is replaced before
//! anything is written, as k6 does; one that breaks later is a failed request, and so is an answer that is not complete
//! within the client's timeout (the judge gives up after [`TIMEOUT`]).
//!
//! Bounds: a head has at most [`HEAD_FIELDS_MAX`] fields and [`HEAD_BYTES_MAX`] bytes, a body [`BODY_BYTES_MAX`].
//! Beyond them an answer is malformed.

use crate::endpoint::Endpoint;
use bytes::{Buf, BytesMut};
use std::io;
use std::ops::Range;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Every request of the judge gives up after this (docs/contract.md).
pub const TIMEOUT: Duration = Duration::from_millis(1_500);

/// Fields of an answer's head; servers send about five.
pub const HEAD_FIELDS_MAX: usize = 32;

/// Bytes of an answer's head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes of an answer's body: several times the largest page of payments that a simulated processor hands out.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What one buffer holds before it has to grow; a whole answer to a payment is about 150 bytes.
const BUFFER_BYTES: usize = 1024;

/// A server, and the connection to it while there is one.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    stream: Option<TcpStream>,
    buffer: BytesMut,
    /// Connections made, the first one included.
    pub connects: u64,
}

/// An answer, in the client's buffer until the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// The body, without the framing.
    pub body: &'a [u8],
    /// From before the first byte was written until the answer was complete.
    pub took: Duration,
}

/// Why there is no answer. In every case the server may have done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent.
    #[error("cannot connect: {0}")]
    Unconnected(io::Error),
    /// The connection ended before the answer did.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// The answer was not complete in time.
    #[error("no answer in time")]
    TimedOut,
    /// The answer is not HTTP/1.1, or it is larger than any of these answers.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
}

impl Failure {
    /// How it is called where failures are counted.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unconnected(_) => "not connected",
            Self::Lost(_) => "connection lost",
            Self::TimedOut => "timed out",
            Self::Malformed(_) => "malformed answer",
        }
    }
}

/// How a body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    len: usize,
    status: u16,
    framing: Framing,
    is_last: bool,
}

impl Client {
    /// A client without a connection; the first request makes one.
    #[must_use]
    pub fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        let buffer = BytesMut::with_capacity(BUFFER_BYTES);
        Self { endpoint, timeout, stream: None, buffer, connects: 0 }
    }

    /// What the Host field of its requests says.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Sends a complete request and waits for the complete answer.
    ///
    /// # Errors
    /// [`Failure`]; the connection is given up then.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>, Failure> {
        let limit = self.timeout;
        let outcome = match timeout(limit, self.attempt(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::TimedOut),
        };
        match outcome {
            Ok((head, body, took)) => {
                if head.is_last {
                    self.stream = None;
                }
                Ok(Answer { status: head.status, body: &self.buffer[body], took })
            }
            Err(failure) => {
                self.stream = None;
                Err(failure)
            }
        }
    }

    async fn attempt(&mut self, request: &[u8]) -> Result<(Head, Range<usize>, Duration), Failure> {
        if self.stream.as_ref().is_none_or(|stream| !is_idle(stream)) {
            let stream = TcpStream::connect(self.endpoint.addr).await.map_err(Failure::Unconnected)?;
            stream.set_nodelay(true).map_err(Failure::Unconnected)?;
            self.stream = Some(stream);
            self.connects += 1;
        }
        let stream = self.stream.as_mut().expect("made above when there was none");
        self.buffer.clear();
        let began = Instant::now();
        stream.write_all(request).await.map_err(Failure::Lost)?;
        let (head, body) = receive(stream, &mut self.buffer).await?;
        Ok((head, body, began.elapsed()))
    }
}

/// True while the other side has neither closed the connection nor sent bytes unasked.
///
/// Costs no system call as long as nothing arrived: tokio remembers that the last read left nothing.
fn is_idle(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Reads one whole answer; interim ones (1xx) are passed over.
async fn receive(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<(Head, Range<usize>), Failure> {
    let mut head = None;
    let mut is_over = false;
    loop {
        if head.is_none() {
            head = parse_head(buffer)?;
        }
        match head {
            Some(Head { status: 100..200, len, .. }) => {
                buffer.advance(len);
                head = None;
                continue;
            }
            Some(head) => {
                if let Some(body) = take_body(buffer, head, is_over)? {
                    return Ok((head, body));
                }
            }
            None => (),
        }
        if is_over {
            return Err(Failure::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        buffer.reserve(BUFFER_BYTES);
        is_over = stream.read_buf(buffer).await.map_err(Failure::Lost)? == 0;
    }
}

/// `None` while the head is not complete.
fn parse_head(buffer: &[u8]) -> Result<Option<Head>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(buffer) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if buffer.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(_) => return Err(Failure::Malformed("the head is too long")),
        Err(_) => return Err(Failure::Malformed("the head")),
    };
    let status = response.code.ok_or(Failure::Malformed("the status"))?;
    let mut is_last = response.version == Some(0);
    let mut framing = Framing::UntilClose;
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            let digits = std::str::from_utf8(field.value).ok().and_then(|text| text.trim().parse().ok());
            framing = Framing::Length(digits.ok_or(Failure::Malformed("the Content-Length"))?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if field.name.eq_ignore_ascii_case("connection") {
            is_last |= field.value.eq_ignore_ascii_case(b"close");
        }
    }
    if status < 200 || status == 204 || status == 304 {
        framing = Framing::Length(0);
    }
    is_last |= framing == Framing::UntilClose;
    Ok(Some(Head { len, status, framing, is_last }))
}

/// Status and length of the whole answer that `buffer` begins with, if it says its length; `None` while it is not complete.
///
/// # Errors
/// [`Failure::Malformed`], also for an answer that does not say how long it is.
pub fn answer_len(buffer: &[u8]) -> Result<Option<(u16, usize)>, Failure> {
    let Some(Head { len, status, framing, .. }) = parse_head(buffer)? else { return Ok(None) };
    let Framing::Length(body_len) = framing else {
        return Err(Failure::Malformed("an answer without a length"));
    };
    Ok(Some((status, len.saturating_add(body_len))).filter(|(_, whole)| buffer.len() >= *whole))
}

/// `None` while the body is not complete.
fn take_body(buffer: &mut BytesMut, head: Head, is_over: bool) -> Result<Option<Range<usize>>, Failure> {
    let received = buffer.len() - head.len;
    let body = match head.framing {
        Framing::Length(len) if len > BODY_BYTES_MAX => None,
        Framing::Length(len) => return Ok((received >= len).then(|| head.len..head.len + len)),
        _ if received > BODY_BYTES_MAX => None,
        Framing::UntilClose => Some(is_over.then(|| head.len..buffer.len())),
        Framing::Chunked => Some(join_chunks(buffer, head.len)?),
    };
    body.ok_or(Failure::Malformed("the body is too long"))
}

/// Moves the data of all chunks together, once the last one is there.
fn join_chunks(buffer: &mut BytesMut, start: usize) -> Result<Option<Range<usize>>, Failure> {
    let mut chunks = Vec::new();
    let mut at = start;
    loop {
        let (data, len) = match httparse::parse_chunk_size(&buffer[at..]) {
            Ok(httparse::Status::Complete((line, len))) => (at + line, len),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Failure::Malformed("a chunk's size")),
        };
        let len = usize::try_from(len).ok().filter(|len| *len <= BODY_BYTES_MAX);
        let len = len.ok_or(Failure::Malformed("a chunk is too long"))?;
        if buffer.len() < data + len + 2 {
            return Ok(None);
        }
        if &buffer[data + len..data + len + 2] != b"\r\n" {
            // Trailers follow only a last chunk, and none of the judge's servers sends any.
            return Err(Failure::Malformed("the end of a chunk"));
        }
        if len == 0 {
            break;
        }
        chunks.push(data..data + len);
        at = data + len + 2;
    }
    let mut end = start;
    for chunk in chunks {
        let len = chunk.len();
        buffer.copy_within(chunk, end);
        end += len;
    }
    Ok(Some(start..end))
}

/// A complete request with a JSON body or none, as the judge writes it. `token` is the processors' administrators'.
#[must_use]
pub fn request(method: &str, target: &str, host: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let token = token.map(|token| format!("X-Rinha-Token: {token}\r\n")).unwrap_or_default();
    let length = match method {
        "GET" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
    format!("{head}{token}{length}\r\n{body}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// Answers one request on each of as many connections as there are scripts; a script is written piece by piece.
    async fn server(scripts: Vec<Vec<&'static [u8]>>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for pieces in scripts {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                stream.read_buf(&mut BytesMut::with_capacity(4096)).await.unwrap();
                for piece in pieces {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        addr.into()
    }

    async fn ask(pieces: Vec<&'static [u8]>) -> Result<(u16, Vec<u8>), Failure> {
        let mut client = Client::new(server(vec![pieces]).await, TIMEOUT);
        let answer = client.exchange(&request("GET", "/", "here", None, "")).await?;
        Ok((answer.status, answer.body.to_vec()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_answer_split_at_any_byte_is_the_same_answer() {
        for whole in [
            OK,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\n\r\nok",
        ] {
            for cut in 0..whole.len() {
                let (first, second) = whole.split_at(cut);
                let answer = ask(vec![first, second]).await.unwrap();
                assert_eq!(answer, (200, b"ok".to_vec()), "cut at {cut}: {}", whole.escape_ascii());
            }
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_answer_without_a_body_ends_with_its_head() {
        assert_eq!(ask(vec![b"HTTP/1.1 204 No Content\r\n\r\n"]).await.unwrap(), (204, Vec::new()));
        let busy = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(ask(vec![busy]).await.unwrap(), (503, Vec::new()));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_short_or_foreign_answer_is_a_failure() {
        for piece in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", b"HTTP/1.1 2"] {
            assert!(matches!(ask(vec![piece]).await, Err(Failure::Lost(_))), "{}", piece.escape_ascii());
        }
        for piece in [
            &b"SSH-2.0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffff\r\n",
        ] {
            assert!(matches!(ask(vec![piece]).await, Err(Failure::Malformed(_))), "{}", piece.escape_ascii());
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_silent_server_costs_the_timeout_and_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::new(listener.local_addr().unwrap().into(), TIMEOUT);
        let began = Instant::now();
        let outcome = client.exchange(b"GET / HTTP/1.1\r\n\r\n").await.map(|answer| answer.status);
        assert!(matches!(outcome, Err(Failure::TimedOut)), "{outcome:?}");
        assert!(began.elapsed() >= TIMEOUT && began.elapsed() < 2 * TIMEOUT);
        assert!(client.stream.is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_is_used_again_until_the_server_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::new(listener.local_addr().unwrap().into(), TIMEOUT);
        let (closed_tx, closed_rx) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                first.read_buf(&mut BytesMut::with_capacity(4096)).await.unwrap();
                first.write_all(OK).await.unwrap();
            }
            drop(first);
            closed_tx.send(()).unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            second.read_buf(&mut BytesMut::with_capacity(4096)).await.unwrap();
            second.write_all(OK).await.unwrap();
        });
        let get = request("GET", "/", "here", None, "");
        for _ in 0..2 {
            assert_eq!(client.exchange(&get).await.unwrap().status, 200);
        }
        assert_eq!(client.connects, 1);
        closed_rx.await.unwrap();
        // The end of the connection reaches this side's socket before tokio hears of it.
        while client.stream.as_ref().is_some_and(is_idle) {
            tokio::task::yield_now().await;
        }
        assert_eq!(client.exchange(&get).await.unwrap().status, 200);
        assert_eq!(client.connects, 2);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_server_that_announces_the_end_is_left() {
        let last: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok";
        let mut client = Client::new(server(vec![vec![last], vec![OK]]).await, TIMEOUT);
        for expected in 1..=2 {
            assert_eq!(client.exchange(b"GET / HTTP/1.1\r\n\r\n").await.unwrap().body, b"ok");
            assert_eq!(client.connects, expected);
        }
    }

    #[test]
    fn a_request_says_how_long_its_body_is_unless_it_never_has_one() {
        let post = request("POST", "/payments", "localhost:9999", None, "{}");
        let text = String::from_utf8(post).unwrap();
        assert!(text.starts_with("POST /payments HTTP/1.1\r\nHost: localhost:9999\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"), "{text}");
        let get = String::from_utf8(request("GET", "/admin/payments-summary", "h", Some("123"), "")).unwrap();
        assert!(get.contains("X-Rinha-Token: 123\r\n") && get.ends_with("123\r\n\r\n"), "{get}");
    }
}
