//! Where the next payment goes: the default processor now, the fallback now, or nowhere yet.
//!
//! It believes two things about each processor, and learns both from every answer: whether it works (a circuit
//! breaker: closed while the last answer was good, open since the last bad one) and how long it takes (a smoothed
//! time with its deviation, as TCP keeps one: RFC 6298). The age of the oldest call without an answer is a lower bound
//! of the delay that is known before any answer is, so a processor that stalls gets no more calls within
//! milliseconds. A call older than the watermark (the youngest call that was answered, or all that were out when a
//! health call brought good news) says nothing any more: it is lost, not late.
//!
//! ```text
//!   usable    circuit closed, and delay + GUARD_MS within the audit margin
//!   stalled   its oldest call is older than its answers have been: wait for the answer, with a canary now and then
//!   slow      circuit closed, delay beyond the margin: only a health call can tell that it is fast again
//!   failing   circuit open: a canary (a live payment) each CANARY_INTERVAL_MS finds out when it works again, while
//!             its delay is inside the margin; beyond it the health call decides, and when that is silent too, a canary
//!             each BLIND_INTERVAL_MS
//! ```
//!
//! Policy: the processor with the lower fee while it is usable; while it is not, wait for it up to `patience_ms`,
//! because a payment settled late costs nothing and one settled at the dear processor costs the difference of the fees;
//! after that the dear one. When both answer beyond the margin, the cheap one, late.

use super::calls::Calls;
use std::fmt;
use wire::frame::{AttemptId, Health, Outcome, Report};
use wire::{PerProcessor, Processor};

/// Between two canaries to one processor (DESIGN.md, router).
const CANARY_INTERVAL_MS: u64 = 100;

/// How many canaries one processor may owe an answer.
const CANARIES_OPEN_MAX: usize = 4;

/// A canary that takes its delay and this much more must still be inside the audit margin.
const CANARY_GUARD_MS: u64 = 300;

/// What a payment's way to the processor and back to the summary takes beyond the processor's delay, at the worst.
const GUARD_MS: u64 = 150;

/// A call is late when it is this much older than `delay + 4 * deviation`: above a scheduling hiccup of a busy machine.
const STALL_SLACK_MS: u64 = 25;

/// Calls that may be open at a processor, over all apis: half its 800 permits, because a purge or a restart of ours
/// may leave as many again behind that we no longer count.
pub const OPEN_MAX: usize = 400;

/// Where the cap on open calls starts to grow again after a 429.
const OPEN_MIN: usize = 8;

/// Between two canaries to a processor of which neither calls nor health calls tell anything.
const BLIND_INTERVAL_MS: u64 = 2_000;

/// Two health calls that brought nothing, and some: then health calls are no help.
const HEALTH_SILENT_MS: u64 = 12_000;

/// Between two health calls to one processor; counted at sending (CONTRACT section 2: one each 5 s, whoever asks).
const HEALTH_INTERVAL_MS: u64 = 5_200;

/// A health call without an answer for so long is given up: the processor holds it for at most two windows.
const HEALTH_PATIENCE_MS: u64 = 16_000;

/// No health call so soon after a start: the store before may just have made one.
const HEALTH_QUIET_MS: u64 = 5_000;

/// Tokens of the pacer: so many dispatches may follow each other at once.
const PACE_BURST: f64 = 32.0;

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct RouterConfig {
    /// A payment should be charged and counted within this time of its `requestedAt`, in milliseconds.
    pub audit_margin_ms: u64,
    /// The processor with the lower fee.
    pub preferred: Processor,
    /// How long payments wait for the preferred processor before the other one gets them, in milliseconds.
    pub patience_ms: u64,
    /// Dispatches a second while a queue drains.
    pub dispatch_per_s: u32,
    /// Calls open at one processor, at most [`OPEN_MAX`].
    pub open_max: usize,
}

