//! A payment processor in simulated time, as docs/contract.md has it: limiter, delay read on arrival, failure flag read
//! after it, a database with one exit, one health call in a window.
//!
//! It keeps what an audit needs to know of each row: when it was stamped, recorded, and told to the store.

use std::collections::VecDeque;
use wire::frame::{AttemptId, Health};
use wire::{PaymentId, Processor as Name};

use contest::rules::{RUNNING_MAX, WAITING_MAX};

/// What the database takes for a payment when undisturbed.
const SERVICE_US: u64 = 1_000;

/// Between two recordings: 5,000 payments a second, of the "some thousands" that a real one gets through.
pub(super) const RECORD_GAP_US: u64 = 200;

/// One health call in so long.
const HEALTH_WINDOW_US: u64 = 5_000_000;

/// A payment on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) processor: Name,
    pub(super) attempt: AttemptId,
    pub(super) id: PaymentId,
    pub(super) api: usize,
    /// Its `requestedAt`, in milliseconds since the start.
    pub(super) requested_ms: u64,
    /// When the api began it.
    pub(super) begun_us: u64,
}

/// One recorded payment; all times since the start.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its `requestedAt`, in milliseconds.
    pub requested_ms: u64,
    /// When its call was begun.
    pub begun_us: u64,
    /// When it was recorded.
    pub recorded_us: u64,
    /// When the store heard of that.
    pub reported_us: u64,
}

/// What happens to a call whose delay is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// 500, at once.
    Failed,
    /// It is recorded at that time.
    RecordedAt(u64),
}

/// One processor.
#[derive(Debug, Default)]
pub(super) struct Processor {
    pub(super) delay_us: u64,
    pub(super) failing: bool,
    running: usize,
    waiting: VecDeque<Call>,
    last_exit_us: u64,
    window_us: Option<u64>,
    pub(super) rows: Vec<Row>,
}

impl Processor {
    /// A call arrives: it runs at once (true), waits (false), or is turned away.
    pub(super) fn arrive(&mut self, call: Call) -> Result<bool, ()> {
        if self.running < RUNNING_MAX {
            self.running += 1;
            return Ok(true);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Err(());
        }
        self.waiting.push_back(call);
        Ok(false)
    }

    /// The delay of a call is over.
    pub(super) fn execute(&mut self, now_us: u64) -> Done {
        if self.failing {
            return Done::Failed;
        }
        self.last_exit_us = (now_us + SERVICE_US).max(self.last_exit_us + RECORD_GAP_US);
        Done::RecordedAt(self.last_exit_us)
    }

    /// A call leaves the limiter; gives the one that runs instead.
    pub(super) fn leave(&mut self) -> Option<Call> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.running -= 1;
        }
        next
    }

    /// When a health call that arrives now is answered.
    pub(super) fn take_window(&mut self, now_us: u64) -> u64 {
        let at = match self.window_us {
            None => now_us,
            Some(taken) if now_us < taken + HEALTH_WINDOW_US => taken + HEALTH_WINDOW_US,
            Some(taken) => now_us - (now_us - taken) % HEALTH_WINDOW_US,
        };
        self.window_us = Some(at);
        at.max(now_us)
    }

    /// What it says of itself.
    pub(super) fn health(&self) -> Health {
        let min_response_ms = u32::try_from(self.delay_us / 1_000).expect("DELAY_MAX is a minute");
        Health::Answered { failing: self.failing, min_response_ms }
    }

    /// Rows stamped within both ends, as a reader at `now_us` sees them. Rows stand in the order of their recording, and
    /// none is recorded before it is stamped.
    pub(super) fn rows_within(&self, from_ms: u64, to_ms: u64, now_us: u64) -> impl Iterator<Item = &Row> {
        let reached = move |row: &&Row| row.recorded_us >= from_ms * 1_000;
        let seen =
            move |row: &&Row| row.recorded_us <= now_us && (from_ms..=to_ms).contains(&row.requested_ms);
        self.rows.iter().rev().take_while(reached).filter(seen)
    }
}
