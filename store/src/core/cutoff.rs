//! When the books will be compared: a regular reader is expected to go on.
//!
//! A comparison is a summary with both bounds. Two of them tell the period; each further one corrects it. Money that
//! moves across a cut-off is on the one side's books and not yet on the other's, so a payment that is late anyway is
//! sent such that it is not recorded just then.
//!
//! It knows one reader. Several that compare at different times are taken for one with a period of its own; what goes out
//! then may straddle a cut-off as if none were known, which costs a difference in a comparison for a moment, never
//! a payment.

/// Comparisons closer than this are one: several readers, or one that asks again.
const PERIOD_US_MIN: u64 = 1_000_000;

/// A longer time between two comparisons is no period.
const PERIOD_US_MAX: u64 = 3_600_000_000;

/// A period that was missed so many times is over.
const MISSED_MAX: u64 = 2;

/// How far from a cut-off a call must be recorded: what the two clocks of a period, two reports and a hiccup of a busy
/// machine may be wrong, and what a delay may change by under the call.
pub(super) const CUTOFF_GUARD_US: u64 = 300_000;

/// What is known about the times of comparisons.
#[derive(Debug, Default)]
pub(super) struct Cutoffs {
    last_us: Option<u64>,
    period_us: Option<u64>,
}

impl Cutoffs {
    /// The books are compared now.
    pub(super) fn note(&mut self, now_us: u64) {
        let passed_us = self.last_us.map(|last_us| now_us.saturating_sub(last_us));
        if passed_us.is_some_and(|passed_us| passed_us < PERIOD_US_MIN) {
            return;
        }
        self.last_us = Some(now_us);
        self.period_us = passed_us.filter(|passed_us| *passed_us <= PERIOD_US_MAX);
    }

    /// True when the next cut-off can be told.
    pub(super) fn are_known(&self, now_us: u64) -> bool {
        let (Some(last_us), Some(period_us)) = (self.last_us, self.period_us) else { return false };
        now_us.saturating_sub(last_us) <= period_us * MISSED_MAX + CUTOFF_GUARD_US
    }

    /// True when `at_us`, give or take `spread_us`, is clear of every cut-off that is foreseen.
    pub(super) fn are_clear_of(&self, at_us: u64, spread_us: u64) -> bool {
        let (Some(last_us), Some(period_us)) = (self.last_us, self.period_us) else { return true };
        let guard_us = CUTOFF_GUARD_US + spread_us;
        let after_us = at_us.saturating_sub(last_us) % period_us;
        after_us > guard_us && after_us + guard_us < period_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn each_ten_seconds() -> Cutoffs {
        let mut cutoffs = Cutoffs::default();
        cutoffs.note(0);
        cutoffs.note(10 * SECOND);
        cutoffs
    }

    #[test]
    fn one_comparison_tells_no_period() {
        let mut cutoffs = Cutoffs::default();
        assert!(!cutoffs.are_known(0));
        cutoffs.note(0);
        assert!(!cutoffs.are_known(1));
        assert!(cutoffs.are_clear_of(10 * SECOND, 0));
    }

    #[test]
    fn two_comparisons_tell_the_ones_to_come() {
        let cutoffs = each_ten_seconds();
        assert!(cutoffs.are_known(11 * SECOND));
        for near in [20 * SECOND, 20 * SECOND - CUTOFF_GUARD_US, 20 * SECOND + CUTOFF_GUARD_US, 30 * SECOND] {
            assert!(!cutoffs.are_clear_of(near, 0), "{near}");
        }
        assert!(cutoffs.are_clear_of(15 * SECOND, 0));
        assert!(!cutoffs.are_clear_of(15 * SECOND, 6 * SECOND));
    }

    #[test]
    fn a_second_reader_changes_nothing() {
        let mut cutoffs = each_ten_seconds();
        cutoffs.note(10 * SECOND + 300);
        assert!(!cutoffs.are_clear_of(20 * SECOND, 0));
    }

    #[test]
    fn a_period_that_does_not_come_back_is_forgotten() {
        let cutoffs = each_ten_seconds();
        assert!(cutoffs.are_known(30 * SECOND));
        assert!(!cutoffs.are_known(31 * SECOND));
    }
}
