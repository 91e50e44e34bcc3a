//! The whole ledger at one moment: what a snapshot of the log holds instead of all records before it.
//!
//! [`Ledger::freeze`] takes the moment: it shares the large arrays with the ledger that goes on, so it costs next to
//! nothing, and another thread writes it down. [`Replay::load`] reads it back into a ledger that goes on in the same way
//! as the one that was frozen. What follows from the rest is not written but built anew: the index, the queue, the tree
//! of the summary. The balance is both, and the two must agree.
//!
//! ```text
//!  last requestedAt | next attempt | world's first attempt | adjusted cents | count and cents of each standing
//!  payments:   count | id 16, cents 8, slot 4, standing 1, refused 1, conflicted 1      31 bytes each
//!  summary:    count | packed time 8, cents 8 | count | time 8, processor 1, cents 8, ordinal 4
//!  flights:    count | ordinal 4, flight
//!  dangling:   count | ordinal 4, flight
//!  tombstones: count | id 16, cents 8, charged 1, flight
//!  a flight:   processor 1, time 8, sealed 1, surprised 1, count 1, attempts of 8
//! ```
//!
//! The file around it carries the checksum. Any bytes can be given to [`Replay::load`]; those that contradict themselves
//! are refused.

use super::{Balance, Flight, Ledger, NO_SLOT, Payment, Standing, Tombstone, UNANSWERED_MAX};
use crate::core::chunked::Chunked;
use crate::core::fields::Fields;
use crate::core::queue::{Ordinal, Queue};
use crate::core::record::Record;
use crate::core::summary::{self, Foreign, Slot, Summary};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use wire::frame::Totals;
use wire::{Bounds, Cents, PaymentId, Processor, Timestamp};

/// Bytes of a payment in a snapshot.
const PAYMENT_BYTES: usize = 31;

/// The least that a flight takes.
const FLIGHT_BYTES_MIN: usize = 12;

/// Bytes that a snapshot has for each payment, its entry in the summary included: for an estimate.
pub const BYTES_PER_PAYMENT: usize = PAYMENT_BYTES + 16;

/// A ledger as it was at one moment.
#[derive(Debug)]
pub struct Frozen {
    payments: Chunked<Payment>,
    summary: summary::Frozen,
    flights: BTreeMap<Ordinal, Flight>,
    dangling: BTreeMap<Ordinal, Flight>,
    tombstones: BTreeMap<PaymentId, Tombstone>,
    balance: Balance,
    last_requested_at: Timestamp,
    next_attempt: u64,
    world_first_attempt: u64,
}

/// Bytes that are no snapshot of this version, or one that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what it holds contradicts itself")]
pub struct LoadError;

/// What a log is read into.
pub trait Replay {
    /// Becomes the ledger that was frozen into the next `len` bytes; bounds and secrets stay. Comes first, if at all.
    ///
    /// # Errors
    /// When they are no frozen ledger. Nothing has changed then.
    fn load(&mut self, ledger: impl Read, len: u64) -> Result<(), LoadError>;

    /// About so many payments are in the records that follow. No promise.
    fn expect(&mut self, _payments: usize) {}

    /// Takes the next record.
    fn add(&mut self, record: &Record);
}

impl Replay for Ledger {
    fn load(&mut self, ledger: impl Read, len: u64) -> Result<(), LoadError> {
        let fields = &mut Fields::new(ledger, len);
        let mut loaded = Self::new(self.payments_max, self.index.key());
        loaded.take(fields).filter(|()| fields.left() == 0).ok_or(LoadError)?;
        *self = loaded;
        Ok(())
    }

    fn expect(&mut self, payments: usize) {
        if self.payments.is_empty() {
            self.index.reserve(payments.min(self.payments_max));
        }
    }

    fn add(&mut self, record: &Record) {
        self.apply(record);
    }
}

