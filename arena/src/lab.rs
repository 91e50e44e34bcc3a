//! `arena lab`: judges the router over many random plans in simulated time.
//!
//! Each seed is a plan ([`draw`]); the store's core as shipped lives through it ([`world`]) before two processors
//! ([`processor`]), and what it settled is held against the clairvoyant ([`verdict`]). Seeds are spread over the cores.
//! With `preview` or `final` the competition's own plans are lived through instead, for comparison with a real fight.

pub mod draw;
pub mod processor;
pub mod summary;
pub mod verdict;
pub mod world;

use crate::plan::{Choice, Plan};
use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;
use summary::Summary;
use verdict::Verdict;
use wire::PerProcessor;

/// What to judge.
#[derive(Clone, Debug, Args)]
pub struct LabArgs {
    /// preview, final or a JSON file instead of random plans
    #[arg(value_name = "PLAN", default_value = "random")]
    pub plan: Choice,
    /// How many seeds
    #[arg(long, default_value_t = 1_000)]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Fees of default and fallback in percent, such as 5/15; without it, those of each plan
    #[arg(long, value_name = "DEFAULT/FALLBACK", value_parser = fees)]
    pub fees: Option<PerProcessor<f64>>,
    /// Write every verdict to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Tell this one seed instead: its stages, what the router believed, the audits that differed
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first", "json"])]
    pub tell: Option<u64>,
}

fn fees(text: &str) -> Result<PerProcessor<f64>, String> {
    let percent = |text: &str| text.parse().ok().filter(|fee| (0.0..100.0).contains(fee));
    text.split_once('/')
        .and_then(|(default, fallback)| Some(PerProcessor([percent(default)?, percent(fallback)?])))
        .ok_or_else(|| "give two percentages from 0 to below 100, such as 5/15".to_owned())
}

/// Carries the command out.
///
/// # Errors
/// When the plan cannot be read or a file not be written.
pub fn lab(args: &LabArgs) -> anyhow::Result<ExitCode> {
    if let Some(seed) = args.tell {
        return tell(args, seed);
    }
    let started = Instant::now();
    let verdicts = match args.plan {
        Choice::Random => judge_all(args)?,
        _ => {
            let plan = args.plan_of(0)?;
            (args.first..args.first + args.seeds.min(10)).map(|seed| judge(seed, &plan)).collect()
        }
    };
    print!("{}", Summary::new(&verdicts));
    println!("{:.0} real seconds", started.elapsed().as_secs_f64());
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(&verdicts)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl LabArgs {
    fn plan_of(&self, seed: u64) -> anyhow::Result<Plan> {
        let mut plan = self.plan.plan(seed)?;
        plan.fee_percent = self.fees.unwrap_or(plan.fee_percent);
        Ok(plan)
    }
}

fn judge(seed: u64, plan: &Plan) -> Verdict {
    verdict::judge(seed, plan, &world::live(plan, seed, false))
}

fn tell(args: &LabArgs, seed: u64) -> anyhow::Result<ExitCode> {
    let plan = args.plan_of(seed)?;
    println!("{}", serde_json::to_string(&plan)?);
    let lived = world::live(&plan, seed, true);
    for (us, text) in &lived.story {
        println!("{:>5}.{:06} {text}", us / 1_000_000, us % 1_000_000);
    }
    println!("{}", serde_json::to_string_pretty(&verdict::judge(seed, &plan, &lived))?);
    Ok(ExitCode::SUCCESS)
}

/// All seeds, on all cores.
fn judge_all(args: &LabArgs) -> anyhow::Result<Vec<Verdict>> {
    let bar = ProgressBar::new(args.seeds);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} plans, {per_sec}, {eta} left")?);
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = |part: usize| {
        let seeds = (args.first..args.first + args.seeds).skip(part).step_by(threads);
        let verdicts = seeds.map(|seed| {
            let verdict = judge(seed, &args.plan_of(seed)?);
            bar.inc(1);
            Ok(verdict)
        });
        verdicts.collect::<anyhow::Result<Vec<_>>>()
    };
    let mut verdicts = thread::scope(|scope| {
        let part = &part;
        let parts: Vec<_> = (0..threads).map(|number| scope.spawn(move || part(number))).collect();
        let joined =
            parts.into_iter().map(|part| part.join().map_err(|_| anyhow::anyhow!("an assertion failed"))?);
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?
    .concat();
    bar.finish_and_clear();
    verdicts.sort_by_key(|verdict| verdict.seed);
    Ok(verdicts)
}
