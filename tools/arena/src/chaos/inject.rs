//! Carries a schedule out: signals to processes, words to processors, strace to the disk. And undoes it all.

use super::clients::Clients;
use super::disk::{self, Met};
use super::schedule::{DiskFault, Fault, Planned, Schedule, Settings, Target, Trouble};
use crate::child::Exit;
use crate::endpoint::Endpoint;
use crate::processor::Misbehaviour;
use crate::sides::{AskError, Theirs};
use crate::stack::Stack;
use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use wire::{PerProcessor, Processor};

/// A processor's administration answers at once, whatever it does to payments; on a machine that is out of breath.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The shortest late answer.
const LATE_MS_MIN: u64 = 1_000;

/// How long a process may take to be started again, so that a hang ends, and between two looks at whether it is.
const BACK_WITHIN: Duration = Duration::from_secs(120);
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// The delay under which calls wait when a failing processor is healed.
const WAITING_DELAY_MS: u64 = 2_000;

/// Everything that can be done to a system.
pub struct Injector {
    stack: Rc<Stack>,
    theirs: PerProcessor<Endpoint>,
    token: String,
    load: Rc<Clients>,
    settings: Settings,
    /// How often calls were hit by each misbehaviour in the rounds before: sweeps go on from there.
    swept: BTreeMap<String, u64>,
    set: RefCell<PerProcessor<Misbehaviour>>,
    /// How often each fault was done, by its name in the table.
    pub done: RefCell<BTreeMap<String, u64>>,
    /// Processes that got SIGKILL.
    pub killed: RefCell<BTreeMap<String, u64>>,
    /// Ends with status 74 that a fault of the disk brought about.
    pub io_ends: RefCell<u64>,
}

impl Injector {
    /// Nothing done yet.
    #[must_use]
    pub fn new(
        stack: Rc<Stack>,
        token: &str,
        load: Rc<Clients>,
        settings: Settings,
        swept: BTreeMap<String, u64>,
    ) -> Self {
        Self {
            theirs: PerProcessor(stack.theirs.0.map(Endpoint::from)),
            stack,
            token: token.into(),
            load,
            settings,
            swept,
            set: RefCell::default(),
            done: RefCell::default(),
            killed: RefCell::default(),
            io_ends: RefCell::default(),
        }
    }

    /// One processor, over a connection of its own.
    #[must_use]
    pub fn theirs(&self, processor: Processor) -> Theirs {
        Theirs::new(self.theirs[processor].clone(), &self.token, ADMIN_TIMEOUT, None)
    }

    /// Does everything on time, and returns when the last fault is over.
    ///
    /// # Errors
    /// When a processor does not take its orders, strace cannot be run, or the store does not end as it should.
    pub async fn run(self: &Rc<Self>, schedule: &Schedule, start: Instant) -> anyhow::Result<()> {
        let mut lasting = JoinSet::new();
        for Planned { at_ms, fault } in schedule.faults.iter().copied() {
            sleep_until(start + Duration::from_millis(at_ms)).await;
            let injector = Rc::clone(self);
            match fault {
                Fault::Kill { target, is_recovering } => self.kill(target, is_recovering, Duration::ZERO),
                Fault::Terminate(target) => {
                    lasting.spawn_local(async move { injector.terminate(target).await });
                }
                Fault::Stop { target, for_ms } => {
                    lasting.spawn_local(async move { injector.stop(target, for_ms).await });
                }
                Fault::Outage { target, for_ms } => {
                    self.count(format!("outage of {target}"));
                    self.kill(target, false, Duration::from_millis(for_ms));
                }
                Fault::Disk(fault) => {
                    lasting.spawn_local(async move { injector.fail_disk(fault).await });
                }
                Fault::Trouble(processor, trouble) => self.trouble(processor, trouble).await?,
                Fault::Heal(processor) => self.heal(processor).await?,
                Fault::Health(processor, fault) => {
                    self.count(fault.name());
                    self.misbehave(processor, |set| set.health = Some(fault)).await?;
                }
            }
        }
        while let Some(ended) = lasting.join_next().await {
            ended.context("a fault ended badly")??;
        }
        Ok(())
    }

    /// Heals both processors. Whatever was stopped goes on by itself.
    ///
    /// # Errors
    /// When one does not take its orders.
    pub async fn heal_all(&self) -> anyhow::Result<()> {
        for processor in Processor::BOTH {
            self.misbehave(processor, |set| set.health = None).await?;
            self.heal(processor).await?;
        }
        Ok(())
    }

    async fn misbehave(
        &self,
        processor: Processor,
        change: impl FnOnce(&mut Misbehaviour),
    ) -> anyhow::Result<()> {
        let mut set = self.set.borrow()[processor];
        change(&mut set);
        self.set.borrow_mut()[processor] = set;
        let asked = self.theirs(processor).misbehave(&set).await;
        asked.with_context(|| format!("the {processor} processor does not take its orders"))
    }

    /// Counts what was done, by its name in the table.
    pub(super) fn count(&self, what: impl Into<String>) {
        *self.done.borrow_mut().entry(what.into()).or_default() += 1;
    }

