//! Which api is told what: which one gets a call, and when a report is acknowledged. Whatever is said wakes a process.

use store::core::ledger::snapshot::Replay;
use store::core::queue::Ordinal;
use store::core::record::Record;
use store::core::router::{RouterConfig, State};
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Now, Room};
use wire::frame::{AttemptId, CallKind, FromApi, FromStore, HeldAttempt, Lease, Outcome, Report};
use wire::{Cents, PaymentId, PerProcessor, Processor, Timestamp};

const FIRST: ApiId = ApiId(1);
const SECOND: ApiId = ApiId(2);

/// A store, two apis, and a clock.
struct Store {
    core: Core,
    us: u64,
    accepted: u128,
    reported: u64,
}

impl Store {
    fn start() -> Self {
        let router = RouterConfig::for_fees(PerProcessor([5.0, 15.0]), 1_500);
        let config = CoreConfig { payments_max: 10_000, index_key: [1, 2], router };
        let core = Core::new(config, Now { us: 0, wall_ms: 0 });
        let mut store = Self { core, us: 0, accepted: 0, reported: 0 };
        for (api, instance) in [(FIRST, 1), (SECOND, 2)] {
            store.turn([(api, FromApi::Hello { instance, calls_max: 100, held: Vec::new() })]);
        }
        // The first health calls go out.
        store.us += 6_000_000;
        store.turn([(FIRST, FromApi::Heartbeat), (SECOND, FromApi::Heartbeat)]);
        store
    }

    /// One turn with these frames, and what is said in it.
    fn turn(&mut self, frames: impl IntoIterator<Item = (ApiId, FromApi)>) -> Vec<(ApiId, FromStore)> {
        let now = Now { us: self.us, wall_ms: self.us / 1_000 };
        let mut effects = Effects::default();
        for (api, frame) in frames {
            self.core.step(now, Event::Frame(api, frame), &mut effects);
        }
        self.core.dispatch(now, &mut effects);
        effects.sends
    }

    fn accept(&mut self) -> FromApi {
        self.accepted += 1;
        FromApi::Accept { request: 1, id: PaymentId(self.accepted), cents: Cents(1) }
    }

    /// A payment comes in at this api, and no other for a while. Returns the api that gets its call, and the call.
    fn pay(&mut self, api: ApiId) -> (ApiId, Lease) {
        let accept = self.accept();
        assert_eq!(leases(self.turn([(api, accept)])).count(), 0, "its answer comes first");
        self.us += self.core.next_call_us();
        leases(self.turn([])).next().expect("the processor is free")
    }

    fn report(&mut self, lease: Lease) -> FromApi {
        self.report_after_us(lease, 900)
    }

    fn report_after_us(&mut self, lease: Lease, latency_us: u32) -> FromApi {
        self.reported += 1;
        let Lease { attempt, id, processor, .. } = lease;
        let (sequence, outcome) = (self.reported, Outcome::Charged);
        FromApi::Report(Report { sequence, attempt, id, processor, outcome, status: 200, latency_us })
    }

    /// The cheap processor answers after so long, until nothing else is expected of it.
    fn grow_used_to_ms(&mut self, ms: u32) {
        for _ in 0..40 {
            let (api, lease) = self.pay(FIRST);
            self.us += u64::from(ms) * 1_000;
            let report = self.report_after_us(lease, ms * 1_000);
            self.turn([(api, report), (FIRST, FromApi::Heartbeat), (SECOND, FromApi::Heartbeat)]);
        }
    }

    /// How many posts go out to the cheap processor within this time, in which no api reports.
    fn cheap_posts_in_ms(&mut self, ms: u64) -> usize {
        let mut count = 0;
        for _ in 0..ms {
            self.us += 1_000;
            count += cheap_posts(self.turn([]));
        }
        count
    }

    fn leave(&mut self, api: ApiId) {
        let now = Now { us: self.us, wall_ms: self.us / 1_000 };
        self.core.step(now, Event::Gone(api), &mut Effects::default());
    }
}

fn leases(said: Vec<(ApiId, FromStore)>) -> impl Iterator<Item = (ApiId, Lease)> {
    said.into_iter().filter_map(|(api, message)| match message {
        FromStore::Lease(lease) => Some((api, lease)),
        _ => None,
    })
}

