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
//!    difference of the fees: as many payments as are worth holding (`hold_max`), and more of them for `patience_ms`,
//!    but never more than may be lost (`risk_max`).
//! 3. The dear processor, for what is beyond that, and a canary now and then that shows whether it could.
//! 4. When neither answers within the margin for a while (`is_late_time`): one of the slow ones, late.
//!
//! When payments stop coming (`Arrivals`) the end may be near: then nothing is worth holding, and no pace is kept.

mod arrivals;
mod belief;
mod pace;
mod recent;

use super::calls::Calls;
use super::cutoff::Cutoffs;
use arrivals::Arrivals;
use belief::Belief;
pub use belief::{State, Why};
use pace::Pace;
use recent::Recent;
use wire::frame::{Health, Outcome, Report};
use wire::{PaymentId, PerProcessor, Processor};

/// Between two canaries to one processor (DESIGN.md, router).
const CANARY_INTERVAL_MS: u64 = 100;

/// How many canaries one processor may owe an answer before the next one waits for [`HUNG_INTERVAL_MS`].
const CANARIES_OPEN_MAX: usize = 4;

/// Between two canaries to a processor that owes an answer to so many: they may be lost where nobody says so.
const HUNG_INTERVAL_MS: u64 = 2_000;

/// A canary that takes its delay and this much more must still be inside the audit margin.
const CANARY_GUARD_MS: u64 = 300;

/// What a payment's way to the processor and back to the summary takes beyond the processor's delay, at the worst.
const GUARD_MS: u64 = 150;

/// A call is late when it is this much older than `delay + 4 * deviation`: above a scheduling hiccup of a busy machine.
const STALL_SLACK_MS: u64 = 25;

/// What a processor runs at once (CONTRACT section 2).
const RUNNING_MAX: usize = 800;

/// What waits there for a place before its limiter turns anybody away.
const WAITING_MAX: usize = 500;

/// Calls that may be open at a processor, over all apis: what it runs at once, but for a few that are not payments. At a
/// delay of a second it settles as many a second as are open.
pub const OPEN_MAX: usize = 768;

/// Calls that may be out at a processor together with those that dead apis left behind, so that its limiter turns nobody
/// away.
const OUT_MAX: usize = 1_280;

const _: () = assert!(OPEN_MAX < RUNNING_MAX && OUT_MAX < RUNNING_MAX + WAITING_MAX);

/// A call that was left behind is over after its processor's delay and this much.
const LEFT_GUARD_MS: u64 = 1_000;

/// Where the cap on open calls starts to grow again after a 429.
const OPEN_MIN: usize = 8;

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

/// Between two health calls to one processor: from the answer to the one before, which was sent earlier, or from a lease that
/// brought none (CONTRACT section 2: a processor answers one in 5 s, whichever client asks).
const HEALTH_INTERVAL_MS: u64 = 5_200;

/// A health call without an answer for so long is given up: the processor holds it for at most two windows.
const HEALTH_PATIENCE_MS: u64 = 16_000;

/// Payments handed out a second while clients are being answered.
pub const DISPATCH_PER_S: u32 = 4_000;

/// Payments a second that a processor gets through when nobody else needs the machine: of the "some thousands" of
/// CONTRACT section 2. Only an estimate of what could be settled after the last payment; the sending itself is bound by
/// answers.
const FLUSH_PER_S: f64 = 4_000.0;

/// Between the last payment and the judge's count lies the second that its users sleep (CONTRACT section 3).
const END_NOTICE_MS: u64 = 1_000;

/// Nothing is called a silence before this: a machine may stand still for a moment, and a false alarm costs the
/// difference of the fees for all that waits.
const SILENCE_MS: u64 = 100;

/// How long a processor must have been of no use before payments are sent to one that answers late.
pub const LATE_PATIENCE_MS: u64 = 300;

