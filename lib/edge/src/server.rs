//! The HTTP server that lb and api share: one reader of requests, one set of limits, one form of answers. Both processes
//! therefore read the same bytes in the same way.
//!
//! [`Edge::serve`] serves one connection. It turns bytes into a plain [`Request`], calls a handler, and writes the
//! handler's plain [`Reply`]. httparse reads heads; [`crate::head`] and [`crate::chunks`] check routing and framing, and
//! [`crate::request`] joins the two. Those three are pure; [`crate::connection`] reads and writes.
//!
//! A connection allocates for a request only while it has one. An idle connection costs its socket and a few words. A
//! client that sends its request byte by byte costs the bytes that it has sent. The edge always knows how much of the next
//! request has arrived, so a connection can go to another process between any two requests.
//!
//! Timeouts cost nothing per request. A connection notes its phase and since when; the edge keeps connections in the order
//! of their next deadline, and [`Edge::keep_time`] looks at the first. It ends the connection or gives it a new place in
//! the order. A connection moves forward in that order only when its request has begun and is incomplete. So thousands of
//! slow clients end one by one. A closing answer is followed by a lingering close: shut down writing, read a little, then
//! close. To close with unread bytes would reset the connection and lose the answer.
//!
//! All bytes held for clients together have a limit ([`crate::budget`]): incomplete requests, requests in a handler, and
//! unread answers. At the limit, the edge ends the connections that have held bytes longest without completing a request
//! or reading an answer. A request that still finds no memory is refused with 503. A quarter of the limit is kept for
//! short requests that arrive alone, so that pipelining clients cannot use
//! it up. Bounds: [`crate::limits`].

use crate::budget::{Budget, Share};
use crate::connection::{Check, Connection, Event, Order, Phase};
use crate::handoff::Place;
use crate::head::NO_MEMORY;
use crate::limits::{
    ALONE_BYTES_MAX, ANSWERING_BYTES, FRESH_TIMEOUT, HELD_BYTES_MAX_DEFAULT, IDLE_TIMEOUT, LINGER_BYTES_MAX,
    LINGER_TIMEOUT, REQUEST_TIMEOUT, SWEEP_INTERVAL, SWEEP_LAG_MS, SWEEP_MAX, SWEEP_PAUSE, TURNED_AWAY_MAX,
    WRITE_TIMEOUT,
};
use crate::reply::{Reply, ReplyFor};
use crate::request::{Complete, Refused, Request};
use crate::stream::Stream;
use http::Method;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};
use wire::metrics::Snapshot;

/// What a client is told that waits for a word before it sends its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Takes a connection at rest.
type Heir = Box<dyn Fn(Stream)>;

/// All connections of a process.
pub struct Edge {
    /// In the order in which they are looked at next.
    connections: RefCell<BTreeMap<Check, Rc<Connection>>>,
    began: Instant,
    next: Cell<u64>,
    connections_max: usize,
    /// Bytes that are held for clients, and the connections that wait for theirs.
    budget: RefCell<Budget<Rc<Connection>>>,
    held_bytes_counts: Cell<HeldBytesCounts>,
    turned_away: Cell<usize>,
    last_order: Cell<Option<Last>>,
    /// The first request of a connection that has just been made may still be on its way, and is waited for.
    waits_for_fresh: Cell<bool>,
    heir: RefCell<Option<Heir>>,
    empty: Notify,
}

/// How a process ends its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// It answers what has begun and closes them; those that lb has handed off go back to it.
    Close,
    /// It answers what has begun and lets go of all of them.
    Release,
}

impl Last {
    fn order(self, connection: &Connection) -> Order {
        if self == Self::Release || connection.has_balancer() { Order::Release } else { Order::Drain }
    }
}

/// How a connection came to its end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is at rest, and for another process.
    Released,
    /// All is answered, and the client may still be writing.
    Answered,
    Ended,
    /// It was one too many.
    Refused,
}

/// What is to be done with a connection.
enum Step<W> {
    /// To be looked at once more.
    GoOn,
    /// A request, or what is none, is to be answered.
    Answer(W),
    /// It is over here.
    Over(Outcome),
}

/// What is known about bytes held for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBytes {
    /// Held now.
    pub now: usize,
    /// The most that were ever held.
    pub peak: usize,
    /// How many may be held.
    pub max: usize,
    /// Connections that were ended so that others have room.
    pub ended: u64,
    /// Requests that were refused because nothing could be ended.
    pub refused: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct HeldBytesCounts {
    ended: u64,
    refused: u64,
}

