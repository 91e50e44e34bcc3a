//! What the ledger knows about a window of `requestedAt`, for a comparison with a processor's own books. Nothing changes
//! here.
//!
//! [`Ledger::books`] gives count and sum; [`Ledger::charges`] gives the payments behind them, page by page. The time of a
//! charge is that of its payment's entry in the summary, or stands in the summary's list of foreign charges.
//!
//! A window below `now` gets no new attempt (`time_never_goes_back`). Beyond what is charged there, a processor may hold the
//! payments that have an attempt without an answer, and what a purge left behind of such payments.
//!
//! One page looks at [`SCAN_LEN`] payments and lists at most [`CHARGES_MAX`] of them, in about half a millisecond: an
//! operator's command does not delay payments.

use super::{Flight, Ledger, Standing};
use crate::core::queue::Ordinal;
use std::collections::BTreeMap;
use wire::frame::{CHARGES_MAX, Charge, Window};
use wire::{Bounds, PerProcessor, Processor, Timestamp};

/// Payments that are looked at for one page, and unanswered payments that are looked at for one window.
const SCAN_LEN: usize = 65_536;

impl Ledger {
    /// What is known about a window. `now` is the wall clock.
    #[must_use]
    pub fn books(&self, now: Timestamp, bounds: Bounds) -> Window {
        Window {
            now,
            world: self.world_first_attempt,
            first: self.summary.first(bounds),
            charged: self.summary.window(bounds),
            in_flight: self.unanswered_in(bounds),
        }
    }

    /// Beyond [`SCAN_LEN`] unanswered payments all of them are counted in every window, and for both processors: the
    /// number is never too low.
    fn unanswered_in(&self, bounds: Bounds) -> PerProcessor<u64> {
        let len = self.flights.len() + self.tombstones.len();
        if len > SCAN_LEN {
            return PerProcessor([len as u64; 2]);
        }
        // What a surprised payment found at its processor may have any time.
        let is_inside = |flight: &&Flight| flight.surprised || bounds.contains(flight.requested_at);
        let tombstones = self.tombstones.values().map(|tombstone| &tombstone.flight);
        let mut count = PerProcessor([0; 2]);
        for flight in self.flights.values().chain(tombstones).filter(is_inside) {
            count[flight.processor] += 1;
        }
        count
    }

