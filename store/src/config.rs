//! The store's settings: the only reader of its arguments and environment.
//!
//! Every flag has an environment variable; what is wrong is said with its name. `payments_max` follows from the memory
//! that the process may use, unless it is given.

use crate::core::CoreConfig;
use crate::core::router::{DISPATCH_PER_S, LATE_PATIENCE_MS, OPEN_MAX, RouterConfig};
use crate::log::Durability;
use std::fs;
use std::path::PathBuf;
use wire::frame::{Listing, Operation};
use wire::trace::LogFlags;
use wire::{PaymentId, PerProcessor, Processor};

/// Memory that one payment may take, in bytes, everything included (PERFORMANCE.md).
const PAYMENT_BYTES: u64 = 64;

/// Memory that the process needs besides payments: buffers, binary, the log's pages.
const BASE_BYTES: u64 = 24 << 20;

/// Payments remembered when nothing limits the memory.
const PAYMENTS_MAX_UNLIMITED: u64 = 8 << 20;

/// Eleven days: as good as for ever.
const PATIENCE_MS_MAX: u64 = 1_000_000_000;

/// Espora's store: holds every payment, decides which processor gets it, and remembers
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "store", version)]
pub struct Arguments {
    /// What to do; without one, serve
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of the server
    #[command(flatten)]
    pub config: Config,
    /// Settings of the log lines
    #[command(flatten)]
    pub log_flags: LogFlags,
}

/// What the binary does besides serving.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Exit with 0 if a store answers on its socket, else with 1
    Healthcheck,
    /// Read a log and say what is in it; exit with 1 if it is not sound
    Check {
        /// The log's folder (LOG_DIR)
        dir: PathBuf,
    },
    /// Write every record of a log, one a line, behind the payments of its snapshot; payments are numbered in the order of
    /// their accepts, from 0
    Dump {
        /// The log's folder (LOG_DIR)
        dir: PathBuf,
    },
    /// List payments of the running store that may need somebody, one a line
    List {
        /// Which
        #[arg(value_enum)]
        listing: ListingName,
    },
    /// Tell the running store what became of a payment that its processor will not tell about any more
    Resolve {
        /// The payment
        #[arg(value_parser = payment_id)]
        id: PaymentId,
        /// Look at the processor's own books first: this cannot be taken back
        #[arg(value_enum)]
        resolution: Resolution,
        /// Which processor charged it (default or fallback); only needed where both claim a dead letter
        #[arg(long, value_parser = processor)]
        by: Option<Processor>,
    },
    /// Let the running store send a dead letter again, to either processor
    Revive {
        /// The payment
        #[arg(value_parser = payment_id)]
        id: PaymentId,
    },
}

/// What can be listed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ListingName {
    /// Refused for good by both processors
    DeadLetters,
    /// With an attempt that has no answer
    InFlight,
    /// With evidence that contradicts itself
    Conflicts,
    /// Left behind by a purge
    Tombstones,
}

/// What an operator found out.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Resolution {
    /// The processor that it was sent to, or that claims a dead letter, has charged it
    Charged,
    /// No attempt of it charged it, or ever will
    NotCharged,
}

impl Command {
    /// What this command asks of a running store, if it asks anything.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        let listing = |name: &ListingName| match name {
            ListingName::DeadLetters => Listing::DeadLetters,
            ListingName::InFlight => Listing::InFlight,
            ListingName::Conflicts => Listing::Conflicts,
            ListingName::Tombstones => Listing::Tombstones,
        };
        match self {
            Self::Healthcheck | Self::Check { .. } | Self::Dump { .. } => None,
            Self::List { listing: name } => Some(Operation::List { listing: listing(name), from: 0 }),
            Self::Resolve { id, resolution: Resolution::Charged, by } => {
                Some(Operation::Charged { id: *id, by: *by })
            }
            Self::Resolve { id, resolution: Resolution::NotCharged, .. } => Some(Operation::NotCharged(*id)),
            Self::Revive { id } => Some(Operation::Revive(*id)),
        }
    }
}

fn payment_id(text: &str) -> Result<PaymentId, String> {
    PaymentId::parse(text).ok_or_else(|| "give the payment's correlationId, a UUID with hyphens".to_owned())
}

fn processor(text: &str) -> Result<Processor, String> {
    let named = Processor::BOTH.into_iter().find(|processor| processor.name() == text);
    named.ok_or_else(|| "give default or fallback".to_owned())
}

