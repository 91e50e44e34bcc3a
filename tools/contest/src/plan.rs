//! What the judge does and when: users, amount, fees, stages, audits, and how the end is counted.
//!
//! Two plans are the competition's own (docs/contract.md); any other is drawn from a seed ([`crate::draw`]) or a JSON file
//! of the same shape, read by [`Plan::read`]. A plan is data: nothing here runs, and nothing here knows an address.
//!
//! Invariants of every [`Plan`] that exists
//! 1. Its stages are in the order of their start and begin before the plan ends.
//! 2. It has 1 to [`USERS_MAX`] users, lasts at most [`DURATION_MAX`], its ramp is no longer, and no delay is above
//!    [`DELAY_MAX`].
//! 3. Fees are at least 0 and below 100 per cent, and the amount is one that a payment may have.
//!
//! Before the first stage a processor answers at once and does not fail.

use crate::by_processor::ByProcessor;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::{Cents, PerProcessor, Processor};

/// Each user has a connection of its own; beyond this the local ports of one address run out.
pub const USERS_MAX: u32 = 20_000;

/// A day; what a run keeps for each payment stays under a gigabyte with the competition's number of users.
pub const DURATION_MAX: Duration = Duration::from_secs(86_400);

/// The longest delay that a stage may set; the competition's longest is 5 s.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// A whole run of the judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PlanFile", into = "PlanFile")]
pub struct Plan {
    /// How reports call it.
    pub name: String,
    /// No user begins a payment after this.
    pub duration: Duration,
    /// Users at the end of the ramp, which begins with one.
    pub users: u32,
    /// How long the ramp takes, no longer than the run; zero: all users are there at once.
    pub ramp: Duration,
    /// The amount of every payment.
    pub amount: Cents,
    /// What each processor keeps, in per cent of the amount.
    pub fee_percent: PerProcessor<f64>,
    /// How often and how both sides are compared.
    pub audit: AuditRule,
    /// What is counted at the end.
    pub end: EndRule,
    /// The states that the processors are put into, one after the other.
    pub stages: Vec<Stage>,
}

/// The comparison of what we say with what the processors hold, while the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRule {
    /// The pause after an audit; the first one is at 0.
    pub every_ms: u64,
    /// The audited window begins this long ago.
    pub reach_ms: u64,
    /// The audited window ends this long ago: what takes longer to settle can be missed by one side.
    pub margin_ms: u64,
    /// How the differences of the two processors are added.
    pub difference: Difference,
}

/// How an audit counts (docs/contract.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// |(ours - theirs) default + (ours - theirs) fallback|: a payment shown at the wrong processor is not seen.
    Net,
    /// |ours - theirs| default + |ours - theirs| fallback.
    Absolute,
}

impl Difference {
    /// What an audit adds to the judge's count, from the counts of both sides.
    #[must_use]
    pub fn of(self, ours: [u64; 2], theirs: [u64; 2]) -> u64 {
        let [default, fallback] = [0, 1].map(|at| ours[at].cast_signed() - theirs[at].cast_signed());
        match self {
            Self::Net => (default + fallback).unsigned_abs(),
            Self::Absolute => default.unsigned_abs() + fallback.unsigned_abs(),
        }
    }
}

/// The sums at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndRule {
    /// The sums reach this far back.
    pub window_ms: u64,
    /// The side whose sums are the gross amount.
    pub amounts: Amounts,
}

/// The side whose sums count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amounts {
    /// Our `/payments-summary` (preview).
    Ours,
    /// The processors' own sums (final).
    Processors,
}

/// From `from` until the next stage both processors behave like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Since the start of the run.
    pub from: Duration,
    /// The state of each processor.
    pub condition: PerProcessor<Condition>,
}

/// How a processor treats payments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Added to every payment, read when it arrives.
    pub delay_ms: u64,
    /// Whether payments are refused with 500, read when the delay is over.
    #[serde(default)]
    pub failing: bool,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("the plan is `preview`, `final`, `random` or a JSON file; {path} cannot be read: {error}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is no plan.
    #[error("{path} is no plan: {error}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        error: serde_json::Error,
    },
}

