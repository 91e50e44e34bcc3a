//! What an accept or a report proves, as records for [`Ledger::apply`]. Nothing changes here.
//!
//! The rules are those of docs/money.md: positive evidence counts from any api and at any time; a negative answer counts for the
//! attempt that got it, and for no other; an answer without proof is no answer.

use super::{Flight, Ledger, Standing, Verdict};
use crate::core::mutant::{self, Mutant};
use crate::core::queue::Ordinal;
use crate::core::record::{Negative, Record, Terms};
use wire::frame::{Accepted, AttemptId, Outcome, Report};
use wire::{Cents, PaymentId, Processor, Timestamp};

/// The payment that a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One of the present world.
    Payment(Ordinal),
    /// One that a purge left behind.
    Tombstone,
    /// None that could still change.
    NoPayment,
}

impl Ledger {
    /// What an accept of this payment would mean; records nothing.
    #[must_use]
    pub fn judge_accept(&self, id: PaymentId, cents: Cents) -> Accepted {
        let known = self.find(id).map(|ordinal| self.cents(ordinal));
        match (known, self.tombstones.get(&id)) {
            (Some(same), _) if same == cents => Accepted::Duplicate,
            (Some(_), _) => Accepted::Mismatch,
            (None, Some(tombstone)) if tombstone.cents != cents => Accepted::Mismatch,
            _ if self.len_by_memory() >= self.payments_max => Accepted::Full,
            _ => Accepted::Recorded,
        }
    }

    /// The record of an attempt on `processor` now: under the old time while the payment is pinned there, else under a
    /// time that never goes back. True in the second place when the time is fresh.
    ///
    /// # Panics
    /// When the move rule forbids it (`move_only_after_no`).
    #[must_use]
    pub fn intend(&self, ordinal: Ordinal, processor: Processor, now_ms: u64) -> (Record, bool) {
        assert!(
            self.may_send(ordinal, processor),
            "the move rule forbids {processor} for {}",
            self.id(ordinal)
        );
        let attempt = AttemptId(self.next_attempt);
        let pinned = self.flights.get(&ordinal).map(|flight| flight.requested_at);
        let pinned = pinned.filter(|_| !mutant::is(Mutant::FreshTimeWhileUnknown));
        let requested_at = pinned.unwrap_or(Timestamp::from_ms(now_ms).max(self.last_requested_at));
        (Record::Intended { ordinal, attempt, processor, requested_at }, pinned.is_none())
    }

    /// True for the number of an attempt that was made.
    #[must_use]
    pub fn has_made(&self, attempt: AttemptId) -> bool {
        attempt.0 < self.next_attempt
    }

    /// What a report is about. A payment and a tombstone never have the same id at a time.
    #[must_use]
    pub fn subject(&self, report: &Report, is_inquiry: bool) -> Subject {
        if self.tombstones.contains_key(&report.id) {
            return Subject::Tombstone;
        }
        let Some(ordinal) = self.find(report.id) else { return Subject::NoPayment };
        // An attempt from before a purge, on a payment that was settled then, says nothing about the one that bears its id
        // now; unless this one was born pinned to it.
        let is_of_this_world = is_inquiry || report.attempt.0 >= self.world_first_attempt;
        let is_inherited = |flight: &Flight| flight.sealed || flight.unanswered.contains(&report.attempt);
        if is_of_this_world || self.flights.get(&ordinal).is_some_and(is_inherited) {
            Subject::Payment(ordinal)
        } else {
            Subject::NoPayment
        }
    }

    /// What a report proves, as records to apply in order. Empty when it proves nothing new.
    #[must_use]
    pub fn judge_report(&self, subject: Subject, report: &Report) -> Vec<Record> {
        match subject {
            Subject::Payment(ordinal) => self.judge_payment(ordinal, report),
            Subject::Tombstone => self.judge_tombstone(report),
            Subject::NoPayment => Vec::new(),
        }
    }

