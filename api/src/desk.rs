//! The api's part in keeping the promise, without a socket or a clock: what was asked of the store and is not answered,
//! which calls are out, and which reports the store has not acknowledged.
//!
//! * A request is held up to [`STORE_TIMEOUT_US`], also while there is no store. After a loss everything is asked again, but a
//!   purge: sent twice it would also wipe what was acknowledged between the two. A purge carries the time until which its
//!   client is held, and the store refuses it afterwards.
//! * A report is kept until the store acknowledges it, in order, and delivered again to the next store.
//! * A hello lists the calls that are out, so that they stay open there, and overdue ones are known to be out.
//! * A fresh lease, or a health call's, that has become stale on its way is handed back: nothing was sent.
//!
//! The shell ([`crate::link`]) moves the bytes of [`Desk::outbox`] to the store and gives frames from it to
//! [`Desk::take`]; the simulation does the same with this very code.

use edge::SendError;
use std::collections::{BTreeMap, VecDeque};
use wire::frame::{
    AttemptId, CALL_OVERDUE_MS, CallKind, FromApi, FromStore, HELD_ATTEMPTS_MAX, Health, HeldAttempt, Lease,
    Message, Outcome, Report,
};
use wire::{Bounds, Cents, PaymentId, Processor};

/// How long a request is held for a store that is away (docs/http.md).
pub const STORE_TIMEOUT_US: u64 = 1_000_000;

/// Requests that may wait for the store at once: each is a connection of a client, and those have a cap of their own.
const PENDING_MAX: usize = 65_536;

/// A store that is stopped reads nothing; beyond so many bytes for it nothing more is asked.
const OUTBOX_BYTES_MAX: usize = 1 << 20;

/// After so long a call no longer counts against the store's cap.
const OVERDUE_US: u64 = CALL_OVERDUE_MS * 1000;

/// Overdue calls whose sockets are kept; beyond it the oldest is closed and its attempt unknown for good.
const OVERDUE_MAX: usize = 768;

// What a hello may have to list; CALLS_MAX is at most 1,000 (config).
const _: () = assert!(1_000 + OVERDUE_MAX < HELD_ATTEMPTS_MAX);

/// What a client's request becomes; the desk adds the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    fn frame(self, request: u64, deadline_us: u64) -> FromApi {
        match self {
            Self::Accept(id, cents) => FromApi::Accept { request, id, cents },
            Self::Summary(bounds) => FromApi::Summary { request, bounds },
            Self::Purge => FromApi::Purge {
                request,
                asked_us: deadline_us.saturating_sub(STORE_TIMEOUT_US),
                deadline_us,
            },
            Self::Metrics => FromApi::Metrics { request },
        }
    }

    /// True when it may be asked again of the next store.
    #[must_use]
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Self::Purge)
    }
}

/// What the shell has to do about a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing.
    Nothing,
    /// The reply to this request.
    Reply(u64, FromStore),
    /// Make this call, and [`Desk::finish`] it.
    Call(Lease),
    /// Ask this processor for its health.
    Health(Processor),
}

#[derive(Debug)]
struct Pending {
    ask: Ask,
    sent: bool,
    deadline_us: u64,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    since_us: u64,
    is_overdue: bool,
}

/// All that an api remembers.
#[derive(Debug)]
pub struct Desk {
    instance: u64,
    calls_max: u16,
    connected: bool,
    /// The store has answered the hello.
    welcomed: bool,
    draining: bool,
    outbox: Vec<u8>,
    next_request: u64,
    /// By number, which is by deadline too.
    pending: BTreeMap<u64, Pending>,
    reports: VecDeque<Report>,
    reported: u64,
    held: BTreeMap<AttemptId, Held>,
}

impl Desk {
    /// A desk without a store. `instance` tells this process from every other.
    #[must_use]
    pub fn new(instance: u64, calls_max: u16) -> Self {
        Self {
            instance,
            calls_max,
            connected: false,
            welcomed: false,
            draining: false,
            outbox: Vec::new(),
            next_request: 0,
            pending: BTreeMap::new(),
            reports: VecDeque::new(),
            reported: 0,
            held: BTreeMap::new(),
        }
    }

    /// Encoded frames for the store. The shell takes from the front what it has written.
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    /// True from the store's welcome until [`Desk::disconnect`]: a store of another version, or one that is stopped, takes a
    /// connection and welcomes nothing.
    #[must_use]
    pub fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// True when a request waits for its reply.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Posts that are out.
    #[must_use]
    pub fn calls_len(&self) -> usize {
        self.held.len()
    }

