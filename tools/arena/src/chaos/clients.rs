//! The clients: an open loop of payments at a fixed rate, each asked for until it is certain.
//!
//! Payments begin when they are due, however long others wait. Each is asked for on a keep-alive connection from a pool;
//! a client that got 503 or nothing certain asks again with the same id, after a pause that doubles up to
//! [`PAUSE_MAX`]. Most payments are plain; some clients do what clients do:
//!
//! | client | of 100 | what must come of it |
//! |---|---|---|
//! | plain | 84 | a 2xx in the end |
//! | asks again after its 2xx | 4 | a 2xx again |
//! | asks again with another amount | 2 | 422 |
//! | gives up at a 503 | 10 | no row, ever: a 503 says that nothing was recorded |
//! | 64 at once with one id | one each [`CROWD_EVERY`] | a 2xx for all of them, 202 for one at most |
//!
//! A reader asks for the summary meanwhile: 200 or 503, within a second ([`SUMMARY_TIMEOUT`], with its slack), unless a
//! process is stopped.
//!
//! Bounds: [`EXCHANGES_MAX`] requests at a time, [`OPEN_MAX`] payments that are not certain yet; beyond that a payment
//! that is due is not begun, and counted as passed over.

use super::book::{Book, Ticket};
use crate::client::{Client, Failure, request};
use crate::endpoint::Endpoint;
use crate::tally::{Latency, latencies, record};
use crate::told::Told;
use contest::chance::Chance;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use wire::{Cents, PaymentId};

/// How long clients may go on asking once everything is healed.
pub(super) const CERTAIN_WITHIN: Duration = Duration::from_secs(60);

/// How long a client waits for an answer: above the two times three seconds that lb gives two apis, and its hold.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// The first pause before a payment is asked for again, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Requests under way at once: each is a connection.
const EXCHANGES_MAX: usize = 4_096;

/// Payments begun and not certain: 40 s of the usual rate.
const OPEN_MAX: usize = 20_000;

/// Clients that ask for one id at once, and how often.
const CROWD: usize = 64;
const CROWD_EVERY: Duration = Duration::from_secs(2);

/// Between two summaries.
const SUMMARY_EVERY: Duration = Duration::from_millis(200);

/// A second (`summary_within_a_second`), and as much again for a machine that is busy with everything at once.
pub const SUMMARY_TIMEOUT: Duration = Duration::from_secs(2);

/// After a stop, how long what was held up by it may still be late: what lb gives an api, and some.
const AFTERMATH: Duration = Duration::from_secs(4);

/// The smallest and the largest amount, in cents: all differ enough for an altered one to be seen.
const AMOUNTS: (u64, u64) = (1, 10_000);

/// What a client does besides asking until it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Plain,
    Repeats,
    Changes,
    GivesUp,
}

/// What was seen at the entry.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests for payments by what was answered.
    pub answers: BTreeMap<String, u64>,
    /// Times that a payment was asked for again because nothing was certain.
    pub repeats_unknown: u64,
    /// Times that it was because nothing had been recorded.
    pub repeats_refused: u64,
    /// Payments that were due and not begun.
    pub passed_over: u64,
    /// Summaries by what was answered.
    pub summaries: BTreeMap<String, u64>,
    /// Summaries that were neither 200 nor 503, or came late while nothing was stopped.
    pub bad_summaries: u64,
}

/// The load on one system.
pub struct Clients {
    endpoint: Endpoint,
    /// What clients were told.
    pub book: RefCell<Book>,
    /// What was seen.
    pub counts: RefCell<Counts>,
    post_us: RefCell<Histogram<u64>>,
    chance: RefCell<Chance>,
    idle: RefCell<Vec<Client>>,
    exchanges: Semaphore,
    open: Cell<usize>,
    settled: Notify,
    is_giving_up: Cell<bool>,
    stopped: Cell<u32>,
    calm_at: Cell<Instant>,
}

impl Clients {
    /// Nothing asked yet. `seed` decides ids, amounts and manners.
    #[must_use]
    pub fn new(endpoint: Endpoint, seed: u64) -> Self {
        Self {
            endpoint,
            book: RefCell::default(),
            counts: RefCell::default(),
            post_us: RefCell::new(latencies()),
            chance: RefCell::new(Chance::new(!seed)),
            idle: RefCell::default(),
            exchanges: Semaphore::new(EXCHANGES_MAX),
            open: Cell::new(0),
            settled: Notify::new(),
            is_giving_up: Cell::new(false),
            stopped: Cell::new(0),
            calm_at: Cell::new(Instant::now()),
        }
    }

