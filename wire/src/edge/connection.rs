//! One connection: what it is doing, and the parser's view of it.
//!
//! The parser reads through [`Io`], which lends it what has come (see [`super::intake`]) and knows from that when the
//! connection is *at rest*: every answer is written whole, and nothing of the next request is held by anybody. At rest a
//! connection needs no parser, and another process can have it.
//!
//! A client that lb has handed off ([`crate::handoff`]) is only looked at while its request is read and decided, so
//! that the whole request is still in the socket if this process dies. Its bytes are taken out, and its word says so,
//! right before the first byte of an answer is written: an answer that may be given twice would put every later one in
//! the wrong place. What must not be decided twice is taken out before that.

use super::intake::Intake;
use super::stream::Stream;
use crate::handoff::Place;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::time::Instant;

/// One look at a connection, and what is looked at without being taken: more than the longest request that is answered
/// with anything but a refusal (a request line of 2 KiB, 8 KiB of fields, a body of 4 KiB).
const LOOK_BYTES: usize = 16 * 1024;

const _: () =
    assert!(super::REQUEST_LINE_BYTES_MAX + super::HEAD_BYTES_MAX + super::BODY_BYTES_MAX < LOOK_BYTES);

/// What a connection is doing, for the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    /// A request has begun and is not complete.
    Receiving,
    /// Its handler works.
    Handling,
    /// Its answer is being written.
    Answering,
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    GoOn,
    /// Give up the parser, if nothing is going on.
    Park,
    /// Come to rest, for another process.
    Release,
    /// Answer what has begun, then close.
    Drain,
    /// Close.
    End,
}

/// What the edge knows of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    place: Option<Place>,
    intake: RefCell<Intake>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    order: Cell<Order>,
    /// The order is to be looked at.
    is_ordered: Cell<bool>,
    /// Of the task that serves it: smaller than what a channel or a notification keeps for each that waits.
    waker: RefCell<Option<Waker>>,
    /// Bytes that the parser has, or waits for, and that are still in the socket.
    untaken: Cell<usize>,
    is_consumed: Cell<bool>,
    /// The parser has the whole answer to the request, and it is not written yet.
    has_answer: Cell<bool>,
    /// It ends after this answer.
    is_last: Cell<bool>,
    /// The parser would have read on before the answer was written.
    is_wanted: Cell<bool>,
    is_over: Cell<bool>,
    pub(super) has_parser: Cell<bool>,
}

impl Connection {
    pub(super) fn new(stream: Stream, place: Option<Place>, order: Order) -> Self {
        Self {
            stream,
            place,
            intake: RefCell::new(Intake::new()),
            phase: Cell::new(Phase::Idle),
            since: Cell::new(Instant::now()),
            order: Cell::new(order),
            is_ordered: Cell::new(false),
            waker: RefCell::default(),
            untaken: Cell::new(0),
            is_consumed: Cell::new(false),
            has_answer: Cell::new(false),
            is_last: Cell::new(false),
            is_wanted: Cell::new(false),
            is_over: Cell::new(false),
            has_parser: Cell::new(false),
        }
    }

    // What is asked of it.

