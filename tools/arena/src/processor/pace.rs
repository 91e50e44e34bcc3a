//! How fast the simulated database is: what one payment takes, and how many it gets through in a second.
//!
//! The database is a queue with one exit. Each payment takes the service time; and exits lie at least `1 / capacity`
//! apart, so that under more load than that the waiting grows as it would at the real one. Both are one addition for
//! each payment. The queue is bounded by the calls that the limiter lets run.

use std::time::Duration;
use tokio::time::Instant;

/// The speed of one database and where its queue ends.
#[derive(Debug)]
pub(super) struct Pace {
    service_time: Duration,
    exit_gap: Duration,
    last_exit: Option<Instant>,
}

impl Pace {
    /// `capacity` is in payments a second; none is without a bound.
    pub(super) fn new(service_time: Duration, capacity: Option<u32>) -> Self {
        let exit_gap = capacity.map_or(Duration::ZERO, |capacity| Duration::from_secs(1) / capacity.max(1));
        Self { service_time, exit_gap, last_exit: None }
    }

    /// True when no payment ever takes any time, so that neither clock nor timer is needed.
    pub(super) fn is_instant(&self) -> bool {
        self.service_time.is_zero() && self.exit_gap.is_zero()
    }

    /// When a payment that comes in `now` is recorded; `None` is at once.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Instant> {
        let undisturbed = now + self.service_time;
        let exit = self.last_exit.map_or(undisturbed, |last| undisturbed.max(last + self.exit_gap));
        self.last_exit = Some(exit);
        (exit > now).then_some(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payments_pass_undisturbed_below_the_capacity_and_queue_above_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(Duration::from_millis(1), Some(100));
        assert_eq!(pace.admit(at(0)), Some(at(1)));
        assert_eq!(pace.admit(at(0)), Some(at(11)));
        assert_eq!(pace.admit(at(5)), Some(at(21)));
        assert_eq!(pace.admit(at(100)), Some(at(101)));
    }

    #[test]
    fn an_unbounded_database_without_service_time_is_instant() {
        let mut pace = Pace::new(Duration::ZERO, None);
        assert!(pace.is_instant());
        assert_eq!(pace.admit(Instant::now()), None);
        assert!(!Pace::new(Duration::ZERO, Some(1)).is_instant());
        assert!(!Pace::new(Duration::from_millis(1), None).is_instant());
    }
}
