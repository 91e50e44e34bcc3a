//! The audits: what we say beside what the processors hold, for the same window at the same instant.
//!
//! The auditor is a user of the judge of its own: it asks all three sides at once, sleeps, and asks again, from the
//! start until the run is over (docs/contract.md). A side that does not answer counts as zeros, as in the original,
//! so an audit that fails is a difference like any other. Amounts are kept beside the counts that the judge compares,
//! because they may show an error of cents that it does not look for.

use crate::sides::{AskError, Ours, TheirSum, Theirs};
use crate::tally::Tally;
use contest::by_processor::ByProcessor;
use contest::plan::AuditRule;
use contest::score::Settled;
use serde::Serialize;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wire::{Bounds, PerProcessor, Processor, Timestamp};

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// When it was asked, in milliseconds since the start.
    pub at_ms: u64,
    /// The window, both ends included.
    pub from: String,
    /// Its end.
    pub to: String,
    /// What we said of each processor.
    pub ours: ByProcessor<Settled>,
    /// What they said themselves.
    pub theirs: ByProcessor<Settled>,
    /// What the judge adds to its count.
    pub difference: u64,
    /// Sides that gave no usable answer, and why.
    pub failures: Vec<String>,
}

/// The auditor, and where it keeps the answers.
#[derive(Debug)]
pub struct Auditor {
    /// The comparison to make.
    pub rule: AuditRule,
    /// The entry under test.
    pub ours: Ours,
    /// The processors.
    pub theirs: PerProcessor<Theirs>,
    /// The judge's book, for the time of each audit.
    pub tally: Rc<Tally>,
    /// The audits made so far.
    pub audits: Rc<RefCell<Vec<Audit>>>,
}

impl Auditor {
    /// Audits from now on; the last audit begins before `end`.
    pub async fn run(mut self, end: Instant) {
        while Instant::now() < end {
            let audit = self.audit().await;
            self.audits.borrow_mut().push(audit);
            sleep(Duration::from_millis(self.rule.every_ms)).await;
        }
    }

    async fn audit(&mut self) -> Audit {
        let at_ms = self.tally.since_start_us(Instant::now()) / 1_000;
        let now_ms = Timestamp::now().as_ms();
        let from = Timestamp::from_ms(now_ms.saturating_sub(self.rule.reach_ms));
        let to = Timestamp::from_ms(now_ms.saturating_sub(self.rule.margin_ms));
        let bounds = Bounds { from: Some(from), to: Some(to) };
        let PerProcessor([default, fallback]) = &mut self.theirs;
        let (default, fallback, ours) =
            tokio::join!(default.summary(bounds), fallback.summary(bounds), self.ours.summary(bounds));
        let mut failures = Vec::new();
        let ours = answer_or_zeros("ours", ours, &mut failures);
        let theirs = PerProcessor([
            answer_or_zeros::<TheirSum>(Processor::Default.name(), default, &mut failures).settled,
            answer_or_zeros::<TheirSum>(Processor::Fallback.name(), fallback, &mut failures).settled,
        ]);
        let counts = |side: PerProcessor<Settled>| side.0.map(|settled| settled.count);
        Audit {
            at_ms,
            from: from.to_string(),
            to: to.to_string(),
            ours: ours.into(),
            theirs: theirs.into(),
            difference: self.rule.difference.of(counts(ours), counts(theirs)),
            failures,
        }
    }
}

fn answer_or_zeros<T: Default>(who: &str, answer: Result<T, AskError>, failures: &mut Vec<String>) -> T {
    answer.unwrap_or_else(|error| {
        failures.push(format!("{who}: {error}"));
        T::default()
    })
}
