//! The three-sided check after a fight: what clients were told, what we say, what the processors hold.
//!
//! The judge compares counts, and stops looking when its last user is done. Here every payment is looked up: the
//! processors are healed, the system gets time to settle what it still owes ([`DRAIN_TIMEOUT`] in a fight), and then
//! each row of each processor is held against the judge's book. [`crate::wrong`] has the table.
//!
//! Nothing is judged before the
//! processors have no call left under way: one that waits out a long delay may still become the second row.

use crate::client::Failure;
use crate::judge::Sides;
use crate::sides::{AskError, Ours, Row, Theirs};
use crate::tally::Posted;
use crate::told::Told;
use crate::wrong::{Known, Wrong, wrongs};
use contest::score::Settled;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wire::{Bounds, Cents, PaymentId, PerProcessor, Processor};

/// How long the system has to settle what it accepted, once both processors are quick and well.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause between two looks.
const DRAIN_PAUSE: Duration = Duration::from_millis(200);

/// A page of rows may take longer than the judge's timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of the check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reckoning {
    /// Faults of single payments; `None` when the processors do not list their rows.
    pub faults: Option<Faults>,
    /// Everything that we say is settled.
    pub ours: PerProcessor<Settled>,
    /// Everything that the processors say.
    pub theirs: PerProcessor<Settled>,
    /// What the processors hold, in the order of recording.
    pub rows: PerProcessor<Vec<Row>>,
    /// How long the system took until every accepted payment was settled and the sums agreed; `None` when it did not.
    pub drained_ms: Option<u64>,
}

/// Payments that are not as they should be, each kind in the order of recording or posting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Accepted, and on neither processor.
    pub lost: Vec<PaymentId>,
    /// On both processors.
    pub doubled: Vec<PaymentId>,
    /// On a processor, and never posted.
    pub invented: Vec<PaymentId>,
    /// Charged with another amount.
    pub altered: Vec<PaymentId>,
    /// Refused, and settled all the same.
    pub contradicted: Vec<PaymentId>,
    /// Without an answer, and settled: no fault, but they are in the sums.
    pub unanswered: Vec<PaymentId>,
}

impl Faults {
    /// True when nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.lost, &self.doubled, &self.invented, &self.altered, &self.contradicted]
            .iter()
            .all(|ids| ids.is_empty())
    }

    /// Holds the rows against the book.
    #[must_use]
    pub fn find(posted: &[Posted], rows: &PerProcessor<Vec<Row>>, amount: Cents) -> Self {
        let mut faults = Self::default();
        let mut order = Vec::new();
        let mut held: HashMap<PaymentId, Vec<&Row>> = HashMap::new();
        for row in rows.0.iter().flatten() {
            let of_id = held.entry(row.id).or_default();
            if of_id.is_empty() {
                order.push(row.id);
            }
            of_id.push(row);
        }
        let book: HashMap<PaymentId, Told> =
            posted.iter().map(|payment| (payment.id, payment.told)).collect();
        let unheld = posted.iter().map(|payment| payment.id).filter(|id| !held.contains_key(id));
        for id in order.iter().copied().chain(unheld) {
            let charges = held.get(&id).map_or(&[][..], Vec::as_slice);
            faults.judge(id, book.get(&id).copied(), charges, amount);
        }
        faults
    }

    fn judge(&mut self, id: PaymentId, told: Option<Told>, charges: &[&Row], amount: Cents) {
        let known = match told {
            None => Known::NeverAsked,
            Some(Told::Accepted) => Known::Accepted,
            Some(Told::Unknown) => Known::Unanswered,
            Some(Told::Refused | Told::Rejected) => Known::Refused,
        };
        if known == Known::Unanswered && !charges.is_empty() {
            self.unanswered.push(id);
        }
        for wrong in wrongs(known, charges.len(), charges.iter().any(|row| row.amount != amount)) {
            let ids = match wrong {
                Wrong::Lost => &mut self.lost,
                Wrong::Doubled => &mut self.doubled,
                Wrong::Invented => &mut self.invented,
                Wrong::Altered => &mut self.altered,
                Wrong::Contradicted => &mut self.contradicted,
                Wrong::Reaccepted => unreachable!("a user asks once"),
            };
            ids.push(id);
        }
    }
}

impl Reckoning {
    /// True when what we say and what the processors say are the same, in payments and in cents.
    #[must_use]
    pub fn is_agreed(&self) -> bool {
        self.ours == self.theirs
    }

