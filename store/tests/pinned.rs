//! How soon a payment that may have been charged is settled once its processor answers again (`pinned_settle_soon`): the store's
//! core between an api and two processors, in simulated time.
//!
//! The default processor works, dies with all that it has in hand, is in trouble for some seconds, and works again. A call
//! that gets no answer at all, not even a reset, is waited for until it is overdue, 30 s after it began, whatever its
//! processor does meanwhile; what is asked then is how long it keeps others waiting.

use std::collections::{BTreeMap, BTreeSet};
use store::core::ledger::Standing;
use store::core::router::RouterConfig;
use store::core::{ApiId, Core, CoreConfig, Effects, Event, Now};
use wire::frame::{CallKind, FromApi, FromStore, Lease, Outcome, Report};
use wire::{Cents, PaymentId, PerProcessor, Processor};

const API: ApiId = ApiId(1);

/// The way between two processes.
const WAY_US: u64 = 200;

/// A payment comes in so often.
const PAYMENT_EVERY_US: u64 = 5_000;

/// When the default processor dies, and for how long whatever comes to it is reset then.
const DIES_US: u64 = 4_000_000;
const DYING_US: u64 = 30_000;

/// How long a reset takes to be noticed, and how many payments come in at once just when it dies.
const RESET_US: u64 = 20_000;
const BURST: u32 = 60;

/// The longest delay that it has before it dies: a longer one would keep payments away.
const EARLIER_DELAY_US_MAX: u64 = 1_000_000;

/// What the other one takes.
const OTHER_DELAY_US: u64 = 1_000;

/// How long an api tries to connect, and how long it waits for the answer to a `GET`.
const CONNECT_US: u64 = 1_000_000;
const INQUIRY_US: u64 = 5_000_000;

/// When a call without an answer is overdue.
const OVERDUE_US: u64 = 30_000_000;

/// Nothing is waited for longer than this after the recovery.
const END_US: u64 = 60_000_000;

/// Payments that must be pinned when it recovers, or nothing was tried.
const PINNED_MIN: usize = 10;

/// What a processor does that does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It answers 500 with nothing in it after its delay, and a `GET` as ever.
    Fails,
    /// It answers 500 with words after its delay, which proves nothing.
    FailsInWords,
    /// No process listens at its address.
    Refuses,
    /// No host answers at its address: an api gives up connecting after a second.
    Swallows,
    /// It takes a connection and resets it.
    Resets,
    /// It takes everything, and goes on with it when it recovers.
    Stalls,
    /// Packets to it are lost without a sign.
    Loses,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Pay,
    PayOnce,
    Beat,
    Arrive(Lease),
    Execute(Lease),
    Report(Lease, Outcome),
}

/// All of them.
struct World {
    core: Core,
    trouble: Trouble,
    delay_us: u64,
    recovers_us: u64,
    /// More payments come after the processor's death, and find out about it as well.
    goes_on: bool,
    now_us: u64,
    tick_us: u64,
    schedule: BTreeMap<(u64, u64), What>,
    scheduled: u64,
    accepted: u128,
    reported: u64,
    /// When each call began that is out, and whose it is.
    begun_us: BTreeMap<u64, (u64, PaymentId)>,
    rows: BTreeSet<PaymentId>,
    resets: u64,
    /// Payments of which a call got an answer that proves nothing, or none.
    unproven: BTreeSet<PaymentId>,
}

impl World {
    fn new(trouble: Trouble, delay_us: u64, recovers_us: u64, goes_on: bool) -> Self {
        let router = RouterConfig::for_fees(PerProcessor([5.0, 15.0]), 1_500);
        let config = CoreConfig { payments_max: 100_000, index_key: [1, 2], router };
        let mut world = Self {
            core: Core::new(config, Now { us: 0, wall_ms: 0 }),
            trouble,
            delay_us,
            recovers_us,
            goes_on,
            now_us: 0,
            tick_us: 0,
            schedule: BTreeMap::new(),
            scheduled: 0,
            accepted: 0,
            reported: 0,
            begun_us: BTreeMap::new(),
            rows: BTreeSet::new(),
            resets: 0,
            unproven: BTreeSet::new(),
        };
        world.turn(Some(FromApi::Hello { instance: 1, calls_max: 768, held: Vec::new() }));
        world.after(0, What::Beat);
        world.after(0, What::Pay);
        (0..BURST).for_each(|_| world.after(DIES_US, What::PayOnce));
        world
    }

    fn after(&mut self, us: u64, what: What) {
        self.scheduled += 1;
        self.schedule.insert((self.now_us + us, self.scheduled), what);
    }

