//! What an operator may look at and decide (invariant 4): payments that only people can bring to an end.
//!
//! | decision | about | recorded as |
//! |---|---|---|
//! | charged | a payment in flight, or a tombstone, no call of which is open | charged; tombstone charged |
//! | not charged | the same | resolved, and died when both refused it; tombstone resolved |
//! | revive | a dead letter | revived: queued again, refused by nobody |
//!
//! A decision is a record like any other, and what contradicts it later is a conflict like any other. While a call of the
//! payment is open nothing is decided: its answer may come any moment, and it knows better.

use super::Core;
use super::calls::Calls;
use super::ledger::{Flight, Ledger, Standing, Tombstone};
use super::queue::Ordinal;
use super::record::{Record, Terms};
use std::fmt::{self, Write};
use std::ops::Bound;
use wire::PaymentId;
use wire::frame::{Listing, Operation};

/// Payments of one page: some 200 bytes each, so that a page fits into a frame.
const PAGE_LEN: usize = 200;

const _: () = assert!(PAGE_LEN * 320 <= wire::frame::FRAME_BYTES_MAX);

/// Payments that are looked at for one page, a quarter of a millisecond: whoever settles payments does not wait for
/// somebody who reads lists.
const SCAN_LEN: u32 = 65_536;

/// Why nothing was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    Unknown,
    CallOpen,
    Queued,
    Charged,
    Dead,
    NotDead,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no payment with this id is known since the last purge",
            Self::CallOpen => "a call of it is open: wait for its answer, or end the api that makes it",
            Self::Queued => "it waits in the queue: there is nothing to resolve",
            Self::Charged => "it is charged, and charged is final",
            Self::Dead => "it is a dead letter: `store revive ID` sends it again",
            Self::NotDead => "it is no dead letter",
        })
    }
}

/// What an operation came to.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) records: Vec<Record>,
    pub(super) done: bool,
    pub(super) next: Option<u32>,
    pub(super) text: String,
}

impl Core {
    /// Shows or decides. The records of a decision are not yet applied.
    pub(super) fn judge_operation(&self, operation: Operation) -> Answer {
        let decided = match operation {
            Operation::List { listing, from } => {
                let (text, next) = self.list(listing, from);
                return Answer { records: Vec::new(), done: true, next, text };
            }
            Operation::Charged(id) => self.resolve(id, true),
            Operation::NotCharged(id) => self.resolve(id, false),
            Operation::Revive(id) => self.revive(id),
        };
        let (records, done, text) = match decided {
            Ok(records) => (records, true, "done, and recorded\n".to_owned()),
            Err(objection) => (Vec::new(), false, objection.to_string()),
        };
        Answer { records, done, next: None, text }
    }

    fn resolve(&self, id: PaymentId, is_charged: bool) -> Result<Vec<Record>, Objection> {
        let is_open = |flight: &Flight| {
            flight.unanswered.iter().any(|attempt| self.calls().is_open(flight.processor, *attempt))
        };
        if let Some(tombstone) = self.ledger().tombstones().get(&id) {
            return match tombstone {
                Tombstone { is_charged: true, .. } => Err(Objection::Charged),
                Tombstone { flight, .. } if is_open(flight) => Err(Objection::CallOpen),
                _ if is_charged => Ok(vec![Record::TombstoneCharged { id }]),
                _ => Ok(vec![Record::TombstoneResolved { id }]),
            };
        }
        let ordinal = self.ledger().find(id).ok_or(Objection::Unknown)?;
        match (self.ledger().standing(ordinal), self.ledger().flights().get(&ordinal)) {
            (Standing::Charged(_), _) => Err(Objection::Charged),
            (Standing::Dead, _) => Err(Objection::Dead),
            (Standing::InFlight, Some(flight)) if is_open(flight) => Err(Objection::CallOpen),
            (Standing::InFlight, Some(flight)) if is_charged => {
                Ok(vec![Record::Charged { ordinal, processor: flight.processor, terms: Terms::Ours }])
            }
            (Standing::InFlight, Some(_)) if self.ledger().is_refused_by_both(ordinal) => {
                Ok(vec![Record::Resolved { ordinal }, Record::Died { ordinal }])
            }
            (Standing::InFlight, Some(_)) => Ok(vec![Record::Resolved { ordinal }]),
            (Standing::Queued | Standing::InFlight, _) => Err(Objection::Queued),
        }
    }

