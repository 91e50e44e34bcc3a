//! The mechanism: the state of a processor, and whether a call or a canary may go to it now.

use super::Router;
use super::belief::{State, Why};
use super::config::{LATE_WORTHWHILE_AT, OUT_MAX};
use crate::core::calls::Calls;
use wire::Processor;

/// Between two canaries to one processor (docs/routing.md).
const CANARY_INTERVAL_MS: u64 = 100;

/// How many canaries one processor may owe an answer before the next one waits for [`HUNG_INTERVAL_MS`].
const CANARIES_OPEN_MAX: usize = 4;

/// Between two canaries to a processor that owes an answer to so many: they may be lost without a sign.
const HUNG_INTERVAL_MS: u64 = 2_000;

/// A canary that takes its delay and this much more must still be inside the audit margin.
pub(super) const CANARY_GUARD_MS: u64 = 300;

/// What a payment's way to the processor and back to the summary takes beyond the processor's delay, at the worst.
pub(super) const GUARD_MS: u64 = 150;

/// A call is late when it is this much older than `delay + 4 * deviation`: above a scheduling hiccup of a busy machine.
pub(super) const STALL_SLACK_MS: u64 = 25;

/// Calls that may be open at a processor that answers at once: what it gets at most before a stall is noticed. Slower
/// ones get as many more as the pace hands out during their delay.
const OPEN_QUICK: usize = 32;

/// Between two canaries to a processor of which no calls tell anything, nor health calls what could be believed.
const BLIND_INTERVAL_MS: u64 = 2_000;

/// Two health calls that brought nothing, and some: then health calls are no help.
const HEALTH_SILENT_MS: u64 = 12_000;

/// A processor has been of no use for so long, and no call that began in that time has an answer: then it is asked by a
/// canary, whatever it says of itself.
const ANSWERS_SILENT_MS: u64 = 30_000;

impl Router {
    /// What it thinks of a processor now.
    #[must_use]
    pub fn state(&self, processor: Processor, calls: &Calls, now_us: u64) -> State {
        let belief = &self.beliefs[processor];
        if belief.circuit_open {
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

    /// What it thinks so from.
    #[must_use]
    pub fn why(&self, processor: Processor, calls: &Calls, now_us: u64) -> Why {
        let belief = &self.beliefs[processor];
        let age_us = belief.oldest_age_us(calls, processor, now_us);
        let is_silent = !belief.circuit_open && age_us > belief.delay_us + STALL_SLACK_MS * 1000;
        if is_silent { Why::Unanswered(age_us / 1000) } else { belief.heard }
    }

    pub(super) fn is_useful(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        matches!(self.state(processor, calls, now_us), State::Usable | State::Stalled)
    }

    /// True when a payment that may only go to this processor can go now. It has no other way, so the margin is no
    /// reason to hold it back.
    #[must_use]
    pub fn admits_bound(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        match self.state(processor, calls, now_us) {
            State::Usable | State::Slow => self.has_room(processor, calls),
            State::Failing => {
                self.may_owe_another(processor, calls, now_us)
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
                self.may_owe_another(processor, calls, now_us) && self.canary_is_due(processor, calls, now_us)
            }
            State::Stalled => self.canary_is_due(processor, calls, now_us),
            State::Slow => {
                // Where the other one settles payments for little more, none has to be late.
                let is_worthwhile = self.config.stake >= LATE_WORTHWHILE_AT
                    || !self.is_useful(processor.other(), calls, now_us);
                is_worthwhile
                    && self.cutoffs.are_known(now_us)
                    && calls.open_len(processor) < CANARIES_OPEN_MAX
                    && self.canary_is_due(processor, calls, now_us)
            }
        }
    }

    pub(super) fn has_room(&self, processor: Processor, calls: &Calls) -> bool {
        let belief = &self.beliefs[processor];
        let during_delay = self.passes(processor, belief.delay_us, self.config.dispatch_per_s.into());
        let beside_left = OUT_MAX.saturating_sub(belief.left_us.len());
        calls.open_len(processor) < belief.calls_cap.min(OPEN_QUICK + during_delay).min(beside_left)
    }

    /// How many payments get through a processor in so long, at that pace.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub(super) fn passes(&self, processor: Processor, within_us: u64, per_s: f64) -> usize {
        let belief = &self.beliefs[processor];
        let by_room = belief.calls_cap as f64 / belief.delay_us.max(1) as f64;
        (within_us as f64 * by_room.min(per_s / 1e6)) as usize
    }

    /// True when a processor that fails may owe one more answer.
    fn may_owe_another(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        calls.open_len(processor) < CANARIES_OPEN_MAX || self.rested(processor, HUNG_INTERVAL_MS, now_us)
    }

    fn canary_is_due(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        let belief = &self.beliefs[processor];
        let believed_ms = belief.delay_us.max(belief.oldest_age_us(calls, processor, now_us)) / 1000;
        if believed_ms + CANARY_GUARD_MS <= self.config.audit_margin_ms {
            let interval_ms = if belief.circuit_open { believed_ms / 4 } else { believed_ms / 2 };
            return self.rested(processor, CANARY_INTERVAL_MS.max(interval_ms), now_us);
        }
        if self.cutoffs.are_known(now_us) {
            return self.is_clear_of_cutoffs(processor, calls, now_us)
                && self.rested(processor, CANARY_INTERVAL_MS.max(believed_ms / 4), now_us);
        }
        let is_blind = now_us.saturating_sub(belief.health_heard_us) > HEALTH_SILENT_MS * 1000
            || belief.unusable_since_us.is_some_and(|since_us| {
                now_us.saturating_sub(since_us.max(belief.answered_begun_us)) > ANSWERS_SILENT_MS * 1000
            });
        is_blind && self.rested(processor, BLIND_INTERVAL_MS, now_us)
    }

    /// True when the last dispatch to this processor is so long ago.
    pub(super) fn rested(&self, processor: Processor, interval_ms: u64, now_us: u64) -> bool {
        self.beliefs[processor].last_dispatch_us.is_none_or(|last| now_us >= last + interval_ms * 1000)
    }
}
