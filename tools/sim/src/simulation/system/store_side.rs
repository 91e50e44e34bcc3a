//! The store in its world: it starts, turns, flushes, is killed and recovers; and the links to it that break.

use super::{SNAPSHOT_PERCENT, Store, System, What};
use std::collections::{BTreeMap, VecDeque};
use store::core::calls::Calls;
use store::core::{ApiId, Core, Effects, Event};
use wire::frame::{Accepted, FromApi, FromStore, Message, decode};
use wire::{PaymentId, Processor as Name};

impl System<'_> {
    pub(super) fn start_store(&mut self) -> Result<(), String> {
        if self.store.is_some() {
            return Ok(());
        }
        self.start += 1;
        let mut core = Core::new(self.config, self.now());
        self.disk.recover(&mut core).map_err(|error| error.to_string())?;
        self.ledgers.note_foreign(&core, &self.processors);
        self.past.forget();
        // A purge that was never confirmed may have outlived a power loss: what the store does not know was purged.
        let ledger = core.ledger();
        let is_known = |id: &PaymentId| ledger.find(*id).is_some() || ledger.tombstones().contains_key(id);
        Name::BOTH.into_iter().for_each(|name| self.processors[name].forget_lost(is_known));
        self.ledgers.check_recovered(&core)?;
        self.store = Some(Store { core, held: VecDeque::new(), flushing: false, ticks_until_us: 0 });
        self.schedule.after(0, What::StoreTick { start: self.start });
        Ok(())
    }

    pub(super) fn at_store(&mut self, what: What) -> Result<(), String> {
        if let Some(missed) = &mut self.store_paused {
            missed.push(what);
            return Ok(());
        }
        if self.store.is_none() {
            return Ok(());
        }
        match what {
            What::ToStore { connection, bytes } if self.connections[&connection].open_at_store => {
                self.turn(connection, &bytes)
            }
            What::StoreLost { connection } => {
                let known = self.connections.get_mut(&connection).expect("connections are kept");
                if !std::mem::take(&mut known.open_at_store) {
                    return Ok(());
                }
                let now = self.now();
                let mut effects = Effects::default();
                let store = self.store.as_mut().expect("it was just seen");
                store.core.step(now, Event::Gone(ApiId(connection)), &mut effects);
                self.end_turn(effects)
            }
            What::StoreTick { start } if start == self.start => {
                let due =
                    self.store.as_ref().is_some_and(|store| store.ticks_until_us <= self.schedule.now_us());
                if due { self.end_turn(Effects::default()) } else { Ok(()) }
            }
            What::Flushed { start, target } if start == self.start => {
                self.disk.flushed(target);
                self.store.as_mut().expect("it was just seen").flushing = false;
                self.flush();
                self.release();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn turn(&mut self, connection: u64, bytes: &[u8]) -> Result<(), String> {
        let now = self.now();
        let mut effects = Effects::default();
        let mut rest = bytes;
        while let Some((frame, used)) = decode::<FromApi>(rest).map_err(|error| error.to_string())? {
            rest = &rest[used..];
            let core = &mut self.store.as_mut().expect("a running store").core;
            if let FromApi::Report(report) = &frame {
                let subject = core.ledger().subject(report, Calls::is_inquiry(report.attempt));
                self.cells.count(core.ledger(), subject, report);
            }
            let purges = core.counters().purges;
            core.step(now, Event::Frame(ApiId(connection), frame), &mut effects);
            if core.counters().purges > purges {
                self.purges += 1;
                self.ledgers.acknowledged.clear();
                // The operator purges all three at once. Until ours is confirmed a power loss may undo it: then the
                // processors' rows are lost.
                for name in Name::BOTH {
                    self.processors[name].lose_all();
                }
            }
            for (ApiId(connection), said) in &effects.sends {
                if let FromStore::Accepted { request, accepted: Accepted::Recorded | Accepted::Duplicate } =
                    said
                {
                    self.told.entry((*connection, *request)).or_insert(self.purges);
                }
            }
        }
        self.end_turn(effects)
    }

    pub(super) fn end_turn(&mut self, mut effects: Effects) -> Result<(), String> {
        let now = self.now();
        let start = self.start;
        let store = self.store.as_mut().expect("a running store");
        store.core.step(now, Event::Room(self.room), &mut effects);
        store.core.dispatch(now, &mut effects);
        self.ledgers.check_summary(&store.core, &self.processors)?;
        self.past.check(&store.core, &effects.records)?;
        if effects.records_len > 0 {
            self.disk.append(&effects.records, effects.records_len);
            if self.chance.percent(SNAPSHOT_PERCENT) {
                self.disk.snapshot(&store.core.ledger().freeze());
            }
        }
        store.held.push_back((self.disk.written, effects.sends));
        let next_us = store.core.next_call_us();
        store.ticks_until_us = now.us + next_us;
        self.schedule.after(next_us, What::StoreTick { start });
        for ApiId(connection) in effects.hang_ups {
            self.cut(connection);
        }
        self.flush();
        self.release();
        Ok(())
    }

    /// The flushing thread: one flush at a time, of everything that is written when it begins.
    pub(super) fn flush(&mut self) {
        let store = self.store.as_mut().expect("a running store");
        if !store.flushing && self.disk.written > self.disk.durable {
            store.flushing = true;
            let takes_us = if self.always { self.chance.pick(&[100, 1_000, 5_000, 80_000]) } else { 100_000 };
            self.schedule.after(takes_us, What::Flushed { start: self.start, target: self.disk.written });
        }
    }

    pub(super) fn release(&mut self) {
        let settled = if self.always { self.disk.durable } else { self.disk.written };
        let store = self.store.as_mut().expect("a running store");
        let mut said: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        while store.held.front().is_some_and(|(sequence, _)| *sequence <= settled) {
            let (_, sends) = store.held.pop_front().expect("it was just seen");
            for (ApiId(connection), message) in sends {
                if matches!(message, FromStore::Purged { .. }) {
                    for name in Name::BOTH {
                        self.processors[name].forget_lost(|_| false);
                        let rows = &self.processors[name].rows;
                        self.ledgers.foreign[name].retain(|id| rows.contains_key(id));
                    }
                }
                message.encode(said.entry(connection).or_default());
            }
        }
        for (connection, bytes) in said {
            let Some(known) = self.connections.get_mut(&connection).filter(|known| known.open_at_store)
            else {
                continue;
            };
            known.down_us = known.down_us.max(self.schedule.now_us() + self.chance.between(5, 300));
            self.schedule.at(known.down_us, What::ToApi { connection, bytes });
        }
    }

    pub(super) fn kill_store(&mut self, power: bool) -> Result<(), String> {
        let Some(store) = self.store.take() else { return Ok(()) };
        self.store_paused = None;
        let open: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.open_at_store).map(|(c, _)| *c).collect();
        for connection in open {
            self.connections.get_mut(&connection).expect("it was just seen").open_at_store = false;
            self.lose_at_api(connection);
        }
        if power {
            self.disk.lose_power(&mut self.chance);
        } else {
            self.check_recovery(&store.core)?;
        }
        let pause_us = self.chance.pick(&[1_000, 50_000, 400_000, 3_000_000]);
        self.schedule.after(pause_us, What::StoreStart);
        Ok(())
    }

    /// What a killed process has written brings back exactly what it knew.
    pub(super) fn check_recovery(&self, before: &Core) -> Result<(), String> {
        let mut disk = self.disk.clone();
        let mut core = Core::new(self.config, self.now());
        disk.recover(&mut core).map_err(|error| error.to_string())?;
        let facts = |core: &Core| {
            let mut bytes = Vec::new();
            core.ledger().freeze().put(&mut bytes).expect("a vector takes everything");
            (bytes, core.ledger().queue.free_len())
        };
        if store::core::mutant::is(store::core::mutant::Mutant::VolatileIntent)
            || facts(before) == facts(&core)
        {
            Ok(())
        } else {
            Err("what was recovered is not what was known".to_owned())
        }
    }

    // Links.

    /// Both ends of a connection will notice that it is gone.
    pub(super) fn cut(&mut self, connection: u64) {
        self.lose_at_api(connection);
        let known = &self.connections[&connection];
        let at = known.up_us.max(self.schedule.now_us() + self.chance.between(10, 5_000));
        self.schedule.at(at, What::StoreLost { connection });
    }

    pub(super) fn lose_at_api(&mut self, connection: u64) {
        let known = &self.connections[&connection];
        let at = known.down_us.max(self.schedule.now_us() + self.chance.between(10, 5_000));
        self.schedule.at(at, What::ApiLost { connection });
    }
}
