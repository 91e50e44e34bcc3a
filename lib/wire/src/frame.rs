//! The frames between api and store, over one Unix stream socket per api.
//!
//! ```text
//!  0        4      5
//!  | len u32 | kind | payload ...      little-endian; len counts kind and payload, 1..=FRAME_BYTES_MAX
//! ```
//!
//! Frames are pipelined in both directions and several travel in one read or write; order is kept within a direction.
//! The first frame of an api is [`FromApi::Hello`] with [`PROTOCOL_VERSION`]; the store answers [`FromStore::Welcome`]
//! or hangs up. Requests carry a number that their reply repeats.
//!
//! A decoder takes any bytes: what is no frame is a [`FrameError`], which ends the connection that it came from and
//! nothing else. It allocates at most what the frame itself is long.

use crate::{Bounds, Cents, PaymentId, PerProcessor, Processor, Timestamp};
use bytes::BufMut;

/// Counts every change of the frames. Both ends must speak the same one.
pub const PROTOCOL_VERSION: u16 = 3;

/// What the first frame says, so that a stranger on the socket is told apart from an old api.
pub const PROTOCOL_MAGIC: [u8; 4] = *b"ESPO";

/// The longest frame, kind included. The longest that is sent is a metrics text; a hello with
/// [`HELD_ATTEMPTS_MAX`] attempts is 32 KiB.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// How many unanswered attempts a hello can list: the calls that one api may hold open, timed-out ones included.
pub const HELD_ATTEMPTS_MAX: usize = 2_048;

const _: () = assert!(HELD_ATTEMPTS_MAX * 16 + 64 <= FRAME_BYTES_MAX);

/// How many charges one page of them can list.
pub const CHARGES_MAX: usize = 1_000;

const CHARGE_BYTES: usize = 32;

const _: () = assert!(CHARGES_MAX * CHARGE_BYTES + 64 <= FRAME_BYTES_MAX);

/// Numbers the attempts of one store, over restarts and purges: the same number never names two attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// An attempt that an api still waits for, as its hello lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldAttempt {
    /// Which attempt.
    pub attempt: AttemptId,
    /// How long its call has been out, in milliseconds.
    pub age_ms: u64,
}

/// What one call to a processor was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CallKind {
    /// `POST /payments`.
    Post = 0,
    /// `GET /payments/{id}`: asks and changes nothing.
    Get = 1,
}

/// The right of one api to make one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The attempt that this call is.
    pub attempt: AttemptId,
    /// The payment.
    pub id: PaymentId,
    /// Its amount.
    pub cents: Cents,
    /// Where it goes. Nowhere else.
    pub processor: Processor,
    /// The `requestedAt` to send.
    pub requested_at: Timestamp,
    /// Post it, or ask for it.
    pub kind: CallKind,
    /// Until when the call may begin, on the host's monotonic clock: [`LEASE_FRESH_MS`] after the lease when `requested_at` was
    /// issued for this attempt. One that has not begun by then is handed back unsent. `None`: at any time.
    pub begin_until_us: Option<u64>,
}

/// How long after it was given a fresh lease may begin, in milliseconds.
pub const LEASE_FRESH_MS: u64 = 50;

/// How long a call may be out before it is overdue, in milliseconds: its api keeps the socket and still takes the answer, but
/// the call counts against no cap any more.
pub const CALL_OVERDUE_MS: u64 = 30_000;

/// How long after its lease a health call may begin, in milliseconds. Health calls are leased 5.2 s apart and a processor
/// answers one in 5 s.
pub const HEALTH_FRESH_MS: u64 = 150;

