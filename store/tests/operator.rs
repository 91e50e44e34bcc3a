//! What an operator may decide: every operation about a payment in every standing, through the core as a command asks it.

use store::core::ledger::Standing;
use store::core::queue::Ordinal;
use store::core::record::{Record, Terms};
use store::core::router::RouterConfig;
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Now, Room};
use wire::frame::{
    Accepted, AttemptId, CallKind, FromApi, FromStore, HeldAttempt, Lease, Listing, Operation, Outcome,
    Report,
};
use wire::{Bounds, Cents, PaymentId, PerProcessor, Processor};

const ID: PaymentId = PaymentId(7);
const CENTS: Cents = Cents(1990);
const API: ApiId = ApiId(1);
const OPERATOR: ApiId = ApiId(2);

/// A store, one api, and a clock.
struct Store {
    core: Core,
    us: u64,
    sequence: u64,
    sends: Vec<FromStore>,
    records: Vec<Record>,
}

impl Store {
    fn start() -> Self {
        let fees = PerProcessor([5.0, 15.0]);
        let router =
            RouterConfig { hold_share: 0.0, hold_timeout_ms: 0, ..RouterConfig::for_fees(fees, 1_500) };
        let config = CoreConfig { payments_max: 1_000, index_key: [1, 2], router };
        let core = Core::new(config, Now { us: 0, wall_ms: 1_000 });
        let mut store = Self { core, us: 0, sequence: 0, sends: Vec::new(), records: Vec::new() };
        store.hear(API, FromApi::Hello { instance: 1, calls_max: 100, held: Vec::new() });
        // Attempts of the time before would be waited for.
        store.after_ms(1_500);
        store
    }

    /// One turn with one frame.
    fn hear(&mut self, api: ApiId, frame: FromApi) {
        let now = Now { us: self.us, wall_ms: 1_000 + self.us / 1_000 };
        let mut effects = Effects::default();
        self.core.step(now, Event::Frame(api, frame), &mut effects);
        self.core.dispatch(now, &mut effects);
        self.sends.extend(effects.sends.into_iter().map(|(_, message)| message));
        let mut bytes = &effects.records[..];
        while !bytes.is_empty() {
            self.records.push(Record::decode(&mut bytes).unwrap());
        }
    }

    fn after_ms(&mut self, ms: u64) {
        self.us += ms * 1_000;
        self.hear(API, FromApi::Heartbeat);
    }

    fn pay(&mut self) -> Accepted {
        self.hear(API, FromApi::Accept { request: 1, id: ID, cents: CENTS });
        let accepted = self.sends.iter().rev().find_map(|message| match message {
            FromStore::Accepted { accepted, .. } => Some(*accepted),
            _ => None,
        });
        accepted.unwrap()
    }

    /// The last call that was leased, waited for.
    fn lease(&mut self) -> Lease {
        for _ in 0..200 {
            let is_post = |lease: &Lease| lease.kind == CallKind::Post;
            let last = self.sends.drain(..).rev().find_map(|message| match message {
                FromStore::Lease(lease) if is_post(&lease) => Some(lease),
                _ => None,
            });
            if let Some(lease) = last {
                return lease;
            }
            self.after_ms(50);
        }
        panic!("nothing is leased");
    }

    fn report(&mut self, lease: Lease, outcome: Outcome) {
        self.sequence += 1;
        let Lease { attempt, id, processor, .. } = lease;
        let (sequence, status, latency_us) = (self.sequence, 0, 1_000);
        self.hear(
            API,
            FromApi::Report(Report { sequence, attempt, id, processor, outcome, status, latency_us }),
        );
    }

    /// The answer, and what was recorded for it first.
    fn operate(&mut self, operation: Operation) -> (bool, String, Option<Record>) {
        self.records.clear();
        self.sends.clear();
        self.hear(OPERATOR, FromApi::Operate { request: 9, deadline_us: u64::MAX, operation });
        let answer = self.sends.iter().find_map(|message| match message {
            FromStore::Operated { request: 9, done, text, .. } => Some((*done, text.clone())),
            _ => None,
        });
        let (done, text) = answer.unwrap();
        (done, text, self.records.first().copied())
    }

