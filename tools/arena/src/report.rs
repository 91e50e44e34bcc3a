//! What came of a fight: a table for people, the same and everything behind it as JSON, and the exit status.
//!
//! A report is computed once from what was seen ([`Report::new`]) and only written afterwards, so the table, the JSON
//! and the exit status cannot tell different stories. Lists of ids are cut at [`IDS_SHOWN_MAX`]; their lengths are kept
//! beside them. Points and money are two verdicts: an audit that differed costs points, a lost payment is money.

use crate::audit::Audit;
use crate::containers::Used;
use crate::judge::{End, Judge};
use crate::reckoning::{Faults, Reckoning};
use crate::stack::Role;
use crate::tally::{Latency, Posted};
use crate::told::Told;
use contest::by_processor::ByProcessor;
use contest::clairvoyant::{Best, Capacity, World, best};
use contest::plan::Plan;
use contest::score::{Score, Settled, score};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;
use wire::{Cents, PaymentId, PerProcessor, Processor, Timestamp};

/// Of each kind of fault, the ids that are written out.
pub const IDS_SHOWN_MAX: usize = 20;

/// What a processor does at most, for the clairvoyant: 800 calls at once (docs/contract.md), and recordings at a rate
/// that none reaches on one machine with everything else; a real one gets through "some thousands" a second.
const CAPACITY: Capacity = Capacity { calls_max: 800, record_gap_us: 50 };

/// How long after its `requestedAt` a call is sent at the latest (docs/money.md: a lease not begun within 50 ms goes back).
const SENT_WITHIN_US: u64 = 50_000;

/// Exit statuses of a fight and of chaos, as the help of `arena` tells them.
pub(crate) const EXIT_CLEAN: u8 = 0;
pub(crate) const EXIT_MONEY: u8 = 3;
pub(crate) const EXIT_JUDGED: u8 = 4;

/// A kill of the fight, and what it hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Killed {
    /// Which kind of process.
    pub role: Role,
    /// Which one; nothing when none ran at that moment.
    pub name: Option<String>,
    /// When, in milliseconds since the start.
    pub at_ms: u64,
}

/// A child that ended without being asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Which one.
    pub name: String,
    /// How.
    pub how: String,
    /// Whether the fight killed it.
    pub is_planned: bool,
}

/// Everything that is told of a fight.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was played.
    pub plan: Plan,
    /// When it began.
    pub started_at: String,
    /// The profile that cargo built the processes in; `None` for containers, an installation or a foreign target.
    pub profile: Option<&'static str>,
    /// Users' payments and what became of them.
    pub requests: Requests,
    /// Latency of accepted payments.
    pub post: Latency,
    /// The same, stage by stage of the plan.
    pub post_by_stage: Vec<Latency>,
    /// Latency of everything that counts for the score's percentile.
    pub judged: Latency,
    /// What was settled when the judge counted.
    pub settled: ByProcessor<Settled>,
    /// The score.
    pub score: Score,
    /// The best that could have been had.
    pub clairvoyant: Clairvoyant,
    /// All audits.
    pub audits: Vec<Audit>,
    /// Sums that were missing at the end, and why.
    pub end_failures: Vec<String>,
    /// The three-sided check.
    pub check: Check,
    /// Processes killed by the fight.
    pub kills: Vec<Killed>,
    /// Processes that ended.
    pub ended: Vec<Ended>,
    /// What containers, or processes with limits, used while the judge played; empty when there were none.
    pub containers: Vec<Used>,
}

/// Payments as the users saw them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Posted.
    pub posted: u64,
    /// With a 2xx.
    pub accepted: u64,
    /// Everything else, by what it was.
    pub failed: BTreeMap<String, u64>,
    /// Users that posted.
    pub users: u32,
    /// Connections that they made; as many as users when none was ever lost.
    pub connections: u64,
}

/// The router that knew the future.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Clairvoyant {
    /// What it settles at each processor.
    pub settled: ByProcessor<usize>,
    /// Of these, calls that may be in flight for longer than the audit's margin.
    pub late: usize,
    /// Late calls conceded to it because the router under test made as many.
    pub late_conceded: usize,
    /// Payments that even it could not settle in time.
    pub unsettled: usize,
    /// Its score at the same p99.
    pub score: f64,
    /// What the run has of that, in per cent.
    pub share_percent: f64,
}

