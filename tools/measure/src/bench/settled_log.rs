//! A store's log with as many settled payments as one likes, written by the store's own core and log.
//!
//! The core lives through the payments in a time of its own: one api, a processor that answers at once, and a turn each
//! [`TURN_US`] that takes [`PAYMENTS_PER_TURN`] new payments, sends as many and hears of those of the turn before. So a
//! frame holds 21 records, which is what a store under load writes, and the times are spread as in real life. The log
//! ends at the time at which it is made: nothing in it lies in the future.

use crate::bench::env::BenchEnv;
use anyhow::{Context, ensure};
use contest::chance::Chance;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use store::core::router::RouterConfig;
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Now};
use store::log::{Durability, Log};
use wire::frame::{CallKind, FromApi, FromStore, Lease, Outcome, Report};
use wire::{Cents, PerProcessor, Timestamp};

/// New payments in a turn, and thereby a third of its records.
const PAYMENTS_PER_TURN: u64 = 7;

/// Between two turns: 2,000 payments a second, which is the store's own pace.
const TURN_US: u64 = 3_500;

/// What the simulated call took.
const LATENCY_US: u32 = 1_000;

/// A log that grows by so much before a snapshot is due never has one.
pub const NEVER_BYTES: u64 = u64::MAX / 2;

/// The secret of the index: an attacker is not among those who read this log.
const INDEX_KEY: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// Between two looks whether the snapshot is written.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// The only api.
const API: ApiId = ApiId(1);

/// The time of the core that writes.
#[derive(Debug)]
struct Pen {
    core: Core,
    now: Now,
    effects: Effects,
    reports: u64,
    leases: Vec<Lease>,
}

/// A core that takes so many payments, and the router's usual settings.
#[must_use]
pub fn core(payments_max: u64, now: Now) -> Core {
    let fees = PerProcessor([5.0, 15.0]);
    let router = RouterConfig { dispatch_per_s: 1_000_000, ..RouterConfig::for_fees(fees, 1_500) };
    let payments_max = usize::try_from(payments_max).unwrap_or(usize::MAX);
    Core::new(CoreConfig { payments_max, index_key: INDEX_KEY, router }, now)
}

/// Writes a log of `payments` settled ones into `dir`.
///
/// # Errors
/// When the folder cannot be used, or the core does not settle what it was given.
pub fn write(dir: &Path, payments: u64) -> anyhow::Result<()> {
    let mut pen = Pen::new(payments);
    let (mut log, _) = Log::open(dir, Durability::Process, NEVER_BYTES, &mut pen.core)?;
    settle(&mut pen, payments, |effects| {
        log.append(&effects.records, effects.records_len)?;
        log.tend();
        Ok(())
    })?;
    log.finish();
    Ok(())
}

/// A core that has settled so many payments and has written nothing down.
///
/// # Errors
/// When it does not settle what it was given.
pub fn settled_core(payments: u64) -> anyhow::Result<Core> {
    let mut pen = Pen::new(payments);
    settle(&mut pen, payments, |_| Ok(()))?;
    Ok(pen.core)
}

/// Puts a snapshot in the place of the log in `dir`.
///
/// # Errors
/// When the log cannot be read, or the disk has no room.
pub fn snapshot(dir: &Path, payments: u64) -> anyhow::Result<()> {
    let mut core = core(payments, Now { us: 0, wall_ms: 0 });
    let (mut log, _) = Log::open(dir, Durability::Process, NEVER_BYTES, &mut core)?;
    log.snapshot(core.ledger().freeze());
    let retries_before = log.grown_bytes();
    while log.snapshots() == 0 {
        ensure!(log.grown_bytes() == retries_before, "the snapshot in {} failed", dir.display());
        sleep(LOOK_PAUSE);
        log.tend();
    }
    Ok(())
}

fn settle(
    pen: &mut Pen,
    payments: u64,
    mut commit: impl FnMut(&Effects) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut chance = Chance::new(payments);
    let mut left = payments;
    pen.step(FromApi::Hello { instance: 1, calls_max: 1_000, held: Vec::new() });
    while left > 0 || !pen.leases.is_empty() {
        let fresh = left.min(PAYMENTS_PER_TURN);
        for _ in 0..fresh {
            let id = chance.payment_id();
            pen.step(FromApi::Accept { request: 0, id, cents: Cents(1_990) });
        }
        left -= fresh;
        pen.end_turn();
        if pen.effects.records_len > 0 {
            commit(&pen.effects)?;
        }
        pen.turn_over();
    }
    let settled = pen.core.ledger().balance().charged.0.iter().map(|charged| charged.count).sum::<u64>();
    ensure!(
        settled == payments,
        "{settled} of {payments} payments were settled: the core or this code is wrong"
    );
    Ok(())
}

