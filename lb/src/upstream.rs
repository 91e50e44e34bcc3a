//! A request put to one api over a kept connection, and its answer.
//!
//! What goes out is written anew from what the edge has read. What comes back is read by the letter: the apis are ours
//! and announce the length of every body, so an answer of any other form counts as none.
//!
//! Never sent is only a request for which no connection could be made, or none of which was written; everything else that
//! ends without an answer may have arrived. A kept connection on which something has come, the end included, is not used.
//! What the runtime has not heard of yet shows when nothing can be written, and the request goes on the next connection,
//! or no process reads it; so a request that must not be sent twice goes on a connection of its own.
//!
//! The connection used last is taken first: it is the likeliest to be alive, and the others grow old and are closed.

use bytes::Bytes;
use edge::unix::UnixStream;
use edge::{JSON, Reply, Request, SendError, TOKEN};
use http::header::HeaderValue;
use http::{Method, StatusCode};
use httparse::Status;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::AsyncWriteExt;

/// Idle connections kept to one api: as many requests as one may have in flight at a time under a fight's load.
const IDLE_MAX: usize = 256;

/// Fields of an answer: an api sends at most seven.
const FIELDS_MAX: usize = 32;

/// The longest answer. The metrics of an api and the store together are a fiftieth of that.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Room for an answer to begin with, which nearly all fit into.
const ANSWER_BYTES: usize = 512;

/// The way to one api.
#[derive(Debug)]
pub struct Upstream {
    path: PathBuf,
    idle: RefCell<Vec<UnixStream>>,
}

impl Upstream {
    /// The way to the api at this socket, without a connection yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, idle: RefCell::default() }
    }

    /// True when it takes a connection now.
    pub async fn is_reachable(&self) -> bool {
        UnixStream::connect(&self.path).await.is_ok()
    }

    /// Puts a request to the api. One that is not [repeatable](Request::is_repeatable) goes on a connection of its own.
    /// Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`SendError`] tells what may be tried again.
    pub async fn ask(&self, request: &Request) -> Result<Reply, SendError> {
        let bytes = encode(request);
        let mut kept = request.is_repeatable();
        loop {
            let mut stream = match kept.then(|| self.take_idle()).flatten() {
                Some(stream) => stream,
                None => {
                    kept = false;
                    UnixStream::connect(&self.path).await.map_err(|_| SendError::NeverSent)?
                }
            };
            match send(&mut stream, &bytes).await {
                Ok(()) => (),
                // The api has closed it meanwhile.
                Err(SendError::NeverSent) if kept => continue,
                Err(error) => return Err(error),
            }
            let (reply, stays) = receive(&stream, &request.method).await.map_err(|_| SendError::Unknown)?;
            if stays && self.idle.borrow().len() < IDLE_MAX {
                self.idle.borrow_mut().push(stream);
            }
            return Ok(reply);
        }
    }

    fn take_idle(&self) -> Option<UnixStream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(stream) = idle.pop() {
            if is_quiet(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Closes kept connections that the api has closed. To be called now and then.
    pub fn tidy(&self) {
        self.idle.borrow_mut().retain(is_quiet);
    }
}

/// True when nothing has come on a kept connection, the end included.
fn is_quiet(stream: &UnixStream) -> bool {
    stream.poll_readable(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// A request as an api gets it, with the fields that mean something there.
fn encode(request: &Request) -> Vec<u8> {
    let target = request.target.as_str();
    let mut out = Vec::with_capacity(256 + target.len() + request.body.len());
    let mut put = |part: &[u8]| out.extend_from_slice(part);
    put(request.method.as_str().as_bytes());
    put(b" ");
    put(target.as_bytes());
    // The client's own name for us means nothing there.
    put(b" HTTP/1.1\r\nhost: espora\r\n");
    let fields = [
        ("content-type", &request.content_type),
        ("content-encoding", &request.content_encoding),
        (TOKEN, &request.token),
        ("accept", &request.accept),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            put(name.as_bytes());
            put(b": ");
            put(value.as_bytes());
            put(b"\r\n");
        }
    }
    if !request.body.is_empty() || request.method == Method::POST {
        put(b"content-length: ");
        put(itoa::Buffer::new().format(request.body.len()).as_bytes());
        put(b"\r\n");
    }
    put(b"\r\n");
    put(&request.body);
    out
}

async fn send(stream: &mut UnixStream, bytes: &[u8]) -> Result<(), SendError> {
    let written = match stream.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        written => written.map_err(|_| SendError::NeverSent)?,
    };
    if written < bytes.len() {
        stream.write_all(&bytes[written..]).await.map_err(|_| SendError::Unknown)?;
    }
    Ok(())
}

/// The answer, and whether another request may follow.
async fn receive(stream: &UnixStream, method: &Method) -> io::Result<(Reply, bool)> {
    let mut held = Vec::with_capacity(ANSWER_BYTES);
    loop {
        poll_fn(|cx| poll_read(stream, cx, &mut held)).await?;
        if let Some(answer) = decode(&held, method).ok_or(io::ErrorKind::InvalidData)? {
            return Ok(answer.cut(held));
        }
    }
}

/// Reads something.
fn poll_read(stream: &UnixStream, cx: &mut Context<'_>, held: &mut Vec<u8>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_readable(cx))?;
        if held.len() == held.capacity() {
            held.reserve(held.len());
        }
        match stream.try_read_buf(held) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) if held.len() > ANSWER_BYTES_MAX => {
                return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
            }
            Ok(_) => return Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Where things stand in the bytes of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    content_type: Option<(usize, usize)>,
    allow: Option<(usize, usize)>,
    retry_after: bool,
    closes: bool,
    body: (usize, usize),
}

