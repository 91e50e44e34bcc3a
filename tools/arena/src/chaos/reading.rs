//! What the sides say, read from outside: our summary and gauges over HTTP, our log by `store check` as a process of its
//! own, the processors' rows through their administration.

use super::inject::Injector;
use super::verdict::{Holdings, Ours as OurSide};
use crate::client::{Client, request};
use crate::endpoint::Endpoint;
use crate::sides::Ours;
use anyhow::{Context, ensure};
use contest::score::Settled;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use wire::{Bounds, Cents, PaymentId, PerProcessor, Processor};

/// How long the system has until nothing is queued or in flight, once everything is healed: the longest late answer, two
/// health calls, and the queue of a minute at the pace of the dispatch.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(90);

/// The pause between two looks.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Of a payment, the lines of the log that are shown.
const LINES_SHOWN_MAX: usize = 40;

/// The store's gauges that decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Payments that wait.
    pub queued: u64,
    /// Payments that are open or unknown.
    pub in_flight: u64,
    /// Dead letters.
    pub dead: u64,
    /// Payments whose evidence contradicts itself.
    pub conflicts: u64,
    /// What a purge left behind without an answer.
    pub tombstones: u64,
    /// Payments since the last purge, however they stand.
    pub payments: u64,
}

impl Gauges {
    /// Reads Prometheus text; `None` when one of them is missing, as while the store is away.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let gauge = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value?.trim().parse().ok()
        };
        let standing = |name: &str| gauge(&format!("store_payments{{standing=\"{name}\"}}"));
        let (queued, in_flight, dead) =
            (standing("queued")?, standing("in_flight")?, standing("dead_letter")?);
        let charged = standing("charged_default")? + standing("charged_fallback")?;
        Some(Self {
            queued,
            in_flight,
            dead,
            payments: queued + in_flight + dead + charged,
            conflicts: gauge("store_conflicts")?,
            tombstones: gauge("store_tombstones")?,
        })
    }
}

/// Asks all sides of one system.
pub struct Reader<'a> {
    endpoint: Endpoint,
    injector: &'a Injector,
    store: PathBuf,
    wal: PathBuf,
}

impl<'a> Reader<'a> {
    /// The system at `endpoint` with its processors, the program `store`, and the log's folder.
    #[must_use]
    pub fn new(endpoint: Endpoint, injector: &'a Injector, store: PathBuf, run_dir: &Path) -> Self {
        Self { endpoint, injector, store, wal: run_dir.join("wal") }
    }

    /// The store's gauges now; `None` when it does not say.
    pub async fn gauges(&self) -> Option<Gauges> {
        let mut client = Client::new(self.endpoint.clone(), TIMEOUT);
        let get = request("GET", "/metrics", client.host(), None, "");
        let answer = client.exchange(&get).await.ok()?;
        Gauges::read(std::str::from_utf8(answer.body).ok()?)
    }

    /// Waits until nothing is queued or in flight and no call is under way at a processor, and tells how long it took;
    /// `None` when that does not come to be.
    ///
    /// # Errors
    /// When a processor does not say what it holds.
    pub async fn drain(&self) -> anyhow::Result<Option<Duration>> {
        let began = Instant::now();
        while began.elapsed() < DRAIN_TIMEOUT {
            let gauges = self.gauges().await;
            if gauges.is_some_and(|gauges| gauges.queued + gauges.in_flight == 0)
                && self.are_at_rest().await?
            {
                return Ok(Some(began.elapsed()));
            }
            sleep(DRAIN_PAUSE).await;
        }
        Ok(None)
    }

