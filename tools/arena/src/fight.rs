//! `arena fight`: finds or starts what is fought, plays the judge, checks all three sides, and reports.
//!
//! A stack of its own is started for the occasion, with the fees and the margin of the plan, and processors on free
//! ports. It is all the same to the judge: what differs is only that its processes can be killed on time, and that its
//! folder is kept when the money is not right afterwards, because the logs in it are the evidence.

use crate::binaries::Binaries;
use crate::child::Exit;
use crate::containers::Containers;
use crate::endpoint::Endpoint;
use crate::endpoint::Url;
use crate::judge::{Judge, Sides};
use crate::limits::Limits;
use crate::limits::Split;
use crate::progress::show;
use crate::reckoning::{DRAIN_TIMEOUT, Reckoning};
use crate::report::{Ended, Killed, Report};
use crate::run_dir::RunDir;
use crate::signals::{EXIT_INTERRUPTED, Signals};
use crate::stack::{Role, StackArgs};
use crate::stack::{Stack, StackConfig};
use crate::terminal::{self, Terminal};
use anyhow::Context;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use contest::choice::Choice;
use contest::plan::Plan;
use std::cell::RefCell;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use wire::PerProcessor;

/// Flags of `arena fight`.
#[derive(Clone, Debug, Args)]
pub struct FightArgs {
    /// preview, final, random, or a JSON file with a plan, in the shape that "plan" has in what --json writes
    #[arg(value_name = "PLAN")]
    pub plan: Choice,
    /// Which of the random plans
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Fight what answers here and was started by others, instead of a stack started for the occasion
    #[arg(long, env = "ARENA_TARGET", value_name = "URL")]
    pub target: Option<Url>,
    /// Fight the containers of docker-compose.yml beside simulated processors: builds, checks and starts them, tells what
    /// they used, and takes them down again
    #[arg(long, conflicts_with_all = ["target", "kill_store_at", "kill_api_at", "kill_lb_at"])]
    pub compose: bool,
    /// Give each process of the stack its share of 1.5 CPU and 350 MB, as docker-compose.yml does, through control groups
    #[arg(long, conflicts_with_all = ["target", "compose"])]
    pub limits: bool,
    /// What the shares are.
    #[command(flatten)]
    pub split: Split,
    /// The default processor of --target
    #[arg(long, value_name = "URL", default_value = "http://localhost:8001", requires = "target")]
    pub processor_default: Url,
    /// The fallback processor of --target
    #[arg(long, value_name = "URL", default_value = "http://localhost:8002", requires = "target")]
    pub processor_fallback: Url,
    /// What the processors' administrators say in X-Rinha-Token
    #[arg(long, value_name = "TEXT", default_value = "123", value_parser = NonEmptyStringValueParser::new())]
    pub token: String,
    /// Write everything that was seen to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Kill the store (SIGKILL) this many seconds into the fight; can be given more than once
    #[arg(long, value_name = "S", conflicts_with = "target")]
    pub kill_store_at: Vec<f64>,
    /// Kill an api, each time the next one
    #[arg(long, value_name = "S", conflicts_with = "target")]
    pub kill_api_at: Vec<f64>,
    /// Kill the balancer
    #[arg(long, value_name = "S", conflicts_with = "target")]
    pub kill_lb_at: Vec<f64>,
    /// What to start when there is no --target.
    #[command(flatten)]
    pub stack: StackArgs,
}

/// A process that is killed in the middle of a fight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Which one.
    pub role: Role,
    /// When, since the start.
    pub at: Duration,
}

impl FightArgs {
    /// The kills asked for, in the order of time.
    ///
    /// # Errors
    /// The number that is no time.
    pub fn kills(&self) -> anyhow::Result<Vec<Kill>> {
        let of = |role, times: &[f64]| {
            let kill = move |seconds: &f64| {
                let at = Duration::try_from_secs_f64(*seconds);
                at.map(|at| Kill { role, at })
                    .map_err(|error| anyhow::anyhow!("a kill at {seconds} s: {error}"))
            };
            times.iter().map(kill).collect::<Vec<_>>()
        };
        let all = [
            of(Role::Store, &self.kill_store_at),
            of(Role::Api, &self.kill_api_at),
            of(Role::Lb, &self.kill_lb_at),
        ];
        let mut kills = all.into_iter().flatten().collect::<anyhow::Result<Vec<_>>>()?;
        kills.sort_by_key(|kill| kill.at);
        Ok(kills)
    }
}

/// Where docker-compose.yml publishes the balancer; the processors are where `--target` looks for them by itself.
pub const COMPOSE_URL: &str = "http://localhost:9999";

/// Fights and reports.
///
/// # Errors
/// When the plan cannot be read, something does not start or answer, or the JSON cannot be written.
pub async fn fight(args: FightArgs, envs: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::handle()?;
    let plan = args.plan.plan(args.seed)?;
    wire::socket::raise_descriptor_limit();
    let terminal = Terminal::default();
    let mut containers = args.compose.then(|| Containers::of_plan(&args.stack, &plan)).transpose()?;
    if let Some(containers) = &mut containers {
        args.split.variables().into_iter().for_each(|(name, value)| containers.set(name, value));
    }
    let fought = Box::pin(fight_on(&args, &plan, envs, containers.as_mut(), &mut signals, &terminal)).await;
    if let Some(containers) = containers {
        containers.stop().await?;
    }
    let Some(report) = fought? else {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    };
    if let Some(path) = &args.json {
        write_json(&report, path)?;
    }
    terminal::print(&report);
    Ok(ExitCode::from(report.exit_status()))
}

