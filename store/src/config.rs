//! The store's settings: the only reader of its arguments and environment.
//!
//! Every flag has an environment variable; what is wrong is said with its name. `payments_max` follows from the memory
//! that the process may use, unless it is given.

use crate::core::CoreConfig;
use crate::core::ledger::PAYMENTS_MOST;
use crate::core::router::{DISPATCH_PER_S, LATE_AFTER_MS, OPEN_MAX, RouterConfig};
use crate::log::Durability;
use crate::memory::Memory;
use crate::reconcile::comparison::Limits;
use std::path::{Path, PathBuf};
use ureq::http::{HeaderValue, Uri};
use wire::frame::{Listing, Operation};
use wire::trace::LogFlags;
use wire::{Bounds, PaymentId, PerProcessor, Processor, Timestamp};

/// Eleven days: as good as for ever.
const TIMEOUT_MS_MAX: u64 = 1_000_000_000;

/// Espora's store: records every payment, and decides which processor gets it and when
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "store", version)]
pub struct Arguments {
    /// What to do; without a command, the store serves
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
    /// Write the payments of the snapshot, then every record of the log, one a line. Payments are numbered in the order of
    /// acceptance, from 0
    Dump {
        /// The log's folder (LOG_DIR)
        dir: PathBuf,
    },
    /// List payments of the running store that may need an operator, one a line
    List {
        /// Which
        #[arg(value_enum)]
        listing: ListingName,
    },
    /// Tell the running store what became of a payment whose processor gives no answer any more
    Resolve {
        /// The payment
        #[arg(value_parser = payment_id)]
        id: PaymentId,
        /// What happened. Look at the processor's own books first: this cannot be undone
        #[arg(value_enum)]
        resolution: Resolution,
        /// The processor that charged it: default or fallback. Only needed where both claim a dead letter
        #[arg(long, value_parser = processor)]
        by: Option<Processor>,
    },
    /// Let the running store send one dead letter, or all of them, again to either processor
    Revive {
        /// The payment
        #[arg(value_parser = payment_id, required_unless_present = "all")]
        id: Option<PaymentId>,
        /// All dead letters that no processor claims to have charged
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// Compare the running store's sums with the processors' own, and name the payments that differ. It changes nothing.
    /// Exit status: 0 all agrees, 1 something differs, 2 the comparison failed
    Reconcile(Reconcile),
}

/// Settings of `store reconcile`.
#[derive(Clone, Debug, clap::Args)]
pub struct Reconcile {
    /// Address of the default processor: http://HOST:PORT
    #[arg(long, env = "PROCESSOR_DEFAULT_URL", default_value = "http://payment-processor-default:8080", value_parser = address)]
    pub processor_default_url: String,
    /// Address of the fallback processor: http://HOST:PORT
    #[arg(long, env = "PROCESSOR_FALLBACK_URL", default_value = "http://payment-processor-fallback:8080", value_parser = address)]
    pub processor_fallback_url: String,
    /// Value of the header X-Rinha-Token. Give it by its variable, which other users do not see
    #[arg(long, env = "PROCESSOR_TOKEN", hide_env_values = true, value_parser = token)]
    pub processor_token: String,
    /// First requestedAt to compare, such as 2025-07-15T12:00:00Z [default: the first since the last purge]
    #[arg(long, value_parser = lower_bound)]
    pub from: Option<Timestamp>,
    /// Last requestedAt to compare, if it is older than the margin [default: the last that is]
    #[arg(long, value_parser = upper_bound)]
    pub to: Option<Timestamp>,
    /// Skip windows that ended less than this time ago, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(..=2_592_000))]
    pub margin_s: u32,
    /// Length of a window, in seconds, 1 to 86400
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub window_s: u32,
    /// Calls to the processors, and pages from the store, each second, 1 to 1000
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub calls_per_s: u32,
    /// Payments to look up where sums differ; beyond this limit, windows that differ are only counted
    #[arg(long, default_value_t = 10_000)]
    pub look_ups_max: u64,
    /// Write the report as JSON, with amounts in cents
    #[arg(long)]
    pub json: bool,
}

impl Reconcile {
    /// What is compared.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            from: self.from,
            to: self.to,
            margin_us: i64::from(self.margin_s) * 1_000_000,
            window_us: i64::from(self.window_s) * 1_000_000,
            look_ups_max: self.look_ups_max,
        }
    }

    /// Where the processors are.
    #[must_use]
    pub fn urls(&self) -> PerProcessor<String> {
        PerProcessor([self.processor_default_url.clone(), self.processor_fallback_url.clone()])
    }
}

/// The address of a processor, without a slash at its end.
fn address(text: &str) -> Result<String, String> {
    let advice = "give http://HOST:PORT, without a path";
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {advice}"))?;
    match (uri.scheme_str(), uri.authority(), uri.path()) {
        (Some("http"), Some(authority), "" | "/") if uri.query().is_none() => {
            Ok(format!("http://{authority}"))
        }
        _ => Err(advice.to_owned()),
    }
}

fn token(text: &str) -> Result<String, String> {
    match HeaderValue::from_str(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => {
            Err("give the token of the processors' administration: visible characters, at least one"
                .to_owned())
        }
    }
}

const TIME_ADVICE: &str = "give a time such as 2025-07-15T12:34:56.000Z";

fn lower_bound(text: &str) -> Result<Timestamp, String> {
    Bounds::parse_from(text).ok_or_else(|| TIME_ADVICE.to_owned())
}

