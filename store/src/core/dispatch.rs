//! What goes out in a turn: leases of payments that may go to either processor, of those that are bound to one, `GET`s,
//! health calls.

use super::calls::Call;
use super::effects::Effects;
use super::queue::Ordinal;
use super::record::Record;
use super::router::{Route, State};
use super::{ApiId, Core, Now, Room};
use wire::frame::{CallKind, FromStore, HEALTH_FRESH_MS, LEASE_FRESH_MS, Lease};
use wire::{PerProcessor, Processor};

impl Core {
    pub(super) fn dispatch_free(&mut self, now: Now, effects: &mut Effects) {
        let balance = self.ledger.balance();
        let charges = PerProcessor(balance.charged.0.map(|totals| totals.count));
        self.router.note_turn(balance.accepted.count, charges, now.us);
        let waits = self.ledger.queue.first_free().is_some() && self.room != Room::NoIntents;
        let may_begin = self.router.is_time(waits, now.us);
        while let Some(ordinal) = self.ledger.queue.first_free().filter(|_| may_begin) {
            let waiting = self.ledger.queue.free_len();
            let Route::To(processor) = self.router.route(&self.calls, waiting, now.us) else {
                return;
            };
            let Some(api) = self.apis.pick(effects) else { return };
            if !self.router.take_token(now.us) {
                return;
            }
            let canary = self.router.refuses_all(processor);
            let canary = canary.then(|| self.canaries.next_refused(processor, &self.ledger.queue)).flatten();
            let ordinal = canary.unwrap_or(ordinal);
            self.lease(now, ordinal, processor, api, effects);
        }
        // Keeps the router's memory of outages true while nothing goes out.
        let _ = self.router.route(&self.calls, 0, now.us);
    }

    pub(super) fn dispatch_bound(&mut self, now: Now, processor: Processor, effects: &mut Effects) {
        let may_begin = self.room != Room::NoIntents;
        while let Some(mut ordinal) = self.ledger.queue.first_bound(processor).filter(|_| may_begin) {
            if !self.router.admits_bound(processor, &self.calls, now.us) {
                break;
            }
            if self.router.state(processor, &self.calls, now.us) == State::Failing {
                let pinned = self.pinned.resting_len(processor);
                let canary = self.canaries.next_bound(processor, &self.ledger.queue, pinned, now.us);
                let Some(canary) = canary else { break };
                ordinal = canary;
            }
            let Some(api) = self.apis.pick(effects) else { return };
            if !self.router.take_token(now.us) {
                return;
            }
            self.lease(now, ordinal, processor, api, effects);
        }
        self.inquire(now, processor, effects);
    }

    fn lease(&mut self, now: Now, ordinal: Ordinal, processor: Processor, api: ApiId, effects: &mut Effects) {
        let (intended, is_fresh) = self.ledger.intend(ordinal, processor, self.clock.time_ms(now));
        let is_late = self.late.remove(&ordinal);
        let begin_until_us = (is_fresh && !is_late).then_some(now.us + LEASE_FRESH_MS * 1000);
        let Record::Intended { attempt, requested_at, .. } = intended else {
            unreachable!("an intent is an intent")
        };
        self.record(intended, effects);
        let (id, cents) = (self.ledger.id(ordinal), self.ledger.cents(ordinal));
        self.begin(processor, attempt, Call { api, id, since_us: now.us });
        self.pinned.begin(ordinal);
        self.router.on_dispatch(processor, now.us);
        self.counters.leases[processor] += 1;
        let kind = CallKind::Post;
        let lease = Lease { attempt, id, cents, processor, requested_at, kind, begin_until_us };
        effects.sends.push((api, FromStore::Lease(lease)));
    }

    /// Asks what became of payments that are pinned to a processor which does not take posts now: `GET` has neither
    /// its delay nor its failure flag (docs/contract.md). A surprised payment is only ever asked for.
    fn inquire(&mut self, now: Now, processor: Processor, effects: &mut Effects) {
        let first = self.pinned.first_to_ask(processor, now.us);
        let open = self.calls.inquiries_len(processor);
        let may_ask = self.inquiries.may_ask(processor, first.is_some(), open, now.us);
        let Some(ordinal) = first.filter(|_| may_ask) else { return };
        let Some(flight) = self.ledger.flights().get(&ordinal) else { return };
        let requested_at = flight.requested_at;
        let Some(api) = self.apis.pick(effects) else { return };
        let (id, cents) = (self.ledger.id(ordinal), self.ledger.cents(ordinal));
        let attempt = self.calls.begin_inquiry(processor, Call { api, id, since_us: now.us });
        self.pinned.note_asked(ordinal, now.us);
        self.inquiries.note_asked(processor, now.us);
        self.counters.inquiries[processor] += 1;
        let (kind, begin_until_us) = (CallKind::Get, None);
        let lease = Lease { attempt, id, cents, processor, requested_at, kind, begin_until_us };
        effects.sends.push((api, FromStore::Lease(lease)));
    }

    pub(super) fn lease_health_calls(&mut self, now: Now, effects: &mut Effects) {
        let Some(api) = self.apis.pick(effects) else { return };
        while let Some(processor) = self.router.take_health_call(now.us) {
            self.counters.health_calls[processor] += 1;
            self.health_asker[processor] = Some(api);
            let begin_until_us = now.us + HEALTH_FRESH_MS * 1000;
            effects.sends.push((api, FromStore::HealthLease { processor, begin_until_us }));
        }
    }
}