/// What became of an attempt, as far as its own api can prove it (MONEY.md, table of events).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200: recorded now.
    Charged,
    /// 422: recorded before.
    Duplicate,
    /// `GET` 200: recorded with these values.
    Found {
        /// The time that the processor holds.
        requested_at: Timestamp,
        /// The amount that the processor holds.
        cents: Cents,
    },
    /// `GET` 404: not there at the time of asking.
    Absent,
    /// 429 or 408: turned away before the handler.
    Busy,
    /// 500 with an explicit length of zero, completely read: the failure flag, set before the insert.
    Failing,
    /// Connect refused, or handed back by the HTTP client as never written.
    Unreachable,
    /// The api never began: it drains, or the lease was stale.
    HandedBack,
    /// 400, 413 or 415: this processor will never take it.
    Refused,
    /// 401, 403, 404 or 405 to a POST: the address is wrong, not the payment.
    Misaddressed,
    /// An answer that proves nothing: 5xx with a body, another 2xx, 3xx, garbage.
    Unclear,
    /// No answer any more: reset, or end of stream after bytes were written.
    Lost,
    /// No answer for long; the socket is kept and an answer may still come.
    Overdue,
}

/// The last word of an api about an attempt, or an interim one ([`Outcome::Overdue`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Counts the reports of one api instance from 1; the store acknowledges up to a number.
    pub sequence: u64,
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its payment.
    pub id: PaymentId,
    /// Where it was sent.
    pub processor: Processor,
    /// What happened.
    pub outcome: Outcome,
    /// The status of the answer, 0 without one.
    pub status: u16,
    /// From the first byte written to the answer, in microseconds; to the loss, without one.
    pub latency_us: u32,
}

/// What a health call brought home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// 200 with the processor's own words.
    Answered {
        /// Its failure flag.
        failing: bool,
        /// Its delay in milliseconds.
        min_response_ms: u32,
    },
    /// 429: somebody else asked within the window.
    Busy,
    /// No usable answer in time.
    Unanswered,
    /// The api never began: the lease was stale.
    HandedBack,
}

/// A set of payments that an operator can look through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Listing {
    /// Refused for good by both processors.
    DeadLetters = 0,
    /// With an attempt that has no answer.
    InFlight = 1,
    /// Whose evidence contradicts itself.
    Conflicts = 2,
    /// Left behind by a purge with an attempt that has no answer, or charged since.
    Tombstones = 3,
}

impl Listing {
    const ALL: [Self; 4] = [Self::DeadLetters, Self::InFlight, Self::Conflicts, Self::Tombstones];
}

/// What an operator asks for or decides. Only people know what no evidence shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Show some of them.
    List {
        /// Which.
        listing: Listing,
        /// Where to go on: 0, then what the answer before said.
        from: u32,
    },
    /// A processor has charged this payment.
    Charged {
        /// The payment.
        id: PaymentId,
        /// Which processor; needed only where the store cannot know it: both claim a dead letter.
        by: Option<Processor>,
    },
    /// No attempt of this payment charged it, or ever will.
    NotCharged(PaymentId),
    /// Send this dead letter again.
    Revive(PaymentId),
    /// Send all dead letters again that no processor claims.
    ReviveAll {
        /// Where to go on: 0, then what the answer before said.
        from: u32,
    },
    /// Tell what is known about a window, to compare it with the processors' own sums.
    Window {
        /// The window.
        bounds: Bounds,
    },
    /// List what a processor charged inside a window.
    Charges {
        /// The processor.
        processor: Processor,
        /// The window.
        bounds: Bounds,
        /// Where to go on: 0, then what the answer before said.
        from: u32,
    },
}

impl Operation {
    /// The payment that is decided about.
    #[must_use]
    pub fn id(&self) -> Option<PaymentId> {
        match *self {
            Self::List { .. } | Self::ReviveAll { .. } | Self::Window { .. } | Self::Charges { .. } => None,
            Self::Charged { id, .. } | Self::NotCharged(id) | Self::Revive(id) => Some(id),
        }
    }
}

