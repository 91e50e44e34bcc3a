//! The naive model: what clients were told, and what must be true of what processors hold. It is as simple as can be,
//! searches everything, and knows nothing of how the store works.

use super::processor::{Processor, Row};
use std::collections::{BTreeMap, BTreeSet};
use store::core::Core;
use store::core::ledger::Standing;
use wire::{Bounds, Cents, PaymentId, PerProcessor, Processor as Name};

/// What was promised, and to whom.
#[derive(Debug, Default)]
pub struct Ledgers {
    /// Every payment that a client ever sent, with every amount that it was sent with.
    pub sent: BTreeMap<PaymentId, BTreeSet<Cents>>,
    /// What got a 2xx since the last purge.
    pub acknowledged: BTreeMap<PaymentId, Cents>,
    /// Rows that stand at a processor without an attempt of the present world: a stranger's, or of a world that a
    /// purge ended while the processor kept its rows.
    pub foreign: PerProcessor<BTreeSet<PaymentId>>,
}

impl Ledgers {
    /// A client got a 2xx.
    pub fn acknowledge(&mut self, id: PaymentId, cents: Cents) -> Result<(), String> {
        match self.acknowledged.insert(id, cents) {
            Some(before) if before != cents => {
                Err(format!("{id} was acknowledged with {before} and with {cents}"))
            }
            _ => Ok(()),
        }
    }

    /// A store has come back from a power loss: rows that it knows nothing of are foreign to it.
    pub fn note_foreign(&mut self, core: &Core, processors: &PerProcessor<Processor>) {
        let ledger = core.ledger();
        for (name, processor) in processors.iter() {
            let is_unknown =
                |id: &&PaymentId| ledger.find(**id).is_none() && !ledger.tombstones().contains_key(id);
            self.foreign[name].extend(processor.rows.keys().filter(is_unknown));
        }
    }

    /// What must hold after a row was inserted.
    pub fn check_row(&self, id: PaymentId, processors: &PerProcessor<Processor>) -> Result<(), String> {
        if !self.sent.contains_key(&id) {
            return Err(format!("{id} was never sent by a client and is recorded"));
        }
        let counts = |name: Name| {
            let processor = &processors[name];
            let was_there = processor.rows.contains_key(&id) || processor.lost.contains(&id);
            was_there && !self.foreign[name].contains(&id)
        };
        if Name::BOTH.into_iter().all(counts) {
            return Err(format!("{id} is recorded on both processors"));
        }
        Ok(())
    }

    /// What must hold of a store that has just recovered.
    pub fn check_recovered(&self, core: &Core) -> Result<(), String> {
        let ledger = core.ledger();
        if !ledger.balance().adds_up() {
            return Err("the balance does not add up after a recovery".to_owned());
        }
        for (id, cents) in &self.acknowledged {
            match ledger.find(*id) {
                Some(ordinal) if ledger.cents(ordinal) == *cents => (),
                Some(_) => return Err(format!("{id} came back with another amount")),
                None => return Err(format!("{id} was acknowledged and is gone after a recovery")),
            }
        }
        Ok(())
    }

    /// A summary never counts more than the processors have recorded.
    pub fn check_summary(&self, core: &Core, processors: &PerProcessor<Processor>) -> Result<(), String> {
        let totals = core.ledger().summary.window(Bounds::default());
        for (name, processor) in processors.iter() {
            let recorded = (processor.rows.len() + processor.lost.len() + processor.purged.len()) as u64;
            if totals[name].count > recorded {
                return Err(format!(
                    "the summary counts {} on {name}, which recorded {recorded}",
                    totals[name].count
                ));
            }
        }
        Ok(())
    }

    /// Everything is healed and at rest: the three sides must agree, payment by payment and window by window.
    pub fn check_end(&self, core: &Core, processors: &PerProcessor<Processor>) -> Result<(), String> {
        let ledger = core.ledger();
        let mut expected = PerProcessor::<Vec<Row>>::default();
        let mut is_comparable = processors.iter().all(|(_, processor)| processor.lost.is_empty());
        for number in 0..ledger.balance().accepted.count {
            let ordinal = store::core::queue::Ordinal(u32::try_from(number).expect("a small seed"));
            let (id, standing) = (ledger.id(ordinal), ledger.standing(ordinal));
            match standing {
                Standing::Charged(name) => {
                    let processor = &processors[name];
                    match processor.rows.get(&id) {
                        Some(row) => expected[name].push(*row),
                        None if processor.lost.contains(&id) => (),
                        None if processor.purged.contains(&id) => is_comparable = false,
                        None => return Err(format!("{id} is charged by {name}, which holds no such row")),
                    }
                }
                Standing::Dead => {
                    for (name, processor) in processors.iter() {
                        if processor.rows.contains_key(&id) && !self.foreign[name].contains(&id) {
                            return Err(format!("{id} is dead and {name} holds it"));
                        }
                    }
                }
                Standing::Queued | Standing::InFlight => {
                    return Err(format!("{id} is {standing:?} at the end"));
                }
            }
        }
        for id in self.acknowledged.keys() {
            if ledger.find(*id).is_none() {
                return Err(format!("{id} was acknowledged and is not in the ledger"));
            }
        }
        if is_comparable { self.check_windows(core, &expected) } else { Ok(()) }
    }

    /// Windows around every row, and the whole. Lost rows make sums differ by design, so worlds with some skip this. A
    /// foreign row that is met by a repetition counts with the time and amount of the attempt before (docs/money.md), so
    /// worlds with foreign rows are compared as a whole and in count.
    fn check_windows(&self, core: &Core, expected: &PerProcessor<Vec<Row>>) -> Result<(), String> {
        for (name, rows) in expected.iter() {
            let is_whole_only = self.foreign.iter().any(|(_, ids)| !ids.is_empty());
            let ends = rows.iter().map(|row| Some(row.requested_at)).filter(|_| !is_whole_only).chain([None]);
            for to in ends {
                let bounds = Bounds { from: None, to };
                let inside = rows.iter().filter(|row| bounds.contains(row.requested_at));
                let (count, cents) =
                    inside.fold((0, 0), |(count, cents), row| (count + 1, cents + row.cents.0));
                let ours = core.ledger().summary.window(bounds)[name];
                if ours.count != count || (ours.cents.0 != cents && !is_whole_only) {
                    return Err(format!(
                        "up to {to:?} {name} holds {count} payments of {cents} cents, the summary says {} of {}",
                        ours.count, ours.cents.0
                    ));
                }
            }
        }
        Ok(())
    }
}
