//! What a lived plan is worth beside the clairvoyant, and where the difference was lost.
//!
//! With equal amounts a run that settles `s` payments, `c` of them at the cheap processor, is worth `s x (1 - dear fee) +
//! c x (difference of the fees)` before bonus and fine. So the loss is a sum of three: payments that the clairvoyant
//! settled and we did not, those that it settled cheaply and we dearly, and the fine.

use super::processor::{RECORD_GAP_US, Row};
use super::scenario::Lived;
use contest::clairvoyant::{Best, Capacity, Timeline, World, best};
use contest::plan::Plan;
use contest::rules::RUNNING_MAX;
use contest::score::FINE;
use serde::Serialize;
use std::fmt;
use wire::{PerProcessor, Processor};

/// The bonus of both sides: that of a p99 of one millisecond. The lab does not measure latency.
const BONUS: f64 = 0.20;

/// How long after a change for the worse a call may still be made in good faith, beyond the old delay: until the first
/// call of the new delay is noticed to be late.
const FAITH_US: u64 = 150_000;

/// What the last stage offers: how a plan ends decides most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The cheap processor answers within the margin.
    Cheap,
    /// Only the dear one does.
    Dear,
    /// Neither does, but one that does not fail answers late.
    Late,
    /// Both fail.
    Nothing,
}

/// Why an audit differed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fine {
    /// The clairvoyant too settles payments late: nothing else would have settled them.
    Needed,
    /// The calls were begun before anybody could know that their delay had grown.
    Surprised,
    /// Waiting would have avoided it.
    Avoidable,
}

/// What became of one plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanVerdict {
    /// Its seed.
    pub seed: u64,
    /// Fees of default and fallback, in percent.
    pub fees: [f64; 2],
    /// How it ends.
    pub ending: Ending,
    /// Our score in percent of the clairvoyant's.
    pub share: f64,
    /// Of the clairvoyant's worth, in percent: what was not settled.
    pub lost_unsettled: f64,
    /// What was settled dearly.
    pub lost_dear: f64,
    /// What the fine took.
    pub lost_fine: f64,
    /// The fine, if there was one.
    pub fine: Option<Fine>,
    /// Payments posted.
    pub posted: usize,
    /// Settled when the judge counted, by processor.
    pub settled: [usize; 2],
    /// What the clairvoyant settles.
    pub best: [usize; 2],
    /// Payments not settled in time.
    pub lag: usize,
    /// The same of the clairvoyant.
    pub best_lag: usize,
    /// Calls in flight for longer than the margin.
    pub late: usize,
    /// How many of them the clairvoyant needs.
    pub best_late: usize,
    /// How often the router changed its mind about a processor.
    pub changes: u64,
    /// How often a limiter turned a call away.
    pub busy: u64,
    /// The most payments that waited.
    pub queue_max: u64,
    /// The longest time that a payment waited for the call that charged it, in milliseconds.
    pub wait_max_ms: u64,
    /// The shortest time between two health calls to one processor, in milliseconds.
    pub health_gap_ms: Option<u64>,
}

