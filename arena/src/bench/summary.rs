//! `arena bench summary`: what a summary of any window costs, and what a settled payment takes in memory.
//!
//! The time is that of the core alone, in this process: windows with both ends anywhere in the time of all payments, each
//! measured by itself. Beside it Redis's `ZRANGEBYSCORE` over as many members, round trip included; it has to hand out
//! every member of the window, because it cannot add amounts up. The memory is that of real processes: a store that has
//! read so many payments from its log, less one that has read none.

use crate::bench::Ground;
use crate::bench::comparison::{Comparison, Metric, mib, number};
use crate::bench::redis::{self, Redis};
use crate::bench::settled_log::{self, Logs};
use crate::bench::store_process::{StoreConfig, StoreProcess};
use crate::simulation::chance::Chance;
use anyhow::Context;
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;
use store::core::Core;
use wire::{Bounds, Timestamp};

/// Windows of one turn.
const WINDOWS: u64 = 100_000;

/// Windows that Redis is asked for in one turn: each takes as long as it has members.
const REDIS_WINDOWS: u64 = 20;

/// More members than this are not given to Redis: they would take gigabytes.
const REDIS_PAYMENTS_MAX: u64 = 1_000_000;

/// Members that go to Redis with one round trip.
const REDIS_BATCH: u64 = 1_000;

const TIMES: &[Metric] =
    &[Metric::compared("p50", "us", 2), Metric::compared("p99", "us", 2), Metric::shown("max", "us", 1)];

const MEMORY: &[Metric] = &[
    Metric::compared("a payment", "bytes", 1),
    Metric::shown("resident", "MiB", 1),
    Metric::shown("empty", "MiB", 1),
];

/// How many payments.
#[derive(Clone, Debug, clap::Args)]
pub struct SummaryArgs {
    /// Settled payments, separated by commas; the first number is also that of the store whose memory is measured
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1000000,10000000",
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub payments: Vec<u64>,
}

/// Measures.
///
/// # Errors
/// When something does not start.
pub fn summary(args: &SummaryArgs, ground: &Ground) -> anyhow::Result<Vec<Comparison>> {
    Ok(vec![times(args, ground)?, memory(args, ground)?])
}

fn times(args: &SummaryArgs, ground: &Ground) -> anyhow::Result<Comparison> {
    let mut comparison = Comparison::new("the summary of one window".into(), TIMES);
    let mut cores = Vec::new();
    for payments in &args.payments {
        ground.say(&format!("settling {payments} payments"));
        let end_ms = Timestamp::now().as_ms();
        cores.push((*payments, settled_log::settled_core(*payments)?, end_ms));
    }
    let mut redises = Vec::new();
    match redis::is_installed() {
        Ok(()) => {
            for payments in args.payments.iter().filter(|payments| **payments <= REDIS_PAYMENTS_MAX) {
                redises.push((*payments, filled_redis(ground, *payments)?));
            }
        }
        Err(why) => comparison.notes.push(why),
    }
    for turn in 1..=ground.turns {
        ground.say(&format!("turn {turn} of {}", ground.turns));
        for (payments, core, end_ms) in &cores {
            comparison.enter(
                &format!("{payments} payments"),
                &time_core(core, *payments, *end_ms, u64::from(turn)),
            );
        }
        for (payments, redis) in &mut redises {
            let figures = time_redis(redis, *payments, u64::from(turn))?;
            comparison.enter(&format!("Redis, ZRANGEBYSCORE, {payments}"), &figures);
        }
        // The first again, after everything else.
        if let Some((payments, core, end_ms)) = cores.first() {
            let figures = time_core(core, *payments, *end_ms, u64::from(turn));
            comparison.enter(&format!("{payments} payments again (A/A)"), &figures);
        }
    }
    comparison
        .notes
        .push(format!("{WINDOWS} random windows a turn, measured one by one; of Redis {REDIS_WINDOWS}"));
    Ok(comparison)
}