/// Prepares the ground, fights, and leaves it. `None` when a signal came first.
async fn fight_on(
    args: &FightArgs,
    plan: &Plan,
    envs: Vec<(String, String)>,
    mut containers: Option<&mut Containers>,
    signals: &mut Signals,
    terminal: &Terminal,
) -> anyhow::Result<Option<Report>> {
    let prepared = async {
        if let Some(containers) = &mut containers {
            containers.start().await?;
        }
        FightEnv::prepare(args, plan, envs, terminal).await
    };
    let ground = tokio::select! {
        ground = Box::pin(prepared) => ground?,
        () = signals.received() => return Ok(None),
    };
    let kills = args.kills()?;
    let outcome = tokio::select! {
        outcome = Box::pin(ground.fight(plan.clone(), kills, containers.as_deref(), terminal)) => Some(outcome),
        () = signals.received() => None,
    };
    let is_evidence = match &outcome {
        Some(Ok(report)) => !report.is_money_right(),
        Some(Err(_)) => true,
        None => false,
    };
    ground.leave(is_evidence, terminal).await;
    outcome.transpose()
}

fn write_json(report: &Report, path: &Path) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(report).context("the report as JSON")?;
    std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// Where the fight takes place: the sides, and the stack behind them if it is our own.
struct FightEnv {
    sides: Sides,
    own: Option<(Rc<Stack>, RunDir)>,
    limits: Option<Limits>,
    profile: Option<&'static str>,
}

impl FightEnv {
    async fn prepare(
        args: &FightArgs,
        plan: &Plan,
        envs: Vec<(String, String)>,
        terminal: &Terminal,
    ) -> anyhow::Result<Self> {
        let compose = args.compose.then(|| COMPOSE_URL.parse()).transpose()?;
        if let Some(target) = args.target.as_ref().or(compose.as_ref()) {
            let theirs = [&args.processor_default, &args.processor_fallback];
            let theirs = PerProcessor([Endpoint::find(theirs[0]).await?, Endpoint::find(theirs[1]).await?]);
            let sides = Sides { ours: Endpoint::find(target).await?, theirs, token: args.token.clone() };
            return Ok(Self { sides, own: None, limits: None, profile: None });
        }
        let binaries = Binaries::find(args.stack.bin_dir.as_deref(), args.stack.checkout().as_ref()).await?;
        let limits = args.limits.then(|| Limits::make(&args.split, args.stack.apis)).transpose()?;
        let binaries = binaries.confined(limits.as_ref().map(Limits::entrances).unwrap_or_default());
        let run_dir = RunDir::new(args.stack.run_dir.as_deref())?;
        let profile = binaries.profile();
        let config = StackConfig {
            fee_percent: plan.fee_percent,
            audit_margin_ms: plan.audit.margin_ms,
            token: args.token.clone(),
            ..StackConfig::new(&args.stack, binaries, run_dir.path(), envs)
        };
        let stack = Stack::start(&config, terminal).await?;
        let theirs = PerProcessor(stack.theirs.0.map(Endpoint::from));
        let sides = Sides { ours: stack.ours.into(), theirs, token: config.token };
        Ok(Self { sides, own: Some((Rc::new(stack), run_dir)), limits, profile })
    }

    async fn fight(
        &self,
        plan: Plan,
        kills: Vec<Kill>,
        containers: Option<&Containers>,
        terminal: &Terminal,
    ) -> anyhow::Result<Report> {
        let used = || match (containers, &self.limits) {
            (Some(containers), _) => containers.used(),
            (None, Some(limits)) => limits.used(),
            (None, None) => Ok(Vec::new()),
        };
        let judge = Judge::prepare(plan, self.sides.clone()).await?;
        let killed = Rc::new(RefCell::new(Vec::new()));
        // Aborted when dropped: they go on for as long as the judge plays.
        let mut beside = JoinSet::new();
        beside.spawn_local(show(judge.clone(), terminal.clone(), self.own.is_some()));
        if let Some((stack, _)) = &self.own {
            beside.spawn_local(kill_on_time(Rc::clone(stack), kills, judge.start, Rc::clone(&killed)));
        }
        let before = used()?;
        let end = Box::pin(judge.play()).await?;
        let used = used()?.iter().zip(&before).map(|(after, before)| after.since(before)).collect();
        drop(beside);
        terminal.say("the judge has counted; now the processors are healed and every payment is looked up");
        let posted = judge.tally.payments();
        let reckoning =
            Box::pin(Reckoning::make(&self.sides, &posted, judge.plan.amount, DRAIN_TIMEOUT)).await?;
        let exits = self.own.as_ref().map(|(stack, _)| stack.exits()).unwrap_or_default();
        let ended = exits.into_iter().map(ended).collect();
        let report = Report::new(&judge, &end, &reckoning, killed.take(), ended);
        Ok(Report { containers: used, profile: self.profile, ..report })
    }

    async fn leave(self, is_evidence: bool, terminal: &Terminal) {
        let Some((stack, run_dir)) = self.own else { return };
        // The tasks that shared it were dropped with the fight; if one is not yet, its children end with arena.
        if let Ok(stack) = Rc::try_unwrap(stack) {
            stack.stop(terminal).await;
        }
        if is_evidence {
            terminal.say(format!("what the processes wrote is kept in {}", run_dir.keep().display()));
        }
    }
}

async fn kill_on_time(stack: Rc<Stack>, kills: Vec<Kill>, start: Instant, killed: Rc<RefCell<Vec<Killed>>>) {
    for Kill { role, at } in kills {
        sleep_until(start + at).await;
        let at_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        killed.borrow_mut().push(Killed { role, name: stack.kill(role), at_ms });
    }
}

fn ended(exit: Exit) -> Ended {
    let how = match exit.outcome {
        Ok(status) => status.to_string(),
        Err(error) => error,
    };
    Ended { name: exit.name, how, is_planned: exit.is_planned }
}
