//! How many bytes a process holds for its clients, and which client has to go when they are too many. Pure.
//!
//! Each connection has a [`Share`]: the bytes of memory that it takes beside its own few words, for a request that is
//! not complete, one that is being answered, or an answer that its client does not read. While a client is the one that
//! has to do something about it, its connection *waits* in the order in which it began to hold bytes; what the process
//! itself works on does not wait. When all shares together are more than the bound, the connection that has waited
//! longest is [the first to go](Budget::first_to_go), then the next one.
//!
//! A client that holds nothing takes no place here, so it is served however many others hold all they can.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

/// What one connection holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    bytes: usize,
    place: Option<NonZeroU64>,
}

/// All shares of a process; `T` is a connection.
#[derive(Debug)]
pub(crate) struct Budget<T> {
    bytes_max: usize,
    bytes: usize,
    /// The most that there ever were.
    bytes_peak: usize,
    waiting: BTreeMap<NonZeroU64, T>,
    next_place: NonZeroU64,
}

impl<T> Budget<T> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, bytes_peak: 0, waiting: BTreeMap::new(), next_place: NonZeroU64::MIN }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(crate) fn bytes_peak(&self) -> usize {
        self.bytes_peak
    }

    /// The share becomes so many bytes, and the process is the one that works on them.
    pub(crate) fn hold(&mut self, share: Share, bytes: usize) -> Share {
        self.leave(share);
        self.charge(share, bytes);
        Share { bytes, place: None }
    }

    /// The share becomes so many bytes, and they wait for the client of `owner`. A connection that waits already keeps its
    /// place.
    pub(crate) fn wait(&mut self, share: Share, bytes: usize, owner: impl FnOnce() -> T) -> Share {
        self.charge(share, bytes);
        let place = share.place.unwrap_or_else(|| {
            let place = self.next_place;
            self.next_place = place.saturating_add(1);
            self.waiting.insert(place, owner());
            place
        });
        Share { bytes, place: Some(place) }
    }

    /// The share is given back.
    pub(crate) fn give_back(&mut self, share: Share) {
        self.leave(share);
        self.charge(share, 0);
    }

    fn leave(&mut self, share: Share) {
        if let Some(place) = share.place {
            self.waiting.remove(&place);
        }
    }

    fn charge(&mut self, share: Share, bytes: usize) {
        self.bytes = self.bytes - share.bytes + bytes;
    }

    /// The bound for a request that comes alone, and for all that waits; or for a request of a client that holds more than
    /// one: a quarter stays for those that hold nothing.
    pub(crate) fn bound(&self, is_alone: bool) -> usize {
        if is_alone { self.bytes_max } else { self.bytes_max - self.bytes_max / 4 }
    }

    /// The connection that has waited longest, if bytes have to be given back to keep a bound.
    pub(crate) fn first_to_go(&self, bound: usize) -> Option<&T> {
        let is_over = self.bytes > bound;
        is_over.then(|| self.waiting.first_key_value()).flatten().map(|(_, owner)| owner)
    }

    /// All has been done about the bound that could be done.
    pub(crate) fn note_peak(&mut self) {
        self.bytes_peak = self.bytes_peak.max(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_client_that_has_held_bytes_longest_is_the_first_to_go() {
        let mut budget = Budget::new(100);
        let first = budget.wait(Share::default(), 40, || "first");
        let second = budget.wait(Share::default(), 40, || "second");
        // It goes on holding more and keeps its place.
        let first = budget.wait(first, 60, || unreachable!("it has a place"));
        assert_eq!((budget.bytes(), budget.first_to_go(100)), (100, None));
        let third = budget.wait(Share::default(), 1, || "third");
        assert_eq!((budget.bytes() > 100, budget.first_to_go(100)), (true, Some(&"first")));
        budget.give_back(first);
        assert_eq!((budget.bytes(), budget.bytes() > 100, budget.first_to_go(100)), (41, false, None));
        // What the process works on is not given back.
        let second = budget.hold(second, 200);
        assert_eq!(budget.first_to_go(100), Some(&"third"));
        budget.give_back(third);
        assert_eq!((budget.bytes() > 100, budget.first_to_go(100)), (true, None));
        let second = budget.wait(second, 101, || "second again");
        assert_eq!(budget.first_to_go(100), Some(&"second again"));
        budget.give_back(second);
        assert_eq!((budget.bytes(), budget.waiting.len()), (0, 0));
        assert_eq!([true, false].map(|is_alone| budget.bound(is_alone)), [100, 75]);
    }

    proptest! {
        /// Whatever connections do: the sum is that of their shares, those that wait are those with a place, and after the
        /// first ones have gone the bound holds unless the process itself works on more.
        #[test]
        fn the_sum_is_that_of_all_shares(
            steps in prop::collection::vec((0..6_usize, 0..3_u8, 0..60_usize), 0..60),
        ) {
            let mut budget = Budget::new(100);
            let mut shares = [Share::default(); 6];
            for (at, step, bytes) in steps {
                shares[at] = match step {
                    0 => budget.hold(shares[at], bytes),
                    1 => budget.wait(shares[at], bytes, || at),
                    _ => {
                        budget.give_back(shares[at]);
                        Share::default()
                    }
                };
                while let Some(at) = budget.first_to_go(100).copied() {
                    budget.give_back(std::mem::take(&mut shares[at]));
                }
                prop_assert_eq!(budget.bytes(), shares.iter().map(|share| share.bytes).sum::<usize>());
                let waiting: Vec<NonZeroU64> = shares.iter().filter_map(|share| share.place).collect();
                prop_assert_eq!(budget.waiting.len(), waiting.len());
                prop_assert!(waiting.iter().all(|place| budget.waiting.contains_key(place)));
                prop_assert!(budget.bytes() <= 100 || waiting.is_empty());
            }
        }
    }
}