    /// Lives until then, or until something is so.
    fn live_until(&mut self, us: u64, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let next_us = self.schedule.first_key_value().map_or(u64::MAX, |((at_us, _), _)| *at_us);
            if next_us.min(self.tick_us) > us {
                self.now_us = us;
                return;
            }
            if self.tick_us < next_us {
                self.now_us = self.tick_us;
                self.turn(None);
            } else if let Some(((at_us, _), what)) = self.schedule.pop_first() {
                self.now_us = at_us;
                self.happen(what);
            }
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Pay => {
                self.happen(What::PayOnce);
                if self.goes_on || self.now_us < DIES_US {
                    self.after(PAYMENT_EVERY_US, What::Pay);
                }
            }
            What::PayOnce => {
                self.accepted += 1;
                let accept = FromApi::Accept { request: 1, id: PaymentId(self.accepted), cents: Cents(1) };
                self.turn(Some(accept));
            }
            What::Beat => {
                self.turn(Some(FromApi::Heartbeat));
                self.after(1_000_000, What::Beat);
            }
            What::Arrive(lease) => self.arrive(lease),
            What::Execute(lease) => self.execute(lease),
            What::Report(lease, outcome) => self.report(lease, outcome),
        }
    }

    /// One turn of the store.
    fn turn(&mut self, frame: Option<FromApi>) {
        let now = Now { us: self.now_us, wall_ms: self.now_us / 1_000 };
        let mut effects = Effects::default();
        if let Some(frame) = frame {
            self.core.step(now, Event::Frame(API, frame), &mut effects);
        }
        self.core.dispatch(now, &mut effects);
        for (_, message) in effects.sends {
            // Health calls get no answer: a recovery may not rest on them.
            if let FromStore::Lease(lease) = message {
                self.begun_us.insert(lease.attempt.0, (self.now_us + WAY_US, lease.id));
                self.after(2 * WAY_US, What::Arrive(lease));
            }
        }
        self.tick_us = self.now_us + self.core.next_call_us();
    }

    // The processors.

    fn is_dying(&self) -> bool {
        (DIES_US..DIES_US + DYING_US).contains(&self.now_us)
    }

    /// What is wrong with a processor now.
    fn trouble_of(&self, processor: Processor) -> Option<Trouble> {
        let is_over = self.now_us < DIES_US || self.now_us >= self.recovers_us;
        (processor == Processor::Default && !is_over).then_some(self.trouble)
    }

    fn arrive(&mut self, lease: Lease) {
        let is_get = lease.kind == CallKind::Get;
        match self.trouble_of(lease.processor) {
            Some(_) if self.is_dying() => self.reset(lease),
            Some(Trouble::Refuses) => self.answer(lease, Outcome::Unreachable),
            Some(Trouble::Swallows) => self.after(CONNECT_US, What::Report(lease, Outcome::Unreachable)),
            Some(Trouble::Resets) => self.reset(lease),
            Some(Trouble::Stalls) if is_get => self.after(INQUIRY_US, What::Report(lease, Outcome::Lost)),
            Some(Trouble::Stalls) => self.run_later(lease),
            Some(Trouble::Loses) if is_get => self.after(INQUIRY_US, What::Report(lease, Outcome::Lost)),
            Some(Trouble::Loses) => self.after(OVERDUE_US, What::Report(lease, Outcome::Overdue)),
            _ if is_get => self.look_up(lease),
            _ => self.after(self.delay_us_of(lease.processor), What::Execute(lease)),
        }
    }

    fn delay_us_of(&self, processor: Processor) -> u64 {
        match processor {
            Processor::Default if self.now_us < DIES_US => self.delay_us.min(EARLIER_DELAY_US_MAX),
            Processor::Default => self.delay_us,
            Processor::Fallback => OTHER_DELAY_US,
        }
    }

    /// A call stands still until the recovery.
    fn run_later(&mut self, lease: Lease) {
        self.after(self.recovers_us - self.now_us + self.delay_us, What::Execute(lease));
    }

    /// The delay of a call is over; the failure flag is read now.
    fn execute(&mut self, lease: Lease) {
        match self.trouble_of(lease.processor) {
            Some(_) if self.is_dying() => self.reset(lease),
            Some(Trouble::Fails) => self.answer(lease, Outcome::Failing),
            Some(Trouble::FailsInWords) => self.answer(lease, Outcome::Unclear),
            Some(Trouble::Refuses | Trouble::Swallows | Trouble::Resets) => self.reset(lease),
            Some(Trouble::Stalls) => self.run_later(lease),
            // It is there already.
            Some(Trouble::Loses) => self.answer(lease, Outcome::Failing),
            None if self.rows.insert(lease.id) => self.answer(lease, Outcome::Charged),
            None => self.answer(lease, Outcome::Duplicate),
        }
    }

    /// The connection of a call ends without an answer; every other time its row is there.
    fn reset(&mut self, lease: Lease) {
        self.resets += 1;
        if lease.kind == CallKind::Post && self.resets.is_multiple_of(2) {
            self.rows.insert(lease.id);
        }
        self.after(RESET_US, What::Report(lease, Outcome::Lost));
    }

    fn look_up(&mut self, lease: Lease) {
        let Lease { requested_at, cents, .. } = lease;
        let found = Outcome::Found { requested_at, cents };
        self.answer(lease, if self.rows.contains(&lease.id) { found } else { Outcome::Absent });
    }

    fn answer(&mut self, lease: Lease, outcome: Outcome) {
        self.after(2 * WAY_US, What::Report(lease, outcome));
    }

    fn report(&mut self, lease: Lease, outcome: Outcome) {
        if lease.kind == CallKind::Post && matches!(outcome, Outcome::Lost | Outcome::Unclear) {
            self.unproven.insert(lease.id);
        }
        self.reported += 1;
        let (begun_us, _) = self.begun_us.remove(&lease.attempt.0).expect("it was leased once");
        let latency_us = u32::try_from(self.now_us - WAY_US - begun_us).expect("less than an hour");
        let Lease { attempt, id, processor, .. } = lease;
        let sequence = self.reported;
        let report = Report { sequence, attempt, id, processor, outcome, status: 0, latency_us };
        self.turn(Some(FromApi::Report(report)));
    }

    // The payments.

    /// Those that may have been charged, for all that the store knows.
    fn pinned(&self) -> BTreeSet<PaymentId> {
        let ledger = self.core.ledger();
        let is_pinned = |id: &&PaymentId| {
            ledger.find(**id).is_some_and(|ordinal| ledger.standing(ordinal) == Standing::InFlight)
        };
        self.unproven.iter().filter(is_pinned).copied().collect()
    }

    /// Those of them of which no call is out.
    fn pinned_at_rest(&self) -> BTreeSet<PaymentId> {
        let mut pinned = self.pinned();
        pinned.retain(|id| self.begun_us.values().all(|(_, out)| out != id));
        pinned
    }
}

