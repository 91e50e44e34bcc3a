//! `measure stack`: how many payments a second the whole stack accepts and records, what each costs in every
//! process, and what happens beyond that.
//!
//! Keep-alive clients post payments, each with an id of its own, and send the next one when the answer is there, in
//! steps of more and more clients; then at a fixed rate; then ten times the clients of the last step, and a store that is
//! full. The simulated processors run beside it and settle at the store's own pace, so a queue grows while more is
//! accepted than is settled. Processor time is that of each process, from `/proc`, without any limit on it.

use crate::bench::comparison::{Comparison, Metric, mib, number};
use crate::bench::env::BenchEnv;
use crate::bench::load::{ANSWER_TIMEOUT, LoadGenerator, Outcome, Requests};
use crate::bench::preview::{Variant, block_on};
use crate::bench::usage::{Memory, Usage};
use anyhow::Context;
use arena::stack::Durability;
use arena::stack::Stack;
use arena::user::PaymentRequest;
use contest::chance::Chance;
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wire::Cents;

/// How much more than the last step.
const OVERLOAD: usize = 10;

/// Payments that a full store holds.
const FULL_PAYMENTS: &str = "1000";

/// After an overload: so many payments in a row, each within [`CALM`], mean that it is over.
const CALM_PAYMENTS: u32 = 20;
const CALM: Duration = Duration::from_millis(10);

/// Recovery is waited for at most so long.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);

const STEPS: &[Metric] = &[
    Metric::compared("accepted", "/s", 0),
    Metric::shown("p50", "ms", 2),
    Metric::shown("p99", "ms", 2),
    Metric::shown("p99.9", "ms", 2),
    Metric::compared("lb + apis + store", "us", 1),
    Metric::shown("lb", "us", 1),
    Metric::shown("apis", "us", 1),
    Metric::shown("store", "us", 1),
    Metric::shown("processors", "us", 1),
    Metric::shown("generator", "us", 1),
    Metric::shown("memory", "MiB", 1),
    Metric::shown("failed", "", 0),
];

const OVERLOADS: &[Metric] = &[
    Metric::shown("accepted", "/s", 0),
    Metric::shown("accepted p99", "ms", 2),
    Metric::shown("refused", "/s", 0),
    Metric::shown("refused p50", "ms", 2),
    Metric::shown("refused p99", "ms", 2),
    Metric::shown("unanswered", "", 0),
    Metric::shown("recovered after", "ms", 0),
    Metric::shown("memory before", "MiB", 1),
    Metric::shown("memory peak", "MiB", 1),
];

/// What is thrown at the stack.
#[derive(Clone, Debug, clap::Args)]
pub struct StackBenchArgs {
    /// Steps: clients at once, separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,16,64,256,512",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub clients: Vec<u16>,
    /// Payments a second of the step at a fixed rate, from 64 clients
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// How long each step lasts
    #[arg(long = "for", value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub for_s: u16,
    /// How the balancer passes clients on, as lb's --mode has it
    #[arg(long, value_name = "MODE", default_value = "hand-off")]
    pub mode: String,
    /// What a 2xx promises to survive
    #[arg(long, value_enum, default_value_t = Durability::Process)]
    pub durability: Durability,
    /// How many apis
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub apis: u8,
}

/// Clients of the step at a fixed rate, as in docs/results.md.
const RATE_CLIENTS: u16 = 64;

/// Measures.
///
/// # Errors
/// When something does not start.
pub fn stack(args: &StackBenchArgs, env: &BenchEnv) -> anyhow::Result<Vec<Comparison>> {
    let what = |text: &str| format!("the whole stack, {}, {}: {text}", args.mode, args.durability.name());
    let mut steps = Comparison::new(what("clients that post as fast as they are answered"), STEPS);
    let mut rates = Comparison::new(what("a fixed rate"), STEPS);
    let mut overloads = Comparison::new(what("more than it can take"), OVERLOADS);
    for turn in 1..=env.turns {
        env.say(&format!("turn {turn} of {}", env.turns));
        with_stack(args, env, &[], |stack| {
            let mut payments = Payments::new(stack.ours, u64::from(turn));
            for clients in &args.clients {
                env.say(&format!("{clients} clients"));
                let load = load(args, stack, *clients, None);
                steps.enter(&format!("{clients} clients"), &step(stack, &load, &mut payments)?);
            }
            env.say(&format!("{} payments a second", args.rate));
            let load = load(args, stack, RATE_CLIENTS, Some(args.rate));
            rates.enter(&format!("{}/s", args.rate), &step(stack, &load, &mut payments)?);
            let clients = OVERLOAD * usize::from(args.clients.iter().copied().max().unwrap_or(1));
            env.say(&format!("{clients} clients"));
            let load = LoadGenerator { connections: clients, ..load };
            let load = LoadGenerator { rate_per_s: None, ..load };
            overloads.enter(&format!("{clients} clients"), &overload(stack, &load, &mut payments)?);
            Ok(())
        })?;
        with_stack(args, env, &[("PAYMENTS_MAX", FULL_PAYMENTS)], |stack| {
            env.say("a full store");
            let clients = args.clients.iter().copied().max().unwrap_or(1);
            let figures = overload(
                stack,
                &load(args, stack, clients, None),
                &mut Payments::new(stack.ours, u64::from(turn)),
            )?;
            overloads.enter(&format!("full store, {clients} clients"), &figures);
            Ok(())
        })?;
    }
    let note = "times are processor time for each accepted payment; memory is that of lb, apis and store";
    steps.notes.push(note.into());
    rates.notes.push(note.into());
    let note =
        format!("recovered: {CALM_PAYMENTS} payments in a row each answered within {} ms", CALM.as_millis());
    overloads.notes.push(note);
    Ok(vec![steps, rates, overloads])
}

