//! What the judge has seen so far: every payment posted and what became of it, every latency, every failure.
//!
//! All tasks of a run share one tally on one thread, so its parts are cells and no borrow lives across an await. Space
//! for the payments of a whole plan is taken beforehand: growing a vector of millions in the middle of a run would show
//! as latency of the system under test.
//!
//! Ids are random UUIDs of version 4 from a generator of a few instructions. Asking the kernel for each would be a
//! system call a payment; these ids need not be unguessable, they only have to differ.

use crate::client::Failure;
use crate::told::Told;
use contest::chance::Chance;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use wire::PaymentId;

/// The longest latency that is told apart, in microseconds: twenty times the judge's timeout.
const LATENCY_US_MAX: u64 = 30_000_000;

/// Latencies are kept to three significant digits, so below 2 ms to the microsecond.
const LATENCY_DIGITS: u8 = 3;

/// What the judge knows of one payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its id.
    pub id: PaymentId,
    /// When its request was made, in microseconds since the start.
    pub at_us: u64,
    /// How long a 2xx took, in microseconds.
    pub took_us: Option<u32>,
    /// What became of the request.
    pub told: Told,
}

/// Names one posted payment until its answer is there.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(usize);

/// The judge's book of one run.
#[derive(Debug)]
pub struct Tally {
    began: Cell<Instant>,
    ids: RefCell<Chance>,
    posted: RefCell<Vec<Posted>>,
    accepted: Cell<u64>,
    post_us: RefCell<Histogram<u64>>,
    judged_us: RefCell<Histogram<u64>>,
    failures: RefCell<BTreeMap<String, u64>>,
    /// Users that have begun.
    pub users: Cell<u32>,
    /// Connections that users made.
    pub connects: Cell<u64>,
}

impl Tally {
    /// An empty book of a run that begins at `began`, with space for `payments`.
    #[must_use]
    pub fn new(began: Instant, payments: usize, seed: u64) -> Self {
        Self {
            began: Cell::new(began),
            ids: RefCell::new(Chance::new(seed)),
            posted: RefCell::new(Vec::with_capacity(payments)),
            accepted: Cell::new(0),
            post_us: RefCell::new(latencies()),
            judged_us: RefCell::new(latencies()),
            failures: RefCell::default(),
            users: Cell::new(0),
            connects: Cell::new(0),
        }
    }

    /// Sets the start to this instant and tells it: what the judge asks before the run counts for its percentiles, but
    /// not for its time.
    pub fn restart(&self) -> Instant {
        self.began.set(Instant::now());
        self.began.get()
    }

    /// Microseconds from the start to `at`.
    #[must_use]
    pub fn since_start_us(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.began.get()))
    }

    /// Enters a payment that is about to be posted.
    pub fn post(&self) -> (Ticket, PaymentId) {
        let id = self.ids.borrow_mut().payment_id();
        let mut posted = self.posted.borrow_mut();
        let at_us = self.since_start_us(Instant::now());
        posted.push(Posted { id, at_us, took_us: None, told: Told::Unknown });
        (Ticket(posted.len() - 1), id)
    }

    /// Enters the answer to a posted payment.
    pub fn answered(&self, ticket: Ticket, status: u16, took: Duration) {
        self.judged(status, took);
        let posted = &mut self.posted.borrow_mut()[ticket.0];
        posted.told = Told::of(Some(status));
        if posted.told == Told::Accepted {
            self.accepted.set(self.accepted.get() + 1);
            record(&self.post_us, took);
            posted.took_us = u32::try_from(micros(took)).ok();
        } else {
            self.count_failure(format!("status {status}"));
        }
    }

    /// Enters that a posted payment got no answer.
    pub fn failed(&self, failure: &Failure) {
        self.count_failure(failure.name().into());
    }

    /// Enters the latency of any request of the judge: only 2xx and 3xx count for its percentiles.
    pub fn judged(&self, status: u16, took: Duration) {
        if (200..400).contains(&status) {
            record(&self.judged_us, took);
        }
    }

    /// Payments posted so far.
    #[must_use]
    pub fn posted_count(&self) -> u64 {
        self.posted.borrow().len() as u64
    }

    /// Payments that got a 2xx so far.
    #[must_use]
    pub fn accepted_count(&self) -> u64 {
        self.accepted.get()
    }

    /// Payments that got something else so far, by what it was.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.failures.borrow().clone()
    }

    /// Every payment, in the order of posting.
    #[must_use]
    pub fn payments(&self) -> Vec<Posted> {
        self.posted.borrow().clone()
    }

    /// Latencies of accepted payments.
    #[must_use]
    pub fn post_latency(&self) -> Latency {
        Latency::of(&self.post_us.borrow())
    }

    /// Latencies of accepted payments between each time and the next, in microseconds since the start.
    #[must_use]
    pub fn post_latency_from(&self, begins_us: &[u64]) -> Vec<Latency> {
        let mut stages = vec![latencies(); begins_us.len()];
        for Posted { at_us, took_us, .. } in self.posted.borrow().iter() {
            let begun = begins_us.partition_point(|begin_us| begin_us <= at_us);
            if let (Some(stage), Some(took_us)) = (begun.checked_sub(1), took_us) {
                stages[stage].saturating_record(u64::from(*took_us).max(1));
            }
        }
        stages.iter().map(Latency::of).collect()
    }

    /// Latencies of everything that the judge asked and that went well, at us and at the processors.
    #[must_use]
    pub fn judged_latency(&self) -> Latency {
        Latency::of(&self.judged_us.borrow())
    }

    fn count_failure(&self, what: String) {
        *self.failures.borrow_mut().entry(what).or_default() += 1;
    }
}

