//! Where the next payment goes: the default processor now, the fallback now, or nowhere yet.
//!
//! It believes two things about each processor, and learns both from every answer: whether it works (a circuit
//! breaker: closed while the last answer was good, open since the last bad one) and how long it takes (a smoothed
//! time with its deviation, as TCP keeps one: RFC 6298). The age of the oldest call without an answer is a lower bound
//! of the delay that is known before any answer is, so a processor that stalls gets no more calls within
//! milliseconds. A call older than the watermark (the youngest call that was answered, or all that were out when a
//! health call brought good news) says nothing any more about the delay, neither by its silence nor by its answer.
//!
//! ```text
//!   usable    circuit closed, and delay + GUARD_MS within the audit margin
//!   stalled   its oldest call is older than its answers have been: wait for the answer, with a canary now and then
//!   slow      circuit closed, delay beyond the margin: late, if at all
//!   failing   circuit open: canaries (live payments) find out when it works again
//! ```
//!
//! A processor that refuses [`REFUSALS_MAX`] different payments in a row fails as well, until it charges one.
//!
//! A canary whose answer may come after the margin goes out only when the cut-offs are known and it is clear of them
//! (`cutoff`); else the health call decides, and when that is silent too, or has decided for ANSWERS_SILENT_MS, a canary each
//! BLIND_INTERVAL_MS does.
//!
//! Policy ([`Router::route`]), in this order; docs/routing.md has the figures behind it.
//! 1. The processor with the lower fee, while it is usable and has room; late, if that is worthwhile.
//! 2. Wait for it, because a payment settled late costs nothing and one settled at the dear processor costs the
//!    difference of the fees: as many payments as are worth holding (`hold_max`), and more of them for `hold_timeout_ms`,
//!    but never more than may be lost (`risk_max`).
//! 3. The dear processor, for what is beyond that, and a canary now and then that shows whether it could.
//! 4. When neither answers within the margin for a while (`is_late_time`): one of the slow ones, late.
//!
//! When payments stop coming (`Arrivals`) the end may be near: then nothing is worth holding, and no pace is kept.

mod admission;
mod arrivals;
mod belief;
mod config;
mod health;
mod late;
mod pace;
mod policy;
mod recent;

use super::calls::Calls;
use super::cutoff::Cutoffs;
use arrivals::Arrivals;
use belief::Belief;
pub use belief::REFUSALS_MAX;
pub use belief::{State, Why};
pub use config::{DISPATCH_PER_S, LATE_AFTER_MS, OPEN_MAX, RouterConfig};
use pace::Pace;
use recent::Recent;
use wire::frame::{Outcome, Report};
use wire::{PaymentId, PerProcessor, Processor};

/// A call that was left behind is over after its processor's delay and this much.
const LEFT_GUARD_MS: u64 = 1_000;

/// Where the cap on open calls starts to grow again after a 429.
const OPEN_MIN: usize = 8;

/// What to do with the oldest waiting payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Send it there.
    To(Processor),
    /// Nothing now.
    Wait,
}

/// The beliefs and the pace.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    beliefs: PerProcessor<Belief>,
    pace: Pace,
    arrivals: Arrivals,
    cutoffs: Cutoffs,
    /// Payments accepted.
    accepts: Recent,
    /// Payments charged at the dear processor, and how many of them before the cheap one went away.
    dear: Recent,
    dear_before: u64,
    /// Since when more waits than is worth holding, without an end.
    excess_since_us: Option<u64>,
}

impl Router {
    /// A router that thinks well of both.
    #[must_use]
    pub fn new(config: RouterConfig, now_us: u64) -> Self {
        let open_max = config.open_max.clamp(1, OPEN_MAX);
        Self {
            config: RouterConfig { open_max, ..config },
            beliefs: PerProcessor::from_fn(|_| Belief::new(open_max, now_us)),
            pace: Pace::new(config.dispatch_per_s, now_us),
            arrivals: Arrivals::new(config.silence_ms * 1000, now_us),
            cutoffs: Cutoffs::default(),
            accepts: Recent::new(now_us),
            dear: Recent::new(now_us),
            dear_before: 0,
            excess_since_us: None,
        }
    }

    /// A turn in which the number of payments ever accepted has become `accepts`, and that of those charged `charges`.
    pub fn note_turn(&mut self, accepts: u64, charges: PerProcessor<u64>, now_us: u64) {
        self.arrivals.note(accepts, now_us);
        self.accepts.note(accepts, now_us);
        self.dear.note(charges[self.config.preferred.other()], now_us);
        // A purge begins anew, and what is longer ago than the window does not count.
        self.dear_before = self.dear_before.clamp(self.dear.before(), self.dear.total());
    }

    /// A client compares the books: it asked for a summary with both bounds.
    pub fn note_comparison(&mut self, now_us: u64) {
        self.cutoffs.note(now_us);
    }

    /// The delay it believes in, in microseconds.
    #[must_use]
    pub fn delay_us(&self, processor: Processor) -> u64 {
        self.beliefs[processor].delay_us
    }

    /// The state that was last told.
    #[must_use]
    pub fn shown(&self, processor: Processor) -> State {
        self.beliefs[processor].shown
    }

