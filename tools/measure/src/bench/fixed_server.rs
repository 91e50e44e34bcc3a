//! The cheapest honest HTTP server: one thread, one epoll, a fixed answer. It is the floor that everything else stands
//! on, and the backend that balancers are measured in front of.
//!
//! Honest means that it reads every request to its end (head, `Content-Length`, body), answers pipelined requests in
//! order, keeps connections and closes them when asked to. It validates nothing and remembers nothing: `POST` is 202,
//! the summary is empty, everything else is 200. One read and one write a request; no allocation but for a request that
//! comes in pieces.
//!
//! It listens on TCP, on Unix sockets, and where lb hands clients off. To lb each of those is at rest until it has ended,
//! which is what it is between two requests anyway; and it gives none back.
//!
//! With `--ask` it is the least that any web server with a store behind it can be: each `POST` is answered once another
//! such server, over a kept Unix socket, has answered a question about it. All questions of a turn are one write.
//! Answers of one client that does not wait for them may change places then.

use anyhow::Context;
use arena::client::HEAD_BYTES_MAX;
use arena::terminal;
use edge::handoff::{self, MESSAGE_BYTES_MAX, Message, Page, Place, Received, Source};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{Shutdown, SockFlag, accept4, shutdown};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;

/// One read.
const READ_BYTES: usize = 16 * 1_024;

/// A request that is longer ends its connection.
const REQUEST_BYTES_MAX: usize = HEAD_BYTES_MAX + 64 * 1_024;

/// What the other server is asked: the least that it understands.
const QUESTION: &[u8] = b"POST / HTTP/1.1\r\n\r\n";

const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
const WELL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const SUMMARY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 98\r\n\r\n\
{\"default\":{\"totalRequests\":0,\"totalAmount\":0.0},\"fallback\":{\"totalRequests\":0,\"totalAmount\":0.0}}";

/// Where it listens.
#[derive(Clone, Debug, clap::Args)]
pub struct FixedServerArgs {
    /// A TCP address; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// A Unix socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The control socket of a balancer that hands clients off
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// The Unix socket of another such server that is asked before a POST is answered
    #[arg(long, value_name = "PATH")]
    pub ask: Option<PathBuf>,
}

/// Whatever the epoll watches.
enum Watched {
    Tcp(TcpListener),
    Unix(UnixListener),
    Passing(OwnedFd),
    Balancer(Balancer),
    Client(Client),
    /// The server that is asked.
    Asked(Rc<UnixStream>),
}

struct Client {
    /// Shared with a question that is out, so that no other client gets its descriptor meanwhile.
    stream: Rc<File>,
    /// The beginning of a request that is not complete.
    rest: Vec<u8>,
    /// Where lb hears that it has ended, if it is lb's.
    place: Option<Place>,
}

/// One that hands clients off.
struct Balancer {
    control: OwnedFd,
    /// What says which clients have ended; one that keeps no copies has none.
    source: Option<Rc<Source>>,
}

/// What is out at the other server.
struct Asked {
    stream: Rc<UnixStream>,
    /// Questions of this turn.
    questions: Vec<u8>,
    /// The connections that wait for an answer, in the order of the questions, and whether it is their last.
    waiting: VecDeque<(Rc<File>, bool)>,
    /// Bytes of an answer that is not complete.
    partial: usize,
}

/// Serves until it is killed; prints one line once it listens.
///
/// # Errors
/// When an address cannot be bound.
pub fn serve(args: &FixedServerArgs) -> anyhow::Result<()> {
    let mut server = Server::new()?;
    let mut listens = String::from("nothing");
    if let Some(addr) = args.listen {
        let listener = TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))?;
        listener.set_nonblocking(true)?;
        listens = listener.local_addr()?.to_string();
        server.watch(Watched::Tcp(listener))?;
    }
    if let Some(path) = &args.socket {
        let (listener, _lock) = wire::socket::bind(path)?;
        server.watch(Watched::Unix(listener))?;
    }
    if let Some(path) = &args.control {
        server.watch(Watched::Passing(handoff::bind_control(path)?))?;
    }
    if let Some(path) = &args.ask {
        server.ask(path).with_context(|| format!("no server to ask at {}", path.display()))?;
    }
    terminal::print(format_args!("listening on {listens}\n"));
    server.run()
}

struct Server {
    epoll: Epoll,
    /// By the number of the descriptor.
    watched: Vec<Option<Watched>>,
    block: Box<[u8]>,
    answers: Vec<u8>,
    asked: Option<Asked>,
}

