//! `arena bench restart`: how long a store takes from its start to its first answer when its log holds many payments.
//!
//! From the plain log (every record is read) and from a snapshot (what the records come to), beside an empty log and
//! Redis with the same payments in its append-only file: as it was written, and rewritten. All files were just written,
//! so they come from the page cache: what is measured is reading them, not the disk. The store is killed, not stopped.

use crate::bench::Ground;
use crate::bench::comparison::{Comparison, Metric, mib, number};
use crate::bench::process::Process;
use crate::bench::redis::{self, Redis};
use crate::bench::settled_log::{self, Logs};
use crate::bench::store_process::{StoreConfig, StoreProcess};
use crate::simulation::chance::Chance;
use std::path::Path;
use std::time::Duration;
use wire::Timestamp;

/// Payments of one round trip to Redis.
const BATCH_PAYMENTS: u64 = 500;

const METRICS: &[Metric] = &[
    Metric::compared("ready", "ms", 1),
    Metric::shown("CPU", "ms", 0),
    Metric::compared("memory", "MiB", 1),
];

/// What to restart.
#[derive(Clone, Debug, clap::Args)]
pub struct RestartArgs {
    /// Settled payments in the log
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=8_388_608))]
    pub payments: u64,
}

/// Measures.
///
/// # Errors
/// When something does not start.
pub fn restart(args: &RestartArgs, ground: &Ground) -> anyhow::Result<Vec<Comparison>> {
    let payments = args.payments;
    let mut comparison = Comparison::new(format!("restart with {payments} settled payments"), METRICS);
    ground.say(&format!("writing a log of {payments} payments"));
    let Logs { plain, snapshot, empty } = settled_log::logs(ground, payments)?;
    let mut stores = vec![("plain log", plain.clone()), ("snapshot", snapshot), ("empty log", empty)];
    stores.push(("plain log again (A/A)", plain));
    let mut redises = Vec::new();
    match redis::is_installed() {
        Ok(()) => {
            ground.say("letting Redis write as many");
            let (aof, rewritten) =
                (ground.fresh_folder("redis-aof")?, ground.fresh_folder("redis-rewritten")?);
            fill_redis(&aof, payments, false)?;
            fill_redis(&rewritten, payments, true)?;
            redises = vec![("Redis, AOF", aof), ("Redis, AOF rewritten", rewritten)];
        }
        Err(why) => comparison.notes.push(why),
    }
    let program = ground.binaries.path("store");
    for turn in 1..=ground.turns {
        ground.say(&format!("turn {turn} of {}", ground.turns));
        for (name, log_dir) in &stores {
            let config = StoreConfig {
                program: &program,
                dir: &ground.dir,
                log_dir: log_dir.clone(),
                payments_max: payments,
                flags: Vec::new(),
            };
            let store = StoreProcess::start(&config)?;
            comparison.enter(name, &figures(&store.process, store.ready_after)?);
        }
        for (name, dir) in &redises {
            let redis = Redis::start(dir)?;
            comparison.enter(name, &figures(&redis.process, redis.ready_after)?);
        }
    }
    comparison
        .notes
        .push("ready: from the start of the process to its first answer, files in the page cache".into());
    Ok(vec![comparison])
}

fn figures(process: &Process, ready_after: Duration) -> anyhow::Result<[Option<f64>; METRICS.len()]> {
    let (used, memory) = (process.usage()?, process.memory()?);
    let ready_ms = ready_after.as_secs_f64() * 1_000.0;
    Ok([Some(ready_ms), Some(number(used.total_us) / 1_000.0), Some(mib(memory.rss_kib))])
}

/// Puts settled payments into a Redis of its own and stops it.
fn fill_redis(dir: &Path, payments: u64, is_rewritten: bool) -> anyhow::Result<()> {
    let mut redis = Redis::start(dir)?;
    let mut chance = Chance::new(payments);
    let now_ms = Timestamp::now().as_ms();
    let mut left = payments;
    while left > 0 {
        for _ in 0..left.min(BATCH_PAYMENTS) {
            let id = chance.payment_id();
            redis.client.accept(id, b"1990");
            redis.client.lease();
            redis.client.charge(id, now_ms.saturating_sub(left / 2));
            left -= 1;
        }
        redis.client.send()?;
        redis.client.receive_all()?;
    }
    if is_rewritten {
        redis.rewrite()?;
    }
    redis.process.stop()
}
