//! The world of one seed: everybody in it, what its clients want, and the checks at the end.

mod api_side;
mod faults;
mod store_side;

use super::cells::Cells;
use super::disk::Disk;
use super::ledgers::Ledgers;
use super::past::Past;
use super::processor::{Answered, Processor};
use super::schedule::Schedule;
use api::desk::{Ask, Desk};
use contest::chance::Chance;
use std::collections::{BTreeMap, VecDeque};
use store::core::router::RouterConfig;
use store::core::{ApiId, Core, CoreConfig, Now, Room};
use store::log::frame::Sequence;
use wire::frame::{Accepted, AttemptId, FromApi, FromStore, Health, Lease, Message, decode};
use wire::{Bounds, Cents, PaymentId, PerProcessor, Processor as Name};

/// Apis of a world.
const APIS: usize = 2;

/// Faults and clients come within this time, in microseconds.
const TROUBLE_US: u64 = 30_000_000;

/// After the trouble everything must be at rest within this time: the longest delay, the longest late insert after it, and
/// what waited for both.
const REST_US: u64 = 400_000_000;

/// Nothing is at rest so soon after the trouble: stopped processes go on, and killed ones are started again.
const REST_MIN_US: u64 = 20_000_000;

/// The connection that operators use.
const OPERATOR: ApiId = ApiId(u64::MAX);

/// Turns with records after which a snapshot is taken, in percent.
const SNAPSHOT_PERCENT: u64 = 3;

/// The wall clock at the start.
const EPOCH_MS: u64 = 1_760_000_000_000;

/// What became of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedResult {
    /// What was wrong first, if anything was.
    pub violation: Option<String>,
    /// Events that happened.
    pub steps: u64,
    /// How long the world existed, in simulated microseconds.
    pub simulated_us: u64,
    /// Payments that clients sent.
    pub payments: u64,
    /// Faults that befell it.
    pub faults: u64,
    /// What was reached.
    pub cells: Cells,
}

/// Lives through one seed.
#[must_use]
pub fn run(seed: u64) -> SeedResult {
    System::new(seed, None).into_verdict()
}

/// Hears each event with its time in microseconds.
type Listener<'a> = &'a mut dyn FnMut(u64, &str);

/// Lives through one seed and tells each event with its time in microseconds.
pub fn tell(seed: u64, mut listener: impl FnMut(u64, &str)) -> SeedResult {
    System::new(seed, Some(&mut listener)).into_verdict()
}

#[derive(Clone, Debug)]
enum What {
    Client(Errand),
    Fault,
    Heal,
    ToStore { connection: u64, bytes: Vec<u8> },
    StoreLost { connection: u64 },
    StoreTick { start: u64 },
    Flushed { start: u64, target: Sequence },
    StoreStart,
    StoreResume,
    ToApi { connection: u64, bytes: Vec<u8> },
    ApiLost { connection: u64 },
    ApiTick(Who),
    ApiStart(usize),
    ApiResume(usize),
    Connect(Who),
    Send(Who, Lease),
    Arrive(Who, Lease),
    Execute(Who, Lease),
    LateInsert(Lease),
    Answer(Who, Lease, Answered),
    Healthy(Who, Name, Health),
}

/// An api, and which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Who {
    api: usize,
    life: u64,
}

/// What a client wants.
#[derive(Clone, Copy, Debug)]
enum Errand {
    Pay(PaymentId, Cents),
    Sum,
    Purge,
}

#[derive(Debug)]
struct Api {
    life: u64,
    desk: Option<Desk>,
    connection: Option<u64>,
    begun_us: BTreeMap<AttemptId, u64>,
    asked: BTreeMap<u64, Errand>,
    paused: Option<Vec<What>>,
}

#[derive(Debug)]
struct Store {
    core: Core,
    held: VecDeque<(Sequence, Vec<(ApiId, FromStore)>)>,
    flushing: bool,
    ticks_until_us: u64,
}

