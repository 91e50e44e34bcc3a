//! The table of payments: what a processor has recorded, and the sums over it.
//!
//! Rows stand in the order of their recording, which makes a page of them a slice. Ids map to positions. For sums over
//! a window the positions are grouped by the whole second of `requestedAt`, each group with its own sum: a window of n
//! seconds adds up n - 1 sums and looks at the rows of its first and last second only, a few thousand at the pace of
//! the competition. A tree over every single time would cost more at each recording, where this costs a push.
//!
//! At [`ROWS_MAX`] rows a recording is refused; about 100 bytes each, that is 1 GB.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use wire::money::AMOUNT_MAX;
use wire::{Cents, PaymentId, Timestamp};

/// The most rows that are held: an hour at 2,700 a second.
pub(super) const ROWS_MAX: usize = 10_000_000;

/// Rows that fit without moving the table, so that a run of the judge (90,000 payments) never waits for that.
const ROWS_EXPECTED: usize = 200_000;

const _: () = assert!(ROWS_MAX < u32::MAX as usize, "positions are 32 bits wide");
const _: () =
    assert!(ROWS_MAX as i64 <= i64::MAX / AMOUNT_MAX.0, "the sum of a full table fits in i64 cents");

const MICROSECONDS_PER_SECOND: i64 = 1_000_000;

/// One recorded payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: PaymentId,
    /// At most [`AMOUNT_MAX`] in either direction.
    pub(super) amount: Cents,
    pub(super) requested_at: Timestamp,
}

/// What became of an attempt to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    Recorded,
    /// The id was there; nothing changed.
    Duplicate,
    /// The table holds [`ROWS_MAX`] rows; nothing changed.
    Full,
}

/// Number and amount of some rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) amount: Cents,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.amount.0 += other.amount.0;
    }
}

impl Row {
    fn sum(&self) -> Sum {
        Sum { count: 1, amount: self.amount }
    }
}

/// The rows with one whole second of `requestedAt`.
#[derive(Debug, Default)]
struct Second {
    sum: Sum,
    positions: Vec<u32>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Rows {
    rows: Vec<Row>,
    by_id: HashMap<PaymentId, u32>,
    by_second: BTreeMap<i64, Second>,
    sum: Sum,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::with_capacity(ROWS_EXPECTED),
            by_id: HashMap::with_capacity(ROWS_EXPECTED),
            by_second: BTreeMap::new(),
            sum: Sum::default(),
        }
    }

    pub(super) fn insert(&mut self, row: Row) -> Insertion {
        if self.by_id.contains_key(&row.id) {
            return Insertion::Duplicate;
        }
        if self.rows.len() == ROWS_MAX {
            return Insertion::Full;
        }
        let position = u32::try_from(self.rows.len()).expect("ROWS_MAX fits in 32 bits");
        self.by_id.insert(row.id, position);
        let second = self.by_second.entry(second_of(row.requested_at)).or_default();
        second.positions.push(position);
        second.sum += row.sum();
        self.sum += row.sum();
        self.rows.push(row);
        Insertion::Recorded
    }

    pub(super) fn get(&self, id: PaymentId) -> Option<&Row> {
        self.by_id.get(&id).map(|position| self.at(*position))
    }

    /// Everything.
    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    /// The rows with `from <= requestedAt <= to`; none when the bounds are the wrong way round.
    pub(super) fn sum_between(&self, from: Timestamp, to: Timestamp) -> Sum {
        let mut sum = Sum::default();
        if from > to {
            return sum;
        }
        let (first, last) = (second_of(from), second_of(to));
        for (second, group) in self.by_second.range(first..=last) {
            if (first + 1..last).contains(second) {
                sum += group.sum;
                continue;
            }
            for row in group.positions.iter().map(|position| self.at(*position)) {
                if (from..=to).contains(&row.requested_at) {
                    sum += row.sum();
                }
            }
        }
        sum
    }

    /// All rows, in the order of their recording.
    pub(super) fn all(&self) -> &[Row] {
        &self.rows
    }

    /// Deletes this share of the rows, evenly, and tells them.
    pub(super) fn lose(&mut self, share_percent: u8) -> Vec<Row> {
        let share = usize::from(share_percent.min(100));
        self.lose_if(|number, _| (number + 1) * share / 100 > number * share / 100)
    }

    /// Deletes the rows for which this is true of their number or of themselves, and tells them.
    pub(super) fn lose_if(&mut self, is_lost: impl Fn(usize, &Row) -> bool) -> Vec<Row> {
        let rows = std::mem::replace(self, Self::new()).rows;
        let mut lost = Vec::new();
        for (number, row) in rows.into_iter().enumerate() {
            if is_lost(number, &row) {
                lost.push(row);
            } else {
                self.insert(row);
            }
        }
        lost
    }

    fn at(&self, position: u32) -> &Row {
        &self.rows[position as usize]
    }
}