/// Api to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromApi {
    /// The first frame of a connection.
    Hello {
        /// Drawn at the api's start: tells a reconnecting api from a new one.
        instance: u64,
        /// How many calls it can carry at once.
        calls_max: u16,
        /// What it still waits for, overdue calls included. At most [`HELD_ATTEMPTS_MAX`].
        held: Vec<HeldAttempt>,
    },
    /// I am alive; sent each second.
    Heartbeat,
    /// Take this payment.
    Accept {
        /// Repeated in the reply.
        request: u64,
        /// The payment.
        id: PaymentId,
        /// Its amount.
        cents: Cents,
    },
    /// Sum up a window.
    Summary {
        /// Repeated in the reply.
        request: u64,
        /// The window.
        bounds: Bounds,
    },
    /// Forget everything.
    Purge {
        /// Repeated in the reply.
        request: u64,
        /// Since when its client waits, on the host's monotonic clock ([`crate::time::monotonic_us`]): a purge that took effect
        /// later has done what this one asks for.
        asked_us: u64,
        /// Until when: its client has given up after that, and payments that were acknowledged since must not be forgotten.
        deadline_us: u64,
    },
    /// Your metrics, please.
    Metrics {
        /// Repeated in the reply.
        request: u64,
    },
    /// What became of an attempt.
    Report(Report),
    /// What a leased health call brought.
    HealthReport {
        /// Which processor was asked.
        processor: Processor,
        /// What it said.
        health: Health,
    },
    /// No more leases, please: this api drains.
    Drain,
    /// From an operator's command, on a connection of its own and without a hello.
    Operate {
        /// Repeated in the reply.
        request: u64,
        /// Until when, as with a purge.
        deadline_us: u64,
        /// What.
        operation: Operation,
    },
}

/// What became of an accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Accepted {
    /// New, and recorded.
    Recorded = 0,
    /// Known with the same amount.
    Duplicate = 1,
    /// Known with another amount; nothing changed.
    Mismatch = 2,
    /// No room; nothing was recorded.
    Full = 3,
}

/// Count and sum of a set of payments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub cents: Cents,
}

/// What the store knows about a window of `requestedAt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The store's clock. Unless it is set back, no payment gets a `requestedAt` before this time any more.
    pub now: Timestamp,
    /// Another number after each purge that forgot an attempt.
    pub world: u64,
    /// The first `requestedAt` inside the window under which a payment was sent or charged.
    pub first: Option<Timestamp>,
    /// What each processor charged inside the window.
    pub charged: PerProcessor<Totals>,
    /// Payments that each processor may hold inside the window beyond those, because an attempt has no answer. It is
    /// never too low.
    pub in_flight: PerProcessor<u64>,
}

/// A payment that a processor charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The payment.
    pub id: PaymentId,
    /// The amount that the summary counts.
    pub cents: Cents,
    /// The time under which the summary counts it.
    pub requested_at: Timestamp,
}

/// Store to api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromStore {
    /// The answer to a hello.
    Welcome,
    /// The answer to an accept.
    Accepted {
        /// Of the accept.
        request: u64,
        /// What became of it.
        accepted: Accepted,
    },
    /// The answer to a summary.
    Summary {
        /// Of the question.
        request: u64,
        /// What each processor charged inside the window.
        totals: PerProcessor<Totals>,
    },
    /// The answer to a purge.
    Purged {
        /// Of the purge.
        request: u64,
        /// It has taken effect. If not, it came after its deadline and nothing has changed.
        done: bool,
    },
    /// The store's metrics, Prometheus text.
    Metrics {
        /// Of the question.
        request: u64,
        /// At most [`FRAME_BYTES_MAX`] less the header.
        text: String,
    },
    /// Make this call.
    Lease(Lease),
    /// Ask this processor for its health, once, now.
    HealthLease {
        /// Which one.
        processor: Processor,
        /// Until when the call may begin, on the host's monotonic clock; one that does not is handed back.
        begin_until_us: u64,
    },
    /// Reports up to this one are as durable as the mode demands and need not be kept.
    Acknowledge {
        /// [`Report::sequence`] of the last of them.
        sequence: u64,
    },
    /// The answer to an operation.
    Operated {
        /// Of the operation.
        request: u64,
        /// It was done. If not, nothing has changed.
        done: bool,
        /// More to list from here.
        next: Option<u32>,
        /// Payments, one a line; or what was done, or why not.
        text: String,
    },
    /// The answer to [`Operation::Window`].
    Window {
        /// Of the operation.
        request: u64,
        /// What is known.
        window: Window,
    },
    /// The answer to [`Operation::Charges`].
    Charges {
        /// Of the operation.
        request: u64,
        /// More to list from here.
        next: Option<u32>,
        /// Some of the charges. At most [`CHARGES_MAX`].
        charges: Vec<Charge>,
    },
}