    /// Begins `rate` payments a second until `end`.
    pub async fn run(self: &Rc<Self>, rate: u32, end: Instant) {
        let start = Instant::now();
        let gap = Duration::from_secs(1) / rate.max(1);
        let mut crowd_at = start + CROWD_EVERY / 4;
        for number in 0.. {
            let due = start + gap * number;
            if due >= end {
                return;
            }
            sleep_until(due).await;
            if self.open.get() >= OPEN_MAX {
                self.counts.borrow_mut().passed_over += 1;
                continue;
            }
            let manner = match self.chance.borrow_mut().between(0, 100) {
                0..4 => Manner::Repeats,
                4..6 => Manner::Changes,
                6..16 => Manner::GivesUp,
                _ => Manner::Plain,
            };
            self.begin(manner, 1);
            if due >= crowd_at {
                crowd_at += CROWD_EVERY;
                self.begin(Manner::Plain, CROWD);
            }
        }
    }

    /// Reads the summary for as long as it is polled.
    pub async fn read_summaries(&self) {
        let mut client = Client::new(self.endpoint.clone(), ANSWER_TIMEOUT);
        let get = request("GET", "/payments-summary", client.host(), None, "");
        let mut ticks = interval(SUMMARY_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let (began, was_calm) = (Instant::now(), self.is_calm());
            let outcome = client.exchange(&get).await.map(|answer| answer.status);
            let is_calm = was_calm && self.is_calm();
            let is_good = match &outcome {
                Ok(200 | 503) => !is_calm || began.elapsed() <= SUMMARY_TIMEOUT,
                // A killed balancer does not answer.
                Err(Failure::Unconnected(_) | Failure::Lost(_)) => true,
                Err(Failure::TimedOut) => !is_calm,
                // The balancer gives up on two apis that are stopped.
                Ok(504) => !is_calm,
                Ok(_) | Err(Failure::Malformed(_)) => false,
            };
            let mut counts = self.counts.borrow_mut();
            let mut what = word(outcome.as_ref().copied());
            if !is_good {
                counts.bad_summaries += 1;
                write!(what, ", too late or out of place, after {} ms", began.elapsed().as_millis())
                    .expect("a string grows");
            }
            *counts.summaries.entry(what).or_default() += 1;
        }
    }

    /// Asks again, in the present world, for a payment of one before.
    pub fn renew(self: &Rc<Self>, ticket: Ticket) {
        self.book.borrow_mut().renew(ticket);
        self.ask(ticket, Manner::Plain);
    }

    /// Waits until every payment is certain. False when that took longer than `timeout`: then clients give up, and wait
    /// for nothing but the answers that are out.
    pub async fn settle(&self, timeout: Duration) -> bool {
        let all = async {
            while self.open.get() > 0 {
                self.settled.notified().await;
            }
        };
        if tokio::time::timeout(timeout, all).await.is_ok() {
            return true;
        }
        self.is_giving_up.set(true);
        let rest = async {
            while self.open.get() > 0 {
                self.settled.notified().await;
            }
        };
        let _ = tokio::time::timeout(ANSWER_TIMEOUT + PAUSE_MAX, rest).await;
        false
    }