    fn standing(&self) -> Standing {
        self.core.ledger().standing(self.core.ledger().find(ID).unwrap())
    }
}

/// The ways in which a payment can stand, and how it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Nowhere,
    Queued,
    Open,
    Overdue,
    Unknown,
    Charged,
    ChargedAndClaimed,
    Dead,
    DeadAndClaimed,
    DeadAndClaimedByBoth,
    Tombstone,
    TombstoneOpen,
    TombstoneOverdue,
}

const ALL: [Stands; 13] = [
    Stands::Nowhere,
    Stands::Queued,
    Stands::Open,
    Stands::Overdue,
    Stands::Unknown,
    Stands::Charged,
    Stands::ChargedAndClaimed,
    Stands::Dead,
    Stands::DeadAndClaimed,
    Stands::DeadAndClaimedByBoth,
    Stands::Tombstone,
    Stands::TombstoneOpen,
    Stands::TombstoneOverdue,
];

/// Where the first attempt of the payment goes.
const FIRST: Processor = Processor::Default;

fn store(stands: Stands) -> Store {
    let mut store = Store::start();
    if stands == Stands::Nowhere {
        return store;
    }
    if stands == Stands::Queued {
        store.hear(API, FromApi::Drain);
        store.pay();
        return store;
    }
    store.pay();
    let lease = store.lease();
    assert_eq!(lease.processor, FIRST);
    match stands {
        Stands::Open | Stands::Nowhere | Stands::Queued => (),
        Stands::Unknown => {
            store.hear(API, FromApi::Drain);
            store.report(lease, Outcome::Lost);
        }
        Stands::Overdue => {
            store.hear(API, FromApi::Drain);
            store.report(lease, Outcome::Overdue);
        }
        Stands::Charged => store.report(lease, Outcome::Charged),
        Stands::ChargedAndClaimed => {
            store.report(lease, Outcome::Failing);
            let other = store.lease();
            assert_ne!(other.processor, lease.processor);
            store.report(other, Outcome::Charged);
            store.report(lease, Outcome::Charged);
        }
        Stands::Dead | Stands::DeadAndClaimed | Stands::DeadAndClaimedByBoth => {
            store.report(lease, Outcome::Refused);
            let other = store.lease();
            assert_ne!(other.processor, lease.processor);
            store.report(other, Outcome::Refused);
            if stands != Stands::Dead {
                store.report(lease, Outcome::Charged);
            }
            if stands == Stands::DeadAndClaimedByBoth {
                store.report(other, Outcome::Charged);
            }
        }
        Stands::Tombstone => {
            store.hear(API, FromApi::Drain);
            store.report(lease, Outcome::Lost);
            store.hear(API, FromApi::Purge { request: 1, asked_us: 1, deadline_us: u64::MAX });
        }
        Stands::TombstoneOpen => {
            store.hear(API, FromApi::Purge { request: 1, asked_us: 1, deadline_us: u64::MAX });
        }
        Stands::TombstoneOverdue => {
            store.hear(API, FromApi::Drain);
            store.report(lease, Outcome::Overdue);
            store.hear(API, FromApi::Purge { request: 1, asked_us: 1, deadline_us: u64::MAX });
        }
    }
    store
}

/// What an operation records first and where the payment stands then; `None` when the store objects.
fn expected(stands: Stands, operation: Operation) -> Option<Record> {
    let (id, ordinal, terms) = (ID, Ordinal(0), Terms::Ours);
    let charged = |processor| Some(Record::Charged { ordinal, processor, terms });
    match (stands, operation) {
        (Stands::Unknown, Operation::Charged { by: None | Some(FIRST), .. })
        | (Stands::DeadAndClaimed, Operation::Charged { by: None | Some(FIRST), .. }) => charged(FIRST),
        (Stands::DeadAndClaimedByBoth, Operation::Charged { by: Some(by), .. }) => charged(by),
        (
            Stands::Unknown | Stands::DeadAndClaimed | Stands::DeadAndClaimedByBoth,
            Operation::NotCharged(_),
        ) => Some(Record::Resolved { ordinal }),
        (Stands::Dead, Operation::Revive(_)) => Some(Record::Revived { ordinal }),
        (Stands::Tombstone, Operation::Charged { by: None | Some(FIRST), .. }) => {
            Some(Record::TombstoneCharged { id })
        }
        (Stands::Tombstone, Operation::NotCharged(_)) => Some(Record::TombstoneResolved { id }),
        _ => None,
    }
}

