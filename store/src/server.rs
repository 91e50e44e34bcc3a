//! The store's loop: one thread, one epoll, one turn after the other, as Redis does it.
//!
//! A turn takes all frames that have come, lets the core decide about each, appends what it recorded with one write,
//! and then sends. Batches form by themselves under load and cost nothing without it. What a turn says is held until
//! [`Log::settled`] has reached the turn's last record; in mode `process` that is at once.
//!
//! Bounds: a connection is read in blocks of [`READ_BYTES`], and not at all while [`TX_BYTES_PAUSE`] of answers wait for
//! it, so that an api which does not read stops being served and costs nothing else; [`CONNECTIONS_MAX`] connections. While
//! [`HELD_MAX`] messages wait for the disk, no connection is read, and no api counts as silent.

use crate::core::{ApiId, Core, Effects, Event, Now};
use crate::log::frame::Sequence;
use crate::log::{self, Log};
use crate::metrics::{self, Question, Renderer};
use crate::now::now;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signalfd::SignalFd;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use wire::frame::{FRAME_BYTES_MAX, Frames, FromApi, FromStore, Message};
use wire::socket;
use wire::time::monotonic_us;

/// One read of one connection: as much as the longest frame.
const READ_BYTES: usize = FRAME_BYTES_MAX + 4;

/// With so many bytes of answers waiting a connection is not read.
const TX_BYTES_PAUSE: usize = 1 << 20;

/// With so many messages that wait for a flush nothing is read: a disk that stands still for a minute must not cost the
/// memory of a minute.
const HELD_MAX: usize = 65_536;

/// Apis and health checks together.
const CONNECTIONS_MAX: usize = 256;

/// Operators: apis never take their places.
const OPERATORS_MAX: usize = 8;

/// After an accept that failed for want of descriptors, which a closing connection gives back, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 50;

/// Events taken from the kernel at once; more wait for the next turn.
const EVENTS_MAX: usize = 64;

const TOKEN_LISTENER: u64 = 0;
const TOKEN_SIGNAL: u64 = 1;
const TOKEN_FLUSHED: u64 = 2;
const TOKEN_METRICS: u64 = 3;
const TOKEN_OPERATORS: u64 = 4;
const TOKEN_FIRST_CONNECTION: u64 = 16;

/// The socket that a connection came to, which decides what may be asked on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// `STORE_SOCKET_DIR`: everything but an operator's wishes.
    Apis,
    /// `LOG_DIR`: an operator's wishes and nothing else.
    Operators,
}

impl Door {
    fn takes(self, frame: &FromApi) -> bool {
        matches!(frame, FromApi::Operate { .. }) == (self == Self::Operators)
    }

    fn connections_max(self) -> usize {
        match self {
            Self::Apis => CONNECTIONS_MAX,
            Self::Operators => OPERATORS_MAX,
        }
    }
}

#[derive(Debug)]
struct Connection {
    door: Door,
    stream: UnixStream,
    frames: Frames,
    tx: Vec<u8>,
    interest: EpollFlags,
}

/// The store with its sockets.
#[derive(Debug)]
pub struct Server {
    core: Core,
    log: Log,
    listener: UnixListener,
    operators: Option<UnixListener>,
    epoll: Epoll,
    connections: BTreeMap<u64, Connection>,
    next_token: u64,
    /// What was decided and may not be said yet, with the record that it waits for.
    held: VecDeque<(Sequence, Vec<(ApiId, FromStore)>)>,
    held_len: usize,
    effects: Effects,
    block: Box<[u8]>,
    /// When the listeners are looked at again after an accept that failed for want of descriptors.
    accepts_again_us: Option<u64>,
    /// `None` where the system had no thread for it: then texts are made here.
    renderer: Option<Renderer>,
}