    /// True when no call is out and every report is acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.held.is_empty() && self.reports.is_empty()
    }

    // Towards the store.

    /// Asks the store and tells the number of the request; `None` when too much waits already. `now_us` is the host's
    /// monotonic clock.
    pub fn ask(&mut self, ask: Ask, now_us: u64) -> Option<u64> {
        if self.pending.len() >= PENDING_MAX || self.outbox.len() > OUTBOX_BYTES_MAX {
            return None;
        }
        let request = self.next_request;
        self.next_request += 1;
        let (sent, deadline_us) = (self.connected, now_us + STORE_TIMEOUT_US);
        if sent {
            ask.frame(request, deadline_us).encode(&mut self.outbox);
        }
        self.pending.insert(request, Pending { ask, sent, deadline_us });
        Some(request)
    }

    /// Its client has given the request up: it is not asked for, unless that has happened already.
    pub fn withdraw(&mut self, request: u64) {
        if self.pending.get(&request).is_some_and(|pending| !pending.sent) {
            self.pending.remove(&request);
        }
    }

    /// Tells the store something that it can do without: lost when there is none now.
    pub fn tell(&mut self, frame: &FromApi) {
        if self.connected {
            frame.encode(&mut self.outbox);
        }
    }

    /// Asks for no more leases, now and of every later store.
    pub fn drain(&mut self) {
        self.draining = true;
        self.tell(&FromApi::Drain);
    }

    /// A connection to a store is there: everything that it must know goes into the outbox, hello first.
    pub fn connect(&mut self, now_us: u64) {
        self.outbox.clear();
        let held = self.held.iter().map(|(attempt, held)| HeldAttempt {
            attempt: *attempt,
            age_ms: now_us.saturating_sub(held.since_us) / 1000,
        });
        let hello =
            FromApi::Hello { instance: self.instance, calls_max: self.calls_max, held: held.collect() };
        hello.encode(&mut self.outbox);
        if self.draining {
            FromApi::Drain.encode(&mut self.outbox);
        }
        for report in &self.reports {
            FromApi::Report(*report).encode(&mut self.outbox);
        }
        for (request, pending) in &mut self.pending {
            pending.ask.frame(*request, pending.deadline_us).encode(&mut self.outbox);
            pending.sent = true;
        }
        self.connected = true;
    }

    /// The connection is lost. Tells the requests that are over; the others wait for the next store.
    pub fn disconnect(&mut self) -> Vec<(u64, SendError)> {
        (self.connected, self.welcomed) = (false, false);
        self.outbox.clear();
        let over = self.pending.extract_if(.., |_, pending| pending.sent && !pending.ask.is_repeatable());
        over.map(|(request, _)| (request, SendError::Unknown)).collect()
    }

    /// Tells the requests that have waited for too long.
    pub fn expire(&mut self, now_us: u64) -> Vec<(u64, SendError)> {
        let mut over = Vec::new();
        while let Some(oldest) =
            self.pending.first_entry().filter(|oldest| oldest.get().deadline_us <= now_us)
        {
            let why = if oldest.get().sent { SendError::Unknown } else { SendError::NeverSent };
            over.push((*oldest.key(), why));
            oldest.remove();
        }
        over
    }

    // From the store.

    /// Takes a frame. `now_us` is the host's monotonic clock, which leases are on.
    pub fn take(&mut self, message: FromStore, now_us: u64) -> Taken {
        match message {
            FromStore::Welcome => {
                self.welcomed = true;
                Taken::Nothing
            }
            // No api asks for operations.
            FromStore::Operated { .. } | FromStore::Window { .. } | FromStore::Charges { .. } => {
                Taken::Nothing
            }
            FromStore::Accepted { request, .. }
            | FromStore::Summary { request, .. }
            | FromStore::Purged { request, .. }
            | FromStore::Metrics { request, .. } => match self.pending.remove(&request) {
                Some(_) => Taken::Reply(request, message),
                None => Taken::Nothing,
            },
            FromStore::Lease(lease) => self.take_lease(lease, now_us),
            FromStore::HealthLease { processor, begin_until_us } => {
                if now_us <= begin_until_us {
                    return Taken::Health(processor);
                }
                // Another api may have asked meanwhile: two calls within its window are one too many.
                self.tell(&FromApi::HealthReport { processor, health: Health::HandedBack });
                Taken::Nothing
            }
            FromStore::Acknowledge { sequence } => {
                let done = self.reports.partition_point(|report| report.sequence <= sequence);
                self.reports.drain(..done);
                Taken::Nothing
            }
        }
    }

    fn take_lease(&mut self, lease: Lease, now_us: u64) -> Taken {
        if lease.kind == CallKind::Post {
            let is_stale = lease.begin_until_us.is_some_and(|until_us| now_us > until_us);
            if is_stale || self.draining {
                self.report(&lease, Outcome::HandedBack, 0, 0);
                return Taken::Nothing;
            }
            self.held.insert(lease.attempt, Held { lease, since_us: now_us, is_overdue: false });
        }
        Taken::Call(lease)
    }

    // Calls.

    /// A call has come to its end.
    pub fn finish(&mut self, lease: &Lease, outcome: Outcome, status: u16, latency_us: u64) {
        self.held.remove(&lease.attempt);
        self.report(lease, outcome, status, latency_us);
    }

    /// Tells the store which calls are overdue. Returns those that the shell must close, oldest first: too many are.
    pub fn sweep(&mut self, now_us: u64) -> Vec<AttemptId> {
        let late = |held: &Held| !held.is_overdue && now_us.saturating_sub(held.since_us) > OVERDUE_US;
        let newly: Vec<Lease> = self.held.values().filter(|held| late(held)).map(|held| held.lease).collect();
        for lease in newly {
            let held = self.held.get_mut(&lease.attempt).expect("it was just found there");
            held.is_overdue = true;
            let latency_us = now_us.saturating_sub(held.since_us);
            self.report(&lease, Outcome::Overdue, 0, latency_us);
        }
        let overdue: Vec<Lease> =
            self.held.values().filter(|held| held.is_overdue).map(|held| held.lease).collect();
        let too_many = overdue.len().saturating_sub(OVERDUE_MAX);
        for lease in &overdue[..too_many] {
            self.finish(lease, Outcome::Lost, 0, OVERDUE_US);
        }
        overdue[..too_many].iter().map(|lease| lease.attempt).collect()
    }

    fn report(&mut self, lease: &Lease, outcome: Outcome, status: u16, latency_us: u64) {
        self.reported += 1;
        let report = Report {
            sequence: self.reported,
            attempt: lease.attempt,
            id: lease.id,
            processor: lease.processor,
            outcome,
            status,
            latency_us: u32::try_from(latency_us).unwrap_or(u32::MAX),
        };
        self.reports.push_back(report);
        self.tell(&FromApi::Report(report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Timestamp;
    use wire::frame::decode;

    fn said(desk: &mut Desk) -> Vec<FromApi> {
        let bytes = std::mem::take(desk.outbox());
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Some((frame, used)) = decode(rest).unwrap() {
            frames.push(frame);
            rest = &rest[used..];
        }
        frames
    }

    /// A lease that may begin until then, or whenever it comes.
    fn lease(number: u64, begin_until_us: Option<u64>) -> Lease {
        Lease {
            attempt: AttemptId(number),
            id: PaymentId(u128::from(number)),
            cents: Cents(1),
            processor: Processor::Default,
            requested_at: Timestamp::from_ms(1_000),
            kind: CallKind::Post,
            begin_until_us,
        }
    }

    fn outcomes(frames: &[FromApi]) -> Vec<(u64, Outcome)> {
        let reports = frames.iter().filter_map(|frame| match frame {
            FromApi::Report(report) => Some((report.attempt.0, report.outcome)),
            _ => None,
        });
        reports.collect()
    }

    #[test]
    fn a_request_outlives_the_store_but_not_a_second() {
        let mut desk = Desk::new(1, 10);
        let first = desk.ask(Ask::Accept(PaymentId(1), Cents(2)), 0).unwrap();
        assert!(said(&mut desk).is_empty());
        desk.connect(100);
        assert_eq!(said(&mut desk).len(), 2, "hello and the request");
        let second = desk.ask(Ask::Purge, 200).unwrap();
        assert_eq!(desk.disconnect(), [(second, SendError::Unknown)], "a purge is not sent twice");
        let third = desk.ask(Ask::Accept(PaymentId(2), Cents(2)), 300).unwrap();
        assert_eq!(desk.expire(STORE_TIMEOUT_US - 1), []);
        assert_eq!(desk.expire(STORE_TIMEOUT_US), [(first, SendError::Unknown)]);
        assert_eq!(desk.expire(2 * STORE_TIMEOUT_US), [(third, SendError::NeverSent)]);
    }

    #[test]
    fn a_purge_says_until_when_its_client_is_held_and_can_be_withdrawn_until_it_is_sent() {
        let mut desk = Desk::new(1, 10);
        let withdrawn = desk.ask(Ask::Purge, 0).unwrap();
        let request = desk.ask(Ask::Purge, 7).unwrap();
        desk.withdraw(withdrawn);
        desk.connect(100);
        assert_eq!(
            said(&mut desk)[1..],
            [FromApi::Purge { request, asked_us: 7, deadline_us: 7 + STORE_TIMEOUT_US }]
        );
        desk.withdraw(request);
        assert_eq!(desk.expire(7 + STORE_TIMEOUT_US), [(request, SendError::Unknown)], "it was sent");
    }

    #[test]
    fn reports_are_delivered_again_until_they_are_acknowledged() {
        let mut desk = Desk::new(1, 10);
        desk.connect(0);
        for number in 1..=3 {
            assert_eq!(
                desk.take(FromStore::Lease(lease(number, Some(50))), 0),
                Taken::Call(lease(number, Some(50)))
            );
        }
        desk.finish(&lease(1, Some(50)), Outcome::Charged, 200, 5);
        desk.finish(&lease(2, Some(50)), Outcome::Lost, 0, 5);
        desk.take(FromStore::Acknowledge { sequence: 1 }, 0);
        desk.disconnect();
        desk.connect(7_000);
        let frames = said(&mut desk);
        let held = vec![HeldAttempt { attempt: AttemptId(3), age_ms: 7 }];
        assert_eq!(frames[0], FromApi::Hello { instance: 1, calls_max: 10, held });
        assert_eq!(outcomes(&frames), [(2, Outcome::Lost)]);
        assert!(!desk.is_settled());
    }

    #[test]
    fn a_stale_lease_and_one_that_comes_while_draining_are_handed_back() {
        let mut desk = Desk::new(1, 10);
        desk.connect(0);
        assert_eq!(desk.take(FromStore::Lease(lease(1, Some(50))), 51), Taken::Nothing);
        assert!(
            matches!(desk.take(FromStore::Lease(lease(2, None)), 9_999), Taken::Call(_)),
            "an old time is old"
        );
        desk.drain();
        assert_eq!(desk.take(FromStore::Lease(lease(3, None)), 0), Taken::Nothing);
        assert_eq!(outcomes(&said(&mut desk)), [(1, Outcome::HandedBack), (3, Outcome::HandedBack)]);
    }

    #[test]
    fn a_store_is_there_once_it_has_said_welcome() {
        let mut desk = Desk::new(1, 10);
        desk.connect(0);
        assert!(!desk.is_welcomed());
        desk.take(FromStore::Welcome, 0);
        assert!(desk.is_welcomed());
        desk.disconnect();
        assert!(!desk.is_welcomed());
    }

    #[test]
    fn a_hello_lists_overdue_calls_as_well() {
        let mut desk = Desk::new(1, 10);
        desk.connect(0);
        desk.take(FromStore::Lease(lease(1, None)), 0);
        desk.sweep(OVERDUE_US + 1);
        desk.disconnect();
        desk.connect(OVERDUE_US + 1);
        let FromApi::Hello { held, .. } = &said(&mut desk)[0] else { panic!("hello comes first") };
        assert_eq!(held[..], [HeldAttempt { attempt: AttemptId(1), age_ms: CALL_OVERDUE_MS }]);
    }

    #[test]
    fn a_stale_lease_of_a_health_call_is_handed_back() {
        let processor = Processor::Default;
        let mut desk = Desk::new(1, 10);
        desk.connect(0);
        said(&mut desk);
        let lease = FromStore::HealthLease { processor, begin_until_us: 1_000 };
        assert_eq!(desk.take(lease.clone(), 1_000), Taken::Health(processor));
        assert_eq!(desk.take(lease, 1_001), Taken::Nothing);
        assert_eq!(said(&mut desk), [FromApi::HealthReport { processor, health: Health::HandedBack }]);
    }

    #[test]
    fn an_overdue_call_is_told_once_and_the_oldest_of_too_many_is_closed() {
        let mut desk = Desk::new(1, 1_000);
        desk.connect(0);
        let count = OVERDUE_MAX as u64 + 1;
        for number in 1..=count {
            desk.take(FromStore::Lease(lease(number, None)), number);
        }
        assert!(desk.sweep(OVERDUE_US).is_empty());
        assert_eq!(desk.sweep(OVERDUE_US + count + 1), [AttemptId(1)]);
        assert!(desk.sweep(OVERDUE_US + count + 2).is_empty());
        let told = outcomes(&said(&mut desk));
        assert_eq!(told.iter().filter(|(_, outcome)| *outcome == Outcome::Overdue).count() as u64, count);
        assert_eq!(told.last(), Some(&(1, Outcome::Lost)));
        // Its answer is still welcome.
        desk.finish(&lease(2, None), Outcome::Charged, 200, 40_000_000);
        assert_eq!(outcomes(&said(&mut desk)), [(2, Outcome::Charged)]);
    }
}
