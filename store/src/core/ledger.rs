//! What is known about every payment, and what may be done with it (docs/money.md).
//!
//! ```text
//!   ABSENT --accept--> QUEUED --intent--> IN FLIGHT on P under R --positive--> CHARGED by P
//!                        ^                   |  pinned to P while any attempt has no negative answer of its own
//!                        '-- all negative ---'
//!   QUEUED, refused for good by both --> DEAD           purge --> ABSENT, and a tombstone for each one in flight
//! ```
//!
//! A payment in flight has a [`Flight`]: its processor, its time and the attempts without an answer. Whether a call is
//! still open (open, or unknown) is not here: that is about apis, dies with the process, and changes no
//! verdict. The ledger changes only by [`Ledger::apply`], in operation and in recovery alike; what it decides
//! (`judgement`), it decides from what was recorded.
//!
//! Memory: 32 bytes for a payment, 16 and 1 for its time in the summary, 6 to 12 in the index, and an eighth of the
//! summary for times under which nothing is charged: at most [`PAYMENT_BYTES`]. Payments in flight and tombstones take as much
//! as several payments, and count as such against `payments_max`.

mod books;
pub mod judgement;
pub mod snapshot;

use super::chunked::Chunked;
use super::index::{self, Index};
use super::mutant::{self, Mutant};
use super::queue::{Ordinal, Queue};
use super::record::{Negative, Record, Terms};
use super::summary::{BLOCK_LEN, BLOCK_MEMORY_BYTES, FOREIGN_MEMORY_BYTES, Slot, Summary};
use std::collections::BTreeMap;
use wire::frame::{AttemptId, Totals};
use wire::money::AMOUNT_MAX;
use wire::{Cents, PaymentId, PerProcessor, Processor, Timestamp};

/// How many unanswered attempts one payment lists. Beyond it the oldest is taken as unanswerable: the payment stays
/// pinned until a positive answer, which is what an attempt without an answer means anyway.
const UNANSWERED_MAX: usize = 16;

/// Charged payments whose other attempts are remembered, some 150 bytes each. Each lost api leaves as many as it had
/// calls.
const DANGLING_MAX: usize = 65_536;

/// So many entries of the summary are always allowed of which no payment is charged or in flight.
const IDLE_SLOTS_MAX: usize = 1 << 16;

/// Beyond them, one entry of so many. More are forgotten in one go, some 20 ms for a million: what a processor refuses
/// again and again takes no memory for ever.
const IDLE_SLOTS_SHARE: usize = 8;

/// The most payments that a ledger can hold: the sum of so many amounts still fits into 64 bits.
pub const PAYMENTS_MOST: u64 = i64::MAX.unsigned_abs() / AMOUNT_MAX.0.unsigned_abs();

const _: () = assert!(PAYMENTS_MOST < NO_SLOT.0 as u64);

/// The most memory that a payment takes, in bytes, everything included, at the worst mix of leases and the worst moment of
/// the index.
pub const PAYMENT_BYTES: usize = {
    // Parts of a byte count, over a common denominator.
    let summary = BLOCK_MEMORY_BYTES * IDLE_SLOTS_SHARE * index::WORST_LEN;
    let over = BLOCK_LEN * (IDLE_SLOTS_SHARE - 1) * index::WORST_LEN;
    let index = index::WORST_BYTES * BLOCK_LEN * (IDLE_SLOTS_SHARE - 1);
    (size_of::<Payment>() + (summary + index).div_ceil(over)).next_multiple_of(8)
};

/// The goal of the project.
const _: () = assert!(PAYMENT_BYTES <= 64);

/// A payment in flight, or charged with another attempt without an answer, takes as much as so many more.
const FLIGHT_PAYMENTS: usize = 3;

/// A tombstone takes as much as so many payments.
const TOMBSTONE_PAYMENTS: usize = 4;

const _: () = assert!(2 * FOREIGN_MEMORY_BYTES <= PAYMENT_BYTES);

/// As much as so many payments is not counted: what is in flight while all goes well.
pub const UNCOUNTED_PAYMENTS: usize = 1 << 13;

/// Memory of an entry of a `BTreeMap` in bytes at its worst: 5 of 11 places in use, and a sixth of that for inner nodes.
const fn btree_entry_bytes(entry: usize) -> usize {
    (11 * entry + 16) / 5 * 7 / 6
}

/// The least that the allocator gives for the list of a flight's attempts.
const ATTEMPTS_BYTES: usize = 32;

