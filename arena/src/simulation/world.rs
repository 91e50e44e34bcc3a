//! The world of one seed: everybody in it, what they do to each other, and the checks.

use super::cells::Cells;
use super::chance::Chance;
use super::disk::Disk;
use super::ledgers::Ledgers;
use super::processor::{Answered, Processor, Row};
use super::schedule::Schedule;
use api::desk::{Ask, Desk, Taken};
use api::evidence::{self, Answer};
use std::collections::{BTreeMap, VecDeque};
use store::core::calls::Calls;
use store::core::ledger::Standing;
use store::core::queue::Ordinal;
use store::core::router::RouterConfig;
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Now, Room};
use store::log::frame::Sequence;
use wire::frame::{
    Accepted, AttemptId, FromApi, FromStore, Health, Lease, Message, Operation, Outcome, decode,
};
use wire::{Bounds, Cents, PaymentId, PerProcessor, Processor as Name, Timestamp};

/// Apis of a world.
const APIS: usize = 2;

/// Faults and clients come within this time, in microseconds.
const TROUBLE_US: u64 = 30_000_000;

/// After the trouble everything must be at rest within this time: answers that proved nothing take 35 s to settle, and
/// more of them may have come while others waited.
const REST_US: u64 = 400_000_000;

/// An insert may come so long after its answer.
const LATE_INSERT_US: u64 = 31_000_000;

/// After the trouble an operator waits so long, until no call can be on its way any more: the longest delay, and an insert
/// after it.
const OPERATOR_US: u64 = 80_000_000;

/// The connection that operators use.
const OPERATOR: ApiId = ApiId(u64::MAX);

/// Turns with records after which a snapshot is taken, in percent.
const SNAPSHOT_PERCENT: u64 = 3;

/// The wall clock at the start.
const EPOCH_MS: u64 = 1_760_000_000_000;

/// What became of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
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
pub fn run(seed: u64) -> Verdict {
    World::new(seed, None).into_verdict()
}

/// Hears each event with its time in microseconds.
type Listener<'a> = &'a mut dyn FnMut(u64, &str);

