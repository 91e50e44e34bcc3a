//! The comparison of the three sides, after a round: what clients were told, what we say, what the processors hold.
//!
//! Pure: it gets what each side said and tells what is wrong. A processor is held to have charged a payment when it lists
//! a row of it or lists it among the rows that it has lost; a lost row is the processor's own loss, it stays charged, and
//! may come back only as the very same row.
//!
//! [`crate::wrong`] has the table.

use super::book::{Book, Entry};
use crate::sides::Row;
use crate::wrong::{Known, Wrong, wrongs};
use contest::score::Settled;
use std::collections::{BTreeMap, HashMap};
use wire::{PaymentId, PerProcessor, Processor};

/// What one processor says.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// Its rows.
    pub rows: Vec<Row>,
    /// Rows that it had and has lost.
    pub lost: Vec<Row>,
}

/// What we say, in our two ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// Our summary, over HTTP.
    pub summary: PerProcessor<Settled>,
    /// What a second reader finds in our log.
    pub log: PerProcessor<Settled>,
    /// Payments that both processors refused for good. None of the troubles brings that about.
    pub dead: u64,
    /// Payments whose evidence contradicts itself.
    pub conflicts: u64,
}

/// What is wrong, each kind with its payments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The payments of each kind of fault; kinds without any are not there.
    pub faults: BTreeMap<Wrong, Vec<PaymentId>>,
    /// Sums on the sides.
    pub sums: Sums,
    /// Rows that the processors lost and that are counted as charged.
    pub lost_by_processors: u64,
    /// Payments that no client got a certain answer for, and that are charged.
    pub unanswered: u64,
    /// Payments of a world before that were charged after all, or before the purge.
    pub of_worlds_before: u64,
}

/// What each side says that was charged, by processor; of the clients only the sum over both is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Accepted payments, and unanswered ones that a processor holds.
    pub clients: Settled,
    /// Our summary.
    pub summary: PerProcessor<Settled>,
    /// Our log.
    pub log: PerProcessor<Settled>,
    /// The processors, their lost rows included.
    pub processors: PerProcessor<Settled>,
    /// See [`Ours::dead`] and [`Ours::conflicts`].
    pub dead_and_conflicts: u64,
}

impl Sums {
    /// True when all sides say the same, in payments and in cents.
    #[must_use]
    pub fn agree(&self) -> bool {
        let both = total(&self.processors);
        self.summary == self.processors
            && self.log == self.processors
            && self.clients == both
            && self.dead_and_conflicts == 0
    }
}

fn total(sides: &PerProcessor<Settled>) -> Settled {
    let mut total = Settled::default();
    sides.0.iter().for_each(|settled| add(&mut total, settled.count, settled.amount.0));
    total
}

fn add(sum: &mut Settled, count: u64, cents: i64) {
    sum.count += count;
    sum.amount.0 += cents;
}