/// When the core last asked for a payment, and its place in a list of those that wait.
const FLIGHT_NOTES_BYTES: usize = btree_entry_bytes(size_of::<(Ordinal, u64)>()) / 2;

const _: () = assert!(
    btree_entry_bytes(size_of::<(Ordinal, Flight)>()) + ATTEMPTS_BYTES + FLIGHT_NOTES_BYTES
        <= FLIGHT_PAYMENTS * PAYMENT_BYTES
);
const _: () = assert!(
    btree_entry_bytes(size_of::<(PaymentId, Tombstone)>()) + ATTEMPTS_BYTES
        <= TOMBSTONE_PAYMENTS * PAYMENT_BYTES
);

/// What our durable evidence says about one processor: `verdict(id, P)` in docs/money.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds no row with this id.
    No,
    /// It may.
    Maybe,
    /// It does.
    Yes,
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Accepted; no attempt without a negative answer.
    Queued,
    /// An attempt is open or unknown.
    InFlight,
    /// Recorded by this processor.
    Charged(Processor),
    /// Refused for good by both.
    Dead,
}

/// One payment, 32 bytes.
#[derive(Clone, Debug)]
struct Payment {
    id: PaymentId,
    cents: Cents,
    /// Its place in the summary: that of the last fresh intent, or [`NO_SLOT`].
    slot: Slot,
    standing: Standing,
    /// One bit for each processor that refused it for good.
    refused: u8,
    /// One bit for each processor whose claim contradicts the rest of the evidence.
    claims: u8,
}

const _: () = assert!(size_of::<Payment>() == 32);

/// No time was issued for this payment since the last purge.
const NO_SLOT: Slot = Slot(u32::MAX);

impl Payment {
    fn is_refused_by(&self, processor: Processor) -> bool {
        self.refused & (1 << processor as u8) != 0
    }

    fn is_claimed_by(&self, processor: Processor) -> bool {
        self.claims & (1 << processor as u8) != 0
    }
}

/// The attempts of a payment in flight that have no answer of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// The only processor that any byte of it may go to.
    pub processor: Processor,
    /// The only time that any attempt may carry (`same_amount_same_time`).
    pub requested_at: Timestamp,
    /// Attempts that may have charged it, oldest first.
    pub unanswered: Vec<AttemptId>,
    /// An attempt left `unanswered` without an answer: no negative answer unpins any more.
    sealed: bool,
    /// The processor holds a row that is not of these attempts: only what it holds settles the payment.
    pub surprised: bool,
}

/// What a purge left behind of a payment in flight: it is never counted, but it still pins its id.
#[derive(Clone, Debug)]
pub struct Tombstone {
    /// Its amount.
    pub cents: Cents,
    /// Its attempts.
    pub flight: Flight,
    /// It was charged, in the world before. Until the next purge its id still belongs to that processor, lest the same id
    /// be recorded on both.
    pub is_charged: bool,
}

/// Count and sum of the payments in each standing (`accepted_is_the_sum`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// All that got a 2xx since the last purge.
    pub accepted: Totals,
    /// Waiting.
    pub queued: Totals,
    /// Open or unknown.
    pub in_flight: Totals,
    /// Settled, with the amounts that we accepted.
    pub charged: PerProcessor<Totals>,
    /// Refused by both.
    pub dead: Totals,
    /// What processors hold beyond (or below) the amounts that we sent, in cents.
    pub adjusted_cents: Cents,
}

impl Balance {
    fn of(&mut self, standing: Standing) -> &mut Totals {
        match standing {
            Standing::Queued => &mut self.queued,
            Standing::InFlight => &mut self.in_flight,
            Standing::Charged(processor) => &mut self.charged[processor],
            Standing::Dead => &mut self.dead,
        }
    }

    fn shift(&mut self, from: Standing, to: Standing, cents: Cents) {
        let left = self.of(from);
        left.count -= 1;
        left.cents.0 -= cents.0;
        let entered = self.of(to);
        entered.count += 1;
        entered.cents.0 += cents.0;
    }

    /// True when every accepted payment stands somewhere, and only once.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let parts = [
            self.queued,
            self.in_flight,
            self.charged[Processor::Default],
            self.charged[Processor::Fallback],
            self.dead,
        ];
        let count: u64 = parts.iter().map(|part| part.count).sum();
        let cents: i64 = parts.iter().map(|part| part.cents.0).sum();
        count == self.accepted.count && cents == self.accepted.cents.0
    }
}

