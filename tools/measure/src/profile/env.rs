//! What is profiled: a stack of this machine's own processes, or the containers of the entry.

use super::args::ProfileArgs;
use super::perf::Symbols;
use anyhow::Context;
use arena::binaries::Binaries;
use arena::containers::Containers;
use arena::endpoint::Endpoint;
use arena::fight::COMPOSE_URL;
use arena::judge::Sides;
use arena::limits::Limits;
use arena::run_dir::RunDir;
use arena::stack::{Stack, StackConfig, TOKEN};
use arena::terminal::Terminal;
use contest::plan::Plan;
use std::fs;
use std::path::PathBuf;
use store::core::router::DISPATCH_PER_S;
use wire::PerProcessor;

/// The compose file that mounts the executables with frame pointers, beside those of every fight.
const COMPOSE_FILE: &str = "docker-compose.profiling.yml";

/// The variable in it that names their folder.
const COMPOSE_FOLDER: &str = "PROFILING_DIR";

/// Where docker-compose.processors.yml publishes the processors.
const COMPOSE_PROCESSORS: [&str; 2] = ["http://localhost:8001", "http://localhost:8002"];

/// The store hands out [`DISPATCH_PER_S`] payments a second by itself, which keeps a drain from disturbing clients. At a
/// higher fixed rate that would be a queue that grows, so it may hand out this many times the rate.
const DISPATCH_PER_RATE: u32 = 2;

/// The variable of the store that says so.
const DISPATCH: &str = "DISPATCH_PER_S";

/// A process that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How it is called.
    pub name: String,
    /// Its process id here, also when it runs in a container.
    pub pid: i32,
}

/// What is started, and must be taken down.
pub enum ProfileEnv {
    /// Processes of our own.
    Here {
        /// What they run.
        binaries: Binaries,
        /// Where they live.
        run_dir: RunDir,
        /// The processes, once they are started.
        stack: Option<Stack>,
        /// The control groups that they are in; dropped after them.
        limits: Option<Limits>,
    },
    /// Containers.
    Containers {
        /// How they are reached.
        containers: Containers,
        /// The folder of what they run.
        binaries: PathBuf,
    },
}

impl ProfileEnv {
    /// Nothing started yet.
    pub fn new(args: &ProfileArgs, plan: &Plan, binaries: Binaries) -> anyhow::Result<Self> {
        if !args.compose {
            let limits = args.limits.then(|| Limits::make(&args.split, args.stack.apis)).transpose()?;
            let binaries = binaries.confined(limits.as_ref().map(Limits::entrances).unwrap_or_default());
            let run_dir = RunDir::new(args.stack.run_dir.as_deref())?;
            return Ok(Self::Here { binaries, run_dir, stack: None, limits });
        }
        let binaries = fs::canonicalize(binaries.dir()).context("the folder of the executables")?;
        let mut containers = Containers::of_plan(&args.stack, plan)?.with_file(COMPOSE_FILE);
        args.split.variables().into_iter().for_each(|(name, value)| containers.set(name, value));
        containers.set(COMPOSE_FOLDER, binaries.display().to_string());
        if let Some(dispatch) = dispatch_per_s(args) {
            containers.set(DISPATCH, dispatch);
        }
        Ok(Self::Containers { containers, binaries })
    }

    /// Starts everything and says where it is.
    pub async fn start(
        &mut self,
        args: &ProfileArgs,
        plan: &Plan,
        mut envs: Vec<(String, String)>,
        terminal: &Terminal,
    ) -> anyhow::Result<Sides> {
        match self {
            Self::Here { binaries, run_dir, stack, .. } => {
                envs.extend(dispatch_per_s(args).map(|dispatch| (DISPATCH.into(), dispatch)));
                let config = StackConfig {
                    fee_percent: plan.fee_percent,
                    audit_margin_ms: plan.audit.margin_ms,
                    ..StackConfig::new(&args.stack, binaries.clone(), run_dir.path(), envs)
                };
                let started = stack.insert(Stack::start(&config, terminal).await?);
                let theirs = PerProcessor(started.theirs.0.map(Endpoint::from));
                Ok(Sides { ours: started.ours.into(), theirs, token: config.token })
            }
            Self::Containers { containers, .. } => {
                containers.start().await?;
                let find = async |url: &str| anyhow::Ok(Endpoint::find(&url.parse()?).await?);
                let [default, fallback] = COMPOSE_PROCESSORS;
                let theirs = PerProcessor([find(default).await?, find(fallback).await?]);
                Ok(Sides { ours: find(COMPOSE_URL).await?, theirs, token: TOKEN.into() })
            }
        }
    }

    /// The processes of ours that run now.
    pub fn targets(&self) -> anyhow::Result<Vec<Target>> {
        match self {
            Self::Containers { containers, .. } => {
                let target = |(name, pid): &(String, i32)| Target { name: name.clone(), pid: *pid };
                Ok(containers.processes().iter().map(target).collect())
            }
            Self::Here { stack, .. } => {
                let places = stack.as_ref().context("nothing was started")?.places();
                let is_ours =
                    |name: &str| wire::Processor::BOTH.iter().all(|processor| processor.name() != name);
                let target = |place: arena::stack::Place| {
                    let pid = place.pid.with_context(|| format!("{} is not running", place.name))?;
                    Ok(Target { name: place.name, pid })
                };
                places.into_iter().filter(|place| is_ours(&place.name)).map(target).collect()
            }
        }
    }

    /// Where perf finds the symbols of what runs.
    pub fn symbols(&self) -> Symbols {
        match self {
            Self::Here { .. } => Symbols::Here,
            Self::Containers { binaries, .. } => Symbols::Below(binaries.clone()),
        }
    }

    /// Takes everything down.
    ///
    /// # Errors
    /// When containers cannot be removed.
    pub async fn leave(self, terminal: &Terminal) -> anyhow::Result<()> {
        match self {
            Self::Here { stack, .. } => {
                if let Some(stack) = stack {
                    stack.stop(terminal).await;
                }
                Ok(())
            }
            Self::Containers { containers, .. } => containers.stop().await,
        }
    }
}

/// What the store has to be told about its pace; nothing when a plan is played.
fn dispatch_per_s(args: &ProfileArgs) -> Option<String> {
    let per_s = args.rate.saturating_mul(DISPATCH_PER_RATE).max(DISPATCH_PER_S);
    args.plan.is_none().then(|| per_s.to_string())
}