impl Verdict {
    /// True when nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.faults.is_empty() && self.sums.agree()
    }

    /// Compares.
    #[must_use]
    pub fn find(book: &Book, ours: &Ours, theirs: &PerProcessor<Holdings>) -> Self {
        let sums = Sums {
            summary: ours.summary,
            log: ours.log,
            dead_and_conflicts: ours.dead + ours.conflicts,
            ..Sums::default()
        };
        let mut verdict = Self { sums, ..Self::default() };
        let held = verdict.gather(theirs);
        let entries = book.by_id();
        for (id, charges) in held.iter().filter(|(id, _)| !entries.contains_key(*id)) {
            verdict.accuse(wrongs(Known::NeverAsked, charges.len(), false), *id);
        }
        for entry in book.entries() {
            let charges = held.get(&entry.id).map_or(&[][..], Vec::as_slice);
            let is_present = entry.world == book.world();
            verdict.judge(entry, charges, is_present);
            verdict.judge_told(entry);
            if is_present {
                verdict.add_up(entry, charges);
            } else {
                verdict.of_worlds_before += u64::from(!charges.is_empty());
            }
        }
        verdict.faults.values_mut().for_each(|ids| {
            ids.sort_unstable();
            ids.dedup();
        });
        verdict
    }

    /// Every charge by id: the processor, its row, and whether that is lost. A lost row that came back as it was is one
    /// charge.
    fn gather(&mut self, theirs: &PerProcessor<Holdings>) -> HashMap<PaymentId, Vec<(Processor, Row)>> {
        let mut held: HashMap<PaymentId, Vec<(Processor, Row)>> = HashMap::new();
        for (processor, Holdings { rows, lost }) in theirs.iter() {
            for (row, is_lost) in
                rows.iter().map(|row| (row, false)).chain(lost.iter().map(|row| (row, true)))
            {
                let charges = held.entry(row.id).or_default();
                if !charges.contains(&(processor, *row)) {
                    charges.push((processor, *row));
                    self.lost_by_processors += u64::from(is_lost);
                }
            }
        }
        held
    }

    fn judge(&mut self, entry: &Entry, charges: &[(Processor, Row)], is_present: bool) {
        let known = match () {
            () if !is_present => Known::Purged,
            () if entry.is_accepted() => Known::Accepted,
            () if entry.is_refused() => Known::Refused,
            () => Known::Unanswered,
        };
        let is_altered = charges.iter().any(|(_, row)| row.amount != entry.cents);
        self.accuse(wrongs(known, charges.len(), is_altered), entry.id);
    }

    fn add_up(&mut self, entry: &Entry, charges: &[(Processor, Row)]) {
        for (processor, row) in charges {
            add(&mut self.sums.processors[*processor], 1, row.amount.0);
        }
        let is_held_unanswered = !entry.is_accepted() && !charges.is_empty();
        self.unanswered += u64::from(is_held_unanswered);
        if entry.is_accepted() || is_held_unanswered {
            add(&mut self.sums.clients, 1, entry.cents.0);
        }
    }

    fn judge_told(&mut self, entry: &Entry) {
        if entry.rejected > 0 {
            self.accuse([Wrong::Contradicted], entry.id);
        }
        if entry.misaccepted > 0 {
            self.accuse([Wrong::Altered], entry.id);
        }
        if entry.recorded > 1 {
            self.accuse([Wrong::Reaccepted], entry.id);
        }
    }

    fn accuse(&mut self, wrongs: impl IntoIterator<Item = Wrong>, id: PaymentId) {
        for wrong in wrongs {
            self.faults.entry(wrong).or_default().push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Cents, Timestamp};

    /// Sides that agree: payment 1 on default, 2 on fallback.
    struct Round {
        book: Book,
        ours: Ours,
        theirs: PerProcessor<Holdings>,
    }

    fn row(id: u128, cents: i64) -> Row {
        Row { id: PaymentId(id), amount: Cents(cents), requested_at: Timestamp(7) }
    }

    fn honest() -> Round {
        let mut book = Book::default();
        for (id, cents) in [(1, 10), (2, 20)] {
            let ticket = book.open(PaymentId(id), Cents(cents));
            book.tell(ticket, Some(202));
        }
        let settled = |amount| Settled { count: 1, amount: Cents(amount) };
        let sums = PerProcessor([settled(10), settled(20)]);
        let ours = Ours { summary: sums, log: sums, dead: 0, conflicts: 0 };
        let holdings = |row| Holdings { rows: vec![row], lost: Vec::new() };
        Round { book, ours, theirs: PerProcessor([holdings(row(1, 10)), holdings(row(2, 20))]) }
    }

    fn judge(change: impl FnOnce(&mut Round)) -> Verdict {
        let mut round = honest();
        change(&mut round);
        Verdict::find(&round.book, &round.ours, &round.theirs)
    }

    fn told(round: &mut Round, id: u128, statuses: &[Option<u16>]) {
        let ticket = round.book.open(PaymentId(id), Cents(30));
        for status in statuses {
            round.book.tell(ticket, *status);
        }
    }

    fn hold(round: &mut Round, processor: Processor, row: Row) {
        round.theirs[processor].rows.push(row);
    }

    /// What we say follows the processors, so that only the payment itself is wrong.
    fn count(round: &mut Round, processor: Processor, cents: i64) {
        add(&mut round.ours.summary[processor], 1, cents);
        add(&mut round.ours.log[processor], 1, cents);
    }

    #[test]
    fn sides_that_agree_are_right() {
        let verdict = judge(|_| ());
        assert!(verdict.is_right(), "{verdict:?}");
        assert_eq!(verdict.sums.clients, Settled { count: 2, amount: Cents(30) });
    }

    #[test]
    fn each_way_to_disagree_about_a_payment_is_found_for_what_it_is() {
        type Change = fn(&mut Round);
        let ways: [(Wrong, u128, Change); 10] = [
            (Wrong::Lost, 3, |round| told(round, 3, &[Some(202)])),
            (Wrong::Lost, 3, |round| told(round, 3, &[None, Some(504), Some(200)])),
            (Wrong::Doubled, 1, |round| hold(round, Processor::Fallback, row(1, 10))),
            (Wrong::Doubled, 1, |round| {
                let again = Row { requested_at: Timestamp(8), ..row(1, 10) };
                round.theirs[Processor::Default].lost.push(again);
            }),
            (Wrong::Doubled, 1, |round| round.theirs[Processor::Fallback].lost.push(row(1, 10))),
            (Wrong::Invented, 9, |round| hold(round, Processor::Default, row(9, 10))),
            (Wrong::Altered, 1, |round| round.theirs[Processor::Default].rows[0].amount = Cents(11)),
            (Wrong::Contradicted, 3, |round| {
                told(round, 3, &[Some(503)]);
                hold(round, Processor::Default, row(3, 30));
            }),
            (Wrong::Contradicted, 3, |round| told(round, 3, &[Some(422)])),
            (Wrong::Reaccepted, 3, |round| {
                told(round, 3, &[Some(202), Some(202)]);
                hold(round, Processor::Default, row(3, 30));
            }),
        ];
        for (number, (wrong, id, change)) in ways.into_iter().enumerate() {
            let verdict = judge(change);
            assert!(!verdict.is_right(), "{number}");
            let found: Vec<(Wrong, Vec<PaymentId>)> = verdict.faults.into_iter().collect();
            assert_eq!(found, [(wrong, vec![PaymentId(id)])], "{number}");
        }
        let mut round = honest();
        let ticket = round.book.accepted().next().expect("two are").0;
        round.book.misaccept(ticket);
        let verdict = Verdict::find(&round.book, &round.ours, &round.theirs);
        assert_eq!(verdict.faults.keys().copied().collect::<Vec<_>>(), [Wrong::Altered]);
    }

    #[test]
    fn each_sum_that_differs_is_found() {
        type Change = fn(&mut Round);
        let ways: [Change; 6] = [
            |round| round.ours.summary[Processor::Default].amount = Cents(11),
            |round| round.ours.summary[Processor::Fallback].count = 0,
            |round| round.ours.log[Processor::Default].count = 2,
            |round| round.ours.summary.0.swap(0, 1),
            |round| round.ours.dead = 1,
            |round| round.ours.conflicts = 1,
        ];
        for (number, change) in ways.into_iter().enumerate() {
            let verdict = judge(change);
            assert!(verdict.faults.is_empty() && !verdict.is_right(), "{number}: {verdict:?}");
        }
    }

    #[test]
    fn an_uncertain_payment_may_be_charged_once_or_not_at_all() {
        let verdict = judge(|round| {
            told(round, 3, &[None]);
            told(round, 4, &[Some(504)]);
            told(round, 5, &[Some(503)]);
            hold(round, Processor::Default, row(3, 30));
            count(round, Processor::Default, 30);
        });
        assert!(verdict.is_right(), "{verdict:?}");
        assert_eq!(verdict.unanswered, 1);
    }

    #[test]
    fn a_row_that_its_processor_lost_stays_charged_and_may_come_back_as_it_was() {
        let verdict = judge(|round| {
            let rows = std::mem::take(&mut round.theirs[Processor::Default].rows);
            round.theirs[Processor::Default].lost = rows;
        });
        assert!(verdict.is_right(), "{verdict:?}");
        assert_eq!(verdict.lost_by_processors, 1);
        let verdict = judge(|round| round.theirs[Processor::Default].lost.push(row(1, 10)));
        assert!(verdict.is_right(), "{verdict:?}");
        assert_eq!(verdict.lost_by_processors, 0);
    }

    #[test]
    fn a_purged_payment_is_in_no_sum_and_never_on_both() {
        let purge = |round: &mut Round| {
            round.book.begin_world();
            round.ours = Ours::default();
        };
        let verdict = judge(purge);
        assert!(verdict.is_right(), "{verdict:?}");
        assert_eq!(verdict.of_worlds_before, 2);
        let verdict = judge(|round| {
            purge(round);
            hold(round, Processor::Fallback, row(1, 10));
        });
        assert_eq!(verdict.faults.keys().copied().collect::<Vec<_>>(), [Wrong::Doubled]);
    }
}