impl Answer {
    fn cut(self, held: Vec<u8>) -> (Reply, bool) {
        // Bytes that come unasked answer no request.
        let stays = !self.closes && held.len() == self.body.1;
        let bytes = Bytes::from(held);
        let field = |(from, to)| HeaderValue::from_maybe_shared(bytes.slice(from..to)).ok();
        let reply = Reply {
            status: self.status,
            body: bytes.slice(self.body.0..self.body.1),
            content_type: self.content_type.and_then(field).unwrap_or(JSON),
            allow: self.allow.and_then(field),
            retry_after: self.retry_after,
            close: false,
        };
        (reply, stays)
    }
}

/// `Some(None)` while an answer is not complete, `None` when it is none.
fn decode(bytes: &[u8], method: &Method) -> Option<Option<Answer>> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let head_len = match config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields).ok()? {
        Status::Complete(len) => len,
        Status::Partial => return Some(None),
    };
    let status = StatusCode::from_u16(response.code?).ok().filter(|status| status.as_u16() >= 200)?;
    let mut answer = Answer { status, ..Answer::default() };
    let mut length = None;
    for field in response.headers.iter() {
        let from = field.value.as_ptr().addr() - bytes.as_ptr().addr();
        let place = Some((from, from + field.value.len()));
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            length = Some(str::from_utf8(field.value).ok()?.parse::<usize>().ok()?);
        } else if is("content-type") {
            answer.content_type = place;
        } else if is("allow") {
            answer.allow = place;
        } else if is("retry-after") {
            answer.retry_after = true;
        } else if is("connection") {
            answer.closes |= field.value.eq_ignore_ascii_case(b"close");
        } else if is("transfer-encoding") {
            return None;
        }
    }
    let has_body = *method != Method::HEAD && status != StatusCode::NO_CONTENT;
    let end = head_len.checked_add(if has_body { length? } else { 0 })?;
    answer.body = (head_len, end);
    Some((bytes.len() >= end).then_some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(method: Method, body: &'static str) -> Request {
        Request {
            method,
            target: "/payments?a=b".parse().unwrap(),
            content_type: Some(JSON),
            content_encoding: None,
            token: Some(HeaderValue::from_static("t")),
            accept: None,
            body: body.into(),
        }
    }

    #[test]
    fn a_request_is_written_anew_with_what_means_something() {
        assert_eq!(
            String::from_utf8(encode(&request(Method::POST, "{}"))).unwrap(),
            "POST /payments?a=b HTTP/1.1\r\nhost: espora\r\ncontent-type: application/json\r\nx-rinha-token: t\r\n\
             content-length: 2\r\n\r\n{}"
        );
        assert!(encode(&request(Method::POST, "")).ends_with(b"\r\ncontent-length: 0\r\n\r\n"));
        assert!(encode(&request(Method::GET, "")).ends_with(b"x-rinha-token: t\r\n\r\n"));
    }

    const ANSWER: &[u8] =
        b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: a/b\r\nallow: GET\r\nretry-after: 1\r\n\
        content-length: 4\r\ndate: x\r\n\r\nbody";

    #[test]
    fn an_answer_is_read_once_all_of_it_is_there() {
        for len in 0..ANSWER.len() {
            assert_eq!(decode(&ANSWER[..len], &Method::GET), Some(None));
        }
        let cut = |bytes: &[u8], method| decode(bytes, &method).unwrap().unwrap().cut(bytes.to_vec());
        let (reply, stays) = cut(ANSWER, Method::GET);
        assert!(stays && reply.retry_after);
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::METHOD_NOT_ALLOWED, &b"body"[..]));
        assert_eq!(
            (reply.content_type, reply.allow.unwrap()),
            ("a/b".parse().unwrap(), "GET".parse().unwrap())
        );
        let (_, stays) = cut(&[ANSWER, b"H"].concat(), Method::GET);
        assert!(!stays, "something came unasked");
        let (_, stays) =
            cut(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Method::GET);
        assert!(!stays);
        let (reply, stays) = cut(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Method::HEAD);
        assert!(stays && reply.body.is_empty());
        let (reply, stays) = cut(b"HTTP/1.1 204 No Content\r\nallow: GET\r\n\r\n", Method::OPTIONS);
        assert!(stays && reply.body.is_empty());
    }

    #[test]
    fn an_answer_that_no_api_gives_is_no_answer() {
        for bytes in [
            &b"HTTP/1.1 100 Continue\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"\0",
        ] {
            assert_eq!(decode(bytes, &Method::GET), None, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer_or_none(at in 0..ANSWER.len(), byte in any::<u8>(), end in 0..ANSWER.len()) {
            let mut bytes = ANSWER.to_vec();
            bytes[at] = byte;
            for bytes in [&bytes[..], &bytes[..end]] {
                if let Some(Some(answer)) = decode(bytes, &Method::GET) {
                    answer.cut(bytes.to_vec());
                }
            }
        }
    }
}
