//! The flags of `arena chaos`, and what follows from them.

use super::schedule::Settings;
use crate::stack::StackArgs;
use clap::Args;
use std::path::PathBuf;

/// The shortest round that has room for every fault.
const ROUND_S_MIN: u64 = 6;

/// Flags of `arena chaos`.
#[derive(Clone, Debug, Args)]
pub struct ChaosArgs {
    /// The seed of the first round; each round has the next one
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many times something is killed (SIGKILL), over the whole run
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub kills: u32,
    /// Payments begun in a second
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub rate: u32,
    /// For how long faults are injected, over the whole run; healing and comparing comes on top
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 24)]
    pub seconds: u64,
    /// How much of it is one round. Stops and late answers get as long as a quarter of it, up to 30 s and 35 s
    #[arg(long, value_name = "SECONDS", default_value_t = 12, value_parser = clap::value_parser!(u64).range(ROUND_S_MIN..=3_600))]
    pub round: u64,
    /// Where the run is kept, so that it can be ended and goes on where it was
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Write the numbers to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What to start.
    #[command(flatten)]
    pub stack: StackArgs,
}

impl ChaosArgs {
    pub(super) fn rounds(&self) -> u64 {
        (self.seconds / self.round).max(1)
    }

    pub(super) fn settings(&self, has_disk_faults: bool) -> Settings {
        let kills = u64::from(self.kills).div_ceil(self.rounds());
        let kills = u32::try_from(kills).expect("not more than all of them");
        Settings { round_ms: self.round * 1_000, kills, has_disk_faults }
    }
}