    fn revive(&self, id: PaymentId) -> Result<Vec<Record>, Objection> {
        let ordinal = self.ledger().find(id).ok_or(Objection::Unknown)?;
        match self.ledger().standing(ordinal) {
            Standing::Dead => Ok(vec![Record::Revived { ordinal }]),
            _ => Err(Objection::NotDead),
        }
    }

    /// One page, and where the next one begins.
    fn list(&self, listing: Listing, from: u32) -> (String, Option<u32>) {
        let ledger = self.ledger();
        let mut page = Page::default();
        match listing {
            Listing::DeadLetters => {
                page.scan(ledger, from, |ordinal| ledger.standing(ordinal) == Standing::Dead);
            }
            Listing::Conflicts => page.scan(ledger, from, |ordinal| ledger.is_conflicted(ordinal)),
            Listing::InFlight => {
                let rest = (Bound::Included(Ordinal(from)), Bound::Unbounded);
                for (&ordinal, flight) in ledger.flights().range::<Ordinal, _>(rest) {
                    let line = payment_line(ledger, ordinal) + &flight_words(flight, self.calls());
                    if !page.push(&line, ordinal.0) {
                        break;
                    }
                }
            }
            Listing::Tombstones => {
                for (number, (id, tombstone)) in (0..).zip(ledger.tombstones()).skip(from as usize) {
                    let charged = if tombstone.is_charged { "charged since" } else { "unknown" };
                    let words = flight_words(&tombstone.flight, self.calls());
                    if !page.push(&format!("{id} {} {charged}{words}", tombstone.cents), number) {
                        break;
                    }
                }
            }
        }
        (page.text, page.next)
    }
}

#[derive(Debug, Default)]
struct Page {
    text: String,
    len: usize,
    next: Option<u32>,
}

impl Page {
    /// False when the page is full; the next one begins with this line's number.
    fn push(&mut self, line: &str, number: u32) -> bool {
        if self.len == PAGE_LEN {
            self.next = Some(number);
            return false;
        }
        self.len += 1;
        writeln!(self.text, "{line}").expect("a string takes any text");
        true
    }

    fn scan(&mut self, ledger: &Ledger, from: u32, is_wanted: impl Fn(Ordinal) -> bool) {
        let end = u32::try_from(ledger.balance().accepted.count).expect("payments are counted in 32 bits");
        let stop = from.saturating_add(SCAN_LEN).min(end);
        for number in from..stop {
            if is_wanted(Ordinal(number)) && !self.push(&payment_line(ledger, Ordinal(number)), number) {
                return;
            }
        }
        self.next = (stop < end).then_some(stop);
    }
}

fn payment_line(ledger: &Ledger, ordinal: Ordinal) -> String {
    let standing = match ledger.standing(ordinal) {
        Standing::Queued => "queued".to_owned(),
        Standing::InFlight => "in flight".to_owned(),
        Standing::Charged(processor) => format!("charged by {processor}"),
        Standing::Dead => "dead letter".to_owned(),
    };
    format!("{} {} {standing}", ledger.id(ordinal), ledger.cents(ordinal))
}

fn flight_words(flight: &Flight, calls: &Calls) -> String {
    let open = flight.unanswered.iter().filter(|attempt| calls.is_open(flight.processor, **attempt)).count();
    let surprised = if flight.surprised { ", which held it before" } else { "" };
    format!(
        ", on {}{surprised} at {}, {} attempts without an answer, {open} calls open",
        flight.processor,
        flight.requested_at,
        flight.unanswered.len()
    )
}
