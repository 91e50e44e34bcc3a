//! The policy: which processor gets the next payment, or whether it waits. docs/routing.md has the figures behind it.
//!
//! A payment that is settled late costs nothing; one that is settled at the dear processor costs the difference of the
//! fees. So payments are held for the cheap processor: as many as are worth holding (`hold_max`), more of them for
//! `hold_timeout_ms`, and never more than may be lost (`risk_max`).

use super::admission::GUARD_MS;
use super::config::RouterConfig;
use super::{Route, Router};
use crate::core::calls::Calls;

/// Payments a second that a processor gets through on an idle machine: of the "some thousands" of
/// docs/contract.md. Only an estimate of what could be settled after the last payment; the sending itself is bound by
/// answers.
const FLUSH_PER_S: f64 = 4_000.0;

/// Between the last payment and the judge's count lies the second that its users sleep (docs/contract.md).
const END_NOTICE_MS: u64 = 1_000;

/// Between two canaries to the dear processor while others wait for the cheap one: that they could go there at the last
/// moment is why they may wait.
const VERIFY_INTERVAL_MS: u64 = 500;

/// The timeout is so many times as long as the wait for an answer of the cheap processor once the dear one is back.
const HOLD_TIMEOUT_PER_PROBE: u64 = 6;

/// Fewer than this may always be held: at so few, one that goes elsewhere to find something out is dear.
const RISK_MIN: usize = 100;

impl Router {
    /// Where the oldest of `waiting` payments that may go to either goes now.
    pub fn route(&mut self, calls: &Calls, waiting: usize, now_us: u64) -> Route {
        self.note_usability(calls, now_us);
        let (cheap, dear) = (self.config.preferred, self.config.preferred.other());
        if self.admits(cheap, calls, now_us) {
            return Route::To(cheap);
        }
        let is_late_time = self.is_late_time(now_us);
        if (is_late_time || self.is_late_worthwhile(now_us)) && self.admits_late(cheap, calls, now_us) {
            return Route::To(cheap);
        }
        let is_excess = self.is_excess(waiting, calls, now_us);
        let may_pay = is_excess || waiting > RISK_MIN && self.rested(dear, VERIFY_INTERVAL_MS, now_us);
        if may_pay && self.admits(dear, calls, now_us) {
            return Route::To(dear);
        }
        // The cheap one may work and still not get through all of it.
        let may_be_late =
            is_late_time || self.cutoffs.are_known(now_us) && self.is_useful(cheap, calls, now_us);
        if is_excess && may_be_late && self.admits_late(dear, calls, now_us) {
            return Route::To(dear);
        }
        Route::Wait
    }

    /// True when more waits than is worth holding: at once while the cheap processor settles, since what it does not get
    /// through would wait for longer than the timeout; else when the timeout is over, which does not come back before
    /// the cheap processor does. Or when more waits than may be lost.
    fn is_excess(&mut self, waiting: usize, calls: &Calls, now_us: u64) -> bool {
        if self.arrivals.have_stopped() {
            return true;
        }
        if !self.knows_both(now_us) {
            return false;
        }
        let (is_excess, serves) = (waiting > self.hold_max(calls, now_us), self.serves(calls, now_us));
        if is_excess {
            self.excess_since_us = self.excess_since_us.or(Some(now_us));
        } else if serves {
            self.excess_since_us = None;
        }
        // What the dear one cannot settle once the end announces itself is lost by waiting.
        let is_quick = self.dear_takes_us(calls, now_us) < END_NOTICE_MS * 1000;
        let hold_timeout_us = if is_quick { self.config.hold_timeout_ms * 1000 } else { 0 };
        let is_over = self.excess_since_us.is_some_and(|since_us| now_us >= since_us + hold_timeout_us);
        let is_risk = !self.is_useful(self.config.preferred, calls, now_us) && waiting > self.risk_max();
        is_risk || is_excess && (serves || is_over)
    }

    /// How many payments may be lost by holding them, by those of the last minutes (`recent`). What has been paid for nothing in earlier outages was lost already;
    /// and to lose no more than is being paid in this one is half of the worst of both.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    fn risk_max(&self) -> usize {
        let RouterConfig { risk_share, stake, .. } = self.config;
        let worth = self.accepts.grown() as f64 * (1.0 + stake);
        let paid_before = (self.dear_before - self.dear.before()) as f64 * stake;
        let paid = (self.dear.total() - self.dear_before) as f64 * stake;
        RISK_MIN.max((worth * risk_share - paid_before).max(paid) as usize)
    }

    /// True when the cheap processor's last word is younger than the return of the dear one. Both often come back at once,
    /// and what waited for both would go to the one that was noticed first. A word that takes long is not waited for.
    fn knows_both(&self, now_us: u64) -> bool {
        let (cheap, dear) = (self.config.preferred, self.config.preferred.other());
        let heard_us = self.beliefs[cheap].answered_begun_us.max(self.beliefs[cheap].health_heard_us);
        let wait_us = self.config.hold_timeout_ms * 1000 / HOLD_TIMEOUT_PER_PROBE;
        self.beliefs[dear]
            .useful_since_us
            .is_none_or(|returned_us| heard_us >= returned_us || now_us >= returned_us + wait_us)
    }

    /// How long the dear processor takes for a payment that is sent now, at the worst that is known of it.
    fn dear_takes_us(&self, calls: &Calls, now_us: u64) -> u64 {
        let dear = self.config.preferred.other();
        let belief = &self.beliefs[dear];
        let delay_us = belief.delay_us + belief.deviation_us;
        GUARD_MS * 1000 + delay_us.max(belief.oldest_age_us(calls, dear, now_us))
    }

    /// How many payments are worth holding for the cheap processor: what it gets through within the hold timeout, or what
    /// the dear one could still settle between the last payment and the end, weighed by what there is to win.
    fn hold_max(&self, calls: &Calls, now_us: u64) -> usize {
        let (cheap, dear) = (self.config.preferred, self.config.preferred.other());
        if self.serves(calls, now_us) {
            return self.passes(cheap, self.config.hold_timeout_ms * 1000, self.config.dispatch_per_s.into());
        }
        if !self.is_useful(dear, calls, now_us) {
            return 0;
        }
        let spent_us = self.arrivals.silence_us() + self.dear_takes_us(calls, now_us);
        let left_us = (END_NOTICE_MS * 1000).saturating_sub(spent_us);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "thousands"
        )]
        let held = (self.passes(dear, left_us, FLUSH_PER_S) as f64 * self.config.hold_share) as usize;
        held
    }
}
