//! The numbers of a run: added up over its rounds, kept in the file of `--state`, told as a table and as JSON.

use super::clients::Clients;
use super::inject::Injector;
use super::verdict::Verdict;
use crate::processor::Observed;
use crate::tally::Latency;
use crate::wrong::Wrong;
use anyhow::Context;
use contest::score::Settled;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use wire::{Cents, PerProcessor};

/// Counts by name.
type Counts = BTreeMap<String, u64>;

/// Payments and cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Their amounts.
    pub cents: i64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.cents += other.cents;
    }
}

impl From<Settled> for Sum {
    fn from(settled: Settled) -> Self {
        Self { count: settled.count, cents: settled.amount.0 }
    }
}

impl From<PerProcessor<Settled>> for Sum {
    fn from(settled: PerProcessor<Settled>) -> Self {
        let mut sum = Self::default();
        settled.0.into_iter().for_each(|settled| sum.add(settled.into()));
        sum
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} payments, {}", self.count, Cents(self.cents))
    }
}

/// The numbers of one round, or of several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// The first seed.
    pub seed: u64,
    /// Rounds, each with the next seed.
    pub rounds: u64,
    /// Whether the disk could be made to fail.
    pub has_disk_faults: bool,
    /// Faults by kind.
    pub faults: Counts,
    /// Processes that got SIGKILL, by name.
    pub killed: Counts,
    /// Misbehaviours of the processors, by the calls that they hit.
    pub misbehaved: Counts,
    /// Payments that clients asked for.
    pub payments: u64,
    /// Of these, accepted.
    pub accepted: u64,
    /// Requests for payments by what was answered.
    pub answers: Counts,
    /// Times that a payment was asked for again because nothing was certain, and because nothing had been recorded.
    pub repeats_unknown: u64,
    /// See [`Totals::repeats_unknown`].
    pub repeats_refused: u64,
    /// Payments that were due and not begun.
    pub passed_over: u64,
    /// Summaries by what was answered.
    pub summaries: Counts,
    /// Summaries that were neither 200 nor 503, or came late while nothing was stopped.
    pub bad_summaries: u64,
    /// Latency of payments accepted at once, of the round with the slowest 99th percentile.
    pub latency: Percentiles,
    /// Purges in mid-flight, and the tombstones that they left.
    pub purges: u64,
    /// See [`Totals::purges`].
    pub tombstones: u64,
    /// Payments that are not as they should be, by kind.
    pub wrong: BTreeMap<Wrong, u64>,
    /// What was charged, as the clients, our summary, our log and the processors have it.
    pub sums: [Sum; 4],
    /// Rounds in which these differed.
    pub differing: u64,
    /// Rows that the processors lost, which stay charged.
    pub lost_by_processors: u64,
    /// Payments that no client got a certain answer for, and that are charged.
    pub unanswered: u64,
    /// Payments that a purge forgot, and that a processor holds.
    pub of_worlds_before: u64,
    /// The longest that a round took to come to rest.
    pub drained_ms_max: Option<u64>,
    /// The most payments at once in the handler of a processor.
    pub running_max: usize,
    /// Health calls.
    pub health_calls: u64,
    /// The shortest time between two of them at one processor.
    pub health_gap_min_ms: Option<u64>,
}

/// Of a latency, what the table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
}

impl From<Latency> for Percentiles {
    fn from(latency: Latency) -> Self {
        Self { p50_ms: latency.p50_ms, p99_ms: latency.p99_ms }
    }
}

fn add_counts(counts: &mut Counts, others: &Counts) {
    for (name, count) in others {
        *counts.entry(name.clone()).or_default() += count;
    }
}

