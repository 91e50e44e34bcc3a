//! What is asked about payments that may have been charged, and what the answers prove.

use std::collections::BTreeSet;
use store::core::ledger::Standing;
use store::core::router::RouterConfig;
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Now};
use wire::frame::{CallKind, FromApi, FromStore, Lease, Outcome, Report};
use wire::{Cents, PaymentId, PerProcessor, Processor};

const API: ApiId = ApiId(1);
const HERE: Processor = Processor::Default;

/// A store, an api, and a clock. No health call is answered.
struct Store {
    core: Core,
    us: u64,
    accepted: u128,
    reported: u64,
}

impl Store {
    /// `chance` is what a start draws.
    fn start(chance: u64) -> Self {
        let router = RouterConfig::for_fees(PerProcessor([5.0, 15.0]), 1_500);
        let config = CoreConfig { payments_max: 10_000, index_key: [chance, 2], router };
        let core = Core::new(config, Now { us: 0, wall_ms: 0 });
        let mut store = Self { core, us: 0, accepted: 0, reported: 0 };
        store.turn(Some(FromApi::Hello { instance: 1, calls_max: 768, held: Vec::new() }));
        // An attempt that no api claimed belongs to none.
        store.live_ms(2_000, |_| None);
        store
    }

    fn turn(&mut self, frame: Option<FromApi>) -> Vec<Lease> {
        let now = Now { us: self.us, wall_ms: self.us / 1_000 };
        let mut effects = Effects::default();
        if let Some(frame) = frame {
            self.core.step(now, Event::Frame(API, frame), &mut effects);
        }
        self.core.dispatch(now, &mut effects);
        let leases = effects.sends.into_iter().filter_map(|(_, message)| match message {
            FromStore::Lease(lease) => Some(lease),
            _ => None,
        });
        leases.collect()
    }

    fn pay(&mut self) -> Vec<Lease> {
        self.accepted += 1;
        self.turn(Some(FromApi::Accept { request: 1, id: PaymentId(self.accepted), cents: Cents(1) }))
    }

    fn report(&mut self, lease: Lease, outcome: Outcome) -> Vec<Lease> {
        self.reported += 1;
        let (sequence, latency_us) = (self.reported, 1_000);
        let Lease { attempt, id, processor, .. } = lease;
        let report = Report { sequence, attempt, id, processor, outcome, status: 0, latency_us };
        self.turn(Some(FromApi::Report(report)))
    }

    /// Lives for so long; each call ends a millisecond after it began with what `answer` says, or goes on. Tells all calls.
    fn live_ms(&mut self, ms: u64, answer: impl Fn(&Lease) -> Option<Outcome>) -> Vec<Lease> {
        let (mut all, mut open) = (Vec::new(), Vec::new());
        for _ in 0..ms {
            self.us += 1_000;
            let begun = std::mem::replace(&mut open, self.turn(Some(FromApi::Heartbeat)));
            for lease in begun {
                if let Some(outcome) = answer(&lease) {
                    open.extend(self.report(lease, outcome));
                }
                all.push(lease);
            }
        }
        all.extend(open);
        all
    }

    fn standing(&self, id: PaymentId) -> Standing {
        let ledger = self.core.ledger();
        ledger.standing(ledger.find(id).expect("it was accepted"))
    }

    fn may_move(&self, id: PaymentId) -> bool {
        let ledger = self.core.ledger();
        ledger.may_send(ledger.find(id).expect("it was accepted"), HERE.other())
    }
}

/// A store with a payment whose first attempt got an answer that proves nothing.
fn one_unclear(chance: u64) -> (Store, PaymentId) {
    let mut store = Store::start(chance);
    let mut leases = store.pay();
    leases.extend(store.live_ms(10, |lease| (lease.kind == CallKind::Post).then_some(Outcome::Unclear)));
    let id = leases.first().expect("the processor is free").id;
    assert_eq!(store.standing(id), Standing::InFlight);
    (store, id)
}

/// A gateway in front of the processor says one thing to every `POST` and another to every `GET`, for ten minutes and at
/// any pace. The processor behind it may still insert the row of any of these attempts.
#[test]
fn neither_a_missing_row_nor_time_frees_a_payment_whose_attempt_has_no_proof() {
    use Outcome::{Absent, Busy, Failing, Lost, Misaddressed, Unclear};
    for post in [Unclear, Lost, Failing, Misaddressed, Busy] {
        for get in [Absent, Unclear, Busy, Lost] {
            let (mut store, id) = one_unclear(1);
            let answer = |lease: &Lease| Some(if lease.kind == CallKind::Get { get } else { post });
            let calls = store.live_ms(600_000, answer);
            assert!(
                calls.iter().any(|lease| lease.kind == CallKind::Get && lease.id == id),
                "it was asked for"
            );
            assert!(!store.may_move(id), "{post:?} to every POST and {get:?} to every GET free it");
            assert_eq!(store.standing(id), Standing::InFlight);
        }
    }
}

#[test]
fn a_row_that_is_inserted_minutes_after_the_gateway_gave_up_settles_its_payment() {
    let (mut store, id) = one_unclear(1);
    let gone = |lease: &Lease| match lease.kind {
        CallKind::Get => Some(Outcome::Absent),
        CallKind::Post => Some(Outcome::Unclear),
    };
    store.live_ms(130_000, gone);
    assert_eq!(store.standing(id), Standing::InFlight);
    store.live_ms(5_000, |lease| match lease.kind {
        CallKind::Get => Some(Outcome::Found { requested_at: lease.requested_at, cents: lease.cents }),
        CallKind::Post => Some(Outcome::Unclear),
    });
    assert_eq!(store.standing(id), Standing::Charged(HERE));
    assert_eq!(store.core.ledger().conflicts(), 0);
}

