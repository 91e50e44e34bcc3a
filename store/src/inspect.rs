//! `store check` and `store dump`: what a log says, without starting a store on it. Both only read, also beside a store that
//! is running: then what they see is whole up to some moment of the reading.

use crate::core::ledger::Ledger;
use crate::core::ledger::snapshot::{LoadError, Replay};
use crate::core::queue::Ordinal;
use crate::core::record::{Record, Terms};
use crate::log::recovery::{self, Recovered, RecoveryError};
use crate::log::{segment, snapshot};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::Path;
use wire::Processor;

/// How often a log is read that changes under the reader's hands; a snapshot comes seldom.
const CHECKS_MAX: u32 = 5;

/// Counts of the kinds of records, with their names.
#[derive(Debug, Default)]
struct Kinds([u64; KIND_NAMES.len()]);

const KIND_NAMES: [&str; 13] = [
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
    "resolved",
    "tombstone resolved",
    "revived",
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
        Record::Resolved { .. } => 10,
        Record::TombstoneResolved { .. } => 11,
        Record::Revived { .. } => 12,
    }
}

/// A ledger, and the count of what made it.
#[derive(Debug)]
struct Counted {
    ledger: Ledger,
    kinds: Kinds,
}

impl Replay for Counted {
    fn load(&mut self, ledger: impl Read, len: u64) -> Result<(), LoadError> {
        self.ledger.load(ledger, len)
    }

    fn add(&mut self, record: &Record) {
        self.kinds.0[kind(record)] += 1;
        self.ledger.add(record);
    }
}

/// Reads the whole log in `dir` and tells what is in it.
///
/// # Errors
/// When it is not sound: a store would refuse to start on it, with the same words.
pub fn check(dir: &Path) -> Result<String, RecoveryError> {
    undisturbed(dir, || {
        let mut counted = Counted { ledger: Ledger::new(usize::MAX, [0; 2]), kinds: Kinds::default() };
        let recovered = recovery::recover(dir, &mut counted)?;
        Ok(describe(dir, &recovered, &counted.kinds, &counted.ledger))
    })
}

/// Reads a log, and once more where a store that runs on it has taken a snapshot meanwhile and removed what that stands for.
fn undisturbed<T>(
    dir: &Path,
    mut read: impl FnMut() -> Result<T, RecoveryError>,
) -> Result<T, RecoveryError> {
    for _ in 1..CHECKS_MAX {
        let before = newest_snapshot(dir);
        match read() {
            Err(RecoveryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => (),
            Err(_) if newest_snapshot(dir) != before => (),
            outcome => return outcome,
        }
    }
    read()
}

fn newest_snapshot(dir: &Path) -> Option<u64> {
    snapshot::list(dir).ok()?.pop()
}

fn describe(dir: &Path, recovered: &Recovered, kinds: &Kinds, ledger: &Ledger) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:18} {value}").expect("a string takes any text");
    };
    let is_begun = |number: &u64| segment::is_begun(dir, *number).unwrap_or(true);
    let segments = segment::list(dir).map_or(0, |numbers| numbers.into_iter().filter(is_begun).count());
    line("log", format!("{}, sound", dir.display()));
    line("segments", segments.to_string());
    match recovered.snapshot {
        Some(place) => line("snapshot", format!("of all up to record {}", place.sequence)),
        None => line("snapshot", "none".to_owned()),
    }
    line("frames", recovered.frames.to_string());
    line("records", recovered.end.sequence.to_string());
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

/// Writes what a log says: the payments of a snapshot, then each record.
#[derive(Debug)]
struct Written<W> {
    out: W,
    number: u64,
    written: io::Result<()>,
}

impl<W: Write> Replay for Written<W> {
    fn load(&mut self, ledger: impl Read, len: u64) -> Result<(), LoadError> {
        let mut loaded = Ledger::new(usize::MAX, [0; 2]);
        loaded.load(ledger, len)?;
        self.written = (0..loaded.len()).try_for_each(|at| {
            let ordinal = Ordinal(u32::try_from(at).expect("payments are counted in 32 bits"));
            let (id, cents, standing) = (loaded.id(ordinal), loaded.cents(ordinal), loaded.standing(ordinal));
            writeln!(self.out, "  snapshot #{at} {id} {cents} {standing:?}")
        });
        Ok(())
    }

    fn add(&mut self, record: &Record) {
        self.number += 1;
        if self.written.is_ok() {
            self.written = writeln!(self.out, "{:>10} {}", self.number, words(record));
        }
    }
}

/// Writes every record of the log in `dir` behind its snapshot, one a line, after the payments of that.
///
/// # Errors
/// When the log is not sound (what came before is written), or `out` takes no more.
pub fn dump(dir: &Path, out: &mut impl Write) -> Result<(), DumpError> {
    let newest = snapshot::list(dir)?.pop();
    let mut written = Written { out, number: newest.unwrap_or(0), written: Ok(()) };
    match recovery::recover(dir, &mut written) {
        Err(_) if newest_snapshot(dir) != newest => return Err(DumpError::Disturbed),
        recovered => recovered?,
    };
    written.written?;
    Ok(written.out.flush()?)
}

/// Why a dump ended early.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The log is not sound.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// What was read has been removed by the store that runs on it.
    #[error("the running store has taken a snapshot meanwhile: dump again")]
    Disturbed,
    /// The folder cannot be read, or the output takes no more.
    #[error("cannot dump: {0}")]
    Io(#[from] io::Error),
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
        Record::Conflicted { ordinal, processor } => format!("conflicted #{} {processor}", ordinal.0),
        Record::Died { ordinal } => format!("died #{}", ordinal.0),
        Record::Purged => "purged".to_owned(),
        Record::TombstoneCleared { id, attempt } => format!("tombstone {id} cleared attempt {}", attempt.0),
        Record::TombstoneCharged { id } => format!("tombstone {id} charged"),
        Record::Resolved { ordinal } => format!("resolved #{}: not charged, says an operator", ordinal.0),
        Record::TombstoneResolved { id } => format!("tombstone {id} resolved: not charged, says an operator"),
        Record::Revived { ordinal } => format!("revived #{}", ordinal.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_changes_under_the_reader_is_read_again_and_a_damaged_one_is_not() {
        let dir = tempfile::TempDir::new().unwrap();
        let damaged = || RecoveryError::Corrupt {
            path: dir.path().to_owned(),
            offset: 0,
            what: "segment 1 is missing before it".to_owned(),
        };
        let mut reads = 0;
        let read = undisturbed(dir.path(), || {
            reads += 1;
            if reads > 2 {
                return Ok(reads);
            }
            std::fs::write(snapshot::path(dir.path(), reads), "").unwrap();
            Err(damaged())
        });
        assert_eq!(read.unwrap(), 3);
        let mut reads = 0;
        let read: Result<(), _> = undisturbed(dir.path(), || {
            reads += 1;
            Err(damaged())
        });
        assert_eq!((read.is_err(), reads), (true, 1));
    }
}
