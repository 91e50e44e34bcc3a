//! The flags of `measure profile`.

use arena::limits::Split;
use arena::stack::StackArgs;
use clap::Args;
use contest::choice::Choice;
use std::path::PathBuf;

/// Flags of `measure profile`.
#[derive(Clone, Debug, Args)]
pub struct ProfileArgs {
    /// How long samples are taken at a fixed rate, in seconds; a plan is played to its end
    #[arg(long = "for", value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub seconds: u16,
    /// Payments a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Let the judge play this plan (three times) in the place of a fixed rate: preview, final, random or a file
    #[arg(long, value_name = "PLAN", conflicts_with_all = ["rate", "seconds"])]
    pub plan: Option<Choice>,
    /// The seed of a random plan
    #[arg(long, value_name = "N", default_value_t = 0, requires = "plan")]
    pub seed: u64,
    /// Profile the containers of docker-compose.yml, inside its limits, beside simulated processors
    #[arg(long)]
    pub compose: bool,
    /// Give each process its share of 1.5 CPU and 350 MB, as docker-compose.yml does, through control groups
    #[arg(long, conflicts_with = "compose")]
    pub limits: bool,
    #[command(flatten)]
    /// What the shares are, with --limits or --compose.
    pub split: Split,
    /// Folder for what is recorded and drawn
    #[arg(long, value_name = "DIR", default_value = "target/profile")]
    pub out: PathBuf,
    #[command(flatten)]
    /// What to start.
    pub stack: StackArgs,
}

impl ProfileArgs {
    /// A file of one process.
    pub(super) fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.out.join(format!("{name}.{extension}"))
    }
}
