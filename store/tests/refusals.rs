//! Processors that refuse everything: then the processors are wrong, not the payments.

use std::collections::BTreeSet;
use store::core::ledger::Standing;
use store::core::router::{REFUSALS_MAX, RouterConfig};
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Note, Now};
use wire::frame::{CallKind, FromApi, FromStore, Lease, Operation, Outcome, Report};
use wire::{Cents, PaymentId, PerProcessor, Processor};

const API: ApiId = ApiId(1);

/// A store, one api, and a clock.
struct Store {
    core: Core,
    ms: u64,
    accepted: u128,
    reported: u64,
    open: Vec<Lease>,
    notes: Vec<Note>,
    posts: u64,
}

impl Store {
    fn start() -> Self {
        let router = RouterConfig::for_fees(PerProcessor([5.0, 15.0]), 1_500);
        let config = CoreConfig { payments_max: 100_000, index_key: [1, 2], router };
        let core = Core::new(config, Now { us: 0, wall_ms: 0 });
        let mut store =
            Self { core, ms: 0, accepted: 0, reported: 0, open: Vec::new(), notes: Vec::new(), posts: 0 };
        store.turn(FromApi::Hello { instance: 1, calls_max: 768, held: Vec::new() });
        store.live_ms(2_000, 0, |_| Outcome::Charged);
        store
    }

    fn turn(&mut self, frame: FromApi) {
        let now = Now { us: self.ms * 1_000, wall_ms: self.ms };
        let mut effects = Effects::default();
        self.core.step(now, Event::Frame(API, frame), &mut effects);
        self.core.dispatch(now, &mut effects);
        self.notes.extend(effects.notes);
        for (_, message) in effects.sends {
            if let FromStore::Lease(lease) = message {
                self.open.push(lease);
            }
        }
    }

    /// Lives for so long with so many payments in each 10 ms. Each call ends a millisecond after it began.
    fn live_ms(&mut self, ms: u64, payments: u32, answer: impl Fn(&Lease) -> Outcome) {
        for _ in 0..ms {
            self.ms += 1;
            for lease in std::mem::take(&mut self.open) {
                self.posts += u64::from(lease.kind == CallKind::Post);
                self.reported += 1;
                let (sequence, status, latency_us) = (self.reported, 400, 1_000);
                let Lease { attempt, id, processor, .. } = lease;
                let outcome = answer(&lease);
                let report = Report { sequence, attempt, id, processor, outcome, status, latency_us };
                self.turn(FromApi::Report(report));
            }
            if self.ms.is_multiple_of(10) {
                (0..payments).for_each(|_| self.pay());
            }
            self.turn(FromApi::Heartbeat);
        }
    }

    fn pay(&mut self) {
        self.accepted += 1;
        self.turn(FromApi::Accept { request: 1, id: PaymentId(self.accepted), cents: Cents(1) });
    }

    fn dead(&self) -> u64 {
        self.core.ledger().balance().dead.count
    }

    fn charged(&self) -> u64 {
        self.core.ledger().balance().charged.0.iter().map(|totals| totals.count).sum()
    }

    fn standing(&self, id: u128) -> Standing {
        let ledger = self.core.ledger();
        ledger.standing(ledger.find(PaymentId(id)).unwrap())
    }
}

#[test]
fn both_processors_refuse_everything_for_a_while_and_nearly_nothing_dies() {
    let mut store = Store::start();
    store.live_ms(2_000, 5, |_| Outcome::Charged);
    store.notes.clear();
    store.live_ms(7_000, 5, |_| Outcome::Refused);
    // Those that each has refused before the fifth, and then the other one as well.
    assert!(store.dead() <= 2 * (REFUSALS_MAX as u64 - 1), "{} dead letters", store.dead());
    assert!(store.notes.len() < 60, "{} lines", store.notes.len());
    let refusers: BTreeSet<Processor> = store
        .notes
        .iter()
        .filter_map(
            |note| if let Note::RefusesAll { processor, .. } = note { Some(*processor) } else { None },
        )
        .collect();
    assert_eq!(refusers.len(), 2, "an alarm for each");
    store.live_ms(20_000, 0, |_| Outcome::Charged);
    assert_eq!(store.charged() + store.dead(), u64::try_from(store.accepted).unwrap());
}