fn time_core(core: &Core, payments: u64, end_ms: u64, seed: u64) -> [Option<f64>; TIMES.len()] {
    let begin_ms = end_ms.saturating_sub(payments / 2);
    let mut chance = Chance::new(seed);
    let mut nanoseconds = histogram();
    for _ in 0..WINDOWS {
        let bounds = window(&mut chance, begin_ms, end_ms);
        let begun = Instant::now();
        black_box(core.ledger().summary.window(black_box(bounds)));
        nanoseconds.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    figures(&nanoseconds)
}

fn time_redis(redis: &mut Redis, payments: u64, seed: u64) -> anyhow::Result<[Option<f64>; TIMES.len()]> {
    let mut chance = Chance::new(seed);
    let mut nanoseconds = histogram();
    for _ in 0..REDIS_WINDOWS {
        let bounds = window(&mut chance, 0, payments / 2 + 1);
        let score = |bound: Option<Timestamp>| bound.map_or(0, |bound| bound.as_ms()).to_string();
        let (from, to) = (score(bounds.from), score(bounds.to));
        let begun = Instant::now();
        redis.client.ask(&[b"ZRANGEBYSCORE", b"charged", from.as_bytes(), to.as_bytes()])?;
        nanoseconds.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(figures(&nanoseconds))
}

fn window(chance: &mut Chance, begin_ms: u64, end_ms: u64) -> Bounds {
    let [one, other] = [0; 2].map(|_: u8| chance.between(begin_ms, end_ms + 1));
    let bound = |ms| Some(Timestamp::from_ms(ms));
    Bounds { from: bound(one.min(other)), to: bound(one.max(other)) }
}

/// Nanoseconds up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds, known to be good")
}

fn figures(nanoseconds: &Histogram<u64>) -> [Option<f64>; TIMES.len()] {
    let us = |ns: u64| Some(number(ns) / 1_000.0);
    [us(nanoseconds.value_at_quantile(0.5)), us(nanoseconds.value_at_quantile(0.99)), us(nanoseconds.max())]
}

/// A Redis whose sorted set holds so many members, two at each score.
fn filled_redis(ground: &Ground, payments: u64) -> anyhow::Result<Redis> {
    ground.say(&format!("giving Redis {payments} members"));
    let mut redis = Redis::start(&ground.fresh_folder(&format!("redis-{payments}"))?)?;
    let mut chance = Chance::new(payments);
    for number in 0..payments {
        let id = chance.payment_id();
        redis.client.charge(id, number / 2);
        if number % REDIS_BATCH == 0 || number + 1 == payments {
            redis.client.send()?;
            redis.client.receive_all()?;
        }
    }
    Ok(redis)
}

fn memory(args: &SummaryArgs, ground: &Ground) -> anyhow::Result<Comparison> {
    let payments = *args.payments.first().context("--payments names at least one number")?;
    let mut comparison =
        Comparison::new(format!("memory of a store with {payments} settled payments"), MEMORY);
    let Logs { plain, snapshot, empty } = settled_log::logs(ground, payments)?;
    let program = ground.binaries.path("store");
    let resident_kib = |log_dir: &Path| -> anyhow::Result<u64> {
        let config = StoreConfig {
            program: &program,
            dir: &ground.dir,
            log_dir: log_dir.to_owned(),
            payments_max: payments,
            flags: Vec::new(),
        };
        Ok(StoreProcess::start(&config)?.process.memory()?.rss_kib)
    };
    for turn in 1..=ground.turns {
        ground.say(&format!("memory, turn {turn} of {}", ground.turns));
        let empty_kib = resident_kib(&empty)?;
        for (name, log_dir) in [("recovered from the log", &plain), ("from a snapshot", &snapshot)] {
            let kib = resident_kib(log_dir)?;
            comparison.enter(name, &memory_figures(payments, kib, empty_kib));
        }
    }
    Ok(comparison)
}

fn memory_figures(payments: u64, kib: u64, empty_kib: u64) -> [Option<f64>; MEMORY.len()] {
    let bytes = number(kib.saturating_sub(empty_kib) * 1_024) / number(payments);
    [Some(bytes), Some(mib(kib)), Some(mib(empty_kib))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_by_payment_without_what_an_empty_store_takes() {
        assert_eq!(memory_figures(1_024, 164, 100)[0], Some(64.0));
        assert_eq!(memory_figures(1, 1, 2)[0], Some(0.0));
    }

    #[test]
    fn windows_lie_inside_and_begin_before_they_end() {
        let mut chance = Chance::new(1);
        for _ in 0..100 {
            let Bounds { from: Some(from), to: Some(to) } = window(&mut chance, 10, 20) else {
                panic!("both ends are there")
            };
            assert!(from <= to && from.as_ms() >= 10 && to.as_ms() <= 20);
        }
    }
}