    /// Some of the charges of `processor` inside a window, in the order of their payments' accepts, beginning with payment
    /// `from`; and the `from` of the next page, `None` at the end.
    #[must_use]
    pub fn charges(&self, processor: Processor, bounds: Bounds, from: u32) -> (Vec<Charge>, Option<u32>) {
        let entries = self.summary.entries(bounds);
        let start = from as usize;
        let stop = start.saturating_add(SCAN_LEN).min(self.payments.len());
        let foreign = self.summary.foreign_charges(bounds).map(|foreign| (foreign.ordinal, foreign));
        let foreign: BTreeMap<Ordinal, _> =
            foreign.filter(|(ordinal, _)| (start..stop).contains(&(ordinal.0 as usize))).collect();
        let number = |at: usize| u32::try_from(at).expect("payments are counted in 32 bits");
        let mut charges = Vec::new();
        for at in start..stop {
            let payment = &self.payments[at];
            if payment.standing != Standing::Charged(processor) {
                continue;
            }
            let is_issued =
                entries.contains(&(payment.slot.0 as usize)) && self.summary.is_charged(payment.slot);
            let (requested_at, cents) = match foreign.get(&Ordinal(number(at))) {
                Some(foreign) => (foreign.requested_at, foreign.cents),
                None if is_issued => (self.summary.requested_at(payment.slot), payment.cents),
                None => continue,
            };
            if charges.len() == CHARGES_MAX {
                return (charges, Some(number(at)));
            }
            charges.push(Charge { id: payment.id, cents, requested_at });
        }
        (charges, (stop < self.payments.len()).then(|| number(stop)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::snapshot::Replay;
    use crate::core::record::{Negative, Record, Terms};
    use proptest::prelude::*;
    use wire::frame::{AttemptId, Totals};
    use wire::{Cents, PaymentId};

    const KEY: [u64; 2] = [3, 5];

    /// A ledger made by records, and the same facts as lists.
    struct World {
        ledger: Ledger,
        ms: u64,
        attempts: u64,
        charges: Vec<(Processor, Charge)>,
        unanswered: Vec<(Processor, Option<Timestamp>)>,
    }

    /// What becomes of a payment.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Queued,
        InFlight,
        Surprised,
        Charged,
        ChargedAtSecond,
        Adopted { ms: u64, cents: i64 },
    }

    impl World {
        fn new(payments_max: usize) -> Self {
            let ledger = Ledger::new(payments_max, KEY);
            Self { ledger, ms: 1_000, attempts: 0, charges: Vec::new(), unanswered: Vec::new() }
        }

        fn intend(&mut self, ordinal: Ordinal, processor: Processor) -> Timestamp {
            self.attempts += 1;
            let (record, _) = self.ledger.intend(ordinal, processor, self.ms);
            self.ledger.apply(&record);
            Timestamp::from_ms(self.ms)
        }

        fn charge(&mut self, ordinal: Ordinal, processor: Processor, terms: Terms, charge: Charge) {
            self.ledger.apply(&Record::Charged { ordinal, processor, terms });
            self.charges.push((processor, charge));
        }

        fn add(&mut self, number: u32, processor: Processor, step_ms: u64, fate: Fate) {
            let (ordinal, id) = (Ordinal(number), PaymentId(u128::from(number) + 1));
            let cents = Cents(i64::from(number) + 1);
            self.ledger.apply(&Record::Accepted { id, cents });
            self.ms += step_ms;
            if matches!(fate, Fate::Queued) {
                return;
            }
            let mut requested_at = self.intend(ordinal, processor);
            let charge = Charge { id, cents, requested_at };
            match fate {
                Fate::Queued => (),
                Fate::InFlight => self.unanswered.push((processor, Some(requested_at))),
                Fate::Surprised => {
                    self.ledger.apply(&Record::Surprised { ordinal });
                    self.unanswered.push((processor, None));
                }
                Fate::Charged => self.charge(ordinal, processor, Terms::Ours, charge),
                Fate::ChargedAtSecond => {
                    let attempt = AttemptId(self.attempts);
                    self.ledger.apply(&Record::Cleared { ordinal, attempt, negative: Negative::NotNow });
                    self.ms += 1;
                    requested_at = self.intend(ordinal, processor.other());
                    let charge = Charge { id, cents, requested_at };
                    self.charge(ordinal, processor.other(), Terms::Ours, charge);
                }
                Fate::Adopted { ms, cents } => {
                    let (requested_at, cents) = (Timestamp::from_ms(ms), Cents(cents));
                    let charge = Charge { id, cents, requested_at };
                    self.charge(ordinal, processor, Terms::Theirs { requested_at, cents }, charge);
                }
            }
        }

        fn check(&self, ledger: &Ledger, bounds: Bounds) {
            let now = Timestamp::from_ms(self.ms);
            let window = ledger.books(now, bounds);
            for processor in Processor::BOTH {
                let is_inside = |(by, charge): &&(Processor, Charge)| {
                    *by == processor && bounds.contains(charge.requested_at)
                };
                let expected: Vec<Charge> =
                    self.charges.iter().filter(is_inside).map(|(_, charge)| *charge).collect();
                let cents = Cents(expected.iter().map(|charge| charge.cents.0).sum());
                let totals = Totals { count: expected.len() as u64, cents };
                assert_eq!(window.charged[processor], totals);
                assert_eq!(all_charges(ledger, processor, bounds).concat(), expected);
                let unanswered = self
                    .unanswered
                    .iter()
                    .filter(|(by, at)| *by == processor && at.is_none_or(|at| bounds.contains(at)));
                assert_eq!(window.in_flight[processor], unanswered.count() as u64);
            }
        }
    }

    fn all_charges(ledger: &Ledger, processor: Processor, bounds: Bounds) -> Vec<Vec<Charge>> {
        let (mut pages, mut from) = (Vec::new(), Some(0));
        while let Some(start) = from {
            let (page, next) = ledger.charges(processor, bounds, start);
            pages.push(page);
            from = next;
        }
        pages
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            1 => Just(Fate::Queued),
            1 => Just(Fate::InFlight),
            1 => Just(Fate::Surprised),
            4 => Just(Fate::Charged),
            2 => Just(Fate::ChargedAtSecond),
            1 => (900_u64..1_100, 1_i64..500).prop_map(|(ms, cents)| Fate::Adopted { ms, cents }),
        ]
    }

    proptest! {
        #[test]
        fn every_charge_is_listed_in_the_windows_that_count_it_and_in_no_other(
            payments in proptest::collection::vec((any::<bool>(), 0_u64..3, fate()), 1..80),
            windows in proptest::collection::vec((900_u64..1_200, 0_u64..200), 1..10),
        ) {
            let mut world = World::new(1_000);
            for (number, (fallback, step_ms, fate)) in (0..).zip(payments) {
                let processor = if fallback { Processor::Fallback } else { Processor::Default };
                world.add(number, processor, step_ms, fate);
            }
            let mut loaded = Ledger::new(1_000, KEY);
            let mut bytes = Vec::new();
            world.ledger.freeze().put(&mut bytes).unwrap();
            loaded.load(&bytes[..], bytes.len() as u64).unwrap();
            for (from, len) in windows {
                let (from, to) = (Some(Timestamp::from_ms(from)), Some(Timestamp::from_ms(from + len)));
                world.check(&world.ledger, Bounds { from, to });
                world.check(&loaded, Bounds { from, to });
            }
            world.check(&world.ledger, Bounds::default());
        }
    }

    #[test]
    fn a_long_list_comes_in_pages_and_each_looks_at_a_bounded_part() {
        let mut world = World::new(200_000);
        for number in 0..70_000 {
            let is_charged = number < 2_500 || number == 69_999;
            let fate = if is_charged { Fate::Charged } else { Fate::Queued };
            world.add(number, Processor::Default, 0, fate);
        }
        let pages = all_charges(&world.ledger, Processor::Default, Bounds::default());
        let lens: Vec<usize> = pages.iter().map(Vec::len).collect();
        assert_eq!(lens, [1_000, 1_000, 500, 1]);
        world.check(&world.ledger, Bounds::default());
        assert_eq!(world.ledger.charges(Processor::Default, Bounds::default(), u32::MAX), (Vec::new(), None));
    }

    #[test]
    fn tombstones_count_as_in_flight_and_the_epoch_changes() {
        let mut world = World::new(10);
        world.add(0, Processor::Fallback, 5, Fate::InFlight);
        let before = world.ledger.books(Timestamp(0), Bounds::default());
        assert_eq!(before.first, Some(Timestamp::from_ms(1_005)));
        world.ledger.apply(&Record::Purged);
        let after = world.ledger.books(Timestamp(0), Bounds::default());
        assert_eq!((after.first, after.in_flight), (None, PerProcessor([0, 1])));
        assert_ne!(before.world, after.world);
    }
}
