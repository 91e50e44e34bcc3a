//! Whose turn it is. Pure: no socket, no clock.
//!
//! The backend with the fewest requests in flight gets the next one; among equals it goes round. One that did not take
//! a connection is passed over for [`DOWN_MS`], but never when it is the last: trying it costs less than refusing a
//! client.

/// How long a backend that refused a connection is passed over. A Unix socket refuses at once, so this only saves
/// system calls.
pub const DOWN_MS: u64 = 50;

/// What the balancer knows of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that it has not answered yet.
    pub in_flight: usize,
    /// Until when it is passed over, in monotonic milliseconds.
    pub down_until_ms: u64,
}

/// Picks a backend that is not in `tried`. `turn` breaks ties and should grow by one each time.
#[must_use]
pub fn pick(loads: &[Load], tried: &[usize], turn: usize, now_ms: u64) -> Option<usize> {
    let count = loads.len();
    let candidates = || (0..count).map(|step| (turn + step) % count).filter(|at| !tried.contains(at));
    let is_up = |at: &usize| loads[*at].down_until_ms <= now_ms;
    let least =
        |candidates: &mut dyn Iterator<Item = usize>| candidates.min_by_key(|at| loads[*at].in_flight);
    least(&mut candidates().filter(is_up)).or_else(|| least(&mut candidates()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(in_flight: usize, down_until_ms: u64) -> Load {
        Load { in_flight, down_until_ms }
    }

    #[test]
    fn the_least_loaded_gets_it_and_equals_take_turns() {
        assert_eq!(pick(&[load(3, 0), load(1, 0)], &[], 0, 0), Some(1));
        let equals = [load(0, 0), load(0, 0)];
        assert_eq!([0, 1, 2].map(|turn| pick(&equals, &[], turn, 0)), [Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn one_that_is_down_is_passed_over_but_never_the_last() {
        let loads = [load(0, 100), load(9, 0)];
        assert_eq!(pick(&loads, &[], 0, 99), Some(1));
        assert_eq!(pick(&loads, &[], 0, 100), Some(0));
        assert_eq!(pick(&loads, &[1], 0, 99), Some(0));
        assert_eq!(pick(&loads, &[0, 1], 0, 99), None);
        assert_eq!(pick(&[], &[], 0, 0), None);
    }
}
