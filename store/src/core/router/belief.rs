//! What the router believes of one processor, and what from.
//!
//! A delay is smoothed with its deviation, as TCP keeps a round trip; `watermark` is the youngest call that says something
//! about it, so that a call which stays out for ever does not hold the others back.

use crate::core::calls::Calls;
use std::fmt;
use wire::frame::{AttemptId, Outcome};
use wire::{PaymentId, Processor};

/// With so many different payments refused for good in a row, and none charged between, it is the processor that is wrong, not
/// the payments: five faulty ones in a row are rarer than a processor that is set up wrongly.
pub const REFUSALS_MAX: usize = 5;

/// No health call so soon after a start: the store before may just have made one.
const HEALTH_QUIET_MS: u64 = 5_000;

/// What the router thinks of a processor, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It works and is fast enough.
    Usable,
    /// Its answers are overdue.
    Stalled,
    /// It works, too slowly for the audit.
    Slow,
    /// Its last answer was bad.
    Failing,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usable => "usable",
            Self::Stalled => "stalled",
            Self::Slow => "slow",
            Self::Failing => "failing",
        })
    }
}

/// What the router has its belief of a processor from, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing was heard of it yet.
    Unheard,
    /// Its last answer.
    Answered {
        /// What it said.
        outcome: Outcome,
        /// How long it took.
        latency_ms: u64,
    },
    /// Its oldest call is out without an answer for so many milliseconds, longer than its answers have taken.
    Unanswered(u64),
    /// Its own word in a health call.
    Health {
        /// Whether it fails.
        failing: bool,
        /// Its delay.
        delay_ms: u64,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unheard => f.write_str("nothing was heard of it"),
            Self::Answered { outcome, latency_ms } => {
                write!(f, "its last answer was {outcome:?} after {latency_ms} ms")
            }
            Self::Unanswered(age_ms) => write!(f, "its oldest call has no answer for {age_ms} ms"),
            Self::Health { failing, delay_ms } => {
                let word = if *failing { "fails" } else { "works" };
                write!(f, "it says that it {word} with a delay of {delay_ms} ms")
            }
        }
    }
}

/// All that is remembered of a processor.
#[derive(Debug)]
pub(super) struct Belief {
    pub(super) circuit_open: bool,
    pub(super) delay_us: u64,
    pub(super) deviation_us: u64,
    pub(super) last_answer_us: u64,
    /// When the youngest call began that was answered.
    pub(super) answered_begun_us: u64,
    /// Since when it has been of use, if it is.
    pub(super) useful_since_us: Option<u64>,
    /// Calls up to this one do not count as late.
    pub(super) watermark: AttemptId,
    pub(super) last_dispatch_us: Option<u64>,
    pub(super) unusable_since_us: Option<u64>,
    pub(super) calls_cap: usize,
    pub(super) good_since_cap: usize,
    /// When the calls began that dead apis left behind and that may still run there.
    pub(super) left_us: Vec<u64>,
    pub(super) health_next_us: u64,
    pub(super) health_heard_us: u64,
    pub(super) health_out_since_us: Option<u64>,
    /// Different payments that it has refused for good since it last charged one, up to [`REFUSALS_MAX`].
    pub(super) refused: Vec<PaymentId>,
    pub(super) heard: Why,
    pub(super) shown: State,
}

impl Belief {
    /// The best is thought of it until it is heard.
    pub(super) fn new(open_max: usize, started_us: u64) -> Self {
        Self {
            circuit_open: false,
            delay_us: 0,
            deviation_us: 0,
            last_answer_us: 0,
            answered_begun_us: 0,
            useful_since_us: Some(started_us),
            watermark: AttemptId(0),
            last_dispatch_us: None,
            unusable_since_us: None,
            calls_cap: open_max,
            good_since_cap: 0,
            left_us: Vec::new(),
            health_next_us: started_us + HEALTH_QUIET_MS * 1000,
            health_heard_us: started_us,
            health_out_since_us: None,
            refused: Vec::new(),
            heard: Why::Unheard,
            shown: State::Usable,
        }
    }

    /// It has refused this payment for good.
    pub(super) fn note_refusal(&mut self, id: PaymentId) {
        if !self.refuses_all() && !self.refused.contains(&id) {
            self.refused.push(id);
        }
    }

    /// It has charged a payment.
    pub(super) fn note_charge(&mut self) {
        self.refused.clear();
    }

    /// It refuses whatever it gets.
    pub(super) fn refuses_all(&self) -> bool {
        self.refused.len() >= REFUSALS_MAX
    }

    /// RFC 6298 with a gain of a quarter, because delays here change in steps.
    pub(super) fn take_answer(&mut self, attempt: AttemptId, delay_us: u64, now_us: u64) {
        self.last_answer_us = now_us;
        self.answered_begun_us = self.answered_begun_us.max(now_us.saturating_sub(delay_us));
        if attempt <= self.watermark {
            return;
        }
        self.watermark = attempt;
        if delay_us < self.delay_us / 2 {
            // No call takes less than the delay that it met: this is no sample, it is a fact.
            (self.delay_us, self.deviation_us) = (delay_us, 0);
            return;
        }
        self.deviation_us = (self.deviation_us * 3 + self.delay_us.abs_diff(delay_us)) / 4;
        self.delay_us = (self.delay_us * 3 + delay_us) / 4;
    }

    /// How long its oldest call that counts as late is out, 0 without one.
    pub(super) fn oldest_age_us(&self, calls: &Calls, processor: Processor, now_us: u64) -> u64 {
        calls.oldest_since_us(processor, self.watermark).map_or(0, |since| now_us.saturating_sub(since))
    }
}