impl Server {
    fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let block = vec![0; READ_BYTES].into_boxed_slice();
        Ok(Self { epoll, watched: Vec::new(), block, answers: Vec::new(), asked: None })
    }

    fn watch(&mut self, watched: Watched) -> io::Result<()> {
        let fd = watched.fd();
        let at = usize::try_from(fd).expect("descriptors are not negative");
        self.epoll.add(watched.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        if self.watched.len() <= at {
            self.watched.resize_with(at + 1, || None);
        }
        self.watched[at] = Some(watched);
        Ok(())
    }

    fn ask(&mut self, path: &Path) -> io::Result<()> {
        let stream = Rc::new(UnixStream::connect(path)?);
        self.watch(Watched::Asked(Rc::clone(&stream)))?;
        let (questions, waiting) = (Vec::new(), VecDeque::new());
        self.asked = Some(Asked { stream, questions, waiting, partial: 0 });
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => 0,
                waited => waited?,
            };
            for event in &events[..count] {
                let at = usize::try_from(event.data()).expect("our own number");
                let Some(mut watched) = self.watched[at].take() else { continue };
                let (lives, fresh) = self.on_ready(&mut watched);
                if lives {
                    self.watched[at] = Some(watched);
                } else {
                    if let Watched::Client(client) = &mut watched
                        && let Some(place) = client.place.take()
                        && place.consume()
                    {
                        place.end();
                    }
                    // lb may hold the connection too: to close our descriptor would neither end it nor the watching. Both
                    // fail only for a connection that has ended.
                    let _ = self.epoll.delete(watched.as_fd());
                    let _ = shutdown(watched.fd(), Shutdown::Both);
                }
                for client in fresh {
                    self.watch(client)?;
                }
            }
            if let Some(asked) = &mut self.asked {
                asked.ask().context("the server that is asked is gone")?;
            }
        }
    }

    /// Whether it goes on, and who has come.
    fn on_ready(&mut self, watched: &mut Watched) -> (bool, Vec<Watched>) {
        let client = |fd| Watched::Client(Client::new(fd, None));
        match watched {
            Watched::Client(client) => (self.answer(client).unwrap_or(false), Vec::new()),
            Watched::Asked(_) => {
                (self.asked.as_mut().is_some_and(|asked| asked.listen(&mut self.block)), Vec::new())
            }
            Watched::Tcp(listener) => {
                let accepted = std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| {
                    // Both fail only for a connection that is gone, which its first read finds out.
                    let _ = stream.set_nonblocking(true);
                    let _ = stream.set_nodelay(true);
                    client(stream.into())
                });
                (true, accepted.collect())
            }
            Watched::Unix(listener) => {
                let accepted = std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| {
                    let _ = stream.set_nonblocking(true);
                    client(stream.into())
                });
                (true, accepted.collect())
            }
            Watched::Passing(listener) => {
                let accepted = accept4(listener, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
                let balancer =
                    accepted.into_iter().map(|control| Watched::Balancer(Balancer { control, source: None }));
                (true, balancer.collect())
            }
            Watched::Balancer(balancer) => {
                let mut fresh = Vec::new();
                loop {
                    match balancer.receive() {
                        Ok(received) => fresh.extend(received.map(Watched::Client)),
                        Err(error) => return (error.kind() == io::ErrorKind::WouldBlock, fresh),
                    }
                }
            }
        }
    }

    /// Reads once and answers every whole request. False when the connection is over.
    fn answer(&mut self, client: &mut Client) -> io::Result<bool> {
        let read = match (&*client.stream).read(&mut self.block) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) => return Ok(error.kind() == io::ErrorKind::WouldBlock),
        };
        let mut rest = std::mem::take(&mut client.rest);
        let bytes = if rest.is_empty() {
            &self.block[..read]
        } else {
            rest.extend_from_slice(&self.block[..read]);
            &rest[..]
        };
        self.answers.clear();
        let (mut used, mut lives) = (0, true);
        while let Some(request) = Request::parse(&bytes[used..]) {
            used += request.len;
            if let Some(asked) = self.asked.as_mut().filter(|_| request.answer == ACCEPTED) {
                asked.questions.extend_from_slice(QUESTION);
                asked.waiting.push_back((Rc::clone(&client.stream), request.is_last));
                continue;
            }
            self.answers.extend_from_slice(request.answer);
            lives &= !request.is_last;
        }
        lives &= bytes.len() - used <= REQUEST_BYTES_MAX;
        client.rest = bytes[used..].to_vec();
        // An answer that does not fit into the socket's buffer belongs to a peer that does not read.
        if !self.answers.is_empty() {
            (&*client.stream).write_all(&self.answers)?;
        }
        Ok(lives)
    }
}

