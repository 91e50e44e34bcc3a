//! The pure half of the store: `step(now, event) -> records and frames`.
//!
//! Reading order: [`queue`] (what waits), [`record`] (what is remembered), [`summary`] (what was charged when),
//! [`index`] (which payment an id is), [`ledger`] (what is known and allowed), [`calls`] (what is out), [`router`]
//! (where to), and here [`Core`], which lets them work together. `operator` is what people may decide.
//!
//! The core decides first and then crosses one line into effects: a decision is a [`Record`], which is written to the
//! log and applied to the ledger by the same call. It is single-threaded; one turn is any number of [`Core::step`] and
//! one [`Core::dispatch`].

mod apis;
pub mod calls;
mod canaries;
pub mod chunked;
pub mod clock;
mod cutoff;
mod dispatch;
pub mod effects;
pub mod event;
mod fields;
pub mod index;
mod inquiries;
pub mod ledger;
pub mod mutant;
mod operator;
mod pinned;
pub mod queue;
pub mod record;
pub mod router;
pub mod summary;

use apis::Apis;
use calls::{Call, Calls};
use canaries::Canaries;
use clock::Clock;
pub use effects::{Counters, Effects, Note};
pub use event::{ApiId, Event, Now, Room};
use inquiries::Inquiries;
use ledger::judgement::Subject;
use ledger::snapshot::{LoadError, Replay};
use ledger::{Ledger, Standing};
use mutant::Mutant;
use pinned::Pinned;
use queue::Ordinal;
use record::{Negative, Record, Terms};
use router::{Router, RouterConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use wire::frame::{
    Accepted, AttemptId, CALL_OVERDUE_MS, CallKind, FromApi, FromStore, HeldAttempt, Operation, Outcome,
    Report,
};
use wire::{PerProcessor, Processor, Timestamp};

/// After a start, attempts of the time before wait so long for an api that still holds their call.
const CLAIM_GRACE_MS: u64 = 1_000;

/// Between two turns there are at most [`IDLE_TICK_US`]; after a longer time this process was stopped.
const OWN_PAUSE_MS: u64 = 1_000;

/// How often the core wants to be called while payments wait, in microseconds: a batch of the pace.
const DRAIN_TICK_US: u64 = 5_000;

/// How often it wants to be called when nothing happens: health calls, silent apis.
const IDLE_TICK_US: u64 = 250_000;

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct CoreConfig {
    /// Payments remembered between two purges (`everything_is_bounded`).
    pub payments_max: usize,
    /// Secret of the index, drawn anew at each start; inquiries are numbered from it as well.
    pub index_key: [u64; 2],
    /// Knobs of the router.
    pub router: RouterConfig,
}

/// Whether attempts of the time before this start wait for an api that still holds their call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claims {
    /// Nothing has been dispatched yet.
    Unstarted,
    /// Until then.
    Until(u64),
    /// No more.
    Ended,
}

/// All state of the store.
#[derive(Debug)]
pub struct Core {
    ledger: Ledger,
    calls: Calls,
    router: Router,
    apis: Apis,
    clock: Clock,
    /// Payments in flight without a call, and what happens to them next.
    pinned: Pinned,
    inquiries: Inquiries,
    canaries: Canaries,
    /// Leases that were too old when they arrived: the next one of that payment is sent whatever its age.
    late: BTreeSet<Ordinal>,
    claims: Claims,
    /// The api that was last told to ask for a processor's health.
    health_asker: PerProcessor<Option<ApiId>>,
    started_us: u64,
    dispatched_us: u64,
    /// When the last purge took effect.
    purged_us: Option<u64>,
    room: Room,
    counters: Counters,
}

/// A log is read into the core before its first event.
impl Replay for Core {
    fn load(&mut self, ledger: impl Read, len: u64) -> Result<(), LoadError> {
        self.ledger.load(ledger, len)
    }

    fn expect(&mut self, payments: usize) {
        self.ledger.expect(payments);
    }

    fn add(&mut self, record: &Record) {
        self.ledger.apply(record);
    }
}

impl Core {
    /// An empty store.
    #[must_use]
    pub fn new(config: CoreConfig, now: Now) -> Self {
        Self {
            ledger: Ledger::new(config.payments_max, config.index_key),
            calls: Calls::new(config.index_key[0]),
            router: Router::new(config.router, now.us),
            apis: Apis::default(),
            clock: Clock::new(now),
            pinned: Pinned::default(),
            inquiries: Inquiries::default(),
            canaries: Canaries::default(),
            late: BTreeSet::new(),
            claims: Claims::Unstarted,
            health_asker: PerProcessor::default(),
            started_us: now.us,
            purged_us: None,
            dispatched_us: now.us,
            room: Room::default(),
            counters: Counters::default(),
        }
    }

