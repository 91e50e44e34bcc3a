//! `measure profile`: what each process does under load, recorded by perf: flame graphs, tables, and what a payment
//! costs.
//!
//! ```text
//!   build with frame pointers --> start --> load: counted --> load: sampled --> load: system calls --> pictures
//!                                           nothing attached   perf record       perf stat or strace
//! ```
//!
//! The same load is put on three times, because looking is not free: CPU time and switches are read from the kernel
//! while nothing is attached, then stacks are sampled, then system calls are counted. What each process leaves in the
//! folder of the output is `NAME.perf.data`, `NAME.folded` and `NAME.svg`; the report is printed and written beside
//! them.
//!
//! The executables are static as in the images, so that the same ones run here and, mounted over those of the images,
//! in the containers of `--compose` (`docker-compose.profiling.yml`), inside the entry's own limits. perf always runs
//! here: an engine's containers are processes of this machine, and inside of one perf is forbidden.

pub mod args;
pub mod counts;
pub mod env;
pub mod load;
pub mod perf;
pub mod report;
pub mod stacks;

use anyhow::{Context, bail};
use arena::binaries::Binaries;
use arena::signals::{EXIT_INTERRUPTED, Signals};
use arena::terminal::{self, Terminal};
use args::ProfileArgs;
use contest::plan::Plan;
use counts::Counts;
use env::{ProfileEnv, Target};
use load::{ProfileLoad, Work};
use perf::{Perf, Symbols};
use report::{Profile, Report};
use stacks::Stacks;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

/// At a fixed rate, how long the system gets to warm up before anything is counted.
const WARM_UP: Duration = Duration::from_secs(2);

/// And how long counts are taken, and system calls counted: enough for thousands of payments, short for strace.
const COUNT_FOR: Duration = Duration::from_secs(5);

/// Builds, starts, loads, looks, draws and reports.
///
/// # Errors
/// When perf is missing or may not look, something does not build, start or answer, or a process ends meanwhile.
pub async fn profile(args: ProfileArgs, envs: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::handle()?;
    let perf = Perf::find().await?;
    let plan = args.plan.as_ref().map(|choice| choice.plan(args.seed)).transpose()?;
    let load = plan.clone().map_or(ProfileLoad::Rate(args.rate), |plan| ProfileLoad::Plan(Box::new(plan)));
    wire::socket::raise_descriptor_limit();
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let terminal = Terminal::default();
    let binaries = match (&args.stack.bin_dir, args.stack.checkout()) {
        (Some(dir), _) => Binaries::find(Some(dir), None).await?,
        (None, Some(checkout)) => {
            terminal.say("building with frame pointers and all symbols; the first time takes some minutes");
            Binaries::with_frames(&checkout).await?
        }
        (None, None) => bail!(
            "there is nothing to build here: run cargo measure profile in a checkout, or name a folder of executables with \
             frame pointers by --bin-dir"
        ),
    };
    let plan = plan.unwrap_or_else(Plan::preview);
    let mut env = ProfileEnv::new(&args, &plan, binaries)?;
    let looked = tokio::select! {
        looked = Box::pin(look(&mut env, &args, &plan, &load, &perf, envs, &terminal)) => Some(looked),
        () = signals.received() => None,
    };
    let symbols = env.symbols();
    env.leave(&terminal).await?;
    let Some(looked) = looked.transpose()? else {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    };
    terminal.say("drawing");
    let report = tokio::select! {
        report = Box::pin(draw(looked, &args, &load, &perf, &symbols)) => report?,
        () = signals.received() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
    };
    let text = report.to_string();
    fs::write(args.out.join("report.md"), &text).context("cannot write the report")?;
    terminal::print(format_args!(
        "{text}\nIn {}: report.md, and of each process NAME.svg, NAME.folded, NAME.perf.data\n",
        args.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// What was seen, before anything is made of it.
struct Looked {
    targets: Vec<Target>,
    used: Vec<Counts>,
    counted: Work,
    recorded: Work,
    called: Option<Work>,
}

/// Starts everything and looks three times.
async fn look(
    env: &mut ProfileEnv,
    args: &ProfileArgs,
    plan: &Plan,
    load: &ProfileLoad,
    perf: &Perf,
    envs: Vec<(String, String)>,
    terminal: &Terminal,
) -> anyhow::Result<Looked> {
    let sides = env.start(args, plan, envs, terminal).await?;
    let targets = env.targets()?;
    if let ProfileLoad::Rate(_) = load {
        load.put(&sides, WARM_UP).await?;
    }

    terminal.say(format!("counting under {}", load.name()));
    let before = count(&targets)?;
    let counted = load.put(&sides, COUNT_FOR).await?;
    let used = count(&targets)?.into_iter().zip(before).map(|(after, before)| after - before).collect();

    terminal.say("sampling");
    let mut attached = Vec::new();
    for target in &targets {
        attached.push(perf.record(target.pid, &args.file(&target.name, "perf.data")).await?);
    }
    let recorded = load.put(&sides, Duration::from_secs(args.seconds.into())).await?;
    for recorder in attached {
        recorder.end().await?;
    }

    let mut called = None;
    if perf.calls.is_some() {
        terminal.say("counting system calls");
        let mut attached = Vec::new();
        for target in &targets {
            attached.push(perf.count_calls(target.pid, &args.file(&target.name, "calls")).await?);
        }
        called = Some(load.put(&sides, COUNT_FOR).await?);
        for counter in attached {
            counter.end().await?;
        }
    }
    // One that was started again is another process.
    count(&targets).context("a process ended while it was profiled")?;
    Ok(Looked { targets, used, counted, recorded, called })
}

/// Makes pictures and tables of it. The processes have ended by then: while one lives in a container, perf looks for its
/// symbols in there, whatever it was told.
async fn draw(
    looked: Looked,
    args: &ProfileArgs,
    load: &ProfileLoad,
    perf: &Perf,
    symbols: &Symbols,
) -> anyhow::Result<Report> {
    let Looked { targets, used, counted, recorded, called } = looked;
    let mut profiles = Vec::new();
    for (target, used) in targets.iter().zip(used) {
        let stacks = Stacks::fold(&perf.script(&args.file(&target.name, "perf.data"), symbols).await?)?;
        let subtitle = format!("{} samples of {} under {}", stacks.samples(), perf.event, load.name());
        fs::write(args.file(&target.name, "folded"), stacks.folded())?;
        match stacks.flame_graph(&target.name, &subtitle)? {
            Some(picture) => fs::write(args.file(&target.name, "svg"), picture)?,
            // Nor is one of a run before this one's.
            None => drop(fs::remove_file(args.file(&target.name, "svg"))),
        }
        let calls =
            called.is_some().then(|| perf.read_calls(&args.file(&target.name, "calls"))).transpose()?;
        profiles.push(Profile { name: target.name.clone(), used, stacks, calls });
    }
    let place = match (args.compose, args.limits) {
        (true, _) => "in containers, inside the limits of docker-compose.yml",
        (false, true) => "inside the limits of docker-compose.yml, no containers",
        (false, false) => "no containers, no limits",
    };
    let stack = format!("mode {}, {place}", args.stack.mode);
    let (sees_kernel, reservations) = (perf.sees_kernel, perf.reservations());
    Ok(Report { load: load.name(), stack, sees_kernel, reservations, counted, recorded, called, profiles })
}

fn count(targets: &[Target]) -> anyhow::Result<Vec<Counts>> {
    targets.iter().map(|target| Counts::of_process(target.pid)).collect()
}