/// Settings of the server.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Folder of the Unix sockets, the same for all processes
    #[arg(long, env = "SOCKET_DIR", default_value = "/run/espora", global = true)]
    pub socket_dir: PathBuf,
    /// Folder of the write-ahead log; on a disk, not on tmpfs
    #[arg(long, env = "LOG_DIR", default_value = "/var/lib/espora")]
    pub log_dir: PathBuf,
    /// What must have happened to a record before anything that rests on it leaves the process
    #[arg(long, env = "DURABILITY", value_enum, default_value_t = Durability::Always)]
    pub durability: Durability,
    /// Log written, beside as much as the last snapshot takes, before a new snapshot makes it short again, in KiB
    #[arg(long, env = "SNAPSHOT_LOG_KIB", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    pub snapshot_log_kib: u64,
    /// Payments remembered between two purges; at this bound the answer is 503 [default: the container's memory limit less
    /// 24 MiB, divided by 64 bytes, at least 1024 and at most 8388608, which is also the value without a limit]
    #[arg(long, env = "PAYMENTS_MAX")]
    pub payments_max: Option<u64>,
    /// Fee of the default processor, in percent
    #[arg(long, env = "FEE_DEFAULT", default_value_t = 5.0, value_parser = percent)]
    pub fee_default: f64,
    /// Fee of the fallback processor, in percent
    #[arg(long, env = "FEE_FALLBACK", default_value_t = 15.0, value_parser = percent)]
    pub fee_fallback: f64,
    /// Within this time of its requestedAt a payment should be charged and counted, in milliseconds, 200 to
    /// 3600000
    #[arg(long, env = "AUDIT_MARGIN_MS", default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(200..=3_600_000))]
    pub audit_margin_ms: u64,
    /// How long payments that are more than is worth holding wait for the cheaper processor before the dearer one gets
    /// them, in milliseconds [default: from the fees; 3529 for 5 and 15, 1000 for 7 and 10, 19000 for 2 and 40]
    #[arg(long, env = "PATIENCE_MS", value_parser = clap::value_parser!(u64).range(..=PATIENCE_MS_MAX))]
    pub patience_ms: Option<u64>,
    /// How long processors must not have answered within the audit margin before payments are sent to one that answers
    /// later, in milliseconds; longer while nobody has compared the books at regular times; a large value if no payment but
    /// a canary may be late
    #[arg(long, env = "LATE_PATIENCE_MS", default_value_t = LATE_PATIENCE_MS, value_parser = clap::value_parser!(u64).range(..=PATIENCE_MS_MAX))]
    pub late_patience_ms: u64,
    /// Payments handed out a second while clients are being answered, 1 to 1000000
    #[arg(long, env = "DISPATCH_PER_S", default_value_t = DISPATCH_PER_S, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub dispatch_per_s: u32,
    /// Calls open at one processor at a time, 1 to 768
    #[arg(long, env = "OPEN_MAX", default_value_t = OPEN_MAX as u16, value_parser = clap::value_parser!(u16).range(1..=OPEN_MAX as i64))]
    pub open_max: u16,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fee) if (0.0..100.0).contains(&fee) => Ok(fee),
        _ => Err("give a percentage from 0 to below 100, such as 5 or 7.5".to_owned()),
    }
}

impl Config {
    /// The settings of the core. `index_key` is drawn by the caller: the core knows no chance.
    #[must_use]
    pub fn core(&self, index_key: [u64; 2]) -> CoreConfig {
        let payments_max = self.payments_max.unwrap_or_else(payments_max_by_memory);
        let fee_percent = PerProcessor([self.fee_default, self.fee_fallback]);
        let reasoned = RouterConfig::for_fees(fee_percent, self.audit_margin_ms);
        CoreConfig {
            payments_max: usize::try_from(payments_max).unwrap_or(usize::MAX),
            index_key,
            router: RouterConfig {
                patience_ms: self.patience_ms.unwrap_or(reasoned.patience_ms),
                late_patience_ms: self.late_patience_ms,
                dispatch_per_s: self.dispatch_per_s,
                open_max: usize::from(self.open_max),
                ..reasoned
            },
        }
    }
}

fn payments_max_by_memory() -> u64 {
    memory_limit().map_or(PAYMENTS_MAX_UNLIMITED, |limit| {
        (limit.saturating_sub(BASE_BYTES) / PAYMENT_BYTES).clamp(1_024, PAYMENTS_MAX_UNLIMITED)
    })
}

/// The memory limit of this control group, version 2 or 1, in bytes.
fn memory_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        // Version 1 says "no limit" with a number that no machine has.
        .filter(|limit| *limit < 1 << 50)
}