    /// What is known about the payments.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The calls that are out.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// What the router thinks.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What it believes of the wall clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How far the last `requestedAt` is ahead of the wall clock, in milliseconds: until real time has passed it, all that goes
    /// out carries it.
    #[must_use]
    pub fn issued_ahead_ms(&self, now: Now) -> u64 {
        self.ledger.last_requested_at().as_ms().saturating_sub(now.wall_ms)
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many apis are connected.
    #[must_use]
    pub fn apis_len(&self) -> usize {
        self.apis.len()
    }

    /// Takes one event in.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Effects) {
        match event {
            Event::Gone(api) => self.on_gone(now, api, effects),
            Event::Room(room) => {
                if self.room != room {
                    self.room = room;
                    effects.notes.push(Note::Room(room));
                }
            }
            Event::Frame(api, FromApi::Hello { instance, calls_max, held }) => {
                self.on_hello(now, api, instance, calls_max, &held, effects);
            }
            Event::Frame(api, frame) => {
                // Nothing is said before hello, but for what a health check or an operator asks.
                let is_for_all = matches!(frame, FromApi::Metrics { .. } | FromApi::Operate { .. });
                if self.apis.note_heard(api, now) || is_for_all {
                    self.on_frame(now, api, frame, effects);
                } else {
                    effects.hang_ups.push(api);
                }
            }
        }
    }

    fn on_frame(&mut self, now: Now, api: ApiId, frame: FromApi, effects: &mut Effects) {
        match frame {
            FromApi::Hello { .. } => unreachable!("hello is taken by step"),
            FromApi::Heartbeat => (),
            FromApi::Accept { request, id, cents } => {
                let accepted = match self.ledger.judge_accept(id, cents) {
                    Accepted::Recorded if self.room != Room::Ample => Accepted::Full,
                    accepted => accepted,
                };
                if accepted == Accepted::Recorded {
                    self.record(Record::Accepted { id, cents }, effects);
                    // Born from a tombstone it has attempts, and may be repeated.
                    self.offer(now, id);
                }
                self.counters.accepts[accepted as usize] += 1;
                effects.sends.push((api, FromStore::Accepted { request, accepted }));
            }
            FromApi::Summary { request, bounds } => {
                if bounds.from.is_some() && bounds.to.is_some() {
                    self.router.note_comparison(now.us);
                }
                let totals = self.ledger.summary.window(bounds);
                effects.sends.push((api, FromStore::Summary { request, totals }));
            }
            FromApi::Purge { request, asked_us, deadline_us } => {
                let done = self.purge(now, asked_us, deadline_us, effects);
                effects.sends.push((api, FromStore::Purged { request, done }));
            }
            FromApi::Metrics { request } => {
                // The shell fills in the text: rendering it is no decision.
                effects.sends.push((api, FromStore::Metrics { request, text: String::new() }));
            }
            FromApi::Operate { request, deadline_us, .. } if now.us > deadline_us => {
                effects.notes.push(Note::Late { what: "an operation" });
                let text = "nothing was done: the store was busy for too long; ask again".to_owned();
                effects.sends.push((api, FromStore::Operated { request, done: false, next: None, text }));
            }
            FromApi::Operate { request, operation: Operation::Window { bounds }, .. } => {
                // What is issued may be behind the wall clock while a jump of that is doubted.
                let now_ms = self.clock.time_ms(now).min(now.wall_ms);
                let window = self.ledger.books(Timestamp::from_ms(now_ms), bounds);
                effects.sends.push((api, FromStore::Window { request, window }));
            }
            FromApi::Operate {
                request, operation: Operation::Charges { processor, bounds, from }, ..
            } => {
                let (charges, next) = self.ledger.charges(processor, bounds, from);
                effects.sends.push((api, FromStore::Charges { request, next, charges }));
            }
            FromApi::Operate { request, operation, .. } => {
                let answer = self.judge_operation(operation);
                if answer.done && !answer.records.is_empty() {
                    self.counters.operations += 1;
                    effects.notes.push(Note::Operated(operation));
                }
                for record in answer.records {
                    self.record(record, effects);
                }
                if let Some(ordinal) = operation.id().and_then(|id| self.ledger.find(id)) {
                    self.forget_flight(ordinal);
                }
                let (done, next, text) = (answer.done, answer.next, answer.text);
                effects.sends.push((api, FromStore::Operated { request, done, next, text }));
            }
            FromApi::Report(report) => self.on_report(now, api, &report, effects),
            FromApi::HealthReport { processor, health } => {
                self.router.on_health(processor, health, &self.calls, now.us);
            }
            FromApi::Drain => self.apis.note_draining(api),
        }
    }