    pub(super) fn phase_since(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    pub(super) fn is_handed_off(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn order(&self, order: Order) {
        self.order.set(order);
        self.remind();
    }

    /// Lets the task look at its order once more.
    fn remind(&self) {
        self.is_ordered.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn poll_ordered(&self, cx: &mut Context<'_>) -> Poll<Order> {
        if self.is_ordered.take() {
            return Poll::Ready(self.order.get());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn current_order(&self) -> Order {
        self.order.get()
    }

    /// Nobody holds a byte of it: the parser can go.
    pub(super) fn is_at_rest(&self) -> bool {
        let intake = self.intake.borrow();
        self.phase.get() == Phase::Idle && intake.is_at_rest() && intake.waiting_len() == 0
    }

    /// Ready when there is work for a parser: a whole request, as far as can be seen, or an end.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn poll_begin(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_over.get() && !self.intake.borrow().is_worth_parsing() {
            ready!(self.poll_fetch(cx))?;
            if self.phase.get() == Phase::Idle && !self.is_over.get() {
                self.enter(Phase::Receiving);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Another process can have it: it is at rest, or only looked at, and nobody works on an answer.
    pub(super) fn is_releasable(&self) -> bool {
        let is_only_looked_at = self.place.is_some() && !self.is_consumed.get();
        self.is_at_rest() || is_only_looked_at && matches!(self.phase.get(), Phase::Idle | Phase::Receiving)
    }

    /// False when it is not known whether the parser holds a part of the next request: it stays here to its end.
    pub(super) fn is_sure(&self) -> bool {
        self.intake.borrow().is_sure()
    }

    /// Closes it, unless it is another process's.
    pub(super) fn close(self) {
        if self.claim() {
            self.stream.close();
        }
    }

    /// Makes sure that it is ours, and that nobody else goes on with it when we end. False when it is another process's.
    pub(super) fn claim(&self) -> bool {
        if let Some(place) = &self.place
            && !self.is_consumed.get()
        {
            self.is_consumed.set(place.consume());
            return self.is_consumed.get();
        }
        true
    }

    /// What comes next comes into a new one.
    pub(super) fn forget_buffer(&self) {
        self.intake.replace(Intake::new());
    }

    pub(super) fn go_on(&self) {
        self.order.set(Order::GoOn);
    }

    /// Ends our part in it without ending the connection.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// The same; one that lb has handed off goes back to it.
    pub(super) fn release(self) -> Option<Stream> {
        let Some(place) = self.place else { return Some(self.stream) };
        // Before anybody else watches it: our registration would outlive our descriptor.
        drop(self.stream);
        place.release();
        None
    }

    // The course of a request.

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    /// The parser has found a head; `is_last` when its client wants a close after the answer.
    pub(super) fn on_head(&self, body_bytes: Option<u64>, is_last: bool) {
        self.intake.borrow_mut().on_head(body_bytes);
        self.is_last.set(is_last);
    }

    /// The request is complete and goes to its handler.
    pub(super) fn on_request(&self) {
        self.intake.borrow_mut().on_request();
        self.enter(Phase::Handling);
    }

    /// The parser gets the answer with the next step.
    pub(super) fn on_reply(&self, is_last: bool) {
        self.intake.borrow_mut().on_request();
        self.is_last.set(self.is_last.get() || is_last);
        self.has_answer.set(true);
        self.enter(Phase::Answering);
    }

    /// Takes the bytes of this request out of the socket, for good.
    ///
    /// # Errors
    /// When the client is another process's by now, or gone.
    pub(super) fn consume(&self) -> io::Result<()> {
        if !self.claim() {
            return Err(io::Error::other("the client is another process's"));
        }
        self.stream.take(self.untaken.take())
    }

    /// The answer is in the socket, whole.
    fn on_answer(&self, cx: &Context<'_>) {
        let waiting_len = {
            let mut intake = self.intake.borrow_mut();
            intake.on_answer();
            intake.waiting_len()
        };
        let is_sure = self.is_sure();
        if is_sure || self.phase.get() == Phase::Answering {
            self.enter(if is_sure && waiting_len == 0 { Phase::Idle } else { Phase::Receiving });
        }
        if is_sure && !self.is_last.get() {
            if let Some(place) = &self.place
                && self.is_consumed.get()
            {
                // It can only be ours still: lb gives nobody a client whose bytes are taken.
                self.is_consumed.set(!place.rest());
            }
            if self.order.get() != Order::GoOn {
                self.remind();
            }
        }
        if self.is_wanted.take() {
            cx.waker().wake_by_ref();
        }
    }

    /// Looks at, or reads, what has come. Pending when there is nothing new.
    fn poll_fetch(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_look = self.place.is_some();
        let mut block = [MaybeUninit::uninit(); LOOK_BYTES];
        loop {
            ready!(self.stream.poll_readable(cx))?;
            let known = if is_look { self.untaken.get() + self.intake.borrow().waiting_len() } else { 0 };
            match self.stream.read(&mut block, is_look) {
                Ok(len) if len > known => {
                    // SAFETY: the kernel has written the first `len` bytes.
                    let bytes = unsafe { block[known..len].assume_init_ref() };
                    self.intake.borrow_mut().push(bytes);
                    return Poll::Ready(Ok(()));
                }
                Ok(0) => {
                    self.is_over.set(true);
                    return Poll::Ready(Ok(()));
                }
                // A look is full of what was lent already: a request longer than any that is answered well.
                Ok(LOOK_BYTES) => self.consume()?,
                // Another process has taken some of it: it is that one's client.
                Ok(len) if len < known => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                // Nothing new was seen: whoever woke us meant something else, such as the end behind what is there.
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

/// The parser's view of a connection. The connection stays ours, so that a close can linger after the parser is done
/// with it.
pub(super) struct Io(pub(super) Rc<Connection>);

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = &*self.0;
        loop {
            let lent = connection.intake.borrow_mut().lend(out.remaining(), |bytes| out.put_slice(bytes));
            if lent > 0 {
                if connection.place.is_some() {
                    connection.untaken.set(connection.untaken.get() + lent);
                }
                if connection.phase.get() == Phase::Idle {
                    connection.enter(Phase::Receiving);
                }
                return Poll::Ready(Ok(()));
            }
            if connection.is_over.get() {
                return Poll::Ready(Ok(()));
            }
            if connection.intake.borrow().is_complete() {
                // The next request is not looked at before this one is answered. Whoever wakes the parser then is the
                // socket, or, if that has something already, the end of the answer.
                if connection.stream.poll_readable(cx).is_ready() {
                    connection.is_wanted.set(true);
                }
                return Poll::Pending;
            }
            ready!(connection.poll_fetch(cx))?;
        }
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.consume()?;
        self.0.stream.poll_write(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The parser calls this once it has nothing left to write; it gets an answer and writes it in one step, so what
    /// was written is never a part of one.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.has_answer.take() {
            self.0.on_answer(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.stream.end_writing())
    }
}
