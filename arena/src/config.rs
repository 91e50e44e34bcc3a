//! The command line and the environment, and nothing else reads either.
//!
//! Every flag that a deployment may want to set has a variable too. What cargo tells the programs that it runs is read
//! as two hidden flags ([`StackArgs::checkout`]). The children of a stack get flags of their own, made in `stack`, and
//! arena's variables as they are, so that a setting of theirs that arena does not know can still be made from outside.
//!
//! The exit statuses of a fight are part of the help, because scripts depend on them.

use crate::bench::BenchArgs;
use crate::chaos::ChaosArgs;
use crate::endpoint::Url;
use crate::lab::LabArgs;
use crate::limits::Split;
use crate::plan::Choice;
use crate::processor::ProcessorsArgs;
use crate::profile::ProfileArgs;
use crate::simulate::SimulateArgs;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use wire::trace::LogFlags;

const EXIT_CODES: &str = "\
Exit status of a fight:
  0    every accepted payment is settled once, the sums agree, no audit differed, and the lag is 0
  1    arena could not do what it was asked
  2    the command line is wrong
  3    money: a payment was lost, doubled, invented or altered, or the sums at the end differ
  4    an audit differed, or the lag is not 0
  130  stopped by a signal";

const CHAOS_EXIT_CODES: &str = "\
Exit status:
  0    nothing was lost, doubled, invented or altered, and the sums agree on all sides
  1    arena could not do what it was asked
  2    the command line is wrong
  3    money: a payment is other than it should be, the sums differ, the system did not come to rest, or a process failed
  4    a summary came late while nothing was stopped, or was neither 200 nor 503
  130  stopped by a signal";

const HOSTILE_EXIT_CODES: &str = "\
Exit status:
  0    no process ended and every other client got its answer
  1    arena could not do what it was asked
  2    the command line is wrong
  3    a process ended, or another client did not get its answer
  130  stopped by a signal";

/// Starts Espora, plays the processors and the judge, and measures.
#[derive(Clone, Debug, Parser)]
#[command(name = "arena", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How arena and its children log.
    #[command(flatten)]
    pub log: LogFlags,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Play the payment processors of the competition
    Processors(ProcessorsArgs),
    /// Start everything on this machine and keep it running until Ctrl-C
    Up(Box<UpArgs>),
    /// Play the judge and print the score
    #[command(after_help = EXIT_CODES)]
    Fight(Box<FightArgs>),
    /// Kill, stop and break everything under load, and compare what all sides know
    #[command(after_help = CHAOS_EXIT_CODES)]
    Chaos(Box<ChaosArgs>),
    /// Let clients hold all the bytes that they can make every process hold, beside others that pay
    #[command(after_help = HOSTILE_EXIT_CODES)]
    Hostile(Box<HostileArgs>),
    /// Record every process under load with perf: flame graphs, tables, what a payment costs
    Profile(Box<ProfileArgs>),
    /// Live through many seeds of the simulated system, or tell one event by event
    Simulate(SimulateArgs),
    /// Measure, beside what others do with the same work
    Bench(Box<BenchArgs>),
    /// Judge the router over many random plans in simulated time
    Lab(LabArgs),
}

/// What a local stack is made of.
#[derive(Clone, Debug, Args)]
pub struct StackArgs {
    /// Port of the balancer on 127.0.0.1; 0 takes a free one
    #[arg(long, env = "ARENA_PORT", default_value_t = 9999)]
    pub port: u16,
    /// How many apis
    #[arg(long, env = "ARENA_APIS", value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub apis: u8,
    /// How the balancer passes clients on, as lb's --mode has it
    #[arg(long, env = "ARENA_MODE", value_name = "MODE", default_value = "hand-off")]
    pub mode: String,
    /// What a 2xx promises to survive
    #[arg(long, env = "ARENA_DURABILITY", value_enum, default_value_t = Durability::Process)]
    pub durability: Durability,
    /// Folder for sockets, the store's log and the children's output; without it a fresh one, removed at the end
    #[arg(long, env = "ARENA_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Folder of the executables store, api and lb; without it they are built in a checkout, or lie beside arena
    #[arg(long, env = "ARENA_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Show what the children write
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    cargo: CargoVariables,
}

/// What cargo tells a program that it runs.
#[derive(Clone, Debug, Args)]
pub struct CargoVariables {
    #[arg(long, env = "CARGO", hide = true)]
    cargo: Option<PathBuf>,
    #[arg(long, env = "CARGO_MANIFEST_DIR", hide = true)]
    cargo_manifest_dir: Option<PathBuf>,
}

/// A checkout of the workspace, and the cargo that runs arena in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The cargo to build with.
    pub cargo: PathBuf,
    /// The folder of the workspace.
    pub workspace: PathBuf,
}

