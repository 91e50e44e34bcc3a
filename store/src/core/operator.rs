//! What an operator may look at and decide (`accepted_is_charged_once`): payments that only people can bring to an end.
//!
//! | decision | about | recorded as |
//! |---|---|---|
//! | charged | a payment in flight, or a tombstone, of which no call can be answered any more | charged; tombstone charged |
//! | charged | a dead letter that a processor claims to have charged | charged |
//! | not charged | a payment in flight, or a tombstone, as above | resolved, and died when both refused it; tombstone resolved |
//! | not charged | a dead letter that a processor claims | resolved: it is a dead letter without a claim |
//! | revive, one or all | a dead letter that no processor claims | revived: queued again, with no refusal remembered |
//!
//! A decision is a record like any other, and what contradicts it later is a conflict like any other. While a call of the
//! payment is open, or overdue with its socket kept by an api, nothing is decided: its answer may come at any moment, and
//! it knows better.

use super::Core;
use super::calls::Calls;
use super::ledger::{Flight, Ledger, Standing, Tombstone};
use super::queue::Ordinal;
use super::record::{Record, Terms};
use std::fmt::{self, Write};
use std::ops::Bound;
use wire::frame::{AttemptId, Listing, Operation};
use wire::{PaymentId, Processor};

/// Payments of one page: some 200 bytes each, so that a page fits into a frame.
const PAGE_LEN: usize = 200;

const _: () = assert!(PAGE_LEN * 320 <= wire::frame::FRAME_BYTES_MAX);