impl Plan {
    /// The preview of the competition.
    #[must_use]
    pub fn preview() -> Self {
        Self {
            name: "preview".into(),
            duration: Duration::from_secs(60),
            users: 550,
            ramp: Duration::from_secs(60),
            amount: Cents(1_990),
            fee_percent: PerProcessor([5.0, 15.0]),
            audit: AuditRule {
                every_ms: 10_000,
                reach_ms: 15_000,
                margin_ms: 1_500,
                difference: Difference::Net,
            },
            end: EndRule { window_ms: 70_000, amounts: Amounts::Ours },
            stages: vec![
                stage(1, (0, false), (0, false)),
                stage(10, (100, false), (0, false)),
                stage(20, (100, true), (0, false)),
                stage(30, (2_000, true), (1_000, true)),
                stage(40, (20, false), (20, false)),
                stage(50, (0, false), (5_000, false)),
            ],
        }
    }

    /// The final of the competition.
    #[must_use]
    pub fn final_() -> Self {
        Self {
            name: "final".into(),
            duration: Duration::from_secs(300),
            users: 603,
            ramp: Duration::from_secs(300),
            amount: Cents(2_005),
            fee_percent: PerProcessor([7.0, 10.0]),
            audit: AuditRule {
                every_ms: 10_000,
                reach_ms: 15_000,
                margin_ms: 2_000,
                difference: Difference::Absolute,
            },
            end: EndRule { window_ms: 360_000, amounts: Amounts::Processors },
            stages: vec![
                stage(1, (0, false), (0, false)),
                stage(30, (1_000, false), (0, false)),
                stage(60, (500, false), (0, false)),
                stage(90, (2_000, true), (1_000, false)),
                stage(120, (5_000, true), (5, false)),
                stage(150, (0, false), (5, true)),
                stage(180, (100, false), (5, false)),
                stage(210, (50, false), (0, false)),
                stage(240, (103, false), (10, false)),
                stage(270, (2_000, false), (0, false)),
            ],
        }
    }

    /// Reads a plan from a JSON file; `Plan::preview()` written as JSON shows the shape.
    ///
    /// # Errors
    /// [`PlanError`], with the field that breaks a rule.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| PlanError::Unreadable { path: path.into(), error })?;
        serde_json::from_str(&text).map_err(|error| PlanError::Malformed { path: path.into(), error })
    }

    /// When each user begins, since the start: the first at 0 and the last when the ramp ends. Where that is the end of
    /// the run the last never gets to post.
    ///
    /// A ramp from 1 to n users adds n - 1 at equal distances (the ramping executor of k6); one of no length is k6's
    /// executor with a constant number of users.
    pub fn user_starts(&self) -> impl Iterator<Item = Duration> {
        let steps = self.users.saturating_sub(1).max(1);
        let ramp = self.ramp.min(self.duration);
        (0..self.users).map(move |user| ramp * user / steps)
    }

    /// The number of the stage in force at `elapsed`; `None` before the first.
    #[must_use]
    pub fn stage_at(&self, elapsed: Duration) -> Option<usize> {
        self.stages.partition_point(|stage| stage.from <= elapsed).checked_sub(1)
    }

    /// How a processor behaves at `elapsed`.
    #[must_use]
    pub fn condition_at(&self, elapsed: Duration, processor: Processor) -> Condition {
        self.stage_at(elapsed).map_or(Condition::default(), |stage| self.stages[stage].condition[processor])
    }

    /// The longest delay that any stage sets: how long a call of the last moment can still be under way.
    #[must_use]
    pub fn delay_max(&self) -> Duration {
        let delays =
            self.stages.iter().flat_map(|stage| stage.condition.0).map(|condition| condition.delay_ms);
        Duration::from_millis(delays.max().unwrap_or(0))
    }
}

