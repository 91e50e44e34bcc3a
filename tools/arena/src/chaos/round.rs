//! One round: a fresh system, load, faults, healing, draining, and the comparison.
//!
//! ```text
//!   start --> staged purges --> [purge in mid-flight] --> staged deaths --> faults under load --> heal
//!         --> every payment certain --> drain --> compare
//! ```
//!
//! A round has a system of its own, so a seed is all that is needed to have its faults again, and a long run does not
//! measure how long logs get. Every second seed begins with a purge: both processors are slow, payments are in flight, all
//! that was asked for is answered, and then everything is purged. Payments that no processor lists after that are asked
//! for once more, with the same ids. They were in flight, and their tombstones pin them; or they were queued, and are
//! forgotten.

use super::args::ChaosArgs;
use super::book::Entry;
use super::clients::{CERTAIN_WITHIN, Clients};
use super::inject::Injector;
use super::reading::{DRAIN_TIMEOUT, Reader};
use super::schedule::{Schedule, Settings};
use super::staged::Staged;
use super::totals::Totals;
use super::verdict::{Holdings, Ours as OurSide, Verdict};
use crate::binaries::Binaries;
use crate::endpoint::Endpoint;
use crate::run_dir::RunDir;
use crate::sides::{Ours, Row};
use crate::stack::{Stack, StackConfig, TOKEN};
use crate::terminal::Terminal;
use anyhow::{Context, bail};
use std::collections::HashSet;
use std::fmt::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::{PaymentId, PerProcessor, Processor};

/// So soon the fallback processor gets payments: both shall have many, and a round is short.
const HOLD_TIMEOUT_MS: &str = "300";

/// Some 500 payments write so much: a round has a dozen snapshots, and kills among them.
const SNAPSHOT_LOG_KIB: &str = "32";

/// Before a purge: for how long payments are begun, and the delay that keeps them in flight.
const PURGE_LOAD: Duration = Duration::from_millis(800);
const PURGE_DELAY_MS: u64 = 2_500;

/// After a purge, how many payments are asked for again.
const RENEWED_MAX: usize = 64;

/// Of what is wrong, so many payments are looked into.
const LOOKED_INTO_MAX: usize = 5;

/// What came of a round.
pub struct Outcome {
    /// Its numbers.
    pub totals: Totals,
    /// Everything that is wrong, in words; empty when nothing is.
    pub wrong: Vec<String>,
}

/// A system under chaos.
pub struct Round {
    stack: Rc<Stack>,
    run_dir: RunDir,
    load: Rc<Clients>,
    injector: Rc<Injector>,
    schedule: Schedule,
    store: std::path::PathBuf,
    seed: u64,
}

