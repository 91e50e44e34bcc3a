//! Numbers of the competition's own programs that no plan changes (docs/contract.md).

use std::time::Duration;

/// What a user of the judge sleeps after each answer, and after each failure.
pub const USER_PAUSE: Duration = Duration::from_secs(1);

/// Calls that a processor handles at once, delays included.
pub const RUNNING_MAX: usize = 800;

/// Calls that may wait at a processor for one of those places; one more gets 429.
pub const WAITING_MAX: usize = 500;
