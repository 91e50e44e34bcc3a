//! `sim lab`: judges the router over many random plans in simulated time.
//!
//! Each seed is a plan ([`contest::draw`]); the store's core as shipped lives through it ([`scenario`]) before two processors
//! ([`processor`]), and what it settled is held against the clairvoyant ([`verdict`]). Seeds are spread over the cores.
//! With `preview` or `final` the competition's own plans are lived through instead, for comparison with a real fight; with
//! `day` random days, in which load is steady and no books are compared.

pub mod processor;
pub mod scenario;
pub mod summary;
pub mod verdict;

use crate::print;
use anyhow::Context;
use clap::Args;
use contest::choice::Choice;
use contest::plan::Plan;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;
use summary::Summary;
use verdict::PlanVerdict;
use wire::PerProcessor;

/// Random plans that are judged by default: about a minute on two cores.
const PLANS: u64 = 1_000;

/// The same for a plan that is named. Its seeds differ in what takes how long, and in nothing else.
const REPETITIONS: u64 = 10;

/// What to judge.
#[derive(Clone, Debug, Args)]
pub struct LabArgs {
    /// preview, final, day or a JSON file instead of random plans; a day has steady load, and no books are compared
    #[arg(value_name = "PLAN", default_value = "random")]
    pub plan: Choice,
    /// How many seeds; without it 1000 random plans, or 10 times the one that is named
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
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
    let verdicts = args.judge_all()?;
    print(Summary::new(&verdicts));
    print(format_args!("{:.0} real seconds\n", started.elapsed().as_secs_f64()));
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

    fn judge(&self, seed: u64) -> anyhow::Result<PlanVerdict> {
        let plan = self.plan_of(seed)?;
        Ok(verdict::judge(seed, &plan, &scenario::live(&plan, seed, false)))
    }

    /// All seeds, on all cores.
    fn judge_all(&self) -> anyhow::Result<Vec<PlanVerdict>> {
        let plans = if self.plan == Choice::Random { PLANS } else { REPETITIONS };
        let seeds = self.seeds.unwrap_or(plans);
        let bar = ProgressBar::new(seeds);
        bar.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} plans, {per_sec}, {eta} left")?);
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let part = |part: usize| {
            let seeds = (self.first..self.first + seeds).skip(part).step_by(threads);
            let judged = seeds.map(|seed| self.judge(seed).inspect(|_| bar.inc(1)));
            judged.collect::<anyhow::Result<Vec<_>>>()
        };
        let judged = thread::scope(|scope| {
            let part = &part;
            let parts: Vec<_> = (0..threads).map(|number| scope.spawn(move || part(number))).collect();
            let joined = parts
                .into_iter()
                .map(|part| part.join().unwrap_or_else(|_| Err(anyhow::anyhow!("an assertion failed"))));
            joined.collect::<anyhow::Result<Vec<_>>>()
        })?;
        bar.finish_and_clear();
        let mut verdicts = judged.concat();
        verdicts.sort_by_key(|verdict| verdict.seed);
        Ok(verdicts)
    }
}

/// One plan, event by event of those that a person wants to see.
fn tell(args: &LabArgs, seed: u64) -> anyhow::Result<ExitCode> {
    let plan = args.plan_of(seed)?;
    print(format_args!("{}\n", serde_json::to_string(&plan)?));
    let lived = scenario::live(&plan, seed, true);
    for (us, text) in &lived.story {
        print(format_args!("{:>5}.{:06} {text}\n", us / 1_000_000, us % 1_000_000));
    }
    print(format_args!("{}\n", verdict::judge(seed, &plan, &lived)));
    Ok(ExitCode::SUCCESS)
}
