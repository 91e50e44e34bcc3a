//! Late is better than never: when a payment goes to a processor that answers after the audit margin.

use super::Router;
use super::admission::STALL_SLACK_MS;
use super::belief::State;
use super::config::LATE_WORTHWHILE_AT;
use crate::core::calls::Calls;
use wire::Processor;

/// How much longer while the time of the next comparison is unknown: by then two comparisons have shown it.
const LATE_AFTER_BLIND_MS: u64 = 10_000;

/// And for each payment accepted of late, because one that straddles an audit costs 0.35 of all of them: 20,000 are worth
/// five seconds more.
const LATE_AFTER_US_PER_PAYMENT: u64 = 250;

/// But no more than this in all, however many come: 100,000 payments in the window, more than the longest plan has.
const AT_STAKE_US_MAX: u64 = 25_000_000;

impl Router {
    /// True when neither processor has been of use for so long that late is better than never.
    pub(super) fn is_late_time(&self, now_us: u64) -> bool {
        let since = self.beliefs.0.each_ref().map(|belief| belief.unusable_since_us);
        let [Some(default), Some(fallback)] = since else { return false };
        let at_stake_us = self.accepts.grown().saturating_mul(LATE_AFTER_US_PER_PAYMENT).min(AT_STAKE_US_MAX);
        let blind_us =
            if self.cutoffs.are_known(now_us) { 0 } else { LATE_AFTER_BLIND_MS * 1000 + at_stake_us };
        now_us >= default.max(fallback) + self.config.late_after_ms * 1000 + blind_us
    }

    /// True when settling late at the cheap processor is better than settling at once at the dear one.
    pub(super) fn is_late_worthwhile(&self, now_us: u64) -> bool {
        let unusable_since_us = self.beliefs[self.config.preferred].unusable_since_us;
        self.config.stake >= LATE_WORTHWHILE_AT
            && self.cutoffs.are_known(now_us)
            && unusable_since_us.is_some_and(|since_us| now_us >= since_us + self.config.late_after_ms * 1000)
    }

    /// True when the cheap processor settles payments, if late.
    pub(super) fn serves(&self, calls: &Calls, now_us: u64) -> bool {
        match self.state(self.config.preferred, calls, now_us) {
            State::Usable | State::Stalled => true,
            State::Slow => self.is_late_worthwhile(now_us),
            State::Failing => false,
        }
    }

    /// True when a payment can go to a slow processor, clear of the cut-offs.
    pub(super) fn admits_late(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        self.state(processor, calls, now_us) == State::Slow
            && self.has_room(processor, calls)
            && self.is_clear_of_cutoffs(processor, calls, now_us)
    }

    /// True when a call that is late anyway would not be recorded while the books are compared.
    pub(super) fn is_clear_of_cutoffs(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        if !self.cutoffs.are_known(now_us) {
            return true;
        }
        let belief = &self.beliefs[processor];
        // Nothing is known of a delay that is longer than it was.
        let spread_us = 4 * belief.deviation_us;
        belief.oldest_age_us(calls, processor, now_us) <= belief.delay_us + spread_us + STALL_SLACK_MS * 1000
            && self.cutoffs.are_clear_of(now_us + belief.delay_us, spread_us)
    }
}
