//! `measure floor` and `measure preview`: the judge's users against our stack, beside the least that any server
//! could take.
//!
//! The floor is one process without a balancer that gives a fixed answer (`fixed_server`), driven by the same users under
//! the same plan in the same session: what it takes is the machine, the kernel, the loopback and the users themselves.
//! Each turn plays the floor, a floor of two processes, of which one asks the other before it answers, every variant of
//! our stack on an empty log, and the floor again (A/A). The second floor is what any stack takes at the least whose web
//! servers are other processes than what they share, as the competition's rules want it. The plan is the preview, or the
//! preview at another length: its stages and audits are as much shorter, its users as many.

use crate::bench::comparison::{Comparison, Metric, number};
use crate::bench::env::BenchEnv;
use crate::bench::process::Process;
use anyhow::Context;
use arena::endpoint::Endpoint;
use arena::judge::{Judge, Sides};
use arena::stack::Durability;
use arena::stack::{Stack, StackConfig, TOKEN};
use contest::plan::Plan;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use wire::{PerProcessor, Processor};

const FLOOR: &str = "floor";
const ASKING: &str = "floor of two processes";
const FLOOR_AGAIN: &str = "floor again (A/A)";

const METRICS: &[Metric] = &[
    Metric::compared("p50", "ms", 3),
    Metric::compared("p99", "ms", 3),
    Metric::compared("p99.9", "ms", 3),
    Metric::shown("posted", "", 0),
    Metric::shown("failed", "", 0),
    Metric::shown("audits that differ", "", 0),
];

/// How long the plan is played.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct PlayArgs {
    /// Play the preview in this time; its own is 60
    #[arg(long = "for", value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub for_s: u16,
}

/// The floor alone.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct FloorArgs {
    /// How long.
    #[command(flatten)]
    pub play: PlayArgs,
}

/// What is played against.
#[derive(Clone, Debug, clap::Args)]
pub struct PreviewArgs {
    /// How long.
    #[command(flatten)]
    pub play: PlayArgs,
    /// How the balancer passes clients on, as lb's --mode has it, separated by commas; what lb does not have is left out
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_value = "forward,hand-off")]
    pub modes: Vec<String>,
    /// What a 2xx promises to survive, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "process")]
    pub durability: Vec<Durability>,
    /// How many apis
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub apis: u8,
}

/// Measures the floor alone.
///
/// # Errors
/// When something does not start.
pub fn floor(args: FloorArgs, env: &BenchEnv) -> anyhow::Result<Vec<Comparison>> {
    let plan = shortened(&Plan::preview(), args.play.for_s);
    let what = "the floor: one process, a fixed answer";
    let mut comparison = Comparison::new(title(&plan, what), METRICS);
    for turn in 1..=env.turns {
        for name in [FLOOR, FLOOR_AGAIN] {
            env.say(&format!("turn {turn} of {}: {name}", env.turns));
            comparison.enter(name, &play_floor(&plan, env, false)?);
        }
    }
    Ok(vec![comparison])
}

/// Measures the floor and our stack.
///
/// # Errors
/// When something does not start.
pub fn preview(args: &PreviewArgs, env: &BenchEnv) -> anyhow::Result<Vec<Comparison>> {
    let plan = shortened(&Plan::preview(), args.play.for_s);
    let mut comparison = Comparison::new(title(&plan, "POST /payments"), METRICS);
    let modes = env.lb_modes(&args.modes, &mut comparison)?;
    let variants: Vec<(&str, Durability)> = modes
        .iter()
        .flat_map(|mode| args.durability.iter().map(|durability| (mode.as_str(), *durability)))
        .collect();
    for turn in 1..=env.turns {
        let say = |name: &str| env.say(&format!("turn {turn} of {}: {name}", env.turns));
        say(FLOOR);
        comparison.enter(FLOOR, &play_floor(&plan, env, false)?);
        say(ASKING);
        comparison.enter(ASKING, &play_floor(&plan, env, true)?);
        for (mode, durability) in &variants {
            let name = format!("ours, {mode}, {}", durability.name());
            say(&name);
            let variant = Variant { mode, durability: *durability, apis: args.apis };
            comparison.enter(&name, &play_ours(&plan, &variant, env)?);
        }
        say(FLOOR_AGAIN);
        comparison.enter(FLOOR_AGAIN, &play_floor(&plan, env, false)?);
    }
    Ok(vec![comparison])
}

fn title(plan: &Plan, what: &str) -> String {
    format!("{what}; preview in {} s, {} users", plan.duration.as_secs(), plan.users)
}

/// The plan in another time: whatever happens in it comes as much earlier, by as many users.
fn shortened(plan: &Plan, for_s: u16) -> Plan {
    let share = f64::from(for_s) / plan.duration.as_secs_f64();
    let mut shorter = plan.clone();
    shorter.duration = Duration::from_secs(for_s.into());
    shorter.ramp = plan.ramp.mul_f64(share);
    shorter.stages.iter_mut().for_each(|stage| stage.from = stage.from.mul_f64(share));
    let every = Duration::from_millis(plan.audit.every_ms).mul_f64(share);
    shorter.audit.every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
    shorter
}

/// What a stack is started as.
#[derive(Clone, Copy, Debug)]
pub struct Variant<'a> {
    /// lb's.
    pub mode: &'a str,
    /// The store's.
    pub durability: Durability,
    /// How many.
    pub apis: u8,
}