    /// Kills it; what is killed is started again after `away`.
    pub(super) fn kill(&self, target: Target, is_recovering: bool, away: Duration) {
        let names = target.names();
        // A process that is between two lives at this moment is not hit.
        let hit: Vec<String> =
            names.into_iter().filter(|name| self.stack.end(name, Signal::SIGKILL, away)).collect();
        if hit.is_empty() {
            return self.count("kill that met no process");
        }
        self.count(format!("kill {target}"));
        if is_recovering {
            self.count("kill in a recovery (of these)");
        }
        for name in hit {
            *self.killed.borrow_mut().entry(name).or_default() += 1;
        }
    }

    /// The process of this name, waited for if it is between two lives.
    pub(super) async fn pid(&self, name: &str) -> Option<Pid> {
        let deadline = Instant::now() + BACK_WITHIN;
        while self.stack.pid(name).is_none() && Instant::now() < deadline {
            sleep(LOOK_PAUSE).await;
        }
        self.stack.pid(name)
    }

    async fn terminate(&self, target: Target) -> anyhow::Result<()> {
        for name in target.names() {
            self.pid(&name).await;
            if self.stack.end(&name, Signal::SIGTERM, Duration::ZERO) {
                self.count(format!("SIGTERM {target}"));
            }
        }
        Ok(())
    }

    pub(super) async fn stop(&self, target: Target, for_ms: u64) -> anyhow::Result<()> {
        let mut pids = Vec::new();
        for name in target.names() {
            pids.extend(self.pid(&name).await.map(|pid| (pid, name)));
        }
        self.load.note_stop(true);
        for (pid, _) in &pids {
            // The supervisor forgets a pid before it is reaped, so it is still the one that it was.
            let _ = kill(*pid, Signal::SIGSTOP);
        }
        sleep(Duration::from_millis(for_ms)).await;
        for (pid, name) in &pids {
            // It may have been killed meanwhile: the next one was never stopped.
            if self.stack.pid(name) == Some(*pid) {
                let _ = kill(*pid, Signal::SIGCONT);
            }
        }
        self.load.note_stop(false);
        self.count(format!("SIGSTOP {target}"));
        Ok(())
    }

    async fn fail_disk(&self, fault: DiskFault) -> anyhow::Result<()> {
        self.pid("store").await;
        match disk::inject(&self.stack, fault).await? {
            Met::Missed => self.count("disk fault that met no write"),
            Met::Slow => self.count(format!("disk: {fault}")),
            Met::Ended => {
                self.count(format!("disk: {fault}"));
                *self.io_ends.borrow_mut() += 1;
            }
            // Said by the check of the ends.
            Met::EndedOtherwise => self.count(format!("disk: {fault}, ended otherwise")),
        }
        Ok(())
    }

    async fn trouble(self: &Rc<Self>, processor: Processor, trouble: Trouble) -> anyhow::Result<()> {
        let mut theirs = self.theirs(processor);
        self.count(trouble.to_string());
        let asked = match trouble {
            Trouble::Payments(fault, share_percent) => {
                let late_ms = [LATE_MS_MIN, self.settings.late_ms_max()];
                let swept = self.swept.get(fault.name()).copied().unwrap_or(0);
                let turn = usize::try_from(swept).unwrap_or(0);
                let payments = Some(fault);
                let change = |set: &mut Misbehaviour| {
                    *set = Misbehaviour { payments, share_percent, late_ms, turn, health: set.health };
                };
                return self.misbehave(processor, change).await;
            }
            Trouble::Delay { ms } => theirs.set_delay(ms).await.map(drop),
            Trouble::Failing => theirs.set_failing(true).await.map(drop),
            Trouble::HealsWithCallsWaiting => {
                theirs.set_delay(WAITING_DELAY_MS).await.map(drop)?;
                theirs.set_failing(true).await.map(drop)
            }
            Trouble::Loses(share_percent) => theirs.lose(share_percent).await,
        };
        asked.with_context(|| format!("the {processor} processor does not take its orders"))
    }

    async fn heal(&self, processor: Processor) -> anyhow::Result<()> {
        let mut theirs = self.theirs(processor);
        let asked: Result<(), AskError> = async {
            theirs.set_failing(false).await?;
            theirs.set_delay(0).await.map(drop)
        }
        .await;
        asked.with_context(|| format!("the {processor} processor cannot be healed"))?;
        self.misbehave(processor, |set| set.payments = None).await
    }

    /// Unplanned ends of processes, with the last lines of their logs.
    #[must_use]
    pub fn strange_ends(&self) -> Vec<String> {
        let mut io_ends = *self.io_ends.borrow();
        let exits = self.stack.exits();
        let is_strange = |exit: &&Exit| -> bool {
            let status = exit.outcome.as_ref().ok();
            let is_io_end =
                exit.name == "store" && status.and_then(ExitStatus::code) == Some(disk::EXIT_IO_ERROR);
            if exit.is_planned || (is_io_end && io_ends > 0) {
                io_ends -= u64::from(is_io_end && !exit.is_planned);
                return false;
            }
            true
        };
        exits
            .iter()
            .filter(is_strange)
            .map(|exit| format!("{} ended: {:?}\n{}", exit.name, exit.outcome, exit.tail))
            .collect()
    }
}
