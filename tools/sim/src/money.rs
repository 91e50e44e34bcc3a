//! `sim money`: many seeds on all cores, in blocks that can be resumed; or one seed, told event by event.
//!
//! A block is [`BLOCK_SEEDS`] seeds. After each the state goes to the file of `--state`, so a long run that is stopped
//! goes on where it was. The first violation ends the run with its seed; a failed assertion of the store is one.

use crate::print;
use crate::simulation::{Cells, run, tell};
use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

/// Seeds between two writes of the state: some seconds of work.
const BLOCK_SEEDS: u64 = 5_000;

/// What to simulate.
#[derive(Clone, Debug, Args)]
pub struct MoneyArgs {
    /// How many seeds
    #[arg(long, default_value_t = 10_000)]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Where the run is kept, so that it can be stopped and goes on where it was
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Tell this one seed event by event instead
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first", "state"])]
    pub tell: Option<u64>,
}

/// How far a run is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    next_seed: u64,
    seeds: u64,
    payments: u64,
    faults: u64,
    steps: u64,
    simulated_us: u64,
    busy_s: f64,
    cells: Cells,
}

impl State {
    fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.payments += other.payments;
        self.faults += other.faults;
        self.steps += other.steps;
        self.simulated_us += other.simulated_us;
        self.cells.add(&other.cells);
    }

    fn load(path: &Path, first: u64) -> anyhow::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is no state of a run; name another file", path.display())),
            Err(_) => Ok(Self { next_seed: first, ..Self::default() }),
        }
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let unfinished = path.with_extension("tmp");
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
    }
}

thread_local!(static SEED: Cell<u64> = const { Cell::new(0) });

/// Carries the command out.
///
/// # Errors
/// When the state cannot be read or written.
pub fn money(args: &MoneyArgs) -> anyhow::Result<ExitCode> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let seed = SEED.get();
        let text = format!("seed {seed} fails an assertion; see it with: sim money --tell {seed}");
        wire::stderr::say(&text);
        hook(panic);
    }));
    if let Some(seed) = args.tell {
        SEED.set(seed);
        let verdict = tell(seed, |us, text| {
            print(format_args!("{:>5}.{:06} {text}\n", us / 1_000_000, us % 1_000_000));
        });
        print(format_args!("{}\n", verdict.violation.as_deref().unwrap_or("nothing is wrong")));
        return Ok(if verdict.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::from(3) });
    }
    let mut state = match &args.state {
        Some(path) => State::load(path, args.first)?,
        None => State { next_seed: args.first, ..State::default() },
    };
    run_blocks(args, &mut state)
}

fn run_blocks(args: &MoneyArgs, state: &mut State) -> anyhow::Result<ExitCode> {
    let end = args.first + args.seeds;
    let bar = ProgressBar::new(args.seeds).with_position(state.next_seed.saturating_sub(args.first));
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {per_sec}, {eta} left")?);
    while state.next_seed < end {
        let started = Instant::now();
        let block = state.next_seed..(state.next_seed + BLOCK_SEEDS).min(end);
        match run_block(&block, &bar) {
            Ok(done) => state.add(&done),
            Err(violation) => {
                bar.abandon();
                print(format_args!("{violation}\n"));
                return Ok(ExitCode::from(3));
            }
        }
        state.next_seed = block.end;
        state.busy_s += started.elapsed().as_secs_f64();
        if let Some(path) = &args.state {
            state.save(path)?;
        }
    }
    bar.finish_and_clear();
    let simulated_hours = state.simulated_us / 3_600_000_000;
    print(format_args!(
        "{} seeds, 0 violations: {} payments, {} faults, {} events in {simulated_hours} simulated hours and {:.0} real \
         seconds\n{} cells reached\n{}\n",
        state.seeds,
        state.payments,
        state.faults,
        state.steps,
        state.busy_s,
        state.cells.reached(),
        state.cells
    ));
    Ok(ExitCode::SUCCESS)
}

/// Splits a block over the cores.
fn run_block(seeds: &std::ops::Range<u64>, bar: &ProgressBar) -> Result<State, String> {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| scope.spawn(move || run_part(seeds.clone().skip(part).step_by(threads), bar)))
            .collect();
        let mut state = State::default();
        for part in parts {
            state.add(&part.join().map_err(|_| "an assertion failed".to_owned())??);
        }
        Ok(state)
    })
}

fn run_part(seeds: impl Iterator<Item = u64>, bar: &ProgressBar) -> Result<State, String> {
    let mut state = State::default();
    for seed in seeds {
        SEED.set(seed);
        let verdict = run(seed);
        if let Some(violation) = verdict.violation {
            return Err(format!(
                "seed {seed} after {} events: {violation}\nsee it with: sim money --tell {seed}",
                verdict.steps
            ));
        }
        state.add(&State {
            seeds: 1,
            payments: verdict.payments,
            faults: verdict.faults,
            steps: verdict.steps,
            simulated_us: verdict.simulated_us,
            cells: verdict.cells,
            ..State::default()
        });
        bar.inc(1);
    }
    Ok(state)
}
