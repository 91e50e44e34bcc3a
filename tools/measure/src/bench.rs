//! How fast and how small it is, each figure beside what another program does with the same work.
//!
//! Machines differ and drift, so everything that is compared is measured in turn, in one session, and told as a ratio;
//! see `comparison`. No figure is asserted anywhere: a table is for people, and the program that printed it is how to
//! get it again. What is compared with and not installed is said and left out; `scripts/install-bench-tools` installs it.
//!
//! The measurements run on a thread of their own, which starts the children and is blocked for as long as a measurement
//! takes; the thread of the program waits for a signal meanwhile, so that Ctrl-C still removes the folder of the run.
//!
//! Reading order
//! * what is measured: [`preview`], [`lb`], [`stack`], [`stalls`], [`store`];
//! * with what: [`settled_log`], [`fixed_server`], [`fixed_balancer`], [`load`], [`proxy`], [`redis`], [`store_process`],
//!   [`process`];
//! * and what comes of it: [`usage`], [`comparison`], [`machine`], [`plot`].

pub mod comparison;
pub mod env;
pub mod fixed_balancer;
pub mod fixed_server;
pub mod lb;
pub mod load;
pub mod machine;
pub mod plot;
pub mod preview;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod settled_log;
pub mod stack;
pub mod stalls;
pub mod store;
pub mod store_process;
pub mod usage;

use anyhow::Context;
use arena::binaries::Binaries;
use arena::checkout::CargoVariables;
use arena::run_dir::RunDir;
use arena::signals::{EXIT_INTERRUPTED, Signals};
use arena::terminal::{self, Terminal};
use comparison::Comparison;
use env::BenchEnv;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use tokio::sync::oneshot;

/// How something is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct How {
    /// How often everything is measured; the table shows medians and ranges
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub turns: u32,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Folder for everything that is written on the way; without it a fresh one, removed at the end
    #[arg(long, env = "ARENA_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Folder of the executables store, api, lb and arena; without it they are built in a checkout, or lie beside measure
    #[arg(long, env = "ARENA_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    #[command(flatten)]
    /// What cargo says.
    pub cargo: CargoVariables,
}

/// What one measurement takes, and how it is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Of<A: clap::Args> {
    /// What it takes.
    #[command(flatten)]
    pub args: A,
    /// How it is measured.
    #[command(flatten)]
    pub how: How,
}

/// What can be measured.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Measurement {
    /// What the judge's users see of a server that gives a fixed answer
    Floor(Of<preview::FloorArgs>),
    /// What the judge's users see of our stack, beside the floor
    Preview(Of<preview::PreviewArgs>),
    /// lb beside nginx and haproxy: cost, added latency, throughput
    Lb(Of<lb::LbArgs>),
    /// The whole stack from one client to more than it can take
    Stack(Of<stack::StackBenchArgs>),
    /// What a stalled processor, api or client costs the others
    Stalls(Of<stalls::StallsArgs>),
    /// The store beside Redis: payments a second, cost of each
    Store(Of<store::StoreArgs>),
    /// Give a fixed answer until killed: the floor, and the backend of balancers
    #[command(hide = true)]
    FixedServer(fixed_server::FixedServerArgs),
    /// Pass clients on to such servers until killed: the least of all balancers
    #[command(hide = true)]
    FixedBalancer(fixed_balancer::FixedBalancerArgs),
}

/// Measures and prints what was found.
///
/// # Errors
/// When something does not start or answer, or the JSON cannot be written.
pub async fn bench(measurement: Measurement, envs: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    let how = match &measurement {
        Measurement::FixedServer(args) => return fixed_server::serve(args).map(|()| ExitCode::SUCCESS),
        Measurement::FixedBalancer(args) => return fixed_balancer::balance(args).map(|()| ExitCode::SUCCESS),
        Measurement::Floor(of) => &of.how,
        Measurement::Preview(of) => &of.how,
        Measurement::Lb(of) => &of.how,
        Measurement::Stack(of) => &of.how,
        Measurement::Stalls(of) => &of.how,
        Measurement::Store(of) => &of.how,
    };
    let how = how.clone();
    let mut signals = Signals::handle()?;
    let binaries = Binaries::find(how.bin_dir.as_deref(), how.cargo.checkout().as_ref()).await?;
    let run_dir = RunDir::new(how.run_dir.as_deref())?;
    wire::socket::raise_descriptor_limit();
    let (dir, terminal) = (run_dir.path().to_owned(), Terminal::default());
    let build = format!("build: {}", binaries.profile().unwrap_or("not by cargo"));
    let env = BenchEnv { binaries, dir, turns: how.turns, envs, terminal };
    let (measured_tx, measured) = oneshot::channel();
    thread::Builder::new().name("measure".into()).spawn(move || {
        // After a signal nothing waits for it any more.
        let _ = measured_tx.send(measurement.measure(&env));
    })?;
    let mut comparisons = tokio::select! {
        comparisons = measured => comparisons.context("the measurement broke off")??,
        // On a signal the measurement is left as it is; its processes end with us.
        () = signals.received() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
    };
    comparisons.iter_mut().for_each(|comparison| comparison.notes.push(build.clone()));
    if let Some(path) = &how.json {
        write_json(&comparisons, path)?;
    }
    for comparison in &comparisons {
        terminal::print(format_args!("{comparison}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(comparisons: &[Comparison], path: &Path) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(comparisons).context("the figures as JSON")?;
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

impl Measurement {
    fn measure(&self, env: &BenchEnv) -> anyhow::Result<Vec<Comparison>> {
        match self {
            Self::Floor(of) => preview::floor(of.args, env),
            Self::Preview(of) => preview::preview(&of.args, env),
            Self::Lb(of) => lb::lb(&of.args, env),
            Self::Stack(of) => stack::stack(&of.args, env),
            Self::Stalls(of) => stalls::stalls(&of.args, env),
            Self::Store(of) => store::store(of.args, env),
            Self::FixedServer(_) | Self::FixedBalancer(_) => unreachable!("they measure nothing"),
        }
    }
}