impl HeldBytes {
    /// Gives these numbers names. `labels` are on each of them.
    pub fn report(&self, snapshot: &mut Snapshot, labels: &[(&'static str, String)]) {
        let one = |value: u64| vec![(labels.to_vec(), value)];
        snapshot.counter(
            "held_bytes_ended",
            "Connections ended because too many bytes were held for clients",
            one(self.ended),
        );
        snapshot.counter(
            "held_bytes_refused",
            "Requests refused because too many bytes were held for clients",
            one(self.refused),
        );
        snapshot.gauge("held_bytes", "Bytes held for clients", one(self.now as u64));
        snapshot.gauge("held_bytes_peak", "The most bytes that were held for clients", one(self.peak as u64));
        snapshot.gauge("held_bytes_max", "Bytes that may be held for clients", one(self.max as u64));
    }
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many are served as may be.
    TooMany,
    /// No api is there to serve it.
    NoApi,
    /// No api is there to serve it, and an earlier one may have asked the store for its request.
    Unknown,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("connections", &self.len()).finish_non_exhaustive()
    }
}

impl Edge {
    /// An edge without connections.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self {
            connections: RefCell::default(),
            began: Instant::now(),
            next: Cell::new(0),
            connections_max,
            budget: RefCell::new(Budget::new(HELD_BYTES_MAX_DEFAULT)),
            held_bytes_counts: Cell::default(),
            turned_away: Cell::new(0),
            last_order: Cell::new(None),
            waits_for_fresh: Cell::new(false),
            heir: RefCell::default(),
            empty: Notify::new(),
        }
    }

    /// The same, with another bound of the bytes that are held for all clients together.
    #[must_use]
    pub fn with_held_bytes_max(self, bytes_max: usize) -> Self {
        self.budget.replace(Budget::new(bytes_max));
        self
    }

    /// Bytes held for clients.
    #[must_use]
    pub fn held_bytes(&self) -> HeldBytes {
        let budget = self.budget.borrow();
        let HeldBytesCounts { ended, refused } = self.held_bytes_counts.get();
        let (now, peak, max) = (budget.bytes(), budget.bytes_peak(), budget.bytes_max());
        HeldBytes { now, peak, max, ended, refused }
    }

    /// Connections that are served now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Those of them that lb has handed off.
    #[must_use]
    pub fn handed_off_len(&self) -> usize {
        self.connections.borrow().values().filter(|connection| connection.is_handed_off()).count()
    }

    /// Clients that are told now that they are not served.
    #[must_use]
    pub fn refusing_len(&self) -> usize {
        self.turned_away.get()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Serves a connection to its end, or until it is [released](Self::release); one with a `place`, which lb has handed
    /// off, goes back to lb then.
    pub fn serve<H, F>(
        self: &Rc<Self>,
        stream: Stream,
        place: Option<Place>,
        handler: H,
    ) -> impl Future<Output = ()> + use<H, F>
    where
        H: Fn(Request) -> F,
        F: Future<Output = Reply>,
    {
        // Made out here, so that they take no room in what the runtime keeps for every connection, and so that a drain
        // from now on waits for it.
        let connection = Rc::new(Connection::new(stream, place));
        let this = Rc::clone(self);
        let is_taken = self.enter(&connection);
        async move {
            let mut outcome = Outcome::Refused;
            if is_taken {
                outcome = this.drive(&connection, &handler).await;
                if outcome == Outcome::Answered && connection.claim() {
                    connection.drop_held();
                    this.give_back(&connection);
                    connection.forget();
                    Box::pin(linger(&connection.stream)).await;
                }
                this.leave(&connection);
            }
            let why = if connection.is_bereft() { Refusal::Unknown } else { Refusal::TooMany };
            if let Some(stream) = this.end(connection, outcome) {
                Box::pin(this.refuse(stream, why)).await;
            }
        }
    }

    /// Begins to serve a connection. False when there are too many.
    fn enter(&self, connection: &Rc<Connection>) -> bool {
        if let Some(last) = self.last_order.get() {
            connection.order(last.order(connection));
        }
        if self.len() >= self.connections_max && connection.current_order() == Order::GoOn {
            return false;
        }
        let number = self.next.get();
        self.next.set(number + 1);
        connection.check.set(Check { at_ms: 0, number });
        self.put(connection, Instant::now() + IDLE_TIMEOUT);
        true
    }

    /// Looks at a connection again at that time, and not before.
    fn put(&self, connection: &Rc<Connection>, at: Instant) {
        let mut connections = self.connections.borrow_mut();
        let before = connection.check.get();
        connections.remove(&before);
        let check = Check { at_ms: self.after_ms(at), ..before };
        connection.check.set(check);
        connections.insert(check, Rc::clone(connection));
    }

    /// The first whole millisecond after then.
    fn after_ms(&self, at: Instant) -> u64 {
        self.ms(at) + 1
    }

    /// Complete milliseconds from the beginning to then.
    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends a connection. One that was refused is not at its end yet.
    fn end(&self, connection: Rc<Connection>, outcome: Outcome) -> Option<Stream> {
        let connection = Rc::into_inner(connection).expect("its work is done");
        match outcome {
            Outcome::Released => match (connection.release(), &*self.heir.borrow()) {
                (Some(stream), Some(heir)) => heir(stream),
                (Some(stream), None) => stream.close(),
                (None, _) => (),
            },
            Outcome::Refused if connection.claim() => return Some(connection.into_stream()),
            _ => connection.close(),
        }
        None
    }

    fn leave(&self, connection: &Connection) {
        self.give_back(connection);
        self.connections.borrow_mut().remove(&connection.check.get());
        if self.is_empty() {
            self.empty.notify_waiters();
        }
    }

    async fn drive<H, F>(&self, connection: &Rc<Connection>, handler: &H) -> Outcome
    where
        H: Fn(Request) -> F,
        F: Future<Output = Reply>,
    {
        loop {
            // One poll of two things, which keeps nothing of its own while it waits; the work is on the heap, because most
            // connections are silent most of the time.
            let work = |event| Step::Answer(Box::pin(self.answer(connection, event, handler)));
            let step = poll_fn(|cx| {
                if let Poll::Ready(order) = connection.poll_ordered(cx) {
                    let is_bereft = connection.is_handed_off() && !connection.has_balancer();
                    return Poll::Ready(match if is_bereft { order.without_release() } else { order } {
                        Order::Release if connection.is_releasable() => Step::Over(Outcome::Released),
                        // It is told again once it is at rest.
                        Order::GoOn | Order::Release => Step::GoOn,
                        // What has come whole is answered.
                        Order::Drain => match connection.poll_event(cx) {
                            Poll::Ready(Ok(event @ Event::Request(_))) => work(event),
                            Poll::Pending if self.waits_for_fresh.get() && connection.is_fresh() => {
                                return connection.poll_ordered(cx).map(|_| Step::GoOn);
                            }
                            _ => Step::Over(Outcome::Answered),
                        },
                        Order::End => Step::Over(Outcome::Ended),
                    });
                }
                let event = connection.poll_event(cx);
                if event.is_pending() {
                    self.await_client(connection);
                }
                event.map(|event| match event {
                    Ok(Event::Over(true)) => Step::Over(Outcome::Answered),
                    Ok(Event::Over(false)) | Err(_) => Step::Over(Outcome::Ended),
                    Ok(event) => work(event),
                })
            });
            let mut work = match step.await {
                Step::GoOn => continue,
                Step::Over(outcome) => return outcome,
                Step::Answer(work) => work,
            };
            let outcome = poll_fn(|cx| match connection.poll_ordered(cx) {
                Poll::Ready(Order::End) => Poll::Ready(Some(Outcome::Ended)),
                _ if connection.is_abandoned(cx) => Poll::Ready(Some(Outcome::Ended)),
                // Whatever else it is told waits for the answer.
                _ => work.as_mut().poll(cx),
            });
            if let Some(outcome) = outcome.await {
                return outcome;
            }
            connection.recall_order();
        }
    }

    /// Nothing goes on before the client has sent more of its request or read more of its answer: sees to it that the
    /// connection is looked at in time, and that what is held of it meanwhile is counted.
    fn await_client(&self, connection: &Rc<Connection>) {
        let (phase, since) = connection.phase_since();
        let over_at = match phase {
            Phase::Receiving => Some(since + REQUEST_TIMEOUT),
            Phase::Answering => Some(since + WRITE_TIMEOUT),
            Phase::Idle | Phase::Handling => None,
        };
        if let Some(over_at) = over_at
            && self.after_ms(over_at) < connection.check.get().at_ms
        {
            self.put(connection, over_at);
        }
        match connection.memory() {
            0 => self.give_back(connection),
            bytes => {
                let mut budget = self.budget.borrow_mut();
                connection.share.set(budget.wait(connection.share.get(), bytes, || Rc::clone(connection)));
                let bound = budget.bound(true);
                drop(budget);
                self.make_room(bound);
                self.budget.borrow_mut().note_peak();
            }
        }
    }

    /// Counts a whole request, which its handler may have to copy once, and the handler itself. False when there is no
    /// memory for them, though all have gone that could; a short request that comes alone has a part of its own.
    fn admit(&self, connection: &Connection, whole: &Complete, handler_bytes: usize) -> bool {
        let bytes = 2 * whole.memory + handler_bytes + ANSWERING_BYTES + connection.memory();
        let share = self.budget.borrow_mut().hold(connection.share.get(), bytes);
        connection.share.set(share);
        let is_alone = connection.memory() == 0 && whole.memory <= ALONE_BYTES_MAX;
        let bound = self.budget.borrow().bound(is_alone);
        self.make_room(bound);
        let is_admitted = self.budget.borrow().bytes() <= bound;
        if !is_admitted {
            self.give_back(connection);
            let counts = self.held_bytes_counts.get();
            self.held_bytes_counts.set(HeldBytesCounts { refused: counts.refused + 1, ..counts });
        }
        self.budget.borrow_mut().note_peak();
        is_admitted
    }

    fn give_back(&self, connection: &Connection) {
        let share = connection.share.take();
        if share != Share::default() {
            self.budget.borrow_mut().give_back(share);
        }
    }

    /// Ends connections until the bytes that are held are at most so many, or no connection is left to go.
    fn make_room(&self, bound: usize) {
        while let Some(connection) = self.first_to_go(bound) {
            connection.drop_held();
            connection.order(Order::End);
            self.give_back(&connection);
            let counts = self.held_bytes_counts.get();
            self.held_bytes_counts.set(HeldBytesCounts { ended: counts.ended + 1, ..counts });
        }
    }

    fn first_to_go(&self, bound: usize) -> Option<Rc<Connection>> {
        self.budget.borrow().first_to_go(bound).map(Rc::clone)
    }

    /// Gets what has come answered. `None` when the connection goes on.
    async fn answer<H, F>(&self, connection: &Rc<Connection>, event: Event, handler: &H) -> Option<Outcome>
    where
        H: Fn(Request) -> F,
        F: Future<Output = Reply>,
    {
        let event = match event {
            Event::Request(whole) if !self.admit(connection, &whole, size_of::<F>()) => {
                let is_head = whole.request.method == Method::HEAD;
                Event::Refused(Refused { flaw: NO_MEMORY, is_head })
            }
            event => event,
        };
        let (reply, asker) = match event {
            Event::Continue => {
                let is_told =
                    connection.consume_all().is_ok() && self.write(connection, CONTINUE.into()).await.is_ok();
                connection.on_continue();
                return (!is_told).then_some(Outcome::Ended);
            }
            Event::Over(_) => return Some(Outcome::Ended),
            Event::Refused(Refused { flaw, is_head }) => {
                // Whatever comes behind it is no request.
                if connection.consume_all().is_err() {
                    return Some(Outcome::Ended);
                }
                let reply = flaw.reply();
                let denies = connection.is_bereft() && reply.denies_a_record();
                (
                    if denies { Reply::unknown().closing() } else { reply },
                    ReplyFor { is_head, is_http10: false },
                )
            }
            Event::Request(whole) => {
                let Complete { request, closes, is_http10, .. } = *whole;
                connection.on_request();
                // Many small requests of one client do not keep others waiting for long.
                consume_budget().await;
                // No answer goes to a client that is gone or another process's.
                if !request.is_repeatable() && connection.consume().is_err() {
                    return Some(Outcome::Ended);
                }
                let asker = ReplyFor { is_head: request.method == Method::HEAD, is_http10 };
                let records = request.method == Method::POST;
                let mut reply = if request.is_for_present_clients() && !connection.wait_for_client() {
                    Reply::unavailable(
                        "client_left",
                        "nothing was done; keep the connection open until the answer",
                    )
                    .closing()
                } else {
                    handler(request).await
                };
                if connection.is_bereft() && records && reply.denies_a_record() {
                    reply = Reply::unknown();
                }
                // What has come behind it is answered before the end.
                let is_drained = connection.current_order() == Order::Drain && !connection.has_more();
                reply.close |= closes || is_drained;
                (reply, asker)
            }
        };
        let closes = reply.close;
        let bytes = reply.encode(asker);
        drop(reply);
        // A crash between claim and write loses the answer, so there is not even a system
        // call between them. After both, the client has its answer before the reset.
        if !connection.claim()
            || self.write(connection, bytes.into()).await.is_err()
            || connection.consume().is_err()
        {
            return Some(Outcome::Ended);
        }
        if closes {
            return Some(Outcome::Answered);
        }
        connection.on_answer();
        None
    }

    /// Writes all of it, as fast as its client reads.
    async fn write(&self, connection: &Rc<Connection>, bytes: Cow<'static, [u8]>) -> io::Result<()> {
        if connection.begin_write(&bytes)? {
            return Ok(());
        }
        // Of them the connection has what is not written.
        drop(bytes);
        self.await_client(connection);
        poll_fn(|cx| connection.poll_write(cx)).await
    }

    /// Ends connections that have been receiving a request, or idle, for too long; for ever. What keeps
    /// a process from accepting must not keep it from this. In between it does `pause`, which returns after so long.
    pub async fn keep_time(&self, pause: impl AsyncFn(Duration)) {
        loop {
            pause(self.sweep()).await;
        }
    }

    /// Ends those that are over now, one or a few at a time. Tells when it wants to be called again.
    fn sweep(&self) -> Duration {
        let now = Instant::now();
        let first_ms = self.connections.borrow().first_key_value().map(|(check, _)| check.at_ms);
        let is_behind = first_ms.is_some_and(|at_ms| self.ms(now).saturating_sub(at_ms) > SWEEP_LAG_MS);
        for _ in 0..if is_behind { SWEEP_MAX } else { 1 } {
            let connection = match self.connections.borrow().first_key_value() {
                None => return SWEEP_INTERVAL,
                Some((check, connection)) => {
                    let left_ms = check.at_ms.saturating_sub(self.ms(now));
                    if left_ms > 0 {
                        return Duration::from_millis(left_ms).min(SWEEP_INTERVAL);
                    }
                    Rc::clone(connection)
                }
            };
            let (phase, since) = connection.phase_since();
            let over_at = match phase {
                Phase::Idle => since + IDLE_TIMEOUT,
                Phase::Receiving => since + REQUEST_TIMEOUT,
                Phase::Answering => since + WRITE_TIMEOUT,
                // Whatever comes then has its time from then on.
                Phase::Handling => now + IDLE_TIMEOUT,
            };
            let is_over = over_at <= now;
            if is_over {
                connection.order(Order::End);
            }
            // A connection that was told to end has gone by then.
            self.put(&connection, if is_over { now + SWEEP_INTERVAL } else { over_at });
        }
        SWEEP_PAUSE
    }

    /// Answers what has begun, closes what is idle, gives back to lb what it has handed off, and returns when no
    /// connection is left or `timeout` is over.
    pub async fn drain(&self, timeout: Duration) {
        self.end_all(Last::Close, timeout).await;
    }

    /// Answers what has begun and gives every connection at rest to `heir`, for another process; returns as
    /// [`Edge::drain`] does.
    pub async fn release(&self, timeout: Duration, heir: impl Fn(Stream) + 'static) {
        self.heir.replace(Some(Box::new(heir)));
        self.end_all(Last::Release, timeout).await;
        self.heir.take();
    }

    async fn end_all(&self, last: Last, limit: Duration) {
        let until = Instant::now() + limit;
        // The runtime looks once more at what has come.
        yield_now().await;
        self.last_order.set(Some(last));
        self.waits_for_fresh.set(true);
        self.order_all(last);
        if timeout(FRESH_TIMEOUT.min(limit), self.until_empty()).await.is_err() {
            self.waits_for_fresh.set(false);
            self.order_all(last);
            let _ = timeout_at(until, self.until_empty()).await;
        }
    }

    fn order_all(&self, last: Last) {
        for connection in self.connections.borrow().values() {
            connection.order(last.order(connection));
        }
    }

    async fn until_empty(&self) {
        let mut notified = pin!(self.empty.notified());
        notified.as_mut().enable();
        if !self.is_empty() {
            notified.await;
        }
    }

    /// Tells a client why it is not served, and closes.
    pub async fn refuse(&self, stream: Stream, why: Refusal) {
        if self.turned_away.get() < TURNED_AWAY_MAX {
            self.turned_away.set(self.turned_away.get() + 1);
            Box::pin(async {
                let _ = timeout(LINGER_TIMEOUT, stream.write_all(&why.answer())).await;
                linger(&stream).await;
            })
            .await;
            self.turned_away.set(self.turned_away.get() - 1);
        }
        stream.close();
    }
}

