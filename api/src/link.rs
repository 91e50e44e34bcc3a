//! The connection to the store: moves the bytes of the [`Desk`], wakes the task that waits for a reply, starts the calls that the
//! store leases. One task owns the socket. Everything that is asked for while it runs goes out with its next write, so
//! that many requests share one system call.

use crate::desk::{Ask, Desk, Taken};
use edge::SendError;
use edge::unix::UnixStream;
use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use wire::Processor;
use wire::frame::{AttemptId, FRAME_BYTES_MAX, Frames, FromApi, FromStore, Lease};
use wire::time::monotonic_us;

/// How finely deadlines are watched: a request is held at most this much longer than it should.
const TICK: Duration = Duration::from_millis(50);

/// The store takes three seconds of silence for death (docs/money.md).
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Between two tries to reach a store.
const RECONNECT: Duration = Duration::from_millis(20);

/// What the store wants done.
pub trait Work {
    /// Make this call.
    fn call(&self, lease: Lease);
    /// Close this call: it is given up.
    fn close(&self, attempt: AttemptId);
    /// Ask this processor for its health.
    fn health(&self, processor: Processor);
}

type Reply = Result<FromStore, SendError>;

/// The link, shared by everything in this process.
pub struct Link {
    desk: RefCell<Desk>,
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<Reply>>>,
    wake: Notify,
}

impl Link {
    /// A link that is not yet connected.
    #[must_use]
    pub fn new(desk: Desk) -> Self {
        Self { desk: RefCell::new(desk), waiting: RefCell::default(), wake: Notify::new() }
    }

    /// Asks the store.
    ///
    /// # Errors
    /// [`SendError`] when it does not answer in time.
    pub async fn ask(&self, ask: Ask) -> Reply {
        let (reply, answered) = oneshot::channel();
        let Some(request) = self.desk.borrow_mut().ask(ask, monotonic_us()) else {
            return Err(SendError::NeverSent);
        };
        self.waiting.borrow_mut().insert(request, reply);
        self.wake.notify_one();
        // A purge whose client leaves is not asked for when the store comes back.
        let _withdrawal = (!ask.is_repeatable()).then(|| Withdrawal { link: self, request });
        answered.await.unwrap_or(Err(SendError::Unknown))
    }

    /// The desk, to say something to the store: it is said with the next write.
    pub fn desk(&self) -> RefMut<'_, Desk> {
        self.wake.notify_one();
        self.desk.borrow_mut()
    }

    /// True while there is a store that has welcomed this api.
    #[must_use]
    pub fn is_welcomed(&self) -> bool {
        self.desk.borrow().is_welcomed()
    }

    /// Posts that are out.
    #[must_use]
    pub fn calls_len(&self) -> usize {
        self.desk.borrow().calls_len()
    }

    /// True when no call is out and every report is acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.desk.borrow().is_settled()
    }

    /// Keeps the link up for ever.
    pub async fn run(&self, path: PathBuf, work: Rc<dyn Work>) {
        let mut was_told = false;
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => {
                    self.desk.borrow_mut().connect(monotonic_us());
                    let ended = self.session(&stream, &*work).await;
                    was_told = false;
                    let over = self.desk.borrow_mut().disconnect();
                    self.fail(over);
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
        let block = vec![0; FRAME_BYTES_MAX].into_boxed_slice();
        let mut session = Session { stream, frames: Frames::default(), block, welcomed: false };
        let mut heartbeat_at = Instant::now() + HEARTBEAT;
        let mut tick = pin!(sleep_until(heartbeat_at));
        loop {
            let is_written = match session.write(self.desk.borrow_mut().outbox()) {
                Ok(is_written) => is_written,
                Err(error) => return error,
            };
            let soon = Instant::now() + TICK;
            if self.desk.borrow().has_pending() && tick.deadline() > soon {
                tick.as_mut().reset(soon);
            }
            tokio::select! {
                biased;
                ready = stream.readable() => {
                    if let Err(error) = ready.and_then(|_| self.read(&mut session, work)) {
                        return error;
                    }
                }
                room = poll_fn(|cx| stream.poll_room(cx)), if !is_written => {
                    if let Err(error) = room {
                        return error;
                    }
                }
                () = self.wake.notified() => (),
                () = &mut tick => {
                    self.expire();
                    if Instant::now() >= heartbeat_at {
                        heartbeat_at = Instant::now() + HEARTBEAT;
                        self.beat(work);
                    }
                    tick.as_mut().reset(heartbeat_at);
                }
            }
        }
    }

    fn beat(&self, work: &dyn Work) {
        let mut desk = self.desk.borrow_mut();
        let given_up = desk.sweep(monotonic_us());
        desk.tell(&FromApi::Heartbeat);
        drop(desk);
        given_up.into_iter().for_each(|attempt| work.close(attempt));
    }

    fn expire(&self) {
        let over = self.desk.borrow_mut().expire(monotonic_us());
        self.fail(over);
    }

    fn fail(&self, over: Vec<(u64, SendError)>) {
        for (request, why) in over {
            self.answer(request, Err(why));
        }
    }

    fn answer(&self, request: u64, reply: Reply) {
        if let Some(waiting) = self.waiting.borrow_mut().remove(&request) {
            // The client may have gone meanwhile.
            let _ = waiting.send(reply);
        }
    }

    fn read(&self, session: &mut Session<'_>, work: &dyn Work) -> io::Result<()> {
        let read = session.fill()?;
        let now_us = monotonic_us();
        let Session { frames, block, welcomed, .. } = session;
        let each = |message| {
            if message == FromStore::Welcome {
                *welcomed = true;
                tracing::info!("joined the store");
            }
            let taken = self.desk.borrow_mut().take(message, now_us);
            match taken {
                Taken::Nothing => (),
                Taken::Reply(request, reply) => self.answer(request, Ok(reply)),
                Taken::Call(lease) => work.call(lease),
                Taken::Health(processor) => work.health(processor),
            }
        };
        frames.take(&block[..read], each).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Withdraws a request that waits for a store, at its end.
struct Withdrawal<'a> {
    link: &'a Link,
    request: u64,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        self.link.desk.borrow_mut().withdraw(self.request);
        self.link.waiting.borrow_mut().remove(&self.request);
    }
}

/// The bytes of one connection.
struct Session<'a> {
    stream: &'a UnixStream,
    frames: Frames,
    block: Box<[u8]>,
    welcomed: bool,
}

impl Session<'_> {
    /// Reads once, and tells how much.
    fn fill(&mut self) -> io::Result<usize> {
        match self.stream.try_read(&mut self.block) {
            Ok(0) if self.welcomed => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it hung up at hello; are both of one version?",
            )),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }

    /// Writes what it can. True when nothing is left.
    fn write(&self, outbox: &mut Vec<u8>) -> io::Result<bool> {
        let mut written = 0;
        let outcome = loop {
            if written == outbox.len() {
                break Ok(true);
            }
            match self.stream.try_write(&outbox[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        outbox.drain(..written);
        outcome
    }
}