    async fn are_at_rest(&self) -> anyhow::Result<bool> {
        for processor in Processor::BOTH {
            let last_page = usize::MAX;
            if self.injector.theirs(processor).page(last_page).await?.unfinished > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What we say, in both ways.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn ours(&self) -> anyhow::Result<OurSide> {
        let mut ours = Ours::new(self.endpoint.clone(), TIMEOUT, None);
        let summary = ours.summary(Bounds::default()).await.context("our summary")?;
        let gauges = self.gauges().await.context("our gauges")?;
        let log = read_check(&self.ask_store("check").await?).context("what store check says")?;
        Ok(OurSide { summary, log, dead: gauges.dead, conflicts: gauges.conflicts })
    }

    /// What the processors hold.
    ///
    /// # Errors
    /// When one does not say.
    pub async fn theirs(&self) -> anyhow::Result<PerProcessor<Holdings>> {
        let mut holdings = PerProcessor::<Holdings>::default();
        for processor in Processor::BOTH {
            let (rows, lost, _) = self.injector.theirs(processor).everything().await?;
            holdings[processor] = Holdings { rows, lost };
        }
        Ok(holdings)
    }

    /// The lines of our log about a payment.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn history(&self, id: PaymentId) -> anyhow::Result<Vec<String>> {
        Ok(lines_about(&self.ask_store("dump").await?, id))
    }

    async fn ask_store(&self, command: &str) -> anyhow::Result<String> {
        let mut store = Command::new(&self.store);
        store.arg(command).arg(&self.wal).stdin(Stdio::null()).kill_on_drop(true);
        let output = store.output().await.with_context(|| format!("cannot run store {command}"))?;
        ensure!(
            output.status.success(),
            "store {command} says: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The charges in what `store check` prints: `charged, default   12 payments, 34.56`.
fn read_check(text: &str) -> Option<PerProcessor<Settled>> {
    let charged = |processor: Processor| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("charged, {processor}")))?;
        let (count, amount) = line.trim().split_once(" payments, ")?;
        let amount = Cents::from_json_number(amount.trim())
            .or_else(|error| if amount.trim() == "0.00" { Ok(Cents(0)) } else { Err(error) });
        Some(Settled { count: count.trim().parse().ok()?, amount: amount.ok()? })
    };
    Some(PerProcessor([charged(Processor::Default)?, charged(Processor::Fallback)?]))
}

/// Of a dump, the lines with this id and those with the number that it was given, as long as that is its own.
fn lines_about(dump: &str, id: PaymentId) -> Vec<String> {
    let (id, mut ordinal, mut own) = (id.to_string(), 0_u64, None);
    let mut lines = Vec::new();
    for line in dump.lines() {
        let is_own = own.as_ref().is_some_and(|number: &String| line.split(' ').any(|word| word == number));
        if line.contains(&id) || is_own || (own.is_some() && line.ends_with(" purged")) {
            lines.push(line.trim().to_owned());
        }
        if line.contains(" accepted ") {
            if line.contains(&id) {
                own = Some(format!("#{ordinal}"));
            }
            ordinal += 1;
        } else if line.ends_with(" purged") {
            (ordinal, own) = (0, None);
        }
    }
    lines.truncate(LINES_SHOWN_MAX);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_read_from_the_metrics_of_a_store_that_is_there() {
        let text = "api_calls 3\nstore_payments{standing=\"queued\"} 1\nstore_payments{standing=\"in_flight\"} 2\n\
                    store_payments{standing=\"dead_letter\"} 0\nstore_payments{standing=\"charged_default\"} 3\n\
                    store_payments{standing=\"charged_fallback\"} 4\nstore_conflicts 4\nstore_tombstones 5\n# EOF\n";
        let gauges = Gauges { queued: 1, in_flight: 2, dead: 0, conflicts: 4, tombstones: 5, payments: 10 };
        assert_eq!(Gauges::read(text), Some(gauges));
        assert_eq!(Gauges::read("api_calls 3\n"), None);
    }

    #[test]
    fn charges_are_read_from_a_check_of_the_log() {
        let text = "log                /x, sound\ncharged, default   12 payments, 34.56\ncharged, fallback  0 payments, 0.00\n";
        let sums = read_check(text).unwrap();
        assert_eq!(sums[Processor::Default], Settled { count: 12, amount: Cents(3_456) });
        assert_eq!(sums[Processor::Fallback], Settled::default());
        assert_eq!(read_check("charged, default   many\n"), None);
    }

    #[test]
    fn the_history_of_a_payment_is_what_bears_its_id_or_its_number() {
        let (one, two) = (PaymentId(1), PaymentId(2));
        let dump = format!(
            "  1 accepted {two} 1.00\n  2 accepted {one} 1.00\n  3 intended #1 attempt 7 on default at T\n  \
             4 intended #0 attempt 8 on default at T\n  5 charged #1 by default\n  6 purged\n  7 accepted {two} 1.00\n  \
             8 charged #0 by default\n  9 tombstone {one} charged\n"
        );
        let numbers = |id| -> Vec<String> {
            lines_about(&dump, id).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        assert_eq!(numbers(one), ["2", "3", "5", "6", "9"]);
        assert_eq!(numbers(two), ["1", "4", "6", "7", "8"]);
    }
}