    /// Payments that are not certain.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Latencies of payments that got a 2xx at once.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency::of(&self.post_us.borrow())
    }

    /// A process is stopped, or goes on.
    pub fn note_stop(&self, is_stopped: bool) {
        let stopped = self.stopped.get();
        self.stopped.set(if is_stopped { stopped + 1 } else { stopped.saturating_sub(1) });
        self.calm_at.set(Instant::now() + AFTERMATH);
    }

    fn is_calm(&self) -> bool {
        self.stopped.get() == 0 && Instant::now() >= self.calm_at.get()
    }

    /// Begins a payment whose client gives up at the first 503.
    pub fn begin_giving_up(self: &Rc<Self>) {
        self.begin(Manner::GivesUp, 1);
    }

    /// Gets a payment accepted although some connections lead to a process that is stopped: each try has a connection of
    /// its own, which is given up after `timeout`. False when no 2xx comes until `deadline`.
    pub async fn pay_in_haste(&self, timeout: Duration, deadline: Instant) -> bool {
        let ticket = self.open_payment();
        while Instant::now() < deadline {
            let entry = *self.book.borrow().entry(ticket);
            let mut client = Client::new(self.endpoint.clone(), timeout);
            let (status, _) = self.post_over(&mut client, entry.id, entry.cents).await;
            if self.book.borrow_mut().tell(ticket, status) == Told::Accepted {
                return true;
            }
        }
        false
    }

    fn open_payment(&self) -> Ticket {
        let mut chance = self.chance.borrow_mut();
        let bits = (u128::from(chance.bits()) << 64) | u128::from(chance.bits());
        let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().as_u128();
        let cents = i64::try_from(chance.between(AMOUNTS.0, AMOUNTS.1)).expect("a small number");
        self.book.borrow_mut().open(PaymentId(id), Cents(cents))
    }

    fn begin(self: &Rc<Self>, manner: Manner, clients: usize) {
        let ticket = self.open_payment();
        for _ in 0..clients {
            self.ask(ticket, manner);
        }
    }

    fn ask(self: &Rc<Self>, ticket: Ticket, manner: Manner) {
        self.open.set(self.open.get() + 1);
        let load = Rc::clone(self);
        spawn_local(async move {
            load.ask_until_certain(ticket, manner).await;
            load.open.set(load.open.get() - 1);
            load.settled.notify_waiters();
        });
    }

    async fn ask_until_certain(&self, ticket: Ticket, manner: Manner) {
        let mut is_accepted = self.insist(ticket, manner == Manner::GivesUp).await;
        if is_accepted && manner == Manner::Repeats {
            is_accepted = self.insist(ticket, false).await;
        }
        if is_accepted && manner == Manner::Changes {
            self.ask_for_another_amount(ticket).await;
        }
    }

    /// Asks until there is a 2xx or an answer after which asking again is of no use. True for the former.
    async fn insist(&self, ticket: Ticket, gives_up: bool) -> bool {
        let mut pause = PAUSE_MIN;
        let mut is_first = true;
        loop {
            let entry = *self.book.borrow().entry(ticket);
            let (status, took) = self.post(entry.id, entry.cents).await;
            let told = self.book.borrow_mut().tell(ticket, status);
            match told {
                Told::Accepted => {
                    if is_first {
                        record(&self.post_us, took);
                    }
                    return true;
                }
                Told::Rejected => return false,
                Told::Refused if gives_up && self.book.borrow().entry(ticket).is_refused() => return false,
                _ if self.is_giving_up.get() => return false,
                Told::Refused => self.counts.borrow_mut().repeats_refused += 1,
                Told::Unknown => self.counts.borrow_mut().repeats_unknown += 1,
            }
            sleep(pause).await;
            (pause, is_first) = ((pause * 2).min(PAUSE_MAX), false);
        }
    }

    async fn ask_for_another_amount(&self, ticket: Ticket) {
        let entry = *self.book.borrow().entry(ticket);
        let mut pause = PAUSE_MIN;
        loop {
            let (status, _) = self.post(entry.id, Cents(entry.cents.0 + 1)).await;
            match Told::of(status) {
                Told::Accepted => return self.book.borrow_mut().misaccept(ticket),
                Told::Rejected => return,
                _ if self.is_giving_up.get() => return,
                Told::Refused | Told::Unknown => sleep(pause).await,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One request. No status is no answer.
    async fn post(&self, id: PaymentId, cents: Cents) -> (Option<u16>, Duration) {
        let _permit = self.exchanges.acquire().await.expect("the semaphore is never closed");
        let idle = self.idle.borrow_mut().pop();
        let mut client = idle.unwrap_or_else(|| Client::new(self.endpoint.clone(), ANSWER_TIMEOUT));
        let (status, took) = self.post_over(&mut client, id, cents).await;
        if status.is_some() {
            self.idle.borrow_mut().push(client);
        }
        (status, took)
    }

    async fn post_over(&self, client: &mut Client, id: PaymentId, cents: Cents) -> (Option<u16>, Duration) {
        let body = format!(r#"{{"correlationId":"{id}","amount":{cents}}}"#);
        let post = request("POST", "/payments", client.host(), None, &body);
        let outcome = client.exchange(&post).await.map(|answer| (answer.status, answer.took));
        let status = outcome.as_ref().map(|(status, _)| *status);
        *self.counts.borrow_mut().answers.entry(word(status)).or_default() += 1;
        outcome.map_or((None, Duration::ZERO), |(status, took)| (Some(status), took))
    }
}

fn word(outcome: Result<u16, &Failure>) -> String {
    outcome.map_or_else(|failure| failure.name().into(), |status| status.to_string())
}