impl Refusal {
    fn answer(self) -> Vec<u8> {
        let reply = match self {
            Self::TooMany => Reply::unavailable("too_many_connections", "close a connection, then retry"),
            Self::NoApi => Reply::unavailable("no_api", "nothing was recorded; retry later"),
            Self::Unknown => Reply::unknown(),
        };
        reply.closing().encode(ReplyFor::default())
    }
}

/// Shuts down writing and reads until the client has seen it, so that its answer is not lost to a reset.
async fn linger(stream: &Stream) {
    if stream.end_writing().is_ok() {
        let _ = timeout(LINGER_TIMEOUT, stream.drain(LINGER_BYTES_MAX)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::{Page, Source, Ticket};
    use crate::unix::UnixStream;
    use std::io::{Read, Write};
    use tokio::time::sleep;

    #[tokio::test(flavor = "local")]
    async fn a_silent_connection_is_a_few_words() {
        let edge = Rc::new(Edge::new(1));
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let served = edge.serve(Stream::Unix(UnixStream::from_std(ours).unwrap()), None, ok);
        let len = size_of_val(&served) + size_of::<Connection>();
        assert!(len <= 352, "{len} bytes");
    }

    /// A connection to an edge over a socket, and the client's side of it.
    fn pair() -> (Stream, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::Unix(UnixStream::from_std(ours).unwrap()), theirs)
    }

    async fn ok(_: Request) -> Reply {
        Reply::empty(http::StatusCode::OK)
    }

    /// Clients that an edge serves.
    fn clients(edge: &Rc<Edge>, count: usize) -> Vec<std::os::unix::net::UnixStream> {
        let client = |_| {
            let (stream, client) = pair();
            tokio::task::spawn_local(edge.serve(stream, None, ok));
            client
        };
        (0..count).map(client).collect()
    }

    /// Sweeps as often as the edge wants it, for so long.
    async fn sweep_for(edge: &Edge, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let before = edge.len();
            let pause = edge.sweep();
            assert!(pause <= SWEEP_INTERVAL);
            yield_now().await;
            assert!(before - edge.len() <= SWEEP_MAX, "a pause for all others");
            let now = Instant::now();
            if now + pause >= until {
                return sleep(until - now).await;
            }
            sleep(pause).await;
        }
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn many_that_are_over_at_once_end_one_by_one_and_then_a_few_at_a_time() {
        const CONNECTIONS: usize = 10 * SWEEP_MAX + 1;
        let edge = Rc::new(Edge::new(CONNECTIONS));
        let _clients = clients(&edge, CONNECTIONS);
        yield_now().await;
        sweep_for(&edge, IDLE_TIMEOUT - SWEEP_PAUSE).await;
        assert_eq!(edge.len(), CONNECTIONS);
        sweep_for(&edge, Duration::from_millis(SWEEP_LAG_MS)).await;
        let ended = (CONNECTIONS - edge.len()) as u64;
        assert!((SWEEP_LAG_MS / 2..=SWEEP_LAG_MS).contains(&ended), "{ended} in {SWEEP_LAG_MS} ms");
        sweep_for(&edge, SWEEP_PAUSE * 20).await;
        assert!(edge.is_empty(), "{} are left", edge.len());
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn slow_clients_end_one_by_one_as_they_came() {
        const APART: Duration = Duration::from_millis(3);
        const SLOW: u32 = 100;
        let edge = Rc::new(Edge::new(1_000));
        // Those that are silent, and those that ask now and then, stay.
        let (_silent, mut asking) = (clients(&edge, 10), clients(&edge, 10));
        sweep_for(&edge, Duration::from_secs(1)).await;
        let mut slow = clients(&edge, SLOW as usize);
        for client in &mut slow {
            client.write_all(b"GET / HT").unwrap();
            sweep_for(&edge, APART).await;
        }
        for client in &mut asking {
            client.write_all(REQUEST).unwrap();
        }
        sweep_for(&edge, REQUEST_TIMEOUT - APART * SLOW).await;
        for count in (0..SLOW).rev() {
            sweep_for(&edge, APART).await;
            let left = edge.len() - 20;
            assert!(left.abs_diff(count as usize) <= 1, "{left} in the place of {count}");
        }
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_client_has_its_time_anew_after_each_answer() {
        let edge = Rc::new(Edge::new(1));
        let mut asking = clients(&edge, 1);
        for _ in 0..3 {
            sweep_for(&edge, IDLE_TIMEOUT - SWEEP_INTERVAL).await;
            let (first, second) = REQUEST.split_at(5);
            asking[0].write_all(first).unwrap();
            sweep_for(&edge, REQUEST_TIMEOUT - SWEEP_INTERVAL).await;
            asking[0].write_all(second).unwrap();
        }
        sweep_for(&edge, IDLE_TIMEOUT - SWEEP_INTERVAL).await;
        assert_eq!(edge.len(), 1);
        sweep_for(&edge, SWEEP_INTERVAL * 2).await;
        assert!(edge.is_empty());
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_handler_has_the_time_that_it_takes() {
        let edge = Rc::new(Edge::new(1));
        let (stream, mut client) = pair();
        client.write_all(REQUEST).unwrap();
        let handler = |request| async {
            sleep(IDLE_TIMEOUT * 3).await;
            ok(request).await
        };
        tokio::task::spawn_local(edge.serve(stream, None, handler));
        sweep_for(&edge, IDLE_TIMEOUT * 4 - SWEEP_INTERVAL).await;
        assert_eq!(edge.len(), 1);
        sweep_for(&edge, SWEEP_INTERVAL * 2).await;
        assert!(edge.is_empty());
    }

    /// Lets the edge do all that it can do about what has come.
    async fn settle() {
        for _ in 0..50 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// What has been answered on a connection so far, and whether it has ended.
    fn heard(client: &mut std::os::unix::net::UnixStream) -> (String, bool) {
        let (mut bytes, mut block) = (Vec::new(), [0; 65_536]);
        client.set_nonblocking(true).unwrap();
        loop {
            match client.read(&mut block) {
                Ok(0) => return (String::from_utf8(bytes).unwrap(), true),
                Ok(len) => bytes.extend_from_slice(&block[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return (String::from_utf8(bytes).unwrap(), false);
                }
                // What it has sent was not read.
                Err(_) => return (String::from_utf8(bytes).unwrap(), true),
            }
        }
    }

    /// All that a client can make an edge hold: a head of 10 KiB, a chunk, and trailers that never end.
    fn hostile_requests() -> [Vec<u8>; 4] {
        let line = format!("POST /payments?{} HTTP/1.1\r\nHost: a\r\n", "a".repeat(1_990));
        let field = format!("A: {}", "a".repeat(7_900));
        let coded = format!("{line}A: {}\r\nTransfer-Encoding: chunked\r\n\r\n", "a".repeat(7_900));
        let chunk = format!("{coded}fff\r\n{}", "a".repeat(4_095));
        let trailers = format!("{chunk}\r\n0\r\nX: {}", "a".repeat(7_900));
        [format!("{line}{field}"), format!("{coded}ff"), chunk, trailers].map(String::into_bytes)
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn clients_that_have_held_bytes_longest_end_first_and_others_are_served() {
        const HELD_BYTES_MAX: usize = 128 * 1024;
        const HOSTILE: usize = 100;
        for request in hostile_requests() {
            let edge = Rc::new(Edge::new(HOSTILE + 1).with_held_bytes_max(HELD_BYTES_MAX));
            let mut hostile = clients(&edge, HOSTILE);
            for client in &mut hostile {
                client.write_all(&request).unwrap();
                settle().await;
                assert!(edge.held_bytes().now <= HELD_BYTES_MAX);
            }
            let HeldBytes { now, peak, ended, refused, .. } = edge.held_bytes();
            assert!(now > HELD_BYTES_MAX / 2 && peak <= HELD_BYTES_MAX, "{now} of {peak} at the most");
            assert_eq!(refused, 0);
            let left = hostile.iter_mut().map(heard).map(|(_, is_over)| !is_over).collect::<Vec<bool>>();
            let count = left.iter().filter(|is_left| **is_left).count();
            assert!(count > 2 && HOSTILE - count == usize::try_from(ended).unwrap(), "{count} are left");
            assert!(left.is_sorted(), "the first ones have gone: {left:?}");
            let mut client = clients(&edge, 1).remove(0);
            client.write_all(REQUEST).unwrap();
            settle().await;
            assert!(heard(&mut client).0.starts_with("HTTP/1.1 200"));
            drop((client, hostile));
            settle().await;
            assert_eq!((edge.len(), edge.held_bytes().now), (0, 0));
        }
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_request_that_comes_in_small_pieces_takes_little_more_than_its_bytes() {
        let edge = Rc::new(Edge::new(1));
        let mut client = clients(&edge, 1).remove(0);
        for piece in hostile_requests()[0].chunks(20) {
            client.write_all(piece).unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        let held = edge.held_bytes().now;
        assert!((9_900..11_000).contains(&held), "{held} bytes");
    }

    /// An answer that no socket has room for.
    async fn long(_: Request) -> Reply {
        Reply::json(http::StatusCode::OK, "a".repeat(1 << 20))
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn answers_that_are_not_read_are_bounded_like_requests() {
        const HELD_BYTES_MAX: usize = 4 << 20;
        let edge = Rc::new(Edge::new(20).with_held_bytes_max(HELD_BYTES_MAX));
        let mut deaf = Vec::new();
        for _ in 0..10 {
            let (stream, mut client) = pair();
            tokio::task::spawn_local(edge.serve(stream, None, long));
            client.write_all(REQUEST).unwrap();
            deaf.push(client);
            settle().await;
        }
        let HeldBytes { now, peak, ended, .. } = edge.held_bytes();
        assert!(now > HELD_BYTES_MAX / 2 && peak <= HELD_BYTES_MAX && ended > 4, "{now}, {peak}, {ended}");
        let mut client = clients(&edge, 1).remove(0);
        client.write_all(REQUEST).unwrap();
        settle().await;
        assert!(heard(&mut client).0.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn an_answer_is_held_as_long_as_its_client_goes_on_reading() {
        let edge = Rc::new(Edge::new(2));
        let mut both = Vec::new();
        for _ in 0..2 {
            let (stream, mut client) = pair();
            tokio::task::spawn_local(edge.serve(stream, None, long));
            client.write_all(REQUEST).unwrap();
            both.push(client);
        }
        let mut read = 0;
        for _ in 0..4 {
            sweep_for(&edge, WRITE_TIMEOUT - SWEEP_INTERVAL).await;
            read += heard(&mut both[0]).0.len();
        }
        assert_eq!(edge.len(), 1, "one that reads nothing for so long is ended");
        assert!(read < 1 << 20);
        while read < 1 << 20 {
            settle().await;
            read += heard(&mut both[0]).0.len();
        }
        settle().await;
        assert_eq!(edge.held_bytes().now, 0);
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn nothing_is_held_of_a_connection_that_lingers() {
        let edge = Rc::new(Edge::new(2));
        let mut clients = clients(&edge, 2);
        let last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        for (client, request) in clients.iter_mut().zip([&last[..], b"BREW / HTTP/1.1\r\n\r\n"]) {
            client.write_all(&[request, &[b'a'; 10_000]].concat()).unwrap();
        }
        settle().await;
        let memory = edge.connections.borrow().values().map(|connection| connection.memory()).sum::<usize>();
        assert_eq!((edge.len(), memory, edge.held_bytes().now), (2, 0, 0));
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_request_without_memory_for_it_is_refused_while_no_client_can_go() {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n{}", "a".repeat(4_000));
        let edge = Rc::new(Edge::new(10).with_held_bytes_max(6 * (2 * request.len() + ANSWERING_BYTES)));
        let may_answer = Rc::new(Notify::new());
        let mut asking = Vec::new();
        for _ in 0..5 {
            let (stream, mut client) = pair();
            let may_answer = Rc::clone(&may_answer);
            let handler = move |request| {
                let may_answer = Rc::clone(&may_answer);
                async move {
                    may_answer.notified().await;
                    ok(request).await
                }
            };
            tokio::task::spawn_local(edge.serve(stream, None, handler));
            client.write_all(request.as_bytes()).unwrap();
            asking.push(client);
            settle().await;
        }
        let (answer, is_over) = heard(&mut asking[4]);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
        assert!(is_over);
        let HeldBytes { now, max, refused, ended, .. } = edge.held_bytes();
        assert!(now <= max && (refused, ended) == (1, 0));
        let mut alone = clients(&edge, 1).remove(0);
        alone.write_all(REQUEST).unwrap();
        settle().await;
        assert!(heard(&mut alone).0.starts_with("HTTP/1.1 200"), "a client that holds nothing");
        may_answer.notify_waiters();
        settle().await;
        assert!(asking[..4].iter_mut().all(|client| heard(client).0.starts_with("HTTP/1.1 200")));
        assert_eq!(edge.held_bytes().now, 0);
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn an_empty_line_behind_a_request_leaves_its_client_idle() {
        let edge = Rc::new(Edge::new(2));
        let mut both = clients(&edge, 2);
        both[0].write_all(&[REQUEST, b"\r\n"].concat()).unwrap();
        both[1].write_all(REQUEST).unwrap();
        sweep_for(&edge, REQUEST_TIMEOUT).await;
        both[1].write_all(b"\r\n").unwrap();
        sweep_for(&edge, IDLE_TIMEOUT - REQUEST_TIMEOUT - SWEEP_INTERVAL).await;
        assert_eq!(edge.len(), 2);
        // It is no sign of life either.
        sweep_for(&edge, SWEEP_INTERVAL * 2).await;
        assert!(edge.is_empty());
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_client_that_got_100_has_no_more_time_than_others() {
        let edge = Rc::new(Edge::new(1));
        let (stream, mut client) = pair();
        tokio::task::spawn_local(edge.serve(stream, None, ok));
        let clock = Rc::clone(&edge);
        tokio::task::spawn_local(async move { clock.keep_time(sleep).await });
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\n").unwrap();
        sleep(REQUEST_TIMEOUT - SWEEP_INTERVAL).await;
        client.write_all(b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n").unwrap();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(edge.len(), 1);
        client.read_exact(&mut [0; CONTINUE.len()]).unwrap();
        sleep(SWEEP_INTERVAL * 2).await;
        assert!(edge.is_empty());
    }

    #[tokio::test(flavor = "local")]
    async fn a_client_with_many_requests_keeps_no_other_waiting() {
        const MANY: usize = 1_000;
        let edge = Rc::new(Edge::new(2));
        let answered = Rc::new(RefCell::new(Vec::new()));
        for (name, requests) in [("many", MANY), ("one", 1)] {
            let (stream, mut client) = pair();
            client.write_all(&REQUEST.repeat(requests)).unwrap();
            // Until the test ends.
            std::thread::spawn(move || client.read_to_end(&mut Vec::new()));
            let answered = Rc::clone(&answered);
            let served = edge.serve(stream, None, move |_| {
                answered.borrow_mut().push(name);
                async { Reply::empty(http::StatusCode::OK) }
            });
            tokio::task::spawn_local(served);
        }
        while answered.borrow().len() <= MANY {
            yield_now().await;
        }
        let before = answered.borrow().iter().position(|name| *name == "one").unwrap();
        assert!(before < MANY / 4, "{before} requests of another client came first");
    }

    #[tokio::test(flavor = "local")]
    async fn requests_that_came_before_a_drain_are_answered() {
        let edge = Rc::new(Edge::new(2));
        let (stream, mut client) = pair();
        client.write_all(REQUEST).unwrap();
        tokio::task::spawn_local(edge.serve(stream, None, ok));
        edge.drain(Duration::from_secs(120)).await;
        assert!(edge.is_empty());
        let mut answer = String::new();
        client.set_nonblocking(true).unwrap();
        let _ = client.read_to_string(&mut answer);
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close"),
            "{answer}"
        );
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_fresh_connection_has_a_moment_for_its_first_request_when_a_process_ends() {
        let edge = Rc::new(Edge::new(2));
        let mut both = clients(&edge, 2);
        let (mut silent, mut late) = (both.remove(0), both.remove(0));
        let write = async {
            sleep(FRESH_TIMEOUT / 2).await;
            late.write_all(REQUEST).unwrap();
        };
        tokio::join!(edge.drain(Duration::from_secs(5)), write);
        assert!(edge.is_empty());
        let mut answers = [String::new(), String::new()];
        for (client, answer) in [&mut late, &mut silent].into_iter().zip(&mut answers) {
            client.set_nonblocking(true).unwrap();
            let _ = client.read_to_string(answer);
        }
        assert!(answers[0].starts_with("HTTP/1.1 200 OK\r\n") && answers[0].contains("connection: close"));
        assert_eq!(answers[1], "");
    }

    #[tokio::test(flavor = "local")]
    async fn a_client_that_was_given_to_another_process_is_neither_answered_nor_closed() {
        let page = Page::create(1).unwrap();
        let control = page.memory().try_clone_to_owned().unwrap();
        let source = Rc::new(Source::new(page, control));
        let ticket = Ticket { slot: 0, generation: 1 };
        source.page.offer(ticket);
        let place = Place::new(Rc::clone(&source), ticket).unwrap();
        let (ours, mut client) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut copy = ours.try_clone().unwrap();
        ours.set_nonblocking(true).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(request).unwrap();
        source.page.offer(Ticket { generation: 2, ..ticket });
        let edge = Rc::new(Edge::new(1));
        let stream = Stream::Unix(UnixStream::from_std(ours).unwrap());
        edge.serve(stream, Some(place), ok).await;
        let mut seen = [0; 64];
        assert_eq!(copy.read(&mut seen).unwrap(), request.len());
        copy.write_all(b"answer").unwrap();
        assert_eq!(client.read(&mut seen).unwrap(), 6);
    }
}