    /// Carries a purge out, unless it is too late for that. True when everything is forgotten that was there when it was asked
    /// for.
    ///
    /// A purge can lie in the socket of a process that is stopped. Its client gives up meanwhile, purges again through another
    /// api, and pays. Two rules keep those payments: a later purge covers an earlier one, and no purge takes effect after its
    /// deadline.
    fn purge(&mut self, now: Now, asked_us: u64, deadline_us: u64, effects: &mut Effects) -> bool {
        if self.purged_us.is_some_and(|purged_us| asked_us <= purged_us) {
            return true;
        }
        if now.us > deadline_us {
            self.counters.purges_refused += 1;
            effects.notes.push(Note::Late { what: "a purge" });
            return false;
        }
        self.purged_us = Some(now.us);
        self.record(Record::Purged, effects);
        self.calls.drop_inquiries();
        self.pinned.clear();
        self.late.clear();
        self.canaries.forget_payments();
        self.counters.purges += 1;
        effects.notes.push(Note::Purged { tombstones: self.ledger.tombstones().len() });
        true
    }

    fn offer(&mut self, now: Now, id: wire::PaymentId) {
        if let Some(ordinal) = self.ledger.find(id) {
            self.offer_if_idle(now, ordinal);
        }
    }

    /// True while apis may still say which calls of the time before this start they hold.
    fn waits_for_claims(&self) -> bool {
        self.claims != Claims::Ended
    }

    fn offer_if_idle(&mut self, now: Now, ordinal: Ordinal) {
        let Some(flight) = self.ledger.flights().get(&ordinal) else {
            return;
        };
        if self.waits_for_claims()
            || flight.unanswered.iter().any(|at| self.calls.is_open(flight.processor, *at))
        {
            return;
        }
        let repeats = !self.ledger.is_only_asked_for(ordinal);
        if self.pinned.rest(ordinal, flight.processor, repeats, now.us) {
            self.ledger.offer_again(ordinal);
        }
    }

    fn record(&mut self, record: Record, effects: &mut Effects) {
        if mutant::is(Mutant::VolatileIntent)
            && matches!(record, Record::Intended { .. } | Record::Cleared { .. })
        {
            return self.ledger.apply(&record);
        }
        record.encode(&mut effects.records);
        effects.records_len += 1;
        self.ledger.apply(&record);
    }

    // Apis.

    fn on_hello(
        &mut self,
        now: Now,
        api: ApiId,
        instance: u64,
        calls_max: u16,
        held: &[HeldAttempt],
        effects: &mut Effects,
    ) {
        for old in self.apis.replaced_by(api, instance) {
            self.on_gone(now, old, effects);
            if old != api {
                effects.hang_ups.push(old);
            }
        }
        self.apis.join(api, instance, calls_max, now);
        effects.sends.push((api, FromStore::Welcome));
        effects.notes.push(Note::ApiJoined { api, held: held.len() });
        self.claim(now, api, held);
    }

    /// Calls that this api still waits for are open again.
    fn claim(&mut self, now: Now, api: ApiId, held: &[HeldAttempt]) {
        let ages: BTreeMap<AttemptId, u64> = held.iter().map(|held| (held.attempt, held.age_ms)).collect();
        let mut claimed = Vec::new();
        let payments =
            self.ledger.flights().iter().map(|(ordinal, flight)| (self.ledger.id(*ordinal), flight));
        let tombstones = self.ledger.tombstones().iter().map(|(id, tombstone)| (*id, &tombstone.flight));
        for (id, flight) in payments.chain(tombstones) {
            for attempt in &flight.unanswered {
                if let Some(age_ms) = ages.get(attempt)
                    && !self.calls.is_open(flight.processor, *attempt)
                {
                    // What a call was waiting for before this store began says nothing about the delay now.
                    let since_us = now.us.saturating_sub(age_ms.saturating_mul(1000)).max(self.started_us);
                    let is_overdue = *age_ms >= CALL_OVERDUE_MS;
                    claimed.push((flight.processor, *attempt, Call { api, id, since_us }, is_overdue));
                }
            }
        }
        for (processor, attempt, call, is_overdue) in claimed {
            if is_overdue {
                self.calls.keep_overdue(processor, attempt, api, call.id);
                continue;
            }
            self.begin(processor, attempt, call);
            self.router.on_claimed(processor);
            if let Some(ordinal) = self.ledger.find(call.id) {
                // Its call is open: it waits for that, not for a repetition.
                self.ledger.queue.take(ordinal);
                self.pinned.begin(ordinal);
            }
        }
    }