/// Bytes that are no frame. The connection they came from must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length of zero, or above [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes")]
    Length(u32),
    /// No such kind, in this direction and version.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// The payload is shorter or longer than its kind demands, or a field is out of its range.
    #[error("a broken frame of kind {0}")]
    Payload(u8),
    /// Not an api of this version.
    #[error("the peer is no api of protocol version {PROTOCOL_VERSION}")]
    Version,
}

/// A message that travels as a frame.
pub trait Message: Sized {
    /// Appends the whole frame.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads kind and payload of one frame.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no message of this direction.
    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError>;
}

/// Takes the first whole frame off `buffer` and tells how many bytes it took; `None` while it is incomplete.
///
/// # Errors
/// [`FrameError`] when no continuation of these bytes could be a frame.
pub fn decode<M: Message>(buffer: &[u8]) -> Result<Option<(M, usize)>, FrameError> {
    let Some((header, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*header);
    let bytes = length as usize;
    if bytes == 0 || bytes > FRAME_BYTES_MAX {
        return Err(FrameError::Length(length));
    }
    let Some(frame) = rest.get(..bytes) else {
        return Ok(None);
    };
    let message = M::decode(frame[0], &frame[1..])?;
    Ok(Some((message, 4 + bytes)))
}

/// Frames out of a stream, which brings them in pieces.
#[derive(Debug, Default)]
pub struct Frames {
    /// The beginning of a frame whose end has not come yet.
    rest: Vec<u8>,
}

impl Frames {
    /// Takes a piece in, and gives `each` the messages that are whole with it, in their order.
    ///
    /// # Errors
    /// [`FrameError`] when what comes next can be no frame; what came before it has been given. The stream is of no more
    /// use then.
    pub fn take<M: Message>(&mut self, piece: &[u8], mut each: impl FnMut(M)) -> Result<(), FrameError> {
        // Nearly always whole frames come: then nothing is copied.
        let mut joined = std::mem::take(&mut self.rest);
        let bytes = if joined.is_empty() {
            piece
        } else {
            joined.extend_from_slice(piece);
            &joined[..]
        };
        let mut used = 0;
        while let Some((message, len)) = decode(&bytes[used..])? {
            used += len;
            each(message);
        }
        self.rest = bytes[used..].to_vec();
        Ok(())
    }
}

/// Writes one frame: reserves the length, lets `fill` append the payload, then sets the length.
fn frame(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    fill(out);
    let length = out.len() - start - 4;
    assert!(length <= FRAME_BYTES_MAX, "a frame of kind {kind} grew to {length} bytes");
    let length = u32::try_from(length).expect("FRAME_BYTES_MAX fits");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads fields off a payload; the first that is missing or out of range spoils the whole.
struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn broken<T>(&self) -> Result<T, FrameError> {
        Err(FrameError::Payload(self.kind))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let Some((field, rest)) = self.rest.split_first_chunk::<N>() else {
            return self.broken();
        };
        self.rest = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => self.broken(),
        }
    }

    fn id(&mut self) -> Result<PaymentId, FrameError> {
        self.take().map(|bytes| PaymentId(u128::from_le_bytes(bytes)))
    }

    fn cents(&mut self) -> Result<Cents, FrameError> {
        self.take().map(|bytes| Cents(i64::from_le_bytes(bytes)))
    }

    /// The amount of one payment, which has a range.
    fn amount(&mut self) -> Result<Cents, FrameError> {
        let cents = self.cents()?;
        if cents.is_payable() { Ok(cents) } else { self.broken() }
    }

    fn time(&mut self) -> Result<Timestamp, FrameError> {
        self.take().map(|bytes| Timestamp(i64::from_le_bytes(bytes)))
    }

    fn bound(&mut self) -> Result<Option<Timestamp>, FrameError> {
        let given = self.bool()?;
        let time = self.time()?;
        Ok(given.then_some(time))
    }

    fn bounds(&mut self) -> Result<Bounds, FrameError> {
        Ok(Bounds { from: self.bound()?, to: self.bound()? })
    }

    /// Where a list goes on.
    fn next(&mut self) -> Result<Option<u32>, FrameError> {
        let (more, next) = (self.bool()?, self.u32()?);
        Ok(more.then_some(next))
    }

    fn charges(&mut self) -> Result<Vec<Charge>, FrameError> {
        let count = usize::from(self.u16()?);
        if count > CHARGES_MAX || self.rest.len() != count * CHARGE_BYTES {
            return self.broken();
        }
        (0..count)
            .map(|_| Ok(Charge { id: self.id()?, cents: self.amount()?, requested_at: self.time()? }))
            .collect()
    }

    fn window(&mut self) -> Result<Window, FrameError> {
        Ok(Window {
            now: self.time()?,
            world: self.u64()?,
            first: self.bound()?,
            charged: PerProcessor([self.totals()?, self.totals()?]),
            in_flight: PerProcessor([self.u64()?, self.u64()?]),
        })
    }

    fn processor(&mut self) -> Result<Processor, FrameError> {
        let byte = self.u8()?;
        Processor::from_byte(byte).map_or_else(|| self.broken(), Ok)
    }

    fn optional_processor(&mut self) -> Result<Option<Processor>, FrameError> {
        match self.u8()? {
            NO_PROCESSOR => Ok(None),
            byte => Processor::from_byte(byte).map_or_else(|| self.broken(), |processor| Ok(Some(processor))),
        }
    }

    fn totals(&mut self) -> Result<Totals, FrameError> {
        Ok(Totals { count: self.u64()?, cents: self.cents()? })
    }

    fn outcome(&mut self) -> Result<Outcome, FrameError> {
        Ok(match self.u8()? {
            0 => Outcome::Charged,
            1 => Outcome::Duplicate,
            2 => Outcome::Found { requested_at: self.time()?, cents: self.amount()? },
            3 => Outcome::Absent,
            4 => Outcome::Busy,
            5 => Outcome::Failing,
            6 => Outcome::Unreachable,
            7 => Outcome::HandedBack,
            8 => Outcome::Refused,
            9 => Outcome::Misaddressed,
            10 => Outcome::Unclear,
            11 => Outcome::Lost,
            12 => Outcome::Overdue,
            _ => return self.broken(),
        })
    }

    fn operation(&mut self) -> Result<Operation, FrameError> {
        Ok(match self.u8()? {
            0 => {
                let listing = Listing::ALL.get(usize::from(self.u8()?)).copied();
                let Some(listing) = listing else { return self.broken() };
                Operation::List { listing, from: self.u32()? }
            }
            1 => Operation::Charged { id: self.id()?, by: self.optional_processor()? },
            2 => Operation::NotCharged(self.id()?),
            3 => Operation::Revive(self.id()?),
            4 => Operation::ReviveAll { from: self.u32()? },
            8 => Operation::Window { bounds: self.bounds()? },
            9 => {
                Operation::Charges { processor: self.processor()?, bounds: self.bounds()?, from: self.u32()? }
            }
            _ => return self.broken(),
        })
    }

    /// All that is left.
    fn text(&mut self) -> Result<String, FrameError> {
        std::str::from_utf8(self.rest).map_or_else(|_| self.broken(), |text| Ok(text.to_owned()))
    }

    fn end<T>(&self, message: T) -> Result<T, FrameError> {
        if self.rest.is_empty() { Ok(message) } else { self.broken() }
    }
}

