//! What the operator decides about the router, and the settings that follow from the fees.

use wire::{PerProcessor, Processor};

/// What a processor runs at once (docs/contract.md).
const RUNNING_MAX: usize = 800;

/// What waits there for a place before its limiter turns a call away.
const WAITING_MAX: usize = 500;

/// Calls that may be open at a processor, over all apis: what it runs at once, but for a few that are not payments. At a
/// delay of a second it settles as many a second as are open.
pub const OPEN_MAX: usize = 768;

/// Calls that may be out at a processor together with those that dead apis left behind, so that its limiter turns none
/// away.
pub(super) const OUT_MAX: usize = 1_280;

const _: () = assert!(OPEN_MAX < RUNNING_MAX && OUT_MAX < RUNNING_MAX + WAITING_MAX);

/// Payments handed out a second while clients are being answered.
pub const DISPATCH_PER_S: u32 = 4_000;

/// Nothing is called a silence before this: a machine may stand still for a moment, and a false alarm costs the
/// difference of the fees for all that waits.
const SILENCE_MS: u64 = 100;

/// How long a processor must have been of no use before payments are sent to one that answers late.
pub const LATE_AFTER_MS: u64 = 300;

/// What the difference of the fees must be worth, beside what the dear processor leaves of a payment, for holding back
/// all that could still be settled after the last payment; half of that: half of it.
const HOLD_ALL_AT: f64 = 0.25;

/// How long what is beyond that waits, when the difference of the fees is worth what the dear processor leaves.
const HOLD_TIMEOUT_MS_AT_ONE: f64 = 30_000.0;

/// How much of what the payments of the last minutes are worth may be at risk by holding.
const RISK_SHARE: f64 = 0.25;

/// What the difference of the fees must be worth, beside what the dear processor leaves of a payment, for settling late
/// at the cheap one rather than at once at the dear one. Each late call bears some risk: its delay may have changed.
pub(super) const LATE_WORTHWHILE_AT: f64 = 0.1;

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
    pub hold_timeout_ms: u64,
    /// How long a processor must have been of no use before payments go to one that answers late, in milliseconds; longer
    /// while the time of the next comparison is unknown.
    pub late_after_ms: u64,
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
        let hold_timeout_ms = (stake * HOLD_TIMEOUT_MS_AT_ONE) as u64;
        Self {
            audit_margin_ms,
            preferred: if fallback < default { Processor::Fallback } else { Processor::Default },
            hold_share: (stake / HOLD_ALL_AT).min(1.0),
            risk_share: RISK_SHARE,
            stake,
            hold_timeout_ms,
            late_after_ms: LATE_AFTER_MS,
            silence_ms: SILENCE_MS,
            dispatch_per_s: DISPATCH_PER_S,
            open_max: OPEN_MAX,
        }
    }
}