    fn on_gone(&mut self, now: Now, api: ApiId, effects: &mut Effects) {
        if !self.apis.leave(api) {
            return;
        }
        for processor in Processor::BOTH {
            if self.health_asker[processor] == Some(api) {
                self.router.lose_health_call(processor);
            }
        }
        let ended = self.calls.end_all_of(api);
        effects.notes.push(Note::ApiLeft { api, unknown: ended.len() });
        for (processor, attempt, call) in ended {
            self.router.on_left(processor, call.since_us);
            if mutant::is(Mutant::GoneIsNo) {
                self.take_for_no(processor, attempt, call.id, effects);
            }
            self.offer(now, call.id);
        }
    }

    fn begin(&mut self, processor: Processor, attempt: AttemptId, call: Call) {
        self.calls.begin(processor, attempt, call);
        self.apis.note_begun(call.api);
    }

    // Reports.

    fn on_report(&mut self, now: Now, api: ApiId, report: &Report, effects: &mut Effects) {
        self.counters.reports[report.processor][report.outcome.index()] += 1;
        self.apis.note_report(api, report.sequence, now);
        let ended = self.end_call(api, report);
        let is_inquiry = Calls::is_inquiry(report.attempt);
        if is_inquiry && ended.is_none_or(|call| call.id != report.id) {
            // It was asked before a purge, or by another store: it will be asked again.
            return;
        }
        let was_failing = self.router.has_open_circuit(report.processor);
        let had_refused_all = self.router.refuses_all(report.processor);
        let may_be_its_fault = report.outcome == Outcome::Refused && !self.is_refused_by_other(report);
        if may_be_its_fault {
            self.router.note_refusal(report.processor, report.id);
        }
        if !is_inquiry && self.ledger.has_made(report.attempt) {
            self.router.on_report(report, now.us);
        }
        let refuses_all = may_be_its_fault && self.router.refuses_all(report.processor);
        if refuses_all && !had_refused_all {
            effects.notes.push(Note::RefusesAll { processor: report.processor, status: report.status });
        }
        // Then it is about the processor, not the payment.
        let report =
            &if refuses_all { Report { outcome: Outcome::Misaddressed, ..*report } } else { *report };
        let subject = self.ledger.subject(report, is_inquiry);
        let records = self.ledger.judge_report(subject, report);
        self.alarm(report, &records, was_failing || refuses_all, effects);
        for record in records {
            self.record(record, effects);
        }
        if let Subject::Payment(ordinal) = subject {
            self.after_report(now, ordinal, report);
        }
        if let Some(call) = ended.filter(|call| call.id != report.id) {
            self.offer(now, call.id);
        }
    }

    /// True when the other processor has refused the payment of a report for good: then it is the payment that is wrong.
    fn is_refused_by_other(&self, report: &Report) -> bool {
        let ordinal = self.ledger.find(report.id);
        ordinal.is_some_and(|ordinal| self.ledger.is_refused_by(ordinal, report.processor.other()))
    }

    fn end_call(&mut self, api: ApiId, report: &Report) -> Option<Call> {
        let Report { processor, attempt, .. } = *report;
        let (call, kind) = if report.outcome == Outcome::Overdue && self.ledger.has_made(attempt) {
            (self.calls.keep_overdue(processor, attempt, api, report.id)?, CallKind::Post)
        } else {
            self.calls.end(processor, attempt)?
        };
        if kind == CallKind::Post {
            self.apis.note_ended(call.api);
        }
        Some(call)
    }

    fn after_report(&mut self, now: Now, ordinal: Ordinal, report: &Report) {
        if !Calls::is_inquiry(report.attempt) {
            match report.outcome {
                Outcome::Unclear | Outcome::Lost => {
                    self.pinned.note_unproven(ordinal, report.processor, now.us);
                }
                _ => self.pinned.note_proof(ordinal),
            }
        }
        self.offer_if_idle(now, ordinal);
        if report.outcome == Outcome::HandedBack {
            self.late.insert(ordinal);
        }
        self.forget_flight(ordinal);
    }

    /// Forgets what is remembered about a payment only while it is in flight.
    fn forget_flight(&mut self, ordinal: Ordinal) {
        let standing = self.ledger.standing(ordinal);
        if standing == Standing::InFlight {
            return;
        }
        self.pinned.forget(ordinal);
        if standing != Standing::Queued {
            self.late.remove(&ordinal);
        }
    }

