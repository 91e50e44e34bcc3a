//! One plan lived through: users, two apis, the store's core as shipped, two processors, the auditor and the stages, in
//! simulated time.
//!
//! ```text
//!   users --> api 1, 2 --> core (accept, dispatch, report) --> api --> processor (limiter, delay, flag, database)
//!     ^          |           ^                                             |
//!     '-- 1 s ---'           '-------------------- report -----------------'
//! ```
//!
//! What is real is the core: ledger, queue, router, calls. What is left out is what does not decide where a payment
//! goes: frames as bytes, the log, lb, and faults, which `sim money` has. Every way between two parts takes
//! [`WAY_US`], and one in some thousands takes a hiccup of the machine as well; an api begins one call after the other.

use super::processor::{Call, Done, Processor, Row};
use crate::simulation::schedule::Schedule;
use contest::chance::Chance;
use contest::clairvoyant::{Steps, Timeline};
use contest::plan::{Amounts, Plan};
use contest::rules::USER_PAUSE;
use std::time::Duration;
use store::core::router::RouterConfig;
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Note, Now};
use wire::frame::{Accepted, CallKind, FromApi, FromStore, Lease, Outcome, Report};
use wire::{Bounds, PaymentId, PerProcessor, Processor as Name, Timestamp};

/// Apis, as the competition's entry has them.
const APIS: usize = 2;

/// Calls that one api carries (`CALLS_MAX`).
const CALLS_MAX: u16 = 1_000;

/// What an api takes to begin a call: batches of leases become a row of calls.
const BEGIN_US: u64 = 30;

/// The wall clock at the start.
const EPOCH_MS: u64 = 1_760_000_000_000;

/// The way between two processes on one machine, in microseconds, from and to.
const WAY_US: (u64, u64) = (60, 200);

/// One way in so many meets a hiccup, which takes 1 to 25 ms.
const HICCUP_EVERY: u64 = 20_000;

#[derive(Clone, Copy, Debug)]
enum What {
    /// A user posts, or goes.
    Post(u32),
    Accept {
        user: u32,
        api: u64,
        id: PaymentId,
    },
    Arrive(Call),
    Execute(Call),
    Report {
        call: Call,
        outcome: Outcome,
        status: u16,
        latency_us: u64,
    },
    Beat(u64),
    AskHealth {
        api: u64,
        processor: Name,
    },
    AnswerHealth {
        api: u64,
        processor: Name,
    },
    /// One of the four requests that change a stage.
    Change {
        stage: usize,
        request: usize,
    },
    Audit,
    ReadTheirs(Name),
    ReadOurs,
    CountTheirs(Name),
    CountOurs,
}

/// One comparison of the judge.
#[derive(Clone, Debug)]
pub struct Audit {
    /// When it was made, in microseconds since the start.
    pub at_us: u64,
    /// What the judge sees.
    pub difference: u64,
    /// Rows that a processor had and the store did not know of, with their processor.
    pub unknown: Vec<(Name, Row)>,
}

/// The audit that is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    at_us: u64,
    from_ms: u64,
    to_ms: u64,
    theirs_us: PerProcessor<u64>,
}

/// What became of a plan.
#[derive(Clone, Debug, Default)]
pub struct Lived {
    /// When each payment was posted, in microseconds since the start.
    pub arrivals_us: Vec<u64>,
    /// What was recorded.
    pub rows: PerProcessor<Vec<Row>>,
    /// What counts at the end.
    pub settled: PerProcessor<usize>,
    /// The comparisons.
    pub audits: Vec<Audit>,
    /// How the processors behaved.
    pub timelines: PerProcessor<Option<Timeline>>,
    /// When the last sum was taken.
    pub end_us: u64,
    /// How often the router thought otherwise of a processor.
    pub changes: u64,
    /// When each processor was asked for its health.
    pub health_us: PerProcessor<Vec<u64>>,
    /// Calls that were turned away by a limiter.
    pub busy: u64,
    /// The most payments that waited.
    pub queue_max: u64,
    /// What was told, with its time in microseconds.
    pub story: Vec<(u64, String)>,
}