    /// Heals, waits for at most `drain_timeout`, and compares.
    ///
    /// # Errors
    /// When a processor cannot be healed or does not say what it holds.
    pub async fn make(
        sides: &Sides,
        posted: &[Posted],
        amount: Cents,
        drain_timeout: Duration,
    ) -> anyhow::Result<Self> {
        sides.heal().await?;
        let mut books = Books::new(sides);
        let began = Instant::now();
        let mut drained_ms = None;
        while drained_ms.is_none() && began.elapsed() < drain_timeout {
            if books.read().await? && books.are_settled(posted) {
                drained_ms = u64::try_from(began.elapsed().as_millis()).ok();
            } else {
                sleep(DRAIN_PAUSE).await;
            }
        }
        let faults = books.is_listed.then(|| Faults::find(posted, &books.rows, amount));
        let Books { rows, sums, ours, .. } = books;
        Ok(Self { faults, ours, theirs: sums, rows, drained_ms })
    }
}

/// What the sides say, read again and again until it is at rest.
struct Books {
    ours_side: Ours,
    theirs_side: PerProcessor<Theirs>,
    ours: PerProcessor<Settled>,
    sums: PerProcessor<Settled>,
    rows: PerProcessor<Vec<Row>>,
    is_listed: bool,
}

impl Books {
    fn new(sides: &Sides) -> Self {
        let theirs =
            |processor: Processor| Theirs::new(sides.theirs[processor].clone(), &sides.token, TIMEOUT, None);
        Self {
            ours_side: Ours::new(sides.ours.clone(), TIMEOUT, None),
            theirs_side: PerProcessor::from_fn(theirs),
            ours: PerProcessor::default(),
            sums: PerProcessor::default(),
            rows: PerProcessor::default(),
            is_listed: true,
        }
    }

    /// Reads what is new; true when no call is under way at a processor any more.
    async fn read(&mut self) -> anyhow::Result<bool> {
        let mut is_at_rest = true;
        for processor in Processor::BOTH {
            let theirs = &mut self.theirs_side[processor];
            while self.is_listed {
                let rows = &mut self.rows[processor];
                match theirs.page(rows.len()).await {
                    Ok(page) => {
                        rows.extend(page.rows);
                        is_at_rest &= page.unfinished == 0;
                        if !page.is_partial {
                            break;
                        }
                    }
                    Err(AskError::Status(404)) => self.is_listed = false,
                    Err(error) => return Err(error.into()),
                }
            }
            self.sums[processor] = theirs.summary(Bounds::default()).await?.settled;
        }
        // While a killed process of ours comes back there is no answer, and the next look will tell.
        match self.ours_side.summary(Bounds::default()).await {
            Ok(ours) => self.ours = ours,
            Err(
                AskError::Status(503 | 504) | AskError::Failed(Failure::Unconnected(_) | Failure::Lost(_)),
            ) => {
                is_at_rest = false;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(is_at_rest)
    }

    fn are_settled(&self, posted: &[Posted]) -> bool {
        if self.ours != self.sums {
            return false;
        }
        let mut accepted = posted.iter().filter(|payment| payment.told == Told::Accepted);
        if !self.is_listed {
            return self.sums.0.iter().map(|sum| sum.count).sum::<u64>() >= accepted.count() as u64;
        }
        let settled: HashSet<PaymentId> = self.rows.0.iter().flatten().map(|row| row.id).collect();
        accepted.all(|payment| settled.contains(&payment.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Timestamp;

    #[test]
    fn each_fate_and_number_of_rows_has_its_verdict() {
        let fates = [Told::Accepted, Told::Refused, Told::Unknown];
        let mut posted = Vec::new();
        let mut rows = PerProcessor([Vec::new(), Vec::new()]);
        let row = |id, amount| Row { id: PaymentId(id), amount: Cents(amount), requested_at: Timestamp(0) };
        for (at, fate) in (0..).zip(fates) {
            for count in 0..3_u128 {
                let id = at * 10 + count;
                posted.push(Posted { id: PaymentId(id), at_us: 0, took_us: None, told: fate });
                if count >= 1 {
                    rows.0[usize::try_from(at % 2).unwrap()].push(row(id, 1_990));
                }
                if count == 2 {
                    rows.0[usize::try_from((at + 1) % 2).unwrap()].push(row(id, 1_990));
                }
            }
        }
        rows.0[1].push(row(100, 1_990));
        rows.0[1].push(row(1, 1_991));
        rows.0[0].retain(|row| row.id.0 != 1);
        let faults = Faults::find(&posted, &rows, Cents(1_990));
        let ids = |ids: &[PaymentId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(ids(&faults.lost), [0]);
        assert_eq!(ids(&faults.doubled), [2, 12, 22]);
        assert_eq!(ids(&faults.invented), [100]);
        assert_eq!(ids(&faults.altered), [1]);
        assert_eq!(ids(&faults.contradicted), [12, 11], "in the order of the rows");
        assert_eq!(ids(&faults.unanswered), [21, 22]);
        assert!(!faults.is_empty());
        assert!(Faults::find(&posted[3..4], &PerProcessor::default(), Cents(1_990)).is_empty());
    }
}