    /// `is_known` tells that the processor's state has been told already: then its answers are counted, and not told one by one.
    fn alarm(&mut self, report: &Report, records: &[Record], is_known: bool, effects: &mut Effects) {
        let strange = records.iter().any(|record| {
            matches!(
                record,
                Record::Surprised { .. }
                    | Record::Conflicted { .. }
                    | Record::Died { .. }
                    | Record::Charged { terms: Terms::Theirs { .. }, .. }
            )
        });
        let is_about_processor = report.outcome == Outcome::Misaddressed;
        if strange || is_about_processor || report.outcome == Outcome::Refused {
            self.counters.alarms += 1;
            if strange || !(is_about_processor && is_known) {
                let Report { processor, id, outcome, status, .. } = *report;
                effects.notes.push(Note::Alarm { processor, id, outcome, status });
            }
        }
    }

    // Dispatch.

    /// Ends a turn: acknowledges reports, drops silent apis, hands out what may go now.
    pub fn dispatch(&mut self, now: Now, effects: &mut Effects) {
        effects.notes.extend(self.clock.look(now).map(Note::Clock));
        self.drop_silent(now, effects);
        self.end_claims(now);
        for ordinal in self.pinned.take_due(now.us) {
            self.ledger.offer_again(ordinal);
        }
        for processor in Processor::BOTH {
            if mutant::is(Mutant::Hedge)
                && let Some((attempt, id)) = self.calls.oldest(processor, now.us.saturating_sub(200_000))
            {
                self.take_for_no(processor, attempt, id, effects);
            }
            self.dispatch_bound(now, processor, effects);
        }
        self.dispatch_free(now, effects);
        self.lease_health_calls(now, effects);
        self.apis.acknowledge(now, effects);
        for (processor, from, to) in self.router.changes(&self.calls, now.us) {
            let delay_ms = self.router.delay_us(processor) / 1000;
            let queue_len = self.ledger.balance().queued.count;
            let why = self.router.why(processor, &self.calls, now.us);
            effects.notes.push(Note::Believed { processor, from, to, delay_ms, queue_len, why });
        }
    }

    /// When the core wants to be called again if nothing happens, in microseconds from now.
    #[must_use]
    pub fn next_call_us(&self) -> u64 {
        if self.ledger.queue.is_empty() {
            let tick_us = if self.inquiries.wait() { DRAIN_TICK_US } else { IDLE_TICK_US };
            let due_us = self.pinned.next_due_us().map(|due_us| due_us.saturating_sub(self.dispatched_us));
            return due_us.map_or(tick_us, |due_us| due_us.min(tick_us));
        }
        self.router.asks_again_in_us().unwrap_or(DRAIN_TICK_US)
    }

    /// What the mutants do that give up on a call that is out.
    fn take_for_no(
        &mut self,
        processor: Processor,
        attempt: AttemptId,
        id: wire::PaymentId,
        effects: &mut Effects,
    ) {
        let flight = self.ledger.find(id).and_then(|ordinal| self.ledger.flights().get_key_value(&ordinal));
        if let Some((&ordinal, flight)) = flight
            && flight.processor == processor
            && flight.unanswered.contains(&attempt)
        {
            self.record(Record::Cleared { ordinal, attempt, negative: Negative::NotNow }, effects);
        }
    }

    /// The shell has not read what the apis say, so none of them is silent.
    pub fn excuse_silence(&mut self, now: Now) {
        self.apis.note_all_heard(now);
    }

    fn drop_silent(&mut self, now: Now, effects: &mut Effects) {
        // After a pause of our own every api looks silent: what they said waits to be read.
        let was_paused = now.us.saturating_sub(self.dispatched_us) > OWN_PAUSE_MS * 1000;
        self.dispatched_us = now.us;
        if was_paused {
            return;
        }
        for api in self.apis.silent(now) {
            self.on_gone(now, api, effects);
            effects.hang_ups.push(api);
        }
    }

    fn end_claims(&mut self, now: Now) {
        if self.claims == Claims::Unstarted {
            self.claims = Claims::Until(now.us + CLAIM_GRACE_MS * 1000);
        }
        if matches!(self.claims, Claims::Until(until) if now.us >= until) {
            self.claims = Claims::Ended;
            let adrift: Vec<Ordinal> = self.ledger.flights().keys().copied().collect();
            for ordinal in adrift {
                self.offer_if_idle(now, ordinal);
            }
        }
    }
}
