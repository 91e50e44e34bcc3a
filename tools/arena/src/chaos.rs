//! `arena chaos`: real processes under load, every fault of docs/failures.md, and a comparison of three sides.
//!
//! A run is a number of rounds ([`round`]), each with the next seed, a fresh system, and a [`schedule`] that the seed
//! decides. It begins with sequences of faults that once broke a promise ([`staged`]). Then, under an open loop of payments ([`clients`]) processes are killed, stopped and asked to end, the store's disk
//! fails ([`disk`]), and the processors misbehave ([`inject`]). Then all is healed, and what the clients were told
//! ([`book`]), what we say and what the processors hold ([`reading`]) is compared ([`verdict`]) and added up ([`totals`]).
//!
//! The first round in which something is wrong ends the run: it says what each side knows, and its folder is kept. With
//! `--state` a run that was ended goes on where it was, and the state is written after each round.

pub mod args;
pub mod book;
pub mod clients;
pub mod disk;
pub mod inject;
pub mod reading;
pub mod round;
pub mod schedule;
pub mod staged;
pub mod totals;
pub mod verdict;

use crate::binaries::Binaries;
use crate::report::{EXIT_CLEAN, EXIT_JUDGED, EXIT_MONEY};
use crate::signals::{EXIT_INTERRUPTED, Signals};
use crate::stack::Durability;
use crate::terminal::{self, Terminal};
use anyhow::ensure;
use args::ChaosArgs;
use clients::Clients;
use indicatif::{ProgressBar, ProgressStyle};
use inject::Injector;
use round::Round;
use schedule::Settings;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval};
use totals::Totals;

/// Between two drawings at a terminal, and between two lines elsewhere.
const DRAW_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Runs and reports.
///
/// # Errors
/// When something does not start, does not do what it is told, or a file cannot be written.
pub async fn chaos(args: ChaosArgs, envs: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    ensure!(args.stack.apis == 2, "chaos is made for --apis 2");
    ensure!(args.stack.durability != Durability::None, "--durability none promises nothing");
    let mut signals = Signals::handle()?;
    wire::socket::raise_descriptor_limit();
    let terminal = Terminal::default();
    let binaries = Binaries::find(args.stack.bin_dir.as_deref(), args.stack.checkout().as_ref()).await?;
    let has_disk_faults = disk::is_available().await;
    if !has_disk_faults {
        terminal.say(disk::ADVICE);
    }
    let mut run = Run {
        settings: args.settings(has_disk_faults),
        totals: match &args.state {
            Some(path) => Totals::load(path, args.seed)?,
            None => Totals { seed: args.seed, ..Totals::default() },
        },
        wrong: Vec::new(),
        args,
        binaries,
        envs,
        terminal,
    };
    run.totals.has_disk_faults = has_disk_faults;
    tokio::select! {
        ended = Box::pin(run.live()) => ended?,
        () = signals.received() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
    }
    run.tell()
}

struct Run {
    args: ChaosArgs,
    settings: Settings,
    binaries: Binaries,
    envs: Vec<(String, String)>,
    terminal: Terminal,
    totals: Totals,
    wrong: Vec<String>,
}

impl Run {
    async fn live(&mut self) -> anyhow::Result<()> {
        let rounds = self.args.rounds();
        while self.totals.rounds < rounds && self.wrong.is_empty() {
            let seed = self.args.seed + self.totals.rounds;
            let round =
                Round::start(&self.args, self.settings, seed, &self.binaries, &self.envs, &self.totals)
                    .await?;
            let shown = self.show(&round, seed);
            let outcome = Box::pin(round.live(self.args.rate, self.settings)).await;
            shown.abort();
            let is_evidence = outcome.as_ref().map_or(true, |outcome| !outcome.wrong.is_empty());
            round.leave(is_evidence, &self.terminal).await;
            let outcome = outcome?;
            self.totals.add(&outcome.totals);
            self.wrong = outcome.wrong.into_iter().map(|wrong| format!("seed {seed}: {wrong}")).collect();
            if let Some(path) = self.args.state.as_ref().filter(|_| self.wrong.is_empty()) {
                self.totals.save(path)?;
            }
        }
        Ok(())
    }