/// Up to `limit` rows after the first `after`.
pub(super) fn page(rows: &[Row], after: usize, limit: usize) -> &[Row] {
    let rest = rows.get(after..).unwrap_or_default();
    &rest[..rest.len().min(limit)]
}

fn second_of(time: Timestamp) -> i64 {
    time.0.div_euclid(MICROSECONDS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn row(id: u128, cents: i64, us: i64) -> Row {
        Row { id: PaymentId(id), amount: Cents(cents), requested_at: Timestamp(us) }
    }

    #[test]
    fn an_id_is_recorded_once_and_keeps_what_came_first() {
        let mut rows = Rows::new();
        assert_eq!(rows.insert(row(1, 1990, 5)), Insertion::Recorded);
        assert_eq!(rows.insert(row(1, 1, 6)), Insertion::Duplicate);
        assert_eq!(rows.get(PaymentId(1)), Some(&row(1, 1990, 5)));
        assert_eq!(rows.get(PaymentId(2)), None);
        assert_eq!(rows.sum(), Sum { count: 1, amount: Cents(1990) });
    }

    #[test]
    fn pages_follow_each_other_without_gap_and_end_empty() {
        let mut rows = Rows::new();
        for id in 0..5 {
            rows.insert(row(id, 1, 0));
        }
        let ids = |page: &[Row]| page.iter().map(|row| row.id.0).collect::<Vec<_>>();
        let page = |after| page(rows.all(), after, 2);
        assert_eq!(ids(page(0)), [0, 1]);
        assert_eq!(ids(page(2)), [2, 3]);
        assert_eq!(ids(page(4)), [4]);
        assert!(page(5).is_empty());
        assert!(page(usize::MAX).is_empty());
    }

    #[test]
    fn single_rows_are_lost_by_their_ids() {
        let mut rows = Rows::new();
        for id in 0..4 {
            rows.insert(row(id, 1, 0));
        }
        let lost: Vec<u128> = rows.lose_if(|_, row| row.id.0 % 2 == 1).iter().map(|row| row.id.0).collect();
        assert_eq!(lost, [1, 3]);
        assert_eq!(rows.sum().count, 2);
    }

    #[test]
    fn a_share_of_the_rows_is_lost_and_the_rest_still_adds_up() {
        let mut rows = Rows::new();
        for id in 0..10 {
            rows.insert(row(id, 1, 0));
        }
        let lost: Vec<u128> = rows.lose(20).iter().map(|row| row.id.0).collect();
        assert_eq!(lost, [4, 9]);
        assert_eq!((rows.get(PaymentId(4)), rows.sum()), (None, Sum { count: 8, amount: Cents(8) }));
        assert_eq!(rows.insert(row(4, 1, 0)), Insertion::Recorded, "its id is free again");
        assert_eq!(rows.lose(0), []);
    }

    proptest! {
        #[test]
        fn the_sum_of_any_window_is_that_of_a_walk_over_all_rows(
            times in vec(-3_000_000_i64..3_000_000, 0..200),
            from in -3_500_000_i64..3_500_000,
            to in -3_500_000_i64..3_500_000,
        ) {
            let mut rows = Rows::new();
            let mut naive = Sum::default();
            for (us, id) in times.into_iter().zip(1..) {
                let cents = i64::try_from(id).unwrap() * 7;
                rows.insert(row(id, cents, us));
                if from <= us && us <= to {
                    naive += Sum { count: 1, amount: Cents(cents) };
                }
            }
            prop_assert_eq!(rows.sum_between(Timestamp(from), Timestamp(to)), naive);
        }
    }
}