fn with_stack(
    args: &StackBenchArgs,
    env: &BenchEnv,
    envs: &[(&str, &str)],
    measure: impl FnOnce(&Stack) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut config =
        Variant { mode: &args.mode, durability: args.durability, apis: args.apis }.config(env)?;
    config.envs.extend(envs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    block_on(async {
        let stack = Stack::start(&config, &env.terminal).await?;
        let measured = measure(&stack);
        stack.stop(&env.terminal).await;
        measured
    })
}

fn load(args: &StackBenchArgs, stack: &Stack, clients: u16, rate_per_s: Option<u32>) -> LoadGenerator {
    let lasting = Duration::from_secs(args.for_s.into());
    LoadGenerator {
        addr: stack.ours,
        connections: clients.into(),
        rate_per_s,
        lasting,
        answer_timeout: ANSWER_TIMEOUT,
        is_reconnecting: false,
    }
}

/// Payments, each with another id.
pub(super) struct Payments {
    request: PaymentRequest,
    chance: Chance,
}

impl Payments {
    /// A seed has its own ids.
    pub(super) fn new(ours: SocketAddr, seed: u64) -> Self {
        Self { request: PaymentRequest::new(&ours.to_string(), Cents(1_990)), chance: Chance::new(seed) }
    }
}

impl Requests for Payments {
    fn next(&mut self) -> &[u8] {
        self.request.with_id(self.chance.payment_id())
    }
}

/// What the processes of one kind have used, and how much memory they have.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    usage: Usage,
    memory: Memory,
}

/// lb, apis, store, processors.
struct Shares([Share; 4]);

impl Shares {
    fn of(stack: &Stack) -> anyhow::Result<Self> {
        let mut shares = [Share::default(); 4];
        for place in stack.places() {
            let kind = match place.name.as_str() {
                "lb" => 0,
                "store" => 2,
                name if name.starts_with("api") => 1,
                _ => 3,
            };
            let pid = place.pid.map(Pid::from_raw).with_context(|| format!("{} has ended", place.name))?;
            let (usage, memory) = (Usage::of(pid)?, Memory::of(pid)?);
            let share = &mut shares[kind];
            share.usage = share.usage + usage;
            share.memory = share.memory + memory;
        }
        Ok(Self(shares))
    }

    fn used_us_since(&self, before: &Self) -> [u64; 4] {
        std::array::from_fn(|kind| (self.0[kind].usage - before.0[kind].usage).total_us)
    }

    fn memory(&self) -> Memory {
        self.0[..3].iter().fold(Memory::default(), |sum, share| sum + share.memory)
    }
}

fn step(
    stack: &Stack,
    load: &LoadGenerator,
    payments: &mut Payments,
) -> anyhow::Result<[Option<f64>; STEPS.len()]> {
    let (before, generator_before) = (Shares::of(stack)?, Usage::of_this_thread()?);
    let outcome = load.run(payments)?;
    let generator_us = (Usage::of_this_thread()? - generator_before).total_us;
    let after = Shares::of(stack)?;
    let [lb, apis, store, processors] = after.used_us_since(&before);
    let latency = outcome.latency();
    let each = |us: u64| each(us, &outcome);
    Ok([
        Some(outcome.accepted_per_s()),
        Some(latency.p50_ms),
        Some(latency.p99_ms),
        Some(latency.p999_ms),
        each(lb + apis + store),
        each(lb),
        each(apis),
        each(store),
        each(processors),
        each(generator_us),
        Some(mib(after.memory().pss_kib)),
        Some(number(outcome.failed())),
    ])
}

fn each(us: u64, outcome: &Outcome) -> Option<f64> {
    (outcome.accepted() > 0).then(|| number(us) / number(outcome.accepted()))
}

fn overload(
    stack: &Stack,
    load: &LoadGenerator,
    payments: &mut Payments,
) -> anyhow::Result<[Option<f64>; OVERLOADS.len()]> {
    let before = Shares::of(stack)?.memory();
    let outcome = load.run(payments)?;
    let recovered = recovered_after(load, payments)?;
    let after = Shares::of(stack)?.memory();
    let (accepted, refused) = (outcome.latency(), outcome.refused_latency());
    let has = |latency: arena::tally::Latency, ms: f64| (latency.count > 0).then_some(ms);
    let refused_per_s = number(refused.count) / outcome.took.as_secs_f64();
    Ok([
        Some(outcome.accepted_per_s()),
        has(accepted, accepted.p99_ms),
        Some(refused_per_s),
        has(refused, refused.p50_ms),
        has(refused, refused.p99_ms),
        Some(number(outcome.unanswered)),
        recovered.map(|took| took.as_secs_f64() * 1_000.0),
        Some(mib(before.pss_kib)),
        Some(mib(after.peak_kib)),
    ])
}

/// How long after the load the first of [`CALM_PAYMENTS`] quick answers in a row was there; nothing when that takes too
/// long. A refusal is an answer: a full store stays full.
fn recovered_after(load: &LoadGenerator, payments: &mut Payments) -> anyhow::Result<Option<Duration>> {
    let begun = Instant::now();
    let one = LoadGenerator { connections: 1, rate_per_s: Some(1_000), ..*load };
    while begun.elapsed() < RECOVERY_TIMEOUT {
        let since = begun.elapsed();
        let one = LoadGenerator { lasting: Duration::from_millis(CALM_PAYMENTS.into()), ..one };
        let outcome = one.run(payments)?;
        let slowest_ms = outcome.latency().max_ms.max(outcome.refused_latency().max_ms);
        if outcome.unanswered == 0 && slowest_ms <= CALM.as_secs_f64() * 1_000.0 {
            return Ok(Some(since));
        }
    }
    Ok(None)
}