/// Lives through one seed and tells each event with its time in microseconds.
pub fn tell(seed: u64, mut listener: impl FnMut(u64, &str)) -> Verdict {
    World::new(seed, Some(&mut listener)).into_verdict()
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

struct World<'a> {
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

impl<'a> World<'a> {
    fn new(seed: u64, listener: Option<Listener<'a>>) -> Self {
        let mut chance = Chance::new(seed);
        let audit_margin_ms = chance.pick(&[1_500, 2_000]);
        let router = RouterConfig {
            patience_ms: chance.pick(&[0, 500, 3_000, 25_000]),
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

    fn into_verdict(mut self) -> Verdict {
        let violation = self.live().err();
        Verdict {
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
                if self.schedule.now_us() > TROUBLE_US + OPERATOR_US {
                    self.operate_on_stuck()?;
                }
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

    // The store.

    fn start_store(&mut self) -> Result<(), String> {
        if self.store.is_some() {
            return Ok(());
        }
        self.start += 1;
        let mut core = Core::new(self.config, self.now());
        self.disk.recover(&mut core).map_err(|error| error.to_string())?;
        self.ledgers.note_foreign(&core, &self.processors);
        // A purge that was never confirmed may have outlived a power loss: what the store does not know was purged.
        let ledger = core.ledger();
        let is_known = |id: &PaymentId| ledger.find(*id).is_some() || ledger.tombstones().contains_key(id);
        Name::BOTH.into_iter().for_each(|name| self.processors[name].forget_lost(is_known));
        self.ledgers.check_recovered(&core)?;
        self.store = Some(Store { core, held: VecDeque::new(), flushing: false, ticks_until_us: 0 });
        self.schedule.after(0, What::StoreTick { start: self.start });
        Ok(())
    }

    fn at_store(&mut self, what: What) -> Result<(), String> {
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

    fn turn(&mut self, connection: u64, bytes: &[u8]) -> Result<(), String> {
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

    fn end_turn(&mut self, mut effects: Effects) -> Result<(), String> {
        let now = self.now();
        let start = self.start;
        let store = self.store.as_mut().expect("a running store");
        store.core.step(now, Event::Room(self.room), &mut effects);
        store.core.dispatch(now, &mut effects);
        self.ledgers.check_summary(&store.core, &self.processors)?;
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
    fn flush(&mut self) {
        let store = self.store.as_mut().expect("a running store");
        if !store.flushing && self.disk.written > self.disk.durable {
            store.flushing = true;
            let takes_us = if self.always { self.chance.pick(&[100, 1_000, 5_000, 80_000]) } else { 100_000 };
            self.schedule.after(takes_us, What::Flushed { start: self.start, target: self.disk.written });
        }
    }

    fn release(&mut self) {
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

    fn kill_store(&mut self, power: bool) -> Result<(), String> {
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
    fn check_recovery(&self, before: &Core) -> Result<(), String> {
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
    fn cut(&mut self, connection: u64) {
        self.lose_at_api(connection);
        let known = &self.connections[&connection];
        let at = known.up_us.max(self.schedule.now_us() + self.chance.between(10, 5_000));
        self.schedule.at(at, What::StoreLost { connection });
    }

    fn lose_at_api(&mut self, connection: u64) {
        let known = &self.connections[&connection];
        let at = known.down_us.max(self.schedule.now_us() + self.chance.between(10, 5_000));
        self.schedule.at(at, What::ApiLost { connection });
    }

    // Apis.

    fn start_api(&mut self, api: usize) {
        let instance = self.chance.bits();
        let calls_max = self.chance.pick(&[3, 500]);
        let node = &mut self.apis[api];
        if node.desk.is_some() {
            return;
        }
        node.life += 1;
        node.desk = Some(Desk::new(instance, calls_max));
        let who = Who { api, life: node.life };
        self.schedule.after(0, What::Connect(who));
        self.schedule.after(0, What::ApiTick(who));
    }

    fn at_api(&mut self, api: usize, what: What) -> Result<(), String> {
        if let Some(missed) = &mut self.apis[api].paused {
            missed.push(what);
            return Ok(());
        }
        let now_us = self.schedule.now_us();
        match what {
            What::ToApi { connection, bytes } if self.apis[api].connection == Some(connection) => {
                self.on_frames(api, connection, &bytes)?;
            }
            What::ApiLost { connection } => {
                self.connections.get_mut(&connection).expect("connections are kept").open_at_api = false;
                let node = &mut self.apis[api];
                if node.connection == Some(connection) {
                    node.connection = None;
                    let desk = node.desk.as_mut().expect("a connected api lives");
                    for (request, _) in desk.disconnect() {
                        node.asked.remove(&request);
                    }
                    let who = Who { api, life: node.life };
                    self.schedule.after(20_000, What::Connect(who));
                }
            }
            What::Connect(who) => self.connect(who),
            What::ApiTick(who) => {
                let node = &mut self.apis[api];
                let desk = node.desk.as_mut().expect("it lives");
                for (request, _) in desk.expire(now_us) {
                    node.asked.remove(&request);
                }
                for attempt in desk.sweep(now_us) {
                    node.begun_us.remove(&attempt);
                }
                desk.tell(&FromApi::Heartbeat);
                self.schedule.after(500_000, What::ApiTick(who));
            }
            What::Send(who, lease) => self.on_send(who, lease),
            What::Answer(_, lease, answered) => {
                if let Some(begun_us) = self.apis[api].begun_us.remove(&lease.attempt) {
                    let (outcome, status) = judge(&lease, &answered);
                    let desk = self.apis[api].desk.as_mut().expect("it lives");
                    desk.finish(&lease, outcome, status, now_us - begun_us);
                }
            }
            What::Healthy(_, processor, health) => {
                let desk = self.apis[api].desk.as_mut().expect("it lives");
                desk.tell(&FromApi::HealthReport { processor, health });
            }
            _ => (),
        }
        self.flush_api(api);
        Ok(())
    }

    fn connect(&mut self, who: Who) {
        if self.apis[who.api].connection.is_some() {
            return;
        }
        if self.store.is_none() {
            self.schedule.after(20_000, What::Connect(who));
            return;
        }
        let number = self.connections.len() as u64;
        let now_us = self.schedule.now_us();
        let fresh =
            Connection { who, open_at_store: true, open_at_api: true, up_us: now_us, down_us: now_us };
        self.connections.insert(number, fresh);
        let node = &mut self.apis[who.api];
        node.connection = Some(number);
        node.desk.as_mut().expect("it lives").connect(now_us);
    }

    /// Moves what the desk says onto the link.
    fn flush_api(&mut self, api: usize) {
        let node = &mut self.apis[api];
        let (Some(connection), Some(desk)) = (node.connection, &mut node.desk) else { return };
        let bytes = std::mem::take(desk.outbox());
        if !bytes.is_empty() {
            let known = self.connections.get_mut(&connection).expect("connections are kept");
            known.up_us = known.up_us.max(self.schedule.now_us() + self.chance.between(5, 300));
            self.schedule.at(known.up_us, What::ToStore { connection, bytes });
        }
    }

    fn on_frames(&mut self, api: usize, connection: u64, bytes: &[u8]) -> Result<(), String> {
        let (now_us, wall_ms) = (self.schedule.now_us(), self.wall_ms());
        let who = Who { api, life: self.apis[api].life };
        let mut rest = bytes;
        while let Some((message, used)) = decode::<FromStore>(rest).map_err(|error| error.to_string())? {
            rest = &rest[used..];
            let node = &mut self.apis[api];
            match node.desk.as_mut().expect("it lives").take(message, now_us, wall_ms) {
                Taken::Nothing => (),
                Taken::Reply(request, reply) => {
                    let errand = node.asked.remove(&request);
                    self.on_reply(connection, request, errand, &reply)?;
                }
                Taken::Call(lease) => {
                    let delay_us = self.chance.between(1, 2_000);
                    self.schedule.after(delay_us, What::Send(who, lease));
                }
                Taken::Health(name) => self.ask_health(who, name),
            }
        }
        Ok(())
    }

    fn ask_health(&mut self, who: Who, name: Name) {
        let processor = &self.processors[name];
        let (takes_us, health) = if processor.is_down {
            (1_000, Health::Unanswered)
        } else if processor.health_hangs {
            (12_000_000, Health::Unanswered)
        } else {
            let failing = processor.failing != processor.health_lies;
            let min_response_ms = u32::try_from(processor.delay_us / 1000).expect("small");
            (2_000, Health::Answered { failing, min_response_ms })
        };
        self.schedule.after(takes_us, What::Healthy(who, name, health));
    }

    fn kill_api(&mut self, api: usize) {
        let node = &mut self.apis[api];
        if node.desk.take().is_none() {
            return;
        }
        node.paused = None;
        node.begun_us.clear();
        node.asked.clear();
        if let Some(connection) = node.connection.take() {
            self.connections.get_mut(&connection).expect("connections are kept").open_at_api = false;
            self.cut(connection);
        }
        let pause_us = self.chance.pick(&[1_000, 100_000, 4_000_000]);
        self.schedule.after(pause_us, What::ApiStart(api));
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

    // Calls.

    fn on_send(&mut self, who: Who, lease: Lease) {
        let now_us = self.schedule.now_us();
        self.apis[who.api].begun_us.insert(lease.attempt, now_us);
        if self.processors[lease.processor].is_down {
            let begun_us = self.apis[who.api].begun_us.remove(&lease.attempt).unwrap_or(now_us);
            let desk = self.apis[who.api].desk.as_mut().expect("it lives");
            desk.finish(&lease, Outcome::Unreachable, 0, now_us - begun_us);
            return;
        }
        let on_the_way_us = self.chance.between(20, 1_000);
        self.schedule.after(on_the_way_us, What::Arrive(who, lease));
    }

    fn on_arrive(&mut self, who: Who, lease: Lease) {
        let delay_us = match lease.kind {
            wire::frame::CallKind::Post => self.processors[lease.processor].delay_us,
            wire::frame::CallKind::Get => 500,
        };
        match self.processors[lease.processor].arrive() {
            Some(answered) => self.answer(who, lease, answered),
            None => self.schedule.after(delay_us, What::Execute(who, lease)),
        }
    }

    fn on_execute(&mut self, who: Who, lease: &Lease) -> Result<(), String> {
        let executed = self.processors[lease.processor].execute(lease, &mut self.chance);
        if let Some(late_us) = executed.late_insert_us {
            self.last_late_insert_us = self.last_late_insert_us.max(self.schedule.now_us() + late_us);
            self.schedule.after(late_us, What::LateInsert(*lease));
        }
        self.answer(who, *lease, executed.answered);
        self.ledgers.check_row(lease.id, &self.processors)
    }

    fn answer(&mut self, who: Who, lease: Lease, answered: Answered) {
        let on_the_way_us = self.chance.between(20, 1_000);
        self.schedule.after(on_the_way_us, What::Answer(who, lease, answered));
    }

    // Faults.

    fn on_fault(&mut self) -> Result<(), String> {
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
    fn operate(&mut self) -> Result<(), String> {
        let Some(store) = self.store.as_ref().filter(|_| self.store_paused.is_none()) else { return Ok(()) };
        let ledger = store.core.ledger();
        let dead = (0..ledger.len())
            .map(|at| Ordinal(u32::try_from(at).expect("a small seed")))
            .find(|ordinal| ledger.standing(*ordinal) == Standing::Dead)
            .map(|ordinal| Operation::Revive(ledger.id(ordinal)));
        let in_books = ledger.flights().iter().find_map(|(ordinal, flight)| {
            let id = ledger.id(*ordinal);
            let ours = Row { requested_at: flight.requested_at, cents: ledger.cents(*ordinal) };
            (self.processors[flight.processor].rows.get(&id) == Some(&ours)).then_some(Operation::Charged(id))
        });
        let left_behind = ledger.tombstones().iter().find_map(|(id, tombstone)| {
            let rows = &self.processors[tombstone.flight.processor].rows;
            rows.contains_key(id).then_some(Operation::Charged(*id))
        });
        for operation in [dead, in_books, left_behind].into_iter().flatten() {
            self.decide(operation)?;
        }
        Ok(())
    }

    /// What only an operator can end, once nothing happens at the processors any more.
    fn operate_on_stuck(&mut self) -> Result<(), String> {
        let ledger = self.store.as_ref().expect("a store at rest runs").core.ledger();
        let stuck: Vec<Operation> = ledger
            .flights()
            .iter()
            .map(|(ordinal, flight)| (ledger.id(*ordinal), &self.processors[flight.processor]))
            .map(|(id, processor)| {
                let is_there = processor.rows.contains_key(&id) || processor.lost.contains(&id);
                if is_there { Operation::Charged(id) } else { Operation::NotCharged(id) }
            })
            .collect();
        stuck.into_iter().try_for_each(|operation| self.decide(operation))
    }

    fn decide(&mut self, operation: Operation) -> Result<(), String> {
        let mut effects = Effects::default();
        let now = self.now();
        let store = self.store.as_mut().expect("a running store");
        let frame = FromApi::Operate { request: 1, operation };
        store.core.step(now, Event::Frame(OPERATOR, frame), &mut effects);
        self.end_turn(effects)
    }

    fn lose_row(&mut self) {
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

    /// Somebody else has a payment charged that one of our clients sends as well.
    fn insert_foreign_row(&mut self) {
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

    fn change_mood(&mut self) {
        let name = self.chance.pick(&Name::BOTH);
        let processor = &mut self.processors[name];
        match self.chance.between(0, 8) {
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
            _ => {
                processor.health_hangs = self.chance.percent(50);
                processor.health_lies = self.chance.percent(50);
            }
        }
    }

    /// The trouble is over.
    fn heal(&mut self) {
        self.healed = true;
        self.room = Room::Ample;
        for name in Name::BOTH {
            self.processors[name].heal();
        }
        self.schedule.after(0, What::StoreResume);
        (0..APIS).for_each(|api| self.schedule.after(0, What::ApiResume(api)));
    }

    // The end.

    fn is_at_rest(&self) -> bool {
        let Some(store) = &self.store else { return false };
        let balance = store.core.ledger().balance();
        let stuck = self.stuck(&store.core);
        balance.queued.count == 0
            && balance.in_flight.count == stuck
            && self.schedule.now_us() > self.last_late_insert_us
            && self.schedule.now_us() > TROUBLE_US + LATE_INSERT_US
            && self.apis.iter().all(|api| api.begun_us.is_empty() && api.desk.is_some())
    }

    /// Payments that only an operator can end (invariant 4): without an answer once, and refused for good since.
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

/// What the api makes of an answer: the code that is shipped.
fn judge(lease: &Lease, answered: &Answered) -> (Outcome, u16) {
    match answered {
        Answered::Reset => (Outcome::Lost, 0),
        Answered::With(status, announced, body) => {
            let content_length = announced.then_some(body.len() as u64);
            let answer = Answer { status: *status, content_length, body: Some(body.as_bytes()) };
            (evidence::outcome(lease.kind, answer), *status)
        }
    }
}