fn stage(from_s: u64, default: (u64, bool), fallback: (u64, bool)) -> Stage {
    let condition =
        PerProcessor([default, fallback].map(|(delay_ms, failing)| Condition { delay_ms, failing }));
    Stage { from: Duration::from_secs(from_s), condition }
}

/// The shape of a plan in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    name: String,
    duration_s: f64,
    users: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp_s: Option<f64>,
    amount: serde_json::Number,
    fee_percent: ByProcessor<f64>,
    audit: AuditRule,
    end: EndRule,
    stages: Vec<StageFile>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageFile {
    from_s: f64,
    default: Condition,
    fallback: Condition,
}

impl From<Plan> for PlanFile {
    fn from(plan: Plan) -> Self {
        Self {
            name: plan.name,
            duration_s: plan.duration.as_secs_f64(),
            users: plan.users,
            ramp_s: (plan.ramp != plan.duration).then_some(plan.ramp.as_secs_f64()),
            amount: plan.amount.to_string().parse().expect("an amount is written as a JSON number"),
            fee_percent: plan.fee_percent.into(),
            audit: plan.audit,
            end: plan.end,
            stages: plan.stages.iter().map(StageFile::from).collect(),
        }
    }
}

impl From<&Stage> for StageFile {
    fn from(stage: &Stage) -> Self {
        let [default, fallback] = stage.condition.0;
        Self { from_s: stage.from.as_secs_f64(), default, fallback }
    }
}

impl TryFrom<PlanFile> for Plan {
    type Error = String;

    fn try_from(file: PlanFile) -> Result<Self, String> {
        let duration = seconds("duration_s", file.duration_s, DURATION_MAX)?;
        if duration.is_zero() || !(1..=USERS_MAX).contains(&file.users) {
            return Err(format!("duration_s must be above 0 and users 1 to {USERS_MAX}"));
        }
        let ramp = file.ramp_s.map_or(Ok(duration), |ramp_s| seconds("ramp_s", ramp_s, duration))?;
        let amount = Cents::from_json_number(&file.amount.to_string()).map_err(|error| error.to_string())?;
        let fee_percent = PerProcessor::from(file.fee_percent);
        if fee_percent.0.iter().any(|fee| !(0.0..100.0).contains(fee)) {
            return Err("fee_percent must be at least 0 and below 100".into());
        }
        let AuditRule { every_ms, reach_ms, margin_ms, .. } = file.audit;
        if every_ms == 0 || margin_ms > reach_ms {
            return Err("audit.every_ms must be above 0 and audit.margin_ms at most audit.reach_ms".into());
        }
        let stages =
            file.stages.iter().map(|stage| stage.checked(duration)).collect::<Result<Vec<_>, _>>()?;
        if !stages.is_sorted_by_key(|stage| stage.from) {
            return Err("stages must be in the order of from_s".into());
        }
        let (name, users, audit, end) = (file.name, file.users, file.audit, file.end);
        Ok(Self { name, duration, users, ramp, amount, fee_percent, audit, end, stages })
    }
}

impl StageFile {
    fn checked(&self, duration: Duration) -> Result<Stage, String> {
        let condition = PerProcessor([self.default, self.fallback]);
        if condition.0.iter().any(|condition| Duration::from_millis(condition.delay_ms) > DELAY_MAX) {
            return Err(format!("delay_ms must be at most {}", DELAY_MAX.as_millis()));
        }
        Ok(Stage { from: seconds("from_s", self.from_s, duration)?, condition })
    }
}

