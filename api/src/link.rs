//! The connection to the store: requests out, replies and leases in, over any number of restarts of the store.
//!
//! A request waits for its reply up to [`HOLD`], also while there is no store: then it is sent when one comes, and
//! requests that were sent and not answered are sent again, which is safe for all but a purge. Reports are kept until
//! the store acknowledges them, in its order, and sent again to the next store. A hello lists the attempts that are
//! still out, so that they stay open there.
//!
//! ```text
//!   request() --> pending ----.                        .--> pending's reply
//!   report()  --> reports ----+--> outbox ==> store ==> +--> leases, health leases --> settle
//!                             '<-- again after a new hello
//! ```
//!
//! One task owns the socket. Everything that is asked for while it runs goes out with its next write, so that many
//! requests share one system call.

use crate::settle::Attempts;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use wire::frame::{self, FRAME_BYTES_MAX, FromApi, FromStore, HELD_ATTEMPTS_MAX, Lease, Message, Report};
use wire::{Bounds, Cents, PaymentId, Processor};

/// How long a request is held for a store that is away (CONTRACT section 5).
const HOLD: Duration = Duration::from_secs(1);

/// How finely that is watched: a request is held at most this much longer.
const TICK: Duration = Duration::from_millis(50);

/// The store takes three seconds of silence for death (MONEY.md, table of events).
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Between two tries to reach a store.
const RECONNECT: Duration = Duration::from_millis(20);

/// Requests that may wait for the store at once: each is a connection of a client, and those have a cap of their own.
const PENDING_MAX: usize = 65_536;

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The store never got the request: nothing was recorded.
    NeverSent,
    /// The store may have got it: unknown.
    Unknown,
}

/// What a client's request becomes; the link adds the number.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// Take this payment.
    Accept(PaymentId, Cents),
    /// Sum up a window.
    Summary(Bounds),
    /// Forget everything.
    Purge,
    /// Your metrics, please.
    Metrics,
}

impl Ask {
    fn frame(self, request: u64) -> FromApi {
        match self {
            Self::Accept(id, cents) => FromApi::Accept { request, id, cents },
            Self::Summary(bounds) => FromApi::Summary { request, bounds },
            Self::Purge => FromApi::Purge { request },
            Self::Metrics => FromApi::Metrics { request },
        }
    }

    /// Sent twice a purge would also wipe what was acknowledged between the two.
    fn is_repeatable(self) -> bool {
        !matches!(self, Self::Purge)
    }
}

struct Pending {
    ask: Ask,
    sent: bool,
    deadline: Instant,
    reply: oneshot::Sender<Result<FromStore, LinkError>>,
}

#[derive(Default)]
struct State {
    connected: bool,
    outbox: Vec<u8>,
    next_request: u64,
    /// By number, which is by age too.
    pending: BTreeMap<u64, Pending>,
    reports: VecDeque<Report>,
    reported: u64,
    draining: bool,
}

/// The link, shared by everything in this process.
pub struct Link {
    state: RefCell<State>,
    wake: Notify,
    instance: u64,
    calls_max: u16,
}

/// What the store wants done.
pub trait Work {
    /// Make this call.
    fn lease(&self, lease: Lease);
    /// Ask this processor for its health.
    fn health(&self, processor: Processor);
    /// What is out.
    fn attempts(&self) -> &Attempts;
}

impl Link {
    /// A link that is not yet connected. `instance` tells this process from every other.
    #[must_use]
    pub fn new(instance: u64, calls_max: u16) -> Self {
        Self {
            state: RefCell::default(),
            wake: Notify::new(),
            instance,
            calls_max,
        }
    }

    /// Asks the store.
    ///
    /// # Errors
    /// [`LinkError`] when it does not answer in time.
    pub async fn ask(&self, ask: Ask) -> Result<FromStore, LinkError> {
        let (reply, answered) = oneshot::channel();
        {
            let mut state = self.state.borrow_mut();
            if state.pending.len() >= PENDING_MAX {
                return Err(LinkError::NeverSent);
            }
            let request = state.next_request;
            state.next_request += 1;
            let sent = state.connected;
            if sent {
                ask.frame(request).encode(&mut state.outbox);
            }
            state.pending.insert(
                request,
                Pending {
                    ask,
                    sent,
                    deadline: Instant::now() + HOLD,
                    reply,
                },
            );
        }
        self.wake.notify_one();
        answered.await.unwrap_or(Err(LinkError::Unknown))
    }

    /// Tells the store what became of an attempt, sooner or later. `report` gets its sequence number here.
    pub fn report(&self, mut report: Report) {
        let mut state = self.state.borrow_mut();
        state.reported += 1;
        report.sequence = state.reported;
        state.reports.push_back(report);
        self.send(&mut state, &FromApi::Report(report));
    }

    /// Tells the store something that it can do without: lost when there is no store now.
    pub fn tell(&self, frame: &FromApi) {
        self.send(&mut self.state.borrow_mut(), frame);
    }

    fn send(&self, state: &mut State, frame: &FromApi) {
        if state.connected {
            frame.encode(&mut state.outbox);
            self.wake.notify_one();
        }
    }

    /// Asks for no more leases, now and of every later store.
    pub fn drain(&self) {
        self.state.borrow_mut().draining = true;
        self.tell(&FromApi::Drain);
    }

