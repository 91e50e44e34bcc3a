//! The judge's arithmetic: what a run is worth (docs/contract.md).
//!
//! Score = (gross - fees) x (1 + bonus - fine). Amounts are whole cents until the last multiplication; the p99 is
//! whole hundredths of a millisecond, because the judge rounds it so before it computes the bonus. A run that settled
//! more payments than were asked for is disqualified, and has no score.

use serde::Serialize;
use wire::{Cents, PerProcessor, Processor};

/// The share that one audit with any difference costs.
pub const FINE: f64 = 0.35;

/// A p99 of this or more, in hundredths of a millisecond, earns no bonus.
const BONUS_P99_CENTIMS: u64 = 1_100;

/// What was settled, as counted at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// Payments.
    pub count: u64,
    /// Their amounts; in JSON whole cents.
    #[serde(rename = "cents", serialize_with = "whole_cents")]
    pub amount: Cents,
}

fn whole_cents<S: serde::Serializer>(amount: &Cents, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(amount.0)
}

/// What a run is worth, and of what that is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// The amount of all settled payments.
    pub gross: f64,
    /// What the processors keep.
    pub fees: f64,
    /// The share added for a quick 99th percentile.
    pub bonus: f64,
    /// The share taken for a difference in any audit.
    pub fine: f64,
    /// (gross - fees) x (1 + bonus - fine); 0 when disqualified.
    pub total: f64,
    /// Payments asked for and not settled in time.
    pub lag: i64,
    /// More was settled than asked for.
    pub disqualified: bool,
}

/// The bonus for a 99th percentile in milliseconds: `round2(max(0, (11 - p99) x 0.02))`, halves upwards.
///
/// In whole hundredths the product is (1100 - p99) / 50 hundredths, so no rounding of binary fractions can move it.
#[must_use]
pub fn bonus(p99_ms: f64) -> f64 {
    let below = BONUS_P99_CENTIMS.saturating_sub(hundredths(p99_ms));
    f64::from(u32::try_from((below + 25) / 50).expect("at most 22")) / 100.0
}

/// Two decimals, halves upwards, as the judge rounds the p99.
fn hundredths(p99_ms: f64) -> u64 {
    let rounded = (p99_ms.max(0.0) * 100.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative; `as` saturates"
    )]
    let whole = rounded as u64;
    whole
}

/// The worth of a run in which `requested` payments got a 2xx, and `settled` were counted at the end.
#[must_use]
pub fn score(
    requested: u64,
    settled: &PerProcessor<Settled>,
    fee_percent: &PerProcessor<f64>,
    p99_ms: f64,
    inconsistent: bool,
) -> Score {
    let units = |amount: Cents| cents_as_f64(amount) / 100.0;
    let gross = units(Cents(settled.0.iter().map(|settled| settled.amount.0).sum()));
    let fee = |processor| units(settled[processor].amount) * fee_percent[processor] / 100.0;
    let fees: f64 = Processor::BOTH.into_iter().map(fee).sum();
    let lag =
        requested.cast_signed() - settled.0.iter().map(|settled| settled.count.cast_signed()).sum::<i64>();
    let (bonus, fine) = (bonus(p99_ms), if inconsistent { FINE } else { 0.0 });
    let disqualified = lag < 0;
    let total = if disqualified { 0.0 } else { (gross - fees) * (1.0 + bonus - fine) };
    Score { gross, fees, bonus, fine, total, lag, disqualified }
}

/// Exact up to 2^53 cents, ninety million million in whole units.
fn cents_as_f64(amount: Cents) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no run moves that much")]
    let cents = amount.0 as f64;
    cents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(default: u64, fallback: u64, amount: i64) -> PerProcessor<Settled> {
        PerProcessor(
            [default, fallback].map(|count| Settled { count, amount: Cents(count.cast_signed() * amount) }),
        )
    }

    #[test]
    fn the_winner_of_the_final_is_worth_what_was_published() {
        let settled = settled(52_945, 37_646, 2_005);
        let score = score(90_591, &settled, &PerProcessor([7.0, 10.0]), 2.55, false);
        assert_eq!(score.total.round(), 1_949_876.0);
        assert_eq!((score.bonus, score.fine, score.lag), (0.17, 0.0, 0));
    }

    #[test]
    fn the_bonus_rounds_halves_upwards_and_is_never_negative() {
        for (p99_ms, expected) in [
            (0.0, 0.22),
            (1.0, 0.20),
            (1.25, 0.20),
            (1.26, 0.19),
            (1.75, 0.19),
            (2.25, 0.18),
            (2.254, 0.18),
            (2.75, 0.17),
            (2.76, 0.16),
            (10.75, 0.01),
            (10.76, 0.0),
            (11.0, 0.0),
            (1_500.0, 0.0),
        ] {
            assert_eq!(bonus(p99_ms), expected, "{p99_ms}");
        }
    }

    #[test]
    fn one_difference_costs_thirty_five_per_cent() {
        let all = settled(1_000, 0, 1_000);
        let fees = PerProcessor([5.0, 15.0]);
        assert_eq!(score(1_000, &all, &fees, 11.0, false).total, 9_500.0);
        assert!((score(1_000, &all, &fees, 11.0, true).total - 6_175.0).abs() < 1e-6);
    }

    #[test]
    fn unsettled_payments_count_for_nothing_and_too_many_disqualify() {
        let fees = PerProcessor([0.0, 0.0]);
        let late = score(10, &settled(3, 4, 100), &fees, 11.0, false);
        assert_eq!((late.total, late.lag, late.disqualified), (7.0, 3, false));
        let twice = score(6, &settled(3, 4, 100), &fees, 11.0, false);
        assert_eq!((twice.total, twice.lag, twice.disqualified), (0.0, -1, true));
    }
}
