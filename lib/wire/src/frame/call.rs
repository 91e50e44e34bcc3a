//! Calls to processors: the right to make one, and what became of it.

use super::bytes::{Fields, FrameError};
use crate::{Cents, PaymentId, Processor, Timestamp};
use bytes::BufMut;

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

/// What became of an attempt, as far as its own api can prove it (docs/money.md).
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

impl Outcome {
    /// A name for each kind of outcome, at its [index](Self::index).
    pub const NAMES: [&str; 13] = [
        "charged",
        "duplicate",
        "found",
        "absent",
        "busy",
        "failing",
        "unreachable",
        "handed_back",
        "refused",
        "misaddressed",
        "unclear",
        "lost",
        "overdue",
    ];

    /// One of each kind, at its [index](Self::index).
    const ALL: [Self; 13] = [
        Self::Charged,
        Self::Duplicate,
        Self::Found { requested_at: Timestamp(0), cents: Cents(0) },
        Self::Absent,
        Self::Busy,
        Self::Failing,
        Self::Unreachable,
        Self::HandedBack,
        Self::Refused,
        Self::Misaddressed,
        Self::Unclear,
        Self::Lost,
        Self::Overdue,
    ];

    /// The number of this kind, in frames and in [`Self::NAMES`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Charged => 0,
            Self::Duplicate => 1,
            Self::Found { .. } => 2,
            Self::Absent => 3,
            Self::Busy => 4,
            Self::Failing => 5,
            Self::Unreachable => 6,
            Self::HandedBack => 7,
            Self::Refused => 8,
            Self::Misaddressed => 9,
            Self::Unclear => 10,
            Self::Lost => 11,
            Self::Overdue => 12,
        }
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.put_u8(u8::try_from(self.index()).expect("there are 13"));
        if let Self::Found { requested_at, cents } = self {
            out.put_i64_le(requested_at.0);
            out.put_i64_le(cents.0);
        }
    }

    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, FrameError> {
        match Self::ALL.get(usize::from(fields.u8()?)) {
            Some(Self::Found { .. }) => {
                Ok(Self::Found { requested_at: fields.time()?, cents: fields.amount()? })
            }
            Some(plain) => Ok(*plain),
            None => fields.broken(),
        }
    }
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
    /// 429: another client asked within the window.
    Busy,
    /// No usable answer in time.
    Unanswered,
    /// The api never began: the lease was stale.
    HandedBack,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_stands_at_its_index() {
        let indexes: Vec<usize> = Outcome::ALL.iter().map(|outcome| outcome.index()).collect();
        assert_eq!(indexes, (0..Outcome::NAMES.len()).collect::<Vec<_>>());
    }
}
