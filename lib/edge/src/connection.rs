//! One connection: what it is doing, what has come of it, and whose it is.
//!
//! It is *at rest* when every answer is written whole and no process has read a byte of the next request: another process can
//! have it then.
//!
//! A client that lb has handed off ([`crate::handoff`]) is only looked at while its request is read and decided, so
//! that the whole request is still in the socket if this process dies. Right before the first byte of an answer is written
//! its word says that it is consumed: an answer that may be given twice would put every later one in the wrong place. Its
//! bytes are taken out after the answer, so that nothing is between the word and the write. What must not be decided twice
//! is consumed and taken out before that.

use crate::budget::Share;
use crate::handoff::Place;
use crate::request::{Complete, Next, Reader, Refused};
use crate::stream::Stream;
use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, Waker, ready};
use tokio::time::Instant;

/// One look at a connection, and what is looked at without being taken: more than the longest request that is answered
/// with anything but a refusal and does not come in chunks (a request line of 2 KiB, 8 KiB of fields, a body of 4 KiB).
const LOOK_BYTES: usize = 16 * 1024;

const _: () = assert!(
    crate::limits::REQUEST_LINE_BYTES_MAX + crate::limits::HEAD_BYTES_MAX + crate::limits::BODY_BYTES_MAX
        < LOOK_BYTES
);

/// What a connection is doing, for the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests.
    Idle,
    /// A request has begun and is not complete.
    Receiving,
    /// Its handler works.
    Handling,
    /// Its answer does not go out at once.
    Answering,
}

/// When a connection is looked at next, and which one it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Check {
    /// Milliseconds since the edge began.
    pub(crate) at_ms: u64,
    pub(crate) number: u64,
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    GoOn,
    /// Come to rest, for another process.
    Release,
    /// Answer what has begun, then close.
    Drain,
    /// Close.
    End,
}

impl Order {
    /// The same where no process can take the connection.
    pub(crate) fn without_release(self) -> Self {
        if self == Self::Release { Self::Drain } else { self }
    }
}

/// What a connection brings.
pub(crate) enum Event {
    Request(Box<Complete>),
    Refused(Refused),
    /// The client waits for a word before it sends its body.
    Continue,
    /// It has said all, and whether in the middle of a request.
    Over(bool),
}

/// What the edge knows of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) check: Cell<Check>,
    /// Of the bytes that the process holds for its clients.
    pub(crate) share: Cell<Share>,
    place: Option<Place>,
    reader: RefCell<Reader>,
    /// Of an answer that has no room in the socket.
    unsent: RefCell<Option<Box<Unsent>>>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    order: Cell<Order>,
    /// The order is to be looked at.
    is_ordered: Cell<bool>,
    /// Of the task that serves it: smaller than what a channel or a notification keeps for each that waits.
    waker: RefCell<Option<Waker>>,
    /// The last so many bytes that have come were only looked at.
    untaken: Cell<usize>,
    is_consumed: Cell<bool>,
    is_over: Cell<bool>,
    is_fresh: Cell<bool>,
    /// The request at hand ends with its client's connection.
    is_for_present_client: Cell<bool>,
    /// What was held of it is forgotten, and nothing that comes of it is read any more.
    is_dropped: Cell<bool>,
}

/// Bytes of an answer, and how many of them are written.
#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    written: usize,
}

impl Connection {
    pub(crate) fn new(stream: Stream, place: Option<Place>) -> Self {
        Self {
            stream,
            check: Cell::default(),
            share: Cell::default(),
            place,
            reader: RefCell::default(),
            unsent: RefCell::default(),
            phase: Cell::new(Phase::Idle),
            since: Cell::new(Instant::now()),
            order: Cell::new(Order::GoOn),
            is_ordered: Cell::new(false),
            waker: RefCell::default(),
            untaken: Cell::new(0),
            is_consumed: Cell::new(false),
            is_over: Cell::new(false),
            is_fresh: Cell::new(true),
            is_for_present_client: Cell::new(false),
            is_dropped: Cell::new(false),
        }
    }

    // What it is told.