#[test]
fn a_payment_that_is_never_answered_properly_is_posted_once_a_second_at_most() {
    for outcome in [Outcome::Unclear, Outcome::Lost] {
        let (mut store, id) = one_unclear(1);
        store.live_ms(5_000, |lease| (lease.kind == CallKind::Post).then_some(outcome));
        let calls = store.live_ms(60_000, |lease| match lease.kind {
            CallKind::Post => Some(outcome),
            CallKind::Get => Some(Outcome::Absent),
        });
        let posts = calls.iter().filter(|lease| lease.kind == CallKind::Post && lease.id == id).count();
        assert!((30..=60).contains(&posts), "{posts} posts in a minute, all answered with {outcome:?}");
    }
}

#[test]
fn an_outage_behind_a_gateway_pins_few_payments_more_than_it_needs_to_notice_the_end() {
    const SECONDS: u64 = 60;
    let mut store = Store::start(1);
    for _ in 0..SECONDS * 100 {
        let mut open = store.pay();
        for _ in 0..10 {
            store.us += 1_000;
            for lease in std::mem::take(&mut open) {
                let outcome = match (lease.processor, lease.kind) {
                    (HERE, CallKind::Post) => Outcome::Unclear,
                    (_, CallKind::Post) => Outcome::Charged,
                    (_, CallKind::Get) => Outcome::Absent,
                };
                open.extend(store.report(lease, outcome));
            }
            open.extend(store.turn(Some(FromApi::Heartbeat)));
        }
    }
    let pinned = store.core.ledger().flights().len() as u64;
    assert!(pinned <= SECONDS + 50, "{pinned} payments are pinned after {SECONDS} s");
}

#[test]
fn an_inquiry_of_another_store_answers_nothing() {
    let asked = |store: &mut Store| {
        let calls = store.live_ms(1_100, |lease| (lease.kind == CallKind::Post).then_some(Outcome::Unclear));
        calls.into_iter().find(|lease| lease.kind == CallKind::Get).expect("it is asked for")
    };
    let (mut before, id) = one_unclear(1);
    let of_before = asked(&mut before);
    let (mut store, same) = one_unclear(1 << 40);
    assert_eq!(id, same);
    let Lease { requested_at, cents, .. } = asked(&mut store);
    store.report(of_before, Outcome::Found { requested_at, cents });
    assert_eq!(store.standing(id), Standing::InFlight);
}

#[test]
fn many_pinned_payments_are_asked_for_in_turn_and_never_a_load() {
    const PINNED: usize = 300;
    const SECONDS: u64 = 3;
    let mut store = Store::start(1);
    // A processor that takes a second gets as many at once.
    for _ in 0..40 {
        let mut leases = store.pay();
        leases.extend(store.live_ms(10, |_| None));
        store.us += 990_000;
        let Lease { attempt, id, processor, .. } = leases[0];
        store.reported += 1;
        let (sequence, outcome, latency_us) = (store.reported, Outcome::Charged, 1_000_000);
        let report = Report { sequence, attempt, id, processor, outcome, status: 200, latency_us };
        store.turn(Some(FromApi::Report(report)));
    }
    let mut leases: Vec<Lease> = (0..PINNED).flat_map(|_| store.pay()).collect();
    leases.extend(store.live_ms(300, |_| None));
    leases.retain(|lease| lease.processor == HERE);
    assert!(leases.len() >= PINNED, "{} are out", leases.len());
    let mut calls: Vec<Lease> =
        leases.drain(..).flat_map(|lease| store.report(lease, Outcome::Lost)).collect();
    calls.extend(store.live_ms(SECONDS * 1_000, |lease| match lease.kind {
        CallKind::Get => Some(Outcome::Absent),
        CallKind::Post => Some(Outcome::Lost),
    }));
    calls.retain(|lease| lease.kind == CallKind::Get);
    let asked: BTreeSet<PaymentId> = calls.iter().map(|lease| lease.id).collect();
    assert!(asked.len() >= PINNED, "{} of {PINNED} were asked for", asked.len());
    assert!(calls.len() as u64 <= SECONDS * 200 + 1, "{} in {SECONDS} s", calls.len());
}

#[test]
fn those_that_are_only_asked_for_are_asked_for_while_nothing_else_happens() {
    const SURPRISED: usize = 100;
    let mut store = Store::start(1);
    let row_of_others = |lease: &Lease| match lease.kind {
        CallKind::Get => Some(Outcome::Absent),
        CallKind::Post => Some(Outcome::Duplicate),
    };
    let begun: Vec<Lease> = (0..SURPRISED).flat_map(|_| store.pay()).collect();
    for lease in begun {
        store.report(lease, Outcome::Duplicate);
    }
    store.live_ms(1_000, row_of_others);
    let mut asked = BTreeSet::new();
    let until_us = store.us + 2_000_000;
    let mut open: Vec<Lease> = Vec::new();
    while store.us < until_us {
        // Apis only answer, a millisecond later.
        store.us += if open.is_empty() { store.core.next_call_us() } else { 1_000 };
        let mut begun = Vec::new();
        for lease in open.drain(..) {
            begun.extend(store.report(lease, Outcome::Absent));
        }
        begun.extend(store.turn(None));
        asked.extend(begun.iter().filter(|lease| lease.kind == CallKind::Get).map(|lease| lease.id));
        open = begun;
    }
    assert!(asked.len() >= SURPRISED, "{} of {SURPRISED} were asked for", asked.len());
}