/// In the place of a processor that is not named.
const NO_PROCESSOR: u8 = 0xff;

fn put_bound(out: &mut Vec<u8>, bound: Option<Timestamp>) {
    out.put_u8(u8::from(bound.is_some()));
    out.put_i64_le(bound.map_or(0, |time| time.0));
}

fn put_bounds(out: &mut Vec<u8>, bounds: Bounds) {
    put_bound(out, bounds.from);
    put_bound(out, bounds.to);
}

fn put_next(out: &mut Vec<u8>, next: Option<u32>) {
    out.put_u8(u8::from(next.is_some()));
    out.put_u32_le(next.unwrap_or(0));
}

fn put_window(out: &mut Vec<u8>, window: &Window) {
    out.put_i64_le(window.now.0);
    out.put_u64_le(window.world);
    put_bound(out, window.first);
    for (_, totals) in window.charged.iter() {
        out.put_u64_le(totals.count);
        out.put_i64_le(totals.cents.0);
    }
    for (_, count) in window.in_flight.iter() {
        out.put_u64_le(*count);
    }
}

fn put_charges(out: &mut Vec<u8>, charges: &[Charge]) {
    assert!(charges.len() <= CHARGES_MAX, "a page lists {} charges", charges.len());
    out.put_u16_le(u16::try_from(charges.len()).expect("CHARGES_MAX fits"));
    for Charge { id, cents, requested_at } in charges {
        out.put_u128_le(id.0);
        out.put_i64_le(cents.0);
        out.put_i64_le(requested_at.0);
    }
}