#[test]
fn every_operation_about_a_payment_in_every_standing() {
    let by = [None, Some(Processor::Default), Some(Processor::Fallback)];
    let charged = by.map(|by| Operation::Charged { id: ID, by });
    for stands in ALL {
        for operation in charged.into_iter().chain([Operation::NotCharged(ID), Operation::Revive(ID)]) {
            let mut store = store(stands);
            let (done, text, recorded) = store.operate(operation);
            let what = format!("{stands:?}, {operation:?}: {text}");
            let expected = expected(stands, operation);
            assert_eq!((done, recorded), (expected.is_some(), expected), "{what}");
            match recorded {
                Some(Record::Charged { processor, .. }) => {
                    assert_eq!(store.standing(), Standing::Charged(processor), "{what}");
                }
                Some(Record::Resolved { .. }) if stands == Stands::Unknown => {
                    assert_eq!(store.standing(), Standing::Queued, "{what}");
                }
                Some(Record::Resolved { .. }) => {
                    assert_eq!(store.standing(), Standing::Dead, "{what}");
                    assert_eq!(store.core.ledger().conflicts(), 0, "{what}");
                    assert!(store.operate(Operation::Revive(ID)).0, "no processor claims it any more");
                }
                Some(Record::Revived { .. }) => {
                    assert!(matches!(store.standing(), Standing::Queued | Standing::InFlight), "{what}");
                }
                Some(Record::TombstoneCharged { .. }) => {
                    assert!(store.core.ledger().tombstones()[&ID].is_charged, "{what}");
                }
                Some(Record::TombstoneResolved { .. }) => {
                    assert!(store.core.ledger().tombstones().is_empty(), "{what}");
                }
                _ => assert!(text.len() > 10, "an objection says why: {what}"),
            }
        }
    }
}

#[test]
fn nothing_is_decided_about_a_payment_while_an_api_keeps_the_socket_of_an_overdue_call() {
    for stands in [Stands::Overdue, Stands::TombstoneOverdue] {
        let mut store = store(stands);
        assert!(!store.operate(Operation::NotCharged(ID)).0, "{stands:?}");
        // Its connection breaks, and it comes back with the call.
        store.core.step(Now { us: store.us, wall_ms: 9_000 }, Event::Gone(API), &mut Effects::default());
        let held = vec![HeldAttempt { attempt: AttemptId(1), age_ms: 31_000 }];
        store.hear(API, FromApi::Hello { instance: 1, calls_max: 100, held });
        store.hear(API, FromApi::Drain);
        assert!(!store.operate(Operation::NotCharged(ID)).0, "{stands:?} after a reconnection");
        store.core.step(Now { us: store.us, wall_ms: 9_000 }, Event::Gone(API), &mut Effects::default());
        assert!(store.operate(Operation::NotCharged(ID)).0, "{stands:?} once the api has gone");
    }
}

#[test]
fn a_request_after_its_deadline_changes_nothing() {
    let mut store = store(Stands::Dead);
    store.us = 5_000_000;
    for (deadline_us, is_in_time) in [(4_999_999, false), (5_000_000, true)] {
        store.sends.clear();
        store.records.clear();
        let operation = Operation::Revive(ID);
        store.hear(OPERATOR, FromApi::Operate { request: 1, deadline_us, operation });
        store.hear(API, FromApi::Purge { request: 2, asked_us: 1, deadline_us });
        assert_eq!(store.records.contains(&Record::Revived { ordinal: Ordinal(0) }), is_in_time);
        assert_eq!(store.records.contains(&Record::Purged), is_in_time);
        assert!(store.sends.contains(&FromStore::Purged { request: 2, done: is_in_time }));
        let is_told =
            |message: &FromStore| matches!(message, FromStore::Operated { done, .. } if *done == is_in_time);
        assert!(store.sends.iter().any(is_told));
    }
}

