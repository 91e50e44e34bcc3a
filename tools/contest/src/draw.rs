//! Random plans: what an unseen judge might play. A seed is a plan, here and in `arena fight random`.
//!
//! | what | drawn from |
//! |---|---|
//! | duration | 60 to 120 s |
//! | users | 100 to 600, ramping up for the whole run (half of the plans), for half of it or 10 s, or all there at once |
//! | stages | 4 to 10, the first at 1 s; in half of the plans at whole multiples of 5 s, else anywhere, at least 3 s long |
//! | delay | none (35 %), to 100 ms (20 %), to 1 s (20 %), to 2 s (10 %), to 5 s (15 %), each processor for itself |
//! | failing | in 25 % of a processor's stages |
//! | fees | default 2 to 7 %, fallback 10 to 40 %, in halves |
//! | audit margin | 1.5 to 2 s; the processors' differences are added as absolute values |

use crate::chance::Chance;
use crate::plan::{Amounts, AuditRule, Condition, Difference, EndRule, Plan, Stage};
use std::time::Duration;
use wire::{Cents, PerProcessor};

/// The shortest stage of a plan whose stages begin anywhere; about a second more than a user's round.
const STAGE_MS_MIN: u64 = 3_000;

/// The grid of a plan whose stages do not: that of the official plans is 10 s.
const GRID_MS: u64 = 5_000;

/// The plan of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut chance = Chance::new(seed);
    let duration_ms = chance.between(60, 121) * 1_000;
    let duration = Duration::from_millis(duration_ms);
    let ramp = match chance.between(0, 8) {
        0..4 => duration,
        4 => duration / 2,
        5 => Duration::from_secs(10),
        6 => Duration::from_secs(1),
        _ => Duration::ZERO,
    };
    Plan {
        name: format!("random {seed}"),
        duration,
        users: u32::try_from(chance.between(100, 601)).expect("small"),
        ramp,
        amount: Cents(1_990),
        fee_percent: PerProcessor([halves(&mut chance, 2, 7), halves(&mut chance, 10, 40)]),
        audit: AuditRule {
            every_ms: 10_000,
            reach_ms: 15_000,
            margin_ms: chance.between(1_500, 2_001),
            difference: Difference::Absolute,
        },
        end: EndRule { window_ms: duration_ms + 60_000, amounts: Amounts::Processors },
        stages: stages(&mut chance, duration_ms),
    }
}

/// Users of a plan of a day: each posts a payment a second.
const DAY_USERS: u32 = 4;

/// A day of steady load in which no books are compared after the first second. Both processors work all day; every 5 to 60
/// minutes their delays change, in a third of the stages to one beyond the margin.
#[must_use]
pub fn day(seed: u64) -> Plan {
    let mut chance = Chance::new(seed);
    let duration_ms = 24 * 3_600_000;
    let mut starts_ms = vec![1_000];
    while let Some(last) = starts_ms.last().copied().filter(|last| *last < duration_ms - 3_600_000) {
        starts_ms.push(last + chance.between(300_000, 3_600_001));
    }
    let mut delay_ms = || match chance.between(0, 3) {
        0 => 0,
        1 => chance.between(1, 1_001),
        _ => chance.between(2_000, 5_001),
    };
    let stage = |from_ms| Stage {
        from: Duration::from_millis(from_ms),
        condition: PerProcessor::from_fn(|_| Condition { delay_ms: delay_ms(), failing: false }),
    };
    Plan {
        name: format!("day {seed}"),
        duration: Duration::from_millis(duration_ms),
        users: DAY_USERS,
        ramp: Duration::ZERO,
        audit: AuditRule { every_ms: duration_ms, ..plan(seed).audit },
        end: EndRule { window_ms: duration_ms + 60_000, amounts: Amounts::Processors },
        stages: starts_ms.into_iter().map(stage).collect(),
        ..plan(seed)
    }
}

/// A percentage in steps of a half, both ends included.
fn halves(chance: &mut Chance, from: u32, to: u32) -> f64 {
    let halves = chance.between(u64::from(from) * 2, u64::from(to) * 2 + 1);
    f64::from(u32::try_from(halves).expect("small")) / 2.0
}

fn stages(chance: &mut Chance, duration_ms: u64) -> Vec<Stage> {
    let wanted = chance.between(4, 11);
    let on_grid = chance.percent(50);
    let mut begins: Vec<u64> = vec![1_000];
    // A stage that does not fit after so many draws is left out; there are at least 11 places for 9.
    for _ in 0..1_000 {
        let at = if on_grid {
            chance.between(1, duration_ms / GRID_MS) * GRID_MS
        } else {
            chance.between(STAGE_MS_MIN, duration_ms - STAGE_MS_MIN)
        };
        if (begins.len() as u64) < wanted && begins.iter().all(|begin| begin.abs_diff(at) >= STAGE_MS_MIN) {
            begins.push(at);
        }
    }
    begins.sort_unstable();
    let stage = |begin| Stage {
        from: Duration::from_millis(begin),
        condition: PerProcessor::from_fn(|_| condition(chance)),
    };
    begins.into_iter().map(stage).collect()
}

fn condition(chance: &mut Chance) -> Condition {
    let delay_ms = match chance.between(0, 100) {
        0..35 => 0,
        35..55 => chance.between(1, 101),
        55..75 => chance.between(100, 1_001),
        75..85 => chance.between(1_000, 2_001),
        _ => chance.between(2_000, 5_001),
    };
    Condition { delay_ms, failing: chance.percent(25) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_always_the_same_plan_and_no_other() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn plans_have_four_to_ten_stages_and_reach_all_conditions() {
        let plans: Vec<Plan> = (0..200).map(plan).collect();
        let lens = plans.iter().map(|plan| plan.stages.len());
        assert_eq!((lens.clone().min(), lens.max()), (Some(4), Some(10)));
        let conditions = || plans.iter().flat_map(|plan| &plan.stages).map(|stage| stage.condition.0);
        assert!(conditions().any(|both| both.iter().all(|condition| condition.failing)));
        assert!(conditions().any(|both| both.iter().all(|condition| condition.delay_ms > 2_000)));
        assert!(conditions().any(|both| both == [Condition::default(); 2]));
    }
}