fn put_outcome(out: &mut Vec<u8>, outcome: Outcome) {
    match outcome {
        Outcome::Charged => out.put_u8(0),
        Outcome::Duplicate => out.put_u8(1),
        Outcome::Found { requested_at, cents } => {
            out.put_u8(2);
            out.put_i64_le(requested_at.0);
            out.put_i64_le(cents.0);
        }
        Outcome::Absent => out.put_u8(3),
        Outcome::Busy => out.put_u8(4),
        Outcome::Failing => out.put_u8(5),
        Outcome::Unreachable => out.put_u8(6),
        Outcome::HandedBack => out.put_u8(7),
        Outcome::Refused => out.put_u8(8),
        Outcome::Misaddressed => out.put_u8(9),
        Outcome::Unclear => out.put_u8(10),
        Outcome::Lost => out.put_u8(11),
        Outcome::Overdue => out.put_u8(12),
    }
}

impl Message for FromApi {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { instance, calls_max, held } => frame(out, 1, |out| {
                out.put_slice(&PROTOCOL_MAGIC);
                out.put_u16_le(PROTOCOL_VERSION);
                out.put_u64_le(*instance);
                out.put_u16_le(*calls_max);
                assert!(held.len() <= HELD_ATTEMPTS_MAX, "a hello lists {} attempts", held.len());
                out.put_u16_le(u16::try_from(held.len()).expect("HELD_ATTEMPTS_MAX fits"));
                for HeldAttempt { attempt, age_ms } in held {
                    out.put_u64_le(attempt.0);
                    out.put_u64_le(*age_ms);
                }
            }),
            Self::Heartbeat => frame(out, 2, |_| ()),
            Self::Accept { request, id, cents } => frame(out, 3, |out| {
                out.put_u64_le(*request);
                out.put_u128_le(id.0);
                out.put_i64_le(cents.0);
            }),
            Self::Summary { request, bounds } => frame(out, 4, |out| {
                out.put_u64_le(*request);
                put_bounds(out, *bounds);
            }),
            Self::Purge { request, asked_us, deadline_us } => frame(out, 5, |out| {
                out.put_u64_le(*request);
                out.put_u64_le(*asked_us);
                out.put_u64_le(*deadline_us);
            }),
            Self::Metrics { request } => frame(out, 6, |out| out.put_u64_le(*request)),
            Self::Report(report) => frame(out, 7, |out| {
                out.put_u64_le(report.sequence);
                out.put_u64_le(report.attempt.0);
                out.put_u128_le(report.id.0);
                out.put_u8(report.processor as u8);
                out.put_u16_le(report.status);
                out.put_u32_le(report.latency_us);
                put_outcome(out, report.outcome);
            }),
            Self::HealthReport { processor, health } => frame(out, 8, |out| {
                out.put_u8(*processor as u8);
                let (kind, failing, ms) = match health {
                    Health::Answered { failing, min_response_ms } => (0, *failing, *min_response_ms),
                    Health::Busy => (1, false, 0),
                    Health::Unanswered => (2, false, 0),
                    Health::HandedBack => (3, false, 0),
                };
                out.put_u8(kind);
                out.put_u8(u8::from(failing));
                out.put_u32_le(ms);
            }),
            Self::Drain => frame(out, 9, |_| ()),
            Self::Operate { request, deadline_us, operation } => frame(out, 10, |out| {
                out.put_u64_le(*request);
                out.put_u64_le(*deadline_us);
                let (kind, id) = match operation {
                    Operation::List { listing, from } => {
                        out.put_u8(0);
                        out.put_u8(*listing as u8);
                        return out.put_u32_le(*from);
                    }
                    Operation::Charged { id, by } => {
                        out.put_u8(1);
                        out.put_u128_le(id.0);
                        return out.put_u8(by.map_or(NO_PROCESSOR, |processor| processor as u8));
                    }
                    Operation::NotCharged(id) => (2, id),
                    Operation::Revive(id) => (3, id),
                    Operation::ReviveAll { from } => {
                        out.put_u8(4);
                        return out.put_u32_le(*from);
                    }
                    Operation::Window { bounds } => {
                        out.put_u8(8);
                        return put_bounds(out, *bounds);
                    }
                    Operation::Charges { processor, bounds, from } => {
                        out.put_u8(9);
                        out.put_u8(*processor as u8);
                        put_bounds(out, *bounds);
                        return out.put_u32_le(*from);
                    }
                };
                out.put_u8(kind);
                out.put_u128_le(id.0);
            }),
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields { kind, rest: payload };
        let message = match kind {
            1 => {
                if fields.take::<4>()? != PROTOCOL_MAGIC || fields.u16()? != PROTOCOL_VERSION {
                    return Err(FrameError::Version);
                }
                let (instance, calls_max, count) = (fields.u64()?, fields.u16()?, fields.u16()?);
                if usize::from(count) > HELD_ATTEMPTS_MAX || fields.rest.len() != usize::from(count) * 16 {
                    return fields.broken();
                }
                let mut held = Vec::with_capacity(usize::from(count));
                for _ in 0..count {
                    held.push(HeldAttempt { attempt: AttemptId(fields.u64()?), age_ms: fields.u64()? });
                }
                Self::Hello { instance, calls_max, held }
            }
            2 => Self::Heartbeat,
            3 => Self::Accept { request: fields.u64()?, id: fields.id()?, cents: fields.amount()? },
            4 => {
                let request = fields.u64()?;
                Self::Summary { request, bounds: fields.bounds()? }
            }
            5 => Self::Purge { request: fields.u64()?, asked_us: fields.u64()?, deadline_us: fields.u64()? },
            6 => Self::Metrics { request: fields.u64()? },
            7 => Self::Report(Report {
                sequence: fields.u64()?,
                attempt: AttemptId(fields.u64()?),
                id: fields.id()?,
                processor: fields.processor()?,
                status: fields.u16()?,
                latency_us: fields.u32()?,
                outcome: fields.outcome()?,
            }),
            8 => {
                let (processor, said, failing, min_response_ms) =
                    (fields.processor()?, fields.u8()?, fields.bool()?, fields.u32()?);
                let health = match said {
                    0 => Health::Answered { failing, min_response_ms },
                    1 => Health::Busy,
                    2 => Health::Unanswered,
                    3 => Health::HandedBack,
                    _ => return fields.broken(),
                };
                Self::HealthReport { processor, health }
            }
            9 => Self::Drain,
            10 => Self::Operate {
                request: fields.u64()?,
                deadline_us: fields.u64()?,
                operation: fields.operation()?,
            },
            _ => return Err(FrameError::Kind(kind)),
        };
        fields.end(message)
    }
}