impl Totals {
    /// Of one round, nothing seen yet.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, rounds: 1, ..Self::default() }
    }

    /// Those in a file, or none yet.
    ///
    /// # Errors
    /// When the file holds something else, or a run with another seed.
    pub fn load(path: &Path, seed: u64) -> anyhow::Result<Self> {
        let Ok(bytes) = fs::read(path) else { return Ok(Self { seed, ..Self::default() }) };
        let totals: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no state of a run; name another file", path.display()))?;
        anyhow::ensure!(totals.seed == seed, "{} is of --seed {}", path.display(), totals.seed);
        Ok(totals)
    }

    /// Writes them to a file, all or nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let unfinished = path.with_extension("tmp");
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&unfinished, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds the round after the last one.
    pub fn add(&mut self, other: &Self) {
        self.rounds += other.rounds;
        self.has_disk_faults |= other.has_disk_faults;
        for (counts, others) in [
            (&mut self.faults, &other.faults),
            (&mut self.killed, &other.killed),
            (&mut self.misbehaved, &other.misbehaved),
            (&mut self.answers, &other.answers),
            (&mut self.summaries, &other.summaries),
        ] {
            add_counts(counts, others);
        }
        for (count, other) in [
            (&mut self.payments, other.payments),
            (&mut self.accepted, other.accepted),
            (&mut self.repeats_unknown, other.repeats_unknown),
            (&mut self.repeats_refused, other.repeats_refused),
            (&mut self.passed_over, other.passed_over),
            (&mut self.bad_summaries, other.bad_summaries),
            (&mut self.purges, other.purges),
            (&mut self.tombstones, other.tombstones),
            (&mut self.differing, other.differing),
            (&mut self.lost_by_processors, other.lost_by_processors),
            (&mut self.unanswered, other.unanswered),
            (&mut self.of_worlds_before, other.of_worlds_before),
            (&mut self.health_calls, other.health_calls),
        ] {
            *count += other;
        }
        for (wrong, count) in &other.wrong {
            *self.wrong.entry(*wrong).or_default() += count;
        }
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, other)| sum.add(other));
        if other.latency.p99_ms > self.latency.p99_ms {
            self.latency = other.latency;
        }
        self.drained_ms_max = self.drained_ms_max.max(other.drained_ms_max);
        self.running_max = self.running_max.max(other.running_max);
        self.health_gap_min_ms =
            [self.health_gap_min_ms, other.health_gap_min_ms].into_iter().flatten().min();
    }

    /// Takes in what was injected.
    pub fn take_faults(&mut self, injector: &Injector) {
        self.faults = injector.done.borrow().clone();
        self.killed = injector.killed.borrow().clone();
    }

    /// Takes in what the clients saw.
    pub fn take_load(&mut self, load: &Clients) {
        let (book, counts) = (load.book.borrow(), load.counts.borrow());
        self.payments = book.entries().len() as u64;
        self.accepted = book.entries().iter().filter(|entry| entry.is_accepted()).count() as u64;
        self.answers = counts.answers.clone();
        self.summaries = counts.summaries.clone();
        self.repeats_unknown = counts.repeats_unknown;
        self.repeats_refused = counts.repeats_refused;
        self.passed_over = counts.passed_over;
        self.bad_summaries = counts.bad_summaries;
        self.latency = load.latency().into();
    }

    /// Takes in what the comparison found.
    pub fn take_verdict(&mut self, verdict: &Verdict) {
        self.wrong = verdict.faults.iter().map(|(wrong, ids)| (*wrong, ids.len() as u64)).collect();
        let sums = &verdict.sums;
        self.sums = [sums.clients.into(), sums.summary.into(), sums.log.into(), sums.processors.into()];
        self.differing = u64::from(!sums.agree());
        self.lost_by_processors = verdict.lost_by_processors;
        self.unanswered = verdict.unanswered;
        self.of_worlds_before = verdict.of_worlds_before;
    }

    /// Takes in what a processor did and saw.
    pub fn take_observed(&mut self, observed: &Observed) {
        add_counts(&mut self.misbehaved, &observed.done);
        self.running_max = self.running_max.max(observed.running_max);
        self.health_calls += observed.health_calls;
        self.health_gap_min_ms =
            [self.health_gap_min_ms, observed.health_gap_min_ms].into_iter().flatten().min();
    }

    /// True when no payment is other than it should be, and the sums agreed in every round.
    #[must_use]
    pub fn is_money_right(&self) -> bool {
        self.wrong.is_empty() && self.differing == 0
    }

    /// Processes that got SIGKILL.
    #[must_use]
    pub fn kills(&self) -> u64 {
        self.killed.values().sum()
    }
}

/// One line of the table; the name is empty where a line goes on.
fn row(f: &mut fmt::Formatter<'_>, name: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<14}{text}")
}

fn rows(f: &mut fmt::Formatter<'_>, counts: &Counts) -> fmt::Result {
    counts.iter().try_for_each(|(name, count)| row(f, "", format_args!("{count:>10}  {name}")))
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.seed + self.rounds.max(1) - 1;
        row(f, "chaos", format_args!("{} rounds, seeds {} to {last}", self.rounds, self.seed))?;
        row(f, "faults", format_args!("{:>10}  processes got SIGKILL", self.kills()))?;
        rows(f, &self.killed)?;
        row(f, "  by kind", "")?;
        for (name, count) in &self.faults {
            let hit = self.misbehaved.get(name).map(|calls| format!(": {calls} calls")).unwrap_or_default();
            row(f, "", format_args!("{count:>10}  {name}{hit}"))?;
        }
        if !self.has_disk_faults {
            row(f, "", super::disk::ADVICE)?;
        }
        row(f, "purges", format_args!("{:>10}  in mid-flight, {} tombstones", self.purges, self.tombstones))?;
        let Self { payments, accepted, passed_over, .. } = self;
        row(f, "payments", format_args!("{payments:>10}  {accepted} accepted, {passed_over} passed over"))?;
        rows(f, &self.answers)?;
        let (unknown, refused) = (self.repeats_unknown, self.repeats_refused);
        row(f, "  repeated", format_args!("{unknown:>10}  after nothing certain, {refused} after a 503"))?;
        let Percentiles { p50_ms, p99_ms } = self.latency;
        row(f, "  latency", format_args!("p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, in the slowest round"))?;
        row(f, "summaries", format_args!("{:>10}  late, or neither 200 nor 503", self.bad_summaries))?;
        rows(f, &self.summaries)?;
        let gap = self.health_gap_min_ms.map_or("-".into(), |ms| ms.to_string());
        let (running, calls) = (self.running_max, self.health_calls);
        row(f, "processors", format_args!("{running:>10}  payments at once in one, at most"))?;
        row(f, "", format_args!("{calls:>10}  health calls, {gap} ms apart at least"))?;
        let wrong = Wrong::ALL
            .map(|wrong| format!("{} {}", self.wrong.get(&wrong).copied().unwrap_or(0), wrong.name()));
        row(f, "check", wrong.join(", "))?;
        let drained = self.drained_ms_max.map_or("NOT at rest in time".into(), |ms| format!("{ms} ms after"));
        row(f, "  at rest", format_args!("{drained} the healing, at the latest"))?;
        for (side, sum) in ["clients", "our summary", "our log", "processors"].iter().zip(self.sums) {
            row(f, &format!("  {side}"), sum)?;
        }
        let agreement = if self.differing == 0 { "the sums agree in every round" } else { "the sums DIFFER" };
        row(f, "", agreement)?;
        row(f, "", format_args!("{} rows that a processor lost stay charged", self.lost_by_processors))?;
        let (unanswered, before) = (self.unanswered, self.of_worlds_before);
        row(f, "", format_args!("{unanswered} charged without an answer, {before} charged of before a purge"))
    }
}