#[test]
fn a_payment_that_both_refuse_while_others_are_charged_is_a_dead_letter_soon() {
    let mut store = Store::start();
    store.live_ms(1_000, 1, |_| Outcome::Charged);
    let bad = store.accepted + 50;
    let refuse = |lease: &Lease| if lease.id == PaymentId(bad) { Outcome::Refused } else { Outcome::Charged };
    store.live_ms(3_000, 1, refuse);
    assert_eq!(store.standing(bad), Standing::Dead);
    assert_eq!(store.dead(), 1);
}

#[test]
fn faulty_payments_in_front_do_not_keep_a_circuit_open_for_all() {
    let mut store = Store::start();
    // Twenty faulty ones in a row, then good ones.
    let first_good = store.accepted + 21;
    let refuse = |lease: &Lease| if lease.id.0 < first_good { Outcome::Refused } else { Outcome::Charged };
    (0..20).for_each(|_| store.pay());
    store.live_ms(500, 0, refuse);
    (0..20).for_each(|_| store.pay());
    store.live_ms(60_000, 0, refuse);
    assert_eq!(store.charged(), 20);
    // The faulty ones alone are left, and are tried at the pace of canaries.
    let before = store.posts;
    store.live_ms(10_000, 0, refuse);
    assert!(store.posts - before <= 2 * 10 * 10 + 10, "{} posts in 10 s", store.posts - before);
}

#[test]
fn all_dead_letters_are_sent_again_but_those_that_a_processor_claims() {
    let mut store = Store::start();
    // One bad payment after each good one: each dies.
    let is_bad = |id: PaymentId| id.0.is_multiple_of(2);
    store.live_ms(5_000, 2, |lease| if is_bad(lease.id) { Outcome::Refused } else { Outcome::Charged });
    store.live_ms(2_000, 0, |lease| if is_bad(lease.id) { Outcome::Refused } else { Outcome::Charged });
    let dead = store.dead();
    assert!(dead > 400, "{dead}");
    // One of them was charged all the same.
    let claimed = (1..=store.accepted).find(|id| store.standing(*id) == Standing::Dead).unwrap();
    store.reported += 1;
    let (processor, outcome) = (Processor::Default, Outcome::Charged);
    let (sequence, attempt, id) = (store.reported, wire::frame::AttemptId(1), PaymentId(claimed));
    store.turn(FromApi::Report(Report {
        sequence,
        attempt,
        id,
        processor,
        outcome,
        status: 200,
        latency_us: 1,
    }));
    assert!(store.core.ledger().is_claimed_by(store.core.ledger().find(id).unwrap(), processor));
    let (mut from, mut pages) = (0, 0);
    loop {
        let now = Now { us: store.ms * 1_000, wall_ms: store.ms };
        let mut effects = Effects::default();
        let operation = Operation::ReviveAll { from };
        let frame = FromApi::Operate { request: 1, deadline_us: u64::MAX, operation };
        store.core.step(now, Event::Frame(ApiId(2), frame), &mut effects);
        pages += 1;
        let next = effects.sends.iter().find_map(|(_, message)| match message {
            FromStore::Operated { done: true, next, .. } => Some(*next),
            _ => None,
        });
        match next.expect("it is done") {
            Some(next) => from = next,
            None => break,
        }
    }
    assert!(pages > 1);
    assert_eq!(store.dead(), 1);
    store.live_ms(5_000, 0, |_| Outcome::Charged);
    assert_eq!(store.charged(), u64::try_from(store.accepted).unwrap() - 1);
}