impl Ledger {
    /// This moment, to be written down while the ledger goes on.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen {
            payments: self.payments.freeze(),
            summary: self.summary.freeze(),
            flights: self.flights.clone(),
            dangling: self.dangling.clone(),
            tombstones: self.tombstones.clone(),
            balance: self.balance,
            last_requested_at: self.last_requested_at,
            next_attempt: self.next_attempt,
            world_first_attempt: self.world_first_attempt,
        }
    }

    fn take(&mut self, fields: &mut Fields<impl Read>) -> Option<()> {
        self.last_requested_at = fields.time()?;
        self.next_attempt = fields.number()?;
        self.world_first_attempt = fields.number()?;
        let balance = take_balance(fields)?;
        self.take_payments(fields)?;
        self.summary = Summary::take(fields)?;
        self.flights = self.take_flights(fields)?;
        self.dangling = self.take_flights(fields)?;
        for _ in 0..fields.count(16 + 8 + 1 + FLIGHT_BYTES_MIN)? {
            let (id, cents, is_charged) = (fields.id()?, fields.cents()?, fields.flag()?);
            self.tombstones.insert(id, Tombstone { cents, is_charged, flight: take_flight(fields)? });
        }
        self.rebuild_queue();
        self.balance.adjusted_cents = balance.adjusted_cents;
        (self.balance == balance && self.is_consistent()).then_some(())
    }

    fn take_payments(&mut self, fields: &mut Fields<impl Read>) -> Option<()> {
        let count = fields.count(PAYMENT_BYTES)?;
        self.index.reserve(count);
        for number in 0..u32::try_from(count).ok()? {
            // One read for all of it: there are many.
            let payment = fields.take::<PAYMENT_BYTES>()?;
            let fields = &mut Fields::new(payment.as_slice(), PAYMENT_BYTES as u64);
            let (id, cents, slot) = (fields.id()?, fields.cents()?, Slot(fields.number_32()?));
            let standing = standing(fields.byte()?)?;
            let mut bits = || fields.byte().filter(|bits| *bits <= 0b11);
            let (refused, claims) = (bits()?, bits()?);
            let payments = &self.payments;
            self.index.insert(id, Ordinal(number), |ordinal| payments[ordinal.0 as usize].id);
            self.payments.push(Payment { id, cents, slot, standing, refused, claims });
            self.conflicts += u64::from(claims != 0);
            count_in(self.balance.of(standing), cents)?;
            count_in(&mut self.balance.accepted, cents)?;
        }
        Some(())
    }

    fn take_flights(&self, fields: &mut Fields<impl Read>) -> Option<BTreeMap<Ordinal, Flight>> {
        let mut flights = BTreeMap::new();
        for _ in 0..fields.count(4 + FLIGHT_BYTES_MIN)? {
            let ordinal = fields.ordinal().filter(|ordinal| (ordinal.0 as usize) < self.payments.len())?;
            flights.insert(ordinal, take_flight(fields)?);
        }
        Some(flights)
    }

    /// The queue follows from the states of the payments. Payments at the end that were never dispatched are a range.
    fn rebuild_queue(&mut self) {
        let is_untouched = |payment: &Payment| {
            payment.standing == Standing::Queued && payment.refused == 0 && payment.slot == NO_SLOT
        };
        let mut untouched = self.payments.len();
        while untouched > 0 && is_untouched(&self.payments[untouched - 1]) {
            untouched -= 1;
        }
        let ordinal = |at: usize| Ordinal(u32::try_from(at).expect("payments are counted in 32 bits"));
        self.queue = Queue::of(ordinal(untouched), ordinal(self.payments.len()));
        for at in 0..untouched {
            if self.payments[at].standing == Standing::Queued {
                self.put_back(ordinal(at));
            }
        }
    }

    /// What a ledger that came about by records always fulfils, and later code rests on.
    fn is_consistent(&self) -> bool {
        let has_slot = |payment: &&Payment| payment.slot != NO_SLOT;
        self.flights.len() as u64 == self.balance.in_flight.count
            && self.flights.keys().all(|ordinal| self.standing(*ordinal) == Standing::InFlight)
            && self.dangling.keys().all(|ordinal| matches!(self.standing(*ordinal), Standing::Charged(_)))
            && self
                .payments
                .iter()
                .filter(has_slot)
                .all(|payment| (payment.slot.0 as usize) < self.summary.len())
            && self.summary.foreign_charges(Bounds::default()).all(|foreign| self.is_charge(foreign))
            && self.world_first_attempt <= self.next_attempt
            && self.tombstones.keys().all(|id| self.find(*id).is_none())
    }

    fn is_charge(&self, foreign: &Foreign) -> bool {
        (foreign.ordinal.0 as usize) < self.payments.len()
            && self.standing(foreign.ordinal) == Standing::Charged(foreign.processor)
    }
}

fn take_balance(fields: &mut Fields<impl Read>) -> Option<Balance> {
    let mut balance = Balance { adjusted_cents: fields.cents()?, ..Balance::default() };
    balance.accepted = take_totals(fields)?;
    for standing in STANDINGS {
        *balance.of(standing) = take_totals(fields)?;
    }
    Some(balance)
}

fn count_in(totals: &mut Totals, cents: Cents) -> Option<()> {
    totals.count += 1;
    totals.cents.0 = totals.cents.0.checked_add(cents.0)?;
    Some(())
}

