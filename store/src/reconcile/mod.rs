//! The command `store reconcile`: compares what the running store counts with the processors' own sums, and names the
//! payments that differ (docs/reconcile.md). It changes nothing, neither here nor there.
//!
//! [`comparison`] decides what is asked, [`report`] says what was found; both are pure. [`processor`] asks a processor over
//! HTTP, [`crate::ask::Asker`] the store over its socket. Here they are brought together, at the pace that was asked for.

pub mod comparison;
pub mod processor;
pub mod report;

use crate::ask::Asker;
use crate::config::Reconcile;
use anyhow::{Context, bail};
use comparison::{Answer, Comparison, Question};
use processor::Processors;
use report::Report;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use wire::frame::{FromStore, Operation};

/// How often a line on standard error tells how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Something differs.
const DIFFERS: u8 = 1;

/// The comparison could not be made, or not to its end.
const FAILED: u8 = 2;

/// Compares, and prints the report. 0: all agrees, 1: something differs, 2: it could not be compared.
#[must_use]
pub fn run(settings: &Reconcile, asker: anyhow::Result<Asker>) -> ExitCode {
    let mut comparison = Comparison::new(settings.limits());
    let failure = asker.and_then(|asker| Sides::new(settings, asker).answer_all(&mut comparison)).err();
    let report = comparison.finish();
    let failure = failure.or_else(|| print(&report, settings.json).err());
    if let Some(error) = failure {
        // Without standard error the status says it.
        let _ = writeln!(io::stderr(), "Error: {error:#}");
        if !report.is_complete && report.range.is_some() {
            let _ = print(&report, settings.json);
        }
        return ExitCode::from(FAILED);
    }
    if report.differs() { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS }
}

fn print(report: &Report, is_json: bool) -> anyhow::Result<()> {
    let text = if is_json { format!("{:#}\n", report.json()) } else { report.text() };
    io::stdout().write_all(text.as_bytes()).context("cannot write the report")
}

/// The sides that are asked.
struct Sides {
    asker: Asker,
    processors: Processors,
    pace: Pace,
    told_at: Instant,
}

impl Sides {
    fn new(settings: &Reconcile, asker: Asker) -> Self {
        let processors = Processors::new(settings.urls(), &settings.processor_token);
        let pace = Pace::new(settings.calls_per_s);
        Self { asker, processors, pace, told_at: Instant::now() }
    }

    fn answer_all(mut self, comparison: &mut Comparison) -> anyhow::Result<()> {
        while let Some(question) = comparison.question() {
            let answer = self.answer(question)?;
            comparison.answer(answer)?;
            self.tell(comparison);
        }
        Ok(())
    }

    fn answer(&mut self, question: Question) -> anyhow::Result<Answer> {
        Ok(match question {
            Question::Window(bounds) => match self.asker.ask_operation(Operation::Window { bounds })? {
                FromStore::Window { window, .. } => Answer::Window(window),
                _ => bail!("the store answered something else: is it of another version?"),
            },
            Question::Charges { processor, span, from } => {
                self.pace.wait();
                let operation = Operation::Charges { processor, bounds: span.bounds(), from };
                match self.asker.ask_operation(operation)? {
                    FromStore::Charges { charges, next, .. } => Answer::Charges(charges, next),
                    _ => bail!("the store answered something else: is it of another version?"),
                }
            }
            Question::Sum(processor, span) => {
                Answer::Sum(self.processors.sum(processor, span, || self.pace.wait())?)
            }
            Question::Row(processor, id) => {
                Answer::Row(self.processors.row(processor, id, || self.pace.wait())?)
            }
        })
    }

    fn tell(&mut self, comparison: &Comparison) {
        if self.told_at.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.told_at = Instant::now();
        let Report { sums, look_ups, .. } = comparison.report();
        let percent = comparison.done_share() * 100.0;
        let _ = writeln!(
            io::stderr(),
            "{percent:.0} % of the time: {sums} sums compared, {look_ups} payments looked up"
        );
    }
}

/// Calls at even intervals, so that processors and store go on with their work.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    next_at: Instant,
}

impl Pace {
    fn new(calls_per_s: u32) -> Self {
        Self { interval: Duration::from_secs(1) / calls_per_s, next_at: Instant::now() }
    }

    fn wait(&mut self) {
        thread::sleep(self.next_at.saturating_duration_since(Instant::now()));
        self.next_at = self.next_at.max(Instant::now()) + self.interval;
    }
}
