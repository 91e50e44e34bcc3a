//! The present, as the core wants it.

use crate::core::Now;
use std::time::{SystemTime, UNIX_EPOCH};
use wire::time::monotonic_us;

/// The present, from the host's clocks.
#[must_use]
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { us: monotonic_us(), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(0) }
}