/// What waiting is worth. A payment that waits is lost if everything ends before the cheap processor is back; one that
/// does not costs the difference of the fees. If the end comes without notice once in 250 s on average, waiting for one
/// more second costs 1/250 of the payment, so it pays while the wait is below 250 s times the difference.
const PATIENCE_MS_PER_PERCENT: f64 = 2_500.0;

impl RouterConfig {
    /// The reasoned settings for processors that keep so many percent of a payment.
    #[must_use]
    pub fn for_fees(fee_percent: PerProcessor<f64>, audit_margin_ms: u64) -> Self {
        let [default, fallback] = fee_percent.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 250,000")]
        let patience_ms = ((fallback - default).abs() * PATIENCE_MS_PER_PERCENT) as u64;
        Self {
            audit_margin_ms,
            preferred: if fallback < default { Processor::Fallback } else { Processor::Default },
            patience_ms,
            dispatch_per_s: 2_000,
            open_max: OPEN_MAX,
        }
    }
}

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

/// What to do with the oldest waiting payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Send it there.
    To(Processor),
    /// Nothing now.
    Wait,
}

#[derive(Debug)]
struct Belief {
    is_open: bool,
    delay_us: u64,
    deviation_us: u64,
    last_answer_us: u64,
    /// Calls up to this one do not count as late.
    watermark: AttemptId,
    last_dispatch_us: Option<u64>,
    unusable_since_us: Option<u64>,
    open_cap: usize,
    good_since_cap: usize,
    health_next_us: u64,
    health_heard_us: u64,
    health_out_since_us: Option<u64>,
    shown: State,
}

impl Belief {
    fn new(open_max: usize, started_us: u64) -> Self {
        Self {
            is_open: false,
            delay_us: 0,
            deviation_us: 0,
            last_answer_us: 0,
            watermark: AttemptId(0),
            last_dispatch_us: None,
            unusable_since_us: None,
            open_cap: open_max,
            good_since_cap: 0,
            health_next_us: started_us + HEALTH_QUIET_MS * 1000,
            health_heard_us: started_us,
            health_out_since_us: None,
            shown: State::Usable,
        }
    }

    /// RFC 6298 with a gain of a quarter, because delays here change in steps.
    fn take_answer(&mut self, attempt: AttemptId, delay_us: u64, now_us: u64) {
        self.watermark = self.watermark.max(attempt);
        self.last_answer_us = now_us;
        self.deviation_us = (self.deviation_us * 3 + self.delay_us.abs_diff(delay_us)) / 4;
        self.delay_us = (self.delay_us * 3 + delay_us) / 4;
    }

    fn oldest_age_us(&self, calls: &Calls, processor: Processor, now_us: u64) -> u64 {
        calls.oldest_since_us(processor, self.watermark).map_or(0, |since| now_us.saturating_sub(since))
    }
}

/// The beliefs and the pace.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    beliefs: PerProcessor<Belief>,
    tokens: f64,
    tokens_at_us: u64,
}

impl Router {
    /// A router that thinks well of both.
    #[must_use]
    pub fn new(config: RouterConfig, now_us: u64) -> Self {
        let open_max = config.open_max.clamp(1, OPEN_MAX);
        Self {
            config: RouterConfig { open_max, ..config },
            beliefs: PerProcessor::from_fn(|_| Belief::new(open_max, now_us)),
            tokens: PACE_BURST,
            tokens_at_us: now_us,
        }
    }

