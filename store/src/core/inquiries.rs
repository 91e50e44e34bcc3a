//! When a processor may be asked for a payment with `GET`: that is for the few that are pinned, never a load.

use wire::{PerProcessor, Processor};

/// Inquiries that may be out at one processor.
const OPEN_MAX: usize = 4;

/// Between two inquiries at one processor, in microseconds.
const GAP_US: u64 = 5_000;

/// The pace of inquiries at each processor.
#[derive(Clone, Debug, Default)]
pub(super) struct Inquiries {
    asked_us: PerProcessor<u64>,
    /// A payment waits to be asked for, and there is room for that.
    waits: PerProcessor<bool>,
}

impl Inquiries {
    /// True when one may be made now. `waits` tells that there is a payment to ask for, `open` how many inquiries are out.
    pub(super) fn may_ask(&mut self, processor: Processor, waits: bool, open: usize, now_us: u64) -> bool {
        // Without room the end of an inquiry brings the next turn.
        self.waits[processor] = waits && open < OPEN_MAX;
        self.waits[processor] && now_us >= self.asked_us[processor] + GAP_US
    }

    pub(super) fn note_asked(&mut self, processor: Processor, now_us: u64) {
        self.asked_us[processor] = now_us;
    }

    /// True when one may be made within [`GAP_US`].
    pub(super) fn wait(&self) -> bool {
        self.waits.0.contains(&true)
    }
}
