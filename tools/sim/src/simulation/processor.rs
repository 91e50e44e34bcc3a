//! A payment processor that does everything that docs/contract.md and docs/money.md say one may do, and all of it often.

use contest::chance::Chance;
use std::collections::{BTreeMap, BTreeSet};
use wire::frame::{CallKind, Lease};
use wire::{Cents, PaymentId, Timestamp};

/// Calls that run at once; a real one has 800, which a small seed would never reach.
const RUNNING_MAX: usize = 24;

/// One recorded payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its time.
    pub requested_at: Timestamp,
    /// Its amount.
    pub cents: Cents,
}

/// Something in front of a processor that answers in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// It gives up on each `POST` and says 504, while the processor goes on and inserts the row later.
    GivesUp,
    /// It has lost its processor and says this to everything.
    StandsIn(u16),
}

/// The longest time between a gateway's 504 and the row, in microseconds.
const LATE_INSERT_US_MAX: u64 = 120_000_000;

/// What comes back to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// An answer: status, whether its length is announced, its body.
    With(u16, bool, String),
    /// The connection is reset.
    Reset,
}

/// What executing a call brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// What the caller gets.
    pub answered: Answered,
    /// A row that is inserted only after so long, although the call has been answered.
    pub late_insert_us: Option<u64>,
}

/// A processor and its moods.
#[derive(Clone, Debug, Default)]
pub struct Processor {
    /// Everything recorded, and not lost.
    pub rows: BTreeMap<PaymentId, Row>,
    /// Rows that it had and lost.
    pub lost: BTreeSet<PaymentId>,
    /// Rows that purges removed. An answer from before may still bring one of them into our ledger.
    pub purged: BTreeSet<PaymentId>,
    /// Its delay, read when a call arrives.
    pub delay_us: u64,
    /// Its failure flag, read after the delay.
    pub failing: bool,
    /// No host answers at its address.
    pub is_down: bool,
    /// Strange answers, in percent of the calls.
    pub quirks_percent: u64,
    /// What stands in front of it.
    pub gateway: Option<Gateway>,
    /// It refuses whatever comes, because it is set up wrongly.
    pub refuses_all: bool,
    /// Ids that it refuses for good, by their last hexadecimal digit.
    pub refuses: BTreeSet<u8>,
    /// Its health endpoint hangs, or lies.
    pub health_hangs: bool,
    /// See `health_hangs`.
    pub health_lies: bool,
    running: usize,
}

impl Processor {
    /// A call arrives. `Some` when it is turned away at once.
    pub fn arrive(&mut self) -> Option<Answered> {
        if self.running >= RUNNING_MAX {
            return Some(Answered::With(429, true, String::new()));
        }
        self.running += 1;
        None
    }

    /// A call has waited out its delay.
    pub fn execute(&mut self, lease: &Lease, chance: &mut Chance) -> Executed {
        self.running -= 1;
        let done = |answered| Executed { answered, late_insert_us: None };
        let words = |status| Answered::With(status, true, "{}".to_owned());
        match lease.kind {
            _ if let Some(Gateway::StandsIn(status)) = self.gateway => done(words(status)),
            CallKind::Post if self.gateway == Some(Gateway::GivesUp) => {
                let late_insert_us = Some(chance.between(0, LATE_INSERT_US_MAX));
                Executed { answered: words(504), late_insert_us }
            }
            CallKind::Get => done(self.look_up(lease.id)),
            CallKind::Post if self.refuses_all => done(words(400)),
            CallKind::Post if self.refuses.contains(&(lease.id.0.to_le_bytes()[0] & 0xf)) => done(words(400)),
            CallKind::Post if self.failing => done(Answered::With(500, true, String::new())),
            CallKind::Post if chance.percent(self.quirks_percent) => self.misbehave(lease, chance),
            CallKind::Post => done(self.insert_and_answer(lease)),
        }
    }

    fn look_up(&self, id: PaymentId) -> Answered {
        match self.rows.get(&id) {
            Some(Row { requested_at, cents }) => {
                let body =
                    format!(r#"{{"correlationId":"{id}","amount":{cents},"requestedAt":"{requested_at}"}}"#);
                Answered::With(200, true, body)
            }
            None => Answered::With(404, true, String::new()),
        }
    }

    fn insert_and_answer(&mut self, lease: &Lease) -> Answered {
        let status = if self.insert(lease) { 200 } else { 422 };
        Answered::With(status, true, "{}".to_owned())
    }

    /// True when the row is new.
    pub fn insert(&mut self, lease: &Lease) -> bool {
        let row = Row { requested_at: lease.requested_at, cents: lease.cents };
        let is_new = !self.rows.contains_key(&lease.id);
        self.rows.entry(lease.id).or_insert(row);
        is_new
    }

    fn misbehave(&mut self, lease: &Lease, chance: &mut Chance) -> Executed {
        let words = || "{\"error\":\"database\"}".to_owned();
        let (inserts, answered) = match chance.between(0, 9) {
            0 | 1 => (true, Answered::Reset),
            2 => (false, Answered::Reset),
            3 => (true, Answered::With(500, true, words())),
            4 | 5 => (false, Answered::With(500, true, words())),
            6 => (false, Answered::With(500, false, String::new())),
            7 => (true, Answered::With(chance.pick(&[201, 204, 302, 502]), true, words())),
            _ => (false, Answered::With(chance.pick(&[401, 404, 408, 429]), true, words())),
        };
        if inserts {
            self.insert(lease);
        }
        // A 500 that says something may be given while the insert still runs.
        let may_come_late =
            !inserts && matches!(answered, Answered::With(500 | 502, _, _)) && chance.percent(30);
        Executed { late_insert_us: may_come_late.then(|| chance.between(0, 30_000_000)), answered }
    }

    /// Loses a row, as a crash of an unlogged table may.
    pub fn lose(&mut self, id: PaymentId) {
        if self.rows.remove(&id).is_some() {
            self.lost.insert(id);
        }
    }

    /// Forgets all rows. Calls that are under way go on.
    pub fn lose_all(&mut self) {
        self.lost.extend(std::mem::take(&mut self.rows).into_keys());
    }

    /// What was lost was purged, and its id may be used again; except for those that are kept.
    pub fn forget_lost(&mut self, is_kept: impl Fn(&PaymentId) -> bool) {
        self.purged.extend(self.lost.extract_if(.., |id| !is_kept(id)));
    }

    /// True while no call runs here.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Everything is well from now on.
    pub fn heal(&mut self) {
        self.delay_us = 2_000;
        self.failing = false;
        self.is_down = false;
        self.quirks_percent = 0;
        self.gateway = None;
        self.refuses_all = false;
        // With nothing else to charge, what it refuses rightly cannot be told from a processor that refuses everything.
        self.refuses.clear();
        self.health_hangs = false;
        self.health_lies = false;
    }
}