    /// What it thinks of a processor now.
    #[must_use]
    pub fn state(&self, processor: Processor, calls: &Calls, now_us: u64) -> State {
        let belief = &self.beliefs[processor];
        if belief.is_open {
            return State::Failing;
        }
        let age_us = belief.oldest_age_us(calls, processor, now_us);
        if (belief.delay_us.max(age_us)) / 1000 + GUARD_MS > self.config.audit_margin_ms {
            State::Slow
        } else if age_us > belief.delay_us + 4 * belief.deviation_us + STALL_SLACK_MS * 1000 {
            State::Stalled
        } else {
            State::Usable
        }
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

    /// Where a payment that may go to either goes now.
    pub fn route(&mut self, calls: &Calls, now_us: u64) -> Route {
        self.note_usability(calls, now_us);
        let (cheap, dear) = (self.config.preferred, self.config.preferred.other());
        if self.admits(cheap, calls, now_us) {
            return Route::To(cheap);
        }
        let impatient = self.beliefs[cheap]
            .unusable_since_us
            .is_some_and(|since| now_us.saturating_sub(since) >= self.config.patience_ms * 1000);
        if !impatient {
            return Route::Wait;
        }
        if self.admits(dear, calls, now_us) {
            return Route::To(dear);
        }
        let usable =
            |processor| matches!(self.state(processor, calls, now_us), State::Usable | State::Stalled);
        if usable(cheap) || usable(dear) {
            return Route::Wait;
        }
        // Both answer beyond the margin or not at all: late is better than never.
        let slow = |processor| {
            self.state(processor, calls, now_us) == State::Slow && self.has_room(processor, calls)
        };
        [cheap, dear].into_iter().find(|processor| slow(*processor)).map_or(Route::Wait, Route::To)
    }

    /// True when a payment that may only go to this processor can go now. It has no other way, so the margin is no
    /// reason to hold it back.
    #[must_use]
    pub fn admits_bound(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        match self.state(processor, calls, now_us) {
            State::Usable | State::Slow => self.has_room(processor, calls),
            State::Failing => {
                calls.open_len(processor) < CANARIES_OPEN_MAX
                    && self.rested(processor, CANARY_INTERVAL_MS, now_us)
            }
            State::Stalled => self.canary_is_due(processor, calls, now_us),
        }
    }

    /// True when a payment that could also wait, or go elsewhere, should go to this processor now: a call, or a canary.
    #[must_use]
    pub fn admits(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        match self.state(processor, calls, now_us) {
            State::Usable => self.has_room(processor, calls),
            State::Failing => {
                calls.open_len(processor) < CANARIES_OPEN_MAX && self.canary_is_due(processor, calls, now_us)
            }
            State::Stalled => self.canary_is_due(processor, calls, now_us),
            State::Slow => false,
        }
    }

    fn has_room(&self, processor: Processor, calls: &Calls) -> bool {
        calls.open_len(processor) < self.beliefs[processor].open_cap
    }

    fn canary_is_due(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        let belief = &self.beliefs[processor];
        let believed_ms = belief.delay_us.max(belief.oldest_age_us(calls, processor, now_us)) / 1000;
        if believed_ms + CANARY_GUARD_MS <= self.config.audit_margin_ms {
            return self.rested(processor, CANARY_INTERVAL_MS, now_us);
        }
        let is_blind = now_us.saturating_sub(belief.health_heard_us) > HEALTH_SILENT_MS * 1000;
        is_blind && self.rested(processor, BLIND_INTERVAL_MS, now_us)
    }

    /// True when the last dispatch to this processor is so long ago.
    fn rested(&self, processor: Processor, interval_ms: u64, now_us: u64) -> bool {
        self.beliefs[processor].last_dispatch_us.is_none_or(|last| now_us >= last + interval_ms * 1000)
    }

    /// Takes a token of the pace. False when the pace forbids a dispatch now.
    pub fn take_token(&mut self, now_us: u64) -> bool {
        let per_us = f64::from(self.config.dispatch_per_s) / 1e6;
        let elapsed = now_us.saturating_sub(self.tokens_at_us);
        #[expect(clippy::cast_precision_loss, reason = "a pace is no sum")]
        let earned = elapsed as f64 * per_us;
        self.tokens = (self.tokens + earned).min(PACE_BURST);
        self.tokens_at_us = now_us;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// A payment goes out.
    pub fn on_dispatch(&mut self, processor: Processor, now_us: u64) {
        self.beliefs[processor].last_dispatch_us = Some(now_us);
    }

    /// A call to a processor came to an end.
    pub fn on_report(&mut self, report: &Report, now_us: u64) {
        let belief = &mut self.beliefs[report.processor];
        let latency_us = u64::from(report.latency_us);
        match report.outcome {
            Outcome::Charged | Outcome::Duplicate | Outcome::Refused => {
                belief.take_answer(report.attempt, latency_us, now_us);
                belief.is_open = false;
                belief.good_since_cap += 1;
                if belief.good_since_cap >= belief.open_cap && belief.open_cap < self.config.open_max {
                    belief.open_cap += 1;
                    belief.good_since_cap = 0;
                }
            }
            Outcome::Failing | Outcome::Unclear => {
                belief.take_answer(report.attempt, latency_us, now_us);
                belief.is_open = true;
            }
            Outcome::Unreachable | Outcome::Lost | Outcome::Misaddressed => belief.is_open = true,
            Outcome::Busy => {
                // A processor that turns down even the fewest has no capacity at all: that is failing.
                belief.is_open |= belief.open_cap <= OPEN_MIN && belief.good_since_cap == 0;
                belief.open_cap = (belief.open_cap * 3 / 4).max(OPEN_MIN.min(self.config.open_max));
                belief.good_since_cap = 0;
            }
            Outcome::Found { .. } | Outcome::Absent | Outcome::HandedBack | Outcome::Overdue => (),
        }
    }

    /// The processor whose health call is due, and marks it as made.
    pub fn take_health_call(&mut self, now_us: u64) -> Option<Processor> {
        for processor in Processor::BOTH {
            let belief = &mut self.beliefs[processor];
            let given_up = belief
                .health_out_since_us
                .is_some_and(|since| now_us.saturating_sub(since) > HEALTH_PATIENCE_MS * 1000);
            if given_up {
                belief.health_out_since_us = None;
            }
            if belief.health_out_since_us.is_none() && now_us >= belief.health_next_us {
                belief.health_out_since_us = Some(now_us);
                belief.health_next_us = now_us + HEALTH_INTERVAL_MS * 1000;
                return Some(processor);
            }
        }
        None
    }

    /// The api that was asking is gone: nothing will come home.
    pub fn lose_health_call(&mut self, processor: Processor) {
        self.beliefs[processor].health_out_since_us = None;
    }

    /// A health call came home. What it says counts where no live answer is younger than the question.
    pub fn on_health(&mut self, processor: Processor, health: Health, calls: &Calls, now_us: u64) {
        let audit_margin_ms = self.config.audit_margin_ms;
        let belief = &mut self.beliefs[processor];
        let Some(asked_us) = belief.health_out_since_us.take() else {
            return;
        };
        let Health::Answered { failing, min_response_ms } = health else {
            return;
        };
        belief.health_heard_us = now_us;
        if belief.last_answer_us > asked_us {
            return;
        }
        belief.delay_us = u64::from(min_response_ms) * 1000;
        belief.deviation_us = 0;
        if failing {
            belief.is_open = true;
        } else {
            // Its own word is no proof: the next payment is a canary, at once, and what is out by now is no longer late.
            // Where even a canary would be too slow its word must do.
            belief.last_dispatch_us = None;
            belief.is_open &= u64::from(min_response_ms) + CANARY_GUARD_MS <= audit_margin_ms;
            belief.watermark =
                calls.youngest(processor).map_or(belief.watermark, |at| at.max(belief.watermark));
            belief.last_answer_us = now_us;
        }
    }

    /// Remembers since when a processor has been of no use.
    fn note_usability(&mut self, calls: &Calls, now_us: u64) {
        for processor in Processor::BOTH {
            let usable = matches!(self.state(processor, calls, now_us), State::Usable | State::Stalled);
            let belief = &mut self.beliefs[processor];
            belief.unusable_since_us = match belief.unusable_since_us {
                _ if usable => None,
                Some(since) => Some(since),
                None => Some(now_us),
            };
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
