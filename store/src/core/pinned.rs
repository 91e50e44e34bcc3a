//! Payments that only their processor can settle, while no call of theirs is out: when each is posted again, and when it
//! is asked for.
//!
//! ```text
//!   a call ends without proof --> rests --backoff over--> in the queue --lease--> a call is out
//!                                   '--- GET each second, until a POST goes out ---'
//! ```
//!
//! An answer that proves nothing (a gateway's 504, a reset) says nothing about the payment, so it is posted again, and
//! each time after a longer pause: [`RETRY_MIN_MS`] doubled up to [`RETRY_MAX_MS`]. The longest pause is a second, because
//! a pinned payment must be settled within two delays and a second of its processor's recovery (`pinned_settle_soon`). No missing
//! row and no time ever frees a payment: there is no rule for that here.
//!
//! Bounds: one entry of about 100 bytes for each payment in flight that has rested. Everything here dies with the process;
//! after a restart each payment in flight rests once more.

use super::queue::Ordinal;
use std::collections::{BTreeMap, BTreeSet};
use wire::{PerProcessor, Processor};

/// Pause before a payment is posted again whose last call ended without proof, in milliseconds.
const RETRY_MIN_MS: u64 = 100;

/// The longest such pause, in milliseconds (`pinned_settle_soon`).
const RETRY_MAX_MS: u64 = 1_000;

/// Between two inquiries about one payment, in milliseconds.
const INQUIRY_INTERVAL_MS: u64 = 1_000;

#[derive(Debug)]
struct Entry {
    processor: Processor,
    /// No call of it is out.
    rests: bool,
    /// When it may be asked for.
    ask_due_us: u64,
    /// When it goes back into the queue, while it waits for that.
    post_due_us: Option<u64>,
    /// Not posted again before that.
    retry_us: u64,
    /// Calls in a row that ended without proof.
    unproven: u32,
}

impl Entry {
    fn new(processor: Processor) -> Self {
        Self { processor, rests: false, ask_due_us: 0, post_due_us: None, retry_us: 0, unproven: 0 }
    }
}

/// The payments in flight, as far as they rest or have rested.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    entries: BTreeMap<Ordinal, Entry>,
    asks: PerProcessor<BTreeSet<(u64, Ordinal)>>,
    posts: BTreeSet<(u64, Ordinal)>,
}

impl Pinned {
    /// A payment in flight without a call. True when it may be posted now; otherwise [`Self::take_due`] returns it later, or,
    /// if it does not `repeat`, never.
    pub(super) fn rest(
        &mut self,
        ordinal: Ordinal,
        processor: Processor,
        repeats: bool,
        now_us: u64,
    ) -> bool {
        self.begin(ordinal);
        let entry = self.entries.entry(ordinal).or_insert(Entry::new(processor));
        entry.rests = true;
        self.asks[processor].insert((entry.ask_due_us, ordinal));
        let may_post = repeats && entry.retry_us <= now_us;
        if repeats && !may_post {
            entry.post_due_us = Some(entry.retry_us);
            self.posts.insert((entry.retry_us, ordinal));
        }
        may_post
    }

    /// A call of the payment is out.
    pub(super) fn begin(&mut self, ordinal: Ordinal) {
        let Some(entry) = self.entries.get_mut(&ordinal).filter(|entry| entry.rests) else { return };
        entry.rests = false;
        self.asks[entry.processor].remove(&(entry.ask_due_us, ordinal));
        if let Some(due_us) = entry.post_due_us.take() {
            self.posts.remove(&(due_us, ordinal));
        }
    }

    /// A call of the payment, which is in flight at `processor`, ended without proof: the next one waits.
    pub(super) fn note_unproven(&mut self, ordinal: Ordinal, processor: Processor, now_us: u64) {
        let entry = self.entries.entry(ordinal).or_insert(Entry::new(processor));
        let pause_ms = RETRY_MIN_MS.saturating_mul(1 << entry.unproven.min(8)).min(RETRY_MAX_MS);
        entry.retry_us = now_us + pause_ms * 1000;
        entry.unproven += 1;
    }

    /// A call of the payment ended with proof that this call charged nothing.
    pub(super) fn note_proof(&mut self, ordinal: Ordinal) {
        if let Some(entry) = self.entries.get_mut(&ordinal) {
            (entry.unproven, entry.retry_us) = (0, 0);
        }
    }