/// Every payment since the last purge.
#[derive(Debug)]
pub struct Ledger {
    payments: Chunked<Payment>,
    payments_max: usize,
    index: Index,
    /// The waiting payments. The ledger keeps it in step with the standings.
    pub queue: Queue,
    /// The charges by time.
    pub summary: Summary,
    flights: BTreeMap<Ordinal, Flight>,
    tombstones: BTreeMap<PaymentId, Tombstone>,
    /// Payments that were charged while another attempt of theirs had no answer: it may still arrive, and after a purge
    /// find the id free. The oldest are forgotten beyond [`DANGLING_MAX`].
    dangling: BTreeMap<Ordinal, Flight>,
    balance: Balance,
    last_requested_at: Timestamp,
    next_attempt: u64,
    /// Attempts before this one are of a world that a purge has ended.
    world_first_attempt: u64,
    conflicts: u64,
}

impl Ledger {
    /// An empty ledger for at most `payments_max` payments between two purges. `key` makes the index unforeseeable.
    #[must_use]
    pub fn new(payments_max: usize, key: [u64; 2]) -> Self {
        Self {
            payments: Chunked::default(),
            payments_max: payments_max.min(usize::try_from(PAYMENTS_MOST).unwrap_or(usize::MAX)),
            index: Index::new(key),
            queue: Queue::default(),
            summary: Summary::default(),
            flights: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            dangling: BTreeMap::new(),
            balance: Balance::default(),
            last_requested_at: Timestamp(0),
            next_attempt: 1,
            world_first_attempt: 1,
            conflicts: 0,
        }
    }

    // What is known.

    /// Count and sum by standing.
    #[must_use]
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// The last `requestedAt` that was issued.
    #[must_use]
    pub fn last_requested_at(&self) -> Timestamp {
        self.last_requested_at
    }