/// The dear one gets a canary now and then, and a payment that is unknown is asked for.
fn cheap_posts(said: Vec<(ApiId, FromStore)>) -> usize {
    let is_one = |lease: &Lease| lease.processor == Processor::Default && lease.kind == CallKind::Post;
    leases(said).filter(|(_, lease)| is_one(lease)).count()
}

fn acknowledged(said: &[(ApiId, FromStore)]) -> Vec<(ApiId, u64)> {
    let acknowledged = said.iter().filter_map(|(api, message)| match message {
        FromStore::Acknowledge { sequence } => Some((*api, *sequence)),
        _ => None,
    });
    acknowledged.collect()
}

#[test]
fn calls_go_to_the_api_that_is_woken_anyway_unless_it_has_more_than_its_share() {
    let mut store = Store::start();
    let accepts: Vec<_> = (0..20).map(|_| (SECOND, store.accept())).collect();
    store.turn(accepts);
    store.us += store.core.next_call_us();
    let callers: Vec<ApiId> = leases(store.turn([])).map(|(api, _)| api).collect();
    assert_eq!(callers[..8], [FIRST; 8]);
    assert_eq!(callers[8..16], [SECOND; 8], "no api has eight calls more than another");
    assert_eq!(callers[16..], [SECOND; 4]);
}