fn upper_bound(text: &str) -> Result<Timestamp, String> {
    Bounds::parse_to(text).ok_or_else(|| TIME_ADVICE.to_owned())
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
            Self::Healthcheck | Self::Check { .. } | Self::Dump { .. } | Self::Reconcile(_) => None,
            Self::List { listing: name } => Some(Operation::List { listing: listing(name), from: 0 }),
            Self::Resolve { id, resolution: Resolution::Charged, by } => {
                Some(Operation::Charged { id: *id, by: *by })
            }
            Self::Resolve { id, resolution: Resolution::NotCharged, .. } => Some(Operation::NotCharged(*id)),
            Self::Revive { id: Some(id), .. } => Some(Operation::Revive(*id)),
            Self::Revive { id: None, .. } => Some(Operation::ReviveAll { from: 0 }),
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
    /// Folder of the store's socket, unless STORE_SOCKET_DIR is set
    #[arg(long, env = "SOCKET_DIR", default_value = "/run/espora", global = true)]
    pub socket_dir: PathBuf,
    /// Folder of the store's socket, shared by the apis and the store [default: SOCKET_DIR]
    #[arg(long, env = "STORE_SOCKET_DIR", global = true)]
    pub store_socket_dir: Option<PathBuf>,
    /// Folder of the write-ahead log and of the operators' socket; on a disk, not on tmpfs
    #[arg(long, env = "LOG_DIR", default_value = "/var/lib/espora", global = true)]
    pub log_dir: PathBuf,
    /// What must happen to a record before an answer or a call that depends on it leaves the store
    #[arg(long, env = "DURABILITY", value_enum, default_value_t = Durability::Always)]
    pub durability: Durability,
    /// Take a snapshot when the log has grown by this much plus the size of the last snapshot, in KiB
    #[arg(long, env = "SNAPSHOT_LOG_KIB", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    pub snapshot_log_kib: u64,
    /// Payments remembered between two purges, at most 92233720; beyond this limit the answer is 503 [default: the memory
    /// limit less 24 MiB, divided by 64 bytes, from 1024 to 8388608; 8388608 without a limit]
    #[arg(long, env = "PAYMENTS_MAX", value_parser = clap::value_parser!(u64).range(1..=PAYMENTS_MOST))]
    pub payments_max: Option<u64>,
    /// Fee of the default processor, in percent
    #[arg(long, env = "FEE_DEFAULT", default_value_t = 5.0, value_parser = percent)]
    pub fee_default: f64,
    /// Fee of the fallback processor, in percent
    #[arg(long, env = "FEE_FALLBACK", default_value_t = 15.0, value_parser = percent)]
    pub fee_fallback: f64,
    /// Time from requestedAt within which a payment should be charged and counted, in milliseconds, 200 to 3600000
    #[arg(long, env = "AUDIT_MARGIN_MS", default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(200..=3_600_000))]
    pub audit_margin_ms: u64,
    /// How long payments above the hold limit wait for the cheaper processor before the dearer one gets them, in
    /// milliseconds [default: follows from the fees; 3529 for 5 and 15, 1000 for 7 and 10, 19000 for 2 and 40]
    #[arg(long, env = "HOLD_TIMEOUT_MS", value_parser = clap::value_parser!(u64).range(..=TIMEOUT_MS_MAX))]
    pub hold_timeout_ms: Option<u64>,
    /// How long both processors must have missed the audit margin before payments are sent late, in milliseconds. The store
    /// waits longer until it has seen a regular audit schedule. With a large value only canaries are late
    #[arg(long, env = "LATE_AFTER_MS", default_value_t = LATE_AFTER_MS, value_parser = clap::value_parser!(u64).range(..=TIMEOUT_MS_MAX))]
    pub late_after_ms: u64,
    /// Payments dispatched each second while clients are being answered, 1 to 1000000
    #[arg(long, env = "DISPATCH_PER_S", default_value_t = DISPATCH_PER_S, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub dispatch_per_s: u32,
    /// Calls open at one processor at once, 1 to 768
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
    /// The folder of the store's socket.
    #[must_use]
    pub fn store_socket_dir(&self) -> &Path {
        self.store_socket_dir.as_deref().unwrap_or(&self.socket_dir)
    }

    /// What fits into the memory of this process.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory::new(self.payments_max, wire::memory::limit())
    }

    /// The settings of the core. `index_key` is drawn by the caller: the core knows no chance.
    #[must_use]
    pub fn core(&self, index_key: [u64; 2]) -> CoreConfig {
        let payments_max = self.memory().payments_max;
        let fee_percent = PerProcessor([self.fee_default, self.fee_fallback]);
        let reasoned = RouterConfig::for_fees(fee_percent, self.audit_margin_ms);
        CoreConfig {
            payments_max: usize::try_from(payments_max).unwrap_or(usize::MAX),
            index_key,
            router: RouterConfig {
                hold_timeout_ms: self.hold_timeout_ms.unwrap_or(reasoned.hold_timeout_ms),
                late_after_ms: self.late_after_ms,
                dispatch_per_s: self.dispatch_per_s,
                open_max: usize::from(self.open_max),
                ..reasoned
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn more_payments_than_a_sum_can_count_are_refused_with_the_range() {
        let parse = |text: &str| Arguments::try_parse_from(["store", "--payments-max", text]);
        assert_eq!(parse("92233720").unwrap().config.payments_max, Some(92_233_720));
        for text in ["92233721", "1000000000000", "0"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("--payments-max") && error.contains("1..=92233720"), "{error}");
        }
    }
}
