//! When payments are dispatched: after clients have their answers, and no faster than clients allow.
//!
//! What a dispatch sets going (a call, its answer, a report, a record) takes processor time from the apis that answer clients,
//! and clients come in bursts. So it waits for a pause between two payments, [`QUIET_US`], in which everything goes out
//! together, or until the pace allows a batch: settled a few milliseconds later, a payment is worth the same. Where no
//! pause came in that time there is none to wait for, and until the next one dispatches go along with the answers of their
//! turn, which wakes no process for them alone.

/// Tokens of the pacer: so many dispatches may follow each other at once.
const BURST: f64 = 32.0;

/// A dispatch is deferred until the pace allows so many, and then they go out together.
const BATCH: u64 = 20;

const _: () = assert!(BATCH as f64 <= BURST);

/// But not for longer than this, however slow the pace is.
const DEFERRED_US_MAX: u64 = 5_000;

/// Without a new payment for so long, probably no client waits for an answer: several times what one takes.
pub(super) const QUIET_US: u64 = 1_000;

/// The pace of dispatches.
#[derive(Debug)]
pub(super) struct Pace {
    per_us: f64,
    tokens: f64,
    tokens_at_us: u64,
    deferred_us_max: u64,
    deferred_since_us: Option<u64>,
    /// When the last payment came that was heard of.
    accept_us: u64,
    /// The last dispatch that was deferred came to a pause, or one has been seen since.
    has_pauses: bool,
}

impl Pace {
    /// So many a second, and a burst of them now.
    pub(super) fn new(dispatch_per_s: u32, now_us: u64) -> Self {
        let per_us = f64::from(dispatch_per_s) / 1e6;
        let batch_us = BATCH * 1_000_000 / u64::from(dispatch_per_s).max(1);
        let deferred_us_max = batch_us.min(DEFERRED_US_MAX);
        Self {
            per_us,
            tokens: BURST,
            tokens_at_us: now_us,
            deferred_us_max,
            deferred_since_us: None,
            accept_us: now_us,
            has_pauses: true,
        }
    }

    /// True when what waits may go out now. `accept_us` is when the last payment came.
    pub(super) fn is_time(&mut self, accept_us: u64, now_us: u64) -> bool {
        let is_quiet = now_us >= accept_us + QUIET_US;
        self.has_pauses |= is_quiet || accept_us >= self.accept_us + QUIET_US;
        self.accept_us = accept_us;
        let since_us = *self.deferred_since_us.get_or_insert(now_us);
        let is_over = now_us >= since_us + self.deferred_us_max;
        let is_time = is_quiet || is_over || !self.has_pauses;
        if is_time {
            self.has_pauses &= is_quiet || !is_over;
            self.deferred_since_us = None;
        }
        is_time
    }

    /// Nothing waits any more, or nothing may go out.
    pub(super) fn defer_nothing(&mut self) {
        self.deferred_since_us = None;
    }

    /// True when something waits for [`Self::is_time`].
    pub(super) fn is_deferring(&self) -> bool {
        self.deferred_since_us.is_some()
    }

    /// Takes a token. False when there is none.
    pub(super) fn take_token(&mut self, now_us: u64) -> bool {
        let elapsed = now_us.saturating_sub(self.tokens_at_us);
        #[expect(clippy::cast_precision_loss, reason = "a pace is no sum")]
        let earned = elapsed as f64 * self.per_us;
        self.tokens = (self.tokens + earned).min(BURST);
        self.tokens_at_us = now_us;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatch_waits_for_a_pause_between_payments() {
        let mut pace = Pace::new(4_000, 0);
        assert!(!pace.is_time(0, 0) && pace.is_deferring());
        assert!(!pace.is_time(0, QUIET_US - 1));
        assert!(!pace.is_time(600, 1_500), "another payment has come");
        assert!(pace.is_time(600, 1_600) && !pace.is_deferring());
        assert!(pace.is_time(600, 9_000), "no payment came since");
    }

    #[test]
    fn where_no_pause_comes_a_dispatch_is_deferred_once_until_the_pace_allows_a_batch() {
        for (per_s, deferred_us) in [(4_000, 5_000), (100, 5_000), (20_000, 1_000), (1_000_000, 20)] {
            let mut pace = Pace::new(per_s, 0);
            let mut begun = (0..8_000).filter(|now_us| pace.is_time(*now_us, *now_us));
            assert_eq!(begun.next(), Some(deferred_us), "{per_s} a second");
            assert_eq!(begun.next(), Some(deferred_us + 1), "no client is waited for any more");
            assert_eq!(begun.last(), Some(7_999));
            // The next payment comes after a pause.
            assert!(!pace.is_time(9_000, 9_000));
            assert!(pace.is_time(9_000, 9_000 + deferred_us.min(QUIET_US)));
        }
    }
}
