//! What befalls a world: faults, what operators do about them, and the healing at the end.

use super::{APIS, OPERATOR, System, What};
use crate::simulation::processor::{Gateway, Row};
use store::core::ledger::Standing;
use store::core::queue::Ordinal;
use store::core::{Effects, Event, Room};
use wire::frame::{FromApi, Operation};
use wire::{PaymentId, Processor as Name, Timestamp};

impl System<'_> {
    pub(super) fn on_fault(&mut self) -> Result<(), String> {
        self.faults += 1;
        let api = usize::try_from(self.chance.between(0, APIS as u64)).expect("small");
        match self.chance.between(0, 18) {
            0 => self.kill_store(false)?,
            1 => self.kill_store(self.always)?,
            2 | 3 => self.kill_api(api),
            4 | 5 => {
                let pause_us = self.chance.pick(&[100_000, 1_000_000, 4_000_000, 12_000_000]);
                if self.apis[api].desk.is_some() && self.apis[api].paused.is_none() {
                    self.apis[api].paused = Some(Vec::new());
                    self.schedule.after(pause_us, What::ApiResume(api));
                }
            }
            6 => {
                let pause_us = self.chance.pick(&[100_000, 1_500_000, 5_000_000]);
                if self.store.is_some() && self.store_paused.is_none() {
                    self.store_paused = Some(Vec::new());
                    self.schedule.after(pause_us, What::StoreResume);
                }
            }
            7 | 8 => {
                if let Some(connection) = self.apis[api].connection {
                    self.cut(connection);
                }
            }
            9 => self.skew_ms += self.chance.pick(&[-3_600_000, -200, 200, 3_600_000]),
            10 if self.chance.percent(50) => self.insert_foreign_row(),
            10 => self.lose_row(),
            11 => self.room = self.chance.pick(&[Room::Ample, Room::NoAccepts, Room::NoIntents]),
            12 => self.operate()?,
            _ => self.change_mood(),
        }
        Ok(())
    }

    /// An operator sends dead letters again, and tells of a payment in flight what its processor's books say.
    pub(super) fn operate(&mut self) -> Result<(), String> {
        let Some(store) = self.store.as_ref().filter(|_| self.store_paused.is_none()) else { return Ok(()) };
        let ledger = store.core.ledger();
        let dead = (0..ledger.len())
            .map(|at| Ordinal(u32::try_from(at).expect("a small seed")))
            .find(|ordinal| ledger.standing(*ordinal) == Standing::Dead)
            .map(|ordinal| self.decide_on_dead(ledger.id(ordinal), ledger.is_conflicted(ordinal)));
        let in_books = ledger.flights().iter().find_map(|(ordinal, flight)| {
            let id = ledger.id(*ordinal);
            let ours = Row { requested_at: flight.requested_at, cents: ledger.cents(*ordinal) };
            (self.processors[flight.processor].rows.get(&id) == Some(&ours))
                .then_some(Operation::Charged { id, by: None })
        });
        let left_behind = ledger.tombstones().iter().find_map(|(id, tombstone)| {
            let rows = &self.processors[tombstone.flight.processor].rows;
            rows.contains_key(id).then_some(Operation::Charged { id: *id, by: None })
        });
        for operation in [dead, in_books, left_behind].into_iter().flatten() {
            self.decide(operation)?;
        }
        Ok(())
    }

    /// A dead letter that no processor claims is sent again; of the others the books decide.
    fn decide_on_dead(&self, id: PaymentId, is_claimed: bool) -> Operation {
        let has_row = |name: &Name| self.processors[*name].rows.contains_key(&id);
        match Name::BOTH.into_iter().find(has_row) {
            _ if !is_claimed => Operation::Revive(id),
            Some(name) => Operation::Charged { id, by: Some(name) },
            None => Operation::NotCharged(id),
        }
    }

    /// What only an operator can end, once nothing happens at the processors any more.
    pub(super) fn operate_on_stuck(&mut self) -> Result<(), String> {
        let ledger = self.store.as_ref().expect("a store at rest runs").core.ledger();
        let stuck: Vec<Operation> = ledger
            .flights()
            .iter()
            .map(|(ordinal, flight)| (ledger.id(*ordinal), &self.processors[flight.processor]))
            .map(|(id, processor)| {
                let is_there = processor.rows.contains_key(&id) || processor.lost.contains(&id);
                if is_there { Operation::Charged { id, by: None } } else { Operation::NotCharged(id) }
            })
            .collect();
        stuck.into_iter().try_for_each(|operation| self.decide(operation))
    }

    pub(super) fn decide(&mut self, operation: Operation) -> Result<(), String> {
        let mut effects = Effects::default();
        let now = self.now();
        let store = self.store.as_mut().expect("a running store");
        let frame = FromApi::Operate { request: 1, deadline_us: now.us, operation };
        store.core.step(now, Event::Frame(OPERATOR, frame), &mut effects);
        self.end_turn(effects)
    }

    pub(super) fn lose_row(&mut self) {
        let Some(store) = &self.store else { return };
        let ledger = store.core.ledger();
        let charged = |name: Name, id: &PaymentId| {
            ledger.find(*id).is_some_and(|ordinal| ledger.standing(ordinal) == Standing::Charged(name))
        };
        let name = self.chance.pick(&Name::BOTH);
        let rows = &self.processors[name].rows;
        let found = rows.keys().copied().find(|id| charged(name, id));
        // A store that loses its newest records may ask again for a row that is gone: then it is charged again, as it
        // must be. Power losses and lost rows are therefore not combined.
        if let Some(id) = found.filter(|_| !self.always) {
            self.processors[name].lose(id);
        }
    }

    /// A stranger has a payment charged that one of our clients sends as well.
    pub(super) fn insert_foreign_row(&mut self) {
        let name = self.chance.pick(&Name::BOTH);
        let requested_at = Timestamp::from_ms(self.wall_ms() - 1);
        let unsettled = self.ledgers.sent.iter().find(|(id, _)| {
            Name::BOTH.into_iter().all(|name| {
                !self.processors[name].rows.contains_key(id) && !self.processors[name].lost.contains(id)
            })
        });
        if let Some((&id, amounts)) = unsettled {
            let cents = *amounts.first().expect("it was sent with one");
            self.processors[name].rows.insert(id, Row { requested_at, cents });
            self.ledgers.foreign[name].insert(id);
        }
    }

    pub(super) fn change_mood(&mut self) {
        let name = self.chance.pick(&Name::BOTH);
        let processor = &mut self.processors[name];
        match self.chance.between(0, 10) {
            0 | 1 => {
                processor.delay_us = self.chance.pick(&[0, 1_000, 100_000, 1_000_000, 2_500_000, 33_000_000]);
            }
            2 | 3 => processor.failing = !processor.failing,
            4 => processor.is_down = !processor.is_down,
            5 => processor.quirks_percent = self.chance.pick(&[0, 10, 50, 100]),
            6 => {
                let digit = u8::try_from(self.chance.between(0, 16)).expect("small");
                processor.refuses.insert(digit);
            }
            7 => processor.refuses_all = !processor.refuses_all,
            8 => {
                let gateways = [
                    None,
                    Some(Gateway::GivesUp),
                    Some(Gateway::StandsIn(404)),
                    Some(Gateway::StandsIn(501)),
                    Some(Gateway::StandsIn(503)),
                ];
                processor.gateway = self.chance.pick(&gateways);
            }
            _ => {
                processor.health_hangs = self.chance.percent(50);
                processor.health_lies = self.chance.percent(50);
            }
        }
    }

    /// The trouble is over.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.room = Room::Ample;
        for name in Name::BOTH {
            self.processors[name].heal();
        }
        self.schedule.after(0, What::StoreResume);
        (0..APIS).for_each(|api| self.schedule.after(0, What::ApiResume(api)));
    }
}