#[test]
fn calls_wait_for_a_pause_between_payments_and_not_for_long() {
    let mut store = Store::start();
    let (first, second) = (store.accept(), store.accept());
    assert_eq!(cheap_posts(store.turn([(FIRST, first)])), 0);
    store.us += 900;
    assert_eq!(cheap_posts(store.turn([(SECOND, second)])), 0);
    store.us += 999;
    assert_eq!(cheap_posts(store.turn([])), 0);
    assert!(store.core.next_call_us() <= 1_000, "and the core looks in time");
    store.us += 1;
    assert_eq!(cheap_posts(store.turn([])), 2);
    // One each 200 us: the first ones wait for a pause, those after them know that there is none.
    let mut at_once = (0..40).map(|_| {
        store.us += 200;
        let accept = store.accept();
        cheap_posts(store.turn([(FIRST, accept)]))
    });
    assert_eq!(at_once.by_ref().take(25).sum::<usize>(), 0);
    assert_eq!(at_once.next(), Some(26));
    assert_eq!(at_once.take(3).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn the_core_does_not_look_each_millisecond_for_payments_that_may_not_go_out() {
    let mut store = Store::start();
    let accept = store.accept();
    store.turn([(FIRST, accept)]);
    assert_eq!(store.core.next_call_us(), 1_000);
    let now = Now { us: store.us, wall_ms: 0 };
    store.core.step(now, Event::Room(Room::NoIntents), &mut Effects::default());
    assert_eq!(leases(store.turn([])).count(), 0);
    assert!(store.core.next_call_us() >= 5_000);
}

#[test]
fn a_report_is_acknowledged_with_what_is_said_next_to_its_api() {
    let mut store = Store::start();
    let (api, lease) = store.pay(FIRST);
    assert_eq!(api, FIRST);
    let report = store.report(lease);
    assert_eq!(store.turn([(FIRST, report)]), [], "no api is woken for that");
    let accept = store.accept();
    assert_eq!(acknowledged(&store.turn([(SECOND, accept)])), []);
    let accept = store.accept();
    assert_eq!(acknowledged(&store.turn([(FIRST, accept)])), [(FIRST, 1)]);
    let accept = store.accept();
    assert_eq!(acknowledged(&store.turn([(FIRST, accept)])), [], "once is enough");
}

#[test]
fn a_report_is_acknowledged_soon_when_nothing_else_is_said() {
    let mut store = Store::start();
    let reports = [store.pay(FIRST).1, store.pay(FIRST).1].map(|lease| store.report(lease));
    for report in reports {
        assert_eq!(store.turn([(FIRST, report)]), []);
        store.us += 60_000;
    }
    assert_eq!(acknowledged(&store.turn([])), [(FIRST, 2)], "120 ms after the first one");
    assert!(store.core.next_call_us() <= 250_000, "the core looks again within that time");
}

#[test]
fn an_api_that_drains_hears_at_once_that_it_may_go() {
    let mut store = Store::start();
    let (first, second) = (store.pay(FIRST).1, store.pay(FIRST).1);
    let report = store.report(first);
    assert_eq!(store.turn([(FIRST, report)]), []);
    assert_eq!(acknowledged(&store.turn([(FIRST, FromApi::Drain)])), [(FIRST, 1)]);
    let report = store.report(second);
    assert_eq!(acknowledged(&store.turn([(FIRST, report)])), [(FIRST, 2)]);
}

#[test]
fn calls_that_a_dead_api_left_behind_count_until_they_are_over() {
    let mut store = Store::start();
    store.grow_used_to_ms(1_000);
    let hello = |instance| FromApi::Hello { instance, calls_max: 768, held: Vec::new() };
    store.turn([(FIRST, hello(1)), (SECOND, hello(2))]);
    let accepts: Vec<_> = (0..2_400).map(|_| (SECOND, store.accept())).collect();
    let at_once = cheap_posts(store.turn(accepts));
    assert_eq!(at_once + store.cheap_posts_in_ms(300), 768, "what is open at most");
    // Both go, one after the other; what they left behind runs on.
    store.leave(FIRST);
    let again = store.cheap_posts_in_ms(150);
    assert!((380..=388).contains(&again), "{again} in the place of those that were open there");
    store.leave(SECOND);
    let beside_left = cheap_posts(store.turn([(FIRST, hello(1))])) + store.cheap_posts_in_ms(300);
    assert_eq!(beside_left, 1_280 - 768 - again, "all that the limiter may meet");
    store.us += 2_000_000;
    store.turn([(FIRST, FromApi::Heartbeat)]);
    assert!(store.cheap_posts_in_ms(300) + beside_left > 700, "those of before are over");
}

#[test]
fn calls_of_an_api_that_comes_back_are_not_left_behind() {
    let mut store = Store::start();
    store.grow_used_to_ms(1_000);
    let hello = |instance, held| FromApi::Hello { instance, calls_max: 768, held };
    store.turn([(FIRST, hello(1, Vec::new())), (SECOND, hello(2, Vec::new()))]);
    let accepts: Vec<_> = (0..2_400).map(|_| (SECOND, store.accept())).collect();
    let mut open: Vec<(ApiId, Lease)> = leases(store.turn(accepts)).collect();
    for _ in 0..300 {
        store.us += 1_000;
        open.extend(leases(store.turn([])));
    }
    open.retain(|(_, lease)| lease.processor == Processor::Default);
    assert_eq!(open.len(), 768);
    for (api, instance) in [(FIRST, 1), (SECOND, 2)] {
        store.leave(api);
        let of_it = open.iter().filter(|(caller, _)| *caller == api);
        let held = of_it.map(|(_, lease)| HeldAttempt { attempt: lease.attempt, age_ms: 300 }).collect();
        assert_eq!(cheap_posts(store.turn([(api, hello(instance, held))])), 0, "all are open as before");
    }
    let reports: Vec<_> =
        open.drain(..100).map(|(api, lease)| (api, store.report_after_us(lease, 1_000_000))).collect();
    assert_eq!(cheap_posts(store.turn(reports)) + store.cheap_posts_in_ms(100), 100);
}

#[test]
fn a_call_that_is_claimed_after_a_restart_is_not_late_for_what_it_waited_before() {
    let router = RouterConfig::for_fees(PerProcessor([5.0, 15.0]), 1_500);
    let config = CoreConfig { payments_max: 10, index_key: [1, 2], router };
    // The host has been up for a while, as hosts have.
    let now = Now { us: 500_000_000, wall_ms: 500_000 };
    let mut core = Core::new(config, now);
    let (ordinal, attempt, processor) = (Ordinal(0), AttemptId(1), Processor::Default);
    core.add(&Record::Accepted { id: PaymentId(1), cents: Cents(1) });
    core.add(&Record::Intended { ordinal, attempt, processor, requested_at: Timestamp::from_ms(490_000) });
    let hello =
        FromApi::Hello { instance: 1, calls_max: 100, held: vec![HeldAttempt { attempt, age_ms: 10_000 }] };
    let mut effects = Effects::default();
    core.step(now, Event::Frame(FIRST, hello), &mut effects);
    core.dispatch(now, &mut effects);
    assert!(core.calls().is_open(processor, attempt), "it is claimed");
    assert_eq!(core.router().state(processor, core.calls(), now.us), State::Usable);
}