/// The three-sided check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Faults of single payments; nothing when the processors do not list their rows.
    pub faults: Option<FaultLists>,
    /// What we say is settled, after draining.
    pub ours: ByProcessor<Settled>,
    /// What the processors say.
    pub theirs: ByProcessor<Settled>,
    /// Until everything accepted was settled and the sums agreed; nothing when that did not happen in time.
    pub drained_ms: Option<u64>,
}

/// Payments that are not as they should be (see `reckoning`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultLists {
    /// Accepted, and on neither processor.
    pub lost: IdList,
    /// On both processors.
    pub doubled: IdList,
    /// On a processor, and never posted.
    pub invented: IdList,
    /// Charged with another amount.
    pub altered: IdList,
    /// Refused, and settled all the same.
    pub contradicted: IdList,
    /// Without an answer, and settled; no fault.
    pub unanswered: IdList,
}

/// Some payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdList {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: Vec<String>,
}

impl Report {
    /// Computes everything from what was seen.
    #[must_use]
    pub fn new(
        judge: &Judge,
        end: &End,
        reckoning: &Reckoning,
        kills: Vec<Killed>,
        ended: Vec<Ended>,
    ) -> Self {
        let tally = &judge.tally;
        let (audits, judged) = (judge.audits.borrow().clone(), tally.judged_latency());
        let is_inconsistent = audits.iter().any(|audit| audit.difference > 0);
        let score =
            score(tally.accepted_count(), &end.settled, &end.fee_percent, judged.p99_ms, is_inconsistent);
        Self {
            plan: (*judge.plan).clone(),
            started_at: judge.start_wall.to_string(),
            profile: None,
            requests: Requests {
                posted: tally.posted_count(),
                accepted: tally.accepted_count(),
                failed: tally.failures(),
                users: tally.users.get(),
                connections: tally.connects.get(),
            },
            post: tally.post_latency(),
            post_by_stage: tally.post_latency_from(&stages_us(&judge.plan)),
            judged,
            settled: end.settled.into(),
            score,
            clairvoyant: Clairvoyant::of(judge, end, reckoning, score.total),
            audits,
            end_failures: end.failures.clone(),
            check: reckoning.into(),
            kills,
            ended,
            containers: Vec::new(),
        }
    }

    /// True when the system came to rest, no payment is other than it should be, and the sums agree.
    #[must_use]
    pub fn is_money_right(&self) -> bool {
        let Check { faults, ours, theirs, drained_ms } = &self.check;
        drained_ms.is_some() && faults.as_ref().is_none_or(FaultLists::is_empty) && ours == theirs
    }

    /// The exit status of the fight.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        if !self.is_money_right() {
            return EXIT_MONEY;
        }
        let is_consistent = self.audits.iter().all(|audit| audit.difference == 0);
        if is_consistent && self.score.lag == 0 { EXIT_CLEAN } else { EXIT_JUDGED }
    }
}

fn stages_us(plan: &Plan) -> Vec<u64> {
    plan.stages.iter().map(|stage| u64::try_from(stage.from.as_micros()).unwrap_or(u64::MAX)).collect()
}

impl Clairvoyant {
    fn of(judge: &Judge, end: &End, reckoning: &Reckoning, score_total: f64) -> Self {
        let world = World {
            timelines: end.timelines.clone(),
            fee_percent: end.fee_percent,
            capacity: CAPACITY,
            // A delay of just the margin is late: the answer takes time too.
            margin_us: (judge.plan.audit.margin_ms * 1_000).saturating_sub(1),
            end_us: end.at_us,
        };
        let arrivals = arrivals(&judge.tally.payments(), reckoning);
        let late_conceded = late_calls(&world, judge.start_wall, reckoning);
        let best = best(&world, &arrivals, late_conceded);
        let settled = PerProcessor::from_fn(|processor| {
            let count = best.settled[processor];
            let cents = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(judge.plan.amount.0);
            Settled { count: count as u64, amount: Cents(cents) }
        });
        let p99_ms = judge.tally.judged_latency().p99_ms;
        let score = score(arrivals.len() as u64, &settled, &end.fee_percent, p99_ms, false).total;
        let share_percent = if score > 0.0 { score_total / score * 100.0 } else { 100.0 };
        let Best { settled, late, unsettled } = best;
        Self { settled: settled.into(), late, late_conceded, unsettled, score, share_percent }
    }
}

