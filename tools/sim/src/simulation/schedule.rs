//! What happens when: a queue of events in simulated time, ties in the order in which they were put there.

use std::collections::BTreeMap;

/// Events of type `E` by time.
#[derive(Debug)]
pub struct Schedule<E> {
    events: BTreeMap<(u64, u64), E>,
    next: u64,
    now_us: u64,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), next: 0, now_us: 0 }
    }
}

impl<E> Schedule<E> {
    /// The present, in microseconds from the start.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Lets something happen after so long.
    pub fn after(&mut self, delay_us: u64, event: E) {
        self.at(self.now_us + delay_us, event);
    }

    /// Lets something happen at a time, which is not before the present.
    pub fn at(&mut self, time_us: u64, event: E) {
        self.events.insert((time_us.max(self.now_us), self.next), event);
        self.next += 1;
    }

    /// When the next event is.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        self.events.first_key_value().map(|((time_us, _), _)| *time_us)
    }

    /// Lets time pass without an event; none may be before that time.
    pub fn wait_until(&mut self, time_us: u64) {
        assert!(self.next_us().is_none_or(|next| next >= time_us), "an event would be passed over");
        self.now_us = self.now_us.max(time_us);
    }

    /// Goes on to the next event.
    pub fn pop(&mut self) -> Option<E> {
        let ((time_us, _), event) = self.events.pop_first()?;
        self.now_us = time_us;
        Some(event)
    }
}