impl Server {
    /// Puts the store together. `listener`, for apis, and `operators` are non-blocking; without the latter no operator is heard.
    ///
    /// # Errors
    /// When the kernel has no epoll for us.
    pub fn new(
        core: Core,
        log: Log,
        listener: UnixListener,
        operators: Option<UnixListener>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_LISTENER))?;
        if let Some(operators) = &operators {
            epoll.add(operators, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_OPERATORS))?;
        }
        if let Some(flushed) = log.flushed() {
            epoll.add(flushed, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_FLUSHED))?;
        }
        let renderer = Renderer::start();
        match &renderer {
            Ok(renderer) => {
                epoll.add(renderer.made(), EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_METRICS))?;
            }
            Err(error) => {
                tracing::warn!("no thread for the metrics, which cost decisions time then: {error}");
            }
        }
        Ok(Self {
            core,
            log,
            renderer: renderer.ok(),
            listener,
            operators,
            epoll,
            connections: BTreeMap::new(),
            next_token: TOKEN_FIRST_CONNECTION,
            held: VecDeque::new(),
            held_len: 0,
            effects: Effects::default(),
            block: vec![0; READ_BYTES].into_boxed_slice(),
            accepts_again_us: None,
        })
    }

    /// Serves until a signal arrives at `signals`; then everything recorded is flushed and said.
    ///
    /// # Errors
    /// When the kernel fails us. An error of the log ends the process instead.
    pub fn run(&mut self, signals: &SignalFd) -> io::Result<()> {
        self.epoll.add(signals.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_SIGNAL))?;
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        loop {
            let count = self.wait(&mut events)?;
            let now = now();
            for event in &events[..count] {
                match event.data() {
                    TOKEN_LISTENER => self.accept(Door::Apis),
                    TOKEN_OPERATORS => self.accept(Door::Operators),
                    TOKEN_SIGNAL => return self.finish(),
                    TOKEN_FLUSHED => {
                        // Only resets the counter: what matters is Log::settled.
                        let _ = self.log.flushed().map(nix::sys::eventfd::EventFd::read);
                    }
                    TOKEN_METRICS => self.say_metrics(),
                    token => self.on_ready(token, event.events()),
                }
            }
            self.end_turn(now);
        }
    }

    fn wait(&self, events: &mut [EpollEvent]) -> io::Result<usize> {
        let pause_ms = self.accepts_again_us.map_or(u64::MAX, |_| ACCEPT_PAUSE_MS);
        let timeout_ms = self.core.next_call_us().div_ceil(1000).min(pause_ms);
        let timeout =
            EpollTimeout::try_from(i32::try_from(timeout_ms).unwrap_or(i32::MAX)).expect("not negative");
        match self.epoll.wait(events, timeout) {
            // We may have been stopped meanwhile: what came in that time is read before an api counts as silent.
            Err(nix::errno::Errno::EINTR) => Ok(self.epoll.wait(events, EpollTimeout::ZERO)?),
            waited => Ok(waited?),
        }
    }

    // One turn.

    fn end_turn(&mut self, now: Now) {
        self.go_on_accepting(now);
        self.log.tend();
        if self.is_deaf() {
            self.core.excuse_silence(now);
        }
        self.core.step(now, Event::Room(self.log.room()), &mut self.effects);
        self.core.dispatch(now, &mut self.effects);
        self.commit();
        self.release();
        self.flush_connections();
        self.log.mark();
    }

    /// Gives the turn's records to the log and queues what the turn says behind them.
    fn commit(&mut self) {
        let effects = &mut self.effects;
        if effects.records_len > 0 {
            if let Err(error) = self.log.append(&effects.records, effects.records_len) {
                log::end_process("append", &error);
            }
            effects.records.clear();
            effects.records_len = 0;
            let ledger = self.core.ledger();
            // The ledger is the fold of what was appended: after this append, and before the next step.
            if self.log.is_snapshot_due(ledger.len()) {
                self.log.snapshot(ledger.freeze());
            }
        }
        for note in effects.notes.drain(..) {
            tracing::info!("{note}");
        }
        if !effects.sends.is_empty() {
            self.held_len += effects.sends.len();
            self.held.push_back((self.log.appended(), std::mem::take(&mut effects.sends)));
        }
        for ApiId(token) in std::mem::take(&mut self.effects.hang_ups) {
            self.close(token);
        }
    }

    /// Says what the log allows by now.
    fn release(&mut self) {
        let settled = self.log.settled();
        while self.held.front().is_some_and(|(sequence, _)| *sequence <= settled) {
            let Some((_, sends)) = self.held.pop_front() else {
                return;
            };
            self.held_len -= sends.len();
            for (ApiId(token), message) in sends {
                let Some(connection) = self.connections.get_mut(&token) else {
                    continue;
                };
                match message {
                    FromStore::Metrics { request, .. } => {
                        let (question, snapshot) =
                            (Question { token, request }, metrics::collect(&self.core, &self.log));
                        if let Some(renderer) = &self.renderer {
                            // One that is asked for too often is left out: its api tells its own numbers.
                            let _ = renderer.ask(question, snapshot);
                        } else {
                            let text = snapshot.render("store");
                            FromStore::Metrics { request, text }.encode(&mut connection.tx);
                        }
                    }
                    message => message.encode(&mut connection.tx),
                }
            }
        }
    }

    /// Sends the texts of the metrics that are made; the end of the turn writes them.
    fn say_metrics(&mut self) {
        let Some(renderer) = &self.renderer else { return };
        for (Question { token, request }, text) in renderer.take() {
            if let Some(connection) = self.connections.get_mut(&token) {
                FromStore::Metrics { request, text }.encode(&mut connection.tx);
            }
        }
    }

    /// True while nothing is read, because too much waits for the disk.
    fn is_deaf(&self) -> bool {
        self.held_len >= HELD_MAX
    }

    fn flush_connections(&mut self) {
        let is_deaf = self.is_deaf();
        let mut broken = Vec::new();
        for (&token, connection) in &mut self.connections {
            if !connection.tx.is_empty() && !connection.write() {
                broken.push(token);
                continue;
            }
            let mut wanted = EpollFlags::empty();
            wanted.set(EpollFlags::EPOLLIN, connection.tx.len() < TX_BYTES_PAUSE && !is_deaf);
            wanted.set(EpollFlags::EPOLLOUT, !connection.tx.is_empty());
            if wanted != connection.interest {
                connection.interest = wanted;
                let mut event = EpollEvent::new(wanted, token);
                if self.epoll.modify(&connection.stream, &mut event).is_err() {
                    broken.push(token);
                }
            }
        }
        for token in broken {
            self.end(token);
        }
    }

    // Connections.

    fn accept(&mut self, door: Door) {
        let max = door.connections_max();
        loop {
            let listener = match door {
                Door::Apis => Some(&self.listener),
                Door::Operators => self.operators.as_ref(),
            };
            let Some(listener) = listener else { return };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!("cannot accept: {error}; connections wait");
                    return self.pause_accepting();
                }
            };
            if !socket::is_ours(&stream) {
                tracing::warn!("a connection was turned away: its process runs as another user");
                continue;
            }
            let len = self.connections.values().filter(|connection| connection.door == door).count();
            if len >= max || stream.set_nonblocking(true).is_err() {
                tracing::warn!("a connection was turned away: {max} are open");
                continue;
            }
            let token = self.next_token;
            self.next_token += 1;
            let interest = EpollFlags::EPOLLIN;
            if self.epoll.add(&stream, EpollEvent::new(interest, token)).is_ok() {
                let connection =
                    Connection { door, stream, frames: Frames::default(), tx: Vec::new(), interest };
                self.connections.insert(token, connection);
            }
        }
    }

    /// Without a descriptor the listeners stay readable: they are looked at again after a while, not all the time.
    fn pause_accepting(&mut self) {
        self.accepts_again_us = Some(monotonic_us() + ACCEPT_PAUSE_MS * 1000);
        self.watch_listeners(EpollFlags::empty());
    }

    fn go_on_accepting(&mut self, now: Now) {
        if self.accepts_again_us.is_some_and(|again_us| now.us >= again_us) {
            self.accepts_again_us = None;
            self.watch_listeners(EpollFlags::EPOLLIN);
        }
    }

    fn watch_listeners(&self, interest: EpollFlags) {
        let operators = self.operators.as_ref().map(|operators| (operators, TOKEN_OPERATORS));
        for (listener, token) in [(&self.listener, TOKEN_LISTENER)].into_iter().chain(operators) {
            // What is watched already can be watched in another way.
            let _ = self.epoll.modify(listener, &mut EpollEvent::new(interest, token));
        }
    }

    fn on_ready(&mut self, token: u64, ready: EpollFlags) {
        let may_read = ready.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        if may_read && !self.read(token) {
            self.end(token);
        }
    }

    /// Reads once and takes in every whole frame. False when the connection has ended or broke the protocol.
    fn read(&mut self, token: u64) -> bool {
        let Self { connections, block, core, effects, .. } = self;
        let Some(connection) = connections.get_mut(&token) else {
            return true;
        };
        let read = match connection.stream.read(block) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => {
                return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            }
        };
        // Deadlines are judged by the time after the read: this process may have been stopped since the turn began.
        let now = now();
        let (door, mut is_refused) = (connection.door, false);
        let each = |message| {
            is_refused |= !door.takes(&message);
            if !is_refused {
                core.step(now, Event::Frame(ApiId(token), message), effects);
            }
        };
        let taken = connection.frames.take(&block[..read], each);
        if is_refused {
            tracing::warn!("connection {token} is closed: it asked for what its socket is not for");
            return false;
        }
        if let Err(error) = &taken {
            tracing::warn!("connection {token} is closed: {error}");
        }
        taken.is_ok()
    }

    /// The peer is gone.
    fn end(&mut self, token: u64) {
        self.core.step(now(), Event::Gone(ApiId(token)), &mut self.effects);
        self.close(token);
    }

    fn close(&mut self, token: u64) {
        if let Some(mut connection) = self.connections.remove(&token) {
            let _ = connection.write();
            let _ = self.epoll.delete(&connection.stream);
        }
    }

    /// The orderly end: nothing new is read, everything decided is flushed and said.
    fn finish(&mut self) -> io::Result<()> {
        tracing::info!("draining");
        self.commit();
        self.log.finish();
        self.release();
        for connection in self.connections.values_mut() {
            // The little that is left fits into the socket's buffer or belongs to a peer that does not read.
            let _ = connection.write();
        }
        Ok(())
    }
}

impl Connection {
    /// Writes what waits, as far as the peer takes it. False when it takes nothing any more.
    fn write(&mut self) -> bool {
        let mut written = 0;
        while written < self.tx.len() {
            match self.stream.write(&self.tx[written..]) {
                Ok(0) => return false,
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        self.tx.drain(..written);
        true
    }
}