impl Round {
    /// Starts the system of this seed, after the rounds that `before` counts.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        args: &ChaosArgs,
        settings: Settings,
        seed: u64,
        binaries: &Binaries,
        envs: &[(String, String)],
        before: &Totals,
    ) -> anyhow::Result<Self> {
        let given = args.stack.run_dir.as_ref().map(|dir| dir.join(format!("round-{seed}")));
        if let Some(dir) = given.as_ref().filter(|dir| dir.exists()) {
            bail!(
                "{} is there already, and a round begins with an empty log; name another --run-dir",
                dir.display()
            );
        }
        let run_dir = RunDir::new(given.as_deref())?;
        let terminal = if args.stack.verbose { Terminal::default() } else { Terminal::silent() };
        let timeout = ("HOLD_TIMEOUT_MS".to_owned(), HOLD_TIMEOUT_MS.to_owned());
        let snapshot = ("SNAPSHOT_LOG_KIB".to_owned(), SNAPSHOT_LOG_KIB.to_owned());
        let envs = [envs, &[timeout, snapshot]].concat();
        let config = StackConfig::new(&args.stack, binaries.clone(), run_dir.path(), envs);
        let stack = Rc::new(Stack::start(&config, &terminal).await?);
        let load = Rc::new(Clients::new(stack.ours.into(), seed));
        let injector = Rc::new(Injector::new(
            Rc::clone(&stack),
            TOKEN,
            Rc::clone(&load),
            settings,
            before.misbehaved.clone(),
        ));
        let (schedule, store) = (Schedule::of(seed, &settings), binaries.path("store"));
        Ok(Self { stack, run_dir, load, injector, schedule, store, seed })
    }

    /// The load, for the progress display.
    #[must_use]
    pub fn load(&self) -> Rc<Clients> {
        Rc::clone(&self.load)
    }

    /// The faults, for the progress display.
    #[must_use]
    pub fn injector(&self) -> Rc<Injector> {
        Rc::clone(&self.injector)
    }

    /// Lives through it.
    ///
    /// # Errors
    /// When something does not do what it is told, or does not say what it is asked: then nothing can be compared.
    pub async fn live(&self, rate: u32, settings: Settings) -> anyhow::Result<Outcome> {
        let reader = Reader::new(self.endpoint(), &self.injector, self.store.clone(), self.run_dir.path());
        let mut beside = JoinSet::new();
        let reading = Rc::clone(&self.load);
        beside.spawn_local(async move { reading.read_summaries().await });
        let mut totals = Totals::of(self.seed);
        let staged = Staged::new(&self.stack, &self.load, &self.injector, &reader);
        let mut wrong = staged.purge().await?;
        if self.schedule.has_purge {
            totals.tombstones = self.purge_in_flight(rate, &reader).await?;
            totals.purges = 1;
        }
        staged.kill_apis().await?;
        let start = Instant::now();
        let end = start + Duration::from_millis(settings.round_ms);
        let (loaded, faulted) =
            tokio::join!(self.load.run(rate, end), self.injector.run(&self.schedule, start));
        let () = loaded;
        faulted?;
        self.injector.heal_all().await?;
        let is_certain = self.load.settle(CERTAIN_WITHIN).await;
        drop(beside);
        let drained = reader.drain().await?;
        let theirs = reader.theirs().await?;
        let ours = reader.ours().await.unwrap_or_else(|error| {
            wrong.push(format!("we do not say what we hold: {error:#}"));
            OurSide::default()
        });
        let verdict = Verdict::find(&self.load.book.borrow(), &ours, &theirs);
        totals.take_faults(&self.injector);
        totals.take_load(&self.load);
        totals.take_verdict(&verdict);
        totals.drained_ms_max = drained.and_then(|took| u64::try_from(took.as_millis()).ok());
        for processor in Processor::BOTH {
            totals.take_observed(&self.injector.theirs(processor).observed().await?);
        }
        if !is_certain {
            wrong.push(format!("clients got no certain answer within {} s", CERTAIN_WITHIN.as_secs()));
        }
        if drained.is_none() {
            let gauges = reader.gauges().await;
            wrong.push(format!("not at rest within {} s: {gauges:?}", DRAIN_TIMEOUT.as_secs()));
        }
        wrong.extend(self.injector.strange_ends());
        wrong.extend(panics(&self.run_dir.path().join("logs")));
        if !verdict.is_right() {
            wrong.push(self.explain(&verdict, &theirs, &reader).await);
        }
        Ok(Outcome { totals, wrong })
    }

    /// Purges while payments are in flight, and asks for some of them again. Tells how many tombstones that left.
    async fn purge_in_flight(&self, rate: u32, reader: &Reader<'_>) -> anyhow::Result<u64> {
        for processor in Processor::BOTH {
            self.injector.theirs(processor).set_delay(PURGE_DELAY_MS).await?;
        }
        self.load.run(rate, Instant::now() + PURGE_LOAD).await;
        self.load.settle(CERTAIN_WITHIN).await;
        let accepted: Vec<_> =
            self.load.book.borrow().accepted().map(|(ticket, entry)| (ticket, entry.id)).collect();
        Ours::new(self.endpoint(), CERTAIN_WITHIN, None).purge().await.context("the purge")?;
        self.load.book.borrow_mut().begin_world();
        let tombstones = reader.gauges().await.context("our gauges")?.tombstones;
        // Asked for after the purge: whatever is not there was not charged when it took effect.
        let theirs = reader.theirs().await?;
        let held: HashSet<PaymentId> =
            theirs.0.iter().flat_map(|holdings| &holdings.rows).map(|row| row.id).collect();
        let free = accepted.into_iter().filter(|(_, id)| !held.contains(id));
        free.take(RENEWED_MAX).for_each(|(ticket, _)| self.load.renew(ticket));
        self.injector.heal_all().await?;
        Ok(tombstones)
    }

    fn endpoint(&self) -> Endpoint {
        self.stack.ours.into()
    }

    /// Everything that each side says about the payments that are wrong.
    async fn explain(
        &self,
        verdict: &Verdict,
        theirs: &PerProcessor<Holdings>,
        reader: &Reader<'_>,
    ) -> String {
        let mut text = format!("{:?}\n", verdict.sums);
        let book: Vec<Entry> = self.load.book.borrow().entries().to_vec();
        for (wrong, ids) in &verdict.faults {
            line_to(&mut text, format_args!("{} {}:", ids.len(), wrong.name()));
            for id in ids.iter().take(LOOKED_INTO_MAX) {
                line_to(&mut text, format_args!("  {id}"));
                let told = book.iter().find(|entry| entry.id == *id);
                line_to(&mut text, format_args!("    clients: {told:?}"));
                for (processor, Holdings { rows, lost }) in theirs.iter() {
                    for (rows, what) in [(rows, "holds"), (lost, "has lost")] {
                        rows.iter().filter(|row| row.id == *id).for_each(
                            |Row { amount, requested_at, .. }| {
                                line_to(
                                    &mut text,
                                    format_args!("    {processor} {what}: {amount} at {requested_at}"),
                                );
                            },
                        );
                    }
                }
                match reader.history(*id).await {
                    Ok(lines) => lines.iter().for_each(|line| {
                        line_to(&mut text, format_args!("    log: {line}"));
                    }),
                    Err(error) => line_to(&mut text, format_args!("    log: {error:#}")),
                }
            }
        }
        text
    }

    /// Stops the system; its folder stays when there is something to look into.
    pub async fn leave(self, is_evidence: bool, terminal: &Terminal) {
        let Self { stack, run_dir, load, injector, .. } = self;
        drop((load, injector));
        // The tasks that shared it have ended; if one has not yet, its children end with arena.
        if let Ok(stack) = Rc::try_unwrap(stack) {
            stack.stop(terminal).await;
        }
        if is_evidence {
            terminal.say(format!("what the processes wrote is kept in {}", run_dir.keep().display()));
        }
    }
}

fn line_to(text: &mut String, line: fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string grows");
}

/// Assertions that failed, even if a kill ended the process afterwards.
fn panics(logs: &Path) -> Vec<String> {
    let files = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| Some((file.file_name(), std::fs::read_to_string(file.path()).ok()?)));
    let found = texts.flat_map(|(name, text)| {
        let lines: Vec<&str> = text.lines().collect();
        let at = (0..lines.len()).filter(|at| lines[*at].contains("panicked at"));
        at.map(|at| format!("{}: {}", name.display(), lines[at..lines.len().min(at + 2)].join(" ")))
            .collect::<Vec<_>>()
    });
    found.collect()
}