impl Variant<'_> {
    /// The settings of such a stack, on an empty folder in that of the run.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn config(&self, env: &BenchEnv) -> anyhow::Result<StackConfig> {
        let run_dir = env.fresh_folder("stack")?;
        let plan = Plan::preview();
        Ok(StackConfig {
            binaries: env.binaries.clone(),
            run_dir,
            port: 0,
            processor_ports: PerProcessor([0, 0]),
            apis: self.apis,
            mode: self.mode.into(),
            durability: self.durability,
            fee_percent: plan.fee_percent,
            audit_margin_ms: plan.audit.margin_ms,
            token: TOKEN.into(),
            envs: env.envs.clone(),
            is_verbose: false,
        })
    }
}

/// Runs a future to its end on this thread, with all that the judge and a stack need.
///
/// # Errors
/// When there is no runtime, or the future's own.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.context("cannot make the runtime")?.block_on(future)
}

fn play_ours(
    plan: &Plan,
    variant: &Variant<'_>,
    env: &BenchEnv,
) -> anyhow::Result<[Option<f64>; METRICS.len()]> {
    let config = variant.config(env)?;
    block_on(async {
        let stack = Stack::start(&config, &env.terminal).await?;
        let theirs = PerProcessor(stack.theirs.0.map(Endpoint::from));
        let sides = Sides { ours: stack.ours.into(), theirs, token: TOKEN.into() };
        let figures = Box::pin(play(plan.clone(), sides)).await;
        stack.stop(&env.terminal).await;
        figures
    })
}

/// Plays against a fixed answer, of one process or of one that asks another.
fn play_floor(plan: &Plan, env: &BenchEnv, is_asking: bool) -> anyhow::Result<[Option<f64>; METRICS.len()]> {
    let asked = is_asking.then(|| env.dir.join("asked.sock"));
    let _asked = asked.as_ref().map(|path| start_asked(path, env)).transpose()?;
    let (_server, ours) = start_server(asked.as_deref(), env)?;
    play_beside_processors(plan, ours, env)
}

fn start_asked(path: &Path, env: &BenchEnv) -> anyhow::Result<Process> {
    let mut command = Command::new(BenchEnv::ourselves()?);
    command.args(["fixed-server", "--socket"]).arg(path);
    let mut process = Process::start("asked", command, &env.dir)?;
    process.until(|| UnixStream::connect(path))?;
    Ok(process)
}

/// Plays against a server that asks nothing of the processors, beside two that are there for the judge.
fn play_beside_processors(
    plan: &Plan,
    ours: SocketAddr,
    env: &BenchEnv,
) -> anyhow::Result<[Option<f64>; METRICS.len()]> {
    let processors = Processor::BOTH.map(|processor| start_processor(processor, env));
    let [default, fallback] = processors;
    let ((_default, default), (_fallback, fallback)) = (default?, fallback?);
    let theirs = PerProcessor([default.into(), fallback.into()]);
    let sides = Sides { ours: ours.into(), theirs, token: TOKEN.into() };
    block_on(Box::pin(play(plan.clone(), sides)))
}

async fn play(plan: Plan, sides: Sides) -> anyhow::Result<[Option<f64>; METRICS.len()]> {
    let judge = Judge::prepare(plan, sides).await?;
    Box::pin(judge.play()).await?;
    let post = judge.tally.post_latency();
    let differing = judge.audits.borrow().iter().filter(|audit| audit.difference > 0).count();
    let failed: u64 = judge.tally.failures().values().sum();
    let counts = [judge.tally.posted_count(), failed, differing as u64].map(number);
    let [posted, failed, differing] = counts.map(Some);
    Ok([Some(post.p50_ms), Some(post.p99_ms), Some(post.p999_ms), posted, failed, differing])
}

/// Starts a fixed server on a free port, which asks the one at the Unix socket `asked` if there is one.
///
/// # Errors
/// When it does not start.
pub fn start_server(asked: Option<&Path>, env: &BenchEnv) -> anyhow::Result<(Process, SocketAddr)> {
    let mut command = Command::new(BenchEnv::ourselves()?);
    command.args(["fixed-server", "--listen", "127.0.0.1:0"]);
    if let Some(path) = asked {
        command.arg("--ask").arg(path);
    }
    start_listening("floor", command, &env.dir)
}

fn start_processor(processor: Processor, env: &BenchEnv) -> anyhow::Result<(Process, SocketAddr)> {
    let mut command = Command::new(env.binaries.arena());
    command.args(["processors", "--only", processor.name(), "--listen", "127.0.0.1:0", "--token", TOKEN]);
    start_listening(processor.name(), command, &env.dir)
}

/// Starts a program that says `... listening on ADDR` once it does.
fn start_listening(name: &str, command: Command, dir: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    let log = dir.join(format!("{name}.log"));
    // What the one before said would be taken for what this one says.
    let _ = fs::remove_file(&log);
    let mut process = Process::start(name, command, dir)?;
    let addr = process.until(|| {
        let said = fs::read_to_string(&log)?;
        let addr =
            said.split_once("listening on ").and_then(|(_, rest)| rest.split_once('\n')?.0.parse().ok());
        addr.ok_or_else(|| io::Error::other("it has not said where it listens"))
    })?;
    Ok((process, addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_preview_has_the_same_stages_earlier() {
        let plan = shortened(&Plan::preview(), 20);
        let from_ms: Vec<u128> = plan.stages.iter().map(|stage| stage.from.as_millis()).collect();
        assert_eq!(from_ms, [333, 3_333, 6_666, 10_000, 13_333, 16_666]);
        assert_eq!((plan.duration.as_secs(), plan.users, plan.audit.every_ms), (20, 550, 3_333));
        assert_eq!(shortened(&Plan::preview(), 60), Plan::preview());
    }
}
