//! A client that writes bytes as they stand. Every read and write has a bound, so no test hangs on a server that does.

use super::get;
use super::system::READY_TIMEOUT;
use serde_json::Value;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Fields of an answer that are read.
const FIELDS_MAX: usize = 32;

/// The ways to reach the system.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// As clients do, through a balancer that forwards.
    Lb(SocketAddr),
    /// As clients do, through a balancer that hands off.
    HandOff(SocketAddr),
    /// At the api's own socket.
    Api(PathBuf),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lb(_) => "lb",
            Self::HandOff(_) => "hand-off",
            Self::Api(_) => "api",
        })
    }
}

impl Way {
    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().unwrap_or_else(|error| panic!("cannot connect to {self:?}: {error}"))
    }

    pub(crate) fn try_connect(&self) -> io::Result<Connection> {
        let stream = match self {
            Self::Lb(addr) | Self::HandOff(addr) => {
                let stream = TcpStream::connect_timeout(addr, READY_TIMEOUT)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Api(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        stream.set_timeout(READY_TIMEOUT)?;
        Ok(Connection { stream, unread: Vec::new() })
    }

    /// One request on a connection of its own, answered as it should be by any server that is there.
    pub(crate) fn ask(&self, request: &[u8]) -> Result<Answer, End> {
        let mut connection = self.try_connect().map_err(|error| End::Broken(error.to_string()))?;
        connection.ask(request)
    }

    /// The status of `GET target`; `None` without an answer.
    pub(crate) fn status(&self, target: &str) -> Option<u16> {
        self.ask(&get(target)).ok().map(|answer| answer.status)
    }
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: u8,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a field, whose name is given in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// What is wrong with an error's body: it is small JSON with a code and a sentence.
    pub(crate) fn error_flaw(&self) -> Option<String> {
        let parsed: Result<Value, _> = serde_json::from_str(&self.body);
        let Ok(Value::Object(object)) = parsed else {
            return Some(format!("the body is no JSON object: {:?}", self.body));
        };
        let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
        names.sort_unstable();
        let is_texts = object.values().all(|value| value.as_str().is_some_and(|text| !text.is_empty()));
        if names != ["error", "message"] || !is_texts {
            return Some(format!("the body is not {{error, message}}: {}", self.body));
        }
        if self.body.len() > 256 {
            return Some(format!("the body has {} bytes", self.body.len()));
        }
        match self.field("content-type") {
            Some("application/json") => None,
            other => Some(format!("Content-Type is {other:?}")),
        }
    }

    /// True when a text stands anywhere in the answer.
    pub(crate) fn contains(&self, text: &str) -> bool {
        let is_in = |hay: &str| hay.to_lowercase().contains(&text.to_lowercase());
        is_in(&self.body) || self.fields.iter().any(|(name, value)| is_in(name) || is_in(value))
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// An orderly end of the stream.
    Closed,
    /// A reset.
    Reset,
    /// Nothing for as long as the connection's timeout.
    Silent,
    /// Something that is no answer.
    Broken(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("a close"),
            Self::Reset => f.write_str("a reset"),
            Self::Silent => f.write_str("silence"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silent,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// One connection of the client.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    unread: Vec<u8>,
}

impl Connection {
    /// Bounds every later read and write.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.stream.set_timeout(timeout).expect("a bound above zero");
    }

    /// Writes as much as the server takes: one that has already refused may have closed.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Says that nothing more will come.
    pub(crate) fn half_close(&self) {
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Answer, End> {
        self.send(request);
        self.answer_to(request)
    }

    /// The next answer, which has no body if it is one to `HEAD`.
    pub(crate) fn answer_to(&mut self, request: &[u8]) -> Result<Answer, End> {
        self.answer(request.starts_with(b"HEAD "))
    }

    /// The next answer, an interim one included.
    pub(crate) fn answer(&mut self, is_bodiless: bool) -> Result<Answer, End> {
        let (mut answer, head_len) = loop {
            if let Some(head) = parse_head(&self.unread)? {
                break head;
            }
            self.read_more()?;
        };
        self.unread.drain(..head_len);
        if is_bodiless || answer.status < 200 || answer.status == 204 {
            return Ok(answer);
        }
        let len = answer.field("content-length").map(str::parse::<usize>);
        let Some(Ok(len)) = len else {
            return Err(End::Broken(format!("{} without a length", answer.status)));
        };
        while self.unread.len() < len {
            self.read_more().map_err(|end| End::Broken(format!("{end} inside a body")))?;
        }
        let body = self.unread.drain(..len).collect();
        answer.body = String::from_utf8(body).map_err(|_| End::Broken("a body that is no UTF-8".into()))?;
        Ok(answer)
    }

    /// How the stream ends; what comes before that is not expected.
    pub(crate) fn end(&mut self) -> End {
        while self.unread.is_empty() {
            if let Err(end) = self.read_more() {
                return end;
            }
        }
        End::Broken(format!("more bytes: {:?}", String::from_utf8_lossy(&self.unread)))
    }

    /// True while the server takes what is written: one that has closed resets the connection at the first byte, and
    /// the second one fails.
    pub(crate) fn is_heard(&mut self) -> bool {
        (0..2).all(|_| self.stream.write_all(b"x").is_ok())
    }

    fn read_more(&mut self) -> Result<(), End> {
        let mut block = [0; 4096];
        match self.stream.read(&mut block)? {
            0 if self.unread.is_empty() => Err(End::Closed),
            0 => Err(End::Broken(format!("a close after {:?}", String::from_utf8_lossy(&self.unread)))),
            len => {
                self.unread.extend_from_slice(&block[..len]);
                Ok(())
            }
        }
    }

    /// Another handle to write with.
    pub(crate) fn writer(&self) -> Stream {
        match &self.stream {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        }
        .expect("a descriptor is left")
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(Answer, usize)>, End> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head
        .parse(bytes)
        .map_err(|error| End::Broken(format!("no answer ({error}): {:?}", String::from_utf8_lossy(bytes))))?;
    let httparse::Status::Complete(len) = parsed else { return Ok(None) };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let fields = head.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect();
    let (status, version) = (head.code.unwrap_or(0), head.version.unwrap_or(0));
    Ok(Some((Answer { status, version, fields, body: String::new() }, len)))
}

/// The bytes of a connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout);
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(out),
            Self::Unix(stream) => stream.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
