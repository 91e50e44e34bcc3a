//! What a fight shows while it goes on: at a terminal a block of lines that is drawn again, elsewhere a line now and
//! then.
//!
//! How much is settled is asked from the processors, over connections of its own and apart from the judge's book. The
//! answers cost them next to nothing, but the processors of a target are not ours to trouble: there it is asked only as
//! often as a line is written.

use crate::judge::Judge;
use crate::sides::Theirs;
use crate::terminal::Terminal;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval_at};
use wire::{Bounds, PerProcessor, Processor};

/// Between two drawings at a terminal: each takes the generator's thread for a fraction of a millisecond.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// Between two lines elsewhere, and between two questions to the processors of a target.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Between two questions to processors of our own.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What there is to say at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Moment {
    elapsed_s: u64,
    stage: String,
    users: u32,
    posted: u64,
    accepted: u64,
    failed: u64,
    settled: PerProcessor<u64>,
    p99_ms: f64,
    audits: usize,
    differing: usize,
}

impl Moment {
    fn of(judge: &Judge, settled: PerProcessor<u64>) -> Self {
        let elapsed = judge.start.elapsed();
        let audits = judge.audits.borrow();
        Self {
            elapsed_s: elapsed.as_secs(),
            stage: describe_stage(judge, elapsed),
            users: judge.tally.users.get(),
            posted: judge.tally.posted_count(),
            accepted: judge.tally.accepted_count(),
            failed: judge.tally.failures().values().sum(),
            settled,
            p99_ms: judge.tally.judged_latency().p99_ms,
            audits: audits.len(),
            differing: audits.iter().filter(|audit| audit.difference > 0).count(),
        }
    }

    /// Accepted and not yet seen at a processor; what was settled without an answer hides as much.
    fn queue(&self) -> u64 {
        self.accepted.saturating_sub(self.settled.0.iter().sum())
    }

    fn lines(&self) -> [String; 3] {
        let Self { users, posted, accepted, failed, p99_ms, audits, differing, .. } = self;
        let [default, fallback] = self.settled.0;
        [
            format!("stage {}", self.stage),
            format!(
                "{users} users, {posted} posted, {accepted} accepted, {failed} failed, p99 {p99_ms:.2} ms"
            ),
            format!(
                "settled: default {default}, fallback {fallback}, queue {}; audits: {differing} of {audits} differ",
                self.queue()
            ),
        ]
    }
}

fn describe_stage(judge: &Judge, elapsed: Duration) -> String {
    let Some(stage) = judge.plan.stage_at(elapsed) else {
        return "not yet: both well".into();
    };
    let describe = |processor: Processor| {
        let condition = judge.plan.stages[stage].condition[processor];
        let failing = if condition.failing { " failing" } else { "" };
        format!("{processor} {} ms{failing}", condition.delay_ms)
    };
    let [default, fallback] = Processor::BOTH.map(describe);
    format!("{} of {}: {default}, {fallback}", stage + 1, judge.plan.stages.len())
}

/// Shows the run until it is dropped.
pub async fn show(judge: Judge, terminal: Terminal, is_ours: bool) {
    let mut asker = Asker::new(&judge);
    let every = if terminal.is_interactive() { DRAW_EVERY } else { LINE_EVERY };
    let ask_every = if is_ours { ASK_EVERY } else { LINE_EVERY };
    let bar = terminal.is_interactive().then(|| terminal.add(bar(&judge)));
    let mut ticks = interval_at(judge.start + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // Counted in ticks: clocks that are compared would miss every other turn by a hair.
    let ticks_between = (ask_every.as_millis() / every.as_millis()).max(1);
    for tick in 0_u128.. {
        ticks.tick().await;
        if tick.is_multiple_of(ticks_between) {
            asker.ask().await;
        }
        let moment = Moment::of(&judge, asker.settled);
        let lines = moment.lines();
        match &bar {
            Some(bar) => {
                bar.set_position(moment.elapsed_s.min(judge.plan.duration.as_secs()));
                bar.set_message(lines.join("\n"));
            }
            None => terminal.say(format!("{:>4} s  {}", moment.elapsed_s, lines.join("; "))),
        }
    }
}

fn bar(judge: &Judge) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}\n{wide_bar} {pos}/{len} s").expect("a constant template");
    ProgressBar::new(judge.plan.duration.as_secs()).with_style(style)
}

/// Asks both processors how many payments they hold; keeps the last answer when one does not say.
struct Asker {
    theirs: PerProcessor<Theirs>,
    settled: PerProcessor<u64>,
}

impl Asker {
    fn new(judge: &Judge) -> Self {
        let theirs = PerProcessor::from_fn(|processor| judge.sides.theirs(processor, None));
        Self { theirs, settled: PerProcessor::default() }
    }

    async fn ask(&mut self) {
        for processor in Processor::BOTH {
            if let Ok(sum) = self.theirs[processor].summary(Bounds::default()).await {
                self.settled[processor] = sum.settled.count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_tells_what_is_still_owed() {
        let settled = PerProcessor([700, 200]);
        let mut moment = Moment { posted: 1_001, accepted: 1_000, failed: 1, settled, ..Moment::default() };
        (moment.users, moment.p99_ms, moment.audits, moment.differing) = (99, 1.234, 3, 1);
        moment.stage = "1 of 6: default 0 ms, fallback 0 ms".into();
        let expected = [
            "stage 1 of 6: default 0 ms, fallback 0 ms",
            "99 users, 1001 posted, 1000 accepted, 1 failed, p99 1.23 ms",
            "settled: default 700, fallback 200, queue 100; audits: 1 of 3 differ",
        ];
        assert_eq!(moment.lines(), expected);
        moment.settled = PerProcessor([1_000, 1]);
        assert_eq!(moment.queue(), 0);
    }
}
