//! The payments that wait for a dispatch, oldest accepted first.
//!
//! Payments are numbered as they are accepted, so the queue of those that were never touched is a cursor, not a list:
//! everything from `untouched` up. What comes back from a processor stands in `free` again, before them, because its
//! number is smaller. A payment that only one processor may get stands in that one's `bound`.

use std::collections::BTreeSet;
use wire::{PerProcessor, Processor};

/// Numbers the payments since the last purge, in the order in which they were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinal(pub u32);

/// Which payments wait. It knows nothing about them but their order.
#[derive(Debug, Default)]
pub struct Queue {
    /// All payments from here to `end` wait and were never touched.
    untouched: u32,
    end: u32,
    free: BTreeSet<u32>,
    bound: PerProcessor<BTreeSet<u32>>,
}

impl Queue {
    /// A queue of `end` payments of which all from `untouched` on wait and were never taken, and none of the others waits.
    #[must_use]
    pub fn of(untouched: Ordinal, end: Ordinal) -> Self {
        assert!(untouched <= end, "what was never taken comes last");
        Self { untouched: untouched.0, end: end.0, ..Self::default() }
    }

    /// Puts the next payment at the end.
    pub fn push(&mut self, ordinal: Ordinal) {
        assert_eq!(ordinal.0, self.end, "payments are numbered without a gap");
        self.end += 1;
    }

    /// Puts a payment that was dispatched before back to where its age says.
    pub fn put_back(&mut self, ordinal: Ordinal) {
        assert!(ordinal.0 < self.untouched, "only what was taken comes back");
        self.free.insert(ordinal.0);
    }

    /// Puts a payment where only `processor` gets it.
    pub fn bind(&mut self, ordinal: Ordinal, processor: Processor) {
        assert!(ordinal.0 < self.untouched, "only what was taken is bound");
        self.bound[processor].insert(ordinal.0);
    }

    /// Takes a payment out, wherever it waits. True when it did.
    pub fn take(&mut self, ordinal: Ordinal) -> bool {
        let number = ordinal.0;
        if number >= self.untouched {
            if number >= self.end {
                return false;
            }
            self.free.extend(self.untouched..number);
            self.untouched = number + 1;
            return true;
        }
        self.free.remove(&number)
            || Processor::BOTH.into_iter().any(|processor| self.bound[processor].remove(&number))
    }

    /// The oldest payment that may go to either processor.
    #[must_use]
    pub fn first_free(&self) -> Option<Ordinal> {
        let untouched = (self.untouched < self.end).then_some(self.untouched);
        self.free.first().copied().or(untouched).map(Ordinal)
    }

    /// The oldest payment after `after` that may go to either processor, else the oldest of all: for a round over them.
    #[must_use]
    pub fn next_free(&self, after: Option<Ordinal>) -> Option<Ordinal> {
        let Some(Ordinal(after)) = after else { return self.first_free() };
        let back = self.free.range(after.saturating_add(1)..).next().copied();
        let untouched = Some(self.untouched.max(after.saturating_add(1))).filter(|next| *next < self.end);
        back.or(untouched).map(Ordinal).or_else(|| self.first_free())
    }

    /// The oldest payment that may only go to `processor`.
    #[must_use]
    pub fn first_bound(&self, processor: Processor) -> Option<Ordinal> {
        self.bound[processor].first().copied().map(Ordinal)
    }

    /// The oldest payment after `after` that may only go to `processor`, else the oldest of all: for a round over them.
    #[must_use]
    pub fn next_bound(&self, processor: Processor, after: Option<Ordinal>) -> Option<Ordinal> {
        let later = after.and_then(|after| self.bound[processor].range(after.0 + 1..).next());
        later.copied().map(Ordinal).or_else(|| self.first_bound(processor))
    }

    /// How many may go to either processor.
    #[must_use]
    pub fn free_len(&self) -> usize {
        self.free.len() + (self.end - self.untouched) as usize
    }

    /// How many may only go to `processor`.
    #[must_use]
    pub fn bound_len(&self, processor: Processor) -> usize {
        self.bound[processor].len()
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free_len() == 0 && Processor::BOTH.into_iter().all(|processor| self.bound[processor].is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_payment_goes_before_younger_ones() {
        let mut queue = Queue::default();
        for number in 0..5 {
            queue.push(Ordinal(number));
        }
        for number in 0..3 {
            assert_eq!(queue.first_free(), Some(Ordinal(number)));
            assert!(queue.take(Ordinal(number)));
        }
        queue.put_back(Ordinal(1));
        assert_eq!((queue.first_free(), queue.free_len()), (Some(Ordinal(1)), 3));
        queue.bind(Ordinal(0), Processor::Fallback);
        assert_eq!(queue.first_bound(Processor::Fallback), Some(Ordinal(0)));
        assert_eq!(queue.first_bound(Processor::Default), None);
        assert!(queue.take(Ordinal(0)) && !queue.take(Ordinal(0)));
    }

    #[test]
    fn free_payments_go_round() {
        let mut queue = Queue::default();
        (0..5).for_each(|number| queue.push(Ordinal(number)));
        (0..3).for_each(|number| assert!(queue.take(Ordinal(number))));
        queue.put_back(Ordinal(1));
        let mut after = None;
        let mut round = Vec::new();
        for _ in 0..5 {
            after = queue.next_free(after);
            round.push(after.unwrap().0);
        }
        assert_eq!(round, [1, 3, 4, 1, 3]);
        assert_eq!(Queue::default().next_free(Some(Ordinal(7))), None);
    }

    #[test]
    fn taking_from_the_middle_leaves_the_older_ones_in_place() {
        let mut queue = Queue::default();
        for number in 0..4 {
            queue.push(Ordinal(number));
        }
        assert!(queue.take(Ordinal(2)));
        assert_eq!(queue.free_len(), 3);
        assert_eq!(queue.first_free(), Some(Ordinal(0)));
        assert!(!queue.take(Ordinal(2)) && !queue.take(Ordinal(4)));
    }
}
