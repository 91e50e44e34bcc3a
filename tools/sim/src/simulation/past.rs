//! Windows that are past do not change (`past_windows_never_change`), asked after each turn of the store.
//!
//! After a turn the newest window is looked for that is over: before it ends nothing is open or unknown, a tombstone's
//! attempt included, and nothing will be issued any more. By the next turn it must count what it counted, unless a turn
//! says why not: a row was adopted from a processor (with its own time, or a payment is proven charged of which nothing was
//! out), or everything was purged. Windows reach back to the beginning, so what changes an older one changes this one.

use std::collections::BTreeSet;
use store::core::Core;
use store::core::queue::Ordinal;
use store::core::record::{Record, Terms};
use wire::frame::Totals;
use wire::{Bounds, PerProcessor, Timestamp};

/// What was past after the last turn.
#[derive(Debug, Default)]
pub struct Past {
    last_issued: Option<Timestamp>,
    in_flight: BTreeSet<Ordinal>,
    window: Option<(Bounds, PerProcessor<Totals>)>,
}

impl Past {
    /// Another store begins, which may know less.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// What must hold after a turn that has recorded so much.
    pub fn check(&mut self, core: &Core, mut records: &[u8]) -> Result<(), String> {
        let mut is_excused = false;
        while !records.is_empty() {
            match Record::decode(&mut records).map_err(|error| format!("{error:?} in a turn's records"))? {
                Record::Intended { requested_at, .. } => {
                    self.last_issued = self.last_issued.max(Some(requested_at));
                }
                Record::Charged { ordinal, terms, .. } => {
                    is_excused |= terms != Terms::Ours || !self.in_flight.contains(&ordinal);
                }
                Record::Purged => is_excused = true,
                _ => (),
            }
        }
        let ledger = core.ledger();
        if let Some((bounds, before)) = self.window.take().filter(|_| !is_excused) {
            let now = ledger.summary.window(bounds);
            if now != before {
                let to = bounds.to.expect("it is past");
                return Err(format!("the window up to {to} is past, counted {before:?} and counts {now:?}"));
            }
        }
        let flights =
            ledger.flights().values().chain(ledger.tombstones().values().map(|tombstone| &tombstone.flight));
        let open = flights.map(|flight| flight.requested_at).chain(self.last_issued).min();
        let to = open.map(|open| Timestamp::from_ms(open.as_ms() - 1));
        self.window = self.last_issued.map(|_| {
            let bounds = Bounds { from: None, to };
            (bounds, ledger.summary.window(bounds))
        });
        self.in_flight = ledger.flights().keys().copied().collect();
        Ok(())
    }
}