/// Payments that are looked at for one page, a quarter of a millisecond: payments do not wait for a
/// reader of lists.
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
    Claimed,
    ClaimedByBoth,
    Elsewhere(Processor),
    NotClaimedBy(Processor),
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Elsewhere(processor) => {
                return write!(f, "it was sent to {processor} only: the other one cannot have charged it");
            }
            Self::NotClaimedBy(processor) => {
                return write!(
                    f,
                    "{processor} does not claim it: `store list conflicts` shows which one does"
                );
            }
            Self::Unknown => "no payment with this id is known since the last purge",
            Self::CallOpen => "a call of it may still be answered: wait, or end the api that makes it",
            Self::Queued => "it waits in the queue: there is nothing to resolve",
            Self::Charged => "it is charged, and charged is final",
            Self::Dead => "it is a dead letter: `store revive ID` sends it again",
            Self::NotDead => "it is no dead letter",
            Self::Claimed => {
                "a processor claims to have charged it: look at its books, then `store resolve ID charged` or \
                 `not-charged`"
            }
            Self::ClaimedByBoth => {
                "both processors claim to have charged it: name the one to count it at with --by"
            }
        };
        f.write_str(text)
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
            Operation::ReviveAll { from } => return self.revive_all(from),
            Operation::Charged { id, by } => self.resolve_charged(id, by),
            Operation::NotCharged(id) => self.resolve_not_charged(id),
            Operation::Revive(id) => self.revive(id),
            Operation::Window { .. } | Operation::Charges { .. } => {
                unreachable!("what is known about a window has a frame of its own")
            }
        };
        let (records, done, text) = match decided {
            Ok(records) => (records, true, "done, and recorded\n".to_owned()),
            Err(objection) => (Vec::new(), false, objection.to_string()),
        };
        Answer { records, done, next: None, text }
    }

    fn resolve_charged(&self, id: PaymentId, by: Option<Processor>) -> Result<Vec<Record>, Objection> {
        let ledger = self.ledger();
        if let Some(tombstone) = ledger.tombstones().get(&id) {
            self.resolvable(id, tombstone)?;
            check_by(&tombstone.flight, by)?;
            return Ok(vec![Record::TombstoneCharged { id }]);
        }
        let ordinal = ledger.find(id).ok_or(Objection::Unknown)?;
        let processor = match ledger.standing(ordinal) {
            Standing::Charged(_) => return Err(Objection::Charged),
            Standing::Queued => return Err(Objection::Queued),
            Standing::Dead => self.claimant(ordinal, by)?,
            Standing::InFlight => {
                let flight = self.settled_flight(ordinal)?;
                check_by(flight, by)?;
                flight.processor
            }
        };
        Ok(vec![Record::Charged { ordinal, processor, terms: Terms::Ours }])
    }

    fn resolve_not_charged(&self, id: PaymentId) -> Result<Vec<Record>, Objection> {
        let ledger = self.ledger();
        if let Some(tombstone) = ledger.tombstones().get(&id) {
            self.resolvable(id, tombstone)?;
            return Ok(vec![Record::TombstoneResolved { id }]);
        }
        let ordinal = ledger.find(id).ok_or(Objection::Unknown)?;
        let resolved = Record::Resolved { ordinal };
        match ledger.standing(ordinal) {
            Standing::Charged(_) => Err(Objection::Charged),
            Standing::Queued => Err(Objection::Queued),
            Standing::Dead if ledger.is_conflicted(ordinal) => Ok(vec![resolved]),
            Standing::Dead => Err(Objection::Dead),
            Standing::InFlight => {
                self.settled_flight(ordinal)?;
                let dies = ledger.is_refused_by_both(ordinal).then_some(Record::Died { ordinal });
                Ok([resolved].into_iter().chain(dies).collect())
            }
        }
    }

    fn revive(&self, id: PaymentId) -> Result<Vec<Record>, Objection> {
        let ordinal = self.ledger().find(id).ok_or(Objection::Unknown)?;
        match self.ledger().standing(ordinal) {
            Standing::Dead if self.ledger().is_conflicted(ordinal) => Err(Objection::Claimed),
            Standing::Dead => Ok(vec![Record::Revived { ordinal }]),
            _ => Err(Objection::NotDead),
        }
    }

    /// One page of the dead letters that no processor claims.
    fn revive_all(&self, from: u32) -> Answer {
        let ledger = self.ledger();
        let is_revivable = |ordinal: &Ordinal| {
            ledger.standing(*ordinal) == Standing::Dead && !ledger.is_conflicted(*ordinal)
        };
        let end = u32::try_from(ledger.len()).expect("payments are counted in 32 bits");
        let stop = from.saturating_add(SCAN_LEN).min(end);
        let found: Vec<Ordinal> = (from..stop).map(Ordinal).filter(is_revivable).take(PAGE_LEN).collect();
        let next = match found.last() {
            Some(last) if found.len() == PAGE_LEN => last.0 + 1,
            _ => stop,
        };
        let records: Vec<Record> = found.into_iter().map(|ordinal| Record::Revived { ordinal }).collect();
        let text =
            if records.is_empty() { String::new() } else { format!("{} are sent again\n", records.len()) };
        Answer { records, done: true, next: (next < end).then_some(next), text }
    }

    /// The attempts of a payment in flight, none of which can be answered any more.
    fn settled_flight(&self, ordinal: Ordinal) -> Result<&Flight, Objection> {
        let flight = self.ledger().flights().get(&ordinal).ok_or(Objection::Queued)?;
        self.check_settled(self.ledger().id(ordinal), flight).map(|()| flight)
    }

    fn resolvable(&self, id: PaymentId, tombstone: &Tombstone) -> Result<(), Objection> {
        if tombstone.is_charged { Err(Objection::Charged) } else { self.check_settled(id, &tombstone.flight) }
    }

    /// Nothing is decided before the apis of the time before a start have said which calls they hold, nor while one of them
    /// holds a call of this payment.
    fn check_settled(&self, id: PaymentId, flight: &Flight) -> Result<(), Objection> {
        let may_be_answered = self.calls().may_be_answered_for(flight.processor, id);
        if self.waits_for_claims() || may_be_answered { Err(Objection::CallOpen) } else { Ok(()) }
    }

    /// The processor that charged a dead letter, by its own claim and where both claim it by the operator's word.
    fn claimant(&self, ordinal: Ordinal, by: Option<Processor>) -> Result<Processor, Objection> {
        let claims = Processor::BOTH.map(|processor| self.ledger().is_claimed_by(ordinal, processor));
        match (by, claims) {
            (_, [false, false]) => Err(Objection::Dead),
            (None, [true, true]) => Err(Objection::ClaimedByBoth),
            (None, [is_default, _]) => Ok(if is_default { Processor::Default } else { Processor::Fallback }),
            (Some(by), _) if self.ledger().is_claimed_by(ordinal, by) => Ok(by),
            (Some(by), _) => Err(Objection::NotClaimedBy(by)),
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

fn check_by(flight: &Flight, by: Option<Processor>) -> Result<(), Objection> {
    match by {
        Some(by) if by != flight.processor => Err(Objection::Elsewhere(flight.processor)),
        _ => Ok(()),
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
    let claims = Processor::BOTH.into_iter().filter(|processor| ledger.is_claimed_by(ordinal, *processor));
    let claims: String = claims.map(|processor| format!(", claimed by {processor}")).collect();
    format!("{} {} {standing}{claims}", ledger.id(ordinal), ledger.cents(ordinal))
}

fn flight_words(flight: &Flight, calls: &Calls) -> String {
    let count = |is_so: &dyn Fn(AttemptId) -> bool| flight.unanswered.iter().filter(|at| is_so(**at)).count();
    let open = count(&|attempt| calls.is_open(flight.processor, attempt));
    let overdue = count(&|attempt| calls.may_be_answered(flight.processor, attempt)) - open;
    let surprised = if flight.surprised { ", which held it before" } else { "" };
    format!(
        ", on {}{surprised} at {}, {} attempts without an answer, {open} calls open, {overdue} overdue",
        flight.processor,
        flight.requested_at,
        flight.unanswered.len()
    )
}