fn take_totals(fields: &mut Fields<impl Read>) -> Option<Totals> {
    Some(Totals { count: fields.number()?, cents: fields.cents()? })
}

fn take_flight(fields: &mut Fields<impl Read>) -> Option<Flight> {
    let (processor, requested_at) = (fields.processor()?, fields.time()?);
    let (sealed, surprised) = (fields.flag()?, fields.flag()?);
    let count = usize::from(fields.byte()?);
    if count > UNANSWERED_MAX {
        return None;
    }
    let unanswered = (0..count).map(|_| fields.attempt()).collect::<Option<_>>()?;
    Some(Flight { processor, requested_at, unanswered, sealed, surprised })
}

/// Every standing, by the number that it has in a snapshot.
const STANDINGS: [Standing; 5] = [
    Standing::Queued,
    Standing::InFlight,
    Standing::Charged(Processor::Default),
    Standing::Charged(Processor::Fallback),
    Standing::Dead,
];

fn standing(number: u8) -> Option<Standing> {
    STANDINGS.get(usize::from(number)).copied()
}

fn number(standing: Standing) -> u8 {
    match standing {
        Standing::Queued => 0,
        Standing::InFlight => 1,
        Standing::Charged(Processor::Default) => 2,
        Standing::Charged(Processor::Fallback) => 3,
        Standing::Dead => 4,
    }
}

impl Frozen {
    /// Writes the ledger down.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn put(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.last_requested_at.0.to_le_bytes())?;
        out.write_all(&self.next_attempt.to_le_bytes())?;
        out.write_all(&self.world_first_attempt.to_le_bytes())?;
        let mut balance = self.balance;
        out.write_all(&balance.adjusted_cents.0.to_le_bytes())?;
        put_totals(&balance.accepted, out)?;
        STANDINGS.into_iter().try_for_each(|standing| put_totals(balance.of(standing), out))?;
        put_count(self.payments.len(), out)?;
        for payment in self.payments.iter() {
            let mut bytes = [0; PAYMENT_BYTES];
            bytes[..16].copy_from_slice(&payment.id.0.to_le_bytes());
            bytes[16..24].copy_from_slice(&payment.cents.0.to_le_bytes());
            bytes[24..28].copy_from_slice(&payment.slot.0.to_le_bytes());
            bytes[28] = number(payment.standing);
            bytes[29] = payment.refused;
            bytes[30] = payment.claims;
            out.write_all(&bytes)?;
        }
        self.summary.put(out)?;
        for flights in [&self.flights, &self.dangling] {
            put_count(flights.len(), out)?;
            for (ordinal, flight) in flights {
                out.write_all(&ordinal.0.to_le_bytes())?;
                put_flight(flight, out)?;
            }
        }
        put_count(self.tombstones.len(), out)?;
        for (id, tombstone) in &self.tombstones {
            out.write_all(&id.0.to_le_bytes())?;
            out.write_all(&tombstone.cents.0.to_le_bytes())?;
            out.write_all(&[u8::from(tombstone.is_charged)])?;
            put_flight(&tombstone.flight, out)?;
        }
        Ok(())
    }
}

fn put_count(count: usize, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&u32::try_from(count).expect("fewer than payments").to_le_bytes())
}

fn put_totals(totals: &Totals, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&totals.count.to_le_bytes())?;
    out.write_all(&totals.cents.0.to_le_bytes())
}