    /// Payments whose evidence contradicts itself.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// How many payments are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payments.len()
    }

    /// How many payments fit into the memory that everything takes here: those that are remembered, and what is in flight, adopted
    /// from a processor or left by a purge.
    #[must_use]
    pub fn len_by_memory(&self) -> usize {
        let flights = self.flights.len() + self.dangling.len();
        let others = flights * FLIGHT_PAYMENTS + self.tombstones.len() * TOMBSTONE_PAYMENTS;
        // A row of a processor's own takes at most as much as one more payment.
        let others = others + self.summary.foreign_len();
        self.payments.len() + others.saturating_sub(UNCOUNTED_PAYMENTS)
    }

    /// Payments that may be remembered, by memory.
    #[must_use]
    pub fn payments_max(&self) -> usize {
        self.payments_max
    }

    /// True after a start without a log, and after a purge.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payments.is_empty()
    }

    /// What a purge left behind and no answer has settled.
    #[must_use]
    pub fn tombstones(&self) -> &BTreeMap<PaymentId, Tombstone> {
        &self.tombstones
    }

    /// The payments in flight.
    #[must_use]
    pub fn flights(&self) -> &BTreeMap<Ordinal, Flight> {
        &self.flights
    }

    /// The id of a payment.
    #[must_use]
    pub fn id(&self, ordinal: Ordinal) -> PaymentId {
        self.payments[ordinal.0 as usize].id
    }

    /// The amount of a payment.
    #[must_use]
    pub fn cents(&self, ordinal: Ordinal) -> Cents {
        self.payments[ordinal.0 as usize].cents
    }

    /// Where a payment stands.
    #[must_use]
    pub fn standing(&self, ordinal: Ordinal) -> Standing {
        self.payments[ordinal.0 as usize].standing
    }

    /// The ordinal of a payment of the present world.
    #[must_use]
    pub fn find(&self, id: PaymentId) -> Option<Ordinal> {
        self.index.find(id, |ordinal| self.payments[ordinal.0 as usize].id)
    }

    /// What our evidence says about `processor` and this payment.
    #[must_use]
    pub fn verdict(&self, ordinal: Ordinal, processor: Processor) -> Verdict {
        if self.standing(ordinal) == Standing::Charged(processor) {
            return Verdict::Yes;
        }
        match self.flights.get(&ordinal) {
            Some(flight) if flight.processor == processor => Verdict::Maybe,
            _ => Verdict::No,
        }
    }

    /// The move rule: a payment may go to a processor only when every attempt ever made on the other one has its own
    /// final negative answer, and neither has charged it.
    #[must_use]
    pub fn may_send(&self, ordinal: Ordinal, processor: Processor) -> bool {
        let refused = self.payments[ordinal.0 as usize].is_refused_by(processor);
        self.verdict(ordinal, processor.other()) == Verdict::No
            && match self.verdict(ordinal, processor) {
                Verdict::No => !refused && self.standing(ordinal) == Standing::Queued,
                Verdict::Maybe => true,
                Verdict::Yes => false,
            }
    }

    /// True when posting a payment in flight again can bring nothing: the processor held it without our doing, so that
    /// only what it holds counts, or has refused it for good since. Such a payment is only asked for.
    #[must_use]
    pub fn is_only_asked_for(&self, ordinal: Ordinal) -> bool {
        let payment = &self.payments[ordinal.0 as usize];
        self.flights
            .get(&ordinal)
            .is_some_and(|flight| flight.surprised || payment.is_refused_by(flight.processor))
    }

    /// True when the evidence about a payment contradicts itself.
    #[must_use]
    pub fn is_conflicted(&self, ordinal: Ordinal) -> bool {
        self.payments[ordinal.0 as usize].claims != 0
    }

    /// True when what this processor claims of a payment contradicts the rest of the evidence: that it charged a dead letter,
    /// or one that the other one charged, or with another amount.
    #[must_use]
    pub fn is_claimed_by(&self, ordinal: Ordinal, processor: Processor) -> bool {
        self.payments[ordinal.0 as usize].is_claimed_by(processor)
    }

    /// True when this processor refused a payment for good.
    #[must_use]
    pub fn is_refused_by(&self, ordinal: Ordinal, processor: Processor) -> bool {
        self.payments[ordinal.0 as usize].is_refused_by(processor)
    }

    /// True when both processors refused a payment for good: with its last attempt cleared it dies.
    #[must_use]
    pub fn is_refused_by_both(&self, ordinal: Ordinal) -> bool {
        self.payments[ordinal.0 as usize].refused == 0b11
    }

    // What changes.

    /// Takes a fact into memory. It was decided before; here it only happens.
    ///
    /// # Panics
    /// When it contradicts an invariant: then either the code or the log is broken, and going on would cost money.
    pub fn apply(&mut self, record: &Record) {
        match *record {
            Record::Accepted { id, cents } => self.apply_accepted(id, cents),
            Record::Intended { ordinal, attempt, processor, requested_at } => {
                self.apply_intended(ordinal, attempt, processor, requested_at);
            }
            Record::Cleared { ordinal, attempt, negative } => self.apply_cleared(ordinal, attempt, negative),
            Record::Charged { ordinal, processor, terms } => self.apply_charged(ordinal, processor, terms),
            Record::Surprised { ordinal } => {
                self.flights.get_mut(&ordinal).expect("a surprise is about a payment in flight").surprised =
                    true;
                self.queue.take(ordinal);
            }
            Record::Conflicted { ordinal, processor } => self.apply_conflicted(ordinal, processor),
            Record::Died { ordinal } => {
                assert_eq!(self.standing(ordinal), Standing::Queued, "only a queued payment dies");
                assert!(self.is_refused_by_both(ordinal), "a dead letter was refused by both");
                self.queue.take(ordinal);
                self.stand(ordinal, Standing::Dead);
            }
            Record::Purged => self.apply_purged(),
            Record::TombstoneCleared { id, attempt } => {
                let tombstone = self.tombstones.get_mut(&id).expect("an attempt was cleared on a tombstone");
                if clear(&mut tombstone.flight, attempt) && !tombstone.is_charged {
                    self.tombstones.remove(&id);
                }
            }
            Record::TombstoneCharged { id } => {
                self.tombstones.get_mut(&id).expect("a tombstone was charged").is_charged = true;
            }
            Record::Resolved { ordinal } if self.standing(ordinal) == Standing::Dead => {
                self.payments[ordinal.0 as usize].claims = 0;
                self.conflicts -= 1;
            }
            Record::Resolved { ordinal } => {
                self.flights.remove(&ordinal).expect("an operator resolves a payment in flight");
                self.requeue(ordinal);
            }
            Record::TombstoneResolved { id } => {
                let resolved = self.tombstones.remove(&id).expect("an operator resolves a tombstone");
                assert!(!resolved.is_charged, "charged is final");
            }
            Record::Revived { ordinal } => {
                assert_eq!(self.standing(ordinal), Standing::Dead, "only a dead letter is sent again");
                self.payments[ordinal.0 as usize].refused = 0;
                self.requeue(ordinal);
            }
        }
    }

    fn apply_accepted(&mut self, id: PaymentId, cents: Cents) {
        assert!(cents.is_payable(), "an accepted amount is in its range");
        let ordinal = Ordinal(u32::try_from(self.payments.len()).expect("payments_max is below 2^32"));
        let payments = &self.payments;
        // While the shard grows it asks for the ids of the payments before; the new one is not among them.
        self.index.insert(id, ordinal, |ordinal| payments[ordinal.0 as usize].id);
        let standing = Standing::Queued;
        self.payments.push(Payment { id, cents, slot: NO_SLOT, standing, refused: 0, claims: 0 });
        self.queue.push(ordinal);
        for totals in [&mut self.balance.accepted, &mut self.balance.queued] {
            totals.count += 1;
            totals.cents.0 += cents.0;
        }
        if let Some(tombstone) = self.tombstones.remove(&id) {
            assert_eq!(tombstone.cents, cents, "a payment born from a tombstone has its amount");
            self.queue.take(ordinal);
            self.flights.insert(ordinal, tombstone.flight);
            self.stand(ordinal, Standing::InFlight);
        }
    }

    fn apply_intended(
        &mut self,
        ordinal: Ordinal,
        attempt: AttemptId,
        processor: Processor,
        requested_at: Timestamp,
    ) {
        assert!(self.may_send(ordinal, processor), "an intent against the move rule");
        assert!(attempt.0 >= self.next_attempt, "attempt numbers only grow");
        self.next_attempt = attempt.0 + 1;
        self.queue.take(ordinal);
        if let Some(flight) = self.flights.get_mut(&ordinal) {
            if mutant::is(Mutant::FreshTimeWhileUnknown) {
                flight.requested_at = requested_at;
            }
            assert_eq!(flight.requested_at, requested_at, "one time while the verdict is not no");
            if flight.unanswered.len() == UNANSWERED_MAX {
                flight.unanswered.remove(0);
                flight.sealed = true;
            }
            flight.unanswered.push(attempt);
            return;
        }
        assert!(requested_at >= self.last_requested_at, "requestedAt never goes back");
        self.last_requested_at = requested_at;
        self.compact_summary();
        self.payments[ordinal.0 as usize].slot = self.summary.issue(requested_at);
        let flight =
            Flight { processor, requested_at, unanswered: vec![attempt], sealed: false, surprised: false };
        self.flights.insert(ordinal, flight);
        self.stand(ordinal, Standing::InFlight);
    }

    fn compact_summary(&mut self) {
        let idle = self.summary.uncharged_len().saturating_sub(self.flights.len());
        let is_due = idle > IDLE_SLOTS_MAX && idle * IDLE_SLOTS_SHARE > self.summary.len();
        // A snapshot that is being written would cost a copy of everything that moves. It takes seconds.
        if !is_due || self.summary.is_shared() {
            return;
        }
        let in_flight = self.flights.keys().map(|ordinal| &self.payments[ordinal.0 as usize]);
        // An operator may find that one of these was charged.
        let claimed =
            self.payments.iter().filter(|payment| payment.standing == Standing::Dead && payment.claims != 0);
        let slots = in_flight.chain(claimed).map(|payment| payment.slot);
        let mut kept: Vec<Slot> = slots.filter(|slot| *slot != NO_SLOT).collect();
        kept.sort_unstable();
        let moved = self.summary.compact(&kept);
        for at in 0..self.payments.len() {
            let slot = self.payments[at].slot;
            if slot != NO_SLOT {
                let new_slot = moved.new_slot(slot).unwrap_or(NO_SLOT);
                if new_slot != slot {
                    self.payments[at].slot = new_slot;
                }
            }
        }
    }

    fn apply_cleared(&mut self, ordinal: Ordinal, attempt: AttemptId, negative: Negative) {
        let flight = self.flights.get_mut(&ordinal).expect("an attempt was cleared on a payment in flight");
        let processor = flight.processor;
        if negative == Negative::Refused {
            self.payments[ordinal.0 as usize].refused |= 1 << processor as u8;
        }
        if !clear(flight, attempt) {
            return;
        }
        self.flights.remove(&ordinal);
        self.requeue(ordinal);
    }

    /// Puts a payment into the queue of its processors.
    fn requeue(&mut self, ordinal: Ordinal) {
        self.stand(ordinal, Standing::Queued);
        // It may have stood there to be repeated.
        self.queue.take(ordinal);
        self.put_back(ordinal);
    }

    fn put_back(&mut self, ordinal: Ordinal) {
        let payment = &self.payments[ordinal.0 as usize];
        match Processor::BOTH.map(|processor| payment.is_refused_by(processor)) {
            [false, false] => self.queue.put_back(ordinal),
            [true, false] => self.queue.bind(ordinal, Processor::Fallback),
            [false, true] => self.queue.bind(ordinal, Processor::Default),
            // A record that it died follows.
            [true, true] => (),
        }
    }

    fn apply_charged(&mut self, ordinal: Ordinal, processor: Processor, terms: Terms) {
        match self.standing(ordinal) {
            Standing::Charged(_) => panic!("charged is final"),
            Standing::Dead => {
                assert!(self.is_claimed_by(ordinal, processor), "dead is final without a claim");
            }
            Standing::Queued | Standing::InFlight => (),
        }
        self.queue.take(ordinal);
        let flight = self.flights.remove(&ordinal);
        // Its other attempts, or those at the other processor, may still arrive.
        let leaves_some =
            |flight: &&Flight| flight.sealed || flight.unanswered.len() > 1 || flight.processor != processor;
        if let Some(flight) = flight.as_ref().filter(leaves_some) {
            self.dangling.insert(ordinal, flight.clone());
            if self.dangling.len() > DANGLING_MAX {
                self.dangling.pop_first();
            }
        }
        let Payment { cents, slot, .. } = self.payments[ordinal.0 as usize];
        match (terms, flight) {
            (Terms::Theirs { requested_at, cents: theirs }, _) => {
                self.balance.adjusted_cents.0 += theirs.0 - cents.0;
                self.summary.charge_foreign(requested_at, processor, theirs, ordinal);
            }
            (Terms::Ours, _) if slot != NO_SLOT => self.summary.charge(slot, processor, cents),
            (Terms::Ours, flight) => {
                let requested_at = flight.map_or(self.last_requested_at, |flight| flight.requested_at);
                self.summary.charge_foreign(requested_at, processor, cents, ordinal);
            }
        }
        self.stand(ordinal, Standing::Charged(processor));
    }

    fn apply_conflicted(&mut self, ordinal: Ordinal, processor: Processor) {
        let payment = &mut self.payments[ordinal.0 as usize];
        self.conflicts += u64::from(payment.claims == 0);
        payment.claims |= 1 << processor as u8;
    }

    fn apply_purged(&mut self) {
        self.tombstones.retain(|_, tombstone| !tombstone.is_charged);
        let flights =
            std::mem::take(&mut self.flights).into_iter().map(|(ordinal, flight)| (ordinal, flight, false));
        let dangling =
            std::mem::take(&mut self.dangling).into_iter().map(|(ordinal, flight)| (ordinal, flight, true));
        for (ordinal, flight, is_charged) in flights.chain(dangling) {
            let Payment { id, cents, .. } = self.payments[ordinal.0 as usize];
            self.tombstones.insert(id, Tombstone { cents, flight, is_charged });
        }
        self.payments = Chunked::default();
        self.index.clear();
        self.queue = Queue::default();
        self.summary = Summary::default();
        self.balance = Balance::default();
        self.world_first_attempt = self.next_attempt;
        self.conflicts = 0;
    }

    /// Lets the queue offer a payment in flight again, to its own processor, when no call of it is open.
    pub fn offer_again(&mut self, ordinal: Ordinal) {
        let processor = self.flights[&ordinal].processor;
        self.queue.bind(ordinal, processor);
    }

    fn stand(&mut self, ordinal: Ordinal, standing: Standing) {
        let payment = &mut self.payments[ordinal.0 as usize];
        self.balance.shift(payment.standing, standing, payment.cents);
        payment.standing = standing;
        assert!(self.balance.adds_up(), "every accepted payment stands in exactly one place");
    }
}

/// Strikes an attempt off. True when the verdict on its processor is no from now on.
fn clear(flight: &mut Flight, attempt: AttemptId) -> bool {
    flight.unanswered.retain(|other| *other != attempt);
    flight.unanswered.is_empty() && !flight.sealed && !flight.surprised
}