/// When the payments arrived that could be settled: accepted ones, and those that were, or may have been, without an
/// answer.
fn arrivals(posted: &[Posted], reckoning: &Reckoning) -> Vec<u64> {
    let settled: HashSet<PaymentId> = reckoning.rows.0.iter().flatten().map(|row| row.id).collect();
    let is_listed = reckoning.faults.is_some();
    let arrived = |payment: &&Posted| match payment.told {
        Told::Accepted => true,
        Told::Unknown | Told::Refused | Told::Rejected if is_listed => settled.contains(&payment.id),
        Told::Unknown => true,
        Told::Refused | Told::Rejected => false,
    };
    posted.iter().filter(arrived).map(|payment| payment.at_us).collect()
}

/// Rows whose call was in flight for longer than the margin, judged by the processor's delay when it was sent.
fn late_calls(world: &World, start: Timestamp, reckoning: &Reckoning) -> usize {
    let is_late = |processor: Processor, requested_at: Timestamp| {
        let delay_us = &world.timelines[processor].delay_us;
        let at_us = u64::try_from(requested_at.0 - start.0).unwrap_or(0);
        delay_us.at(at_us).max(delay_us.at(at_us + SENT_WITHIN_US)) > world.margin_us
    };
    let of = |processor: Processor| {
        let rows = reckoning.rows[processor].iter();
        rows.filter(|row| is_late(processor, row.requested_at)).count()
    };
    Processor::BOTH.into_iter().map(of).sum()
}

impl From<&Reckoning> for Check {
    fn from(reckoning: &Reckoning) -> Self {
        Self {
            faults: reckoning.faults.as_ref().map(FaultLists::from),
            ours: reckoning.ours.into(),
            theirs: reckoning.theirs.into(),
            drained_ms: reckoning.drained_ms,
        }
    }
}

impl From<&Faults> for FaultLists {
    fn from(faults: &Faults) -> Self {
        let list = |ids: &[PaymentId]| IdList {
            count: ids.len(),
            first: ids.iter().take(IDS_SHOWN_MAX).map(PaymentId::to_string).collect(),
        };
        Self {
            lost: list(&faults.lost),
            doubled: list(&faults.doubled),
            invented: list(&faults.invented),
            altered: list(&faults.altered),
            contradicted: list(&faults.contradicted),
            unanswered: list(&faults.unanswered),
        }
    }
}

impl FaultLists {
    /// True when nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named().iter().all(|(_, list)| list.count == 0)
    }

    fn named(&self) -> [(&'static str, &IdList); 5] {
        [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("invented", &self.invented),
            ("altered", &self.altered),
            ("contradicted", &self.contradicted),
        ]
    }
}

/// How a fight is played with the build that figures are taken with.
const FIGURES: &str = "cargo run --release -p arena -- fight ...";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { name, users, .. } = &self.plan;
        row(f, "plan", format_args!("{name}, {users} users, begun {}", self.started_at))?;
        match self.profile {
            Some("release") => row(f, "build", "release")?,
            Some(profile) => row(f, "build", format_args!("{profile}; for a figure that counts: {FIGURES}"))?,
            None => (),
        }
        self.write_score(f)?;
        self.write_requests(f)?;
        self.write_audits(f)?;
        self.write_check(f)?;
        self.write_processes(f)?;
        self.write_containers(f)?;
        let verdict = match self.exit_status() {
            EXIT_CLEAN => "clean",
            EXIT_MONEY => "the MONEY is not right",
            _ => "an audit differed, or there is a lag",
        };
        row(f, "verdict", verdict)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// One line of the table; the name is empty where a line goes on.
fn row(f: &mut fmt::Formatter<'_>, name: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<14}{text}")
}