impl Message for FromStore {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome => frame(out, 65, |_| ()),
            Self::Accepted { request, accepted } => frame(out, 66, |out| {
                out.put_u64_le(*request);
                out.put_u8(*accepted as u8);
            }),
            Self::Summary { request, totals } => frame(out, 67, |out| {
                out.put_u64_le(*request);
                for (_, totals) in totals.iter() {
                    out.put_u64_le(totals.count);
                    out.put_i64_le(totals.cents.0);
                }
            }),
            Self::Purged { request, done } => frame(out, 68, |out| {
                out.put_u64_le(*request);
                out.put_u8(u8::from(*done));
            }),
            Self::Metrics { request, text } => frame(out, 69, |out| {
                out.put_u64_le(*request);
                out.put_slice(text.as_bytes());
            }),
            Self::Lease(lease) => frame(out, 70, |out| {
                out.put_u64_le(lease.attempt.0);
                out.put_u128_le(lease.id.0);
                out.put_i64_le(lease.cents.0);
                out.put_u8(lease.processor as u8);
                out.put_i64_le(lease.requested_at.0);
                out.put_u8(lease.kind as u8);
                out.put_u64_le(lease.begin_until_us.unwrap_or(0));
            }),
            Self::HealthLease { processor, begin_until_us } => frame(out, 71, |out| {
                out.put_u8(*processor as u8);
                out.put_u64_le(*begin_until_us);
            }),
            Self::Acknowledge { sequence } => frame(out, 72, |out| out.put_u64_le(*sequence)),
            Self::Operated { request, done, next, text } => frame(out, 73, |out| {
                out.put_u64_le(*request);
                out.put_u8(u8::from(*done));
                put_next(out, *next);
                out.put_slice(text.as_bytes());
            }),
            Self::Window { request, window } => frame(out, 80, |out| {
                out.put_u64_le(*request);
                put_window(out, window);
            }),
            Self::Charges { request, next, charges } => frame(out, 81, |out| {
                out.put_u64_le(*request);
                put_next(out, *next);
                put_charges(out, charges);
            }),
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields { kind, rest: payload };
        let message = match kind {
            65 => Self::Welcome,
            66 => {
                let request = fields.u64()?;
                let accepted = match fields.u8()? {
                    0 => Accepted::Recorded,
                    1 => Accepted::Duplicate,
                    2 => Accepted::Mismatch,
                    3 => Accepted::Full,
                    _ => return fields.broken(),
                };
                Self::Accepted { request, accepted }
            }
            67 => {
                let request = fields.u64()?;
                Self::Summary { request, totals: PerProcessor([fields.totals()?, fields.totals()?]) }
            }
            68 => Self::Purged { request: fields.u64()?, done: fields.bool()? },
            69 => {
                let request = fields.u64()?;
                return Ok(Self::Metrics { request, text: fields.text()? });
            }
            70 => Self::Lease(Lease {
                attempt: AttemptId(fields.u64()?),
                id: fields.id()?,
                cents: fields.amount()?,
                processor: fields.processor()?,
                requested_at: fields.time()?,
                kind: if fields.bool()? { CallKind::Get } else { CallKind::Post },
                begin_until_us: Some(fields.u64()?).filter(|until_us| *until_us > 0),
            }),
            71 => Self::HealthLease { processor: fields.processor()?, begin_until_us: fields.u64()? },
            72 => Self::Acknowledge { sequence: fields.u64()? },
            73 => {
                let (request, done) = (fields.u64()?, fields.bool()?);
                return Ok(Self::Operated { request, done, next: fields.next()?, text: fields.text()? });
            }
            80 => Self::Window { request: fields.u64()?, window: fields.window()? },
            81 => Self::Charges { request: fields.u64()?, next: fields.next()?, charges: fields.charges()? },
            _ => return Err(FrameError::Kind(kind)),
        };
        fields.end(message)
    }
}