/// Compares what was lived with what could have been had.
///
/// # Panics
/// When our score is above the clairvoyant's: then it is no clairvoyant.
#[must_use]
pub fn judge(seed: u64, plan: &Plan, lived: &Lived) -> PlanVerdict {
    let timelines = PerProcessor(lived.timelines.0.clone().map(|line| line.expect("a lived plan has both")));
    let world = World {
        timelines,
        fee_percent: plan.fee_percent,
        capacity: Capacity { calls_max: RUNNING_MAX, record_gap_us: RECORD_GAP_US },
        // A delay of just the margin is late: the answer takes time too.
        margin_us: plan.audit.margin_ms * 1_000 - 1,
        end_us: lived.end_us,
    };
    let is_late =
        |name: Processor, row: &&Row| world.timelines[name].delay_us.at(row.begun_us) > world.margin_us;
    let late = |name: Processor| lived.rows[name].iter().filter(|row| is_late(name, row)).count();
    let late = late(Processor::Default) + late(Processor::Fallback);
    let needed = best(&world, &lived.arrivals_us, 0);
    let best = best(&world, &lived.arrivals_us, late);
    let fine = fine(&world, lived, &needed);
    let worth = |settled: PerProcessor<usize>| {
        let kept = |name: Processor| count(settled[name]) * (100.0 - plan.fee_percent[name]) / 100.0;
        kept(Processor::Default) + kept(Processor::Fallback)
    };
    let (ours, most) = (worth(lived.settled), worth(best.settled));
    let earned = if fine.is_some() { (1.0 + BONUS - FINE) / (1.0 + BONUS) } else { 1.0 };
    let percent = |part: f64| if most > 0.0 { part / most * 100.0 } else { 0.0 };
    let share = if most > 0.0 { percent(ours * earned) } else { 100.0 };
    assert!(percent(ours) < 100.000_1, "seed {seed}: {ours} settled where the clairvoyant has {most}");
    let dear = plan.fee_percent.0.into_iter().fold(0.0, f64::max);
    let lag = lived.arrivals_us.len() - lived.settled.0.iter().sum::<usize>();
    let lost_unsettled = percent((count(lag) - count(best.unsettled)) * (100.0 - dear) / 100.0);
    let gaps = lived.health_us.0.iter().flat_map(|made| made.windows(2).map(|pair| pair[1] - pair[0]));
    PlanVerdict {
        seed,
        fees: plan.fee_percent.0,
        ending: ending(plan),
        share,
        lost_unsettled,
        lost_dear: percent(most - ours) - lost_unsettled,
        lost_fine: percent(ours * (1.0 - earned)),
        fine,
        posted: lived.arrivals_us.len(),
        settled: lived.settled.0,
        best: best.settled.0,
        lag,
        best_lag: best.unsettled,
        late,
        best_late: needed.late,
        changes: lived.changes,
        busy: lived.busy,
        queue_max: lived.queue_max,
        wait_max_ms: lived.wait_max_ms(),
        health_gap_ms: gaps.min().map(|us| us / 1_000),
    }
}

fn count(payments: usize) -> f64 {
    f64::from(u32::try_from(payments).expect("a day of 20,000 users"))
}

fn ending(plan: &Plan) -> Ending {
    let Some(last) = plan.stages.last() else { return Ending::Cheap };
    let [default, fallback] = plan.fee_percent.0;
    let cheap = if fallback < default { Processor::Fallback } else { Processor::Default };
    let is_timely = |name: Processor| {
        !last.condition[name].failing && last.condition[name].delay_ms < plan.audit.margin_ms
    };
    if is_timely(cheap) {
        Ending::Cheap
    } else if is_timely(cheap.other()) {
        Ending::Dear
    } else if last.condition.0.iter().any(|condition| !condition.failing) {
        Ending::Late
    } else {
        Ending::Nothing
    }
}

fn fine(world: &World, lived: &Lived, needed: &Best) -> Option<Fine> {
    let differing: Vec<_> = lived.audits.iter().filter(|audit| audit.difference > 0).collect();
    let mut unknown = differing.iter().flat_map(|audit| &audit.unknown);
    if differing.is_empty() {
        None
    } else if needed.late > 0 {
        Some(Fine::Needed)
    } else if unknown.all(|(name, row)| is_surprised(&world.timelines[*name], row, world.margin_us)) {
        Some(Fine::Surprised)
    } else {
        Some(Fine::Avoidable)
    }
}

/// True when the call was begun so soon after its delay grew that no earlier one could have told.
fn is_surprised(timeline: &Timeline, row: &Row, margin_us: u64) -> bool {
    let grown = timeline.delay_us.rise_above(row.begun_us, margin_us);
    grown.is_some_and(|(at_us, before_us)| row.begun_us < at_us + before_us + FAITH_US)
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cheap => "cheap",
            Self::Dear => "dear",
            Self::Late => "late",
            Self::Nothing => "nothing",
        })
    }
}
