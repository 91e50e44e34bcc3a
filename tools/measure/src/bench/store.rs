//! `measure store`: payments a second through the store's own socket, beside Redis doing the same with its commands.
//!
//! A payment is accepted, leased and reported charged; for Redis that is `SET NX` and `LPUSH`, `LMOVE`, `ZADD`. Both are
//! spoken to over one Unix socket by one client that pipelines [`WINDOW`] payments, and both keep a log that survives
//! the death of the process and is flushed behind it: mode `process`, and `appendfsync everysec`. Redis does less: it
//! answers no question of an amount, routes nothing and has no rule about what may be sent where.

use crate::bench::comparison::{Comparison, Metric, mib, number};
use crate::bench::env::BenchEnv;
use crate::bench::redis::{self, Redis};
use crate::bench::settled_log::charged;
use crate::bench::store_process::{StoreConfig, StoreProcess};
use crate::bench::usage::{Memory, Usage};
use anyhow::ensure;
use contest::chance::Chance;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wire::frame::{self, Accepted, FromApi, FromStore, Health, Message};
use wire::{Cents, Timestamp};

/// Payments whose accept is not answered yet; also the payments of one round trip to Redis.
const WINDOW: u64 = 256;

/// One read.
const READ_BYTES: usize = 1 << 16;

const METRICS: &[Metric] = &[
    Metric::compared("payments", "/s", 0),
    Metric::compared("CPU a payment", "us", 2),
    Metric::shown("user", "us", 2),
    Metric::shown("kernel", "us", 2),
    Metric::shown("memory", "MiB", 1),
];

/// How much to send.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct StoreArgs {
    /// Payments of one turn
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=8_388_608))]
    pub payments: u64,
}

/// Measures.
///
/// # Errors
/// When something does not start, or does not do its work.
pub fn store(args: StoreArgs, env: &BenchEnv) -> anyhow::Result<Vec<Comparison>> {
    let title = format!("{} payments accepted, leased and charged, {WINDOW} pipelined", args.payments);
    let mut comparison = Comparison::new(title, METRICS);
    let has_redis = redis::is_installed();
    if let Err(why) = &has_redis {
        comparison.notes.push(why.clone());
    }
    for turn in 1..=env.turns {
        env.say(&format!("turn {turn} of {}", env.turns));
        comparison.enter("store", &ours(args.payments, env)?);
        if has_redis.is_ok() {
            comparison.enter("Redis", &theirs(args.payments, env)?);
        }
        comparison.enter("store again (A/A)", &ours(args.payments, env)?);
    }
    Ok(vec![comparison])
}

fn figures(payments: u64, took: Duration, used: Usage, memory: Memory) -> [Option<f64>; METRICS.len()] {
    let each = |us: u64| Some(number(us) / number(payments));
    let per_s = number(payments) / took.as_secs_f64();
    [Some(per_s), each(used.total_us), each(used.user_us), each(used.system_us()), Some(mib(memory.rss_kib))]
}

fn ours(payments: u64, env: &BenchEnv) -> anyhow::Result<[Option<f64>; METRICS.len()]> {
    let dir = env.fresh_folder("store")?;
    let program = env.binaries.path("store");
    let flags = ["--dispatch-per-s", "1000000"].map(String::from).to_vec();
    let config =
        StoreConfig { program: &program, dir: &dir, log_dir: dir.join("wal"), payments_max: payments, flags };
    let mut store = StoreProcess::start(&config)?;
    let (before, begun) = (store.process.usage()?, Instant::now());
    Api::new(payments).settle(&mut store.stream)?;
    let took = begun.elapsed();
    Ok(figures(payments, took, store.process.usage()? - before, store.process.memory()?))
}

/// An api that has all payments to be accepted, and a processor that charges at once.
struct Api {
    chance: Chance,
    unsent: u64,
    unanswered: u64,
    reports: u64,
    acknowledged: u64,
    payments: u64,
    out: Vec<u8>,
}

impl Api {
    fn new(payments: u64) -> Self {
        let chance = Chance::new(payments);
        Self {
            chance,
            unsent: payments,
            unanswered: 0,
            reports: 0,
            acknowledged: 0,
            payments,
            out: Vec::new(),
        }
    }

    fn settle(&mut self, stream: &mut UnixStream) -> anyhow::Result<()> {
        FromApi::Hello { instance: 1, calls_max: 1_000, held: Vec::new() }.encode(&mut self.out);
        let (mut bytes, mut block) = (Vec::new(), vec![0; READ_BYTES]);
        while self.acknowledged < self.payments {
            while self.unsent > 0 && self.unanswered < WINDOW {
                let id = self.chance.payment_id();
                FromApi::Accept { request: self.unsent, id, cents: Cents(1_990) }.encode(&mut self.out);
                self.unsent -= 1;
                self.unanswered += 1;
            }
            stream.write_all(&self.out)?;
            self.out.clear();
            let read = stream.read(&mut block)?;
            ensure!(read > 0, "the store hung up");
            bytes.extend_from_slice(&block[..read]);
            let mut used = 0;
            while let Some((message, len)) = frame::decode::<FromStore>(&bytes[used..])? {
                used += len;
                self.take(&message)?;
            }
            bytes.drain(..used);
        }
        Ok(())
    }

    fn take(&mut self, message: &FromStore) -> anyhow::Result<()> {
        match message {
            FromStore::Accepted { accepted, .. } => {
                ensure!(*accepted == Accepted::Recorded, "a payment was not recorded: {accepted:?}");
                self.unanswered -= 1;
            }
            FromStore::Lease(lease) => {
                self.reports += 1;
                FromApi::Report(charged(lease, self.reports)).encode(&mut self.out);
                if self.reports == self.payments {
                    // To one that drains the last reports are acknowledged at once.
                    FromApi::Drain.encode(&mut self.out);
                }
            }
            FromStore::HealthLease { processor, .. } => {
                FromApi::HealthReport { processor: *processor, health: Health::Busy }.encode(&mut self.out);
            }
            FromStore::Acknowledge { sequence } => self.acknowledged = *sequence,
            _ => (),
        }
        Ok(())
    }
}

fn theirs(payments: u64, env: &BenchEnv) -> anyhow::Result<[Option<f64>; METRICS.len()]> {
    let mut redis = Redis::start(&env.fresh_folder("redis")?)?;
    let (before, begun) = (redis.process.usage()?, Instant::now());
    let mut chance = Chance::new(payments);
    let now_ms = Timestamp::now().as_ms();
    let mut unsent = payments;
    // A payment is leased in the round after its accept, and charged in the one after that: each round trip carries
    // steps of three generations, as one to the store does.
    let (mut accepted, mut leased) = (Vec::new(), VecDeque::new());
    loop {
        let client = &mut redis.client;
        for id in leased.drain(..) {
            client.charge(id, now_ms);
        }
        accepted.iter().for_each(|_| client.lease());
        leased.extend(accepted.drain(..));
        for _ in 0..unsent.min(WINDOW) {
            let id = chance.payment_id();
            client.accept(id, b"1990");
            accepted.push(id);
            unsent -= 1;
        }
        client.send()?;
        client.receive_all()?;
        if unsent == 0 && accepted.is_empty() && leased.is_empty() {
            break;
        }
    }
    let took = begun.elapsed();
    Ok(figures(payments, took, redis.process.usage()? - before, redis.process.memory()?))
}