    /// True while a store has welcomed us.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state.borrow().connected
    }

    /// True when every report is acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state.borrow().reports.is_empty()
    }

    /// Keeps the link up for ever.
    pub async fn run(&self, path: PathBuf, work: Rc<dyn Work>) {
        let mut was_told = false;
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => {
                    let ended = self.session(&stream, &*work).await;
                    was_told = false;
                    self.lose();
                    tracing::warn!("lost the store: {ended}");
                }
                Err(error) if !was_told => {
                    was_told = true;
                    tracing::warn!("no store at {}: {error}; trying on", path.display());
                }
                Err(_) => (),
            }
            self.expire();
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Talks to one store until it is gone, and tells why.
    async fn session(&self, stream: &UnixStream, work: &dyn Work) -> io::Error {
        let mut session = Session {
            stream,
            rx: Vec::new(),
            welcomed: false,
        };
        self.greet(work);
        let mut heartbeat_at = Instant::now() + HEARTBEAT;
        let mut tick = std::pin::pin!(sleep_until(heartbeat_at));
        loop {
            let interest = match session.write(&mut self.state.borrow_mut().outbox) {
                Ok(true) => Interest::READABLE,
                Ok(false) => Interest::READABLE | Interest::WRITABLE,
                Err(error) => return error,
            };
            let soon = Instant::now() + TICK;
            if !self.state.borrow().pending.is_empty() && tick.deadline() > soon {
                tick.as_mut().reset(soon);
            }
            tokio::select! {
                biased;
                ready = stream.ready(interest) => {
                    let read = ready.and_then(|ready| {
                        if ready.is_readable() { self.read(&mut session, work) } else { Ok(()) }
                    });
                    if let Err(error) = read {
                        return error;
                    }
                }
                () = self.wake.notified() => (),
                () = &mut tick => {
                    self.expire();
                    if Instant::now() >= heartbeat_at {
                        heartbeat_at = Instant::now() + HEARTBEAT;
                        work.attempts().sweep(self);
                        self.tell(&FromApi::Heartbeat);
                    }
                    tick.as_mut().reset(heartbeat_at);
                }
            }
        }
    }

    /// Puts all that a new store must know into the outbox, hello first.
    fn greet(&self, work: &dyn Work) {
        let mut state = self.state.borrow_mut();
        let State {
            outbox,
            pending,
            reports,
            draining,
            connected,
            ..
        } = &mut *state;
        outbox.clear();
        let held = work.attempts().held();
        assert!(
            held.len() <= HELD_ATTEMPTS_MAX,
            "calls_max and the pool of overdue calls bound what is out"
        );
        FromApi::Hello {
            instance: self.instance,
            calls_max: self.calls_max,
            held,
        }
        .encode(outbox);
        if *draining {
            FromApi::Drain.encode(outbox);
        }
        for report in reports.iter() {
            FromApi::Report(*report).encode(outbox);
        }
        for (request, pending) in pending.iter_mut() {
            pending.ask.frame(*request).encode(outbox);
            pending.sent = true;
        }
        *connected = true;
    }

    /// The store is gone: what cannot be repeated is over, the rest waits for the next one.
    fn lose(&self) {
        let mut state = self.state.borrow_mut();
        state.connected = false;
        state.outbox.clear();
        let lost = state
            .pending
            .extract_if(.., |_, pending| pending.sent && !pending.ask.is_repeatable());
        for (_, pending) in lost {
            let _ = pending.reply.send(Err(LinkError::Unknown));
        }
    }

    /// Gives up on requests that have waited for too long. Their numbers are in the order of their deadlines.
    fn expire(&self) {
        let mut state = self.state.borrow_mut();
        let now = Instant::now();
        while let Some(oldest) = state
            .pending
            .first_entry()
            .filter(|oldest| oldest.get().deadline <= now)
        {
            let pending = oldest.remove();
            let error = if pending.sent {
                LinkError::Unknown
            } else {
                LinkError::NeverSent
            };
            // The client may have gone meanwhile.
            let _ = pending.reply.send(Err(error));
        }
    }

    fn read(&self, session: &mut Session<'_>, work: &dyn Work) -> io::Result<()> {
        session.fill()?;
        let mut used = 0;
        loop {
            match frame::decode::<FromStore>(&session.rx[used..]) {
                Ok(Some((message, bytes))) => {
                    used += bytes;
                    self.take(message, session, work);
                }
                Ok(None) => break,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        session.rx.drain(..used);
        Ok(())
    }

    fn take(&self, message: FromStore, session: &mut Session<'_>, work: &dyn Work) {
        match message {
            FromStore::Welcome => {
                session.welcomed = true;
                tracing::info!("joined the store");
            }
            FromStore::Accepted { request, .. }
            | FromStore::Summary { request, .. }
            | FromStore::Purged { request }
            | FromStore::Metrics { request, .. } => {
                if let Some(pending) = self.state.borrow_mut().pending.remove(&request) {
                    // The client may have gone meanwhile.
                    let _ = pending.reply.send(Ok(message));
                }
            }
            FromStore::Lease(lease) => work.lease(lease),
            FromStore::HealthLease { processor } => work.health(processor),
            FromStore::Acknowledge { sequence } => {
                let reports = &mut self.state.borrow_mut().reports;
                let done = reports.partition_point(|report| report.sequence <= sequence);
                reports.drain(..done);
            }
        }
    }
}

/// The bytes of one connection.
struct Session<'a> {
    stream: &'a UnixStream,
    rx: Vec<u8>,
    welcomed: bool,
}

impl Session<'_> {
    /// Reads once.
    fn fill(&mut self) -> io::Result<()> {
        self.rx.reserve(FRAME_BYTES_MAX);
        match self.stream.try_read_buf(&mut self.rx) {
            Ok(0) if self.welcomed => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it hung up at hello; are both of one version?",
            )),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes what it can. True when nothing is left.
    fn write(&self, outbox: &mut Vec<u8>) -> io::Result<bool> {
        while !outbox.is_empty() {
            match self.stream.try_write(outbox) {
                Ok(written) => {
                    outbox.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