/// How much longer when nobody knows when the books are compared next: by then two comparisons have told.
const LATE_PATIENCE_BLIND_MS: u64 = 10_000;

/// And for each payment accepted of late, because one that straddles an audit costs 0.35 of all of them: 20,000 are worth
/// five seconds more.
const LATE_PATIENCE_US_PER_PAYMENT: u64 = 250;

/// But no more than this in all, however many come: 100,000 payments in the window, more than the longest plan has.
const AT_STAKE_US_MAX: u64 = 25_000_000;

/// What the difference of the fees must be worth, beside what the dear processor leaves of a payment, for settling late
/// at the cheap one rather than at once at the dear one. Each late call bears some risk: its delay may have changed.
const LATE_WORTHWHILE_AT: f64 = 0.1;

/// Between two canaries to the dear processor while others wait for the cheap one: that they could go there at the last
/// moment is why they may wait.
const VERIFY_INTERVAL_MS: u64 = 500;

/// What the difference of the fees must be worth, beside what the dear processor leaves of a payment, for holding back
/// all that could still be settled after the last payment; half of that: half of it.
const HOLD_ALL_AT: f64 = 0.25;

/// How long what is beyond that waits, when the difference of the fees is worth what the dear processor leaves.
const PATIENCE_MS_AT_ONE: f64 = 30_000.0;

/// The patience is so many times as long as a word of the cheap processor is waited for once the dear one is back.
const PATIENCE_PER_WORD: u64 = 6;

/// How much of what the payments of the last minutes are worth may be at risk by holding.
const RISK_SHARE: f64 = 0.25;

/// Fewer than this may always be held: at so few, one that goes elsewhere to find something out is dear.
const RISK_MIN: usize = 100;

/// With so many different payments refused for good in a row, and none charged between, it is the processor that is wrong, not
/// the payments: five faulty ones in a row are rarer than a processor that is set up wrongly.
pub const REFUSALS_MAX: usize = 5;

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct RouterConfig {
    /// A payment should be charged and counted within this time of its `requestedAt`, in milliseconds.
    pub audit_margin_ms: u64,
    /// The processor with the lower fee.
    pub preferred: Processor,
    /// How much of what the other one could still settle after the last payment is held back for the preferred one, 0
    /// to 1.
    pub hold_share: f64,
    /// How much of what the payments of the last minutes are worth may be at risk by holding, 0 to 1: it is lost if the dear one goes
    /// away as well and the end comes before either is of use again.
    pub risk_share: f64,
    /// The difference of the fees over what the dear one leaves of a payment.
    pub stake: f64,
    /// How long more than that waits for the preferred processor before the other one gets it, in milliseconds.
    pub patience_ms: u64,
    /// How long a processor must have been of no use before payments go to one that answers late, in milliseconds; longer
    /// while nobody knows when the books are compared next.
    pub late_patience_ms: u64,
    /// Without a payment for so long, in milliseconds, the end may be near; longer where longer pauses are usual.
    pub silence_ms: u64,
    /// Dispatches a second while a queue drains.
    pub dispatch_per_s: u32,
    /// Calls open at one processor, at most [`OPEN_MAX`].
    pub open_max: usize,
}