/// Percentiles in milliseconds; all 0 when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Latency {
    /// How many were recorded.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The 99.9th percentile.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latency {
    /// The percentiles of what was recorded in microseconds.
    #[must_use]
    pub fn of(recorded: &Histogram<u64>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "at most LATENCY_US_MAX")]
        let ms = |us: u64| us as f64 / 1_000.0;
        if recorded.is_empty() {
            return Self::default();
        }
        Self {
            count: recorded.len(),
            p50_ms: ms(recorded.value_at_quantile(0.5)),
            p99_ms: ms(recorded.value_at_quantile(0.99)),
            p999_ms: ms(recorded.value_at_quantile(0.999)),
            max_ms: ms(recorded.max()),
        }
    }
}

/// An empty record of times in microseconds.
///
/// # Panics
/// Never: its bounds are constants.
#[must_use]
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("constant bounds, known to be good")
}

pub(crate) fn record(latencies: &RefCell<Histogram<u64>>, took: Duration) {
    latencies.borrow_mut().saturating_record(micros(took).max(1));
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn tally() -> Tally {
        Tally::new(Instant::now(), 8, 7)
    }

    #[test]
    fn latencies_are_told_by_stage() {
        let tally = tally();
        for took_ms in [1, 2, 30] {
            let (ticket, _) = tally.post();
            tally.answered(ticket, 202, Duration::from_millis(took_ms));
        }
        tally.post();
        for (payment, at_us) in tally.posted.borrow_mut().iter_mut().zip([5, 10, 19, 20]) {
            payment.at_us = at_us;
        }
        let stages = tally.post_latency_from(&[10, 20]);
        let [first, second] = stages.as_slice() else { panic!("two stages, not {}", stages.len()) };
        assert_eq!((first.count, second.count), (2, 0));
        assert!((first.max_ms - 30.0).abs() < 0.1, "{first:?}");
    }

    #[test]
    fn ids_are_version_4_and_differ() {
        let tally = tally();
        let ids: HashSet<u128> = (0..1_000).map(|_| tally.post().1.0).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| uuid::Uuid::from_u128(*id).get_version_num() == 4));
    }

    #[test]
    fn an_answer_decides_what_may_become_of_a_payment() {
        let tally = tally();
        for (status, fate) in [
            (200, Told::Accepted),
            (202, Told::Accepted),
            (400, Told::Rejected),
            (422, Told::Rejected),
            (503, Told::Refused),
            (504, Told::Unknown),
            (500, Told::Unknown),
            (302, Told::Unknown),
        ] {
            let (ticket, _) = tally.post();
            tally.answered(ticket, status, Duration::from_millis(1));
            assert_eq!(tally.payments().last().unwrap().told, fate, "{status}");
        }
        let (_, id) = tally.post();
        tally.failed(&Failure::TimedOut);
        assert_eq!(tally.payments().last().map(|last| (last.id, last.told)), Some((id, Told::Unknown)));
        assert_eq!((tally.posted_count(), tally.accepted_count()), (9, 2));
        assert_eq!(tally.failures().values().sum::<u64>(), 7);
    }

    #[test]
    fn only_what_went_well_counts_for_the_percentiles() {
        let tally = tally();
        for (status, ms) in [(200, 1), (302, 2), (404, 100), (503, 100)] {
            tally.judged(status, Duration::from_millis(ms));
        }
        let judged = tally.judged_latency();
        assert_eq!((judged.count, judged.p50_ms, judged.max_ms), (2, 1.0, 2.0));
        assert_eq!(tally.post_latency(), Latency::default());
    }
}