#[test]
fn an_overdue_call_that_its_payment_lists_no_more_still_forbids_a_decision() {
    let mut store = store(Stands::Open);
    let first = Lease {
        attempt: AttemptId(1),
        id: ID,
        cents: CENTS,
        processor: FIRST,
        requested_at: wire::Timestamp(0),
        kind: CallKind::Post,
        begin_until_us: None,
    };
    store.report(first, Outcome::Overdue);
    // Sixteen repetitions without proof: the first attempt leaves the list.
    for _ in 0..16 {
        let lease = store.lease();
        assert_eq!(lease.processor, FIRST);
        store.report(lease, Outcome::Unclear);
    }
    store.hear(API, FromApi::Drain);
    let is_listed =
        store.core.ledger().flights().values().any(|flight| flight.unanswered.contains(&AttemptId(1)));
    assert!(!is_listed, "the list is full");
    assert!(!store.operate(Operation::NotCharged(ID)).0, "its answer may still come");
}

#[test]
fn a_purge_that_a_later_one_has_overtaken_forgets_nothing_that_came_since() {
    let mut store = Store::start();
    store.us = 5_000_000;
    let purge = |request, asked_us| FromApi::Purge { request, asked_us, deadline_us: asked_us + 1_000_000 };
    store.hear(API, purge(1, 4_900_000));
    assert_eq!(store.pay(), Accepted::Recorded);
    store.hear(API, purge(2, 4_800_000));
    assert!(store.sends.contains(&FromStore::Purged { request: 2, done: true }), "what it asks for is done");
    assert_eq!(store.pay(), Accepted::Duplicate);
    store.us += 1;
    store.hear(API, purge(3, 5_000_001));
    assert_eq!(store.pay(), Accepted::Recorded);
}

#[test]
fn a_revived_dead_letter_is_sent_again_and_can_be_charged() {
    let mut store = store(Stands::Dead);
    assert!(store.operate(Operation::Revive(ID)).0);
    let lease = store.lease();
    store.report(lease, Outcome::Charged);
    assert_eq!(store.standing(), Standing::Charged(lease.processor));
}

#[test]
fn evidence_against_an_operator_is_a_conflict() {
    let mut store = store(Stands::Unknown);
    let attempt = {
        let ledger = store.core.ledger();
        let flight = ledger.flights().values().next().unwrap();
        (flight.unanswered[0], flight.processor)
    };
    assert!(store.operate(Operation::NotCharged(ID)).0);
    let (attempt, processor) = attempt;
    let (sequence, status, latency_us) = (9, 200, 1_000);
    let outcome = Outcome::Charged;
    let report = Report { sequence, attempt, id: ID, processor, outcome, status, latency_us };
    store.hear(API, FromApi::Report(report));
    assert_eq!(store.standing(), Standing::Charged(processor));
    assert_eq!(store.core.ledger().conflicts(), 1);
    let (_, text, _) = store.operate(Operation::List { listing: Listing::Conflicts, from: 0 });
    assert!(text.contains(&ID.to_string()), "{text}");
}

#[test]
fn every_listing_shows_its_payments_and_no_others() {
    for (stands, shown) in [
        (Stands::Dead, Listing::DeadLetters),
        (Stands::Unknown, Listing::InFlight),
        (Stands::Open, Listing::InFlight),
        (Stands::Tombstone, Listing::Tombstones),
    ] {
        let mut store = store(stands);
        for listing in [Listing::DeadLetters, Listing::InFlight, Listing::Conflicts, Listing::Tombstones] {
            let (done, text, recorded) = store.operate(Operation::List { listing, from: 0 });
            assert!(done && recorded.is_none());
            assert_eq!(text.contains(&ID.to_string()), listing == shown, "{stands:?} in {listing:?}: {text}");
        }
    }
}