#[derive(Debug)]
struct Connection {
    who: Who,
    /// The store has not yet noticed its end.
    open_at_store: bool,
    /// The api has not yet noticed its end.
    open_at_api: bool,
    up_us: u64,
    down_us: u64,
}

struct System<'a> {
    listener: Option<Listener<'a>>,
    chance: Chance,
    schedule: Schedule<What>,
    config: CoreConfig,
    always: bool,
    /// How often the store was started.
    start: u64,
    store: Option<Store>,
    store_paused: Option<Vec<What>>,
    disk: Disk,
    apis: Vec<Api>,
    connections: BTreeMap<u64, Connection>,
    processors: PerProcessor<Processor>,
    ledgers: Ledgers,
    past: Past,
    /// Counts the purges; a 2xx decided before one does not count after it.
    purges: u64,
    told: BTreeMap<(u64, u64), u64>,
    skew_ms: i64,
    /// What the store's disk has room for.
    room: Room,
    last_late_insert_us: u64,
    healed: bool,
    steps: u64,
    faults: u64,
    cells: Cells,
}

impl<'a> System<'a> {
    fn new(seed: u64, listener: Option<Listener<'a>>) -> Self {
        let mut chance = Chance::new(seed);
        let audit_margin_ms = chance.pick(&[1_500, 2_000]);
        let router = RouterConfig {
            hold_timeout_ms: chance.pick(&[0, 500, 3_000, 25_000]),
            dispatch_per_s: chance.pick(&[200, 2_000]),
            open_max: chance.pick(&[4, 40, 400]),
            ..RouterConfig::for_fees(PerProcessor([5.0, 15.0]), audit_margin_ms)
        };
        let payments_max = if chance.percent(10) { 12 } else { 10_000 };
        let index_key = [chance.bits(), chance.bits()];
        let always = chance.percent(50);
        let api = |_| Api {
            life: 0,
            desk: None,
            connection: None,
            begun_us: BTreeMap::new(),
            asked: BTreeMap::new(),
            paused: None,
        };
        let mut world = Self {
            listener,
            chance,
            schedule: Schedule::default(),
            config: CoreConfig { payments_max, index_key, router },
            always,
            start: 0,
            store: None,
            store_paused: None,
            disk: Disk::default(),
            apis: (0..APIS).map(api).collect(),
            connections: BTreeMap::new(),
            processors: PerProcessor::default(),
            ledgers: Ledgers::default(),
            past: Past::default(),
            purges: 0,
            told: BTreeMap::new(),
            skew_ms: 0,
            room: Room::Ample,
            last_late_insert_us: 0,
            healed: false,
            steps: 0,
            faults: 0,
            cells: Cells::default(),
        };
        world.plan();
        world
    }

    fn into_verdict(mut self) -> SeedResult {
        let violation = self.live().err();
        SeedResult {
            violation,
            steps: self.steps,
            simulated_us: self.schedule.now_us(),
            payments: self.ledgers.sent.len() as u64,
            faults: self.faults,
            cells: self.cells,
        }
    }

    /// Puts everything that will befall this world into its schedule.
    fn plan(&mut self) {
        self.schedule.at(0, What::StoreStart);
        (0..APIS).for_each(|api| self.schedule.at(0, What::ApiStart(api)));
        for name in Name::BOTH {
            self.processors[name].delay_us = self.chance.pick(&[0, 1_000, 20_000, 100_000]);
        }
        let payments = self.chance.between(20, 61);
        for _ in 0..payments {
            let id = PaymentId(u128::from(self.chance.bits()) << 64 | u128::from(self.chance.bits()));
            let cents = Cents(i64::try_from(self.chance.between(1, 5_000)).expect("small"));
            let at = self.chance.between(0, TROUBLE_US - 5_000_000);
            self.schedule.at(at, What::Client(Errand::Pay(id, cents)));
            // The same once more, at the same moment or later; sometimes with another amount.
            while self.chance.percent(25) {
                let again = at + self.chance.pick(&[0, 100, 50_000, 2_000_000, 9_000_000]);
                let cents = if self.chance.percent(10) { Cents(cents.0 + 1) } else { cents };
                self.schedule.at(again, What::Client(Errand::Pay(id, cents)));
            }
        }
        for _ in 0..5 {
            let at = self.chance.between(0, TROUBLE_US);
            self.schedule.at(at, What::Client(Errand::Sum));
        }
        if self.chance.percent(30) {
            let at = self.chance.between(1_000_000, TROUBLE_US);
            self.schedule.at(at, What::Client(Errand::Purge));
        }
        for _ in 0..self.chance.between(10, 41) {
            let at = self.chance.between(0, TROUBLE_US);
            self.schedule.at(at, What::Fault);
        }
        self.schedule.at(TROUBLE_US, What::Heal);
    }