    /// Shows how a round goes until it is aborted.
    fn show(&self, round: &Round, seed: u64) -> AbortHandle {
        let rounds = self.args.rounds();
        let number = self.totals.rounds + 1;
        let title = format!("round {number} of {rounds}, seed {seed}");
        let killed = self.totals.kills();
        let (terminal, length_s) = (self.terminal.clone(), self.args.round);
        let (load, injector) = (Rc::downgrade(&round.load()), Rc::downgrade(&round.injector()));
        let shown = spawn_local(async move {
            let every = if terminal.is_interactive() { DRAW_EVERY } else { LINE_EVERY };
            let bar = terminal.is_interactive().then(|| {
                let style = ProgressStyle::with_template("{msg}\n{wide_bar} {pos}/{len} s");
                terminal.add(ProgressBar::new(length_s).with_style(style.expect("a constant template")))
            });
            let (began, mut ticks) = (Instant::now(), interval(every));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let (Some(load), Some(injector)) = (load.upgrade(), injector.upgrade()) else { return };
                let line = describe(&load, &injector, killed);
                match &bar {
                    Some(bar) => {
                        bar.set_position(began.elapsed().as_secs().min(length_s));
                        bar.set_message(format!("{title}\n{line}"));
                    }
                    None => terminal.say(format!("{title}, {} s: {line}", began.elapsed().as_secs())),
                }
            }
        });
        shown.abort_handle()
    }

    fn tell(&self) -> anyhow::Result<ExitCode> {
        if let Some(path) = &self.args.json {
            self.totals.save(path)?;
        }
        terminal::print(&self.totals);
        for wrong in &self.wrong {
            terminal::print(format_args!("WRONG: {wrong}\n"));
        }
        let is_right = self.wrong.is_empty() && self.totals.is_money_right();
        let (verdict, status) = match (is_right, self.totals.bad_summaries) {
            (true, 0) => ("clean", EXIT_CLEAN),
            (true, _) => ("a summary was late, or had another status", EXIT_JUDGED),
            (false, _) => ("something is WRONG", EXIT_MONEY),
        };
        terminal::print(format_args!("{:<14}{verdict}\n", "verdict"));
        Ok(ExitCode::from(status))
    }
}

/// One line of what has happened.
fn describe(load: &Clients, injector: &Injector, killed_before: u64) -> String {
    let (book, counts) = (load.book.borrow(), load.counts.borrow());
    let faults: u64 = injector.done.borrow().values().sum();
    let killed = killed_before + injector.killed.borrow().values().sum::<u64>();
    let (begun, open, unknown) = (book.entries().len(), load.open(), counts.repeats_unknown);
    format!(
        "{begun} payments, {open} of them not certain; {unknown} repeated; {faults} faults, {killed} killed"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use crate::cli::Command;
    use clap::Parser;

    fn args(flags: &[&str]) -> Result<ChaosArgs, clap::Error> {
        let arguments = Arguments::try_parse_from([&["arena", "chaos"], flags].concat())?;
        let Command::Chaos(args) = arguments.command else { panic!("chaos was asked for") };
        Ok(*args)
    }

    #[test]
    fn a_run_is_cut_into_rounds_and_its_kills_are_spread_over_them() {
        let args = args(&["--for", "100", "--round", "20", "--kills", "101"]).unwrap();
        assert_eq!(args.rounds(), 5);
        let settings = args.settings(true);
        assert_eq!((settings.round_ms, settings.kills), (20_000, 21));
    }

    #[test]
    fn a_round_is_long_enough_for_its_faults() {
        assert!(args(&["--round", "5"]).is_err());
        assert!(args(&["--rate", "0"]).is_err());
        assert_eq!(args(&[]).unwrap().rounds(), 2);
    }
}