impl RouterConfig {
    /// The reasoned settings for processors that keep so many percent of a payment.
    ///
    /// A payment that waits wins the difference of the fees if the cheap processor comes back, and loses all that the
    /// dear one would have left of it if the end comes first. How these two compare is all that matters: 7/10 0.03,
    /// 5/15 0.12, 2/40 0.63.
    #[must_use]
    pub fn for_fees(fee_percent: PerProcessor<f64>, audit_margin_ms: u64) -> Self {
        let [default, fallback] = fee_percent.0;
        let stake = (fallback - default).abs() / (100.0 - fallback.max(default)).max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 3,000,000")]
        let patience_ms = (stake * PATIENCE_MS_AT_ONE) as u64;
        Self {
            audit_margin_ms,
            preferred: if fallback < default { Processor::Fallback } else { Processor::Default },
            hold_share: (stake / HOLD_ALL_AT).min(1.0),
            risk_share: RISK_SHARE,
            stake,
            patience_ms,
            late_patience_ms: LATE_PATIENCE_MS,
            silence_ms: SILENCE_MS,
            dispatch_per_s: DISPATCH_PER_S,
            open_max: OPEN_MAX,
        }
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

    /// Somebody compares the books: a summary with both bounds.
    pub fn note_comparison(&mut self, now_us: u64) {
        self.cutoffs.note(now_us);
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

    /// What it thinks so from.
    #[must_use]
    pub fn why(&self, processor: Processor, calls: &Calls, now_us: u64) -> Why {
        let belief = &self.beliefs[processor];
        let age_us = belief.oldest_age_us(calls, processor, now_us);
        let is_silent = !belief.is_open && age_us > belief.delay_us + STALL_SLACK_MS * 1000;
        if is_silent { Why::Unanswered(age_us / 1000) } else { belief.heard }
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
    /// through would wait for longer than the patience; else when the patience is over, which does not come back before
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
        let patience_us = if is_quick { self.config.patience_ms * 1000 } else { 0 };
        let is_over = self.excess_since_us.is_some_and(|since_us| now_us >= since_us + patience_us);
        let is_risk = !self.is_useful(self.config.preferred, calls, now_us) && waiting > self.risk_max();
        is_risk || is_excess && (serves || is_over)
    }

    /// How many payments may be lost by holding them, by those of the last minutes ([`recent`]). What has been paid for nothing in earlier outages was lost already;
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
        let wait_us = self.config.patience_ms * 1000 / PATIENCE_PER_WORD;
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

    /// How many payments are worth holding for the cheap processor: what it gets through while we are patient, or what
    /// the dear one could still settle between the last payment and the end, weighed by what there is to win.
    fn hold_max(&self, calls: &Calls, now_us: u64) -> usize {
        let (cheap, dear) = (self.config.preferred, self.config.preferred.other());
        if self.serves(calls, now_us) {
            return self.passes(cheap, self.config.patience_ms * 1000, self.config.dispatch_per_s.into());
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

    /// How many payments get through a processor in so long, at that pace.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    fn passes(&self, processor: Processor, within_us: u64, per_s: f64) -> usize {
        let belief = &self.beliefs[processor];
        let by_room = belief.open_cap as f64 / belief.delay_us.max(1) as f64;
        (within_us as f64 * by_room.min(per_s / 1e6)) as usize
    }

    /// True when neither processor has been of use for so long that late is better than never.
    fn is_late_time(&self, now_us: u64) -> bool {
        let since = self.beliefs.0.each_ref().map(|belief| belief.unusable_since_us);
        let [Some(default), Some(fallback)] = since else { return false };
        let at_stake_us =
            self.accepts.grown().saturating_mul(LATE_PATIENCE_US_PER_PAYMENT).min(AT_STAKE_US_MAX);
        let blind_us =
            if self.cutoffs.are_known(now_us) { 0 } else { LATE_PATIENCE_BLIND_MS * 1000 + at_stake_us };
        now_us >= default.max(fallback) + self.config.late_patience_ms * 1000 + blind_us
    }

    /// True when settling late at the cheap processor is better than settling at once at the dear one.
    fn is_late_worthwhile(&self, now_us: u64) -> bool {
        let unusable_since_us = self.beliefs[self.config.preferred].unusable_since_us;
        self.config.stake >= LATE_WORTHWHILE_AT
            && self.cutoffs.are_known(now_us)
            && unusable_since_us
                .is_some_and(|since_us| now_us >= since_us + self.config.late_patience_ms * 1000)
    }

    /// True when the cheap processor settles payments, if late.
    fn serves(&self, calls: &Calls, now_us: u64) -> bool {
        match self.state(self.config.preferred, calls, now_us) {
            State::Usable | State::Stalled => true,
            State::Slow => self.is_late_worthwhile(now_us),
            State::Failing => false,
        }
    }

    /// True when a payment can go to a slow processor, clear of the cut-offs.
    fn admits_late(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        self.state(processor, calls, now_us) == State::Slow
            && self.has_room(processor, calls)
            && self.is_clear_of_cutoffs(processor, calls, now_us)
    }

    /// True when a call that is late anyway would not be recorded while the books are compared.
    fn is_clear_of_cutoffs(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        if !self.cutoffs.are_known(now_us) {
            return true;
        }
        let belief = &self.beliefs[processor];
        // Nothing is known of a delay that is longer than it was.
        let spread_us = 4 * belief.deviation_us;
        belief.oldest_age_us(calls, processor, now_us) <= belief.delay_us + spread_us + STALL_SLACK_MS * 1000
            && self.cutoffs.are_clear_of(now_us + belief.delay_us, spread_us)
    }

    fn is_useful(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
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

    fn has_room(&self, processor: Processor, calls: &Calls) -> bool {
        let belief = &self.beliefs[processor];
        let during_delay = self.passes(processor, belief.delay_us, self.config.dispatch_per_s.into());
        let beside_left = OUT_MAX.saturating_sub(belief.left_us.len());
        calls.open_len(processor) < belief.open_cap.min(OPEN_QUICK + during_delay).min(beside_left)
    }

    /// True when a processor that fails may owe one more answer.
    fn may_owe_another(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        calls.open_len(processor) < CANARIES_OPEN_MAX || self.rested(processor, HUNG_INTERVAL_MS, now_us)
    }

    fn canary_is_due(&self, processor: Processor, calls: &Calls, now_us: u64) -> bool {
        let belief = &self.beliefs[processor];
        let believed_ms = belief.delay_us.max(belief.oldest_age_us(calls, processor, now_us)) / 1000;
        if believed_ms + CANARY_GUARD_MS <= self.config.audit_margin_ms {
            let interval_ms = if belief.is_open { believed_ms / 4 } else { believed_ms / 2 };
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
    fn rested(&self, processor: Processor, interval_ms: u64, now_us: u64) -> bool {
        self.beliefs[processor].last_dispatch_us.is_none_or(|last| now_us >= last + interval_ms * 1000)
    }

    /// True when something `waits` and may be handed out now: nobody has just come, or it has been deferred for long enough.
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
        // The pace is for those who are being answered; when payments have stopped coming nobody is.
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
        self.beliefs[processor].is_open
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
                belief.is_open = belief.refuses_all();
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
        let belief = &mut self.beliefs[processor];
        let Some(asked_us) = belief.health_out_since_us.take() else {
            return;
        };
        if health != Health::HandedBack {
            // It was sent at the latest when its answer came.
            belief.health_next_us = belief.health_next_us.max(now_us + HEALTH_INTERVAL_MS * 1000);
        }
        let Health::Answered { failing, min_response_ms } = health else {
            return;
        };
        belief.health_heard_us = now_us;
        if belief.last_answer_us > asked_us {
            return;
        }
        belief.heard = Why::Health { failing, delay_ms: min_response_ms.into() };
        belief.delay_us = u64::from(min_response_ms) * 1000;
        belief.deviation_us = 0;
        if failing || belief.refuses_all() {
            // Of what it refuses its health says nothing.
            belief.is_open = true;
        } else {
            // Its own word is no proof, but the first bad answer is soon there; and what is out by now is no longer late.
            belief.last_dispatch_us = None;
            belief.is_open = false;
            belief.watermark =
                calls.youngest(processor).map_or(belief.watermark, |at| at.max(belief.watermark));
            belief.last_answer_us = now_us;
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
                // What there was of patience belongs to the outage before.
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