    pub(crate) fn order(&self, order: Order) {
        // Nothing can be made of a connection any more that was told to end.
        if self.order.get() != Order::End {
            self.order.set(order);
        }
        self.is_ordered.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn poll_ordered(&self, cx: &mut Context<'_>) -> Poll<Order> {
        if self.is_ordered.take() {
            return Poll::Ready(self.order.get());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Looks at the order once more: it may have come while nothing could be done about it.
    pub(crate) fn recall_order(&self) {
        self.is_ordered.set(self.order.get() != Order::GoOn);
    }

    pub(crate) fn current_order(&self) -> Order {
        self.order.get()
    }

    // What is held of it.

    /// Bytes of memory for what has come of it and for what its client does not read.
    pub(crate) fn memory(&self) -> usize {
        let unsent = self.unsent.borrow().as_ref().map_or(0, |unsent| unsent.bytes.capacity());
        self.reader.borrow().memory() + unsent
    }

    /// Forgets what was held of it, at once. Nothing that comes of it is read as a request any more.
    pub(crate) fn drop_held(&self) {
        self.is_dropped.set(true);
        self.reader.take();
        self.unsent.take();
    }

    // Ownership.

    pub(crate) fn is_handed_off(&self) -> bool {
        self.place.is_some()
    }

    /// An api that has ended may have asked the store for the request at hand.
    pub(crate) fn is_bereft(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_bereft)
    }

    /// It can go back to where it came from.
    pub(crate) fn has_balancer(&self) -> bool {
        self.place.as_ref().is_some_and(Place::has_balancer)
    }

    /// No request of it has come, and one may be on its way.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh.get() && self.phase.get() == Phase::Idle
    }

    /// More has come than the request at hand.
    pub(crate) fn has_more(&self) -> bool {
        self.reader.borrow().has_begun()
    }

    /// Another process can have it: it is at rest, or only looked at, and no handler works on an answer.
    pub(crate) fn is_releasable(&self) -> bool {
        match self.phase.get() {
            Phase::Idle | Phase::Receiving if self.is_handed_off() => !self.is_consumed.get(),
            Phase::Idle => self.reader.borrow().held_len() == 0,
            _ => false,
        }
    }

    /// Makes sure that it is ours, and that no other process goes on with it when we end. False when it is another
    /// process's.
    pub(crate) fn claim(&self) -> bool {
        if let Some(place) = &self.place
            && !self.is_consumed.get()
        {
            self.is_consumed.set(place.consume());
            return self.is_consumed.get();
        }
        true
    }

    /// Takes what belongs to the request at hand out of the socket, for good; the next one begins behind all that has
    /// come but the last `rest` bytes.
    fn take(&self, rest: usize) -> io::Result<()> {
        if !self.claim() {
            return Err(io::Error::other("the client is another process's"));
        }
        let untaken = self.untaken.get();
        self.untaken.set(untaken.min(rest));
        self.stream.take(untaken.saturating_sub(rest))
    }

    /// Takes a whole request out of the socket, for good.
    ///
    /// # Errors
    /// When the client is another process's by now, or gone.
    pub(crate) fn consume(&self) -> io::Result<()> {
        let rest = self.reader.borrow().held_len();
        self.take(rest)
    }

    /// Takes everything out that has come.
    ///
    /// # Errors
    /// As [`Self::consume`].
    pub(crate) fn consume_all(&self) -> io::Result<()> {
        self.take(0)
    }

    /// Closes it, unless it is another process's.
    pub(crate) fn close(self) {
        if self.claim() {
            self.into_stream().close();
        }
    }

    /// Tells lb to forget one that is [claimed](Self::claim). It ends with us from here on: a client that sees its end finds room
    /// for the next connection, and if this process dies the kernel closes it.
    pub(crate) fn forget(&self) {
        if let Some(place) = &self.place {
            place.end();
        }
    }

    /// Leaves one that is [claimed](Self::claim) to the caller, which ends it.
    pub(crate) fn into_stream(self) -> Stream {
        self.forget();
        self.stream
    }

    /// Leaves it to another process; one that lb has handed off goes back to lb.
    pub(crate) fn release(self) -> Option<Stream> {
        let Some(place) = self.place else { return Some(self.stream) };
        // Before another process watches it: our registration would outlive our descriptor.
        drop(self.stream);
        place.release();
        None
    }

    // The course of a request.

    pub(crate) fn phase_since(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    /// Its request goes to a handler, which may take its time.
    pub(crate) fn on_request(&self) {
        self.is_fresh.set(false);
        self.phase.set(Phase::Handling);
    }

    /// Writes an answer, or a word before it, as far as there is room for it. True when that is all of it; else the rest
    /// is kept for [`Self::poll_write`].
    ///
    /// # Errors
    /// When the connection is broken.
    pub(crate) fn begin_write(&self, bytes: &[u8]) -> io::Result<bool> {
        let written = self.stream.try_write(bytes)?;
        if written == bytes.len() {
            return Ok(true);
        }
        self.enter(Phase::Answering);
        self.unsent.replace(Some(Box::new(Unsent { bytes: bytes[written..].to_vec(), written: 0 })));
        Ok(false)
    }

    /// Writes the rest of it, as its client reads.
    ///
    /// # Errors
    /// When the connection is broken, or [dropped](Self::drop_held).
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.is_dropped.get() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let mut unsent = self.unsent.borrow_mut();
            let Some(rest) = unsent.as_mut() else { return Poll::Ready(Ok(())) };
            match self.stream.try_write(&rest.bytes[rest.written..])? {
                0 => ready!(self.stream.poll_room(cx))?,
                written => {
                    rest.written += written;
                    // Its time is that without progress.
                    self.enter(Phase::Answering);
                }
            }
            if rest.written == rest.bytes.len() {
                *unsent = None;
            }
        }
    }