impl Lived {
    /// The longest time from a payment's post to the beginning of the call that charged it, in milliseconds: the oldest
    /// payment goes out first, so both are compared in their order.
    #[must_use]
    pub fn wait_max_ms(&self) -> u64 {
        let mut begun_us: Vec<u64> = self.rows.0.iter().flatten().map(|row| row.begun_us).collect();
        begun_us.sort_unstable();
        let mut posted_us = self.arrivals_us.clone();
        posted_us.sort_unstable();
        let waits = begun_us.iter().zip(&posted_us).map(|(begun, posted)| begun.saturating_sub(*posted));
        waits.max().unwrap_or(0) / 1_000
    }
}

/// Lives through a plan. `seed` decides what takes how long; the story is kept if `is_told`.
#[must_use]
pub fn live(plan: &Plan, seed: u64, is_told: bool) -> Lived {
    live_with(plan, RouterConfig::for_fees(plan.fee_percent, plan.audit.margin_ms), seed, is_told)
}

/// The same with settings of one's own.
#[must_use]
pub fn live_with(plan: &Plan, router: RouterConfig, seed: u64, is_told: bool) -> Lived {
    let mut world = Scenario::new(plan, router, seed, is_told);
    while let Some(what) = world.next() {
        world.happen(what);
    }
    world.finish()
}

struct Scenario<'a> {
    plan: &'a Plan,
    chance: Chance,
    schedule: Schedule<What>,
    core: Core,
    effects: Effects,
    /// When the core wants to be called if nothing comes.
    tick_us: u64,
    processors: PerProcessor<Processor>,
    timelines: PerProcessor<Timeline>,
    /// When each api is done with what it was given.
    begun_us: [u64; APIS],
    users_left: u32,
    posted: u64,
    reported: [u64; APIS],
    reading: Reading,
    is_over: bool,
    is_told: bool,
    lived: Lived,
}

