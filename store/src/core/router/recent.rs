//! How much a count has grown of late, from its total at each turn.
//!
//! What a wrong guess may cost is measured by the payments of the last [`WINDOW_S`] seconds. A total since the last purge
//! grows for weeks, and every bound that is a share of it with it. The window is longer than the longest plan of the
//! competition, so within one it is the total.
//!
//! Bounds: [`MARKS_MAX`] marks of 16 bytes.

use std::collections::VecDeque;

/// The window, in seconds.
const WINDOW_S: u64 = 360;

/// Between two marks, in seconds: what the window may be longer than it should.
const MARK_S: u64 = 6;

/// Marks that are kept.
const MARKS_MAX: usize = 61;

const _: () = assert!(MARKS_MAX as u64 == WINDOW_S / MARK_S + 1);

/// A total, and where it stood at some moments of the window.
#[derive(Debug)]
pub(super) struct Recent {
    total: u64,
    /// When, and the total then; oldest first.
    marks: VecDeque<(u64, u64)>,
}

impl Recent {
    /// A total of 0.
    pub(super) fn new(now_us: u64) -> Self {
        Self { total: 0, marks: VecDeque::from([(now_us, 0)]) }
    }

    /// The total now. One that is smaller than before begins anew: a purge.
    pub(super) fn note(&mut self, total: u64, now_us: u64) {
        if total < self.total {
            *self = Self::new(now_us);
        }
        self.total = total;
        let is_due = self.marks.back().is_none_or(|(at_us, _)| now_us >= at_us + MARK_S * 1_000_000);
        if is_due {
            self.marks.push_back((now_us, total));
        }
        // The oldest mark is the youngest that the window does not reach beyond.
        while self.marks.get(1).is_some_and(|(at_us, _)| at_us + WINDOW_S * 1_000_000 <= now_us) {
            self.marks.pop_front();
        }
        if self.marks.len() > MARKS_MAX {
            self.marks.pop_front();
        }
    }

    /// The total.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How much it has grown in the window.
    pub(super) fn grown(&self) -> u64 {
        self.total - self.before()
    }

    /// The total where the window begins.
    pub(super) fn before(&self) -> u64 {
        self.marks.front().map_or(self.total, |(_, total)| *total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn events_before_the_window_do_not_count() {
        let mut recent = Recent::new(0);
        for second in 0..=WINDOW_S {
            recent.note(second * 100, second * SECOND_US);
            assert_eq!(recent.grown(), second * 100, "within the window it is the total");
        }
        for second in WINDOW_S..7 * 24 * 3_600 {
            recent.note(second * 100, second * SECOND_US);
            let (least, most) = (WINDOW_S * 100, (WINDOW_S + MARK_S) * 100);
            assert!((least..=most).contains(&recent.grown()), "{} at {second} s", recent.grown());
            assert!(recent.marks.len() <= MARKS_MAX);
        }
    }

    #[test]
    fn after_a_purge_it_counts_anew_and_a_pause_empties_it() {
        let mut recent = Recent::new(0);
        recent.note(1_000, SECOND_US);
        recent.note(3, 2 * SECOND_US);
        assert_eq!((recent.total(), recent.grown()), (3, 3));
        recent.note(3, 3_600 * SECOND_US);
        recent.note(3, 2 * 3_600 * SECOND_US);
        assert_eq!(recent.grown(), 0);
    }
}