    /// The payments whose pause is over.
    pub(super) fn take_due(&mut self, now_us: u64) -> Vec<Ordinal> {
        let mut due = Vec::new();
        while let Some((_, ordinal)) = self.posts.first().copied().filter(|(due_us, _)| *due_us <= now_us) {
            self.posts.pop_first();
            if let Some(entry) = self.entries.get_mut(&ordinal) {
                entry.post_due_us = None;
            }
            due.push(ordinal);
        }
        due
    }

    /// When [`Self::take_due`] has something next, in microseconds.
    pub(super) fn next_due_us(&self) -> Option<u64> {
        self.posts.first().map(|(due_us, _)| *due_us)
    }

    /// How many payments that only this processor can settle have no call.
    pub(super) fn resting_len(&self, processor: Processor) -> usize {
        self.asks[processor].len()
    }

    /// The payment to ask this processor for: the one whose turn is longest due, if any is.
    pub(super) fn first_to_ask(&self, processor: Processor, now_us: u64) -> Option<Ordinal> {
        let first = self.asks[processor].first().filter(|(due_us, _)| *due_us <= now_us);
        first.map(|(_, ordinal)| *ordinal)
    }

    /// The payment is asked for now.
    pub(super) fn note_asked(&mut self, ordinal: Ordinal, now_us: u64) {
        let Some(entry) = self.entries.get_mut(&ordinal) else { return };
        let asks = &mut self.asks[entry.processor];
        asks.remove(&(entry.ask_due_us, ordinal));
        entry.ask_due_us = now_us + INQUIRY_INTERVAL_MS * 1000;
        if entry.rests {
            asks.insert((entry.ask_due_us, ordinal));
        }
    }

    /// The payment is in flight no more.
    pub(super) fn forget(&mut self, ordinal: Ordinal) {
        self.begin(ordinal);
        self.entries.remove(&ordinal);
    }

    /// No payment is in flight any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Processor = Processor::Default;
    const FIRST: Ordinal = Ordinal(0);

    /// Pauses after each of `ends` calls without proof, in milliseconds.
    fn pauses_ms(pinned: &mut Pinned, ends: u64) -> Vec<u64> {
        let mut now_us = 0;
        let pause = |_| {
            pinned.begin(FIRST);
            pinned.note_unproven(FIRST, HERE, now_us);
            assert!(!pinned.rest(FIRST, HERE, true, now_us));
            let due_us = pinned.next_due_us().unwrap();
            assert!(pinned.take_due(due_us - 1).is_empty());
            assert_eq!(pinned.take_due(due_us), [FIRST]);
            let pause_ms = (due_us - now_us) / 1000;
            now_us = due_us;
            pause_ms
        };
        (0..ends).map(pause).collect()
    }

    #[test]
    fn each_pause_is_twice_the_one_before_up_to_a_second() {
        let mut pinned = Pinned::default();
        assert_eq!(pauses_ms(&mut pinned, 6), [100, 200, 400, 800, 1_000, 1_000]);
        pinned.note_proof(FIRST);
        assert!(pinned.rest(FIRST, HERE, true, 0), "with proof there is no pause");
        assert_eq!(pauses_ms(&mut pinned, 2), [100, 200]);
    }

    #[test]
    fn a_payment_that_does_not_repeat_is_asked_for_each_second_and_never_due() {
        let mut pinned = Pinned::default();
        assert!(!pinned.rest(FIRST, HERE, false, 0));
        assert_eq!(pinned.next_due_us(), None);
        for second in 0..5 {
            let now_us = second * 1_000_000;
            assert_eq!(pinned.first_to_ask(HERE, now_us), Some(FIRST));
            assert_eq!(pinned.first_to_ask(HERE.other(), now_us), None);
            pinned.note_asked(FIRST, now_us);
            assert_eq!(pinned.first_to_ask(HERE, now_us + 999_999), None);
        }
        pinned.forget(FIRST);
        assert!(pinned.entries.is_empty() && pinned.asks.iter().all(|(_, asks)| asks.is_empty()));
    }

    #[test]
    fn payments_are_asked_for_in_turn_and_not_while_a_call_is_out() {
        let mut pinned = Pinned::default();
        for number in 0..3 {
            assert!(pinned.rest(Ordinal(number), HERE, true, 0));
        }
        pinned.begin(Ordinal(1));
        for (now_us, expected) in [(0, 0), (1, 2), (1_000_000, 0), (1_000_001, 2)] {
            assert_eq!(pinned.first_to_ask(HERE, now_us), Some(Ordinal(expected)));
            pinned.note_asked(Ordinal(expected), now_us);
        }
    }
}