impl StackArgs {
    /// The checkout that arena was started in through cargo, if it was.
    #[must_use]
    pub fn checkout(&self) -> Option<Checkout> {
        self.cargo.checkout()
    }
}

impl CargoVariables {
    /// The checkout that arena was started in through cargo, if it was.
    #[must_use]
    pub fn checkout(&self) -> Option<Checkout> {
        let workspace = self.cargo_manifest_dir.as_ref()?.parent()?.to_owned();
        let is_ours =
            ["store", "api", "lb"].iter().all(|name| workspace.join(name).join("Cargo.toml").is_file());
        is_ours.then_some(Checkout { cargo: self.cargo.clone()?, workspace })
    }
}

/// How much a 2xx promises, as the store's `--durability` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Survives the death of any process
    Process,
    /// Survives the loss of power as well
    Always,
    /// Survives nothing; only to measure what the others cost
    None,
}

impl Durability {
    /// The word on the store's command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Always => "always",
            Self::None => "none",
        }
    }
}

/// Flags of `arena up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    /// What to start.
    pub stack: StackArgs,
    /// Port of the default processor on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8001)]
    pub port_default: u16,
    /// Port of the fallback processor on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8002)]
    pub port_fallback: u16,
    /// What the default processor keeps of a payment, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub fee_default: f64,
    /// What the fallback processor keeps of a payment, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 15.0)]
    pub fee_fallback: f64,
    /// How long a payment may be in flight before an audit can miss it
    #[arg(long, value_name = "MS", default_value_t = 1_500)]
    pub audit_margin_ms: u64,
}

/// Flags of `arena hostile`.
#[derive(Clone, Debug, Args)]
pub struct HostileArgs {
    #[command(flatten)]
    /// What to start.
    pub stack: StackArgs,
    /// Give each process of the stack its share of 1.5 CPU and 350 MB, as docker-compose.yml does, through control groups
    #[arg(long)]
    pub limits: bool,
    /// What the shares are.
    #[command(flatten)]
    pub split: Split,
    /// Clients that hold all they can; each takes a descriptor here
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub clients: u16,
    /// Clients that pay over a connection that they keep, and as many that pay over new ones
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub others: u16,
    /// How long it lasts
    #[arg(long = "for", value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    pub for_s: u16,
}

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

/// The processes of a stack that can be killed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The store.
    Store,
    /// One of the apis, in turn.
    Api,
    /// The balancer.
    Lb,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn fight(flags: &[&str]) -> Result<FightArgs, clap::Error> {
        let arguments = Arguments::try_parse_from([&["arena", "fight"], flags].concat())?;
        let Command::Fight(fight) = arguments.command else { panic!("a fight was asked for") };
        Ok(*fight)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_fight_names_its_plan_and_starts_its_own_stack() {
        let args = fight(&["preview"]).unwrap();
        assert_eq!((args.plan, args.target, args.stack.port), (Choice::Preview, None, 9999));
        assert!(fight(&[]).is_err());
    }

    #[test]
    fn kills_are_sorted_and_need_a_stack_of_ones_own() {
        let flags = ["preview", "--kill-lb-at", "7.5", "--kill-store-at", "20", "--kill-store-at", "3"];
        let kills = fight(&flags).unwrap().kills().unwrap();
        let seen: Vec<(Role, u128)> = kills.iter().map(|kill| (kill.role, kill.at.as_millis())).collect();
        assert_eq!(seen, [(Role::Store, 3_000), (Role::Lb, 7_500), (Role::Store, 20_000)]);
        assert!(fight(&["preview", "--kill-store-at=-1"]).unwrap().kills().is_err());
        assert!(fight(&["preview", "--target", "http://h:1", "--kill-store-at", "3"]).is_err());
    }

    #[test]
    fn processors_are_named_together_with_the_target_only() {
        assert!(fight(&["final", "--processor-default", "http://h:1"]).is_err());
        let args = fight(&["final", "--target", "http://h:1", "--processor-default", "http://h:2"]).unwrap();
        assert_eq!(args.processor_default.to_string(), "http://h:2");
        assert_eq!(args.processor_fallback.to_string(), "http://localhost:8002");
    }

    #[test]
    fn a_checkout_is_one_only_with_its_members() {
        let mut args = fight(&["preview"]).unwrap().stack;
        args.cargo =
            CargoVariables { cargo: Some("cargo".into()), cargo_manifest_dir: Some("/nowhere/arena".into()) };
        assert_eq!(args.checkout(), None);
        let manifest_dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        args.cargo.cargo_manifest_dir = Some(manifest_dir.clone());
        let workspace = manifest_dir.parent().unwrap().to_owned();
        assert_eq!(args.checkout(), Some(Checkout { cargo: "cargo".into(), workspace }));
    }
}
