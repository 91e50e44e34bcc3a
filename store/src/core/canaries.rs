//! Which payments test a processor that fails.
//!
//! Canaries go round. A payment that a processor never answers properly, or refuses rightly, would otherwise keep the
//! circuit open for all others. While many payments are pinned to a failing processor, those are its canaries, and a free
//! payment is risked only once in [`FREE_INTERVAL_US`]: a canary without an answer becomes pinned, too.

use super::queue::{Ordinal, Queue};
use wire::{PerProcessor, Processor};

/// With so many payments pinned to a failing processor at rest, they are its canaries. Each is posted once a second at most,
/// so these alone make up the canaries of the router.
const PINNED_MIN: usize = 10;

/// Between two free payments that are risked as canaries of a processor with [`PINNED_MIN`] pinned ones, in microseconds.
const FREE_INTERVAL_US: u64 = 1_000_000;

/// The last canaries of each processor.
#[derive(Clone, Debug, Default)]
pub(super) struct Canaries {
    /// Among the payments that only this processor may get.
    bound: PerProcessor<Option<Ordinal>>,
    /// The next canary may be a free payment.
    free_is_next: PerProcessor<bool>,
    /// When the last free payment was left to be one.
    free_us: PerProcessor<u64>,
    /// Among the free payments, of a processor that refuses everything.
    refused: PerProcessor<Option<Ordinal>>,
}

impl Canaries {
    /// The next canary of a failing processor among the payments that only it may get; `None` leaves the turn to a free
    /// payment. `pinned` counts the payments at rest that are pinned to it.
    pub(super) fn next_bound(
        &mut self,
        processor: Processor,
        queue: &Queue,
        pinned: usize,
        now_us: u64,
    ) -> Option<Ordinal> {
        if std::mem::take(&mut self.free_is_next[processor]) && queue.first_free().is_some() {
            let may_risk = pinned < PINNED_MIN || now_us >= self.free_us[processor] + FREE_INTERVAL_US;
            if may_risk {
                self.free_us[processor] = now_us;
                return None;
            }
        }
        let next = queue.next_bound(processor, self.bound[processor]).or(queue.first_bound(processor));
        self.bound[processor] = next;
        self.free_is_next[processor] = true;
        next
    }

    /// The next canary of a processor that refuses everything, among the free payments.
    pub(super) fn next_refused(&mut self, processor: Processor, queue: &Queue) -> Option<Ordinal> {
        let next = queue.next_free(self.refused[processor]);
        self.refused[processor] = next;
        next
    }

    /// Forgets all payments, after a purge.
    pub(super) fn forget_payments(&mut self) {
        self.bound = PerProcessor::default();
        self.refused = PerProcessor::default();
    }
}