fn seconds(field: &str, value: f64, max: Duration) -> Result<Duration, String> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if duration <= max => Ok(duration),
        _ => Err(format!("{field} must be 0 to {}", max.as_secs_f64())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw;

    #[test]
    fn the_ramp_adds_users_at_equal_distances() {
        let mut plan = Plan::preview();
        let starts_s = |plan: &Plan| plan.user_starts().map(|start| start.as_secs()).collect::<Vec<_>>();
        plan.users = 4;
        assert_eq!(starts_s(&plan), [0, 20, 40, 60]);
        plan.ramp = Duration::from_secs(30);
        assert_eq!(starts_s(&plan), [0, 10, 20, 30]);
        plan.ramp = Duration::ZERO;
        assert_eq!(starts_s(&plan), [0; 4]);
        plan.users = 1;
        assert_eq!(plan.user_starts().collect::<Vec<_>>(), [Duration::ZERO]);
    }

    #[test]
    fn the_ramp_of_the_final_posts_as_many_payments_as_the_published_runs() {
        let plan = Plan::final_();
        // Each user posts at its start and then every second and a millisecond.
        let posts: u128 =
            plan.user_starts().map(|start| (plan.duration - start).as_micros().div_ceil(1_001_000)).sum();
        assert!((90_500..90_800).contains(&posts), "{posts}; the winner's run had 90,591");
    }

    #[test]
    fn a_stage_is_in_force_from_its_first_instant_until_the_next() {
        let plan = Plan::preview();
        let stage_at_ms = |ms| plan.stage_at(Duration::from_millis(ms));
        assert_eq!(stage_at_ms(0), None);
        assert_eq!(stage_at_ms(999), None);
        assert_eq!(stage_at_ms(1_000), Some(0));
        assert_eq!(stage_at_ms(19_999), Some(1));
        assert_eq!(stage_at_ms(20_000), Some(2));
        assert_eq!(stage_at_ms(600_000), Some(5));
        let during = |ms, processor| plan.condition_at(Duration::from_millis(ms), processor);
        assert_eq!(during(500, Processor::Default), Condition::default());
        assert_eq!(during(25_000, Processor::Default), Condition { delay_ms: 100, failing: true });
        assert_eq!(during(55_000, Processor::Fallback), Condition { delay_ms: 5_000, failing: false });
        assert_eq!(plan.delay_max(), Duration::from_secs(5));
    }

    #[test]
    fn a_plan_written_as_json_is_read_back() {
        for plan in [Plan::preview(), Plan::final_(), draw::plan(1), draw::plan(2)] {
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan, "{text}");
        }
    }

    #[test]
    fn a_broken_rule_is_refused_by_name() {
        let good = serde_json::to_value(Plan::preview()).unwrap();
        for (path, value, named) in [
            ("/users", 0.into(), "users"),
            ("/users", 20_001.into(), "users"),
            ("/duration_s", (-1).into(), "duration_s"),
            ("/ramp_s", 61.into(), "ramp_s"),
            ("/amount", 19.905.into(), "decimals"),
            ("/fee_percent/fallback", 100.into(), "fee_percent"),
            ("/audit/margin_ms", 15_001.into(), "margin_ms"),
            ("/stages/1/from_s", 25.into(), "order"),
            ("/stages/5/from_s", 61.into(), "from_s"),
            ("/stages/5/default/delay_ms", 60_001.into(), "delay_ms"),
        ] {
            let mut plan: serde_json::Value = good.clone();
            match plan.pointer_mut(path) {
                Some(place) => *place = value,
                None => plan[&path[1..]] = value,
            }
            let error = serde_json::from_value::<Plan>(plan).expect_err(path).to_string();
            assert!(error.contains(named), "{path}: {error}");
        }
    }

    #[test]
    fn the_preview_does_not_see_a_payment_at_the_wrong_processor_and_the_final_does() {
        for (ours, theirs, net, absolute) in [
            ([10, 5], [10, 5], 0, 0),
            ([9, 6], [10, 5], 0, 2),
            ([8, 5], [10, 5], 2, 2),
            ([12, 6], [10, 5], 3, 3),
            ([0, 0], [10, 5], 15, 15),
        ] {
            assert_eq!(Difference::Net.of(ours, theirs), net, "{ours:?} {theirs:?}");
            assert_eq!(Difference::Absolute.of(ours, theirs), absolute, "{ours:?} {theirs:?}");
        }
    }
}