impl Client {
    fn new(fd: OwnedFd, place: Option<Place>) -> Self {
        Self { stream: Rc::new(fd.into()), rest: Vec::new(), place }
    }
}

impl Balancer {
    /// The next message, which may bring a client. An error when there is none, or no more.
    fn receive(&mut self) -> io::Result<Option<Client>> {
        let mut message = [0; MESSAGE_BYTES_MAX];
        let Received { len, passed, .. } = handoff::receive(self.control.as_fd(), &mut message)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match (Message::decode(&message[..len]), passed) {
            (Some(Message::Hello), Some(memory)) => {
                let control = self.control.try_clone()?;
                self.source = Some(Rc::new(Source::new(Page::open(memory)?, control)));
                Ok(None)
            }
            (Some(Message::Client(ticket)), Some(fd)) => {
                let place = self.source.as_ref().and_then(|source| Place::new(Rc::clone(source), ticket));
                Ok(Some(Client::new(fd, place)))
            }
            _ => Ok(None),
        }
    }
}

impl Asked {
    /// Asks what has come up in this turn.
    fn ask(&mut self) -> io::Result<()> {
        if !self.questions.is_empty() {
            (&*self.stream).write_all(&self.questions)?;
            self.questions.clear();
        }
        Ok(())
    }

    /// Takes answers, and answers whom they are for. False when the other server is gone.
    fn listen(&mut self, block: &mut [u8]) -> bool {
        let Ok(read @ 1..) = (&*self.stream).read(block) else { return false };
        self.partial += read;
        while self.partial >= ACCEPTED.len() {
            self.partial -= ACCEPTED.len();
            let Some((client, is_last)) = self.waiting.pop_front() else { return false };
            // Both fail only for a client that has gone, which its next read finds out.
            let _ = (&*client).write_all(ACCEPTED);
            if is_last {
                let _ = shutdown(client.as_raw_fd(), Shutdown::Both);
            }
        }
        true
    }
}

impl Watched {
    fn fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
            Self::Passing(fd) => fd.as_fd(),
            Self::Balancer(balancer) => balancer.control.as_fd(),
            Self::Client(client) => client.stream.as_fd(),
            Self::Asked(stream) => stream.as_fd(),
        }
    }
}

/// As much of a request as the answer depends on.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    len: usize,
    answer: &'static [u8],
    is_last: bool,
}

impl Request {
    /// The request that `bytes` begin with; `None` while it is not complete.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let (mut body_len, mut is_last) = (0, false);
        for line in bytes[..head_len].split(|byte| *byte == b'\n').skip(1) {
            if let Some(value) = value(line, b"content-length:") {
                body_len = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
            } else if let Some(value) = value(line, b"connection:") {
                is_last = value.trim_ascii().eq_ignore_ascii_case(b"close");
            }
        }
        let len = head_len + body_len;
        let answer = match bytes {
            [b'P', b'O', b'S', b'T', ..] => ACCEPTED,
            _ if bytes.starts_with(b"GET /payments-summary") => SUMMARY,
            _ => WELL,
        };
        (bytes.len() >= len).then_some(Self { len, answer, is_last })
    }
}

/// The value of a field, if the line is that field.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (field, value) = line.split_at_checked(name.len())?;
    field.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_with_its_body() {
        let request = b"POST /payments HTTP/1.1\r\nHost: h\r\nCONTENT-LENGTH: 2\r\n\r\n{}";
        let expected = Request { len: request.len(), answer: ACCEPTED, is_last: false };
        assert_eq!(Request::parse(request), Some(expected));
        for cut in 0..request.len() {
            assert_eq!(Request::parse(&request[..cut]), None, "cut at {cut}");
        }
        let two = [&request[..], b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"].concat();
        assert_eq!(Request::parse(&two).map(|first| first.len), Some(request.len()));
        let last = Request::parse(&two[request.len()..]).unwrap();
        assert_eq!((last.answer, last.is_last), (WELL, true));
    }

    #[test]
    fn the_summary_is_as_long_as_it_says() {
        let text = std::str::from_utf8(SUMMARY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