impl Report {
    fn write_score(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { score, clairvoyant, settled, judged, .. } = self;
        let disqualified =
            if score.disqualified { "  DISQUALIFIED: more settled than asked for" } else { "" };
        row(f, "score", format_args!("{:>14.2}{disqualified}", score.total))?;
        row(f, "  gross", format_args!("{:>14.2}", score.gross))?;
        row(f, "  fees", format_args!("{:>14.2}", score.fees))?;
        let (bonus, fine) = (100.0 * score.bonus, 100.0 * score.fine);
        row(
            f,
            "  bonus",
            format_args!("{bonus:>13.0}%  for a p99 of {:.2} ms over all requests", judged.p99_ms),
        )?;
        row(f, "  fine", format_args!("{fine:>13.0}%"))?;
        let ByProcessor { default, fallback } = settled;
        let (default, fallback) = (default.count, fallback.count);
        row(f, "settled", format_args!("{default:>14}  default, {fallback} fallback, lag {}", score.lag))?;
        let share = clairvoyant.share_percent;
        row(
            f,
            "clairvoyant",
            format_args!("{:>14.2}  the best possible; this is {share:.2}% of it", clairvoyant.score),
        )?;
        let ByProcessor { default, fallback } = clairvoyant.settled;
        row(f, "", format_args!("{default:>14}  default, {fallback} fallback, lag {}", clairvoyant.unsettled))
    }

    fn write_requests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requests { posted, accepted, failed, .. } = &self.requests;
        let failures: u64 = failed.values().sum();
        row(f, "payments", format_args!("{posted:>14}  posted, {accepted} accepted, {failures} failed"))?;
        for (what, count) in failed {
            row(f, "", format_args!("{count:>14}  {what}"))?;
        }
        let Latency { p50_ms, p99_ms, p999_ms, max_ms, .. } = self.post;
        let text = format_args!("p50 {p50_ms:.2} ms, p99 {p99_ms:.2}, p99.9 {p999_ms:.2}, max {max_ms:.2}");
        row(f, "  latency", text)?;
        let stages: Vec<String> =
            self.post_by_stage.iter().map(|stage| format!("{:.2}", stage.p99_ms)).collect();
        row(f, "  by stage", format_args!("p99 {} ms", stages.join(", ")))
    }

    fn write_audits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differing: Vec<&Audit> = self.audits.iter().filter(|audit| audit.difference > 0).collect();
        row(
            f,
            "audits",
            format_args!("{:>14}  made, {} with a difference", self.audits.len(), differing.len()),
        )?;
        for audit in differing {
            let Audit { at_ms, ours, theirs, difference, failures, .. } = audit;
            let counts =
                |side: &ByProcessor<Settled>| format!("{} and {}", side.default.count, side.fallback.count);
            let (ours, theirs, why) = (counts(ours), counts(theirs), failures.join(", "));
            row(f, "", format_args!("{difference:>14}  at {at_ms} ms: ours {ours}, theirs {theirs} {why}"))?;
        }
        self.end_failures
            .iter()
            .try_for_each(|failure| row(f, "", format_args!("missing at the end: {failure}")))
    }

    fn write_check(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { faults, ours, theirs, drained_ms } = &self.check;
        let rest = drained_ms.map_or("NOT everything settled and at rest in time".into(), |ms| {
            format!("everything settled and at rest {ms} ms after the end")
        });
        row(f, "check", rest)?;
        match faults {
            Some(faults) => write_faults(f, faults)?,
            None => row(f, "", "single payments NOT CHECKED: these processors do not list theirs")?,
        }
        if ours == theirs {
            return row(f, "", "our summary and the processors' sums agree to the cent");
        }
        row(f, "", format_args!("sums DIFFER: ours {ours:?}, theirs {theirs:?}"))
    }

    fn write_containers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, used) in self.containers.iter().enumerate() {
            let Used { name, cpu_us, throttled_periods, throttled_us, memory_peak_bytes } = used;
            let text = format_args!(
                "{name:<6} {:6.2} s of CPU, {throttled_periods} periods throttled for {} ms, {:.1} MB at most",
                Duration::from_micros(*cpu_us).as_secs_f64(),
                throttled_us / 1_000,
                megabytes(*memory_peak_bytes)
            );
            row(f, if at == 0 { "used" } else { "" }, text)?;
        }
        Ok(())
    }

    fn write_processes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Killed { name, at_ms, role } in &self.kills {
            let name = name.clone().unwrap_or_else(|| format!("no {role:?} to kill"));
            row(f, "killed", format_args!("{name} at {at_ms} ms"))?;
        }
        let mut unplanned = self.ended.iter().filter(|ended| !ended.is_planned);
        unplanned.try_for_each(|ended| row(f, "ENDED", format_args!("{}: {}", ended.name, ended.how)))
    }
}