    fn judge_payment(&self, ordinal: Ordinal, report: &Report) -> Vec<Record> {
        let processor = report.processor;
        let flight = self.flights.get(&ordinal).filter(|flight| flight.processor == processor);
        match report.outcome {
            Outcome::Charged => self.positive(ordinal, processor, Terms::Ours),
            Outcome::Duplicate => match flight {
                // The row can only be of this very payment's earlier attempt, which carried the same time.
                Some(flight)
                    if flight.sealed || flight.unanswered.iter().any(|other| *other != report.attempt) =>
                {
                    if flight.surprised {
                        Vec::new()
                    } else {
                        self.positive(ordinal, processor, Terms::Ours)
                    }
                }
                Some(flight) if !flight.surprised => vec![Record::Surprised { ordinal }],
                _ => Vec::new(),
            },
            Outcome::Found { requested_at, cents } => {
                let ours = flight.is_some_and(|flight| flight.requested_at == requested_at)
                    && cents == self.cents(ordinal);
                let terms = if ours { Terms::Ours } else { Terms::Theirs { requested_at, cents } };
                self.positive(ordinal, processor, terms)
            }
            Outcome::Busy
            | Outcome::Failing
            | Outcome::Unreachable
            | Outcome::HandedBack
            | Outcome::Misaddressed => self.negative(ordinal, flight, report.attempt, Negative::NotNow),
            Outcome::Refused => self.negative(ordinal, flight, report.attempt, Negative::Refused),
            Outcome::Unclear if mutant::is(Mutant::AnyServerErrorIsNo) => {
                self.negative(ordinal, flight, report.attempt, Negative::NotNow)
            }
            Outcome::Unclear if mutant::is(Mutant::GatewayTimeoutIsNo) && report.status == 504 => {
                self.negative(ordinal, flight, report.attempt, Negative::NotNow)
            }
            Outcome::Absent if mutant::is(Mutant::MoveOnAbsence) => {
                let attempts = flight.map_or(&[][..], |flight| &flight.unanswered);
                let negative = Negative::NotNow;
                attempts.iter().map(|&attempt| Record::Cleared { ordinal, attempt, negative }).collect()
            }
            Outcome::Lost | Outcome::Overdue if mutant::is(Mutant::MoveOnTimeout) => {
                self.negative(ordinal, flight, report.attempt, Negative::NotNow)
            }
            Outcome::Absent | Outcome::Unclear | Outcome::Lost | Outcome::Overdue => Vec::new(),
        }
    }

    /// Positive evidence counts from any api, at any time. Where it contradicts, another amount included, it is kept and
    /// flagged.
    fn positive(&self, ordinal: Ordinal, processor: Processor, terms: Terms) -> Vec<Record> {
        let charged = Record::Charged { ordinal, processor, terms };
        let differs = matches!(terms, Terms::Theirs { cents, .. } if cents != self.cents(ordinal));
        let (contradicts, settles) = match self.standing(ordinal) {
            Standing::InFlight if !differs && self.verdict(ordinal, processor) == Verdict::Maybe => {
                return vec![charged];
            }
            Standing::InFlight | Standing::Queued => (true, true),
            Standing::Charged(by) => (differs || by != processor, false),
            Standing::Dead => (true, false),
        };
        let is_new = contradicts && !self.is_claimed_by(ordinal, processor);
        let conflicted = is_new.then_some(Record::Conflicted { ordinal, processor });
        conflicted.into_iter().chain(settles.then_some(charged)).collect()
    }

    /// A negative answer counts once, and only for the attempt that got it (`evidence_only_grows`).
    fn negative(
        &self,
        ordinal: Ordinal,
        flight: Option<&Flight>,
        attempt: AttemptId,
        negative: Negative,
    ) -> Vec<Record> {
        let Some(flight) = flight.filter(|flight| flight.unanswered.contains(&attempt)) else {
            return Vec::new();
        };
        let payment = &self.payments[ordinal.0 as usize];
        let mut records = vec![Record::Cleared { ordinal, attempt, negative }];
        let last = flight.unanswered.len() == 1 && !flight.sealed && !flight.surprised;
        let refused_here = negative == Negative::Refused || payment.is_refused_by(flight.processor);
        if last && refused_here && payment.is_refused_by(flight.processor.other()) {
            records.push(Record::Died { ordinal });
        }
        records
    }

    fn judge_tombstone(&self, report: &Report) -> Vec<Record> {
        let tombstone = &self.tombstones[&report.id];
        if tombstone.flight.processor != report.processor {
            return Vec::new();
        }
        match report.outcome {
            Outcome::Charged | Outcome::Duplicate | Outcome::Found { .. } if !tombstone.is_charged => {
                vec![Record::TombstoneCharged { id: report.id }]
            }
            Outcome::Busy
            | Outcome::Failing
            | Outcome::Unreachable
            | Outcome::HandedBack
            | Outcome::Misaddressed
            | Outcome::Refused
                if tombstone.flight.unanswered.contains(&report.attempt) =>
            {
                vec![Record::TombstoneCleared { id: report.id, attempt: report.attempt }]
            }
            _ => Vec::new(),
        }
    }
}