    fn live(&mut self) -> Result<(), String> {
        while let Some(what) = self.schedule.pop() {
            self.steps += 1;
            self.happen(what)?;
            if self.healed && self.is_at_rest() {
                if self.store.as_ref().is_some_and(|store| self.stuck(&store.core) == 0) {
                    return self.check_end();
                }
                // No call runs, and no insert is to come: what the books say now is what there is.
                self.operate_on_stuck()?;
            }
            if self.schedule.now_us() > TROUBLE_US + REST_US {
                return Err(self.describe_unrest());
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        if let Some(listener) = &mut self.listener
            && !matches!(what, What::StoreTick { .. } | What::ApiTick(_))
        {
            listener(self.schedule.now_us(), &describe(&what));
        }
        match what {
            What::Client(errand) => self.on_client(errand),
            What::Fault => self.on_fault()?,
            What::Heal => self.heal(),
            What::StoreStart => self.start_store()?,
            What::StoreResume => {
                for missed in self.store_paused.take().unwrap_or_default() {
                    self.schedule.after(0, missed);
                }
            }
            What::ToStore { .. } | What::StoreLost { .. } | What::StoreTick { .. } | What::Flushed { .. } => {
                self.at_store(what)?;
            }
            What::ApiStart(api) => self.start_api(api),
            What::ApiResume(api) => {
                for missed in self.apis[api].paused.take().unwrap_or_default() {
                    self.schedule.after(0, missed);
                }
            }
            What::ToApi { connection, .. } | What::ApiLost { connection } => {
                let api = self.connections[&connection].who.api;
                self.at_api(api, what)?;
            }
            What::ApiTick(who)
            | What::Connect(who)
            | What::Send(who, _)
            | What::Answer(who, _, _)
            | What::Healthy(who, _, _) => {
                if self.apis[who.api].life == who.life && self.apis[who.api].desk.is_some() {
                    self.at_api(who.api, what)?;
                }
            }
            What::Arrive(who, lease) => self.on_arrive(who, lease),
            What::Execute(who, lease) => self.on_execute(who, &lease)?,
            What::LateInsert(lease) => {
                self.processors[lease.processor].insert(&lease);
                self.ledgers.check_row(lease.id, &self.processors)?;
            }
        }
        Ok(())
    }

    // Clocks.

    fn wall_ms(&self) -> u64 {
        (EPOCH_MS + self.schedule.now_us() / 1000).saturating_add_signed(self.skew_ms)
    }

    fn now(&self) -> Now {
        Now { us: self.schedule.now_us(), wall_ms: self.wall_ms() }
    }

    // Clients.

    fn on_client(&mut self, errand: Errand) {
        if let Errand::Pay(id, cents) = errand {
            self.ledgers.sent.entry(id).or_default().insert(cents);
        }
        let api = usize::try_from(self.chance.between(0, APIS as u64)).expect("small");
        let now_us = self.schedule.now_us();
        let node = &mut self.apis[api];
        let Some(desk) = node.desk.as_mut().filter(|_| node.paused.is_none()) else { return };
        let ask = match errand {
            Errand::Pay(id, cents) => Ask::Accept(id, cents),
            Errand::Sum => Ask::Summary(Bounds::default()),
            Errand::Purge => Ask::Purge,
        };
        if let Some(request) = desk.ask(ask, now_us) {
            node.asked.insert(request, errand);
        }
        self.flush_api(api);
    }

    fn on_reply(
        &mut self,
        connection: u64,
        request: u64,
        errand: Option<Errand>,
        reply: &FromStore,
    ) -> Result<(), String> {
        let Some(Errand::Pay(id, cents)) = errand else { return Ok(()) };
        let FromStore::Accepted { accepted, .. } = reply else {
            return Err("a payment was answered with something else".to_owned());
        };
        match accepted {
            Accepted::Recorded | Accepted::Duplicate => {
                if self.told.get(&(connection, request)) == Some(&self.purges) {
                    self.ledgers.acknowledge(id, cents)?;
                }
                Ok(())
            }
            Accepted::Mismatch if self.ledgers.sent[&id].len() < 2 => {
                Err(format!("{id} was only ever sent with {cents} and got a mismatch"))
            }
            Accepted::Mismatch | Accepted::Full => Ok(()),
        }
    }

    // The end.

    fn is_at_rest(&self) -> bool {
        let Some(store) = &self.store else { return false };
        let balance = store.core.ledger().balance();
        let stuck = self.stuck(&store.core);
        balance.queued.count == 0
            && balance.in_flight.count == stuck
            && self.schedule.now_us() > self.last_late_insert_us
            && self.schedule.now_us() > TROUBLE_US + REST_MIN_US
            && self.processors.iter().all(|(_, processor)| processor.is_idle())
            && self.apis.iter().all(|api| api.begun_us.is_empty() && api.desk.is_some())
    }

    /// Payments that only an operator can end (`accepted_is_charged_once`): without an answer once, and refused for good since.
    fn stuck(&self, core: &Core) -> u64 {
        let ledger = core.ledger();
        ledger.flights().keys().filter(|ordinal| ledger.is_only_asked_for(**ordinal)).count() as u64
    }

    fn check_end(&self) -> Result<(), String> {
        let store = self.store.as_ref().expect("a store at rest runs");
        self.ledgers.check_end(&store.core, &self.processors)
    }

    fn describe_unrest(&self) -> String {
        let Some(store) = &self.store else { return "the store never came back".to_owned() };
        let ledger = store.core.ledger();
        let flights: Vec<String> = ledger
            .flights()
            .iter()
            .map(|(ordinal, flight)| {
                let is_open = |attempt: &AttemptId| store.core.calls().is_open(flight.processor, *attempt);
                let open: Vec<bool> = flight.unanswered.iter().map(is_open).collect();
                format!("{} {flight:?}, open: {open:?}", ledger.id(*ordinal))
            })
            .collect();
        let state = Name::BOTH
            .map(|name| store.core.router().state(name, store.core.calls(), self.schedule.now_us()));
        let waiting = Name::BOTH.map(|name| ledger.queue.bound_len(name));
        let out: Vec<_> =
            self.apis.iter().map(|api| (api.life, api.paused.is_some(), &api.begun_us)).collect();
        format!(
            "not at rest after the trouble: {:?}; {state:?}; bound {waiting:?}; {}; calls of the apis {out:?}",
            ledger.balance(),
            flights.join("; ")
        )
    }
}

/// An event in words, with the frames that it carries.
fn describe(what: &What) -> String {
    fn frames<M: Message + std::fmt::Debug>(mut bytes: &[u8]) -> String {
        let mut text = String::new();
        while let Ok(Some((frame, used))) = decode::<M>(bytes) {
            bytes = &bytes[used..];
            text += &format!(" {frame:?}");
        }
        text
    }
    match what {
        What::ToStore { connection, bytes } => {
            format!("to the store, {connection}:{}", frames::<FromApi>(bytes))
        }
        What::ToApi { connection, bytes } => {
            format!("to the api, {connection}:{}", frames::<FromStore>(bytes))
        }
        other => format!("{other:?}"),
    }
}
