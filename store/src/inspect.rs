//! `store check` and `store dump`: what a log says, without starting a store on it. Both only read, also beside a store that
//! is running: then what they see is whole up to some moment of the reading.

use crate::core::ledger::Ledger;
use crate::core::record::{Record, Terms};
use crate::log::recovery::{self, Recovered, RecoveryError};
use crate::log::segment;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use wire::Processor;

/// Counts of the kinds of records, with their names.
#[derive(Debug, Default)]
struct Kinds([u64; KIND_NAMES.len()]);

const KIND_NAMES: [&str; 10] = [
    "accepted",
    "intended",
    "cleared",
    "charged",
    "surprised",
    "conflicted",
    "died",
    "purged",
    "tombstone cleared",
    "tombstone charged",
];

fn kind(record: &Record) -> usize {
    match record {
        Record::Accepted { .. } => 0,
        Record::Intended { .. } => 1,
        Record::Cleared { .. } => 2,
        Record::Charged { .. } => 3,
        Record::Surprised { .. } => 4,
        Record::Conflicted { .. } => 5,
        Record::Died { .. } => 6,
        Record::Purged => 7,
        Record::TombstoneCleared { .. } => 8,
        Record::TombstoneCharged { .. } => 9,
    }
}

/// Reads the whole log in `dir` and tells what is in it.
///
/// # Errors
/// When it is not sound: a store would refuse to start on it, with the same words.
pub fn check(dir: &Path) -> Result<String, RecoveryError> {
    let mut kinds = Kinds::default();
    let mut ledger = Ledger::new(usize::MAX, [0; 2]);
    let recovered = recovery::recover(dir, |record| {
        kinds.0[kind(record)] += 1;
        ledger.apply(record);
    })?;
    Ok(describe(dir, &recovered, &kinds, &ledger))
}

fn describe(dir: &Path, recovered: &Recovered, kinds: &Kinds, ledger: &Ledger) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:18} {value}").expect("a string takes any text");
    };
    let segments = segment::list(dir).map_or(0, |numbers| numbers.len());
    line("log", format!("{}, sound", dir.display()));
    line("segments", segments.to_string());
    line("frames", recovered.frames.to_string());
    line("records", recovered.sequence.to_string());
    if recovered.torn_bytes > 0 {
        line("torn tail", format!("{} bytes, which a starting store cuts", recovered.torn_bytes));
    }
    for (name, count) in KIND_NAMES.iter().zip(kinds.0).filter(|(_, count)| *count > 0) {
        line(&format!("  {name}"), count.to_string());
    }
    let balance = ledger.balance();
    let mut standing = |name: &str, totals: wire::frame::Totals| {
        line(name, format!("{} payments, {}", totals.count, totals.cents));
    };
    standing("accepted", balance.accepted);
    standing("charged, default", balance.charged[Processor::Default]);
    standing("charged, fallback", balance.charged[Processor::Fallback]);
    standing("queued", balance.queued);
    standing("in flight", balance.in_flight);
    standing("dead letters", balance.dead);
    line("conflicts", ledger.conflicts().to_string());
    line("tombstones", ledger.tombstones().len().to_string());
    text
}

/// Writes every record of the log in `dir`, one a line.
///
/// # Errors
/// When the log is not sound (what came before is written), or `out` takes no more.
pub fn dump(dir: &Path, out: &mut impl Write) -> Result<(), DumpError> {
    let mut number = 0_u64;
    let mut failed = Ok(());
    recovery::recover(dir, |record| {
        number += 1;
        if failed.is_ok() {
            failed = writeln!(out, "{number:>10} {}", words(record));
        }
    })?;
    failed?;
    Ok(out.flush()?)
}

/// Why a dump ended early.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The log is not sound.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The output takes no more.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

fn words(record: &Record) -> String {
    match *record {
        Record::Accepted { id, cents } => format!("accepted {id} {cents}"),
        Record::Intended { ordinal, attempt, processor, requested_at } => {
            format!("intended #{} attempt {} on {processor} at {requested_at}", ordinal.0, attempt.0)
        }
        Record::Cleared { ordinal, attempt, negative } => {
            format!("cleared #{} attempt {} {negative:?}", ordinal.0, attempt.0)
        }
        Record::Charged { ordinal, processor, terms: Terms::Ours } => {
            format!("charged #{} by {processor}", ordinal.0)
        }
        Record::Charged { ordinal, processor, terms: Terms::Theirs { requested_at, cents } } => {
            format!("charged #{} by {processor}, which holds {cents} at {requested_at}", ordinal.0)
        }
        Record::Surprised { ordinal } => format!("surprised #{}", ordinal.0),
        Record::Conflicted { ordinal } => format!("conflicted #{}", ordinal.0),
        Record::Died { ordinal } => format!("died #{}", ordinal.0),
        Record::Purged => "purged".to_owned(),
        Record::TombstoneCleared { id, attempt } => format!("tombstone {id} cleared attempt {}", attempt.0),
        Record::TombstoneCharged { id } => format!("tombstone {id} charged"),
    }
}