#[test]
fn a_window_is_told_to_an_operator_without_a_hello_and_records_nothing() {
    for (stands, charged, in_flight) in [
        (Stands::Queued, 0, 0),
        (Stands::Open, 0, 1),
        (Stands::Unknown, 0, 1),
        (Stands::Charged, 1, 0),
        (Stands::Dead, 0, 0),
        (Stands::Tombstone, 0, 1),
    ] {
        let mut store = store(stands);
        store.records.clear();
        store.sends.clear();
        let (operator, bounds) = (ApiId(77), Bounds::default());
        let operate = |operation| FromApi::Operate { request: 5, deadline_us: u64::MAX, operation };
        store.hear(operator, operate(Operation::Window { bounds }));
        for processor in Processor::BOTH {
            store.hear(operator, operate(Operation::Charges { processor, bounds, from: 0 }));
        }
        let window = store.sends.iter().find_map(|message| match message {
            FromStore::Window { request: 5, window } => Some(*window),
            _ => None,
        });
        let window = window.unwrap();
        let sum = |count: PerProcessor<u64>| count.0.iter().sum::<u64>();
        assert_eq!(sum(PerProcessor(window.charged.0.map(|totals| totals.count))), charged, "{stands:?}");
        assert_eq!(sum(window.in_flight), in_flight, "{stands:?}");
        let listed = store.sends.iter().filter_map(|message| match message {
            FromStore::Charges { request: 5, next: None, charges } => Some(charges),
            _ => None,
        });
        let ids: Vec<PaymentId> = listed.flatten().map(|charge| charge.id).collect();
        assert_eq!(ids, vec![ID; usize::try_from(charged).unwrap()], "{stands:?}");
        let is_decision = |record: &&Record| !matches!(record, Record::Intended { .. });
        assert_eq!(store.records.iter().find(is_decision), None, "{stands:?}");
    }
}

#[test]
fn a_long_list_comes_in_pages() {
    let mut store = Store::start();
    // Every second one is refused: were they all, it would be the processors that are wrong.
    for number in 0..900_u128 {
        let id = PaymentId(number + 100);
        store.hear(API, FromApi::Accept { request: 1, id, cents: CENTS });
    }
    for _ in 0..1_000 {
        let calls: Vec<Lease> = store
            .sends
            .drain(..)
            .filter_map(|message| if let FromStore::Lease(lease) = message { Some(lease) } else { None })
            .collect();
        for lease in calls {
            let is_bad = lease.id.0.is_multiple_of(2);
            store.report(lease, if is_bad { Outcome::Refused } else { Outcome::Charged });
        }
        store.after_ms(20);
    }
    let (mut from, mut lines, mut pages) = (0, 0, 0);
    loop {
        store.sends.clear();
        let operation = Operation::List { listing: Listing::DeadLetters, from };
        store.hear(OPERATOR, FromApi::Operate { request: 1, deadline_us: u64::MAX, operation });
        let page = store.sends.iter().find_map(|message| match message {
            FromStore::Operated { text, next, .. } => Some((text.lines().count(), *next)),
            _ => None,
        });
        let (count, next) = page.unwrap();
        (lines, pages) = (lines + count, pages + 1);
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!((lines, pages), (450, 3));
}

#[test]
fn a_full_log_refuses_new_payments_first_and_then_begins_no_attempt() {
    let mut store = Store::start();
    let now = Now { us: store.us, wall_ms: 3_000 };
    let mut effects = Effects::default();
    store.core.step(now, Event::Room(Room::NoAccepts), &mut effects);
    assert_eq!(effects.notes.len(), 1);
    assert_eq!(store.pay(), Accepted::Full);
    store.core.step(now, Event::Room(Room::Ample), &mut effects);
    store.hear(API, FromApi::Drain);
    assert_eq!(store.pay(), Accepted::Recorded);
    store.core.step(now, Event::Room(Room::NoIntents), &mut effects);
    assert_eq!(store.pay(), Accepted::Duplicate, "what is known is known");
    store.hear(ApiId(3), FromApi::Hello { instance: 2, calls_max: 10, held: Vec::new() });
    store.us += 100_000;
    store.hear(ApiId(3), FromApi::Heartbeat);
    assert_eq!(store.standing(), Standing::Queued);
    store.core.step(now, Event::Room(Room::Ample), &mut effects);
    store.us += 100_000;
    store.hear(ApiId(3), FromApi::Heartbeat);
    assert_eq!(store.standing(), Standing::InFlight);
}