    /// True when a payment `waits` and may be dispatched now: no payment has just been accepted, or the wait was long enough.
    pub fn is_time(&mut self, waits: bool, now_us: u64) -> bool {
        if !waits {
            self.pace.defer_nothing();
        }
        waits && self.pace.is_time(self.arrivals.accept_us, now_us)
    }

    /// In how long it wants to be asked again whether [it is time](Self::is_time), in microseconds; `None` when nothing
    /// waits for that.
    #[must_use]
    pub fn asks_again_in_us(&self) -> Option<u64> {
        self.pace.is_deferring().then_some(pace::QUIET_US)
    }

    /// Takes a token of the pace. False when the pace forbids a dispatch now.
    pub fn take_token(&mut self, now_us: u64) -> bool {
        // The pace protects clients that are being answered. When payments have stopped, there are none.
        self.arrivals.have_stopped() || self.pace.take_token(now_us)
    }

    /// A payment goes out.
    pub fn on_dispatch(&mut self, processor: Processor, now_us: u64) {
        self.beliefs[processor].last_dispatch_us = Some(now_us);
    }

    /// The api that waited for a call is gone; the processor knows nothing of that.
    pub fn on_left(&mut self, processor: Processor, since_us: u64) {
        self.beliefs[processor].left_us.push(since_us);
    }

    /// An api came back that still waits for a call which was taken for left behind.
    pub fn on_claimed(&mut self, processor: Processor) {
        self.beliefs[processor].left_us.pop();
    }

    /// True while a processor's last answer was bad.
    #[must_use]
    pub fn has_open_circuit(&self, processor: Processor) -> bool {
        self.beliefs[processor].circuit_open
    }

    /// A processor has refused this payment for good, which the other one has not: that may be about the processor.
    pub fn note_refusal(&mut self, processor: Processor, id: PaymentId) {
        self.beliefs[processor].note_refusal(id);
    }

    /// True while a processor refuses whatever it gets: then a refusal says nothing about the payment.
    #[must_use]
    pub fn refuses_all(&self, processor: Processor) -> bool {
        self.beliefs[processor].refuses_all()
    }

    /// A call to a processor came to an end.
    pub fn on_report(&mut self, report: &Report, now_us: u64) {
        let belief = &mut self.beliefs[report.processor];
        let latency_us = u64::from(report.latency_us);
        belief.heard = Why::Answered { outcome: report.outcome, latency_ms: latency_us / 1000 };
        match report.outcome {
            Outcome::Charged | Outcome::Duplicate | Outcome::Refused => {
                belief.take_answer(report.attempt, latency_us, now_us);
                if report.outcome != Outcome::Refused {
                    belief.note_charge();
                }
                belief.circuit_open = belief.refuses_all();
                belief.good_since_cap += 1;
                if belief.good_since_cap >= belief.calls_cap && belief.calls_cap < self.config.open_max {
                    belief.calls_cap += 1;
                    belief.good_since_cap = 0;
                }
            }
            Outcome::Failing | Outcome::Unclear => {
                belief.take_answer(report.attempt, latency_us, now_us);
                belief.circuit_open = true;
            }
            Outcome::Unreachable | Outcome::Lost | Outcome::Misaddressed => belief.circuit_open = true,
            Outcome::Busy => {
                // A processor that turns down even the fewest has no capacity at all: that is failing.
                belief.circuit_open |= belief.calls_cap <= OPEN_MIN && belief.good_since_cap == 0;
                belief.calls_cap = (belief.calls_cap * 3 / 4).max(OPEN_MIN.min(self.config.open_max));
                belief.good_since_cap = 0;
            }
            Outcome::Found { .. } | Outcome::Absent | Outcome::HandedBack | Outcome::Overdue => (),
        }
    }

    /// Remembers since when a processor has been of no use, and forgets what is over.
    fn note_usability(&mut self, calls: &Calls, now_us: u64) {
        for processor in Processor::BOTH {
            let is_useful = self.is_useful(processor, calls, now_us);
            let belief = &mut self.beliefs[processor];
            let over_us = belief.delay_us + 4 * belief.deviation_us + LEFT_GUARD_MS * 1000;
            belief.left_us.retain(|since_us| now_us < since_us + over_us);
            if is_useful {
                belief.unusable_since_us = None;
                belief.useful_since_us = belief.useful_since_us.or(Some(now_us));
            } else if belief.unusable_since_us.is_none() {
                belief.unusable_since_us = Some(now_us);
                belief.useful_since_us = None;
                // What there was of timeout belongs to the outage before.
                self.excess_since_us = self.excess_since_us.filter(|_| processor != self.config.preferred);
                if processor == self.config.preferred {
                    self.dear_before = self.dear.total();
                }
            }
        }
    }

    /// The states that changed since the last call, for the log.
    pub fn changes(&mut self, calls: &Calls, now_us: u64) -> Vec<(Processor, State, State)> {
        let mut changes = Vec::new();
        for processor in Processor::BOTH {
            let state = self.state(processor, calls, now_us);
            let shown = &mut self.beliefs[processor].shown;
            // A stall is part of daily life; it is told when it grows into something else.
            if state != *shown && state != State::Stalled {
                changes.push((processor, *shown, state));
                *shown = state;
            }
        }
        changes
    }
}