fn write_faults(f: &mut fmt::Formatter<'_>, faults: &FaultLists) -> fmt::Result {
    let counts = faults.named().map(|(name, list)| format!("{} {name}", list.count)).join(", ");
    row(f, "", format_args!("{counts}; {} unanswered and settled", faults.unanswered.count))?;
    for (name, list) in faults.named().iter().filter(|(_, list)| list.count > 0) {
        row(f, "", format_args!("{name}: {}", list.first.join(" ")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sides::Row;
    use contest::clairvoyant::{Steps, Timeline};

    /// A run in which every payment of 19.90 went well, half of them to each processor.
    fn report() -> Report {
        let settled = PerProcessor([Settled { count: 500, amount: Cents(995_000) }; 2]);
        let reckoning = Reckoning {
            faults: Some(Faults::default()),
            ours: settled,
            theirs: settled,
            rows: PerProcessor::default(),
            drained_ms: Some(7),
        };
        let failed = BTreeMap::from([("status 503".to_owned(), 2)]);
        let fees = PerProcessor([5.0, 15.0]);
        Report {
            plan: Plan::preview(),
            profile: Some("release"),
            started_at: "2025-07-15T12:34:56.000Z".into(),
            requests: Requests { posted: 1_002, accepted: 1_000, failed, users: 9, connections: 9 },
            post: Latency { count: 1_000, p50_ms: 0.5, p99_ms: 1.0, p999_ms: 2.0, max_ms: 3.0 },
            post_by_stage: [0.75, 1.5].map(|p99_ms| Latency { p99_ms, ..Latency::default() }).to_vec(),
            judged: Latency { count: 1_100, p50_ms: 0.5, p99_ms: 1.25, p999_ms: 2.0, max_ms: 3.0 },
            settled: settled.into(),
            score: score(1_000, &settled, &fees, 1.25, false),
            clairvoyant: Clairvoyant {
                settled: ByProcessor { default: 1_000, fallback: 0 },
                late: 0,
                late_conceded: 0,
                unsettled: 0,
                score: 22_686.0,
                share_percent: 94.74,
            },
            audits: vec![audit(0)],
            end_failures: Vec::new(),
            check: (&reckoning).into(),
            kills: vec![Killed { role: Role::Store, name: Some("store".into()), at_ms: 15_001 }],
            ended: Vec::new(),
            containers: Vec::new(),
        }
    }

    fn audit(difference: u64) -> Audit {
        let (from, to) = ("2025-07-15T12:34:41.000Z".into(), "2025-07-15T12:34:54.500Z".into());
        let (ours, theirs) = (ByProcessor::default(), ByProcessor::default());
        Audit { at_ms: 10_004, from, to, ours, theirs, difference, failures: Vec::new() }
    }

    #[test]
    fn the_exit_status_tells_money_from_points() {
        assert_eq!(report().exit_status(), 0);
        let mut differing = report();
        differing.audits.push(audit(1));
        assert_eq!(differing.exit_status(), 4);
        let mut lagging = report();
        lagging.score.lag = 1;
        assert_eq!(lagging.exit_status(), 4);
        let mut unequal = report();
        unequal.check.ours.default.amount = Cents(1);
        assert_eq!(unequal.exit_status(), 3);
        for kind in 0..5 {
            let mut wrong = report();
            let faults = wrong.check.faults.as_mut().unwrap();
            let lists = [&mut faults.lost, &mut faults.doubled, &mut faults.invented, &mut faults.altered];
            match lists.into_iter().nth(kind) {
                Some(list) => list.count = 1,
                None => faults.contradicted.count = 1,
            }
            assert_eq!(wrong.exit_status(), 3, "{kind}");
        }
        let mut restless = report();
        restless.check.drained_ms = None;
        assert_eq!(restless.exit_status(), 3);
        let mut unanswered = report();
        unanswered.check.faults.as_mut().unwrap().unanswered.count = 1;
        assert_eq!(unanswered.exit_status(), 0);
    }

    #[test]
    fn the_table_tells_everything_that_decides() {
        let expected = "\
plan          preview, 550 users, begun 2025-07-15T12:34:56.000Z
build         release
score               21492.00
  gross             19900.00
  fees               1990.00
  bonus                  20%  for a p99 of 1.25 ms over all requests
  fine                    0%
settled                  500  default, 500 fallback, lag 0
clairvoyant         22686.00  the best possible; this is 94.74% of it
                        1000  default, 0 fallback, lag 0
payments                1002  posted, 1000 accepted, 2 failed
                           2  status 503
  latency     p50 0.50 ms, p99 1.00, p99.9 2.00, max 3.00
  by stage    p99 0.75, 1.50 ms
audits                     1  made, 0 with a difference
check         everything settled and at rest 7 ms after the end
              0 lost, 0 doubled, 0 invented, 0 altered, 0 contradicted; 0 unanswered and settled
              our summary and the processors' sums agree to the cent
killed        store at 15001 ms
verdict       clean
";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn the_json_names_both_processors_and_counts_cents() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json.pointer("/settled/fallback/cents"), Some(&995_000.into()));
        assert_eq!(json.pointer("/check/faults/lost/count"), Some(&0.into()));
        assert_eq!(json.pointer("/audits/0/difference"), Some(&0.into()));
        assert_eq!(json.pointer("/kills/0/role"), Some(&"store".into()));
        assert_eq!(json.pointer("/plan/amount"), Some(&19.9.into()));
    }

    #[test]
    fn a_call_is_late_when_the_delay_was_above_the_margin_as_it_was_sent() {
        let mut slow = Timeline { delay_us: Steps::new(0), failing: Steps::new(false) };
        let quick = slow.clone();
        slow.delay_us.change(1_000_000, 2_000_000);
        slow.delay_us.change(2_000_000, 0);
        let world = World {
            timelines: PerProcessor([slow, quick]),
            fee_percent: PerProcessor([7.0, 10.0]),
            capacity: CAPACITY,
            margin_us: 1_999_999,
            end_us: 9_000_000,
        };
        let start = Timestamp(5);
        let row =
            |ms: i64| Row { id: PaymentId(0), amount: Cents(1), requested_at: Timestamp(5 + ms * 1_000) };
        let times = [0, 949, 950, 1_500, 1_999, 2_000];
        let on = |rows| Reckoning { rows: PerProcessor(rows), ..Reckoning::default() };
        let late = |rows| late_calls(&world, start, &on(rows));
        assert_eq!(times.map(|ms| late([vec![row(ms)], Vec::new()])), [0, 0, 1, 1, 1, 0]);
        assert_eq!(late([Vec::new(), times.map(row).to_vec()]), 0);
    }

    #[test]
    fn only_what_could_be_settled_arrived() {
        let fates = [Told::Accepted, Told::Unknown, Told::Unknown, Told::Refused, Told::Refused];
        let posted: Vec<Posted> = (0..)
            .zip(fates)
            .map(|(id, told)| Posted { id: PaymentId(id.into()), at_us: id, took_us: None, told })
            .collect();
        let row = |id| Row { id: PaymentId(id), amount: Cents(1_990), requested_at: Timestamp(0) };
        let rows = PerProcessor([vec![row(0), row(1)], vec![row(3)]]);
        let listed = Reckoning { faults: Some(Faults::default()), rows, ..Reckoning::default() };
        assert_eq!(arrivals(&posted, &listed), [0, 1, 3]);
        assert_eq!(arrivals(&posted, &Reckoning::default()), [0, 1, 2], "what may have been settled");
    }
}
