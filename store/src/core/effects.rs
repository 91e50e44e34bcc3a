//! What a turn of the core brings about, besides changing memory: records for the log, frames for the apis, lines for
//! the log of the process, and counts for the metrics. All of it is data; the shell carries it out.

use super::clock::ClockChange;
use super::event::{ApiId, Room};
use super::router::{REFUSALS_MAX, State, Why};
use std::fmt;
use wire::frame::{FromStore, Operation, Outcome};
use wire::{PerProcessor, Processor};

/// One line for the log of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An api introduced itself.
    ApiJoined {
        /// Which one.
        api: ApiId,
        /// Calls it still waits for.
        held: usize,
    },
    /// An api is gone, with so many calls that are unknown now.
    ApiLeft {
        /// Which one.
        api: ApiId,
        /// Its open calls.
        unknown: usize,
    },
    /// The router thinks otherwise of a processor.
    Believed {
        /// Which one.
        processor: Processor,
        /// Before.
        from: State,
        /// Now.
        to: State,
        /// The delay it believes in, in milliseconds.
        delay_ms: u64,
        /// Payments that wait.
        queue_len: u64,
        /// What it thinks so from.
        why: Why,
    },
    /// A processor turned a payment down in a way that people should look at.
    Alarm {
        /// Which one.
        processor: Processor,
        /// The payment.
        id: wire::PaymentId,
        /// What it said.
        outcome: Outcome,
        /// The status of its answer.
        status: u16,
    },
    /// A processor refuses whatever it gets.
    RefusesAll {
        /// Which one.
        processor: Processor,
        /// The status of its last refusal.
        status: u16,
    },
    /// The wall clock jumped.
    Clock(ClockChange),
    /// An operator decided.
    Operated(Operation),
    /// Something was refused because its asker had given up.
    Late {
        /// What it was.
        what: &'static str,
    },
    /// The log has more room, or less.
    Room(Room),
    /// Everything was forgotten.
    Purged {
        /// What may still be charged.
        tombstones: usize,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiJoined { api, held } => write!(f, "api {} joined, {held} calls still open", api.0),
            Self::ApiLeft { api, unknown } => write!(f, "api {} left, {unknown} attempts unknown", api.0),
            Self::Believed { processor, from, to, delay_ms, queue_len, why } => {
                write!(f, "{processor}: {from} -> {to}, delay {delay_ms} ms, queue {queue_len}: {why}")
            }
            Self::Alarm { processor, id, outcome, status } => {
                write!(f, "alarm: {processor} answered {status} ({outcome:?}) for {id}")
            }
            Self::RefusesAll { processor, status } => write!(
                f,
                "alarm: {processor} has refused {REFUSALS_MAX} different payments in a row, the last with {status}, and \
                 charged none: it counts as failing; look at its set-up"
            ),
            Self::Clock(ClockChange::Doubted(ms)) => {
                write!(
                    f,
                    "alarm: the wall clock jumped by {ms} ms; requestedAt goes on without it for a minute"
                )
            }
            Self::Clock(ClockChange::Followed(ms)) => {
                write!(f, "alarm: the wall clock has stayed {ms} ms off for a minute: requestedAt follows it")
            }
            Self::Clock(ClockChange::Back) => write!(f, "the wall clock is back where it should be"),
            Self::Late { what } => {
                write!(f, "{what} was refused: it came after its deadline, when its asker had given up")
            }
            Self::Operated(operation) => write!(f, "an operator decided: {operation:?}"),
            Self::Room(Room::Ample) => write!(f, "the log has room: payments are accepted"),
            Self::Room(Room::NoAccepts) => {
                write!(f, "alarm: LOG_DIR is full: new payments are refused with 503 until there is room")
            }
            Self::Room(Room::NoIntents) => {
                write!(
                    f,
                    "alarm: LOG_DIR is full: payments are neither accepted nor settled until there is room"
                )
            }
            Self::Purged { tombstones } => write!(f, "purged, {tombstones} tombstones"),
        }
    }
}

/// What a turn brings about.
#[derive(Debug, Default)]
pub struct Effects {
    /// Encoded records, to be appended before anything is sent.
    pub records: Vec<u8>,
    /// How many records that is.
    pub records_len: u32,
    /// Frames to send once the records are as durable as the mode demands.
    pub sends: Vec<(ApiId, FromStore)>,
    /// Lines for the log of the process.
    pub notes: Vec<Note>,
    /// Connections to close: their peer broke the protocol.
    pub hang_ups: Vec<ApiId>,
}

/// Counts since the start of the process, for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Accepts by what became of them, in the order of [`wire::frame::Accepted`].
    pub accepts: [u64; 4],
    /// Leases by processor.
    pub leases: PerProcessor<u64>,
    /// Inquiries by processor.
    pub inquiries: PerProcessor<u64>,
    /// Reports of each kind of outcome, by processor.
    pub reports: PerProcessor<[u64; Outcome::NAMES.len()]>,
    /// Health calls leased, by processor.
    pub health_calls: PerProcessor<u64>,
    /// Purges.
    pub purges: u64,
    /// Purges that came after their deadline.
    pub purges_refused: u64,
    /// Alarms raised.
    pub alarms: u64,
    /// What operators decided.
    pub operations: u64,
}