impl<'a> Scenario<'a> {
    fn new(plan: &'a Plan, router: RouterConfig, seed: u64, is_told: bool) -> Self {
        let mut chance = Chance::new(!seed);
        let config =
            CoreConfig { payments_max: 10_000_000, index_key: [chance.bits(), chance.bits()], router };
        let healthy = || Timeline { delay_us: Steps::new(0), failing: Steps::new(false) };
        let mut world = Self {
            plan,
            chance,
            schedule: Schedule::default(),
            core: Core::new(config, Now { us: 0, wall_ms: EPOCH_MS }),
            effects: Effects::default(),
            tick_us: 0,
            processors: PerProcessor::default(),
            timelines: PerProcessor::from_fn(|_| healthy()),
            begun_us: [0; APIS],
            users_left: plan.users,
            posted: 0,
            reported: [0; APIS],
            reading: Reading::default(),
            is_over: false,
            is_told,
            lived: Lived::default(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for api in 0..APIS as u64 {
            let hello = FromApi::Hello { instance: api + 1, calls_max: CALLS_MAX, held: Vec::new() };
            self.frame(api, hello);
            self.schedule.after(1_000_000, What::Beat(api));
        }
        for (user, start) in (0..).zip(self.plan.user_starts()) {
            self.schedule.at(micros(start), What::Post(user));
        }
        for (stage, begins) in self.plan.stages.iter().enumerate() {
            self.schedule.at(micros(begins.from), What::Change { stage, request: 0 });
        }
        self.schedule.at(0, What::Audit);
        self.end_turn();
    }

    /// What comes next: an event, or the core's own wish to be called.
    fn next(&mut self) -> Option<What> {
        loop {
            if self.is_over && self.lived.end_us > 0 {
                return None;
            }
            if self.schedule.next_us().is_none_or(|next| next <= self.tick_us) {
                return self.schedule.pop();
            }
            self.schedule.wait_until(self.tick_us);
            self.end_turn();
        }
    }

    fn happen(&mut self, what: What) {
        let now_us = self.schedule.now_us();
        match what {
            What::Post(user) => self.post(user),
            What::Accept { user, api, id } => {
                self.frame(api, FromApi::Accept { request: u64::from(user), id, cents: self.plan.amount });
                self.end_turn();
            }
            What::Arrive(call) => self.arrive(call),
            What::Execute(call) => self.execute(call),
            What::Report { call, outcome, status, latency_us } => {
                self.report(call, outcome, status, latency_us);
            }
            What::Beat(api) => {
                self.frame(api, FromApi::Heartbeat);
                self.end_turn();
                self.schedule.after(1_000_000, What::Beat(api));
            }
            What::AskHealth { api, processor } => {
                let answered_us = self.processors[processor].take_window(now_us);
                self.lived.health_us[processor].push(now_us);
                self.schedule.at(answered_us, What::AnswerHealth { api, processor });
            }
            What::AnswerHealth { api, processor } => {
                let health = self.processors[processor].health();
                self.frame(api, FromApi::HealthReport { processor, health });
                self.end_turn();
            }
            What::Change { stage, request } => self.change(stage, request),
            What::Audit => self.audit(),
            What::ReadTheirs(name) => self.reading.theirs_us[name] = now_us,
            What::ReadOurs => self.read_ours(),
            What::CountTheirs(name) => self.count_theirs(name),
            What::CountOurs => self.count_ours(),
        }
    }

    /// What a way takes.
    fn way(&mut self) -> u64 {
        let way_us = self.chance.between(WAY_US.0, WAY_US.1);
        let is_hiccup = self.chance.bits().is_multiple_of(HICCUP_EVERY);
        if is_hiccup { way_us + self.chance.between(1_000, 25_000) } else { way_us }
    }

    // Users.

    fn post(&mut self, user: u32) {
        let now_us = self.schedule.now_us();
        if now_us >= micros(self.plan.duration) {
            self.users_left -= 1;
            if self.users_left == 0 {
                self.count();
            }
            return;
        }
        self.lived.arrivals_us.push(now_us);
        self.posted += 1;
        // Spread over the whole space, as ids drawn by chance are, and never the same twice.
        let id = PaymentId(u128::from(self.posted).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let (api, way_us) = (self.posted % APIS as u64, self.way() + self.way());
        self.schedule.after(way_us, What::Accept { user, api, id });
    }

    // The store.

    fn now(&self) -> Now {
        let us = self.schedule.now_us();
        Now { us, wall_ms: EPOCH_MS + us / 1_000 }
    }

    fn frame(&mut self, api: u64, frame: FromApi) {
        self.core.step(self.now(), Event::Frame(ApiId(api), frame), &mut self.effects);
    }

    /// Ends a turn and carries out what it says.
    fn end_turn(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        self.core.dispatch(self.now(), &mut effects);
        for (ApiId(api), message) in effects.sends.drain(..) {
            match message {
                FromStore::Accepted { request, accepted } => {
                    assert_eq!(accepted, Accepted::Recorded, "every id is new and the store has room");
                    let way_us = self.way() + self.way();
                    let user = u32::try_from(request).expect("a user's number");
                    self.schedule.after(way_us + micros(USER_PAUSE), What::Post(user));
                }
                FromStore::Lease(lease) => self.call(api, &lease),
                FromStore::HealthLease { processor, .. } => {
                    let way_us = self.way() + self.way();
                    self.schedule.after(way_us, What::AskHealth { api, processor });
                }
                FromStore::Welcome | FromStore::Acknowledge { .. } => (),
                other => unreachable!("not asked for: {other:?}"),
            }
        }
        for note in effects.notes.drain(..) {
            if let Note::Believed { .. } = note {
                self.lived.changes += 1;
            }
            self.tell(|| note.to_string());
        }
        effects.records.clear();
        effects.records_len = 0;
        self.effects = effects;
        self.lived.queue_max = self.lived.queue_max.max(self.core.ledger().balance().queued.count);
        self.tick_us = self.schedule.now_us() + self.core.next_call_us();
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.is_told {
            self.lived.story.push((self.schedule.now_us(), what()));
        }
    }

    // Calls.

    fn call(&mut self, api: u64, lease: &Lease) {
        assert_eq!(lease.kind, CallKind::Post, "nothing is ever unknown here");
        let way_us = self.way();
        let at = usize::try_from(api).expect("small");
        let begun_us = (self.schedule.now_us() + way_us).max(self.begun_us[at]) + BEGIN_US;
        self.begun_us[at] = begun_us;
        let Lease { processor, attempt, id, requested_at, .. } = *lease;
        let requested_ms = requested_at.as_ms() - EPOCH_MS;
        let arrives_us = begun_us + self.way();
        let call = Call { processor, attempt, id, api: at, requested_ms, begun_us };
        self.schedule.at(arrives_us, What::Arrive(call));
    }

    fn arrive(&mut self, call: Call) {
        match self.processors[call.processor].arrive(call) {
            Ok(true) => self.run(call),
            Ok(false) => (),
            Err(()) => {
                self.lived.busy += 1;
                self.answer(call, Outcome::Busy, 429, self.schedule.now_us());
            }
        }
    }

    fn run(&mut self, call: Call) {
        self.schedule.after(self.processors[call.processor].delay_us, What::Execute(call));
    }

    fn execute(&mut self, call: Call) {
        let now_us = self.schedule.now_us();
        match self.processors[call.processor].execute(now_us) {
            Done::Failed => drop(self.answer(call, Outcome::Failing, 500, now_us)),
            Done::RecordedAt(recorded_us) => {
                let reported_us = self.answer(call, Outcome::Charged, 200, recorded_us);
                let Call { requested_ms, begun_us, .. } = call;
                let row = Row { requested_ms, begun_us, recorded_us, reported_us };
                self.processors[call.processor].rows.push(row);
            }
        }
    }

    /// The answer of `answered_us` becomes a report; gives the time at which the store hears of it.
    fn answer(&mut self, call: Call, outcome: Outcome, status: u16, answered_us: u64) -> u64 {
        let heard_us = answered_us + self.way();
        let latency_us = heard_us - call.begun_us;
        let reported_us = heard_us + self.way();
        self.schedule.at(reported_us, What::Report { call, outcome, status, latency_us });
        reported_us
    }

    fn report(&mut self, call: Call, outcome: Outcome, status: u16, latency_us: u64) {
        let Call { processor, attempt, id, api, .. } = call;
        // The limiter's place is free since the answer left, two ways ago.
        if outcome != Outcome::Busy
            && let Some(next) = self.processors[processor].leave()
        {
            self.run(next);
        }
        self.reported[api] += 1;
        let latency_us = u32::try_from(latency_us).expect("minutes");
        let sequence = self.reported[api];
        let report = Report { sequence, attempt, id, processor, outcome, status, latency_us };
        self.frame(api as u64, FromApi::Report(report));
        self.end_turn();
    }

    // The judge.

    fn change(&mut self, stage: usize, request: usize) {
        let now_us = self.schedule.now_us();
        let name = Name::BOTH[request % 2];
        let condition = self.plan.stages[stage].condition[name];
        if request < 2 {
            self.processors[name].delay_us = condition.delay_ms * 1_000;
            self.timelines[name].delay_us.change(now_us, condition.delay_ms * 1_000);
        } else {
            self.processors[name].failing = condition.failing;
            self.timelines[name].failing.change(now_us, condition.failing);
        }
        if request < 3 {
            let way_us = 3 * self.way();
            self.schedule.after(way_us, What::Change { stage, request: request + 1 });
        } else {
            let charged = self.core.ledger().balance().charged.0.map(|totals| totals.count);
            let queued = self.core.ledger().balance().queued.count;
            let condition = self.plan.stages[stage].condition.0;
            self.tell(|| {
                let [default, fallback] = condition.map(|condition| {
                    format!("{} ms{}", condition.delay_ms, if condition.failing { " failing" } else { "" })
                });
                format!("STAGE default {default}, fallback {fallback}; charged {charged:?}, queue {queued}")
            });
        }
    }

    fn audit(&mut self) {
        let now_us = self.schedule.now_us();
        if now_us >= micros(self.plan.duration) {
            return;
        }
        let now_ms = now_us / 1_000;
        let (from_ms, to_ms) = (
            now_ms.saturating_sub(self.plan.audit.reach_ms),
            now_ms.saturating_sub(self.plan.audit.margin_ms),
        );
        self.reading = Reading { at_us: now_us, from_ms, to_ms, theirs_us: PerProcessor::default() };
        // All three at once. Ours is read last: it is two processes away.
        let ways = [self.way(), self.way(), self.way() + self.way()];
        for (name, way_us) in Name::BOTH.into_iter().zip(ways) {
            self.schedule.after(way_us, What::ReadTheirs(name));
        }
        let ours_us = ways[2].max(ways[0]).max(ways[1]);
        self.schedule.after(ours_us, What::ReadOurs);
        self.schedule.after(ours_us + 500 + self.plan.audit.every_ms * 1_000, What::Audit);
    }

    fn read_ours(&mut self) {
        let Reading { at_us, from_ms, to_ms, theirs_us } = self.reading;
        let ours = self.ours(from_ms, to_ms);
        let now_us = self.schedule.now_us();
        let mut theirs = [0; 2];
        let mut unknown = Vec::new();
        for name in Name::BOTH {
            for row in self.processors[name].rows_within(from_ms, to_ms, theirs_us[name]) {
                theirs[name as usize] += 1;
                if row.reported_us > now_us {
                    unknown.push((name, *row));
                }
            }
        }
        let difference = self.plan.audit.difference.of(ours, theirs);
        if difference > 0 {
            self.tell(|| {
                format!("AUDIT differs by {difference}: ours {ours:?}, theirs {theirs:?}, {unknown:?}")
            });
        }
        self.lived.audits.push(Audit { at_us, difference, unknown });
    }

    fn ours(&mut self, from_ms: u64, to_ms: u64) -> [u64; 2] {
        let at = |ms| Some(Timestamp::from_ms(EPOCH_MS + ms));
        let bounds = Bounds { from: at(from_ms), to: at(to_ms) };
        self.frame(0, FromApi::Summary { request: 0, bounds });
        match self.effects.sends.pop() {
            Some((_, FromStore::Summary { totals, .. })) => totals.0.map(|totals| totals.count),
            other => unreachable!("a summary was asked for, not {other:?}"),
        }
    }

    /// The last user has gone: one sum after the other, at once.
    fn count(&mut self) {
        self.is_over = true;
        let mut way_us = 0;
        for name in Name::BOTH {
            way_us += 3 * self.way();
            self.schedule.after(way_us, What::CountTheirs(name));
        }
        way_us += 3 * self.way();
        self.schedule.after(way_us, What::CountOurs);
    }

    fn count_theirs(&mut self, name: Name) {
        let now_us = self.schedule.now_us();
        let from_ms = (now_us / 1_000).saturating_sub(self.plan.end.window_ms);
        self.lived.settled[name] = self.processors[name].rows_within(from_ms, now_us / 1_000, now_us).count();
    }

    fn count_ours(&mut self) {
        let now_us = self.schedule.now_us();
        self.lived.end_us = now_us;
        if self.plan.end.amounts == Amounts::Ours {
            let from_ms = (now_us / 1_000).saturating_sub(self.plan.end.window_ms);
            let ours = self.ours(from_ms, now_us / 1_000);
            self.lived.settled = PerProcessor(ours.map(|count| usize::try_from(count).expect("small")));
        }
    }

    fn finish(mut self) -> Lived {
        let settled = self.lived.settled;
        let balance = *self.core.ledger().balance();
        self.tell(|| {
            format!(
                "END settled {:?}, queue {}, in flight {}",
                settled.0, balance.queued.count, balance.in_flight.count
            )
        });
        self.lived.timelines = PerProcessor(self.timelines.0.map(Some));
        let [default, fallback] = self.processors.0;
        self.lived.rows = PerProcessor([default.rows, fallback.rows]);
        self.lived
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("plans last a day at most")
}