    /// The request at hand is carried out only while its client is there. False when it has left already.
    pub(crate) fn wait_for_client(&self) -> bool {
        self.is_for_present_client.set(true);
        !self.stream.has_left()
    }

    /// True once the client has left whose request is only carried out while it is there.
    pub(crate) fn is_abandoned(&self, cx: &mut Context<'_>) -> bool {
        // What is readable, the end included, wakes the task again.
        self.is_for_present_client.get() && self.stream.poll_readable(cx).is_ready() && self.stream.has_left()
    }

    /// The answer is in the socket, whole.
    pub(crate) fn on_answer(&self) {
        self.is_for_present_client.set(false);
        self.enter(if self.has_more() { Phase::Receiving } else { Phase::Idle });
        if let Some(place) = &self.place {
            // It can only be ours still: lb gives no api a client whose bytes are taken.
            self.is_consumed.set(!place.rest());
        }
    }

    /// The client has been told to go on with its request, for which it has no more time than others.
    pub(crate) fn on_continue(&self) {
        self.phase.set(Phase::Receiving);
    }

    /// What comes next.
    ///
    /// # Errors
    /// When the connection is broken, or another process's.
    pub(crate) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        loop {
            if self.is_dropped.get() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let next = self.reader.borrow_mut().next();
            match next {
                Ok(Next::Complete(whole)) => return Poll::Ready(Ok(Event::Request(whole))),
                Err(refused) => return Poll::Ready(Ok(Event::Refused(refused))),
                Ok(Next::More | Next::Continue) => (),
            }
            let has_begun = self.has_more();
            if has_begun && self.phase.get() == Phase::Idle {
                self.enter(Phase::Receiving);
            }
            if matches!(next, Ok(Next::Continue)) {
                return Poll::Ready(Ok(Event::Continue));
            }
            if self.is_over.get() {
                return Poll::Ready(Ok(Event::Over(has_begun)));
            }
            ready!(self.poll_fetch(cx))?;
        }
    }

    /// Looks at, or reads, what has come. Pending when there is nothing new.
    fn poll_fetch(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_look = self.is_handed_off();
        let mut block = [MaybeUninit::uninit(); LOOK_BYTES];
        loop {
            ready!(self.stream.poll_readable(cx))?;
            let known = self.untaken.get();
            match self.stream.read(&mut block, is_look) {
                Ok(len) if len > known => {
                    // SAFETY: the kernel has written the first `len` bytes.
                    let bytes = unsafe { block[known..len].assume_init_ref() };
                    self.reader.borrow_mut().push(bytes);
                    if is_look {
                        self.untaken.set(len);
                    }
                    return Poll::Ready(Ok(()));
                }
                Ok(0) => {
                    self.is_over.set(true);
                    return Poll::Ready(Ok(()));
                }
                // A look shows nothing beyond what is known, and all of that is of one request.
                Ok(LOOK_BYTES) => self.consume_all()?,
                // Another process has taken some of it: it is that one's client.
                Ok(len) if len < known => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                // Nothing new was seen: the wake-up meant something else, such as the end behind the bytes that are there.
                Ok(_) => {
                    if self.stream.is_half_closed(cx) {
                        self.is_over.set(true);
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
