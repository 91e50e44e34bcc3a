//! Which api is told what: who gets a call, and when a report is acknowledged. Whatever is said wakes a process.

use store::core::router::RouterConfig;
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Now};
use wire::frame::{FromApi, FromStore, Lease, Outcome, Report};
use wire::{Cents, PaymentId, PerProcessor};

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
        let config = CoreConfig { payments_max: 1_000, index_key: [1, 2], router };
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

    /// A payment comes in at this api. Who gets its call, and the call.
    fn pay(&mut self, api: ApiId) -> (ApiId, Lease) {
        let accept = self.accept();
        let said = self.turn([(api, accept)]);
        let mut leases = said.into_iter().filter_map(|(api, message)| match message {
            FromStore::Lease(lease) => Some((api, lease)),
            _ => None,
        });
        leases.next().expect("the processor is free")
    }

    fn report(&mut self, lease: Lease) -> FromApi {
        self.reported += 1;
        let Lease { attempt, id, processor, .. } = lease;
        let (sequence, outcome) = (self.reported, Outcome::Charged);
        FromApi::Report(Report { sequence, attempt, id, processor, outcome, status: 200, latency_us: 900 })
    }
}

fn acknowledged(said: &[(ApiId, FromStore)]) -> Vec<(ApiId, u64)> {
    let acknowledged = said.iter().filter_map(|(api, message)| match message {
        FromStore::Acknowledge { sequence } => Some((*api, *sequence)),
        _ => None,
    });
    acknowledged.collect()
}

#[test]
fn a_call_goes_to_the_api_that_is_woken_anyway_unless_it_has_more_than_its_share() {
    let mut store = Store::start();
    let callers: Vec<ApiId> = (0..20).map(|_| store.pay(SECOND).0).collect();
    assert_eq!(callers[..8], [SECOND; 8]);
    assert_eq!(callers[8..16], [FIRST; 8], "nobody has eight calls more than another");
    assert_eq!(callers[16..], [SECOND; 4]);
}

#[test]
fn a_report_is_acknowledged_with_what_is_said_next_to_its_api() {
    let mut store = Store::start();
    let (api, lease) = store.pay(FIRST);
    assert_eq!(api, FIRST);
    let report = store.report(lease);
    assert_eq!(store.turn([(FIRST, report)]), [], "nobody is woken for that");
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
    assert!(store.core.next_call_us() <= 250_000, "it takes no longer than that until somebody looks");
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
