//! The load generator of measurements: keep-alive HTTP connections over one epoll in one thread.
//!
//! It shares the machine with what it measures, so it is as cheap as it can be: a request is a slice made beforehand, an
//! answer is looked at by `httparse` in a buffer that is used again, two system calls a request.
//!
//! * Without a rate the loop is closed: every connection sends its next request when the answer is there.
//! * With a rate the requests are due at even distances, whatever the answers do; a request that finds no free
//!   connection waits, and its latency counts from when it was due, so that a stall of the server is seen by all requests
//!   that it would have hit.
//! * With a connection for each request the request asks for the close, and the next connection begins when the server
//!   has closed: so the ports of this side are free again at once.

use crate::bench::comparison::number;
use anyhow::{Context, ensure};
use arena::client::answer_len;
use arena::tally::{Latency, latencies};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;

/// One read.
const READ_BYTES: usize = 16 * 1_024;

/// How long the answers to the last requests are waited for: only a server that never answers needs that long.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

const TOKEN_TIMER: u64 = u64::MAX;

/// What is sent.
pub trait Requests {
    /// The next request, complete.
    fn next(&mut self) -> &[u8];
}

/// The same request again and again.
#[derive(Clone, Debug)]
pub struct Same(pub Vec<u8>);

impl Requests for Same {
    fn next(&mut self) -> &[u8] {
        &self.0
    }
}

/// How it is sent.
#[derive(Clone, Copy, Debug)]
pub struct LoadGenerator {
    /// To whom.
    pub addr: SocketAddr,
    /// How many connections at once.
    pub connections: usize,
    /// Requests a second; without it as fast as they are answered.
    pub rate_per_s: Option<u32>,
    /// For how long requests are sent; at least one goes out.
    pub lasting: Duration,
    /// How long the answers to the last requests are waited for.
    pub answer_timeout: Duration,
    /// A connection for each request.
    pub is_reconnecting: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Answers by their status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer: the connection broke, or the time was over.
    pub unanswered: u64,
    /// From the first request to the last answer, but at least as long as requests were sent.
    pub took: Duration,
    accepted_us: Histogram<u64>,
    refused_us: Histogram<u64>,
}

impl Outcome {
    fn new() -> Self {
        Self {
            statuses: BTreeMap::new(),
            unanswered: 0,
            took: Duration::ZERO,
            accepted_us: latencies(),
            refused_us: latencies(),
        }
    }

    /// Answers with a 2xx.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.statuses.iter().filter(|(status, _)| (200..300).contains(*status)).map(|(_, count)| count).sum()
    }

    /// Everything else, silence included.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.statuses.values().sum::<u64>() - self.accepted() + self.unanswered
    }

    /// 2xx a second.
    #[must_use]
    pub fn accepted_per_s(&self) -> f64 {
        number(self.accepted()) / self.took.as_secs_f64()
    }

    /// Of the 2xx.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency::of(&self.accepted_us)
    }

    /// Of all other answers.
    #[must_use]
    pub fn refused_latency(&self) -> Latency {
        Latency::of(&self.refused_us)
    }

    /// The shortest time after which an answer other than a 2xx came, in milliseconds; `None` when there was none.
    #[must_use]
    pub fn refused_min_ms(&self) -> Option<f64> {
        (!self.refused_us.is_empty()).then(|| number(self.refused_us.min()) / 1_000.0)
    }

    fn answered(&mut self, status: u16, took: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let latencies =
            if (200..300).contains(&status) { &mut self.accepted_us } else { &mut self.refused_us };
        latencies.saturating_record(us);
    }
}

impl LoadGenerator {
    /// Connects, sends, and waits for the last answer.
    ///
    /// # Errors
    /// When no server accepts connections.
    pub fn run(&self, requests: &mut impl Requests) -> anyhow::Result<Outcome> {
        self.connect(requests)?.run(self.lasting)
    }

    /// Connects, for those who send more than once over the same connections.
    ///
    /// # Errors
    /// When no server accepts connections.
    pub fn connect<'a, R: Requests>(&self, requests: &'a mut R) -> anyhow::Result<Clients<'a, R>> {
        ensure!(self.connections > 0, "a load has at least one connection");
        Clients::connect(*self, requests)
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// From when the latency of the request that is out counts.
    since: Option<Instant>,
}