impl Pen {
    fn new(payments: u64) -> Self {
        let turns = payments / PAYMENTS_PER_TURN + 2;
        let past_ms = turns * TURN_US / 1_000;
        let now = Now { us: 0, wall_ms: Timestamp::now().as_ms().saturating_sub(past_ms) };
        Self { core: core(payments, now), now, effects: Effects::default(), reports: 0, leases: Vec::new() }
    }

    fn step(&mut self, frame: FromApi) {
        self.core.step(self.now, Event::Frame(API, frame), &mut self.effects);
    }

    /// Reports what was leased in the turn before, and lets the core dispatch, also in the pause after what has come.
    fn end_turn(&mut self) {
        for lease in std::mem::take(&mut self.leases) {
            self.reports += 1;
            self.step(FromApi::Report(charged(&lease, self.reports)));
        }
        self.core.dispatch(self.now, &mut self.effects);
        let pause_us = self.core.next_call_us().min(TURN_US - 1);
        self.core.dispatch(Now { us: self.now.us + pause_us, ..self.now }, &mut self.effects);
    }

    /// Takes the leases, and goes on to the next turn.
    fn turn_over(&mut self) {
        for (_, said) in self.effects.sends.drain(..) {
            match said {
                FromStore::Lease(lease) if lease.kind == CallKind::Post => self.leases.push(lease),
                _ => (),
            }
        }
        self.effects.records.clear();
        self.effects.records_len = 0;
        self.effects.notes.clear();
        self.now.us += TURN_US;
        self.now.wall_ms += TURN_US / 1_000 + u64::from(self.now.us.is_multiple_of(2 * TURN_US));
    }
}

/// That the processor has charged it.
#[must_use]
pub fn charged(lease: &Lease, sequence: u64) -> Report {
    Report {
        sequence,
        attempt: lease.attempt,
        id: lease.id,
        processor: lease.processor,
        outcome: Outcome::Charged,
        status: 200,
        latency_us: LATENCY_US,
    }
}

/// Folders with the same payments.
#[derive(Clone, Debug)]
pub struct Logs {
    /// With every record since the first.
    pub plain: PathBuf,
    /// With a snapshot in the place of all records.
    pub snapshot: PathBuf,
    /// With none of them.
    pub empty: PathBuf,
}

/// Writes all three in the folder of the run.
///
/// # Errors
/// As [`write()`] and [`snapshot`].
pub fn logs(env: &BenchEnv, payments: u64) -> anyhow::Result<Logs> {
    let folder = |name| env.fresh_folder(name);
    let logs = Logs { plain: folder("plain")?, snapshot: folder("snapshot")?, empty: folder("empty")? };
    write(&logs.plain, payments)?;
    copy(&logs.plain, &logs.snapshot)?;
    snapshot(&logs.snapshot, payments)?;
    Ok(logs)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        // A thread of the log that was written may still be at work on its next segment.
        if entry.path().extension().is_some_and(|extension| extension == "tmp") {
            continue;
        }
        std::fs::copy(entry.path(), to.join(entry.file_name()))
            .with_context(|| format!("cannot copy {}", entry.path().display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::core::ledger::Ledger;
    use store::log::recovery::recover;

    #[test]
    fn a_written_log_holds_every_payment_settled_and_so_does_its_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 100).unwrap();
        let mut ledger = Ledger::new(100, INDEX_KEY);
        let recovered = recover(dir.path(), &mut ledger).unwrap();
        assert_eq!(ledger.balance().charged[wire::Processor::Default].count, 100);
        assert_eq!(recovered.end.sequence, 300);
        // A first turn of accepts and intents alone, full ones, and a last of charges alone.
        assert!((15..=18).contains(&recovered.frames), "{}", recovered.frames);
        snapshot(dir.path(), 100).unwrap();
        let mut loaded = Ledger::new(100, INDEX_KEY);
        let from_snapshot = recover(dir.path(), &mut loaded).unwrap();
        assert_eq!((from_snapshot.frames, from_snapshot.end.sequence), (0, 300));
        assert_eq!(loaded.balance(), ledger.balance());
    }
}