fn put_flight(flight: &Flight, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[flight.processor as u8])?;
    out.write_all(&flight.requested_at.0.to_le_bytes())?;
    let count = u8::try_from(flight.unanswered.len()).expect("UNANSWERED_MAX fits");
    out.write_all(&[u8::from(flight.sealed), u8::from(flight.surprised), count])?;
    flight.unanswered.iter().try_for_each(|attempt| out.write_all(&attempt.0.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::record::{Negative, Terms};
    use proptest::prelude::*;
    use wire::frame::AttemptId;

    const KEY: [u64; 2] = [3, 5];

    fn bytes_of(ledger: &Ledger) -> Vec<u8> {
        let mut bytes = Vec::new();
        ledger.freeze().put(&mut bytes).expect("a vector takes everything");
        bytes
    }

    fn load(ledger: &mut Ledger, bytes: &[u8]) -> Result<(), LoadError> {
        ledger.load(bytes, bytes.len() as u64)
    }

    /// A ledger with something in every place, made by records.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(1000, KEY);
        let mut attempt = 0;
        let mut intend = |ledger: &mut Ledger, ordinal, processor| {
            attempt += 1;
            let (record, _) = ledger.intend(Ordinal(ordinal), processor, 1_000 + attempt);
            ledger.apply(&record);
            AttemptId(attempt)
        };
        let accept = |ledger: &mut Ledger, number: u128| {
            ledger.apply(&Record::Accepted { id: PaymentId(number), cents: Cents(100) });
        };
        // What a purge leaves: a tombstone without an answer, and one that was charged while another had none.
        (0..2).for_each(|number| accept(&mut ledger, 900 + number));
        intend(&mut ledger, 0, Processor::Default);
        intend(&mut ledger, 1, Processor::Fallback);
        intend(&mut ledger, 1, Processor::Fallback);
        let ours = Terms::Ours;
        ledger.apply(&Record::Charged { ordinal: Ordinal(1), processor: Processor::Fallback, terms: ours });
        ledger.apply(&Record::Purged);
        (0..9).for_each(|number| accept(&mut ledger, number));
        intend(&mut ledger, 0, Processor::Default);
        ledger.apply(&Record::Charged { ordinal: Ordinal(0), processor: Processor::Default, terms: ours });
        intend(&mut ledger, 1, Processor::Default);
        ledger.apply(&Record::Surprised { ordinal: Ordinal(1) });
        for processor in Processor::BOTH {
            for (ordinal, negative) in [(2, Negative::Refused), (3, Negative::NotNow)] {
                let attempt = intend(&mut ledger, ordinal, processor);
                ledger.apply(&Record::Cleared { ordinal: Ordinal(ordinal), attempt, negative });
            }
        }
        ledger.apply(&Record::Died { ordinal: Ordinal(2) });
        let attempt = intend(&mut ledger, 4, Processor::Default);
        ledger.apply(&Record::Cleared { ordinal: Ordinal(4), attempt, negative: Negative::Refused });
        intend(&mut ledger, 5, Processor::Fallback);
        intend(&mut ledger, 5, Processor::Fallback);
        let theirs = Terms::Theirs { requested_at: Timestamp::from_ms(700), cents: Cents(99) };
        ledger.apply(&Record::Charged { ordinal: Ordinal(5), processor: Processor::Fallback, terms: theirs });
        ledger.apply(&Record::Conflicted { ordinal: Ordinal(5), processor: Processor::Fallback });
        intend(&mut ledger, 6, Processor::Fallback);
        ledger
    }

    #[test]
    fn a_loaded_ledger_equals_the_saved_one() {
        let before = ledger();
        let mut after = Ledger::new(1000, KEY);
        load(&mut after, &bytes_of(&before)).expect("what was written is read");
        assert_eq!(bytes_of(&after), bytes_of(&before));
        assert_eq!(after.balance(), before.balance());
        assert_eq!(after.conflicts(), before.conflicts());
        assert_eq!(
            after.summary.window(wire::Bounds::default()),
            before.summary.window(wire::Bounds::default())
        );
        let waiting = |mut ledger: Ledger| {
            let mut free = Vec::new();
            while let Some(ordinal) = ledger.queue.first_free() {
                ledger.queue.take(ordinal);
                free.push(ordinal);
            }
            (free, Processor::BOTH.map(|processor| ledger.queue.first_bound(processor)))
        };
        assert_eq!(waiting(after), waiting(before));
    }

    #[test]
    fn the_frozen_moment_stays_while_the_ledger_goes_on() {
        let mut ledger = ledger();
        let (frozen, before) = (ledger.freeze(), bytes_of(&ledger));
        let record = ledger.intend(Ordinal(7), Processor::Default, 5_000).0;
        ledger.apply(&record);
        ledger.apply(&Record::Accepted { id: PaymentId(77), cents: Cents(5) });
        let mut bytes = Vec::new();
        frozen.put(&mut bytes).unwrap();
        assert!(bytes == before && bytes != bytes_of(&ledger));
    }

    #[test]
    fn a_cut_snapshot_is_refused_at_any_byte() {
        let bytes = bytes_of(&ledger());
        for len in 0..bytes.len() {
            assert_eq!(load(&mut Ledger::new(1000, KEY), &bytes[..len]), Err(LoadError), "cut at {len}");
        }
    }

    proptest! {
        #[test]
        fn mutated_bytes_are_a_ledger_or_refused(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = bytes_of(&ledger());
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut loaded = Ledger::new(1000, KEY);
            if load(&mut loaded, &bytes).is_ok() {
                prop_assert!(loaded.balance().adds_up());
            }
        }
    }
}