/// The connections of a load.
pub struct Clients<'a, R> {
    load: LoadGenerator,
    requests: &'a mut R,
    epoll: Epoll,
    timer: Option<TimerFd>,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    open: usize,
    begun: Instant,
    sent: u32,
    block: Box<[u8]>,
    outcome: Outcome,
}

impl<'a, R: Requests> Clients<'a, R> {
    fn connect(load: LoadGenerator, requests: &'a mut R) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut clients = Self {
            load,
            requests,
            epoll,
            timer: None,
            connections: Vec::with_capacity(load.connections),
            idle: (0..load.connections).rev().collect(),
            open: 0,
            begun: Instant::now(),
            sent: 0,
            block: vec![0; READ_BYTES].into_boxed_slice(),
            outcome: Outcome::new(),
        };
        for at in 0..load.connections {
            let stream = clients.open(at).with_context(|| format!("cannot connect to {}", load.addr))?;
            clients.connections.push(Connection { stream, buffer: Vec::new(), since: None });
        }
        if load.rate_per_s.is_some() {
            clients.timer = Some(clients.watch_timer()?);
        }
        Ok(clients)
    }

    fn open(&self, at: usize) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.load.addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        Ok(stream)
    }

    /// A timer of the epoll's: the epoll's own timeout counts in milliseconds. Edges need no reading, and an expiry that
    /// finds no free connection wakes no task twice.
    fn watch_timer(&self) -> io::Result<TimerFd> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        self.epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TOKEN_TIMER))?;
        Ok(timer)
    }

    /// Wakes us when the next request is due. A connection that becomes free before that wakes us by itself.
    fn wake_at(&self, due: Instant) {
        // Zero would mean never.
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        if let Some(timer) = &self.timer {
            let set =
                timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty());
            set.expect("a time of less than a second");
        }
    }

    /// Sends for so long, and waits for the last answer.
    ///
    /// # Errors
    /// What the system says when it does not tell who has answered.
    pub fn run(&mut self, lasting: Duration) -> anyhow::Result<Outcome> {
        self.begun = Instant::now();
        self.sent = 0;
        self.outcome = Outcome::new();
        let end = self.begun + lasting;
        let given_up = end + self.load.answer_timeout;
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let mut last_answer = self.begun;
        loop {
            let now = Instant::now();
            // A process that gets no processor for so long sends its first request all the same.
            if now < end || (self.sent == 0 && !self.idle.is_empty()) {
                self.send_due(now);
            } else if self.open == 0 || now >= given_up {
                break;
            }
            let left_ms = given_up.saturating_duration_since(now).as_millis().min(100);
            let timeout = EpollTimeout::from(u8::try_from(left_ms).expect("at most 100"));
            let count = match self.epoll.wait(&mut events, timeout) {
                Err(nix::errno::Errno::EINTR) => 0,
                waited => waited?,
            };
            for event in &events[..count] {
                if event.data() != TOKEN_TIMER {
                    self.on_ready(usize::try_from(event.data()).expect("our own number"));
                    last_answer = Instant::now();
                }
            }
        }
        // Their answers would be taken for those to the next requests.
        for at in 0..self.connections.len() {
            if self.connections[at].since.is_some() {
                self.lose(at);
            }
        }
        // A server that stops answering has had the whole time all the same.
        self.outcome.took = last_answer.max(end).saturating_duration_since(self.begun);
        Ok(mem::replace(&mut self.outcome, Outcome::new()))
    }

    /// Sends as many requests as are due and as connections are free.
    fn send_due(&mut self, now: Instant) {
        while !self.idle.is_empty() {
            let due = match self.load.rate_per_s {
                Some(rate) => {
                    let due = self.begun + Duration::from_secs(1) * self.sent / rate;
                    if due > now {
                        return self.wake_at(due);
                    }
                    due
                }
                None => Instant::now(),
            };
            let at = self.idle.pop().expect("looked at above");
            self.sent += 1;
            self.open += 1;
            self.connections[at].since = Some(due);
            // A request is far shorter than a socket's buffer, which is empty: it goes whole or not at all.
            if self.connections[at].stream.write_all(self.requests.next()).is_err() {
                self.lose(at);
            }
        }
    }

    fn on_ready(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        let read = match connection.stream.read(&mut self.block) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(read) if read > 0 => read,
            // The end that was asked for, or one that was not.
            _ if connection.since.is_none() && self.load.is_reconnecting => return self.replace(at),
            _ => return self.lose(at),
        };
        connection.buffer.extend_from_slice(&self.block[..read]);
        match (answer_len(&connection.buffer), connection.since) {
            (Ok(Some((status, len))), Some(since)) if connection.buffer.len() == len => {
                connection.buffer.clear();
                connection.since = None;
                self.open -= 1;
                self.outcome.answered(status, since.elapsed());
                if !self.load.is_reconnecting {
                    self.idle.push(at);
                }
            }
            (Ok(None), Some(_)) => (),
            // Malformed, or more than was asked for.
            _ => self.lose(at),
        }
    }

    /// The connection broke, with its request if it had one.
    fn lose(&mut self, at: usize) {
        if self.connections[at].since.take().is_some() {
            self.open -= 1;
            self.outcome.unanswered += 1;
        }
        self.replace(at);
    }

    /// A new connection in the place of one that ended; when there is none, one fewer.
    fn replace(&mut self, at: usize) {
        let _ = self.epoll.delete(&self.connections[at].stream);
        self.idle.retain(|other| *other != at);
        if let Ok(stream) = self.open(at) {
            self.connections[at] = Connection { stream, buffer: Vec::new(), since: None };
            self.idle.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// A server that answers each read of each connection with `answer`, and closes after it if it says so.
    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    while stream.read(&mut [0; 1_024]).is_ok_and(|read| read > 0) {
                        stream.write_all(answer).unwrap();
                        if answer.windows(5).any(|five| five == b"close") {
                            return;
                        }
                    }
                });
            }
        });
        addr
    }

    fn load(addr: SocketAddr) -> LoadGenerator {
        let lasting = Duration::from_millis(200);
        let answer_timeout = ANSWER_TIMEOUT;
        LoadGenerator {
            addr,
            connections: 3,
            rate_per_s: None,
            lasting,
            answer_timeout,
            is_reconnecting: false,
        }
    }

    #[test]
    fn every_request_is_answered_and_counted() {
        let addr = server(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
        let outcome = load(addr).run(&mut Same(b"GET / HTTP/1.1\r\n\r\n".to_vec())).unwrap();
        assert!(outcome.accepted() > 0);
        assert_eq!((outcome.failed(), outcome.latency().count), (0, outcome.accepted()));
    }

    #[test]
    fn a_rate_is_kept_and_no_more() {
        let addr = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let load = LoadGenerator { rate_per_s: Some(500), ..load(addr) };
        let outcome = load.run(&mut Same(b"GET / HTTP/1.1\r\n\r\n".to_vec())).unwrap();
        // Due at 0, 2, .. 198 ms: a busy machine may be late for the last ones, but never early.
        assert!((1..=100).contains(&outcome.accepted()), "{}", outcome.accepted());
    }

    #[test]
    fn the_same_connections_send_again() {
        let addr = server(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
        let (load, mut requests) = (load(addr), Same(b"GET / HTTP/1.1\r\n\r\n".to_vec()));
        let mut clients = load.connect(&mut requests).unwrap();
        let outcomes = [(); 2].map(|()| clients.run(load.lasting).unwrap());
        assert!(outcomes.iter().all(|outcome| outcome.accepted() > 0 && outcome.failed() == 0));
    }

    #[test]
    fn a_connection_for_each_request_ends_with_its_answer() {
        let addr = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let load = LoadGenerator { is_reconnecting: true, ..load(addr) };
        let outcome = load.run(&mut Same(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec())).unwrap();
        assert!(outcome.accepted() > 0);
        assert_eq!(outcome.failed(), 0);
    }

    #[test]
    fn refusals_and_lost_connections_are_failures() {
        let refused = server(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
        let outcome = load(refused).run(&mut Same(b"GET / HTTP/1.1\r\n\r\n".to_vec())).unwrap();
        assert_eq!((outcome.accepted(), outcome.refused_latency().count), (0, outcome.failed()));
        let garbage = server(b"close\r\n\r\n");
        let outcome = load(garbage).run(&mut Same(b"GET / HTTP/1.1\r\n\r\n".to_vec())).unwrap();
        assert!(outcome.unanswered > 0 && outcome.statuses.is_empty());
    }
}