/// How many payments were pinned at the recovery, and how many milliseconds after it none was any more.
fn settle(
    trouble: Trouble,
    delay_ms: u64,
    trouble_ms: u64,
    goes_on: bool,
    pinned: impl Fn(&World) -> BTreeSet<PaymentId>,
) -> (usize, u64) {
    let recovers_us = DIES_US + trouble_ms * 1_000;
    let mut world = World::new(trouble, delay_ms * 1_000, recovers_us, goes_on);
    world.live_until(recovers_us, |_| false);
    let at_recovery = pinned(&world).len();
    world.live_until(recovers_us + END_US, |world| pinned(world).is_empty());
    (at_recovery, (world.now_us - recovers_us).div_ceil(1_000))
}

#[test]
fn a_pinned_payment_settles_within_two_delays_and_a_second_of_the_recovery() {
    use Trouble::{Fails, FailsInWords, Refuses, Resets, Stalls, Swallows};
    for trouble in [Fails, FailsInWords, Refuses, Resets, Stalls, Swallows] {
        // An api that tried to connect just before the recovery gives up a second later.
        let given_up_ms = if trouble == Swallows { CONNECT_US / 1_000 } else { 0 };
        for (delay_ms, goes_on) in [0, 50, 500, 1_500].into_iter().flat_map(|ms| [(ms, true), (ms, false)]) {
            for trouble_ms in [2_323, 2_799, 16_233] {
                let (pinned, took_ms) = settle(trouble, delay_ms, trouble_ms, goes_on, World::pinned);
                let others = if goes_on { "beside others" } else { "alone" };
                let name = format!("{trouble:?} for {trouble_ms} ms, delay {delay_ms} ms, {others}");
                assert!(pinned >= PINNED_MIN, "{name}: only {pinned} pinned");
                assert!(took_ms <= 2 * delay_ms + 1_000 + given_up_ms, "{name}: {pinned} in {took_ms} ms");
            }
        }
    }
}

#[test]
fn calls_that_are_lost_for_good_keep_other_pinned_payments_waiting_for_two_seconds() {
    for (delay_ms, goes_on) in [0, 50, 500, 1_500].into_iter().flat_map(|ms| [(ms, true), (ms, false)]) {
        for trouble_ms in [2_323, 2_799, 16_233] {
            let (pinned, took_ms) =
                settle(Trouble::Loses, delay_ms, trouble_ms, goes_on, World::pinned_at_rest);
            let name = format!("for {trouble_ms} ms, delay {delay_ms} ms, goes on: {goes_on}");
            assert!(pinned >= PINNED_MIN, "{name}: only {pinned} pinned");
            assert!(took_ms <= 2_000 + 2 * delay_ms + 1_000, "{name}: {pinned} in {took_ms} ms");
        }
    }
}
